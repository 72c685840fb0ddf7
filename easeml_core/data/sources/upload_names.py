"""How a source names a file that somebody uploaded: ``SCHEME:upload:DAY/HASH/FILE``, as in ``csv:upload:...``.

The scheme says how the file is read, the rest which one it is: the day on which it came, the hash of its content, and
what its owner calls it. Whose it is stands nowhere: it is looked for among the uploads of the study's own tenant.
Standard library only, as ``source_specs``.
"""

from __future__ import annotations

import re
from datetime import date
from typing import NamedTuple

from easeml_core.errors import InvalidInputError

PREFIX = "upload:"
FORM = f"{PREFIX}YYYY-MM-DD/HASH/FILE"

_NAME = re.compile(rf"{PREFIX}(\d{{4}}-\d\d-\d\d)/([0-9a-f]{{64}})/([A-Za-z0-9][A-Za-z0-9._-]{{0,99}})", re.ASCII)
_UNUSUAL = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST = 100


class UploadName(NamedTuple):
    """Which upload a source means.

    Attributes:
        day: When it came, by UTC, as ``YYYY-MM-DD``.
        digest: SHA-256 of its content, 64 hex digits.
        file: What it is called: letters, digits, dots, dashes.
    """

    day: str
    digest: str
    file: str

    def __str__(self) -> str:
        return f"{PREFIX}{self.day}/{self.digest}/{self.file}"

    @property
    def reference(self) -> str:
        """Of the artifact."""
        return f"sha256:{self.digest}"


def is_upload(name: str) -> bool:
    """Whether the name of a source (behind its scheme) is meant to be that of an upload."""
    return name.startswith(PREFIX)


def upload_of(name: str) -> UploadName:
    """The parts of an upload's name.

    Raises:
        InvalidInputError: It is none; says the form.

    Example:
        >>> upload_of(f"upload:2026-08-01/{'0' * 64}/flowers.csv").file
        'flowers.csv'
    """
    match = _NAME.fullmatch(name)
    if match is None or not _is_day(match[1]):
        message = f"the name of an upload must be {FORM}, as the page that took it says, got {name[:200]!r}"
        raise InvalidInputError(message)
    return UploadName(match[1], match[2], match[3])


def plain_file_name(given: str) -> str:
    r"""What a file is called by its owner, as a source can say it: no folders, nothing but letters, digits, . _ -.

    Example:
        >>> plain_file_name("C:\\data\\Blüten (neu).CSV"), plain_file_name("../..")
        ('Bl_ten_neu_.csv', 'data')
    """
    last = re.split(r"[\\/]", given)[-1]
    stem, dot, ending = _UNUSUAL.sub("_", last).strip("._-").rpartition(".")
    name = f"{stem[: _LONGEST - len(ending) - 1]}.{ending.lower()}" if dot and len(ending) <= 8 else stem or ending
    return name.lstrip("._-")[:_LONGEST] or "data"


def _is_day(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True
