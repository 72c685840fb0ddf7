"""One way to suggestions for every role: the scheduler itself, or a request that its process decides.

The database says which: a role with the right to add suggestions decides here (``easeml_worker`` of an installation of
one team), any other one files a request (``easeml_device``, the logins of tenants; ADR 0032).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from easeml_core.config import require
from easeml_core.device_requests import check_device_request
from easeml_core.errors import StateError, StoreUnavailableError
from easeml_core.services.selection.scheduler import MOST_SUGGESTED, LiveScheduler, Suggestions
from easeml_core.services.selection.scheduler_process import FAULT
from easeml_core.services.telemetry import trace_parent
from easeml_core.store import logins
from easeml_core.store.database import DECISIONS_CHANNEL
from easeml_core.store.listen import wait_here
from easeml_core.store.tables import decisions, scheduler_requests

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from easeml_core.store.database import Store
    from easeml_core.store.tables.scheduler_requests import FiledSuggestionRequest, SuggestionRequest

WAIT_SECONDS = 300.0
"""How long a caller waits for the scheduler's process; a further call with the same key goes on waiting."""

_LOOK_SECONDS = 1.0


class Suggester(Protocol):
    """Suggests trials of one choice of studies and implementations."""

    def ask(self, *, count: int = 1, device: str | None = None, request_key: str) -> Suggestions:
        """Return up to ``count`` trials to run next; the same key gives the same trials."""


def suggester_for(
    store: Store,
    *,
    policy: str | None = None,
    usual_policy: str | None = None,
    studies_only: Sequence[str] | None = None,
    functions: Collection[str] | Mapping[str, str] = (),
    trainers: bool = True,
    runtimes: Collection[str] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Suggester:
    """Return what suggests trials to this role; arguments as in ``LiveScheduler``.

    Args:
        store: Any role but ``easeml_referee``.
        policy: Only for a role that suggests itself: the scheduler's process has one for all.
        usual_policy: What a role that suggests itself uses where ``policy`` is None; None for that of the installation.
        studies_only: Names of the studies to choose from; None for all active ones that the role may have.
        functions: Names of the caller's training functions, or these with the hashes of their sources.
        trainers: Whether the caller has the trainers of this package.
        runtimes: Container programs of the caller's machine; None where that is not known.
        should_stop: Asked every second while a request waits; True ends the wait without trials.

    Raises:
        ConfigError: There is no such policy, or the role may choose none.
    """
    with store.begin(writes=False) as tx:
        decides_here = scheduler_requests.may_suggest(tx)
    if not decides_here:
        require(
            policy is None, "policy", policy, "left out: the scheduler's process (`easeml scheduler`) has one for all"
        )
        return FiledSuggester(
            store,
            studies_only=studies_only,
            functions=functions,
            trainers=trainers,
            runtimes=runtimes,
            should_stop=should_stop,
        )
    return LiveScheduler(
        store,
        policy=policy or usual_policy,
        studies_only=studies_only,
        functions=functions,
        trainers=trainers,
        runtimes=runtimes,
    )


class FiledSuggester:
    """Files requests for suggestions, and waits for the scheduler's process to decide them.

    Args:
        store: A role that may file requests.
        studies_only: As in ``suggester_for``, and so are the others.
        functions: Names of training functions, or these with the hashes of their sources.
        trainers: Whether the caller has the trainers of this package.
        runtimes: Container programs of the caller's machine; None where that is not known.
        should_stop: Asked every second while a request waits.
        wait_seconds: How long a call waits for a decision, >= 0.
    """

    def __init__(
        self,
        store: Store,
        *,
        studies_only: Sequence[str] | None = None,
        functions: Collection[str] | Mapping[str, str] = (),
        trainers: bool = True,
        runtimes: Collection[str] | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        self._store, self._should_stop, self._wait_seconds = store, should_stop, wait_seconds
        self._studies = None if studies_only is None else tuple(studies_only)
        hashes = dict(functions) if isinstance(functions, Mapping) else dict.fromkeys(functions)
        self._functions: dict[str, str | None] = {**hashes}
        self._trainers = trainers
        self._runtimes = None if runtimes is None else tuple(runtimes)

    def ask(self, *, count: int = 1, device: str | None = None, request_key: str) -> Suggestions:
        """Return up to ``count`` trials to run next; the same key gives the same trials.

        Raises:
            ConfigError: Count or device is not allowed.
            StateError: The process refuses the request.
            StoreUnavailableError: The database cannot be reached, or the process has not decided in time or met a
                fault; a further call with the same key goes on.
        """
        is_count = type(count) is int and 1 <= count <= MOST_SUGGESTED
        require(is_count, "count", count, f"a whole number from 1 to {MOST_SUGGESTED}")
        require(bool(request_key), "request_key", request_key, "not empty: it makes the call repeatable")
        if device is not None:
            check_device_request("device", device)
        filed = self._file(count, device, request_key)
        decided = self._wait(filed.id)
        if decided is not None and decided.refusal is not None and filed.was_there:
            filed = self._file(count, device, request_key)  # refused for an earlier caller: asked anew
            decided = self._wait(filed.id)
        if decided is None:
            if self._should_stop():
                return Suggestions("", (), "the caller was stopped before the scheduler decided")
            message = (
                f"the scheduler has not decided request {filed.id} for suggestions within {self._wait_seconds:g} s; "
                "see that `easeml scheduler` runs with this database, then try again: the same request goes on waiting"
            )
            raise StoreUnavailableError(message)
        if decided.refusal is not None:
            message = f"the scheduler refuses request {filed.id} for suggestions: {decided.refusal}"
            raise (StoreUnavailableError if decided.refusal == FAULT else StateError)(message)
        with self._store.begin(writes=False) as tx:
            return Suggestions.of(*decisions.batch_of_request(tx, logins.own_key(tx, request_key)))

    def _file(self, count: int, device: str | None, request_key: str) -> FiledSuggestionRequest:
        with self._store.begin() as tx:
            return scheduler_requests.file_suggestion_request(
                tx,
                request_key=request_key,
                requested=count,
                device=device,
                studies=self._studies,
                functions=self._functions,
                trainers=self._trainers,
                runtimes=self._runtimes,
                traceparent=trace_parent(),
            )

    def _wait(self, number: int) -> SuggestionRequest | None:
        """Return the request once it is decided; None where the time is over or the caller was stopped."""

        def look() -> tuple[SuggestionRequest | None] | None:
            if self._should_stop():
                return (None,)
            with self._store.begin(writes=False) as tx:
                found = scheduler_requests.get_suggestion_request(tx, number)
            return None if found.decided_at is None else (found,)

        waiting = {"seconds": self._wait_seconds, "poll_seconds": _LOOK_SECONDS}
        seen = wait_here(self._store.dsn, DECISIONS_CHANNEL, look, **waiting)
        return None if seen is None else seen[0]
