"""The report of a verdict as the ledger keeps it, read back: for the referee's pages, never for a developer."""

from __future__ import annotations

from dataclasses import field

from easeml_core.entities import Mode, Symbol, Verdict
from easeml_core.formats.encoding import typed_record


@typed_record
class ClauseReport:
    """The verdict on one clause; see ``decision.ClauseDecision``.

    Attributes:
        clause: Canonical source of the clause.
        verdict: What the evidence says.
        quantity: What ``estimate``, ``interval`` and ``threshold`` are about.
        threshold: Of the quantity.
        examples: How many examples the clause was judged on.
        estimate: The quantity as observed; None where nothing was looked at.
        interval: (low, high).
        log_p_pass: ln of the p-value against "the clause does not hold"; None for a p-value of 0.
        log_p_fail: ln of the p-value against "the clause holds"; None for a p-value of 0.
        log_level_pass: ln of the level of the test for the clause.
        log_level_fail: ln of the level of the test against it.
        method: Name of the test.
    """

    clause: str
    verdict: Verdict
    quantity: str
    threshold: float
    examples: int
    estimate: float | None
    interval: tuple[float, float]
    log_p_pass: float | None
    log_p_fail: float | None
    log_level_pass: float
    log_level_fail: float
    method: str


@typed_record
class SliceReport:
    """The verdict on the condition of a slice."""

    verdict: Verdict
    clauses: tuple[ClauseReport, ...]


@typed_record
class VerdictReport:
    """What the ledger says of one verdict.

    A model that could not be run has a ``failure`` and no counts; a judgement that went wrong has an ``error``.

    Attributes:
        verdict: What the evidence says.
        mode: By which mode the verdict became a symbol; None without counts.
        symbol: What would be released if nothing were withheld; None in entries of the first versions.
        condition: What was asked.
        model_id: The new model.
        incumbent_id: The model that it was compared with.
        failure: Why the model could not be run; None where it was.
        error: Why the verdict could not be computed; None where it was.
        labels: Labels used.
        examples: Examples looked at.
        disagreements: Predictions that differ.
        wins: New right, old wrong.
        losses: Old right, new wrong.
        clauses: One for each clause of the condition.
        slices: The conditions on parts of the set, by name.
    """

    verdict: Verdict | None = None
    mode: Mode | None = None
    symbol: Symbol | None = None
    condition: str | None = None
    model_id: int | None = None
    incumbent_id: int | None = None
    failure: str | None = None
    error: str | None = None
    labels: int | None = None
    examples: int | None = None
    disagreements: int | None = None
    wins: int | None = None
    losses: int | None = None
    clauses: tuple[ClauseReport, ...] = ()
    slices: dict[str, SliceReport] = field(default_factory=dict)
