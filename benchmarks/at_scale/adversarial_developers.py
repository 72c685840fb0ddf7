"""Developers who choose each next model by the answers so far, against a gate, a meter, or a set that both share.

The labels are fair coins, all of them or where the input does not tell them, so that what is true of each model is
known without any data: its true loss, or the share of known examples on which it is right. ``gate_attacks.py`` has the
developer against a gate; here are those against signals, and those who hear both. ``adversarial_lives.py`` plays them.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.entities import Adaptivity, Mode, SealedSetPurpose
from easeml_core.meter.sentences import promised_sides
from easeml_core.services.test_sets.planning import gate_of, needed_examples
from easeml_core.settings.config import GateConfig, JointConfig, MeterConfig

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import gate_attacks
from gate_attacks import Attack, Life, Question

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from easeml_core.settings.config import SetConfig

DELTA = 0.1
"""What all answers of one set may err together: so large that some hundred lives would show twice of it."""

HAIR = 1e-9
"""How far beyond an edge a model lies that sits on it."""


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """One model that is handed in, and the one system that is asked about it.

    Attributes:
        system: ``gate`` or ``meter``.
        predictions: On the examples of the set, shape ``(n_examples,)``; None for a model that cannot be run on it.
        excluded: Of a gate: whether it would be a pass or a failure that the mode excludes; None for neither.
        loss: On the validation set, in [0, 1].
        true_loss: In [0, 1].
        team: Who asks the meter.
    """

    system: str
    predictions: NDArray[np.int64] | None
    excluded: bool | None = None
    loss: float = 0.5
    true_loss: float = 0.5
    team: int = 1


@dataclass(frozen=True, slots=True)
class Told:
    """What the developer learns.

    Attributes:
        passed: Of a gate; None where that is withheld.
        signal: Of a meter; None where the set has ended.
        edges: Boundaries of the meter that were used.
    """

    passed: bool | None = None
    signal: int | None = None
    edges: tuple[float, ...] = ()


Developer = Generator[Asked, Told, None]


@dataclass(frozen=True, slots=True)
class Strategy:
    """One line of the table.

    Attributes:
        name: What the developer does.
        purpose: Of the set.
        plan: Its settings.
        share: Of all lives, relative to the other strategies.
        attack: Of a gate: how the models are chosen (``gate_attacks.py``).
        style: Of a meter: ``vote`` or ``edge``.
        unable: Share of the models that cannot be run on the sealed inputs.
        promotes: Whether models that pass rightly are promoted.
        unpaid: The control: each verdict is shown, and judged at delta / H, as if it were withheld.
    """

    name: str
    purpose: SealedSetPurpose
    plan: SetConfig
    share: float = 1.0
    attack: Attack | None = None
    style: str = "vote"
    unable: float = 0.0
    promotes: bool = False
    unpaid: bool = False

    @property
    def examples(self) -> int:
        """The size of the set: what is planned, or for a gate what the developer is made for."""
        return gate_attacks.EXAMPLES if self.attack else needed_examples(self.plan)

    @property
    def kind(self) -> str:
        """What decides the levels: mode and adaptivity, or the meter's method."""
        plan = self.plan
        if isinstance(plan, GateConfig):
            return f"{plan.mode}, {plan.adaptivity}"
        return plan.method if isinstance(plan, MeterConfig) else f"{plan.gate.adaptivity}, {plan.meter.method}"

    @property
    def key(self) -> str:
        """Its name in the file of results."""
        return f"{self.purpose}: {self.kind}: {self.name}"

    @property
    def gate(self) -> GateConfig | None:
        """The gate's part of the plan, if any."""
        return gate_of(self.plan)

    @property
    def meter(self) -> MeterConfig:
        """The meter's part of the plan."""
        found = self.plan.meter if isinstance(self.plan, JointConfig) else self.plan
        assert isinstance(found, MeterConfig)
        return found

    @property
    def promised(self) -> float:
        """The largest chance of a wrong answer that the set's plan allows."""
        return 1 - self.plan.reliability


