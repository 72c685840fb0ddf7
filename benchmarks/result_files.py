"""Files of results in ``benchmarks/results``: every benchmark that keeps figures reads and writes CSV here."""

from __future__ import annotations

import csv
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

FOLDER = Path(__file__).with_name("results")


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a file; none if there is no file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_rows(path: Path, rows: Iterable[Any], names: Sequence[str]) -> None:
    """Write a file, whole or not at all.

    Args:
        path: The file.
        rows: Dataclasses or mappings; None becomes an empty cell.
        names: Of the columns, in their order.
    """
    temporary = path.with_suffix(".part")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) if is_dataclass(row) and not isinstance(row, type) else row for row in rows)
    temporary.replace(path)
