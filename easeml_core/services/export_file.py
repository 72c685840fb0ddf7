"""The file that a study is exported to: a zip of JSON, lines of JSON, and files by their hash.

    manifest.json       {"format", "study", "files": {NAME: {"sha256", "bytes"}}}
    definition.json     what `register_study` takes, but for candidates and tenant's limits
    TABLE.jsonl         one row a line, see ``store.exporting.TABLES``
    artifacts/HEX       files that the rows name as ``sha256:HEX``: programs, and the open data if asked for

The same facts give the same bytes. Whoever reads such a file trusts nothing in it: names come from a fixed list, sizes
are bounded while they are read, every content is held against its hash, and nothing is unpacked under its own name.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from easeml_core.errors import InvalidInputError, reason_of
from easeml_core.store.exporting import TABLES

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMAT = "easeml-study/1"
MOST_FILES = 2_000
MOST_TEXT_BYTES = 64 << 20
"""Of one file of JSON."""
MOST_BYTES = 4 << 30
"""Of all files together, unpacked."""
_EPOCH = (1980, 1, 1, 0, 0, 0)
_CHUNK = 1 << 20
_MANIFEST, _DEFINITION = "manifest.json", "definition.json"
_TEXTS = {_MANIFEST, _DEFINITION, *(f"{table}.jsonl" for table in TABLES)}
_ARTIFACT = re.compile(r"artifacts/([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export holds.

    Attributes:
        study: Its name.
        definition: What ``register_study`` takes.
        tables: Rows by table.
        artifacts: Files by ``sha256:HEX``; where they lie while they are written, or were put while they are read.
    """

    study: str
    definition: Mapping[str, Any]
    tables: Mapping[str, list[dict[str, Any]]]
    artifacts: Mapping[str, Path] = field(default_factory=dict)


def write_export(exported: Exported, path: Path) -> None:
    """Write the file, whole or not at all.

    Raises:
        InvalidInputError: There is a file of this name already, or it cannot be written.
    """
    if path.exists():
        message = f"{path} is there already; give another name, or remove it"
        raise InvalidInputError(message)
    texts = {_DEFINITION: _json(exported.definition)}
    texts |= {f"{name}.jsonl": b"".join(_json(row) for row in rows) for name, rows in exported.tables.items()}
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".easeml-export-", delete=False) as file:
            unfinished = Path(file.name)
            try:
                _write(exported, texts, file)
                os.fchmod(file.fileno(), 0o644)
                unfinished.replace(path)
            finally:
                unfinished.unlink(missing_ok=True)
    except OSError as error:
        message = f"{path} cannot be written: {reason_of(error)}"
        raise InvalidInputError(message) from error


def _write(exported: Exported, texts: Mapping[str, bytes], file: IO[bytes]) -> None:
    files = {name: {"sha256": hashlib.sha256(text).hexdigest(), "bytes": len(text)} for name, text in texts.items()}
    for reference, source in exported.artifacts.items():
        digest = reference.removeprefix("sha256:")
        files[f"artifacts/{digest}"] = {"sha256": digest, "bytes": source.stat().st_size}
    manifest = {"format": FORMAT, "study": exported.study, "files": files}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, text in {_MANIFEST: _json(manifest), **texts}.items():
            packed.writestr(_entry(name), text, zipfile.ZIP_DEFLATED)
        for reference, source in sorted(exported.artifacts.items()):
            entry = _entry(f"artifacts/{reference.removeprefix('sha256:')}")
            entry.file_size = source.stat().st_size  # says beforehand whether 64-bit sizes are needed
            with source.open("rb") as content, packed.open(entry, "w") as target:
                while chunk := content.read(_CHUNK):
                    target.write(chunk)
    file.flush()
    os.fsync(file.fileno())


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, date_time=_EPOCH)
    entry.external_attr = 0o644 << 16
    return entry


