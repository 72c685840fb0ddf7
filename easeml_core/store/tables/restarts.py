"""Restarts of the installation, as rows: evidence that an attempt was lost to one and to nothing of its own.

The role of tasks reads them and writes none. The start of the database server needs no row to count while it is the
latest one; a referee records it, so that it counts when the server has started again (``store.requests.note_attempt``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from easeml_core.config import require
from easeml_core.store.rows import change

if TYPE_CHECKING:
    from sqlalchemy import Connection

MOST_EXCUSED = 10
"""Attempts of one trial that restarts excuse at most, as in ``work.trials_excused_check``."""


def note_server_start(tx: Connection) -> bool:
    """Record when the database server started, once; True where that was new. Role ``easeml_referee``."""
    return bool(
        change(
            tx,
            "INSERT INTO work.restarts (what, at) VALUES ('server', pg_postmaster_start_time()) "
            "ON CONFLICT ON CONSTRAINT restarts_once_key DO NOTHING",
        )
    )


def state_restart(tx: Connection, *, reason: str) -> None:
    """Record that workers were restarted or taken away just now, e.g. a node that was drained. Role ``easeml_owner``.

    Raises:
        ConfigError: The reason is empty, too long, or more than one line.
    """
    is_line = len(reason.strip()) >= 1 and len(reason) <= 200 and reason.isprintable()
    require(is_line, "reason", reason, "a line of 1 to 200 characters")
    change(tx, "INSERT INTO work.restarts (what, reason) VALUES ('stated', :reason)", reason=reason)
