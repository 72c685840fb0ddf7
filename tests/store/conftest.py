"""Fixtures of the store's tests: a study as rows, and a world in which every table has a row."""

from __future__ import annotations

import os
import select
import time
from contextlib import closing
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from attempts import begin_attempt

from easeml_core.entities import RequestKind, SealedSetPurpose, StudyState, Symbol, TrialState
from easeml_core.services.reports.assessments import assess_changes
from easeml_core.settings.config import GateConfig, MeterConfig
from easeml_core.store import logins
from easeml_core.store.artifacts import location
from easeml_core.store.database import CHANNEL, REFEREE_CHANNEL, Store
from easeml_core.store.rows import change
from easeml_core.store.tables import (
    chain,
    datasets,
    labels,
    leases,
    model_life,
    models,
    outbox,
    referee_claims,
    releases,
    requests,
    row_registry,
    scheduler_requests,
    sealed,
    studies,
    trials,
)
from easeml_core.store.tables import decisions as selection_settings
from easeml_core.store.tables import decisions as suggestions
from easeml_core.store.tables import labels as examples

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from psycopg2.extensions import connection

collect_ignore = ["constraint_cases.py", "constraint_cases_sealed.py"]

ARTIFACT = "sha256:" + "0" * 64


@dataclass
class StudyRows:
    """Ids of a study that is ready for trials; ``artifact(k)`` is a reference of the right form."""

    name: str
    study_id: int
    version_id: int
    baseline_id: int
    candidates: list[int]
    artifact: Callable[[int], str] = field(default=lambda k: f"sha256:{k:064x}")


@dataclass
class World:
    """Ids of a state in which every table has a row; requests by kind."""

    study: StudyRows
    done: int
    waiting: int
    running: int
    model_id: int
    batch_id: int
    gate_set: int
    meter_set: int
    requests: dict[RequestKind, int]
    promotion_id: int


@pytest.fixture
def superuser(database: Any) -> Any:
    """A superuser's connection to the test's database, outside transactions."""
    with closing(database.server.connect(database=database.name)) as opened:
        yield opened


