"""``command.json`` of a packed folder: how its program predicts, and where it can be trained, how it is trained.

    {"command": ["python", "predict.py"]}                                     a model that is a program
    {"command": ["python", "predict.py"], "train": ["python", "train.py"]}    a program that can be trained as well

Each is a program and its arguments, run without a shell in the unpacked folder. Nothing is run here.
"""

from __future__ import annotations

import json
import shlex
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from easeml_core import archive
from easeml_core.errors import ArtifactError, InvalidInputError

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST, MODEL_FOLDER = "command.json", "model"
_BYTES = 10_000


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a packed folder says of itself.

    Attributes:
        command: How it predicts.
        train: How it is trained; empty where it cannot be.
    """

    command: tuple[str, ...]
    train: tuple[str, ...] = ()


def read_manifest(path: Path) -> Manifest:
    """The manifest in an archive.

    Raises:
        ArtifactError: If it is no archive, not one that would be unpacked, or says no command.
    """
    return _opened(path)[0]


def read_program(path: Path) -> Manifest:
    """The manifest of a program that can be trained.

    Raises:
        ArtifactError: As ``read_manifest``; or it does not say how it is trained, or the place of what it learns is
            taken.
    """
    manifest, names = _opened(path)
    if not manifest.train:
        message = (
            f'{MANIFEST} of the program {path.name} does not say how it is trained: add "train": ["python", "train.py"]'
        )
        raise ArtifactError(message)
    if any(name.split("/")[0] == MODEL_FOLDER for name in names):
        message = f"the program {path.name} holds {MODEL_FOLDER}/, which is where what it learns is put; leave it out"
        raise ArtifactError(message)
    return manifest


def manifest_of(command: str, train: str | None) -> bytes:
    """The file, from lines as in a shell, without its expansions.

    Raises:
        InvalidInputError: If a line is empty or cannot be read.

    Example:
        >>> manifest_of("python predict.py 'a b'", None)
        b'{"command": ["python", "predict.py", "a b"]}'
    """
    lines = {"command": command} | ({} if train is None else {"train": train})
    return json.dumps({name: _words(line) for name, line in lines.items()}).encode()


def _opened(path: Path) -> tuple[Manifest, list[str]]:
    """The manifest, and the names of all files."""
    try:
        with zipfile.ZipFile(path) as packed:
            archive.check_entries(packed.infolist())
            with packed.open(MANIFEST) as file:
                content = file.read(_BYTES + 1)
            names = packed.namelist()
    except (zipfile.BadZipFile, OSError, EOFError, KeyError, NotImplementedError, RuntimeError, ValueError) as error:
        message = f"the model file {path.name} is no archive with a {MANIFEST}: {error}"
        raise ArtifactError(message) from error
    return _manifest_in(content, path.name), names


def _manifest_in(content: bytes, name: str) -> Manifest:
    fields: Any = None
    with suppress(ValueError, RecursionError):
        fields = json.loads(content) if len(content) <= _BYTES else None
    known = isinstance(fields, dict) and "command" in fields and set(fields) <= {"command", "train"}
    if not known or not all(_are_words(words) for words in fields.values()):
        message = (
            f'{MANIFEST} of the model file {name} must be {{"command": ["python", "predict.py"]}} or the like, and '
            'may have "train": ["python", "train.py"] beside it'
        )
        raise ArtifactError(message)
    return Manifest(**{field: tuple(words) for field, words in fields.items()})


def _are_words(words: object) -> bool:
    listed = isinstance(words, list) and bool(words)
    return listed and all(isinstance(word, str) and word and "\0" not in word for word in words)  # type: ignore[attr-defined]


def _words(line: str) -> list[str]:
    try:
        words = shlex.split(line)
    except ValueError as error:
        message = f"the command {line!r} cannot be read: {error}"
        raise InvalidInputError(message) from error
    if not words:
        message = "the command is empty; e.g. 'python predict.py'"
        raise InvalidInputError(message)
    return words
