"""Fetch remote data before the decision that needs it, outside any transaction and beside all other work.

A decision that needs the data stops with ``NotFetchedError``; a thread fetches while other requests go on, and the
decision starts again with the fetched file, which is held open for it. The state of fetches is in this process alone: a
referee that is killed leaves the request as it was, and the next one resumes from the cache or repeats the query.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from easeml_core.errors import StateError
from easeml_core.services.datasets.access import elsewhere, fetch, study_table

if TYPE_CHECKING:
    from collections.abc import Collection
    from contextlib import AbstractContextManager

    from easeml_core.data.sources.load import RawTable
    from easeml_core.data.split_spec import Split
    from easeml_core.entities import Study
    from easeml_core.files.remote_file import Progress
    from easeml_core.services.datasets.access import Fetched, Reach

logger = logging.getLogger(__name__)

MOST_FETCHES = 4
"""Fetches at once, with those that wait for their decision; one of each tenant."""


class NotFetchedError(Exception):
    """A decision needs data that is not on this machine; it must start again with them, and nothing has failed.

    Attributes:
        study: The study whose data they are.
    """

    def __init__(self, study: Study) -> None:
        self.study = study
        super().__init__(f"the data of study {study.name} were not fetched yet")

    @property
    def may_kill(self) -> bool:
        """Whether the fetch may end the process: rows of a query pass through its memory, a file does not."""
        return elsewhere(self.study) == "query"


@dataclass(slots=True)
class _Fetch:
    """The fetch of one request's data.

    Attributes:
        study: As it was at the request.
        around: Entered in the fetch's thread before it begins, left when it has ended.
        has_begun: Whether it was started.
        is_wanted: Whether a request waits for it.
        found: The result, or the error.
    """

    study: Study
    around: AbstractContextManager[None]
    has_begun: bool = False
    is_wanted: bool = True
    found: Fetched | Exception | None = None

    @property
    def is_open(self) -> bool:
        """Whether a request still waits for it."""
        return self.is_wanted and self.found is None

    def hear(self, _: Progress) -> None:
        if not self.is_wanted:
            message = f"no request waits for the data of study {self.study.name} any more"
            raise StateError(message)

    def let_go(self) -> None:
        if self.found is not None and not isinstance(self.found, Exception):
            self.found.held.close()


class Fetches:
    """Fetches for the requests of one referee.

    Each tenant has one at a time, and the tenant whose last turn is longest ago comes first: a tenant's slow server, or
    many requests, delay its own data only. A place is free again when the request is decided.

    Args:
        reach: What may be read.
    """

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._fetches: dict[int, _Fetch] = {}
        self._turns: dict[str, int] = {}
        self._has_ended = False  # since the last call of under_way
        self._changed = threading.Condition()

    def table(self, request_id: int, study: Study, split: Split) -> RawTable:
        """Return the rows of a study, from this machine alone."""
        if elsewhere(study) is None:
            return study_table(study, self._reach, split, None)
        with self._changed:
            one = self._fetches.get(request_id)
        if one is None or one.found is None or _asks(one.study) != _asks(study):
            raise NotFetchedError(study)
        if isinstance(one.found, Exception):
            raise one.found
        return study_table(study, self._reach, split, one.found)

    def ask(self, request_id: int, study: Study, around: AbstractContextManager[None]) -> None:
        """Fetch a study's data in a separate thread when its turn comes, within ``around``."""
        with self._changed:
            old = self._fetches.pop(request_id, None)
            if old is not None:
                old.let_go()
            self._fetches[request_id] = _Fetch(study, around)
            self._begin()

    def under_way(self) -> list[int]:
        """Return the requests that cannot be decided yet."""
        with self._changed:
            self._has_ended = False
            return [request_id for request_id, one in self._fetches.items() if one.found is None]

    def requests(self) -> list[int]:
        """Return the requests for which anything is fetched or held."""
        with self._changed:
            return list(self._fetches)

    def keep(self, undecided: Collection[int]) -> None:
        """Release what was fetched for other requests than these, and stop fetching for others."""
        with self._changed:
            for request_id in [known for known in self._fetches if known not in undecided]:
                one = self._fetches[request_id]
                one.is_wanted = False
                if one.found is not None or not one.has_begun:
                    self._fetches.pop(request_id).let_go()
            self._begin()

    def decided(self, request_id: int) -> None:
        """Release what this request was decided on."""
        with self._changed:
            one = self._fetches.pop(request_id, None)
            if one is not None:
                one.let_go()
                self._begin()

    def wait(self, seconds: float) -> bool:
        """Wait until a fetch has ended since ``under_way`` was called, at most so long; False if there is none."""
        with self._changed:
            is_any = self._has_ended or any(one.is_open for one in self._fetches.values())
            if is_any:
                self._changed.wait_for(lambda: self._has_ended, seconds)
            return is_any

    def _begin(self) -> None:
        """Start as many fetches as there are places."""
        busy = {one.study.tenant for one in self._fetches.values() if one.has_begun}
        places = MOST_FETCHES - sum(one.has_begun for one in self._fetches.values())
        while places > 0:
            waiting = [i for i, one in self._fetches.items() if not one.has_begun and one.study.tenant not in busy]
            if not waiting:
                return
            request_id = min(waiting, key=lambda i: (self._turns.get(self._fetches[i].study.tenant, 0), i))
            one = self._fetches[request_id]
            one.has_begun = True
            busy.add(one.study.tenant)
            self._turns[one.study.tenant] = max(self._turns.values(), default=0) + 1
            places -= 1
            name = f"fetch-{request_id}"
            threading.Thread(target=self._fetch, args=(request_id, one), name=name, daemon=True).start()

    def _fetch(self, request_id: int, one: _Fetch) -> None:
        with one.around:
            try:
                found: Fetched | Exception = fetch(one.study, self._reach, one.hear)
            except Exception as error:  # the decision reports it
                found = error
            self._end(request_id, one, found)

    def _end(self, request_id: int, one: _Fetch, found: Fetched | Exception) -> None:
        logger.info("request %d: the fetch of %s has ended", request_id, one.study.source)
        with self._changed:
            one.found, self._has_ended = found, True
            if not one.is_wanted:
                one.let_go()
                del self._fetches[request_id]
                self._begin()
            self._changed.notify_all()


def _asks(study: Study) -> tuple[str, ...]:
    """Return what decides which bytes are read."""
    return study.tenant, study.source
