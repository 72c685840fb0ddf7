"""A job whose memory does not suffice, what a job saves on the way, and which device it sees."""

from __future__ import annotations

import json
import os
import signal
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest
import torch
from safetensors import safe_open

from easeml_core.errors import ConfigError, TrainingError, TrainingKilled
from easeml_core.models.formats import save_constant
from easeml_core.sandbox import child_protocol
from easeml_core.sandbox.process import clean_environment
from easeml_core.training import child, supervisor
from easeml_core.training.checkpoint_format import load_checkpoint
from easeml_core.training.job import check_slot, checkpoint_name
from easeml_core.training.supervisor import run_job

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from easeml_core.training.job import TrainingJob

# What a child finds on its path before anything of ours: a network that needs more memory than there is, for batches of
# more than 40 rows (and from the given epoch on).
GREEDY = """
import os, torch
from easeml_core.training import network_training
from easeml_core.models.networks.network import Network
loss, epoch = Network.loss, network_training._Training._one_epoch
now = [0]
def counted(self):
    now[0] = self.epoch
    return epoch(self)
def greedy(self, outputs, targets):
    if self.training and len(targets) > {rows} and now[0] >= {epoch}:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\\nSee the documentation")
    return loss(self, outputs, targets)
Network.loss, network_training._Training._one_epoch = greedy, counted
"""


