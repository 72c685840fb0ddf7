"""Arrays as bytes in numpy's own format, for pipes: numpy's functions for files want one that can seek."""

from __future__ import annotations

import io
import tokenize
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_UNREADABLE = (
    ValueError, EOFError, TypeError, LookupError, AttributeError, SyntaxError, RecursionError, MemoryError,
    OverflowError, tokenize.TokenError,
)  # fmt: skip
"""What numpy raises on headers that were made by hand."""


def array_to_bytes(array: NDArray[Any]) -> bytes:
    """The array in .npy form; an array of Python objects is refused (ValueError), since it would be a pickle."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def array_from_bytes(content: bytes) -> NDArray[Any]:
    """Return the array in .npy bytes, without unpickling.

    The bytes may be hostile: a header that claims more than memory holds, or that numpy cannot parse, is refused.

    Raises:
        ValueError: If the bytes are no array, or one of Python objects, or fewer than its shape says.

    Example:
        >>> array_from_bytes(array_to_bytes(np.array([1, 2, 3]))).tolist()
        [1, 2, 3]
    """
    try:
        array: NDArray[Any] = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    except _UNREADABLE as error:
        message = f"the bytes are no array: {type(error).__name__}"
        raise ValueError(message) from error
    return array
