"""Release many studies' models in one go: ask gate and meter about each, promote what passed, tell what came of each.

The state is the requests in the database, each under a key that names study and model. So a call after a crash, with
other models beside or in another order, goes on where the last one was, and asks nothing twice.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from easeml_core.entities import RequestKind, Symbol
from easeml_core.errors import InvalidInputError, StateError
from easeml_core.formats.encoding import typed_record
from easeml_core.services.referee.requests import file_gate_request, file_meter_request, file_promotion
from easeml_core.settings.config import require
from easeml_core.store.tables import requests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from easeml_core.store.database import Store
    from easeml_core.store.tables.requests import FiledRequest, NewRequest

logger = logging.getLogger(__name__)

QUIET_SECONDS = 15.0
"""Seconds without a further answer after which the answers so far are worth a next step."""


class ReleaseOutcome(StrEnum):
    """What came of one model.

    ``waiting`` for an answer about it; ``promoted``; ``rejected`` by the gate; ``refused``: the gate gave no verdict,
    or the promotion was not carried out.
    """

    WAITING = "waiting"
    PROMOTED = "promoted"
    REJECTED = "rejected"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class ReleaseCandidate:
    """A model of a study that is to be judged."""

    study: str
    model_id: int

    def key(self, request_key: str, kind: RequestKind) -> str:
        """Request key of one question about it."""
        return f"{request_key}/{self.study}/{self.model_id}/{kind}"


@typed_record
class Release:
    """What came of one study's model; released facts only.

    Attributes:
        study: The study.
        model_id: The model.
        outcome: What came of it.
        symbol: Of the gate; None without a verdict.
        signal: Of the meter, from 1; None without one.
        alert: The alert of the overfitting budget that the reading raised; None without.
        message: What the referee said last about the verdict or the promotion.
        meter_refusal: Why the meter gave no reading; None where it did, or has not answered.
        waits_for: Requests without an answer.
    """

    study: str
    model_id: int
    outcome: ReleaseOutcome
    symbol: Symbol | None
    signal: int | None
    alert: str | None
    message: str
    meter_refusal: str | None
    waits_for: tuple[int, ...]

    @property
    def needs_look(self) -> bool:
        """Whether a person should look at it."""
        is_bad = self.outcome in (ReleaseOutcome.REJECTED, ReleaseOutcome.REFUSED)
        return is_bad or self.meter_refusal is not None

    def __str__(self) -> str:
        """One line for a person."""
        meter = "" if self.signal is None else f"; meter: signal {self.signal}"
        refused = "" if self.meter_refusal is None else f"; meter: refused, {self.meter_refusal}"
        alert = "" if self.alert is None else f"; {self.alert}"
        said = f", {self.message}" if self.message else ""
        return f"{self.study}: model {self.model_id} {self.outcome}{said}{meter}{refused}{alert}"


def release_models(store: Store, *, models: Iterable[ReleaseCandidate], request_key: str) -> list[Release]:
    """Take the release of these models as far as it can be taken now; call it again once answers have come.

    Asks gate and meter about every model at once, and for the promotion of those that have passed (under adaptivity
    ``none``: that have been judged). What is wrong with one study is in its entry and stops no other.
    """
    require(bool(request_key), "request_key", request_key, "not empty: it makes the call repeatable")
    wanted = list(dict.fromkeys(models))
    refusals = _ask(store, wanted, request_key)
    found = _filed(store, wanted, request_key)
    if promotions := _promotions(wanted, found, request_key):
        refusals |= _file_all(store, promotions)
        found = _filed(store, wanted, request_key)
    return [_release(model, found[model], refusals) for model in wanted]


_Filed = dict[RequestKind, "FiledRequest"]
_ASKED = (RequestKind.GATE, RequestKind.METER)
_KINDS = (*_ASKED, RequestKind.PROMOTE)
_FILE: Mapping[RequestKind, Callable[..., int]] = {
    RequestKind.GATE: file_gate_request,
    RequestKind.METER: file_meter_request,
    RequestKind.PROMOTE: file_promotion,
}


def _filed(store: Store, wanted: Sequence[ReleaseCandidate], request_key: str) -> dict[ReleaseCandidate, _Filed]:
    """Return the requests that there are, with their answers, by model and kind."""
    keys = {model.key(request_key, kind): (model, kind) for model in wanted for kind in _KINDS}
    with store.begin() as tx:
        found = requests.filed_requests(tx, list(keys))
    filed: dict[ReleaseCandidate, _Filed] = {model: {} for model in wanted}
    for request in found:
        model, kind = keys[request.request_key]
        if (request.kind, request.study, request.model_id) == (kind, model.study, model.model_id):
            filed[model][kind] = request
    return filed


_Refusals = dict[tuple[ReleaseCandidate, RequestKind], str]


def _ask(store: Store, wanted: Sequence[ReleaseCandidate], request_key: str) -> _Refusals:
    """Ask gate and meter what is not asked yet; return why some could not be."""
    return _file_all(
        store,
        {
            (model, kind): requests.NewRequest(model.key(request_key, kind), kind, model.study, model.model_id, {})
            for model in wanted
            for kind in _ASKED
        },
    )


def _promotions(
    wanted: Sequence[ReleaseCandidate], filed: Mapping[ReleaseCandidate, _Filed], request_key: str
) -> dict[tuple[ReleaseCandidate, RequestKind], NewRequest]:
    """Return the promotions that have a ground and are not asked for yet."""
    new = {}
    for model in wanted:
        gate, kind = filed[model].get(RequestKind.GATE), RequestKind.PROMOTE
        if gate is None or gate.symbol not in (Symbol.PASS, Symbol.WITHHELD) or kind in filed[model]:
            continue
        ground = {"gate_request_id": gate.request_id}
        new[model, kind] = requests.NewRequest(model.key(request_key, kind), kind, model.study, model.model_id, ground)
    return new


def _file_all(store: Store, new: Mapping[tuple[ReleaseCandidate, RequestKind], NewRequest]) -> _Refusals:
    """File what is not filed yet; return why some could not be.

    All go in with one statement. A request that this leaves out (there is no such study or model, or one that is
    archived or has lost its file) is filed by itself, for the error that belongs to it; so are all of them where one
    study was archived at that moment, which stops no other.
    """
    try:
        with store.begin() as tx:
            requests.file_requests(tx, list(new.values()))
    except StateError as error:
        logger.warning("the requests of %d models are filed one by one: %s", len({m for m, _ in new}), error)
    with store.begin() as tx:
        found = requests.filed_requests(tx, [request.request_key for request in new.values()])
    filed = {(request.request_key, request.kind, request.study, request.model_id) for request in found}
    refusals: _Refusals = {}
    for (model, kind), request in new.items():
        if (request.request_key, kind, model.study, model.model_id) not in filed:
            try:
                _FILE[kind](
                    store,
                    study=model.study,
                    model_id=model.model_id,
                    request_key=request.request_key,
                    **request.arguments,
                )
            except (StateError, InvalidInputError) as error:
                refusals[model, kind] = str(error)
    return refusals


def _release(
    model: ReleaseCandidate, filed: _Filed, refusals: Mapping[tuple[ReleaseCandidate, RequestKind], str]
) -> Release:
    gate, meter, promotion = (filed.get(kind) for kind in _KINDS)
    last = gate if promotion is None else promotion
    gate_refusal, meter_refusal, promotion_refusal = (refusals.get((model, kind)) for kind in _KINDS)
    refusal = gate_refusal or promotion_refusal
    if meter is not None and meter.refused:
        meter_refusal = meter.message
    return Release(
        study=model.study,
        model_id=model.model_id,
        outcome=_outcome(gate, promotion, is_refused=refusal is not None),
        symbol=None if gate is None else gate.symbol,
        signal=None if meter is None else meter.signal,
        alert=None if meter is None else meter.alert,
        message=refusal or (None if last is None else last.message) or "",
        meter_refusal=meter_refusal,
        waits_for=tuple(r.request_id for r in (gate, meter, promotion) if r is not None and r.refused is None),
    )


def _outcome(gate: FiledRequest | None, promotion: FiledRequest | None, *, is_refused: bool) -> ReleaseOutcome:
    if is_refused or (gate is not None and gate.refused) or (promotion is not None and promotion.refused):
        return ReleaseOutcome.REFUSED
    if gate is not None and gate.symbol is Symbol.FAIL:
        return ReleaseOutcome.REJECTED
    is_done = promotion is not None and promotion.refused is False
    return ReleaseOutcome.PROMOTED if is_done else ReleaseOutcome.WAITING


@dataclass(slots=True)
class AnswerWatch:
    """A look at many requests at once: gives the number of answers as soon as they are worth a next step.

    That is when all are there, or when some are and no further one came for a while: a request that waits for labels
    must not keep back the others.

    Attributes:
        store: The database.
        request_ids: The requests, none of them answered when the watch began.
        quiet_seconds: Seconds without a further answer after which those that are there are worth a step.
    """

    store: Store
    request_ids: Sequence[int]
    quiet_seconds: float = QUIET_SECONDS
    _answered: int = 0
    _since: float = 0.0

    def __call__(self) -> int | None:
        """Look once."""
        with self.store.begin() as tx:
            answered = requests.count_answered(tx, self.request_ids)
        if answered != self._answered:
            self._answered, self._since = answered, time.monotonic()
        is_quiet = answered > 0 and time.monotonic() - self._since >= self.quiet_seconds
        return answered if is_quiet or answered >= len(self.request_ids) else None
