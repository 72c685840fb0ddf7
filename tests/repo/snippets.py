"""The fenced blocks of the documentation, and the calls that blocks and sentences show, word by word."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from doc_pages import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
ENDS = {"|", "&&", ";", ">", "||"}
"""What ends a call in a line of a shell."""


@dataclass(frozen=True)
class Block:
    """A fenced block: the page's file name, the word behind its fence, what stands in it, and the section around it."""

    page: str
    kind: str
    text: str
    section: str = ""

    @property
    def name(self) -> str:
        """Page and first line: what a list of blocks calls it, whatever stands above it on the page."""
        return f"{self.page}: {self.text.splitlines()[0].strip()}"


def blocks_of(page: Path) -> list[Block]:
    """The fenced blocks of a page, those within a list included."""
    found: list[Block] = []
    opened: re.Match[str] | None = None
    lines: list[str] = []
    section = ""
    for line in page.read_text(encoding="utf-8").splitlines():
        fence = re.fullmatch(r"( *)(```+)(\w*)", line)
        if opened is None and line.startswith("## "):
            section = line.removeprefix("## ")
        if opened is None and fence:
            opened, lines = fence, []
        elif opened is not None and line.strip() == opened[2]:
            found.append(Block(page.name, opened[3], "".join(f"{x}\n" for x in lines), section))
            opened = None
        elif opened is not None:
            lines.append(line.removeprefix(opened[1]))
    assert opened is None, f"{page.name}: a block has no end"
    return found


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def calls(text: str) -> Iterator[list[str]]:
    """The words of each call of a shell's text; of a session with ``$`` before what is typed, of those lines alone."""
    lines = text.replace("\\\n", " ").splitlines()
    if any(line.startswith("$ ") for line in lines):
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    waiting = ""
    for line in lines:
        try:
            words = _words(waiting + line)
        except ValueError:  # a quotation goes on in the next line
            waiting += f"{line}\n"
            continue
        waiting = ""
        for inner in re.findall(r"\$\(([^()]*(?:\([^()]*\)[^()]*)*)\)", line):
            yield from calls(inner)
        yield from _split(words)
    assert not waiting, waiting


def _words(line: str) -> list[str]:
    """As a shell reads a line; what ``$(...)`` gives is one word, and brackets mean nothing."""
    line = re.sub(r"\$\(.*\)", "GIVEN", line)
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;>")
    lexer.whitespace_split = True
    return list(lexer)


def _split(words: list[str]) -> Iterator[list[str]]:
    call: list[str] = []
    for before, word in zip(["", *words], [*words, ";"], strict=True):
        if word not in ENDS:
            if before != ">":  # the file that takes what is printed
                call.append(word)
            continue
        while call and re.match(r"[A-Z_]+=", call[0]):  # a variable for the call
            call = call[1:]
        if call:
            yield call
        call = []


def named(program: str) -> list[tuple[str, list[str]]]:
    """The calls of a program that sentences of the pages show in ticks, by page."""
    found = []
    for page in PAGES:
        text = re.sub(r"^( *)```.*?^\1```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        for shown in re.findall(rf"`({program} [^`\n]+)`", text):
            found += [(page.name, words) for words in calls(shown) if words[0] == program]
    return found
