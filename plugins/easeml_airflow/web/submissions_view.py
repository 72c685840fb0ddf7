"""The developer's page as frozen values, from the facts of ``services.handed_in``: one symbol and one signal each."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from easeml_airflow.web.gate_check import check_of
from easeml_airflow.web.gauge import gauge_of, range_text
from easeml_airflow.web.view import VERDICTS, Mark
from easeml_core.entities import Adaptivity, Mode, Symbol
from easeml_core.errors import counted
from easeml_core.gate.condition import parse_condition

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from easeml_airflow.web.gate_check import Check
    from easeml_airflow.web.gauge import Gauge

HANDED_IN = Mark("idle", "lock", "Handed in")
WAITS = Mark("idle", "wait", "Waits for the answer")
REFUSED = Mark("warn", "alert", "Refused")
NOT_ASKED = Mark("idle", "lock", "No symbol yet")

_WIDEST = 64
"""Submissions of a meter set that the plot has room for."""


@dataclass(frozen=True, slots=True)
class Row:
    """One submission.

    Attributes:
        number: Its place in the order of all.
        called: What people call the model.
        model_id: Its number in the installation.
        handed_in_at: When.
        gate: Its symbol, or how far it is; None where nobody asked the gate.
        note: More about it in a few words: that it stands, was asked otherwise, or why it was refused.
        signal: 1..m, None where there is none.
        signals: m.
        meter: How far the meter is, where there is no signal.
    """

    number: int
    called: str
    model_id: int
    handed_in_at: Any
    gate: Mark | None
    note: str
    signal: int | None
    signals: int
    meter: str


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
        signals: The plot; None before the first signal.
        rows: The submissions, newest first.
        total: How many there are.
        condition: What a model must satisfy; None before the first gate set.
        rule: The condition's promise in words.
        production: What stands, and what stood before.
        models: What can be handed in.
    """

    now: tuple[str, str]
    newest: tuple[Mark, int | None, str]
    gauge: Gauge | None
    promise: str
    advice: tuple[str, str, Sequence[str]]
    left: Sequence[tuple[str, str]]
    signals: Signals | None
    rows: Sequence[Row]
    total: int
    condition: Check | None
    rule: str
    production: Mapping[str, Any]
    models: Sequence[Mapping[str, Any]]


def submissions_view(facts: Mapping[str, Any]) -> SubmissionsView:
    """The view of ``services.handed_in.handed_in_report``."""
    gate, meter = facts["gate"], facts["meter"]
    rows = [_row(entry) for entry in facts["submissions"]]
    condition = parse_condition(gate["condition"]) if gate else None
    return SubmissionsView(
        now=(_lead(rows, meter), _rest(rows, gate)),
        newest=_newest(rows),
        gauge=_gauge(meter),
        promise=_promise(meter),
        advice=_advice(meter),
        left=_left(gate, meter),
        signals=_signals(meter) if meter and meter["signals"] else None,
        rows=rows,
        total=facts["total"],
        condition=check_of(gate["condition"], None, condition) if condition else None,
        rule=_rule(gate),
        production=facts["production"],
        models=facts["models"],
    )


def _row(entry: Mapping[str, Any]) -> Row:
    shared = (entry["teams"] or 1) > 1
    signal = None if shared else entry["signal"]
    return Row(
        number=entry["number"],
        called=entry["called"],
        model_id=entry["model_id"],
        handed_in_at=entry["handed_in_at"],
        gate=_mark(entry),
        note=_note(entry),
        signal=signal,
        signals=entry["signals"] or 0,
        meter="" if signal is not None else _meter_word(entry, shared=shared),
    )


def _meter_word(entry: Mapping[str, Any], *, shared: bool) -> str:
    """Why there is no signal to show."""
    words = (
        (shared, "each team is told its own"),
        (entry["meter_waits"], "waits"),
        (entry["signals"], "no signal: the set was retired"),
        (entry["meter_refused"], "refused"),
    )
    return next((word for holds, word in words if holds), "not sent to the meter")


