"""What the page shows, as frozen values: each column carries the help text that its head explains itself with.

Built from the facts of ``services.overview``; nothing sealed is among those, so nothing sealed can be shown.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from easeml_core.entities import AlertKind, StudyState, Symbol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

STATES = {
    StudyState.REGISTERED: ("busy", "wait", "Being sealed"),
    StudyState.ACTIVE: ("busy", "run", "Searching"),
    StudyState.PAUSED: ("idle", "pause", "Paused"),
    StudyState.REFUSED: ("bad", "alert", "Refused"),
}
DONE = ("ok", "pass", "Searched")
VERDICTS = {
    Symbol.PASS: ("ok", "pass", "Pass"),
    Symbol.FAIL: ("bad", "fail", "Fail"),
    Symbol.WITHHELD: ("idle", "lock", "Withheld"),
}

ALERTS = {
    AlertKind.OVERFITTING: "overfitting above its budget",
    AlertKind.DRIFT: "validation and test data differ",
    AlertKind.NEW_TEST_SET: "a new test set is needed",
}
"""What needs a person, by the most urgent open alert."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A state as a shape, a colour and a word."""

    colour: str
    shape: str
    word: str


def _column(title: str, help_text: str) -> dict[str, str]:
    return {"title": title, "help": help_text}


@dataclass(frozen=True, slots=True)
class Row:
    """One study, as one line of the table."""

    name: str = field(
        metadata=_column("Tenant, study", "Who shares the machines, the problem to solve, and what comes next.")
    )
    state: Mark = field(metadata=_column("State", "Searching until every candidate has run on the present data."))
    quality: str = field(
        metadata=_column("Best quality", "Best accuracy on the validation data, 0 to 1; higher is better.")
    )
    production: str = field(
        metadata=_column("In production", "The model that the referee has promoted, after a pass of the gate.")
    )
    trials: str = field(metadata=_column("Trials", "Candidates that have run, of all; failed ones are counted apart."))
    compute: str = field(
        metadata=_column("Device time", "Seconds of device time used, and the share of what all tenants used.")
    )
    verdict: Mark | None = field(
        metadata=_column("Last verdict", "The one symbol that the gate gave for the last model handed in.")
    )
    signal: int | None = field(
        metadata=_column(
            "Signal",
            "How much the search has overfitted its validation data; 1 is little. A second sample tells of drift. "
            "Where teams share a set, each is told its own signals alone.",
        )
    )
    tenant: str = ""
    next: str = ""
    hot: bool = False
    running: int = 0
    failed: int = 0
    production_model: int = 0
    share_percent: float = 0.0
    signals: int = 0
    direct_signal: int | None = None
    drift: str = ""
    teams: int = 1


@dataclass(frozen=True, slots=True)
class Page:
    """All that the page says.

    Attributes:
        rows: The studies.
        now: What is going on, in one sentence: first the part in bold, then the rest.
        facts: Up to four numbers: label, number, unit.
        needs: What waits for a person: title and reason.
        read_at: When this was read, in UTC.
    """

    rows: Sequence[Row]
    now: tuple[str, str]
    facts: Sequence[tuple[str, str, str]]
    needs: Sequence[tuple[str, str]]
    read_at: datetime


def columns() -> list[tuple[str, str]]:
    """Title and help of each column of the table, in order."""
    return [(f.metadata["title"], f.metadata["help"]) for f in fields(Row) if f.metadata]


def page_of(overview: Mapping[str, Any], *, read_at: datetime) -> Page:
    """The page for the facts of ``services.overview``."""
    studies = overview["tenants"]
    total = sum(float(s["device_seconds"]) for s in studies)
    return Page(
        rows=[_row(study, total) for study in studies],
        now=_now(studies),
        facts=_facts(studies, total),
        needs=_needs(studies),
        read_at=read_at,
    )


def seconds_text(seconds: float) -> str:
    """Device time with its unit: seconds, minutes or hours.

    Example:
        >>> seconds_text(4.2), seconds_text(150), seconds_text(9000)
        ('4.2 s', '2.5 min', '2.5 h')
    """
    for limit, size, unit in ((120, 1, "s"), (7200, 60, "min")):
        if seconds < limit:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds / 3600:.1f} h"


def _row(study: Mapping[str, Any], total: float) -> Row:
    tried = sum(int(study[kind]) for kind in ("trials", "failed", "cancelled"))
    done = tried >= study["candidates"] > 0 and study["state"] == StudyState.ACTIVE
    look = DONE if done else STATES[StudyState(study["state"])]
    return Row(
        name=study["study"],
        tenant=study["tenant"],
        next="" if _needs_a_person(study) else study["next"],
        hot=_needs_a_person(study),
        state=Mark(*look),
        quality="" if study["best_quality"] is None else f"{study['best_quality']:.4f}",
        production=study["production_candidate"] or "",
        production_model=study["production_model_id"] or 0,
        trials=f"{study['trials']} of {study['candidates']}",
        running=study["running"],
        failed=study["failed"],
        compute=seconds_text(study["device_seconds"]),
        share_percent=round(100 * study["device_seconds"] / total, 1) if total else 0.0,
        verdict=None if study["verdict"] is None else Mark(*VERDICTS[Symbol(study["verdict"])]),
        signal=study["signal"],
        signals=study["signals"] or 0,
        direct_signal=study["direct_signal"],
        drift=study["drift"] or "",
        teams=study["teams"] or 1,
    )


def _now(studies: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    running = sum(s["running"] for s in studies)
    tenants = len({s["tenant"] for s in studies})
    promoted = sum(s["production_model_id"] is not None for s in studies)
    sharing = _count(tenants, "tenant", "tenants")
    doing = f"{_count(running, 'trial is', 'trials are')} training" if running else "No trial is training now"
    return (
        f"{doing} for {sharing}." if running else f"{doing}; {sharing} registered.",
        f"{promoted} of {_count(len(studies), 'study has', 'studies have')} a model in production.",
    )


def _facts(studies: Sequence[Mapping[str, Any]], total: float) -> list[tuple[str, str, str]]:
    best = [s["best_quality"] for s in studies if s["best_quality"] is not None]
    told = Counter(s["verdict"] for s in studies if s["verdict"] is not None)
    mean = f"{sum(best) / len(best):.4f}" if best else "none yet"
    finished, failed = sum(s["trials"] for s in studies), sum(s["failed"] for s in studies)
    number, unit = seconds_text(total).split(" ")
    others = "".join(f", {told[symbol]} {symbol}" for symbol in (Symbol.FAIL, Symbol.WITHHELD) if told[symbol])
    return [
        ("Mean best quality, all studies", mean, "accuracy" if best else ""),
        ("Trials that gave a model", str(finished), f"{failed} failed"),
        ("Device time used", number, unit),
        ("Last verdicts", str(told[Symbol.PASS]), f"pass{others}"),
    ]


def _needs_a_person(study: Mapping[str, Any]) -> bool:
    return bool(study["open_alerts"]) or study["state"] == StudyState.REFUSED


def _needs(studies: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    alerted = [(f"{s['study']}: {ALERTS[AlertKind(s['alert_kind'])]}", s["next"]) for s in studies if s["open_alerts"]]
    refused = [s for s in studies if s["state"] == StudyState.REFUSED and not s["open_alerts"]]
    return alerted + [(f"{s['study']}: the study was refused", s["next"]) for s in refused]


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"
