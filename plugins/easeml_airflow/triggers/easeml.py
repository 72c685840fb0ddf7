"""The trigger of all our tasks: waits for the answer to a question, and ends with an event whatever happens.

Any number of these share one LISTEN connection in a triggerer process; each look is a short query in a thread.
"""

from __future__ import annotations

import contextlib
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async

from easeml_airflow.errors import Outcome, outcome_of
from easeml_airflow.hooks.easeml import WORKER, EasemlHook, connect_metrics, watch_listeners
from easeml_airflow.triggers.questions import QUESTIONS, Facts, look
from easeml_airflow.version_compat import AirflowException, AirflowFailException, BaseTrigger, TriggerEvent
from easeml_core.errors import EasemlError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from easeml_core.store.database import Store


_COUNTED = {*QUESTIONS, "answers"}
"""What a metric names: an argument of a DAG could be any text."""


class EasemlTrigger(BaseTrigger):
    """Waits until a look gives facts.

    The constructor only assigns: one that raised would end the triggerer, at every start anew. What is wrong with an
    argument comes out as an event.

    Args:
        question: What is waited for, a key of ``QUESTIONS``.
        subject: The request, the trial or the study, as text.
        after: Id of the last event that was dealt with.
        easeml_conn_id: Connection to the database.
        poll_interval: Seconds between two looks when no notification comes.
    """

    def __init__(
        self,
        *,
        question: str,
        subject: str,
        easeml_conn_id: str | None = None,
        after: int = 0,
        poll_interval: float = 60.0,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's own constructor has no types
        self.question = question
        self.subject = subject
        self.after = after
        self.easeml_conn_id = easeml_conn_id
        self.poll_interval = poll_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments, from which the triggerer makes the trigger again."""
        return (
            "easeml_airflow.triggers.easeml.EasemlTrigger",
            {
                "question": self.question,
                "subject": self.subject,
                "after": self.after,
                "easeml_conn_id": self.easeml_conn_id,
                "poll_interval": self.poll_interval,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, then give one event: ``done`` with the facts, or ``error`` with the reason."""
        question = str(self.question) if str(self.question) in _COUNTED else "other"
        with pending(question):
            event = await self._event()
        ended(question, event.payload["status"])
        yield event

    async def _event(self) -> TriggerEvent:
        try:
            facts = await self._wait()
        except EasemlError as error:
            return _failed(str(error), retry=outcome_of(error) is Outcome.RETRY)
        except Exception as error:  # the task shall report it, not the triggerer
            return _failed(f"{type(error).__name__}: {error}", retry=True)
        return TriggerEvent({"status": "done", "facts": facts})

    async def _wait(self) -> Facts:
        store, until = await open_waiting(self.easeml_conn_id)
        topic = QUESTIONS[self.question].topic(self.subject)
        one_look = partial(look, store, self.question, self.subject, self.after)
        facts: Facts = await until(store.dsn, topic, one_look, poll_seconds=self.poll_interval)
        return facts


def facts_of(event: Any) -> Facts:
    """What the trigger's event says."""
    event = event if isinstance(event, dict) else {"status": repr(event)}
    if event.get("status") == "done":
        return dict(event["facts"])
    if event.get("status") == "error":
        raise (AirflowException if event.get("retry") else AirflowFailException)(str(event.get("message")))
    message = f"the trigger ended with an unknown event: {event}"
    raise AirflowException(message)


@contextlib.contextmanager
def pending(question: str) -> Iterator[None]:
    """Count one more wait of this triggerer, by what is waited for."""
    from easeml_core.services.telemetry import WAITS_PENDING

    WAITS_PENDING.note(1, question=question)
    try:
        yield
    finally:
        WAITS_PENDING.note(-1, question=question)


def ended(question: str, outcome: str) -> None:
    """Count a wait that has ended, ``done`` or with an ``error``, or an ``event`` of an asset watcher."""
    from easeml_core.services.telemetry import WAITS_ENDED

    WAITS_ENDED.note(1, question=question, outcome=outcome)


def _failed(message: str, *, retry: bool) -> TriggerEvent:
    return TriggerEvent({"status": "error", "message": message, "retry": retry})


async def open_waiting(conn_id: str | None) -> tuple[Store, Callable[..., Awaitable[Any]]]:
    """The store and the way to wait on it.

    It blocks (the connection; on the first call the import of the database driver), so a thread does it. Airflow 3.1
    asks for a connection on the event loop of the triggerer, which it finds only from asgiref's threads: from a thread
    of ``asyncio.to_thread`` it would use another loop, and the triggerer ends.
    """
    return await sync_to_async(_open, thread_sensitive=False)(conn_id)


def _open(conn_id: str | None) -> tuple[Store, Callable[..., Awaitable[Any]]]:
    from easeml_core.store.listen import until

    connect_metrics()
    watch_listeners()
    hook = EasemlHook(conn_id)
    return _shared_store(hook.url, hook.source), until


@lru_cache(maxsize=8)
def _shared_store(url: str, source: str) -> Store:
    """One store, thus one small pool of connections, for all triggers of a process that ask the same database."""
    from easeml_core.store.database import Store

    return Store(url, statement_timeout_seconds=30, lock_timeout_seconds=10, needs=WORKER, source=source)
