"""Who is at fault for an error: one table of SQLSTATEs, one of errnos, one function that reads both.

An error of the machine or of the database is never a verdict on a model, a trial or a request. ``store/database.py``
translates driver errors with ``database_fault``; the referee, the fetcher, the trainer and the plugin ask ``blame_of``.
See ADR 0025.
"""

from __future__ import annotations

import errno
from enum import StrEnum
from typing import TYPE_CHECKING

from easeml_core.errors import (
    ConcurrentUpdateError,
    InvalidInputError,
    MachineError,
    SchemaVersionError,
    StateError,
    StoreUnavailableError,
    TrainingError,
    TrainingKilled,
    TrainingStarved,
    WrongRoleError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class Blame(StrEnum):
    """Who is at fault, and so what becomes of the work.

    PASSING: the database, the disk, the operating system. The work is put off until they can do it again.
    BOUNDED: the machine, or the work itself: a kill, a time-out, memory. The work is put off a limited number of times.
    ASKER: the caller's input, or public state. The caller receives the message.
    OURS: a defect of this program. The log has the details; the caller learns only that there is an error.
    """

    PASSING = "passing"
    BOUNDED = "bounded"
    ASKER = "asker"
    OURS = "ours"


class DatabaseFault(StrEnum):
    """What a SQLSTATE means for the same call made again.

    AWAY: the connection is of no use; the server shuts down, starts, or does not let the role in.
    EXHAUSTED: the server answers, and lacks disk, memory or the right to write now.
    CONCURRENT: another transaction was in the way.
    OTHER: neither of these; it will fail again.
    """

    AWAY = "away"
    EXHAUSTED = "exhausted"
    CONCURRENT = "concurrent"
    OTHER = "other"


SQLSTATES: Mapping[str, DatabaseFault] = {
    "08": DatabaseFault.AWAY,  # connection exception
    "28": DatabaseFault.AWAY,  # invalid authorization: a password that is being changed
    "3D000": DatabaseFault.AWAY,  # invalid catalog name: the database is being restored
    "57P": DatabaseFault.AWAY,  # administrator shutdown, crash shutdown, cannot connect now, database dropped
    "25P03": DatabaseFault.AWAY,  # idle in transaction too long
    "25P04": DatabaseFault.AWAY,  # transaction took too long
    "53300": DatabaseFault.AWAY,  # too many connections
    "53": DatabaseFault.EXHAUSTED,  # insufficient resources: disk full, out of memory
    "57014": DatabaseFault.EXHAUSTED,  # a time limit of the server, or its administrator, ended the statement
    "58": DatabaseFault.EXHAUSTED,  # system error: input/output error, a file that cannot be opened
    "25006": DatabaseFault.EXHAUSTED,  # read-only transaction: a standby, or a server that is set to read-only
    "XX001": DatabaseFault.EXHAUSTED,  # data corrupted: for the administrator to repair
    "XX002": DatabaseFault.EXHAUSTED,  # index corrupted
    "40": DatabaseFault.CONCURRENT,  # transaction rollback: serialization failure, deadlock
    "55P03": DatabaseFault.CONCURRENT,  # lock not available
    "55006": DatabaseFault.CONCURRENT,  # object in use
}
"""SQLSTATE, or how it begins, to its meaning; the longest entry that fits counts (PostgreSQL 17, appendix A)."""

LOCAL_ERRNOS: Mapping[int, Blame] = {
    errno.ENOSPC: Blame.PASSING,
    errno.EDQUOT: Blame.PASSING,
    errno.EIO: Blame.PASSING,
    errno.EROFS: Blame.PASSING,
    errno.EMFILE: Blame.PASSING,
    errno.ENFILE: Blame.PASSING,
    errno.ESTALE: Blame.PASSING,
    errno.EAGAIN: Blame.PASSING,
    errno.ENOBUFS: Blame.PASSING,
    errno.ENOLCK: Blame.PASSING,
    errno.ENOMEM: Blame.BOUNDED,
}
"""Faults of this machine, of its disks and of folders that are mounted on it."""

NETWORK_ERRNOS: Mapping[int, Blame] = dict.fromkeys(
    (
        errno.ETIMEDOUT,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.ECONNABORTED,
        errno.EHOSTUNREACH,
        errno.EHOSTDOWN,
        errno.ENETDOWN,
        errno.ENETUNREACH,
    ),
    Blame.PASSING,
)
"""Faults of the network. They excuse what is ours to reach; an address that the asker gave is the asker's."""


def database_fault(sqlstate: str | None) -> DatabaseFault:
    """What a SQLSTATE means for the same call made again.

    Example:
        >>> database_fault("53100").value, database_fault("53300").value, database_fault("42601").value
        ('exhausted', 'away', 'other')
    """
    code = sqlstate or ""
    return next(
        (SQLSTATES[code[:size]] for size in range(len(code), 0, -1) if code[:size] in SQLSTATES), DatabaseFault.OTHER
    )


def blame_of(error: BaseException) -> Blame:
    """Who is at fault for an error, by its class and by what caused it (``raise ... from``).

    The machine's errno or lack of memory counts anywhere in the chain of causes: code that translates an error
    for its text takes no blame on. A fault of the network does not excuse an input that names the address.

    Example:
        >>> blame_of(OSError(errno.ENOSPC, "no space left")).value, blame_of(ValueError("x")).value
        ('passing', 'ours')
    """
    found = _blame_by_class(error)
    if found in (Blame.PASSING, Blame.BOUNDED):
        return found
    for cause in _chain(error):
        if isinstance(cause, MemoryError):
            return Blame.BOUNDED
        if isinstance(cause, OSError) and (blame := _blame_by_errno(cause, own=found is not Blame.ASKER)):
            return blame
    return found


def is_put_off(error: BaseException) -> bool:
    """Whether the work that met this error is to be tried again later."""
    return blame_of(error) in (Blame.PASSING, Blame.BOUNDED)


def name_of(error: BaseException) -> str:
    """A word for the kind of a fault, never its text: an errno, or the name of a class.

    Example:
        >>> name_of(OSError(errno.ENOSPC, "no space left")), name_of(MemoryError())
        ('ENOSPC', 'MemoryError')
    """
    for cause in _chain(error):
        if isinstance(cause, OSError) and (cause.errno or 0) in errno.errorcode:
            return errno.errorcode[cause.errno or 0]
    return type(error).__name__


def _blame_by_class(error: BaseException) -> Blame:
    if isinstance(
        error, MachineError | StoreUnavailableError | ConcurrentUpdateError | SchemaVersionError | WrongRoleError
    ):
        return Blame.PASSING
    if isinstance(error, TrainingKilled | TrainingStarved):
        return Blame.BOUNDED
    return Blame.ASKER if isinstance(error, InvalidInputError | StateError | TrainingError) else Blame.OURS


def _blame_by_errno(error: OSError, *, own: bool) -> Blame | None:
    number = error.errno or 0
    return LOCAL_ERRNOS.get(number) or (NETWORK_ERRNOS.get(number) if own else None)


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    for _ in range(20):  # no chain of ours is longer; one that was made by hand may be a circle
        if seen is None:
            return
        yield seen
        seen = seen.__cause__
