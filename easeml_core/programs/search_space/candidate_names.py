"""Short, unique names of candidates that come from a search space: what is in them, and a hash of all of it."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from easeml_core.errors import InvalidInputError
from easeml_core.programs.search_space.sampling import canonical

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from easeml_core.entities import Parameters

LONGEST = 63
"""Characters of a name, as in many systems that names end up in."""
_LEAST_HASH = 8


def name_of(candidate: Parameters, digits: int = _LEAST_HASH) -> str:
    """The name of a candidate: its values as words, as far as they fit, and the hash of all of them.

    Example:
        >>> name_of({"optimizer": {"type": "SGD", "momentum": 0.3}, "layers": 2})
        'sgd-momentum0.3-layers2-9b846dae'
    """
    digest = hashlib.sha256(canonical(candidate).encode()).hexdigest()[:digits]
    words = "-".join(word for word in (_slug(word) for word in _words("", candidate)) if word)
    head = words[: LONGEST - digits - 1].strip("-_.")
    return f"{head}-{digest}" if head else digest


def names_of(candidates: Sequence[Parameters]) -> list[str]:
    """A name for each of several different candidates; those that clash get a longer hash."""
    if len({canonical(candidate) for candidate in candidates}) < len(candidates):
        message = "two candidates are the same, so they cannot have two names; leave one out"
        raise InvalidInputError(message)
    names = [name_of(candidate) for candidate in candidates]
    digits = _LEAST_HASH
    while len(set(names)) < len(names):
        digits += 4
        often = Counter(names)
        names = [
            name_of(candidate, digits) if often[name] > 1 else name
            for candidate, name in zip(candidates, names, strict=True)
        ]
    return names


def _words(name: str, value: Any) -> Iterator[str]:
    """A text as itself; anything else behind the name of its parameter."""
    if hasattr(value, "keys"):
        for key in value:
            yield from _words(key, value[key])
    elif isinstance(value, list):
        yield name + "x".join("".join(_words("", item)) for item in value)
    elif isinstance(value, str):
        yield value
    else:
        yield f"{name}{_short_number(value)}"


def _short_number(value: float | None) -> str:
    if value is None or isinstance(value, bool):
        return f"-{str(value).lower()}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _slug(word: str) -> str:
    return re.sub(r"[^a-z0-9_.-]+", "-", word.lower()).strip("-_.")
