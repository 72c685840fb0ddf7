"""The meter against what could break its promise: a developer who learns, a small validation set, real models."""

from __future__ import annotations

import csv
import math
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import spearmanr

from easeml_core.formats.display import COLOURS
from easeml_core.meter.meter import Answered, read_submission
from easeml_core.meter.planner import validation_minimum
from easeml_core.meter.validation_set import rows_for_looks
from easeml_core.settings.config import MeterConfig, require
from easeml_core.stats.binomial_bounds import clopper_pearson, log_lower_tail, log_upper_tail
from easeml_core.stats.binomial_sizes import log_largest_deviation
from figures.blocks import canvas, saved, shown, table
from figures.commands import Command
from figures.gate.cifar import read_models
from figures.meter.sizes import RANGES, labels_by_method, plan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from figures.commands import SessionRunner
    from figures.gate.cifar import Models


EPSILON = 0.05
LOG_MISS = math.log(0.001)
CASES = (("non-adaptive", 32, 10), ("pruned", 32, 10), ("non-adaptive", 100, 2), ("pruned", 100, 2))
"""Method that the set is sized by, submissions, and runs as a multiple of the runner's repeats."""


def gains(rng: np.random.Generator, *, steps: int, examples: int, runs: int) -> np.ndarray:
    """By how much the last submission seems better than a coin, which it is; shape ``(runs,)``.

    Coin models sit on a boundary, so that a signal says whether luck was with one; the vote of all, each turned to its
    lucky side, comes last.

    Args:
        rng: Seeded.
        steps: T, with the vote.
        examples: n.
        runs: Sets.
    """
    found = np.empty(runs)
    for run in range(runs):
        wrong = rng.integers(0, 2, (steps - 1, examples), dtype=np.int8)
        green = 2 * wrong.sum(axis=1, dtype=np.int64) <= examples
        votes = np.where(green[:, None], wrong, 1 - wrong).sum(axis=0)
        found[run] = 0.5 - (2 * votes > steps - 1).mean()
    return found


def answers_before_retirement(examples: int, steps: int) -> int:
    """How many of the attacker's questions a path-adaptive set answers."""
    config = MeterConfig(
        ranges=tuple(float(b) for b in RANGES.split(",")), tolerance=EPSILON, reliability=0.99, steps=steps,
        tail="hoeffding",
    )  # fmt: skip
    earlier: list[Answered] = []
    while True:
        reading = read_submission(
            errors=examples // 2, examples=examples, validation_loss=0.4, config=config, earlier=earlier
        )
        if reading.signal is None:
            return len(earlier)
        earlier.append(Answered(reading.signal, reading.log_cost))


def attack(runner: SessionRunner) -> str:
    """Table and plot of what the attack gains."""
    rows = []
    for method, steps, factor in CASES:
        size = labels_by_method(runner, plan(tolerance=EPSILON, steps=steps, method=method))[method]
        runs = factor * runner.repeats
        seen = gains(np.random.default_rng((steps, size)), steps=steps, examples=size, runs=runs)
        wrong = int((seen > EPSILON).sum())
        low, high = clopper_pearson(wrong, runs, log_level=LOG_MISS)
        predicted = math.sqrt((steps - 1) / size) / math.pi
        share = f"{wrong / runs:.3f} ({low:.3f}-{high:.3f})"
        rows.append([f"`{method}`", str(steps), f"{size:,}", f"{seen.mean():.4f}", f"{predicted:.4f}", share])
    for steps in (32, 100):
        size = labels_by_method(runner, plan(tolerance=EPSILON, steps=steps, method="path-adaptive"))["path-adaptive"]
        cells = ["", "", f"none: retired after {answers_before_retirement(size, steps)} answers"]
        rows.append(["`path-adaptive`", str(steps), f"{size:,}", *cells])
    header = ["set sized by", "submissions", "labels", "vote seems better by", "predicted", "broken promises (99.9 %)"]
    return f"{_picture(runner)}\n\n{table(header, rows)}"


def _picture(runner: SessionRunner) -> str:
    """Gain over submissions by size."""
    figure, (axes,) = canvas()
    steps = (4, 8, 16, 32, 64, 128)
    for colour, method in zip(COLOURS, ("non-adaptive", "pruned"), strict=False):
        means = []
        for count in steps:
            size = labels_by_method(runner, plan(tolerance=EPSILON, steps=count, method=method))[method]
            runs = math.ceil(runner.repeats * max(1.0, 256 / count))
            drawn = gains(np.random.default_rng((count, size, 1)), steps=count, examples=size, runs=runs)
            means.append(float(drawn.mean()))
        axes.plot(steps, means, "o-", color=colour, label=f"set sized by {method}")
    axes.axhline(EPSILON, color=COLOURS[7], linestyle="--", label="tolerance")
    axes.set(xscale="log", xlabel="submissions", ylabel="mean of what the vote seems better by", ylim=(0, None))
    axes.set_xticks(steps, [str(count) for count in steps])
    axes.minorticks_off()
    axes.legend(frameon=False)
    return saved(runner, figure, "meter-attack.png", "What the attack gains, by submissions and size of the set")


