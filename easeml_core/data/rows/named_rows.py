"""New rows of a study with a name each, in whatever form its data came: what is sealed, fed or validated on.

The name of a row is its cell ``example`` in a table, the path of its image within the folder, or its number in an
array, from 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.data.columns import nearest
from easeml_core.data.rows.encoding import ExampleFile, encode, examples_of, read_examples, refused, with_distinct_keys
from easeml_core.data.rows.row_files import has_labels, is_table, read_rows
from easeml_core.data.rows.row_format import LABEL, labels_of_words
from easeml_core.data.rows.row_tables import read_text_table
from easeml_core.data.rows.step_lines import joined_steps
from easeml_core.data.sources.zip_upload import unpacked
from easeml_core.errors import InvalidInputError, counted

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from easeml_core.data.rows.row_format import RowForm
    from easeml_core.data.table import Labels


@dataclass(frozen=True, slots=True, eq=False)
class NamedRows:
    """Rows in a study's form.

    Attributes:
        file: Their names, and the cells of a table.
        inputs: float32, shape (rows, features), rows >= 1; NaN is missing.
        labels: As of ``row_format.Rows``; None where there are none.
    """

    file: ExampleFile
    inputs: NDArray[np.float32]
    labels: Labels | None


def read_named_rows(inputs: Path, labels: Path | None, form: RowForm, *, beside: str | None = None) -> NamedRows:
    """The rows of a file or folder, with their labels where there are any.

    Args:
        inputs: As of ``row_files.read_rows``; a table has a column ``example`` and the study's columns.
        labels: A table ``example,label`` of the same rows; None for those that the inputs tell (sub-folders of images,
            or ``targets.npy``).
        form: What a row looks like.
        beside: A column that the inputs must have, an input of the study or not; they are a table then.

    Raises:
        InvalidInputError: A file is invalid or does not fit the study, or both tell labels; the message says where.
    """
    rows = _read(inputs, form, beside)
    if labels is None:
        return rows
    if rows.labels is not None:
        message = f"tells the label of each row already; leave out {labels}, or bring rows without labels"
        raise refused(rows.file, message)
    return NamedRows(rows.file, rows.inputs, _labels_of(read_examples(labels), rows.file, form))


def _read(path: Path, form: RowForm, beside: str | None) -> NamedRows:
    if path.suffix.lower() != ".zip" and is_table(path):
        file = examples_of(path, joined_steps(path, read_text_table(path), form))
        if beside is not None and beside not in file.columns:
            raise refused(file, f"there is no column {beside!r}{nearest(beside, file.columns)}")
        inputs = encode(file, feature_names=form.feature_names, features=form.features, beside=beside)
        return NamedRows(file, inputs, None)
    if beside is not None:
        message = f"{path} has no columns, so there is no {beside!r} in it; only a CSV or Parquet file has"
        raise InvalidInputError(message)
    with unpacked(path.absolute()) as place:
        rows = read_rows(place, form, label=LABEL if place.is_dir() and has_labels(place) else None)
    keys = rows.columns.get("file") or tuple(str(number) for number in range(1, len(rows.inputs) + 1))
    return NamedRows(with_distinct_keys(ExampleFile(path, keys, (), {})), rows.inputs, rows.labels)


def _labels_of(file: ExampleFile, inputs: ExampleFile, form: RowForm) -> Labels:
    """The label of every row of ``inputs``; both files must name the same examples."""
    require_label_columns(file)
    row_of = {key: row for row, key in enumerate(inputs.keys)}
    for row, key in enumerate(file.keys):
        if key not in row_of:
            raise refused(file, f"there is no such example in {inputs.path}", row)
    given = labels_of_words(file, form)
    missing = sorted(set(row_of) - set(file.keys), key=row_of.__getitem__)
    if missing:
        more = f" and {counted(len(missing) - 1, 'other')}" if len(missing) > 1 else ""
        raise refused(inputs, f"there is no label for this example{more} in {file.path}", row_of[missing[0]])
    labels = np.empty(len(inputs.keys), dtype=given.dtype)
    labels[[row_of[key] for key in file.keys]] = given
    return labels


def require_label_columns(file: ExampleFile) -> None:
    """Require the columns ``example`` and ``label``.

    Raises:
        InvalidInputError: It has others.
    """
    if list(file.columns) != [LABEL]:
        raise refused(file, "a file of labels has the columns example and label, and no other")
