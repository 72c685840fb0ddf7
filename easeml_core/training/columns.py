"""From columns of text and numbers to a table: numbers stay, words become one column each, the target becomes classes.

Nothing here looks at a label to encode an input: encoding a whole data set tells no part of another's labels.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from easeml_core.errors import InvalidInputError
from easeml_core.training.raw_table import MAX_CELLS, MAX_CLASSES, RawTable, make_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray


Column: TypeAlias = "NDArray[Any]"
"""float64 with NaN for missing, or object: text with None for missing."""

MAX_CATEGORIES = 32
_MISSING = frozenset({"", "NA", "N/A", "NaN", "nan", "null", "NULL"})
_THRESHOLD = re.compile(r"\s*(?P<column>.+?)\s*>\s*(?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)\s*")


def column_of_texts(texts: Iterable[str]) -> Column:
    """A column from text cells: numbers if every cell that is not missing is one, else text.

    Example:
        >>> column_of_texts(["1", "", "2.5"]).tolist()
        [1.0, nan, 2.5]
        >>> column_of_texts(["1", "NA", "red"]).tolist()
        ['1', None, 'red']
    """
    cells = [None if text.strip() in _MISSING else text.strip() for text in texts]
    try:
        return np.array([math.nan if cell is None else _number(cell) for cell in cells], dtype=np.float64)
    except ValueError:
        return np.array(cells, dtype=object)


def table_of_columns(columns: Mapping[str, Column], target: str) -> RawTable:
    """A table from named columns.

    Numeric columns are kept, NaN for missing. A text column becomes one 0/1 column for each of its 32 most frequent
    words; rarer words and missing ones are zeros. Rows without target are dropped.

    Args:
        columns: Name to column, all of one length.
        target: Name of the column to predict, or ``NAME>NUMBER`` for the two classes of a numeric column.

    Raises:
        InvalidInputError: If the target is not a column, has too many values, or no other column is left.

    Example:
        >>> columns = {"x": np.array([1.0, 2.0, 3.0]), "price": np.array([5.0, 50.0, 500.0])}
        >>> table_of_columns(columns, "price>20").class_names
        ('price <= 20', 'price > 20')
    """
    name, labels, class_names = _classes_of(columns, target)
    present = labels >= 0
    names: list[str] = []
    blocks: list[NDArray[np.float32]] = []
    for column_name, column in columns.items():
        if column_name != name:
            block_names, block = _encode(column_name, column[present])
            names += block_names
            blocks.append(block)
            _check_size(int(present.sum()), len(names))
    if not names:
        message = f"no column is left beside the target {name!r}; at least one is needed to learn from"
        raise InvalidInputError(message)
    return make_table(
        np.column_stack(blocks), labels[present], class_names=class_names, feature_names=tuple(names), image_shape=None
    )


def _number(cell: str) -> float:
    # float() takes "1_000" and "infinity" as numbers; in a table they are words.
    if "_" in cell or cell.strip("+-").lower() in ("inf", "infinity", "nan"):
        raise ValueError(cell)
    return float(cell)


def _check_size(rows: int, features: int) -> None:
    if rows * features > MAX_CELLS:
        message = (
            f"the table has more than {MAX_CELLS:,} cells ({rows:,} rows, over {features:,} columns after words became "
            f"columns); leave out columns of many words"
        )
        raise InvalidInputError(message)


def _encode(name: str, column: Column) -> tuple[list[str], NDArray[np.float32]]:
    """Names and values, shape (rows, n), of what one column becomes."""
    if column.dtype != object:
        with np.errstate(over="ignore"):  # make_table refuses what became infinite
            return [name], column.astype(np.float32)[:, None]
    counts = Counter(word for word in column if word is not None)
    words = sorted(counts, key=lambda word: (-counts[word], word))[:MAX_CATEGORIES]
    block = np.column_stack([column == word for word in words]) if words else np.zeros((len(column), 0))
    return [f"{name}={word}" for word in words], block.astype(np.float32)


def _classes_of(columns: Mapping[str, Column], target: str) -> tuple[str, NDArray[np.int64], tuple[str, ...]]:
    """Name of the target column, label of each row (-1 where it is missing), names of the classes."""
    if target in columns:
        return target, *_distinct_classes(target, columns[target])
    match = _THRESHOLD.fullmatch(target)
    if match is None or match["column"] not in columns:
        # The columns are not listed: whoever names a file learns nothing of its content from an error.
        message = f"there is no column {target!r} to predict among the {len(columns)} columns"
        raise InvalidInputError(message)
    name, text = match["column"], match["number"]
    column = columns[name]
    if column.dtype == object:
        message = f"target {target!r}: {name!r} is a column of words; only numbers can be compared"
        raise InvalidInputError(message)
    labels = np.where(np.isnan(column), -1, column > float(text)).astype(np.int64)
    return name, labels, (f"{name} <= {text}", f"{name} > {text}")


def _distinct_classes(name: str, column: Column) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    is_text = column.dtype == object
    values: Sequence[Any] = sorted({v for v in column if v is not None}) if is_text else _distinct_numbers(column)
    if len(values) > MAX_CLASSES:
        remedy = "choose a column of fewer words" if is_text else f"make two classes of it: '{name}>NUMBER'"
        message = f"target {name!r} has {len(values):,} different values, at most {MAX_CLASSES} classes; {remedy}"
        raise InvalidInputError(message)
    index = {value: label for label, value in enumerate(values)}
    labels = np.array([index.get(value, -1) for value in column.tolist()], dtype=np.int64)
    return labels, tuple(value if is_text else f"{value:g}" for value in values)


def _distinct_numbers(column: Column) -> list[float]:
    distinct: list[float] = np.unique(column[~np.isnan(column)]).tolist()
    return distinct
