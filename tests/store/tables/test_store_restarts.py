"""Attempts that a restart took away do not count; all others do, and each is charged until its last heartbeat."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from easeml_core.entities import RequestKind, TrialState
from easeml_core.errors import ConfigError, StoreError
from easeml_core.services.trials.attempts import hand_back
from easeml_core.services.trials.execution import claim, expire_leases
from easeml_core.store import schema
from easeml_core.store.database import Store
from easeml_core.store.rows import change, rows, scalar
from easeml_core.store.server.server import throwaway_server
from easeml_core.store.tables import leases, requests, trials

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MOST = 3
OVER = "UPDATE work.trials SET lease_until = now() - interval '1 s' WHERE id = :id"


class Trial:
    """One trial that is claimed, lost and claimed again."""

    def __init__(self, database: Any, study: Any) -> None:
        self.database, self.store = database, database.worker
        with self.store.begin() as tx:
            self.id = trials.add_trial(
                tx,
                study_id=study.study_id,
                candidate_id=study.candidates[0],
                data_version_id=study.version_id,
            )

    def claim(self, key: str = "worker") -> Any:
        return claim(self.store, trial_id=self.id, request_key=key)

    def lose(self) -> Any:
        """The lease runs out, and a caller looks."""
        with self.store.begin() as tx:
            change(tx, OVER, id=self.id)
        expire_leases(self.store)
        return self.row()

    def restart(self) -> None:
        with self.database.owner.begin() as tx:
            leases.state_restart(tx, reason="the whole stack")

    def row(self) -> Any:
        with self.store.begin() as tx:
            (found,) = rows(
                tx, "SELECT state, attempt, excused, failure, lost_seconds FROM work.trials WHERE id = :id", id=self.id
            )
        return tuple(found)

    def shift(self, seconds: float, *, beat: float) -> None:
        """Let the attempt have begun so many seconds ago, its last heartbeat ``beat`` seconds after that."""
        with closing(self.database.server.connect(database=self.database.name)) as opened, opened.cursor() as cursor:
            cursor.execute("SET session_replication_role = replica")  # past the trigger that keeps heartbeats honest
            cursor.execute(
                "UPDATE work.trials SET attempt_started_at = now() - make_interval(secs => %s), "
                "beat_at = now() - make_interval(secs => %s), lease_until = now() - interval '1 s' WHERE id = %s",
                [seconds, seconds - beat, self.id],
            )


@pytest.fixture
def trial(database: Any, make_rows: Callable[..., Any]) -> Trial:
    return Trial(database, make_rows("cancer", max_attempts=MOST))


def test_restarts_of_the_stack_do_not_count_and_everything_else_does(trial: Trial) -> None:
    for n in range(4):  # more often than the study allows
        assert trial.claim() is not None
        trial.restart()
        assert trial.lose()[:3] == (TrialState.SUGGESTED, n + 1, n + 1)
    for n in range(MOST):
        assert trial.claim() is not None
        state, attempt, excused, failure, _ = trial.lose()
        assert (attempt, excused) == (n + 5, 4)
        assert state == (TrialState.FAILED if n == MOST - 1 else TrialState.SUGGESTED)
    assert failure == "its worker was lost 3 times"


def test_a_retry_that_takes_over_its_own_lease_is_judged_likewise(trial: Trial) -> None:
    """As Airflow's next try does, before the lease is over."""
    trial.claim()
    trial.restart()
    assert trial.claim().trial.excused == 1
    assert trial.claim().trial.excused == 1  # without a restart between
    assert trial.claim().is_last_attempt
    assert trial.claim() is None
    assert trial.row()[:4] == (TrialState.FAILED, 4, 1, "its worker was lost 3 times")


def test_the_last_attempt_is_not_the_last_when_a_restart_took_it(trial: Trial) -> None:
    for _ in range(MOST - 1):
        trial.claim()
        trial.lose()
    assert trial.claim().is_last_attempt
    trial.restart()
    assert trial.lose()[:3] == (TrialState.SUGGESTED, MOST, 1)


def test_a_worker_that_has_outlived_the_restart_is_not_excused_by_it(trial: Trial) -> None:
    lease = trial.claim()
    trial.restart()
    lease.beat()
    assert not lease.lost
    assert trial.lose()[:3] == (TrialState.SUGGESTED, 1, 0)


def test_a_training_that_takes_the_machine_down_each_time_is_excused_ten_times(trial: Trial) -> None:
    for n in range(leases.MOST_EXCUSED + MOST):
        assert trial.claim() is not None
        trial.restart()
        state, _, excused, failure, _ = trial.lose()
        assert excused == min(n + 1, leases.MOST_EXCUSED)
    assert (state, failure) == (TrialState.FAILED, "its worker was lost 3 times")


