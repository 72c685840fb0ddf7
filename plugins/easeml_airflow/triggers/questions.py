"""What can be waited for: for each question the topic that wakes the waiting, and the one look that answers it.

A sensor's ``poke``, an operator that polls and the trigger all look with the same function here. ``look`` gives
facts (JSON's own types) or None for "not yet". Facts come from rows, never from a notification alone, so an event
between two looks is not lost: the next look finds its row.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from easeml_core.entities import StudyState
from easeml_core.formats.encoding import to_json, typed_record

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from easeml_core.store.database import Store
    from easeml_core.store.tables.releases import Alert

Facts = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Question:
    """One kind of waiting.

    Attributes:
        topic: Payload of the notification that says "look again", from the subject.
        look: ``(store, subject, after) -> facts or None``; the facts are a record.
    """

    topic: Callable[[str], str]
    look: Callable[[Store, str, int], object]


def _answer(store: Store, subject: str, after: int) -> object:
    from easeml_core.services.referee.requests import answer_of

    return answer_of(store, int(subject))


def _trial(store: Store, subject: str, after: int) -> object:
    from easeml_core.services.trials.execution import finished_trial

    return finished_trial(store, trial_id=int(subject))


@typed_record
class ReadySets:
    """The live sealed sets of a study, by purpose, and its state."""

    study: str
    state: StudyState
    sealed_sets: list[str]


@typed_record
class NoAlert:
    """That no alert up to a number is open; ``study`` is None for all studies."""

    study: str | None
    alert_id: int
    message: str


def _test_set(store: Store, subject: str, after: int) -> ReadySets | None:
    from easeml_core.services.reports.overview import live_sets, study_state

    study, _, purpose = subject.partition("/")
    state, live = study_state(store, study=study), live_sets(store, study=study)
    ready = state in (StudyState.REFUSED, StudyState.ARCHIVED) or (purpose in live if purpose else bool(live))
    return ReadySets(study, StudyState(state), live) if ready else None


METER_KINDS = {"overfitting": ("overfitting",), "drift": ("drift",), "both": ("overfitting", "drift")}
"""Alerts of the meter by what a sensor asks for; a subject without a kind is about overfitting."""


def _split(subject: str) -> tuple[str | None, str]:
    """The study, or None for any, and what stands behind the slash."""
    study, _, rest = subject.partition("/")
    return study or None, rest


def meter_subject(study: str, kind: str = "overfitting", team: int | None = None) -> str:
    """The subject for alerts of the meter: ``study/kind/team``, as short as it can be.

    Example:
        >>> meter_subject("digits"), meter_subject("digits", "drift"), meter_subject("digits", team=2)
        ('digits', 'digits/drift', 'digits/overfitting/2')
    """
    if team is not None:
        return f"{study}/{kind}/{team}"
    return study if kind == "overfitting" else f"{study}/{kind}"


def _of_the_meter(subject: str) -> Facts:
    """What alerts a subject is about: study, kinds and team."""
    study, rest = _split(subject)
    kind, _, team = rest.partition("/")
    return {"study": study, "kind": METER_KINDS[kind or "overfitting"], "team": int(team) if team else None}


def _meter_alert(store: Store, subject: str, after: int, *, cleared_too: bool | None = None) -> Alert | None:
    from easeml_core.services.meter.alerts import next_alert

    return next_alert(store, **_of_the_meter(subject), after_id=after, cleared_too=cleared_too)


def _new_test_set(store: Store, subject: str, after: int, *, cleared_too: bool | None = None) -> Alert | None:
    from easeml_core.services.meter.alerts import next_alert

    study, purpose = _split(subject)
    kind, wanted = "new-test-set", purpose or None
    return next_alert(store, study=study, after_id=after, kind=kind, cleared_too=cleared_too, purpose=wanted)


def _clear(store: Store, subject: str, after: int) -> NoAlert | None:
    from easeml_core.services.meter.alerts import open_alerts

    about = _of_the_meter(subject)
    still_open = open_alerts(store, **about, up_to_id=after or None)
    message = f"no alert up to number {after} is open" if after else "no alert is open"
    return None if still_open else NoAlert(about["study"], after, message)


def _any(store: Store, subject: str, after: int) -> object:
    return _meter_alert(store, subject, after) or (_clear(store, subject, after) if after else None)


def _alert_topic(subject: str) -> str:
    return f"alert:{_split(subject)[0] or '*'}"


QUESTIONS: Mapping[str, Question] = {
    "answer": Question(lambda subject: f"answer:{subject}", _answer),
    "trial": Question(lambda subject: f"trial:{subject}", _trial),
    "test-set": Question(lambda subject: f"study:{subject.partition('/')[0]}", _test_set),
    "alert": Question(_alert_topic, _meter_alert),
    "alert-since": Question(_alert_topic, partial(_meter_alert, cleared_too=True)),
    "clear": Question(_alert_topic, _clear),
    "any": Question(_alert_topic, _any),
    "new-test-set": Question(_alert_topic, _new_test_set),
    "new-test-set-since": Question(_alert_topic, partial(_new_test_set, cleared_too=True)),
}


def look(store: Store, question: str, subject: str, after: int = 0) -> Facts | None:
    """Look once: the facts, or None for "not yet"."""
    facts: Facts | None = to_json(QUESTIONS[question].look(store, subject, after))
    return facts
