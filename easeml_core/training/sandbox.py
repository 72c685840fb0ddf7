"""What a submitted model's child is kept from, and how much of it this machine allows.

The parent's side: which parts of the sandbox can be made here is tried once with a child that runs nothing of a
submission (``probe_isolation``); later children make exactly these parts or end. ``confinement`` is the child's side.

    account     a user id of its own, no supplementary groups; needs root
    network     an empty network namespace, without even a loopback that is up
    processes   a process namespace: nobody else can be seen, signalled or traced, nothing survives; own IPC
    files       a file system of the runtime (read only) and of an empty folder in memory; nothing else exists

Without root the last three need a user namespace, which some machines and containers forbid.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from easeml_core.config import require
from easeml_core.errors import StateError, TrainingError
from easeml_core.training.confinement import FAILED, NAMESPACES, OWN_ACCOUNT, PARTS, Confinement
from easeml_core.training.processes import Limits, run_child

PROBE = "easeml_core.training.sandbox_probe"
_PROBE_LIMITS = Limits(time_seconds=120.0, memory_mb=2048)
_FAILED = re.compile(re.escape(FAILED) + r" (\w+): (.*)")


@dataclass(frozen=True, slots=True)
class Sandbox:
    """What the caller asks for.

    Attributes:
        account: Name of the account of the children, where the caller is root; None for a user id that nobody has.
            An account that runs or owns anything, such as that of the database's server, is no protection.
    """

    account: str | None = None


@dataclass(frozen=True, slots=True)
class Isolation:
    """What was achieved on this machine.

    Attributes:
        account: The account of the children, None when they have that of the caller.
        network: Whether a child still has the network.
        processes: Whether it can see the processes of others.
        files: Whether it can see the files of others, as far as its account may.
        reasons: Why a part is missing, one sentence each.
    """

    account: str | None
    network: bool
    processes: bool
    files: bool
    reasons: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON for the referee's report."""
        fields = {"account": self.account, "network": self.network, "processes": self.processes, "files": self.files}
        return fields | {"reasons": list(self.reasons)}

    def __str__(self) -> str:
        """One sentence for a log."""
        words = [f"account: {self.account or 'the same as the caller'}"]
        for name in ("network", "processes", "files"):
            words.append(f"{name}: {'not cut off' if getattr(self, name) else 'cut off'}")
        return "; ".join([*words, *self.reasons])


def probe_isolation(sandbox: Sandbox) -> Isolation:
    """What children of this sandbox are kept from, on this machine; tried once a process and remembered.

    Raises:
        ConfigError: The account does not exist, or is root.
        StateError: Not even a child without any part can be started.
    """
    return _probed(sandbox, os.geteuid())[1]


def confinement_of(sandbox: Sandbox, *, memory_mb: int) -> Confinement:
    """The parts that can be made here, for a child with this much memory; errors as in ``probe_isolation``."""
    parts, _ = _probed(sandbox, os.geteuid())
    return _confinement(sandbox, parts, memory_mb)


@lru_cache(maxsize=16)
def _probed(sandbox: Sandbox, euid: int) -> tuple[tuple[str, ...], Isolation]:
    """Take away one part after the other until a child can be made."""
    parts, reasons = PARTS, []
    if euid != 0:
        parts = tuple(p for p in PARTS if p != "account")
        reasons.append("account: needs root")
    while (failure := _try(sandbox, parts)) is not None:
        lost = _lost(sandbox, parts, failure)
        parts = tuple(p for p in parts if p not in lost)
        reasons.append(f"{', '.join(lost)}: {failure.reason}")
    account = (sandbox.account or OWN_ACCOUNT) if "account" in parts else None
    cut = {part: part not in parts for part in ("network", "processes", "files")}
    return parts, Isolation(account=account, reasons=tuple(reasons), **cut)


@dataclass(frozen=True, slots=True)
class _Failure:
    """Which part could not be made, None if all were and our own code cannot be loaded in them; and why."""

    part: str | None
    reason: str


def _lost(sandbox: Sandbox, parts: tuple[str, ...], failure: _Failure) -> tuple[str, ...]:
    """The parts to do without."""
    if failure.part is not None:
        named = tuple(p for p in parts if p == failure.part or (failure.part == NAMESPACES and p != "account"))
        if named:
            return named
    # The new file system, or the account, hides something that Python needs: better a child of another account.
    for lost in (("files",), ("account",), ("files", "account"), parts):
        if set(lost) <= set(parts) and lost and _try(sandbox, tuple(p for p in parts if p not in lost)) is None:
            return lost
    message = f"no child can be started to run models: {failure.reason}"
    raise StateError(message)


def _try(sandbox: Sandbox, parts: tuple[str, ...]) -> _Failure | None:
    """Start a child that loads our own code and nothing else; None if it could."""
    confinement = _confinement(sandbox, parts, _PROBE_LIMITS.memory_mb)
    with tempfile.TemporaryDirectory(prefix="easeml-probe-") as folder:
        try:
            run_child(
                PROBE,
                [json.dumps(confinement.to_json())],
                cwd=Path(folder),
                limits=_PROBE_LIMITS,
                on_output=lambda _: None,
                on_poll=lambda: None,
            )
        except TrainingError as error:
            found = _FAILED.match(str(error))
            return _Failure(found[1], found[2]) if found else _Failure(None, str(error).splitlines()[0])
    return None


def _confinement(sandbox: Sandbox, parts: tuple[str, ...], memory_mb: int) -> Confinement:
    uid, gid = (None, None) if sandbox.account is None else _uid_of(sandbox.account)
    return Confinement(parts, uid, gid, memory_mb)


def _uid_of(account: str) -> tuple[int, int]:
    try:
        entry = pwd.getpwnam(account)
    except KeyError:
        entry = None
    require(entry is not None and entry.pw_uid != 0, "account", account, "an account of this machine other than root's")
    assert entry is not None
    return entry.pw_uid, entry.pw_gid
