"""Arrays as bytes in numpy's own format, for pipes: numpy's functions for files want one that can seek."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def array_to_bytes(array: NDArray[Any]) -> bytes:
    """The array in .npy form; an array of Python objects is refused (ValueError), since it would be a pickle."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def array_from_bytes(content: bytes) -> NDArray[Any]:
    """The array in .npy bytes; nothing is unpickled.

    Raises:
        ValueError: If the bytes are no array, or one of Python objects.

    Example:
        >>> array_from_bytes(array_to_bytes(np.array([1, 2, 3]))).tolist()
        [1, 2, 3]
    """
    array: NDArray[Any] = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    return array
