"""The developer's page: did mine pass, may I trust my validation data, how many tries are left?

It is read as ``easeml_worker``, which the database itself keeps from everything sealed. Its template is its own and
shares no part with the referee's.
"""

from __future__ import annotations

import shlex
import uuid
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Depends, Form, Query, Request

from easeml_airflow.web.components.condition_field import check_of
from easeml_airflow.web.components.gauge import gauge_of, range_text
from easeml_airflow.web.server.auth import Viewer
from easeml_airflow.web.server.formats import REFUSED, VERDICTS, WAITS, Mark, sentence_case
from easeml_airflow.web.server.site import Tab, moved, path_of_study
from easeml_core.entities import Adaptivity, Mode, Symbol
from easeml_core.errors import counted
from easeml_core.gate.condition import parse_condition
from easeml_core.services.reports.submissions import MOST, submissions_report, submit

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from fastapi.responses import HTMLResponse, RedirectResponse

    from easeml_airflow.web.components.condition_field import Check
    from easeml_airflow.web.components.gauge import Gauge
    from easeml_airflow.web.server.site import Site
    from easeml_core.services.reports.submissions import (
        GateState,
        MeterState,
        NumberedSignal,
        Production,
        SubmissionsReport,
    )
    from easeml_core.store.queries.submissions import Submission, Submittable


_WIDEST = 64
"""Submissions of a meter set that the plot has room for."""


@dataclass(frozen=True, slots=True)
class Cell:
    """The signal of one submission; places in per cent."""

    left: float
    width: float
    top: float
    look: str
    title: str


@dataclass(frozen=True, slots=True)
class Signals:
    """The signals of the meter set over its submissions.

    Attributes:
        title: The finding.
        sentence: For who cannot see it.
        bands: One a signal: top in per cent, height, label at its left.
        cells: One a submission.
        ticks: Labels below: place in per cent, text.
        left_over: Where the submissions begin that are left, in per cent, and what is said of them; None where the set
            has more than the plot has room for.
    """

    title: str
    sentence: str
    bands: Sequence[tuple[float, float, str]]
    cells: Sequence[Cell]
    ticks: Sequence[tuple[float, str]]
    left_over: tuple[float, str] | None


def signals_of(meter: MeterState) -> Signals:
    """The plot of a meter set that has given a signal, as of ``services.reports.submissions``."""
    given = meter.signals
    count = len(meter.edges) + 1
    is_whole = meter.steps <= _WIDEST and given[0].place == 1
    first = 1 if is_whole else given[0].place
    places = meter.steps if is_whole else max(len(given), 8)
    height = 100 / count
    bands = [
        (round(100 - height * n, 2), round(height - 2, 2), f"{n}: {range_text(n, meter.edges)}")
        for n in range(1, count + 1)
    ]
    cells = [
        Cell(
            left=round(100 * (entry.place - first + 0.08) / places, 2),
            width=round(84 / places, 2),
            top=bands[entry.signal - 1][0],
            look=f"e{min(entry.signal, 4)}",
            title=f"submission {entry.number}: signal {entry.signal}",
        )
        for entry in given
        if entry.signal is not None
    ]
    last = given[-1].place
    left = meter.left
    begin = round(100 * (last - first + 1) / places, 2)
    return Signals(
        title=_finding(given),
        sentence=_finding(given) + ("" if left is None else f"; {counted(left, 'submission')} left"),
        bands=bands,
        cells=cells,
        ticks=_ticks(first, places),
        left_over=(begin, f"{left:,} left") if is_whole and left and begin < 85 else None,
    )


def _finding(given: Sequence[NumberedSignal]) -> str:
    """How the signal went: where it changed, and what it is now."""
    known = [entry for entry in given if entry.signal is not None]
    if not known:
        return "The meter was retired before it gave a signal"
    changes = [(a.signal, a.number) for a, b in pairwise(known) if a.signal != b.signal]
    if not changes:
        return f"Signal of each submission: always {known[-1].signal}"
    if len(changes) > 3:
        return f"Signal of each submission: changed {len(changes)} times, now {known[-1].signal}"
    until = ", ".join(f"{signal} until submission {number}" for signal, number in changes)
    return f"Signal of each submission: {until}, now {known[-1].signal}"


