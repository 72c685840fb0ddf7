"""Folders of images: real files of every kind that is taken, what is refused, and hostile ones."""

from __future__ import annotations

import io
import os
import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from property_sizes import examples

from easeml_core.data.layout import Layout
from easeml_core.data.sources import images as image_source
from easeml_core.data.sources.load import load_source
from easeml_core.errors import InvalidInputError

if TYPE_CHECKING:
    from pathlib import Path


def pixels(seed: int, height: int = 6, width: int = 5, channels: int = 3) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def put(folder: Path, name: str, array: np.ndarray) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


@pytest.fixture
def flowers(tmp_path: Path) -> Path:
    """Two classes, two colour images each, 6 x 5."""
    for row, name in enumerate(("rose/b.png", "rose/a.png", "aster/x.bmp", "aster/y.png")):
        put(tmp_path / "flowers", name, pixels(row))
    return tmp_path / "flowers"


def test_pixels_classes_and_order(flowers: Path) -> None:
    table = load_source(f"images:{flowers}")
    assert table.layout == Layout("image", (6, 5, 3))
    assert table.class_names == ("aster", "rose")
    assert table.labels.tolist() == [0, 0, 1, 1]
    expected = np.stack([pixels(seed) for seed in (2, 3, 1, 0)]).reshape(4, -1) / np.float32(255)
    np.testing.assert_array_equal(table.inputs, expected.astype(np.float32))
    assert table.feature_names[:4] == ("pixel_0_0_0", "pixel_0_0_1", "pixel_0_0_2", "pixel_0_1_0")


def test_grey_images_have_one_channel_and_colour_decides_for_all(flowers: Path, tmp_path: Path) -> None:
    for seed, name in enumerate(("a/1.png", "a/2.jpg", "b/3.png", "b/4.png")):
        put(tmp_path / "grey", name, pixels(seed, channels=1))
    grey = load_source(f"images:{tmp_path / 'grey'}")
    assert grey.layout.shape == (6, 5, 1)
    assert grey.image_shape == (6, 5)
    np.testing.assert_array_equal(grey.inputs[0], pixels(0, channels=1).ravel() / np.float32(255))
    put(flowers, "rose/grey.png", pixels(9, channels=1))
    mixed = load_source(f"images:{flowers}").inputs[-1].reshape(6, 5, 3)
    assert (mixed[..., 0] == mixed[..., 2]).all()
    assert load_source(f"images:{flowers}?colour=grey").layout.shape == (6, 5, 1)


def test_grey_is_the_luma_of_colour(tmp_path: Path) -> None:
    # ITU-R BT.601: L = 0.299 R + 0.587 G + 0.114 B, rounded.
    put(tmp_path, "red/1.png", np.full((2, 2, 3), (255, 0, 0), np.uint8))
    put(tmp_path, "green/1.png", np.full((2, 2, 3), (0, 255, 0), np.uint8))
    table = load_source(f"images:{tmp_path}?colour=grey")
    assert (table.inputs[:, 0] * 255).round().tolist() == [150, 76]


def test_mixed_sizes_become_the_most_frequent_or_the_one_asked_for(flowers: Path) -> None:
    put(flowers, "rose/large.png", np.full((12, 10, 3), 51, np.uint8))
    table = load_source(f"images:{flowers}")
    assert table.layout.shape == (6, 5, 3)
    np.testing.assert_allclose(table.inputs[-1], 51 / 255, rtol=1e-6)  # one colour stays one colour
    assert load_source(f"images:{flowers}?size=8").layout.shape == (8, 8, 3)
    assert load_source(f"images:{flowers}?size=4x7&colour=grey").layout.shape == (4, 7, 1)
    assert len(load_source(f"images:{flowers}?rows=4").labels) == 4


def test_resizing_keeps_up_and_left_where_they_are(tmp_path: Path) -> None:
    image = np.zeros((40, 20), np.uint8)
    image[20:, 10:] = 255  # white below and to the right
    put(tmp_path, "a/1.png", image)
    put(tmp_path, "b/2.png", 255 - image)
    small = load_source(f"images:{tmp_path}?size=8x4").inputs[0].reshape(8, 4)
    assert (small[6:, 3] > 0.9).all()
    assert (small[:3] < 0.1).all()
    assert (small[:, 0] < 0.1).all()


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP", "PPM", "ICO"])
def test_other_formats_are_refused_whatever_their_name(kind: str, flowers: Path) -> None:
    Image.fromarray(pixels(4, 16, 16)).save(flowers / "rose" / "other.png", kind)
    with pytest.raises(InvalidInputError, match=r"'rose/other.png' that is no PNG, JPEG or BMP image"):
        load_source(f"images:{flowers}")


