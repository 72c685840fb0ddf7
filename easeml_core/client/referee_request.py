"""A request to the referee, and the wait for its answer: in a thread, or on an event loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from easeml_core.display.tables import html_table
from easeml_core.errors import StateError

if TYPE_CHECKING:
    from easeml_core.entities import GivenAnswer
    from easeml_core.services.referee.place_in_queue import QueuePlace
    from easeml_core.store.database import Store

MAY_WAIT = "labels may be missing, or answers leave at an hour of the day; the same request key gives its answer later"
"""Why the gate may have no answer yet, beside the queue; which reason holds is not public."""


class RefereeRequest:
    """A request that was filed; it stays when the program ends, and its key finds it again.

    ``await request`` waits for its answer on an event loop.

    Attributes:
        request_id: Its number.
        request_key: The same call with this key gives the same request, and the same answer.
        study: Name of the study.
    """

    def __init__(self, store: Store, request_id: int, request_key: str, study: str) -> None:
        self._store = store
        self.request_id, self.request_key, self.study = request_id, request_key, study
        self._answer: GivenAnswer | None = None

    def answer(self) -> GivenAnswer | None:
        """Return the referee's answer, or None while there is none; a verdict has its ``symbol``.

        Raises:
            StoreError: The database cannot be reached.
        """
        from easeml_core.services.referee.requests import answer_of

        if self._answer is None:
            self._answer = answer_of(self._store, self.request_id)
        return self._answer

    def place(self) -> QueuePlace | None:
        """Return its place in the referee's queue; None where it waits no more."""
        from easeml_core.services.referee.place_in_queue import place_of

        return place_of(self._store, self.request_id)

    def wait(self, seconds: float = 600.0) -> GivenAnswer:
        """Return the answer once it is there.

        Args:
            seconds: Longest wait, >= 0.

        Raises:
            StateError: There is no answer in time; says how many requests are ahead, and whether a referee runs.
            StoreError: The database cannot be reached.
        """
        from easeml_core.services.referee.requests import wait_for_answer

        if self._answer is None:
            self._answer = wait_for_answer(self._store, self.request_id, timeout=seconds, hint=MAY_WAIT)
        return self._answer

    async def wait_async(self, seconds: float = 600.0) -> GivenAnswer:
        """Return the answer once it is there, without blocking the event loop; arguments and errors as of ``wait``."""
        from easeml_core.services.referee.place_in_queue import late_text, place_of
        from easeml_core.store.listen import until

        if self._answer is None:
            topic = f"answer:{self.request_id}"
            try:
                async with asyncio.timeout(seconds):
                    self._answer = await until(self._store.dsn, topic, self.answer, poll_seconds=5.0)
            except TimeoutError:
                place = await asyncio.to_thread(place_of, self._store, self.request_id)
                late = late_text(place)
                message = f"no answer to request {self.request_id} within {seconds:g} s: {late} ({MAY_WAIT})"
                raise StateError(message) from None
        return self._answer

    def __await__(self) -> Any:
        return self.wait_async().__await__()

    def __repr__(self) -> str:
        told = "no answer seen yet" if self._answer is None else self._answer.message
        return f"<{type(self).__name__} {self.request_id} about study {self.study!r}: {told}>"

    def _repr_html_(self) -> str:
        row = {
            "request": self.request_id,
            "study": self.study,
            "key": self.request_key,
            "answer": "" if self._answer is None else self._answer.message,
        }
        return html_table("", {name.capitalize(): name for name in row}, [row])
