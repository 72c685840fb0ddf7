"""The version of the schema: upgrade it, or say that it must be upgraded. Migrations are Alembic's."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sqlalchemy import text

from easeml_core.errors import ConcurrentUpdateError, SchemaVersionError
from easeml_core.store import grants, logins

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from alembic.config import Config
    from sqlalchemy import Connection

REVISION = "r0001"
"""The migration that this code was written for; a test holds it against Alembic's head."""

LOCK_SECONDS, PATIENCE_SECONDS, PAUSE_SECONDS = 2.0, 300.0, 1.0
"""Longest wait of an upgrade for one lock, behind which all others wait; how long it tries; and between two tries."""

CLOSE_SECONDS = 10.0
"""Once it has waited so long, sessions of logins that hold a transaction are ended, and no session of theirs begins."""

_MIGRATIONS = Path(__file__).parent / "migrations"


class Transactions(Protocol):
    """Begins transactions: ``store.database.Store``, which imports this module."""

    def begin(self, *, check_schema: bool = True) -> AbstractContextManager[Connection]:
        """One transaction, without a look at the schema's version where ``check_schema`` is false."""


def alembic_config() -> Config:
    """Return Alembic's settings, which need no file."""
    from alembic.config import Config  # with Mako a tenth of a second, which commands, tasks and children do without

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    return config


def upgrade(store: Transactions) -> str:
    """Bring the schema to REVISION; harmless when it is there already, safe when two do it at once.

    Logins of tenants and workers go on meanwhile, as far as their rows are not locked. Where an open transaction is in
    the way for ``CLOSE_SECONDS``, those of logins are ended, and no session of theirs begins until the end.
    """
    begun = time.monotonic()
    is_closed = False
    try:
        while True:
            try:
                return _upgrade(store)
            except ConcurrentUpdateError:  # what waits behind this one goes on meanwhile
                waited = time.monotonic() - begun
                if waited > PATIENCE_SECONDS:
                    raise
            if waited > CLOSE_SECONDS:
                with store.begin(check_schema=False) as tx:
                    is_closed = logins.keep_logins_out(tx, all_sessions=is_closed)
            time.sleep(PAUSE_SECONDS)
    finally:
        with store.begin(check_schema=False) as tx:
            logins.let_logins_in(tx)


def known_revisions() -> set[str]:
    """Return the revisions of all migrations of this version."""
    from alembic.script import ScriptDirectory

    return {script.revision for script in ScriptDirectory.from_config(alembic_config()).walk_revisions()}


def _upgrade(store: Transactions) -> str:
    from alembic import command

    config, known = alembic_config(), known_revisions()
    with store.begin(check_schema=False) as tx:
        tx.execute(text("SET LOCAL statement_timeout = 0"))
        tx.execute(text(f"SET LOCAL lock_timeout = {int(1000 * LOCK_SECONDS)}"))
        tx.execute(text("SELECT pg_advisory_xact_lock(hashtext('easeml schema'))"))
        found = current(tx)
        if found is not None and found not in known:
            raise SchemaVersionError(found, REVISION)
        tx.execute(text("CREATE SCHEMA IF NOT EXISTS work"))
        tx.execute(text("CREATE SCHEMA IF NOT EXISTS sealed"))
        config.attributes["connection"] = tx
        command.upgrade(config, "head")
        tx.execute(text("GRANT USAGE ON SCHEMA work TO easeml_worker, easeml_referee"))
        tx.execute(text("GRANT USAGE ON SCHEMA sealed TO easeml_referee"))
        tx.execute(text("GRANT SELECT ON work.alembic_version TO easeml_worker, easeml_referee"))
        grants.set_grants(tx, REVISION)
        tx.execute(text("INSERT INTO work.restarts (what) VALUES ('deployment')"))
        return current(tx) or "none"


def current(tx: Connection) -> str | None:
    """The revision of the database, or None when it has none."""
    if tx.execute(text("SELECT to_regclass('work.alembic_version')")).scalar() is None:
        return None
    found = tx.execute(text("SELECT version_num FROM work.alembic_version")).scalar()
    return None if found is None else str(found)


def check(tx: Connection) -> None:
    """Raise SchemaVersionError unless the database has REVISION."""
    found = current(tx)
    if found != REVISION:
        raise SchemaVersionError(found, REVISION)
