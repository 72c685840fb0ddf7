"""A network on several devices: its ranks give what one gives, and a rank that ends badly is the job's reason."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest
import torch
from property_sizes import at_night

from easeml_core.data.parts import load_open_parts
from easeml_core.errors import ConfigError, TrainingError, TrainingKilled, TrainingTaskError
from easeml_core.sandbox.child_protocol import fail, was_killed
from easeml_core.training import distributed
from easeml_core.training.distributed import Group, launch
from easeml_core.training.job import Run, checkpoint_name
from easeml_core.training.network_training import Ranks, _Training
from easeml_core.training.supervisor import run_job
from easeml_core.training.trainers import TRAINERS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from easeml_core.training.job import TrainingJob, TrainingResult

pytestmark = pytest.mark.journey  # each rank is a process that trains
TWO = {"device": "cpu", "devices": 2, "checkpoint_seconds": 0.0}


def train(job: TrainingJob, **watch: Any) -> TrainingResult:
    given: dict[str, Any] = {"on_progress": lambda _: None, "should_stop": lambda: False, "poll_seconds": 0.05}
    return run_job(job, **given | watch)


def ranks() -> list[psutil.Process]:
    """The processes that a child of this one has forked, oldest first."""
    found = [p for p in psutil.Process().children(recursive=True) if _training_above(p) == 2]
    return sorted(found, key=lambda process: process.create_time())


def _training_above(process: psutil.Process) -> int:
    family = [process, *process.parents()]
    return sum(any("easeml_core.training.child" in word for word in each.cmdline()) for each in family)


def test_two_ranks_train_a_network(make_job: Callable[..., TrainingJob]) -> None:
    news: list[Any] = []
    result = train(make_job("torch_cnn", {"epochs": 4, "batch_size": 48}, **TWO), on_progress=news.append)
    assert result.quality > 0.6  # one rank reaches 0.7
    epochs = [one for one in news if one["note"].startswith("epoch")]
    assert [one["step"] for one in epochs] == [1, 2, 3, 4]  # of one rank alone
    assert epochs[-1]["loss"] < epochs[0]["loss"]


def test_gradients_of_shares_add_up_to_that_of_the_batch(tmp_path: Path) -> None:
    """Of a batch that divides unevenly, and of one too small to be divided."""
    torch.manual_seed(0)
    layer, inputs, targets = torch.nn.Linear(3, 2), torch.randn(5, 3), torch.randint(0, 2, (5,))

    def gradient(rows: Any, weight: float = 1.0) -> torch.Tensor:
        layer.zero_grad()
        (weight * torch.nn.functional.cross_entropy(layer(inputs[rows]), targets[rows])).backward()
        return layer.weight.grad

    def work(group: Group) -> None:
        ranks = Ranks(Run(device="cpu", folder=tmp_path, group=group), torch.device("cpu"))
        for rows in (np.arange(5), np.arange(3)):
            own, weight = ranks.share_of(rows)
            assert len(own) == ([3, 2][group.rank] if len(rows) == 5 else 3)
            added = gradient(own, weight).clone()
            ranks.add([added])
            assert torch.allclose(added, gradient(rows), atol=1e-6)
        assert ranks.agreed(group.rank == 0)
        mean = torch.tensor([float(group.rank)])
        ranks.average([mean])
        assert mean.item() == 0.5

    launch(work, ranks=2, folder=tmp_path)


@pytest.mark.cold  # its ranks are found by their command line
@pytest.mark.parametrize("number", [0, at_night(1)])
def test_a_killed_rank_ends_the_attempt_and_the_next_one_goes_on(
    make_job: Callable[..., TrainingJob], number: int
) -> None:
    job, saved, news = make_job("torch_mlp", {"epochs": 400, "batch_size": 200}, **TWO), [], []

    def keep(path: Path, *_: float) -> None:
        if not saved:
            saved.append((job.output_dir / "kept", path.read_bytes()))
            ranks()[number].kill()

    with pytest.raises(TrainingKilled, match=rf"^rank {number} of 2 was ended by SIGKILL"):
        train(job, on_checkpoint=keep)
    assert ranks() == []
    ((path, content),) = saved
    path.write_bytes(content)
    going_on = replace(job, parameters={"epochs": 400, "batch_size": 200}, resume=path)

    def enough() -> bool:
        return any(one["note"].startswith("epoch") for one in news)

    train(going_on, on_progress=news.append, should_end=enough)
    assert news[1]["note"].startswith("going on after epoch")
    assert news[1]["resumed"] is True


def test_ranks_go_on_together_or_begin_anew_together(make_job: Callable[..., TrainingJob], tmp_path: Path) -> None:
    """One of them cannot restore the checkpoint that the others have, as where its device has too little memory."""
    parameters = TRAINERS["torch_mlp"].parameters({"epochs": 3})
    parts = load_open_parts(make_job("torch_mlp").data_path)

    def work(group: Group) -> None:
        run = Run(device="cpu", folder=tmp_path, group=group, checkpoint_seconds=0.0)
        training = _Training("torch_mlp", parts, parameters, seed=0, run=run)
        training.epoch = 1
        path = checkpoint_name(1)
        if group.rank == 0:
            training._save()
        training.ranks.agreed(True)
        told: list[Any] = []
        training.resume(tmp_path / (path if group.rank == 0 else "missing"), lambda *news, **more: told.append(more))
        assert (training.epoch, told[-1]) == (0, {"resumed": False})
        training.resume(tmp_path / path, lambda *news, **more: told.append(more))
        assert (training.epoch, told[-1]) == (1, {"resumed": True})

    launch(work, ranks=2, folder=tmp_path)


def test_a_training_that_diverges_says_so_once(make_job: Callable[..., TrainingJob]) -> None:
    job = make_job("torch_mlp", {"epochs": 2, "learning_rate": 1e30}, **TWO)
    with pytest.raises(TrainingError, match=r"^torch_mlp diverged: .*\(rank [01] of 2\)$"):
        train(job)


def test_a_backend_that_torch_lacks_is_the_tasks_fault(make_job: Callable[..., TrainingJob]) -> None:
    with pytest.raises(TrainingTaskError, match="distributed_backend is nccl, which torch"):
        train(make_job("torch_mlp", {"epochs": 1}, distributed_backend="nccl", **TWO))
    with pytest.raises(ConfigError, match=r"slot must be cpu or cuda: this trial trains on 2 devices, got 'cuda:1'"):
        make_job("torch_mlp", device="cuda:1", devices=2)


def ending(status: int, reason: str) -> int:
    """In a fork: launch two ranks, of which the second ends badly; the fork's exit status."""

    def work(group: Group) -> None:
        if group.rank == 0:
            message = "[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1"
            raise RuntimeError(message)
        if reason:
            fail(reason, of_task=True)
        os._exit(status)

    launch(work, ranks=2, folder=FOLDER[0])
    return 0


def test_a_rank_that_is_killed_before_it_has_begun_is_named(tmp_path: Path, monkeypatch: Any, capfd: Any) -> None:
    monkeypatch.setattr(distributed, "_run_rank", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(SystemExit):
        launch(lambda _: None, ranks=2, folder=tmp_path)
    assert was_killed(capfd.readouterr().err)


FOLDER: list[Path] = []


@pytest.mark.parametrize(("status", "reason", "said"), [(3, "no package", "no package (rank 1 of 2)"), (7, "", "")])
def test_the_reason_is_that_of_the_rank_which_failed_not_of_its_peers(
    tmp_path: Path, capfd: Any, status: int, reason: str, said: str
) -> None:
    FOLDER[:] = [tmp_path]
    child = os.fork()
    if not child:
        sys.stderr = sys.__stderr__ = open(2, "w", closefd=False, buffering=1)  # noqa: SIM115 - for the fork's life
        try:
            ending(status, reason)
        except SystemExit as end:
            os._exit(int(str(end)))
        finally:
            os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == status
    assert said in capfd.readouterr().err
