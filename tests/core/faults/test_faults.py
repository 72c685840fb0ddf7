"""Every error is classified once: who is at fault, by class, SQLSTATE and errno, wherever in the chain of causes."""

from __future__ import annotations

import errno
import inspect

import pytest

from easeml_core import errors
from easeml_core.errors import Blame, DatabaseFault, blame_of, database_fault, is_put_off, name_of

PASSING = ("MachineError", "DevicesHeldError", "StoreUnavailableError", "StoreExhaustedError", "ConcurrentUpdateError")


@pytest.mark.parametrize(
    ("sqlstate", "fault"),
    [
        ("53100", DatabaseFault.EXHAUSTED),  # disk full
        ("53200", DatabaseFault.EXHAUSTED),  # out of memory
        ("53400", DatabaseFault.EXHAUSTED),
        ("53300", DatabaseFault.AWAY),  # the longer entry wins
        ("57014", DatabaseFault.EXHAUSTED),
        ("57P01", DatabaseFault.AWAY),
        ("57P05", DatabaseFault.AWAY),
        ("58000", DatabaseFault.EXHAUSTED),
        ("58030", DatabaseFault.EXHAUSTED),
        ("58P01", DatabaseFault.EXHAUSTED),
        ("25006", DatabaseFault.EXHAUSTED),
        ("25001", DatabaseFault.OTHER),
        ("25P03", DatabaseFault.AWAY),
        ("08006", DatabaseFault.AWAY),
        ("28P01", DatabaseFault.AWAY),
        ("3D000", DatabaseFault.AWAY),
        ("40001", DatabaseFault.CONCURRENT),
        ("40P01", DatabaseFault.CONCURRENT),
        ("55P03", DatabaseFault.CONCURRENT),
        ("XX001", DatabaseFault.EXHAUSTED),
        ("XX000", DatabaseFault.OTHER),
        ("42501", DatabaseFault.OTHER),
        ("22012", DatabaseFault.OTHER),
        ("23505", DatabaseFault.OTHER),
        ("", DatabaseFault.OTHER),
        (None, DatabaseFault.OTHER),
    ],
)
def test_a_sqlstate_means_one_thing(sqlstate: str | None, fault: DatabaseFault) -> None:
    assert database_fault(sqlstate) is fault


def chained(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def disk_full(number: int = errno.ENOSPC) -> OSError:
    return OSError(number, "as the system says it")


@pytest.mark.parametrize(
    ("error", "blame"),
    [
        (disk_full(), Blame.PASSING),
        *((disk_full(n), Blame.PASSING) for n in (errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE)),
        (disk_full(errno.ENOMEM), Blame.BOUNDED),
        (disk_full(errno.ENOENT), Blame.OURS),
        (TimeoutError(errno.ETIMEDOUT, "too late"), Blame.PASSING),
        (MemoryError(), Blame.BOUNDED),
        (chained(errors.ArtifactError("not kept"), disk_full()), Blame.PASSING),
        (chained(errors.ArtifactError("missing"), disk_full(errno.ENOENT)), Blame.OURS),
        (chained(errors.ArtifactError("missing"), disk_full(errno.ECONNREFUSED)), Blame.PASSING),
        (chained(errors.InvalidInputError("not fetched"), disk_full()), Blame.PASSING),
        (chained(errors.InvalidInputError("not fetched"), chained(ValueError("x"), disk_full())), Blame.PASSING),
        # The asker's address: its server refuses every client.
        (chained(errors.InvalidInputError("not fetched"), disk_full(errno.ECONNREFUSED)), Blame.ASKER),
        (chained(errors.InvalidInputError("too large"), disk_full(errno.EFBIG)), Blame.ASKER),
        (errors.TrainingKilled("x"), Blame.BOUNDED),
        (errors.TrainingStarved("x"), Blame.BOUNDED),
        (errors.TrainingError("x"), Blame.ASKER),
        (errors.MachineError("x"), Blame.PASSING),
        (errors.SchemaVersionError("r0001", "r0002"), Blame.PASSING),
        (errors.WrongRoleError("permission denied", role="a", address="b"), Blame.PASSING),
        (errors.StoreError("x"), Blame.OURS),
        (errors.NumericalError("x"), Blame.OURS),
        (ZeroDivisionError("x"), Blame.OURS),
    ],
)
def test_who_is_at_fault(error: Exception, blame: Blame) -> None:
    assert blame_of(error) is blame
    assert is_put_off(error) == (blame in (Blame.PASSING, Blame.BOUNDED))


def test_the_class_alone_says_so_for_what_passes() -> None:
    """Of the errors that are made with a sentence alone, exactly the named ones pass; a new one must be thought of."""
    found = set[str]()
    for name, kind in inspect.getmembers(errors, inspect.isclass):
        if kind.__module__ == errors.__name__ and kind.__init__ is errors.EasemlError.__init__:
            found |= {name} if blame_of(kind("x")) is Blame.PASSING else set()
    assert found == set(PASSING)


def test_the_name_of_a_fault_holds_none_of_its_words() -> None:
    said = chained(errors.ArtifactError("secret"), disk_full(errno.EIO))
    assert [name_of(e) for e in (said, errors.TrainingKilled("secret"))] == ["EIO", "TrainingKilled"]


def test_a_circle_of_causes_ends() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert errors.blame_of(first) is Blame.OURS
