"""Decide a gate request: check the plan, run both models, apply exact statistics, and choose one symbol.

``services/referee/publishing.py`` publishes the answer later.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from attrs import evolve

from easeml_core.entities import Adaptivity, SealedSetPurpose, Symbol, Verdict
from easeml_core.errors import InvalidInputError, SealedSetTooSmallError, StateError
from easeml_core.gate.condition import parse_condition
from easeml_core.gate.decision import Wanted
from easeml_core.gate.judge import Slice, judge_predictions
from easeml_core.meter.shared_ledger import gate_log_level, joint_plan, planned_gate_log_weight
from easeml_core.metrics.metric import as_classes
from easeml_core.services.evaluation.sealed_runs import sealed_predictions
from easeml_core.services.test_sets.answers import (
    BLOCKING_REFUSED,
    Answer,
    Asked,
    Waiting,
    gate_settings,
    joint_config,
    joint_end,
    require_joint_goes_on,
)
from easeml_core.services.test_sets.lifecycle import no_live_set
from easeml_core.services.test_sets.planning import examples_for_gate, examples_for_joint_gate
from easeml_core.settings.config import GateConfig, require
from easeml_core.stats.adaptivity import Allocation, allocate, level_of_test
from easeml_core.store.rows import as_json
from easeml_core.store.tables import labels, ledger, models, sealed
from easeml_core.store.tables.outbox import GateFacts, MailText
from easeml_core.store.tables.releases import Verdict as ReleasedVerdict

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sqlalchemy import Connection

    from easeml_core.entities import JsonObject, Model
    from easeml_core.gate.condition import Condition
    from easeml_core.services.evaluation.sealed_runs import Preparation
    from easeml_core.settings.config import JointConfig
    from easeml_core.store.tables.test_sets import PlannedSet

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Compared:
    """Models of one question.

    Attributes:
        new: The submitted model.
        named: The old model that the verdict names.
        old: The model that the new one is compared with; differs from ``named`` only under ``none``, after models that
            could not be run.
    """

    new: Model
    named: Model
    old: Model


@dataclass(frozen=True, slots=True)
class _Case:
    """One question to one set: the request, the models, and how far the set is used.

    Attributes:
        asked: The request, with the rows that its transaction holds.
        test_set: The live set.
        config: The set's plan with the condition of the request.
        condition: That condition.
        allocation: How delta is divided over the set's steps.
        models: What is compared.
        cache_key: Identifies the same question.
        usage: The set's ledger so far.
        joint: The plan of a set that a meter shares; None for any other.
    """

    asked: Asked
    test_set: PlannedSet
    config: GateConfig
    condition: Condition
    allocation: Allocation
    models: _Compared
    cache_key: str
    usage: ledger.Usage
    joint: JointConfig | None

    @property
    def log_level(self) -> float:
        """Ln of the level of this verdict."""
        if self.joint is not None:
            return gate_log_level(joint_plan(self.joint), self.usage.log_weight)
        return level_of_test(
            reliability=self.config.reliability,
            adaptivity=self.config.adaptivity,
            steps=self.config.steps,
            mode=self.config.mode,
            estimator=self.config.estimator,
            changes=self.usage.gate_changes,
            other_conditions=self.config.other_conditions,
        ).log_level

    @property
    def is_planned(self) -> bool:
        """Whether the condition is the one that was sealed with the set."""
        return str(self.condition) == gate_settings(self.test_set).condition

    @property
    def step(self) -> tuple[int, int]:
        """Number and total of this answer among those about the set's condition, or about others."""
        if self.is_planned:
            return self.usage.gate_steps + 1, self.config.steps
        return self.usage.other_steps + 1, self.config.other_conditions

    @property
    def needed(self) -> int:
        """Examples that the condition needs.

        On a shared set at the log weight planned for the last verdict, not at the present one, which follows from
        sealed labels: a refusal, which does not end the set, would reveal it.
        """
        if self.joint is None:
            return examples_for_gate(self.config, changes=self.usage.gate_changes)
        planned = planned_gate_log_weight(joint_plan(self.joint), self.joint.meter.ambiguous)
        return examples_for_joint_gate(self.config, planned)