def test_transparency_is_white_palettes_and_bits_are_unpacked(tmp_path: Path) -> None:
    clear = np.zeros((2, 2, 4), np.uint8)
    put(tmp_path, "a/clear.png", clear)
    Image.fromarray(np.array([[1, 0], [0, 1]], bool)).save(tmp_path / "a" / "bits.png")
    (tmp_path / "b").mkdir()
    palette = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), mode=None).convert("P")
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.save(tmp_path / "b" / "palette.png", transparency=b"\x00\xff")
    Image.fromarray(np.array([[0, 65535], [257, 32896]], np.uint16)).save(tmp_path / "b" / "sixteen.png")
    table = load_source(f"images:{tmp_path}?colour=rgb")
    by_name = dict(zip(("bits", "clear", "palette", "sixteen"), table.inputs.reshape(4, 2, 2, 3), strict=True))
    assert by_name["bits"][..., 0].tolist() == [[1, 0], [0, 1]]
    assert (by_name["clear"] == 1).all()
    assert by_name["palette"].tolist() == [[[1, 1, 1], [0, 0, 1]], [[0, 0, 1], [1, 1, 1]]]
    np.testing.assert_allclose(by_name["sixteen"][..., 1] * 255, [[0, 255], [1, 128]], atol=1e-4)


