"""The verdict of the gate on labels and predictions that are at hand, without a database.

No state is kept: the caller takes no more than ``steps`` verdicts from one set. A developer may see the symbol and the
warnings, which tell no more than the symbol; estimates and intervals are for the referee.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from easeml_core.entities import Adaptivity, Mode, Verdict
from easeml_core.errors import ConditionSyntaxError, InvalidInputError, MissingLabelsError, counted
from easeml_core.formats.display import data_frame, html_page, html_table
from easeml_core.formats.encoding import from_json, typed_record
from easeml_core.gate import judge
from easeml_core.gate.condition import parse_condition
from easeml_core.gate.decision import Wanted, is_released
from easeml_core.gate.judge import slices_of
from easeml_core.gate.offline import DecisionPlan
from easeml_core.gate.offline.arrays import predictions_from
from easeml_core.gate.offline.columns import drawn_order, some
from easeml_core.gate.offline.planned import PlannedGate, passes_named
from easeml_core.gate.planner import plan_gate
from easeml_core.gate.report import ClauseReport
from easeml_core.settings.config import parse_adaptivity, require, whole_of
from easeml_core.stats.adaptivity import allocate, level_of_test

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easeml_core.gate.condition import Condition
    from easeml_core.gate.decision import ClauseDecision, Decision
    from easeml_core.gate.judge import Slice
    from easeml_core.gate.offline.columns import Predictions


@dataclass(frozen=True, slots=True, repr=False)
class OfflineVerdict:
    """The verdict on a new model. ``if verdict:`` asks whether it passed.

    Shown in a notebook it tells the symbol and the warnings alone, which a developer may see. Everything else is the
    referee's: a developer who reads estimates can fit models to the set.

    Attributes:
        condition: In canonical form.
        decision: Counts, estimates and intervals.
        warnings: Sentences about classes that are never predicted, and about parts of the set that are too small.
    """

    condition: str
    decision: Decision = field(repr=False)
    warnings: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether ``symbol`` is ``pass``."""
        return self.decision.passed

    @property
    def symbol(self) -> str:
        """``pass`` or ``fail``: the one word that may be released."""
        return "pass" if self.decision.passed else "fail"

    @property
    def verdict(self) -> str:
        """``PASS``, ``FAIL`` or ``UNKNOWN``: what the evidence says before the mode settles UNKNOWN."""
        return self.decision.verdict.value

    @property
    def interval(self) -> tuple[float, float]:
        """Low and high end for n - o where a clause is about it, else for the quantity of the first clause."""
        return _shown_clause(self.decision).interval

    def explain(self) -> str:
        """Return for the referee what each clause was judged by, one line each."""
        lines = [f"{self.symbol}: {_why(self.decision)}"]
        for part, clause in _clauses(self.decision):
            where = f"slice {part}, " if part else ""
            lines.append(f"  {where}{_clause_text(clause)}")
        return "\n".join((*lines, *(f"  warning: {text}" for text in self.warnings)))

    def report(self) -> DecisionReport:
        """Return the referee's report, which ``easeml gate decide --json`` prints."""
        own = {
            "released": self.symbol,
            "level": math.exp(self.decision.log_level),
            "interval": self.interval,
            "condition": self.condition,
            "warnings": list(self.warnings),
        }
        return from_json(self.decision.to_json() | own, DecisionReport)

    def to_frame(self) -> Any:
        """Return a pandas DataFrame for the referee, one row a clause.

        Raises:
            InvalidInputError: pandas is not installed.
        """
        return data_frame([{"slice": part, **clause.to_json()} for part, clause in _clauses(self.decision)])

    def __bool__(self) -> bool:
        return self.passed

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.symbol}: {self.condition}>"

    def _repr_html_(self) -> str:
        rows = [{"condition": self.condition, "symbol": self.symbol}]
        return html_page(html_table("", {"Condition": "condition", "Symbol": "symbol"}, rows), notes=self.warnings)


def _shown_clause(decision: Decision) -> ClauseDecision:
    return next((c for c in decision.clauses if c.quantity == "n - o"), decision.clauses[0])


def _clauses(decision: Decision) -> list[tuple[str, ClauseDecision]]:
    own = [("", clause) for clause in decision.clauses]
    return own + [(name, clause) for name, part in decision.slices for clause in part.clauses]


