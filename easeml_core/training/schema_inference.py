"""The program of data that somebody names: what goes in, what comes out, and what of the data decided that.

    a CSV file             a table; series if it has the columns id and step
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

from easeml_core.training.file_kind import ARRAYS, kind_of
from easeml_core.training.folder_inference import infer_arrays, infer_images
from easeml_core.training.source_specs import Source, check_source, checked_task
from easeml_core.training.table_inference import infer_csv, infer_parquet

if TYPE_CHECKING:
    from collections.abc import Callable

    from easeml_core.entities import Task
    from easeml_core.training.inferred import Inferred


def infer_program(
    path: Path,
    *,
    target: str | None = None,
    task: Task | str | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> Inferred:
    r"""Infer the program of a file or folder.

    Args:
        path: Where the data are.
        target: The column to predict, or ``COLUMN>NUMBER``; None for the one called target, label, class or y, else
            the last. Images and arrays bring their own.
        task: ``classification`` or ``regression``; None for what the target looks like.
        report: Hears, often, how far the reading is.

    Raises:
        InvalidInputError: If the data are of no known kind, cannot be read, are too large or damaged, or the target or
            the task does not suit them.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "a.csv").write_text("size,colour,kind\n1,red,x\n2,blue,y\n3,red,y\n")
        >>> print(infer_program(folder / "a.csv").program)
        {input: {[size :: Tensor[1], colour :: Category[2]], []}, output: {[kind :: Category[2]], []}}
    """
    where = Path(os.path.abspath(path))
    asked = checked_task(task)
    kind = kind_of(where)
    if kind == "npy" and where.name in ARRAYS and not where.is_dir():
        where = where.parent
    spec = Source(kind, where.name).at(Path(where.name))  # refuses a name that no source can be called by
    wanted = (target or "").strip() or None
    if kind in ("images", "npy"):
        check_source(spec, wanted, asked)
        return infer_images(where, report) if kind == "images" else infer_arrays(where, asked)
    return (infer_csv if kind == "csv" else infer_parquet)(where, wanted, asked, report)
