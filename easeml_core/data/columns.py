"""From columns of text and numbers to a table: numbers stay, few words become a column each, many words are hashed.

Nothing here looks at a label to encode an input: encoding a whole data set tells no part of another's labels.

What is to be predicted, from a column: classes of its values, two classes by a threshold, or its numbers.

Columns of words with too many different values for a column each: hashed to a fixed number of columns.

The hashing trick (Weinberger et al. 2009, "Feature Hashing for Large Scale Multitask Learning") needs no vocabulary:
the same text gives the same numbers in any file, on any machine and in any order of rows, so nothing is learnt here
that a part of the data could tell another. The hash is scikit-learn's (MurmurHash3, 32 bits, with a sign bit).
"""

from __future__ import annotations

import difflib
import math
import re
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from easeml_core.data.program import InputColumn, program_of_table
from easeml_core.data.split_spec import ROWS
from easeml_core.data.splits import group_numbers, times_of
from easeml_core.data.table import MAX_CELLS, MAX_CLASSES, RawTable, make_table
from easeml_core.entities import Task
from easeml_core.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from easeml_core.data.split_spec import Split
    from easeml_core.data.table import Labels


_THRESHOLD = re.compile(r"\s*(?P<column>.+?)\s*>\s*(?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)\s*")


_NEAR, _LETTERS = 0.75, 3
"""Similarity (``difflib``), in [0, 1], from which a column's name is offered for another; letters that it has then."""


class Target(NamedTuple):
    """Labels of all rows, also of those without one.

    Attributes:
        column: Name of the column they come from, which is no input.
        labels: Shape (rows,): int64 classes, or float64 numbers for regression; anything where ``present`` is false.
        present: Whether a row has a label, shape (rows,).
        class_names: Name of each class; empty for regression.
        task: What the labels are.
    """

    column: str
    labels: Labels
    present: NDArray[np.bool_]
    class_names: tuple[str, ...]
    task: Task


def target_of(columns: Mapping[str, Column], target: str, task: Task | None = None) -> Target:
    """The target that a text names: a column, or ``COLUMN>NUMBER`` for the two classes of a numeric column.

    Example:
        >>> columns = {"price": np.array([5.0, np.nan, 500.0])}
        >>> target_of(columns, "price>20").class_names
        ('price <= 20', 'price > 20')
        >>> target_of(columns, "price", Task.REGRESSION).present.tolist()
        [True, False, True]
    """
    if target in columns:
        return target_of_column(target, columns[target], task)
    match = _THRESHOLD.fullmatch(target)
    if match is None or match["column"] not in columns:
        message = f"there is no column {target!r} to predict among the {len(columns)} columns{nearest(target, columns)}"
        raise InvalidInputError(message)
    name, text = match["column"], match["number"]
    column = columns[name]
    if task == Task.REGRESSION:
        message = f"target {target!r} makes two classes; regression needs a column of numbers, such as {name!r}"
        raise InvalidInputError(message)
    if column.dtype == object:
        message = f"target {target!r}: {name!r} is a column of words; only numbers can be compared"
        raise InvalidInputError(message)
    labels = (column > float(text)).astype(np.int64)
    return Target(name, labels, ~np.isnan(column), (f"{name} <= {text}", f"{name} > {text}"), Task.CLASSIFICATION)


def nearest(name: str, columns: Iterable[str]) -> str:
    """Return what an error adds about the column that a name was most likely meant for; empty where none is near.

    The columns are not listed: where a file has no header, its first row would be shown. A name that differs in a few
    letters tells a caller nothing new, and a number is never one.

    Example:
        >>> nearest("outcom", ["age", "outcome"]), nearest("17.25", ["17.2", "3"]), nearest("label", ["x", "y"])
        (" (the nearest is 'outcome')", '', '')
    """
    words = [column for column in columns if sum(map(str.isalpha, column)) >= _LETTERS]
    found = difflib.get_close_matches(name, words, n=1, cutoff=_NEAR)
    folded = [column for column in words if column.strip().casefold() == name.strip().casefold()]
    return "".join(f" (the nearest is {near!r})" for near in (folded or found)[:1])


