"""Every figure of ``docs/gate.md`` by name, and its worked example, which is run from end to end."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from figures.commands import Command
from figures.gate.early import early
from figures.gate.plans import BOTH
from figures.gate.power import power
from figures.gate.risks import attacks, cifar, errors, votes
from figures.gate.sizes import adaptivity, published, tests, tolerance
from figures.gate.speed import speed
from figures.sessions import session

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from figures.sessions import SessionRunner

FILES = """import csv
import random

rng = random.Random(7)
labels, old, new = [], [], []
for k in range(9_000):
    example, truth = f"img-{k:04}", rng.choice(["cat", "dog"])
    other = "dog" if truth == "cat" else "cat"
    seen = rng.choices(["both", "new only", "old only", "neither"], [0.86, 0.06, 0.01, 0.07])[0]
    old.append((example, truth if seen in ("both", "old only") else other))
    new.append((example, truth if seen in ("both", "new only") else other))
    if old[-1] != new[-1]:  # a label costs money: only where the models differ
        labels.append((example, truth))
for name, column, rows in (("labels", "label", labels), ("old", "prediction", old), ("new", "prediction", new)):
    with open(f"{name}.csv", "w", newline="") as stream:
        csv.writer(stream).writerows([("example", column), *rows])"""

_SETTINGS = ("--condition", BOTH, "--reliability", "0.9999", "--steps", "32", "--adaptivity", "recycle")
_FILES = ("--labels", "labels.csv", "--old", "old.csv", "--new", "new.csv")
PLAN = Command(("gate", "plan", *_SETTINGS, "--power", "0.9"))
DECIDE = Command(("gate", "decide", *_SETTINGS, *_FILES, "--step", "1"))
REPORT = Command((*DECIDE.words, "--json"))
EARLY = Command((*DECIDE.words, "--sampling", "early", "--power", "0.9", "--json"))
SWAPPED = Command(
    ("gate", "decide", *_SETTINGS, *_FILES[:2], "--old", "new.csv", "--new", "old.csv", "--step", "2", "--passes", "1")
)
SELF_TEST = Command(("gate", "selftest", "--condition", "n - o > 0 +/- 0.02", "--reliability", "0.95", "--steps", "1"))


def files(runner: SessionRunner) -> str:
    """The program that makes the files, which is run."""
    with contextlib.chdir(runner.folder):
        exec(compile(FILES, "docs/gate.md", "exec"), {})  # noqa: S102 - the program is this file's
    return f"```python\n{FILES}\n```"


FIGURES: Mapping[str, Callable[[SessionRunner], str]] = {
    "example-plan": session(PLAN, prepare=files),
    "example-files": files,
    "example-decide": session(DECIDE, SWAPPED, prepare=files),
    "example-report": session(REPORT, prepare=files),
    "example-early": session(EARLY, lines=12, prepare=files),
    "example-selftest": session(SELF_TEST, prepare=files),
    "published": published,
    "tests": tests,
    "adaptivity": adaptivity,
    "tolerance": tolerance,
    "power": power,
    "early": early,
    "votes": votes,
    "attacks": attacks,
    "errors": errors,
    "cifar": cifar,
    "speed": speed,
}
"""Name of the block in the page, and what makes it."""
