"""Every figure of ``docs/gate.md`` by name, its worked example, run from end to end, and how long things take."""

from __future__ import annotations

import contextlib
import csv
import math
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.gate.condition import parse_condition
from easeml_core.gate.judge import judge_predictions
from figures.blocks import shown, table
from figures.commands import Command, session
from figures.gate.errors import sequence
from figures.gate.power import power
from figures.gate.risks import attacks, cifar, errors, votes
from figures.gate.sizes import BOTH, GAIN, SIMPLE, adaptivity, early, plan, published, tests, tolerance

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from figures.commands import SessionRunner


MILLION = 1_000_000
LAW = (0.85, 0.05, 0.02, 0.08, 0.0)
LOG_LEVEL = math.log(1e-4) - 32 * math.log(2)
WEIGHTED = "n - 1.1 * o > 0.01 +/- 0.01"
PLANS: tuple[tuple[str, dict[str, Any]], ...] = (
    (SIMPLE, {"estimator": "paper"}),
    (BOTH, {"estimator": "paper"}),
    (SIMPLE, {}),
    (SIMPLE, {"target": "estimate"}),
    (BOTH, {}),
    (BOTH, {"power": "0.9"}),
    (BOTH, {"target": "estimate"}),
    (GAIN, {}),
    ("n - o > 0 +/- 0.01", {}),
    (WEIGHTED, {}),
)


def speed(runner: SessionRunner) -> str:
    """Seconds of plans and of verdicts on a million predictions."""
    rows = []
    for condition, more in PLANS:
        command = plan(condition, "full", **more)
        seconds = _least(partial(_run, runner, command))
        rows.append(
            [
                "plan, " + ", ".join(f"{k} {v}" for k, v in ({"estimator": "exact"} | more).items()),
                f"`{condition}`",
                f"{seconds:.2f}",
            ]
        )
    labels, old, new = sequence(np.random.default_rng(0), LAW, MILLION)
    for condition in (SIMPLE, "n - o > 0 +/- 0.01", GAIN, BOTH, WEIGHTED):
        for sampling in ("fixed", "early"):
            work = _verdict(condition, labels, old, new, sampling)
            seconds = _least(partial(_timed, work))
            rows.append([f"verdict, {sampling}, 1,000,000 predictions in memory", f"`{condition}`", f"{seconds:.2f}"])
    files = _write(runner.folder, labels, old, new)
    command = Command(("gate", "decide", "--condition", GAIN, *files))
    rows.append(
        [
            "verdict, from three CSV files of 1,000,000 lines",
            f"`{GAIN}`",
            f"{_least(partial(_run, runner, command)):.2f}",
        ]
    )
    return f"{table(['what', 'condition', 'processor seconds'], rows)}\n\n{shown([plan(BOTH, 'full'), command])}"


def _verdict(condition: str, labels: Any, old: Any, new: Any, sampling: str) -> Callable[[], object]:
    parsed = parse_condition(condition)
    return lambda: judge_predictions(parsed, labels, old, new, log_level=LOG_LEVEL, mode="fp-free", sampling=sampling)


def _run(runner: SessionRunner, command: Command) -> float:
    return runner.run(command).seconds


def _least(seconds: Callable[[], float]) -> float:
    """The least of three tries, each with nothing kept from the one before."""
    tries = []
    for _ in range(3):
        _forget()
        tries.append(seconds())
    return min(tries)


def _forget() -> None:
    """Empty the caches of sizes, so that a plan takes as long as the first time."""
    for name in [name for name in sys.modules if name.startswith("easeml_core.")]:
        for value in vars(sys.modules[name]).values():
            if hasattr(value, "cache_clear"):
                value.cache_clear()


def _timed(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def _write(folder: Path, labels: Any, old: Any, new: Any) -> list[str]:
    """Three files, and the options that name them."""
    options = []
    for name, column, values in (("labels", "label", labels), ("old", "prediction", old), ("new", "prediction", new)):
        with (folder / f"million-{name}.csv").open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["example", column])
            writer.writerows(zip(range(MILLION), values.tolist(), strict=True))
        options += [f"--{name}", f"million-{name}.csv"]
    return options


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
