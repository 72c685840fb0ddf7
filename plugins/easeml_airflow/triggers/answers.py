"""The trigger of a task that waits for the answers to many requests at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from easeml_airflow.triggers.easeml import EasemlTrigger, open_waiting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easeml_airflow.triggers.questions import Facts
    from easeml_core.services.referee.release import AnswerWatch
    from easeml_core.store.database import Store

REST_SECONDS = 1.0
"""Shortest time between two looks: each answer of many notifies."""


class AnswersTrigger(EasemlTrigger):
    """Waits until the answers that are there are worth a next step (``AnswerWatch``).

    Its event tells how many there are; the task reads the answers themselves from the database.

    Args:
        request_ids: The requests, none of them answered.
        easeml_conn_id: Connection to the database.
        poll_interval: Seconds between two looks when no notification comes.
    """

    def __init__(
        self, *, request_ids: Sequence[int], easeml_conn_id: str | None = None, poll_interval: float = 60.0
    ) -> None:
        super().__init__(question="answers", subject="", easeml_conn_id=easeml_conn_id, poll_interval=poll_interval)
        self.request_ids = request_ids

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments, from which the triggerer makes the trigger again."""
        return (
            "easeml_airflow.triggers.answers.AnswersTrigger",
            {
                "request_ids": list(self.request_ids),
                "easeml_conn_id": self.easeml_conn_id,
                "poll_interval": self.poll_interval,
            },
        )

    async def _wait(self) -> Facts:
        store, until = await open_waiting(self.easeml_conn_id)
        watch = await asyncio.to_thread(_watch, store, self.request_ids)
        answered = await until(
            store.dsn,
            [f"answer:{request_id}" for request_id in self.request_ids],
            watch,
            poll_seconds=min(self.poll_interval, watch.quiet_seconds),
            rest_seconds=REST_SECONDS,
        )
        return {"answered": answered}


def _watch(store: Store, request_ids: Sequence[int]) -> AnswerWatch:
    """Blocks: the first call imports the service."""
    from easeml_core.services.referee.release import AnswerWatch

    return AnswerWatch(store, request_ids)
