"""One verdict as the referee reads it: every clause with its zones and interval, labels, evidence and level."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from easeml_airflow.web.components.charts import Axis, nice_axis
from easeml_airflow.web.server.formats import MINUS, VERDICTS, Mark, power_text, signed
from easeml_core.entities import Mode, Symbol, Verdict
from easeml_core.errors import counted
from easeml_core.gate.condition import claim_of, parse_condition

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from easeml_core.gate.condition import Claim
    from easeml_core.gate.report import ClauseReport, SliceReport, VerdictReport
    from easeml_core.services.reports.gate import NamedEntry

TRUTH = {
    Verdict.PASS: Mark("ok", "pass", "True"),
    Verdict.FAIL: Mark("bad", "fail", "False"),
    Verdict.UNKNOWN: Mark("warn", "unknown", "Unknown"),
}
"""What the evidence says of a clause, or of all of them."""

MODES = {Mode.FP_FREE: "fp-free: Unknown fails", Mode.FN_FREE: "fn-free: Unknown passes"}

_AXES = {
    "n": "n, accuracy of the new model",
    "o": "o, accuracy of the old model",
    "d": "d, share of changed predictions",
    "n - o": f"n {MINUS} o, gain in accuracy",
    "linear": "value of the left side",
}
_REACH = {"n": (0.0, 1.0), "o": (0.0, 1.0), "d": (0.0, 1.0), "n - o": (-1.0, 1.0)}
"""What the quantities can be at all: the axis ends there."""

_NARROWEST = 14.0
"""Per cent of the width below which a zone's word has no room."""


@dataclass(frozen=True, slots=True)
class Zone:
    """A stretch of the axis in which the truth may lie, and what the gate then owes; places in per cent."""

    left: float
    width: float
    look: str
    word: str


@dataclass(frozen=True, slots=True)
class ClausePlot:
    """The interval of one clause against its threshold; places in per cent of the width.

    Attributes:
        zones: Where a model must fail, where either answer is right, and where it should pass.
        axis: Ticks and title.
        threshold: Where the threshold stands.
        low: Left end of the interval, and its text.
        high: Right end, and its text.
        estimate: The value as observed, and its text.
        sentence: All of it in words.
    """

    zones: Sequence[Zone]
    axis: Axis
    threshold: float
    low: tuple[float, str]
    high: tuple[float, str]
    estimate: tuple[float, str]
    sentence: str


@dataclass(frozen=True, slots=True)
class ClauseView:
    """One clause: what it says, what the evidence says, and the plot, which is None where nothing was looked at."""

    text: str
    mark: Mark
    method: str
    plot: ClausePlot | None


@dataclass(frozen=True, slots=True)
class VerdictView:
    """One verdict.

    Attributes:
        number: Of the submission.
        step: Which answer of the gate it was, of how many.
        decided_at: When it was judged.
        mark: Pass or fail, as it is released or would be.
        sentence: Why, in a few words.
        models: Who was compared with whom.
        clauses: The clauses of the condition.
        slices: Conditions on parts of the set: name, mark, text.
        labels: Pairs of words and numbers about the labels.
        evidence: Pairs of words and numbers about the test.
        trouble: What kept the model from being judged; empty where it was.
    """

    number: int | None
    step: str
    decided_at: datetime
    mark: Mark
    sentence: str
    models: str
    clauses: Sequence[ClauseView]
    slices: Sequence[tuple[str, Mark, str]]
    labels: Sequence[tuple[str, str]]
    evidence: Sequence[tuple[str, str]]
    trouble: str


def verdict_view(entry: NamedEntry, *, settled_conflicts: int = 0) -> VerdictView:
    """The view of an entry of the ledger."""
    report = entry.judgement
    passed = (report.symbol or entry.released) == Symbol.PASS
    clauses = [clause_view(clause, _mode(report)) for clause in report.clauses]
    against = f", against {entry.against or 'model'} (model {entry.incumbent_id})"
    return VerdictView(
        number=entry.number,
        step=f"step {entry.system_step:,} of {entry.system_steps:,}",
        decided_at=entry.decided_at,
        mark=Mark(*VERDICTS[Symbol.PASS if passed else Symbol.FAIL]),
        sentence=_sentence(report, clauses, passed=passed),
        models=f"{entry.called} (model {entry.model_id}){against}",
        clauses=clauses,
        slices=[_slice(name, part) for name, part in report.slices.items()],
        labels=_labels(report, settled_conflicts),
        evidence=_evidence(entry, clauses),
        trouble=report.failure or report.error or "",
    )


def clause_view(clause: ClauseReport, mode: Mode) -> ClauseView:
    """One clause of a report."""
    claim = claim_of(parse_condition(clause.clause).clauses[0])
    plot = None if clause.estimate is None else _plot(clause, clause.estimate, claim, mode)
    return ClauseView(clause.clause, TRUTH[clause.verdict], clause.method, plot)


def _mode(report: VerdictReport) -> Mode:
    assert report.mode is not None  # a report with clauses has one
    return report.mode


