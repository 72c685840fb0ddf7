"""What our notifiers share: which events they tell, and where these come from."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseNotifier

from easeml_airflow import settings
from easeml_airflow.hooks.arguments import optional_plain, optional_text
from easeml_airflow.links import page_url
from easeml_airflow.notifications.subjects import ALARMS, SUBJECTS, event_of_task, one_line, subject_of
from easeml_core.config import require

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from easeml_airflow.notifications.subjects import Event


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
            event: As of ``events.Event``.
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