def _mark(entry: Mapping[str, Any]) -> Mark | None:
    if entry["gate_waits"]:
        return WAITS
    if entry["symbol"] == Symbol.WITHHELD:
        return HANDED_IN
    if entry["symbol"] is not None:
        return Mark(*VERDICTS[Symbol(entry["symbol"])])
    return REFUSED if entry["refusal"] else None


def _note(entry: Mapping[str, Any]) -> str:
    if entry["in_production"]:
        return "in production"
    if entry["symbol"] is not None and not entry["planned"]:
        return "about another condition than the set's own"
    is_refused = entry["symbol"] is None and not entry["gate_waits"] and entry["refusal"]
    return str(entry["refusal"]) if is_refused else ""


def _is_symbol(mark: Mark | None) -> bool:
    return mark is not None and mark not in (WAITS, REFUSED)


def _newest(rows: Sequence[Row]) -> tuple[Mark, int | None, str]:
    for row in rows:
        if row.gate is not None and _is_symbol(row.gate):
            return row.gate, row.number, row.called
    return NOT_ASKED, None, ""


def _lead(rows: Sequence[Row], meter: Mapping[str, Any] | None) -> str:
    mark, number, _ = _newest(rows)
    if number is None:
        told = "No submission has a symbol yet." if rows else "Nothing was handed in yet."
    elif mark == HANDED_IN:
        told = f"Submission {number} is handed in; verdicts are withheld here."
    else:
        stands = next((" and is in production" for r in rows if r.number == number and r.note == "in production"), "")
        told = f"Submission {number} {'passed' if mark.shape == 'pass' else 'did not pass'}{stands}."
    reading = meter and meter["reading"]
    if not reading or reading["signal"] is None:
        return told
    flattering = ": the validation data flatter your models" if _is_flattering(reading, meter) else ""
    return f"{told} The signal is {reading['signal']} of {reading['signals']}{flattering}."


def _is_flattering(reading: Mapping[str, Any], meter: Mapping[str, Any] | None) -> bool:
    """Whether the signal promises a gap above 0: of low edges, or with a wide tolerance, it need not."""
    if meter is None or "lower" not in meter["sides"] or reading["signal"] == 1:
        return False
    return bool(reading["boundaries"][reading["signal"] - 2] >= reading["tolerance"])


def _rest(rows: Sequence[Row], gate: Mapping[str, Any] | None) -> str:
    waiting = [str(row.number) for row in rows if row.gate == WAITS]
    words = []
    if waiting:
        many = len(waiting) > 1
        words.append(f"Submission{'s' if many else ''} {', '.join(reversed(waiting))} wait{'' if many else 's'}.")
    if gate and not gate["is_live"]:
        words.append("No gate set is live: the referee must seal a new one before the next answer.")
    return " ".join(words)


def _gauge(meter: Mapping[str, Any] | None) -> Gauge | None:
    if meter is None or meter["teams"] > 1:
        return None
    reading = meter["reading"]
    if reading is None:
        return gauge_of(None, meter["edges"], meter["tolerance"])
    return gauge_of(reading["signal"], reading["boundaries"], reading["tolerance"], sides=meter["sides"])


def _promise(meter: Mapping[str, Any] | None) -> str:
    if meter is None:
        return "This study has no meter set."
    if meter["teams"] > 1:
        return "Several teams share the meter set, and each is told its own signals: easeml model meter --team."
    reading = meter["reading"]
    if reading is None or reading["meaning"] is None:
        return "The meter has given no signal on this set yet."
    meaning = reading["meaning"]
    together = f"for all submissions at once with reliability {reading['reliability']:.12g}"
    return f"{meaning[0].upper()}{meaning[1:]}, {together}."


_AT_ONE = "Your validation data still stand for the data in use, within what the meter can tell."
_BETWEEN = "Part of what the validation data promise will not be there in use."
_AT_LAST = "Your validation data no longer stand for the data in use. More tuning on them will not help."
_ASK = "Ask the referee for new validation data; old results are measured again from stored predictions."
_COMPARE = "Until then compare candidates by the gate, not by validation accuracy."


