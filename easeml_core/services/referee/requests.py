"""File requests to the referee and read its answers. The caller holds no sealed secret and learns one symbol."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, TypeVar

from msgspec import UNSET, UnsetType

from easeml_core.entities import Adaptivity, GivenAnswer, RequestKind, SealedSetPurpose
from easeml_core.errors import InvalidInputError, StateError
from easeml_core.formats.encoding import row_of, typed_record
from easeml_core.gate.condition import parse_condition
from easeml_core.services.datasets.feed import FeedReceipt
from easeml_core.services.meter.results import shown_reading
from easeml_core.services.models.promotion import MOVES, before_standing, require_words, restorable, settle
from easeml_core.services.models.submission import Submitted
from easeml_core.services.referee.answers import MoveAnswer, ReadingAnswer, RefreshedAnswer, VerdictAnswer
from easeml_core.services.referee.place_in_queue import QueuePlace, late_text, place_of, place_text
from easeml_core.services.registration.register import RegisteredStudy
from easeml_core.services.test_sets.answers import BLOCKING_REFUSED, gate_settings
from easeml_core.settings.config import parse_adaptivity, require
from easeml_core.store.tables import datasets, model_life, models, releases, requests, studies

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from easeml_core.entities import JsonObject
    from easeml_core.store.database import Store
    from easeml_core.store.tables.model_life import Promotion


T = TypeVar("T")

_LOOK_SECONDS, _PLACE_SECONDS = 0.2, 2.0
"""Pause between two looks at the answer, and between two at the place in the queue."""


def key_about(store: Store, *, study: str, model_id: int | None, request_key: str) -> str:
    """Return the key under which to ask about a study and a model: this one, or one below it that names both.

    The second where the key has asked about another study or model already: the places of a mapped task have others
    once the list that it is mapped over has changed. For kinds of requests that may be asked once more: a verdict or a
    reading that there is costs no further step, and what was promoted or refreshed stays as it is.
    """
    with store.begin(writes=False) as tx:
        found, earlier = requests.study_and_earlier(tx, study, request_key)
    if earlier is None or (earlier.study_id == found.id and model_id in (None, earlier.model_id)):
        return request_key
    return f"{request_key}/{study}" if model_id is None else f"{request_key}/{study}/{model_id}"


def file_gate_request(
    store: Store,
    *,
    study: str,
    model_id: int | None = None,
    condition: str | None = None,
    reliability: float | None = None,
    adaptivity: str | None = None,
    blocking: bool = False,
    request_key: str,
) -> int:
    """Ask whether a model may be promoted.

    Args:
        store: Role ``easeml_worker``.
        study: The study.
        model_id: The model; None for the best one of the study.
        condition: None for the study's own.
        reliability: Must be what the sealed set was planned for; None accepts that.
        adaptivity: Likewise.
        blocking: Whether later work will depend on the verdict, e.g. a task that fails with it. Refused where the live
            set withholds verdicts (adaptivity ``none``), since that would show them.
        request_key: The same key gives the same request, and so the same answer.

    Returns:
        The number of the request.

    Raises:
        ConditionSyntaxError: The condition cannot be read.
        ConfigError: Reliability or adaptivity is not a possible value.
        NotFoundError: There is no such study or model.
        StateError: The study has no trained model yet.
        InvalidInputError: The key has asked about another study or model, or another question; or ``blocking`` where
            verdicts are withheld.
    """
    canonical = None if condition is None else str(parse_condition(condition))
    if reliability is not None:
        require(0 < reliability < 1, "reliability", reliability, "> 0 and < 1")
    if adaptivity is not None:
        parse_adaptivity(adaptivity)
    arguments: dict[str, object] = {"condition": canonical, "reliability": reliability, "adaptivity": adaptivity}
    if blocking:
        arguments["blocking"] = True
        _require_verdicts_shown(store, study)
    return _file(store, RequestKind.GATE, study, model_id, arguments, request_key)


def file_meter_request(
    store: Store, *, study: str, model_id: int | None = None, team: int = 1, request_key: str
) -> int:
    """Ask in which range the overfitting of a model lies; arguments and errors as in ``file_gate_request``.

    ``team`` names the submitting team, 1..K, where the set was planned for K teams. A user who could submit for two of
    them must not: the promise is for teams that do not know each other's signals.
    """
    require(type(team) is int and team >= 1, "team", team, "a whole number >= 1")
    return _file(store, RequestKind.METER, study, model_id, {} if team == 1 else {"team": team}, request_key)


def _require_verdicts_shown(store: Store, study: str) -> None:
    """Refuse to let later work depend on withheld verdicts; the referee checks again, at the set that judges."""
    with store.begin() as tx:
        found = studies.get_study(tx, study)
        live = releases.live_test_set(tx, found.id, SealedSetPurpose.GATE)
    planned = found.config.get("gate", {}).get("adaptivity") if live is None else gate_settings(live).adaptivity
    if planned == Adaptivity.NONE:
        raise InvalidInputError(BLOCKING_REFUSED.format(study=study))


def file_promotion(
    store: Store, *, study: str, model_id: int, gate_request_id: int, request_key: str, directly: bool = False
) -> int:
    """Ask the referee to move the production pointer, on the verdict that the gate request recorded.

    Args:
        store: Role ``easeml_worker``; with ``directly`` role ``easeml_referee``.
        study: The study.
        model_id: The model.
        gate_request_id: A pass of the live set; under adaptivity ``none`` any recorded verdict.
        request_key: The same key gives the same request.
        directly: Move it in this same call, or refuse with an error.

    Returns:
        The number of the request.

    Raises:
        ConfigError: ``gate_request_id`` is no whole number.
        NotFoundError: There is no such study or model.
        InvalidInputError: The key has asked for something else.
        StateError: With ``directly``: the referee's rules refuse it.
    """
    require(type(gate_request_id) is int, "gate_request_id", gate_request_id, "the id of a gate request")
    arguments = {"gate_request_id": gate_request_id}
    return _file(store, RequestKind.PROMOTE, study, model_id, arguments, request_key, directly=directly)


def file_rollback(
    store: Store, *, study: str, model_id: int | None = None, why: str, request_key: str, directly: bool = False
) -> int:
    """Ask the referee to return a model to production that was there before."""
    reason = require_words("why", why)
    with store.begin() as tx:
        found, earlier = requests.study_and_earlier(tx, study, request_key)
        if earlier is not None and earlier.study_id == found.id:
            standing, wanted = earlier.arguments.get("standing"), earlier.model_id if model_id is None else model_id
        else:
            standing, wanted = _to_restore(model_life.history(tx, found.id), model_id, study)
    arguments = {"why": reason, "standing": standing}
    return _file(store, RequestKind.ROLLBACK, study, wanted, arguments, request_key, directly=directly)


def _to_restore(history: list[Promotion], model_id: int | None, study: str) -> tuple[int, int]:
    """Return the present promotion, and the model to restore."""
    if model_id is not None:
        restorable(history, model_id, study)
        return history[-1].id, model_id
    before = before_standing(history)
    if before is None:
        when = "before the one that is there now" if history else "yet"
        message = f"no model was in production for study {study!r} {when}"
        others = sorted({move.model_id for move in history} - {move.model_id for move in history[-1:]})
        named = f"; name one that was there later: {', '.join(map(str, others))}"
        raise StateError(message + (named if others else "; there is none to put back"))
    return history[-1].id, before.model_id


def file_forced_promotion(
    store: Store, *, study: str, model_id: int, who: str, why: str, request_key: str, directly: bool = False
) -> int:
    """Ask the referee to put a model into production without a verdict.

    A referee refuses this unless it was started with ``--allow-forced``; then it trusts the given name, so every user
    of the role ``easeml_worker`` can force. Name and reason are stored and shown for ever.
    """
    arguments = {"who": require_words("who", who), "why": require_words("why", why)}
    return _file(store, RequestKind.FORCE, study, model_id, arguments, request_key, directly=directly)


def _file(
    store: Store,
    kind: RequestKind,
    study: str,
    model_id: int | None,
    arguments: JsonObject,
    request_key: str,
    *,
    directly: bool = False,
) -> int:
    with store.begin() as tx:
        found, earlier = requests.study_and_earlier(tx, study, request_key)
        model: int | None
        if earlier is None or earlier.study_id != found.id:
            model = _model(tx, found.id, study, model_id)
        else:  # "the best model" may be another one by now; the answer may not
            model = earlier.model_id if model_id is None else model_id
            if model != earlier.model_id:
                used = f"request key {request_key!r} was used for model {earlier.model_id}, not {model}"
                message = f"{used}; {requests.NEW_KEY}"
                raise InvalidInputError(message)
        request_id = requests.file_request(
            tx, kind=kind, study_id=found.id, model_id=model, arguments=arguments, request_key=request_key
        )
        if directly:
            settle(tx, request_id)
    return request_id


def _model(tx: Connection, study_id: int, study: str, model_id: int | None) -> int:
    if model_id is not None:
        return models.get_model(tx, study_id, model_id).id
    best = models.best_model(tx, study_id)
    if best is None:
        message = f"study {study!r} has no trained model yet; train one first (`easeml study show {study}`)"
        raise StateError(message)
    return best.id


def answer_of(store: Store, request_id: int) -> GivenAnswer | None:
    """Return the referee's answer with its public facts, or None while there is none.

    Returns:
        Of a refused request, and of a study's registration, a ``GivenAnswer``; else the class of the request's kind
        (``services/referee/answers.py``).

    Raises:
        NotFoundError: There is no such request.
    """
    with store.begin() as tx:
        given = requests.get_answer(tx, request_id)
        if given is None or given.refused or given.kind not in _WITH_FACTS:
            return given
        return _WITH_FACTS[given.kind](tx, given)


def wait_for_answer(
    store: Store,
    request_id: int,
    *,
    timeout: float,
    hint: str = "",
    report: Callable[[str], None] = lambda text: None,
) -> GivenAnswer:
    """Wait for the answer to a request, as of ``answer_of``."""
    begun, looked = time.monotonic(), -math.inf
    while (answer := answer_of(store, request_id)) is None:
        now = time.monotonic()
        if now >= begun + timeout:
            message = (
                f"no answer to request {request_id} within {timeout:g} s: {late_text(place_of(store, request_id))}"
            )
            raise StateError(message + (f" ({hint})" if hint else ""))
        if now >= looked + _PLACE_SECONDS and (place := place_of(store, request_id)) is not None:
            report(f"request {request_id} waits for the referee: {place_text(place)}")
            looked = now
        time.sleep(_LOOK_SECONDS)
    return answer


def _verdict(tx: Connection, given: GivenAnswer) -> VerdictAnswer:
    found = _present(releases.get_verdict(tx, given.request_id), given)
    facts = {name: getattr(found, name) for name in ("symbol", "planned", "step", "steps", "cached")}
    return VerdictAnswer(**row_of(given), **facts)


def _reading(tx: Connection, given: GivenAnswer) -> ReadingAnswer:
    found = _present(releases.get_reading(tx, given.request_id), given)
    return ReadingAnswer(**row_of(given), **row_of(shown_reading(found)))


def _move(tx: Connection, given: GivenAnswer) -> MoveAnswer:
    return MoveAnswer(**row_of(given), promoted=model_life.has_moved(tx, given.request_id))


def _refreshed(tx: Connection, given: GivenAnswer) -> RefreshedAnswer:
    found = _present(datasets.refresh_facts(tx, given.request_id), given)
    return RefreshedAnswer(**row_of(given), **row_of(found))


def _present(facts: T | None, given: GivenAnswer) -> T:
    if facts is None:
        message = f"request {given.request_id} is answered but its facts are missing; the store was changed by hand"
        raise InvalidInputError(message)
    return facts


_WITH_FACTS: dict[RequestKind, Callable[[Connection, GivenAnswer], GivenAnswer]] = {
    RequestKind.GATE: _verdict,
    RequestKind.METER: _reading,
    **dict.fromkeys(MOVES, _move),
    RequestKind.REFRESH: _refreshed,
}


@typed_record
class AskedGate:
    """A question to the gate; ``answer`` is left out where the command does not wait for it, and else ``place``."""

    study: str
    request_id: int
    request_key: str
    answer: VerdictAnswer | GivenAnswer | UnsetType = UNSET
    place: QueuePlace | UnsetType | None = UNSET


@typed_record
class JudgedSubmission(Submitted):
    """A model that was handed in, with the request to the gate and its answer; left out where there is none.

    ``place`` is the request's place in the queue, where the command does not wait.
    """

    request_id: int | UnsetType = UNSET
    answer: VerdictAnswer | GivenAnswer | UnsetType = UNSET
    place: QueuePlace | UnsetType | None = UNSET


@typed_record
class FedPairs(FeedReceipt):
    """Pairs that were fed, and the answer to the refresh; None where none was requested."""

    refresh: RefreshedAnswer | GivenAnswer | None


@typed_record
class Registration(RegisteredStudy):
    """A study that was registered, and the referee's answer; None where the command does not wait for it.

    Attributes:
        answer: The answer.
        place: The request's place in the queue where the command does not wait; else left out.
    """

    answer: GivenAnswer | None
    place: QueuePlace | UnsetType | None = UNSET
