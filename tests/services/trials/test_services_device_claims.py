"""Real trials on one host with four GPUs, which a stand-in for the driver's tool lists: none is used by two."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest

from easeml_core.errors import DevicesHeldError, StateError
from easeml_core.services.selection.executors import TRAINERS_ONLY, executors_of
from easeml_core.services.selection.scheduler import suggest_trials
from easeml_core.services.studies.candidates import bring_program
from easeml_core.services.trials.attempts import run_routed_trial
from easeml_core.services.trials.devices import free_devices, list_devices
from easeml_core.services.trials.execution import run_trial, trial_details
from easeml_core.services.trials.worker import run_device
from easeml_core.training import devices
from easeml_core.training.devices import detected_devices

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.journey
TOOL = "#!/bin/sh\nfor n in 0 1 2 3; do echo $n, GPU-$n$n, NVIDIA L4, 23034, 550.54.15, Disabled; done\n"
TRAIN = """
import os, sys, time
from pathlib import Path

parameters = Path(sys.argv[sys.argv.index("--parameters") + 1]).read_text()
seen, until = Path(%r), Path(%r)
name = str(os.getpid())
(seen / ("." + name)).write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "all"))
(seen / ("." + name)).rename(seen / name)
while '"waits": 1' in parameters and not until.exists():
    time.sleep(0.05)
(Path(sys.argv[sys.argv.index("--output") + 1]) / "learnt").write_text("1")
"""
PREDICT = "import numpy as np; print(*[1] * len(np.load('inputs.npy')), sep='\\n')"


@pytest.fixture(autouse=True)
def host(monkeypatch: Any, tmp_path: Path) -> Iterator[None]:
    """Four GPUs, and a folder for claims that no other test uses."""
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text(TOOL)
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    monkeypatch.setenv(devices.FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(devices, "WAIT_SECONDS", 0.5)
    devices._gpus.cache_clear()
    yield
    devices._gpus.cache_clear()


@pytest.fixture
def program(lab: Any, tmp_path: Path) -> str:
    folder = tmp_path / "program"
    folder.mkdir()
    (tmp_path / "seen").mkdir()
    (folder / "train.py").write_text(TRAIN % (str(tmp_path / "seen"), str(tmp_path / "go")))
    (folder / "predict.py").write_text(PREDICT)
    commands = {"train": f"{sys.executable} train.py", "command": f"{sys.executable} predict.py"}
    return bring_program(lab.artifacts.of_tenant("lab"), folder, **commands)


def command(name: str, program: str, *, waits: int = 0, **more: Any) -> dict[str, Any]:
    return {"name": name, "kind": "command", "parameters": {"program": program, "waits": waits}, **more}


def seen(tmp_path: Path) -> list[str]:
    return [path.read_text() for path in (tmp_path / "seen").iterdir() if not path.name.startswith(".")]


def test_two_trials_have_different_devices_and_a_third_waits_for_those_of_a_killed_one(
    lab: Any, start: Any, wait_for: Any, tmp_path: Path, program: str
) -> None:
    gang = {"devices": {"kind": "gpu", "count": 2}}
    lab.register("busy", candidates=[command(f"c-{n}", program, waits=1, **gang) for n in range(3)])
    place = ("--database", lab.url("easeml_worker"), "--artifacts", str(lab.artifacts.root), "--json")
    run = ("-m", "easeml_core.cli", "device", "run", "--study", "busy", "--device", "gpu:2", "--max-trials", "1")
    processes = [start(*run, *place, "--request-key", key) for key in ("a", "b")]
    wait_for(lambda: len(seen(tmp_path)) == 2)
    assert sorted(name for pair in seen(tmp_path) for name in pair.split(",")) == [
        "GPU-00",
        "GPU-11",
        "GPU-22",
        "GPU-33",
    ]
    assert {device.name: device.held for device in list_devices(lab.worker)} == {f"cuda:{n}": 1 for n in range(4)}
    assert free_devices(lab.worker, device="gpu:2") == 0

    (third,) = suggest_trials(lab.worker, count=1, device="gpu:2", request_key="c", studies_only=["busy"]).trials
    asked = {"trial_id": third.trial_id, "request_key": "c"}
    lines: list[str] = []
    with pytest.raises(DevicesHeldError) as refused:
        run_routed_trial(lab.worker, lab.artifacts, executors=TRAINERS_ONLY, log=lines.append, **asked)
    for process in processes:
        assert f"process {process.pid} of the account" in str(refused.value)
    assert [line.startswith("waiting up to 0.5 s for 2 GPUs: cuda:0 is held by") for line in lines] == [True]
    state = trial_details(lab.worker, trial_id=third.trial_id)
    assert (state.state, state.attempt) == ("SUGGESTED", 0)
    with pytest.raises(DevicesHeldError, match="2 GPUs for a stream"):
        run_device(lab.worker, lab.artifacts, device="gpu:2", request_key="d", studies_only=["busy"])

    processes[0].send_signal(signal.SIGKILL)
    processes[0].wait()
    (tmp_path / "go").touch()
    done = run_trial(lab.worker, lab.artifacts, **asked)
    assert done.state == "SUCCEEDED", done.failure
    out, log = processes[1].communicate(timeout=60)
    assert [trial["state"] for trial in json.loads(out)["trials"]] == ["SUCCEEDED"], log


def test_parts_slots_and_functions_see_what_they_have_claimed_and_processors_claim_nothing(
    lab: Any, tmp_path: Path, program: str, monkeypatch: Any
) -> None:
    def fit(data: Any, parameters: Any, report: Any) -> Any:
        from sklearn.naive_bayes import GaussianNB

        (tmp_path / "seen" / "function").write_text(os.environ["CUDA_VISIBLE_DEVICES"])
        return GaussianNB().fit(data.train_inputs, data.train_labels)

    lab.register(
        "busy",
        candidates=[
            command("part", program, devices={"kind": "gpu", "share": 0.25}),
            command("slot", program, devices=["big"]),
            {"name": "fit", "kind": "function", "devices": ["other"]},
            {"name": "tree", "kind": "decision_tree"},
            command("wide", program, devices={"kind": "gpu", "count": 3}),
        ],
    )
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-1")
    given: dict[str, Any] = {"studies_only": ["busy"], "max_trials": 1}

    def trained(device: str | None, **more: Any) -> str:
        (trial,) = run_device(lab.worker, lab.artifacts, device=device, request_key=f"{device}", **given, **more).trials
        assert trial.state == "SUCCEEDED", trial.failure
        found = seen(tmp_path)
        for path in (tmp_path / "seen").iterdir():
            path.unlink()
        return ", ".join(found)

    def holding(number: int, **more: Any) -> Any:
        stopless: dict[str, Any] = {"should_stop": lambda: False, "log": lambda _: None}
        return devices.claimed([detected_devices()[number]], holder="another", **stopless, **more)

    with holding(1, parts=2):
        assert trained("gpu/4") == "GPU-11"  # beside the half that is held
        assert trained("other", executors=executors_of([fit], trainers=True)) == "GPU-33"
    with holding(0):
        assert trained("big", slot="cuda:1") == "GPU-11"
        with holding(1), contextlib.suppress(DevicesHeldError):
            assert trained(None) == ""  # the tree
    with pytest.raises(StateError, match="is for 3 GPUs, and this process sees 2; offer as many"):
        run_device(lab.worker, lab.artifacts, device="gpu:3", request_key="wide", **given)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3,GPU-1"
