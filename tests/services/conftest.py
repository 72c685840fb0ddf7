"""A laboratory: three sealed studies with trained models, made once a session and copied for every test.

The installation's secret is fixed, so that every split, and with it every verdict, is the same in every run. The
studies differ in what their gate releases: ``full``, ``first`` (firstChange) and ``hidden`` (none).
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import random
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import made_up_installation
import numpy as np
import psutil
import pytest
from any_tenant import AnyTenant
from databases import Databases
from registering import register_study
from sqlalchemy import text

from easeml_core.data.parts import OpenParts, load_open_parts
from easeml_core.entities import Executor, TrialState
from easeml_core.models.formats import load_predictor, save_constant, save_model
from easeml_core.models.skops_format import PipelinePredictor
from easeml_core.services.referee.process import Referee
from easeml_core.services.referee.requests import answer_of, file_gate_request, file_meter_request, file_promotion
from easeml_core.services.selection.scheduler_state import Memory
from easeml_core.store.database import Store
from easeml_core.store.rows import pack
from easeml_core.store.tables import decisions, leases, models, sealed, studies, trials

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from easeml_core.selection.suggestion import Suggestion
    from easeml_core.services.selection.scheduler import LiveScheduler
    from easeml_core.store.artifacts.local import ArtifactStore
    from easeml_core.store.tables.decisions import SuggestedTrial

SECRET = "5eed5eed-5eed-4eed-8eed-5eed5eed5e05"
ADAPTIVITY = {"full": "full", "first": "firstChange", "hidden": "none"}
# The published sizes are larger than what the verdicts need: the laboratory has room for both.
GATE = {"condition": "n - o > 0 +/- 0.2", "reliability": 0.9, "steps": 3, "estimator": "paper"}
METER = {"ranges": (0.2, 0.6), "tolerance": 0.2, "reliability": 0.9, "steps": 4}
KINDS = ("nearest_centroid", "gaussian_naive_bayes", "decision_tree")
CANDIDATES = [{"name": kind, "kind": kind} for kind in KINDS]


@dataclass
class Lab:
    """One database with its artifacts, as worker and as referee."""

    server: Any
    name: str
    artifacts: ArtifactStore
    worker: Store
    referee: Store
    databases: Any
    models: dict[str, dict[str, int]] = field(default_factory=dict)
    _keys: Iterator[int] = field(default_factory=itertools.count)
    is_ended: bool = False

    def key(self) -> str:
        """Return an unused request key."""
        return f"key/{next(self._keys)}"

    def url(self, role: str) -> str:
        return str(self.server.url(role, self.name))

    # What a task does.

    def register(self, study: str, **changes: Any) -> Any:
        """Register a study on breast_cancer and let the referee answer; the answer."""
        settings: dict[str, Any] = {"tenant": "lab", "source": "sklearn:breast_cancer", "gate": GATE, "meter": METER}
        settings |= {"candidates": CANDIDATES, "request_key": self.key()}
        filed = register_study(self.worker, study=study, **settings | changes)
        return self.answer(filed.request_id)

    def gate(self, model: str | int = "good", study: str = "full", **asked: Any) -> Any:
        """Ask the gate and let the referee answer."""
        asked = {"study": study, "model_id": self._id(model, study), "request_key": self.key(), **asked}
        return self.answer(file_gate_request(self.worker, **asked))

    def meter(self, model: str | int = "good", study: str = "full", **asked: Any) -> Any:
        """Ask the meter and let the referee answer."""
        asked = {"study": study, "model_id": self._id(model, study), "request_key": self.key(), **asked}
        return self.answer(file_meter_request(self.worker, **asked))

    def promote(self, gate_request_id: int, model: str | int = "good", study: str = "full", **asked: Any) -> Any:
        """Ask for a promotion and let the referee answer."""
        asked = {"request_key": self.key(), "model_id": self._id(model, study), **asked}
        filed = file_promotion(self.worker, study=study, gate_request_id=gate_request_id, **asked)
        return self.answer(filed)

    def answer(self, request_id: int) -> Any:
        """The referee's answer to the request, after it has answered whatever there is."""
        self.answer_all()
        found = answer_of(self.worker, request_id)
        assert found is not None
        return found

    def answer_all(self) -> int:
        """Let the referee answer every open request; how many there were."""
        judge = Referee(self.referee, self.artifacts)
        return sum(1 for _ in iter(judge.answer_one, None))

    def _id(self, model: str | int, study: str) -> int:
        return self.models[study][model] if isinstance(model, str) else model

    def hand_in(self, study: str, name: str, path: Path, *, kind: str, loss: float) -> int:
        """Store a file as the model of a succeeded trial, as a worker could; the loss is what that worker claims."""
        with self.worker.begin() as tx:
            found = studies.get_study(tx, study)
            artifact = self.artifacts.of_tenant(found.tenant).put(path)
            version = studies.latest_data_version(tx, found.id)
            studies.add_candidates(tx, found.id, [{"name": name, "kind": "decision_tree"}])
            ids: dict[str, Any] = {"study_id": found.id, "data_version_id": version.id}
            candidate = next(c for c in studies.list_candidates(tx, found.id) if c.name == name)
            trial = trials.add_trial(tx, candidate_id=candidate.id, **ids)
            attempt = leases.start_trial(
                tx,
                trial_id=trial,
                lease_key="hand-in",
                lease_seconds=60,
                executor=Executor(trials.get_trial(tx, trial).implementation, "test"),
            )
            ended: dict[str, Any] = {"trial_id": trial, "attempt": attempt, "state": TrialState.SUCCEEDED}
            assert leases.finish_trial(tx, cost_seconds=1.0, **ended)
            models.add_observation(tx, trial_id=trial, quality=1 - loss, cost_seconds=1.0)
            return models.add_model(tx, trial_id=trial, format=kind, artifact=artifact, validation_loss=loss, **ids)

    # What is there, for assertions.

    def rows(self, sql: str, *, store: Store | None = None, **values: Any) -> list[Any]:
        """Rows of a query as the referee, or as another role, sees them."""
        with (store or self.referee).begin() as tx:
            return [tuple(r) for r in tx.execute(text(sql), values)]

    def one(self, sql: str, **values: Any) -> Any:
        """The single value of a query, as the referee sees it."""
        ((value,),) = self.rows(sql, **values)
        return value

    def as_superuser(self, sql: str, *values: Any) -> None:
        """Change what no role of ours may change."""
        with contextlib.closing(self.server.connect(database=self.name)) as opened, opened.cursor() as cursor:
            cursor.execute(sql, values or None)

    def superuser_rows(self, sql: str) -> list[Any]:
        """Return the rows of a query in the server's administrator role."""
        with contextlib.closing(self.server.connect(database=self.name)) as opened, opened.cursor() as cursor:
            cursor.execute(sql)
            return [tuple(r) for r in cursor]

    def allow_other_conditions(self, count: int = 1, *, estimator: str = "exact") -> None:
        """Let every gate set have been planned with so many answers about other conditions than its own."""
        plan = json.dumps({"other_conditions": count, "estimator": estimator})
        self.as_superuser("UPDATE work.test_sets SET plan = plan || %s WHERE purpose = 'gate'", plan)

    def relabel(self, set_id: int, change: Callable[[np.ndarray], np.ndarray]) -> None:
        """Let a sealed set have other labels than it has."""
        with self.referee.begin() as tx:
            labels = change(sealed.sealed_labels(tx, set_id))
        self.as_superuser("UPDATE sealed.test_sets SET labels = %s WHERE id = %s", pack(labels), set_id)

    def end_leases(self) -> None:
        """Let no referee live that does not say so again, as after a kill."""
        self.as_superuser("UPDATE sealed.referees SET beat_at = started_at, until = started_at")
        self.as_superuser("UPDATE work.heartbeats SET beat_at = now(), until = now()")

    def let_run_out(self, *trial_ids: int) -> None:
        """Let the reservation or lease of these trials be over."""
        over = "UPDATE work.trials SET lease_until = now() - interval '1 s' WHERE id = ANY(%s)"
        self.as_superuser(over, list(trial_ids))

    def open_parts(self, study: str = "full") -> OpenParts:
        with self.worker.begin() as tx:
            version = studies.latest_data_version(tx, studies.get_study(tx, study).id)
        return load_open_parts(self.artifacts.path(version.artifact))

    def fit(self, estimator: Any, path: Path, study: str = "full") -> Path:
        """A file with the classifier, fitted on the study's training part."""
        return fitted(estimator, self.open_parts(study), path)

    def close(self) -> None:
        """Disconnect, so that the database may be copied."""
        self.worker.close()
        self.referee.close()

    def end(self) -> None:
        """Disconnect, and give the database back, once."""
        self.close()
        if not self.is_ended:
            self.is_ended = True
            self.databases.give_back(self.name)


