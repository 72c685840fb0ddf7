"""A recorded history of submissions through the meter: what it would have answered, and when it would have retired."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from attrs import evolve
from msgspec import UNSET, UnsetType

from easeml_core.errors import InvalidInputError, counted
from easeml_core.formats.csv_text import numbered_rows, read_text
from easeml_core.formats.display import COLOURS, data_frame, empty_figure, entitle, html_page, html_table
from easeml_core.formats.encoding import from_json, typed_record
from easeml_core.meter.alternatives import PlannedMeter
from easeml_core.meter.meter import Answered, read_submission
from easeml_core.meter.overfitting_budget import budget_breach
from easeml_core.meter.planner import plan_config
from easeml_core.meter.ranges import late_shift
from easeml_core.settings.config import require

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easeml_core.entities import JsonObject
    from easeml_core.meter.reading import Reading
    from easeml_core.settings.config import MeterConfig

COLUMNS = ("submission", "validation_loss", "test_errors")


@dataclass(frozen=True, slots=True)
class Submitted:
    """One row of a history.

    Attributes:
        submission: Its name, or its number.
        validation_loss: v, in [0, 1].
        test_errors: k, in 0..n.
        team: Whose it was, 1..K.
    """

    submission: str | int
    validation_loss: float
    test_errors: int
    team: int = 1


@dataclass(frozen=True, slots=True)
class Replay:
    """What the meter would have said.

    Attributes:
        readings: The answered submissions, each with its reading.
        retired_at: Which submission, counted from 1, was the first without an answer; None if each got one.
        why: Why it got none; empty if each got one.
        alerts: Position and sentence of each breach of the overfitting budget.
    """

    readings: list[tuple[Submitted, Reading]] = field(default_factory=list)
    retired_at: int | None = None
    why: str = ""
    alerts: list[tuple[int, str]] = field(default_factory=list)

    def to_json(self) -> JsonObject:
        """As plain JSON."""
        readings = [
            {
                "submission": row.submission,
                "signal": reading.signal,
                "tolerance": reading.tolerance_now,
                "reachable": reading.reachable,
            }
            | ({"edges": list(reading.edges)} if reading.edges else {})
            for row, reading in self.readings
        ]
        return {
            "readings": readings,
            "retired_at": self.retired_at,
            "final_tolerance": readings[-1]["tolerance"] if readings else None,
            "alerts": [{"submission": at, "message": text} for at, text in self.alerts],
        }


@typed_record
class ReplayedReading:
    """A submission that got an answer; ``edges`` are left out where they are those of the settings."""

    submission: str | int
    signal: int | None
    tolerance: float
    reachable: int
    edges: list[float] | UnsetType = UNSET


@typed_record
class ReplayedAlert:
    """A breach of the overfitting budget, and the position of the submission, from 1."""

    submission: int
    message: str


@typed_record
class ReplayReport:
    """What the meter would have said.

    Attributes:
        readings: The submissions that got an answer.
        retired_at: As of ``Replay``.
        final_tolerance: Of the last answer; None without any.
        alerts: As of ``Replay``.
        planned: Examples that the plan asks for.
        warnings: About the size of the set.
    """

    readings: list[ReplayedReading]
    retired_at: int | None
    final_tolerance: float | None
    alerts: list[ReplayedAlert]
    planned: int
    warnings: list[str]


@dataclass(frozen=True, slots=True, repr=False)
class ReplayedMeter:
    """A history that was replayed through a meter; a table in Jupyter.

    Signals, gaps and retirement depend on the sealed set: all of it is for the referee, submitters must not read it.

    Attributes:
        config: What the set is planned for.
        found: The readings, the retirement and the alerts.
        planned: Examples that the plan asks for.
        warnings: About the size of the set.
    """

    config: MeterConfig
    found: Replay
    planned: int
    warnings: tuple[str, ...]

    @property
    def signals(self) -> list[int | None]:
        """The signal of each answered submission, in their order."""
        return [reading.signal for _, reading in self.found.readings]

    @property
    def retired_at(self) -> int | None:
        """Which submission, counted from 1, was the first without an answer; None if each got one."""
        return self.found.retired_at

    @property
    def alerts(self) -> list[tuple[int, str]]:
        """Position and sentence of each breach of the overfitting budget."""
        return self.found.alerts

    def plot(self) -> Any:
        """Return a matplotlib Figure of the gaps with their tolerances, and the ranges behind them.

        Raises:
            InvalidInputError: matplotlib is not installed.
        """
        return draw_replay(self.found, self.config)

    def report(self) -> ReplayReport:
        """Return what ``easeml meter replay --json`` prints."""
        return from_json({**self.found.to_json(), "planned": self.planned, "warnings": self.warnings}, ReplayReport)

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with one row for each answered submission.

        Raises:
            InvalidInputError: pandas is not installed.
        """
        return data_frame(self._rows(), ("submission", "signal", "tolerance", "reachable"))

    def _rows(self) -> list[dict[str, object]]:
        return [
            {
                "submission": row.submission,
                "signal": reading.signal,
                "tolerance": reading.tolerance_now,
                "reachable": reading.reachable,
            }
            for row, reading in self.found.readings
        ]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {counted(len(self.found.readings), 'submission')} answered>"

    def _repr_html_(self) -> str:
        columns = {name.capitalize(): name for name in ("submission", "signal", "tolerance", "reachable")}
        title = f"{counted(len(self.found.readings), 'submission')} answered ({self.config.method}, {self.config.tail})"
        notes = [f"alert at submission {place}: {text}" for place, text in self.alerts]
        if self.retired_at is not None:
            notes.append(f"retired at submission {self.retired_at}: {self.found.why}")
        return html_page(html_table(title, columns, self._rows()), notes=[*notes, *self.warnings])


