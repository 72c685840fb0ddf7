"""A trial on several devices, from its candidate to its result: handed to who offers them, charged for all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from easeml_core.errors import ConfigError, TrainingTaskError
from easeml_core.services.selection.executors import TRAINERS_ONLY
from easeml_core.services.selection.retry import retry_all
from easeml_core.services.selection.scheduler import suggest_trials
from easeml_core.services.studies.limits import GRACE_SECONDS
from easeml_core.services.trials import execution
from easeml_core.services.trials.attempts import run_routed_trial
from easeml_core.services.trials.devices import list_devices
from easeml_core.services.trials.worker import Reason, run_device
from easeml_core.store.rows import change, row, rows
from easeml_core.store.tables import trials
from easeml_core.training.supervisor import run_job

if TYPE_CHECKING:
    from easeml_core.training.job import TrainingJob

pytestmark = pytest.mark.journey
WIDE = {"name": "wide", "kind": "torch_mlp", "parameters": {"epochs": 3}, "devices": {"kind": "cpu", "count": 2}}
PART = {"name": "part", "kind": "nearest_centroid", "devices": {"kind": "cpu", "share": 0.25}}


def test_who_offers_two_devices_trains_what_wants_two_and_pays_for_two(lab: Any, monkeypatch: Any) -> None:
    lab.register("gang", candidates=[WIDE, {"name": "small", "kind": "nearest_centroid"}], budget_seconds=3600.0)
    seen: list[tuple[int, int]] = []

    def watched(job: TrainingJob, **given: Any) -> Any:
        seen.append((job.devices, sum(device.held for device in list_devices(lab.worker))))
        return run_job(job, **given)

    monkeypatch.setattr(execution, "run_job", watched)
    given: dict[str, Any] = {"studies_only": ["gang"], "slot": "cpu"}
    (small,) = run_device(lab.worker, lab.artifacts, device="cpu", request_key="one", **given).trials
    wide = run_device(lab.worker, lab.artifacts, device="cpu:2", request_key="two", **given)
    assert (small.candidate, [trial.candidate for trial in wide.trials]) == ("small", ["wide"])
    assert wide.trials[0].state == "SUCCEEDED", wide.trials[0].failure
    assert seen == [(1, 1), (2, min(2, list_devices(lab.worker)[0].slots))]
    with lab.worker.begin() as tx:
        found = row(
            tx,
            "SELECT (cost_seconds + start_seconds) / extract(epoch FROM finished_at - started_at) AS devices, device "
            "FROM work.trials WHERE id = :id",
            id=wide.trials[0].trial_id,
        )
    assert found is not None
    assert found.device == "cpu:2"
    assert 1 < found.devices <= 2  # of two, less what fetching the data and recording the end take


def test_nobody_else_is_handed_what_wants_two_or_a_part(lab: Any) -> None:
    lab.register("gang", candidates=[WIDE, PART])
    given: dict[str, Any] = {"studies_only": ["gang"]}
    for device in (None, "cpu", "cpu:4", "cpu/2"):
        assert suggest_trials(lab.worker, count=2, device=device, request_key=f"ask {device}", **given).trials == ()
    found = run_device(lab.worker, lab.artifacts, device="cpu", request_key="one", **given)
    assert found.reason is Reason.NOTHING_RUNNABLE
    assert "wide of gang needs a device of the kind 'cpu:2', this one is 'cpu'" in found.message
    (part,) = run_device(lab.worker, lab.artifacts, device="cpu/4", request_key="part", **given).trials
    assert (part.candidate, part.state) == ("part", "SUCCEEDED")
    (trial,) = suggest_trials(lab.worker, count=1, device="cpu:2", request_key="two", **given).trials
    with pytest.raises(ConfigError, match="pool_slots must be >= 2: a trial for cpu:2 holds 2 devices at once, got 1"):
        run_routed_trial(
            lab.worker,
            lab.artifacts,
            trial_id=trial.trial_id,
            request_key="k",
            executors=TRAINERS_ONLY,
            most_devices=1,
        )
    assert execution.trial_state(lab.worker, trial_id=trial.trial_id).state == "SUGGESTED"


def test_what_two_devices_reserve_is_twice_the_longest_training_with_its_grace_also_when_retried(
    lab: Any, monkeypatch: Any
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        message = "a package is missing"
        raise TrainingTaskError(message)

    monkeypatch.setattr(execution, "run_job", fails)
    lab.register("gang", candidates=[WIDE], budget_seconds=1e6)
    (trial,) = suggest_trials(lab.worker, count=1, device="cpu:2", request_key="a", studies_only=["gang"]).trials
    failed = execution.run_trial(lab.worker, lab.artifacts, trial_id=trial.trial_id, request_key="k")
    assert failed.state == "FAILED"
    with lab.worker.begin() as tx:
        assert retry_all(tx, [trial.trial_id])
        limits = rows(
            tx,
            "SELECT limit_seconds / ((s.config -> 'training' ->> 'time_limit_seconds')::float8 + :grace) AS devices "
            "FROM work.trials t JOIN work.studies s ON s.id = t.study_id WHERE s.name = 'gang' AND t.device = 'cpu:2'",
            grace=GRACE_SECONDS,
        )
    assert [limit.devices for limit in limits] == [2.0, 2.0]


def test_a_trial_that_goes_to_other_devices_reserves_for_those(lab: Any) -> None:
    lab.register("gang", candidates=[WIDE | {"devices": ["cpu", "cpu:2"]}], budget_seconds=1e6)

    def reserved(device: str, key: str) -> float:
        with lab.worker.begin() as tx:  # no worker has begun it in time
            change(tx, "UPDATE work.trials SET lease_until = now() - interval '1 s' WHERE state = 'SUGGESTED'")
        (trial,) = suggest_trials(lab.worker, count=1, device=device, request_key=key, studies_only=["gang"]).trials
        with lab.worker.begin() as tx:
            return trials.get_trial(tx, trial.trial_id).limit_seconds or 0.0

    first = reserved("cpu", "a")
    assert [reserved("cpu:2", "b") / first, reserved("cpu", "c") / first] == [2.0, 1.0]


def test_a_slot_that_is_one_device_is_refused_before_a_trial_of_two_is_taken(lab: Any) -> None:
    lab.register("gang", candidates=[WIDE])
    given: dict[str, Any] = {"studies_only": ["gang"]}
    with pytest.raises(ConfigError, match="slot must be cpu or cuda: this trial trains on 2 devices, got 'cuda:1'"):
        run_device(lab.worker, lab.artifacts, device="cpu:2", request_key="one", slot="cuda:1", **given)
    (trial,) = suggest_trials(lab.worker, count=1, device="cpu:2", request_key="two", **given).trials
    told: dict[str, Any] = {"trial_id": trial.trial_id, "request_key": "k", "slot": "cuda:1"}
    with pytest.raises(ConfigError, match="slot must be cpu or cuda"):
        execution.run_trial(lab.worker, lab.artifacts, **told)
    with pytest.raises(ConfigError, match="slot must be cpu or cuda"):
        run_routed_trial(lab.worker, lab.artifacts, executors=TRAINERS_ONLY, **told)
    with lab.worker.begin() as tx:
        found = trials.get_trial(tx, trial.trial_id)
    assert (found.state, found.attempt) == ("SUGGESTED", 0)


@pytest.mark.parametrize(
    ("devices", "words"),
    [
        ({"kind": "gpu", "count": 65}, "count must be a whole number from 1 to 64"),
        ({"kind": "gpu", "share": 0.3}, "share must be 1/N of a device"),
        ({"kind": "gpu", "count": 2, "share": 0.5}, 'must be a mapping with "kind"'),
        ({"count": 2}, 'must be a mapping with "kind"'),
        (["gpu:1"], "1 to 20 devices, each a kind of device"),
        (["cpu:2"], "devices of nearest_centroid must be one device at a time"),
    ],
)
def test_devices_that_cannot_be_are_refused_with_the_rule(lab: Any, devices: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        lab.register("gang", candidates=[{"name": "a", "kind": "nearest_centroid", "devices": devices}])
