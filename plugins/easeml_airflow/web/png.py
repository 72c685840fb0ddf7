"""An array as a PNG, for one picture on one page: a few lines of the standard library instead of an image library."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.errors import InvalidInputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_PIXELS = 4_000_000
COLOURS = {1: 0, 3: 2, 4: 6}
"""Channels to PNG's kind of colour: grey, red-green-blue, and that with transparency."""


def data_uri(picture: NDArray[np.float32]) -> str:
    """The picture as an address that holds it.

    Values in [0, 1] or [0, 255] keep their brightness; others are stretched from their least to their greatest. Of a
    number of channels that is no colour, the first is shown in grey.

    Args:
        picture: Shape (height, width, channels); NaN is shown as the least value.

    Raises:
        InvalidInputError: It has more than ``MOST_PIXELS`` pixels.

    Example:
        >>> data_uri(np.zeros((1, 1, 1), dtype=np.float32))[:32]
        'data:image/png;base64,iVBORw0KGg'
    """
    height, width, channels = picture.shape
    if height * width > MOST_PIXELS:
        message = f"a picture of {height:,} by {width:,} pixels is too large to be shown; at most {MOST_PIXELS:,} are"
        raise InvalidInputError(message)
    shown = picture if channels in COLOURS else picture[:, :, :1]
    return "data:image/png;base64," + base64.b64encode(encoded(_bytes(shown))).decode()


def encoded(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG file of these pixels, shape (height, width, channels) with 1, 3 or 4 channels."""
    height, width, channels = pixels.shape
    head = struct.pack(">IIBBBBB", width, height, 8, COLOURS[channels], 0, 0, 0)
    lines = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, width * channels)], axis=1)
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(lines.tobytes(), 6)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in parts)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _bytes(picture: NDArray[np.float32]) -> NDArray[np.uint8]:
    held = picture[np.isfinite(picture)]
    low, high = (float(held.min()), float(held.max())) if held.size else (0.0, 0.0)
    if low >= 0 and (high <= 1 or 64 < high <= 255):
        low, high = 0.0, 1.0 if high <= 1 else 255.0
    values = np.nan_to_num((picture - low) / (high - low or 1.0), nan=0.0, posinf=1.0, neginf=0.0)
    return np.asarray(np.clip(np.rint(values * 255), 0, 255), dtype=np.uint8)