def target_of_column(name: str, column: Column, task: Task | None = None) -> Target:
    """The target that a whole column is; see ``target_of``."""
    is_text = column.dtype == object
    if task == Task.REGRESSION:
        if is_text:
            message = (
                f"target {name!r} is a column of words; regression needs numbers, or set the task to classification"
            )
            raise InvalidInputError(message)
        return Target(name, column, ~np.isnan(column), (), Task.REGRESSION)
    values: Sequence[Any] = sorted({v for v in column if v is not None}) if is_text else _distinct_numbers(column)
    if len(values) > MAX_CLASSES:
        numbers = f"make two classes of it: '{name}>NUMBER', or set the task to regression"
        remedy = "choose a column of fewer words" if is_text else numbers
        message = f"target {name!r} has {len(values):,} different values, at most {MAX_CLASSES} classes; {remedy}"
        raise InvalidInputError(message)
    index = {value: label for label, value in enumerate(values)}
    labels = np.array([index.get(value, -1) for value in column.tolist()], dtype=np.int64)
    names = tuple(value if is_text else f"{value:g}" for value in values)
    return Target(name, labels, labels >= 0, names, Task.CLASSIFICATION)


def _distinct_numbers(column: Column) -> list[float]:
    distinct: list[float] = np.unique(column[~np.isnan(column)]).tolist()
    return distinct


WORD_WIDTH = 2**6
"""Columns of a column whose cells are single words: each cell as a whole goes to one of them."""

TEXT_WIDTH = 2**8
"""Columns of a column of free text: its words are counted, and a row is scaled to length 1."""

_HASHED = re.compile(r"text_(.+)_[0-9]+")
_TOKEN = r"(?u)\b\w+\b"  # noqa: S105 - a pattern


def hashed_width(column: NDArray[Any]) -> int:
    """``TEXT_WIDTH`` if at least half of the cells that are not missing hold a blank, else ``WORD_WIDTH``."""
    cells = [cell for cell in column if cell is not None]
    spaced = sum(any(map(str.isspace, cell)) for cell in cells)
    return TEXT_WIDTH if cells and 2 * spaced >= len(cells) else WORD_WIDTH


def hashed_text(column: NDArray[Any], width: int) -> NDArray[np.float32]:
    """The column as numbers, shape (rows, width); a missing cell is a row of zeros.

    Example:
        >>> block = hashed_text(np.array(["red", "blue", "red", None], dtype=object), WORD_WIDTH)
        >>> np.abs(block).sum(axis=1).tolist(), bool((block[0] == block[2]).all())
        ([1.0, 1.0, 1.0, 0.0], True)
    """
    from sklearn.feature_extraction.text import HashingVectorizer

    rule = {"token_pattern": _TOKEN} if width == TEXT_WIDTH else {"analyzer": _whole_cell}
    vectorizer = HashingVectorizer(n_features=width, dtype=np.float32, **rule)
    block: NDArray[np.float32] = vectorizer.transform(["" if cell is None else cell for cell in column]).toarray()
    return block


def hashed_names(name: str, width: int) -> list[str]:
    """``text_NAME_0`` and so on."""
    return [f"text_{name}_{i}" for i in range(width)]


def text_column_of(name: str) -> str | None:
    """The column of text that ``hashed_names`` gave this name for; None where it has another form.

    Example:
        >>> text_column_of("text_note_17"), text_column_of("note")
        ('note', None)
    """
    found = _HASHED.fullmatch(name)
    return None if found is None else found[1]


def _whole_cell(cell: str) -> list[str]:
    return [cell] if cell else []


Column: TypeAlias = "NDArray[Any]"
"""float64 with NaN for missing, or object: text with None for missing."""

MAX_CATEGORIES = 32
_MISSING = frozenset({"", "NA", "N/A", "NaN", "nan", "null", "NULL"})


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


