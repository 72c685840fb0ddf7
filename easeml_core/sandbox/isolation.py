"""The parts of a submitted model's sandbox, and which of them this machine allows.

The parent's side: ``probe_isolation`` tries the parts once with a child that runs nothing of a submission; later
children make exactly these parts or end. ``confinement`` is the child's side.

    account     a dedicated user id, no supplementary groups; needs root
    network     an empty network namespace, without even a loopback that is up
    processes   a process namespace: no other process can be seen, signalled or traced, none survives; separate IPC
    files       a file system of the runtime (read only) and of an empty folder in memory; nothing else exists

Without root the last three need a user namespace, which some machines and containers forbid.
"""

from __future__ import annotations

import json
import os
import pwd
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from easeml_core.errors import MachineError, TrainingError, TrainingKilled, TrainingStarved
from easeml_core.files.local import scratch_folder
from easeml_core.sandbox.confinement import FAILED, NAMESPACES, OWN_ACCOUNT, PARTS, Confinement
from easeml_core.sandbox.process import Limits, run_child
from easeml_core.settings.config import require

if TYPE_CHECKING:
    from easeml_core.entities import JsonObject

    pass

PROBE = "easeml_core.sandbox.probe"
_PROBE_LIMITS = Limits(time_seconds=120.0, memory_mb=2048)
_FAILED = re.compile(re.escape(FAILED) + r" (\w+): (.*)")


@dataclass(frozen=True, slots=True)
class Sandbox:
    """What the caller asks for.

    Attributes:
        account: Name of the account of the children, where the caller is root; None for an unused user id.
            An account that runs or owns anything, such as that of the database's server, is no protection.
    """

    account: str | None = None


SHOWN = ("network", "processes", "files")
"""The parts that ``Isolation.kept_from`` may name."""


@dataclass(frozen=True, slots=True)
class Isolation:
    """What was achieved on this machine.

    Attributes:
        account: The account of the children, None when they have that of the caller.
        kept_from: What a child cannot reach: of ``network``, ``processes`` and ``files`` (those of others).
        reasons: Why a part is missing, one sentence each.
    """

    account: str | None
    kept_from: tuple[str, ...]
    reasons: tuple[str, ...] = ()

    def to_json(self) -> JsonObject:
        """Plain JSON for the referee's report."""
        return {"account": self.account, "kept_from": list(self.kept_from), "reasons": list(self.reasons)}

    @classmethod
    def from_json(cls, fields: JsonObject) -> Isolation:
        """Of what was kept.

        Older rows say of each part whether the child still had it.

        Example:
            >>> Isolation.from_json({"account": None, "network": False, "processes": True, "files": True}).kept_from
            ('network',)
        """
        kept_from = fields.get("kept_from", [part for part in SHOWN if fields.get(part) is False])
        return cls(fields["account"], tuple(kept_from), tuple(fields.get("reasons", ())))

    def reaches(self) -> tuple[str, ...]:
        """What a child is not kept from."""
        return tuple(part for part in SHOWN if part not in self.kept_from)

    def __str__(self) -> str:
        """One sentence for a log."""
        words = [f"account: {self.account or 'the same as the caller'}"]
        words += [f"{name}: {'cut off' if name in self.kept_from else 'not cut off'}" for name in SHOWN]
        return "; ".join([*words, *self.reasons])


def probe_isolation(sandbox: Sandbox) -> Isolation:
    """What children of this sandbox are kept from, on this machine; tried once a process and remembered."""
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
    return parts, Isolation(account, tuple(part for part in SHOWN if part in parts), tuple(reasons))


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
    raise MachineError(message)


def _try(sandbox: Sandbox, parts: tuple[str, ...]) -> _Failure | None:
    """Start a child that loads our own code and nothing else; None if it could."""
    confinement = _confinement(sandbox, parts, _PROBE_LIMITS.memory_mb)
    with scratch_folder("probe") as folder:
        try:
            run_child(
                PROBE,
                [json.dumps(confinement.to_json())],
                cwd=Path(folder),
                limits=_PROBE_LIMITS,
                on_output=lambda _: None,
                on_poll=lambda: None,
                loads=("numpy", "easeml_core.models.formats"),
            )
        except (TrainingKilled, TrainingStarved) as error:  # of a busy machine: it may be able to make every part
            message = f"no child can be started to run models: {str(error).splitlines()[0]}"
            raise MachineError(message) from error
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
