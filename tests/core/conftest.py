"""Small real data, and jobs on them. Fixtures name only what a test cares about."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import threadpoolctl
import torch

from easeml_core.data.parts import OpenParts, load_open_parts, save_open_parts, split_parts
from easeml_core.data.sources.load import load_source
from easeml_core.data.table import sample_rows
from easeml_core.entities import Task
from easeml_core.stats import binomial_bounds, paired, weighted
from easeml_core.training.job import TrainingJob
from easeml_core.training.supervisor import run_job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """As in a training child: on a busy machine, threads that wait for each other cost more than they save."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpoolctl.threadpool_limits(1):
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def p_values_computed_once() -> Iterator[None]:
    """Keep p-values and bounds: of the outcomes that a test enumerates, many have the same score."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name in ((paired, "_p_value"), (binomial_bounds, "_log_bound"), (weighted, "log_bentkus_tail")):
            patch.setattr(module, name, functools.lru_cache(1 << 17)(getattr(module, name)))
        yield


@pytest.fixture(scope="session")
def digits_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Open parts of 600 digits: 400 rows to train on, 200 to validate."""
    path = tmp_path_factory.mktemp("digits") / "open.npz"
    table = sample_rows(load_source("sklearn:digits"), 600)
    save_open_parts(path, split_parts(table, sizes={"validation": 200}, rng=np.random.default_rng(7)))
    return path


@pytest.fixture(scope="session")
def digits(digits_file: Path) -> OpenParts:
    return load_open_parts(digits_file)


@pytest.fixture(scope="session")
def diabetes_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Open parts of the 442 patients of ``sklearn:diabetes``, numbers to predict: 322 to train on, 120 to validate."""
    path = tmp_path_factory.mktemp("diabetes") / "open.npz"
    table = load_source("sklearn:diabetes", task=Task.REGRESSION)
    save_open_parts(path, split_parts(table, sizes={"validation": 120}, rng=np.random.default_rng(1)))
    return path


@pytest.fixture(scope="session")
def diabetes(diabetes_file: Path) -> OpenParts:
    return load_open_parts(diabetes_file)


@pytest.fixture
def make_job(digits_file: Path, tmp_path: Path) -> Callable[..., TrainingJob]:
    """A job on the digits; ``make_job("decision_tree", time_limit_seconds=1)``."""

    def make(kind: str = "decision_tree", parameters: dict[str, Any] | None = None, **changes: Any) -> TrainingJob:
        settings = {"data_path": digits_file, "output_dir": tmp_path / "job", **changes}
        return TrainingJob(kind=kind, parameters=parameters or {}, **settings)

    return make


@contextlib.contextmanager
def _killed_worker(job: TrainingJob) -> Iterator[None]:
    worker = os.fork()
    if worker == 0:
        try:
            run_job(job, on_progress=lambda _: None, should_stop=lambda: False)
        finally:
            os._exit(1)  # whatever happened: on its way out it would run the tests that come next
    try:
        yield
    finally:
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)


@pytest.fixture
def killed_worker() -> Callable[[TrainingJob], contextlib.AbstractContextManager[None]]:
    """A separate worker that runs a job within the block; it is killed at the end of the block."""
    return _killed_worker
