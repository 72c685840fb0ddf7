"""What somebody asks of the overview's table: which studies, in which order, which page of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from easeml_core.services.reports.recommendations import StepKind

if TYPE_CHECKING:
    from collections.abc import Collection

LONGEST_TEXT = 200


@dataclass(frozen=True, slots=True)
class Query:
    """One view of the table; it is in the address, so that it can be kept and passed on.

    Attributes:
        show: ``all``, or a standing.
        text: What a tenant or a study must hold.
        sort: A key of ``SORTS``.
        page: From 1.
        kind: Only studies that need a person for this, a ``StepKind``; empty for all.
    """

    show: str
    text: str = ""
    sort: str = "needs"
    page: int = 1
    kind: str = ""

    @classmethod
    def of(cls, asked: dict[str, str], *, shows: Collection[str], sorts: Collection[str], usual: str) -> Query:
        """From an address; what is none of the allowed values is taken for the usual one."""
        show, sort, page = asked["show"], asked["sort"], asked["page"]
        return cls(
            show if show in shows else usual,
            asked["q"].strip()[:LONGEST_TEXT],
            sort if sort in sorts else "needs",
            max(1, int(page[:9])) if page.isascii() and page.isdigit() else 1,
            asked["kind"] if asked["kind"] in list(StepKind) else "",
        )

    def link(self, **changes: Any) -> str:
        """The address of another view; another choice begins at its first page.

        Example:
            >>> Query("all", "x-ray").link(page=2), Query("all", page=3).link(show="needs")
            ('?show=all&q=x-ray&sort=needs&page=2', '?show=needs&sort=needs')
        """
        other = replace(self, **{"page": 1} | changes)
        told = {"show": other.show, "kind": other.kind, "q": other.text, "sort": other.sort}
        told["page"] = str(other.page) if other.page > 1 else ""
        return "?" + urlencode({name: value for name, value in told.items() if value})