@pytest.mark.parametrize("seconds", [40.0, 30_000.0])  # a lease that ran out; a laptop that slept: the clock has jumped
def test_a_lost_attempt_is_charged_until_its_last_heartbeat(trial: Trial, seconds: float) -> None:
    trial.claim()
    trial.shift(seconds, beat=12.5)
    expire_leases(trial.store)
    state, attempt, _, _, lost = trial.row()  # the server has started later than that heartbeat
    assert (state, attempt) == (TrialState.SUGGESTED, 1)
    assert lost == pytest.approx(12.5, abs=1e-3)
    trial.claim()
    assert trial.lose()[4] == pytest.approx(12.5, abs=1.0)  # the second attempt fell silent at once
    trial.claim()
    trial.shift(9.0, beat=4.0)
    assert hand_back(trial.store, trial_id=trial.id, request_key="worker")  # it lives: charged until now
    assert trial.row()[4] == pytest.approx(12.5 + 9.0, abs=1.0)


def test_an_attempt_that_its_living_worker_hands_back_does_not_count(trial: Trial) -> None:
    for n in range(leases.MOST_EXCUSED + 1):
        assert trial.claim() is not None
        assert hand_back(trial.store, trial_id=trial.id, request_key="worker")
        assert trial.row()[:3] == (TrialState.SUGGESTED, n + 1, min(n + 1, leases.MOST_EXCUSED))
    trial.claim()
    assert trial.lose()[2] == leases.MOST_EXCUSED  # a worker that falls silent is not excused


def test_who_claims_for_the_role_of_tasks_cannot_excuse_itself(trial: Trial, database: Any) -> None:
    """Neither a restart, nor the number, nor an older heartbeat."""
    trial.claim()
    for statement in (
        "INSERT INTO work.restarts (what) VALUES ('deployment')",
        "INSERT INTO work.restarts (what, at) VALUES ('server', pg_postmaster_start_time())",
        "UPDATE work.trials SET excused = 1",
    ):
        with pytest.raises(StoreError, match="permission denied"), trial.store.begin() as tx:
            change(tx, statement)
    trial.restart()
    with trial.store.begin() as tx:
        change(tx, "UPDATE work.trials SET beat_at = '2000-01-01 00:00+00' WHERE id = :id", id=trial.id)
    assert trial.lose()[:3] == (TrialState.SUGGESTED, 1, 0)  # it has become a heartbeat of now, after the restart
    for what, at in (("deployment", "now()"), ("server", "now()")):
        refused = pytest.raises(StoreError, match="only the owner records another restart")
        with refused, database.referee.begin() as tx:
            change(tx, f"INSERT INTO work.restarts (what, at) VALUES ('{what}', {at})")


def test_the_start_of_the_server_is_recorded_once(database: Any) -> None:
    noted = []
    for _ in range(2):
        with database.referee.begin() as tx:
            noted.append(leases.note_server_start(tx))
    assert noted == [True, False]


@pytest.mark.parametrize("reason", ["", " ", "two\nlines", "x" * 201])
def test_a_restart_is_stated_with_a_reason(database: Any, reason: str) -> None:
    with pytest.raises(ConfigError, match="reason must be a line of 1 to 200 characters"), database.owner.begin() as tx:
        leases.state_restart(tx, reason=reason)


def test_an_upgrade_of_the_schema_is_a_restart_of_the_stack(trial: Trial) -> None:
    trial.claim()
    schema.upgrade(trial.database.owner)
    assert trial.lose()[:3] == (TrialState.SUGGESTED, 1, 1)


def test_referees_that_a_restart_has_ended_are_no_deaths_of_their_request(database: Any, make_rows: Any) -> None:
    """But for every fourth: a request may be what brings the machine down."""
    study = make_rows("cancer")
    with database.worker.begin() as tx:
        asked = {"study_id": study.study_id, "model_id": None, "arguments": {}, "request_key": "seal"}
        request_id = requests.file_request(tx, kind=RequestKind.SEAL, **asked)
    lost = []
    for n in range(9):
        with database.referee.begin() as tx:
            lost.append(requests.note_attempt(tx, request_id).lost)
        if n != 3:
            with database.owner.begin() as tx:
                leases.state_restart(tx, reason="again")
    # Of the 8 before the ninth one was not followed by a restart, and every fourth counts at least.
    assert lost == [0, 0, 0, 0, 1, 1, 1, 1, 2]


@dataclass
class Lonely:
    """A server of this test's own, which may be stopped."""

    server: Any
    owner: Store
    worker: Store
    referee: Store

    def restart(self) -> None:
        self.server.stop()
        self.server.start()
        for store in (self.owner, self.worker, self.referee):
            store.close()


class TestRealRestarts:
    """The server's own start is the evidence, without a row."""

    @pytest.fixture
    def database(self) -> Iterator[Lonely]:
        with throwaway_server() as server:
            server.ensure_installation()
            stores = [Store(server.url(f"easeml_{role}", "easeml")) for role in ("owner", "worker", "referee")]
            schema.upgrade(stores[0])
            yield Lonely(server, *stores)
            for store in stores:
                store.close()

    def test_more_of_them_than_attempts(self, database: Any, make_rows: Callable[..., Any]) -> None:
        trial = Trial(database, make_rows("cancer", max_attempts=1))
        for n in range(2):
            assert trial.claim() is not None
            database.restart()
            assert trial.lose()[:3] == (TrialState.SUGGESTED, n + 1, n + 1)
        with trial.store.begin() as tx:
            assert scalar(tx, "SELECT count(*) FROM work.restarts WHERE what <> 'deployment'") == 0
