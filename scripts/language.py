"""Check the language of documentation and code against the list of phrases: ``python scripts/language.py [PATH ...]``.

The list, ``scripts/measuring/phrases.toml``, holds phrases that make technical text hard to read, and what to write
instead. They are searched in Markdown outside code blocks, in comments, docstrings and string literals of Python files,
and in the text of HTML templates; parts of identifiers are searched in Python names. General checkers of prose
(proselint, Vale) judge essays; they know neither our terms nor which parts of a Python file are prose.

Exit status: 0 no finding, 1 findings, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import io
import re
import subprocess
import sys
import tokenize
import tomllib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
LIST = Path(__file__).parent / "measuring" / "phrases.toml"


@dataclass(frozen=True)
class Phrase:
    """One entry of the list."""

    pattern: re.Pattern[str]
    instead: str
    docs_only: bool = False


@dataclass(frozen=True)
class Phrases:
    """The list: phrases of prose, parts of identifiers, and where they are searched."""

    words: tuple[Phrase, ...]
    names: tuple[Phrase, ...]
    paths: tuple[str, ...]
    exempt: tuple[str, ...]


@dataclass(frozen=True)
class Finding:
    """A phrase at a place."""

    path: Path
    line: int
    found: str
    instead: str


def read_list(path: Path = LIST) -> Phrases:
    """Return the list.

    Raises:
        ValueError: If an entry has an unknown key or a wrong pattern.
    """
    found = tomllib.loads(path.read_text(encoding="utf-8"))

    def entries(kind: str) -> tuple[Phrase, ...]:
        known = {"pattern", "instead", "docs_only"}
        for entry in found.get(kind, []):
            if not {"pattern", "instead"} <= entry.keys() <= known:
                message = f"{path.name}: an entry of {kind} has the keys {sorted(entry)}; known are {sorted(known)}"
                raise ValueError(message)
        return tuple(
            Phrase(re.compile(e["pattern"], re.IGNORECASE), e["instead"], e.get("docs_only", False))
            for e in found.get(kind, [])
        )

    return Phrases(entries("words"), entries("names"), tuple(found["paths"]), tuple(found["exempt"]))


def findings(path: Path, phrases: Phrases) -> Iterator[Finding]:
    """Yield the phrases of one file, in the order of its lines."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        yield from _of_python(path, text, phrases)
    elif path.suffix == ".md":
        yield from _of_words(path, _markdown(text), phrases, is_docs=True)
    else:
        yield from _of_words(path, _template(text), phrases, is_docs=True)


def _of_words(path: Path, lines: Iterator[tuple[int, str]], phrases: Phrases, *, is_docs: bool) -> Iterator[Finding]:
    for number, line in lines:
        for phrase in phrases.words:
            if phrase.docs_only and not is_docs:
                continue
            for match in phrase.pattern.finditer(line):
                yield Finding(path, number, match[0], phrase.instead)


def _of_python(path: Path, text: str, phrases: Phrases) -> Iterator[Finding]:
    names = [re.compile(rf"(?:^|_)(?:{p.pattern.pattern})(?:_|$)", re.IGNORECASE) for p in phrases.names]
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.STRING, tokenize.COMMENT) or tokenize.tok_name[token.type] == "FSTRING_MIDDLE":
            lines = ((token.start[0] + i, line) for i, line in enumerate(token.string.split("\n")))
            yield from _of_words(path, lines, phrases, is_docs=False)
        elif token.type == tokenize.NAME:
            snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", token.string)
            for pattern, phrase in zip(names, phrases.names, strict=True):
                if pattern.search(snake):
                    yield Finding(path, token.start[0], token.string, phrase.instead)


def _markdown(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines outside fenced blocks, without code spans and addresses."""
    fence = ""
    for number, line in enumerate(text.split("\n"), 1):
        mark = re.match(r"\s*(```+|~~~+)", line)
        if mark and (not fence or mark[1].startswith(fence)):
            fence = "" if fence else mark[1]
        elif not fence:
            yield number, re.sub(r"`[^`]*`|\]\([^)]*\)", "", line)


def _template(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.split("\n"), 1):
        yield number, re.sub(r"\{[%{].*?[%}]\}|<[^>]*>", " ", line)


def tracked(phrases: Phrases) -> list[Path]:
    """Return the files of the repository that the list covers."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    command += [f":(glob){path}" for path in phrases.paths]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    paths = [ROOT / line for line in out.splitlines()]
    return [p for p in paths if p.is_file() and not any(p.match(e) for e in phrases.exempt)]


def main(arguments: list[str] | None = None) -> int:
    """Print each finding with what to write instead."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "paths", nargs="*", type=Path, metavar="PATH", help="Files or folders; default: those of the list."
    )
    parser.add_argument("--count", action="store_true", help="Print the number of findings per folder only.")
    given = parser.parse_args(arguments)
    phrases = read_list()
    covered = tracked(phrases)
    if given.paths:
        chosen = [p.resolve() for p in given.paths]
        missing = [str(p) for p in chosen if not p.exists()]
        if missing:
            parser.error(f"no such file: {', '.join(missing)}")
        covered = sorted(
            {f for p in chosen for f in (p.rglob("*") if p.is_dir() else [p]) if f.suffix in {".py", ".md", ".html"}}
        )
    found = [finding for path in covered for finding in findings(path, phrases)]
    if given.count:
        folders = Counter(str(f.path.relative_to(ROOT).parent) for f in found)
        for folder, number in sorted(folders.items()):
            print(f"{number:6,}  {folder}")
    else:
        for f in found:
            print(f"{f.path.relative_to(ROOT)}:{f.line}: {f.found!r}; write {f.instead}")
    print(f"{len(found):,} findings in {len(covered):,} files" if found else "No finding.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
