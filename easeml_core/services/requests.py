"""Asking the referee: file a request, read its answer. Who asks holds no sealed secret and learns one symbol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_core.config import choice, require
from easeml_core.entities import Adaptivity, RequestKind
from easeml_core.errors import InvalidInputError, StateError
from easeml_core.gate.condition import parse_condition
from easeml_core.store import models, releases, requests, studies

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from easeml_core.store.database import Store


def file_gate_request(
    store: Store,
    *,
    study: str,
    model_id: int | None = None,
    condition: str | None = None,
    reliability: float | None = None,
    adaptivity: str | None = None,
    request_key: str,
) -> dict[str, Any]:
    """Ask whether a model may be promoted.

    Args:
        store: Role ``easeml_worker``.
        study: The study.
        model_id: The model; None for the best one of the study.
        condition: None for the study's own.
        reliability: Must be what the sealed set was planned for; None accepts that.
        adaptivity: Likewise.
        request_key: The same key gives the same request, and so the same answer.

    Returns:
        ``{"request_id"}``.

    Raises:
        ConditionSyntaxError: The condition cannot be read.
        ConfigError: Reliability or adaptivity is not a possible value.
        NotFoundError: There is no such study or model.
        StateError: The study has no trained model yet.
        InvalidInputError: The key has asked about another study or model, or for something else.
    """
    canonical = None if condition is None else str(parse_condition(condition))
    if reliability is not None:
        require(0 < reliability < 1, "reliability", reliability, "> 0 and < 1")
    if adaptivity is not None:
        choice(Adaptivity, "adaptivity", adaptivity)
    arguments = {"condition": canonical, "reliability": reliability, "adaptivity": adaptivity}
    return _file(store, RequestKind.GATE, study, model_id, arguments, request_key)


def file_meter_request(store: Store, *, study: str, model_id: int | None = None, request_key: str) -> dict[str, Any]:
    """Ask in which range the overfitting of a model lies; arguments and errors as in ``file_gate_request``."""
    return _file(store, RequestKind.METER, study, model_id, {}, request_key)


def file_promotion(
    store: Store, *, study: str, model_id: int, gate_request_id: int, request_key: str
) -> dict[str, Any]:
    """Ask the referee to move the production pointer, on the pass that the gate request recorded."""
    require(isinstance(gate_request_id, int), "gate_request_id", gate_request_id, "the id of a gate request")
    arguments = {"gate_request_id": gate_request_id}
    return _file(store, RequestKind.PROMOTE, study, model_id, arguments, request_key)


def _file(
    store: Store, kind: RequestKind, study: str, model_id: int | None, arguments: dict[str, Any], request_key: str
) -> dict[str, Any]:
    with store.begin() as tx:
        found = studies.get_study(tx, study)
        earlier = requests.request_of_key(tx, request_key)
        model: int | None
        if earlier is None or earlier.study_id != found.id:
            model = _model(tx, found.id, study, model_id)
        else:  # "the best model" may be another one by now; the answer may not
            model = earlier.model_id if model_id is None else model_id
            if model != earlier.model_id:
                message = (
                    f"request key {request_key!r} was used for model {earlier.model_id}, not {model}; use a new key"
                )
                raise InvalidInputError(message)
        request_id = requests.file_request(
            tx, kind=kind, study_id=found.id, model_id=model, arguments=arguments, request_key=request_key
        )
    return {"request_id": request_id}


def _model(tx: Connection, study_id: int, study: str, model_id: int | None) -> int:
    if model_id is not None:
        return models.get_model(tx, study_id, model_id).id
    best = models.best_model(tx, study_id)
    if best is None:
        message = f"study {study!r} has no trained model yet; train one first (`easeml study show {study}`)"
        raise StateError(message)
    return best.id


def answer_of(store: Store, request_id: int) -> dict[str, Any] | None:
    """The referee's answer with its public facts, or None while there is none.

    Returns:
        ``{"request_id", "kind", "study", "model_id", "refused", "message"}`` and, unless refused, for ``gate``
        ``{"symbol", "planned", "step", "steps", "cached"}``, for ``meter`` ``{"signal", "signals", "boundaries",
        "tolerance", "submissions_left", "retired", "cached", "alert"}``, for ``promote`` ``{"promoted"}``.

    Raises:
        NotFoundError: There is no such request.
    """
    with store.begin() as tx:
        answer = requests.get_answer(tx, request_id)
        if answer is None or answer["refused"]:
            return answer
        return answer | _FACTS[RequestKind(answer["kind"])](tx, request_id)


def _gate_facts(tx: Connection, request_id: int) -> dict[str, Any]:
    verdict = _present(releases.get_verdict(tx, request_id), request_id)
    return {k: verdict[k] for k in ("symbol", "planned", "step", "steps", "cached")}


def _meter_facts(tx: Connection, request_id: int) -> dict[str, Any]:
    reading = _present(releases.get_reading(tx, request_id), request_id)
    return {
        "signal": reading["signal"],
        "signals": reading["signals"],
        "boundaries": reading["plan"]["ranges"],
        "tolerance": reading["plan"]["tolerance"],
        "submissions_left": reading["steps"] - reading["step"],
        "retired": reading["signal"] is None,
        "cached": reading["cached"],
        "alert": reading["alert"],
    }


def _present(facts: dict[str, Any] | None, request_id: int) -> dict[str, Any]:
    if facts is None:
        message = f"request {request_id} is answered but its facts are missing; the store was changed by hand"
        raise InvalidInputError(message)
    return facts


_FACTS: dict[RequestKind, Callable[[Connection, int], dict[str, Any]]] = {
    RequestKind.GATE: _gate_facts,
    RequestKind.METER: _meter_facts,
    RequestKind.PROMOTE: lambda tx, request_id: {"promoted": True},
    RequestKind.SEAL: lambda tx, request_id: {},
}
