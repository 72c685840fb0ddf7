"""The scheduler's input: studies, finished trials, trials under way, and the past. Frozen, and checked when made.

A value that exists is valid, so no algorithm of this package checks its input again. An *arm* is a candidate as an
index into the names of its study; between studies, a candidate is its name.

Candidates that several studies have in common are served by one trial (``SharedArms``). Source: Yu et al. (AISTATS
2019): the subsets of models that users can use may overlap, and EI is summed over users.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from easeml_core.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Place = tuple[int, int]


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
        tenant: Who owns the study; studies of one tenant share its quota.
        priority: Studies of a higher priority come first.
        target_quality: The study ends once its best quality is at least this, in (0, 1]; None for never.
        seconds_left: Until its deadline, arms that would take longer are left out; None for no deadline.
        max_parallel: At most so many trials under way at once, >= 1; None for no limit.
        devices: Kinds of device that each arm may run on, None for any; or empty.
        shared: Key of each arm, or None; arms of different studies with one key are one trial; or empty.
        rows: Training rows of its data, >= 1, for the prediction of costs; None when unknown.
        joined: How many finished trials of the problem had ended before the study came, or came back; what was spent
            before entitles it to nothing.

    Raises:
        InvalidInputError: If there is no candidate, a name is repeated, or a number is out of its range.
    """

    study_id: int
    weight: float
    names: tuple[str, ...]
    kinds: tuple[str, ...] = ()
    budget_seconds: float | None = None
    study: str = ""
    tenant: str = ""
    priority: int = 0
    target_quality: float | None = None
    seconds_left: float | None = None
    max_parallel: int | None = None
    devices: tuple[frozenset[str] | None, ...] = ()
    shared: tuple[str | None, ...] = ()
    rows: int | None = None
    joined: int = 0

    def __post_init__(self) -> None:
        owner = self.label
        _require(
            bool(self.names), f"{owner}: needs at least one candidate", self.names, "register the study with candidates"
        )
        twice = [name for name, times in Counter(self.names).items() if times > 1]
        _require(not twice, f"{owner}: candidate names must differ", twice, "rename the repeated ones")
        for what, given in (("kinds", self.kinds), ("devices", self.devices), ("shared", self.shared)):
            _require(
                len(given) in (0, len(self.names)),
                f"{owner}: {what} must be empty or one for each of the {len(self.names)} candidates",
                given,
                "give one entry for each candidate",
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
        self._check_limits(owner)

    def _check_limits(self, owner: str) -> None:
        _require(
            self.target_quality is None or 0 < self.target_quality <= 1,
            f"{owner}: target_quality must be in (0, 1], or None",
            self.target_quality,
            "give the quality at which the study ends",
        )
        _require(
            self.seconds_left is None or not math.isnan(self.seconds_left),
            f"{owner}: seconds_left must be a number, or None",
            self.seconds_left,
            "give the seconds to the deadline, negative when it has passed",
        )
        for what, value in (("max_parallel", self.max_parallel), ("rows", self.rows)):
            _require(value is None or value >= 1, f"{owner}: {what} must be >= 1, or None", value, "leave it out")

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
        device: Kind of the device that it ran on, or None.

    Raises:
        InvalidInputError: If the quality is NaN or outside [0, 1], or the cost is not positive and finite.
    """

    study_id: int
    arm: int
    quality: float | None
    cost_seconds: float
    order: float = 0
    device: str | None = None

    def __post_init__(self) -> None:
        quality = self.quality
        if (quality is None or 0 <= quality <= 1) and 0 < self.cost_seconds < math.inf:
            return  # apart, because messages cost more than the checks of many trials
        _check_quality(quality, f"trial of study {self.study_id}")
        _check_cost(self.cost_seconds, f"trial of study {self.study_id}")


@dataclass(frozen=True, slots=True)
class Pending:
    """A trial that was suggested, or is running now, on a kind of device; listed in the order of suggestion."""

    study_id: int
    arm: int
    device: str | None = None


@dataclass(frozen=True, slots=True)
class Quota:
    """What one tenant may use, over all its studies.

    Attributes:
        max_parallel: At most so many trials under way at once, >= 1; None for no limit.
        seconds_left: Device seconds that its trials may still use, under way ones not yet charged; None for no limit.

    Raises:
        InvalidInputError: If max_parallel is below 1, or seconds_left is not a number.
    """

    max_parallel: int | None = None
    seconds_left: float | None = None

    def __post_init__(self) -> None:
        parallel, seconds = self.max_parallel, self.seconds_left
        _require(parallel is None or parallel >= 1, "max_parallel must be >= 1, or None", parallel, "leave it out")
        is_number = seconds is None or not math.isnan(seconds)
        _require(is_number, "seconds_left must be a number, or None", seconds, "leave it out")


@dataclass(frozen=True, slots=True)
class Past:
    """What another study, or this one on an earlier data version, found out: for prior and costs only.

    Attributes:
        study_id: Whose results these are; the results of one study share its speed in the cost model.
        names: Candidate names.
        qualities: Quality of each in [0, 1]; None when it failed.
        costs: Seconds > 0 of each; None if they were not measured.

    Raises:
        InvalidInputError: If the three differ in length, or a value is out of its range.
    """

    study_id: int
    names: tuple[str, ...]
    qualities: tuple[float | None, ...]
    costs: tuple[float | None, ...]

    def __post_init__(self) -> None:
        if (
            len(self.names) == len(self.qualities) == len(self.costs)
            and all(q is None or 0 <= q <= 1 for q in self.qualities)
            and all(c is None or 0 < c < math.inf for c in self.costs)
        ):
            return  # apart, because messages cost more than the checks of many results
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
        quotas: What tenants may use, by the name in ``Arms.tenant``.

    Raises:
        InvalidInputError: If a study appears twice, or a trial belongs to no active study or to no candidate of it.
    """

    studies: tuple[Arms, ...]
    pulls: tuple[Pull, ...] = ()
    pending: tuple[Pending, ...] = ()
    history: tuple[Past, ...] = ()
    quotas: Mapping[str, Quota] = field(default_factory=dict)

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


class SharedArms:
    """Which arms of which studies are one trial; a study is its index.

    Example:
        >>> from easeml_core.selection.problem import Arms
        >>> one = Arms(1, 1.0, ("a", "b"), shared=("x", None))
        >>> two = Arms(2, 1.0, ("c", "d"), shared=(None, "x"))
        >>> shared = SharedArms([one, two])
        >>> shared.of(0, 0), shared.of(0, 1), shared.partners(0)
        (((0, 0), (1, 1)), ((0, 1),), (0, 1))
    """

    def __init__(self, studies: Sequence[Arms]) -> None:
        """Group the arms by their key."""
        places: dict[str, list[Place]] = {}
        for study, arms in enumerate(studies):
            for arm, key in enumerate(arms.shared):
                if key is not None:
                    places.setdefault(key, []).append((study, arm))
        self._places = {place: tuple(group) for group in places.values() if len(group) > 1 for place in group}
        self._groups: dict[int, list[tuple[int, tuple[Place, ...]]]] = {}
        for (study, arm), group in self._places.items():
            self._groups.setdefault(study, []).append((arm, group))

    def __bool__(self) -> bool:
        """Whether any arms are one trial."""
        return bool(self._places)

    def of(self, study: int, arm: int) -> tuple[Place, ...]:
        """All (study, arm) that a trial of this one serves, itself included."""
        return self._places.get((study, arm)) or ((study, arm),)

    def groups(self, study: int) -> Sequence[tuple[int, tuple[Place, ...]]]:
        """The study's shared arms, each with all (study, arm) of its group."""
        return self._groups.get(study, ())

    def partners(self, study: int) -> tuple[int, ...]:
        """The studies whose scores depend on this one's posterior, itself included, in order."""
        if study not in self._groups:
            return (study,)
        return tuple(sorted({study, *(other for _, group in self._groups[study] for other, _ in group)}))
