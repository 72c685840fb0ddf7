"""The referee's verdict on one submission: plan checked, both models run, exact statistics, one symbol released."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Any

from easeml_core.config import GateConfig, require
from easeml_core.entities import Adaptivity, Model, SealedSetPurpose, Symbol, Verdict
from easeml_core.errors import SealedSetTooSmallError, StateError
from easeml_core.gate.condition import Condition, parse_condition
from easeml_core.gate.decision import decide
from easeml_core.gate.outcomes import count_outcomes
from easeml_core.services.evaluation import sealed_predictions
from easeml_core.services.registration import plan_for_gate
from easeml_core.store import models, releases, sealed, studies
from easeml_core.store.database import notify

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from easeml_core.store.artifacts import ArtifactStore
    from easeml_core.store.requests import Request


def judge(tx: Connection, artifacts: ArtifactStore, request: Request) -> str:
    """Answer a gate request: spend at most one step of the sealed set and release at most one symbol.

    The same question (set, condition, new artifact, old artifact) is answered from the ledger and costs nothing.

    Returns:
        The public message of the answer.

    Raises:
        StateError: No live set, or the model is the one in production; nothing is spent.
        ConfigError: Reliability or adaptivity is not what the set was planned for; nothing is spent.
        SealedSetTooSmallError: The condition needs more examples than the set has; nothing is spent.
    """
    study = studies.study_by_id(tx, request.study_id)
    releases.hold_study(tx, study.id)  # the model it is compared with must not change meanwhile
    test_set = releases.live_test_set(tx, study.id, SealedSetPurpose.GATE, lock=True)
    if test_set is None:
        message = f"study {study.name!r} has no live gate set; the referee must seal a new one"
        raise StateError(message)
    config = _planned(test_set, request.arguments)
    condition = parse_condition(config.condition)
    model = models.get_model(tx, study.id, request.model_id or 0)
    incumbent = releases.production_model(tx, study.id) or models.baseline_model(tx, study.id)
    if model.identity == incumbent.identity:
        message = f"model {model.id} is the one that stands now; hand in another one"
        raise StateError(message)
    cache_key = hashlib.sha256(f"{condition}|{model.identity}|{incumbent.identity}".encode()).hexdigest()
    entry = sealed.cached_entry(tx, test_set.id, cache_key)
    if entry is None:
        step, symbol = _decide(tx, artifacts, request, test_set, config, condition, model, incumbent, cache_key)
    else:
        step, symbol = entry.step, Symbol(entry.answer)
    releases.add_verdict(
        tx,
        request_id=request.id,
        study_id=study.id,
        model_id=model.id,
        incumbent_id=incumbent.id,
        test_set_id=test_set.id,
        step=step,
        symbol=symbol,
        planned=str(condition) == test_set.plan["condition"],
        cached=entry is not None,
    )
    notify(tx, f"study:{study.name}")
    return f"step {step} of {test_set.steps}: {symbol}"


def _planned(test_set: Any, arguments: Any) -> GateConfig:
    """The set's settings with the request's condition; the rest of the plan cannot be changed by a request."""
    plan = GateConfig.from_json(test_set.plan)
    for name in ("reliability", "adaptivity"):
        asked, planned = arguments.get(name), getattr(plan, name)
        require(asked in (None, planned), name, asked, f"{planned}, which the sealed set was planned for")
    config = GateConfig.from_json(plan.to_json() | {"condition": arguments.get("condition") or plan.condition})
    needed = plan_for_gate(config)
    needs = max(needed.labels, needed.unlabelled)
    if needs > test_set.rows:
        raise SealedSetTooSmallError(
            purpose="gate", needed=needs, available=test_set.rows, detail=f"condition {config.condition}"
        )
    return config


def _decide(
    tx: Connection,
    artifacts: ArtifactStore,
    request: Request,
    test_set: Any,
    config: GateConfig,
    condition: Condition,
    model: Model,
    incumbent: Model,
    cache_key: str,
) -> tuple[int, Symbol]:
    """Use one step of the set: its number and the symbol; retires the set when it has served."""
    used, _ = sealed.spent(tx, test_set.id)
    old, _ = sealed_predictions(tx, artifacts, incumbent, test_set.id)
    if old is None:
        message = f"the model that stands now ({incumbent.id}) cannot be run on the sealed inputs; roll it back"
        raise StateError(message)
    new, failure = sealed_predictions(tx, artifacts, model, test_set.id)
    log_level = plan_for_gate(config).log_level
    if new is None:
        passed = False
        report: dict[str, Any] = {"verdict": Verdict.FAIL.value, "failure": failure}
    else:
        outcomes = count_outcomes(sealed.sealed_labels(tx, test_set.id), old, new)
        decision = decide(condition, outcomes, log_level=log_level, mode=config.mode)
        passed, report = decision.passed, decision.to_json()
    symbol = Symbol.PASS if passed else Symbol.FAIL
    released = Symbol.WITHHELD if config.adaptivity == Adaptivity.NONE else symbol
    report |= {"condition": str(condition), "symbol": symbol.value, "model_id": model.id, "incumbent_id": incumbent.id}
    sealed.add_entry(
        tx,
        test_set_id=test_set.id,
        step=used + 1,
        steps=test_set.steps,
        request_id=request.id,
        cache_key=cache_key,
        answer=released,
        log_level=log_level,
        log_cost=math.log(2) if config.adaptivity == Adaptivity.FULL else 0.0,
        tolerance=None,
        report=report,
    )
    first_pass = config.adaptivity == Adaptivity.FIRST_CHANGE and passed
    if first_pass or used + 1 == test_set.steps:
        releases.retire_test_set(tx, test_set.id)
    return used + 1, released