def replay(
    plan: PlannedMeter, history: Any, *, examples: int, budget: Sequence[str] = (), seed: int = 0
) -> ReplayedMeter:
    """Replay a recorded history of submissions through a meter; ``easeml meter replay`` replays in the same way.

    Args:
        plan: Of ``plan``.
        history: A DataFrame or mappings with ``submission``, ``validation_loss`` and ``test_errors``, and ``team``
            where teams share the set; or the path of a CSV file with these columns. The submissions ``1`` and ``"1"``
            are the same.
        examples: n >= 1, size of the sealed set.
        budget: Rules of the overfitting budget, such as ``signal above range 2``.
        seed: With the method ``dithered``: seed of the shifts.

    Returns:
        What the meter would have answered.

    Raises:
        InvalidInputError: A row lacks a value or has one out of its range, or a submission comes again with other
            numbers.
        ConfigError: A number is outside its range, or the method can only be planned with.

    Example:
        >>> import easeml_core as easeml
        >>> meter = easeml.meter.plan(tolerance=0.05, steps=8, ranges=[0.1, 0.3])
        >>> history = [{"submission": i, "validation_loss": 0.2, "test_errors": 600 + 100 * i} for i in range(3)]
        >>> easeml.meter.replay(meter, history, examples=2000).signals
        [1, 2, 2]
    """
    if not isinstance(plan, PlannedMeter):
        message = f"plan must be what easeml.meter.plan(...) returned, got {type(plan).__name__}"
        raise InvalidInputError(message)
    require(plan.method == plan.config.method, "method", plan.method, "one that answers: it can only be planned with")
    examples, seed = _plain(examples), _plain(seed)
    require(type(examples) is int and examples >= 1, "examples", examples, "a whole number >= 1")
    require(type(seed) is int and seed >= 0, "seed", seed, "a whole number >= 0")
    rules = (budget,) if isinstance(budget, str) else tuple(budget)
    config = evolve(plan.config, budget=rules or plan.config.budget)
    rows = _rows_of(history, examples=examples, teams=config.teams)
    return replay_config(rows, examples=examples, config=config, seed=seed)


def replay_config(rows: Sequence[Submitted], *, examples: int, config: MeterConfig, seed: int) -> ReplayedMeter:
    """Replay submissions, and compare the set's size with the plan; the function behind both faces."""
    found = replay_submissions(rows, examples=examples, config=config, seed=seed)
    planned = plan_config(config).labels
    short = examples < planned
    warnings = (f"the plan asks for {planned:,} examples, the set has {examples:,}",) if short else ()
    return ReplayedMeter(config, found, planned, warnings)


def _rows_of(history: Any, *, examples: int, teams: int) -> list[Submitted]:
    """Read a history from a file, a DataFrame, or mappings."""
    if isinstance(history, str | Path):
        return read_history(Path(history), examples=examples, teams=teams)
    rows = history.to_dict("records") if hasattr(history, "columns") else history
    if not isinstance(rows, list | tuple) or not rows:
        what = "is empty" if isinstance(rows, list | tuple) else f"is a {type(history).__name__}"
        message = f"history {what}; give a DataFrame, mappings, or a file with the columns {', '.join(COLUMNS)}"
        raise InvalidInputError(message)
    return [_row_of(row, place, examples, teams) for place, row in enumerate(rows, start=1)]


