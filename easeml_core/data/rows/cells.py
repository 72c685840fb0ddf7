"""Canonical cells of rows, and keyed tokens of them: the same value has the same token in every table of one key.

A cell is compared by its value alone, not by the name or the place of its column:

* a number in float32, so that ``1``, ``1.0``, ``"1"`` and ``True`` are one value, and -0.0 is 0;
* a time in ISO 8601 as seconds of UTC (a time without a zone is taken as UTC);
* any other text in Unicode NFC, without quotes and blanks around it, each run of blanks as one, case folded;
* a missing value has no token.

Images, series and trees have no columns: each channel of a row is cut into runs of decoded values, and each run is a
cell. The values are brought to 0..1 within the channel and rounded to 1/1024, so that 0..255 and 0..1 are the same
image. A series is cut at the same steps however long the longest series of its table is.

Encoded rows (``data.columns``) are decoded where that is possible: ``region=south`` is a cell ``south``. A column
of many words is known by the numbers that it was hashed to, which raw rows have as well.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.data.columns import MAX_CATEGORIES, text_column_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from easeml_core.data.layout import Layout
    from easeml_core.data.table import RawTable

PIECES = 16
"""Runs of values that a channel of an image is cut into."""

_FIRST_STEPS = 8
"""Steps in the first run of a series; each further run ends at twice as many steps."""

_QUOTES = "\"'`\u2018\u2019\u201c\u201d\u00ab\u00bb"
_WORDS_OF_NUMBERS = {"true": 1.0, "false": 0.0}
_MISSING = frozenset({"", "na", "n/a", "nan", "null", "none"})
_TIME = re.compile(r"\d{4}-?\d{2}-?\d{2}([t ].*)?", re.DOTALL)


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Rows as columns of comparable cells.

    Attributes:
        names: Of the columns.
        columns: One array for each, shape ``(rows,)``: float64 with NaN for missing, objects (text, None for missing),
            or void items of raw bytes, which are compared as they are.
    """

    names: tuple[str, ...]
    columns: tuple[NDArray[Any], ...]

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.columns[0]) if self.columns else 0


def cells_of_table(table: RawTable) -> Cells:
    """The cells of a whole table: of the columns that it was made of, where it has any, else of its inputs."""
    encoded = cells_of_inputs(table.inputs, table.feature_names, table.layout)
    if not table.columns:
        return encoded
    return cells_of_columns(table.columns, encoded)


def cells_of_columns(columns: Mapping[str, NDArray[Any]], encoded: Cells) -> Cells:
    """The cells of raw columns, and of columns of many words also what they were hashed to."""
    hashed = {n: c for n, c in zip(encoded.names, encoded.columns, strict=True) if c.dtype.kind == "V"}
    every = dict(columns) | {f"\0{name}": column for name, column in hashed.items()}
    return Cells(tuple(every), tuple(every.values()))


def cells_of_inputs(inputs: NDArray[Any], names: Sequence[str] | None, layout: Layout | None) -> Cells:
    """The cells of encoded rows."""
    flat = np.asarray(inputs, dtype=np.float32).reshape(len(inputs), -1)
    if layout is not None and layout.kind != "table":
        return _pieces(flat, layout)
    if names is None:
        return Cells(tuple(f"\0{i}" for i in range(flat.shape[1])), tuple(flat.T.astype(np.float64)))
    found: dict[str, NDArray[Any]] = {}
    for name, places in _groups(names).items():
        block = flat[:, places]
        words = [names[place].partition("=")[2] for place in places]
        if text_column_of(names[places[0]]) is not None and len(places) > 1:
            found[name] = _as_bytes(block)
        elif all("=" in names[place] for place in places) and _is_one_hot(block):
            found[name] = _decoded(block, words)
        else:
            found |= {names[place]: flat[:, place].astype(np.float64) for place in places}
    return Cells(tuple(found), tuple(found.values()))


def _groups(names: Sequence[str]) -> dict[str, list[int]]:
    """Features that one column became, by that column."""
    groups: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        text = text_column_of(name)
        column = f"text {text}" if text is not None else name.partition("=")[0]
        groups.setdefault(column, []).append(place)
    return groups


