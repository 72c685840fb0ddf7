"""The audit in words: who did what, when and why; with filters, counts, and a table for export.

``act_in_words`` gives each act a title and a detail, without what its reason says.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from easeml_core.formats.csv_text import GuardedWriter
from easeml_core.formats.display import with_unit
from easeml_core.formats.encoding import row_of, typed_record
from easeml_core.services.test_sets.lifecycle import WHY
from easeml_core.settings.config import require
from easeml_core.store.queries import audit as store_audit
from easeml_core.store.queries.audit import AuditRow, Filter

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from easeml_core.entities import JsonObject
    from easeml_core.store.database import Store


_LIMITS = {
    "weight": "weight",
    "priority": "priority",
    "budget_seconds": "budget",
    "quota_seconds": "quota",
    "max_parallel": "open trials at most",
    "deadline": "deadline",
    "target_quality": "target quality",
}


def act_in_words(act: str, before: JsonObject, after: JsonObject) -> tuple[str, str]:
    """Return title and detail of a row of the audit.

    Example:
        >>> act_in_words("study changed", {"budget_seconds": 1800.0}, {"budget_seconds": None})
        ('Limits of the study changed', 'budget 0.5 → none')
    """
    title = _TITLES.get(act, act.capitalize())
    write = _DETAILS.get(act)
    return title, "" if write is None else write(before, after)


def _limits(before: JsonObject, after: JsonObject) -> str:
    parts = [_limit(name, before.get(name), value) for name, value in sorted(after.items())]
    return "; ".join(parts)


def _limit(name: str, before: Any, after: Any) -> str:
    word = _LIMITS.get(name, name.replace("_", " "))
    if name.endswith("_seconds"):
        return f"{word} {_hours(before)} → {'none' if after is None else with_unit(_hours(after), 'device-hour')}"
    return f"{word} {_plain(before)} → {_plain(after)}"


def _hours(seconds: Any) -> str:
    return "none" if seconds is None else f"{float(seconds) / 3600:,.4g}"


def _plain(value: Any) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _policy(before: JsonObject, after: JsonObject) -> str:
    first, then = before.get("policy") or "the program's own", after.get("policy") or "the program's own"
    detail = f"{first} → {then}" if first != then else str(then)
    was, price = before.get("price_per_second") or 0.0, after.get("price_per_second") or 0.0
    detail += f"; price of compute {hourly_text(was)} → {hourly_text(price)}" if was != price else ""
    return f"{detail}, by backtest" if after.get("backtest") else detail


def hourly_text(price: float) -> str:
    """Return the price of compute, given for a second of a device."""
    return f"{3600 * price:.4g} of quality an hour" if price else "none"


def _registered(_: JsonObject, after: JsonObject) -> str:
    budget = after.get("budget_seconds")
    said = f"metric {after['metric']}"
    return said if budget is None else f"{said}; budget {with_unit(_hours(budget), 'device-hour')}"


def _set(_: JsonObject, after: JsonObject) -> str:
    name = f"{after['purpose']} set {after['name'] or after['set']}, {after['steps']} steps"
    return f"{name}: {WHY.get(after['why'], after['why'])}" if after.get("why") else name


def _model(_: JsonObject, after: JsonObject) -> str:
    approved = f", approved by {after['approved_by']}" if after.get("approved_by") else ""
    return f"model {after['model']}{approved}"


def _moved(before: JsonObject, after: JsonObject) -> str:
    was = before.get("model")
    ground = f"; verdict {after['verdict']} of request {after['gate_request']}" if after.get("verdict") else ""
    return (f"model {was} → model {after['model']}" if was else _model(before, after)) + ground + _approved(was, after)


def _approved(was: Any, after: JsonObject) -> str:
    return f"; approved by {after['approved_by']}" if was and after.get("approved_by") else ""


def _refused(_: JsonObject, after: JsonObject) -> str:
    return f"request {after['request']} to {_KINDS.get(after['kind'], after['kind'])}" + (
        f", model {after['model']}" if after.get("model") else ""
    )


def _rows(_: JsonObject, after: JsonObject) -> str:
    if "origin" in after:
        return f"{after['rows']:,} pairs from {after['origin']}"
    return f"{after['rows']:,} pairs switched {'on' if after['is_on'] else 'off'}"


def _always(words: str) -> Callable[[JsonObject, JsonObject], str]:
    return lambda _before, _after: words


_KINDS = {"force": "promote by force", "rollback": "roll back", "refresh": "take pairs in", "gate": "ask the gate"}

_TITLES = {
    "study changed": "Limits of the study changed",
    "tenant changed": "Limits of the tenant changed",
    "policy changed": "Policy chosen",
    "set planned": "Sealed set planned",
    "set sealed": "Sealed set sealed",
    "set live": "Sealed set live",
    "set retired": "Sealed set retired",
    "set released": "Sealed set released",
    "set deleted": "Sealed set deleted",
    "study sealed": "Study sealed",
}

_DETAILS: Mapping[str, Callable[[JsonObject, JsonObject], str]] = {
    "study changed": _limits,
    "tenant changed": _limits,
    "policy changed": _policy,
    "study registered": _registered,
    "study sealed": _always("its sealed sets exist: trials may begin"),
    "study refused": _always("the referee did not seal its data"),
    "study paused": _always("no trial begins any more; those under way go on"),
    "study resumed": _always("trials may begin again"),
    "study archived": lambda before, _: (
        "no trial, no request" + (f"; model {before['model']} answers no rows any more" if before.get("model") else "")
    ),
    "study restored": _always("its former state holds again; trials that were cancelled stay so"),
    "study deleted": lambda before, _: f"{before.get('name', 'it')} had no sealed data, trials or models",
    "candidate withdrawn": lambda _, after: f"{after['candidate']} is not suggested any more",
    "candidate restored": lambda _, after: f"{after['candidate']} may be suggested again",
    "tenant archived": _always("its studies are archived, and it registers none"),
    "tenant restored": _always("it may register studies again"),
    "tenant deleted": lambda before, _: f"{before.get('name', 'it')} had no study and no login",
    "candidate added": lambda _, after: f"{after['candidate']}, a {after['kind']}",
    "trial cancelled": lambda _, after: f"trial {after['trial']}, {after['candidate']}",
    "trial retried": lambda before, after: (
        f"trial {after['trial']}, {after['candidate']}, takes the place of trial {before['trial']}"
    ),
    "alert cleared": lambda _, after: f"alert {after['alert']}, {after['kind']}",
    "promotion asked": _model,
    "forced promotion asked": _model,
    "rollback asked": _model,
    "promoted": _moved,
    "forced promotion": _moved,
    "rolled back": _moved,
    "request refused": _refused,
    "model handed in": lambda _, after: f"model {after['model']}, as {after['kind']}",
    "pairs fed": _rows,
    "pairs switched": _rows,
    "result did not hold": lambda before, after: (
        f"trial {after['trial']}, model {after['model']}: {before['quality']:.4f} was stated, "
        f"{after['quality']:.4f} was measured"
    ),
    "result acknowledged": lambda _, after: f"trial {after['trial']}, model {after['model']}",
    "validation set replaced": lambda before, after: f"version {before['version']} → version {after['version']}",
} | dict.fromkeys(("set planned", "set sealed", "set live", "set retired", "set released", "set deleted"), _set)


MOST_ROWS = 20_000
"""Largest number of exported rows."""

RECENT = timedelta(days=30)
"""The period of the figures on top."""


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
    Group.SETS: (
        "set planned",
        "set sealed",
        "set live",
        "set retired",
        "set released",
        "set deleted",
        "alert cleared",
    ),
    Group.LIMITS: ("study changed", "tenant changed", "policy changed"),
    Group.STUDIES: (
        *("study registered", "study sealed", "study paused", "study resumed", "candidate added", "trial cancelled"),
        *("trial retried", "pairs fed", "pairs switched", "validation set replaced"),
        *("result did not hold", "result acknowledged", "candidate withdrawn", "candidate restored"),
        *("study archived", "study restored", "study deleted", "tenant archived", "tenant restored", "tenant deleted"),
    ),
    Group.REFUSED: ("request refused", "study refused"),
}
_GROUP = {act: group for group, acts in ACTS.items() for act in acts}


@typed_record
class AuditEvent(AuditRow):
    """One act in words.

    Attributes:
        group: What it is about.
        title: What was done.
        detail: Of what, from what and to what; may be empty.
    """

    group: Group
    title: str
    detail: str


@dataclass(frozen=True, slots=True)
class AuditPart:
    """Some acts of many.

    Attributes:
        total: How many acts there are under the filters.
        groups: How many there are of each group under the other filters.
        events: Those that were asked for, newest first.
    """

    total: int
    groups: dict[str, int]
    events: list[AuditEvent]


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
) -> AuditPart:
    """Return acts, newest first."""
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
    return AuditPart(total, groups, [_event(e) for e in found])


def recent_figures(store: Store, *, studies: Collection[str] | None = None) -> dict[str, int]:
    """Count the acts of the last 30 days, and ``waiting``: forced promotions without an answer."""
    since = datetime.now(UTC) - RECENT
    with store.begin() as tx:
        acts = store_audit.counts(tx, Filter(studies=studies, since=since))
        return acts | {"waiting": store_audit.forced_that_wait(tx, studies)}


def _event(row: AuditRow) -> AuditEvent:
    title, detail = act_in_words(row.act, row.before, row.after)
    return AuditEvent(**row_of(row), group=_GROUP.get(row.act, Group.STUDIES), title=title, detail=detail)


COLUMNS = ("at", "act", "who", "door", "role", "tenant", "study", "detail", "reason", "started_by")
"""The last one names the user who started the DAG run of a task, where the caller can read it from Airflow."""


def as_csv(events: Iterable[AuditEvent]) -> str:
    """Return events as a table with a heading; a spreadsheet runs nothing of what users wrote."""
    written = io.StringIO()
    table = GuardedWriter(written, lineterminator="\r\n")
    table.row(COLUMNS)
    for event in events:
        table.row(getattr(event, column, None) for column in COLUMNS)
    return written.getvalue()
