"""What makes two examples the same one: the names and values of their columns, in whatever order the columns come.

Words become columns in the order of how often they occur in a study's table, and columns of a file may be written in
any order. Hashes of values by place would let the same rows be sealed in two studies, and be released in one of them
while they are live in the other. So a hash is SHA-256 of the names, then of the values, of the columns that are not
zero, in an order that the names decide: ``region=south`` is the same whatever other words the table has, and a column
that is zero adds nothing.

Hashes are stored: another form of them would have to be computed anew for all sets (``m0006_shared_sets``).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.errors import ShapeError
from easeml_core.store.rows import clean

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

_CELLS_AT_ONCE = 2_000_000


def example_hashes(inputs: NDArray[Any], names: Sequence[str] | None) -> list[bytes]:
    """SHA-256 of every example, the same for the same named values in any order.

    Args:
        inputs: Shape ``(n_examples, ...)``, taken as float32: 1 and 1.0 are one number, -0.0 is 0, NaN is missing.
        names: Of the columns, as they are kept with the data (``studies.feature_names``); None where they were not
            kept: then a column's name is its place.

    Returns:
        32 bytes for each example. Rows of one table have different hashes, short of a collision of names' keys.

    Raises:
        ShapeError: There are not as many names as columns.

    Example:
        >>> one = example_hashes(np.array([[1.0, 0.0, 5.0]]), ["region=south", "region=west", "age"])
        >>> one == example_hashes(np.array([[5.0, 1.0]]), ["age", "region=south"])
        True
    """
    flat = np.asarray(inputs, dtype="<f4").reshape(len(inputs), -1)
    width = flat.shape[1]
    if names is not None and len(names) != width:
        raise ShapeError(name="names", got=(len(names),), expected=f"({width},)")
    keys = np.array(
        [_key(f"\0{place}" if names is None else clean(names[place])) for place in range(width)], dtype=np.uint64
    )
    order = np.argsort(keys, kind="stable")
    return list(_hashes(flat, keys[order], order))


def _key(name: str) -> int:
    """A name as 8 bytes. Names of one key make rows look alike that are not: these are refused, and never let in."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")


def _hashes(flat: NDArray[np.float32], keys: NDArray[np.uint64], order: NDArray[np.intp]) -> Iterator[bytes]:
    """Hashes of the rows; ``keys`` are sorted, ``order`` is the place of each of them in a row."""
    keys = keys.astype("<u8")
    of_all = hashlib.sha256(keys.tobytes())
    at_once = max(1, _CELLS_AT_ONCE // max(1, len(keys)))
    for start in range(0, len(flat), at_once):
        block = flat[start : start + at_once].take(order, axis=1)
        block[np.isnan(block)] = np.nan  # one bit pattern for every NaN
        counts = np.count_nonzero(block, axis=1)
        for example, count in zip(block, counts, strict=True):
            if count == len(keys):
                digest = of_all.copy()
                digest.update(example.tobytes())
            else:
                places = np.flatnonzero(example)
                digest = hashlib.sha256(keys.take(places).tobytes())
                digest.update(example.take(places).tobytes())
            yield digest.digest()
