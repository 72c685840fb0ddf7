"""The tables of all rounds that were played, without Airflow and on a whole stack: fault, recovered, seconds, lost.

python tests/faults/fault_table.py                              (those of the record, into docs/operations.md)
python tests/faults/fault_table.py build/faults/results.jsonl   (those of a file, printed)
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


ROOT = Path(__file__).resolve().parents[2]
RECORD = ROOT / "benchmarks" / "results" / "faults.jsonl"
RECORD_OF_STACKS = RECORD.with_name("faults_on_stacks.jsonl")
"""Rounds whose table is in the documentation; a further run goes on from its last seed."""

_OPEN = "was never answered"
"""What is open in a round that has not recovered is not lost."""

_PAGE = ROOT / "docs" / "operations.md"
_MADE = "made by tests/faults/fault_table.py, do not edit"
_MARKS = {
    False: (f"<!-- faults: {_MADE} -->", "<!-- end of faults -->"),
    True: (f"<!-- faults on a stack: {_MADE} -->", "<!-- end of faults on a stack -->"),
}
"""Whether the rounds were on a stack -> the comments around their table in the page."""


def read_rounds(path: Path) -> list[dict[str, Any]]:
    """Read results, without a last line that a kill has cut; none where the file is missing."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            found.append(json.loads(line))
        except ValueError:
            if number < len(lines):
                raise
    return found


def table_of(rounds: Sequence[dict[str, Any]]) -> str:
    """Return the table in Markdown; rounds whose fault could not be made are counted apart."""
    lines = [
        "| fault | rounds | recovered | s to the next step: median | longest | s to the end: median | longest | lost |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    made = [r for r in rounds if r["reached"]]
    for name in [*sorted({r["fault"] for r in made} - {"none"}), "none"]:
        if found := [r for r in made if r["fault"] == name]:
            lines.append(_row("no fault" if name == "none" else name, found))
    faults = [r for r in made if r["fault"] != "none"]
    if faults:
        lines.append(_row("**all faults**", faults))
    missed = len(rounds) - len(made)
    return "\n".join([*lines, "", f"{missed} further rounds whose fault found no target."] if missed else lines)


def _row(name: str, found: Sequence[dict[str, Any]]) -> str:
    next_step = _times([r["progress"] for r in found if r["progress"] is not None])
    times = f"{next_step} | {_times([r['seconds'] for r in found if r['recovered']])}"
    recovered = sum(r["recovered"] for r in found)
    lost = sum(any(not said.endswith(_OPEN) for said in r["lost"]) for r in found)
    return f"| {name} | {len(found)} | {recovered} | {times} | {lost} |"


def _times(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds):.1f} | {max(seconds):.1f}" if seconds else "- | -"


def parted(rounds: Sequence[dict[str, Any]]) -> dict[bool, list[dict[str, Any]]]:
    """Return the rounds without Airflow (False) and those on a whole stack (True)."""
    return {on_stack: [r for r in rounds if r.get("stack", False) == on_stack] for on_stack in _MARKS}


def page_with(rounds: Sequence[dict[str, Any]], page: str) -> str:
    """Return the page with the tables of these rounds."""
    for on_stack, found in parted(rounds).items():
        begin, end = _MARKS[on_stack]
        before, after = page.partition(begin)[0], page.partition(end)[2]
        page = f"{before}{begin}\n\n{table_of(found)}\n\n{end}{after}"
    return page


def main(paths: Sequence[str]) -> None:
    """Print the tables of these files, or write those of the record into the page."""
    if not paths:
        _PAGE.write_text(
            page_with([*read_rounds(RECORD), *read_rounds(RECORD_OF_STACKS)], _PAGE.read_text(encoding="utf-8")),
            encoding="utf-8",
        )
        return
    rounds = [r for path in paths for r in read_rounds(Path(path))]
    print("\n\n".join(table_of(found) for found in parted(rounds).values() if found))


if __name__ == "__main__":
    main(sys.argv[1:])
