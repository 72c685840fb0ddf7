"""docs/install.md and submissions.md: what can be run without a stack is run, on a real database."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from any_tenant import AnyTenant
from click.testing import CliRunner
from snippets import BLOCKS, Block, calls

from easeml_core.cli.app import cli
from easeml_core.data.parts import load_open_parts
from easeml_core.data.sources.load import load_source
from easeml_core.services.operations.example_dags import example_dags
from easeml_core.services.referee.process import Referee
from easeml_core.store.tables import studies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from easeml_core.store.artifacts.local import ArtifactStore

pytestmark = pytest.mark.journey

KINDS = ("setosa", "versicolor", "virginica")


def block(page: str, start: str) -> Block:
    (found,) = [b for b in BLOCKS if b.page == page and b.text.startswith(start)]
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the reader of a page is: no installation yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


@pytest.fixture
def artifacts(folder: Path) -> ArtifactStore:
    """Where an installation in that folder keeps them."""
    return AnyTenant(folder / ".easeml" / "artifacts")


@pytest.fixture
def run(database: Any, folder: Path, artifacts: ArtifactStore) -> Iterator[Callable[..., str]]:
    """Run a call as the worker, beside a referee; what it prints."""
    data, stop = folder / ".easeml" / "data", threading.Event()
    data.mkdir(parents=True)
    referee = Referee(database.referee, artifacts, data=data, poll_seconds=0.1)
    worker = threading.Thread(target=referee.run, args=(stop,))
    worker.start()

    def call(words: list[str], *allowed: int) -> str:
        place = {"EASEML_DATABASE_URL": database.url("easeml_worker")}
        done = CliRunner().invoke(cli, words[1:], env=place, catch_exceptions=False)
        assert done.exit_code in (allowed or (0,)), f"{words}: {done.output}"
        return " ".join(done.stdout.split())

    yield call
    stop.set()
    worker.join(timeout=60)
    assert not worker.is_alive()


def write_flowers(folder: Path) -> None:
    """A table of 572 flowers, as many as the page asks for, near to those of the iris data; and rows to ask about."""
    table, rng = load_source("sklearn:iris"), np.random.default_rng(0)
    chosen = rng.permutation(np.resize(np.arange(len(table.labels)), 572))
    values = table.inputs[chosen] + rng.normal(0, 0.02, (572, 4))
    names = [name.replace(" ", "_") for name in table.feature_names]
    rows = [[*map(str, v), KINDS[k]] for v, k in zip(values.round(6), table.labels[chosen], strict=True)]
    (folder / "flowers.csv").write_text("\n".join(map(",".join, [[*names, "species"], *rows])) + "\n")
    (folder / "new.csv").write_text("\n".join(map(",".join, [names, *(row[:4] for row in rows[:3])])) + "\n")


def test_without_airflow_the_page_leads_from_a_file_to_a_model_in_production(run: Any, folder: Path) -> None:
    write_flowers(folder)
    printed: dict[str, str] = {}
    for words in calls(block("install.md", "mkdir -p").text):
        if words[0] == "mkdir":
            (folder / words[2]).mkdir(parents=True)
        elif words[0] == "cp":
            shutil.copy(folder / words[1], folder / words[2])
        else:
            if words[:3] == ["easeml", "device", "run"]:
                words = [*words, "--max-trials", "1"]  # the page lets it end by itself, which takes a minute
            if words[:3] == ["easeml", "model", "promote"]:  # "the number that the gate has named"
                named = re.search(r"easeml model promote flowers (\d+)", printed["gate ask"])
                assert named is not None, printed["gate ask"]
                words = [*words[:-1], named[1]]
            printed[" ".join(words[1:3])] = run(words)
    assert "study flowers is active" in printed["study register"]
    assert "is in production for study flowers" in printed["model promote"]
    assert all(kind in " ".join(KINDS) for kind in re.findall(r"setosa|versicolor|virginica", printed["infer flowers"]))


@pytest.fixture
def work(folder: Path, make_study: Any) -> Path:
    """A study that has a model, and what its developer has written: a tree, and the page's program."""
    from sklearn.pipeline import make_pipeline
    from sklearn.tree import DecisionTreeClassifier
    from skops.io import dump

    make_study("flowers", candidates=[{"name": "bayes", "kind": "gaussian_naive_bayes"}])
    table = load_source("sklearn:breast_cancer")
    tree = make_pipeline(DecisionTreeClassifier(max_depth=6, random_state=0)).fit(table.inputs, table.labels)
    dump(tree, folder / "model.skops")
    (folder / "my_model").mkdir()
    (folder / "my_model" / "predict.py").write_text(block("submissions.md", "import numpy").text)
    return folder