def open_lab(databases: Any, template: str, artifacts: ArtifactStore) -> Lab:
    """A laboratory in a copy of the template."""
    server, name = databases.server, databases.take(template)
    worker, referee = (Store(server.url(f"easeml_{role}", name)) for role in ("worker", "referee"))
    return Lab(server, name, artifacts, worker, referee, databases)


def make_template(server: Any, template: str, artifacts: ArtifactStore) -> Lab:
    """A laboratory that others are to be copied from, with a separate database."""
    own = Databases(server)
    own.is_own = True
    return open_lab(own, template, artifacts)


def fitted(estimator: Any, parts: OpenParts, path: Path) -> Path:
    """Fit a classifier on the training part and keep it as the training room does."""
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    steps = SimpleImputer(keep_empty_features=True), StandardScaler(), estimator
    pipeline = make_pipeline(*steps).fit(parts.train_inputs, parts.train_labels)
    save_model(PipelinePredictor(pipeline), path)
    return path


def _furnish(lab: Lab, folder: Path) -> dict[str, dict[str, int]]:
    """Three sealed studies with a good model, a worse one, and one that always names the rarer class."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.tree import DecisionTreeClassifier

    lab.as_superuser(f"UPDATE sealed.installation SET secret = '{SECRET}'")
    handed: dict[str, dict[str, int]] = {}
    for study, adaptivity in ADAPTIVITY.items():
        gate = GATE | {"adaptivity": adaptivity}
        assert not lab.register(study, gate=gate, request_key=f"register/{study}").refused
        parts = lab.open_parts(study)
        good = fitted(LogisticRegression(random_state=0), parts, folder / f"{study}-good")
        worse = fitted(DecisionTreeClassifier(max_depth=1, max_leaf_nodes=2, random_state=0), parts, folder / "worse")
        save_constant(folder / "rare", int(np.bincount(parts.train_labels).argmin()))
        handed[study] = {
            "good": lab.hand_in(study, "good", good, kind="skops", loss=0.02),
            "worse": lab.hand_in(study, "worse", worse, kind="skops", loss=0.1),
            "rare": lab.hand_in(study, "rare", folder / "rare", kind="constant", loss=0.6),
        }
        _predict_ahead(lab, study)
    return handed


def _predict_ahead(lab: Lab, study: str) -> None:
    """Keep the predictions on the sealed sets as an earlier answer would have: no test then waits for a process."""
    with lab.referee.begin() as tx:
        study_id = studies.get_study(tx, study).id
        found = tx.execute(text("SELECT id FROM work.test_sets WHERE study_id = :id"), {"id": study_id}).scalars()
        files = tx.execute(
            text("SELECT DISTINCT artifact, format FROM work.models WHERE study_id = :id"), {"id": study_id}
        )
        for (artifact, kind), set_id in itertools.product(list(files), list(found)):
            predictor = load_predictor(lab.artifacts.path(artifact), kind)
            labels = predictor.predict(sealed.sealed_inputs(tx, set_id))
            sealed.keep_predictions(tx, set_id, f"{kind} {artifact}", labels=labels, failure=None)  # Model.identity


@pytest.fixture(scope="session")
def lab_opener() -> Callable[[Any, str, ArtifactStore], Lab]:
    """Open a copy of a template: ``lab_opener(databases, template, artifacts)``."""
    return open_lab


@pytest.fixture(scope="session")
def template_maker() -> Callable[[Any, str, ArtifactStore], Lab]:
    """Open a laboratory that others are to be copied from: ``template_maker(server, template, artifacts)``."""
    return make_template


@pytest.fixture(scope="module")
def templates(server: Any, all_databases: Any) -> Iterator[Callable[[str, ArtifactStore], Lab]]:
    """Open laboratories that the tests of a file have copies of: ``templates(template, artifacts)``."""
    made: list[Lab] = []

    def make(template: str, artifacts: ArtifactStore) -> Lab:
        made.append(make_template(server, template, artifacts))
        return made[-1]

    yield make
    for lab in made:
        lab.close()
        all_databases.forget(lab.name)
        server.drop_database(lab.name)


@pytest.fixture
def copied(databases: Any) -> Iterator[Callable[[Lab], Lab]]:
    """Copy a laboratory of ``templates``."""
    made: list[Lab] = []

    def copy_of(original: Lab) -> Lab:
        original.close()
        made.append(open_lab(databases, original.name, original.artifacts))
        made[-1].models, made[-1]._keys = original.models, original._keys  # no key is used twice
        return made[-1]

    yield copy_of
    for lab in made:
        lab.end()


@pytest.fixture(scope="session")
def furnished(
    server: Any, all_databases: Any, tmp_path_factory: Any
) -> Iterator[tuple[Lab, Mapping[str, dict[str, int]]]]:
    """The laboratory that every other one is copied from."""
    folder = tmp_path_factory.mktemp("laboratory")
    lab = make_template(server, "easeml", AnyTenant(folder / "artifacts"))
    lab.models = _furnish(lab, folder)
    lab.close()
    yield lab, lab.models
    all_databases.forget(lab.name)
    server.drop_database(lab.name)


@pytest.fixture(scope="module")
def own_template(furnished: Any, templates: Any) -> Callable[[], Lab]:
    """Open a laboratory that the tests of a file have copies of, once it holds what they begin with."""

    def make() -> Lab:
        original, handed = furnished
        lab: Lab = templates(original.name, original.artifacts)
        lab.models = handed
        return lab

    return make


@pytest.fixture
def make_lab(databases: Any, furnished: Any) -> Iterator[Callable[[], Lab]]:
    """Copies of the laboratory, all alike to the last id."""
    original, handed = furnished
    made: list[Lab] = []

    def make() -> Lab:
        lab = open_lab(databases, original.name, original.artifacts)
        lab.models = handed
        made.append(lab)
        return lab

    yield make
    for lab in made:
        lab.end()


@pytest.fixture
def lab(make_lab: Callable[[], Lab]) -> Lab:
    """A laboratory of this test's own."""
    return make_lab()


