"""Files of object stores, through fsspec: read in pieces of bounded size, each asked for by its range.

Credentials come from the environment of the process, as the packages behind fsspec read them; none is ever named in an
address.
"""

from __future__ import annotations

import importlib
import importlib.util
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from easeml_core.errors import InvalidInputError
from easeml_core.remote.files import About
from easeml_core.remote.object_faults import as_os_errors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from easeml_core.remote.files import Reader
    from easeml_core.remote.urls import Address

PIECE = 8 << 20
_CONNECT_SECONDS = 10

_VERSION = ("ETag", "etag", "md5Hash", "generation", "LastModified", "last_modified", "updated", "mtime", "created")
"""What tells versions of a file apart, as the packages behind fsspec call it."""


def filesystem(protocol: str) -> Any:
    """The file system of a protocol that ``urls`` has allowed.

    Raises:
        InvalidInputError: If fsspec or the package behind the protocol is not installed.
    """
    if importlib.util.find_spec("fsspec") is None:
        message = (
            f"addresses of {protocol}:// need the package fsspec: pip install 'easeml-airflow[{_extra(protocol)}]'"
        )
        raise InvalidInputError(message)
    # Without it a host that drops packets is waited for a minute, five times.
    options: dict[str, Any] = {"config_kwargs": {"connect_timeout": _CONNECT_SECONDS}} if protocol == "s3" else {}
    try:
        return importlib.import_module("fsspec").filesystem(protocol, use_listings_cache=False, **options)
    except ImportError as error:
        message = f"addresses of {protocol}:// need one more package beside fsspec: {error}"
        if protocol == "s3":
            message += "; pip install 'easeml-airflow[s3]'"
        raise InvalidInputError(message) from error


def _extra(protocol: str) -> str:
    return "s3" if protocol == "s3" else "remote"


@dataclass(frozen=True, slots=True)
class ObjectFile:
    """A file in an object store."""

    address: Address

    @property
    def _key(self) -> str:
        return f"{self.address.host}/{self.address.path}"

    def about(self) -> About:
        """Size and version as the store tells them."""
        files = filesystem(self.address.protocol)
        with as_os_errors():
            info = files.info(self._key)
            if info.get("type") != "file" or not isinstance(info.get("size"), int):
                message = "it is no file"
                raise IsADirectoryError(message)
            version = {name: str(info[name]) for name in _VERSION if info.get(name) is not None}
            return About(info["size"], "|".join(f"{name} {value}" for name, value in version.items()))

    @contextmanager
    def opened(self, start: int, about: About) -> Iterator[tuple[int, Reader]]:
        """The file from ``start`` on."""
        yield start, _Pieces(filesystem(self.address.protocol), self._key, start, about.size or 0)


@dataclass(slots=True)
class _Pieces:
    """Reads a file range by range."""

    files: Any
    key: str
    place: int
    size: int

    def read(self, size: int, /) -> bytes:
        end = min(self.place + min(size, PIECE), self.size)
        if self.place >= end:
            return b""
        with as_os_errors():
            piece = bytes(self.files.cat_file(self.key, start=self.place, end=end))
        if len(piece) != end - self.place:
            message = "the object store gives another range than was asked for"
            raise OSError(message)
        self.place = end
        return piece
