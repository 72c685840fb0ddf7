"""Uploads: how a source names one, and what an uploaded zip file may hold."""

import io
import struct
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from easeml_core.data.sources.files import unpack_upload
from easeml_core.data.sources.spec import UploadName, parse_source, plain_file_name, upload_of
from easeml_core.errors import InvalidInputError

HASH = "ab" * 32


def test_a_source_names_an_upload_with_the_options_of_its_scheme():
    source = parse_source(f"images:upload:2026-08-01/{HASH}/leaves.zip?size=32")
    assert upload_of(source.name) == UploadName("2026-08-01", HASH, "leaves.zip")
    assert source.option("size") == "32"


@pytest.mark.parametrize(
    "name",
    [
        "upload:",
        f"upload:2026-13-01/{HASH}/a.csv",
        f"upload:2026-08-01/{HASH[:-1]}/a.csv",
        f"upload:2026-08-01/{HASH.upper()}/a.csv",
        f"upload:2026-08-01/{HASH}/../a.csv",
        f"upload:2026-08-01/{HASH}/",
        f"upload:2026-08-01/{HASH}/.a.csv",
        f"upload:../{HASH}/a.csv",
        f"upload:2026-08-01/{HASH}/a.csv/b",
        f"upload:٢٠٢٦-08-01/{HASH}/a.csv",
    ],
)
def test_any_other_name_of_an_upload_is_refused_without_reading(name):
    with pytest.raises(InvalidInputError, match="the name of an upload must be upload:YYYY-MM-DD/HASH/FILE"):
        parse_source(f"csv:{name}")


@given(st.text(max_size=150))
def test_whatever_a_file_is_called_a_source_can_say_it(given_name):
    name = plain_file_name(given_name)
    assert upload_of(f"upload:2026-08-01/{HASH}/{name}").file == name


def packed(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def unpacked(tmp_path: Path, files: dict[str, bytes]) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    return unpack_upload(packed(tmp_path / "a.zip", files), folder).relative_to(folder)


@pytest.mark.parametrize(
    ("files", "root"),
    [
        ({"red/1.png": b"", "blue/1.png": b""}, "."),
        ({"leaves/red/1.png": b"", "leaves/blue/1.png": b"", "__MACOSX/leaves/._1.png": b""}, "leaves"),
        ({"a/b/red/1.png": b"", "a/b/blue/1.png": b"", "a/.DS_Store": b""}, "a/b"),
        ({"one/1.png": b"", "one/2.png": b""}, "."),
        ({"arrays/inputs.npy": b"", "arrays/targets.npy": b""}, "arrays"),
    ],
)
def test_folders_around_the_data_are_stepped_over(files, root, tmp_path):
    assert unpacked(tmp_path, files) == Path(root)


@pytest.mark.parametrize("name", ["../out.png", "/etc/out.png", "a/../../out.png", "a\\b.png"])
def test_a_name_that_leads_elsewhere_is_refused(name, tmp_path):
    with pytest.raises(InvalidInputError, match="is no name of a file inside a folder"):
        unpacked(tmp_path, {name: b"x"})
    assert not (tmp_path / "out.png").exists()


def test_what_is_no_zip_file_or_lists_too_much_is_refused_before_it_is_read(tmp_path, monkeypatch):
    def never(*_):
        raise AssertionError

    monkeypatch.setattr("easeml_core.data.sources.files.unpack", never)
    plain = tmp_path / "a.zip"
    plain.write_bytes(b"no zip at all")
    with pytest.raises(InvalidInputError, match=r"a\.zip is no zip file, or not a whole one"):
        unpack_upload(plain, tmp_path)
    for entries, length in ((10_001, 0), (1, (4 << 20) + 1)):
        plain.write_bytes(struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, entries, entries, length, 0, 0))
        with pytest.raises(InvalidInputError, match=r"a\.zip has more than 10,000 entries"):
            unpack_upload(plain, tmp_path)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("a/1.png", b"x")
    end = content.getvalue().rfind(b"PK\x05\x06")
    larger = content.getvalue()[:end] + struct.pack("<4sLQL", b"PK\x06\x07", 0, 0, 1) + content.getvalue()[end:]
    plain.write_bytes(larger)
    with pytest.raises(InvalidInputError, match=r"a\.zip has more than 10,000 entries"):
        unpack_upload(plain, tmp_path)
