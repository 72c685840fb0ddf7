"""An installation with one study for every mode of gate and meter, and the requests that it lives through.

Each study has a table of its own. Its models are constants on open data; what they predict on sealed inputs is stored
as an earlier run would have stored it, so that their verdicts and signals are known and no process is started.
"""

from __future__ import annotations

import csv
import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
from registering import register_study

from easeml_core.errors import EasemlError
from easeml_core.models.formats import load_constant
from easeml_core.services.datasets.feed import feed
from easeml_core.services.models.submission import submit_model
from easeml_core.services.referee.process import Referee
from easeml_core.services.referee.publishing import Timetable
from easeml_core.services.referee.requests import (
    answer_of,
    file_forced_promotion,
    file_gate_request,
    file_meter_request,
    file_promotion,
    file_rollback,
)
from easeml_core.services.test_sets.lifecycle import retire_test_set
from easeml_core.services.test_sets.upload import seal_test_set
from easeml_core.settings.config import DirectConfig, GateConfig, JointConfig, MeterConfig
from easeml_core.store.rows import pack
from easeml_core.store.tables import chain, sealed
from easeml_core.store.tables import labels as label_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from pathlib import Path

    from easeml_core.formats.attestation import SigningKey

SECRET = "5eed5eed-5eed-4eed-8eed-5eed5eed5e06"
"""The installation's secret: every split, and with it every verdict, is the same in every run."""

ROWS = 1000
GATE = {"condition": "n - o > 0 +/- 0.2", "reliability": 0.9, "steps": 3, "estimator": "paper"}
METER = {"ranges": (-0.2, 0.2), "tolerance": 0.19, "reliability": 0.8, "steps": 4, "ambiguous": 4}
SLICES = {"slices": [["east", "n > 0.2 +/- 0.2"], ["west", "n > 0.2 +/- 0.2"]]}
WRONG = {"good": 0.04, "better": 0.01, "bad": 0.52, "awful": 0.9}
"""Share of a sealed set on which a model is wrong, its first rows; a constant on open data is wrong on about half."""

DEMAND = ("demand", "asked", "sliced")
"""Studies whose gate set has no labels until a verdict needs them."""


DELAYED = ("first", "asked")
"""Studies whose answers leave on the referee's grid; each is looked at while its first answers are held back."""

MOST_LOOKS = 1000
"""How often an answer is looked for that must come."""

DELAY_SECONDS = 0.001
"""The grid of these: an answer leaves when ``release_one`` is called, so a longer one would only wait."""

GRID_SECONDS = (0.001,)
"""To which times decisions and models' runs are padded there: the code of a grid, without its wait."""


class Held(Timetable):
    """A grid on which no answer leaves with its decision, also where that falls on a time of the grid."""

    def leaves_at(self, asked: datetime, now: datetime) -> datetime:
        return super().leaves_at(asked, now + timedelta.resolution)


@dataclass(frozen=True)
class Mode:
    """Settings of one study, over ``GATE`` and ``METER``; None takes one of these away."""

    gate: dict[str, Any] = field(default_factory=dict)
    meter: dict[str, Any] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)
    is_regression: bool = False


MODES: Mapping[str, Mode] = {
    "full": Mode({"adaptivity": "full"}, {"developer": "kt"}),
    "first": Mode({"adaptivity": "firstChange"}, {"method": "first-change", "overfitting_budget": 2}),
    "hidden": Mode({"adaptivity": "none", "mail": "ann@lab.example"}, {"method": "pruned"}),
    "upto": Mode({"adaptivity": "upTo:2"}, {"method": "exact-tree"}),
    "recycle": Mode({"adaptivity": "recycle"}, {"method": "ratchet", "tail": "hoeffding"}),
    "fnfree": Mode({"mode": "fn-free"}, {"method": "deviations", "deviations": 2, "one_sided": True}),
    "early": Mode(
        {"sampling": "early", "estimator": "exact", "power": 0.9},
        {"method": "full", "open_ended": True, "budget": ("signal above range 1",)},
    ),
    "demand": Mode({}, {"method": "nonuniform", "tolerances": (0.19, 0.19, 0.19)}),
    "asked": Mode({"sampling": "early", "estimator": "exact"}, {"teams": 2, "method": "multitenant"}),
    "sliced": Mode({}, {"developer": "sticky"}),
    "joint": Mode(
        {"reliability": None},
        {"reliability": None},
        {"joint": {"reliability": 0.8, "gate_share": 0.5}},
    ),
    "two": Mode({}, {"method": "dithered"}, {"direct": {"share": 0.4}}),
    "hits": Mode(
        {},
        {"ranges": (-0.4, 0.03), "method": "automaton", "automaton": (((1, 0), (2, 0), (3, 0)),)},
        {"metric": "rmse", "hit": "within:0.5", "task": "regression"},
        is_regression=True,
    ),
}


