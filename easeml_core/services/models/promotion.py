"""Move the production pointer: on a recorded verdict, back to an earlier model, or by a person's decision."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING

from easeml_core.entities import JsonObject, RequestKind, Symbol
from easeml_core.errors import NotFoundError, StateError
from easeml_core.formats.encoding import row_of, typed_record
from easeml_core.services.test_sets.lifecycle import ENDED_BY_ANSWER
from easeml_core.settings.config import require
from easeml_core.store.database import notify
from easeml_core.store.logins import LOGIN_PREFIX
from easeml_core.store.tables import model_life, models, releases, requests, studies, trials

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection

    from easeml_core.entities import Study
    from easeml_core.store.database import Store
    from easeml_core.store.tables.model_life import ListedModel, Promotion, Standing
    from easeml_core.store.tables.releases import VerdictRow
    from easeml_core.store.tables.requests import Request

_THERE = "model {model} is in production for study {study!r} already"


def promote(tx: Connection, request: Request, study: Study) -> str:
    """Answer a promotion request. The schema itself refuses a promotion without a recorded verdict.

    The verdict must be a pass on the set's sealed condition, of the study's live gate set, or the last such pass of a
    set that an answer has ended; and the model that it was compared with must still be in production. Under
    adaptivity ``none`` every commit counts as accepted: a verdict stands for a pass, whatever is in production.

    A model that is in production already stays there, and nothing is recorded: another task has promoted it, and a
    second entry for it would leave a rollback with nothing to go back to.

    A pass is claimed when it is given, at a level that counts it and all answers that could come before and after it.
    A promotion reads no data, so the promise covers it whichever answer has ended the set since. A person may retire a
    set because its examples are wrong, and under ``overlap`` they were open elsewhere: there no pass can be relied on.
    """
    releases.hold_study(tx, study.id)  # production must not change before this commits
    gate_request_id = int(request.arguments["gate_request_id"])
    model_id = request.of_model
    verdict = releases.get_verdict(tx, gate_request_id)
    if verdict is None or (verdict.study_id, verdict.model_id) != (study.id, model_id):
        message = f"gate request {gate_request_id} has no verdict on model {model_id} of study {study.name!r}"
        raise StateError(message)
    if verdict.symbol != Symbol.FAIL and _is_there(tx, study, model_id):
        return _THERE.format(model=model_id, study=study.name) + "; nothing was changed"
    _require_ground(verdict, gate_request_id, model_id)
    if verdict.symbol == Symbol.PASS:
        _require_standing(tx, study, verdict.incumbent_id)
    model_life.add_promotion(
        tx,
        request_id=request.id,
        study_id=study.id,
        model_id=model_id,
        gate_request_id=gate_request_id,
        symbol=verdict.symbol,
    )
    return _moved(tx, study, model_id)


def _is_there(tx: Connection, study: Study, model_id: int) -> bool:
    standing = releases.production_model(tx, study.id)
    return standing is not None and standing.id == model_id


def _require_ground(verdict: VerdictRow, gate_request_id: int, model_id: int) -> None:
    """Refuse a verdict that does not justify a promotion."""
    if verdict.symbol == Symbol.FAIL:
        message = f"the gate answered {str(verdict.symbol)!r} for model {model_id}; only a pass may be promoted"
        raise StateError(message)
    if not verdict.planned:
        message = (
            f"gate request {gate_request_id} asked for another condition than the one sealed with the set; "
            "such a pass is advice: ask the gate again without a condition"
        )
        raise StateError(message)
    outlives_it = verdict.was_last and verdict.retired_why in ENDED_BY_ANSWER
    if verdict.set_state != "live" and not outlives_it:
        message = (
            f"the verdict of gate request {gate_request_id} is of a test set that is {verdict.set_state} by now; "
            "ask the gate again, on the live set"
        )
        raise StateError(message)


def _require_standing(tx: Connection, study: Study, incumbent_id: int) -> None:
    """Refuse a verdict against another model than the one in production; one with the same artifact is the same.

    Every data version has separate rows for the baseline and for each model that was evaluated on it.
    """
    standing = models.standing_model(tx, study.id)
    if standing.identity != models.get_model(tx, study.id, incumbent_id).identity:
        message = (
            f"model {standing.id} stands now, but the verdict compared with model {incumbent_id}; ask the gate again"
        )
        raise StateError(message)


def roll_back(tx: Connection, request: Request, study: Study) -> str:
    """Answer a rollback request: return a model to production that was there before."""
    releases.hold_study(tx, study.id)
    history, model_id = model_life.history(tx, study.id), request.of_model
    expected = request.arguments.get("standing")
    if history and expected not in (None, history[-1].id):
        message = (
            f"model {history[-1].model_id} came into production meanwhile; ask again if it shall be taken back too"
        )
        raise StateError(message)
    restored = restorable(history, model_id, study.name)
    why = request.arguments.get("why")
    ids = {"request_id": request.id, "study_id": study.id, "model_id": model_id}
    model_life.add_rollback(tx, restores=restored.id, why=None if why is None else str(why), **ids)
    return _moved(tx, study, model_id, "again")


def restorable(history: Sequence[Promotion], model_id: int, study: str) -> Promotion:
    """Return the last promotion that put the model into production; refuse one that cannot be restored."""
    if history and history[-1].model_id == model_id:
        raise StateError(_THERE.format(model=model_id, study=study))
    for earlier in reversed(history):
        if earlier.model_id == model_id and earlier.restores is None:
            return earlier
    message = f"model {model_id} was never in production for study {study!r}; only what was can be put back"
    raise StateError(message)


def before_standing(history: Sequence[Promotion]) -> Promotion | None:
    """Return the promotion before the present one, or None.

    A rollback restores the history before its model: what comes before it is what came before the promotion that it
    restores, so that rolling back twice goes back twice.
    """
    if not history:
        return None
    known = {p.id: n for n, p in enumerate(history)}
    place = len(history) - 1
    while (restores := history[place].restores) is not None:
        place = known[restores]
    return history[place - 1] if place > 0 else None


def force(tx: Connection, request: Request, study: Study) -> str:
    """Put a model into production without a verdict, by the decision of a person, who is named and gives a reason.

    Of a tenant's login the database knows no person, so the login is recorded, and the name as what it says.
    """
    releases.hold_study(tx, study.id)
    who, why = (require_words(name, request.arguments.get(name)) for name in ("who", "why"))
    model_id = request.of_model
    login = requests.filed_by(tx, request.id)
    if login.startswith(LOGIN_PREFIX):  # it can name any person by SQL
        who = f"{login}, which names {who}"[:LONGEST_WORDS]
    if _is_there(tx, study, model_id):
        raise StateError(_THERE.format(model=model_id, study=study.name))
    model_life.add_forced(tx, request_id=request.id, study_id=study.id, model_id=model_id, who=who, why=why)
    return _moved(tx, study, model_id, f"without a verdict, forced by {who}: {why}")


LONGEST_WORDS = 500


def require_words(name: str, value: object) -> str:
    """Return the validated name or reason of a user."""
    given = value if isinstance(value, str) else ""
    require(bool(given.strip()) and len(given) <= LONGEST_WORDS, name, value, "1 to 500 characters that say it")
    return given.strip()


def _moved(tx: Connection, study: Study, model_id: int, how: str = "") -> str:
    notify(tx, f"study:{study.name}", f"production:{study.name}", "production:*")
    return f"model {model_id} is in production for study {study.name}" + (f" {how}" if how else "")


def settle(tx: Connection, request_id: int) -> None:
    """Answer a request to move the pointer at once, for the referee's role. Answered ones stay so."""
    if requests.hold_request(tx, request_id):
        request, study = requests.get_request(tx, request_id)
        requests.add_answer(tx, request_id, refused=False, message=MOVES[request.kind](tx, request, study))


