"""The recipes of docs/examples/ci: their steps run as a runner runs them, with a tenant's login and a referee."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from easeml_core.client.installation import open_artifacts
from easeml_core.models.formats import save_constant
from easeml_core.services.studies.logins import make_login
from easeml_core.store.database import Store

if TYPE_CHECKING:
    from collections.abc import Callable

RECIPES = Path(__file__).resolve().parents[2] / "docs" / "examples" / "ci"
COMMIT = "4f2a9c0"


def recipe(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((RECIPES / name).read_text(encoding="utf-8"))
    return found


def steps_of(job: str) -> list[str]:
    """Return the commands of a job, which are the same in both recipes but for the commit's variable.

    In GitLab another job trains, and hands the files on.
    """
    gitlab = recipe("gitlab-ci.yml")
    shown = [step["run"] for step in recipe("github-actions.yml")["jobs"][job]["steps"] if "run" in step]
    assert gitlab[job]["needs"] == ["train"]
    also = [*gitlab["default"]["before_script"], *gitlab["train"]["script"], *gitlab[job]["script"]]
    assert shown == [line.replace("CI_COMMIT_SHA", "COMMIT") for line in also]
    return [line for line in shown if not line.startswith("pip install")]


@pytest.fixture
def runner(tmp_path: Path, database: Any, artifacts: Any, make_study: Any) -> Callable[..., Any]:
    """Run lines in a checkout of the example, with the address of the tenant's login and nothing else of ours."""
    make_study(gate={"condition": "n - o > 0 +/- 0.3", "reliability": 0.9, "adaptivity": "full", "steps": 3})
    open_artifacts(str(artifacts.root), database.worker)
    administrator = Store(database.url("postgres"))
    made = make_login(administrator, name="lab", tenants=["lab"])
    administrator.close()
    folder = shutil.copytree(RECIPES, tmp_path / "checkout")
    url = database.owner.address_of(made.login.login, made.password)
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "EASEML_DATABASE_URL": url,
    }

    def run(*lines: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = ["bash", "-e", "-c", "\n".join(lines)]
        return subprocess.run(
            command, cwd=folder, env={**environment, **more}, capture_output=True, text=True, check=False
        )

    return run


@pytest.mark.parametrize("job", ["gate", "public-comparison"])
def test_both_recipes_do_the_same(job: str) -> None:
    assert steps_of(job)[0] == "python train.py"


def test_the_commit_that_is_trained_is_the_one_that_is_named() -> None:
    job = recipe("github-actions.yml")["jobs"]["gate"]
    assert "pull_request.head.sha" in job["env"]["COMMIT"]
    (checkout,) = [step for step in job["steps"] if step.get("uses", "").startswith("actions/checkout")]
    assert checkout["with"] == {"ref": "${{ env.COMMIT }}"}  # without it: a merge commit of GitHub's


def test_the_training_does_not_get_the_secret() -> None:
    github = recipe("github-actions.yml")
    reached = [step for job in github["jobs"].values() for step in job["steps"] if "secrets." in str(step)]
    assert [step["run"].split()[0] for step in reached] == ["./gate.sh"]
    assert str(github).count("secrets.") == 1
    gitlab = recipe("gitlab-ci.yml")
    scoped = [job for job in gitlab.values() if "environment" in job]
    assert [(job["environment"], job["script"][0].split()[0]) for job in scoped] == [
        ({"name": "easeml", "action": "access"}, "./gate.sh")
    ]
    assert len(scoped[0]["script"]) == 1


@pytest.mark.nightly
def test_a_commit_gets_one_symbol_and_no_other_on_a_second_run(runner: Any, referee: None, tmp_path: Path) -> None:
    first = runner(*steps_of("gate"), COMMIT=COMMIT)
    assert first.returncode == 0, first.stderr
    assert "step 1 of 3: pass" in first.stdout
    again = runner(*steps_of("gate"), COMMIT=COMMIT)  # it trains once more, and submits the same file
    assert (again.returncode, "step 1 of 3: pass" in again.stdout) == (0, True)

    gate = steps_of("gate")[-1]
    save_constant(tmp_path / "checkout" / "model.skops", 0)
    worse = runner(gate.replace(" skops ", " constant "), COMMIT="0badbad")
    assert (worse.returncode, "step 2 of 3: fail" in worse.stdout) == (1, True), worse.stderr
    mixed = runner(gate.replace(" skops ", " constant "), COMMIT=COMMIT)
    assert (mixed.returncode, "handed in something" in mixed.stderr) == (2, True)


@pytest.mark.nightly
def test_no_answer_in_time_is_no_fail_and_public_predictions_need_no_database(runner: Any) -> None:
    public = runner(*steps_of("public-comparison"), EASEML_DATABASE_URL="")
    assert (public.returncode, public.stdout) == (0, "pass\n"), public.stderr
    late = runner(steps_of("gate")[-1], COMMIT=COMMIT, EASEML_WAIT="0.5")
    assert (late.returncode, "no answer to" in late.stderr) == (2, True), late.stderr
    away = runner(steps_of("gate")[-1], COMMIT=COMMIT, EASEML_DATABASE_URL="postgresql://x:y@localhost:1/easeml")
    assert (away.returncode, away.stdout) == (2, "")
