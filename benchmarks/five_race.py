"""What the methods compete in: one study's open parts, a clock, and a test part that none of them sees."""

from __future__ import annotations

import math
import resource
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from easeml_core.entities import Task
from easeml_core.metrics.metric import metric_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from easeml_core.data.parts import OpenParts, Part

    Predict = Callable[[NDArray[np.float32]], NDArray[Any]]
    UserFunction = Callable[[Any, Mapping[str, Any], Callable[..., None]], Any]

POINT = 0.01
METRICS = {Task.CLASSIFICATION: "accuracy", Task.REGRESSION: "r2"}


@dataclass(frozen=True, slots=True, eq=False)
class Contest:
    """What every method is given.

    Attributes:
        name: Of the study.
        parts: Train and validation part, as the product has cut them.
        candidates: What the product chooses from.
        function: The tenant's own training function, where the study has one.
    """

    name: str
    parts: OpenParts
    candidates: Sequence[Mapping[str, Any]]
    function: UserFunction | None = None

    @property
    def metric(self) -> str:
        """Accuracy where classes are predicted, R2 where numbers are."""
        return METRICS[self.parts.task]

    def score(self, predict: Predict, part: Part | None = None) -> float:
        """Score of a model on a part, the validation part if none is given."""
        inputs, labels = part or (self.parts.validation_inputs, self.parts.validation_labels)
        return metric_of(self.metric).score(labels, predict(inputs))

    def score_of(self, quality: float) -> float:
        """The score behind a quality in [0, 1]."""
        return metric_of(self.metric).value(quality)


@dataclass(slots=True)
class Race:
    """One method at work; what comes after the time is over does not count.

    The clock counts processor seconds of this process and of its children that have ended: with one thread they are
    the wall-clock time on an otherwise idle machine.

    Attributes:
        seconds: How long it may work.
        tried: Models, or epochs of a network, that were scored in time.
        climb: Seconds since the start, and validation score, of each improvement.
        best: Of the model with the best validation score so far.
        wall_seconds: From start to end on the wall clock, once the race is over.
    """

    seconds: float
    tried: int = 0
    climb: list[tuple[float, float]] = field(default_factory=list)
    best: Predict | None = None
    wall_seconds: float = 0.0
    _start: float = field(default_factory=lambda: clock())
    _began: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """Seconds that are left; not above 0 once the race is over."""
        return self.seconds - (clock() - self._start)

    @property
    def top(self) -> float:
        """The best validation score so far."""
        return self.climb[-1][1] if self.climb else -math.inf

    def note(self, score: float, predict: Predict) -> None:
        """A model is ready, with this validation score."""
        now = clock() - self._start
        if now > self.seconds:
            return
        self.tried += 1
        if score > self.top:
            self.climb.append((now, score))
            self.best = predict

    def end(self) -> None:
        """The method has returned."""
        self.wall_seconds = time.monotonic() - self._began

    def seconds_to(self, score: float) -> float | None:
        """When the best validation score was first at least this; None if it never was."""
        return next((seconds for seconds, reached in self.climb if reached >= score), None)


def clock() -> float:
    """Processor seconds of this process and its ended children so far."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(u.ru_utime + u.ru_stime for u in used)
