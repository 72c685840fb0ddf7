"""Waiting for what the product is about to do or to send, in place of a pause that is long enough."""

from __future__ import annotations

import asyncio
import select
import time

from easeml_core.store import listen

PAUSE_SECONDS = 0.005
LONGEST_SECONDS = 60.0


async def at_rest() -> None:
    """Return once every waiter of this loop has looked, has found nothing, and waits for a notification.

    There is at least one; a waiter that was woken for nothing and pauses before its next look is not at rest.

    Raises:
        TimeoutError: They do not come to rest.
    """
    async with asyncio.timeout(LONGEST_SECONDS):
        while not _all_wait():  # noqa: ASYNC110 - nothing tells when a waiter begins to wait
            await asyncio.sleep(PAUSE_SECONDS)


def _all_wait() -> bool:
    listeners = listen._listeners.get(asyncio.get_running_loop(), {}).values()
    events = [event for listener in listeners for events in listener._waiters.values() for event in events]
    return bool(events) and all(event._waiters for event in events)


def heard(listener: listen.BlockingListener, *topics: str) -> bool:
    """Return whether all of these topics are notified: a message arrives a moment after its transaction has ended."""
    connection, deadline = listener._connection, time.monotonic() + LONGEST_SECONDS
    connection.poll()  # what was read together with an earlier answer is on no socket any more
    while not {*topics} <= {each.payload for each in connection.notifies}:
        if not select.select([connection], [], [], max(0.0, deadline - time.monotonic()))[0]:
            return False
        connection.poll()
    return True