def _why(decision: Decision) -> str:
    """Return how the verdict became the symbol."""
    if decision.verdict is not Verdict.UNKNOWN:
        shown = "every clause was shown to hold" if decision.passed else "a clause was shown not to hold"
        return f"{decision.verdict.value}, {shown}"
    released = "passes" if decision.passed else "does not pass"
    return f"UNKNOWN, the examples decide neither way; under {decision.mode.value} it {released}"


def _clause_text(clause: ClauseDecision) -> str:
    if clause.estimate is None:
        return f"{clause.clause}: {clause.verdict.value}, no label was needed"
    low, high = clause.interval
    return (
        f"{clause.clause}: {clause.verdict.value}; {clause.quantity} is {clause.estimate:.4f} on "
        f"{counted(clause.examples, 'example')}, between {low:.4f} and {high:.4f} ({clause.method})"
    )


def decide(
    plan: PlannedGate,
    *,
    labels: Any = None,
    old: Any,
    new: Any,
    step: int | None = None,
    passes: int | None = None,
    sampling: str = "fixed",
    slices: Any = None,
    slice_conditions: Mapping[str, str] | None = None,
) -> OfflineVerdict:
    """Judge a new model against an old one on predictions and labels, without a database.

    Labels and predictions are lists, NumPy arrays or pandas Series of classes: whole numbers or texts, of the same kind
    in all of them. Series are matched by their index, in the order of ``old``; arrays by position. Where Series and
    arrays are mixed, every Series must have the same index in the same order.

    No state is kept: take no more than ``plan.steps`` verdicts from one set, and count the passes. ``easeml gate
    decide`` calls the same function.

    Args:
        plan: Of ``plan``; it holds condition, reliability, steps, adaptivity and mode.
        labels: True classes. None, NaN and ``pandas.NA`` mark a label that is not known; so does an example that a
            Series leaves out. None without any label, for a condition about d.
        old: Predictions of the model in production, complete.
        new: Predictions of the submitted model, complete.
        step: Which verdict of the set this is, 1 to ``plan.steps``; checked where it is given.
        passes: Earlier verdicts on this set that passed (under ``fn-free`` with ``upTo`` and ``recycle``: that failed).
            Needed under ``upTo``, ``firstChange`` and ``recycle``, where each lowers the level or ends the set, but for
            the first step; None there, or for the number above 0 that the plan was made for.
        sampling: ``fixed`` looks at every example that matters; ``early`` goes through them in an order that a hash of
            their names draws, of lists and arrays of their positions, and stops when the verdict is certain. So names,
            or positions, must stay the same for every verdict on a set.
        slices: The slice of each example, as texts; matched like labels. None and NaN: in no slice.
        slice_conditions: Conditions that must hold on a slice too, by its name.

    Returns:
        The verdict.

    Raises:
        InvalidInputError: Values are no classes or do not match, or passes are needed.
        MissingLabelsError: Labels that the verdict needs are missing; names their examples.
        ShapeError: Arrays have other lengths, or more than one column.
        ConfigError: A step or a number of passes that the plan does not have.

    Example:
        >>> import easeml_core as easeml
        >>> plan = easeml.gate.plan("n - o > 0 +/- 0.1", reliability=0.95, steps=4, adaptivity="none")
        >>> labels, old = ["cat"] * 200, ["cat"] * 120 + ["dog"] * 80
        >>> verdict = easeml.gate.decide(plan, labels=labels, old=old, new=labels)
        >>> verdict.symbol, [round(end, 3) for end in verdict.interval]
        ('pass', [0.294, 0.487])
        >>> print(verdict.explain())
        pass: PASS, every clause was shown to hold
          n - o > 0 +/- 0.1: PASS; n - o is 0.4000 on 200 examples, between 0.2935 and 0.4869 (sign test)
    """
    if not isinstance(plan, PlannedGate):
        message = f"plan must be what easeml.gate.plan(condition, ...) returned, got {type(plan).__name__}"
        raise InvalidInputError(message)
    conditions = {} if slice_conditions is None else slice_conditions
    require(isinstance(conditions, Mapping), "slice_conditions", conditions, "a mapping of slice to condition")
    data, names = predictions_from(labels, old, new, slices)
    asked = plan.asked
    return judge_offline(
        DecisionPlan(
            condition=plan.condition,
            reliability=asked.reliability,
            steps=asked.steps,
            adaptivity=asked.adaptivity,
            mode=asked.mode,
            sampling=sampling,
            power=asked.power,
            estimator=asked.estimator,
        ),
        data,
        step=None if step is None else whole_of("step", step),
        passes=(asked.changes or None) if passes is None else whole_of("passes", passes),
        slice_names=names,
        slice_conditions=tuple(conditions.items()),
        source="labels",
    )


