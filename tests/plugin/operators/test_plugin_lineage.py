"""Lineage events, as Airflow's OpenLineage provider sends them while real operators run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG

from easeml_airflow.assets import production_model
from easeml_airflow.hooks import lineage
from easeml_airflow.operators import (
    BestModelsOperator,
    GateOperator,
    PromoteModelOperator,
    ReleaseModelsOperator,
    RunDeviceOperator,
    SuggestTrialsOperator,
    TrainTrialOperator,
)
from easeml_core.errors import StateError
from easeml_core.store.queries.external import trial_lineage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from easeml_airflow.hooks.lineage import Lineage

TREES = [{"name": f"tree-{n}", "kind": "decision_tree", "parameters": {"max_depth": n}} for n in (1, 2, 4)]
PASSES = {"condition": "n > 0.5 +/- 0.2", "reliability": 0.9, "adaptivity": "full", "steps": 3}
FAILS = {"condition": "n > 0.95 +/- 0.2", "reliability": 0.9, "adaptivity": "full", "steps": 3}


@pytest.fixture
def sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[Any]]]:
    """Have the provider's listener in this process, sending to a file; a function that reads what was sent."""
    pytest.importorskip("airflow.providers.openlineage", reason="Airflow's OpenLineage provider is an option")
    from airflow.providers.openlineage import conf
    from airflow.providers.openlineage.plugins.listener import OpenLineageListener
    from airflow.sdk.listener import get_listener_manager

    file = tmp_path / "events.json"
    transport = {"type": "file", "log_file_path": str(file), "append": True}
    options = {"TRANSPORT": json.dumps(transport), "NAMESPACE": "here", "EXECUTE_IN_THREAD": "True"}
    for name, value in options.items():
        monkeypatch.setenv(f"AIRFLOW__OPENLINEAGE__{name}", value)
    cached = [found for found in vars(conf).values() if hasattr(found, "cache_clear")]
    for function in cached:
        function.cache_clear()
    listener, manager = OpenLineageListener(), get_listener_manager()
    manager.pm.register(listener)
    yield lambda: [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    manager.pm.unregister(listener)
    for function in cached:
        function.cache_clear()


def ends(events: list[Any], task: str) -> list[Any]:
    """The events at the end of a task's runs; twice the same, where Airflow has loaded the provider's plugin, too."""
    found = {e["run"]["runId"]: e for e in events if e["eventType"] != "START"}
    return [e for e in found.values() if e["job"]["name"].endswith(f".{task}")]


def named(datasets: list[Any]) -> dict[str, str]:
    assert {one["namespace"] for one in datasets} <= {"easeml://here"}
    return {one["name"]: one["facets"]["version"]["datasetVersion"] for one in datasets}


def told(event: Any) -> dict[str, Any]:
    return {name: value for name, value in event["run"]["facets"]["easeml"].items() if not name.startswith("_")}


@pytest.mark.journey
def test_events_name_what_was_trained_judged_and_promoted(
    sent: Any, make_study: Any, run_dag: Any, referee: None, store: Any
) -> None:
    make_study("good", candidates=TREES[:1], gate=PASSES)
    make_study("strict", candidates=TREES[1:], gate=FAILS)
    with DAG("lineage", schedule=None) as dag:
        suggest = SuggestTrialsOperator(task_id="suggest", count=1, studies=["good"])
        train = TrainTrialOperator.partial(task_id="train").expand(trial=suggest.output)
        gate = GateOperator(task_id="gate", study="good", deferrable=False)
        PromoteModelOperator(
            task_id="promote",
            study="good",
            model_id=gate.output["model_id"],
            gate_request_id=gate.output["request_id"],
            deferrable=False,
        )
        device = RunDeviceOperator(task_id="device", studies=["strict"])
        best = BestModelsOperator(task_id="best", studies=["strict"], chunk_size=10)
        release = ReleaseModelsOperator.partial(task_id="strict", deferrable=False).expand(models=best.output)
        train >> gate
        device >> best
        assert release
    run_dag(dag)
    with store.begin() as tx:
        ids = [number for (number,) in tx.exec_driver_sql("SELECT id FROM work.trials ORDER BY id")]
        trained = trial_lineage(tx, ids)
    (first,) = [trial for trial in trained if trial.study == "good"]
    rest = [trial for trial in trained if trial.study == "strict"]
    assert len(rest) == 2

    events = sent()
    (end,) = ends(events, "train")
    assert named(end["inputs"]) == {"good/data": first.data}
    assert end["inputs"][0]["inputFacets"]["inputStatistics"]["rowCount"] == first.train_rows
    assert named(end["outputs"]) == {f"good/candidates/{first.candidate}": first.model}
    assert told(end)["trials"][0] == {
        **{"trial_id": first.trial_id, "study": "good", "candidate": first.candidate, "state": "SUCCEEDED"},
        **{"data_version": 1, "model_id": first.model_id},
    }
    (stream,) = ends(events, "device")
    assert named(stream["outputs"]) == {f"strict/candidates/{trial.candidate}": trial.model for trial in rest}
    assert told(stream)["trials_of_task"] == 2

    (passed,), (moved,), (failed,) = (ends(events, task) for task in ("gate", "promote", "strict"))
    assert named(passed["inputs"]) == named(end["outputs"])
    entry = {"study": "good", "model_id": first.model_id}
    assert told(passed) == {"models": [{**entry, "symbol": "pass"}], "models_of_task": 1}
    assert named(moved["outputs"]) == {"good/production": first.model}
    assert told(moved) == {"models": [entry], "models_of_task": 1}
    (rejected,) = told(failed)["models"]
    assert (failed["eventType"], rejected["outcome"], rejected["symbol"]) == ("FAIL", "rejected", "fail")
    assert failed["outputs"] == []

    # Of what the referee knows, and of qualities, an event has nothing: it has the names above and no other.
    for event in (end, stream, passed, moved, failed):
        text = json.dumps([event["inputs"], event["outputs"], event["run"]["facets"]["easeml"]])
        assert not [word for word in ("quality", "score", "step", "interval", "labels", "reliability") if word in text]


def test_an_asset_is_the_dataset_that_events_name(sent: Any) -> None:
    from airflow.providers.openlineage.utils.utils import translate_airflow_asset

    found = translate_airflow_asset(production_model("digits"), None)
    assert (found.namespace, found.name) == ("easeml://here", "digits/production")
    assert translate_airflow_asset(production_model(), None) is None  # of every study, so of no one dataset


def test_without_a_place_to_send_to_nothing_is_asked_of_the_database() -> None:
    pytest.importorskip("airflow.providers.openlineage")

    def ask() -> Lineage:
        raise AssertionError

    task = GateOperator(task_id="gate", study="good")
    task._note_lineage(ask)
    assert task.get_openlineage_facets_on_complete(None).inputs == []


# A provider that is broken, or configured wrongly, leaves its events out and fails no task.


def broken(*_: Any) -> Any:
    message = "cannot import name 'Dataset' from 'openlineage.client'"
    raise ImportError(message)


def away(*_: Any) -> Any:
    message = "the database is away"
    raise StateError(message)


@pytest.mark.parametrize(("is_emitted", "ask"), [(broken, away), (lambda: True, broken), (lambda: True, away)])
def test_a_fault_leaves_the_event_without_datasets(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, is_emitted: Any, ask: Any
) -> None:
    monkeypatch.setattr(lineage, "is_emitted", is_emitted)
    task = GateOperator(task_id="gate", study="good")
    task._note_lineage(ask)
    assert task._lineage is None
    assert "this task's lineage event has no datasets: " in caplog.text