def _advice(meter: Mapping[str, Any] | None) -> tuple[str, str, Sequence[str]]:
    reading = meter and meter["reading"]
    if not reading or reading["signal"] is None:
        return "What to do next", "There is no signal to act on yet.", ["Hand in a model, and ask the meter about it."]
    signal, signals = reading["signal"], reading["signals"]
    title, second = f"What to do at signal {signal}", reading["sentence"]
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


def _left(gate: Mapping[str, Any] | None, meter: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    pairs = []
    if gate:
        left = gate["steps"] - gate["steps_used"] if gate["is_live"] else 0
        pairs.append(("Gate steps left", f"{left:,} of {gate['steps']:,}"))
    if meter and meter["teams"] == 1:
        left = _meter_left(meter)
        told = "no end" if left is None else f"{left:,} of {meter['steps']:,}"
        pairs.append(("Meter submissions left", told))
    return [*pairs, ("Answers leave", "at once, or at the referee's hour")]


def _meter_left(meter: Mapping[str, Any]) -> int | None:
    """Submissions that the meter still answers; None where there is no last one."""
    if not meter["is_live"]:
        return 0
    left = meter["steps"] if meter["reading"] is None else meter["reading"]["submissions_left"]
    return None if left is None else int(left)


def _rule(gate: Mapping[str, Any] | None) -> str:
    if gate is None:
        return ""
    wrong = "pass" if gate["mode"] == Mode.FP_FREE else "fail"
    told = f"No {wrong} on this set is wrong, with probability {gate['reliability']:.12g} for all of them together."
    if gate["mode"] == Mode.FN_FREE:
        told += " A model that cannot be run or judged fails as well."
    if gate["adaptivity"] == Adaptivity.NONE:
        told += " Verdicts are withheld: they go to the referee alone."
    return told


def _signals(meter: Mapping[str, Any]) -> Signals:
    given = meter["signals"]
    count = len(meter["edges"]) + 1
    is_whole = meter["steps"] <= _WIDEST and given[0]["place"] == 1
    first = 1 if is_whole else given[0]["place"]
    places = meter["steps"] if is_whole else max(len(given), 8)
    height = 100 / count
    bands = [
        (round(100 - height * n, 2), round(height - 2, 2), f"{n}: {range_text(n, meter['edges'])}")
        for n in range(1, count + 1)
    ]
    cells = [
        Cell(
            left=round(100 * (entry["place"] - first + 0.08) / places, 2),
            width=round(84 / places, 2),
            top=bands[entry["signal"] - 1][0],
            look=f"e{min(entry['signal'], 4)}",
            title=f"submission {entry['number']}: signal {entry['signal']}",
        )
        for entry in given
        if entry["signal"] is not None
    ]
    last = given[-1]["place"]
    left = _meter_left(meter)
    begin = round(100 * (last - first + 1) / places, 2)
    return Signals(
        title=_finding(given),
        sentence=_finding(given) + ("" if left is None else f"; {counted(left, 'submission')} left"),
        bands=bands,
        cells=cells,
        ticks=_ticks(first, places),
        left_over=(begin, f"{left:,} left") if is_whole and left and begin < 85 else None,
    )


def _finding(given: Sequence[Mapping[str, Any]]) -> str:
    """How the signal went: where it changed, and what it is now."""
    told = [entry for entry in given if entry["signal"] is not None]
    if not told:
        return "The meter was retired before it gave a signal"
    changes = [(a["signal"], a["number"]) for a, b in pairwise(told) if a["signal"] != b["signal"]]
    if not changes:
        return f"Signal of each submission: always {told[-1]['signal']}"
    if len(changes) > 3:
        return f"Signal of each submission: changed {len(changes)} times, now {told[-1]['signal']}"
    until = ", ".join(f"{signal} until submission {number}" for signal, number in changes)
    return f"Signal of each submission: {until}, now {told[-1]['signal']}"


def _ticks(first: int, places: int) -> list[tuple[float, str]]:
    step = max(1, places // 4)
    numbers = sorted({0, *range(step - 1, places, step), places - 1})
    return [(round(100 * (n + 0.5) / places, 2), f"{first + n:,}") for n in numbers]