def judge(tx: Connection, ready: Preparation, asked: Asked) -> Answer | Waiting:
    """Decide a gate request: spend at most one step of the sealed set and release at most one symbol.

    The same question (set, condition, new artifact, old artifact) is answered from the ledger and costs nothing.
    """
    test_set = asked.set_for(SealedSetPurpose.GATE)
    if test_set is None:
        raise no_live_set(tx, asked.study, SealedSetPurpose.GATE)
    case = _case(tx, asked, test_set)
    known = case.usage.known_step
    if known is None and case.models.new.identity == case.models.named.identity:
        message = f"model {case.models.new.id} is the one that stands now; hand in another one"
        raise StateError(message)
    if known is not None:
        symbol = Symbol(case.usage.known_answer or "")
        return _answer(case, step=known, symbol=symbol, cached=True, retired_why=None, mails=[])
    _require_other_condition(case)
    require_joint_goes_on(tx, test_set)
    return _decide(tx, ready, case)


def _require_other_condition(case: _Case) -> None:
    """Refuse a question about another condition where the set's plan has no further answer for it.

    The number of such answers depends on the requests alone.
    """
    if case.is_planned or case.usage.other_steps < case.config.other_conditions:
        return
    planned = gate_settings(case.test_set).condition
    if case.config.other_conditions:
        answered = f"its {case.config.other_conditions} answers about other conditions are used"
    else:
        answered = "it answers about no other condition"
    message = (
        f"the live set of study {case.asked.study.name!r} was sealed for the condition {planned}, and {answered}, got "
        f"{case.condition}; leave the condition out, or let the referee seal a set that is planned with "
        "--other-conditions"
    )
    raise StateError(message)


def _case(tx: Connection, asked: Asked, test_set: PlannedSet) -> _Case:
    """Build the case; refuse what the set was not planned for."""
    plan, joint = gate_settings(test_set), joint_config(test_set)
    allocation = allocate(plan.adaptivity, plan.steps, mode=plan.mode, estimator=plan.estimator)
    config = _planned(plan, asked.study.name, asked.request.arguments, joint)
    condition = parse_condition(config.condition)
    models = _compared(tx, asked, test_set.id, allocation)
    key = _key(condition, models.new.identity, models.named.identity)
    usage = ledger.usage(tx, test_set.id, key)
    return _Case(asked, test_set, config, condition, allocation, models, key, usage, joint)


def _planned(plan: GateConfig, study: str, arguments: Any, joint: JointConfig | None) -> GateConfig:
    """Return the set's settings with the request's condition; a request cannot change the rest of the plan.

    On a shared set, the reliability that can be asked for is the one planned for both systems together.
    """
    fixed = {"reliability": (joint or plan).reliability, "adaptivity": plan.adaptivity}
    for name, planned in fixed.items():
        asked = arguments.get(name)
        require(asked in (None, planned), name, asked, f"{planned}, which the sealed set was planned for")
    if arguments.get("blocking") and plan.adaptivity == Adaptivity.NONE:
        raise InvalidInputError(BLOCKING_REFUSED.format(study=study))
    return GateConfig.from_json(plan.to_json() | {"condition": arguments.get("condition") or plan.condition})


def _compared(tx: Connection, asked: Asked, test_set_id: int, allocation: Allocation) -> _Compared:
    """Return the submitted model, the old model that the verdict names, and the one that it is compared with.

    The old model is the one in production, before the first promotion the baseline. Under ``none`` every commit counts
    as accepted, so that the old model does not depend on hidden data: it is the last one that was judged on the set
    (Renggli et al. leave this open). If the last one is submitted again, its own question is repeated.

    A model that could not be run cannot be compared with, so the last one that could takes its place. The verdict still
    names the former: that is public, and whether a model could be run on hidden data is not.
    """
    study_id = asked.study.id
    new, standing = models.model_and_standing(tx, study_id, asked.request.of_model)
    last = ledger.last_judged(tx, test_set_id) if allocation.kind is Adaptivity.NONE else None
    if last is None:
        return _Compared(new, standing, standing)
    if last.model == new.identity:
        named = models.get_model(tx, study_id, last.named_id)
        return _Compared(new, named, models.get_model(tx, study_id, last.incumbent_id))
    named, ran = models.get_model(tx, study_id, last.model_id), ledger.last_judged(tx, test_set_id, could_run=True)
    return _Compared(new, named, standing if ran is None else models.get_model(tx, study_id, ran.model_id))


