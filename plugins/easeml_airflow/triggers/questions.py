"""What can be waited for: for each question the topic that wakes the waiting, and the one look that answers it.

A sensor's ``poke``, an operator that polls and the trigger all look with the same function here. A look either gives
facts (plain JSON) or None for "not yet". Facts come from rows, never from a notification alone, so an event between
two looks is not lost: the next look finds its row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from easeml_core.store.database import Store

Facts = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Question:
    """One kind of waiting.

    Attributes:
        topic: Payload of the notification that says "look again", from the subject.
        look: ``(store, subject, after) -> facts or None``.
    """

    topic: Callable[[str], str]
    look: Callable[[Store, str, int], Facts | None]


def _answer(store: Store, subject: str, after: int) -> Facts | None:
    from easeml_core.services.requests import answer_of

    return answer_of(store, int(subject))


def _trial(store: Store, subject: str, after: int) -> Facts | None:
    from easeml_core.services.trials import finished_trial

    return finished_trial(store, trial_id=int(subject))


def _test_set(store: Store, subject: str, after: int) -> Facts | None:
    from easeml_core.entities import StudyState
    from easeml_core.services.overview import live_sets, study_state

    study, _, purpose = subject.partition("/")
    state, live = study_state(store, study=study), live_sets(store, study=study)
    ready = state == StudyState.REFUSED or (purpose in live if purpose else bool(live))
    return {"study": study, "state": state, "sealed_sets": live} if ready else None


def _alert(store: Store, subject: str, after: int) -> Facts | None:
    from easeml_core.services.alerts import next_alert

    return next_alert(store, study=subject or None, after_id=after, kind="overfitting")


def _new_test_set(store: Store, subject: str, after: int) -> Facts | None:
    from easeml_core.services.alerts import next_alert

    return next_alert(store, study=subject or None, after_id=after, kind="new-test-set")


def _clear(store: Store, subject: str, after: int) -> Facts | None:
    from easeml_core.services.alerts import open_alerts

    still_open = open_alerts(store, study=subject or None, kind="overfitting", up_to_id=after or None)
    return None if still_open else {"study": subject or None, "alert_id": after, "message": _cleared(after)}


def _cleared(after: int) -> str:
    return f"no alert up to number {after} is open" if after else "no alert is open"


def _alert_since(store: Store, subject: str, after: int) -> Facts | None:
    from easeml_core.services.alerts import next_alert

    return next_alert(store, study=subject or None, after_id=after, kind="overfitting", cleared_too=True)


def _any(store: Store, subject: str, after: int) -> Facts | None:
    return _alert(store, subject, after) or (_clear(store, subject, after) if after else None)


QUESTIONS: Mapping[str, Question] = {
    "answer": Question(lambda subject: f"answer:{subject}", _answer),
    "trial": Question(lambda subject: f"trial:{subject}", _trial),
    "test-set": Question(lambda subject: f"study:{subject.partition('/')[0]}", _test_set),
    "alert": Question(lambda subject: f"alert:{subject or '*'}", _alert),
    "clear": Question(lambda subject: f"alert:{subject or '*'}", _clear),
    "any": Question(lambda subject: f"alert:{subject or '*'}", _any),
    "alert-since": Question(lambda subject: f"alert:{subject or '*'}", _alert_since),
    "new-test-set": Question(lambda subject: f"alert:{subject or '*'}", _new_test_set),
}


def look(store: Store, question: str, subject: str, after: int = 0) -> Facts | None:
    """Look once: the facts, or None for "not yet".

    Args:
        store: The database.
        question: A key of QUESTIONS.
        subject: The request, the trial or the study that is asked about, as text; for a test set ``study/purpose``.
        after: Id of the last event that was dealt with; only later ones count.
    """
    return QUESTIONS[question].look(store, subject, after)
