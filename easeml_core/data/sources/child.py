"""The child that reads a source for the referee: ``python -m`` of this module with ``PARENT_PID ASKED FOLDER``.

``ASKED`` is the JSON of a ``ReadJob``. The child writes into the folder the table, as arrays and JSON of which nothing
is unpickled, or why the source is refused. What the data do to it, such as to take more memory than is allowed, ends it
and not the process that asks.
"""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.data import mapped
from easeml_core.data.layout import Layout
from easeml_core.data.mapped import mapped_arrays, write_arrays
from easeml_core.data.sources.files import opened_beneath
from easeml_core.data.sources.load import load_source
from easeml_core.data.sources.spec import SCHEMES, parse_source
from easeml_core.data.table import RawTable
from easeml_core.entities import Task
from easeml_core.errors import Blame, InvalidInputError, blame_of, reason_of
from easeml_core.formats.encoding import from_json, to_json, typed_record
from easeml_core.programs.language import parse_program
from easeml_core.sandbox import child_protocol

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from easeml_core.data.columns import Column

_ARRAYS, _TABLE, REFUSAL = "arrays.npz", "table.json", "refusal.txt"
"""Files of the folder; the third one instead of the others."""


@typed_record
class ReadJob:
    """What to read.

    Attributes:
        source: As of a study. Its name is a path, where no folder is given.
        target: As of ``load_source``, as are the next two.
        task: None for what the source suggests.
        split: How the rows will be divided.
        memory_mb: What the child may take beside what it begins with.
        folder: The only one in which the source's name may lie, and in which others may write; empty for any.
        absent: The refusal where nothing of the source's kind has its name in the folder.
    """

    source: str
    target: str | None
    task: str | None
    split: str
    memory_mb: int
    folder: str = ""
    absent: str = ""


def main(arguments: list[str]) -> None:
    """Read and end; a fault of the machine is the reason on standard error."""
    child_protocol.prepare(int(arguments[0]))
    asked = from_json(json.loads(arguments[1]), ReadJob)
    child_protocol.bound_memory(asked.memory_mb)
    write_table(asked, Path(arguments[2]))


def write_table(asked: ReadJob, folder: Path) -> None:
    """Write the table of a source into an empty folder, or why it is refused."""
    try:
        table = _read(asked)
        _save(folder, table)
    except (InvalidInputError, OSError, MemoryError) as error:
        blame = blame_of(error)
        if blame is Blame.BOUNDED:  # also where a library took a lack of memory for a damaged file
            child_protocol.fail(f"{child_protocol.OUT_OF_MEMORY}: {error}")
        if blame is Blame.PASSING:
            child_protocol.fail(reason_of(error), passing=True)
        if not isinstance(error, InvalidInputError):
            raise
        (folder / REFUSAL).write_text(str(error), encoding="utf-8")


def _read(asked: ReadJob) -> RawTable:
    source, given = parse_source(asked.source), (asked.target, asked.task)
    if not asked.folder:
        return load_source(asked.source, *given, split=asked.split)
    is_folder = SCHEMES[source.scheme].reads == "folder"
    with ExitStack() as held:
        try:
            path = held.enter_context(opened_beneath(Path(asked.folder), source.name, is_folder=is_folder))
        except FileNotFoundError as error:
            raise InvalidInputError(asked.absent) from error
        except OSError as error:
            message = f"source {asked.source!r}: it cannot be read: {reason_of(error)}"
            raise InvalidInputError(message) from error
        try:
            return load_source(source.at(path), *given, split=asked.split)
        except InvalidInputError as error:  # the user's name for it, and no descriptor
            raise InvalidInputError(str(error).replace(str(path), source.name)) from error


def _save(folder: Path, table: RawTable) -> None:
    arrays = {"inputs": table.inputs, "labels": table.labels}
    if table.split_values is not None:
        arrays["split_values"] = table.split_values
    words: list[list[str | None] | None] = []
    for number, column in enumerate(table.columns.values()):
        known, arrays[f"column_{number}"] = _coded(column)
        words.append(known)
    with (folder / _ARRAYS).open("wb") as file:
        write_arrays(file, arrays)
    layouts = [None if layout is None else layout.to_json() for layout in (table.layout, table.target_layout)]
    about = {
        "class_names": table.class_names,
        "feature_names": table.feature_names,
        "layouts": layouts,
        "duplicates": table.duplicates,
        "task": table.task,
        "program": None if table.program is None else str(table.program),
        "columns": list(table.columns),
        "words": words,
        "is_mapped": mapped.is_mapped(table.inputs),
    }
    (folder / _TABLE).write_text(json.dumps(to_json(about)), encoding="utf-8")


def load_table(folder: Path) -> RawTable:
    """Return the table that the child has written; a large one stays in its file, which may be removed meanwhile."""
    if (folder / REFUSAL).exists():
        raise InvalidInputError((folder / REFUSAL).read_text(encoding="utf-8"))
    about = json.loads((folder / _TABLE).read_text(encoding="utf-8"))
    with np.load(folder / _ARRAYS, allow_pickle=False) as file:
        found = mapped_arrays(folder / _ARRAYS, file.zip) if about["is_mapped"] else {}
        arrays = {name: found[name] if name == "inputs" and name in found else file[name] for name in file.files}
    layout, target = (None if layout is None else Layout.from_json(layout) for layout in about["layouts"])
    assert layout is not None
    return RawTable(
        arrays["inputs"],
        arrays["labels"],
        tuple(about["class_names"]),
        tuple(about["feature_names"]),
        layout,
        duplicates=about["duplicates"],
        task=Task(about["task"]),
        split_values=arrays.get("split_values"),
        target_layout=target,
        program=None if about["program"] is None else parse_program(about["program"]),
        columns={
            name: _decoded(words, arrays[f"column_{number}"])
            for number, (name, words) in enumerate(zip(about["columns"], about["words"], strict=True))
        },
    )


def _coded(column: Column) -> tuple[list[str | None] | None, NDArray[Any]]:
    """Different words of a column of text, and the place of each cell's word among them; numbers as they are."""
    if column.dtype != object:
        return None, column
    places: dict[str | None, int] = {}
    codes = np.array([places.setdefault(word, len(places)) for word in column], dtype=np.int32)
    return list(places), codes


def _decoded(words: list[str | None] | None, codes: NDArray[Any]) -> Column:
    if words is None:
        return codes
    table: Column = np.array([*words, None], dtype=object)[codes]
    return table


if __name__ == "__main__":
    main(sys.argv[1:])
