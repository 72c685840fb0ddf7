"""A developer who reads whether a request waits for labels: how often does a weighted vote get through the gate?

The set is labelled on demand and has one slice. Every question is made so that the whole condition fails for sure, so
that under ``recycle`` no level ever falls, while the slice holds with a chance of one half, and so that one label
outside of the slice is missing. A gate that answers at once where the slice is refused, and waits for that label
otherwise, gives one bit about the slice's labels with each question, unpaid. The last question is the vote: on the
slice exactly as good as chance, so that a PASS is a false one.

Lives on the judge, with stored predictions and the ledger's levels: the bit as it was before (the slice judged by
itself on its known labels), and what the judge of this tree shows. Lives through the referee of this tree: the embedded
database, labels given by a labeler, the bit read from whether the request is answered.

    python benchmarks/gate_waiting_bit.py --lives 300 --referee-lives 5
"""

from __future__ import annotations

import argparse
import csv
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from installation import STUDY, Installation, installation

from easeml_core.gate.condition import parse_condition
from easeml_core.gate.decision import Decision
from easeml_core.gate.judge import Slice, judge_predictions
from easeml_core.services.labeling.requests import give_labels
from easeml_core.services.referee.answers import VerdictAnswer
from easeml_core.services.referee.requests import answer_of, file_gate_request
from easeml_core.services.test_sets.lifecycle import retire_test_set
from easeml_core.services.test_sets.upload import seal_test_set
from easeml_core.stats.adaptivity import allocate
from easeml_core.stats.binomial_bounds import clopper_pearson
from easeml_core.store.tables import labels as label_rows
from easeml_core.store.tables import models, sealed, studies

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

STEPS, DELTA = 64, 0.05
SLICE, REST = 200, 200
"""Examples inside and outside of the slice."""
KNOWN = 70
"""Of the slice, whose label the input tells: the first ones."""
CONDITION, SLICE_CONDITION = "n - o > 0.1 +/- 0.2", "n > 0.5 +/- 0.2"
STAIR = 0.25
"""By how much the next question is made easier or harder after a bit, in standard deviations."""


