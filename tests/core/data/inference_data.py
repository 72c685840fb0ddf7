"""Data on disk to infer programs from, and what a program says of them."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.data.sources.load import load_source
from easeml_core.entities import Task
from easeml_core.errors import InvalidInputError
from easeml_core.programs.data_type import Category, DataType
from easeml_core.programs.language import parse_program
from easeml_core.programs.templates import TEMPLATES, match_program

if TYPE_CHECKING:
    from pathlib import Path

    from easeml_core.data.inference.result import Inferred
    from easeml_core.data.table import RawTable

FLOWERS = "size,colour,kind\n1,red,x\n,blue,y\n3,red,y\n4,NA,x\n5,blue,\n"


def written(tmp_path: Path, text: str, name: str = "data.csv") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def loaded(path: Path, found: Inferred) -> RawTable:
    return load_source(found.source.at(path), found.target, found.task)


def loaded_or_why(path: Path, found: Inferred) -> tuple[RawTable | None, str]:
    try:
        return loaded(path, found), ""
    except InvalidInputError as error:
        return None, str(error)


def row_of(found: Inferred) -> str:
    """The row of the templates, from the text as a person would hand it in; it must read back as the same."""
    program = parse_program(found.text)
    assert program == found.program
    assert parse_program(str(program)) == program
    matched = match_program(program, TEMPLATES, targets="numbers" if found.task == Task.REGRESSION else None)
    assert matched.template is not None
    return matched.template.name


def width(found: Inferred) -> int:
    """Numbers that go in, categories as one-hot codes."""
    side = found.program.input
    assert isinstance(side, DataType)
    return sum(part.size if isinstance(part, Category) else int(np.prod(part.dims)) for part in side.fields)


def picture(path: Path, size: tuple[int, int], mode: str = "L") -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(zlib.crc32(str(path.relative_to(path.parents[2])).encode()))
    noise = rng.integers(0, 255, (*size, 3), dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(path)


def arrays(folder: Path, inputs: Any, targets: Any) -> Path:
    folder.mkdir(exist_ok=True)
    np.save(folder / "inputs.npy", inputs)
    np.save(folder / "targets.npy", targets)
    return folder
