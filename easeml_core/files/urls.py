"""Addresses of remote files as people write them, and the prefixes under which they may lie.

Nothing here reaches out. An address is taken apart in one plain way; whatever another reader could take apart in
another way (credentials, queries, escapes, steps upwards, one protocol inside another) is refused, not interpreted.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from easeml_core.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterable

WEB = frozenset({"http", "https"})

PROTOCOLS = WEB | {"s3", "gs", "az", "abfs", "memory"}
"""Protocols that know no links between files: what lies under a prefix is there and nowhere else."""

LONGEST = 2000
TENANT = "{tenant}"
"""Stands in a prefix for the name of the tenant whose study it is."""

_URL = re.compile(r"(?P<protocol>[a-z][a-z0-9]*)://(?P<host>[A-Za-z0-9._-]+(?::\d{1,5})?)(?P<path>/.*)?")
_REFUSED = frozenset("?#%\\;@*[]{}<>\"'|^`")


class Address(NamedTuple):
    """An address in parts.

    Attributes:
        protocol: One of ``PROTOCOLS``.
        host: Server or bucket, in small letters, with the port if one is named.
        segments: What stands between the slashes of the path; none is empty, ``.`` or ``..``.
    """

    protocol: str
    host: str
    segments: tuple[str, ...]

    @property
    def path(self) -> str:
        """The path as it is asked for, without a slash in front."""
        return "/".join(self.segments)

    def __str__(self) -> str:
        return f"{self.protocol}://{self.host}/{self.path}"


def parse_url(url: str) -> Address:
    """The parts of an address, if it is a plain one.

    Example:
        >>> parse_url("https://Data.example:8443/lab/a.csv")
        Address(protocol='https', host='data.example:8443', segments=('lab', 'a.csv'))
        >>> parse_url("https://data.example/lab/../a.csv")
        Traceback (most recent call last):
            ...
        easeml_core.errors.InvalidInputError: address 'https://data.example/lab/../a.csv' has an empty part, '.' or '..'
    """
    match = _URL.fullmatch(url)
    if match is None or len(url) > LONGEST or not url.isprintable():
        raise _refused(url, "must be PROTOCOL://HOST/PATH, without user, password or query")
    if match["protocol"] not in PROTOCOLS:
        raise _refused(url, f"has the protocol {match['protocol']!r}; allowed: {', '.join(sorted(PROTOCOLS))}")
    path = (match["path"] or "/")[1:]
    wrong = sorted(_REFUSED.intersection(path))
    if wrong or "::" in path:
        raise _refused(url, f"has {wrong[0] if wrong else '::'!r} in its path; rename the file, nothing is unescaped")
    segments = tuple(path.removesuffix("/").split("/")) if path else ()
    if any(segment.strip() in ("", ".", "..") for segment in (*segments, match["host"])):
        raise _refused(url, "has an empty part, '.' or '..'")
    return Address(match["protocol"], match["host"].lower(), segments)


def parse_prefix(text: str) -> Address:
    """The parts of a prefix, in whose path ``{tenant}`` may stand.

    Example:
        >>> parse_prefix("s3://tables/{tenant}/").segments
        ('{tenant}',)
    """
    plain = parse_url(text.replace(TENANT, "tenant"))
    if TENANT in text.partition("://")[2].partition("/")[0]:
        raise _refused(text, f"has {TENANT} in the name of the server or bucket; it may stand in the path")
    path = text.partition("://")[2].partition("/")[2].removesuffix("/")
    return plain._replace(segments=tuple(path.split("/")) if path else ())


def is_allowed(address: Address, prefixes: Iterable[Address], tenant: str) -> bool:
    """Whether a file lies under one of the prefixes, or is one of them, for this tenant.

    Parts of the path are compared whole, so ``lab`` does not allow ``lab-2``, and a tenant's name cannot step anywhere.

    Example:
        >>> prefixes = [parse_prefix("s3://tables/{tenant}")]
        >>> [is_allowed(parse_url(f"s3://tables/{name}/a.csv"), prefixes, "lab") for name in ("lab", "lab-2")]
        [True, False]
    """
    for prefix in prefixes:
        wanted = tuple(segment.replace(TENANT, tenant) for segment in prefix.segments)
        if address[:2] == prefix[:2] and address.segments[: len(wanted)] == wanted:
            return True
    return False


def _refused(url: str, what: str) -> InvalidInputError:
    return InvalidInputError(f"address {_shown(url)!r} {what}")


def _shown(url: str) -> str:
    """The address without what may be a password, for messages that others read."""
    return re.sub(r"//[^/]*@", "//...@", url[:200])