def _row_of(row: Any, place: int, examples: int, teams: int) -> Submitted:
    """Check one row of values."""
    where = f"history, row {place}"
    if isinstance(row, Submitted):
        row = {name: getattr(row, name) for name in (*COLUMNS, "team")}
    missing = [name for name in COLUMNS if not hasattr(row, "get") or name not in row]
    if missing:
        message = f"{where}: it lacks {', '.join(missing)}; give {', '.join(COLUMNS)}"
        raise InvalidInputError(message)
    given = _plain(row["submission"])
    name = _named(given) if isinstance(given, str) else given
    if type(name) is not int and not (isinstance(name, str) and name):
        message = f"{where}, column submission: must be a name or a whole number, got {given!r}"
        raise InvalidInputError(message)
    return Submitted(
        submission=name,
        validation_loss=_checked_share(row["validation_loss"], where),
        test_errors=_checked_count(row["test_errors"], f"{where}, column test_errors", 0, examples),
        team=_checked_count(row["team"], f"{where}, column team", 1, teams) if "team" in row else 1,
    )


def _named(text: str) -> str | int:
    """Return a submission's name, or its number where the text is one: a file and values must mean the same one."""
    name = text.strip()
    numbered = name.isascii() and name.isdigit() and str(int(name[:18])) == name
    return int(name) if numbered else name


def _plain(value: Any) -> Any:
    """Return a NumPy scalar as Python's own."""
    return value.item() if isinstance(value, np.generic) else value