def _key(condition: Condition, model: str, incumbent: str) -> str:
    return hashlib.sha256(f"{condition}|{model}|{incumbent}".encode()).hexdigest()


def _decide(tx: Connection, ready: Preparation, case: _Case) -> Answer | Waiting:
    """Use one step of the set, unless labels are missing for it."""
    needed = case.needed
    if needed > case.test_set.rows:
        detail = f"condition {case.config.condition}"
        raise SealedSetTooSmallError(purpose="gate", needed=needed, available=case.test_set.rows, detail=detail)
    slices = _slices(tx, case.config, case.test_set.id)
    said = sealed_predictions(tx, ready, case.test_set.id, case.models.old, case.models.new)
    old, new = said[0].labels, said[-1].labels
    if old is None:
        message = f"the model that stands now ({case.models.old.id}) cannot be run on the sealed inputs; roll it back"
        raise StateError(message)
    if new is None:
        return _record(tx, case, False, {"verdict": Verdict.FAIL.value, "failure": said[-1].failure})
    known = labels.append_used(tx, case.test_set.id)
    follows_from = (case.asked.request.id, case.test_set.id, case.cache_key, case.models.old.identity, case.log_level)
    key = (*follows_from, hashlib.sha256(known.tobytes()).digest())
    found = ready.judged(key, lambda: _judged(ready, case, known, old, new, slices))
    if isinstance(found, Wanted):
        labels.want(tx, request_id=case.asked.request.id, test_set_id=case.test_set.id, positions=found.positions)
        return Waiting("labels")
    return _record(tx, case, *found)


def _judged(
    ready: Preparation,
    case: _Case,
    known: NDArray[Any],
    old: NDArray[Any],
    new: NDArray[Any],
    slices: tuple[Slice, ...],
) -> tuple[bool, JsonObject] | Wanted:
    """Return whether the model passes, and the report.

    The computation depends on sealed labels, so an error may, too: a free refusal would reveal labels. An error
    therefore spends the step like any verdict and looks like a FAIL; its reason is for the referee. A lack of memory
    postpones the request as a model's would.
    """
    try:
        found = judge_predictions(
            case.condition,
            *as_classes(case.asked.study.hit, known, old, new),
            log_level=case.log_level,
            mode=case.config.mode,
            sampling=case.config.sampling,
            power=case.config.power,
            slices=slices,
            on_demand=case.test_set.labels_on_demand,
        )
        if isinstance(found, Wanted):
            return found
        report = found.to_json()
        as_json(report)  # a report that cannot be stored is an error of this judgement
    except Exception as error:
        if ready.patience.allows(error):
            raise  # of the database or of the machine, independent of labels: the request is tried again
        logger.exception("request %d: judging has failed, the verdict is FAIL", case.asked.request.id)
        return False, {"verdict": Verdict.FAIL.value, "error": f"{type(error).__name__}: {error}"}
    return found.passed, report


def _slices(tx: Connection, config: GateConfig, test_set_id: int) -> tuple[Slice, ...]:
    """Return the conditions on parts of the set, with their examples."""
    if not config.slices:
        return ()
    codes = sealed.sealed_slices(tx, test_set_id)
    if codes is None:
        message = (
            "the sealed set does not say which slice its examples belong to; seal one that does (docs/test-sets.md)"
        )
        raise StateError(message)
    return tuple(
        Slice(name, parse_condition(source), np.flatnonzero(codes == place).astype(np.int64))
        for place, (name, source) in enumerate(config.slices)
    )