def _ticks(first: int, places: int) -> list[tuple[float, str]]:
    step = max(1, places // 4)
    numbers = sorted({0, *range(step - 1, places, step), places - 1})
    return [(round(100 * (n + 0.5) / places, 2), f"{first + n:,}") for n in numbers]


HANDED_IN = Mark("idle", "lock", "Handed in")
PASSED = Mark(*VERDICTS[Symbol.PASS])
NOT_ASKED = Mark("idle", "lock", "No symbol yet")


@dataclass(frozen=True, slots=True)
class Row:
    """One submission.

    Attributes:
        number: Its place in the order of all.
        called: What people call the model.
        model_id: Its number in the installation.
        handed_in_at: When.
        gate: Its symbol, or how far it is; None without a gate request.
        note: More about it in a few words: that it stands, was asked otherwise, or why it was refused.
        signal: 1..m, None where there is none.
        signals: m.
        meter: How far the meter is, where there is no signal.
        meter_note: Why it was refused; empty where that is said already.
    """

    number: int
    called: str
    model_id: int
    handed_in_at: datetime
    gate: Mark | None
    note: str
    signal: int | None
    signals: int
    meter: str
    meter_note: str


@dataclass(frozen=True, slots=True)
class SubmissionsView:
    """All that the page says.

    Attributes:
        now: What is going on: in bold, then the rest.
        newest: The submission with the newest symbol: its mark, number and name; no number before the first.
        gauge: The meter's last signal; None where there is no meter set, or several teams share it.
        promise: What the signal promises, in words.
        advice: What to do at this signal: title, reason, steps.
        left: Pairs of words and what is left.
        leaves: When the next answers leave, as others did at this hour of earlier days; None where that is not known
            from those that have left.
        waits: Whether a submission waits for an answer.
        signals: The plot; None before the first signal.
        rows: The submissions, newest first.
        total: How many there are.
        condition: What a model must satisfy; None before the first gate set.
        rule: The condition's promise in words.
        production: What stands, and what stood before.
        passed: The newest model shown that passed and does not stand; None where there is none.
        models: What can be handed in.
    """

    now: tuple[str, str]
    newest: tuple[Mark, int | None, str]
    gauge: Gauge | None
    promise: str
    advice: tuple[str, str, Sequence[str]]
    left: Sequence[tuple[str, str]]
    leaves: datetime | None
    waits: bool
    signals: Signals | None
    rows: Sequence[Row]
    total: int
    condition: Check | None
    rule: str
    production: Production
    passed: int | None
    models: Sequence[Submittable]


def submissions_view(report: SubmissionsReport) -> SubmissionsView:
    """Return the view of a report of ``services.reports.submissions``."""
    gate, meter, leaves = report.gate, report.meter, report.leaves
    rows = [_row(entry, meter.teams if meter else 1) for entry in report.submissions]
    condition = parse_condition(gate.condition) if gate else None
    return SubmissionsView(
        now=(_lead(rows, meter), _rest(rows, gate, meter)),
        newest=_newest(rows),
        gauge=_gauge(meter),
        promise=_promise(meter),
        advice=_advice(meter),
        left=_left(gate, meter),
        leaves=leaves.next if leaves else None,
        waits=any(entry.gate_waits or _meter_waits(entry) for entry in report.submissions),
        signals=signals_of(meter) if meter and meter.signals else None,
        rows=rows,
        total=report.total,
        condition=check_of(gate.condition, None, condition) if gate and condition else None,
        rule=_rule(gate),
        production=report.production,
        passed=next((row.model_id for row in rows if row.gate == PASSED and not row.note), None),
        models=report.models,
    )


def _row(entry: Submission, teams: int) -> Row:
    shared = max(entry.teams or 1, teams) > 1  # a refused request has no reading that tells how many share its set
    signal = None if shared else entry.signal
    return Row(
        number=entry.number,
        called=entry.called,
        model_id=entry.model_id,
        handed_in_at=entry.handed_in_at,
        gate=_mark(entry),
        note=_note(entry),
        signal=signal,
        signals=entry.signals or 0,
        meter="" if signal is not None else _meter_word(entry, shared=shared),
        meter_note="" if signal is not None or shared else _meter_note(entry),
    )


def _meter_waits(entry: Submission) -> bool:
    return entry.meter_waits and not entry.meter_too_late


def _meter_word(entry: Submission, *, shared: bool) -> str:
    """Why there is no signal to show."""
    words = (
        (shared, "each team sees its own"),
        (_meter_waits(entry), "waits"),
        (entry.signals, "no signal: the set ended with this model"),
        (entry.meter_too_late, "no signal: the set had ended before this model"),
        (entry.meter_refusal, "refused"),
    )
    return next((word for holds, word in words if holds), "not sent to the meter")


def _meter_note(entry: Submission) -> str:
    said = entry.meter_waits or entry.meter_too_late or entry.signals or not entry.meter_refusal
    return "" if said else entry.meter_refusal or ""


def _mark(entry: Submission) -> Mark | None:
    if entry.gate_waits:
        return WAITS
    if entry.symbol == Symbol.WITHHELD:
        return HANDED_IN
    if entry.symbol is not None:
        return Mark(*VERDICTS[entry.symbol])
    return REFUSED if entry.refusal else None


def _note(entry: Submission) -> str:
    if entry.in_production:
        return "in production"
    if entry.symbol is not None and not entry.planned:
        return "about another condition than the set's own"
    is_refused = entry.symbol is None and not entry.gate_waits and entry.refusal
    return entry.refusal or "" if is_refused else ""


def _is_symbol(mark: Mark | None) -> bool:
    return mark is not None and mark not in (WAITS, REFUSED)


def _newest(rows: Sequence[Row]) -> tuple[Mark, int | None, str]:
    for row in rows:
        if row.gate is not None and _is_symbol(row.gate):
            return row.gate, row.number, row.called
    return NOT_ASKED, None, ""


def _lead(rows: Sequence[Row], meter: MeterState | None) -> str:
    mark, number, _ = _newest(rows)
    if number is None:
        lead = "No submission has a symbol yet." if rows else "Nothing was handed in yet."
    elif mark == HANDED_IN:
        lead = f"Submission {number} is handed in; verdicts are withheld here."
    else:
        stands = next((" and is in production" for r in rows if r.number == number and r.note == "in production"), "")
        lead = f"Submission {number} {'passed' if mark.shape == 'pass' else 'did not pass'}{stands}."
    reading = meter.reading if meter else None
    if not reading or reading.signal is None:
        return lead
    flattering = ": the validation data flatter your models" if meter and meter.is_flattering else ""
    return f"{lead} The signal is {reading.signal} of {reading.signals}{flattering}."


def _rest(rows: Sequence[Row], gate: GateState | None, meter: MeterState | None) -> str:
    waiting = [str(row.number) for row in rows if row.gate == WAITS]
    words = []
    if waiting:
        many = len(waiting) > 1
        words.append(f"Submission{'s' if many else ''} {', '.join(reversed(waiting))} wait{'' if many else 's'}.")
    if gate and not gate.is_live:
        words.append("No gate set is live: the referee must seal a new one before the next verdict.")
    if meter and not meter.is_live:
        words.append("No meter set is live: there is no further signal before the referee has sealed a new one.")
    return " ".join(words)


def _gauge(meter: MeterState | None) -> Gauge | None:
    if meter is None or meter.teams > 1:
        return None
    reading = meter.reading
    if reading is None:
        return gauge_of(None, meter.edges, meter.tolerance)
    return gauge_of(reading.signal, reading.boundaries, reading.tolerance, sides=meter.sides)


def _promise(meter: MeterState | None) -> str:
    if meter is None:
        return "This study has no meter set."
    if meter.teams > 1:
        return "Several teams share the meter set, and each sees its own signals: easeml model meter --team."
    reading = meter.reading
    if reading is None or reading.meaning is None:
        return "The meter has given no signal on this set yet."
    meaning = reading.meaning
    together = f"for all submissions at once with reliability {reading.reliability:.12g}"
    return f"{sentence_case(meaning)}, {together}."


_AT_ONE = "Your validation data still stand for the data in use, within what the meter can tell."
_BETWEEN = "Part of what the validation data promise will not be there in use."
_AT_LAST = "Your validation data no longer stand for the data in use. More tuning on them will not help."
_ASK = "Ask the referee for new validation data; old results are measured again from stored predictions."
_COMPARE = "Until then compare candidates by the gate, not by validation accuracy."


def _advice(meter: MeterState | None) -> tuple[str, str, Sequence[str]]:
    reading = meter.reading if meter else None
    if not reading or reading.signal is None:
        return "What to do next", "There is no signal to act on yet.", ["Hand in a model, and ask the meter about it."]
    signal, signals = reading.signal, reading.signals
    title, second = f"What to do at signal {signal}", reading.sentence
    if signal == 1:
        return title, second or _AT_ONE, ["Go on: nothing needs to be done."]
    if signal == signals:
        return title, second or _AT_LAST, [_ASK, _COMPARE]
    if signal > 2:
        return title, second or _BETWEEN, [_ASK, _COMPARE]
    steps = [
        "Prefer simpler candidates, and look at the validation data less often.",
        _COMPARE.replace("Until then c", "C"),
    ]
    return (
        title,
        second or _BETWEEN,
        [*steps, "New validation data may bring the signal down; the referee can add some."],
    )


def _left(gate: GateState | None, meter: MeterState | None) -> list[tuple[str, str]]:
    pairs = []
    if gate:
        pairs.append(("Gate steps left", f"{gate.left:,} of {gate.steps:,}"))
    if meter and meter.teams == 1:
        left = meter.left
        of_all = "no end" if left is None else f"{left:,} of {meter.steps:,}"
        pairs.append(("Meter submissions left", of_all))
    return pairs


def _rule(gate: GateState | None) -> str:
    if gate is None:
        return ""
    wrong = "pass" if gate.mode == Mode.FP_FREE else "fail"
    promise = f"No {wrong} on this set is wrong, with probability {gate.reliability:.12g} for all of them together."
    if gate.mode == Mode.FN_FREE:
        promise += " A model that cannot be run or judged fails as well."
    if gate.adaptivity == Adaptivity.NONE:
        promise += " Verdicts are withheld: they go to the referee alone."
    return promise


STUDY_TAB = Tab("/submissions", "Submissions")
SHOWN = 8
"""Submissions on the page."""


@dataclass(frozen=True, slots=True)
class Page:
    """What the template reads.

    Attributes:
        view: What the page says.
        entries: Submissions of a page.
        skip: How many of the newest it leaves out.
        may_change: Whether the viewer may submit.
        request_key: Of the form.
        quoted: The study's name for a command line.
        most: Submissions that a page has at most.
    """

    view: SubmissionsView
    entries: int
    skip: int
    may_change: bool
    request_key: str
    quoted: str
    most: int = MOST


def routes(site: Site) -> APIRouter:
    """``/studies/{study}/submissions``: what was handed in, and handing in."""
    router, who = APIRouter(prefix="/studies/{study}/submissions"), Depends(site.viewer)

    @router.get("")
    def show(
        request: Request,
        study: str,
        entries: Annotated[int, Query(ge=1, le=MOST)] = SHOWN,
        skip: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
        viewer: Viewer = who,
    ) -> HTMLResponse:
        found = site.study(viewer, study)
        report = submissions_report(site.open_store(), study=found.name, limit=entries, skip=skip)
        shown = Page(
            view=submissions_view(report),
            entries=entries,
            skip=skip,
            may_change=viewer.changes(found.name, found.tenant),
            request_key=str(uuid.uuid4()),
            quoted=shlex.quote(found.name),
        )
        return site.page(request, viewer, "submissions.html", study=found, shown=shown)

    @router.post("")
    def post(
        request: Request,
        study: str,
        model: Annotated[int, Form()],
        request_key: Annotated[str, Form()],
        gate: Annotated[bool, Form()] = False,
        meter: Annotated[bool, Form()] = False,
        viewer: Viewer = who,
    ) -> RedirectResponse:
        found = site.study(viewer, study, change=True)
        key = f"page/{viewer.name}/{found.name}/{request_key[:100]}"
        submit(site.open_store(), study=found.name, model_id=model, gate=gate, meter=meter, request_key=key)
        return moved(request, f"{path_of_study(found.name)}/submissions")

    return router
