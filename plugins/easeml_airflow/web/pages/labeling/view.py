"""What the labelling desk shows of one example: a picture, lines over time, or names with values."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from easeml_airflow.web.components.charts import Axis, Line, Plot
from easeml_airflow.web.png import data_uri
from easeml_core.data.columns import text_column_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from easeml_core.services.labeling.desk import DeskExample
    from easeml_core.store.tables.labels import ExampleLayout

MOST_PAIRS = 200
MOST_LINES = 8
LONG_TEXT = 80
"""Characters from which a cell is text to read, not a value."""

KEYS = 10
"""Classes that have a key: 1 to 9, and 0 for the tenth."""


@dataclass(frozen=True, slots=True)
class Series:
    """One channel of a series: a line, and the range of its values."""

    name: str
    low: str
    high: str
    plot: Plot


@dataclass(frozen=True, slots=True)
class Specimen:
    """One example as people see it; what does not apply is empty.

    Attributes:
        picture: Address that holds the picture.
        sentence: What the picture is, for who cannot see it.
        series: Lines over time.
        texts: Names and texts to read.
        pairs: Names and values.
        left_out: Pairs that there is no room for.
    """

    picture: str = ""
    sentence: str = ""
    series: Sequence[Series] = ()
    texts: Sequence[tuple[str, str]] = ()
    pairs: Sequence[tuple[str, str]] = ()
    left_out: int = 0


def specimen_of(example: DeskExample, layout: ExampleLayout | None) -> Specimen:
    """The example on the desk, by what its numbers stand for."""
    values = np.array([np.nan if value is None else value for value in example.inputs], dtype=np.float32)
    if layout is not None and layout.kind == "image":
        height, width, channels = layout.shape
        sentence = f"Example {example.example}: picture of {height} by {width} pixels"
        return Specimen(picture=data_uri(values.reshape(height, width, channels)), sentence=sentence)
    if layout is not None and layout.kind == "series":
        return Specimen(series=list(_lines(values.reshape(layout.shape))))
    cells = example.cells or _decoded(example.columns, values)
    texts = [(name, text) for name, text in cells if len(text) > LONG_TEXT]
    pairs = [(name, text or "missing") for name, text in cells if len(text) <= LONG_TEXT]
    return Specimen(texts=texts, pairs=pairs[:MOST_PAIRS], left_out=max(0, len(pairs) - MOST_PAIRS))


def _lines(steps: NDArray[np.float32]) -> Iterator[Series]:
    """The channels of a series, shape (steps, channels), without the steps after its end."""
    for channel in range(min(steps.shape[1], MOST_LINES)):
        values = steps[:, channel]
        points = [(float(place), float(value)) for place, value in enumerate(values) if np.isfinite(value)]
        low, high = min((y for _, y in points), default=0.0), max((y for _, y in points), default=0.0)
        axes = Axis(0, max(len(values) - 1, 1)), Axis(low, high if high > low else low + 1)
        plot = Plot("", "", *axes, lines=[Line(points)])
        yield Series(f"channel {channel + 1}, {len(points):,} steps", f"{low:g}", f"{high:g}", plot)


def _decoded(columns: Sequence[str] | None, values: NDArray[np.float32]) -> list[tuple[str, str]]:
    """Names and values as they were before words became columns of 0 and 1.

    Example:
        >>> _decoded(["carat", "color=E", "color=F"], np.array([0.3, 0, 1], dtype=np.float32))
        [('carat', '0.3'), ('color', 'F')]
    """
    names = columns or [f"x{place}" for place in range(1, len(values) + 1)]
    shown = []
    for name, group in groupby(zip(names, values, strict=True), key=lambda pair: _origin(pair[0])):
        cells = list(group)
        if "=" in cells[0][0]:
            shown.append((name, _word(cells)))
        elif text_column_of(cells[0][0]) and len(cells) > 1:
            shown.append((name, "text that was not kept, only numbers made of it"))
        else:
            shown += [(column, "" if np.isnan(value) else f"{value:.6g}") for column, value in cells]
    return shown


def _origin(column: str) -> str:
    """The column of the file that an encoded column was made of."""
    return text_column_of(column) or column.partition("=")[0]


def _word(cells: Sequence[tuple[str, np.float32]]) -> str:
    said = [column.partition("=")[2] for column, value in cells if value == 1]
    return said[0] if said else "missing or rare"
