"""Requests for several devices or a part of one: the same rule in SQL as in Python, and charges in device seconds."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from test_store_tenants import Doors, claimed, doors

from easeml_core.entities import Executor, TrialState
from easeml_core.settings.device_requests import fits, is_request, weight_of
from easeml_core.store.rows import change, row, scalar
from easeml_core.store.tables import leases, trials

if TYPE_CHECKING:
    from collections.abc import Callable

    Ask = Callable[..., list[tuple[Any, ...]]]

__all__ = ["doors"]
OFFERS = (None, "gpu", "cpu", "gpu:2", "gpu:64", "gpu/3", "gpu/16")
WANTED = (None, ["gpu"], ["gpu:2"], ["cpu", "gpu:2"], ["gpu/3"], ["gpu:64", "gpu/16"])
NEITHER = ("", "gpu:1", "gpu:65", "gpu:02", "gpu/1", "gpu/17", "gpu:2/2", "GPU:2", "gpu:", "gpu:2\n")


def test_the_database_and_python_agree_on_what_fits_and_weighs(ask: Ask) -> None:
    for offered in OFFERS:
        assert ask("SELECT work.device_weight(%s)", offered) == [(pytest.approx(weight_of(offered)),)]
        for wanted in WANTED:
            stored = None if wanted is None else json.dumps(wanted)
            ((found,),) = ask("SELECT work.device_fits(%s::jsonb, %s)", stored, offered)
            assert found is fits(wanted, offered), (wanted, offered)


def test_the_database_keeps_what_python_calls_a_request_and_nothing_else(ask: Ask, make_rows: Any) -> None:
    make_rows()
    checks = "SELECT conname FROM pg_constraint WHERE conname IN ('candidates_devices_check', 'trials_device_check')"
    assert len(ask(checks)) == 2
    for text in (*filter(None, OFFERS), *NEITHER):
        ((listed,),) = ask(
            "SELECT NOT jsonb_path_exists(jsonb_build_array(%s::text), 'strict $[*] ? (!(@ like_regex "
            '"^[a-z0-9][a-z0-9_.-]{0,62}(:([2-9]|[1-5][0-9]|6[0-4])|/([2-9]|1[0-6]))?$"))\')',
            text,
        )
        assert listed is is_request(text), text


def of_devices(tx: Any, rows: Any, device: str, *, candidate: int = 0, **limit: float) -> int:
    trial = trials.add_trial(
        tx,
        study_id=rows.study_id,
        candidate_id=rows.candidates[candidate],
        data_version_id=rows.version_id,
        device=device,
        **limit,
    )
    return int(trial)


@pytest.mark.parametrize(("device", "weight"), [("gpu:4", 4.0), ("gpu/4", 0.25)])
def test_a_lease_takes_and_is_charged_seconds_of_every_device(
    database: Any, make_rows: Any, device: str, weight: float
) -> None:
    rows = make_rows()
    with database.worker.begin() as tx:
        trial = of_devices(tx, rows, device, limit_seconds=40.0)
        executor = Executor(trials.get_trial(tx, trial).implementation, "test")
        given = {"trial_id": trial, "lease_key": "k", "lease_seconds": 1000}
        attempt = leases.start_trial(tx, executor=executor, **given)
        held = "SELECT extract(epoch FROM lease_until - attempt_started_at)::float8 FROM work.trials WHERE id = :id"
        assert scalar(tx, held, id=trial) == pytest.approx(40 / weight, abs=0.1)
        change(tx, "UPDATE work.trials SET attempt_started_at = now() - interval '5 s' WHERE id = :id", id=trial)
        saved = leases.Checkpoint("sha256:" + "a" * 64, 1e6, 0.5)
        assert attempt is not None
        leases.extend_lease(tx, trial_id=trial, attempt=attempt, lease_seconds=1000, progress=None, checkpoint=saved)
        found = leases.checkpoint_of(tx, trial)
        assert found is not None
        assert found.seconds == pytest.approx(5 * weight, abs=0.5)
        change(tx, "UPDATE work.trials SET attempt_started_at = now() - interval '8 s' WHERE id = :id", id=trial)
        leases.release_lease(tx, trial, alive=True)
        assert trials.get_trial(tx, trial).lost_seconds == pytest.approx(3 * weight, abs=0.5)


@pytest.mark.own_database
def test_a_login_is_charged_seconds_of_every_device(doors: Doors, database: Any) -> None:
    with database.worker.begin() as tx:
        trial = of_devices(tx, doors.own, "cpu:4", candidate=1, limit_seconds=80.0)
    with doors.tenant.begin() as tx:
        token = claimed(tx, trial, "k")
        held = row(tx, "SELECT lease_until - attempt_started_at AS held FROM work.trials WHERE id = :id", id=trial)
        assert held is not None
        assert held.held.total_seconds() == pytest.approx(20, abs=0.1)
    with database.owner.begin() as tx:
        change(tx, "UPDATE work.trials SET attempt_started_at = now() - interval '5 s' WHERE id = :id", id=trial)
    with doors.tenant.begin() as tx:
        leases.show(tx, token)
        ended = {"trial_id": trial, "attempt": 1, "state": TrialState.FAILED, "failure": "it says so"}
        assert leases.finish_trial(tx, cost_seconds=70.0, **ended)
        taken = scalar(tx, "SELECT cost_seconds FROM work.trials WHERE id = :id", id=trial)
        assert taken == pytest.approx(20, abs=1)  # no more than 5 s of 4 devices, whatever it says
