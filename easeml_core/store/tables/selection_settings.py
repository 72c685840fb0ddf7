"""The settings of the scheduler as rows: the newest holds, earlier ones stay as they were."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from easeml_core.store.rows import as_json, row, rows, scalar

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from sqlalchemy import Connection


@dataclass(frozen=True, slots=True)
class StoredSettings:
    """One change of the settings.

    Attributes:
        id: Grows with every change.
        config: ``SelectionConfig`` as plain JSON.
        reason: Why they were changed.
        report: The backtest behind the change, or None.
        created_at: When, by the database's clock.
        created_by: Role of the database that wrote them.
    """

    id: int
    config: Mapping[str, Any]
    reason: str
    report: Mapping[str, Any] | None
    created_at: datetime
    created_by: str


_SETTINGS = "SELECT id, config, reason, report, created_at, created_by FROM work.selection_settings "


def newest_settings(tx: Connection) -> StoredSettings | None:
    """The settings that hold now; None where nobody has ever set any."""
    found = row(tx, _SETTINGS + "ORDER BY id DESC LIMIT 1")
    return None if found is None else StoredSettings(**found._mapping)


def list_settings(tx: Connection, *, limit: int = 100) -> list[StoredSettings]:
    """The latest changes, newest first."""
    return [StoredSettings(**r._mapping) for r in rows(tx, _SETTINGS + "ORDER BY id DESC LIMIT :limit", limit=limit)]


def add_settings(
    tx: Connection, *, config: Mapping[str, Any], reason: str, report: Mapping[str, Any] | None = None
) -> int:
    """New settings, which hold from now on; their id. Role ``easeml_owner``."""
    return int(
        scalar(
            tx,
            "INSERT INTO work.selection_settings (config, reason, report) "
            "VALUES (CAST(:config AS jsonb), :reason, CAST(:report AS jsonb)) RETURNING id",
            config=as_json(config),
            reason=reason,
            report=None if report is None else as_json(report),
        )
    )


def may_set(tx: Connection) -> bool:
    """Whether this transaction's role may write settings."""
    return bool(scalar(tx, "SELECT has_table_privilege('work.selection_settings', 'INSERT')"))
