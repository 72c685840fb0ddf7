"""Chapter 4: repeated submissions overfit a test set that is too small, but not one of the planned size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from stack.failures import LifecycleError

from easeml_core.gate.attack import CONDITION, DELTA, STEPS, Attack, false_answers
from lifecycle.stage import REFEREE

if TYPE_CHECKING:
    from lifecycle.stage import Stage
    from lifecycle.story import Chapter
    from lifecycle.window import Window

TITLE = "A set that is too small is learnt by heart"
RUNS = 60
POWER = "td[data-l='Exact, power 0.9']"


def play(stage: Stage, chapter: Chapter) -> None:
    """Read both sizes from the planner, and attack sets of both.

    Raises:
        LifecycleError: The attack on the small set fails, or that on the planned one does not.
    """
    window = stage.window(REFEREE)
    window.go(f"{stage.path}/gate")
    plan(window, CONDITION, steps=STEPS, reliability=1 - DELTA)
    small, planned = _size(window, "none"), _size(window, "full")
    chapter.keep(window.picture("4a-planner"))
    fooled, held = _attacked(small, "none", counted=False), _attacked(planned, "full", counted=True)
    chapter.tell(f"A model shall pass where {CONDITION}; no model is better than a coin, 0.5.")
    chapter.tell(
        f"A set of {small:,} examples suffices for {STEPS} models of a developer who learns nothing. A developer who "
        f"learns pass or fail each time, and hands in what the answers teach, made a coin pass on {fooled} of {RUNS} "
        "such sets."
    )
    chapter.tell(
        f"The planner asks for {planned:,} examples where pass or fail is released each time, and the gate then counts "
        f"what can have been learnt: the same attack got through on {held} of {RUNS}."
    )
    if fooled < RUNS / 4 or held > DELTA * RUNS:
        message = f"the attack got through on {fooled} of {RUNS} small sets and {held} of {RUNS} planned ones"
        raise LifecycleError(message)


def plan(window: Window, condition: str, *, steps: int, reliability: float) -> None:
    """Type a condition into the planner, move its sliders, and wait for the numbers."""
    window.await_seen("#plan-form", "the planner")
    _slide(window, "p-steps", steps)
    _slide(window, "p-reliability", reliability)
    window.page.check("#plan-form input[name=power][value='0.9']", force=True)
    window.fill({"p-condition": condition})
    window.await_seen(f"#p-commands:has-text('--steps {steps} '):has-text('{condition}')", "the plan of what was typed")
    window.await_seen("#p-result:not([data-again])", "the numbers of the whole plan")


def _slide(window: Window, field: str, value: float) -> None:
    """Move a slider to a value, as a hand would: held, it keeps the page from being put anew with the old values."""
    window.page.locator(f"#{field}").evaluate(
        """(slider, value) => {
            slider.focus();
            slider.value = slider.dataset.stops.split(" ").findIndex((stop) => Number(stop) === value);
            for (const kind of ["input", "change"]) slider.dispatchEvent(new Event(kind, { bubbles: true }));
        }""",
        value,
    )


def _size(window: Window, adaptivity: str) -> int:
    row = f"#p-result tbody tr:has(input[value='{adaptivity}'])"
    return int(window.text(f"{row} >> {POWER}").replace(",", ""))


def _attacked(examples: int, adaptivity: str, *, counted: bool) -> int:
    """On how many of RUNS sets of this size the attack makes a coin pass; always the same number."""
    rng = np.random.default_rng(examples)
    return int(false_answers(rng, Attack(), adaptivity, runs=RUNS, counted=counted, examples=examples).sum())
