"""What is said of a validation set that has just taken another one's place: it is in use all the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easeml_core.entities import SealedSetPurpose
from easeml_core.errors import counted
from easeml_core.meter.validation_set import heritage
from easeml_core.store.tables import releases, studies, test_sets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from easeml_core.entities import Study


def too_few(rows: int, minimum: int | None) -> list[str]:
    """Whether its own noise leaves range 1 of the meter; ``minimum`` is None where no number is enough."""
    if minimum is None or rows >= minimum:
        return []
    told = counted(rows, "row is", "rows are")
    return [f"{told} too few to keep their own noise in range 1 of the meter; it takes {minimum:,}"]


def goes_on(earlier: Sequence[set[bytes]], rows: set[bytes], *, add: bool) -> list[str]:
    """Whether models were chosen by its rows already, and whether it is a new set by name only.

    Args:
        earlier: Hashes of the rows of each earlier validation set, oldest first.
        rows: Hashes of its own rows.
        add: Whether old rows were kept on purpose.
    """
    kept = len(rows & set[bytes]().union(*earlier))
    new = len(rows) - kept
    if heritage([*earlier, rows]):
        return [
            f"{counted(kept, 'row was', 'rows were')} in an earlier validation set and "
            f"{counted(new, 'was', 'were')} in none: looks and signals of before count on, until as many rows are new"
        ]
    if kept == 0 or add:
        return []
    told = counted(kept, "of the rows was", "of the rows were")
    return [f"{told} in an earlier validation set: models were chosen by them already"]


def second_sample(tx: Connection, study: Study) -> list[str]:
    """Whether the second validation sample was drawn from where an earlier validation set came from."""
    live = releases.live_test_set(tx, study.id, SealedSetPurpose.DIRECT)
    if live is None:
        return []
    found = test_sets.get_set(tx, live.id)
    if found.data_version_id == studies.latest_data_version(tx, study.id).id:
        return []
    return [
        f"second validation sample {found.called} is from where an earlier validation set came from; unless these rows "
        "are from there too, it cannot tell tuning from drift any more: retire it (`easeml test-set retire "
        f"{found.called} --study {study.name}`) and seal one from where these rows come from (--purpose direct)"
    ]