def _json(value: Mapping[str, Any]) -> bytes:
    """One line; times as ISO 8601."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, default=_isoformat)
    return text.encode() + b"\n"


def _isoformat(value: Any) -> str:
    return str(value.isoformat())


def read_export(path: Path, folder: Path) -> Exported:
    """Read a file that may be anybody's.

    Args:
        path: The file.
        folder: An empty folder, where artifacts are put under their hash.

    Raises:
        InvalidInputError: It is no such file, was changed, or goes beyond a bound; says which.
    """
    try:
        with zipfile.ZipFile(path) as packed:
            return _read(packed, folder)
    except OSError as error:
        message = f"{path} cannot be read: {reason_of(error)}"
        raise InvalidInputError(message) from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        message = f"{path} is no export of a study, or was damaged: {error}"
        raise InvalidInputError(message) from error


def _read(packed: zipfile.ZipFile, folder: Path) -> Exported:
    entries = _checked_names(packed)
    manifest = _parsed(_text(packed, entries[_MANIFEST]), _MANIFEST)
    listed = manifest.get("files")
    if manifest.get("format") != FORMAT or not isinstance(listed, dict):
        message = f"the export has format {manifest.get('format')!r}; this version reads {FORMAT!r}"
        raise InvalidInputError(message)
    if set(listed) != set(entries) - {_MANIFEST}:
        message = "the manifest of the export does not list the files that are in it; export the study again"
        raise InvalidInputError(message)
    texts = {name: _text(packed, entry) for name, entry in entries.items() if name in _TEXTS - {_MANIFEST}}
    for name, text in texts.items():
        _require_hash(name, hashlib.sha256(text).hexdigest(), listed[name])
    artifacts = _artifacts(packed, entries, folder)
    for reference in artifacts:
        digest = reference.removeprefix("sha256:")
        _require_hash(f"artifacts/{digest}", digest, listed[f"artifacts/{digest}"])
    tables = {name: _rows(texts.get(f"{name}.jsonl", b""), f"{name}.jsonl") for name in TABLES}
    return Exported(str(manifest.get("study")), _parsed(texts[_DEFINITION], _DEFINITION), tables, artifacts)


def _checked_names(packed: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The entries by name: only names that an export can have, each once, and not too much."""
    infos = packed.infolist()
    if len(infos) > MOST_FILES or sum(info.file_size for info in infos) > MOST_BYTES:
        message = f"an export has at most {MOST_FILES:,} files and {MOST_BYTES:,} bytes"
        raise InvalidInputError(message)
    entries = {info.filename: info for info in infos}
    strange = [name for name in entries if name not in _TEXTS and _ARTIFACT.fullmatch(name) is None]
    if strange or len(entries) < len(infos) or not {_MANIFEST, _DEFINITION} <= set(entries):
        message = f"this is no export of a study: {'a file named ' + repr(strange[0]) if strange else 'its files'}"
        raise InvalidInputError(message)
    return entries


def _text(packed: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """A file of JSON, however much its header promises to hold."""
    with packed.open(entry) as content:
        text = content.read(MOST_TEXT_BYTES + 1)
    if len(text) > MOST_TEXT_BYTES:
        message = f"{entry.filename} of the export has more than {MOST_TEXT_BYTES:,} bytes"
        raise InvalidInputError(message)
    return text


def _artifacts(packed: zipfile.ZipFile, entries: Mapping[str, zipfile.ZipInfo], folder: Path) -> dict[str, Path]:
    """Every artifact under its hash, checked while it is written."""
    found, left = {}, MOST_BYTES
    for name, entry in entries.items():
        match = _ARTIFACT.fullmatch(name)
        if match is None:
            continue
        target, digest = folder / match[1], hashlib.sha256()
        with packed.open(entry) as content, target.open("xb") as file:
            while chunk := content.read(_CHUNK):
                left -= len(chunk)
                if left < 0:
                    message = f"the files of the export hold more than {MOST_BYTES:,} bytes"
                    raise InvalidInputError(message)
                digest.update(chunk)
                file.write(chunk)
        _require_hash(name, digest.hexdigest(), {"sha256": match[1]})
        found[f"sha256:{match[1]}"] = target
    return found


def _require_hash(name: str, digest: str, listed: Any) -> None:
    if not isinstance(listed, dict) or listed.get("sha256") != digest:
        message = f"{name} of the export was changed after it was written; export the study again"
        raise InvalidInputError(message)


def _rows(text: bytes, name: str) -> list[dict[str, Any]]:
    return [_parsed(line, name) for line in text.splitlines()]


def _parsed(text: bytes, name: str) -> dict[str, Any]:
    """A mapping, and nothing else."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        message = f"{name} of the export is no JSON: {error}"
        raise InvalidInputError(message) from error
    if not isinstance(found, dict):
        message = f"{name} of the export must hold mappings, got a {type(found).__name__}"
        raise InvalidInputError(message)
    return found
