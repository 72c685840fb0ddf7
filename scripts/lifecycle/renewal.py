"""Chapter 5: the set is spent and the alarm rings; it becomes validation data, and a new cycle begins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lifecycle.attack import plan
from lifecycle.developer import hand_in, offered
from lifecycle.newcomer import CONDITION
from lifecycle.stage import NEWCOMER, REFEREE

if TYPE_CHECKING:
    from lifecycle.stage import Stage
    from lifecycle.story import Chapter
    from lifecycle.window import Window

TITLE = "The set is spent, and a new cycle begins"
NAME, STEPS = "autumn", 8
TOO_FEW = 20
SETS = "section:has(#sets-h)"


def play(stage: Stage, chapter: Chapter) -> None:
    """Alarm, release, validation, plan, seal, and the first verdict of the new set."""
    window = stage.window(REFEREE)
    _hear_the_alarm(stage, chapter, window)
    _release(stage, chapter, window)
    _seal(stage, chapter, window)
    developer = stage.window(NEWCOMER)
    developer.go(f"{stage.path}/submissions")
    best = offered(developer)[-1]
    chapter.tell(f"The new cycle's first answer, for {best.called}: {hand_in(developer, best)}.")
    chapter.keep(developer.picture("5g-first-answer"))
    window.go(f"{stage.path}/lifecycle")
    chapter.keep(window.picture("5h-lifecycle"))


def _hear_the_alarm(stage: Stage, chapter: Chapter, window: Window) -> None:
    window.go("/")
    alarm = f"#needs li:has-text('{stage.study}:')"
    window.await_seen(alarm, "the alarm about the study")
    announced = window.texts(f"{alarm} b")
    chapter.keep(window.picture("5a-alarm"))
    window.go(f"{stage.path}/gate")
    window.await_seen(f"{SETS} .is:has-text('retired')", "the spent set, retired")
    chapter.keep(window.picture("5b-spent"))
    chapter.tell("The last answer spent the gate set, and the meter saw the tuned tree.")
    chapter.tell(f"The overview shows: {'; '.join(announced)}. The gate says: “{window.text('p.now')}”")


def _release(stage: Stage, chapter: Chapter, window: Window) -> None:
    """Release the used-up gate set, and validate on it."""
    window.go(f"{stage.path}/data")
    row = f"{SETS} tbody tr:has(small:text-is('gate'))"
    spent = window.text(f"{row} >> th span")
    chapter.keep(window.picture("5c-data"))
    window.press(f"{row} >> button:text-is('Release')", "the button that releases the spent gate set")
    window.press("dialog[open] button.danger", "the button that confirms the release")
    window.press(f"{row} >> button:text-is('Validate on it')", "the button that makes a released set validation data")
    window.press("dialog[open] button.primary", "the button that confirms the new validation set")
    version = window.await_seen("#val-h:has-text('version 2')", "the second validation set").inner_text()
    chapter.keep(window.picture("5d-released"))
    chapter.tell(
        f"The referee releases set {spent.split()[0]}; it is “{version}” now, and models are measured anew on it."
    )


def _seal(stage: Stage, chapter: Chapter, window: Window) -> None:
    """Plan a set on the gate page, and seal new examples under its name; too few are refused."""
    window.go(f"{stage.path}/gate")
    plan(window, CONDITION, steps=STEPS, reliability=0.9)
    chapter.keep(window.picture("5e-plan"))
    title = window.text("#p-result h2")
    window.press("[data-open=d-plan]", "the button that plans the set")
    window.fill({"plan-name": NAME})
    window.press("#d-plan button.primary", "the button that confirms the plan")
    window.await_seen(f"{SETS} tr:has-text('{NAME}')", "the planned set")
    refused = _sealed(stage, "few", TOO_FEW, fails=True)
    _sealed(stage, "new", stage.digits.held_back)
    window.await_seen(f"{SETS} tr:has-text('{NAME}') .is:has-text('live')", "the new set, live")
    chapter.keep(window.picture("5f-sealed"))
    chapter.tell(f"The next set is planned as {NAME}: {title}.")
    chapter.tell(f"{TOO_FEW} rows are refused: “{refused.removeprefix('easeml: ')}”")
    chapter.tell(f"All {stage.digits.held_back} rows that came since are sealed under its name, and the set is live.")


def _sealed(stage: Stage, file: str, rows: int, *, fails: bool = False) -> str:
    inputs, labels = stage.digits.write_examples(stage.folder, file, rows)
    words = ("--study", stage.study, "--name", NAME, "--inputs", str(inputs), "--labels", str(labels))
    return stage.easeml("test-set", "seal", *words, role="easeml_referee", fails=fails)
