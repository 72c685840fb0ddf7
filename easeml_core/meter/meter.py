"""The meter at run time, for every method: the answers so far and one submission in, one reading out.

The state is the list of earlier answers, read from the ledger. Only the signal and the edges of a dithered meter may
reach the developer. The caller answers a repeated artifact from its log, at no cost. ``sentences.py`` has the promise
of each method, ``tree_size.py`` the rules.

The level of the next submission is what is left of delta for one node of the tree. Path-adaptive meters pay for what
has happened; all others give each node the same share of delta, decided before the first answer. In both cases the
levels of the nodes that can be reached add up to at most delta.

A model of the developer gives likely histories more of the level: any probabilities over signal histories add up to at
most 1 in each level of the developer's tree, so a node may have the failure probability (delta / T) P(history). They
are rescaled among the ranges that could be answered, so a clear answer is free, as in the path-adaptive meter. A wrong
model costs labels, never validity.

Sources: Krichevsky and Trofimov (1981), "The performance of universal encoding", for adding 1/2 to the counts; Rogers
et al. (2020), "Guaranteed validity for empirical approaches to adaptive data analysis", for guess and check.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

from easeml_core.meter import tree_size
from easeml_core.meter.planner import check_ranges, log_paid, log_share, tree_of
from easeml_core.meter.ranges import shifted
from easeml_core.meter.reading import Reading, measurement, read
from easeml_core.meter.tree_size import METHODS, changes, rule_of, team_steps
from easeml_core.settings.config import require

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easeml_core.settings.config import MeterConfig

COUNTS_REACHABLE = ("path-adaptive", "pruned", "dithered")
"""Methods that count the ranges near the measured gap as possible answers, and not all of them.

