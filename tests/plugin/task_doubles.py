"""What a task is given in these tests, and triggers run as the triggerer runs them."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any
from unittest.mock import MagicMock

from airflow.sdk.module_loading import import_string  # type: ignore[attr-defined]  # not in its __all__
from waiting import at_rest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SECONDS = 60
"""Longer than anything here takes; a wait that is longer has failed."""


class Instance:
    """A task instance that keeps what is pushed."""

    def __init__(
        self, task_id: str = "task", *, dag_id: str = "dag", run_id: str = "run", map_index: int | None = -1
    ) -> None:
        self.dag_id, self.run_id, self.task_id, self.map_index = dag_id, run_id, task_id, map_index
        self.pushed: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value


def context(task_id: str = "task", **of_instance: Any) -> dict[str, Any]:
    return {"ti": Instance(task_id, **of_instance), "outlet_events": MagicMock()}


def made_anew(trigger: Any) -> Any:
    """As the triggerer makes it."""
    path, arguments = trigger.serialize()
    return import_string(path)(**arguments)


def first_event(trigger: Any) -> Any:
    """The payload of the first event of a trigger that is made anew."""
    return asyncio.run(asyncio.wait_for(anext(made_anew(trigger).run()), SECONDS)).payload


@contextlib.asynccontextmanager
async def running(trigger: Any) -> AsyncIterator[Any]:
    """The events of a trigger that is made anew, and its end as the triggerer brings it about."""
    events = made_anew(trigger).run()
    try:
        yield events
    finally:
        await events.aclose()


async def told(events: Any, count: int) -> list[Any]:
    """The payloads of the next events of a trigger."""
    return [(await asyncio.wait_for(anext(events), SECONDS)).payload for _ in range(count)]


async def silent(events: Any) -> asyncio.Future[Any]:
    """A wait for the next event, after a look that has found none; the caller may await or cancel it."""
    waiting: asyncio.Future[Any] = asyncio.ensure_future(anext(events))
    await at_rest()
    assert not waiting.done()
    return waiting


async def cancel(waiting: asyncio.Future[Any]) -> None:
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting
