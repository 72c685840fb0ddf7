"""A condition as it is typed: cut into coloured pieces, read, and what is wrong with it under a caret."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from easeml_airflow.web.server.formats import sentence_case
from easeml_core.errors import ConditionSyntaxError, counted
from easeml_core.gate.condition import DIFFERENCE, RULES, claim_of, parse_condition
from easeml_core.gate.planner import plan_gate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easeml_core.gate.condition import Condition

_LOOKS = {"NAME": "v", "TOLERANCE": "o", "AND": "k"}


@dataclass(frozen=True, slots=True)
class Check:
    """What is said of a text.

    Attributes:
        pieces: The text in pieces, each with the class that colours it; a wrong one has ``wrong``.
        caret: The line under it that points at what is wrong; empty where nothing is.
        message: That it was read, or what is wrong and where.
        is_sound: Whether it was read.
        hint: What the condition means, clause by clause; empty for what was not read.
    """

    pieces: Sequence[tuple[str, str]]
    caret: str
    message: str
    is_sound: bool
    hint: str = ""


def read_condition(text: str) -> tuple[Condition | None, ConditionSyntaxError | None]:
    """The condition; or what is wrong, also where no two models can ever meet it.

    Example:
        >>> read_condition("n > 1.2 +/- 0.1")[1].message
        'this can never hold: n is at most 1'
    """
    try:
        found = parse_condition(text)
        plan_gate(found, reliability=0.5, steps=1, adaptivity="none", mode="fp-free", estimator="paper")
    except ConditionSyntaxError as error:
        return None, error
    return found, None


def check_of(text: str, error: ConditionSyntaxError | None, condition: Condition) -> Check:
    """What to say of a text: with the error that it gave, or with the condition that it is."""
    if error is not None:
        caret = " " * error.start + "^" * (error.end - error.start)
        message = f"Column {error.start + 1}: {error.message}"
        return Check(coloured(error.source, error.start, error.end), caret, message, is_sound=False)
    variables = [v for v in "nod" if any(clause.weight(v) for clause in condition.clauses)]
    count = len(condition.clauses)
    message = f"Parsed: {counted(count, 'clause')} about {', '.join(variables)}"
    return Check(coloured(text), "", message, is_sound=True, hint=_meaning(condition))


def coloured(text: str, start: int = -1, end: int = -1) -> list[tuple[str, str]]:
    """The text cut at its tokens, each with its class; what stands from ``start`` to ``end`` is wrong.

    Example:
        >>> coloured("d < 0.1 +- 0.01", 8, 10)
        [('d', 'v'), (' < 0.1 ', ''), ('+-', 'wrong'), (' 0.01', '')]
    """
    found: list[tuple[str, str]] = []
    place = 0
    while place < len(text):
        piece, look = (text[start:end], "wrong") if place == start else _token(text, place)
        if place < start < place + len(piece):
            piece = text[place:start]
        if found and not look and not found[-1][1]:
            found[-1] = (found[-1][0] + piece, "")
        else:
            found.append((piece, look))
        place += len(piece)
    return found


def _token(text: str, place: int) -> tuple[str, str]:
    """The token that begins here, else one character."""
    for name, rule in RULES.items():
        match = rule.match(text, place)
        if match and match[0]:
            return match[0], _LOOKS.get(name, "")
    return text[place], ""


def _meaning(condition: Condition) -> str:
    """The condition in words, clause by clause; and where it needs labels."""
    words = []
    for clause in condition.clauses:
        claim = claim_of(clause)
        side, points = "more" if claim.above else "less", f"{100 * claim.threshold:g}"
        named = {
            "n": f"the new model's accuracy is {side} than {claim.threshold:g}",
            "o": f"the old model's accuracy is {side} than {claim.threshold:g}",
            "d": f"{side} than {points} % of the predictions change",
            DIFFERENCE: f"the new model gains {side} than {points} points on the old one",
        }
        words.append(named.get(claim.quantity, str(clause)))
    sentence, labels = "; ".join(words), "no label is needed"
    if condition.needs_labels:
        labels = "every example needs its label" if condition.needs_agreements else "labels only where the two differ"
    return f"{sentence_case(sentence)}; {labels}."
