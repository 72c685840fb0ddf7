"""What somebody asks of the audit: which acts, of whom, since when, which page of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from easeml_core.services.operations.audit import ACTS

if TYPE_CHECKING:
    from collections.abc import Mapping

PAGE_SIZE = 50
LONGEST_TEXT = 200
USUAL = "30d"

SPANS: dict[str, tuple[str, int | None]] = {
    USUAL: ("Last 30 days", 30),
    "7d": ("Last 7 days", 7),
    "1d": ("Last 24 hours", 1),
    "all": ("All time", None),
}
"""How far back: the word for it, and days; None for all."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One view of the audit; it is in the address, so that it can be kept, passed on and taken away as a table.

    Attributes:
        show: A group, or empty for all.
        text: What a row must hold.
        who: Of this person only.
        study: Of this study only.
        since: A key of ``SPANS``.
        page: From 1.
    """

    show: str = ""
    text: str = ""
    who: str = ""
    study: str = ""
    since: str = USUAL
    page: int = 1

    @classmethod
    def of(cls, asked: Mapping[str, str]) -> Wanted:
        """From an address; what is none of the allowed values is taken for the usual one."""
        page, since = asked["page"], asked["since"]
        return cls(
            asked["show"] if asked["show"] in ACTS else "",
            _plain(asked["q"]),
            _plain(asked["who"]),
            _plain(asked["study"]),
            since if since in SPANS else USUAL,
            max(1, int(page[:7])) if page.isascii() and page.isdigit() else 1,
        )

    @property
    def offset(self) -> int:
        """Newer rows that are left out."""
        return (self.page - 1) * PAGE_SIZE

    def filters(self) -> dict[str, Any]:
        """Arguments of ``services.audit.audit``."""
        days = SPANS[self.since][1]
        return {
            "group": self.show or None,
            "text": self.text,
            "who": self.who or None,
            "study": self.study or None,
            "since": None if days is None else datetime.now(UTC) - timedelta(days=days),
        }

    def link(self, **changes: Any) -> str:
        """The query of another view; another choice begins at its first page.

        Example:
            >>> Wanted(text="a b").link(page=2), Wanted(page=3).link(show="sets"), Wanted().link()
            ('?q=a+b&page=2', '?show=sets', '?')
        """
        other = replace(self, **{"page": 1} | changes)
        told = {"show": other.show, "q": other.text, "who": other.who, "study": other.study}
        told |= {
            "since": "" if other.since == USUAL else other.since,
            "page": str(other.page) if other.page > 1 else "",
        }
        return "?" + urlencode({name: value for name, value in told.items() if value})

    @property
    def is_narrow(self) -> bool:
        """Whether anything is filtered but the time."""
        return bool(self.show or self.text or self.who or self.study)


def _plain(text: str) -> str:
    """Text for a query: the database has no NUL, and no half a character."""
    return text.replace("\0", "").encode("utf-8", "ignore").decode().strip()[:LONGEST_TEXT]
