"""Settings of the algorithms: frozen attrs classes, checked when they are made and stored with their study.

Each field names its limit; the limits that the database enforces, too, are in ``limits``. The address of the database
belongs to the connection, and the settings of one DAG to its operators.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Self

import attrs
from attrs import field, frozen

from easeml_core.entities import Adaptivity, JsonObject, Mode, SealedSetPurpose
from easeml_core.errors import ConfigError, InvalidInputError
from easeml_core.settings.limits import ATTEMPTS, DURATION, MOST_RUNGS, SHARE, TRUTH, OneOf, PolicyName, Range

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
BACKENDS = ("auto", "nccl", "gloo")
"""Of ``torch.distributed``: ``auto`` is NCCL on GPUs and Gloo on processors."""
OBJECTIVES = {"mean": 0.0, "maxmin": 1.0}
"""Words for the dial from the mean to the worst-served tenant."""
GRIDS = ("one", "rates", "full")
"""Networks as they are; with each learning rate; with each learning rate and, on images, each normalisation."""
COST_MODES = ("known", "predicted", "unit")

# The referee plans one study after the other: the largest settings must be planned in a few seconds.
MOST_STEPS = 1_000_000
"""Answers that one sealed set can be planned for."""
LEAST_TOLERANCE = 1e-9
"""As of a condition: below, not even the size of a set can be counted."""

MOST_COUNTED = 100_000
"""Teams, deviations, and steps of an automaton: a plan counts them one by one."""
MOST_SLICES = 50
"""Slices of one sealed set. All conditions share the level, so that every slice makes each of them dearer."""
MOST_OTHER_CONDITIONS = 64
"""Answers about other conditions that one sealed set may give: each halves the level of all its tests."""


def require(condition: bool, field_name: str, value: object, allowed: str) -> None:
    """Raise ConfigError unless the condition holds."""
    if not condition:
        raise ConfigError(field_name, value, allowed)


def number_of(field_name: str, value: Any) -> float:
    """Return a number of Python or NumPy as Python's own; ConfigError for anything else, such as a text or None."""
    plain = value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else value
    require(isinstance(plain, int | float) and not isinstance(plain, bool), field_name, value, "a number")
    return plain  # type: ignore[no-any-return]  # just required


def whole_of(field_name: str, value: Any) -> int:
    """Return a whole number of Python or NumPy as Python's own; ConfigError for anything else."""
    plain = value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else value
    require(type(plain) is int, field_name, value, "a whole number")
    return plain  # type: ignore[no-any-return]  # just required


def numbers_of(field_name: str, values: Any) -> tuple[float, ...]:
    """Return a list or an array of numbers as a tuple; ConfigError for anything else, such as a single number."""
    is_list = isinstance(values, Iterable) and not isinstance(values, str | bytes | Mapping)
    require(is_list, field_name, values, "a list of numbers")
    return tuple(number_of(field_name, value) for value in values)


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


STEPS = Range(least=1, most=MOST_STEPS, whole=True)
TOLERANCE = Range(least=LEAST_TOLERANCE, below=1)
POSITIVE = Range(above=0, below=math.inf)
UNIT = Range(least=0, most=1)


def _as_tuple(value: Any) -> Any:
    """Return a list, as JSON has it, as a tuple, to any depth; anything else is left to the field's limit."""
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping):
        return tuple(_as_tuple(part) for part in value)
    return value


def _is_list(value: object, *kinds: type) -> bool:
    """Return whether a value is a tuple whose parts have one of some types; true and false are no numbers."""
    return isinstance(value, tuple) and all(isinstance(part, kinds) and not isinstance(part, bool) for part in value)


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


@frozen(slots=False)  # msgspec writes the fields of a class with slots in the order of the alphabet
class _Stored:
    """Conversion to and from JSON, in which the settings are stored with their study."""

    def to_json(self) -> dict[str, Any]:
        """Return the settings as plain JSON."""
        return attrs.asdict(self)

    @classmethod
    def from_json(cls, values: JsonObject) -> Self:
        """Return the settings from plain JSON.

        Raises:
            InvalidInputError: A name is unknown, or a value outside its range.
        """
        fields = {f.name: f.validator for f in attrs.fields(cls)}
        require_known(cls.__name__.removesuffix("Config").lower(), values, fields)
        return cls(**values)


