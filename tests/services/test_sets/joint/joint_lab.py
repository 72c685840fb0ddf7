"""A study whose gate and meter share one sealed set, and models that say what a test wants them to say."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.store.tables import sealed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GATE = {"condition": "n - o > 0 +/- 0.2", "adaptivity": "full", "steps": 3}
METER = {"ranges": (0.2, 0.6), "tolerance": 0.3, "steps": 4, "ambiguous": 2, "tail": "hoeffding"}
JOINT = {"reliability": 0.9, "gate_share": 0.25}
LN2 = math.log(2)
SET = "SELECT id FROM work.test_sets WHERE purpose = 'joint' ORDER BY id LIMIT 1"
LEDGER = (
    "SELECT system, step, system_step, answer, log_level, log_cost FROM sealed.ledger WHERE test_set_id = :id "
    "ORDER BY step"
)


@dataclass
class Shared:
    """The study, in its laboratory."""

    lab: Any
    folder: Path
    study: str = "shared"
    _blanks: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def set_id(self) -> int:
        return int(self.lab.one(SET))

    @property
    def labels(self) -> np.ndarray:
        with self.lab.referee.begin() as tx:
            return sealed.sealed_labels(tx, self.set_id)

    def model(self, wrong: np.ndarray | float = 0.0, *, label: int = 0) -> int:
        """A new artifact that errs where told on the sealed set: a mask, or the share of its first examples.

        On open data it says ``label`` everywhere. What it says on sealed data is there as from an earlier run.
        """
        path = self.folder / f"model-{next(self._blanks)}"
        path.write_text(f'{{"label": {label}}}' + " " * int(path.name.split("-")[1]))
        model_id = self.lab.hand_in(self.study, path.name, path, kind="constant", loss=0.5)
        truth = self.labels
        mask = np.arange(len(truth)) < round(wrong * len(truth)) if isinstance(wrong, float) else wrong
        identity = self.lab.one("SELECT format || ' ' || artifact FROM work.models WHERE id = :id", id=model_id)
        with self.lab.referee.begin() as tx:
            sealed.keep_predictions(tx, self.set_id, identity, labels=np.where(mask, 1 - truth, truth), failure=None)
        return int(model_id)

    def gate(self, model: int, **asked: Any) -> Any:
        return self.lab.gate(model, self.study, **asked)

    def meter(self, model: int, **asked: Any) -> Any:
        return self.lab.meter(model, self.study, **asked)

    def ledger(self) -> list[Any]:
        return list(self.lab.rows(LEDGER, id=self.set_id))

    def state(self, set_id: int | None = None) -> tuple[str, str | None]:
        sql = "SELECT state, retired_why FROM work.test_sets WHERE id = :id"
        ((state, why),) = self.lab.rows(sql, id=set_id or self.set_id)
        return state, why


def register(lab: Any, folder: Path, study: str = "shared", **changes: Any) -> Shared:
    """Register the study with one set for gate and meter; settings of ``gate`` and ``meter`` are changes, too."""
    given = {"gate": GATE | changes.pop("gate", {}), "meter": METER | changes.pop("meter", {}), "joint": JOINT}
    answer = lab.register(study, **given | changes)
    assert not answer.refused, answer.message
    return Shared(lab, folder, study)


def parked(shared: Shared) -> None:
    """Leave one boundary, and move it to where a model stands that errs on half of the set."""
    truth = shared.lab.open_parts(shared.study).validation_labels
    loss = float(np.mean(truth != 0))
    ranges = f"[{0.5 - loss!r}]"
    shared.lab.as_superuser(
        "UPDATE work.test_sets SET plan = jsonb_set(plan, '{meter,ranges}', %s::jsonb) WHERE purpose = 'joint'", ranges
    )


def costs(shared: Shared) -> list[tuple[str, float]]:
    return [(system, round(cost / LN2, 9)) for system, *_, cost in shared.ledger()]
