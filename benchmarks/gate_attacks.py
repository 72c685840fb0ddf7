"""Developers who learn, against the judge in every mode: how often does it give the answer that the mode excludes?

Labels are fair coins wherever the input does not tell them; the old model always says 0. The developer knows part of
the labels, so that it can hand in models which truly pass. Under ``none`` every model lies on the threshold, and it is
told nothing. Else it tunes each question to the answer that tells most, weighs what it hears by what that tells,
follows the levels as they change, and hands in the vote in the last steps, as a model exactly on the threshold: the
worst law that a wrong answer has. Each life is judged from stored predictions, at the levels of
``stats/adaptivity.py``: by ``judge_predictions``, or, where n - o alone decides, by the least score that ``decide``
lets through. ``easeml_core.gate.attack`` is the same developer on counts of one condition.

The control receives every answer at delta / H, and its set is never retired: there the attack has to work.

    python benchmarks/gate_attacks.py --lives 300

Seeded.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import ndtri, ndtri_exp

from easeml_core.entities import Adaptivity, Mode
from easeml_core.gate import clause_tests, early_stopping
from easeml_core.gate.condition import parse_condition
from easeml_core.gate.decision import Decision, decide_counts
from easeml_core.gate.exact_sizes import labels_of_submission
from easeml_core.gate.judge import judge_predictions
from easeml_core.gate.outcomes import Outcomes
from easeml_core.stats.adaptivity import Allocation, allocate
from easeml_core.stats.binomial_bounds import clopper_pearson
from easeml_core.stats.paired_differing import Differing

if TYPE_CHECKING:
    from collections.abc import Generator

    from numpy.typing import NDArray

EXAMPLES, DELTA = 500, 0.05
GAIN = 0.02
"""Of the attacked condition: the n - o of its threshold."""
STAIR = 0.25
"""By how much a question is made easier or harder after its answer, in standard deviations of the score."""
ATTEMPTS = 4
SURE = 0.6
"""The vote differs from the old model where what was learnt is so many standard deviations above 0."""
DIFFERENCE, WEIGHTED = "n - o > 0.02 +/- 0.1", "n - 1.1 * o > -0.03 +/- 0.1"  # on one threshold, since o = .5


@dataclass(frozen=True)
class Attack:
    """One line of the table.

    Attributes:
        name: What is attacked.
        mode: ``fp-free`` or ``fn-free``.
        adaptivity: Which answers the developer receives, and at which levels.
        condition: The attacked one.
        sliced: ``fp-free``: it is about half of the set, and the set's own condition holds for sure. ``fn-free``: it is
            asked of the set and of both halves, so that any of three may be found not to hold.
        sampling: ``fixed`` or ``early``.
        on_demand: Whether the set is labelled on demand.
        aim: The chance of a change that questions are tuned to.
        counted: False for the control.
        steps: H.
        delta: What all answers of the set may err together.
    """

    name: str
    mode: str
    adaptivity: str
    condition: str = DIFFERENCE
    sliced: bool = False
    sampling: str = "fixed"
    on_demand: bool = False
    aim: float = 0.5
    counted: bool = True
    steps: int = 40
    delta: float = DELTA

    @property
    def allocation(self) -> Allocation:
        """How delta is divided over the steps."""
        return allocate(self.adaptivity, self.steps, mode=self.mode, estimator="exact")

    @property
    def deviation(self) -> float:
        """Of the share wins - losses, about: models differ on half of the examples."""
        return math.sqrt(0.5 / (EXAMPLES // 2 if self.sliced and self.mode == Mode.FP_FREE else EXAMPLES))

    @property
    def known(self) -> float:
        """Share of the examples whose label the input tells: enough to pass the first test half of the time."""
        nats = math.log(self.steps)
        if self.counted:
            nats = self.allocation.log_multiplicity()
        depth = -ndtri_exp(math.log(self.delta) - nats) + 1
        return float(min(0.9, 2 * (GAIN + depth * self.deviation)))


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """One model that is handed in.

    Attributes:
        predictions: On the examples of the set, shape ``(EXAMPLES,)``.
        easy: Its share of right answers where the labels are known.
        holds: Whether the condition is true of it.
        log_level: Ln of the level at which the developer expects it to be judged.
    """

    predictions: NDArray[np.int64]
    easy: float
    holds: bool
    log_level: float


@dataclass
class Life:
    """One set under one attack.

    Attributes:
        attack: Which.
        rng: Seeded.
        labels: Of the examples, 0 or 1.
        scale: Places of the known examples, in [0, 1); NaN where the label is a fair coin.
        learnt: What the answers tell of each label, > 0 for 1.
        base: The share of known examples on which the old model is right.
    """

    attack: Attack
    rng: np.random.Generator
    labels: NDArray[np.int64] = field(init=False)
    scale: NDArray[np.float64] = field(init=False)
    learnt: NDArray[np.float64] = field(init=False)
    base: float = 0.5

    def __post_init__(self) -> None:
        self.labels = self.rng.integers(0, 2, EXAMPLES)
        # Below ``easy`` the known part is right: one place on a scale for each known example, none for the others.
        self.scale = np.where(self.rng.random(EXAMPLES) < self.attack.known, self.rng.random(EXAMPLES), np.nan)
        self.learnt = np.zeros(EXAMPLES)

    def predictions(self, easy: float, guess: NDArray[np.int64]) -> NDArray[np.int64]:
        """What a model says: its n - o is ``known * (easy - 1/2)``, whatever it guesses where nothing is known."""
        known = np.where(self.scale < easy, self.labels, 1 - self.labels)
        return np.where(np.isnan(self.scale), guess, known)

    def play(self) -> Generator[Question, bool | None, None]:
        """Yield the models that the developer hands in; each is answered by whether it passed, None where withheld."""
        attack, allocation = self.attack, self.attack.allocation
        sign = 1 if is_fp(attack) else -1
        is_answered = not attack.counted or allocation.kind is not Adaptivity.NONE
        changes, shift = 0, 0.0
        for step in range(attack.steps):
            threshold = self.base + GAIN / attack.known
            tries = not is_answered or step >= attack.steps - ATTEMPTS
            nats = allocation.log_multiplicity(changes) if attack.counted else math.log(attack.steps)
            log_level = math.log(attack.delta) - nats
            depth = -ndtri_exp(log_level) + ndtri(attack.aim) + shift
            aimed = min(max(threshold + sign * depth * attack.deviation / attack.known, 0.0), 1.0)
            easy = float(threshold if tries else aimed)
            fresh = self.rng.integers(0, 2, EXAMPLES)
            spread = float(self.learnt[np.isnan(self.scale)].std())
            vote = (sign * self.learnt > SURE * spread).astype(np.int64) if spread else fresh
            holds = easy > threshold
            passed = yield Question(self.predictions(easy, vote if tries else fresh), easy, holds, log_level)
            if is_answered:
                # Only where it differs from the old model does a guess count, and only an answer by chance tells of it.
                chance = attack.aim if sign > 0 else 1 - attack.aim
                self.learnt += np.where(np.isnan(self.scale), fresh, 0) * (1 - chance if passed else -chance)
                shift += STAIR * (attack.aim - 1 if passed == (sign > 0) else attack.aim)
                changes += allocation.is_change(passed=bool(passed))
            if attack.counted and allocation.is_over(changes):
                return

    def is_wrong(self, question: Question, passed: bool) -> bool:
        """Whether the answer is the one that the mode excludes; on the threshold both would be."""
        if is_fp(self.attack):
            return passed and not question.holds
        return not passed and question.easy >= self.base + GAIN / self.attack.known

    def is_fooled(self) -> bool:
        """Whether the mode's promise is broken before the set ends."""
        hidden = self.attack.counted and self.attack.allocation.kind is Adaptivity.NONE
        developer = self.play()
        question = next(developer, None)
        while question is not None:
            passed = passes(self.attack, self.labels, question.predictions, question.log_level)
            if self.is_wrong(question, passed):
                return True
            try:
                question = developer.send(None if hidden else passed)
            except StopIteration:
                return False
        return False


