"""A study whose gaps are known: its models all name the frequent class, and its sealed labels are replaced.

With a share q of the rarer class among the labels of a set, the models are wrong there on q, and their gap is q minus
their loss on the validation part.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

# Far enough apart that the outer signals leave no room for equal distributions: .3 + .2 - 2 * .19 = .12.
METER = {"ranges": (-0.2, 0.3), "tolerance": 0.19, "reliability": 0.8, "steps": 4, "ambiguous": 4}
GATE = {"condition": "n > 0.5 +/- 0.3", "reliability": 0.8, "steps": 2, "estimator": "paper"}


class Metered:
    """A study of the lab, registered with these settings."""

    def __init__(self, lab: Any, folder: Path, name: str, **settings: Any) -> None:
        self.lab, self.folder, self.name = lab, folder, name
        answer = lab.register(name, **settings)
        assert not answer.refused, answer.message
        found = "SELECT t.purpose, t.id FROM work.test_sets t JOIN work.studies s ON s.id = t.study_id"
        self.sets = dict(lab.rows(found + " WHERE s.name = :name", name=name))
        parts = lab.open_parts(name)
        self.frequent = int(np.bincount(parts.train_labels).argmax())
        self.loss = float(np.mean(parts.validation_labels != self.frequent))
        self.models: dict[int, int] = {}

    def within(self, lab: Any, folder: Path) -> Self:
        """Return the same study in a copy of its laboratory."""
        found = copy(self)
        found.lab, found.folder, found.sets, found.models = lab, folder, dict(self.sets), dict(self.models)
        return found

    def gap(self, purpose: str, gap: float) -> None:
        """Let the models have this gap on the set, as nearly as its size allows."""

        def labels(old: np.ndarray) -> np.ndarray:
            rare = np.arange(len(old)) < round((self.loss + gap) * len(old))
            return np.where(rare, 1 - self.frequent, self.frequent).astype(old.dtype)

        self.lab.relabel(self.sets[purpose], labels)

    def model(self, number: int) -> int:
        """The n-th copy of the model: another artifact with the same answers."""
        if number not in self.models:
            path = self.folder / f"{self.name}-{number}"
            path.write_text(f'{{"label": {self.frequent}}}' + " " * number)
            self.models[number] = self.lab.hand_in(self.name, path.name, path, kind="constant", loss=0.5)
        return self.models[number]

    def submit(self, number: int, **asked: Any) -> Any:
        """Have the n-th copy read."""
        return self.lab.meter(self.model(number), self.name, **asked)
