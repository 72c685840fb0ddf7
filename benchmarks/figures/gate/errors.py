"""How often a verdict is wrong where that is hardest to avoid: right on the threshold, by Monte-Carlo."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.entities import Verdict
from easeml_core.gate.condition import OUTCOMES, disagreement_bound, parse_condition
from easeml_core.gate.decision import Decision, decide_counts
from easeml_core.gate.judge import judge_predictions
from easeml_core.gate.outcomes import Outcomes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from easeml_core.gate.condition import Condition

ALPHA = 0.01
SHOWN = np.array([(0, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1), (0, 1, 2)])
"""Label, old and new prediction of an example that shows each of ``condition.OUTCOMES``."""


@dataclass(frozen=True, slots=True)
class Null:
    """A law of one example on the threshold of a clause.

    Attributes:
        name: For the table.
        condition: In the language of conditions.
        law: Chance of each of ``condition.OUTCOMES``.
        examples: N.
        wrong: The verdict that is wrong there.
        clause: The clause whose verdict is counted; None for that of the condition.
        sampling: ``fixed`` or ``early``.
    """

    name: str
    condition: str
    law: tuple[float, ...]
    examples: int
    wrong: Verdict = Verdict.PASS
    clause: int | None = None
    sampling: str = "fixed"


NULLS = (
    Null("binomial", "n > 0.9 +/- 0.01", (0.9, 0, 0, 0.1, 0), 1000),
    Null("binomial", "d < 0.1 +/- 0.01", (0.8, 0.05, 0.05, 0.1, 0), 1000),
    Null("sign test", "n - o > 0 +/- 0.01", (0.8, 0.05, 0.05, 0.1, 0), 500),
    Null(
        "trinomial, d by a clause",
        "n - o > 0.02 +/- 0.01 /\\ d < 0.1 +/- 0.01",
        (0.8, 0.06, 0.04, 0.1, 0),
        500,
        clause=0,
    ),
    Null("trinomial, d by its upper bound", "n - o > 0.02 +/- 0.01", (0.8, 0.06, 0.04, 0.1, 0), 500),
    Null("weighted", "n - 1.1 * o > 0.01 +/- 0.01", (0.5, 0.115, 0.05, 0.335, 0), 300),
    Null(
        "two clauses, a wrong FAIL", "n > 0.9 +/- 0.01 /\\ o < 0.8 +/- 0.01", (0.8, 0.1, 0, 0.1, 0), 500, Verdict.FAIL
    ),
    Null("early stopping", "n - o > 0.02 +/- 0.01", (0.8, 0.06, 0.04, 0.1, 0), 5000, sampling="early"),
    Null("early stopping", "n > 0.9 +/- 0.01", (0.9, 0, 0, 0.1, 0), 2000, sampling="early"),
)


def wrong_verdicts(null: Null, rng: np.random.Generator, runs: int, *, alpha: float = ALPHA) -> int:
    """In how many runs the verdict is the wrong one."""
    condition = parse_condition(null.condition)
    if null.sampling == "early":
        return sum(_is_wrong(null, _judged(condition, null, rng, alpha)) for _ in range(runs))
    drawn = rng.multinomial(null.examples, null.law, size=runs)
    rows, times = np.unique(drawn, axis=0, return_counts=True)
    seen: dict[tuple[int, ...], bool] = {}
    wrong = 0
    for row, count in zip(rows, times.tolist(), strict=True):
        outcomes = outcomes_of(row)
        key = _key(condition, outcomes, null.clause)
        if key not in seen:
            seen[key] = _is_wrong(null, decide_counts(condition, outcomes, log_level=math.log(alpha), mode="fp-free"))
        wrong += count * seen[key]
    return wrong


def outcomes_of(row: NDArray[np.int64]) -> Outcomes:
    """The counts of a set that shows each of ``condition.OUTCOMES`` so often."""
    both, wins, losses, _, apart = (int(count) for count in row)
    return Outcomes(int(row.sum()), wins, losses, both + wins, both + losses, wins + losses + apart)


def sequence(rng: np.random.Generator, law: tuple[float, ...], examples: int) -> NDArray[np.int64]:
    """Labels, old and new predictions of a random set, shape ``(3, examples)``."""
    return np.asarray(SHOWN[rng.choice(len(OUTCOMES), size=examples, p=law)].T)


def _judged(condition: Condition, null: Null, rng: np.random.Generator, alpha: float) -> Decision:
    labels, old, new = sequence(rng, null.law, null.examples)
    found = judge_predictions(
        condition, labels, old, new, log_level=math.log(alpha), mode="fp-free", sampling="early", batch=10
    )
    assert isinstance(found, Decision)  # all labels are there
    return found


def _is_wrong(null: Null, decision: Decision) -> bool:
    verdict = decision.verdict if null.clause is None else decision.clauses[null.clause].verdict
    return verdict is null.wrong


def _key(condition: Condition, outcomes: Outcomes, clause: int | None) -> tuple[int, ...]:
    """The counts that the verdict can depend on, so that equal ones are judged once."""
    wins, losses = outcomes.won_and_lost
    if not condition.needs_labels:
        return (outcomes.disagreements,)
    if clause is not None and disagreement_bound(condition) is not None:
        return (wins - losses,)  # the clause on n - o is judged on nothing else then
    if not condition.needs_agreements:
        return wins, losses, outcomes.disagreements
    if all(len(part.weights) == 1 for part in condition.clauses):
        return outcomes.count_of("n"), outcomes.count_of("o"), outcomes.disagreements
    return tuple(outcomes.cells(with_agreements=True).tolist())
