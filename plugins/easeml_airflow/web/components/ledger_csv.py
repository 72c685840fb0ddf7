"""A ledger as a file for spreadsheets: numbers as they are, and no text in it is run as a formula."""

from __future__ import annotations

import csv
import io
from itertools import count
from typing import TYPE_CHECKING, Any

from fastapi.responses import Response

from easeml_airflow.web.server.site import HEADERS
from easeml_core.services.operations.audit import cell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence


def ledger_file(entries: Iterable[Mapping[str, Any]], columns: Mapping[str, str], *, test_set: int) -> Response:
    """The answer of a page that exports a ledger.

    Args:
        entries: Newest first.
        columns: Headings, and the key of each in an entry.
        test_set: Number of the set, for the file's name.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_shown(entry[key]) for key in columns.values()] for entry in entries)
    headers = HEADERS | {"Content-Disposition": f'attachment; filename="ledger-{test_set}.csv"'}
    return Response(file.getvalue(), media_type="text/csv", headers=headers)


def whole_ledger(read: Callable[[int], Sequence[Mapping[str, Any]]], *, size: int) -> Iterable[Mapping[str, Any]]:
    """All entries of a ledger, newest first, however many: an auditor's file has no end that nobody sees.

    Args:
        read: Gives a page of ``size`` entries by its number, 0 for the newest ones. What is added meanwhile moves
            entries to the next page, where they are met again, and left out.
        size: Of a page.

    Example:
        >>> pages = [[{"step": 4}, {"step": 3}], [{"step": 3}, {"step": 2}], [{"step": 1}]]
        >>> [entry["step"] for entry in whole_ledger(pages.__getitem__, size=2)]
        [4, 3, 2, 1]
    """
    found: dict[int, Mapping[str, Any]] = {}
    for number in count():
        page = read(number)
        found |= {entry["step"]: entry for entry in page if entry["step"] not in found}
        if len(page) < size:
            break
    return found.values()


def _shown(value: Any) -> Any:
    """A number needs no apostrophe in front of its minus; all else may be somebody's words."""
    return value if isinstance(value, int | float) else cell(value)