def execute(opened: connection, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    with opened.cursor() as cursor:
        cursor.execute(statement, values or None)
        return cursor.fetchall() if cursor.description else []


@pytest.fixture
def ask(superuser: Any) -> Callable[..., list[tuple[Any, ...]]]:
    """Run one statement as a superuser; its rows."""
    return lambda statement, *values: execute(superuser, statement, *values)


@pytest.fixture
def heard(superuser: Any) -> Callable[[int], list[tuple[str, str]]]:
    """Listens to every channel from now on; gives what was heard once it is at least so many, or after five seconds."""
    execute(superuser, f"LISTEN {CHANNEL}; LISTEN {REFEREE_CHANNEL}")

    def so_far(count: int) -> list[tuple[str, str]]:
        deadline = time.monotonic() + 5
        while len(superuser.notifies) < count and time.monotonic() < deadline:
            select.select([superuser], [], [], 0.1)
            superuser.poll()
        return [(n.channel, n.payload) for n in superuser.notifies]

    return so_far


def rows_of(database: Any) -> Callable[..., StudyRows]:
    """Write an active study with data and candidates, as worker and referee would. Name only what matters."""

    def make(
        name: str = "cancer",
        *,
        tenant: str = "lab",
        candidates: int = 3,
        max_attempts: int = 3,
        state: str = "ACTIVE",
    ) -> StudyRows:
        with database.worker.begin() as tx:
            tenant_id = studies.add_tenant(tx, name=tenant)
            study_id = studies.add_study(
                tx,
                name=name,
                tenant_id=tenant_id,
                data_set_id=studies.add_data_set(tx, tenant_id=tenant_id, source=f"csv:{name}", target="label"),
                metric="accuracy",
                weight=2.0,
                budget_seconds=None,
                config={"training": {"max_attempts": max_attempts, "lease_seconds": 60.0}},
                request_key=f"register/{name}",
            )
            assert study_id is not None
            names = [{"name": f"candidate-{k}", "kind": "tree"} for k in range(candidates)]
            studies.add_candidates(tx, study_id, names)
            ids = [c.id for c in studies.list_candidates(tx, study_id)]
        with database.referee.begin() as tx:
            studies.set_study_state(tx, study_id, StudyState(state))
            version_id = add_version(tx, study_id, content_hash=f"{name}-1")
            baseline_id = models.add_model(
                tx,
                study_id=study_id,
                data_version_id=version_id,
                trial_id=None,
                format="constant",
                artifact=ARTIFACT,
                validation_loss=0.4,
            )
        return StudyRows(name, study_id, version_id, baseline_id, ids)

    return make


def add_version(tx: Any, study_id: int, *, content_hash: str) -> int:
    return studies.add_data_version(
        tx,
        study_id=study_id,
        content_hash=content_hash,
        artifact=ARTIFACT,
        features=4,
        class_names=["benign", "malignant"],
        parts={"train": 100, "validation": 30, "gate": 20, "meter": 10},
    )


@pytest.fixture
def add_data(database: Any) -> Callable[[StudyRows], int]:
    """Give a study another data version; its id."""

    def add(study: StudyRows) -> int:
        with database.referee.begin() as tx:
            return add_version(tx, study.study_id, content_hash=f"{study.name}-2")

    return add


def ended_of(database: Any) -> Callable[..., tuple[int, int]]:
    """Run one candidate to the end, as rows; ids of trial and model."""

    def run(study: StudyRows, candidate: int, *, quality: float = 0.8, cost: float = 3.0) -> tuple[int, int]:
        with database.worker.begin() as tx:
            trial_id = trials.add_trial(
                tx,
                study_id=study.study_id,
                candidate_id=study.candidates[candidate],
                data_version_id=study.version_id,
            )
            attempt = begin_attempt(tx, trial_id)
            ended: dict[str, Any] = {"trial_id": trial_id, "attempt": attempt, "cost_seconds": cost}
            assert leases.finish_trial(tx, state=TrialState.SUCCEEDED, **ended)
            models.add_observation(tx, trial_id=trial_id, quality=quality, cost_seconds=cost)
            model_id = models.add_model(
                tx,
                study_id=study.study_id,
                data_version_id=study.version_id,
                trial_id=trial_id,
                format="skops",
                artifact=study.artifact(trial_id),
                validation_loss=1 - quality,
            )
            models.add_validation_predictions(tx, model_id, np.arange(3))
        return trial_id, model_id

    return run


def sealed_of(database: Any) -> Callable[..., int]:
    """Seal a small set for a purpose; its id. Another ``start`` gives other examples."""

    def make(study: StudyRows, purpose: str, *, start: float = 0, steps: int = 3, examples: int = 5) -> int:
        with database.referee.begin() as tx:
            return sealed.seal(
                tx,
                study_id=study.study_id,
                data_version_id=study.version_id,
                purpose=SealedSetPurpose(purpose),
                inputs=start + np.arange(2.0 * examples).reshape(examples, 2),
                labels=np.arange(examples) % 2,
                steps=steps,
                plan=GateConfig() if purpose == "gate" else MeterConfig(),
            )

    return make


def filed_of(database: Any) -> Callable[..., int]:
    """File a request of the worker; its id."""

    def make(study: StudyRows, kind: str, model_id: int | None, *, key: str | None = None) -> int:
        with database.worker.begin() as tx:
            return requests.file_request(
                tx,
                kind=RequestKind(kind),
                study_id=study.study_id,
                model_id=model_id,
                arguments={},
                request_key=key or f"{kind}/{study.name}/{model_id}",
            )

    return make


ENTRY: dict[str, Any] = {
    "steps": 3,
    "answer": "pass",
    "log_level": -3.0,
    "log_cost": 0.5,
    "tolerance": None,
    "report": {"wins": 3},
}


def _feed(tx: Any, study: StudyRows) -> int:
    """A pair that was fed, and switched off; the feed's id."""
    given: dict[str, Any] = {"study_id": study.study_id, "request_key": "feed/1"}
    datasets.add_switches(tx, hashes=[b"h" * 32], is_on=False, reason="wrong", switched_by="ann", **given)
    return datasets.add_feed(tx, artifact=study.artifact(98), rows=1, origin="a.csv", fed_by="ann", **given)


def _refresh(tx: Any, study: StudyRows, feed_id: int, request_id: int) -> None:
    """The referee has taken it."""
    datasets.add_fed_examples(tx, study.study_id, {b"h" * 32: feed_id})
    given = {"request_id": request_id, "study_id": study.study_id, "data_version_id": study.version_id}
    datasets.add_refresh(tx, off=study.artifact(97), **given)


def _hand_in(database: Any, study: StudyRows) -> None:
    """A model that a developer has handed in."""
    with database.worker.begin() as tx:
        ids: dict[str, Any] = {"study_id": study.study_id, "data_version_id": study.version_id, "trial_id": None}
        given: dict[str, Any] = {
            "format": "constant",
            "artifact": study.artifact(99),
            "validation_loss": 0.5,
            "submitted": True,
        }
        model_id = models.add_model(tx, **ids, **given)
        models.add_submission(
            tx,
            study_id=study.study_id,
            study=study.name,
            model_id=model_id,
            kind="artifact",
            message="a first try",
            bundle=None,
            bundle_version=None,
            request_key="submission/1",
        )


def world_of(database: Any) -> World:
    """Every table has a row: one trial done, one waiting, one running; the model gated, metered and in production."""
    seal, file = sealed_of(database), filed_of(database)
    study = rows_of(database)()
    done, model_id = ended_of(database)(study, 0)
    ids: dict[str, Any] = {"study_id": study.study_id, "data_version_id": study.version_id}
    with database.owner.begin() as tx:
        selection_settings.add_settings(tx, config={"policy": "default"}, reason="as it was")
        scheduler_requests.note_beat(tx, None)
    with database.worker.begin() as tx:
        location.adopt_place(tx, store_id="a" * 32, place="/srv/easeml")
        waiting = trials.add_trial(tx, candidate_id=study.candidates[1], **ids)
        batch_id = suggestions.add_batch(tx, request_key="night/1", policy="default", requested=2)
        assert batch_id is not None
        suggestions.add_suggestion(
            tx, batch_id=batch_id, position=0, trial_id=waiting, reasons={"sentence": "new"}, reserve_seconds=60
        )
        running = trials.add_trial(tx, candidate_id=study.candidates[2], **ids)
        begin_attempt(tx, running, key="worker-1")
        trials.add_points(tx, running, [trials.CurvePoint(1, 8, 0.5, 1.5, 2.0)])
        decision = trials.RungDecision(1, 1, 8, 0.5, hoped=0.8, needed=0.7, known=9, rule="gains", goes_on=True)
        trials.add_decision(tx, trial_id=running, attempt=1, decision=decision)
        feed_id = _feed(tx, study)
        leases.note_offer(tx, functions=["tree"], trainers=True, studies=None)
        scheduler_requests.file_suggestion_request(
            tx,
            request_key="asks",
            requested=1,
            device=None,
            studies=None,
            functions={"tree": None},
            trainers=True,
            runtimes=None,
        )
    gate_set, meter_set = seal(study, "gate"), seal(study, "meter", start=100)
    filed = {RequestKind(k): file(study, k, None if k in ("seal", "refresh") else model_id) for k in RequestKind}
    gate, meter = filed[RequestKind.GATE], filed[RequestKind.METER]
    of_model: dict[str, Any] = {"study_id": study.study_id, "model_id": model_id}
    with database.referee.begin() as tx:
        for set_id, request_id in ((gate_set, gate), (meter_set, meter)):
            sealed.add_entry(
                tx,
                test_set_id=set_id,
                step=1,
                request_id=request_id,
                cache_key=f"question {set_id}",
                system="gate" if set_id == gate_set else "meter",
                **ENTRY,
            )
        _refresh(tx, study, feed_id, filed[RequestKind.REFRESH])
        referee = referee_claims.add_referee(tx, lease_seconds=1e-3)
        assert referee_claims.take(tx, gate, referee)
        assert referee_claims.take_duty(tx, referee_claims.EARLIER_MODELS, referee)
        attempt = requests.note_attempt(tx, gate).number
        requests.put_off(tx, gate, attempt, bounded=True, reason="TrainingKilled", seconds=1e-3)
        model = models.get_model(tx, study.study_id, model_id).identity
        sealed.keep_predictions(tx, gate_set, model, labels=np.arange(5) % 2, failure=None)
        answer: dict[str, Any] = {"model_id": model_id, "step": 1, "cached": False}
        verdict = releases.Verdict(
            incumbent_id=study.baseline_id, test_set_id=gate_set, symbol=Symbol.PASS, planned=True, **answer
        )
        releases.add_verdict(tx, request_id=gate, study_id=study.study_id, verdict=verdict)
        of_verdict = {"request_id": gate, "study_id": study.study_id, "test_set_id": gate_set}
        chain.publish(tx, **of_verdict, envelope={"payload": "signed"})
        reading = releases.Reading(test_set_id=meter_set, signal=2, signals=2, **answer)
        releases.add_reading(tx, request_id=meter, study_id=study.study_id, reading=reading)
        releases.add_alert(tx, study_id=study.study_id, study=study.name, request_id=meter, message="overfitted")
        promotion_id = model_life.add_promotion(
            tx, request_id=filed[RequestKind.PROMOTE], gate_request_id=gate, **of_model
        )
        outbox.hold(tx, request_id=gate, refused=False, message="done", facts=None, leaves_at=outbox.times(tx, gate)[1])
        outbox.add_mail(tx, recipient="integrator@lab.example", subject="a verdict", body="PASS")
        labels.keep_labels(tx, gate_set, "ann", np.zeros(5, dtype=np.int64))
        examples.keep_cells(tx, gate_set, ["note"], [["seen"]])
        labels.want(tx, request_id=gate, test_set_id=gate_set, positions=np.array([1]))
        labels.close_wanted(tx, gate)
        for request_id in filed.values():
            requests.add_answer(tx, request_id, refused=False, message="done")
        change(
            tx,
            "INSERT INTO work.remeasure_failures (model_id, data_version_id, study_id, reason) "
            "VALUES (:model, :version, :study, 'it cannot be run')",
            model=model_id,
            version=study.version_id,
            study=study.study_id,
        )
        change(
            tx,
            "INSERT INTO work.quality_checks (trial_id, study_id, model_id, claimed, measured, tolerance) "
            "VALUES (:trial, :study, :model, 0.9, 0.9, 0)",
            trial=done,
            study=study.study_id,
            model=model_id,
        )
    _hand_in(database, study)
    with database.referee.begin() as tx:
        source = row_registry.add_source(tx, study.study_id, np.ones(2, dtype=np.uint64))
        row_registry.add_rows(tx, source, [b"r" * 16], np.ones((1, 2), dtype=np.uint64), gate_set)
        row_registry.hold_rows(tx, [b"r" * 16], meter_set)
    assess_changes(database.worker)
    with database.owner.begin() as tx:
        change(
            tx,
            "INSERT INTO work.devices (login, tenants, host, name, holder, kind, slots, held) "
            "VALUES ('easeml_worker', '{}', 'gpu-1', 'cuda:0', 'k', 'gpu', 2, 1)",
        )
        change(tx, "INSERT INTO work.study_changes SELECT id FROM work.studies")
        change(tx, "INSERT INTO work.change_requests (study_id, change) SELECT id, 'resume' FROM work.studies")
        logins.map_login(tx, "easeml_t_world", [t.id for t in studies.list_tenants(tx)])
    return World(study, done, waiting, running, model_id, batch_id, gate_set, meter_set, filed, promotion_id)


make_rows, succeed, seal, file, world = map(pytest.fixture, (rows_of, ended_of, sealed_of, filed_of, world_of))


@dataclass
class BesideAWorld:
    """A database to copy: a ``World``, and beside it a tenant ``mallory`` with an active study and a trial of it."""

    name: str
    victim: World
    own: StudyRows
    own_trial: int


@pytest.fixture(scope="session")
def beside_a_world(server: Any) -> Iterator[BesideAWorld]:
    """Made once, since its rows take longer than most tests; their times are those of its beginning."""
    name = f"beside_a_world_{os.getpid()}"
    server.create_database_from_template(name, "easeml")
    stores = {role: Store(server.url(f"easeml_{role}", name)) for role in ("owner", "worker", "referee")}
    database = SimpleNamespace(**stores)
    victim, own = world_of(database), rows_of(database)("mallory", tenant="mallory")
    ids: dict[str, Any] = {"study_id": own.study_id, "data_version_id": own.version_id}
    with database.worker.begin() as tx:
        trial = trials.add_trial(tx, candidate_id=own.candidates[0], **ids)
    for store in stores.values():
        store.close()
    yield BesideAWorld(name, victim, own, trial)
    server.drop_database(name)


@dataclass
class CopiesOf:
    """Databases that one test alone has, as copies of another template."""

    databases: Any
    template: str

    def take(self, _: str) -> str:
        self.databases.is_own = True
        return str(self.databases.take(self.template))

    def give_back(self, name: str) -> None:
        self.databases.give_back(name)


@pytest.fixture
def databases(databases: Any, request: pytest.FixtureRequest) -> Any:
    """Those of tests with ``doors`` begin with the rows of ``beside_a_world``."""
    if "doors" not in request.fixturenames:
        return databases
    return CopiesOf(databases, request.getfixturevalue("beside_a_world").name)
