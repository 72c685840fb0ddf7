"""Tells people what is new in all studies."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from airflow.sdk import Variable

from easeml_airflow.errors import airflow_outcome
from easeml_airflow.operators.base import EasemlOperator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from easeml_airflow.notifications.base import EasemlNotifier

MOST_NAMED = 20
"""Events that the task's own result names at most."""


class NotifyOperator(EasemlOperator):
    """Looks at what is new since its last look, and has a notifier tell it; at least once, and hardly ever twice.

    What it has told stands in a Variable of Airflow of its own, written after each event. So a failed task tells the
    rest at its next try, one whose server was away for a day loses nothing, and two notifiers in two tasks do not wait
    for each other. An event that is told twice (the process died between telling and writing) has the same ``key``. The
    first look tells nothing: what has happened before is no news. Delete the Variable to begin anew.

    Run one at a time: in a DAG with ``max_active_runs=1``.

    Args:
        notifier: Tells the events; its ``events`` and ``studies`` say which.
        watcher: Name of the Variable; None means one made of the ids of DAG and task. Templated.
        kwargs: As of ``EasemlOperator``.
    """

    template_fields: Sequence[str] = ("watcher", *EasemlOperator.template_fields)

    def __init__(self, *, notifier: EasemlNotifier | None = None, watcher: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.notifier = notifier
        self.watcher = watcher

    def execute(self, context: Context) -> dict[str, Any]:
        """Look, tell, remember.

        Returns:
            ``{"told", "events"}``: how many events were told, and the keys of the first ones.
        """
        from easeml_core.config import require
        from easeml_core.services.operations import notifications

        with airflow_outcome():
            require(self.notifier is not None, "notifier", None, "one of easeml_airflow.notifications")
            assert self.notifier is not None
            notifier, told = self.notifier.rendered(context), list[str]()
            name = self.watcher or f"easeml_told_{self.dag_id}.{self.task_id}"
            seen = notifications.look(self.hook.get_store(), _kept(name))
            cursor = seen.start
            for event in seen.events:
                if notifier.wants(event):
                    notifier.deliver(event)
                    told.append(event["key"])
                cursor = notifications.after_telling(cursor, event)
                if told and told[-1] == event["key"]:
                    _keep(name, cursor)
            _keep(name, notifications.after_all(cursor, seen))
        self.log.info("%d of %d new events were told", len(told), len(seen.events))
        return {"told": len(told), "events": told[:MOST_NAMED]}


def _kept(name: str) -> Any:
    """The cursor, or None before the first look."""
    text = Variable.get(name, default=None)
    try:
        return None if text is None else dict(json.loads(text))
    except (TypeError, ValueError):
        return {}  # refused by the look, which says what to do


def _keep(name: str, cursor: dict[str, Any]) -> None:
    Variable.set(name, json.dumps(cursor), description="What this watcher of Ease.ml has told; delete to begin anew.")
