"""The child that looks at data for a server: ``python -m`` of this module with ``PARENT_PID ASKED OUTPUT``.

``ASKED`` is JSON: ``path`` of a file or folder, or ``source`` of one that needs none, and what ``infer_program`` takes.
It writes JSON: the program, what decided it, and of a table its columns and first rows.
"""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from easeml_core.errors import EasemlError
from easeml_core.formats.encoding import to_json
from easeml_core.sandbox import child_protocol

if TYPE_CHECKING:
    from easeml_core.data.inference.result import DataPreview
    from easeml_core.entities import JsonObject

MOST_ROWS, MOST_COLUMNS, MOST_CHARACTERS = 5, 12, 40
"""Of a table that are shown."""


def main(arguments: list[str]) -> None:
    """Look and end; a reason on standard error where it cannot be done."""
    child_protocol.prepare(int(arguments[0]))
    asked = json.loads(arguments[1])
    try:
        found = _of_path(asked) if "path" in asked else _of_source(asked)
    except EasemlError as error:
        child_protocol.fail(str(error))
    except MemoryError as error:
        child_protocol.fail(f"out of memory: {error or 'a table did not fit'}")
    Path(arguments[2]).write_text(json.dumps(to_json(found)), encoding="utf-8")


def _of_path(asked: JsonObject) -> DataPreview:
    from easeml_core.data.inference.infer import infer_program
    from easeml_core.data.inference.result import DataPreview, program_text
    from easeml_core.formats.encoding import row_of

    path = Path(asked["path"])
    words = {name: asked[name] for name in ("target", "task", "split", "id_column", "step_column") if asked.get(name)}
    found = infer_program(path, **words)
    has_table = found.source.scheme in ("csv", "series", "parquet")
    columns, head = _table(path, found.source.scheme) if has_table else ([], [])
    return DataPreview(**row_of(found.report()), text=program_text(found.program), columns=columns, head=head)


def _of_source(asked: JsonObject) -> DataPreview:
    """A source that every machine has, such as ``sklearn:digits``: small, so it is read whole."""
    import numpy as np

    from easeml_core.data.inference.result import ClassRows, DataPreview, program_text
    from easeml_core.data.program import program_of_data
    from easeml_core.data.sources.load import load_source
    from easeml_core.programs.data_type import DataType

    raw = load_source(asked["source"], asked.get("target"), asked.get("task"), split=asked.get("split"))
    program = raw.program or program_of_data(raw.layout, raw.task, len(raw.class_names), raw.target_layout)
    counts = np.bincount(raw.labels, minlength=len(raw.class_names)) if raw.class_names else ()
    return DataPreview(
        source=asked["source"],
        target=asked.get("target") or None,
        task=raw.task,
        split=asked.get("split") or "rows",
        form="paper" if isinstance(program.input, DataType) else "schema",
        program=str(program),
        rows=len(raw.labels),
        partial=False,
        classes=[ClassRows(name, int(rows)) for name, rows in zip(raw.class_names, counts, strict=False)],
        notes=[f"read: all {len(raw.labels):,} rows, which are different from each other"],
        text=program_text(program),
        columns=[],
        head=[],
    )


def _table(path: Path, scheme: str) -> tuple[list[str], list[list[str]]]:
    """Return the columns and the first rows."""
    from easeml_core.data.inference.column_stats import csv_blocks, parquet_blocks

    header, blocks = parquet_blocks(path) if scheme == "parquet" else csv_blocks(path)
    shown = header[:MOST_COLUMNS]
    first = next(itertools.chain(blocks, [{}]))
    cells = [[_cell(text) for text in (_texts(first[name]) if first else ())] for name in shown]
    return list(header), [list(row) for row in zip(*cells, strict=True)]


def _texts(cells: Any) -> list[Any]:
    return list(itertools.islice(cells.texts or cells.column.tolist(), MOST_ROWS))


def _cell(value: Any) -> str:
    text = "" if value is None or value != value else f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 1] + "\N{HORIZONTAL ELLIPSIS}"


if __name__ == "__main__":
    main(sys.argv[1:])
