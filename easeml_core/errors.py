"""Every error this product raises on purpose, in one tree.

    EasemlError(Exception)
    |-- InvalidInputError(ValueError)       the caller gave something wrong
    |   |-- ShapeError                      names both shapes
    |   |-- ConfigError                     names the field and the allowed range
    |   |-- MissingLabelsError              names the examples whose labels a verdict needs next
    |   |-- ConditionSyntaxError            source, span; prints the line with a caret
    |   `-- ProgramError                    a program, schema or template; path, line, column, caret
    |-- StateError                          the world is not in the needed state
    |   |-- NotFoundError(LookupError)
    |   |-- AlreadyExistsError
    |   |-- TrialStateError                 from-state, to-state
    |   |-- SealedSetTooSmallError            the planner's figure
    |   |-- BudgetExhaustedError            how many uses, of how many
    |   `-- MachineError                    this machine cannot do it now: try again
    |       `-- DevicesHeldError            others hold its devices; which, and who
    |-- NumericalError(ArithmeticError)     e.g. not positive definite after the largest jitter tried
    |-- TrainingError(RuntimeError)         a training job ended without a model
    |   |-- TrainingCancelled               by request
    |   |-- TrainingKilled                  because its process was killed, from outside or by the kernel
    |   |-- TrainingStarved                 because it ran out of time, or out of the machine's memory
    |   `-- TrainingTaskError               because of what executes it: a package or a program is missing
    |       `-- TrainingMachineError        because of a fault of its machine that passes, such as a full disk
    |-- ArtifactError                       a stored file is missing, was changed, or is not of a trusted kind
    |   `-- ArtifactPlaceError              another artifact store than the installation's; both places
    `-- StoreError                          the database; the driver's error is the cause
        |-- StoreUnavailableError           try again
        |   `-- StoreExhaustedError         it answers, and lacks disk, memory or the right to write
        |-- ConcurrentUpdateError           try again
        |-- WrongRoleError                  the role, where it was named, and the role that is needed
        `-- SchemaVersionError              found, expected, the command that fixes it

A message says what was wrong with which value, what is allowed, and what to do, in the names the user typed.
The facts stay on the error as attributes; the sentence is built here, not at each ``raise``.

``blame_of`` says who is at fault for an error, by one table of SQLSTATEs and one of errnos. An error of the machine or
of the database is never a verdict on a model, a trial or a request. ``store/database.py`` translates driver errors with
``database_fault``; the referee, the fetcher, the trainer and the plugin ask ``blame_of``. See ADR 0025.
"""

from __future__ import annotations

import errno
import functools
import re
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence


