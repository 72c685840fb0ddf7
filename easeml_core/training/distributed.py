"""One training on several devices of a host: a process (rank) for each, joined by ``torch.distributed``.

The child that trains forks the ranks after it has imported the libraries, waits for them, and speaks for them: rank 0
alone reports, validates and saves. Ranks have the environment that ``torchrun`` gives (RANK, LOCAL_RANK, WORLD_SIZE,
LOCAL_WORLD_SIZE) and meet through a file in the job's folder, so that no port is needed. What ends one rank ends all:
the reason is that of the rank which failed first, not those of the ranks that lost their peer.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from easeml_core.errors import TrainingTaskError
from easeml_core.sandbox import child_protocol
from easeml_core.sandbox.child_protocol import FROM_OUTSIDE, REASON_STATUS
from easeml_core.settings.config import BACKENDS, require

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.context import ForkProcess
    from pathlib import Path

    import torch


NPROC = "PET_NPROC_PER_NODE"
"""Variable from which ``torchrun`` takes the number of its processes, for programs that start it."""

_PEER_LOST = 4
"""Exit status of a rank that ended because another one was gone."""

_PEER_SECONDS = 10.0
"""How long a rank that says so is given for the one to end that it has lost."""

_TIMEOUT = timedelta(minutes=30)
"""Longest wait of a rank for the others, such as for rank 0 while it measures and saves."""

_TAIL_BYTES = 4000
_LOST_WORDS = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer", "Broken pipe")


class Group(NamedTuple):
    """The ranks of a training: this one, and how many there are."""

    rank: int = 0
    size: int = 1


ALONE = Group()


def launch(work: Callable[[Group], None], *, ranks: int, folder: Path) -> None:
    """Fork the ranks, let each do its work, and end this process with the first failure.

    This process must have used no device and no thread before: neither survives a fork.
    """
    from multiprocessing import get_context

    # Of an attempt before in the same folder.
    for left in (folder / "ranks", *(_stderr_of(folder, rank) for rank in range(ranks))):
        left.unlink(missing_ok=True)
    context = get_context("fork")
    started = [
        context.Process(target=_run_rank, args=(work, Group(rank, ranks), os.getpid(), folder), name=f"rank-{rank}")
        for rank in range(ranks)
    ]
    for process in started:
        process.start()
    try:
        failed = _first_failure(started)
    finally:
        for process in started:
            process.kill()
            process.join()
    if failed is not None:
        _end_like(failed, started[failed], ranks, folder)


def joined(group: Group, *, folder: Path, device: torch.device, backend: str) -> Any:
    """Join the other ranks; return ``torch.distributed``."""
    import torch.distributed

    require(backend in BACKENDS, "distributed_backend", backend, ", ".join(BACKENDS))
    chosen = backend if backend != "auto" else ("nccl" if device.type == "cuda" else "gloo")
    if not getattr(torch.distributed, f"is_{chosen}_available")() or (chosen == "nccl" and device.type != "cuda"):
        message = f"distributed_backend is {chosen}, which torch {torch.__version__} cannot use on {device.type} here"
        raise TrainingTaskError(message)
    torch.distributed.init_process_group(
        chosen,
        init_method=f"file://{folder / 'ranks'}",
        rank=group.rank,
        world_size=group.size,
        timeout=_TIMEOUT,
    )
    return torch.distributed


def _run_rank(work: Callable[[Group], None], group: Group, parent: int, folder: Path) -> None:
    """In a rank: its own standard error, torchrun's variables, and an exit status that says what ended it."""
    child_protocol.die_with_parent(parent)
    with _stderr_of(folder, group.rank).open("wb") as own:
        os.dup2(own.fileno(), 2)
    number, size = str(group.rank), str(group.size)
    os.environ |= {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        os.environ.setdefault(variable, "lo")  # all ranks are on this host
    try:
        work(group)
    except RuntimeError as error:
        if not any(word in str(error) for word in _LOST_WORDS):
            raise
        sys.exit(_PEER_LOST)


def _first_failure(started: Sequence[ForkProcess]) -> int | None:
    """Wait for the ranks; return the one that failed first, None where all have ended well."""
    from multiprocessing.connection import wait

    deadline: float | None = None
    while True:
        ends = [process.exitcode for process in started]  # of one moment: a rank may end between two looks
        bad = [rank for rank, status in enumerate(ends) if status not in (None, 0)]
        first = [rank for rank in bad if ends[rank] != _PEER_LOST]
        if first:
            return first[0]
        alive = [process.sentinel for process, status in zip(started, ends, strict=True) if status is None]
        if bad:
            deadline = deadline or time.monotonic() + _PEER_SECONDS
            if not alive or time.monotonic() >= deadline:
                return bad[0]
        elif not alive:
            return None
        wait(alive, None if deadline is None else max(0.0, deadline - time.monotonic()))


def _end_like(rank: int, process: ForkProcess, ranks: int, folder: Path) -> None:
    """End this process with the reason of the rank."""
    status, who = process.exitcode or 0, f"rank {rank} of {ranks}"
    tail = _tail(_stderr_of(folder, rank))
    if status == _PEER_LOST:
        child_protocol.fail(f"the ranks of this training have lost each other, {who} first", killed=True)
    if status < 0:
        name = signal.Signals(-status).name
        hint = ", from outside or because the machine ran out of memory" if name == "SIGKILL" else ""
        child_protocol.fail(f"{who} was ended by {name}{hint}", killed=-status in FROM_OUTSIDE)
    reason = child_protocol.reason_in(tail) if status == REASON_STATUS else None
    if reason is None:
        sys.stderr.write(tail)
        sys.exit(status)
    first, _, rest = reason.partition("\n")
    child_protocol.fail(
        f"{first} ({who})" + (f"\n{rest}" if rest else ""),
        killed=child_protocol.was_killed(tail),
        of_task=child_protocol.is_of_task(tail),
        passing=child_protocol.is_passing(tail),
    )


def _stderr_of(folder: Path, rank: int) -> Path:
    return folder / f"rank-{rank}.stderr"


def _tail(path: Path) -> str:
    """The end of a rank's standard error; empty where it was killed before it had any."""
    with suppress(FileNotFoundError), path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL_BYTES))
        return file.read().decode(errors="replace")
    return ""
