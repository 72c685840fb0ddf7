"""Who did what, when and why, told in words; filters, counts and a table for whoever keeps it elsewhere."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from easeml_core.config import require
from easeml_core.services.operations.audit_words import told
from easeml_core.store.queries import audit as store_audit
from easeml_core.store.queries.audit import Filter

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from easeml_core.store.database import Store

MOST_ROWS = 20_000
"""Rows of one table that is taken away."""

RECENT = timedelta(days=30)
"""What the figures on top count."""


class Group(StrEnum):
    """What an act is about; each act is in one of these."""

    PROMOTIONS = "promotions"
    SETS = "sets"
    LIMITS = "limits"
    STUDIES = "studies"
    REFUSED = "refused"


ACTS = {
    Group.PROMOTIONS: (
        *("promotion asked", "forced promotion asked", "rollback asked", "promoted", "forced promotion", "rolled back"),
        "model handed in",
    ),
    Group.SETS: ("set planned", "set sealed", "set live", "set retired", "set released", "alert cleared"),
    Group.LIMITS: ("study changed", "tenant changed", "policy changed"),
    Group.STUDIES: (
        *("study registered", "study sealed", "study paused", "study resumed", "candidate added", "trial cancelled"),
        *("trial retried", "pairs fed", "pairs switched", "validation set replaced"),
    ),
    Group.REFUSED: ("request refused", "study refused"),
}
_GROUP = {act: group for group, acts in ACTS.items() for act in acts}


def audit(
    store: Store,
    *,
    studies: Collection[str] | None = None,
    study: str | None = None,
    group: str | None = None,
    who: str | None = None,
    text: str = "",
    since: datetime | None = None,
    limit: int = 50,
    offset: int = 0,
) -> dict[str, Any]:
    """Acts, newest first.

    Args:
        store: Any role.
        studies: Names of the studies that whoever asks may see; None for all there is.
        study: Of this study only.
        group: One of ``Group``.
        who: Of this person or task only.
        text: In who, study, tenant, reason or a set's name.
        since: From then on.
        limit: 1 to 20,000.
        offset: How many newer ones are left out, >= 0.

    Returns:
        ``{"total", "groups", "events"}``. ``groups`` counts each group under the other filters. An event is ``{"id",
        "at" (a moment), "who", "door", "role", "act", "group", "study", "tenant", "title", "detail", "before",
        "after", "reason", "is_open"}``; the last says of what was asked for whether it still waits for its answer.

    Raises:
        ConfigError: A number or the group is none of these.
    """
    require(1 <= limit <= MOST_ROWS, "limit", limit, f"from 1 to {MOST_ROWS}")
    require(0 <= offset <= 10**9, "offset", offset, "from 0 to 1e9")
    require(group is None or group in ACTS, "group", group, ", ".join(ACTS))
    wanted = Filter(studies, study, None, who, text, since)
    chosen = wanted if group is None else wanted._replace(acts=ACTS[Group(group)])
    with store.begin() as tx:
        acts = store_audit.counts(tx, wanted)
        found = store_audit.events(tx, chosen, limit=limit, offset=offset)
    groups = {str(g): sum(acts.get(act, 0) for act in members) for g, members in ACTS.items()}
    total = sum(acts.values()) if group is None else groups[group]
    return {"total": total, "groups": groups, "events": [_event(e) for e in found]}


def recent_figures(store: Store, *, studies: Collection[str] | None = None) -> dict[str, int]:
    """What the last 30 days brought, by act, and ``waiting``: forced promotions without an answer."""
    since = datetime.now(UTC) - RECENT
    with store.begin() as tx:
        acts = store_audit.counts(tx, Filter(studies=studies, since=since))
        return acts | {"waiting": store_audit.forced_that_wait(tx, studies)}


def _event(row: dict[str, Any]) -> dict[str, Any]:
    title, detail = told(row)
    return row | {"group": _GROUP.get(row["act"], Group.STUDIES), "title": title, "detail": detail}


COLUMNS = ("at", "act", "who", "door", "role", "tenant", "study", "detail", "reason", "started_by")
"""The last one is told where whoever asks can ask Airflow, too: who has started the run in which a task acts."""

_BEGINS_A_FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
"""Of spreadsheets; the last four are = + - @ in full width, which some take for the same."""


def as_csv(events: Iterable[Mapping[str, Any]]) -> str:
    """Events as a table with a heading; a spreadsheet runs nothing of what people wrote.

    Example:
        >>> cell("=1+1"), cell(None), cell("why")
        ("'=1+1", '', 'why')
    """
    written = io.StringIO()
    table = csv.writer(written)
    table.writerow(COLUMNS)
    for event in events:
        table.writerow([cell(event.get(column)) for column in COLUMNS])
    return written.getvalue()


def cell(value: Any) -> str:
    """A value as text; what a spreadsheet would take for a formula gets an apostrophe in front."""
    if value is None:
        return ""
    shown = value.isoformat(timespec="seconds") if isinstance(value, datetime) else str(value)
    return f"'{shown}" if shown.startswith(_BEGINS_A_FORMULA) else shown
