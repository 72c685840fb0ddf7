"""Readers of what strangers write, each as a function of bytes; any error but the documented ones is a find."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from easeml_core.data.rows.labeled_pairs import read_pairs
from easeml_core.data.sources.arrays import read_arrays
from easeml_core.entities import Task
from easeml_core.errors import EasemlError
from easeml_core.files.local import unpack
from easeml_core.files.urls import parse_prefix, parse_url
from easeml_core.formats.attestation import SigningKey, seal_envelope
from easeml_core.gate.condition import parse_condition
from easeml_core.gate.offline.columns import read_predictions
from easeml_core.gate.script import read_script
from easeml_core.models.command_model import read_manifest
from easeml_core.models.formats import load_constant
from easeml_core.programs.language import parse_any
from easeml_core.programs.schema_reader import read_schema
from easeml_core.programs.search_space.reader import read_space
from easeml_core.services.evidence.bundle_check import check_bundle
from easeml_core.settings.config import parse_adaptivity
from easeml_core.store.rows import as_json

if TYPE_CHECKING:
    from collections.abc import Callable

_KEY = SigningKey.new()
_MOST_BYTES = 1 << 20


def _text(content: bytes) -> str:
    return content.decode("utf-8", "surrogateescape")


def _in_file(content: bytes, name: str, read: Callable[[Path], object]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        read(path)


def condition(content: bytes) -> None:
    """A condition of the gate; what is read can be written and read again."""
    parsed = parse_condition(_text(content))
    assert parse_condition(str(parsed)) == parsed


def script(content: bytes) -> None:
    """A script of ease.ml/ci, in YAML."""
    read_script(_text(content))


def program(content: bytes) -> None:
    """A program, a data type or a pattern of the declarative language."""
    parse_any(_text(content))


def schema(content: bytes) -> None:
    """A schema in YAML."""
    read_schema(_text(content))


def space(content: bytes) -> None:
    """A search space in YAML."""
    read_space(_text(content))


def address(content: bytes) -> None:
    """An address of a source, or the prefix that allows some."""
    for read in (parse_url, parse_prefix):
        try:
            read(_text(content))
        except EasemlError:
            continue


def adaptivity(content: bytes) -> None:
    """The adaptivity of a script."""
    parse_adaptivity(_text(content))


def predictions(content: bytes) -> None:
    """Three CSV files of ``easeml gate decide``, one after the other with a NUL between."""
    parts = (content + b"\0\0").split(b"\0")[:3]
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{n}.csv" for n in range(3)]
        for path, part in zip(paths, parts, strict=True):
            path.write_bytes(part)
        read_predictions(*paths)


def pairs(content: bytes) -> None:
    """Fed examples: a zip archive of arrays."""
    _in_file(content, "pairs.npz", lambda path: read_pairs(path, features=2, classes=3, task=Task.CLASSIFICATION))


def array(content: bytes) -> None:
    """The inputs of a study in an array file; nothing is ever unpickled."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "inputs.npy").write_bytes(content)
        read_arrays(Path(folder), Task.REGRESSION, to_itself=True)


def archive(content: bytes) -> None:
    """A submission's archive; nothing is written outside the folder."""
    with tempfile.TemporaryDirectory() as outer:
        inside, packed = Path(outer) / "inside", Path(outer) / "packed.zip"
        inside.mkdir()
        packed.write_bytes(content)
        try:
            unpack(packed, inside, most_bytes=_MOST_BYTES)
        finally:
            assert sorted(p.name for p in Path(outer).iterdir()) == ["inside", "packed.zip"]
            assert not any(p.is_symlink() for p in inside.rglob("*"))


def constant(content: bytes) -> None:
    """A constant model."""
    _in_file(content, "model.json", load_constant)


def manifest(content: bytes) -> None:
    """The manifest of a command's model, in its archive."""
    _in_file(content, "model.zip", read_manifest)


def bundle(content: bytes) -> None:
    """Evidence of a promotion: as it comes, and where it is a statement, as a trusted key has signed it."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return
    with contextlib.suppress(EasemlError):
        check_bundle(found, [_KEY.public])
    if isinstance(found, dict):
        check_bundle(seal_envelope(found, _KEY), [_KEY.public])


def stored_json(content: bytes) -> None:
    """A JSON body that is stored: PostgreSQL can keep what comes out."""
    try:
        value = json.load(io.BytesIO(content))
    except (ValueError, RecursionError):
        return
    kept = as_json(value)
    assert "\\u0000" not in kept.replace("\\\\", "")
    kept.encode()


TARGETS: dict[str, Callable[[bytes], None]] = {
    one.__name__: one
    for one in (
        *(condition, script, program, schema, space, address, adaptivity, predictions, pairs, array, archive, constant),
        *(manifest, bundle, stored_json),
    )
}
"""Name -> the target; ``corpora/NAME`` has inputs to begin with, those that were once a find among them."""


def try_one(name: str, content: bytes) -> None:
    """Run a target; an error of ours is an answer."""
    try:
        TARGETS[name](content)
    except EasemlError as error:
        if not str(error):
            message = f"an error without a message: {error!r}"
            raise RuntimeError(message) from error
