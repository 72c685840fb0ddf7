"""Sends events to a Python callable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_airflow.notifications.base import EasemlNotifier

if TYPE_CHECKING:
    from collections.abc import Callable

    from easeml_airflow.notifications.subjects import Event


class FunctionNotifier(EasemlNotifier):
    """Calls a function with each event: a ticket, a pager, a message bus.

    It runs in the task's process. An error fails the task, so the event is sent again with the same
    ``event["key"]``.

    Args:
        function: Takes the event, a dictionary of plain JSON with ``kind``, ``study``, ``message``, ``key``, and where
            known ``model``, ``tenant``, ``at``, ``page``, and ``head``, the evidence that left with a verdict.
        kwargs: As of ``EasemlNotifier``.
    """

    def __init__(self, function: Callable[[Event], object], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.function = function

    def tell(self, event: Event) -> None:
        """Call it with a copy of the event."""
        self.function(dict(event))
