"""States as a shape, a colour and a word: those that several pages show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from easeml_core.entities import Symbol
from easeml_core.services.reports.recommendations import Severity, Standing, StepKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easeml_core.services.reports.recommendations import Step


@dataclass(frozen=True, slots=True)
class Mark:
    """A state as a shape, a colour and a word.

    Example:
        >>> Mark(*VERDICTS[Symbol.PASS])
        Mark(colour='ok', shape='pass', word='Pass')
    """

    colour: str
    shape: str
    word: str


VERDICTS = {
    Symbol.PASS: ("ok", "pass", "Pass"),
    Symbol.FAIL: ("bad", "fail", "Fail"),
    Symbol.WITHHELD: ("idle", "lock", "Withheld"),
}

WAITS = Mark("idle", "wait", "Waits for the answer")
REFUSED = Mark("warn", "alert", "Refused")
"""How far a request is that has no answer to tell of."""

STANDINGS = {
    Standing.SEARCHING: ("busy", "run", "Searching"),
    Standing.FINISHED: ("ok", "done", "Finished"),
    Standing.PAUSED: ("idle", "pause", "Paused"),
}

STEPS = {
    StepKind.REFUSED: ("alert", "Refused"),
    StepKind.REFEREE: ("hour", "No answer"),
    StepKind.NOT_HELD: ("alert", "Did not hold"),
    StepKind.NO_SET: ("lock", "Set used up"),
    StepKind.OVERFITTING: ("alert", "Overfitting"),
    StepKind.DRIFT: ("alert", "Drift"),
    StepKind.SET_SERVED: ("lock", "New set wanted"),
    StepKind.LOST: ("chip", "Worker lost"),
    StepKind.LABELS: ("tag", "Labels wanted"),
    StepKind.PROMOTE: ("person", "Promotion"),
    StepKind.SET_NEARLY_SPENT: ("lock", "Set nearly spent"),
    StepKind.IMPLEMENTATION: ("chip", "No executor"),
    StepKind.BUDGET: ("hour", "Budget spent"),
    StepKind.SEALING: ("wait", "Being sealed"),
    StepKind.PAUSED: ("pause", "Paused"),
    StepKind.COMPUTE: ("bolt", "Compute"),
    StepKind.HAND_IN: ("right", "Hand in"),
    StepKind.VALIDATION: ("hour", "Validation data"),
    StepKind.ARCHIVED: ("off", "Archived"),
}
"""What a step is about: its symbol, and the word for it in the place of a study's state."""

ACTS = {
    StepKind.REFUSED: "Register again",
    StepKind.REFEREE: "Look",
    StepKind.NOT_HELD: "Open trial",
    StepKind.NO_SET: "Seal a new set",
    StepKind.OVERFITTING: "Open meter",
    StepKind.DRIFT: "Open meter",
    StepKind.SET_SERVED: "Seal a set",
    StepKind.LOST: "Open compute",
    StepKind.LABELS: "Open desk",
    StepKind.PROMOTE: "Review",
    StepKind.SET_NEARLY_SPENT: "Plan a set",
    StepKind.BUDGET: "Raise or finish",
    StepKind.VALIDATION: "Open data",
    StepKind.HAND_IN: "Submissions",
}
"""The word of the button; others say "Open"."""


def mark_of(steps: Sequence[Step], standing: Standing) -> Mark:
    """Return the state of a study; where it needs a person, what for."""
    step = steps[0]
    if standing is Standing.NEEDS:
        return Mark("bad" if step.severity is Severity.BAD else "warn", *STEPS[step.kind])
    if step.kind is StepKind.SEALING:
        return Mark("busy", *STEPS[step.kind])
    if step.kind is StepKind.ARCHIVED:
        return Mark("idle", *STEPS[step.kind])
    return Mark(*STANDINGS[standing])
