"""Compare what users meet of two revisions: help, JSON, operators' arguments, schema, routes, pages, pictures.

``snapshot OUT --revision REV`` writes what a revision shows on a seeded installation; ``compare A B`` prints how two of
them differ and ends with status 1 where they do. A file of expected differences has a line ``SECTION: NAME`` for each,
both as shell patterns; ``#`` begins a comment.
"""

from __future__ import annotations

import difflib
import fnmatch
import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import click
from measuring.interface import share_that_differs, snapshot, without_times
from measuring.source_tree import WORKING_TREE, import_roots, source_tree

FEW_PIXELS = 0.002
"""Share of a picture: the times of two installations are not the same, and some charts have them as an axis."""

SNAPSHOT, PICTURES = "snapshot.json", "pictures"


def read(folder: Path) -> dict[tuple[str, str], str]:
    """Return the items of a snapshot: section and name to text."""
    return {
        (item["section"], item["name"]): without_times(item["text"])  # as today's rules have it, for older snapshots
        for item in json.loads((folder / SNAPSHOT).read_text(encoding="utf-8"))
    }


def differing(a: dict[tuple[str, str], str], b: dict[tuple[str, str], str]) -> dict[tuple[str, str], list[str]]:
    """Return every item that differs, with the lines of the difference."""
    keys = {key: None for key in (*a, *b) if a.get(key) != b.get(key)}
    return {key: _difference(a.get(key), b.get(key)) for key in keys}


def pictures_alike(key: tuple[str, str], a: Path, b: Path, texts: tuple[str | None, str | None]) -> bool:
    """Return whether two pictures of a page differ in so few pixels that only places on a time axis have moved."""
    if key[0] != PICTURES or None in texts:
        return False
    files = [folder / PICTURES / str(text).split()[0] for folder, text in zip((a, b), texts, strict=True)]
    return share_that_differs(*files) <= FEW_PIXELS


def _difference(before: str | None, after: str | None) -> list[str]:
    if before is None or after is None:
        return ["only in the second snapshot" if before is None else "only in the first snapshot"]
    lines = list(difflib.unified_diff(before.splitlines(), after.splitlines(), "", "", lineterm="", n=0))
    return [line for line in lines if not line.startswith(("---", "+++", "@@"))]


def is_allowed(key: tuple[str, str], allowed: list[str]) -> bool:
    """Return whether a pattern names this item."""
    return any(fnmatch.fnmatchcase(f"{key[0]}: {key[1]}", pattern) for pattern in allowed)


@click.group(help=__doc__)
def main() -> None:
    """Write and compare snapshots."""


@main.command("snapshot")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--revision", default=WORKING_TREE, show_default=True, help="Revision; . is the working tree.")
@click.option("--tree", type=click.Path(path_type=Path, exists=True), help="A source tree in place of a revision.")
@click.option("--pictures/--no-pictures", default=True, show_default=True, help="Whether Chromium takes pictures.")
def write(out: Path, revision: str, tree: Path | None, *, pictures: bool) -> None:
    """Write what a revision shows into the folder OUT."""
    if tree is not None and os.environ.get("PYTHONPATH", "").startswith(os.pathsep.join(import_roots(tree))):
        out = out.resolve()
        items = snapshot(tree, out / PICTURES if pictures else None)
        out.mkdir(parents=True, exist_ok=True)
        text = json.dumps([asdict(item) for item in items], indent=1)
        (out / SNAPSHOT).write_text(text, encoding="utf-8")
        counts = Counter(item.section for item in items)
        click.echo("\n".join(f"{n:>6}  {section}" for section, n in counts.items()))
        return
    if tree is not None:
        _run(out, tree.resolve(), pictures=pictures)
        return
    with source_tree(revision) as unpacked:
        _run(out, unpacked, pictures=pictures)


def _run(out: Path, tree: Path, *, pictures: bool) -> None:
    """Write a snapshot in a process that imports the packages of the tree."""
    options = ["--tree", str(tree), "--pictures" if pictures else "--no-pictures"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(import_roots(tree))}
    done = subprocess.run([sys.executable, __file__, "snapshot", str(out), *options], check=False, env=environment)
    if done.returncode:
        sys.exit(done.returncode)


@main.command()
@click.argument("a", type=click.Path(path_type=Path, exists=True))
@click.argument("b", type=click.Path(path_type=Path, exists=True))
@click.option("--allow", type=click.Path(path_type=Path, exists=True), help="File of expected differences.")
@click.option("--lines", default=12, show_default=True, help="Lines shown of each difference.")
@click.option("--section", "sections", multiple=True, help="Compare only this section; may be repeated.")
def compare(a: Path, b: Path, allow: Path | None, lines: int, sections: tuple[str, ...]) -> None:
    """Print how the snapshots A and B differ."""
    listed = [] if allow is None else allow.read_text(encoding="utf-8").splitlines()
    allowed = [line.partition("#")[0].strip() for line in listed if line.partition("#")[0].strip()]
    before, after = (
        {key: text for key, text in read(folder).items() if not sections or key[0] in sections} for folder in (a, b)
    )
    found = {
        key: shown
        for key, shown in differing(before, after).items()
        if not pictures_alike(key, a, b, (before.get(key), after.get(key)))
    }
    unexpected = {key: shown for key, shown in found.items() if not is_allowed(key, allowed)}
    for (section, name), shown in unexpected.items():
        click.echo(f"{section}: {name}")
        click.echo("".join(f"    {line[:200]}\n" for line in shown[:lines]), nl=False)
        if len(shown) > lines:
            click.echo(f"    ... {len(shown) - lines} more lines")
    counts, totals = Counter(section for section, _ in unexpected), Counter(section for section, _ in before)
    for section in totals | counts:
        click.echo(f"{section}: {counts[section]} of {totals[section]} items differ", err=True)
    click.echo(f"{len(found) - len(unexpected)} expected differences, {len(unexpected)} unexpected ones", err=True)
    sys.exit(bool(unexpected))


if __name__ == "__main__":
    main()
