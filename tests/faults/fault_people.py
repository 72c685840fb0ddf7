"""The people of one study: a process that registers it, asks gate and meter, feeds rows, gives labels and promotes.

Each act has a request key that follows from the study's name. A process that is killed is started again with the same
arguments and does everything again under the same keys, as a task of Airflow would; whatever was answered goes into a
journal, one line each, so that a later look finds a request that was answered twice in different ways.

    python tests/faults/fault_people.py FOLDER STUDY WORKER_URL REFEREE_URL
"""

from __future__ import annotations

import csv
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from easeml_core.actions.studies import RegisterStudy
from easeml_core.entities import StudyState
from easeml_core.errors import ArtifactError, ConcurrentUpdateError, StoreUnavailableError, is_put_off
from easeml_core.formats.encoding import to_json
from easeml_core.services.datasets.feed import feed, file_refresh
from easeml_core.services.labeling.requests import give_labels, wanted_labels
from easeml_core.services.referee.requests import (
    answer_of,
    file_gate_request,
    file_meter_request,
    file_promotion,
    file_rollback,
)
from easeml_core.services.registration.register import register_study
from easeml_core.services.test_sets.lifecycle import retire_test_set
from easeml_core.services.test_sets.upload import seal_test_set
from easeml_core.store.artifacts.local import ArtifactStore
from easeml_core.store.database import Store
from easeml_core.store.rows import rows, scalar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

TENANT = "lab"
CANDIDATES = ("nearest_centroid", "gaussian_naive_bayes", "decision_tree")
GATE = {"condition": "n - o > -0.4 +/- 0.2", "reliability": 0.9, "steps": 3, "estimator": "paper"}
METER = {"ranges": (0.2, 0.6), "tolerance": 0.2, "reliability": 0.9, "steps": 4}
TRAINING = {"lease_seconds": 3.0, "time_limit_seconds": 20.0, "max_attempts": 5}
BUDGET_SECONDS = 3600.0
ROWS, BROUGHT, FED, FEATURES = 700, 300, 12, 4
CLASSES = ("no", "yes")

KEYS = ("register", "meter", "gate/1", "promote/1", "feed", "refresh", "gate/2", "promote/2", "rollback")
"""Every act that has a request key. A promotion is asked for after a pass alone, a return after two promotions."""

