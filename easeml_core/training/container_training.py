"""Training in a container image: the contract of ``docs/bring-your-own.md``, with docker or podman on the worker.

    ENTRYPOINT train --data /data --parameters /parameters.json --output /output [--resume /resume]

The image trains, and that is all: the referee has no containers. So what it leaves in ``/output`` must be a model that
is a program (``command_model``), which runs with what the referee has.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from easeml_core.errors import TrainingError, TrainingTaskError
from easeml_core.models.command_model import MANIFEST, run_command
from easeml_core.training.command_training import (
    BEGUN,
    CHECKPOINTS,
    ProgramNews,
    packed_model,
    resumed_folder,
    working_folder,
    write_contract,
)
from easeml_core.training.devices.distributed import NPROC

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from easeml_core.data.parts import OpenParts
    from easeml_core.entities import Parameters
    from easeml_core.sandbox.progress import Report
    from easeml_core.training.command_training import ProgramPredictor
    from easeml_core.training.run_options import Run

_MOST_PROCESSES = 1024
_GPUS = re.compile(r"[A-Za-z0-9-]+(,[A-Za-z0-9-]+)*")
_WATCH = "easeml_core.training.container_watch"


def fit_container(
    kind: str, parts: OpenParts, parameters: Parameters, *, seed: int, report: Report, run: Run
) -> ProgramPredictor:
    """Run the image on the data, pack what it leaves.

    Args:
        kind: ``container``.
        parts: The open parts of the data.
        parameters: ``image``, ``runtime``, and the tenant's own.
        seed: Told to the program in ``data.json``.
        report: Told what the program tells.
        run: Knows the limits.

    Raises:
        TrainingTaskError: If there is no such runtime here.
        TrainingError: If the image fails, or what it leaves is no model that runs without it.
    """
    runtime, image = parameters["runtime"], parameters["image"]
    found = shutil.which(runtime)
    if found is None:
        message = f"{runtime} is not installed on this worker; give the candidate a device that only such workers offer"
        raise TrainingTaskError(message)
    work, name = working_folder(), f"easeml-{secrets.token_hex(8)}"
    output = work / "output"
    output.mkdir()
    own = {key: value for key, value in parameters.items() if key not in ("image", "runtime")}
    write_contract(work, parts, own, seed)
    report(BEGUN, f"training in {image.partition('@')[0]}")
    resume = resumed_folder(work, report, run)
    command = [found, *arguments_of(runtime, name, image, work, run, resumes=resume is not None)]
    with _watched(found, name):
        run_command(command, cwd=work, take=ProgramNews(report, output, run), shown=f"{runtime} run {image}")
    shutil.rmtree(output / CHECKPOINTS, ignore_errors=True)
    if not (output / MANIFEST).is_file():
        message = (
            f"the image left no {MANIFEST} in /output; the referee runs models without their image, so the output must "
            "hold a program that answers without it, and say how it is run"
        )
        raise TrainingError(message)
    return packed_model(output, work / "model", parts)


def arguments_of(runtime: str, name: str, image: str, work: Path, run: Run, *, resumes: bool) -> list[str]:
    """Return the arguments of the container runtime.

    The container has the data, no network, a writable output folder only, no capabilities, and the job's limits, since
    the container is no child process whose memory could be counted.
    """
    mounts = {"data": "/data,readonly", "parameters.json": "/parameters.json,readonly", "output": "/output"}
    mounts |= {"resume": "/resume,readonly"} if resumes else {}
    limits = {
        "memory": f"{run.memory_limit_mb}m",
        "memory-swap": f"{run.memory_limit_mb}m",
        "cpus": str(run.threads * int(os.environ.get(NPROC, "1"))),
        "pids-limit": str(_MOST_PROCESSES),
    }
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return [
        *("run", "--rm", "--name", name, "--network", "none", "--read-only", "--tmpfs", "/tmp"),  # noqa: S108 - in the container
        *("--log-driver", "none"),  # what it says is read here; the runtime would keep all of it on the disk as well
        *("--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--user", f"{os.getuid()}:{os.getgid()}"),
        *(("--userns", "keep-id") if runtime == "podman" else ()),
        *(word for limit, value in limits.items() for word in (f"--{limit}", value)),
        *(word for variable in threads for word in ("--env", f"{variable}={run.threads}")),
        *(("--env", NPROC) if NPROC in os.environ else ()),
        *(w for source, to in mounts.items() for w in ("--mount", f"type=bind,source={work / source},target={to}")),
        *_gpus(runtime, os.environ.get("CUDA_VISIBLE_DEVICES", "")),
        *(image, "train", "--data", "/data", "--parameters", "/parameters.json", "--output", "/output"),
        *(("--resume", "/resume") if resumes else ()),
    ]


def _gpus(runtime: str, visible: str) -> list[str]:
    """The GPUs of the job's slot, as its environment names them; none where it names none."""
    if not _GPUS.fullmatch(visible):
        return []
    if runtime == "docker":
        return ["--gpus", f'"device={visible}"']  # in quotes, since a comma would end the value
    return [word for gpu in visible.split(",") for word in ("--device", f"nvidia.com/gpu={gpu}")]


@contextlib.contextmanager
def _watched(runtime: str, name: str) -> Iterator[None]:
    """Remove the container when this process ends in any way; killing the runtime's command would leave it running.

    A separate process waits for the end of a pipe that only this one holds, and then removes the container.
    """
    watch = subprocess.Popen(
        [sys.executable, "-P", "-m", _WATCH, runtime, name],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    if watch.wait() != 0:  # it is ready, in a process that is no child of ours any more
        message = f"the process that watches the container did not start: exit status {watch.returncode}"
        raise TrainingError(message)
    try:
        yield
    finally:
        assert watch.stdin is not None  # PIPE was asked for
        watch.stdin.close()