def _checked_share(value: Any, where: str) -> float:
    value = _plain(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        message = f"{where}, column validation_loss: must be a number from 0 to 1, got {value!r}"
        raise InvalidInputError(message)
    return float(value)


def _checked_count(value: Any, where: str, least: int, most: int) -> int:
    value = _plain(value)
    number = int(value) if isinstance(value, float) and math.isfinite(value) and value.is_integer() else value
    if type(number) is not int or not least <= number <= most:
        message = f"{where}: must be a whole number from {least} to {most}, got {value!r}"
        raise InvalidInputError(message)
    return number


def replay_submissions(history: Sequence[Submitted], *, examples: int, config: MeterConfig, seed: int = 0) -> Replay:
    """Answer the submissions one after the other.

    A submission that comes again with the same numbers is answered from the log, at no cost. After a retirement no
    further submission (of that team) is answered.

    Args:
        history: Submissions in their order.
        examples: n >= 1, size of the sealed set.
        config: What it is planned for.
        seed: Of the shifts of a dithered meter; a live meter draws them from the system's entropy.

    Raises:
        ConfigError: If a number is outside its range.
        InvalidInputError: If a submission comes again with other numbers.
    """
    generator = np.random.default_rng(seed)
    found: dict[str | int, tuple[Submitted, Reading]] = {}
    past: list[Answered] = []
    readings, alerts, retired_at, why = [], [], None, ""
    for position, row in enumerate(history, start=1):
        if row.submission in found:
            _require_same(found[row.submission][0], row)
            readings.append(found[row.submission])
            continue
        reading = read_submission(
            errors=row.test_errors,
            examples=examples,
            validation_loss=row.validation_loss,
            config=config,
            earlier=past,
            team=row.team,
            shift=late_shift(config.ranges, generator) if config.method == "dithered" else None,
        )
        if reading.why != "retired":  # a team is retired once
            past.append(Answered(reading.signal, reading.log_cost, row.team))
            alert = budget_breach([entry.signal for entry in past if entry.team == row.team], config)
            alerts += [(position, alert)] if alert else []
        if reading.signal is not None:
            found[row.submission] = (row, reading)
            readings.append(found[row.submission])
        elif retired_at is None:
            retired_at, why = position, reading.why
    return Replay(readings, retired_at, why, alerts)


def _require_same(before: Submitted, row: Submitted) -> None:
    if before != row:
        message = (
            f"submission {row.submission!r} comes twice with different numbers; a repeated artifact has the same ones, "
            "another model needs another name"
        )
        raise InvalidInputError(message)


def read_history(path: Path, *, examples: int, teams: int = 1) -> list[Submitted]:
    """Read a CSV file ``submission,validation_loss,test_errors``, in UTF-8; ``team`` is read too, others are ignored.

    Args:
        path: The file.
        examples: n >= 1: no row may have more errors.
        teams: K >= 1.
    """

    def refused(what: str) -> InvalidInputError:
        return InvalidInputError(f"{path} {what}; give a CSV file in UTF-8 with one row per submission")

    rows = numbered_rows(read_text(path, refused), refused)
    found: list[Submitted] = []
    _, header = next(rows, (0, []))
    places = {name: _place(header, name, path) for name in COLUMNS}
    if "team" in header:
        places["team"] = _place(header, "team", path)
    for number, row in rows:
        if row:
            found.append(_submitted(row, len(header), places, f"{path}, row {number}", examples, teams))
    if not found:
        message = f"{path}: no submissions below the header; give one row per submission"
        raise InvalidInputError(message)
    return found


def _place(header: Sequence[str], name: str, path: Path) -> int:
    if header.count(name) != 1:
        message = f"{path}, row 1: the header must have the column {name!r} exactly once; it has {', '.join(header)!r}"
        raise InvalidInputError(message)
    return header.index(name)


def _submitted(
    row: Sequence[str], columns: int, places: dict[str, int], where: str, examples: int, teams: int
) -> Submitted:
    if len(row) != columns:
        message = f"{where}: {len(row)} fields, the header has {columns}"
        raise InvalidInputError(message)
    texts = {name: row[place].strip() for name, place in places.items()}
    if not texts["submission"]:
        message = f"{where}, column submission: empty; give every submission a name or a number"
        raise InvalidInputError(message)
    return Submitted(
        submission=_named(texts["submission"]),
        validation_loss=_share(texts["validation_loss"], where),
        test_errors=_count(texts["test_errors"], f"{where}, column test_errors", 0, examples),
        team=_count(texts["team"], f"{where}, column team", 1, teams) if "team" in texts else 1,
    )


def _share(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        message = f"{where}, column validation_loss: must be a number from 0 to 1, got {text!r}"
        raise InvalidInputError(message)
    return value


def _count(text: str, where: str, least: int, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 12 and least <= int(text) <= most):
        message = f"{where}: must be a whole number from {least} to {most}, got {text!r}"
        raise InvalidInputError(message)
    return int(text)


GREEN, YELLOW, RED = COLOURS[2], COLOURS[4], COLOURS[1]
_WHY = {"tolerance": "one more answer would be too vague", "steps": "all submissions are used"}


def draw_replay(found: Replay, config: MeterConfig) -> Any:
    """The measured gaps of the answered submissions, each with its tolerance, and the ranges behind them."""
    figure, axes = empty_figure(height=4.8, grid=False)
    gaps = [reading.gap for _, reading in found.readings]
    tolerances = [reading.tolerance_now for _, reading in found.readings]
    reach = [g + s * t for g, t in zip(gaps, tolerances, strict=True) for s in (-1, 1)] or [0.0]
    low, high = min(*reach, 0.0) - 0.02, max(*reach, config.ranges[0]) + 0.05
    _draw_ranges(axes, config.ranges, low, high)
    positions = range(1, len(gaps) + 1)
    axes.errorbar(positions, gaps, yerr=tolerances, fmt="o", color="black", markersize=4, linewidth=1, capsize=2)
    if found.retired_at is not None:
        axes.axvline(len(gaps) + 0.5, color="black", linestyle=":", linewidth=1)
        why = _WHY.get(found.why, f"the method {config.method} ends it")
        text = f"set retired:\n{why}"
        axes.text(len(gaps) + 0.45, high, text, va="top", ha="right", fontsize=9, linespacing=1.2)
    axes.set_ylim(low, high)
    axes.set_xlim(0.4, len(gaps) + 0.9)
    axes.set_xlabel("submission, in the order of the history")
    axes.xaxis.get_major_locator().set_params(integer=True)  # there is no half submission
    axes.set_ylabel("gap: share wrong on the sealed set\nminus validation loss")
    how = f"dots: measured gap, whiskers: tolerance; {config.method}, {config.tail}, reliability {config.reliability:g}"
    entitle(figure, _summary(found), how)
    return figure


def _draw_ranges(axes: Any, ranges: Sequence[float], low: float, high: float) -> None:
    """A coloured band for each range that is in sight, with its signal at the right edge."""
    edges = (low, *(b for b in ranges if low < b < high), high)
    first = sum(b <= low for b in ranges)
    for i, (bottom, top) in enumerate(pairwise(edges), start=first):
        colour = GREEN if i == 0 else RED if i == len(ranges) else YELLOW
        axes.axhspan(bottom, top, color=colour, alpha=0.14, linewidth=0)
        if bottom > low:
            axes.axhline(bottom, color=colour, linewidth=0.8)
        place = axes.get_yaxis_transform()
        axes.text(1.01, (bottom + top) / 2, f"signal {i + 1}", transform=place, va="center", fontsize=9)


def _summary(found: Replay) -> str:
    """The answers in one sentence, and what ended them."""
    counts = Counter(reading.signal for _, reading in found.readings)
    signals = ", ".join(f"{many} x signal {signal}" for signal, many in sorted(counts.items()))
    answered = f"{counted(len(found.readings), 'submission')} answered" + (f": {signals}" if signals else "")
    if found.retired_at is None:
        return f"{answered}; the set can go on"
    return f"{answered}; submission {found.retired_at} got no answer: the set is used up"
