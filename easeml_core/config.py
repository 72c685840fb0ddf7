"""How the algorithms behave: frozen dataclasses, checked when made, stored with the study they belong to.

Where the database is, and what one DAG wants, is *not* here: that is the connection and the operator.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self

from easeml_core.entities import Adaptivity, Mode, SealedSetPurpose
from easeml_core.errors import ConfigError, InvalidInputError

PUBLISHED = (
    *("mm-gp-ei", "hybrid", "greedy", "roundrobin", "random", "fcfs", "cheapest", "order"),
    *("gp-ei-random", "gp-ei-roundrobin", "ei-per-second"),
    *("variance-drop", "maximal-variance", "ucb-drop", "information-gain", "above-average-bonus"),
)
POLICIES = ("default", *PUBLISHED)
KERNELS = ("empirical", "squared-exponential")
TAILS = ("hoeffding", "clopper-pearson")
ESTIMATORS = ("exact", "paper")
SAMPLINGS = ("fixed", "early")
PRECISIONS = ("auto", "on", "off")
COST_MODES = ("known", "predicted", "unit")

# The referee plans one study after the other: the largest settings must be planned in a few seconds.
MOST_STEPS = 1_000_000
"""Answers that one sealed set can be planned for."""
LEAST_TOLERANCE = 1e-9
"""As of a condition: below, not even the size of a set can be counted."""

MOST_COUNTED = 100_000
"""Teams, deviations, and steps of an automaton: a plan counts them one by one."""
MOST_RUNGS = 20
"""Shares of a network's epochs after which it may be ended; the schema's bound."""
MOST_SLICES = 50
"""Slices of one sealed set. All conditions share the level, so that every slice makes each of them dearer."""
MOST_OTHER_CONDITIONS = 64
"""Answers about other conditions that one sealed set may give: each halves the level of all its tests."""


def require(condition: bool, field_name: str, value: object, allowed: str) -> None:
    """Raise ConfigError unless the condition holds."""
    if not condition:
        raise ConfigError(field_name, value, allowed)


def require_known(owner: str, values: Iterable[str], known: Iterable[str]) -> None:
    """Refuse settings that there are not.

    Raises:
        InvalidInputError: One of the names is unknown; the message lists those that there are.
    """
    names = sorted(known)
    for name in values:
        if name not in names:
            message = f"{owner} has no setting {name!r}; known: {', '.join(names)}"
            raise InvalidInputError(message)


def choice(kind: type[Any], field_name: str, value: object) -> Any:
    """Turn a word into a member of an enumeration, or say which words there are."""
    try:
        return kind(value)
    except ValueError:
        raise ConfigError(field_name, value, "one of " + ", ".join(m.value for m in kind)) from None


def _require_steps(value: object) -> None:
    whole = type(value) is int and 1 <= value <= MOST_STEPS
    require(whole, "steps", value, f"a whole number, 1 to {MOST_STEPS}")


def parse_adaptivity(value: object) -> tuple[Adaptivity, int | None]:
    """Read ``none``, ``full``, ``firstChange`` (the published code's ``hybrid``), ``recycle`` or ``upTo:K``, K >= 1.

    Raises:
        ConfigError: It is none of these.

    Example:
        >>> parse_adaptivity("upTo:3")[1]
        3
    """
    allowed = "none, full, firstChange, recycle, or upTo:K with a whole number K >= 1"
    name, colon, cap = str(value).partition(":")
    kind = {"hybrid": Adaptivity.FIRST_CHANGE, **{str(a): a for a in Adaptivity}}.get(name)
    require(kind is not None, "adaptivity", value, allowed)
    assert kind is not None  # just required
    if kind is not Adaptivity.UP_TO:
        require(not colon, "adaptivity", value, allowed)
        return kind, None
    require(cap.isascii() and cap.isdigit() and len(cap) <= 7 and int(cap) >= 1, "adaptivity", value, allowed)
    return kind, int(cap)


class _Stored:
    """Plain JSON in and out, so that a study's settings can be kept with it."""

    def to_json(self) -> dict[str, Any]:
        """The settings as plain JSON."""
        return asdict(self)  # type: ignore[call-overload, no-any-return]  # every subclass is a dataclass

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The settings from plain JSON; an unknown name is an error, never ignored."""
        known = {f.name for f in fields(cls)}  # type: ignore[arg-type]  # every subclass is a dataclass
        require_known(cls.__name__.removesuffix("Config").lower(), values, known)
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


@dataclass(frozen=True, slots=True)
class SelectionConfig(_Stored):
    """How the next trial is chosen.

    The second group concerns the ``default`` policy alone; each part of it can be switched off.

    Attributes:
        policy: One of POLICIES.
        delta: Probability that the confidence bounds of GP-UCB fail, in (0, 1).
        noise_variance: sigma^2 > 0 of an observed quality.
        beta_multiplier: Factor on the theoretical beta, > 0; 1 is the paper's.
        freeze_rounds: s_freeze, rounds without change before HYBRID turns to round robin.
        greedy_gap_per_cost: Whether GREEDY and HYBRID divide a tenant's gap by the cost of the run that it would get.
        greedy_from_best: Whether GREEDY and HYBRID estimate a tenant's regret from its best result, not from its last.
        cost_aware: False makes every policy believe that all costs are equal.
        kernel: Covariance of the published policies' prior, one of KERNELS.
        pseudo_studies: nu > 0, how many past studies the exchangeable prior counts as in the covariance. None for what
            suits the policy: 5 for ``default``; next to nothing for the published ones, which is their plain empirical
            covariance, or 10 where the past cannot carry one: no more past studies than candidates, and fewer than 30.
        order: Candidate names in the order in which policy ``order`` tries them; the others come last.
        seed: Seed of the random policies.
        guard: g in [0, 1): share of the compute that goes to the least-served tenant.
        objective: Dial in [0, 1] from the weighted mean (0) to the worst-served tenant (1).
        price_per_second: Least improvement of quality that a second of compute must promise, >= 0.
        link: ``logit`` or ``identity``: the scale on which qualities are taken as normal.
        blend: Share in [0, 1] of the squared-exponential kernel in the prior covariance.
        tenant_scale: Whether each tenant's uncertainty is scaled by how surprising its own results were.
        believe: Whether trials under way count as if they had returned their mean (kriging believer).
        cold_start: Whether a short history is joined by the results of the live tenants.
    """

    policy: str = "default"
    delta: float = 0.1
    noise_variance: float = 1e-4
    beta_multiplier: float = 1.0
    freeze_rounds: int = 10
    greedy_gap_per_cost: bool = False
    greedy_from_best: bool = False
    cost_aware: bool = True
    kernel: str = "empirical"
    pseudo_studies: float | None = None
    order: tuple[str, ...] = ()
    seed: int = 0
    guard: float = 0.1
    objective: float = 0.0
    price_per_second: float = 0.0
    link: str = "logit"
    blend: float = 0.5
    tenant_scale: bool = True
    believe: bool = True
    cold_start: bool = True

    def __post_init__(self) -> None:
        require(self.policy in POLICIES, "policy", self.policy, "one of " + ", ".join(POLICIES))
        require(self.kernel in KERNELS, "kernel", self.kernel, "one of " + ", ".join(KERNELS))
        require(self.link in ("logit", "identity"), "link", self.link, "logit or identity")
        require(0 < self.delta < 1, "delta", self.delta, "> 0 and < 1")
        require(self.freeze_rounds >= 1, "freeze_rounds", self.freeze_rounds, ">= 1")
        for name in ("noise_variance", "beta_multiplier"):
            require(0 < getattr(self, name) < math.inf, name, getattr(self, name), "> 0 and finite")
        nu = self.pseudo_studies
        require(nu is None or 0 < nu < math.inf, "pseudo_studies", nu, "> 0 and finite, or None")
        for name in ("greedy_gap_per_cost", "greedy_from_best"):
            require(isinstance(getattr(self, name), bool), name, getattr(self, name), "true or false")
        require(0 <= self.guard < 1, "guard", self.guard, ">= 0 and < 1")
        require(0 <= self.price_per_second < math.inf, "price_per_second", self.price_per_second, ">= 0 and finite")
        for name in ("objective", "blend"):
            require(0 <= getattr(self, name) <= 1, name, getattr(self, name), ">= 0 and <= 1")


@dataclass(frozen=True, slots=True)
class TrainingConfig(_Stored):
    """Limits of one trial, and how its network is trained, if it is one.

    Attributes:
        time_limit_seconds: Wall seconds after which a trial is a failed one.
        memory_limit_mb: Resident megabytes after which a trial is a failed one.
        lease_seconds: How long a silent worker keeps its trial.
        max_attempts: A trial whose lease was lost so often is a failed one.
        seed: Seed of everything random in training.
        early_stopping: Whether a tenth of the training part is held out, to end a network's training by its loss there
            and keep the best epoch.
        patience: Epochs without a better loss that are waited for.
        mixed_precision: Half precision in a network's products: ``auto`` (on a GPU only), ``on`` or ``off``.
        checkpoint_seconds: From one checkpoint of a network to the next, at least; 0 for one after each epoch.
        rungs: At most 20 shares of a network's epochs, rising, between 0 and 1: after each of them it is asked whether
            the rest is worth it. Empty for never.
    """

    time_limit_seconds: float = 600.0
    memory_limit_mb: int = 4096
    lease_seconds: float = 60.0
    max_attempts: int = 3
    seed: int = 0
    early_stopping: bool = True
    patience: int = 5
    mixed_precision: str = "auto"
    checkpoint_seconds: float = 30.0
    rungs: tuple[float, ...] = (0.1, 0.3)

    def __post_init__(self) -> None:
        for name in ("time_limit_seconds", "lease_seconds"):  # the database adds them to the time of day
            require(0 < getattr(self, name) <= 1e8, name, getattr(self, name), "> 0 and at most 1e8")
        require(self.memory_limit_mb >= 64, "memory_limit_mb", self.memory_limit_mb, ">= 64")
        whole = type(self.max_attempts) is int  # the database counts with it: 2.5 or true would stop all trials
        require(
            whole and 1 <= self.max_attempts <= 1000, "max_attempts", self.max_attempts, "a whole number, 1 to 1000"
        )
        require(type(self.seed) is int and 0 <= self.seed < 2**32, "seed", self.seed, "a whole number, >= 0 and < 2^32")
        require(type(self.early_stopping) is bool, "early_stopping", self.early_stopping, "true or false")
        whole = type(self.patience) is int
        require(whole and 1 <= self.patience <= 1000, "patience", self.patience, "a whole number, 1 to 1000")
        known = self.mixed_precision in PRECISIONS
        require(known, "mixed_precision", self.mixed_precision, "one of " + ", ".join(PRECISIONS))
        between = self.checkpoint_seconds
        require(0 <= between <= 1e8, "checkpoint_seconds", between, ">= 0 and at most 1e8")
        self._check_rungs()

    def _check_rungs(self) -> None:
        text = f"at most {MOST_RUNGS} rising shares between 0 and 1"
        shares = self.rungs if isinstance(self.rungs, Iterable) and not isinstance(self.rungs, str) else (None,)
        shares = tuple(shares)
        numbers = all(isinstance(share, int | float) and not isinstance(share, bool) for share in shares)
        require(numbers and len(shares) <= MOST_RUNGS, "rungs", self.rungs, text)
        rising = all(a < b for a, b in zip((0.0, *shares), (*shares, 1.0), strict=True))
        require(rising, "rungs", self.rungs, text)
        object.__setattr__(self, "rungs", shares)  # JSON has lists for them


@dataclass(frozen=True, slots=True)
class GateConfig(_Stored):
    """What a sealed gate set was planned for; fixed before its first answer.

    Attributes:
        condition: Source of the condition, e.g. ``n - o > 0.02 +/- 0.01``.
        reliability: 1 - delta, in (0, 1), for all verdicts on the set together.
        mode: ``fp-free`` or ``fn-free``.
        adaptivity: ``none``, ``full``, ``firstChange``, ``recycle`` or ``upTo:K``.
        steps: H >= 1, verdicts that the set must serve; at most a million.
        estimator: ``exact``, or ``paper`` for the published sizes. Verdicts are exact with both.
        power: With ``exact``: the chance in (0, 1) that a model beyond the threshold by twice the tolerance gets the
            promised answer; None for as high as the reliability asks of the other side.
        sampling: ``fixed`` looks at all examples once; ``early`` looks at them in their order and stops as soon as the
            verdict is certain, which saves labels.
        slices: At most 50 pairs (slice, condition) that must hold too, each on its slice of the set.
        mail: Where verdicts go under ``none``, and the alarm for a new set; empty for nowhere.
        other_conditions: F, answers about conditions other than this one that the set may give beside its steps, 0 to
            64. Each halves the level of every test of the set. The referee plans them; a study's settings have 0.
    """

    condition: str = "n - o > 0 +/- 0.2"
    reliability: float = 0.95
    mode: str = "fp-free"
    adaptivity: str = "full"
    steps: int = 4
    estimator: str = "exact"
    power: float | None = None
    sampling: str = "fixed"
    slices: tuple[tuple[str, str], ...] = ()
    mail: str = ""
    other_conditions: int = 0

    def __post_init__(self) -> None:
        others = self.other_conditions
        allowed = f"a whole number from 0 to {MOST_OTHER_CONDITIONS}"
        require(type(others) is int and 0 <= others <= MOST_OTHER_CONDITIONS, "other_conditions", others, allowed)
        require(0 < self.reliability < 1, "reliability", self.reliability, "> 0 and < 1")
        choice(Mode, "mode", self.mode)
        _, cap = parse_adaptivity(self.adaptivity)
        _require_steps(self.steps)
        require(cap is None or cap <= self.steps, "adaptivity", self.adaptivity, "upTo:K with K at most the steps")
        require(self.estimator in ESTIMATORS, "estimator", self.estimator, "one of " + ", ".join(ESTIMATORS))
        require(self.power is None or 0 < self.power < 1, "power", self.power, "> 0 and < 1, or nothing")
        require(self.sampling in SAMPLINGS, "sampling", self.sampling, "one of " + ", ".join(SAMPLINGS))
        pairs = tuple(tuple(pair) for pair in self.slices)
        named = all(len(pair) == 2 and all(isinstance(text, str) and text for text in pair) for pair in pairs)
        require(
            named and len({pair[0] for pair in pairs}) == len(pairs),
            "slices",
            self.slices,
            "pairs (slice, condition), each slice once",
        )
        require(len(pairs) <= MOST_SLICES, "slices", f"{len(pairs)} of them", f"at most {MOST_SLICES}")
        object.__setattr__(self, "slices", pairs)  # JSON has lists for them
        require(
            not self.mail or ("@" in self.mail and self.mail.isprintable() and " " not in self.mail),
            "mail",
            self.mail,
            "an address such as name@host",
        )


METER_METHODS = (
    *("path-adaptive", "pruned", "exact-tree", "full", "first-change"),
    *("dithered", "ratchet", "deviations", "automaton", "nonuniform", "multitenant"),
)
DEVELOPERS = ("any", "kt", "sticky")


@dataclass(frozen=True, slots=True)
class MeterConfig(_Stored):
    """What a sealed meter set was planned for; fixed before its first answer.

    Attributes:
        ranges: Inner boundaries b_1 < ... < b_{m-1} of the overfitting ranges; m = len + 1 signals.
        tolerance: epsilon, from 1e-9 to less than 1.
        reliability: 1 - delta, in (0, 1), for all signals on the set together.
        steps: T >= 1, submissions that the set must serve; at most a million, with ``automaton`` 100,000.
        ambiguous: Planned number of ambiguous answers (each costs ln 2), >= 0.
        tail: ``hoeffding`` or ``clopper-pearson``.
        overfitting_budget: The highest signal that raises no alert, >= 1; only without ``budget``.
        method: One of METER_METHODS: how the developer's reactions are paid for.
        deviations: B from 0 to 100,000, with ``deviations``: answers unlike the one before that the set survives.
        teams: K from 1 to 100,000, teams that exchange nothing, with ``multitenant`` and ``path-adaptive``; T is shared
            out evenly.
        tolerances: With ``nonuniform``: epsilon_1 <= ... <= epsilon_m, by the worst earlier signal.
        automaton: With ``automaton``: one row for each state, and in it for each signal the pair of the answer and the
            next state (None: the set is retired after this answer). State 0 is the first.
        one_sided: Promise only that the true gap is not above what a signal says; needs fewer labels.
        open_ended: The set serves more than T submissions if it can; T is what it is planned for.
        developer: With ``path-adaptive``: what histories are taken to be likely: ``any``, ``kt`` (signals keep their
            shares) or ``sticky`` (the last one comes again). A wrong guess only shortens the set's life.
        budget: Rules of the overfitting budget, e.g. ``signal above range 2``; replace ``overfitting_budget``.
    """

    ranges: tuple[float, ...] = (0.2, 0.6)
    tolerance: float = 0.1
    reliability: float = 0.95
    steps: int = 8
    ambiguous: int = 2
    tail: str = "clopper-pearson"
    overfitting_budget: int = 1
    method: str = "path-adaptive"
    deviations: int = 3
    teams: int = 1
    tolerances: tuple[float, ...] = ()
    automaton: tuple[tuple[tuple[int, int | None], ...], ...] = ()
    one_sided: bool = False
    open_ended: bool = False
    developer: str = "any"
    budget: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("ranges", "tolerances"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        rising = all(a < b for a, b in zip(self.ranges, self.ranges[1:], strict=False))
        inside = all(-1 < b < 1 for b in self.ranges)
        require(bool(self.ranges) and rising and inside, "ranges", self.ranges, "rising boundaries between -1 and 1")
        require(LEAST_TOLERANCE <= self.tolerance < 1, "tolerance", self.tolerance, "> 0 and < 1, at least 1e-9")
        require(0 < self.reliability < 1, "reliability", self.reliability, "> 0 and < 1")
        _require_steps(self.steps)
        require(self.ambiguous >= 0, "ambiguous", self.ambiguous, ">= 0")
        require(self.tail in TAILS, "tail", self.tail, "one of " + ", ".join(TAILS))
        require(self.overfitting_budget >= 1, "overfitting_budget", self.overfitting_budget, ">= 1")
        self._check_method()
        self._check_sides_and_ends()

    def _check_method(self) -> None:
        require(self.method in METER_METHODS, "method", self.method, "one of " + ", ".join(METER_METHODS))
        whole = type(self.deviations) is int and 0 <= self.deviations <= MOST_COUNTED
        require(whole, "deviations", self.deviations, f"a whole number, 0 to {MOST_COUNTED}")
        most = min(self.steps, MOST_COUNTED)
        whole = type(self.teams) is int and 1 <= self.teams <= most
        require(whole, "teams", self.teams, f"a whole number, 1 to the {self.steps} steps, and at most {MOST_COUNTED}")
        shared = self.teams == 1 or self.method in ("path-adaptive", "multitenant")
        require(shared, "teams", self.teams, f"1 with the method {self.method!r}; multitenant and path-adaptive share")
        if self.method == "nonuniform":
            rising = all(a <= b for a, b in zip(self.tolerances, self.tolerances[1:], strict=False))
            bounded = all(LEAST_TOLERANCE <= e < 1 for e in self.tolerances)
            sound = rising and bounded and len(self.tolerances) == len(self.ranges) + 1
            text = f"{len(self.ranges) + 1} numbers between 0 and 1 that never fall, one for each signal"
            require(sound, "tolerances", self.tolerances, text)
        else:
            require(not self.tolerances, "tolerances", self.tolerances, "left out, except with the method 'nonuniform'")
        text = "a table of states with the method 'automaton', and left out with any other"
        require(bool(self.automaton) == (self.method == "automaton"), "automaton", self.automaton, text)
        table = tuple(tuple(tuple(arrow) for arrow in row) for row in self.automaton)  # JSON has lists for them
        object.__setattr__(self, "automaton", table)
        counted = not table or self.steps <= MOST_COUNTED
        require(counted, "steps", self.steps, f"at most {MOST_COUNTED} with the method 'automaton'")

    def _check_sides_and_ends(self) -> None:
        for name in ("one_sided", "open_ended"):
            require(isinstance(getattr(self, name), bool), name, getattr(self, name), "true or false")
        closed = not self.one_sided or self.method not in ("path-adaptive", "pruned", "dithered")
        text = f"false with the method {self.method!r}: which ranges can be answered needs both sides"
        require(closed, "one_sided", self.one_sided, text)
        closed = not self.open_ended or self.method not in ("nonuniform", "multitenant")
        require(closed, "open_ended", self.open_ended, f"false with the method {self.method!r}: its steps are counted")
        require(self.developer in DEVELOPERS, "developer", self.developer, "one of " + ", ".join(DEVELOPERS))
        text = "'any', except with the method 'path-adaptive'"
        require(self.developer == "any" or self.method == "path-adaptive", "developer", self.developer, text)
        words = all(isinstance(rule, str) and rule.strip() for rule in self.budget)
        require(words and not isinstance(self.budget, str), "budget", self.budget, "a list of rules in words")
        object.__setattr__(self, "budget", tuple(self.budget))


@dataclass(frozen=True, slots=True)
class JointConfig(_Stored):
    """What one sealed set was planned for when gate and meter share it; fixed before its first answer.

    Which gates and meters may share a set is checked by ``meter/shared_ledger.py``.

    Attributes:
        gate: The gate's settings; its reliability is replaced by the one that follows from ``gate_share``.
        meter: The meter's settings; its reliability is replaced likewise. Both may be given as plain JSON.
        reliability: 1 - delta, in (0, 1), for all verdicts and all signals together.
        gate_share: Part of delta for the gate, in (0, 1).
    """

    gate: GateConfig = GateConfig()
    meter: MeterConfig = MeterConfig()
    reliability: float = 0.95
    gate_share: float = 0.5

    def __post_init__(self) -> None:
        require(0 < self.reliability < 1, "reliability", self.reliability, "> 0 and < 1")
        require(0 < self.gate_share < 1, "gate_share", self.gate_share, "> 0 and < 1")
        gate = GateConfig.from_json(self.gate) if isinstance(self.gate, Mapping) else self.gate
        meter = MeterConfig.from_json(self.meter) if isinstance(self.meter, Mapping) else self.meter
        for name, settings, share in (("gate", gate, self.gate_share), ("meter", meter, 1 - self.gate_share)):
            # Towards 1, so that the two parts of delta never add up to more than delta.
            reliability = math.nextafter(1 - (1 - self.reliability) * share, 1.0)
            object.__setattr__(self, name, replace(settings, reliability=reliability))

    @property
    def steps(self) -> int:
        """H + T, answers that the set can give at most."""
        return self.gate.steps + self.meter.steps


SetConfig = GateConfig | MeterConfig | JointConfig
"""What a sealed set is planned for, by its purpose; a ``direct`` set has the settings of a meter."""


def set_config(purpose: SealedSetPurpose, plan: Mapping[str, Any]) -> SetConfig:
    """Return the settings of a set from its plan as it is stored.

    Raises:
        ConfigError: If a setting is unknown or out of range.
    """
    if purpose is SealedSetPurpose.JOINT:
        return JointConfig.from_json(plan)
    return GateConfig.from_json(plan) if purpose is SealedSetPurpose.GATE else MeterConfig.from_json(plan)


@dataclass(frozen=True, slots=True)
class DirectConfig(_Stored):
    """That a study has a second meter, on a hidden sample of the validation distribution (``meter/drift.py``).

    Attributes:
        share: Part of the meter's delta for it, in (0, 1).
    """

    share: float = 0.5

    def __post_init__(self) -> None:
        require(0 < self.share < 1, "share", self.share, "> 0 and < 1")