@typed_record
class ShownModel:
    """One model with what trained it; fields as of ``store.tables.models.ModelRecord``.

    Attributes:
        trained_by: ``kind``, ``implementation``, ``parameters``, ``attempt``, ``request_key`` and the details that the
            executor stated of itself; None where no trial trained it, or no record was kept.
    """

    study: str
    model_id: int
    origin: str
    trial_id: int | None
    candidate: str | None
    data_version: int
    format: str
    artifact: str
    validation_quality: float
    quality: float | None
    created_at: datetime
    trained_by: JsonObject | None


def model_list(store: Store, *, study: str) -> list[ListedModel]:
    """The study's models, newest first: origin, verdict, and how each came into production."""
    with store.begin() as tx:
        return model_life.list_models(tx, studies.get_study(tx, study).id)


def model_record(store: Store, *, study: str, model_id: int) -> ShownModel:
    """Return one model with what trained it."""
    with store.begin() as tx:
        found = models.record_of_model(tx, studies.get_study(tx, study).id, model_id)
    facts = row_of(found)
    details = facts.pop("executor_details")
    names = ("kind", "implementation", "parameters", "attempt", "request_key")
    ran = {name: facts.pop(name) for name in names}
    return ShownModel(**facts, trained_by=None if details is None else ran | details)


def best_record(store: Store, *, study: str) -> ShownModel:
    """Return the best model so far by validation quality, with what trained it."""
    with store.begin() as tx:
        found = studies.get_study(tx, study)
        best = models.best_model_so_far(tx, found.id)
        states = Counter(str(trial.state) for trial in trials.list_trials(tx, found.id)) if best is None else Counter()
    if best is None:
        counts = ", ".join(f"{many} {state}" for state, many in sorted(states.items())) or "none"
        message = f"study {study!r} has no trained model yet; its trials: {counts}"
        raise StateError(message)
    return model_record(store, study=study, model_id=best.id)


def last_verdict(store: Store, *, study: str, model_id: int) -> int:
    """Return the gate request that last gave a verdict on the model."""
    asked = {entry.model_id: entry.gate_request_id for entry in model_list(store, study=study)}
    if model_id not in asked:
        raise NotFoundError(
            kind="model", name=model_id, owner=f"study {study!r}", remedy=f"see `easeml model list {study}`"
        )
    found = asked[model_id]
    if found is None:
        message = (
            f"the gate has given no verdict on model {model_id} of study {study!r}; ask it first, or use --force with "
            "--who and --why"
        )
        raise StateError(message)
    return found


def in_production(store: Store, *, study: str | None = None) -> list[Standing]:
    """Return what is in production now, each with the move that put it there; the oldest move first."""
    with store.begin() as tx:
        return model_life.standing(tx, None if study is None else studies.get_study(tx, study).id)


MOVES: dict[RequestKind, Callable[[Connection, Request, Study], str]] = {
    RequestKind.PROMOTE: promote,
    RequestKind.ROLLBACK: roll_back,
    RequestKind.FORCE: force,
}
"""The functions that answer each kind of request that moves the production pointer."""
