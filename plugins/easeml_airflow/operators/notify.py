"""Notifies users of new events in all studies."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from airflow.sdk import Variable

from easeml_airflow.errors import airflow_outcome
from easeml_airflow.hooks.easeml import require_missing
from easeml_airflow.operators.base import EasemlOperator
from easeml_core.formats.encoding import to_json, typed_record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from easeml_airflow.notifications.base import EasemlNotifier
    from easeml_core.services.operations.notifications import NewsCursor

MOST_NAMED = 20
"""Events that the task's own result names at most."""


@typed_record
class SentNotifications:
    """How many events were sent, and the keys of the first ones."""

    told: int
    events: list[str]


class NotifyOperator(EasemlOperator):
    """Sends the events since its last run to a notifier, each at least once.

    The last event sent is kept in an Airflow Variable of this task, written after each event. So the next try of a
    failed task sends the rest, and no event is lost while a server is away. An event that is sent twice (the process
    died before the Variable was written) has the same ``key``. The first run sends nothing. Delete the Variable to
    begin again.

    Run one at a time: in a DAG with ``max_active_runs=1``.

    Args:
        notifier: Sends the events; its ``events`` and ``studies`` select them.
        watcher: Name of the Variable; None means one made of the ids of DAG and task. Templated.
        kwargs: As of ``EasemlOperator``.
    """

    template_fields: Sequence[str] = ("watcher", *EasemlOperator.template_fields)

    def __init__(self, *, notifier: EasemlNotifier | None = None, watcher: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.notifier = notifier
        self.watcher = watcher

    def execute(self, context: Context) -> Any:
        """Send the new events.

        Returns:
            ``{"told", "events"}``: how many events were sent, and the keys of the first ones.
        """
        from easeml_core.services.operations import notifications
        from easeml_core.settings.config import require

        with airflow_outcome():
            require(self.notifier is not None, "notifier", None, "one of easeml_airflow.notifications")
            assert self.notifier is not None
            notifier, sent = self.notifier.rendered(context), list[str]()
            name = self.watcher or f"easeml_told_{self.dag_id}.{self.task_id}"
            seen = notifications.look(self.hook.get_store(), _kept(name))
            cursor = seen.start
            for news in seen.events:
                event = to_json(news)
                if notifier.wants(event):
                    notifier.deliver(event)
                    sent.append(news.key)
                cursor = notifications.after_telling(cursor, news)
                if sent and sent[-1] == news.key:
                    _keep(name, cursor)
            _keep(name, notifications.after_all(cursor, seen))
        self.log.info("%d of %d new events were sent", len(sent), len(seen.events))
        return to_json(SentNotifications(len(sent), sent[:MOST_NAMED]))


def _kept(name: str) -> Any:
    """The cursor, or None before the first look."""
    text = Variable.get(name, default=None)
    if text is None:
        require_missing("variable", name)  # a look that begins anew tells nothing of what has happened before
    try:
        return None if text is None else dict(json.loads(text))
    except (TypeError, ValueError):
        return {}  # refused by the look, which says what to do


def _keep(name: str, cursor: NewsCursor) -> None:
    words = "The last event that this Ease.ml watcher sent; delete to begin again."
    Variable.set(name, json.dumps(cursor.to_stored()), description=words)
