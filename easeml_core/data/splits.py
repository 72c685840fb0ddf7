"""Which row goes into which part: at random, by whole groups, or by time. Parts never share a row.

The sealed parts come first in every way: what is asked for them is what the guarantees of gate and meter need. How many
rows each part gets is decided in ``services/registration/sealing.py`` (``part_sizes``).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from easeml_core.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from easeml_core.data.split_spec import Split

Rows: TypeAlias = "dict[str, NDArray[np.intp]]"
"""Name of a part to the indices of its rows."""

TRAIN = "train"
_BEFORE_LAST = ("direct", "validation")


def divided(
    split: Split, values: NDArray[Any] | None, sizes: Mapping[str, int], rows: int, rng: np.random.Generator
) -> Rows:
    """The rows of every part."""
    if split.kind == "rows":
        return at_random(rows, sizes, rng)
    if values is None or len(values) != rows:
        message = f"split {str(split)!r} needs data with columns, such as csv:, parquet: or sql: sources"
        raise InvalidInputError(message)
    found = by_group(values, sizes, rng) if split.kind == "group" else by_time(values, sizes, rng)
    if not len(found[TRAIN]):
        counts = ", ".join(
            f"{name} {len(part):,} of {sizes[name]:,} wanted" for name, part in found.items() if name in sizes
        )
        what = "groups are" if split.kind == "group" else "times of many rows are"
        message = f"split {str(split)!r}: the {what} too large, no row is left for training ({counts}); bring more rows"
        raise InvalidInputError(message)
    return found


OPEN = ("validation", TRAIN)
"""Parts whose rows every role may read."""


def with_known(
    found: Rows,
    *,
    hidden: NDArray[np.bool_],
    shown: NDArray[np.bool_],
    split: Split,
    values: NDArray[Any] | None,
    rng: np.random.Generator,
) -> Rows:
    """The same parts, but rows that are sealed elsewhere lie in sealed parts, and rows open elsewhere in open ones.

    Divided by chance, such a row changes places with one that may lie anywhere, so that the sizes tell nothing of it.
    A group moves whole. By time the row moves alone.
    """
    sealed_parts = [name for name, rows in found.items() if name not in OPEN and len(rows)]
    part = np.full(len(hidden), list(found).index(TRAIN))
    for number, rows in enumerate(found.values()):
        part[rows] = number
    numbers = {name: number for number, name in enumerate(found)}
    is_open = np.isin(part, [numbers[name] for name in OPEN])
    target = numbers[sealed_parts[0]] if sealed_parts else numbers[TRAIN]
    if split.kind == "group" and values is not None:
        for group in np.unique(values[(hidden & is_open) | (shown & ~is_open)]):
            members = values == group
            part[members] = target if hidden[members].any() else numbers[TRAIN]
    else:
        for rows, free, home in (
            (np.flatnonzero(hidden & is_open), ~is_open & ~hidden, target),
            (
                np.flatnonzero(shown & (part != numbers[TRAIN])),
                (part == numbers[TRAIN]) & ~shown & ~hidden,
                numbers[TRAIN],
            ),
        ):
            others = rng.permutation(np.flatnonzero(free))[: len(rows) if split.kind == "rows" else 0]
            swapped = rows[: len(others)]
            part[swapped], part[others] = part[others], part[swapped]
            part[rows[len(others) :]] = home
    keep = np.ones(len(hidden), dtype=bool)
    keep[shown & ~np.isin(part, [numbers[name] for name in OPEN])] = False  # of a group that is sealed
    order = rng.permutation(len(hidden))
    return {name: order[(part[order] == number) & keep[order]] for name, number in numbers.items()}


def at_random(rows: int, sizes: Mapping[str, int], rng: np.random.Generator) -> Rows:
    """Exactly so many rows each, drawn uniformly."""
    ends = np.cumsum(list(sizes.values()))
    return dict(zip((*sizes, TRAIN), np.split(rng.permutation(rows), ends), strict=True))


def by_group(groups: NDArray[Any], sizes: Mapping[str, int], rng: np.random.Generator) -> Rows:
    """Whole groups in random order; each part takes groups until it has enough rows.

    Example:
        >>> found = by_group(np.repeat(np.arange(9), 2), {"gate": 3, "validation": 2}, np.random.default_rng(0))
        >>> {name: len(rows) for name, rows in found.items()}
        {'gate': 4, 'validation': 2, 'train': 12}
    """
    _, codes, counts = np.unique(groups, return_inverse=True, return_counts=True)
    order = rng.permutation(len(counts))
    ends, begin = np.cumsum(counts[order]), 0
    part_of_group = np.full(len(counts), len(sizes))
    for number, size in enumerate(sizes.values()):
        before = ends[begin - 1] if begin else 0
        end = begin if size == 0 else int(np.searchsorted(ends, before + size)) + 1
        part_of_group[order[begin:end]] = number
        begin = min(end, len(counts))
    part = part_of_group[codes]
    shuffled = rng.permutation(len(groups))  # rows of a group do not stand together
    return {name: shuffled[part[shuffled] == number] for number, name in enumerate((*sizes, TRAIN))}


def by_time(times: NDArray[Any], sizes: Mapping[str, int], rng: np.random.Generator) -> Rows:
    """Training first, then validation, then the sealed parts; parts of one window share its rows at random.

    The second meter's part is a hidden sample of what validation is, so it lies in that window. Rows of one time lie in
    one window.

    Example:
        >>> found = by_time(np.arange(10), {"gate": 2, "meter": 1, "validation": 2}, np.random.default_rng(0))
        >>> [sorted(found[name].tolist()) for name in ("train", "validation")]
        [[0, 1, 2, 3, 4], [5, 6]]
    """
    order = np.argsort(times, kind="stable")
    ordered, end = times[order], len(order)
    found: Rows = {}
    for window in ([n for n in sizes if n not in _BEFORE_LAST], [n for n in sizes if n in _BEFORE_LAST]):
        asked = {name: sizes[name] for name in window}
        begin = _begin(ordered, end, sum(asked.values()))
        places = at_random(end - begin, _stretched(asked, end - begin), rng)
        found |= {name: order[begin:end][places[name]] for name in window}
        end = begin
    return {name: found[name] for name in sizes} | {TRAIN: rng.permutation(order[:end])}


def group_numbers(column: NDArray[Any], name: str) -> NDArray[np.int64]:
    """A number for the group of each row."""
    _require_values(column, name, "group")
    values = np.array([str(word) for word in column]) if column.dtype == object else column
    return np.unique(values, return_inverse=True)[1].astype(np.int64)


def times_of(column: NDArray[Any], name: str) -> NDArray[np.float64]:
    """The time of each row as a number: numbers as they are, ISO 8601 text as seconds (UTC where it names no zone)."""
    _require_values(column, name, "time")
    if column.dtype != object:
        return column.astype(np.float64)
    seconds: dict[str, float] = {}
    for row, word in enumerate(column):
        if word not in seconds:
            seconds[word] = _seconds(str(word), name, row)
    return np.array([seconds[word] for word in column], dtype=np.float64)


def _seconds(word: str, name: str, row: int) -> float:
    try:
        found = datetime.fromisoformat(word)
    except ValueError:
        # The word is left out: an error must not show the content of a file.
        message = f"column {name!r} has in row {row + 1} a text that is no time; times are numbers or ISO 8601"
        raise InvalidInputError(message) from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _require_values(column: NDArray[Any], name: str, what: str) -> None:
    missing = column == None if column.dtype == object else ~np.isfinite(column)  # noqa: E711 - one by one
    if np.any(missing):
        row = int(np.argmax(missing)) + 1
        message = f"column {name!r} gives row {row} no {what} to split by; fill it, or leave the row out"
        raise InvalidInputError(message)


def _begin(ordered: NDArray[Any], end: int, size: int) -> int:
    """Where the last ``size`` rows before ``end`` begin, or earlier: with the first row of that time."""
    begin = max(0, end - size)
    return begin if begin == end else int(np.searchsorted(ordered, ordered[begin], side="left"))


def _stretched(sizes: Mapping[str, int], rows: int) -> dict[str, int]:
    """Sizes of the same shares that together are so many rows, none less than it was."""
    asked = sum(sizes.values())
    if not asked:
        return dict(sizes)
    more = rows - asked
    ends = np.cumsum(list(sizes.values())) * more // asked
    return {
        name: size + int(extra) for (name, size), extra in zip(sizes.items(), np.diff(ends, prepend=0), strict=True)
    }
