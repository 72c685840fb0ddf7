"""Small bridges between SQL and values: JSON in, arrays in and out, one row or an error."""

from __future__ import annotations

import io
import json
import re
from dataclasses import is_dataclass
from enum import Enum
from functools import cache, lru_cache, partial
from types import UnionType
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_type_hints

import numpy as np
from sqlalchemy import text

from easeml_core.errors import InvalidInputError
from easeml_core.formats.encoding import from_json

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from numpy.typing import NDArray
    from sqlalchemy import Connection, Row

    from easeml_core.entities import JsonObject


_ESCAPED_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")


T = TypeVar("T")

_text = lru_cache(maxsize=512)(text)
"""Looking for the parameters of a long statement takes longer than a short statement itself."""


def rows(tx: Connection, sql: str, **values: Any) -> Sequence[Row[Any]]:
    """All rows of a query with named parameters."""
    return tx.execute(_text(sql), values).all()


def row(tx: Connection, sql: str, **values: Any) -> Row[Any] | None:
    """The first row of a query, or None."""
    return tx.execute(_text(sql), values).first()


def records(tx: Connection, kind: type[T], sql: str, /, **values: Any) -> list[T]:
    """Return all rows of a query as frozen dataclasses (ADR 0027)."""
    types = _decoded(kind)  # type: ignore[arg-type]  # mypy 11470: a class is hashable
    found = tx.execute(_text(sql), values).mappings()
    return [kind(**{n: types[n](v) if n in types and v is not None else v for n, v in r.items()}) for r in found]


def record(tx: Connection, kind: type[T], sql: str, /, **values: Any) -> T | None:
    """Return the first row of a query as a frozen dataclass, or None; see ``records``."""
    return next(iter(records(tx, kind, sql, **values)), None)


@cache
def _decoded(kind: Hashable) -> dict[str, Callable[[Any], Any]]:
    """Return how the columns of fields are read that hold an enum ``E`` or a dataclass ``D``, or ``E | None``."""
    found: dict[str, Callable[[Any], Any]] = {}
    for name, hint in get_type_hints(kind).items():
        for option in get_args(hint) if isinstance(hint, UnionType) else (hint,):
            if isinstance(option, type) and issubclass(option, Enum):
                found[name] = option
            elif isinstance(option, type) and is_dataclass(option):
                found[name] = partial(from_json, kind=option)
    return found


def scalar(tx: Connection, sql: str, **values: Any) -> Any:
    """The first column of the first row, or None."""
    return tx.execute(_text(sql), values).scalar()


def change(tx: Connection, sql: str, **values: Any) -> int:
    """Run a statement; how many rows it touched."""
    return int(tx.execute(_text(sql), values).rowcount)


def as_json(value: JsonObject | Sequence[Any]) -> str:
    """Strict JSON for a jsonb column, with the characters that PostgreSQL cannot store replaced."""
    try:
        dumped = json.dumps(value, allow_nan=False, sort_keys=True, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        message = f"only finite numbers, words, lists and mappings can be stored as JSON: {error}"
        raise InvalidInputError(message) from error
    return clean(_ESCAPED_NUL.sub(r"\1\\ufffd", dumped))


def clean(words: str) -> str:
    """Text that a column can hold: a process may print any bytes, PostgreSQL has neither NUL nor half a character."""
    return words.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


_USUAL_BYTES = 4 * 1996
"""Of a value and its filler together: four of the pieces in which PostgreSQL stores what it moves out of a row."""

_LEAST_BYTES = 128


def filler(size: str) -> str:
    """Return SQL for the zero bytes that are stored beside a value which follows from sealed labels.

    With them the value is moved out of its row whatever it says, and takes as much room as other usual ones
    (``migrations/initial/ledger.sql``).
    """
    return f"decode(repeat('00', greatest({_LEAST_BYTES}, {_USUAL_BYTES} - {size})), 'hex')"


def pack(array: NDArray[Any]) -> bytes:
    """An array as ``.npy`` bytes; object arrays are refused, so that nothing is ever pickled."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def unpack(data: bytes | memoryview) -> NDArray[Any]:
    """The array of ``pack``."""
    return np.asarray(np.load(io.BytesIO(bytes(data)), allow_pickle=False))
