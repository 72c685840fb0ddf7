"""docs/operations.md: its commands parse, and its backup is restored, rights and sealed sets included."""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from doc_pages import Page, parse
from reference_pages.database_pages import rights_page

from easeml_core.store import roles
from easeml_core.store.artifacts.local import ArtifactStore
from easeml_core.store.database import Store
from easeml_core.store.server.place import PROGRAMS, installed_site

PAGE = Page("operations.md", without=("Faults that are injected", "Notifications", "A mirror in MLflow"))
BACKUP, BY_HAND, RESTORE, RESTORE_BY_HAND = re.findall(r"```sh\n(.*?)```", PAGE.text, re.DOTALL)
TREE = [{"name": "tree", "kind": "decision_tree"}]
_TABLES = "SELECT schemaname || '.' || relname FROM pg_stat_user_tables ORDER BY 1"


def in_ticks(kind: str) -> list[str]:
    found = [m.replace(" ...", "") for m in re.findall(r"`(easeml [^`]+)`", PAGE.text)]
    return sorted({c for c in found if len(c.split()) > 1 and kind in c})


@pytest.mark.parametrize("words", in_ticks("easeml"))
def test_every_command_named_is_there(words: str) -> None:
    import click

    from easeml_core.cli.app import cli

    group: click.Command = cli
    for word in words.split()[1:]:
        if word.startswith("-") or word.isupper() or not isinstance(group, click.Group):
            break
        found = group.get_command(click.Context(group), word)
        assert found is not None, words
        group = found


def test_a_whole_command_parses() -> None:
    assert parse("easeml db url --role easeml_owner")["role"] == "easeml_owner"


def test_removal_names_every_role_of_ours() -> None:
    removal = PAGE.text.partition("## Removal\n")[2].partition("\n## ")[0]
    named = re.findall(r"easeml_\w+", " ".join(re.findall(r"DROP ROLE ([^;]*);", removal)))
    assert sorted(named) == sorted({*roles.LIMITS, roles.TENANT, roles.VIEWER, roles.PERSON})


def run(script: str, folder: Path, **variables: str) -> None:
    """Run a block of the page in a folder, with the programs of the wheel, under the umask that most accounts have."""
    programs = f"{Path(sys.executable).parent}:{installed_site() / PROGRAMS}"
    environment = {"PATH": f"{programs}:/usr/bin:/bin", "LC_ALL": "C", **variables}
    done = subprocess.run(
        ["sh", "-eu", "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        umask=0o022,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def content(server: Any, name: str) -> dict[str, list[Any]]:
    """All rows of all tables, as text."""
    with closing(server.connect(database=name)) as opened, opened.cursor() as cursor:
        cursor.execute(_TABLES)
        found = {}
        for (table,) in cursor.fetchall():
            cursor.execute(f"SELECT t::text FROM {table} t ORDER BY 1")
            found[table] = cursor.fetchall()
        return found


def libpq(url: str) -> str:
    return url.replace("+psycopg2", "")


def train_and_ask(worker: Store, artifacts: ArtifactStore) -> int:
    """Train one trial of the study, and ask the gate about its model; the request's number."""
    from easeml_core.services.referee.requests import file_gate_request
    from easeml_core.services.trials.worker import run_device

    run_device(worker, artifacts, device=None, request_key="device", max_trials=1)
    return int(file_gate_request(worker, study="cancer", request_key="gate"))


@pytest.mark.journey
def test_a_restored_installation_goes_on(
    database: Any, server: Any, artifacts: ArtifactStore, make_study: Any, tmp_path: Path
) -> None:
    from easeml_core.services.referee.process import Referee
    from easeml_core.services.referee.requests import answer_of

    make_study("cancer", candidates=TREE)
    asked = train_and_ask(database.worker, artifacts)
    kept = {"FOLDER": str(tmp_path / "kept"), "OWNER": database.url("easeml_owner")}
    run(BACKUP, tmp_path, ARTIFACTS=str(artifacts.root), **kept)
    run(BY_HAND, tmp_path, ARTIFACTS=str(artifacts.root), OWNER=libpq(database.url("easeml_owner")))
    for path in (*(tmp_path / "kept").iterdir(), tmp_path / "easeml.dump", tmp_path / "artifacts.tar"):
        assert path.stat().st_mode & 0o077 == 0, path

    name, place = f"{database.name}_restored", tmp_path / "elsewhere"
    server.create_database_from_template(name, "easeml")
    try:
        run(RESTORE, tmp_path, **kept | {"OWNER": server.url("easeml_owner", name)}, ARTIFACTS=str(place))
        before, after = content(server, database.name), content(server, name)
        moved = before.pop("work.artifact_store"), after.pop("work.artifact_store")
        assert moved[0] != moved[1]  # the restored installation uses the place that its artifacts were unpacked to
        assert after == before
        assert rights(server, name) == rights(server, database.name)
        referee = Store(server.url("easeml_referee", name))
        try:
            Referee(referee, ArtifactStore(place)).run_once()  # what was asked before the dump is answered
            answer = answer_of(referee, asked)
            assert answer is not None
            assert answer.symbol in ("pass", "fail")
        finally:
            referee.close()
        run(RESTORE_BY_HAND, tmp_path, OWNER=libpq(server.url("easeml_owner", name)))
        assert content(server, name) == content(server, database.name)
    finally:
        server.drop_database(name)


def rights(server: Any, name: str) -> str:
    """The page of rights of a database."""
    with closing(server.connect(database=name)) as opened:
        return rights_page(opened)
