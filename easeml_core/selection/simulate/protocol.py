"""How policies are compared: who is served, who is history, how often, on how many devices, at what costs.

Source: Li et al., Ease.ml (PVLDB 11(5), 2018), section 5: tenants drawn at random are served, the others only supply
what is known of the candidates; repeated with other draws.

A policy is written as one of

    hybrid                      a policy of ``config.POLICIES``, or ``clairvoyant``
    hybrid@0.05                 with a multiplier of beta
    order:FILE                  the fixed order of candidates that a file names, one a line
    default:guard=0,blend=1     with settings of ``SelectionConfig``, for instance a part of the policy switched off
    backtested                  in each repeat the one of RIVALS that a backtest on that repeat's history chooses
    shop.policies:cheapest      a function of an installed module (``policies.user_policy.Seen``)
    plugin:cheapest             an installed policy, which a live installation may use, too
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import attrs
import numpy as np
from attrs import evolve

from easeml_core.errors import ConfigError, InvalidInputError, NotFoundError
from easeml_core.selection.policies.user_policy import policy_function
from easeml_core.selection.problem import Arms, Past, Problem
from easeml_core.settings.config import COST_MODES, POLICIES, SelectionConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easeml_core.entities import Parameters
    from easeml_core.selection.simulate.tables import Table
    from easeml_core.selection.surrogate.posterior import Array

CLAIRVOYANT = "clairvoyant"
BACKTESTED = "backtested"
RIVALS = ("default", "hybrid", "hybrid@0.05", "hybrid@0.01", "roundrobin")
"""What a backtest chooses among: the first, unless another one is better."""
UNSETTABLE = (BACKTESTED, CLAIRVOYANT)
WITHOUT_BETA = ("default", "mm-gp-ei", "cheapest", "order", "ei-per-second", *UNSETTABLE)
"""Policies in which no confidence bound, and so no beta, occurs."""
FIXED = ("policy", "order", "seed", "beta_multiplier")
"""Settings that are written in another way, or are the protocol's."""
MAX_ORDER_BYTES = 1024 * 1024
_RULE = re.compile(r"[A-Za-z_]\w*(\.\w+)*:[A-Za-z_]\w*")


@dataclass(frozen=True, slots=True)
class Contestant:
    """A policy with its settings.

    Attributes:
        name: As it was written; names the policy in tables and JSON.
        config: Its settings; None for the clairvoyant, which has none, and where a backtest chooses.
        rivals: What a backtest chooses among in each repeat; empty for all others.
        is_rule: Whether its name is that of a user's function.
    """

    name: str
    config: SelectionConfig | None
    rivals: tuple[Contestant, ...] = ()
    is_rule: bool = False


def parse_contestants(
    texts: Sequence[str], *, base: SelectionConfig, candidates: Sequence[str]
) -> tuple[Contestant, ...]:
    """The policies of a simulation."""
    twice = [text for i, text in enumerate(texts) if text in texts[:i]]
    if twice or not texts:
        problem = f"policy {twice[0]!r} stands there twice" if twice else "there is no policy"
        message = f"{problem}; name at least one, each once"
        raise InvalidInputError(message)
    return tuple(_parse(text, base, candidates) for text in texts)


def _parse(text: str, base: SelectionConfig, candidates: Sequence[str]) -> Contestant:
    head, colon, tail = text.partition(":")
    if head not in (*POLICIES, *UNSETTABLE) and _RULE.fullmatch(text):
        policy_function(text)
        return Contestant(text, None, is_rule=True)
    name, at, multiplier = head.partition("@")
    if name not in (*POLICIES, *UNSETTABLE):
        _refuse(text, f"there is no policy {name!r}; there are {', '.join((*POLICIES, *UNSETTABLE))}; {_FORMS}")
    if at and name in WITHOUT_BETA:
        _refuse(text, f"{name} has no beta; leave out {at}{multiplier}")
    if name in UNSETTABLE:
        if colon:
            _refuse(text, f"{name} has no settings; leave out {colon}{tail}")
        rivals = RIVALS if name == BACKTESTED else ()
        return Contestant(text, None, tuple(_parse(rival, base, candidates) for rival in rivals))
    config = evolve(base, policy=name)
    if at:
        config = evolve(config, beta_multiplier=_read(text, "the multiplier of beta", multiplier, 1.0))
    if name == "order":
        return Contestant(text, evolve(config, order=_read_order(text, tail, candidates)))
    return Contestant(text, evolve(config, **_settings(text, tail)) if colon else config)


