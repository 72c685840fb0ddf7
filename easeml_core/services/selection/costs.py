"""The error of cost predictions, on the costs of this installation or on a table of costs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from easeml_core.csv_text import numbered_rows, read_text
from easeml_core.entities import TrialState
from easeml_core.errors import InvalidInputError
from easeml_core.selection.costs.learn import CostReport, Measured, cost_report
from easeml_core.store.tables import studies, trials

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from easeml_core.store.database import Store


def report_costs(store: Store) -> CostReport:
    """Return the cost model's error on the studies of this installation, each predicted from the others.

    Trials that succeeded count, of all data versions, with the rows of their training part and their kind of device.
    Evaluations of an existing model are left out: they say nothing about the cost of training.
    """
    with store.begin() as tx:
        outcomes, rows = trials.outcomes(tx), studies.training_rows(tx)
    return cost_report(
        Measured(o.study_id, o.candidate, o.cost_seconds, o.device, rows.get(o.data_version_id))
        for o in outcomes
        if o.state == TrialState.SUCCEEDED and o.cost_seconds and o.reevaluates is None
    )


def report_cost_table(path: Path) -> CostReport:
    """Return the cost model's error on a table of costs: see ``read_costs``.

    Raises:
        InvalidInputError: The file cannot be read as such a table.
    """
    return cost_report(read_costs(path))


def read_costs(path: Path) -> list[Measured]:
    """Read costs from a CSV file with one row for each tenant and one column for each candidate.

    The first row names the columns, the first column the tenants; a cell is a number of seconds > 0, or empty where it
    is unknown. A tenant's ``study_id`` is the number of its row, from 0.

    Raises:
        InvalidInputError: With row, column and value of what is wrong.
    """

    def refused(what: str) -> InvalidInputError:
        return InvalidInputError(f"{path} {what}; give a CSV file in UTF-8 with one row per tenant")

    table = [row for _, row in numbered_rows(read_text(path, refused), refused) if row]
    if len(table) < 2 or len(table[0]) < 2:
        message = f"{path} must have a header row, a column of tenants, and at least one tenant and one candidate"
        raise InvalidInputError(message)
    names = table[0][1:]
    if len(set(names)) < len(names):
        message = f"{path}: every candidate must have one column; these names are repeated: " + ", ".join(
            sorted({name for name in names if names.count(name) > 1})
        )
        raise InvalidInputError(message)
    return [trial for i, row in enumerate(table[1:]) for trial in _read_row(path, i, row, names)]


def _read_row(path: Path, number: int, row: Sequence[str], names: Sequence[str]) -> list[Measured]:
    if len(row) != len(names) + 1:
        message = f"{path}, row {row[0]!r} has {len(row)} cells, the header has {len(names) + 1}"
        raise InvalidInputError(message)
    found = []
    for name, cell in zip(names, row[1:], strict=True):
        if cell.strip():
            found.append(Measured(number, name, _seconds(cell, f"{path}, row {row[0]!r}, column {name!r}")))
    return found


def _seconds(cell: str, place: str) -> float:
    try:
        seconds = float(cell)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        message = f"{place}: a cost must be a number of seconds > 0, or empty where it is unknown; got {cell!r}"
        raise InvalidInputError(message)
    return seconds
