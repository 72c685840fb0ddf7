"""Ended trials as runs of MLflow: one run a trial, found again by its tag ``easeml.trial_id``.

A run is made with that tag, filled, and then ended. One that was left between, by a kill, is not ended: it is filled
again, with the same values at the same times, which MLflow keeps once.
"""

from __future__ import annotations

import importlib
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

STATUS = {"SUCCEEDED": "FINISHED", "FAILED": "FAILED", "CANCELLED": "KILLED"}
"""State of a trial -> status of its run."""

EVERYTHING = 3
"""MLflow's number for what is there and what was deleted there: what somebody has deleted does not come back."""

_PAGE = 1000
_MOST_PARAMETERS, _MOST_METRICS = 100, 1000  # at once; more are refused
_PLAIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_. -]{0,249}")
_LONGEST_TAG = 4000


@dataclass(frozen=True, slots=True)
class Record:
    """What one run shall hold.

    Attributes:
        key: Name and value of the tag that it is found by, without ``easeml.``.
        name: For people.
        status: As MLflow calls it.
        started_at: When.
        ended_at: When; also the time of its metrics.
        metrics: Name to value.
        parameters: Of the candidate.
        tags: Without ``easeml.``; None is left out.
        curve: Points of ``store.curves``.
    """

    key: tuple[str, int]
    name: str
    status: str
    started_at: datetime
    ended_at: datetime
    metrics: Mapping[str, float]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, Any] = field(default_factory=dict)
    curve: Sequence[Mapping[str, Any]] = ()


def of_trial(study: Mapping[str, Any], trial: Mapping[str, Any], curve: Sequence[Mapping[str, Any]]) -> Record:
    """The record of an ended trial, out of rows of ``store.mirror`` and ``store.curves``."""
    measured = {name: trial[name] for name in ("quality", "cost_seconds") if trial[name] is not None}
    told = ("candidate", "kind", "data_version", "state", "failure", "failure_kind", "attempt", "device", "reevaluates")
    ran = {"implementation": trial["executor"], **(trial["executor_details"] or {})}
    return Record(
        key=("trial_id", trial["trial_id"]),
        name=trial["candidate"],
        status=STATUS[trial["state"]],
        started_at=trial["started_at"],
        ended_at=trial["finished_at"],
        metrics=measured,
        parameters=trial["parameters"],
        tags=_study_tags(study) | {name: trial[name] for name in told} | ran,
        curve=curve,
    )


def of_model(study: Mapping[str, Any], model: Mapping[str, Any]) -> Record:
    """The record of a model that no trial of ours has made: one that was handed in, or a baseline."""
    return Record(
        key=("model_id", model["model_id"]),
        name=f"model {model['model_id']}, not of a trial",
        status="FINISHED",
        started_at=model["created_at"],
        ended_at=model["created_at"],
        metrics={"quality": model["quality"]},
        tags=_study_tags(study) | {"data_version": model["data_version"], "format": model["format"]},
    )


def _study_tags(study: Mapping[str, Any]) -> dict[str, Any]:
    return {name: study[name] for name in ("study", "tenant", "metric")}


def known_runs(client: Any, experiment_id: str) -> dict[str, Any]:
    """All runs of trials in the experiment, by the text of the trial's id."""
    return {r.data.tags["easeml.trial_id"]: r for r in _runs(client, experiment_id) if "easeml.trial_id" in r.data.tags}


def find_run(client: Any, experiment_id: str, key: tuple[str, int]) -> Any:
    """The run with this key, or None."""
    wanted = f"tags.`easeml.{key[0]}` = '{key[1]}'"
    return next(_runs(client, experiment_id, wanted), None)


def _runs(client: Any, experiment_id: str, wanted: str = "") -> Iterator[Any]:
    token = None
    while True:
        page = client.search_runs([experiment_id], wanted, EVERYTHING, _PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def is_whole(run: Any) -> bool:
    """Whether nothing is left to do for the run: it has ended, or somebody has deleted it."""
    return run is not None and (run.info.status != "RUNNING" or run.info.lifecycle_stage == "deleted")


def write_run(client: Any, experiment_id: str, record: Record, found: Any) -> str:
    """Make the run, unless it was found, fill it and end it; its id."""
    ended = _milliseconds(record.ended_at)
    if found is None:
        first = {f"easeml.{record.key[0]}": str(record.key[1])}
        found = client.create_run(experiment_id, _milliseconds(record.started_at), first, record.name)
    run_id: str = found.info.run_id
    entities = importlib.import_module("mlflow.entities")
    client.log_batch(run_id, tags=[entities.RunTag(name, value) for name, value in _tags(record).items()])
    plain = [entities.Param(n, _text(v)) for n, v in record.parameters.items() if _PLAIN.fullmatch(n)]
    for params in _batches(plain, _MOST_PARAMETERS):
        client.log_batch(run_id, params=params)
    for metrics in _batches([entities.Metric(*point) for point in _points(record)], _MOST_METRICS):
        client.log_batch(run_id, metrics=metrics)
    client.set_terminated(run_id, record.status, ended)
    return run_id


def _points(record: Record) -> Iterator[tuple[str, float, int, int]]:
    """Name, value, time in milliseconds and step of each figure; the same ones every time."""
    for name, value in record.metrics.items():
        yield name, value, _milliseconds(record.ended_at), 0
    begin = _milliseconds(record.started_at)
    for point in record.curve:
        for name in ("quality", "loss"):
            if point[name] is not None:
                yield f"curve/{name}", point[name], begin + int(1000 * point["seconds"]), point["step"]


def _batches(items: Sequence[Any], most: int) -> Iterator[Sequence[Any]]:
    return (items[begin : begin + most] for begin in range(0, len(items), most))


def _tags(record: Record) -> dict[str, str]:
    """All tags. The parameters stand there whole: not every name of a parameter is one that MLflow takes."""
    given = {**record.tags, "parameters": json.dumps(record.parameters, sort_keys=True, ensure_ascii=False)}
    return {f"easeml.{name}": _text(value)[:_LONGEST_TAG] for name, value in given.items() if value is not None}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _milliseconds(time: datetime) -> int:
    return int(time.timestamp() * 1000)
