"""The observable alphabet: everything that a developer can read of an installation, and what each thing depends on.

A developer is any process that holds the database role ``easeml_worker``, and any person who opens the pages without
the role of a referee or labeler. ``letters.py`` defines the letters, ``database.py`` and ``interfaces.py`` give every
column, route, command, event and message one letter and the reason. A test lists what exists (catalogue, route table,
command tree, source code) and fails where an item has no letter, so the lists here are complete.
"""

from __future__ import annotations

from alphabet.database import DATABASE
from alphabet.interfaces import INTERFACES
from alphabet.letters import Basis, Kind, Letter, Observable

__all__ = ["ALPHABET", "Basis", "Kind", "Letter", "Observable", "letter_of"]

ALPHABET: tuple[Observable, ...] = (*DATABASE, *INTERFACES)
"""Every observable item, with its letter and the reason; each item once."""


def letter_of(kind: Kind, name: str) -> Letter | None:
    """Return the letter of an item, or None for an item without one.

    Args:
        kind: What the item is.
        name: The item's name, in the form that ``Kind`` gives for its kind.

    Example:
        >>> letter_of(Kind.COLUMN, "work.gate_verdicts.symbol").name
        'SYMBOL'
    """
    return _LETTERS.get((kind, name))


_LETTERS = {(item.kind, item.name): item.letter for item in ALPHABET}