def counted(number: int, one: str, many: str = "") -> str:
    """So many things, for a sentence: ``many`` is what more or less than one are called, ``one`` with an s by default.

    Example:
        >>> counted(1, "trial"), counted(2000, "pair"), counted(0, "entry", "entries")
        ('1 trial', '2,000 pairs', '0 entries')
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def reason_of(error: Exception) -> str:
    """Why a file could not be read or written, for a sentence that names the file already.

    Example:
        >>> reason_of(FileNotFoundError(2, "No such file or directory", "none.txt"))
        'no such file or directory'
    """
    reason = error.strerror if isinstance(error, OSError) else None
    return reason[0].lower() + reason[1:] if reason else str(error)


class EasemlError(Exception):
    """Base of every error of ours: catch it to catch them all."""


class InvalidInputError(EasemlError, ValueError):
    """Raised when the caller gave something that is not allowed."""


class ShapeError(InvalidInputError):
    """Raised when two arrays do not fit together; names both shapes."""

    def __init__(self, name: str, got: tuple[int, ...], expected: str) -> None:
        self.name, self.got, self.expected = name, got, expected
        super().__init__(f"{name} must have shape {expected}, got {got}")


class ConfigError(InvalidInputError):
    """Raised when a setting is outside its range; names the field, the value and the range."""

    def __init__(self, field: str, value: object, allowed: str) -> None:
        self.field, self.value, self.allowed = field, value, allowed
        super().__init__(f"{field} must be {allowed}, got {value!r}")


class ConditionSyntaxError(InvalidInputError):
    """Raised when a condition cannot be read; prints the line with a caret under the span."""

    def __init__(self, message: str, source: str, start: int, end: int | None = None) -> None:
        self.message, self.source = message, source
        self.start, self.end = start, max(start + 1, end if end is not None else start + 1)
        # Blanks of every kind are shown as one space, so that the caret stays under its character.
        line = "".join(" " if c.isspace() else c for c in source)
        super().__init__(f"condition: {message}\n    {line}\n    {' ' * start}{'^' * (self.end - start)}")

    def __reduce__(self) -> tuple[Any, ...]:
        """Survive pickling between processes: the constructor takes more than the message."""
        return type(self), (self.message, self.source, self.start, self.end)


class MissingLabelsError(InvalidInputError):
    """Raised when a verdict needs labels that are missing; names their examples in the order of need."""

    def __init__(self, message: str, examples: Sequence[str]) -> None:
        self.examples = tuple(examples)
        super().__init__(message)

    def __reduce__(self) -> tuple[Any, ...]:
        """Survive pickling between processes: the constructor takes more than the message."""
        return type(self), (str(self), self.examples)


class ProgramError(InvalidInputError):
    """Raised when a program, schema or pattern cannot be read, or breaks a rule; prints the line with a caret.

    ``path`` is where in the mapping, such as ``nodes.s1.dim``. Without a source (an object made in Python) there is no
    line; ``start`` and ``end`` count characters of the source. A long line is shown around its caret only. ``file`` is
    the name of the file that the source stands in, where it is known.
    """

    _MOST_SHOWN = 100
    _LEAD = 60

    def __init__(
        self,
        message: str,
        source: str = "",
        start: int = 0,
        end: int | None = None,
        path: str = "",
        file: str = "program",
    ) -> None:
        self.message, self.source, self.path, self.file = message, source, path, file
        self.start, self.end = start, max(start + 1, end if end is not None else start + 1)
        begin = source.rfind("\n", 0, start) + 1
        self.line, self.column = source.count("\n", 0, start) + 1, start - begin + 1
        where = f"{file}, line {self.line}, column {self.column}: " if source else f"{file}: "
        super().__init__(where + (f"{path}: " if path else "") + message + (self._picture(begin) if source else ""))

    def _picture(self, begin: int) -> str:
        """The line with carets under the span; what cannot be printed is a blank, so that they stay under it."""
        stop = self.source.find("\n", begin)
        stop = len(self.source) if stop < 0 else stop
        begin = max(begin, self.start - self._LEAD)
        shown = self.source[begin : min(stop, begin + self._MOST_SHOWN)]
        carets = max(1, min(self.end - self.start, begin + len(shown) - self.start))
        line = "".join(c if c.isprintable() else " " for c in shown)
        return f"\n    {line}\n    {' ' * (self.start - begin)}{'^' * carets}"

    def __reduce__(self) -> tuple[Any, ...]:
        """Survive pickling between processes: the constructor takes more than the message."""
        return type(self), (self.message, self.source, self.start, self.end, self.path, self.file)

    def in_file(self, file: str) -> ProgramError:
        """The same mistake, told with the file that it stands in."""
        return type(self)(self.message, self.source, self.start, self.end, self.path, file)


class StateError(EasemlError):
    """Raised when the world is not in the state that the call needs."""


class NotFoundError(StateError, LookupError):
    """Raised when nothing has the given name; offers the nearest names there are."""

    def __init__(
        self, kind: str, name: object, *, known: Iterable[str] = (), remedy: str = "", owner: str = ""
    ) -> None:
        self.kind, self.name, self.known = kind, name, sorted(known)
        text = f"{owner} has no {kind} {name!r}" if owner else f"there is no {kind} {name!r}"
        if self.known:
            shown = ", ".join(repr(k) for k in self.known[:8])
            text += f"; known: {shown}" + (" ..." if len(self.known) > 8 else "")
        super().__init__(text + (f"; {remedy}" if remedy else ""))


class AlreadyExistsError(StateError):
    """Raised when a name or a content is already taken."""

    def __init__(self, kind: str, name: object, *, remedy: str = "") -> None:
        self.kind, self.name = kind, name
        super().__init__(f"{kind} {name!r} already exists" + (f"; {remedy}" if remedy else ""))


class TrialStateError(StateError):
    """Raised when a trial is not in the state that a step needs."""

    def __init__(self, trial_id: int, found: str, needed: str) -> None:
        self.trial_id, self.found, self.needed = trial_id, found, needed
        super().__init__(f"trial {trial_id} is {found}, this step needs it to be {needed}")


class SealedSetTooSmallError(StateError):
    """Raised when a sealed set has fewer examples than its plan needs; gives the planner's figure."""

    def __init__(
        self, *, purpose: str, needed: int, available: int, detail: str = "", remedy: str = "seal a larger set"
    ) -> None:
        self.purpose, self.needed, self.available = purpose, needed, available
        super().__init__(
            f"the sealed {purpose} set needs at least {needed:,} examples, it has {available:,}"
            + (f" ({detail})" if detail else "")
            + f"; {remedy}, widen the tolerance, lower the reliability or allow fewer steps"
        )


class BudgetExhaustedError(StateError):
    """Raised when a sealed set, or a compute budget, has no uses left."""

    def __init__(self, what: str, used: float, allowed: float, remedy: str) -> None:
        self.what, self.used, self.allowed = what, used, allowed
        super().__init__(f"{what}: {used:g} of {allowed:g} used; {remedy}")


class MachineError(StateError):
    """Raised when this machine cannot do the work now, whatever the work is: try again."""


class DevicesHeldError(MachineError):
    """Raised when others hold the devices of this machine that a training needs; the trial stays available."""


class NumericalError(EasemlError, ArithmeticError):
    """Raised when a computation cannot be trusted, after every safe repair was tried."""


class TrainingError(EasemlError, RuntimeError):
    """Raised when a training job ended without a usable model; the reason is one sentence."""


