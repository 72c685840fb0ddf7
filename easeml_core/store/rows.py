"""Small bridges between SQL and values: JSON in, arrays in and out, one row or an error."""

from __future__ import annotations

import io
import json
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import text

from easeml_core.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from sqlalchemy import Connection, Row


_ESCAPED_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")


_text = lru_cache(maxsize=512)(text)
"""Looking for the parameters of a long statement takes longer than a short statement itself."""


def rows(tx: Connection, sql: str, **values: Any) -> Sequence[Row[Any]]:
    """All rows of a query with named parameters."""
    return tx.execute(_text(sql), values).all()


def row(tx: Connection, sql: str, **values: Any) -> Row[Any] | None:
    """The first row of a query, or None."""
    return tx.execute(_text(sql), values).first()


def scalar(tx: Connection, sql: str, **values: Any) -> Any:
    """The first column of the first row, or None."""
    return tx.execute(_text(sql), values).scalar()


def change(tx: Connection, sql: str, **values: Any) -> int:
    """Run a statement; how many rows it touched."""
    return int(tx.execute(_text(sql), values).rowcount)


def as_json(value: Mapping[str, Any] | Sequence[Any]) -> str:
    """Strict JSON for a jsonb column, with the characters that PostgreSQL cannot store replaced.

    Raises:
        InvalidInputError: A value is NaN or infinite, or of a kind that JSON does not have.
    """
    try:
        dumped = json.dumps(value, allow_nan=False, sort_keys=True, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        message = f"only finite numbers, words, lists and mappings can be stored as JSON: {error}"
        raise InvalidInputError(message) from error
    return clean(_ESCAPED_NUL.sub(r"\1\\ufffd", dumped))


def clean(words: str) -> str:
    """Text that a column can hold: a process may print any bytes, PostgreSQL has neither NUL nor half a character."""
    return words.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def pack(array: NDArray[Any]) -> bytes:
    """An array as ``.npy`` bytes; object arrays are refused, so that nothing is ever pickled."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def unpack(data: bytes | memoryview) -> NDArray[Any]:
    """The array of ``pack``."""
    return np.asarray(np.load(io.BytesIO(bytes(data)), allow_pickle=False))