def _is_one_hot(block: NDArray[np.float32]) -> bool:
    return block.shape[1] <= MAX_CATEGORIES and bool(np.isin(block, (0, 1)).all() and (block.sum(axis=1) <= 1).all())


def _decoded(block: NDArray[np.float32], words: Sequence[str]) -> NDArray[Any]:
    """The word of each row; None where no word is set."""
    known = np.array([*words, None], dtype=object)
    return known[np.where(block.any(axis=1), block.argmax(axis=1), len(words))]


def _as_bytes(block: NDArray[np.float32]) -> NDArray[Any]:
    """Each row as one item of raw bytes."""
    whole = np.ascontiguousarray(block + np.float32(0))
    return whole.view(np.dtype((np.void, whole.dtype.itemsize * whole.shape[1]))).ravel()


def _pieces(flat: NDArray[np.float32], layout: Layout) -> Cells:
    """Runs of values of each channel, brought to 0..1 and rounded; a run of one value or of none is missing."""
    channels = layout.shape[-1]
    positions = flat.shape[1] // channels
    if layout.kind == "image":
        ends = [positions * (i + 1) // PIECES for i in range(PIECES)]
    else:
        ends = [*(_FIRST_STEPS << i for i in range((positions // _FIRST_STEPS).bit_length())), positions]
    # As they are: rows that differ in scale alone are different rows.
    found: dict[str, NDArray[Any]] = {"\0whole": _as_bytes(np.where(np.isnan(flat), np.float32(np.nan), flat))}
    for channel in range(channels):
        whole = _scaled(flat[:, channel::channels])
        for begin, end in itertools.pairwise([0, *ends]):
            if begin < end:
                found[f"\0{channel}/{begin}"] = _runs(whole[:, begin:end])
    return Cells(tuple(found), tuple(found.values()))


def _scaled(values: NDArray[np.float32]) -> NDArray[np.int16]:
    """Each row from 0 to 1024; -1 for a missing value."""
    low = np.fmin.reduce(values, axis=1, keepdims=True)
    high = np.fmax.reduce(values, axis=1, keepdims=True)
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = np.rint((values.astype(np.float64) - low) / np.where(high > low, high - low, 1) * 1024)
    return np.where(np.isnan(scaled), -1, scaled).astype("<i2")


def _runs(piece: NDArray[np.int16]) -> NDArray[Any]:
    """Each row's bytes up to its last value, as objects; None where they say nothing."""
    cells = np.ascontiguousarray(piece)
    blank = (cells == cells[:, :1]).all(axis=1)
    missing = (cells == -1).any(axis=1)
    as_items = cells.view(np.dtype((np.void, cells.dtype.itemsize * cells.shape[1]))).ravel()
    column = as_items.astype(object)
    for row in np.flatnonzero(missing & ~blank):  # a shorter series: the padding follows from the others
        kept = np.flatnonzero(cells[row] != -1)
        column[row] = cells[row, : kept[-1] + 1].tobytes()
    column[blank] = None
    return column


def tokens_of(cells: Cells, key: bytes) -> NDArray[np.uint64]:
    """Keyed tokens (BLAKE2b, RFC 7693, 64 bits) of all cells; 0 where a value is missing.

    Only different values are hashed.

    Example:
        >>> one = Cells(("a",), (np.array([1.0, np.nan]),))
        >>> two = Cells(("b",), (np.array([" '1.0'", "null"], dtype=object),))
        >>> bool((tokens_of(one, b"k") == tokens_of(two, b"k")).all()), int(tokens_of(one, b"k")[1, 0])
        (True, 0)
    """
    found = np.zeros((cells.rows, len(cells.columns)), dtype=np.uint64)
    for place, column in enumerate(cells.columns):
        found[:, place] = _tokens(column, key)
    return found


def _tokens(column: NDArray[Any], key: bytes) -> NDArray[np.uint64]:
    if column.dtype.kind == "V":
        values, codes = np.unique(column, return_inverse=True)
        blank = bytes(column.dtype.itemsize)
        forms = [None if value.tobytes() == blank else b"v" + value.tobytes() for value in values]
    elif column.dtype == object:
        places: dict[Any, int] = {}
        codes = np.array([places.setdefault(cell, len(places)) for cell in column.tolist()], dtype=np.int64)
        forms = [_form(cell) for cell in places]
    else:
        with np.errstate(over="ignore"):
            numbers, codes = np.unique(column.astype("<f4") + np.float32(0), return_inverse=True)
        forms = [None if np.isnan(number) else b"n" + number.tobytes() for number in numbers]
    known = np.array([0 if form is None else _token(form, key) for form in forms], dtype=np.uint64)
    return known[codes] if len(known) else np.zeros(len(column), dtype=np.uint64)


def _token(form: bytes, key: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(form, key=key, digest_size=8).digest(), "little") or 1


def _form(cell: Any) -> bytes | None:
    """The canonical form of a cell; None for a missing one."""
    if cell is None:
        return None
    if isinstance(cell, bytes):
        return b"v" + cell
    text = " ".join(unicodedata.normalize("NFC", str(cell)).split())
    while len(text) > 1 and text[0] in _QUOTES and text[-1] in _QUOTES:
        text = text[1:-1].strip()
    text = text.casefold()
    if text in _MISSING:
        return None
    number = _number(text)
    if number is not None:
        return b"n" + np.array([number], dtype="<f4").tobytes()
    if _TIME.fullmatch(text):
        seconds = _seconds(text)
        if seconds is not None:
            return b"t" + np.array([seconds], dtype="<f8").tobytes()
    return b"s" + text.encode("utf-8", "surrogatepass")


def _number(text: str) -> float | None:
    if text in _WORDS_OF_NUMBERS:
        return _WORDS_OF_NUMBERS[text]
    if "_" in text or not any(character.isdigit() for character in text):
        return None
    try:
        number = float(text)
    except ValueError:
        return None
    return number + 0.0 if abs(number) < 3.4e38 else None


def _seconds(text: str) -> float | None:
    try:
        found = datetime.fromisoformat(text.upper())
    except ValueError:
        return None
    try:
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (OverflowError, OSError):
        return None


def name_tokens(cells: Cells, key: bytes) -> NDArray[np.uint64]:
    """Keyed tokens of the columns' names, shape ``(columns,)``: a hint where two columns hold the same values."""
    names = [" ".join(unicodedata.normalize("NFC", name).split()).casefold() for name in cells.names]
    return np.array([_token(b"c" + name.encode("utf-8", "surrogatepass"), key) for name in names], dtype=np.uint64)


def row_ids(tokens: NDArray[np.uint64], key: bytes) -> list[bytes]:
    """16 bytes for each row: its cells in whatever order of columns (BLAKE2b of the sorted tokens)."""
    ordered = np.ascontiguousarray(np.sort(tokens, axis=1))
    # Missing cells are zeros in front: a column without values changes nothing.
    starts = (ordered == 0).sum(axis=1)
    return [
        hashlib.blake2b(row[start:].tobytes(), key=key, digest_size=16).digest()
        for row, start in zip(ordered, starts.tolist(), strict=True)
    ]


def is_regular(column: NDArray[Any]) -> bool:
    """Whether a column counts: numbers or times, each once, that fill at least half of an even grid.

    Row numbers and time stamps of two tables are equal without any row of them being the same.

    Example:
        >>> is_regular(np.arange(1.0, 9.0)), is_regular(np.array([3.0, 141.0, 59.0, 60.0]))
        (True, False)
    """
    if column.dtype == object:
        forms = [_form(cell) for cell in column if cell is not None]
        if any(form is not None and form[:1] not in b"tn" for form in forms):
            return False
        values = np.array([np.frombuffer(f[1:], "<f8" if f[:1] == b"t" else "<f4")[0] for f in forms if f])
    elif column.dtype.kind == "f":
        values = column[~np.isnan(column)].astype(np.float64)
    else:
        return False
    ordered = np.sort(values)
    steps = np.diff(ordered)
    if len(steps) < 1 or steps.min() <= 0:
        return False
    return bool(len(steps) * steps.min() >= 0.5 * (ordered[-1] - ordered[0]))