BOUNDARIES, RELIABILITY = (0.02, 0.05, 0.1), 0.99
LOOKS = 500


def validation(runner: SessionRunner) -> str:
    """Rows by the first boundary: by the rule, by exact tails, and for many looks."""
    rows = []
    for b in BOUNDARIES:
        sizes = (
            validation_minimum(ranges=(b,), reliability=RELIABILITY),
            exact_validation_minimum(ranges=(b,), reliability=RELIABILITY),
            exact_validation_minimum(ranges=(b,), reliability=RELIABILITY, error_rate=0.1),
            rows_for_looks(LOOKS, ranges=(b,), reliability=RELIABILITY),
        )
        rows.append([f"{b:g}", *(f"{size:,}" for size in sizes)])
    command = plan(tolerance=0.02, steps=32, ranges="0.05,0.13,0.25")
    if runner.answer(command)["validation_minimum"] != validation_minimum(ranges=(0.05,), reliability=RELIABILITY):
        message = "the plan and the rule disagree on the size of the validation set"
        raise RuntimeError(message)
    header = ["first boundary", "rule", "exact, any error rate", "exact, error rate .1", f"rule for {LOOKS} models"]
    return f"{table(header, rows)}\n\n{shown([command], '`validation_minimum` of the answer is the rule.')}"


def exact_validation_minimum(
    *, ranges: Sequence[float], reliability: float, error_rate: float | None = None
) -> int | None:
    """The size of ``planner.validation_minimum`` by exact binomial tails, which is smaller.

        n_val = least n so that P(|X / m - p| >= b_1) <= delta for every m >= n,   X ~ Bin(m, p)

    The tails rise and fall with m, since counts are whole: a smaller number may meet the level while a larger one does
    not. From ``validation_minimum`` on all do, by Hoeffding's inequality; below it the largest one that does not is
    looked for.

    Args:
        ranges: Inner boundaries; only the first counts.
        reliability: 1 - delta, in (0, 1).
        error_rate: p in [0, 1], true error rate of a model; None for the worst one.

    Returns:
        n_val >= 1, or None when b_1 <= 0.

    Raises:
        ConfigError: If an argument is outside its range.

    Example:
        >>> exact_validation_minimum(ranges=(0.05,), reliability=0.99, error_rate=0.1)
        247
    """
    most = validation_minimum(ranges=ranges, reliability=reliability)
    if most is None:
        return None
    b_1, log_delta = ranges[0], math.log1p(-reliability)
    if error_rate is None:
        return _last_above(log_delta, lambda few, many: _log_worst_deviation(few, many, b_1), 1, most - 1) + 1
    require(0 <= error_rate <= 1, "error_rate", error_rate, "in [0, 1], or None for the worst")
    return _last_above(log_delta, lambda few, many: _log_deviation(few, many, error_rate, b_1), 1, most - 1) + 1


def _last_above(log_level: float, log_bound: Callable[[int, int], float], few: int, many: int) -> int:
    """The largest n in few..many whose chance is above the level; few - 1 where there is none.

    ``log_bound(few, many)`` is no smaller than ln of the chance of any n in between, and it is that where both are
    the same n. So whole stretches are passed over, and what remains is exact.
    """
    if few > many or log_bound(few, many) <= log_level:
        return few - 1
    if few == many:
        return few
    middle = (few + many) // 2
    found = _last_above(log_level, log_bound, middle + 1, many)
    return found if found > middle else _last_above(log_level, log_bound, few, middle)


def _log_deviation(few: int, many: int, p: float, b: float) -> float:
    """An upper bound of ln P(|X / n - p| >= b) for all n in few..many, and its value where these are the same.

    More draws have more successes: no n has a larger upper tail than ``many`` draws above the threshold of ``few``, nor
    a larger lower tail than ``few`` draws below that of ``many``. Counts at the edge are taken to be outside.
    """
    low, high = math.floor(many * (p - b) + 1e-9), math.ceil(few * (p + b) - 1e-9)
    lower = -math.inf if low < 0 else log_lower_tail(min(low, few), few, p)
    upper = -math.inf if high > many else log_upper_tail(high, many, p)
    return min(0.0, float(np.logaddexp(lower, upper)))


def _log_worst_deviation(few: int, many: int, b: float) -> float:
    """The same for the worst p.

    With n <= many examples of which n (p + b) are wrong, at least few (p + b) of ``many`` are: a share that is off by
    b - (1 + b) (many - few) / many or more, to either side alike.
    """
    if few == many:
        return log_largest_deviation(many, b, sides=2)
    tolerance = b - (1 + b) * (many - few) / many - 1e-12
    return log_largest_deviation(many, tolerance, sides=2) if tolerance > 0 else 0.0


