"""Training in a container image, with a runtime that stands in for docker and really runs the command.

Like the real one it runs the work in a process that is no child of the caller, so that killing the caller does not end
it; only ``rm --force`` does.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from easeml_core.errors import TrainingCancelled, TrainingError
from easeml_core.models.command_model import read_manifest
from easeml_core.training.command_training import arguments_of
from easeml_core.training.job import Run
from easeml_core.training.supervisor import run_job

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

IMAGE = "registry.example:5000/lab/trainer@sha256:" + 64 * "a"

RUNTIME = """#!{python}
import json, os, signal, subprocess, sys, time
from pathlib import Path

here, words = Path({here!r}), sys.argv[1:]
with (here / "log").open("a") as log:
    log.write(json.dumps(words) + "\\n")
if words[0] == "rm":
    try:
        os.killpg(int((here / words[2]).read_text()), signal.SIGKILL)
    except (FileNotFoundError, ProcessLookupError):
        sys.exit(1)
    sys.exit(0)
mounts = dict(w.removesuffix(",readonly").removeprefix("type=bind,source=").split(",target=")[::-1]
              for w in words if w.startswith("type=bind"))
name, ended = words[words.index("--name") + 1], here / "ended"
ended.unlink(missing_ok=True)
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    (here / name).write_text(str(os.getpgrp()))
    arguments = [mounts.get(w, w) for w in words[words.index({image!r}) + 1 :]]
    status = subprocess.call([sys.executable, here / "entrypoint.py", *arguments])
    ended.write_text(str(status))
    os._exit(0)
while not ended.exists() or not ended.read_text():
    time.sleep(0.02)
