"""A git repository with a DAG that makes a model, of which developers push versions and production follows a tag."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from stack.git_bundles import GitBundle

if TYPE_CHECKING:
    from pathlib import Path

CANDIDATE, PRODUCTION = "tumours_candidate", "tumours"
TAG = f"easeml/production/{PRODUCTION}"
GOOD, BAD = 20.0, 1.0
"""Below which value of the first column a version of the DAG calls a row 1."""

DAG_FILE = '''
"""Makes a model; a developer's copy hands it in, and production uses it."""
import os
import tempfile
from pathlib import Path

import pendulum
from airflow.sdk import DAG, task

from easeml_airflow.operators import SubmitModelOperator

CUT = {cut}
candidate = "candidates" in Path(__file__).parts

with DAG("tumours_candidate" if candidate else "tumours", schedule=None, start_date=pendulum.datetime(2026, 1, 1)):

    @task
    def cut():
        return CUT

    @task
    def train(below):
        folder = Path(tempfile.mkdtemp(dir=os.environ["AIRFLOW_HOME"]))
        program = "import numpy as np; print(*np.where(np.load('inputs.npy')[:, 0] < {{}}, 1, 0))"
        (folder / "predict.py").write_text(program.format(below))
        return str(folder)

    trained = train(cut())
    if candidate:
        SubmitModelOperator(
            task_id="hand_in",
            study="tumours",
            path=trained,
            format="command",
            command="python predict.py",
            message="{{{{ dag_run.run_id }}}}",
            bundle="candidates",
        )
'''


class Developer:
    """A repository, and a clone of it from which somebody pushes.

    Attributes:
        repository: The folder of the repository.
        first: Its first commit, tagged by hand: Airflow cannot follow a tag that is not there.
    """

    def __init__(self, folder: Path) -> None:
        self.repository, self._clone = folder / "models.git", folder / "clone"
        git("init", "-q", "--bare", "-b", "main", self.repository)
        git("-C", self.repository, "config", "core.logAllRefUpdates", "always")  # tags too: their log tells every move
        git("clone", "-q", self.repository, self._clone)
        self.first = self.push(BAD, "first")
        git("-C", self.repository, "tag", TAG, self.first)

    def push(self, cut: float, message: str) -> str:
        """Push a version of the DAG; its commit."""
        (self._clone / "tumours.py").write_text(DAG_FILE.format(cut=cut))
        git("-C", self._clone, "add", "tumours.py")
        git("-C", self._clone, "commit", "-q", "--allow-empty", "-m", message)
        git("-C", self._clone, "push", "-q", "origin", "HEAD:main")
        return git("-C", self._clone, "rev-parse", "HEAD")

    def bundles(self) -> list[GitBundle]:
        """What Airflow reads: what is pushed, and what is in production."""
        followed = (("candidates", "main"), ("production", TAG))
        return [GitBundle(name, self.repository, ref, 1) for name, ref in followed]


def git(*words: object) -> str:
    environment = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    command = ["git", "-c", "user.name=x", "-c", "user.email=x@localhost", *map(str, words)]
    return subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