SEED = 101
_SETTINGS = ("--ranges", "0.03,0.3", "--tolerance", "0.1", "--reliability", "0.9", "--steps", "30")
TAILS = ("hoeffding", "clopper-pearson")
CURVE = "meter/ladder-photo/kaggleboosting-4000-400-5-highacc.csv"
CURVE_SIZE, QUERIES = 4_000, (10, 50, 100, 200, 300, 400)


def replayed(name: str, size: int, tail: str) -> Command:
    """The command that replays the file of that name."""
    words = ("meter", "replay", "--history", f"{name}.csv", "--test-size", str(size), *_SETTINGS)
    return Command((*words, "--tail", tail, "--json"))


def cifar(runner: SessionRunner) -> str:
    """Signals of 30 models on random halves of CIFAR-10's test set, and on its re-collection."""
    rows, commands = [], []
    for name, title, losses, errors, size in _pairs(runner):
        _write(runner, name, losses, errors)
        gaps = np.array(errors) / size - np.array(losses)
        for tail in TAILS:
            command = replayed(name, size, tail)
            found = runner.answer(command)
            signals = [reading["signal"] for reading in found["readings"]]
            ambiguous = sum(reading["reachable"] > 1 for reading in found["readings"])
            counts = ", ".join(f"{signals.count(s)} x {s}" for s in sorted(set(signals)))
            spread = f"{gaps.mean():.3f} ({gaps.min():.3f} to {gaps.max():.3f})"
            rows.append([title, f"{size:,}", spread, tail, counts, str(ambiguous), f"{found['final_tolerance']:.3f}"])
            commands += [command] if tail == TAILS[1] and name != "v6" else []
    header = ["D_val, D_test", "n", "gap: mean (range)", "tail", "signals", "ambiguous", "last tolerance"]
    return f"{table(header, rows)}\n\n{shown(commands, _order(runner))}"


def _order(runner: SessionRunner) -> str:
    """How alike the order of the models is on both collections."""
    old, new = (_wrong(read_models(runner.data, split)).mean(axis=1) for split in ("original", "v4"))
    return (
        f"Spearman's rank correlation of the 30 error rates, CIFAR-10 against v4: {spearmanr(old, new).statistic:.3f}."
    )


def _pairs(runner: SessionRunner) -> list[tuple[str, str, list[float], list[int], int]]:
    """Name, title, validation losses, test errors and test size of each comparison."""
    wrong = _wrong(read_models(runner.data))
    order = np.random.default_rng(SEED).permutation(wrong.shape[1])
    first, second = wrong[:, order[5_000:]], wrong[:, order[:5_000]]
    found = [("halves", "random halves of CIFAR-10's test set", first, second)]
    for split in ("v4", "v6"):
        again = _wrong(read_models(runner.data, split))
        found.append((split, f"CIFAR-10's test set, CIFAR-10.1 {split}", wrong, again))
    return [
        (name, title, visible.mean(axis=1).tolist(), hidden.sum(axis=1).tolist(), hidden.shape[1])
        for name, title, visible, hidden in found
    ]


def _wrong(models: Models) -> NDArray[np.bool_]:
    return np.not_equal(models.predictions, models.labels)


def _write(runner: SessionRunner, name: str, losses: Sequence[float], errors: Sequence[int]) -> None:
    with (runner.folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["submission", "validation_loss", "test_errors"])
        writer.writerows([k, f"{loss:.6f}", count] for k, (loss, count) in enumerate(zip(losses, errors, strict=True)))


def ladder(runner: SessionRunner) -> str:
    """Blum and Hardt's attack on a precise leaderboard: what it gained, and what a meter's tolerance covers."""
    with (runner.data / CURVE).open(newline="", encoding="utf-8") as file:
        scores = {int(r["x"]): float(r["y"]) for r in csv.DictReader(file) if r["label"] == "Kaggle"}
    config = MeterConfig(ranges=(0.1, 0.9), tolerance=0.5, reliability=0.99, steps=QUERIES[-1] + 1, tail="hoeffding")
    rows = []
    for queries in QUERIES:
        reading = read_submission(
            errors=round(CURVE_SIZE * scores[queries]),
            examples=CURVE_SIZE,
            validation_loss=0.4,
            config=config,
            earlier=[Answered(1, math.log(2))] * queries,
        )
        gained, theory = 0.5 - scores[queries], math.sqrt(queries / (2 * CURVE_SIZE)) / math.pi
        rows.append([str(queries), f"{gained:.4f}", f"{theory:.4f}", f"{reading.tolerance_now:.3f}"])
    header = ["queries", "gained by the attack", "(1/pi) sqrt(k / 2n)", "tolerance after as many ambiguous answers"]
    return table(header, rows)