_FORMS = "write NAME, NAME@BETA, NAME:SETTING=VALUE,..., order:FILE or module:function"


def _refuse(text: str, what: str) -> NoReturn:
    message = f"policy {text!r}: {what}"
    raise InvalidInputError(message)


def _settings(text: str, tail: str) -> Parameters:
    """``guard=0,blend=1`` as settings, each of the kind of its default."""
    defaults = {f.name: f.default for f in attrs.fields(SelectionConfig) if f.name not in FIXED}
    settings = {}
    for part in tail.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            _refuse(text, f"{part!r} is no setting; write NAME=VALUE, separated by commas")
        if name not in defaults:
            _refuse(text, f"there is no setting {name!r}; there are {', '.join(defaults)}")
        settings[name] = _read(text, name, value, defaults[name])
    return settings


def _read(text: str, name: str, value: str, default: Any) -> Any:
    """A value of the kind of a default."""
    if isinstance(default, bool):
        truths = {"true": True, "false": False}
        if value.lower() not in truths:
            _refuse(text, f"{name} must be true or false, got {value!r}")
        return truths[value.lower()]
    kind = float if default is None else type(default)  # without a default it is a number that suits the policy
    try:
        return kind(value)
    except ValueError:
        words = {int: "a whole number", float: "a number"}
        _refuse(text, f"{name} must be {words[kind]}, got {value!r}")


def _read_order(text: str, file: str, candidates: Sequence[str]) -> tuple[str, ...]:
    """The candidates that a file names, one a line, in the order in which they are tried."""
    if not file:
        _refuse(text, "it needs a file that names candidates in order, one a line: order:FILE")
    try:
        with Path(file).open("rb") as stream:
            content = stream.read(MAX_ORDER_BYTES + 1).decode("utf-8-sig")
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        _refuse(text, f"the file cannot be read: {reason}; name candidates in order, one a line")
    if len(content) > MAX_ORDER_BYTES:
        _refuse(text, f"the file is larger than {MAX_ORDER_BYTES // 1024**2} MB; name candidates in order, one a line")
    known, lines = set(candidates), dict[str, int]()
    for number, line in enumerate(content.splitlines(), start=1):
        name = line.strip()
        if name and name not in known:
            kind, where = "candidate", f"policy {text!r} names it in line {number}"
            raise NotFoundError(kind, name, known=known, remedy=where)
        if name in lines:
            _refuse(text, f"lines {lines[name]} and {number} both name {name!r}; name every candidate once")
        if name:
            lines[name] = number
    if not lines:
        _refuse(text, "the file names no candidate; name candidates in order, one a line")
    return tuple(lines)


DRIVES = ("stream", "rounds")
MOST_REPEATS = 10_000
MOST_DEVICES = 10_000
MOST_LOSSES = 50


def _require(condition: bool, field: str, value: object, allowed: str) -> None:
    if not condition:
        raise ConfigError(field, value, allowed)


