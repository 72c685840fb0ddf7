"""Events, their subject lines, the event in a task's results, and what our notifiers share."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseNotifier

from easeml_airflow import settings
from easeml_airflow.hooks.arguments import optional_plain, optional_text
from easeml_airflow.links import page_url
from easeml_core.settings.config import require

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context
    from airflow.sdk.types import RuntimeTaskInstanceProtocol

    from easeml_core.entities import JsonObject

Event = dict[str, Any]
"""``kind``, ``study``, ``message`` and ``key``, which is the same whenever the same event is sent; maybe more."""

SUBJECTS = {
    "promotion": "{study}: model {model} is in production",
    "rollback": "{study}: model {model} is back in production",
    "rejection": "{study}: model {model} did not pass the gate",
    "new-test-set": "{study}: {needs} a new test set",
    "overfitting": "{study}: overfitting above the budget",
    "drift": "{study}: validation and test data differ",
    "study-finished": "{study}: its search has ended",
    "budget-spent": "{study}: its budget is spent",
    "not-held": "{study}: a stated result did not hold",
}
"""The subject by the kind of the event: every kind that there is."""

ALARMS = ("new-test-set", "overfitting", "drift", "budget-spent", "not-held")
"""Kinds that need an action."""

NEEDS = {
    "gate": "the gate needs",
    "meter": "the meter needs",
    "joint": "gate and meter need",
    "direct": "the second meter needs",
}
"""Who needs a new set, by the purpose of the one that has served."""

_MOVES = {"promote": "promotion", "force": "promotion", "rollback": "rollback"}
_FACTS = ("alert_id", "kind", "study", "purpose", "message", "symbol", "planned", "model_id", "request_id", "alert")
_LONGEST = 200


def subject_of(event: Event) -> str:
    """Return one line of printable text: no name in the event can begin a header or a new line.

    Example:
        >>> subject_of({"kind": "new-test-set", "study": "digits", "purpose": "meter"})
        'digits: the meter needs a new test set'
        >>> subject_of({"kind": "else", "study": "a" + chr(13) + chr(10) + "Bcc: b@c"})
        'a Bcc: b@c: news'
    """
    words = SUBJECTS.get(str(event.get("kind")), "{study}: news")
    needs = NEEDS.get(str(event.get("purpose")), NEEDS["gate"])
    return one_line(words.format(study=event.get("study", ""), model=event.get("model", ""), needs=needs))[:_LONGEST]


def one_line(text: Any) -> str:
    """The text with single spaces for white space, and without what cannot be printed."""
    return "".join(letter for letter in " ".join(str(text).split()) if letter.isprintable())


def event_of_task(ti: RuntimeTaskInstanceProtocol, task_id: str) -> Event | None:
    """Return the event in the XComs of one of our tasks, if any.

    A failing gate task pushes its facts one by one and returns nothing, so both are read.
    """
    returned = ti.xcom_pull(task_ids=task_id)
    if isinstance(returned, dict):
        return event_of(returned)
    if returned is not None:
        return None
    pushed = {name: ti.xcom_pull(task_ids=task_id, key=name) for name in _FACTS}
    return event_of({name: value for name, value in pushed.items() if value is not None})


def event_of(facts: JsonObject) -> Event | None:
    """Return the event in the facts of a sensor of alerts, the gate, the meter, or a change of production.

    Example:
        >>> event_of({"study": "digits", "kind": "gate", "symbol": "fail", "model_id": 7, "request_id": 3})["key"]
        'rejection-3'
        >>> event_of({"study": "digits", "kind": "gate", "symbol": "withheld", "request_id": 3}) is None
        True
    """
    request, study, kind = facts.get("request_id"), facts.get("study"), facts.get("kind")
    common: Event = {"study": study, "model": facts.get("model_id"), "purpose": facts.get("purpose")}
    if facts.get("alert_id"):
        return common | {"kind": str(kind), "key": f"alert-{facts['alert_id']}", "message": facts.get("message")}
    if facts.get("symbol") == "fail" and facts.get("planned", True):
        return common | {"kind": "rejection", "key": f"rejection-{request}", "message": facts.get("message")}
    if facts.get("alert"):
        return common | {"kind": "overfitting", "key": f"reading-{request}", "message": facts["alert"]}
    if isinstance(kind, str) and kind in _MOVES and not facts.get("refused"):
        return common | {"kind": _MOVES[kind], "key": f"request-{request}", "message": facts.get("message")}
    return None


class EasemlNotifier(BaseNotifier):
    """Base of notifiers: as a callback of our tasks it sends what the task found, in ``NotifyOperator`` all new events.

    Subclasses send one event in ``tell``. An event's text is never rendered as a template.

    Args:
        events: Kinds to send, as a list or as JSON text: keys of ``SUBJECTS``; None means all.
        studies: Names of the studies to tell of, likewise; None means all.
        task: As a callback: id of the task whose XCom tells the event; None means the one that it belongs to.
    """

    template_fields: Sequence[str] = ("events", "studies", "task")

    def __init__(
        self,
        *,
        events: Sequence[str] | str | None = None,
        studies: Sequence[str] | str | None = None,
        task: str | None = None,
    ) -> None:
        super().__init__()
        self.events = events
        self.studies = studies
        self.task = task

    def tell(self, event: Event) -> None:
        """Send one event, or raise: it is sent again then.

        Args:
            event: As of ``Event``.
        """
        raise NotImplementedError

    def notify(self, context: Context) -> None:
        """Tell what the task found, if it is anything, and wanted; what goes wrong, Airflow writes to the log."""
        ti = context["ti"]
        event = event_of_task(ti, optional_text(self.task) or ti.task_id)
        if event is None:
            self.log.info("there is nothing to tell")
        elif self.wants(event):
            self.deliver(event)

    def wants(self, event: Event) -> bool:
        """Return whether this event is sent.

        Raises:
            ConfigError: There is no such kind of event.
        """
        kinds, studies = optional_plain(self.events, "events"), optional_plain(self.studies, "studies")
        for kind in kinds or ():
            require(kind in SUBJECTS, "events", kind, "some of " + ", ".join(SUBJECTS))
        return (kinds is None or event["kind"] in kinds) and (studies is None or event["study"] in studies)

    def deliver(self, event: Event) -> None:
        """A line in the log, then ``tell``, with the address of the study's page as ``page``."""
        level = self.log.warning if event["kind"] in ALARMS else self.log.info
        level("%s. %s", subject_of(event), one_line(event.get("message") or ""))
        self.tell(event | {"page": page_of(event.get("study"))})

    def rendered(self, context: Context) -> EasemlNotifier:
        """A copy with its templates filled in."""
        mine = copy.copy(self)
        mine.render_template_fields(context)
        return mine

    def __repr__(self) -> str:
        """The kind alone: arguments may be addresses."""
        return f"<{type(self).__name__}>"


def page_of(study: Any) -> str | None:
    """Address of the study's page; None where ``[api] base_url`` is not set."""
    own = settings.own_address()
    return f"{own}{page_url(study)}" if own is not None and isinstance(study, str) else None


def parts(value: Any) -> list[str]:
    """Words with commas between, without empty ones.

    Example:
        >>> parts("ada@lab, , eve@lab"), parts("None"), parts(None)
        (['ada@lab', 'eve@lab'], [], [])
    """
    return [word.strip() for word in (optional_text(value) or "").split(",") if word.strip() not in ("", "None")]
