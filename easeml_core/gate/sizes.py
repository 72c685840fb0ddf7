"""What both estimators hand to the planner, and how many labels one submission needs of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from easeml_core.gate.clauses import Condition


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many examples a condition needs.

    Attributes:
        labels: Labelled examples; 0 when every clause is about d alone.
        unlabelled: Examples for the clauses about d.
        labels_per_submission: Labels that one submission needs, about, when only disagreements are labelled.
        method: Name of the test or inequality that gave ``labels`` (or ``unlabelled``, if labels is 0).
        reasons: Plain sentences: which formula, which inputs.
    """

    labels: int
    unlabelled: int
    labels_per_submission: int
    method: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ClauseSize:
    """How many examples one clause needs.

    Attributes:
        examples: N.
        method: Name of the test or inequality.
        how: What it was computed from, in words.
        needs_labels: Whether these examples need labels.
    """

    examples: int
    method: str
    how: str
    needs_labels: bool


def largest(sizes: list[ClauseSize]) -> tuple[int, int, str]:
    """Give labels, unlabelled examples and the method behind the first of them that is not 0."""
    labelled = [size for size in sizes if size.needs_labels]
    unlabelled = [size for size in sizes if not size.needs_labels]
    deciding = max(labelled or unlabelled, key=lambda size: size.examples)
    return (
        max((size.examples for size in labelled), default=0),
        max((size.examples for size in unlabelled), default=0),
        deciding.method,
    )


def labels_on_disagreements(condition: Condition, labels: int, disagreement: float) -> tuple[int, str]:
    """Give the labels of one submission, on average at most, and the reason in words.

    Where only disagreements can matter (``Condition.needs_agreements``) they are a share p of the labelled examples at
    most: p N, rounded up. A condition about the accuracy of one model by itself needs every label.

    Args:
        condition: The condition.
        labels: N.
        disagreement: p, the largest share of examples on which the models differ.
    """
    if labels == 0:
        return 0, "no clause needs a label"
    if condition.needs_agreements:
        return labels, "every example needs its label: a clause is about more than the difference n - o"
    each = math.ceil(labels * Fraction(repr(disagreement)))
    return each, (
        f"only examples on which the models differ need a label: with d at most {disagreement:g}, {each:,} of the "
        f"{labels:,} on average for one submission; labels stay, so all submissions together never need more than "
        f"{labels:,}"
    )