def table_of_columns(
    columns: Mapping[str, Column], target: str, task: Task | None = None, split: Split = ROWS
) -> RawTable:
    """A table from named columns.

    Numeric columns are kept, NaN for missing. A text column of at most 32 different words becomes one 0/1 column for
    each of them, the most frequent first; one of more words is hashed to a fixed number of columns
    (``text_columns``). Missing words are zeros. Rows without target are dropped.

    Example:
        >>> columns = {"x": np.array([1.0, 2.0, 3.0]), "price": np.array([5.0, 50.0, 500.0])}
        >>> table_of_columns(columns, "price>20").class_names
        ('price <= 20', 'price > 20')
    """
    found = target_of(columns, target, task)
    rows = int(found.present.sum())
    divided_by = split_values_of(columns, split, found)
    no_inputs = {found.column} if split.keep else {found.column, split.column}
    names: list[str] = []
    inputs: list[InputColumn] = []
    blocks: list[NDArray[np.float32]] = []
    for number, (name, whole) in enumerate(columns.items(), start=1):
        if name not in no_inputs:
            column = whole[found.present]
            if rows:
                require_values(column, number)
            became, block_names, block = _encode(name, column, room=MAX_CELLS - rows * len(names))
            inputs.append(became)
            names += block_names
            blocks.append(block)
    if not names:
        message = f"no column is left beside the target {found.column!r}; at least one is needed to learn from"
        raise InvalidInputError(message)
    return make_table(
        np.column_stack(blocks),
        found.labels[found.present],
        class_names=found.class_names,
        feature_names=tuple(names),
        task=found.task,
        split_values=divided_by,
        program=program_of_table(inputs, found.column, len(found.class_names)).program,
        columns={name: whole[found.present] for name, whole in columns.items() if name != found.column},
    )


def split_values_of(columns: Mapping[str, Column], split: Split, target: Target) -> NDArray[Any] | None:
    """Groups or times of the rows that have a target; None where chance divides them."""
    if not split.column:
        return None
    if split.column not in columns or split.column == target.column:
        near = nearest(split.column, columns)
        what = "is the target" if split.column in columns else f"is not among the {len(columns)} columns{near}"
        message = f"split {str(split)!r}: the column {split.column!r} {what}; name a column of groups or times"
        raise InvalidInputError(message)
    column = columns[split.column][target.present]
    return group_numbers(column, split.column) if split.kind == "group" else times_of(column, split.column)


def require_values(column: Column, number: int) -> None:
    """Refuse a column without any value: there is nothing to learn from it, and it is most often a mistake."""
    missing = column == None if column.dtype == object else np.isnan(column)  # noqa: E711 - one by one, as numpy does
    if bool(np.all(missing)):
        message = f"column {number} has no value in any row that has a target; leave the column out"
        raise InvalidInputError(message)


def _number(cell: str) -> float:
    # float() takes "1_000" and "infinity" as numbers; in a table they are words.
    if "_" in cell or cell.strip("+-").lower() in ("inf", "infinity", "nan"):
        raise ValueError(cell)
    return float(cell)


def _encode(name: str, column: Column, room: int) -> tuple[InputColumn, list[str], NDArray[np.float32]]:
    """What one column becomes, with names and values, shape (rows, n); refused if more than ``room`` cells."""
    if column.dtype != object:
        _check_size(len(column), 1, room)
        with np.errstate(over="ignore"):  # make_table refuses what became infinite
            return InputColumn(name), [name], column.astype(np.float32)[:, None]
    counts = Counter(word for word in column if word is not None)
    if len(counts) > MAX_CATEGORIES:
        width = hashed_width(column)
        _check_size(len(column), width, room)
        return InputColumn(name, width), hashed_names(name, width), hashed_text(column, width)
    words = sorted(counts, key=lambda word: (-counts[word], word))
    _check_size(len(column), len(words), room)
    block = np.column_stack([column == word for word in words]) if words else np.zeros((len(column), 0))
    became = InputColumn(name, max(len(words), 1), frozenset(words))
    return became, [f"{name}={word}" for word in words], block.astype(np.float32)


def _check_size(rows: int, features: int, room: int) -> None:
    if rows * features > room:
        message = (
            f"the table has more than {MAX_CELLS:,} cells ({rows:,} rows, after words became columns); leave out "
            "columns of many words, or rows"
        )
        raise InvalidInputError(message)