@pytest.fixture
def greedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Children whose networks run out of memory."""

    def make(*, rows: int = 40, epoch: int = 0) -> None:
        folder = tmp_path / "site"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(GREEDY.format(rows=rows, epoch=epoch))
        path = os.environ.get("PYTHONPATH")
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(folder), path])))

    return make


def train(job: TrainingJob, **watching: Any) -> tuple[Any, list[Any]]:
    news: list[Any] = []
    asked = {"on_progress": news.append, "should_stop": lambda: False, "poll_seconds": 0.05} | watching
    return run_job(job, **asked), news


def network(**parameters: Any) -> dict[str, Any]:
    return {"kind": "torch_mlp", "parameters": {"hidden_width": 8, "epochs": 4, "batch_size": 64, **parameters}}


@pytest.mark.nightly  # by day: the second job, smaller batches, what goes on, and how memory is reported
@pytest.mark.cold  # the seconds of both processes are counted
def test_a_network_that_runs_out_of_memory_goes_on_with_half_the_batch(make_job: Any, greedy: Any) -> None:
    greedy(epoch=3)
    result, news = train(make_job(**network(), checkpoint_seconds=0.0))
    (again,) = [n for n in news if "once more" in n["note"]]
    assert again["note"] == (
        "once more with batches of half the size, after out of memory: CUDA out of memory. Tried to allocate 20.00 GiB"
    )
    after = [n["note"] for n in news[news.index(again) :]]
    assert "going on after epoch 2 of 4" in after
    assert [n["step"] for n in news if "step" in n] == [1, 2, 3, 4]  # nothing is repeated
    assert result.quality > 0.2
    assert result.cost_seconds > 0.5  # of both processes


def test_the_second_time_it_is_a_failure(make_job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    halved: list[bool] = []

    def fake(module: str, arguments: list[str], **how: Any) -> float:
        halved.append(json.loads((how["cwd"] / "job.json").read_text())["halved"])
        message = "out of memory: CUDA out of memory. Tried to allocate 20.00 GiB"
        raise TrainingError(message)

    monkeypatch.setattr(supervisor, "run_child", fake)
    with pytest.raises(TrainingError) as caught:
        train(make_job(**network()))
    assert str(caught.value) == (
        "out of memory: CUDA out of memory. Tried to allocate 20.00 GiB; it was the second time, with batches of half "
        "the size"
    )
    assert halved == [False, True]


@pytest.mark.cold  # what a fork shares with its server does not count as its memory
def test_what_has_no_batches_is_not_tried_again(make_job: Any) -> None:
    news: list[Any] = []
    with pytest.raises(TrainingError, match=r"^out of memory: .* MB in use, 64 MB allowed"):
        run_job(make_job("decision_tree", memory_limit_mb=64), on_progress=news.append, should_stop=lambda: False)
    assert not any("once more" in n["note"] for n in news)


def test_the_second_process_has_what_is_left_of_the_time(
    make_job: Any, monkeypatch: pytest.MonkeyPatch, digits: Any
) -> None:
    jobs: list[dict[str, Any]] = []
    limits: list[float] = []

    def fake(module: str, arguments: list[str], **how: Any) -> float:
        jobs.append(json.loads((how["cwd"] / "job.json").read_text()))
        limits.append(how["limits"].time_seconds)
        if len(jobs) == 1:
            (how["cwd"] / checkpoint_name(2)).write_bytes(b"something")
            clock.append(5.0)  # until its libraries are imported
            how["on_output"](b'{"started": true}\n')
            clock.append(20.0)
            how["on_output"](b'{"started": true}\n')  # as a hostile program would write
            how["on_output"](b'{"note": "epoch 2", "progress": 0.2, "checkpoint": 2}\n')
            message = "out of memory: 900 MB in use, 800 MB allowed"
            raise TrainingError(message)
        clock.append(22.0)
        how["on_output"](b'{"started": true}\n')
        clock.append(30.0)
        save_constant(how["cwd"] / "model", 1)
        np.save(how["cwd"] / "predictions.npy", np.ones(200, dtype=np.int64))
        (how["cwd"] / "result.json").write_text('{"quality": 0.5, "artifact": "model", "format": "constant"}')
        return 1.0

    clock = [0.0]
    monkeypatch.setattr(supervisor, "run_child", fake)
    monkeypatch.setattr(supervisor, "time", SimpleNamespace(monotonic=lambda: clock[-1]))
    job = make_job(**network(), time_limit_seconds=100.0)
    result, _ = train(job)
    assert (result.quality, result.cost_seconds, result.start_seconds) == (0.5, pytest.approx(23.0), pytest.approx(7.0))
    assert [j["halved"] for j in jobs] == [False, True]
    assert [j["resume"] for j in jobs] == [None, str(job.output_dir / checkpoint_name(2))]
    assert limits[1] < limits[0] == 100.0


SAYINGS = [
    (MemoryError(), True),
    (torch.OutOfMemoryError("CUDA out of memory."), True),
    (RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"), True),
    (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    (ValueError("out of memory"), False),
]


@pytest.mark.parametrize(("error", "is_memory"), SAYINGS, ids=str)
def test_how_libraries_say_that_memory_did_not_suffice(error: Exception, is_memory: bool) -> None:
    assert child.is_out_of_memory(error) is is_memory


def test_an_array_too_large_for_the_machine_is_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**48)
    assert child.is_out_of_memory(caught.value)


def test_other_errors_of_a_library_stay_crashes(
    make_job: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "job.json"
    path.write_text(json.dumps(make_job().to_json()))
    monkeypatch.setattr(child_protocol, "prepare", lambda _: None)
    monkeypatch.setattr(child, "take_stdout", lambda: 1)

    def run_and_raise(error: Exception) -> None:
        def run(*_: Any) -> None:
            raise error

        monkeypatch.setattr(child, "run", run)
        child.main(["1", str(path)])

    with pytest.raises(RuntimeError, match="shapes"):
        run_and_raise(RuntimeError("shapes do not fit"))
    with pytest.raises(SystemExit):
        run_and_raise(MemoryError())
    assert child_protocol.reason_in(capsys.readouterr().err) == "out of memory: an array did not fit"


# -- checkpoints on the way out ----------------------------------------------------------------------------------------


def test_checkpoints_are_handed_over_with_their_seconds(make_job: Any) -> None:
    seen: list[tuple[int, float, float]] = []

    def keep(path: Path, seconds: float, progress: float) -> None:
        with safe_open(path, framework="pt") as file:
            seen.append((json.loads(file.metadata()["checkpoint"])["epoch"], seconds, progress))

    result, _ = train(make_job(**network(epochs=10), checkpoint_seconds=0.0), on_checkpoint=keep)
    epochs, seconds, progress = zip(*seen, strict=True)
    assert len(seen) >= 1
    assert list(epochs) == sorted(set(epochs))
    assert list(seconds) == sorted(seconds)
    assert 0 < seconds[-1] < result.cost_seconds
    assert all(0.1 < p < 0.8 for p in progress)


@pytest.mark.journey
def test_a_killed_job_can_be_gone_on_with(make_job: Any, tmp_path: Path) -> None:
    saved = tmp_path / "saved"

    def keep_and_kill(path: Path, *_: Any) -> None:
        saved.write_bytes(path.read_bytes())
        for process in psutil.Process().children():
            process.send_signal(signal.SIGKILL)

    job = make_job(**network(epochs=300), checkpoint_seconds=0.0)
    with pytest.raises(TrainingKilled, match="ended by SIGKILL"):
        train(job, on_checkpoint=keep_and_kill)
    first, news = train(make_job(**network(epochs=300), resume=saved))
    assert news[1]["note"].startswith("going on after epoch ")
    whole, _ = train(make_job(**network(epochs=300), output_dir=tmp_path / "whole"))
    assert first.artifact_path.read_bytes() == whole.artifact_path.read_bytes()


def test_a_checkpoint_is_none_for_another_network(make_job: Any, tmp_path: Path) -> None:
    (tmp_path / "saved").write_bytes(b"whatever")
    _, news = train(make_job(**network(), resume=tmp_path / "saved"))
    assert news[1]["resumed"] is False
    with pytest.raises(Exception, match="cannot be read"):
        load_checkpoint(tmp_path / "saved", training="x", weights={})


# -- devices -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:-1", "cuda:1000", "CPU", "cpu\n", ""])
def test_slots_that_are_none(name: str, make_job: Any) -> None:
    with pytest.raises(ConfigError, match="slot must be cpu, cuda or cuda:N"):
        check_slot(name)
    with pytest.raises(ConfigError):
        make_job(device=name)


def test_a_child_sees_its_own_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "CUDA_VISIBLE_DEVICES"
    monkeypatch.delenv(name, raising=False)
    assert name not in clean_environment(1)
    assert clean_environment(1, "cuda:3")[name] == "3"
    assert clean_environment(1, "cpu")[name] == ""
    monkeypatch.setenv(name, "4, 7")
    assert clean_environment(1)[name] == "4, 7"
    assert clean_environment(1, "cuda")[name] == "4, 7"
    assert clean_environment(1, "cuda:1")[name] == "7"
    with pytest.raises(TrainingError, match=r"slot is cuda:2, and this process sees 2 GPUs \('4, 7'\); name another"):
        clean_environment(1, "cuda:2")


def test_a_job_for_a_gpu_that_is_not_there_says_so(make_job: Any) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(TrainingError, match="slot is cuda, and torch sees no such GPU here; name another slot, or cpu"):
        train(make_job(**network(), device="cuda:0"))
