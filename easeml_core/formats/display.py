"""What people see of results outside the pages: plots, tables in notebooks, and spans of time as text.

Tables are escaped HTML, and pandas DataFrames where pandas is installed. Plots of different systems share one look, use
no display, raise errors before the work begins, and need matplotlib. A plot reads without a caption: its title is what
was found, a small line at the foot says how, and lines and bars carry their names and figures themselves.
"""

from __future__ import annotations

import io
import textwrap
from dataclasses import dataclass, fields
from enum import Enum
from html import escape
from typing import TYPE_CHECKING, Any

from easeml_core.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta
    from pathlib import Path


def data_frame_class() -> Any:
    """Return ``pandas.DataFrame``."""
    try:
        from pandas import DataFrame
    except ImportError as error:
        message = f"a table as a DataFrame needs pandas ({error}); install it with: pip install pandas"
        raise InvalidInputError(message) from error
    return DataFrame


def data_frame(rows: Sequence[Mapping[str, object]], columns: Sequence[str] = ()) -> Any:
    """Return a pandas DataFrame.

    Example:
        >>> data_frame([{"labels": 3}, {"labels": 4}])["labels"].tolist()
        [3, 4]
    """
    names = list(columns or (rows[0] if rows else ()))
    return data_frame_class()([dict(row) for row in rows], columns=names)


def data_series(values: Sequence[object], *, index: Any, name: str) -> Any:
    """Return a pandas Series with the index of the rows that it answers."""
    return data_frame_class()({name: list(values)}, index=index)[name]


def frame_of_records(records: Sequence[Any], kind: type) -> Any:
    """Return a pandas DataFrame of dataclasses: a column for each field, also where there are no records."""
    names = [field.name for field in fields(kind)]
    rows = [{name: _text_of_word(getattr(record, name)) for name in names} for record in records]
    return data_frame(rows, names)


def _text_of_word(value: object) -> object:
    return value.value if isinstance(value, Enum) else value


def html_table(title: str, columns: Mapping[str, str], rows: Sequence[Mapping[str, object]]) -> str:
    """Return an HTML table; every text is escaped, since names are users'.

    Example:
        >>> html_table("", {"Name": "name"}, [{"name": "<b>"}]).count("&lt;b&gt;")
        1
    """
    caption = f'<caption style="caption-side: top; text-align: left">{escape(title)}</caption>' if title else ""
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join("<tr>" + "".join(_cell(row.get(key)) for key in columns.values()) + "</tr>" for row in rows)
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def html_page(*parts: str, notes: Sequence[str] = ()) -> str:
    """Return parts of HTML with a list of notes, which are escaped."""
    lines = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return "".join(("<div>", *parts, f"<ul>{lines}</ul>" if lines else "", "</div>"))


