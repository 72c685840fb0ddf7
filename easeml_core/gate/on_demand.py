"""How many disagreements one submission needs labels of, where labels are asked for when a verdict needs them.

A set without a clause ``d < A`` is sized for d = 1. A submission whose predictions differ on fewer examples needs the
labels of some of these only: as many as the test on them (``stats.paired_differing``) needs for the planned power. How
many follows from the predictions, the condition and the level, never from a label (docs/gate.md, "Labels").
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from easeml_core.gate.clauses import DIFFERENCE, claim_of, usable_disagreement_bound
from easeml_core.gate.questions import promised_levels, question_of
from easeml_core.stats.paired_differing import Differing, differing_labels

if TYPE_CHECKING:
    from easeml_core.gate.clauses import Condition

SHARES = (0.05, 0.1, 0.15, 0.3)
"""Values of d that the planner gives as examples."""


def can_sample(condition: Condition) -> bool:
    """Whether some of the disagreements can do: every clause that needs labels is about n - o, and none bounds d.

    With a clause ``d < A`` the set is sized for that d already, and the test uses A on all of its examples.

    Example:
        >>> from easeml_core.gate.condition import parse_condition
        >>> [can_sample(parse_condition(c)) for c in ("n - o > 0 +/- 0.1", "n > 0.5 +/- 0.1", "d > 0.1 +/- 0.1")]
        [True, False, False]
    """
    labelled = [clause for clause in condition.clauses if clause.needs_labels]
    return (
        bool(labelled)
        and usable_disagreement_bound(condition) is None
        and all(claim_of(clause).quantity == DIFFERENCE for clause in labelled)
    )


def labels_of_submission(
    condition: Condition,
    differing: Differing,
    *,
    log_level: float,
    mode: str,
    power: float | None = None,
    conditions: int = 1,
) -> int:
    """Give m, so that the labels of the first m disagreements in the set's order decide one submission.

    Args:
        condition: One that ``can_sample``.
        differing: On how many examples of how many the predictions differ.
        log_level: Ln alpha of the whole answer.
        mode: ``fp-free`` or ``fn-free``.
        power: As of ``exact_sizes``.
        conditions: How many conditions the answer rests on, >= 1.

    Returns:
        From 0, where predictions alone decide, to all disagreements.

    Example:
        >>> from easeml_core.gate.condition import parse_condition
        >>> asked = {"log_level": -12.676, "mode": "fp-free", "power": 0.9}
        >>> labels_of_submission(parse_condition("n - o > 0.02 +/- 0.01"), Differing(4_239, 84_779), **asked)
        237
    """
    level, miss = promised_levels(condition, log_level=log_level, mode=mode, power=power, conditions=conditions)
    found = 0
    for clause in condition.clauses:
        if clause.needs_labels:
            question = question_of(clause, mode, 1.0)
            if not question.is_settled:
                truths = {"threshold": question.null, "alternative": question.alternative}
                found = max(found, differing_labels(differing, **truths, log_level=level, log_miss=miss))
    return found


def labels_in_words(
    condition: Condition, examples: int, *, log_level: float, mode: str, power: float | None = None, conditions: int = 1
) -> str | None:
    """Say what a plan reckons with where d is unknown, and what submissions need; None where it is not about that.

    Args:
        condition: The planned condition.
        examples: N of the set, >= 1.
        log_level: Ln alpha of one answer.
        mode: ``fp-free`` or ``fn-free``.
        power: As of ``exact_sizes``.
        conditions: As of ``labels_of_submission``.

    Example:
        >>> from easeml_core.gate.condition import parse_condition
        >>> asked = {"log_level": -12.676, "mode": "fp-free", "power": 0.9}
        >>> words = labels_in_words(parse_condition("n - o > 0.02 +/- 0.01"), 84_779, **asked)
        >>> words[:41], words[-53:]
        ('d unknown: the set is reckoned with d = 1', '7 labels, on 10 % 1,101, on 15 % 2,395, on 30 % 8,930')
    """
    if not can_sample(condition):
        return None

    def needed(share: float) -> int:
        shown = Differing(math.floor(share * examples), examples)
        return labels_of_submission(
            condition, shown, log_level=log_level, mode=mode, power=power, conditions=conditions
        )

    thresholds = [claim_of(clause).threshold for clause in condition.clauses if clause.needs_labels]
    found = [(share, needed(share)) for share in SHARES if share > max(map(abs, thresholds))]
    found = [(share, count) for share, count in found if count]
    if not found:
        return "d unknown: the set is reckoned with d = 1"
    (first, fewest), *others = found
    words = ", ".join(f"on {100 * share:g} % {count:,}" for share, count in others)
    paid = ", for which a tenth of the level pays" if any(thresholds) else ""
    return (
        "d unknown: the set is reckoned with d = 1. Where labels are asked for on demand, a submission needs fewer, by "
        f"bounds on d from its predictions{paid}: one that differs on at most {100 * first:g} % of the examples needs "
        f"{fewest:,} labels{', ' if words else ''}{words}"
    )
