"""The table of all rounds that were played: fault, rounds, recovered, seconds, lost.

python tests/faults/fault_table.py build/faults/results.jsonl
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
"""Rounds whose table is in the documentation; a further run goes on from its last seed."""

_OPEN = "was never answered"
"""What is open in a round that has not recovered is not lost."""

_PAGE = ROOT / "docs" / "operations.md"
_BEGIN, _END = "<!-- faults: made by tests/faults/fault_table.py, do not edit -->", "<!-- end of faults -->"


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


def page_with(table: str, page: str) -> str:
    """Return the page with this table."""
    before, after = page.partition(_BEGIN)[0], page.partition(_END)[2]
    return f"{before}{_BEGIN}\n\n{table}\n\n{_END}{after}"


if __name__ == "__main__":
    if sys.argv[1:]:
        print(table_of([r for path in sys.argv[1:] for r in read_rounds(Path(path))]))
    else:
        _PAGE.write_text(page_with(table_of(read_rounds(RECORD)), _PAGE.read_text(encoding="utf-8")), encoding="utf-8")