class Installation:
    """One installation: a laboratory with the studies of ``MODES``.

    Attributes:
        lab: The laboratory.
        folder: Where the tables lie that the referee reads; the same for all copies.
        key: Signs what leaves with an answer, without a check of what was signed before: ``relabel`` changes that.
        truth: Labels of every sealed set as they were sealed.
        models: Study to name to id.
        waits: Study and kind of request to what ``look`` gave when the first one waited for labels or for its time.
        transactions: How many transactions of the server wrote something during each request, with the study.
        large_values: How many values the server moved out of their row during each request, with the study.
    """

    def __init__(
        self, lab: Any, folder: Path, truth: Any = None, models: Any = None, key: SigningKey | None = None
    ) -> None:
        self.lab, self.folder, self.key = lab, folder, key
        self.truth: dict[int, np.ndarray] = dict(truth or {})
        self.models: dict[str, dict[str, int]] = models or {}
        self.look: Callable[[Any], Any] = lambda _lab: None
        self.waits: dict[str, Any] = {}
        self.transactions: list[tuple[str, int]] = []
        self.large_values: list[tuple[str, int]] = []
        self.timetable = Timetable()

    # Making it.

    def furnish(self) -> None:
        """Register, seal and fill every study."""
        self.lab.as_superuser(f"UPDATE sealed.installation SET secret = '{SECRET}'")
        for number, (study, mode) in enumerate(MODES.items()):
            self._register(study, mode, number)
            self._hand_in(study)
        for set_id, study in self.sets().items():
            self._predict(set_id, study)
            if study == "upto":  # as if the referee had planned the set with an answer about another condition
                planned = (
                    """UPDATE work.test_sets SET plan = plan || '{"other_conditions": 1, "estimator": "exact"}' """
                )
                self.lab.as_superuser(planned + "WHERE id = %s AND purpose = 'gate'", set_id)

    def _register(self, study: str, mode: Mode, number: int) -> None:
        write_table(self.folder / "lab" / f"{study}.csv", ROWS, seed=number, is_regression=mode.is_regression)
        given = {"gate": _without(GATE | mode.gate), "meter": _without(METER | mode.meter)} | mode.more
        filed = register_study(
            self.lab.worker,
            tenant="lab",
            study=study,
            source=f"csv:{study}.csv",
            target="y",
            request_key=f"register/{study}",
            **given,
        )
        self.answer_all()
        answer = answer_of(self.lab.worker, filed.request_id)
        assert answer is not None
        assert not answer.refused, answer.message
        if study == "sliced":
            self._seal_slices(study)
        with self.lab.referee.begin() as tx:
            for set_id in [i for i, name in self.sets().items() if name == study]:
                self.truth[set_id] = sealed.sealed_labels(tx, set_id)

    def _seal_slices(self, study: str) -> None:
        """A gate set of new examples in two slices takes the place of the registered one."""
        inputs, labels = self.folder / "new.csv", self.folder / "new-labels.csv"
        write_table(inputs, 700, seed=99, labels=labels)
        old = self.lab.one(
            "SELECT id FROM work.test_sets WHERE state = 'live' AND purpose = 'gate' ORDER BY id DESC LIMIT 1"
        )
        settings = GATE | SLICES
        given: dict[str, Any] = {
            "study": study,
            "inputs": inputs,
            "labels": labels,
            "slices_column": "side",
            "settings": settings,
        }
        seal_test_set(self.lab.referee, self.lab.artifacts, name="slices", **given)
        retire_test_set(self.lab.referee, test_set=str(old), study=study)

    def _hand_in(self, study: str) -> None:
        is_regression = MODES[study].is_regression
        self.models[study] = {}
        for number, name in enumerate(WRONG):
            path = self.folder / f"{study}-{name}"
            kept = '{"number": 0.0}' if is_regression else '{"label": 0}'
            path.write_text(kept + " " * number)
            self.models[study][name] = self.lab.hand_in(study, name, path, kind="constant", loss=0.5)

    def _predict(self, set_id: int, study: str) -> None:
        """Keep what each model predicts on the set, and the baseline what it says everywhere."""
        truth, files = (
            self.truth[set_id],
            "SELECT id, artifact FROM work.models WHERE study_id = (SELECT id FROM work.studies WHERE name = :name)",
        )
        known = {model_id: name for name, model_id in self.models[study].items()}
        with self.lab.referee.begin() as tx:
            for model_id, artifact in self.lab.rows(files, name=study):
                if model_id in known:
                    wrong = np.arange(len(truth)) < round(WRONG[known[model_id]] * len(truth))
                    found = np.where(wrong, other(truth), truth)
                else:
                    inputs = sealed.sealed_inputs(tx, set_id)
                    found = load_constant(self.lab.artifacts.path(artifact)).predict(inputs)
                sealed.keep_predictions(tx, set_id, f"constant {artifact}", labels=found, failure=None)

    def sets(self) -> dict[int, str]:
        """Every set that is or was live, with its study."""
        return dict(
            self.lab.rows(
                "SELECT t.id, s.name FROM work.test_sets t JOIN work.studies s ON s.id = t.study_id ORDER BY t.id"
            )
        )

    def modes(self) -> set[str]:
        """What the studies' settings are, as ``surfaces.modes`` names it."""
        configs = {"gate": GateConfig, "meter": MeterConfig, "joint": JointConfig, "direct": DirectConfig}
        found = {"answers.delay_seconds is set", "labels are given up front"} if DELAYED else set()
        found |= {"labels are given on demand"} if DEMAND else set()
        for study, mode in MODES.items():
            given = {"gate": GATE | mode.gate, "meter": METER | mode.meter} | mode.more
            given["gate"] |= SLICES if study == "sliced" else {}
            for system, config in configs.items():
                if system in given:
                    made = config(**_without(given[system]))
                    found |= {f"{system}.{name}={value}" for name, value in made.to_json().items()}
                    found |= {f"{system}.{name} is set" for name in given[system]}
            found |= {f"gate.adaptivity={mode.gate.get('adaptivity', 'full').partition(':')[0]}"}
            found |= {"joint.gate is set", "joint.meter is set"} if "joint" in given else set()
        return found | ({"gate.other_conditions is set"} if "upto" in MODES else set())

    # Changing what is sealed.

    def relabel(self, change: Callable[[str, np.ndarray], np.ndarray]) -> None:
        """Give every set other labels; every copy is written as often, so that no size tells copies apart.

        Args:
            change: The study and the labels as they were sealed, to the new labels.
        """
        for set_id, study in self.sets().items():
            self.truth[set_id] = change(study, self.truth[set_id]).astype(self.truth[set_id].dtype)
            is_asked = study in DEMAND and self._purpose(set_id) == "gate"
            shown = np.full_like(self.truth[set_id], -1) if is_asked else self.truth[set_id]
            sql = "UPDATE sealed.test_sets SET labels = %s WHERE id = %s"
            self.lab.as_superuser(sql, pack(shown), set_id)
            if is_asked:
                past_triggers = "SET session_replication_role = replica; "
                on = f"{past_triggers}UPDATE work.test_sets SET labels_on_demand = true WHERE id = %s"
                self.lab.as_superuser(on, set_id)

    def _purpose(self, set_id: int) -> str:
        return str(self.lab.one("SELECT purpose FROM work.test_sets WHERE id = :id", id=set_id))

    # Living.

    def answer_all(self) -> None:
        """Let the referee answer what it can."""
        judge = self._referee()
        with chain.recording(self.key):
            while judge.answer_one() is not None:
                pass

    def _referee(self) -> Referee:
        grids: dict[str, Any] = {"grid_seconds": GRID_SECONDS, "decision_grid_seconds": GRID_SECONDS}
        given: dict[str, Any] = {"data": self.folder, "timetable": self.timetable}
        return Referee(self.lab.referee, self.lab.artifacts, **given, **grids)

    def give_labels(self) -> bool:
        """Give every label that is asked for; whether there was any."""
        with self.lab.referee.begin() as tx:
            wanted = label_rows.open_wanted(tx)
            for each in wanted:
                said = label_rows.words_of(tx, each.test_set_id, "ann", len(self.truth[each.test_set_id]))
                said[each.positions] = self.truth[each.test_set_id][each.positions]
                label_rows.keep_labels(tx, each.test_set_id, "ann", said)
        return bool(wanted)

    def ask(self, file: Callable[..., Any], **asked: Any) -> Any:
        """File a request, let it be answered, give labels where it waits for them; the answer, or the error."""
        before, drawn = self._transaction(), self._large_value()
        self.timetable = Held(DELAY_SECONDS) if asked["study"] in DELAYED else Timetable()
        try:
            request_id = file(self.lab.worker, request_key=self.lab.key(), **asked)
        except EasemlError as error:
            return repr(error)
        self.answer_all()
        answer, waits = answer_of(self.lab.worker, request_id), f"{asked['study']} {file.__name__}"
        if answer is None and waits not in self.waits:
            self.waits[waits] = self.look(self.lab)
        for _ in range(MOST_LOOKS):
            if answer is not None:
                break
            if self.give_labels():
                self.answer_all()
            elif not self._let_leave():
                time.sleep(DELAY_SECONDS)
            answer = answer_of(self.lab.worker, request_id)
        assert answer is not None, f"{waits} has no answer"
        self.transactions.append((asked["study"], self._transaction() - before))
        self.large_values.append((asked["study"], self._large_value() - drawn))
        return answer

    def _let_leave(self) -> bool:
        """Let an answer leave whose time has come; whether there was any."""
        with chain.recording(self.key):
            return self._referee().release_one() is not None

    def _transaction(self) -> int:
        """Number of a transaction that begins now, as every role may ask for it."""
        ((number,),) = self.lab.rows("SELECT pg_current_xact_id()::text::bigint", store=self.lab.worker)
        return int(number)

    def _large_value(self) -> int:
        """Draw a number from the counter of large values, as every role can."""
        with self.lab.worker.begin() as tx:
            tx.exec_driver_sql("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO easeml_referee")
            number = tx.exec_driver_sql("SELECT oid::bigint FROM pg_default_acl").scalar()
            tx.exec_driver_sql("ALTER DEFAULT PRIVILEGES REVOKE SELECT ON TABLES FROM easeml_referee")
        return int(number)

    def live(self) -> list[Any]:
        """Every kind of request in every study: passes, fails, cached and refused ones, ends of sets, moves."""
        said: list[Any] = []
        for study, models in self.models.items():
            gate = {name: {"study": study, "model_id": models[name]} for name in models}
            first = self.ask(file_gate_request, **gate["good"])
            said += [first, self.ask(file_gate_request, **gate["bad"]), self.ask(file_gate_request, **gate["good"])]
            said.append(self.ask(file_gate_request, condition="n > 0.1 +/- 0.4", **gate["better"]))
            said.append(self.ask(file_gate_request, reliability=0.5, **gate["better"]))
            said.append(self.ask(file_gate_request, blocking=True, **gate["bad"]))
            said.append(self.ask(file_meter_request, **gate["good"]))
            said.append(self.ask(file_promotion, gate_request_id=first.request_id, **gate["good"]))
            said += [self.ask(file_meter_request, **gate[name]) for name in ("awful", "good", "bad", "better", "awful")]
            said += [self.ask(file_gate_request, **gate[name]) for name in ("better", "awful", "bad")]
            said.append(self.ask(file_meter_request, team=2, **gate["good"]))
            said.append(self.ask(file_rollback, study=study, why="it is slow"))
            said.append(self.ask(file_forced_promotion, who="eve", why="now", **gate["awful"]))
            said.append(self.ask(file_gate_request, study=study, model_id=10**9))
        return [*said, *self._bring()]

    def _bring(self) -> list[Any]:
        """What developers hand in and feed."""
        path = self.folder / "handed-in"
        path.write_text('{"label": 1}')
        given: dict[str, Any] = {"study": "full", "format": "constant", "message": "mine", "request_key": "hand-in"}
        pairs = [{"inputs": {"a": 0.5, "b": 0.25, "side": "east"}, "label": "no"}]
        fed: dict[str, Any] = {"study": "full", "pairs": pairs, "fed_by": "ann", "request_key": "feed"}
        return [
            submit_model(self.lab.worker, self.lab.artifacts, path=path, **given),
            feed(self.lab.worker, self.lab.artifacts, **fed),
        ]

    def reports(self) -> list[tuple[str, Any]]:
        """Study and report of every entry of the ledger, as the referee reads it."""
        found: list[tuple[str, Any]] = self.lab.rows(
            "SELECT s.name, l.report FROM sealed.ledger l JOIN work.test_sets t ON t.id = l.test_set_id "
            "JOIN work.studies s ON s.id = t.study_id ORDER BY l.id"
        )
        return found


def _without(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that have a value."""
    return {name: value for name, value in settings.items() if value is not None}


def other(labels: np.ndarray) -> np.ndarray:
    """Wrong labels for all of these."""
    return labels + 9 if labels.dtype.kind == "f" else 1 - labels


def write_table(path: Path, rows: int, *, seed: int, is_regression: bool = False, labels: Path | None = None) -> None:
    """Write a table with two numbers, a word and a target; with keys of rows where labels have a file of their own."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, rows)).round(6)
    target = [f"{x + y:.4f}" for x, y in zip(a, b, strict=True)] if is_regression else np.where(a > 0, "yes", "no")
    path.parent.mkdir(parents=True, exist_ok=True)
    side = np.where(rng.random(rows) < 0.5, "east", "west")
    columns: dict[str, Any] = {"a": a, "b": b, "side": side}
    columns = columns | {"y": target} if labels is None else {"example": [f"new {n}" for n in range(rows)]} | columns
    _write(path, columns)
    if labels is not None:
        _write(labels, {"example": columns["example"], "label": target})


def _write(path: Path, columns: Mapping[str, Any]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([list(columns), *zip(*columns.values(), strict=True)])
