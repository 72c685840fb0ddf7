"""How large a program may be, and how things in it are named and sized; shared by both forms of the language.

The bounds keep every answer quick, whatever the text: see ``backtracking`` for the bound on the work of matching.
"""

from __future__ import annotations

import re

from easeml_core.errors import ProgramError

MAX_LENGTH = 200_000
"""Characters of a text."""
MAX_PARTS = 3000
"""Fields and links of one object; nodes, fields, links and classes of one schema."""
MAX_DIMS = 32
"""Dimensions of one tensor."""
MAX_SIZE = 10**9
"""Of one dimension, one class, and the number of links."""
MAX_NAME = 100
"""Characters of a name."""

FIELD_NAME = re.compile(r"[a-z0-9_]+")
"""Of the paper's form."""
SCHEMA_NAME = re.compile(r"[a-z_][0-9a-z_]*")
LETTER = re.compile(r"[A-Z][0-9A-Z_]*")
"""What stands for any number in a pattern."""


def check_text(text: object) -> str:
    """The text itself, or ProgramError when it is none or too long."""
    if not isinstance(text, str):
        message = f"a program is text, got {type(text).__name__}"
        raise ProgramError(message)
    if len(text) > MAX_LENGTH:
        message = f"at most {MAX_LENGTH:,} characters are read, got {len(text):,}"
        raise ProgramError(message)
    return text


def check_size(size: object, what: str) -> int:
    """A whole number from 1 to ``MAX_SIZE``, or ProgramError."""
    if type(size) is not int or not 1 <= size <= MAX_SIZE:
        message = f"{what} must be a whole number from 1 to {MAX_SIZE:,}, got {size!r}"
        raise ProgramError(message)
    return size


def check_name(name: object, what: str, pattern: re.Pattern[str] = SCHEMA_NAME) -> str:
    """A name of the pattern and of bounded length, or ProgramError."""
    if not isinstance(name, str) or not pattern.fullmatch(name):
        first = "a small letter or '_'" if pattern is SCHEMA_NAME else "any of these"
        message = f"{what} has small letters, digits and '_', and begins with {first}, got {short(name)}"
        raise ProgramError(message)
    if len(name) > MAX_NAME:
        message = f"{what} has at most {MAX_NAME} characters, got {len(name)}"
        raise ProgramError(message)
    return name


def check_count(count: int, what: str, most: int = MAX_PARTS) -> None:
    """Not more than allowed, or ProgramError."""
    if count > most:
        message = f"{what}: at most {most:,}, got {count:,}"
        raise ProgramError(message)


def short(value: object) -> str:
    """A value as it is shown in a message: its first characters."""
    shown = repr(value)
    return shown if len(shown) <= 40 else f"{shown[:36]}..."
