"""Several transactions at once, each one statement further at a time, in an order that a test chooses.

An actor does its work in a thread that stops before every statement and every commit until it is let go on. While it
waits for a lock of another actor it counts as blocked. Its connection can be ended where it stands, also right after
the server has committed and before the client hears of it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any

import psycopg2
from sqlalchemy import event

from easeml_core.store.database import Store

if TYPE_CHECKING:
    from collections.abc import Callable

GONE = "SELECT pg_terminate_backend(%s)"
_BLOCKED = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"
_LOOK_SECONDS, _LONGEST_SECONDS = 0.02, 60.0


class _EndedError(BaseException):
    """The test is over: the thread of an actor that still stands ends."""


class Actor:
    """One who works on the database with separate connections.

    Args:
        url: Address of its role.
        administrator: An open connection in autocommit, by which the actor is looked at.
    """

    def __init__(self, url: str, administrator: Any) -> None:
        self.store = Store(url)
        self._administrator = administrator
        self._thread: threading.Thread | None = None
        self._stands, self._go = threading.Event(), threading.Semaphore(0)
        self._is_free = self._is_over = self._loses_commit = False
        self.at_commit, self.pid = False, 0
        self.outcome: Any = None
        event.listen(self.store._engine, "before_cursor_execute", self._before_statement)
        event.listen(self.store._engine, "commit", self._before_commit)

    # -- what a test does with it --------------------------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        """Whether it has nothing to do."""
        return self._thread is None

    def begin(self, work: Callable[[], Any]) -> None:
        """Begin a piece of work, up to its first statement."""
        self.outcome, self._is_free = None, False
        self._stands.clear()
        self._thread = threading.Thread(target=self._work, args=(work,), daemon=True)
        self._thread.start()
        self._settle()

    def step(self, count: int = 1) -> None:
        """Go on by so many statements or commits, as far as no lock of another is in the way."""
        for _ in range(count):
            if self.is_idle or not self._stands.is_set():
                break
            self._let_go()
            self._settle()
        else:
            return
        self._settle()  # a lock may have come free meanwhile

    def lose(self) -> None:
        """End its connection where it stands; at a commit, after the server has committed."""
        if self.is_idle or not self._stands.is_set():
            return
        if self.at_commit:
            self._loses_commit = True
        else:
            self._terminate()
        self.step()

    def finish(self) -> None:
        """Go on to the end of the work, without a stop; others must be let go on too."""
        self._is_free = True
        self._let_go()

    def join(self) -> None:
        """Wait for the end of the work."""
        if self._thread is not None:
            self._thread.join(_LONGEST_SECONDS)
            assert not self._thread.is_alive(), "it never ended"
            self._thread = None

    def close(self) -> None:
        """End it, whatever it does."""
        self._is_over = True
        self._go.release()
        if self._thread is not None:
            self._thread.join(_LONGEST_SECONDS)
        self.store.close()

    # -- how it stops --------------------------------------------------------------------------------------------------

    def _let_go(self) -> None:
        self._stands.clear()
        self._go.release()

    def _settle(self) -> None:
        """Wait until it stands, has ended, or waits for a lock."""
        deadline = time.monotonic() + _LONGEST_SECONDS
        while self._thread is not None:
            if not self._thread.is_alive():
                self._thread = None
            elif self._stands.wait(_LOOK_SECONDS) or self._is_blocked():
                return
            assert time.monotonic() < deadline, "it neither goes on nor waits for a lock"

    def _is_blocked(self) -> bool:
        with self._administrator.cursor() as cursor:
            cursor.execute(_BLOCKED, [self.pid])
            return bool(cursor.fetchone()[0])

    def _work(self, work: Callable[[], Any]) -> None:
        try:
            self.outcome = work()
        except _EndedError:
            pass
        except Exception as error:
            self.outcome = error

    def _stop(self) -> None:
        if self._thread is not threading.current_thread() or self._is_free:
            return
        self._stands.set()
        self._go.acquire()
        if self._is_over:
            raise _EndedError

    def _before_statement(self, connection: Any, *_: Any) -> None:
        self.at_commit, self.pid = False, connection.connection.dbapi_connection.info.backend_pid
        self._stop()

    def _before_commit(self, connection: Any) -> None:
        driver = connection.connection.dbapi_connection
        self.at_commit, self.pid = True, driver.info.backend_pid
        self._stop()
        if self._loses_commit:
            self._loses_commit = False
            driver.commit()
            self._terminate()

    def _terminate(self) -> None:
        with contextlib.suppress(psycopg2.Error), self._administrator.cursor() as cursor:
            cursor.execute(GONE, [self.pid])
        deadline = time.monotonic() + _LONGEST_SECONDS
        with self._administrator.cursor() as cursor:
            while time.monotonic() < deadline:
                cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", [self.pid])
                if cursor.fetchone() == (0,):
                    return
                time.sleep(_LOOK_SECONDS)
