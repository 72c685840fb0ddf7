"""Tables of results in notebooks: escaped HTML, and pandas DataFrames where pandas is installed."""

from __future__ import annotations

from dataclasses import fields
from enum import Enum
from html import escape
from typing import TYPE_CHECKING, Any

from easeml_core.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def data_frame_class() -> Any:
    """Return ``pandas.DataFrame``.

    Raises:
        InvalidInputError: pandas is not installed.
    """
    try:
        from pandas import DataFrame
    except ImportError as error:
        message = f"a table as a DataFrame needs pandas ({error}); install it with: pip install pandas"
        raise InvalidInputError(message) from error
    return DataFrame


def data_frame(rows: Sequence[Mapping[str, object]], columns: Sequence[str] = ()) -> Any:
    """Return a pandas DataFrame.

    Args:
        rows: One mapping for each row, with the same keys.
        columns: The columns where there may be no rows; empty for the keys of the first row.

    Raises:
        InvalidInputError: pandas is not installed.

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
    """Return a pandas DataFrame of dataclasses: a column for each field, also where there are no records.

    Args:
        records: Of the class ``kind``; a word of an enumeration becomes a text.
        kind: The dataclass.

    Raises:
        InvalidInputError: pandas is not installed.
    """
    names = [field.name for field in fields(kind)]
    rows = [{name: _text_of_word(getattr(record, name)) for name in names} for record in records]
    return data_frame(rows, names)


def _text_of_word(value: object) -> object:
    return value.value if isinstance(value, Enum) else value


def html_table(title: str, columns: Mapping[str, str], rows: Sequence[Mapping[str, object]]) -> str:
    """Return an HTML table; every text is escaped, since names are users'.

    Args:
        title: Its caption; empty for none.
        columns: Heading to the key in each row.
        rows: The rows.

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