_PAUSE_SECONDS, _LOOK_SECONDS, _LONGEST_SECONDS = 0.5, 0.1, 300.0


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of two classes that a line divides, but for a tenth of them.

    Attributes:
        inputs: (rows, features), pairwise different.
        labels: (rows,), 0 or 1.
    """

    inputs: np.ndarray
    labels: np.ndarray

    @classmethod
    def of(cls, study: str, part: int, count: int) -> Table:
        """Return the rows that belong to a study, the same in every process."""
        rng = np.random.default_rng([part, *study.encode()])
        inputs = rng.normal(size=(count, FEATURES)).astype(np.float32)
        labels = (inputs @ np.array([2.0, -1.0, 0.5, 0.0], dtype=np.float32) > 0).astype(int)
        return cls(inputs, np.where(rng.random(count) < 0.1, 1 - labels, labels))

    def write(self, path: Path) -> Path:
        """Write a CSV file with the column ``label``."""
        names = [f"x{n}" for n in range(FEATURES)]
        return _written(path, [[*names, "label"], *([*map(str, x), CLASSES[y]] for x, y in self._pairs())])

    def write_examples(self, path: Path) -> Path:
        """Write a CSV file with keys ``example`` and without labels."""
        names = [f"x{n}" for n in range(FEATURES)]
        return _written(
            path, [["example", *names], *([f"e{n}", *map(str, x)] for n, (x, _) in enumerate(self._pairs()))]
        )

    def pairs(self) -> list[dict[str, Any]]:
        """Return the rows as they are fed."""
        return [{"inputs": x.tolist(), "label": CLASSES[y]} for x, y in self._pairs()]

    def _pairs(self) -> Any:
        return zip(self.inputs, self.labels, strict=True)


class People:
    """Those who work on one study.

    Args:
        folder: Of the installation: ``artifacts``, ``data``, and ``journal``.
        study: Its name.
        worker: Role ``easeml_worker``.
        referee: Role ``easeml_referee``, which retires and seals sets and takes labels.
    """

    def __init__(self, folder: Path, study: str, worker: Store, referee: Store) -> None:
        self.study, self.worker, self.referee = study, worker, referee
        self.artifacts = ArtifactStore(folder / "artifacts")
        self._files, self._journal = folder / "people" / study, folder / "journal" / f"{study}.jsonl"
        for place in (self._files, self._journal.parent, folder / "data" / TENANT):
            place.mkdir(parents=True, exist_ok=True)
        self._table = folder / "data" / TENANT / f"{study}.csv"
        self._brought = Table.of(study, 1, BROUGHT)

    def work(self) -> None:
        """Do everything once more, in its order."""
        if not self._table.exists():
            Table.of(self.study, 0, ROWS).write(self._table)
        self._ask("register", self._register)
        self._until(lambda: self._ended_trials() >= len(CANDIDATES))
        self._ask("meter", lambda key: file_meter_request(self.worker, study=self.study, request_key=key))
        self._judge_and_promote("1")
        self._feed()
        self._until(lambda: self._ended_trials() >= 2 * len(CANDIDATES))
        self._bring_set()
        self._judge_and_promote("2", meanwhile=self._give_labels)
        if self._promoted("promote/1") and self._promoted("promote/2"):
            given: dict[str, Any] = {"study": self.study, "why": "a look back"}
            self._ask("rollback", lambda key: file_rollback(self.worker, **given, request_key=key))

    # -- acts ----------------------------------------------------------------------------------------------------------

    def _register(self, key: str) -> int:
        candidates = [{"name": kind, "kind": kind} for kind in CANDIDATES]
        wanted = RegisterStudy(
            tenant=TENANT,
            study=self.study,
            source=f"csv:{self._table.name}",
            target="label",
            gate=GATE,
            meter=METER,
            training=TRAINING,
            candidates=candidates,
            budget_seconds=BUDGET_SECONDS,
        )
        return register_study(self.worker, wanted, request_key=key).request_id

    def _judge_and_promote(self, number: str, meanwhile: Callable[[], None] = lambda: None) -> None:
        verdict = self._ask(
            f"gate/{number}",
            lambda key: file_gate_request(self.worker, study=self.study, request_key=key),
            meanwhile=meanwhile,
        )
        if verdict.get("symbol") != "pass":
            return
        asked = {"study": self.study, "model_id": self._model_of(verdict), "gate_request_id": verdict["request_id"]}
        self._ask(f"promote/{number}", lambda key: file_promotion(self.worker, **asked, request_key=key))

    def _feed(self) -> None:
        given: dict[str, Any] = {"study": self.study, "pairs": Table.of(self.study, 2, FED).pairs(), "fed_by": "ann"}
        receipt = self._try(lambda: feed(self.worker, self.artifacts, **given, request_key=self._key("feed")))
        self._note("feed", to_json(receipt))
        self._ask("refresh", lambda key: file_refresh(self.worker, study=self.study, request_key=key).request_id)

    def _bring_set(self) -> None:
        """Replace the gate set by one whose labels are given on demand; both steps may be repeated."""
        sets = "SELECT id FROM work.test_sets t JOIN work.studies s ON s.id = t.study_id WHERE s.name = :study "
        first = self._one(
            "SELECT min(t.id) FROM (" + sets.replace("SELECT id", "SELECT t.id") + "AND purpose = 'gate') t"
        )
        if self._one("SELECT state FROM work.test_sets WHERE id = :id", id=first) == "live":
            self._try(lambda: retire_test_set(self.referee, test_set=str(first)))
        path = self._brought.write_examples(self._files / "brought.csv")
        sealed = self._try(lambda: seal_test_set(self.referee, self.artifacts, study=self.study, inputs=path))
        self._note("bring", {"test_set_id": sealed.test_set_id})

    def _give_labels(self) -> None:
        wanted = self._try(lambda: wanted_labels(self.referee, study=self.study, labeler="ann"))
        if not wanted.examples:
            return
        lines = [[e.example, CLASSES[self._brought.labels[int(e.example[1:])]]] for e in wanted.examples]
        path = _written(self._files / "labels.csv", [["example", "label"], *lines])
        self._try(lambda: give_labels(self.referee, study=self.study, labeler="ann", labels=path))

    # -- how they act --------------------------------------------------------------------------------------------------

    def _ask(
        self, act: str, file: Callable[[str], int], meanwhile: Callable[[], None] = lambda: None
    ) -> dict[str, Any]:
        """File a request, wait for its answer, and note both."""
        request_id = self._try(lambda: file(self._key(act)))
        found: list[Any] = []

        def is_answered() -> bool:
            found[:] = [answer_of(self.worker, request_id)]
            if found[0] is None:
                meanwhile()
            return found[0] is not None

        self._until(is_answered)
        answer: dict[str, Any] = to_json(found[0])
        self._note(act, {"request_id": request_id} | answer)
        return answer | {"request_id": request_id}

    def _until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _LONGEST_SECONDS
        while not self._try(holds):
            if time.monotonic() > deadline:
                message = f"{self.study}: nothing came for {_LONGEST_SECONDS:g} s"
                raise TimeoutError(message)
            time.sleep(_LOOK_SECONDS)

    def _try(self, act: Callable[[], T]) -> T:
        """Act, and again for as long as the machine is at fault."""
        deadline = time.monotonic() + _LONGEST_SECONDS
        while True:
            try:
                return act()
            except (StoreUnavailableError, ConcurrentUpdateError, ArtifactError, OSError, MemoryError) as error:
                if time.monotonic() > deadline or not (isinstance(error, ArtifactError) or is_put_off(error)):
                    raise
                print(f"again: {error}", file=sys.stderr, flush=True)
                time.sleep(_PAUSE_SECONDS)

    def _note(self, act: str, said: Any) -> None:
        with self._journal.open("a", encoding="utf-8") as journal:
            journal.write(json.dumps({"act": act, "key": self._key(act), "said": said}, sort_keys=True) + "\n")
            journal.flush()
            os.fsync(journal.fileno())

    def _key(self, act: str) -> str:
        return key_of(self.study, act)

    def _one(self, sql: str, **values: Any) -> Any:
        def ask() -> Any:
            with self.worker.begin() as tx:
                return scalar(tx, sql, study=self.study, **values)

        return self._try(ask)

    def _ended_trials(self) -> int:
        with self.worker.begin() as tx:
            found = rows(
                tx,
                "SELECT s.state, count(*) FILTER (WHERE t.finished_at IS NOT NULL) AS ended FROM work.studies s "
                "LEFT JOIN work.trials t ON t.study_id = s.id WHERE s.name = :study GROUP BY s.id",
                study=self.study,
            )
        if found and found[0].state == StudyState.REFUSED:
            message = f"{self.study} was refused"
            raise RuntimeError(message)
        return int(found[0].ended) if found else 0

    def _model_of(self, verdict: dict[str, Any]) -> int:
        return int(self._one("SELECT model_id FROM work.requests WHERE id = :id", id=verdict["request_id"]))

    def _promoted(self, act: str) -> bool:
        sql = (
            "SELECT count(*) FROM work.promotions p JOIN work.requests r ON r.id = p.request_id "
            "WHERE r.request_key = :key"
        )
        return bool(self._one(sql, key=self._key(act)))


def key_of(study: str, act: str) -> str:
    """Return the request key of an act."""
    return f"{study}/{act}"


def _written(path: Path, lines: list[list[Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(lines)
    return path


if __name__ == "__main__":
    folder, name, worker_url, referee_url = sys.argv[1:]
    People(Path(folder), name, Store(worker_url), Store(referee_url)).work()
