"""One line of time of a study: its data, its trials, what was handed in and judged, what stands, its sealed sets."""

from __future__ import annotations

from textwrap import shorten
from typing import TYPE_CHECKING, Any

from easeml_core.config import require
from easeml_core.services.test_sets.display_names import WHY
from easeml_core.store.queries import timeline as rows
from easeml_core.store.tables import studies

if TYPE_CHECKING:
    from easeml_core.store.database import Store

MOST_DRAWN = 1000
"""Events on the line of time: the newest."""

_SHOWN = 120
"""Characters of a program: the study's page has all of it."""

LANES = ("data", "trials", "submissions", "production", "sealed sets", "alerts")

_LANE = {
    "registered": "data",
    "data": "data",
    "fed": "data",
    "switched": "data",
    "trial": "trials",
    "submitted": "submissions",
    "verdict": "submissions",
    "reading": "submissions",
    "moved": "production",
    "sealed": "sealed sets",
    "retired": "sealed sets",
    "alert": "alerts",
}


def lifecycle(store: Store, *, study: str, limit: int = 50, offset: int = 0) -> dict[str, Any]:
    """What has happened to a study, with released facts only.

    Args:
        store: Any role.
        study: The study.
        limit: Events of the list at most, 1 to 1000.
        offset: How many newer ones the list leaves out.

    Returns:
        ``{"study", "total", "events", "line"}``: ``events`` newest first; ``line`` the newest ``MOST_DRAWN``. Each is
        ``{"at", "kind", "lane", "ref", "title", "detail", "facts"}``; ``at`` is a moment, ``lane`` one of ``LANES``.

    Raises:
        NotFoundError: There is no such study.
        ConfigError: A number is outside its range.
    """
    require(1 <= limit <= 1000, "limit", limit, "from 1 to 1000")
    require(offset >= 0, "offset", offset, ">= 0")
    with store.begin() as tx:
        found = studies.get_study(tx, study)
        line = [told(e) for e in rows.events(tx, found.id, limit=MOST_DRAWN)]
        if offset + limit <= MOST_DRAWN:
            events = line[offset : offset + limit]
        else:
            events = [told(e) for e in rows.events(tx, found.id, limit=limit, offset=offset)]
        total = len(line) if len(line) < MOST_DRAWN else rows.count_events(tx, found.id)
    return {"study": study, "total": total, "events": events, "line": line}


def told(event: dict[str, Any]) -> dict[str, Any]:
    """A row of ``store/queries/timeline.py`` with its lane and its words."""
    title, detail = _WORDS[event["kind"]](event["facts"])
    return event | {"lane": _LANE[event["kind"]], "title": title, "detail": detail}


def _registered(facts: dict[str, Any]) -> tuple[str, str]:
    return "registered", shorten(facts["program"] or "", width=_SHOWN, placeholder=" ...")


def _data(facts: dict[str, Any]) -> tuple[str, str]:
    rows_told = f"{facts['train_rows'] or 0:,} rows to train on, {facts['validation_rows'] or 0:,} to validate"
    if facts["validation_only"]:
        return f"data version {facts['version']}: another validation set", rows_told
    return f"data version {facts['version']}{', refreshed' if facts['refreshed'] else ''}", rows_told


def _fed(facts: dict[str, Any]) -> tuple[str, str]:
    state = f"{facts['state']}: {facts['reason']}" if facts["reason"] else facts["state"]
    return f"{facts['rows']:,} examples fed", f"{state}; from {facts['origin']}, by {facts['by']}"


def _switched(facts: dict[str, Any]) -> tuple[str, str]:
    return (
        f"{facts['rows']:,} examples switched {'on' if facts['is_on'] else 'off'}",
        f"{facts['reason']}, {facts['by']}",
    )


def _trial(facts: dict[str, Any]) -> tuple[str, str]:
    took = f"{facts['seconds']:,.1f} s" + (f" on {facts['device']}" if facts["device"] else "")
    if facts["quality"] is not None:
        how = "measured anew, " if facts["measured_anew"] else ""
        return f"{facts['candidate']}: {facts['quality']:.4f}", f"{how}{took}"
    return f"{facts['candidate']} {facts['state'].lower()}", "; ".join(filter(None, [facts["failure"], took]))


def _submitted(facts: dict[str, Any]) -> tuple[str, str]:
    return f"model {facts['model']} handed in", f"{facts['what']}, by {facts['by']}: {facts['message']}"


def _verdict(facts: dict[str, Any]) -> tuple[str, str]:
    again = ", the same answer again" if facts["cached"] else ""
    return f"model {facts['model']}: {facts['symbol']}", f"step {facts['step']} of set {facts['set']}{again}"


def _reading(facts: dict[str, Any]) -> tuple[str, str]:
    drift = f"; drift {facts['drift']}" if facts["drift"] else ""
    if facts["signal"] is None:
        return f"model {facts['model']}: no signal", f"set {facts['set']} was retired instead{drift}"
    return f"model {facts['model']}: signal {facts['signal']} of {facts['signals']}", f"on set {facts['set']}{drift}"


def _moved(facts: dict[str, Any]) -> tuple[str, str]:
    how = {"promote": "promoted", "rollback": "rolled back to", "force": "promoted by force"}[facts["how"]]
    title = f"{how} model {facts['model']}" if facts["how"] == "rollback" else f"model {facts['model']} {how}"
    told = [facts["reason"], f"by {facts['by']}" if facts["by"] else ""]
    return title, ", ".join(filter(None, told)) or "on a passing verdict"


def _sealed(facts: dict[str, Any]) -> tuple[str, str]:
    return (
        f"{facts['purpose']} set {facts['set']} sealed",
        f"{facts['rows']:,} rows, {facts['steps']} steps; now {facts['state']}",
    )


def _retired(facts: dict[str, Any]) -> tuple[str, str]:
    why = WHY.get(facts["why"], facts["why"] or "")
    return f"{facts['purpose']} set {facts['set']} retired", why + ("; released since" if facts["released"] else "")


def _alert(facts: dict[str, Any]) -> tuple[str, str]:
    end = ", cleared" if facts["is_cleared"] else "" if facts["is_open"] else ", served"
    return f"alert: {facts['what']}{end}", facts["message"]


_WORDS = {
    "registered": _registered,
    "data": _data,
    "fed": _fed,
    "switched": _switched,
    "trial": _trial,
    "submitted": _submitted,
    "verdict": _verdict,
    "reading": _reading,
    "moved": _moved,
    "sealed": _sealed,
    "retired": _retired,
    "alert": _alert,
}