@dataclass
class Play:
    """The labels of one set, and its developer.

    Attributes:
        strategy: What the developer does.
        rng: Seeded.
        labels: 0 or 1, shape ``(n_examples,)``.
        asks: The developer.
    """

    strategy: Strategy
    rng: np.random.Generator
    labels: NDArray[np.int64] = field(init=False)
    asks: Developer = field(init=False)

    def __post_init__(self) -> None:
        """Draw the labels, and call the developer."""
        attack, plan = self.strategy.attack, self.strategy.plan
        if attack is None:
            assert isinstance(plan, MeterConfig)
            self.labels = self.rng.integers(0, 2, self.strategy.examples)
            self.asks = _METER_STYLES[self.strategy.style](plan, self.labels.size, self.rng)
            return
        life = Life(attack, self.rng)
        self.labels = life.labels
        self.asks = _shared(life, plan) if isinstance(plan, JointConfig) else _gate(life, self.strategy, self.rng)

    def slices(self) -> NDArray[np.int64] | None:
        """Place of the slice of each example in the plan, -1 for none; None for a set without slices."""
        plan = self.strategy.plan
        if not isinstance(plan, GateConfig) or not plan.slices:
            return None
        half = (np.arange(self.labels.size) >= self.labels.size // 2).astype(np.int64)
        return half if len(plan.slices) > 1 else -half


def _gate(life: Life, strategy: Strategy, rng: np.random.Generator) -> Developer:
    """The developer of ``gate_attacks.py``, who also hands in models that cannot be run, and has others promoted."""
    developer = life.play()
    question = next(developer, None)
    while question is not None:
        if rng.random() < strategy.unable:  # its symbol tells of the inputs alone, and breaks no promise
            yield Asked("gate", None)
        told = yield Asked("gate", question.predictions, _excluded(life, question))
        if life.attack.adaptivity == Adaptivity.NONE or (strategy.promotes and told.passed and question.holds):
            life.base = question.easy  # what the next one is compared with
        question = _next_question(developer, told.passed)


def _shared(life: Life, config: JointConfig) -> Developer:
    """Ask the meter about each model, too, where its signal is most in doubt, and hear both; the last ones on edges."""
    edge, tolerance, known = config.meter.ranges[0], config.meter.tolerance, life.attack.known
    developer = life.play()
    question = next(developer, None)
    step = 0
    while question is not None:
        told = yield Asked("gate", question.predictions, _excluded(life, question))
        if life.attack.adaptivity == Adaptivity.NONE:
            life.base = question.easy  # the next one is compared with it, whatever its verdict
        true_loss = 1 - (known * question.easy + (1 - known) / 2)
        is_last = step >= life.attack.steps - gate_attacks.ATTEMPTS
        loss = true_loss - edge - (tolerance + HAIR if is_last else 0.0)
        heard = yield Asked("meter", question.predictions, None, loss, true_loss)
        guessed = np.where(np.isnan(life.scale), 2 * question.predictions - 1, 0)
        life.learnt += guessed * (0.5 if heard.signal == 1 else -0.5)
        question, step = _next_question(developer, told.passed), step + 1


def _excluded(life: Life, question: Question) -> bool | None:
    return next((passed for passed in (True, False) if life.is_wrong(question, passed)), None)


def _next_question(developer: Generator[Question, bool | None, None], passed: bool | None) -> Question | None:
    try:
        return developer.send(passed)
    except StopIteration:
        return None


def _vote(config: MeterConfig, examples: int, rng: np.random.Generator) -> Developer:
    """Coin models on a boundary, so that a signal says whether luck was with one; then votes, beyond its tolerance."""
    edge, attempts = config.ranges[0], max(1, config.steps // 4)
    learnt = {team: np.zeros(examples) for team in range(1, config.teams + 1)}
    for step in range(config.steps):
        team = 1 + step % config.teams
        guess = rng.integers(0, 2, examples)
        if step < config.steps - attempts:
            told = yield Asked("meter", guess, None, 0.5 - edge, 0.5, team)
            learnt[team] += (2 * guess - 1) * (1 if told.signal == 1 else -1)
            continue
        tied = learnt[team] == 0
        vote = np.where(tied, guess, learnt[team] > 0).astype(np.int64)
        told = yield Asked("meter", vote, None, 0.5 - edge - _tolerance(config) - HAIR, 0.5, team)
        learnt[team] += (2 * vote - 1) * (1 if told.signal == 1 else -1)


def _edge(config: MeterConfig, examples: int, rng: np.random.Generator) -> Developer:
    """Coin models one tolerance beyond a boundary, on either side by turns: a wrong signal would be by luck alone."""
    edge, both = config.ranges[0], "lower" in promised_sides(config)
    for step in range(config.steps):
        beyond = _tolerance(config) + HAIR
        loss = 0.5 - edge + (beyond if both and step % 2 else -beyond)
        yield Asked("meter", rng.integers(0, 2, examples), None, loss, 0.5, 1 + step % config.teams)


def _tolerance(config: MeterConfig) -> float:
    return config.tolerances[-1] if config.tolerances else config.tolerance


_METER_STYLES = {"vote": _vote, "edge": _edge}


def is_signal_wrong(
    config: MeterConfig, *, signal: int, edges: tuple[float, ...], tolerance: float, gap: float, largest: float
) -> bool:
    """Whether a signal breaks the promise of its meter.

    Args:
        config: The plan.
        signal: From 1.
        edges: Boundaries that were used.
        tolerance: Promised with it.
        gap: The true one.
        largest: The largest true one so far, of this team.
    """
    if signal <= len(edges) and gap > edges[signal - 1] + tolerance:
        return True
    if signal == 1 or config.one_sided:
        return False
    lower = largest if config.method == "ratchet" else gap
    is_promised = config.method == "ratchet" or "lower" in promised_sides(config)
    return is_promised and lower < edges[signal - 2] - tolerance


def _gate_strategy(
    name: str,
    mode: str,
    adaptivity: str,
    steps: int,
    share: float = 1.0,
    *,
    unable: float = 0.0,
    promotes: bool = False,
    unpaid: bool = False,
    **more: Any,
) -> Strategy:
    attack = Attack(name, mode, adaptivity, steps=steps, delta=DELTA, counted=not unpaid, **more)
    asked = TOLERANT.format("0.02")
    parts = () if not attack.sliced else ("first",) if mode == Mode.FP_FREE else ("first", "second")
    plan = GateConfig(
        condition=TOLERANT.format("-0.9") if parts and mode == Mode.FP_FREE else asked,  # only the slice is in doubt
        reliability=1 - DELTA,
        mode=mode,
        adaptivity=adaptivity,
        steps=2 * steps if unable else steps,  # a model that cannot be run takes one, too
        power=0.5,
        sampling=attack.sampling,
        slices=tuple((part, asked) for part in parts),
    )
    return Strategy(name, SealedSetPurpose.GATE, plan, share, attack, unable=unable, promotes=promotes, unpaid=unpaid)


TOLERANT = "n - o > {} +/- 0.45"
"""The attacked condition of ``gate_attacks.py``; its tolerance, which decides only how many examples are planned, is
such that its set is large enough to the last step."""


def _meter_strategy(name: str, style: str, method: str, share: float = 1.0, **more: Any) -> Strategy:
    settings: dict[str, Any] = {"ranges": (0.1,), "tolerance": 0.08, "reliability": 1 - DELTA, "steps": 8}
    settings |= {"method": method, "ambiguous": 8} | more
    return Strategy(name, SealedSetPurpose.METER, MeterConfig(**settings), share, style=style)


def _joint_strategy(name: str, adaptivity: str) -> Strategy:
    gate = GateConfig(condition=TOLERANT.format("0.02"), adaptivity=adaptivity, steps=5, power=0.5)
    meter = MeterConfig(ranges=(0.1,), tolerance=0.2, steps=5, ambiguous=5)
    plan = JointConfig(gate, meter, reliability=1 - DELTA)
    # The developer's own reckoning of levels only tunes the questions.
    return Strategy(name, SealedSetPurpose.JOINT, plan, 1.0, Attack(name, "fp-free", adaptivity, steps=5, delta=DELTA))


def strategies() -> list[Strategy]:
    """All lines of the table."""
    control = "the control: answers that are not paid for"
    found = [
        _gate_strategy(control, "fp-free", "full", 80, 0.12, unpaid=True),
        _gate_strategy(control, "fn-free", "full", 80, 0.12, unpaid=True),
        _gate_strategy("true effects on the threshold", "fp-free", "none", 4, 3),
        _gate_strategy("true effects on the threshold", "fn-free", "none", 4, 3),
    ]
    for mode in ("fp-free", "fn-free"):
        found += [
            _gate_strategy("climbs on symbols", mode, "full", 5, 1.5),
            _gate_strategy("climbs on symbols", mode, "recycle", 8, 1.5),
            _gate_strategy("climbs until the first change", mode, "firstChange", 8, aim=0.1),
            _gate_strategy("climbs for three passes", mode, "upTo:3", 6),
            _gate_strategy("models that cannot be run between", mode, "recycle", 4, 2, unable=0.5),
            _gate_strategy("each pass is promoted", mode, "recycle", 6, promotes=True),
            _gate_strategy("slices", mode, "recycle", 5, sliced=True),
            _gate_strategy("stops early", mode, "recycle", 4, 0.5, sampling="early"),
            _gate_strategy("labels on demand", mode, "recycle", 4, 0.7, on_demand=True),
        ]
    edges: dict[str, Any] = {"steps": 2, "ambiguous": 1}
    found += [_meter_strategy("on the edges", "edge", method, 3, **edges) for method in ("path-adaptive", "full")]
    found.append(_meter_strategy("on the edges, one side promised", "edge", "full", 3, one_sided=True, **edges))
    for method in ("path-adaptive", "pruned", "exact-tree", "ratchet", "dithered", "first-change"):
        ranges = (0.1, 0.4) if method == "dithered" else (0.1,)
        found.append(_meter_strategy("votes", "vote", method, ranges=ranges))
    found += [
        _meter_strategy("votes", "vote", "deviations", deviations=3),
        _meter_strategy("votes, one side promised", "vote", "exact-tree", one_sided=True),
        _meter_strategy("votes, no last step", "vote", "path-adaptive", open_ended=True),
        _meter_strategy("votes, stays expected", "vote", "path-adaptive", developer="sticky"),
        _meter_strategy("votes, two teams", "vote", "multitenant", teams=2),
        _meter_strategy("votes, finer while green", "vote", "nonuniform", tolerances=(0.08, 0.1)),
        _joint_strategy("hears verdicts and signals", Adaptivity.FULL.value),
        _joint_strategy("hears signals alone", Adaptivity.NONE.value),
    ]
    return found
