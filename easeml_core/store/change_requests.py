"""Changes that a tenant's login asks for in rows which other roles wait for: a pause of a study, the end of a trial.

A tenant can keep a transaction open for as long as it likes, so it locks no such row: it adds a request, and the
scheduler's process makes the change in a short transaction (ADR 0032).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from easeml_core.errors import StateError, StoreUnavailableError
from easeml_core.store import logins
from easeml_core.store.database import CHANNEL, notify, notify_pages
from easeml_core.store.listen import wait_here
from easeml_core.store.rows import row, rows, scalar

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from easeml_core.store.database import Store


class _Outcome(NamedTuple):
    """What became of a change; the name is None while it is open."""

    name: str | None
    refusal: str | None


WAIT_SECONDS = 30.0
"""How long a caller waits until its change is made; it is made later all the same."""


def apply_changes(tx: Connection) -> int:
    """Make the changes that logins have asked for, some of each login, and notify who waits; return how many.

    A row that another transaction holds is left for the next call.

    Args:
        tx: Role ``easeml_scheduler``.
    """
    made = rows(tx, "SELECT study, trial FROM work.apply_changes()")
    for r in made:
        notify(tx, f"study:{r.study}" if r.trial is None else f"trial:{r.trial}")
    notify_pages(tx, *{r.study for r in made})
    return len(made)


def is_any_open(tx: Connection) -> bool:
    """Whether a change waits for a row that another transaction holds."""
    return bool(scalar(tx, "SELECT EXISTS (SELECT FROM work.change_requests WHERE outcome IS NULL)"))


def wait_until_made(store: Store, *, study_id: int, trial_id: int | None = None) -> None:
    """Wait until the change that this login has asked for is made; at once for a role that makes it itself.

    Args:
        store: The role that asked, after its transaction.
        study_id: The study that was paused or resumed, or the trial's.
        trial_id: The trial that was cancelled; None for a change of the study.

    Raises:
        StateError: It was refused, or another transaction held the row for an hour; nothing was changed.
        StoreUnavailableError: It was not made in time.
    """
    asked = (
        "SELECT outcome, refusal FROM work.change_requests WHERE login = work.caller() AND study_id = :study "
        "AND trial_id IS NOT DISTINCT FROM CAST(:trial AS bigint)"
    )

    def look() -> _Outcome | None:
        with store.begin(writes=False) as tx:
            if not logins.is_tenant(tx):
                return _Outcome("made", None)
            # No row: nothing had to be changed.
            found = row(tx, asked, study=study_id, trial=trial_id)
            outcome = _Outcome("made", None) if found is None else _Outcome(found.outcome, found.refusal)
            return outcome if outcome.name is not None else None

    outcome = wait_here(store.dsn, CHANNEL, look, seconds=WAIT_SECONDS, poll_seconds=1.0)
    if outcome is not None and outcome.name != "made":
        what = f"study {study_id}" if trial_id is None else f"trial {trial_id}"
        message = f"the change of {what} was not made: {outcome.refusal}; see its present state, and ask again"
        raise StateError(message)
    if outcome is None:
        message = (
            f"the change was asked for, and the scheduler has not made it within {WAIT_SECONDS:g} s; see that "
            "`easeml scheduler` runs with this database: it is made then"
        )
        raise StoreUnavailableError(message)
