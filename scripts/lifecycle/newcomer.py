"""Chapter 1: a user uploads a table without any code, reads the inferred types, and submits a study."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lifecycle.stage import NEWCOMER, TENANT

if TYPE_CHECKING:
    from lifecycle.stage import Stage
    from lifecycle.story import Chapter

TITLE = "A newcomer submits a study"
ANSWERS = 4
"""Of the gate's set: so many models may be handed in before it is spent."""

CONDITION = "n > 0.9 +/- 0.1"
WISHES = {
    "d-condition": CONDITION,
    "d-gate_steps": str(ANSWERS),
    "d-gate_reliability": "0.9",
    "d-ranges": "0.2, 0.6",
    "d-meter_tolerance": "0.1",
    "d-meter_steps": str(2 * ANSWERS),
    "d-meter_reliability": "0.9",
}


def play(stage: Stage, chapter: Chapter) -> None:
    """Upload, look, set, register, and wait until the referee has sealed the sets."""
    window = stage.window(NEWCOMER)
    window.go("/new")
    window.fill({"n-tenant": TENANT, "n-study": stage.study})
    window.page.set_input_files("#n-file", stage.digits.write_table(stage.folder / "digits.csv"))
    chapter.keep(window.picture("1a-bring-data"))
    window.press("text=Look at the data", "the button that looks at the data")
    seen = window.text("main:has(#d-condition) p.now")
    candidates = window.texts("#program-match .chips li:not(.off)")
    window.fill(WISHES)
    window.await_seen(f"#condition-check .code:has-text('{CONDITION}')", "the condition, read by the server")
    window.await_seen("#parts-check tr:has-text('gate') >> text=/[0-9]/", "the sizes of the sealed parts")
    parts = dict(text.rsplit(" ", 1) for text in window.texts("#parts-check tbody tr"))
    chapter.keep(window.picture("1b-program-and-settings"))
    window.press("text=Register the study", "the button that registers")
    window.await_anew("dt:has-text('Training examples')", "the study's data, once the referee has sealed its sets")
    chapter.keep(window.picture("1c-registered"))
    sizes = ", ".join(f"{name.strip()} {rows}" for name, rows in parts.items())
    chapter.tell(f"{NEWCOMER} of {TENANT} uploads digits.csv and reads: “{seen}”")
    chapter.tell(f"The inferred program brings {len(candidates)} candidates, from {candidates[0]} to {candidates[-1]}.")
    chapter.tell(f"A model shall pass where {CONDITION}, {ANSWERS} times at most.")
    chapter.tell(f"The rows are divided: {sizes}; only the referee reads the sealed rows from now on.")