class TrainingCancelled(TrainingError):
    """Raised when a training job was stopped by request."""


class TrainingKilled(TrainingError):
    """Raised when the process of a training job was killed from outside; another attempt may go on."""


class TrainingStarved(TrainingError):
    """Raised when the process of a model ran out of time or found no memory: its fault, or a loaded machine's."""


class TrainingTaskError(TrainingError):
    """Raised when a training job failed because of what executes it, not of the candidate: a package is missing."""


class TrainingMachineError(TrainingTaskError):
    """Raised when a training job met a fault of its machine that passes, such as a full disk: it may be tried again.

    The process of the job says so, and it may run a tenant's code. So ``blame_of`` does not believe it, and the
    referee puts nothing off for it; attempts at a trial are limited in any case.
    """


class ArtifactError(EasemlError):
    """Raised when a stored file is missing, has another content hash, or holds types we do not load."""


class ArtifactPlaceError(ArtifactError):
    """Raised when a command would use another artifact store than the installation's.

    Args:
        asked: Place that was asked for; None where it was the database's own.
        installed: Place that the database names; None where it names none, and the one asked for lacks its data.
    """

    def __init__(self, *, asked: str | None, installed: str | None) -> None:
        self.asked, self.installed = asked, installed
        change = "`easeml db artifacts PLACE`, as easeml_owner, moves the installation to another place"
        if installed is None:
            message = (
                f"{asked} does not hold the artifacts of this installation: the newest data that the database names is "
                "not there; give the place that the workers and the referee use with --artifacts"
            )
        elif asked is None:
            message = (
                f"the artifacts of this installation are at {installed}, and this machine does not have them there; "
                f"give the path under which it reaches that storage with --artifacts; {change}"
            )
        else:
            message = (
                f"{asked} is not the artifact store of this installation, which is at {installed}: workers and referee "
                "would not find what is stored there; leave --artifacts out, or give a path to that storage, for tasks "
                f"in the extra `artifacts` of Airflow's connection; {change}"
            )
        super().__init__(message)

    def __reduce__(self) -> tuple[Any, ...]:
        """Survive pickling between processes: the constructor takes more than the message."""
        return functools.partial(type(self), asked=self.asked, installed=self.installed), ()


class StoreError(EasemlError):
    """Raised when the database refuses or fails; the driver's error is the cause."""


class StoreUnavailableError(StoreError):
    """Raised when the database, or an MLflow server that is mirrored to, cannot be reached: try again."""


class StoreExhaustedError(StoreUnavailableError):
    """Raised when the database answers and lacks disk, memory or the right to write: try again once it has them."""


class ConcurrentUpdateError(StoreError):
    """Raised when two transactions met and one had to give way: try again."""


class WrongRoleError(StoreError):
    """Raised when the database refuses its role what a call needs (SQLSTATE 42501); trying again cannot help.

    Args:
        said: The database's own sentence.
        role: Role that the address names.
        address: The address, without its password.
        source: Who gave the address, such as ``Airflow's connection 'easeml_default'``; empty where it is not known.
        needed: Role that the call needs; None where it is not known.
    """

    def __init__(self, said: str, *, role: str, address: str, source: str = "", needed: str | None = None) -> None:
        self.said, self.role, self.address, self.source, self.needed = said, role, address, source, needed
        rights = "docs/security.md lists the rights of each role"
        where = f"{source} ({address})" if source else address
        if needed is None:
            remedy = rights
        elif needed == role:
            remedy = (
                f"{needed} is the role that is needed, but it lacks a right that this version expects: run `easeml db "
                "upgrade` as easeml_owner, and see docs/operations.md if the database was restored"
            )
        else:
            remedy = f"the role {needed} is needed: give its address there ({rights})"
        super().__init__(f"this role may not do that: {said}; {where} logs in as {role!r}; {remedy}")

    def __reduce__(self) -> tuple[Any, ...]:
        """Survive pickling between processes: the constructor takes more than the message."""
        made = functools.partial(
            type(self),
            self.said,
            role=self.role,
            address=self.address,
            source=self.source,
            needed=self.needed,
        )
        return made, ()


class SchemaVersionError(StoreError):
    """Raised when the database's schema is not the one that this code was written for.

    Revisions are an r and four digits, in their order. A database that is ahead cannot be taken back, and one from
    before the first release, whose revision has no r, cannot be upgraded.
    """

    def __init__(self, found: str | None, expected: str) -> None:
        self.found, self.expected = found, expected
        if found is None or (self.is_released(found) and found < expected):
            remedy = "run `easeml db upgrade`"
        elif self.is_released(found):
            remedy = "install the version of easeml-airflow that made it"
        else:
            remedy = "it is from before the first release and cannot be upgraded: name an empty database"
        super().__init__(f"the database has schema {found or 'none'}, this version needs {expected}; {remedy}")

    @staticmethod
    def is_released(revision: str) -> bool:
        """Whether a revision is one of the chain that begins with the first release."""
        return re.fullmatch(r"r[0-9]{4}", revision) is not None


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