def _record(tx: Connection, case: _Case, passed: bool, found: JsonObject) -> Answer:
    """Write the ledger; return the answer."""
    kind, symbol = case.allocation.kind, Symbol.PASS if passed else Symbol.FAIL
    released = Symbol.WITHHELD if kind is Adaptivity.NONE else symbol
    is_change = case.is_planned and case.allocation.is_change(passed=passed)
    step, steps = case.step
    report = {
        **found,
        "condition": str(case.condition),
        "symbol": symbol.value,
        "model_id": case.models.new.id,
        "model": case.models.new.identity,
        "incumbent_id": case.models.old.id,
        "incumbent": case.models.old.identity,
        "named_id": case.models.named.id,
        "changes_before": case.usage.gate_changes,
    }
    sealed.add_entry(
        tx,
        test_set_id=case.test_set.id,
        step=case.usage.entries + 1
        if case.is_planned
        else case.test_set.steps + step,  # the set's own steps stay its own
        steps=case.test_set.steps,
        request_id=case.asked.request.id,
        cache_key=case.cache_key,
        answer=released,
        log_level=case.log_level,
        log_cost=_log_cost(case, is_change),
        tolerance=None,
        report=report,
        is_change=is_change,
        system=ledger.GATE if case.is_planned else ledger.OTHER,
        system_step=step,
        system_steps=steps,
    )
    mails: list[MailText] = []
    if kind is Adaptivity.NONE and case.config.mail:
        mails.append(
            verdict_mail(case.config.mail, case.asked.study.name, step, steps, report | {"log_level": case.log_level})
        )
    return _answer(
        case,
        step=step,
        symbol=released,
        cached=False,
        retired_why=_retires(tx, case, step, case.usage.gate_changes + is_change) if case.is_planned else None,
        mails=mails,
    )


def _log_cost(case: _Case, is_change: bool) -> float:
    """Return by how many nats the answer lowers later levels: the branches that it adds to the developer's tree."""
    if not case.is_planned or case.allocation.kind is Adaptivity.FULL:
        return math.log(2)
    return math.log(case.test_set.steps) if case.allocation.kind is Adaptivity.RECYCLE and is_change else 0.0


def _retires(tx: Connection, case: _Case, used: int, changes: int) -> str | None:
    """Return why the set ends with this answer, or None; the set ends once no further test of its plan could hold."""
    if case.joint is not None:
        return joint_end(tx, case.test_set)
    if case.allocation.is_over(changes):
        return "changes"
    if used == case.test_set.steps:
        return "steps"
    # Only recycling lowers the remaining level. Under none nothing public may follow from a change.
    if case.allocation.kind is not Adaptivity.RECYCLE or changes == case.usage.gate_changes:
        return None
    return None if _fits(tx, gate_settings(case.test_set), case.test_set, changes) else "tolerance"


def _fits(tx: Connection, plan: GateConfig, test_set: PlannedSet, changes: int) -> bool:
    """Return whether the set, and each of its slices, is large enough for a test of its plan after so many changes.

    The duration of the search follows from the plan and the number of changes: no more than the symbols show, which
    ``recycle`` releases. (On a shared set the level follows from more than that: ``answers.joint_end``.)
    """
    parts = {part.name: part.members.size for part in _slices(tx, plan, test_set.id)}
    sizes = [(plan.condition, test_set.rows), *((source, parts.get(name, 0)) for name, source in plan.slices)]
    return all(examples_for_gate(evolve(plan, condition=c), changes=changes) <= size for c, size in sizes)


def _answer(
    case: _Case, *, step: int, symbol: Symbol, cached: bool, retired_why: str | None, mails: list[MailText]
) -> Answer:
    verdict = ReleasedVerdict(
        model_id=case.models.new.id,
        incumbent_id=case.models.named.id,
        test_set_id=case.test_set.id,
        step=step,
        symbol=symbol,
        planned=case.is_planned,
        cached=cached,
    )
    facts = GateFacts(case.asked.study.id, case.test_set.id, retired_why, verdict, tuple(mails))
    answered = f"step {step} of {case.config.steps}" if case.is_planned else f"answer {step} about other conditions"
    return Answer(f"{answered}: {symbol}", facts)


def verdict_mail(recipient: str, study: str, step: int, steps: int, report: JsonObject) -> MailText:
    """Return the mail that reports a withheld verdict."""
    lines = (
        f"Study {study}, step {step} of {steps}: {report['verdict']} (released as {report['symbol']} by its mode).",
        f"Condition {report['condition']}; model {report['model_id']} against model {report['incumbent_id']}.",
        "",
        "Developers learn nothing of this. The whole report:",
        json.dumps(report, indent=2, sort_keys=True),
    )
    subject = f"easeml: {study}, model {report['model_id']}: {report['symbol']}"
    return MailText(recipient, subject, "\n".join(lines))
