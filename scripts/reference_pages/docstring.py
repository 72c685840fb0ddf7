"""Docstrings in Google's style as Markdown: paragraphs stay, sections become lists."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

SECTIONS = ("Args", "Attributes", "Returns", "Raises", "Example", "Yields")
_HEAD = re.compile(rf"({'|'.join(SECTIONS)}):$")
_ENTRY = re.compile(r"(\*{0,2}\w+): (.*)")


@dataclass
class Docstring:
    """The text before the first section, and the lines of each section, without their indentation."""

    text: str = ""
    sections: dict[str, list[str]] = field(default_factory=dict)

    def entries(self, section: str) -> dict[str, str]:
        r"""The entries of a section of the form ``name: words``, each as one line.

        Example:
            >>> read_docstring("Do.\n\nArgs:\n    a: The\n        first.\n    b: Next.").entries("Args")
            {'a': 'The first.', 'b': 'Next.'}
        """
        found: dict[str, str] = {}
        name = ""
        for line in self.sections.get(section, []):
            head = None if line.startswith(" ") else _ENTRY.match(line)
            if head:
                name, found[head[1]] = head[1], head[2]
            elif name:
                found[name] = f"{found[name]} {line.strip()}".strip()
        return found


def read_docstring(source: str | None) -> Docstring:
    """Take a docstring apart.

    Args:
        source: As ``__doc__`` gives it; None is an empty one.
    """
    read = Docstring()
    lines: list[str] = []
    before = lines
    for line in inspect.cleandoc(source or "").splitlines():
        head = _HEAD.match(line)
        if head:
            lines = read.sections.setdefault(head[1], [])
        else:
            lines.append(line if lines is before else line.removeprefix("    "))
    read.text = "\n".join(before).strip()
    return read


def cell(text: str) -> str:
    """Text for a cell of a table: one line, without the sign that divides cells."""
    return " ".join(text.replace(" | ", " or ").split()).replace("|", "\\|")


def table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A table of Markdown."""
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "\n".join(f"| {' | '.join(map(cell, line))} |" for line in lines)