def test_what_the_page_hands_in_is_taken_and_judged(work: Path, run: Any) -> None:
    handed_in = block("submissions.md", "easeml submit model.skops")
    first, second, listed = [run(words, 0, 1) for words in calls(handed_in.text)]
    assert "the gate is asked" in first
    assert re.search(r"\b(pass|fail)\b", second)
    assert all(message in listed for message in ("deeper trees", "our own code"))
    (asked,) = calls(block("submissions.md", "easeml gate ask").text)
    model = json.loads(run(["easeml", "submissions", "--study", "flowers", "--json"]))[0]["model_id"]
    told = [run([str(model) if word == "7" else word for word in asked], 0, 1) for _ in range(2)]
    assert told[0] == told[1]


def test_a_folder_with_a_manifest_says_how_it_is_run(
    work: Path, run: Any, database: Any, artifacts: ArtifactStore
) -> None:
    (work / "my_model" / "command.json").write_text(block("submissions.md", '{"command"').text)
    words = ["easeml", "submit", "my_model/", "--study", "flowers", "--format", "command", "-m", "x", "--no-gate"]
    told = re.findall(r"quality (0\.\d+)", run(words))[0]
    with database.worker.begin() as tx:
        version = studies.latest_data_version(tx, studies.get_study(tx, "flowers").id)
    parts = load_open_parts(artifacts.path(version.artifact))
    right = (parts.validation_inputs[:, 20] < 16.8) == parts.validation_labels  # the rule of the page
    assert told == f"{right.mean():.4f}"


def test_the_connection_of_the_page_is_one_that_airflow_reads() -> None:
    from airflow.models.connection import Connection

    from easeml_airflow.settings import OPTIONS

    name, _, written = block("install.md", "AIRFLOW_CONN").text.strip().partition("=")
    read = Connection.from_json(written.strip("'"))
    assert name.removeprefix("AIRFLOW_CONN_").lower() == next(o.default for o in OPTIONS if o.name == "conn_id")
    assert (read.conn_type, read.login, read.port) == ("easeml", "easeml_worker", 5432)
    assert set(read.extra_dejson) == {"artifacts"}


def test_a_teams_copy_of_the_dags_has_ids_and_a_connection_of_the_team(tmp_path: Path) -> None:
    from airflow.dag_processing.dagbag import DagBag

    folder = str(tmp_path / "garden")
    for line in block("install.md", "easeml dags copy /opt/airflow/garden").text.splitlines():
        command = line.replace("easeml ", f"{sys.executable} -m easeml_core.cli ", 1) if "dags copy" in line else line
        subprocess.run(command.replace("/opt/airflow/garden", folder), shell=True, check=True)
    dags = DagBag(dag_folder=folder).dags
    assert {name.partition("_")[0] for name in dags} == {"garden"}
    assert len(dags) == len(example_dags())
    kept = [getattr(task, "partial_kwargs", vars(task)) for dag in dags.values() for task in dag.tasks]
    assert {a["easeml_conn_id"] for a in kept if "easeml_conn_id" in a} == {"easeml_garden"}
    (asset,) = dags["garden_commit_gate"].schedule
    assert "easeml_garden" in asset.uri


def test_the_bundles_of_the_page_are_classes_that_airflow_can_make() -> None:
    from airflow.sdk.module_loading import import_string

    _, _, written = block("install.md", "AIRFLOW__DAG_PROCESSOR").text.strip().partition("=")
    made = [
        import_string(bundle["classpath"])(name=bundle["name"], **bundle["kwargs"])
        for bundle in json.loads(written.strip("'"))
    ]
    assert (made[1].path / "easeml_stream.py").is_file()