def _cell(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f'<td style="text-align: right">{value:,}</td>'
    if isinstance(value, float):
        text = f"{value:.4f}" if abs(value) <= 1 else f"{value:,.1f}"
        return f'<td style="text-align: right">{text}</td>'
    return f'<td style="text-align: left">{escape("-" if value is None or value == "" else str(value))}</td>'


SUFFIXES = (".png", ".svg", ".pdf")
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")
"""Okabe and Ito's palette, which colour-blind people can tell apart; dashes tell further lines apart."""
CHOSEN, OTHER = COLOURS[0], "#b8c4cc"
_TITLE_WIDTH, _NOTE_WIDTH, _NAME_WIDTH = 78, 120, 44
_BAR_INCHES, _EDGE_INCHES = 0.42, 1.6


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar.

    Attributes:
        name: What it stands for; long ones are broken into lines.
        value: Its length, >= 0.
        chosen: Whether it is the one that was asked about.
        note: Behind the figure, such as ``in all``.
    """

    name: str
    value: int
    chosen: bool = False
    note: str = ""


def check_plot(path: Path) -> None:
    """See that a plot can be written there, before long work begins."""
    if path.suffix.lower() not in SUFFIXES:
        message = f"a plot's name must end in one of {', '.join(SUFFIXES)}, got {path.name!r}"
        raise InvalidInputError(message)
    if not path.parent.is_dir():
        message = f"a plot cannot be written to {path}: there is no folder {path.parent}; make it first"
        raise InvalidInputError(message)
    empty_figure()


def empty_figure(*, height: float = 5.0, grid: bool = True) -> tuple[Any, Any]:
    """An empty figure, 8 by ``height`` inches, and its axes, without any window."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        message = f"a plot needs matplotlib ({error}); install it with: pip install 'easeml-airflow[plot]'"
        raise InvalidInputError(message) from error

    class ShownFigure(Figure):
        """A figure that a notebook shows without pyplot, whose formatters IPython knows only once it is imported."""

        def _repr_png_(self) -> bytes:
            picture = io.BytesIO()
            self.savefig(picture, format="png", dpi=100)
            return picture.getvalue()

    figure = ShownFigure(figsize=(8, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    if grid:
        axes.grid(visible=True, which="major", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def save_figure(figure: Any, path: Path) -> None:
    """Write the figure."""
    try:
        figure.savefig(path)
    except OSError as error:
        message = f"the plot cannot be written to {path}: {error.strerror or error}; give another --plot"
        raise InvalidInputError(message) from error


def entitle(figure: Any, finding: str, how: str) -> None:
    """Write what was found as the title, and how in small letters at the foot."""
    figure.suptitle(textwrap.fill(finding, _TITLE_WIDTH), x=0.01, ha="left", fontsize=12, fontweight="bold")
    figure.supxlabel(textwrap.fill(how, _NOTE_WIDTH), x=0.01, ha="left", fontsize=9, color="#555555")


def draw_bars(bars: Sequence[Bar], *, unit: str, finding: str, how: str) -> Any:
    """Horizontal bars, shortest first, each with its name on the left and its figure behind it."""
    shown = sorted(bars, key=lambda bar: bar.value)
    lines = sum(_named(bar).count("\n") for bar in shown)
    figure, axes = empty_figure(height=_EDGE_INCHES + _BAR_INCHES * len(shown) + 0.14 * lines, grid=False)
    places = range(len(shown))
    colours = [CHOSEN if bar.chosen else OTHER for bar in shown]
    axes.barh(places, [bar.value for bar in shown], color=colours, height=0.7)
    for place, bar in zip(places, shown, strict=True):
        weight = "bold" if bar.chosen else "normal"
        text = f"{bar.value:,}" + (f" {bar.note}" if bar.note else "")
        behind = {"xytext": (4, 0), "textcoords": "offset points", "va": "center"}
        axes.annotate(text, (bar.value, place), fontweight=weight, **behind)
    axes.set_yticks(places, [_named(bar) for bar in shown])
    for label, bar in zip(axes.get_yticklabels(), shown, strict=True):
        label.set_fontweight("bold" if bar.chosen else "normal")
    axes.invert_yaxis()
    axes.margins(x=0.16)
    axes.set_xlim(left=0)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlabel(unit)
    entitle(figure, finding, how)
    return figure


def _named(bar: Bar) -> str:
    return textwrap.fill(bar.name, _NAME_WIDTH)


_UNITS = ((7200.0, 3600.0, "hour"), (120.0, 60.0, "minute"))
"""From so many seconds on, the unit and its seconds; below, a second."""


def device_time(seconds: float, *, of: float | None = None) -> str:
    """Device time, >= 0, with its unit; where it is a part of something, both in the unit of the larger.

    Example:
        >>> device_time(5220), device_time(86_400, of=86_400), device_time(2.5, of=2.5), device_time(1)
        ('87 device-minutes', '24 of 24 device-hours', '2.5 of 2.5 device-seconds', '1 device-second')
        >>> device_time(30, of=86_400)
        'under 0.1 of 24 device-hours'
    """
    largest = max(seconds, of or 0.0)
    size, unit = next(((size, unit) for least, size, unit in _UNITS if largest >= least), (1.0, "second"))
    numbers = [_number(seconds / size), *([] if of is None else [_number(of / size)])]
    return " of ".join([*numbers[:-1], with_unit(numbers[-1], f"device-{unit}")])


def with_unit(number: str, unit: str) -> str:
    """Return a number as it is shown with its unit, given in the singular: in the plural unless the number reads 1.

    Example:
        >>> with_unit("1", "device-hour"), with_unit("1.5", "device-hour")
        ('1 device-hour', '1.5 device-hours')
    """
    return f"{number} {unit}{'' if number == '1' else 's'}"


def _number(amount: float) -> str:
    """One digit behind the point where it counts; some is never told as none."""
    return "under 0.1" if 0 < amount < 0.05 else f"{amount:,.1f}".removesuffix(".0")


def span(time: timedelta) -> str:
    """Return a span of time in its largest unit."""
    seconds = time.total_seconds()
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds:.0f} s"