Whether a model could be run at all is no such range, and may be any function of the sealed inputs: where it could not,
no answer is given, and the set ends. All other methods count every history of answers, so that its signal may be the
last range.
"""


def next_log_level(config: MeterConfig, *, step: int, log_weight: float, worst: int) -> float:
    """Ln a of the next submission.

        path-adaptive      delta / T exp(-log_weight),  open end: delta / K 6 / (pi^2 t^2) exp(-log_weight)
        nonuniform         by the worst earlier signal, see ``tree_size.py``
        any other          delta / N,                   open end: delta 6 / (pi^2 t^2) / (nodes of level t)

    Args:
        config: What the set was planned for.
        step: t >= 1, which submission this is (of its team).
        log_weight: Sum of the log costs of the earlier answers (to its team).
        worst: Worst earlier signal; 1 if there is none.

    Returns:
        A number < 0.
    """
    log_delta = math.log1p(-config.reliability)
    if config.method == "path-adaptive":
        share = math.log(config.teams) + log_share(step) if config.open_ended else math.log(config.steps)
        return log_delta - share - log_weight
    if config.method == "nonuniform":
        sides = 1 if config.one_sided else 2
        return tree_size.log_sides(config.tolerances, config.steps, log_delta, sides)[worst - 1] + math.log(sides)
    level = METHODS[config.method].log_level
    if config.open_ended and level is not None:
        return log_delta - log_share(step) - level(tree_of(config), step)
    return log_delta - _log_nodes(config)


@lru_cache(maxsize=512)
def _log_nodes(config: MeterConfig) -> float:
    return log_paid(config, config.method)


def next_signal_probabilities(developer: str, signals: int, answers: Sequence[int]) -> tuple[float, ...]:
    """The guessed chance of each signal after these answers.

        any:     1 / m
        kt:      (count of i + 1/2) / (t + m/2)                         after t answers
        sticky:  (stays + 1/2) / (t + 1) for the last answer, (changes + 1/2) / (t + 1) / (m - 1) for each other

    Args:
        developer: ``any``, ``kt`` or ``sticky``.
        signals: m >= 2.
        answers: Signals so far; before the first, ``sticky`` expects range 1.

    Example:
        >>> next_signal_probabilities("kt", 2, [1, 1, 1])
        (0.875, 0.125)
    """
    t = len(answers)
    if developer == "kt":
        return tuple((answers.count(i) + 0.5) / (t + signals / 2) for i in range(1, signals + 1))
    if developer == "sticky":
        moved = changes(answers)
        last = answers[-1] if answers else 1
        other = (moved + 0.5) / (t + 1) / (signals - 1)
        return tuple((t - moved + 0.5) / (t + 1) if i == last else other for i in range(1, signals + 1))
    return (1 / signals,) * signals


def log_cost(developer: str, signals: int, answers: Sequence[int], signal: int, span: range) -> float:
    """What an answer costs: -ln of its guessed chance among the signals that could have been answered.

    Args:
        developer: As above.
        signals: m >= 2.
        answers: Signals so far.
        signal: The answer, inside the span.
        span: Signals that could have been answered.

    Returns:
        A number >= 0; 0 when nothing else could have been answered; ln of how many for ``any``.
    """
    if developer == "any" or len(span) == 1:
        return math.log(len(span))
    chances = next_signal_probabilities(developer, signals, answers)
    return math.log(math.fsum(chances[i - 1] for i in span)) - math.log(chances[signal - 1])


class Earlier(Protocol):
    """What a ledger remembers of one earlier submission."""

    @property
    def signal(self) -> int | None:
        """The answer; None when the set was retired instead."""

    @property
    def log_cost(self) -> float:
        """What it cost, >= 0."""

    @property
    def team(self) -> int:
        """Whose submission it was, 1..K."""


@dataclass(frozen=True, slots=True)
class Answered:
    """An ``Earlier`` by itself; attributes as there."""

    signal: int | None
    log_cost: float = 0.0
    team: int = 1


def read_submission(
    *,
    errors: int,
    examples: int,
    validation_loss: float,
    config: MeterConfig,
    earlier: Sequence[Earlier] = (),
    team: int = 1,
    shift: float | None = None,
    log_weight: float | None = None,
) -> Reading:
    """Answer one submission, by the method that the set was planned for.

        a = level of this step (``next_log_level``); interval, radius and range as in ``reading.read``
        no answer when the radius exceeds the tolerance, the steps are used, the rule has ended the set, or it is
        retired already
        cost = ln of how many ranges could have been answered, with path-adaptive; 0 with a level fixed before

    Args:
        errors: k, wrong predictions on the sealed set, in 0..n.
        examples: n >= 1, size of the sealed set.
        validation_loss: v, in [0, 1], of the same model on the open validation set.
        config: What the set was planned for.
        earlier: All earlier submissions on this set, oldest first, repeated artifacts left out.
        team: Whose submission this is, 1..K; a team's readings depend on its own answers only.
        shift: With ``dithered``: of ``ranges.late_shift``, drawn after this submission and independent of the set.
        log_weight: With ``path-adaptive``: what all earlier answers on the set have cost, where a gate shares it and
            its verdicts count too (``shared_ledger.py``); None for the sum of the team's own readings.

    Returns:
        The reading; ``why`` says why there is no answer. A retirement of one team is to be kept from the others.

    Raises:
        ConfigError: If an argument is outside its range.

    Example:
        >>> from easeml_core.settings.config import MeterConfig
        >>> config = MeterConfig(ranges=(0.1, 0.3), tolerance=0.05, reliability=0.95, steps=8, method="ratchet")
        >>> reading = read_submission(
        ...     errors=600, examples=4000, validation_loss=0.13, config=config, earlier=[Answered(2)]
        ... )
        >>> reading.signal  # the gap of .02 is in range 1, but answers only rise
        2
    """
    require(type(team) is int and 1 <= team <= config.teams, "team", team, f"a whole number, 1 to {config.teams}")
    require(
        (shift is not None) == (config.method == "dithered"), "shift", shift, "given with 'dithered', and only then"
    )
    check_ranges(config)
    edges = config.ranges if shift is None else shifted(config.ranges, shift)
    seen = measurement(errors=errors, examples=examples, validation_loss=validation_loss, edges=edges)
    past = [entry for entry in earlier if entry.team == team]
    answers = [entry.signal for entry in past if entry.signal is not None]
    worst = max(answers, default=1)
    weight = math.fsum(entry.log_cost for entry in past) if log_weight is None else log_weight
    level = next_log_level(config, step=len(answers) + 1, log_weight=weight, worst=worst)
    limit = config.tolerances[worst - 1] if config.tolerances else config.tolerance
    reading, span = read(seen, config, log_level=level, limit=limit)
    reading = replace(reading, edges=tuple(map(float, seen.edges)) if shift is not None else ())
    why = "retired" if len(answers) < len(past) else _why_over(config, answers, team)
    if why or reading.signal is None:
        return replace(reading, signal=None, reachable=1, why=why or reading.why)
    return _answer(reading, span, config, answers, team)


def _answer(reading: Reading, span: range, config: MeterConfig, answers: list[int], team: int) -> Reading:
    """What is announced, what it costs, and whether the set ends with it."""
    measured = reading.signal or 1
    signal = rule_of(config).announce(answers, measured)
    cost = 0.0
    if config.method == "path-adaptive":
        cost = log_cost(config.developer, len(config.ranges) + 1, answers, measured, span)
    ends = bool(_why_over(config, [*answers, signal], team))
    return replace(reading, signal=signal, log_cost=cost, ends=ends)


def _why_over(config: MeterConfig, answers: Sequence[int], team: int) -> str:
    """Why no further answer may be given after these, or nothing."""
    if not config.open_ended and len(answers) >= team_steps(config.steps, config.teams)[team - 1]:
        return "steps"
    return "regulation" if rule_of(config).over(answers) else ""