@frozen(slots=False)
class SelectionConfig(_Stored):
    """How the next trial is chosen.

    The second group concerns the ``default`` policy alone; each part of it can be switched off.

    Attributes:
        policy: One of POLICIES, or ``plugin:NAME`` for an installed policy (an entry point of ``easeml.policies``).
        delta: Probability that the confidence bounds of GP-UCB fail, in (0, 1).
        noise_variance: sigma^2 > 0 of an observed quality.
        beta_multiplier: Factor on the theoretical beta, > 0; 1 is the paper's.
        freeze_rounds: s_freeze, rounds without change before HYBRID turns to round robin.
        greedy_gap_per_cost: Whether GREEDY and HYBRID divide a tenant's gap by the cost of the run that it would get.
        greedy_from_best: Whether GREEDY and HYBRID estimate a tenant's regret from its best result, not from its last.
        cost_aware: False makes every policy believe that all costs are equal.
        kernel: Covariance of the published policies' prior, one of KERNELS.
        pseudo_studies: nu > 0, how many past studies the exchangeable prior counts as in the covariance. None for what
            suits the policy: for ``default`` 5, or less where its past is likelier so; for the published ones next to
            nothing, which is their plain empirical covariance, or 10 where the past cannot carry one: no more past
            studies than candidates, and fewer than 30.
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

    policy: str = field(default="default", validator=PolicyName.of(*POLICIES))
    delta: float = field(default=0.1, validator=SHARE)
    noise_variance: float = field(default=1e-4, validator=POSITIVE)
    beta_multiplier: float = field(default=1.0, validator=POSITIVE)
    freeze_rounds: int = field(default=10, validator=Range(least=1))
    greedy_gap_per_cost: bool = field(default=False, validator=TRUTH)
    greedy_from_best: bool = field(default=False, validator=TRUTH)
    cost_aware: bool = True
    kernel: str = field(default="empirical", validator=OneOf.of(*KERNELS))
    pseudo_studies: float | None = field(default=None, validator=POSITIVE.or_none())
    order: tuple[str, ...] = field(default=(), converter=_as_tuple)
    seed: int = 0
    guard: float = field(default=0.1, validator=Range(least=0, below=1))
    objective: float = field(default=0.0, validator=UNIT)
    price_per_second: float = field(default=0.0, validator=Range(least=0, below=math.inf))
    link: str = field(default="logit", validator=OneOf.of("logit", "identity"))
    blend: float = field(default=0.5, validator=UNIT)
    tenant_scale: bool = True
    believe: bool = True
    cold_start: bool = True

    def __attrs_post_init__(self) -> None:
        require(_is_list(self.order, str), "order", self.order, "a list of names of candidates")


@frozen(slots=False)
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
        distributed_backend: What joins the ranks of a network on several devices: ``auto`` (NCCL on GPUs, Gloo on
            processors), ``nccl`` or ``gloo``.
        rungs: At most 20 shares of a network's epochs, rising, between 0 and 1: after each of them it is asked whether
            the rest is worth it. Empty for never.
    """

    time_limit_seconds: float = field(default=600.0, validator=DURATION)
    memory_limit_mb: int = field(default=4096, validator=Range(least=64))
    lease_seconds: float = field(default=60.0, validator=DURATION)
    max_attempts: int = field(default=3, validator=ATTEMPTS)
    seed: int = field(default=0, validator=Range(least=0, most=2**32 - 1, whole=True))
    early_stopping: bool = field(default=True, validator=TRUTH)
    patience: int = field(default=5, validator=Range(least=1, most=1000, whole=True))
    mixed_precision: str = field(default="auto", validator=OneOf.of(*PRECISIONS))
    checkpoint_seconds: float = field(default=30.0, validator=Range(least=0, most=1e8))
    distributed_backend: str = field(default="auto", validator=OneOf.of(*BACKENDS))
    rungs: tuple[float, ...] = field(default=(0.1, 0.3), converter=_as_tuple)

    def __attrs_post_init__(self) -> None:
        allowed = f"at most {MOST_RUNGS} rising shares between 0 and 1"
        require(_is_list(self.rungs, int, float) and len(self.rungs) <= MOST_RUNGS, "rungs", self.rungs, allowed)
        rising = all(a < b for a, b in zip((0.0, *self.rungs), (*self.rungs, 1.0), strict=True))
        require(rising, "rungs", self.rungs, allowed)


