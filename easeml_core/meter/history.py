"""A recorded history of submissions through the meter: what it would have answered, and when it would have retired."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from msgspec import UNSET, UnsetType

from easeml_core.csv_text import numbered_rows, read_text
from easeml_core.encoding import typed_record
from easeml_core.errors import InvalidInputError
from easeml_core.meter.dither import late_shift
from easeml_core.meter.meter import Answered, read_submission
from easeml_core.meter.overfitting_budget import budget_breach

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from easeml_core.config import MeterConfig
    from easeml_core.entities import JsonObject
    from easeml_core.meter.reading import Reading

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


def replay(history: Sequence[Submitted], *, examples: int, config: MeterConfig, seed: int = 0) -> Replay:
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

    Returns:
        The submissions, at least one.

    Raises:
        InvalidInputError: If the file cannot be read; says row (the header is row 1), column and value.
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
    name = texts["submission"]
    if not name:
        message = f"{where}, column submission: empty; give every submission a name or a number"
        raise InvalidInputError(message)
    numbered = name.isascii() and name.isdigit() and str(int(name[:18])) == name
    return Submitted(
        submission=int(name) if numbered else name,
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
