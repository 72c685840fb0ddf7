"""The mirror in MLflow where something goes wrong: killed, twice at once, away, refused."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

import pytest
from mlflow_lab import end_trial, force, free_address, seen, sync_of

from easeml_core.errors import NotFoundError, StateError, StoreUnavailableError
from easeml_core.services.operations.mlflow_sync import Mirror
from easeml_core.store.tables import trials

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.journey


class Killed(BaseException):
    """No handler catches it."""


def kill_after(monkeypatch: pytest.MonkeyPatch, requests_left: int) -> Callable[[], int]:
    """Let the process die once so many requests have been answered; gives how many are left."""
    import requests

    left, send = [requests_left], requests.Session.send

    def counted(self: Any, *arguments: Any, **named: Any) -> Any:
        answer = send(self, *arguments, **named)
        left[0] -= 1
        if left[0] == 0:
            raise Killed
        return answer

    monkeypatch.setattr(requests.Session, "send", counted)
    return lambda: left[0]


def sync_killed(lab: Any, mirrored: Mirror, after: int) -> int:
    """A sync that is killed after so many requests, or not; how many it has made."""
    with pytest.MonkeyPatch.context() as patched:
        left = kill_after(patched, after)
        with contextlib.suppress(Killed):
            sync_of(lab, mirrored, "full")
        return after - left()


@pytest.mark.nightly  # 30 syncs; by day two at once, and one whose server is away
def test_killed_after_any_request_the_next_sync_makes_it_good(lab: Any, mirrored: Mirror) -> None:
    failed = end_trial(lab, "deep", failure="no convergence", parameters={"max_depth": 3})
    with lab.worker.begin() as tx:
        trials.add_points(tx, failed, [trials.CurvePoint(1, 1, 0.5, 0.25, 1.5)])
    assert lab.promote(lab.gate("good").request_id).promoted
    needed = sync_killed(lab, mirrored, 1000)
    undisturbed = seen(mirrored)
    assert undisturbed["models"][".full"]["aliases"] == {"production": str(lab.models["full"]["good"])}
    for after in range(1, needed + 1):
        broken = Mirror(mirrored.tracking_uri, prefix=f"{mirrored.prefix}-{after}")
        assert sync_killed(lab, broken, after) == after
        sync_of(lab, broken, "full")
        assert seen(broken) == undisturbed, after


def test_two_syncs_at_once_make_nothing_twice(lab: Any, mirrored: Mirror) -> None:
    force(lab, "good")
    done: list[dict[str, Any]] = []
    both = [threading.Thread(target=lambda: done.append(sync_of(lab, mirrored)["full"])) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join(timeout=120)
    assert sorted((d["runs"], d["versions"]) for d in done) == [(0, 0), (3, 1)]
    assert [len(runs) for runs in seen(mirrored)["runs"].values()] == [3, 3, 3]


def test_a_server_that_is_away_is_reported_and_the_next_sync_goes_on(lab: Any, mirrored: Mirror) -> None:
    away = Mirror(free_address())
    with pytest.raises(StoreUnavailableError, match=r"(?s)MLflow server cannot be used: .*refused.*Nothing else waits"):
        sync_of(lab, away)
    assert sync_of(lab, mirrored)["full"]["runs"] == 3


def test_something_that_is_no_mlflow_is_reported(lab: Any, database: Any) -> None:
    with pytest.raises(StoreUnavailableError, match="MLflow server cannot be used"):
        sync_of(lab, Mirror(f"http://127.0.0.1:{database.server.port}"))


def test_one_that_is_refused_stops_no_other(lab: Any, mirrored: Mirror) -> None:
    force(lab, "good")
    force(lab, "rare")
    artifact = lab.one("SELECT artifact FROM work.models WHERE id = :id", id=lab.models["full"]["good"])
    file = lab.artifacts.path(artifact)
    away = file.rename(file.with_name("away"))
    try:
        with pytest.raises(StateError, match=r"model \d+: artifact sha256:.* is missing"):
            sync_of(lab, mirrored)
    finally:
        away.rename(file)
    assert len(seen(mirrored)["models"][".full"]["versions"]) == 1
    assert [len(runs) for runs in seen(mirrored)["runs"].values()] == [3, 3, 3]
    assert sync_of(lab, mirrored)["full"]["versions"] == 1


def test_what_somebody_deleted_in_mlflow_stays_deleted(lab: Any, mirrored: Mirror) -> None:
    import mlflow

    sync_of(lab, mirrored)
    client = mlflow.MlflowClient(mirrored.tracking_uri)
    first, second = (
        client.get_experiment_by_name(f"{mirrored.prefix}/lab/{s}").experiment_id for s in ("first", "full")
    )
    client.delete_experiment(first)
    client.delete_run(client.search_runs([second])[0].info.run_id)
    end_trial(lab, "next", failure="x")
    with pytest.raises(StateError, match=r"study first: .* was deleted in MLflow; restore it there"):
        sync_of(lab, mirrored)
    assert [r.info.run_name for r in client.search_runs([second], max_results=1)] == ["next"]
    assert len(client.search_runs([second], run_view_type=3)) == 4


def test_a_study_that_is_not_there_is_said(lab: Any, mirrored: Mirror) -> None:
    with pytest.raises(NotFoundError, match="ful"):
        sync_of(lab, mirrored, "ful")


@pytest.mark.nightly  # by day the message of many refusals, without a server
def test_ten_refusals_are_enough_for_one_study(lab: Any, mirrored: Mirror) -> None:
    import mlflow

    sync_of(lab, mirrored, "full")
    client = mlflow.MlflowClient(mirrored.tracking_uri)
    experiment = client.get_experiment_by_name(f"{mirrored.prefix}/lab/full").experiment_id
    for n in range(12):
        trial = end_trial(lab, f"tree-{n:02}", failure="x", parameters={"max_depth": n})
        run = client.create_run(experiment, tags={"easeml.trial_id": str(trial)})
        client.log_param(run.info.run_id, "max_depth", "another")  # MLflow changes no parameter
    with pytest.raises(StateError) as refused:
        sync_of(lab, mirrored)
    assert str(refused.value).count("Changing param values is not allowed") == 10
    assert {study: len(runs) for study, runs in seen(mirrored)["runs"].items()} == {
        "/lab/first": 3,
        "/lab/full": 15,
        "/lab/hidden": 3,
    }


def test_a_message_stays_short_however_much_is_refused(lab: Any, mirrored: Mirror) -> None:
    import mlflow

    client = mlflow.MlflowClient(mirrored.tracking_uri)
    for study in ("first", "full", "hidden"):
        experiment = client.create_experiment(f"{mirrored.prefix}/lab/{study}")
        for n in range(4):
            trial = end_trial(lab, f"tree-{n}", study=study, failure="x", parameters={"max_depth": n})
            run = client.create_run(experiment, tags={"easeml.trial_id": str(trial)})
            client.log_param(run.info.run_id, "max_depth", "another")
    with pytest.raises(StateError, match=r"; and 2 more, see the log$") as refused:
        sync_of(lab, mirrored)
    assert len(str(refused.value)) < 6000