sys.exit(int(ended.read_text()))
"""

ENTRYPOINT = """
import json, sys
from pathlib import Path
import numpy as np
assert sys.argv[1] == "train"
data, parameters, output = map(Path, sys.argv[3::2])
print(json.dumps({"step": 1, "of": 2, "quality": 0.5}), flush=True)
label = json.loads(parameters.read_text())["label"]
(output / "command.json").write_text('{"command": ["python", "predict.py"]}')
(output / "predict.py").write_text(f"import numpy as np\\nprint(*[{label}] * len(np.load('inputs.npy')))")
"""


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """A worker with docker on its path, whose every image does what the code says."""

    def install(entrypoint: str) -> Path:
        here = tmp_path / "bin"
        here.mkdir()
        (here / "entrypoint.py").write_text(entrypoint)
        (here / "docker").write_text(RUNTIME.format(python=sys.executable, here=str(here), image=IMAGE))
        (here / "docker").chmod(0o755)
        monkeypatch.setenv("PATH", f"{here}{os.pathsep}{os.environ['PATH']}")
        return here

    return install


def train(job: Any, news: list[Any] | None = None, should_stop: Callable[[], bool] = lambda: False) -> Any:
    return run_job(
        job, on_progress=(news if news is not None else []).append, should_stop=should_stop, poll_seconds=0.05
    )


def calls(here: Path, word: str) -> list[list[str]]:
    lines = (here / "log").read_text().splitlines()
    return [words for words in map(json.loads, lines) if words[0] == word]


def eventually(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 60
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.05)
    return holds()


TWO_DEVICES: dict[str, Any] = {"device": "cpu", "devices": 2, "memory_limit_mb": 450}
"""Each with so much memory; torchrun in the image starts two processes."""


def test_an_image_trains_and_its_output_is_the_model(runtime: Any, make_job: Any, digits: Any) -> None:
    here, news = runtime(ENTRYPOINT), list[Any]()
    result = train(make_job("container", {"image": IMAGE, "label": 7}, threads=2, **TWO_DEVICES), news)
    assert result.validation_predictions.tolist() == [7] * 200
    assert result.quality == float((digits.validation_labels == 7).mean())
    assert (result.format, read_manifest(result.artifact_path).command) == ("command", ("python", "predict.py"))
    assert {"progress": 0.45, "note": "step 1 of 2", "quality": 0.5, "step": 1, "of": 2} in news
    ((words),) = calls(here, "run")
    text = " ".join(words)
    for part in (
        "run --rm --name easeml-", "--network none", "--read-only --tmpfs /tmp", "--log-driver none", "--cap-drop ALL",
        "--security-opt no-new-privileges", f"--user {os.getuid()}:{os.getgid()}", "--memory 900m --memory-swap 900m",
        "--cpus 4", "--pids-limit 1024", "--env OMP_NUM_THREADS=2", "--env PET_NPROC_PER_NODE", "target=/data,readonly",
        "target=/parameters.json,readonly", "/output,target=/output ",
        f"{IMAGE} train --data /data --parameters /parameters.json --output /output",
    ):  # fmt: skip
        assert part in text
    assert text.endswith("--output /output")
    assert eventually(lambda: calls(here, "rm")[:1] == [["rm", "--force", words[words.index("--name") + 1]]])


def test_an_image_that_fails_is_a_reason(runtime: Any, make_job: Any) -> None:
    runtime("import sys\nsys.exit('no cuda')")
    with pytest.raises(TrainingError, match=rf"'docker run {IMAGE}' ended with exit status 1: no cuda"):
        train(make_job("container", {"image": IMAGE}))


def test_a_model_that_needs_its_image_is_refused(runtime: Any, make_job: Any) -> None:
    runtime("import sys\nopen(sys.argv[7] + '/weights', 'w').write('w')")
    with pytest.raises(TrainingError, match=r"left no command\.json in /output; the referee runs models without"):
        train(make_job("container", {"image": IMAGE}))


def test_a_worker_without_the_runtime_says_so(make_job: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TrainingError, match="podman is not installed on this worker"):
        train(make_job("container", {"image": IMAGE, "runtime": "podman"}))


@pytest.mark.parametrize(
    ("runtime", "visible", "words"),
    [
        ("docker", "0,GPU-5a", ["--gpus", '"device=0,GPU-5a"']),
        ("podman", "0,1", ["--device", "nvidia.com/gpu=0", "--device", "nvidia.com/gpu=1"]),
        ("docker", "", []),
        ("docker", "0 --privileged", []),
    ],
)
def test_a_container_gets_the_gpus_of_its_slot(
    runtime: str, visible: str, words: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    reported = arguments_of(runtime, "n", IMAGE, tmp_path, Run(), resumes=True)
    before = reported[: reported.index(IMAGE)]
    assert before[len(before) - len(words) :] == words
    assert ("--gpus" in before or "--device" in before) == bool(words)
    assert ("--userns" in before) == (runtime == "podman")
    assert f"type=bind,source={tmp_path}/resume,target=/resume,readonly" in before
    assert reported[-2:] == ["--resume", "/resume"]


ENDLESS = """
import sys, time
print('{"step": 1, "of": 9}', flush=True)
time.sleep(180)  # container-of-the-test
"""


def containers(here: Path) -> list[psutil.Process]:
    return [p for p in psutil.process_iter(["cmdline"]) if str(here / "entrypoint.py") in (p.info["cmdline"] or [])]


def test_a_cancel_removes_the_container(runtime: Any, make_job: Any) -> None:
    here, news, seen = runtime(ENDLESS), list[Any](), list[int]()

    def stop() -> bool:
        seen.append(len(containers(here)))
        return len(news) > 2

    with pytest.raises(TrainingCancelled):
        train(make_job("container", {"image": IMAGE}), news, should_stop=stop)
    assert max(seen) == 1
    assert eventually(lambda: not containers(here))
    (words,) = calls(here, "run")
    assert ["rm", "--force", words[words.index("--name") + 1]] in calls(here, "rm")


def test_the_container_ends_with_a_worker_that_is_killed(runtime: Any, make_job: Any, killed_worker: Any) -> None:
    """No process of the worker is left: the kernel closes the pipe that the watch waits for."""
    here = runtime(ENDLESS)
    with killed_worker(make_job("container", {"image": IMAGE})):
        assert eventually(lambda: len(containers(here)) == 1)
    assert eventually(lambda: not containers(here))
