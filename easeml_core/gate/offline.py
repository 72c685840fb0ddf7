"""A verdict without a database, from three CSV files: what a plain CI job calls.

The order of the old model's file is the set's order: it must be random, and fixed before the labels are known, where
``early`` stops on the way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.config import require
from easeml_core.errors import InvalidInputError, counted
from easeml_core.gate.csv_columns import Column, read_column, some
from easeml_core.gate.wanted import Wanted
from easeml_core.stats.adaptivity import allocate

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from easeml_core.gate.decision import Decision


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """Labels and predictions of one set, as class numbers.

    Attributes:
        examples: Names, in the set's order.
        labels: Shape ``(n_examples,)``; -1 where the labels' file has no row.
        old: Same shape.
        new: Same shape.
    """

    examples: list[str]
    labels: NDArray[np.int64]
    old: NDArray[np.int64]
    new: NDArray[np.int64]


def read_predictions(labels: Path | None, old: Path, new: Path) -> Predictions:
    """Read labels and the predictions of both models.

    Args:
        labels: CSV with the columns ``example,label``; may lack examples. None where no label is needed.
        old: CSV with the columns ``example,prediction``; its order is the set's.
        new: The same of the new model, in any order.

    Returns:
        The classes, which are compared as texts, numbered.

    Raises:
        InvalidInputError: If a file is broken, the examples of the files do not match, or no class of the labels is
            ever predicted, as when one file says ``1`` and another ``1.0``.
    """
    before = read_column(old, "prediction")
    after = read_column(new, "prediction", like=before)
    classes: dict[str, int] = {}
    old_codes, new_codes = _codes(before.values, classes), _codes(after.values, classes)
    new_codes = _in_order(after, new_codes, before)
    truth = np.full(len(before.examples), -1, dtype=np.int64)
    if labels is not None:
        given = read_column(labels, "label", like=before)
        predicted = len(classes)
        codes = _codes(given.values, classes)
        if (codes >= predicted).all():
            seen = f"labels such as {some(set(given.values))}, predictions such as {some(list(classes)[:predicted])}"
            message = f"no label is ever predicted: {seen}; classes are compared as texts"
            raise InvalidInputError(message)
        truth[_known_positions(given, before)] = codes
    return Predictions(before.examples, truth, old_codes, new_codes)


def read_slice_names(path: Path, examples: list[str]) -> list[str]:
    """Read the slice of every example from a CSV file with the columns ``example,slice``; "" where it has none."""
    order = Column("", "", examples, [])
    given = read_column(path, "slice", like=order)
    names = [""] * len(examples)
    for position, name in zip(_known_positions(given, order).tolist(), given.values, strict=True):
        names[position] = name
    return names


def log_level_of(*, reliability: float, adaptivity: str, steps: int, step: int | None, passes: int) -> float:
    """Give ln alpha of one test of a set, as its adaptivity allots it.

    Args:
        reliability: 1 - delta, in (0, 1).
        adaptivity: ``none``, ``full``, ``firstChange``, ``upTo:K`` or ``recycle``.
        steps: H >= 1.
        step: Which test of the set this is, 1 to H; None where nobody keeps count.
        passes: Changes (passes under fp-free, fails under fn-free) at earlier steps; matters to ``recycle``, and to
            ``firstChange`` and ``upTo:K``, which end the set.

    Raises:
        ConfigError: If an argument is outside its range, or the set has served.

    Example:
        >>> round(log_level_of(reliability=0.9999, adaptivity="none", steps=32, step=1, passes=0), 3)
        -12.676
    """
    require(0 < reliability < 1, "reliability", reliability, "> 0 and < 1")
    allocation = allocate(adaptivity, steps)
    require(step is None or 1 <= step <= steps, "step", step, f"1 to {steps}; further steps need a new set")
    before = steps - 1 if step is None else step - 1
    require(0 <= passes <= before, "passes", passes, f"0 to {before}, the number of earlier steps")
    return math.log1p(-reliability) - allocation.log_multiplicity(passes)


def report(decision: Decision) -> dict[str, Any]:
    """The referee's report as plain JSON; the interval is that of n - o where a clause is about it, else the first."""
    shown = next((c for c in decision.clauses if c.quantity == "n - o"), decision.clauses[0])
    full = decision.to_json()
    return {
        "verdict": full["verdict"],
        "released": "pass" if decision.passed else "fail",
        "examples": full["examples"],
        "wins": full["wins"],
        "losses": full["losses"],
        "disagreements": full["disagreements"],
        "labels": full["labels"],
        "level": math.exp(decision.log_level),
        "log_level": decision.log_level,
        "mode": full["mode"],
        "interval": list(shown.interval),
        "clauses": full["clauses"],
        "slices": full["slices"],
    }


def decided(found: Decision | Wanted, examples: list[str], source: str) -> Decision:
    """The decision, or an error that names the examples whose labels it lacks."""
    if not isinstance(found, Wanted):
        return found
    names = some(examples[i] for i in found.positions.tolist())
    count = found.positions.size
    message = f"{source} lacks {counted(count, 'label')} that the verdict needs next: {names}"
    raise InvalidInputError(message)


def _codes(values: list[str], classes: dict[str, int]) -> NDArray[np.int64]:
    """Number the classes; new ones are added to ``classes``."""
    for value in dict.fromkeys(values):
        classes.setdefault(value, len(classes))
    return np.fromiter(map(classes.__getitem__, values), dtype=np.int64, count=len(values))


def _in_order(column: Column, codes: NDArray[np.int64], order: Column) -> NDArray[np.int64]:
    """Bring a column's codes into the order of another file, which must have the same examples."""
    positions = _positions(column, order)
    hit = np.zeros(len(order.examples), dtype=np.bool_)
    hit[positions[positions >= 0]] = True
    if (positions < 0).any() or not hit.all():
        missing, strange = np.flatnonzero(~hit).tolist(), np.flatnonzero(positions < 0).tolist()
        parts = [f"{column.source} lacks {some(order.examples[i] for i in missing)}"] if missing else []
        parts += [f"{order.source} lacks {some(column.examples[i] for i in strange)}"] if strange else []
        message = f"both models must have a prediction for every example; {'; '.join(parts)}"
        raise InvalidInputError(message)
    ordered = np.empty_like(codes)
    ordered[positions] = codes
    return ordered


def _known_positions(column: Column, order: Column) -> NDArray[np.int64]:
    """Where the examples of a column stand in the set's order, all of which must be there."""
    positions = _positions(column, order)
    strange = np.flatnonzero(positions < 0).tolist()
    if strange:
        message = f"{column.source} has examples without a prediction: {some(column.examples[i] for i in strange)}"
        raise InvalidInputError(message)
    return positions


def _positions(column: Column, order: Column) -> NDArray[np.int64]:
    """Where the examples of a column stand in the set's order, -1 for those that do not."""
    if column.examples is order.examples:
        return np.arange(len(order.examples))
    places = {example: place for place, example in enumerate(order.examples)}
    found = map(places.get, column.examples, repeat(-1))
    return np.fromiter(found, dtype=np.int64, count=len(column.examples))
