"""The program of data that somebody names: what goes in, what comes out, and what of the data decided that.

    a CSV file             a table; series if it has the columns id and step, or others are named for them
    a Parquet file         a table
    a folder of folders    images, a folder for each class
    a folder of .npy       inputs.npy and targets.npy: a table, series or images by their shape

The data are read as the sources read them (``sources``), with the same bounds, and what the sources refuse is refused.
A program says what a source would make of the data, so that it calls for candidates that can be trained on them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from easeml_core.data.inference.folders import infer_arrays, infer_images
from easeml_core.data.inference.result import Asked
from easeml_core.data.inference.series_inference import KEYS
from easeml_core.data.inference.table_inference import infer_csv, infer_parquet
from easeml_core.data.sources.file_kind import ARRAYS, kind_of
from easeml_core.data.sources.spec import Source, check_source, checked_split, checked_task
from easeml_core.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from easeml_core.data.inference.result import Inferred
    from easeml_core.data.split_spec import Split
    from easeml_core.entities import Task


def infer_program(
    path: Path,
    *,
    target: str | None = None,
    task: Task | str | None = None,
    split: Split | str | None = None,
    id_column: str | None = None,
    step_column: str | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> Inferred:
    r"""Infer the program of a file or folder.

    Args:
        path: Where the data are.
        target: The column to predict, or ``COLUMN>NUMBER``; None for the one called target, label, class or y, else
            the last. Images and arrays bring their own.
        task: ``classification`` or ``regression``; None for what the target looks like.
        split: What rows will be divided by (``check_split``), in a file with columns; None for chance.
        id_column: Of series in a CSV file, which one a line belongs to; None for ``id``.
        step_column: Likewise when; None for ``step``. Where either is named, the file is one of series.
        report: Hears, often, how far the reading is.

    Raises:
        InvalidInputError: If the data are of no known kind, cannot be read, are too large or damaged, or what was asked
            for does not suit them.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "a.csv").write_text("size,colour,kind\n1,red,x\n2,blue,y\n3,red,y\n")
        >>> print(infer_program(folder / "a.csv").program)
        {input: {[size :: Tensor[1], colour :: Category[2]], []}, output: {[kind :: Category[2]], []}}
    """
    where = Path(os.path.abspath(path))
    asked = Asked(
        (target or "").strip() or None, checked_task(task), checked_split(split), _keys(id_column, step_column)
    )
    kind = kind_of(where)
    if kind == "npy" and where.name in ARRAYS and not where.is_dir():
        where = where.parent
    if asked.keys and kind != "csv":
        message = f"--id and --step are columns of series in a CSV file; {where.name!r} holds {kind}, leave them out"
        raise InvalidInputError(message)
    spec = Source(kind, where.name).at(Path(where.name))  # refuses a name that no source can be called by
    if kind in ("images", "npy"):
        check_source(spec, asked.target, asked.task, split=asked.split)
        return infer_images(where, report) if kind == "images" else infer_arrays(where, asked.task)
    return (infer_csv if kind == "csv" else infer_parquet)(where, asked, report)


def _keys(*named: str | None) -> tuple[str, ...]:
    """The columns of series, the usual name for one that is not named; none where neither is.

    Raises:
        InvalidInputError: If a source cannot be written with the name.
    """
    if not any(named):
        return ()
    found = tuple((name or "").strip() or usual for name, usual in zip(named, KEYS, strict=True))
    for option, name in zip(KEYS, found, strict=True):
        if not name.isprintable() or set(name) & set("?&"):
            message = f"--{option} must be a column without ?, & and what cannot be printed, got {name[:80]!r}"
            raise InvalidInputError(message)
    if found[0] == found[1]:
        message = f"--id and --step must be two columns, got {found[0]!r} for both"
        raise InvalidInputError(message)
    return found
