"""What an Airflow connection of type ``easeml`` holds, read in one way by the tasks and by ``easeml doctor``.

Cheap, since every DAG file that is parsed comes by here. Errors name what is refused; of its value they give only its
kind, for a key may have been pasted where its path belongs, and errors go to logs.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from easeml_core.settings.config import require

if TYPE_CHECKING:
    from easeml_core.entities import JsonObject


class ConnectionExtra(StrEnum):
    """All that the extra of Airflow's connection may hold: where artifacts lie, and libpq's own words for TLS."""

    ARTIFACTS = "artifacts"
    MODE = "sslmode"
    ROOT_CERTIFICATE = "sslrootcert"
    CERTIFICATE = "sslcert"
    KEY = "sslkey"


TLS_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
"""What ``sslmode`` may be, in libpq's words."""


def extra_of(given: object, name: str = "extra") -> JsonObject:
    """What an extra holds; what a form left empty is not in it.

    Example:
        >>> extra_of({"artifacts": "/srv/easeml", "sslmode": ""})
        {'artifacts': '/srv/easeml'}
        >>> extra_of({"sslmod": "require"})
        Traceback (most recent call last):
            ...
        easeml_core.errors.ConfigError: extra must be a mapping of no more than artifacts, sslmode, sslrootcert, \
sslcert, sslkey, got ['sslmod']
    """
    wanted = f"a mapping of no more than {', '.join(ConnectionExtra)}"
    held: Mapping[Any, Any] = given if isinstance(given, Mapping) else {}
    require(held is given, name, _kind(given), wanted)
    unknown = sorted(str(key) for key in held if key not in tuple(ConnectionExtra))
    require(not unknown, name, unknown, wanted)
    return {key: value for key, value in held.items() if value not in (None, "")}


def artifacts_of(extra: JsonObject, name: str = "extra") -> str:
    """Where the artifacts lie."""
    place = extra.get(ConnectionExtra.ARTIFACTS)
    wanted = "the path of a folder, or an address such as s3://BUCKET/PATH"
    require(isinstance(place, str) and place != "", f"{name}.{ConnectionExtra.ARTIFACTS}", _kind(place), wanted)
    return str(place)


def tls_of(extra: JsonObject, name: str = "extra") -> dict[str, str]:
    """Return the TLS parameters of libpq; libpq itself looks at the files.

    Example:
        >>> tls_of({"artifacts": "/srv/easeml", "sslmode": "require"})
        {'sslmode': 'require'}
        >>> tls_of({"sslkey": "-----BEGIN PRIVATE KEY-----"})
        Traceback (most recent call last):
            ...
        easeml_core.errors.ConfigError: extra.sslkey must be the path of a file, without blanks, got 'text with blanks'
    """
    parameters = {str(key): value for key, value in extra.items() if key != ConnectionExtra.ARTIFACTS}
    for key, value in parameters.items():
        if key == ConnectionExtra.MODE:
            require(value in TLS_MODES, f"{name}.{key}", _kind(value), f"one of {', '.join(TLS_MODES)}")
        else:
            # The listener's address would hold a blank as "+", which libpq does not turn back.
            is_path = isinstance(value, str) and not _has_blanks(value)
            require(is_path, f"{name}.{key}", _kind(value), "the path of a file, without blanks")
    return parameters


def database_url(
    *, host: str, port: object, database: str, login: str, password: str | None, tls: Mapping[str, str]
) -> str:
    """Address of the database; never log it.

    Example:
        >>> database_url(host="::1", port=None, database="easeml", login="me", password="a b", tls={"sslcert": "/c+d"})
        'postgresql+psycopg2://me:a%20b@[::1]:5432/easeml?sslcert=%2Fc%2Bd'
    """
    role, word, name = (quote(text, safe="") for text in (login, password or "", database))
    server = f"[{host}]" if ":" in host else host
    address = f"postgresql+psycopg2://{role}:{word}@{server}:{port or 5432}/{name}"
    query = urlencode(tls, quote_via=quote, safe="")
    return f"{address}?{query}" if query else address


def _has_blanks(text: str) -> bool:
    return any(letter.isspace() for letter in text)


def _kind(value: object) -> str | None:
    """Describe a value in an error without giving the value itself."""
    if isinstance(value, str):
        return "text with blanks" if _has_blanks(value) else "another text"
    return None if value is None else type(value).__name__
