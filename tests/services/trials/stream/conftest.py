"""Training that ends when the test lets it: what the tests of the stream drive have in common."""

from __future__ import annotations

import dataclasses
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from easeml_core.errors import TrainingCancelled, TrainingError
from easeml_core.services.trials import execution as trial_service
from easeml_core.training.job import TrainingResult

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from easeml_core.training.job import TrainingJob


@dataclasses.dataclass
class Trainers:
    """Stand in for the training processes: a trial, known by its tree's depth, ends when the test lets it."""

    folder: Path
    held: dict[int, threading.Event] = dataclasses.field(default_factory=dict)
    failing: set[int] = dataclasses.field(default_factory=set)
    cost_seconds: float = 0.5
    events: list[str] = dataclasses.field(default_factory=list)
    raising: BaseException | None = None

    def hold(self, depth: int) -> threading.Event:
        return self.held.setdefault(depth, threading.Event())

    def run_job(
        self,
        job: TrainingJob,
        *,
        on_progress: Callable[..., None],
        should_stop: Callable[[], bool],
        on_checkpoint: Callable[..., None],
        should_end: Callable[[], bool],
    ) -> TrainingResult:
        depth = int(job.parameters["max_depth"])
        self.events.append(f"begin {depth}")
        if self.raising is not None:
            raise self.raising
        while depth in self.held and not self.held[depth].wait(0.02):
            if should_stop():
                self.events.append(f"cancel {depth}")
                message = "cancelled"
                raise TrainingCancelled(message)
        if depth in self.failing:
            message = "it crashed\nwith a long story"
            raise TrainingError(message)
        self.events.append(f"end {depth}")
        model = job.output_dir / "model"
        model.write_text('{"label": 1}')
        predictions = np.zeros(85, dtype=np.int64)
        return TrainingResult(0.9 - depth / 100, self.cost_seconds, model, "constant", predictions)


@pytest.fixture
def trainers(monkeypatch: Any, tmp_path: Path) -> Trainers:
    made = Trainers(tmp_path)
    monkeypatch.setattr(trial_service, "run_job", made.run_job)
    return made
