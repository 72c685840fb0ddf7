"""How a study's rows are divided: ``rows``, ``group:COLUMN`` or ``time:COLUMN``, checked without reading any data.

With ``?part=K/N`` the study is number K of N that divide the rows of one table among them
(``services/test_sets/row_registry.py``).

What each of them does is in ``splits``. Standard library only, so that a form or a DAG may check it at no cost.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from easeml_core.errors import InvalidInputError

FORMS = "rows, group:COLUMN or time:COLUMN, with an optional ?part=K/N, the last two also with ?keep=yes"

MOST_PARTS = 20

_SPLIT = re.compile(
    r"(?:rows|(?P<kind>group|time):(?P<column>.+?))(?:\?(?P<options>(?:keep|part)=[^?&]*(?:&(?:keep|part)=[^?&]*)*))?"
)
_PART = re.compile(r"([1-9]\d?)/([1-9]\d?)")
_LONGEST = 1000


class Split(NamedTuple):
    """A checked way to divide rows.

    Attributes:
        kind: ``rows``, ``group`` or ``time``.
        column: What the rows are divided by; empty for ``rows``.
        keep: Whether the column stays among the inputs.
        part: ``(K, N)`` where the study is number K of N studies of one tenant that divide the rows of a table; None
            where it takes all rows.
    """

    kind: str = "rows"
    column: str = ""
    keep: bool = False
    part: tuple[int, int] | None = None

    def __str__(self) -> str:
        options = ["keep=yes"] if self.keep else []
        options += [f"part={self.part[0]}/{self.part[1]}"] if self.part else []
        plain = f"{self.kind}:{self.column}" if self.column else self.kind
        return plain + ("?" + "&".join(options) if options else "")

    @property
    def warning(self) -> str:
        """Return the warning for a tenant who registers such a study; empty for ``rows``."""
        return _WARNINGS[self.kind]

    @property
    def fed_warning(self) -> str:
        """Return the warning for a tenant who feeds such a study; empty for ``rows`` and ``group``."""
        return _FED_WARNING if self.kind == "time" else ""

    @property
    def brought_warning(self) -> str:
        """Return the warning for a referee who brings test or validation rows later; empty for ``rows``.

        Groups and times of the open parts are not kept, so nothing compares those of the rows with them.
        """
        return _BROUGHT_WARNINGS[self.kind].format(column=self.column)

    def require_feedable(self) -> None:
        """Rows that are fed say nothing of their group: of a sealed one, they would teach what models are judged by."""
        if self.kind == "group":
            message = (
                f"the study's rows are divided by group ({self.column}), and pairs that are fed have none: one of a "
                "group that is sealed would teach models what gate and meter judge them by; register a new study with "
                "the whole table"
            )
            raise InvalidInputError(message)


ROWS = Split()

_WARNINGS = {
    "rows": "",
    "group": (
        "the promises of gate and meter hold for independent examples; rows of one group are not, so they hold "
        "only as far as the groups of the sealed parts are many and small"
    ),
    "time": (
        "the sealed parts are the latest rows: gate and meter test how models do on what came after training, "
        "and their promises hold for rows of that time that are independent of each other"
    ),
}

_BROUGHT_WARNINGS = {
    "rows": "",
    "group": (
        "rows that are brought are not divided by group ({column}): models may have learnt from others of a group, and "
        "rows of one group are not independent; bring one row of each group, and none of a group in the open parts"
    ),
    "time": (
        "rows that are brought are not divided by time ({column}): only with rows later than the open parts do gate "
        "and meter test how models do on what came after training"
    ),
}

_FED_WARNING = (
    "rows that are fed are not divided by time: where they are as late as the sealed ones, gate and meter do not test "
    "any more how models do on what came after training"
)


def check_split(text: str | None) -> Split:
    """The way to divide rows that a text names; None and the empty text are ``rows``.

    Example:
        >>> check_split("group:patient")
        Split(kind='group', column='patient', keep=False, part=None)
        >>> str(check_split("time:day?keep=yes"))
        'time:day?keep=yes'
        >>> check_split("rows?part=1/2").part
        (1, 2)
    """
    given = "rows" if text is None else text.strip() if isinstance(text, str) else text
    if given in ("", "rows"):
        return ROWS
    match = _SPLIT.fullmatch(given) if isinstance(given, str) and len(given) <= _LONGEST else None
    options = dict(o.split("=", 1) for o in ((match and match["options"]) or "").split("&") if o)
    column = ((match and match["column"]) or "").strip()
    numbers = _PART.fullmatch(options.get("part", "1/1"))
    part = (int(numbers[1]), int(numbers[2])) if numbers else (1, 0)
    if (
        match is None
        or not given.isprintable()
        or (match["kind"] and not column)
        or options.get("keep", "no") not in ("yes", "no")
        or ("keep" in options and not match["kind"])
        or (match["options"] or "").count("=") != len(options)
        or not part[0] <= part[1] <= MOST_PARTS
    ):
        message = f"split must be {FORMS}, K from 1 to N and N at most {MOST_PARTS}, got {str(text)[:200]!r}"
        raise InvalidInputError(message)
    is_kept, is_part = options.get("keep") == "yes", "part" in options
    return Split(match["kind"] or "rows", column, is_kept, part if is_part else None)
