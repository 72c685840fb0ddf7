"""What is next for a study: the words of it. The rules are in ``step_rules.py`` and ``search_rules.py``."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime, timedelta

    Facts = Mapping[str, Any]


class Severity(StrEnum):
    """Whether a person must do something, and how soon; ``info`` is what comes by itself, or may be done."""

    BAD = "bad"
    WARN = "warn"
    INFO = "info"


class StepKind(StrEnum):
    """What a step is about, worst first."""

    REFUSED = "refused"
    REFEREE = "referee"
    NO_SET = "no-set"
    OVERFITTING = "overfitting"
    DRIFT = "drift"
    SET_SERVED = "set-served"
    LOST = "lost"
    LABELS = "labels"
    PROMOTE = "promote"
    SET_NEARLY_SPENT = "set-nearly-spent"
    IMPLEMENTATION = "implementation"
    BUDGET = "budget"
    SEALING = "sealing"
    PAUSED = "paused"
    COMPUTE = "compute"
    HAND_IN = "hand-in"
    VALIDATION = "validation"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do, or to wait for.

    Attributes:
        kind: What it is about.
        severity: Whether it needs a person.
        title: A few words, without the study's name.
        why: The reason, with its numbers.
        act: What to do.
        page: Where, below the pages' own path; empty for nowhere.
        command: The same in the command line; empty where there is none.
        since: Since when; None where that is not known.
    """

    kind: StepKind
    severity: Severity
    title: str
    why: str
    act: str
    page: str = ""
    command: str = ""
    since: datetime | None = None

    @property
    def needs_a_person(self) -> bool:
        """Whether somebody has to do something."""
        return self.severity is not Severity.INFO


def page_of(facts: Facts, below: str = "") -> str:
    """The study's page, or one below it."""
    return f"/studies/{quote(facts['study'], safe='')}{below}"


def span(time: timedelta) -> str:
    """A span of time in its largest unit."""
    seconds = time.total_seconds()
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds:.0f} s"


def best_words(facts: Facts) -> str:
    """The best result, with who has it."""
    if facts["best_quality"] is None:
        return "no result yet"
    return f"best {facts['best_quality']:.4f} ({facts['best_candidate']})"


def against_words(facts: Facts) -> str:
    """What it would take the place of."""
    if facts["production_quality"] is None:
        return ", nothing is in production"
    return f", in production {facts['production_quality']:.4f}"