def _sentence(report: VerdictReport, clauses: Sequence[ClauseView], *, passed: bool) -> str:
    word = "Pass" if passed else "Fail"
    if report.failure:
        return f"{word}: the model could not be run on the sealed inputs."
    if not clauses:
        return f"{word}: the verdict could not be computed."
    if report.verdict is Verdict.UNKNOWN:
        return f"{word}: the evidence does not decide, and {MODES[_mode(report)].split(': ')[1].lower()}."
    if report.verdict is Verdict.PASS:
        every = {1: "the clause is", 2: "both clauses are"}.get(len(clauses), f"all {len(clauses)} clauses are")
        return f"{word}: {every} true."
    wrong = sum(clause.mark.word == "False" for clause in clauses)
    return f"{word}: {counted(wrong, 'clause is', 'clauses are')} false." if wrong else f"{word}: a slice is false."


def _slice(name: str, part: SliceReport) -> tuple[str, Mark, str]:
    return name, TRUTH[part.verdict], " /\\ ".join(clause.clause for clause in part.clauses)


def _labels(report: VerdictReport, settled: int) -> list[tuple[str, str]]:
    def count(number: int | None) -> str:
        return "not counted" if number is None else f"{number:,}"

    pairs = [
        ("Labels used", count(report.labels)),
        ("Examples looked at", count(report.examples)),
        ("Predictions that differ", count(report.disagreements)),
        ("New right, old wrong", count(report.wins)),
        ("Old right, new wrong", count(report.losses)),
    ]
    return [*pairs, ("Labeler conflicts settled", f"{settled:,}")] if settled else pairs


def _evidence(entry: NamedEntry, clauses: Sequence[ClauseView]) -> list[tuple[str, str]]:
    report = entry.judgement
    level = f"{power_text(entry.log_level)} ({-entry.log_level:.1f} nats)"
    methods = "; ".join(dict.fromkeys(clause.method for clause in clauses)) or "none"
    pairs = [("Level of this test", level), ("Method", methods)]
    if report.clauses:
        pairs.insert(0, _strength(report))
        pairs.append(("Mode", MODES[_mode(report)]))
    return pairs


def _strength(report: VerdictReport) -> tuple[str, str]:
    """How strongly the evidence speaks: 1 / p, and what was needed.

    A pass is as strong as the clause that the evidence speaks least for; a fail as the one that it speaks most against.
    """
    if report.verdict is Verdict.FAIL:
        words, tests = "Evidence against", [(c.log_p_fail, c.log_level_fail) for c in report.clauses]
    else:
        words = "Evidence, weakest clause" if len(report.clauses) > 1 else "Evidence"
        tests = [(c.log_p_pass, c.log_level_pass) for c in report.clauses]

    def of(test: tuple[float | None, float]) -> float:
        return -math.inf if test[0] is None else test[0]

    log_p, log_level = (min if report.verdict is Verdict.FAIL else max)(tests, key=of)
    found = "certain" if log_p is None else power_text(-log_p)
    return words, f"{found} (needed {power_text(-log_level)})"


def _plot(clause: ClauseReport, estimate: float, claim: Claim, mode: Mode) -> ClausePlot:
    low, high = clause.interval
    inner = claim.threshold + _towards_pass(claim, mode) * 2 * claim.tolerance
    spare, (least, most) = 1.5 * claim.tolerance, _REACH.get(clause.quantity, (-math.inf, math.inf))
    edges = sorted((claim.threshold, inner))
    shown = [min(max(value, least), most) for value in (edges[0] - spare, edges[1] + spare)]
    axis = nice_axis([low, high, estimate, *shown], title=_AXES[clause.quantity], most=5)
    edges = [min(max(edge, axis.low), axis.high) for edge in edges]
    word = TRUTH[clause.verdict].word.lower()
    return ClausePlot(
        zones=_zones(axis, edges, claim, mode),
        axis=axis,
        threshold=axis.share(min(max(claim.threshold, axis.low), axis.high)),
        low=(axis.share(low), signed(low)),
        high=(axis.share(high), signed(high)),
        estimate=(axis.share(estimate), signed(estimate)),
        sentence=f"{axis.title}: estimate {signed(estimate)}, interval {signed(low)} to {signed(high)}, threshold "
        f"{claim.threshold:g}: {word}.".replace("-", MINUS),
    )


def _towards_pass(claim: Claim, mode: Mode) -> int:
    """On which side of the threshold either answer is right: where the mode promises nothing."""
    side = 1 if claim.above else -1
    return side if mode is Mode.FP_FREE else -side


def _zones(axis: Axis, edges: Sequence[float], claim: Claim, mode: Mode) -> list[Zone]:
    """From left to right; the promised side says must, the other one should."""
    fail, ok = ("must fail", "should pass") if mode is Mode.FP_FREE else ("should fail", "must pass")
    outer = [("zb", fail), ("zo", ok)] if claim.above else [("zo", ok), ("zb", fail)]
    places = [0.0, axis.share(edges[0]), axis.share(edges[1]), 100.0]
    looks, zones = (outer[0], ("zi", "either"), outer[1]), []
    for (left, right), (look, word) in zip(pairwise(places), looks, strict=True):
        width = round(right - left, 2)
        zones.append(Zone(left, width, look, word if width >= _NARROWEST else ""))
    return [zone for zone in zones if zone.width]
