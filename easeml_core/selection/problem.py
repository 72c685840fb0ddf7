"""What the scheduler is told: studies, finished trials, trials under way, and the past. Frozen, and checked when made.

Nothing here decides anything. A value that exists is a valid one, so no algorithm of this package checks its input
again. An *arm* is a candidate as an index into the names of its study; between studies, a candidate is its name.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from easeml_core.errors import InvalidInputError


def _require(condition: bool, what: str, value: object, remedy: str) -> None:
    """Raise InvalidInputError, with the value, the allowed range and the remedy, unless the condition holds."""
    if not condition:
        message = f"{what}, got {value!r}; {remedy}"
        raise InvalidInputError(message)


def _check_quality(quality: float | None, owner: str) -> None:
    _require(
        quality is None or 0 <= quality <= 1,
        f"{owner}: quality must be a number in [0, 1], higher is better",
        quality,
        "record a trial without a usable quality as failed (quality None), and turn an error rate into 1 - error",
    )


def _check_cost(cost_seconds: float, owner: str) -> None:
    _require(
        0 < cost_seconds < math.inf,
        f"{owner}: cost_seconds must be > 0 and finite",
        cost_seconds,
        "give the measured seconds of the trial, also of a failed one",
    )


@dataclass(frozen=True, slots=True)
class Arms:
    """An active study: its candidates and its claim on the devices.

    Attributes:
        study_id: Identity of the study; ties are settled in its order.
        weight: w_i > 0, how much an improvement of this tenant counts.
        names: Candidate names, at least one, without repetition; arm k is ``names[k]``.
        kinds: Trainer kind of each candidate, or empty.
        budget_seconds: Device seconds that the study may use, or None for no limit.
        study: Name of the study for people; ``study <id>`` when empty.

    Raises:
        InvalidInputError: If there is no candidate, a name is repeated, or a number is out of its range.
    """

    study_id: int
    weight: float
    names: tuple[str, ...]
    kinds: tuple[str, ...] = ()
    budget_seconds: float | None = None
    study: str = ""

    def __post_init__(self) -> None:
        owner = self.label
        _require(
            bool(self.names), f"{owner}: needs at least one candidate", self.names, "register the study with candidates"
        )
        twice = [name for name, times in Counter(self.names).items() if times > 1]
        _require(not twice, f"{owner}: candidate names must differ", twice, "rename the repeated ones")
        _require(
            len(self.kinds) in (0, len(self.names)),
            f"{owner}: kinds must be empty or one for each of the {len(self.names)} candidates",
            self.kinds,
            "give every candidate its kind",
        )
        _require(
            0 < self.weight < math.inf,
            f"{owner}: weight must be > 0 and finite",
            self.weight,
            "pause a study that shall get no device",
        )
        _require(
            self.budget_seconds is None or self.budget_seconds >= 0,
            f"{owner}: budget_seconds must be >= 0, or None for no limit",
            self.budget_seconds,
            "give the device seconds that the study may use",
        )

    @property
    def label(self) -> str:
        """How people know the study."""
        return self.study or f"study {self.study_id}"


@dataclass(frozen=True, slots=True)
class Pull:
    """A finished trial.

    Attributes:
        study_id: Whose trial it was.
        arm: Which candidate, >= 0.
        quality: In [0, 1], higher is better; None when the trial failed: its cost is spent, its quality unknown.
        cost_seconds: Measured device seconds, > 0, of failed trials too.
        order: Place in the order of completion; pulls with the same order keep the order they are given in.

    Raises:
        InvalidInputError: If the quality is NaN or outside [0, 1], or the cost is not positive and finite.
    """

    study_id: int
    arm: int
    quality: float | None
    cost_seconds: float
    order: float = 0

    def __post_init__(self) -> None:
        _check_quality(self.quality, f"trial of study {self.study_id}")
        _check_cost(self.cost_seconds, f"trial of study {self.study_id}")


@dataclass(frozen=True, slots=True)
class Pending:
    """A trial that was suggested, or is running now; listed in the order of suggestion."""

    study_id: int
    arm: int


@dataclass(frozen=True, slots=True)
class Past:
    """What another study, or this one on an earlier data version, found out: for prior and costs only.

    Attributes:
        study_id: Whose results these are; the results of one study share its speed in the cost model.
        names: Candidate names.
        qualities: Quality of each in [0, 1]; None when it failed.
        costs: Seconds > 0 of each; None when nobody measured them.

    Raises:
        InvalidInputError: If the three differ in length, or a value is out of its range.
    """

    study_id: int
    names: tuple[str, ...]
    qualities: tuple[float | None, ...]
    costs: tuple[float | None, ...]

    def __post_init__(self) -> None:
        owner = f"past results of study {self.study_id}"
        lengths = (len(self.names), len(self.qualities), len(self.costs))
        _require(
            len(set(lengths)) == 1,
            f"{owner}: names, qualities and costs must have one length",
            lengths,
            "give one quality and one cost, or None, for each name",
        )
        for quality in self.qualities:
            _check_quality(quality, owner)
        for cost in self.costs:
            if cost is not None:
                _check_cost(cost, owner)


@dataclass(frozen=True, slots=True)
class Problem:
    """Everything the next suggestion depends on; the same problem gives the same suggestion.

    Attributes:
        studies: The active studies, in any order.
        pulls: Their finished trials.
        pending: Their trials under way.
        history: Results that shape prior and costs.

    Raises:
        InvalidInputError: If a study appears twice, or a trial belongs to no active study or to no candidate of it.
    """

    studies: tuple[Arms, ...]
    pulls: tuple[Pull, ...] = ()
    pending: tuple[Pending, ...] = ()
    history: tuple[Past, ...] = ()

    def __post_init__(self) -> None:
        sizes = {arms.study_id: len(arms.names) for arms in self.studies}
        _require(
            len(sizes) == len(self.studies),
            "every study must be listed once",
            [arms.study_id for arms in self.studies],
            "remove the repeated ones",
        )
        trials: tuple[Pull | Pending, ...] = (*self.pulls, *self.pending)
        for trial in trials:
            if not 0 <= trial.arm < sizes.get(trial.study_id, 0):
                self._refuse(trial, sizes)

    def _refuse(self, trial: Pull | Pending, sizes: dict[int, int]) -> None:
        """Say what is wrong with a trial; apart, because messages cost more than the checks of many trials."""
        _require(
            trial.study_id in sizes,
            f"a trial must belong to one of the active studies {sorted(sizes)}",
            trial.study_id,
            "move results of other studies to the history",
        )
        _require(
            0 <= trial.arm < sizes[trial.study_id],
            f"an arm of study {trial.study_id} must lie in 0..{sizes[trial.study_id] - 1}",
            trial.arm,
            "arms count the candidates of the study from 0",
        )

    def in_order(self) -> tuple[Pull, ...]:
        """The finished trials in the order of their completion."""
        return tuple(sorted(self.pulls, key=lambda pull: pull.order))

    def spent(self, study_id: int) -> float:
        """Device seconds that the finished trials of a study took, failed ones included."""
        return math.fsum(pull.cost_seconds for pull in self.pulls if pull.study_id == study_id)