def passes(attack: Attack, labels: NDArray[np.int64], new: NDArray[np.int64], log_level: float) -> bool:
    """What the judge releases, all labels known."""
    if attack.sampling == "early" or attack.condition != DIFFERENCE:
        found = judge_predictions(
            parse_condition(attack.condition),
            labels,
            np.zeros(EXAMPLES, dtype=np.int64),
            new,
            log_level=log_level,
            mode=attack.mode,
            sampling=attack.sampling,
            power=0.9,
            batch=100,
        )
        assert isinstance(found, Decision)
        return found.passed
    halves = np.split(np.arange(EXAMPLES), 2) if attack.sliced else []
    parts = [*([] if halves and is_fp(attack) else [np.arange(EXAMPLES)]), *halves[: 1 if is_fp(attack) else 2]]
    conditions = 3 if attack.sliced and not is_fp(attack) else 1  # under fp-free their number takes no level
    for members in parts:
        differ = np.flatnonzero(new[members])  # the old model says 0
        asked = (log_level, attack.mode, differ.size, members.size, conditions, attack.on_demand)
        judged, least = critical_score(*asked)
        if (2 * labels[members][differ[:judged]] - 1).sum() < least:
            return False
    return True


@cache
def critical_score(
    log_level: float, mode: str, differing: int, examples: int, conditions: int, on_demand: bool
) -> tuple[int, int]:
    """How many disagreements the judge asks for, and the least wins - losses among them that it does not stop."""
    condition, shown = parse_condition(DIFFERENCE), Differing(differing, examples)
    asked: dict[str, Any] = {"log_level": log_level, "mode": mode, "conditions": conditions}
    judged = labels_of_submission(condition, shown, **asked, power=0.9) if on_demand else differing
    low, high = -1, judged + 1
    while high - low > 1:
        wins = (low + high) // 2
        counts = Outcomes(examples, wins, judged - wins, None, None, differing, judged if on_demand else None)
        low, high = (low, wins) if decide_counts(condition, counts, **asked).passed else (wins, high)
    return judged, 2 * high - judged