_UNPAIRED = (
    "slices and slice_conditions belong together: slices tells the slice of each example, slice_conditions what must "
    "hold on it"
)


def judge_offline(
    asked: DecisionPlan,
    data: Predictions,
    *,
    step: int | None,
    passes: int | None,
    slice_names: Sequence[str] | None,
    slice_conditions: Sequence[tuple[str, str]],
    source: str,
) -> OfflineVerdict:
    """Judge predictions; the function behind ``decide`` and ``easeml gate decide``."""
    condition = parse_condition(asked.condition)
    changes = passes or 0
    with passes_named(asked.adaptivity, changes):
        log_level = log_level_of(
            reliability=asked.reliability,
            adaptivity=asked.adaptivity,
            steps=asked.steps,
            mode=asked.mode,
            estimator=asked.estimator,
            step=step,
            passes=changes,
        )
    if passes is None:
        _require_no_passes(asked, step)
    wanted = [(name, parse_condition(text)) for name, text in slice_conditions]
    if bool(wanted) != (slice_names is not None):
        raise InvalidInputError(_UNPAIRED)
    if asked.sampling == "early":
        order = drawn_order(data.examples)
        data = data.at(order)
        slice_names = None if slice_names is None else [slice_names[place] for place in order.tolist()]
    parts = slices_of(wanted, list(slice_names)) if slice_names is not None else ()
    found = judge.judge_predictions(
        condition,
        data.labels,
        data.old,
        data.new,
        log_level=log_level,
        mode=asked.mode,
        sampling=asked.sampling,
        power=asked.power,
        slices=parts,
    )
    decision = _decided(found, data.examples, source)
    small = too_few_examples(
        decision,
        condition,
        len(data.examples),
        parts,
        passes=changes,
        reliability=asked.reliability,
        adaptivity=asked.adaptivity,
        steps=asked.steps,
        estimator=asked.estimator,
        power=asked.power if asked.estimator == "exact" else None,
    )
    return OfflineVerdict(str(condition), decision, (*data.mismatches, *map(str, small)))


def _require_no_passes(asked: DecisionPlan, step: int | None) -> None:
    """Refuse to take the number of passes for 0 where others may have come before, and each lowers the level."""
    kind, _ = parse_adaptivity(asked.adaptivity)
    if kind in (Adaptivity.NONE, Adaptivity.FULL) or 1 in (step, asked.steps):
        return
    word = "fail" if asked.mode == Mode.FN_FREE and kind is not Adaptivity.FIRST_CHANGE else "pass"
    message = (
        f"under adaptivity {asked.adaptivity} each {word} lowers the level of the next verdict or ends the set; say "
        f"with passes how many of the earlier verdicts on this set were a {word}: count what was answered for it, 0 "
        "where nothing was; or say with step that this is step 1"
    )
    raise InvalidInputError(message)


def log_level_of(
    *,
    reliability: float,
    adaptivity: str,
    steps: int,
    step: int | None,
    passes: int,
    mode: str,
    estimator: str = "exact",
) -> float:
    """Give ln alpha of one test of a set, as its adaptivity allots it.

    Args:
        reliability: 1 - delta, in (0, 1).
        adaptivity: ``none``, ``full``, ``firstChange``, ``upTo:K`` or ``recycle``.
        steps: H >= 1.
        step: Which test of the set this is, 1 to H; None where steps are not counted.
        passes: Changes (passes under fp-free, fails under fn-free) at earlier steps; matters to ``recycle``, and to
            ``firstChange`` and ``upTo:K``, which end the set.
        mode: ``fp-free`` or ``fn-free``; matters to ``full`` and ``recycle`` (``adaptivity.Allocation``).
        estimator: ``exact`` or ``paper``; matters to ``full``.

    Example:
        >>> planned = {"reliability": 0.9999, "steps": 32, "mode": "fp-free"}
        >>> round(log_level_of(adaptivity="none", step=1, passes=0, **planned), 3)
        -12.676
    """
    allocate(adaptivity, steps, mode=mode, estimator=estimator)  # refuses steps before others are compared with them
    require(step is None or 1 <= step <= steps, "step", step, f"1 to {steps}; further steps need a new set")
    before = steps - 1 if step is None else step - 1
    require(0 <= passes <= before, "passes", passes, f"0 to {before}, the number of earlier steps")
    return level_of_test(
        reliability=reliability, adaptivity=adaptivity, steps=steps, mode=mode, estimator=estimator, changes=passes
    ).log_level


