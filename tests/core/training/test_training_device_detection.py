"""Devices of a host: what the driver's tool says, as far as CUDA_VISIBLE_DEVICES and the slot let it be used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psutil
import pytest
import torch

from easeml_core.errors import TrainingMachineError
from easeml_core.training import devices
from easeml_core.training.child import memory_limit_of
from easeml_core.training.devices import detected_devices, host_name
from easeml_core.training.job import Run
from easeml_core.training.network_training import device_of, limit_memory

if TYPE_CHECKING:
    from pathlib import Path

ANSWER = """\
0, GPU-5a1c, NVIDIA H100 80GB HBM3, 81559, 550.54.15
1, GPU-77de, NVIDIA H100 80GB HBM3, [N/A], 550.54.15
2, GPU-77ff, NVIDIA L4, 23034, 550.54.15
"""
DIVIDED = """\
0, GPU-5a1c, NVIDIA A100-SXM4-40GB, 40960, 550.54.15, Enabled
1, GPU-77de, NVIDIA A100-SXM4-40GB, 40960, 550.54.15, Disabled
"""
LISTED = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5a1c)
  MIG 3g.20gb     Device  0: (UUID: MIG-c738)
  MIG 1g.5gb+me   Device  1: (UUID: MIG-a41b)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-77de)
"""


@pytest.fixture
def tool(monkeypatch: Any, tmp_path: Path) -> Any:
    """Stand in for the driver's tool, the only program on the path."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def make(answer: str, *, status: int = 0, listed: str = "") -> None:
        devices._gpus.cache_clear()
        (tmp_path / "answer").write_text(answer)
        (tmp_path / "listed").write_text(listed)
        which = f'file={tmp_path}/answer; [ "$1" = --list-gpus ] && file={tmp_path}/listed'
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{which}\n/bin/cat $file\nexit {status}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)

    yield make
    devices._gpus.cache_clear()


@pytest.mark.parametrize(
    ("visible", "slot", "names"),
    [
        (None, None, ["cuda:0", "cuda:1", "cuda:2"]),
        (None, "cuda:2", ["cuda:2"]),
        (None, "cpu", ["cpu"]),
        ("2,0", None, ["cuda:2", "cuda:0"]),
        ("2,0", "cuda:1", ["cuda:0"]),  # the second of those that this process sees
        ("GPU-5a, 9, 1", "cuda", ["cuda:0"]),  # CUDA stops at the first name that it does not know
        ("GPU-77", None, ["cpu"]),  # two GPUs: none
        ("", None, ["cpu"]),
        ("-1", None, ["cpu"]),
    ],
)
def test_the_devices_are_those_that_cuda_shows(
    tool: Any, monkeypatch: Any, visible: str | None, slot: str | None, names: list[str]
) -> None:
    tool(ANSWER)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [device.name for device in detected_devices(slot)] == names


@pytest.mark.parametrize(
    ("visible", "slot", "names"),
    [
        (None, None, ["cuda:0:0", "cuda:0:1", "cuda:1"]),
        ("MIG-a41b", None, ["cuda:0:1"]),
        ("1,MIG-c738,MIG-zz,0", None, ["cuda:1", "cuda:0:0"]),
        ("0,0", "cuda:1", ["cuda:0:1"]),
        ("MIG", None, ["cpu"]),
    ],
)
def test_a_gpu_in_mig_mode_is_its_partitions(
    tool: Any, monkeypatch: Any, visible: str | None, slot: str | None, names: list[str]
) -> None:
    tool(DIVIDED, listed=LISTED)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = detected_devices(slot)
    assert [device.name for device in found] == names
    memory = {device.uuid: device.memory_mb for device in found if device.is_partition}
    assert memory.items() <= {"MIG-c738": 20 << 10, "MIG-a41b": 5 << 10}.items()


def test_a_driver_that_knows_no_partitions_is_asked_without(tool: Any, tmp_path: Path) -> None:
    tool(ANSWER)
    (tmp_path / "nvidia-smi").write_text(
        f"#!/bin/sh\ncase $1 in *mig*) exit 2;; esac\nexec /bin/cat {tmp_path}/answer\n"
    )
    assert [device.name for device in detected_devices()] == ["cuda:0", "cuda:1", "cuda:2"]


def test_a_gpu_has_what_its_driver_says_and_a_host_without_one_its_processor(tool: Any) -> None:
    tool(ANSWER)
    first, second, _ = detected_devices()
    assert (first.host, first.model, first.memory_mb) == (host_name(), "NVIDIA H100 80GB HBM3", 81559)
    assert (first.driver, first.slots, second.memory_mb) == ("550.54.15", 1, None)
    for answer, status in (("No devices were found\n", 0), (ANSWER, 9)):
        tool(answer, status=status)
        (processor,) = detected_devices()
        assert processor.name == "cpu"
        assert processor.slots >= 1
        assert processor.memory_mb is not None


def test_a_part_of_a_device_has_that_part_of_its_memory(tool: Any, make_job: Any, monkeypatch: Any) -> None:
    """Of a GPU torch keeps the limit, of a processor the supervisor; several devices have the memory of each."""
    asked: list[tuple[float, torch.device]] = []
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *given: asked.append(given))
    gpu, processor = torch.device("cuda", 1), torch.device("cpu")
    for parts, device in ((4, gpu), (1, gpu), (4, processor)):
        limit_memory(Run(memory_parts=parts), device)
    assert asked == [(0.25, gpu)]
    total = psutil.virtual_memory().total >> 20
    wide = {"memory_limit_mb": 2 * total}
    assert memory_limit_of(make_job(device="cpu", memory_parts=4, **wide)) == total // 4
    assert memory_limit_of(make_job(device="cpu", devices=3, **wide)) == 6 * total
    assert memory_limit_of(make_job(device="cpu", memory_parts=4, memory_limit_mb=100)) == 100
    tool(ANSWER)
    assert memory_limit_of(make_job(memory_parts=4, **wide)) == 2 * total


def test_a_gpu_that_vanished_is_a_fault_of_the_machine_and_no_training_on_the_processor(monkeypatch: Any) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-5a1c")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of(Run()) == torch.device("cpu")  # a torch that was built without CUDA
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    with pytest.raises(TrainingMachineError, match="torch does not find the GPU GPU-5a1c that the driver lists"):
        device_of(Run())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert device_of(Run()) == torch.device("cpu")


def test_a_tool_that_hangs_is_asked_once_and_the_host_has_a_processor(
    tool: Any, monkeypatch: Any, tmp_path: Path
) -> None:
    tool(ANSWER)
    monkeypatch.setattr(devices, "_QUERY_SECONDS", 0.2)
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\necho asked >> {tmp_path}/asked\nexec /bin/sleep 60\n")
    for _ in range(2):
        assert [device.name for device in detected_devices()] == ["cpu"]
    assert (tmp_path / "asked").read_text() == "asked\n"