@given(
    array=st.integers(1, 6).flatmap(
        lambda side: st.lists(st.binary(min_size=3 * side * side, max_size=3 * side * side), min_size=2, max_size=5)
    ),
    ending=st.sampled_from(("png", "bmp")),
)
@settings(deadline=None, max_examples=examples(40))
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, array, ending) -> None:
    folder = tmp_path_factory.mktemp("round")
    side = round((len(array[0]) // 3) ** 0.5)
    images = [np.frombuffer(content, np.uint8).reshape(side, side, 3) for content in array]
    for row, image in enumerate(images):
        put(folder, f"{'ab'[row % 2]}/{row}.{ending}", image)
    if len({content for content in array}) < len(array):
        return  # of equal images one is kept; see the tests of raw tables
    table = load_source(f"images:{folder}?colour=rgb")
    order = [*range(0, len(images), 2), *range(1, len(images), 2)]
    np.testing.assert_array_equal(np.rint(table.inputs * 255).astype(np.uint8), [images[i].ravel() for i in order])


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def bomb(width: int, height: int) -> bytes:
    """A small PNG that claims so many grey pixels, and packs zeros for 10 MB of them."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    packed = zlib.compress(bytes(10_000_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [6_000, 10_000, 50_000, 2**31 - 1])
def test_a_bomb_is_refused_before_it_is_unpacked(side: int, flowers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (flowers / "rose" / "bomb.png").write_bytes(bomb(side, side))
    monkeypatch.setattr(image_source, "decoded_image", lambda *_: pytest.fail("decoded"))
    with pytest.raises(InvalidInputError, match=r"'rose/bomb.png' that (claims .*pixels|is no PNG)"):
        load_source(f"images:{flowers}")


def test_all_pixels_together_are_bounded(flowers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_source, "MAX_PIXELS_TOGETHER", 119)
    with pytest.raises(InvalidInputError, match="more than 119 pixels in all"):
        load_source(f"images:{flowers}")  # 4 images of 30 pixels


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rose/a.png", b"hello", "'rose/a.png' that is no PNG, JPEG or BMP image"),
        ("rose/a.png", b"", "'rose/a.png' that is no PNG"),
        ("rose/a.png", b"GIF89a" + bytes(40), "'rose/a.png' that is no PNG"),
        ("rose/notes.txt", b"x", "'notes.txt'; allowed are .png, .jpg, .jpeg, .bmp"),
        ("loose.png", b"x", "'loose.png' outside the folders of the classes"),
        ("rose/deep/a.png", b"x", "a folder 'deep'; the folder of a class holds images only"),
        ("rose/two\nlines.png", b"x", r"'two\\nlines.png': its name cannot be printed"),
        ("new\nclass/a.png", b"x", r"'new\\nclass': its name cannot be printed"),
    ],
)
def test_other_files_are_refused_by_name(name, content, message, flowers: Path) -> None:
    (flowers / name).parent.mkdir(parents=True, exist_ok=True)
    (flowers / name).write_bytes(content)
    with pytest.raises(InvalidInputError, match=message):
        load_source(f"images:{flowers}")


@pytest.mark.parametrize("ending", ["jpg", "png", "bmp"])
def test_a_file_that_was_cut_is_refused(ending: str, flowers: Path) -> None:
    path = put(flowers, f"rose/z.{ending}", pixels(7, 40, 40))
    content = path.read_bytes()
    for length in np.linspace(1, 0.9 * len(content), 20).astype(int):
        path.write_bytes(content[:length])
        with pytest.raises(InvalidInputError, match=rf"'rose/z.{ending}' that (cannot be decoded|is no PNG)"):
            load_source(f"images:{flowers}")


@given(content=st.binary(max_size=200), kind=st.sampled_from(("PNG", "JPEG", "BMP")), place=st.integers(0, 200))
@settings(deadline=None, max_examples=examples(200))
def test_no_content_raises_anything_else(tmp_path_factory, content, kind, place) -> None:
    folder = tmp_path_factory.mktemp("any")
    put(folder, "a/1.png", pixels(1))
    put(folder, "b/2.png", pixels(2))
    good = io.BytesIO()
    Image.fromarray(pixels(3)).save(good, kind)
    (folder / "b" / "3.png").write_bytes(good.getvalue()[:place] + content + good.getvalue()[place + len(content) :])
    try:
        table = load_source(f"images:{folder}")
    except InvalidInputError:
        return
    assert table.inputs.shape[1] == table.layout.features


def test_one_class_and_empty_classes_are_refused(flowers: Path, tmp_path: Path) -> None:
    put(tmp_path / "one", "rose/a.png", pixels(1))
    put(tmp_path / "one", "rose/b.png", pixels(2))
    with pytest.raises(InvalidInputError, match="labels are all the same"):
        load_source(f"images:{tmp_path / 'one'}")
    (flowers / "tulip").mkdir()
    with pytest.raises(InvalidInputError, match="tulip' holds no image"):
        load_source(f"images:{flowers}")


@pytest.mark.parametrize("what", ["file", "folder"])
def test_no_link_leads_out_of_the_folder(what: str, flowers: Path, tmp_path: Path) -> None:
    outside = put(tmp_path / "secret", "s.png", pixels(8))
    target, link = (outside, flowers / "rose" / "link.png") if what == "file" else (outside.parent, flowers / "link")
    link.symlink_to(target)
    with pytest.raises(InvalidInputError, match=r"has a symbolic link 'link"):
        load_source(f"images:{flowers}")


def test_a_file_exchanged_for_a_link_after_the_listing_is_not_followed(flowers: Path, tmp_path: Path, monkeypatch):
    outside = put(tmp_path / "secret", "s.png", pixels(8))
    listed = image_source.listed_images

    def exchange(folder: Path):
        found = listed(folder)
        (flowers / "rose" / "a.png").unlink()
        (flowers / "rose" / "a.png").symlink_to(outside)
        return found

    monkeypatch.setattr(image_source, "listed_images", exchange)
    with pytest.raises(InvalidInputError, match=r"cannot be read: Too many levels of symbolic links"):
        load_source(f"images:{flowers}")


@pytest.mark.timeout(60)
def test_pipes_are_refused_and_huge_folders_are_left_early(flowers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(flowers / "rose" / "pipe.png")
    with pytest.raises(InvalidInputError, match=r"'pipe.png' that is no file"):
        load_source(f"images:{flowers}")
    (flowers / "rose" / "pipe.png").unlink()
    seen = []
    real = os.scandir

    class Endless:
        """A folder of a million files, made as they are looked at."""

        def __init__(self, folder):
            self.entry = next(iter(real(folder)))

        def __enter__(self):
            return (seen.append(1) or self.entry for _ in range(1_000_000))

        def __exit__(self, *_):
            return None

    monkeypatch.setattr(os, "scandir", Endless)
    monkeypatch.setattr(image_source, "MAX_FILES", 1000)
    with pytest.raises(InvalidInputError, match="has more than 1,000 entries"):
        load_source(f"images:{flowers}")
    assert len(seen) == 1001


def test_too_many_images_or_classes_or_numbers_are_refused(flowers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(image_source, "MAX_FILES", 3)
        with pytest.raises(InvalidInputError, match="more than 3 images"):
            load_source(f"images:{flowers}")
    with monkeypatch.context() as patch:
        patch.setattr(image_source, "MAX_CELLS", 359)
        with pytest.raises(InvalidInputError, match="4 images of 6 x 5 x 3, more than 359 numbers"):
            load_source(f"images:{flowers}")
    monkeypatch.setattr(image_source, "MAX_BYTES", 10)
    with pytest.raises(InvalidInputError, match="is larger than"):
        load_source(f"images:{flowers}")
    for i in range(51):
        (flowers / f"class{i}").mkdir()
    with pytest.raises(InvalidInputError, match="53 sub-folders, one per class; from 2 to 50"):
        load_source(f"images:{flowers}")


def test_large_images_ask_for_a_size(tmp_path: Path) -> None:
    put(tmp_path, "a/1.png", np.zeros((600, 20, 3), np.uint8))
    put(tmp_path, "b/2.png", np.ones((600, 20, 3), np.uint8))
    with pytest.raises(InvalidInputError, match=r"600 x 20 pixels, a side may have 512.*\?size=SIDE"):
        load_source(f"images:{tmp_path}")
    assert load_source(f"images:{tmp_path}?size=16").layout.shape == (16, 16, 3)


def test_without_pillow_the_way_to_get_it_is_reported(flowers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(InvalidInputError, match=r"pip install 'easeml-airflow\[images\]'"):
        load_source(f"images:{flowers}")
