"""Parameters that are the tenant's own: any JSON within bounds; and two rules for what such a candidate is made of.

Standard library only, like ``parameters``.
"""

from __future__ import annotations

import json
import re
import reprlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from easeml_core.config import require
from easeml_core.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_BYTES = 3000
"""Of a candidate's own parameters as JSON; the database takes 4,000 with all that stands beside them."""

_LONGEST_NAME = 100
_ARTIFACT = re.compile(r"sha256:[0-9a-f]{64}")
_IMAGE = re.compile(r"[a-z0-9][a-z0-9._:/-]{0,300}@sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Artifact:
    """The reference of a file in the artifact store; there is no default."""

    default: None = None

    def check(self, name: str, value: object) -> str:
        """The reference itself.

        Example:
            >>> Artifact().check("program", "sha256:" + 64 * "0")[:10]
            'sha256:000'
        """
        fits = isinstance(value, str) and _ARTIFACT.fullmatch(value) is not None
        require(fits, name, value, "sha256:<64 hex digits>, as `easeml candidate pack FOLDER` prints it")
        return str(value)


@dataclass(frozen=True, slots=True)
class Image:
    """A container image by its digest, so that a candidate stays what it was; there is no default."""

    default: None = None

    def check(self, name: str, value: object) -> str:
        """The image's name itself.

        Example:
            >>> Image().check("image", "registry.example/lab/trainer@sha256:" + 64 * "0")[:25]
            'registry.example/lab/trai'
        """
        fits = isinstance(value, str) and _IMAGE.fullmatch(value) is not None
        require(fits, name, value, "NAME@sha256:<64 hex digits>, as `docker images --digests` shows it; no tag alone")
        return str(value)


def checked_own(kind: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as JSON gives them back.

    Args:
        kind: The trainer's name, for the message.
        given: Text, finite numbers, true, false, None, lists and mappings by name.

    Raises:
        InvalidInputError: If a name or a value is none of these, or they are too many; names the parameter.

    Example:
        >>> checked_own("command", {"layers": (64, 32), "rate": 0.1})
        {'layers': [64, 32], 'rate': 0.1}
    """
    checked = {name: _checked(kind, name, value) for name, value in given.items()}
    size = len(json.dumps(checked, ensure_ascii=False).encode())
    if size > MOST_BYTES:
        message = f"the parameters of a candidate of kind {kind} may have {MOST_BYTES:,} bytes as JSON, got {size:,}"
        raise InvalidInputError(message)
    return checked


def _checked(kind: str, name: object, value: object) -> Any:
    if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_NAME or not name.isprintable():
        message = (
            f"a parameter of {kind} has a name of 1 to {_LONGEST_NAME} printable characters, got {reprlib.repr(name)}"
        )
        raise InvalidInputError(message)
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        text.encode()  # half a pair of surrogates cannot be stored, nor can the character 0
        fits = len(text) <= MOST_BYTES and "\\u0000" not in text.replace("\\\\", "")
    except (TypeError, ValueError, RecursionError):
        fits = False
    allowed = f"text, a finite number, true, false, null, or lists and mappings of these; at most {MOST_BYTES:,} bytes"
    require(fits, f"{kind}.{name}", reprlib.repr(value), allowed)
    return json.loads(text)
