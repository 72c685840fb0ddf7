"""What stopping at rungs saves and loses: learning curves replayed, tenants in turn, candidates in random order.

    .venv/bin/python benchmarks/rungs.py [--orders 100] [--json]

The curves are in ``rungs_curves.csv``, the answer in ``rungs.csv``. Halving is no rule of the product. There is one
device, and each rule learns only from what it has trained itself: a trial that it stopped teaches it nothing more.
"""

from __future__ import annotations

import json
import math
import random
from dataclasses import asdict, dataclass, field, fields
from itertools import product
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

import click
from result_files import FOLDER, write_rows
from rungs_curves import read_points

from easeml_core.selection.pruning import Decision, Reached, by_gains, by_median, decide, rung_step
from easeml_core.settings.config import TrainingConfig
from easeml_core.training.candidates import RATES
from easeml_core.training.epoch_rules import BestEpoch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from rungs_curves import Point

    Curves = Mapping[str, Mapping[str, Sequence[Point]]]

RESULTS = FOLDER / "rungs.csv"
SHARES = (0.1, 0.3)
ORDERS = 100
CLOSE = 0.01
DEFAULTS = TrainingConfig()

ETA = 3
"""Halving lets one of so many go on."""


def by_halving(quality: float, others: Sequence[Reached], best: float | None) -> Decision:
    """Stop a trial that is not among the best third of those of its study that have reached the rung so far.

    Source: Li et al., A system for massively parallel hyperparameter tuning (MLSys 2020), asynchronous successive
    halving, as a rule that only stops.

    Example:
        >>> here = [Reached(q, None, is_here=True) for q in (0.5, 0.6, 0.7)]
        >>> by_halving(0.65, here, None).goes_on, by_halving(0.55, here, None).goes_on
        (True, False)
    """
    qualities = sorted([quality, *(other.quality for other in others if other.is_here)], reverse=True)
    needed = qualities[math.ceil(len(qualities) / ETA) - 1]
    return Decision(quality >= needed, quality, needed, len(qualities) - 1, "halving")


RULES: Mapping[str, Callable[[float, Sequence[Reached], float | None], Decision]] = {
    "decide": decide,
    "gains": by_gains,
    "halving": by_halving,
    "median": by_median,
}
"""Each by its name; ``decide`` is the one that was found best."""


@dataclass(frozen=True, slots=True)
class Line:
    """What a rule did, on average over orders; a line of the file.

    Attributes:
        rates: Learning rates of the candidates: without the largest and the least there is less to stop.
        early_stopping: Whether trainings also end by their held-out loss, as they do unless told otherwise.
        rule: A key of RULES, or ``none``.
        seconds: To run everything, as a share of what it takes without rungs.
        loss: Mean over studies of how much the best model is worse than without rungs.
        worst_loss: The largest of any study in any order.
        to_close: Seconds until a study is within .01 of its best, mean over studies, as the same share.
        missed: Share of studies that never are.
        stopped: Share of the trials that a rung stopped.
    """

    rates: str
    early_stopping: bool
    rule: str
    seconds: float
    loss: float
    worst_loss: float
    to_close: float
    missed: float
    stopped: float


class Trial(NamedTuple):
    """A trial that has ended: its study, the clock then, the quality of its model, and whether a rung stopped it."""

    study: str
    clock: float
    quality: float
    is_stopped: bool


@dataclass(slots=True)
class Replay:
    """One run through all candidates of all studies.

    Attributes:
        curves: Study, candidate, epochs.
        rule: A key of RULES, or ``none``.
        patience: Of early stopping; None for all epochs.
    """

    curves: Curves
    rule: str
    patience: int | None
    clock: float = 0.0
    trials: list[Trial] = field(default_factory=list)
    _best: dict[str, float] = field(default_factory=dict)
    _reached: dict[float, list[tuple[str, Reached]]] = field(default_factory=lambda: {share: [] for share in SHARES})

    def run(self, seed: int) -> Replay:
        """In the order of a seed: studies take turns, each with its candidates in a random order."""
        rng = random.Random(seed)
        studies = rng.sample(sorted(self.curves), len(self.curves))
        orders = {study: rng.sample(sorted(self.curves[study]), len(self.curves[study])) for study in studies}
        for turn in range(max(map(len, orders.values()))):
            for study in studies:
                if turn < len(orders[study]):
                    self._train(study, self.curves[study][orders[study][turn]])
        return self

    def _train(self, study: str, curve: Sequence[Point]) -> None:
        end, passed = last_epoch(curve, self.patience), dict[float, Reached]()
        stopped = None
        for share in SHARES:
            step = rung_step(share, len(curve))
            if step >= end:
                break
            quality = curve[step - 1].quality
            passed[share] = Reached(quality, None, True, fmean(point.quality for point in curve[:step]))
            if not self._goes_on(study, share, quality):
                stopped = step
                break
        trained = curve[: stopped or end]
        final = kept(trained, self.patience).quality
        self.clock += sum(point.seconds for point in trained)
        for share, reached in passed.items():
            self._reached[share].append((study, reached._replace(final=None if stopped else final)))
        self._best[study] = max(final, self._best.get(study, 0.0))
        self.trials.append(Trial(study, self.clock, final, stopped is not None))

    def _goes_on(self, study: str, share: float, quality: float) -> bool:
        if self.rule == "none":
            return True
        others = [reached._replace(is_here=where == study) for where, reached in self._reached[share]]
        return RULES[self.rule](quality, others, self._best.get(study)).goes_on

    def best(self) -> Mapping[str, float]:
        """Of each study."""
        return self._best

    def seconds_to(self, study: str, quality: float) -> float | None:
        """When the study first had a model as good as that; None for never."""
        return next((t.clock for t in self.trials if t.study == study and t.quality >= quality), None)