@frozen(slots=False)
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
        mail: Where verdicts go under ``none``, and the alert for a new set; empty for nowhere.
        other_conditions: F, answers about conditions other than this one that the set may give beside its steps, 0 to
            64. Each halves the level of every test of the set. The referee plans them; a study's settings have 0.
    """

    condition: str = "n - o > 0 +/- 0.2"
    reliability: float = field(default=0.95, validator=SHARE)
    mode: str = field(default="fp-free", validator=OneOf.of(*Mode))
    adaptivity: str = "full"
    steps: int = field(default=4, validator=STEPS)
    estimator: str = field(default="exact", validator=OneOf.of(*ESTIMATORS))
    power: float | None = field(default=None, validator=SHARE.or_none("nothing"))
    sampling: str = field(default="fixed", validator=OneOf.of(*SAMPLINGS))
    slices: tuple[tuple[str, str], ...] = field(default=(), converter=_as_tuple)
    mail: str = ""
    other_conditions: int = field(default=0, validator=Range(least=0, most=MOST_OTHER_CONDITIONS, whole=True))

    def __attrs_post_init__(self) -> None:
        require(isinstance(self.condition, str), "condition", self.condition, "text such as 'n - o > 0.02 +/- 0.01'")
        _, cap = parse_adaptivity(self.adaptivity)
        require(cap is None or cap <= self.steps, "adaptivity", self.adaptivity, "upTo:K with K at most the steps")
        pairs = _is_list(self.slices, tuple) and all(len(pair) == 2 for pair in self.slices)
        named = pairs and all(isinstance(text, str) and text for pair in self.slices for text in pair)
        require(
            named and len({pair[0] for pair in self.slices}) == len(self.slices),
            "slices",
            self.slices,
            "pairs (slice, condition), each slice once",
        )
        require(len(self.slices) <= MOST_SLICES, "slices", f"{len(self.slices)} of them", f"at most {MOST_SLICES}")
        text = isinstance(self.mail, str)
        require(
            text and (not self.mail or ("@" in self.mail and self.mail.isprintable() and " " not in self.mail)),
            "mail",
            self.mail,
            "an address such as name@host",
        )


METER_METHODS = (
    *("path-adaptive", "pruned", "exact-tree", "full", "first-change"),
    *("dithered", "ratchet", "deviations", "automaton", "nonuniform", "multitenant"),
)
DEVELOPERS = ("any", "kt", "sticky")


@frozen(slots=False)
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

    ranges: tuple[float, ...] = field(default=(0.2, 0.6), converter=_as_tuple)
    tolerance: float = field(default=0.1, validator=TOLERANCE)
    reliability: float = field(default=0.95, validator=SHARE)
    steps: int = field(default=8, validator=STEPS)
    ambiguous: int = field(default=2, validator=Range(least=0))
    tail: str = field(default="clopper-pearson", validator=OneOf.of(*TAILS))
    overfitting_budget: int = field(default=1, validator=Range(least=1))
    method: str = field(default="path-adaptive", validator=OneOf.of(*METER_METHODS))
    deviations: int = field(default=3, validator=Range(least=0, most=MOST_COUNTED, whole=True))
    teams: int = 1
    tolerances: tuple[float, ...] = field(default=(), converter=_as_tuple)
    automaton: tuple[tuple[tuple[int, int | None], ...], ...] = field(default=(), converter=_as_tuple)
    one_sided: bool = field(default=False, validator=TRUTH)
    open_ended: bool = field(default=False, validator=TRUTH)
    developer: str = field(default="any", validator=OneOf.of(*DEVELOPERS))
    budget: tuple[str, ...] = field(default=(), converter=_as_tuple)

    def __attrs_post_init__(self) -> None:
        allowed = "rising boundaries between -1 and 1"
        require(_is_list(self.ranges, int, float) and bool(self.ranges), "ranges", self.ranges, allowed)
        rising = all(a < b for a, b in zip(self.ranges, self.ranges[1:], strict=False))
        require(rising and all(-1 < b < 1 for b in self.ranges), "ranges", self.ranges, allowed)
        self._check_method()
        self._check_sides_and_ends()

    def _check_method(self) -> None:
        most = min(self.steps, MOST_COUNTED)
        whole = type(self.teams) is int and 1 <= self.teams <= most
        require(whole, "teams", self.teams, f"a whole number, 1 to the {self.steps} steps, and at most {MOST_COUNTED}")
        shared = self.teams == 1 or self.method in ("path-adaptive", "multitenant")
        require(shared, "teams", self.teams, f"1 with the method {self.method!r}; multitenant and path-adaptive share")
        require(_is_list(self.tolerances, int, float), "tolerances", self.tolerances, "a list of numbers")
        require(_is_list(self.automaton, tuple), "automaton", self.automaton, "a list of states, each a list of pairs")
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
        counted = not self.automaton or self.steps <= MOST_COUNTED
        require(counted, "steps", self.steps, f"at most {MOST_COUNTED} with the method 'automaton'")

    def _check_sides_and_ends(self) -> None:
        closed = not self.one_sided or self.method not in ("path-adaptive", "pruned", "dithered")
        text = f"false with the method {self.method!r}: which ranges can be answered needs both sides"
        require(closed, "one_sided", self.one_sided, text)
        closed = not self.open_ended or self.method not in ("nonuniform", "multitenant")
        require(closed, "open_ended", self.open_ended, f"false with the method {self.method!r}: its steps are counted")
        text = "'any', except with the method 'path-adaptive'"
        require(self.developer == "any" or self.method == "path-adaptive", "developer", self.developer, text)
        words = _is_list(self.budget, str) and all(rule.strip() for rule in self.budget)
        require(words, "budget", self.budget, "a list of rules in words")


def _gate(value: Any) -> GateConfig:
    return GateConfig.from_json(value) if isinstance(value, Mapping) else value


def _meter(value: Any) -> MeterConfig:
    return MeterConfig.from_json(value) if isinstance(value, Mapping) else value


@frozen(slots=False)
class JointConfig(_Stored):
    """What one sealed set was planned for when gate and meter share it; fixed before its first answer.

    Which gates and meters may share a set is checked by ``meter/shared_ledger.py``.

    Attributes:
        gate: The gate's settings; its reliability is replaced by the one that follows from ``gate_share``.
        meter: The meter's settings; its reliability is replaced likewise. Both may be given as plain JSON.
        reliability: 1 - delta, in (0, 1), for all verdicts and all signals together.
        gate_share: Part of delta for the gate, in (0, 1).
    """

    gate: GateConfig = field(default=GateConfig(), converter=_gate)
    meter: MeterConfig = field(default=MeterConfig(), converter=_meter)
    reliability: float = field(default=0.95, validator=SHARE)
    gate_share: float = field(default=0.5, validator=SHARE)

    def __attrs_post_init__(self) -> None:
        require(isinstance(self.gate, GateConfig), "gate", self.gate, "a mapping of the gate's settings")
        require(isinstance(self.meter, MeterConfig), "meter", self.meter, "a mapping of the meter's settings")
        for name, settings, share in (("gate", self.gate, self.gate_share), ("meter", self.meter, 1 - self.gate_share)):
            # Towards 1, so that the two parts of delta never add up to more than delta.
            reliability = math.nextafter(1 - (1 - self.reliability) * share, 1.0)
            object.__setattr__(self, name, attrs.evolve(settings, reliability=reliability))

    @property
    def steps(self) -> int:
        """H + T, answers that the set can give at most."""
        return self.gate.steps + self.meter.steps


SetConfig = GateConfig | MeterConfig | JointConfig
"""What a sealed set is planned for, by its purpose; a ``direct`` set has the settings of a meter."""


def set_config(purpose: SealedSetPurpose, plan: JsonObject) -> SetConfig:
    """Return the settings of a set from its plan as it is stored.

    Raises:
        ConfigError: If a setting is unknown or out of range.
    """
    if purpose is SealedSetPurpose.JOINT:
        return JointConfig.from_json(plan)
    return GateConfig.from_json(plan) if purpose is SealedSetPurpose.GATE else MeterConfig.from_json(plan)


@frozen(slots=False)
class DirectConfig(_Stored):
    """That a study has a second meter, on a hidden sample of the validation distribution (``meter/drift.py``).

    Attributes:
        share: Part of the meter's delta for it, in (0, 1).
    """

    share: float = field(default=0.5, validator=SHARE)