def is_fp(attack: Attack) -> bool:
    """Whether wrong passes are what is promised not to happen."""
    return attack.mode == Mode.FP_FREE


def attacks() -> list[Attack]:
    """All lines: each mode with each adaptivity, then each kind of judgement where answers are given and costly."""
    found = []
    for mode in ("fp-free", "fn-free"):
        found += [
            Attack("control: delta / H, told", mode, "none", counted=False),
            *(Attack("n - o", mode, adaptivity) for adaptivity in ("none", "full", "recycle")),
            Attack("n - o", mode, "firstChange", aim=0.1),
            Attack("on demand", mode, "none", on_demand=True),
            Attack("on demand", mode, "recycle", on_demand=True),
            Attack("on demand, slices", mode, "recycle", on_demand=True, sliced=True),
            Attack("slices", mode, "recycle", sliced=True),
            Attack("weighted", mode, "recycle", condition=WEIGHTED),
            Attack("early", mode, "recycle", sampling="early", steps=10),
        ]
    return found


def count_fooled(attack: Attack, lives: int, *, seed: int = 15) -> int:
    """On how many of so many sets the promise is broken."""
    return sum(Life(attack, np.random.default_rng([seed, number])).is_fooled() for number in range(lives))


def without_intervals() -> None:
    """Leave the report's intervals out: they take nine tenths of the time and decide nothing."""

    def nothing(*_counts: object, **_settings: object) -> float:
        return -1.0

    for module, name in (
        (clause_tests, "paired_lower_bound"),
        (clause_tests, "differing_lower_bound"),
        (early_stopping, "betting_lower_bound"),
    ):
        setattr(module, name, nothing)
    clause_tests._RESOLUTION = math.inf


def main() -> None:
    """Run it."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("--lives", type=int, default=300)
    asked.add_argument("--mode", choices=["fp-free", "fn-free"], help="one of the two alone")
    given = asked.parse_args()
    without_intervals()
    print(f"| attacked | mode | adaptivity | wrong answers of {given.lives} | chance (95 %, exact) | promised |")
    print("| --- | --- | --- | --- | --- | --- |")
    for attack in attacks():
        if given.mode not in (None, attack.mode):
            continue
        fooled = count_fooled(attack, given.lives)
        low, high = clopper_pearson(fooled, given.lives, log_level=math.log(0.05))
        promised = f"{DELTA}" if attack.counted else "nothing"
        words = f"{attack.name} | {attack.mode} | {attack.adaptivity} | {fooled} | {low:.4f}-{high:.4f} | {promised}"
        print(f"| {words} |", flush=True)


if __name__ == "__main__":
    main()