def last_epoch(curve: Sequence[Point], patience: int | None) -> int:
    """The epoch that early stopping ends a training with."""
    best = BestEpoch()
    for point in curve:
        best.improves(point.epoch, point.held_out_loss)
        if patience is not None and best.epoch and best.is_over(point.epoch, patience):
            return point.epoch
    return len(curve)


def kept(trained: Sequence[Point], patience: int | None) -> Point:
    """The epoch whose weights are kept: the one with the least held-out loss, without early stopping the last one."""
    return trained[-1] if patience is None else min(trained, key=lambda point: point.held_out_loss)


def curves_of(points: Iterable[Point]) -> Curves:
    """Points by study and candidate; a training that diverged is left out, as it has no model."""
    curves: dict[str, dict[str, list[Point]]] = {}
    for point in points:
        curves.setdefault(point.study, {}).setdefault(point.candidate, []).append(point)
    longest = max(len(curve) for candidates in curves.values() for curve in candidates.values())
    return {
        study: {name: curve for name, curve in candidates.items() if len(curve) == longest}
        for study, candidates in curves.items()
    }


def with_rates(curves: Curves, rates: Sequence[str]) -> Curves:
    """Only the candidates with these learning rates."""
    return {
        study: {name: curve for name, curve in candidates.items() if name.rpartition("-lr")[2] in rates}
        for study, candidates in curves.items()
    }


def measure(worlds: Sequence[Curves], rule: str, *, patience: int | None, orders: int = ORDERS) -> tuple[float, ...]:
    """Replay a rule and no rule in the same orders, in each of the worlds; the last six fields of a line."""
    shares, losses, close, misses, stopped = [], [], [], [], []
    for curves, seed in product(worlds, range(orders)):
        free = Replay(curves, "none", patience).run(seed)
        ruled = Replay(curves, rule, patience).run(seed)
        shares.append(ruled.clock / free.clock)
        stopped.append(fmean(trial.is_stopped for trial in ruled.trials))
        for study, best in free.best().items():
            losses.append(best - ruled.best()[study])
            reached = ruled.seconds_to(study, best - CLOSE)
            misses.append(reached is None)
            close.append((ruled.clock if reached is None else reached) / free.clock)
    figures = fmean(shares), fmean(losses), max(losses), fmean(close), fmean(misses), fmean(stopped)
    return tuple(round(figure, 5) for figure in figures)


def worlds_of(curves: Curves) -> Iterator[tuple[str, bool, Sequence[Curves]]]:
    """What is replayed: its name, whether with early stopping, and the studies that run together."""
    for name, rates in {"all": RATES, "middle": RATES[1:4]}.items():
        for is_early in (True, False):
            yield name, is_early, [with_rates(curves, rates)]
    yield "all, each study alone", True, [{study: candidates} for study, candidates in curves.items()]


def measure_all(curves: Curves, orders: int = ORDERS) -> list[Line]:
    """Every rule in every world."""
    return [
        Line(
            name,
            is_early,
            rule,
            *measure(worlds, rule, patience=DEFAULTS.patience if is_early else None, orders=orders),
        )
        for name, is_early, worlds in worlds_of(curves)
        for rule in ("none", *RULES)
    ]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--orders", type=click.IntRange(min=1), default=ORDERS, show_default=True, help="Random orders.")
@click.option("--json", "as_json", is_flag=True, help="Print the lines as JSON.")
def main(orders: int, as_json: bool) -> None:
    """Replay the recorded curves with every rule, and write rungs.csv."""
    lines = measure_all(curves_of(read_points()), orders)
    write_rows(RESULTS, lines, [field.name for field in fields(Line)])
    if as_json:
        click.echo(json.dumps([asdict(line) for line in lines], indent=2))
        return
    for line in lines:
        how = "early stopping" if line.early_stopping else "all epochs"
        said = f"{line.seconds:6.1%} of the seconds, loss {line.loss:.4f} (at most {line.worst_loss:.4f})"
        click.echo(f"{line.rates:>21}, {how:>14}, {line.rule:<8} {said}, close after {line.to_close:.1%}")


if __name__ == "__main__":
    main()