@pytest.fixture
def bare(databases: Any, tmp_path: Path) -> Iterator[Lab]:
    """An installation without any study."""
    lab = open_lab(databases, "easeml", AnyTenant(tmp_path / "artifacts"))
    yield lab
    lab.end()


@pytest.fixture
def wait_for() -> Callable[..., Any]:
    """Wait until something holds, and give it back."""

    def wait(holds: Callable[[], Any], seconds: float = 60) -> Any:
        deadline = time.monotonic() + seconds
        while not (found := holds()):
            assert time.monotonic() < deadline, "it never came"
            time.sleep(0.02)
        return found

    return wait


# Processes that a test kills.


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a Python process of ours; whatever is left of it at the end is killed."""
    running: list[subprocess.Popen[str]] = []

    def launch(*arguments: str, stderr: int = subprocess.PIPE) -> subprocess.Popen[str]:
        command = [sys.executable, "-u", *arguments]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True))
        return running[-1]

    yield launch
    for process in running:
        process.kill()
        process.communicate()


@pytest.fixture
def child_of() -> Callable[[subprocess.Popen[str], str], psutil.Process | None]:
    """Find the child of a process that runs this module of ours, once it is there."""

    def find(process: subprocess.Popen[str], module: str = "easeml_core.training.child") -> psutil.Process | None:
        assert process.poll() is None, process.communicate()[1]
        with contextlib.suppress(psutil.NoSuchProcess):  # the process has ended meanwhile; the next look says why
            for child in psutil.Process(process.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):  # another child has
                    if module in child.cmdline():
                        return child
        return None

    return find


# A made-up installation, in which nothing is trained: for many decisions in little time.

ARMS = ("forest", "knn", "linear", "net", "svm", "tree", "vote", "zero")
STUDIES = 5
SETTINGS = {"training": {"time_limit_seconds": 60.0, "max_attempts": 3}}


def quality_of(study: str, candidate: str) -> float:
    """In (0, 1), the same in every process."""
    return random.Random(f"{study} {candidate}").uniform(0.05, 0.95)


def cost_of(study: str, candidate: str) -> float:
    return random.Random(f"cost {study} {candidate}").lognormvariate(0, 1)


class Installation:
    """Studies with some results, and what happens to their trials."""

    def __init__(self, database: Any) -> None:
        self.database, self.store, self.owner = database, database.worker, database.owner
        self.candidates = ARMS
        self.keys = (f"key/{n}" for n in itertools.count())
        ended = [
            (s, k, quality_of(f"h-{s}", ARMS[k]), cost_of(f"h-{s}", ARMS[k]))
            for s in range(STUDIES - 1)
            for k in (s % 3, 4)
        ]
        with self.owner.begin() as tx:
            rows = [100 + 37 * s for s in range(STUDIES)]
            made_up_installation.fill(tx, key="h", candidates=ARMS, config=SETTINGS, trials=ended, rows=rows)

    def sql(self, statement: str, **values: Any) -> list[Any]:
        with self.owner.begin() as tx:
            found = tx.execute(text(statement), values)
            return [tuple(r) for r in found] if found.returns_rows else []

    def begin(self, trial: SuggestedTrial) -> int:
        with self.store.begin() as tx:
            attempt = leases.start_trial(
                tx,
                trial_id=trial.trial_id,
                lease_key="w",
                lease_seconds=60.0,
                executor=Executor(trials.get_trial(tx, trial.trial_id).implementation, "test"),
            )
        assert attempt is not None
        return attempt

    def end(self, trial: SuggestedTrial, state: TrialState = TrialState.SUCCEEDED, *, pace: float = 1.0) -> None:
        with self.store.begin() as tx:
            self.end_in(tx, trial, state, pace=pace)

    def end_in(
        self, tx: Any, trial: SuggestedTrial, state: TrialState = TrialState.SUCCEEDED, *, pace: float = 1.0
    ) -> None:
        study, candidate, number = trial.study, trial.candidate, trial.trial_id
        attempt = leases.start_trial(
            tx,
            trial_id=number,
            lease_key="w",
            lease_seconds=60.0,
            executor=Executor(trials.get_trial(tx, number).implementation, "test"),
        )
        cost, failure = pace * cost_of(study, candidate), "it crashed" if state == TrialState.FAILED else None
        ended: dict[str, Any] = {"attempt": attempt, "state": state, "cost_seconds": cost, "failure": failure}
        assert leases.finish_trial(tx, trial_id=number, **ended)
        if state == TrialState.SUCCEEDED:
            quality = quality_of(study, candidate)
            models.add_observation(tx, trial_id=number, quality=quality, cost_seconds=cost)

    def let_run_out(self, trial: SuggestedTrial) -> None:
        self.sql("UPDATE work.trials SET lease_until = now() - interval '1 s' WHERE id = :id", id=trial.trial_id)

    def reasons(self) -> list[dict[str, Any]]:
        """All stored reasons in order, with what they are for."""
        return [
            {"study": study, "candidate": candidate, **reasons}
            for study, candidate, reasons in self.sql(
                "SELECT s.name, c.name, g.reasons FROM work.suggestions g JOIN work.trials t ON t.id = g.trial_id "
                "JOIN work.studies s ON s.id = t.study_id JOIN work.candidates c ON c.id = t.candidate_id "
                "ORDER BY g.batch_id, g.position"
            )
        ]

    @staticmethod
    def next_of(memory: Memory, count: int, device: str | None = None) -> list[Suggestion]:
        """The next decisions, each followed by its result."""
        found = []
        for _ in range(count):
            suggestion = memory.suggest(device)
            if suggestion is None:
                break
            found.append(suggestion)
            tenant = next(i for i, arms in enumerate(memory.arms) if arms.study_id == suggestion.study_id)
            study, candidate = memory.arms[tenant].study, memory.arms[tenant].names[suggestion.arm]
            cost = cost_of(study, candidate)
            memory.scheduler.record(tenant, suggestion.arm, quality_of(study, candidate), cost, device=device)
        return found

    def agrees(self, live: LiveScheduler, count: int, **choice: Any) -> bool:
        """Hold the next decisions from memory against those of a new one; whether the memory could catch up at all."""
        old = copy.deepcopy(live._memory)
        with self.store.begin() as tx:
            if old is None:
                return False
            seen = decisions.look(tx, request_key="?", last=old.last_trial, known=list(old.open))
            if not old.catch_up(seen):
                return False
            new = Memory.load(tx, seen, **{"policy": None, "studies_only": None} | choice)
        assert old.open.keys() == new.open.keys()
        assert (old.costs_known, old.kinds) == (new.costs_known, new.kinds)
        expected = self.next_of(new, count)
        assert self.next_of(old, count) == expected
        return True


@pytest.fixture
def installation(database: Any) -> Installation:
    return Installation(database)


@pytest.fixture
def loads(monkeypatch: Any) -> list[int]:
    """How often everything was loaded: one entry each time."""
    seen: list[int] = []
    original = vars(Memory)["load"].__func__

    def load(cls: Any, *given: Any, **named: Any) -> Any:
        seen.append(1)
        return original(cls, *given, **named)

    monkeypatch.setattr(Memory, "load", classmethod(load))
    return seen
