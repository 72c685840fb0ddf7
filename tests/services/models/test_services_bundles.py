"""Production's bundle follows a tag: real repositories, real promotions, and everything that can be wrong with them."""

from __future__ import annotations

import logging
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from easeml_core.errors import InvalidInputError, StateError
from easeml_core.services.models import dag_bundles
from easeml_core.services.models.dag_bundles import (
    SyncedTag,
    commit_of,
    move_tag,
    parse_repositories,
    production_tag,
    sync_bundle_tags,
    tag_target,
)
from easeml_core.store.tables import models, studies

if TYPE_CHECKING:
    from collections.abc import Callable

TAG = "easeml/production/full"


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run git in a new repository."""
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / "dags"

    def run(*arguments: str, check: bool = True) -> str:
        identity = ("-c", "user.name=x", "-c", "user.email=x@localhost", "-c", "commit.gpgsign=false")
        done = subprocess.run(
            ["git", "-C", str(folder), *identity, *arguments], capture_output=True, text=True, check=check
        )
        return done.stdout.strip()

    folder.mkdir()
    run("init", "-q", "-b", "main")
    return run


@pytest.fixture
def dags(tmp_path: Path, git: Any) -> Path:
    return tmp_path / "dags"


@pytest.fixture
def commits(git: Any) -> list[str]:
    """Three versions of the DAGs."""
    for n in range(3):
        git("commit", "-q", "--allow-empty", "-m", f"version {n}")
    return list(reversed(git("log", "--format=%H").split()))


@pytest.fixture
def promote(lab: Any, tmp_path: Path) -> Callable[..., int]:
    """Let a model that was handed in with a version of the bundle be in production, whatever a gate says; its id."""

    def run(version: str | None, *, bundle: str = "dags") -> int:
        path, number = tmp_path / "model", lab.one("SELECT max(id) FROM work.models")
        path.write_text('{"label": 0}' + " " * number)
        artifact = lab.artifacts.of_tenant("lab").put(path)
        with lab.worker.begin() as tx:
            version_id = studies.latest_data_version(tx, 1).id
            given = {"format": "constant", "artifact": artifact, "validation_loss": 0.5, "submitted": True}
            model_id = models.add_model(tx, study_id=1, data_version_id=version_id, trial_id=None, **given)
            said = {
                "kind": "bundle" if version else "artifact",
                "message": "better",
                "bundle": bundle if version else None,
            }
            said |= {"bundle_version": version, "study": "full", "request_key": lab.key()}
            models.add_submission(tx, study_id=1, model_id=model_id, **said)
        if not lab.rows("SELECT 1 FROM work.production"):
            assert lab.promote(lab.gate("good").request_id).promoted
        stand(lab, model_id)
        return int(model_id)

    return run


def stand(lab: Any, model_id: int) -> None:
    lab.as_superuser("SET session_replication_role = replica; UPDATE work.production SET model_id = %s", model_id)


def test_the_tag_follows_promotion_and_rollback(
    lab: Any, dags: Path, commits: list[str], promote: Any, caplog: Any
) -> None:
    caplog.set_level(logging.INFO, "easeml_core")
    assert sync_bundle_tags(lab.referee, {"dags": dags}) == []
    first = promote(commits[0])
    (found,) = sync_bundle_tags(lab.referee, {"dags": dags})
    entry = {"study": "full", "bundle": "dags", "version": commits[0], "tag": TAG, "error": None}
    assert found == SyncedTag(**entry, moved=True)
    assert tag_target(dags, TAG) == commits[0]
    assert f"tag {TAG} of bundle dags: {commits[0]}, model {first} " in caplog.text
    assert sync_bundle_tags(lab.referee, {"dags": dags}) == [SyncedTag(**entry, moved=False)]

    promote(commits[2])
    assert sync_bundle_tags(lab.referee, {"dags": dags})[0].moved
    assert tag_target(dags, TAG) == commits[2]
    stand(lab, first)
    assert sync_bundle_tags(lab.referee, {"dags": dags})[0].moved
    assert tag_target(dags, TAG) == commits[0]


def test_a_hand_that_moved_the_tag_is_made_good(lab: Any, dags: Path, git: Any, commits: list[str], promote: Any):
    promote(commits[1][:9])
    git("tag", "-a", "-m", "by hand", TAG, commits[2])
    (found,) = sync_bundle_tags(lab.referee, {"dags": dags})
    assert (found.moved, found.version) == (True, commits[1])
    git("tag", "-d", TAG)
    assert sync_bundle_tags(lab.referee, {"dags": dags})[0].moved
    assert git("rev-parse", f"refs/tags/{TAG}") == commits[1]


def test_other_bundles_and_models_without_one_are_left_alone(
    lab: Any, dags: Path, commits: list[str], promote: Any
) -> None:
    promote(commits[0], bundle="others")
    assert sync_bundle_tags(lab.referee, {"dags": dags}) == []
    assert sync_bundle_tags(lab.referee, {}) == []
    promote(commits[1])
    sync_bundle_tags(lab.referee, {"dags": dags})
    promote(None)
    assert sync_bundle_tags(lab.referee, {"dags": dags}) == []
    assert tag_target(dags, TAG) == commits[1]


def test_a_version_that_is_not_there_is_named_and_stops_nothing(
    lab: Any, dags: Path, commits: list[str], promote: Any, caplog: Any, tmp_path: Path
) -> None:
    absent = "0123456789abcdef0123456789abcdef01234567"
    promote(absent)
    (found,) = sync_bundle_tags(lab.referee, {"dags": dags})
    assert not found.moved
    assert f"no commit {absent} in {dags}" in found.error
    assert tag_target(dags, TAG) is None
    assert f"old version, {absent} is not" in caplog.text
    (tmp_path / "file").touch()
    for place in (tmp_path / "nowhere", tmp_path / "file", tmp_path):
        assert sync_bundle_tags(lab.referee, {"dags": place})[0].error


def test_the_database_can_be_read_by_any_role(lab: Any, dags: Path, commits: list[str], promote: Any) -> None:
    promote(commits[0])
    assert sync_bundle_tags(lab.worker, {"dags": dags})[0].moved


def test_commits_are_found_by_their_own_digits_only(dags: Path, git: Any, commits: list[str]) -> None:
    assert commit_of(dags, commits[0]) == commit_of(dags, commits[0][:7]) == commits[0]
    fake = "abcdef0"
    git("branch", fake, commits[0])
    git("tag", "-a", "-m", "x", "annotated", commits[0])
    blob = git("rev-parse", "annotated")
    tree = git("rev-parse", f"{commits[0]}^{{tree}}")
    for version in (fake, tree, blob, "0" * 40):
        with pytest.raises(StateError, match=f"no commit {version}"):
            commit_of(dags, version)


def test_of_two_that_move_a_tag_one_gives_way(
    dags: Path, git: Any, commits: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    move_tag(dags, TAG, commits[0], message="first")
    real = dag_bundles._git

    def meddle(repository: Path, *arguments: str) -> Any:
        if arguments[0] == "update-ref":
            git("update-ref", f"refs/tags/{TAG}", commits[2])
        return real(repository, *arguments)

    monkeypatch.setattr(dag_bundles, "_git", meddle)
    with pytest.raises(StateError, match=f"{TAG} .* moved to {commits[1]}"):
        move_tag(dags, TAG, commits[1], message="second")
    assert tag_target(dags, TAG) == commits[2]


def test_a_repository_runs_nothing(dags: Path, commits: list[str]) -> None:
    hook = dags / ".git" / "hooks" / "reference-transaction"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\ntouch ran\nexit 1\n")
    hook.chmod(0o755)
    assert move_tag(dags, TAG, commits[0], message="x")
    assert not [p for p in dags.rglob("ran")]


def test_a_bare_repository_that_cannot_be_written_is_named(
    tmp_path: Path, dags: Path, git: Any, commits: list[str]
) -> None:
    bare = tmp_path / "bare.git"
    git("clone", "-q", "--bare", str(dags), str(bare))
    assert move_tag(bare, TAG, commits[0], message="x")
    (bare / "refs/tags/easeml/production/full.lock").touch()
    with pytest.raises(StateError, match="cannot be moved"):
        move_tag(bare, TAG, commits[1], message="x")
    assert tag_target(bare, TAG) == commits[0]


def test_a_name_that_git_does_not_take_is_refused(dags: Path, commits: list[str]) -> None:
    for study in ("a..b", "x.lock", "dot."):
        with pytest.raises(InvalidInputError, match="no name that"):
            move_tag(dags, production_tag(study), commits[0], message="x")


def test_a_tag_below_the_name_does_not_stand_for_it(dags: Path, git: Any, commits: list[str]) -> None:
    """A user who may push could make one; the tag of production is then missing, which must be reported."""
    git("tag", f"{TAG}/other", commits[0])
    assert tag_target(dags, TAG) is None
    with pytest.raises(StateError, match=f"{TAG} .* cannot be moved"):
        move_tag(dags, TAG, commits[0], message="x")


def test_without_git_the_error_says_so(dags: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.devnull)
    with pytest.raises(StateError, match="install git"):
        tag_target(dags, TAG)


def test_bundles_on_the_command_line() -> None:
    assert parse_repositories(["dags=/srv/dags.git", "b=x=y"]) == {"dags": Path("/srv/dags.git"), "b": Path("x=y")}
    for words in (["dags"], ["dags="], ["=x"], ["a/b=x"], ["a=x", "a=y"]):
        with pytest.raises(InvalidInputError, match="NAME=PATH"):
            parse_repositories(words)
