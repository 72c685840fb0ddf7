"""Rows of a query that the referee's operator has written: read only, in time, in pieces, and within a bound.

PostgreSQL alone, since there a transaction can be made one that only reads, and a statement can be given an end.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from easeml_core.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

PIECE = 5_000
"""Rows that are asked for at once."""

MAX_CELLS = 20_000_000
MAX_COLUMNS = 2_000
MAX_CELL = 131_072
MAX_TEXT = 512 * 1024 * 1024
"""Characters of all text together."""

CONNECT_SECONDS = 10


@dataclass(frozen=True, slots=True)
class NamedQuery:
    """A query with a name, which a study may read.

    Attributes:
        name: What studies call it.
        url: Address of the database, password included; never shown.
        sql: One ``SELECT``.
        tenants: Whose studies may read it; empty for all.
        timeout_seconds: When it must have ended, > 0.
    """

    name: str
    url: str = field(repr=False)
    sql: str = field(repr=False)
    tenants: frozenset[str] = frozenset()
    timeout_seconds: float = 300.0


def query_lines(query: NamedQuery) -> Iterator[bytes]:
    """Yield a query's rows as lines of JSON, for ``columns_of_lines``: the columns' names, then some rows in each.

    So the rows can be brought to this machine by a process that never holds all of them.
    """
    engine = create_engine(_address(query), poolclass=NullPool, connect_args=_arguments(query))
    try:
        yield from _read(engine, query)
    except DBAPIError as error:
        code = str(getattr(error.orig, "pgcode", None) or "")
        reason = _REASONS.get(code, f"code {code}" if code else "the database cannot be reached")
        raise _refused(query, f"failed: {reason}") from None
    except SQLAlchemyError as error:
        raise _refused(query, f"failed: {type(error).__name__}") from None
    finally:
        engine.dispose()


def columns_of_lines(lines: Iterable[bytes]) -> dict[str, NDArray[Any]]:
    """The columns that a query has given, by name, in an order of rows that depends on nothing but the rows."""
    names, *pieces = map(_arrays, lines)
    columns = {str(name): _joined([piece[i] for piece in pieces]) for i, name in enumerate(names[0])}
    return _in_fixed_order(columns)


def _line(columns: Iterable[NDArray[Any]]) -> bytes:
    encoded = [["text" if column.dtype == object else "numbers", column.tolist()] for column in columns]
    return json.dumps(encoded, ensure_ascii=False).encode() + b"\n"


def _arrays(line: bytes) -> list[NDArray[Any]]:
    return [np.array(cells, object if kind == "text" else np.float64) for kind, cells in json.loads(line)]


_REASONS = {
    "57014": "it took too long",
    "25006": "it writes, and only reading is allowed",
    "42601": "it is no valid SELECT",
    "0A000": "it is no valid SELECT",
    "42501": "the database refuses it to this account",
    "28P01": "the database refuses the password",
}


def _address(query: NamedQuery) -> Any:
    try:
        url = make_url(query.url)
    except ArgumentError:
        raise _refused(query, "has an address that cannot be read") from None
    if url.get_backend_name() != "postgresql":
        raise _refused(query, f"has an address of {url.get_backend_name()}; PostgreSQL is what can be read")
    return url.set(drivername="postgresql+psycopg2")


def _arguments(query: NamedQuery) -> dict[str, object]:
    milliseconds = max(1, int(1000 * query.timeout_seconds))
    options = f"-c default_transaction_read_only=on -c statement_timeout={milliseconds} -c timezone=UTC"
    return {"connect_timeout": CONNECT_SECONDS, "options": options, "application_name": "easeml referee"}


def _read(engine: Any, query: NamedQuery) -> Iterator[bytes]:
    deadline, cells, letters, count = time.monotonic() + query.timeout_seconds, 0, 0, 0
    with engine.connect().execution_options(postgresql_readonly=True, stream_results=True) as tx:
        result = tx.exec_driver_sql(query.sql)  # as it stands: a colon in it names no parameter
        names = [str(name).strip() for name in result.keys()]  # noqa: SIM118 - a result is no mapping
        _check_names(query, names)
        yield _line([np.array(names, object)])
        for rows in result.partitions(PIECE):
            if time.monotonic() > deadline:
                raise _refused(query, f"took longer than {query.timeout_seconds:g} s")
            cells += len(rows) * len(names)
            if cells > MAX_CELLS:
                raise _refused(query, f"gives more than {MAX_CELLS:,} cells")
            columns = [_column(query, number, cells_) for number, cells_ in enumerate(zip(*rows, strict=True), start=1)]
            letters += sum(len(word) for column in columns if column.dtype == object for word in column if word)
            if letters > MAX_TEXT:
                raise _refused(query, f"gives more than {MAX_TEXT:,} characters")
            count += len(rows)
            yield _line(columns)
    if count < 2:
        raise _refused(query, "gives fewer than 2 rows")


def _check_names(query: NamedQuery, names: Sequence[str]) -> None:
    if len(names) > MAX_COLUMNS:
        raise _refused(query, f"gives more than {MAX_COLUMNS:,} columns")
    if "" in names or len(set(names)) < len(names):
        raise _refused(query, "gives columns without a name, or two of one name; name them with AS")


def _column(query: NamedQuery, number: int, cells: Sequence[Any]) -> NDArray[Any]:
    """Some cells of one column."""
    kinds = {type(cell) for cell in cells if cell is not None}
    if all(issubclass(kind, bool | int | float | Decimal) for kind in kinds):
        numbers = np.array([np.nan if cell is None else _number(cell) for cell in cells], dtype=np.float64)
        return numbers
    words = [None if cell is None else _word(cell) for cell in cells]
    if any(word is not None and len(word) > MAX_CELL for word in words):
        raise _refused(query, f"gives in column {number} a cell of more than {MAX_CELL:,} characters")
    if None in {word for word, cell in zip(words, cells, strict=True) if cell is not None}:
        other = next(kind.__name__ for kind in kinds if not hasattr(kind, "isoformat") and kind is not str)
        raise _refused(query, f"gives in column {number} values of type {other}; allowed: numbers, text, dates, times")
    return np.array([word or None for word in words], dtype=object)


def _number(cell: Any) -> float:
    try:
        return float(cell)
    except OverflowError:
        return np.inf  # refused with the row that it is in, where infinite numbers are


def _word(cell: Any) -> str | None:
    if isinstance(cell, str):
        return cell.strip()
    return str(cell.isoformat()) if hasattr(cell, "isoformat") else None


def _joined(pieces: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """A whole column; one that is text anywhere is text everywhere."""
    if all(piece.dtype != object for piece in pieces) or all(piece.dtype == object for piece in pieces):
        return np.concatenate(pieces)
    return np.concatenate([piece if piece.dtype == object else _as_words(piece) for piece in pieces])


def _as_words(numbers: NDArray[np.float64]) -> NDArray[Any]:
    return np.array([None if np.isnan(n) else f"{n:g}" for n in numbers], dtype=object)


def _in_fixed_order(columns: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The rows sorted by all columns: a database gives them in whatever order it likes.

    Which rows are sealed follows from the content; a repetition after a crash must find the same.
    """
    keys = [_ranks(column) for column in columns.values()]
    order = np.lexsort(keys[::-1])
    return {name: column[order] for name, column in columns.items()}


def _ranks(column: NDArray[Any]) -> NDArray[Any]:
    if column.dtype != object:
        return column  # NaN comes last
    rank = {word: number for number, word in enumerate(sorted({word for word in column if word is not None}))}
    return np.array([rank.get(word, -1) for word in column], dtype=np.int64)


def _refused(query: NamedQuery, what: str) -> InvalidInputError:
    return InvalidInputError(f"source 'sql:{query.name}': the query {what}")