@dataclass(frozen=True, slots=True)
class Protocol:
    """One way of comparing policies; every policy sees the same draws.

    Attributes:
        served: N >= 1, tenants that are served in each repeat.
        repeats: R, draws of tenants, 1 to 10,000.
        seed: >= 0. The draw of repeat r depends on the seed and r alone.
        history: K >= 0, how many of the other tenants are history; None for all of them.
        devices: M, identical devices, 1 to 10,000.
        cost_mode: ``known``: policies know every cost; ``predicted``: they learn costs from the history and from what
            finishes; ``unit``: every trial costs 1, so that percent of the cost is percent of the trials.
        until: Percent of the cost at which a repeat ends, in (0, 100].
        losses: Average losses whose price is reported, each in [0, 1].
        drive: ``stream``: a device that becomes free gets its next trial at once; ``rounds``: a batch of M trials, and
            the next one when the slowest has ended.

    Raises:
        ConfigError: If a value is out of its range.
    """

    served: int = 10
    repeats: int = 30
    seed: int = 0
    history: int | None = None
    devices: int = 1
    cost_mode: str = "known"
    until: float = 100.0
    losses: tuple[float, ...] = (0.05, 0.02, 0.01)
    drive: str = "stream"

    def __post_init__(self) -> None:
        _require(self.served >= 1, "served", self.served, ">= 1")
        _require(1 <= self.repeats <= MOST_REPEATS, "repeats", self.repeats, f"from 1 to {MOST_REPEATS:,}")
        _require(0 <= self.seed < 2**63, "seed", self.seed, ">= 0 and < 2^63")
        _require(self.history is None or self.history >= 0, "history", self.history, ">= 0, or absent for all others")
        _require(1 <= self.devices <= MOST_DEVICES, "devices", self.devices, f"from 1 to {MOST_DEVICES:,}")
        _require(self.cost_mode in COST_MODES, "cost-mode", self.cost_mode, "one of " + ", ".join(COST_MODES))
        _require(0 < self.until <= 100, "until", self.until, "> 0 and <= 100 percent")
        _require(self.drive in DRIVES, "drive", self.drive, "one of " + ", ".join(DRIVES))
        _require(0 < len(self.losses) <= MOST_LOSSES, "losses", self.losses, f"1 to {MOST_LOSSES} numbers")
        for loss in self.losses:
            _require(0 <= loss <= 1, "losses", loss, "numbers in [0, 1], such as 0.05,0.02,0.01")
        _require(len(set(self.losses)) == len(self.losses), "losses", self.losses, "all different")

    def check(self, table: Table) -> None:
        """See that a table has enough tenants."""
        there, others = len(table.tenants), len(table.tenants) - self.served
        _require(self.served <= there, "served", self.served, f"from 1 to {there}, the tenants of the table")
        allowed = f"from 0 to {others}: {there} tenants less the {self.served} served"
        _require(self.history is None or self.history <= others, "history", self.history, allowed)

    def draw(self, n_tenants: int, repeat: int) -> tuple[list[int], list[int]]:
        """Rows of the tenants served in a repeat, and of those that are history.

        Draws are nested: with another N or K, the same seed and repeat give a beginning of the same order.

        Example:
            >>> protocol = Protocol(served=3, history=2)
            >>> [len(rows) for rows in protocol.draw(10, repeat=0)]
            [3, 2]
        """
        order: list[int] = np.random.default_rng([self.seed, repeat]).permutation(n_tenants).tolist()
        others = order[self.served :]
        return order[: self.served], others[: self.history]


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """One repeat: the chosen tenants with their true results, and the scheduler's problem.

    Attributes:
        problem: Studies in the order of the draw, without any trial; the history.
        quality: True quality of each arm of each study, shapes ``(n_arms,)``.
        cost: True cost of each arm of each study, same shapes.
        knows_costs: Whether schedulers know the costs.
    """

    problem: Problem
    quality: tuple[Array, ...]
    cost: tuple[Array, ...]
    knows_costs: bool

    @property
    def known_costs(self) -> dict[int, Array] | None:
        """The costs by study id, or None when they are to be learnt."""
        if not self.knows_costs:
            return None
        return {arms.study_id: cost for arms, cost in zip(self.problem.studies, self.cost, strict=True)}

    @property
    def total_cost(self) -> float:
        """Cost of all arms of all studies: the hundred percent."""
        return float(sum(cost.sum() for cost in self.cost))


def scene(table: Table, protocol: Protocol, repeat: int) -> Scene:
    """A repeat of a protocol on a table.

    A study has the candidates that are available to its tenant; all weights are 1.
    """
    if protocol.cost_mode == "unit":
        table = table.with_unit_costs()
    served, others = protocol.draw(len(table.tenants), repeat)
    available = ~np.isnan(table.quality)
    names = np.array(table.candidates, dtype=object)
    studies = tuple(
        Arms(i, 1.0, tuple(names[available[row]]), study=table.tenants[row]) for i, row in enumerate(served)
    )
    history = tuple(
        Past(
            i,
            tuple(names[available[row]]),
            *(tuple(a[row, available[row]].tolist()) for a in (table.quality, table.cost)),
        )
        for i, row in enumerate(others, start=len(served))
    )
    quality, cost = (tuple(a[row, available[row]] for row in served) for a in (table.quality, table.cost))
    return Scene(Problem(studies, history=history), quality, cost, protocol.cost_mode != "predicted")