@dataclass(frozen=True, slots=True)
class TooFew:
    """A part of the set with fewer examples than its condition was planned for.

    Attributes:
        part: The slice's name; empty for the whole set.
        available: Examples that the part has.
        needed: Examples that the plan of its condition asks for.
        mode: How UNKNOWN is settled.
    """

    part: str
    available: int
    needed: int
    mode: Mode

    def __str__(self) -> str:
        """One sentence, which depends on no label."""
        settled = "pass" if self.mode == Mode.FN_FREE else "fail"
        whose = f"slice {self.part!r}" if self.part else "the set"
        return (
            f"too few examples: {whose} has {self.available:,}, the plan of its condition needs {self.needed:,}. With "
            f"fewer the verdict is UNKNOWN for most models, and mode {self.mode.value} releases UNKNOWN as {settled}; "
            "add examples or widen the tolerance (`easeml gate plan`)"
        )


def too_few_examples(
    decision: Decision,
    condition: Condition,
    examples: int,
    slices: Sequence[Slice] = (),
    *,
    passes: int,
    **plan: Any,
) -> tuple[TooFew, ...]:
    """Compare the sizes of a set and of its slices with the planner's, where UNKNOWN may be behind what was released.

    The answer is a function of the released symbol and of what no label decides. So standard error tells its readers,
    who may be the developers, nothing that the symbol does not: not whether a released fail was FAIL or UNKNOWN.
    """
    mode = decision.mode
    if decision.passed != is_released(Verdict.UNKNOWN, mode):
        return ()
    parts = [("", condition, examples), *((part.name, part.condition, part.members.size) for part in slices)]
    found = []
    for name, wanted, available in parts:
        try:
            needed = plan_gate(wanted, mode=mode.value, changes=passes, slices=len(parts), **plan).examples
        except ConditionSyntaxError:  # out of reach: FAIL needs no examples
            continue
        if available < needed:
            found.append(TooFew(name, int(available), needed, mode))
    return tuple(found)


@typed_record
class DecidedSlice:
    """The verdict on the condition of a slice; fields as of ``Decision`` and ``Outcomes``."""

    verdict: str
    passed: bool
    mode: str
    log_level: float
    examples: int
    wins: int | None
    losses: int | None
    new_correct: int | None
    old_correct: int | None
    disagreements: int
    judged: int | None
    labels: int
    clauses: list[ClauseReport]
    slices: dict[str, DecidedSlice]


@typed_record
class DecisionReport:
    """The referee's report on a decision.

    Attributes:
        released: ``pass`` or ``fail``.
        level: alpha, 0 where it is below the smallest double; ``log_level`` then tells.
        interval: That of n - o where a clause is about it, else of the first clause.
        condition: In canonical form.
        warnings: About the files, and about sizes.
    """

    verdict: str
    released: str
    examples: int
    wins: int | None
    losses: int | None
    disagreements: int
    labels: int
    level: float
    log_level: float
    mode: str
    interval: tuple[float, float]
    clauses: list[ClauseReport]
    slices: dict[str, DecidedSlice]
    condition: str
    warnings: list[str]


def _decided(found: Decision | Wanted, examples: list[str], source: str) -> Decision:
    """The decision, or an error that names the examples whose labels it lacks."""
    if not isinstance(found, Wanted):
        return found
    names = [examples[i] for i in found.positions.tolist()]
    message = f"{source} lacks {counted(len(names), 'label')} that the verdict needs next: {some(names)}"
    raise MissingLabelsError(message, names)