@dataclass
class Life:
    """One set, from its first question to the vote.

    Attributes:
        rng: Seeded.
        labels: Of the set, 0 or 1; the slice comes first.
        learnt: What the bits have told of each guess.
        right: Of the known examples of the slice, how many the next question answers rightly.
    """

    rng: np.random.Generator
    labels: NDArray[np.int64]
    learnt: NDArray[np.float64] = field(default_factory=lambda: np.zeros(SLICE - KNOWN))
    right: float = 59.0

    def question(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Predictions of a model, and its guesses (-1 or 1) on the unknown part of the slice; the old one says 0."""
        fresh = self.rng.integers(0, 2, SLICE - KNOWN) * 2 - 1
        new = np.zeros(SLICE + REST, dtype=np.int64)
        right = np.arange(KNOWN) < min(max(round(self.right), 0), KNOWN)
        new[:KNOWN] = np.where(right, self.labels[:KNOWN], 1 - self.labels[:KNOWN])
        new[KNOWN:SLICE] = fresh > 0
        new[SLICE + step] = 1  # one example that no request has named yet
        return new, fresh

    def hear(self, fresh: NDArray[np.int64], *, held: bool) -> None:
        """Learn whether the slice held."""
        self.learnt += fresh * (0.5 if held else -0.5)
        self.right += STAIR * math.sqrt(SLICE) / 2 * (-0.5 if held else 0.5)

    def vote(self) -> NDArray[np.int64]:
        """Outside of the slice truly better; on it right on half of what is known, and the vote on the rest."""
        new = self.labels.copy()
        half = np.arange(KNOWN) % 2 == 0
        new[:KNOWN] = np.where(half, self.labels[:KNOWN], 1 - self.labels[:KNOWN])
        new[KNOWN:SLICE] = np.where(self.learnt == 0, self.rng.integers(0, 2, SLICE - KNOWN), self.learnt > 0)
        return new


def new_life(rng: np.random.Generator) -> Life:
    """Labels are fair coins, so that no guess on the unknown part is better than chance."""
    return Life(rng, rng.integers(0, 2, SLICE + REST))


def log_level() -> float:
    """Ln of the level of every answer before the first pass."""
    return math.log(DELTA) - allocate("recycle", STEPS, mode="fp-free", estimator="exact").log_multiplicity()


def live_on_the_judge(life: Life, holds: Callable[[NDArray[np.int64], NDArray[np.int64]], bool]) -> bool:
    """Whether the vote passes; ``holds`` tells from predictions and known labels what the developer takes for a bit."""
    known = np.full(SLICE + REST, -1)
    for step in range(STEPS - 1):
        new, fresh = life.question(step)
        held = holds(new, known)
        known[:SLICE] = life.labels[:SLICE]
        known[SLICE + step] = life.labels[SLICE + step]
        if step:  # the first question asks for all labels of the slice
            life.hear(fresh, held=held)
        decision = judge(new, known)
        if decision.passed:
            raise AssertionError(step)
    return bool(judge(life.vote(), life.labels).passed)


def judge(new: NDArray[np.int64], known: NDArray[np.int64]) -> Any:
    """What the judge of this tree says: a decision, or which labels it wants."""
    part = Slice("slice", parse_condition(SLICE_CONDITION), np.arange(SLICE))
    old = np.zeros_like(new)
    return judge_predictions(
        parse_condition(CONDITION), known, old, new, log_level=log_level(), mode="fp-free", slices=[part]
    )


def bit_before(new: NDArray[np.int64], known: NDArray[np.int64]) -> bool:
    """Whether the slice by itself is not refused on its known labels, at the level that it has beside the condition."""
    if (known[:SLICE] < 0).any():
        return True
    whole = judge(new, np.where(known < 0, 0, known))
    level = whole.slices[0][1].clauses[0].log_level_pass
    found = judge_predictions(
        parse_condition(SLICE_CONDITION),
        known[:SLICE],
        np.zeros(SLICE, dtype=np.int64),
        new[:SLICE],
        log_level=level,
        mode="fp-free",
    )
    return isinstance(found, Decision) and found.passed


def bit_now(new: NDArray[np.int64], known: NDArray[np.int64]) -> bool:
    """Whether the request waits."""
    return not isinstance(judge(new, known), Decision)


# -- the referee -------------------------------------------------------------------------------------------------------


@dataclass
class Desk:
    """One study whose live set is labelled on demand; the labeler knows the true label of each example."""

    at: Installation
    life: Life
    set_id: int
    order: NDArray[np.int64]

    @classmethod
    def sealed(cls, at: Installation, life: Life, number: int) -> Desk:
        """Seal a new set for this life; example ``k`` of the set is example ``order[k]`` of the life."""
        path = at.folder / "inputs.csv"
        first = 10**6 * (number + 1)  # inputs that no other set has
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["example", "number", "part"])
            writer.writerows([k, first + k, "slice" if k < SLICE else ""] for k in range(SLICE + REST))
        with at.worker.begin() as tx:
            live = [r.id for r in _live(tx)]
        for test_set in live:
            retire_test_set(at.referee, test_set=str(test_set))
        gate = {"condition": CONDITION, "reliability": 1 - DELTA, "steps": STEPS, "adaptivity": "recycle", "power": 0.9}
        gate["slices"] = [["slice", SLICE_CONDITION]]
        made = seal_test_set(at.referee, at.artifacts, study=STUDY, inputs=path, settings=gate, slices_column="part")
        with at.referee.begin() as tx:
            order = np.array([int(key) for key in sealed.sealed_keys(tx, made.test_set_id)])
        return cls(at, life, made.test_set_id, order)

    def keep(self, model_id: int | None, predictions: NDArray[np.int64]) -> None:
        """What a model says of the set, as an earlier run would have kept it; None for the baseline."""
        with self.at.referee.begin() as tx:
            study = studies.get_study(tx, STUDY)
            model = (
                models.baseline_model(tx, study.id) if model_id is None else models.get_model(tx, study.id, model_id)
            )
            said = predictions[self.order]
            sealed.keep_predictions(tx, self.set_id, model.identity, labels=said, failure=None)

    def ask(self, predictions: NDArray[np.int64]) -> tuple[bool, str]:
        """Whether the request waited for labels, and its symbol once they were given."""
        model_id = self.at.add_constant()
        self.keep(model_id, predictions)
        asked = file_gate_request(self.at.worker, study=STUDY, model_id=model_id, request_key=self.at.key())
        self.at.judge.answer_one()
        answer = answer_of(self.at.worker, asked)
        waited = answer is None
        if waited:
            self.label()
            self.at.judge.answer_one()
            answer = answer_of(self.at.worker, asked)
        if not isinstance(answer, VerdictAnswer):
            raise RuntimeError(str(answer))
        return waited, str(answer.symbol)

    def label(self) -> None:
        """Give all labels that are wanted."""
        with self.at.referee.begin() as tx:
            places = np.unique(np.concatenate([w.positions for w in label_rows.open_wanted(tx)]))
        path = self.at.folder / "labels.csv"
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["example", "label"])
            writer.writerows([k, self.life.labels[k]] for k in self.order[places])
        give_labels(self.at.referee, study=STUDY, labeler="ann", labels=path)


def _live(tx: Any) -> list[Any]:
    from easeml_core.store.rows import rows

    return list(rows(tx, "SELECT id FROM work.test_sets WHERE purpose = 'gate' AND state = 'live'"))


def live_through_the_referee(desk: Desk) -> tuple[bool, int]:
    """Whether the vote passes, and how many of the questions waited for labels."""
    desk.keep(None, np.zeros(SLICE + REST, dtype=np.int64))
    waits = 0
    for step in range(STEPS - 1):
        new, fresh = desk.life.question(step)
        waited, symbol = desk.ask(new)
        if symbol != "fail":
            raise AssertionError(step, symbol)
        waits += waited
        if step:
            desk.life.hear(fresh, held=waited)
    return desk.ask(desk.life.vote())[1] == "pass", waits


# -- counts ------------------------------------------------------------------------------------------------------------


def report(what: str, passed: int, lives: int) -> None:
    """One line: the count, and the exact two-sided interval of the chance behind it."""
    low, high = clopper_pearson(passed, lives, log_level=math.log(0.05))
    print(
        f"{what}: {passed} of {lives} votes passed; chance {low:.4f} to {high:.4f} (95 %), promised {DELTA}", flush=True
    )


def main() -> None:
    """Run it."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("--lives", type=int, default=300)
    asked.add_argument("--referee-lives", type=int, default=5)
    given = asked.parse_args()
    judged = (("judge, bit of the slice known", bit_before), ("judge, as it is", bit_now))
    for what, bit in judged if given.lives else ():
        rngs = [np.random.default_rng([15, number]) for number in range(given.lives)]
        report(what, sum(live_on_the_judge(new_life(rng), bit) for rng in rngs), given.lives)
    if not given.referee_lives:
        return
    passed = 0
    with installation() as at:
        at.register(rows=400, meter={"ranges": [0.5], "tolerance": 0.5, "reliability": 0.5, "steps": 1})
        for number in range(given.referee_lives):
            life = new_life(np.random.default_rng([15, number]))
            won, waits = live_through_the_referee(Desk.sealed(at, life, number))
            passed += won
            print(f"  life {number}: {waits} of {STEPS - 1} questions waited, the vote {'passed' if won else 'failed'}")
    report("referee, as it is", passed, given.referee_lives)


if __name__ == "__main__":
    main()
