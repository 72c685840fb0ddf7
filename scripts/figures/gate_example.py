"""The worked example of docs/gate.md, run from end to end."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from figures.commands import Command
from figures.gate_answers import BOTH

if TYPE_CHECKING:
    from collections.abc import Callable

    from figures.gate_answers import GateRunner

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


def files(runner: GateRunner) -> str:
    """The program that makes the files, which is run."""
    with contextlib.chdir(runner.folder):
        exec(compile(FILES, "docs/gate.md", "exec"), {})
    return f"```python\n{FILES}\n```"


def session(*commands: Command, lines: int | None = None) -> Callable[[GateRunner], str]:
    """A figure: commands with what they print, and their exit status where it is not 0.

    Args:
        commands: In their order.
        lines: Only so many lines of what each prints; None for all.
    """

    def made(runner: GateRunner) -> str:
        files(runner)
        blocks = []
        for command in commands:
            done = runner.run(command)
            printed = [line.rstrip() for line in done.output.rstrip().splitlines()]
            if lines is not None and len(printed) > lines:
                printed = [*printed[:lines], "  ..."]
            if done.status:
                printed.append(f"(exit status {done.status})")
            blocks.append("\n".join(["```sh", command.shown(), "```", "", "```", *printed, "```"]))
        return "\n\n".join(blocks)

    return made
