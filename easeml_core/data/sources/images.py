"""An untrusted folder of images: a folder per class, PNG, JPEG or BMP, scaled to one size.

The header of a file is read first; the file is decoded only if the header claims few enough pixels. Pixels are in
[0, 1]. Transparent pixels are blended with white.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from easeml_core.data.layout import Layout
from easeml_core.data.program import program_of_data
from easeml_core.data.sources.files import entries, opened_folder, read_bytes
from easeml_core.data.sources.spec import MAX_SIDE, optional_package
from easeml_core.data.table import MAX_CELLS, MAX_CLASSES, RawTable, make_table
from easeml_core.entities import Task
from easeml_core.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

CLASS = "class"
"""What a program calls the class of an image: a folder has no name for it."""

MAX_FILES = 100_000
MAX_BYTES = 32 * 1024 * 1024
MAX_PIXELS = 25_000_000
"""Of one image: 75 MB once it is decoded in colour."""

MAX_PIXELS_TOGETHER = 20_000_000_000
"""Of all images: some minutes of decoding."""

FORMATS = ("PNG", "JPEG", "BMP")
ENDINGS = (".png", ".jpg", ".jpeg", ".bmp")
GREY = frozenset({"1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "F"})

# Pillow's plugins let through what goes wrong while they take a damaged file apart.
_DAMAGE = (
    OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError, EOFError,
    MemoryError, NotImplementedError, RuntimeWarning, struct.error, zlib.error,
)  # fmt: skip


class _File(NamedTuple):
    """One image: the path below the folder, and the number of its class."""

    path: Path
    label: int


def read_images(folder: Path, *, size: tuple[int, int] | None = None, channels: int | None = None) -> RawTable:
    """The images of a folder whose sub-folders are the classes, as a table of pixels."""
    if not folder.is_absolute():
        raise _refused(folder, "must be named by an absolute path (it is read by another process)")
    optional_package("PIL", "PIL", extra="images")
    class_names, files = listed_images(folder)
    sizes: Counter[tuple[int, int]] = Counter()
    has_colour = False
    for file, content in folder_contents(folder, files):
        image = opened_image(folder, file.path, content)
        sizes[(image.height, image.width)] += 1
        has_colour |= image.mode not in GREY
        _check_pixels(folder, sizes)
    layout = Layout("image", (*(size or _most_frequent(folder, sizes)), channels or (3 if has_colour else 1)))
    if len(files) * layout.features > MAX_CELLS:
        what = f"{len(files):,} images of {' x '.join(map(str, layout.shape))}"
        raise _refused(folder, f"holds {what}, more than {MAX_CELLS:,} numbers; ask for smaller ones with ?size=SIDE")
    pixels = np.empty((len(files), layout.features), dtype=np.float32)
    for row, (file, content) in enumerate(folder_contents(folder, files)):
        pixels[row] = decoded_image(folder, file.path, content, layout)
    labels = np.array([file.label for file in files], dtype=np.int64)
    return make_table(
        pixels,
        labels,
        class_names=class_names,
        feature_names=_feature_names(layout),
        layout=layout,
        program=program_of_data(layout, Task.CLASSIFICATION, len(class_names), name=CLASS),
    )


def listed_images(folder: Path) -> tuple[tuple[str, ...], list[_File]]:
    """Names of the classes, and all files."""
    files: list[_File] = []
    with opened_folder(folder, _refused) as root:
        class_names, loose = entries(folder, _refused, folder=root, most=MAX_FILES)
        if loose:
            raise _refused(folder, f"has a file {loose[0][:80]!r} outside the folders of the classes")
        if not 1 <= len(class_names) <= MAX_CLASSES:
            raise _refused(folder, f"has {len(class_names):,} sub-folders, one per class; from 2 to {MAX_CLASSES}")
        for label, name in enumerate(class_names):
            path = folder / name
            with opened_folder(path, _refused, folder=root) as inside:
                folders, names = entries(path, _refused, folder=inside, most=MAX_FILES)
            _check_names(path, folders, names)
            files += [_File(path / file, label) for file in names]
            if len(files) > MAX_FILES:
                raise _refused(folder, f"holds more than {MAX_FILES:,} images")
    return tuple(class_names), files


def _check_names(path: Path, folders: list[str], names: list[str]) -> None:
    if folders:
        raise _refused(path, f"has a folder {folders[0][:80]!r}; the folder of a class holds images only")
    if not names:
        raise _refused(path, "holds no image; remove the folder or fill it")
    other = next((name for name in names if not name.lower().endswith(ENDINGS)), None)
    if other is not None:
        raise _refused(path, f"has a file {other[:80]!r}; allowed are {', '.join(ENDINGS)}")


def folder_contents(folder: Path, files: list[_File]) -> Iterator[tuple[_File, bytes]]:
    """Each file with its bytes; files of one class stand together."""
    with opened_folder(folder, _refused) as root:
        start = 0
        while start < len(files):
            path = files[start].path.parent
            with opened_folder(path, _refused, folder=root) as inside:
                while start < len(files) and files[start].path.parent == path:
                    file = files[start]
                    yield file, read_bytes(file.path, _refused, most=MAX_BYTES, folder=inside)
                    start += 1


def opened_image(folder: Path, path: Path, content: bytes) -> Any:
    """The image, not decoded yet: only its header has been read."""
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except (*_DAMAGE, Image.DecompressionBombError) as error:
        bomb = isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning)
        raise _of_file(folder, path, "claims too many pixels" if bomb else "is no PNG, JPEG or BMP image") from error
    if image.width * image.height > MAX_PIXELS:
        what = f"claims {image.width:,} x {image.height:,} pixels, at most {MAX_PIXELS:,} are allowed"
        raise _of_file(folder, path, what)
    return image


def require_few_pixels(folder: Path, most: int) -> None:
    """Refuse a folder of plain files whose images would take long to decode, by what their headers claim."""
    left = most
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file()):
        optional_package("PIL", "PIL", extra="images")
        image = opened_image(folder, path, path.read_bytes())
        left -= image.width * image.height
        if left < 0:
            raise _refused(folder, f"holds more than {most:,} pixels together; bring fewer images at once")


def decoded_image(folder: Path, path: Path, content: bytes, layout: Layout) -> NDArray[np.float32]:
    """Pixels from 0 to 1 of an image made as large as the layout says, shape (features,)."""
    height, width, channels = layout.shape
    image = opened_image(folder, path, content)
    try:
        plain = _plain(image, channels)
        if plain.size != (width, height):
            plain = plain.resize((width, height), resample=2)  # bilinear, over all pixels that fall into one
        pixels = np.asarray(plain, dtype=np.float32).reshape(height, width, -1) / np.float32(255)
    except _DAMAGE as error:
        raise _of_file(folder, path, "cannot be decoded; is it damaged?") from error
    return np.ascontiguousarray(np.broadcast_to(pixels, layout.shape)).ravel()


def _plain(image: Any, channels: int) -> Any:
    """The decoded image as ``L``, ``RGB``, or ``F`` from 0 to 255 where a pixel has 16 bits."""
    from PIL import Image

    if image.mode.startswith("I"):
        return Image.fromarray(np.asarray(image, dtype=np.float32) / np.float32(257))
    if image.mode in ("LA", "PA", "RGBA", "RGBa", "La") or "transparency" in image.info:
        whole = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", whole.size, "white"), whole)
    return image.convert("L" if channels == 1 else "RGB")


def _most_frequent(folder: Path, sizes: Counter[tuple[int, int]]) -> tuple[int, int]:
    size = min(sizes, key=lambda s: (-sizes[s], s))
    if max(size) > MAX_SIDE:
        sides = f"most are {size[0]:,} x {size[1]:,} pixels, a side may have {MAX_SIDE}"
        raise _refused(folder, f"holds large images ({sides}); ask for smaller ones with ?size=SIDE")
    return size


def _check_pixels(folder: Path, sizes: Counter[tuple[int, int]]) -> None:
    if sum(height * width * count for (height, width), count in sizes.items()) > MAX_PIXELS_TOGETHER:
        raise _refused(folder, f"holds more than {MAX_PIXELS_TOGETHER:,} pixels in all; make the images smaller")


def _feature_names(layout: Layout) -> tuple[str, ...]:
    height, width, channels = layout.shape
    ends = [""] if channels == 1 else [f"_{channel}" for channel in range(channels)]
    return tuple(f"pixel_{row}_{column}{end}" for row in range(height) for column in range(width) for end in ends)


def _refused(path: Path, what: str) -> InvalidInputError:
    return InvalidInputError(f"source of images: {str(path)[-200:]!r} {what}")


def _of_file(folder: Path, path: Path, what: str) -> InvalidInputError:
    return _refused(folder, f"has a file {str(path.relative_to(folder))[:80]!r} that {what}")
