"""The quick checks of ``easeml doctor``: of what decides, the logins, the schema and the disks; and the health of them.

An installation's health is for load balancers and supervisors. Nothing in it depends on sealed data: the schema's
version, the age of requests without an answer, the referee's lease, and free space.
"""

from __future__ import annotations

import math
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

from easeml_core.entities import RequestKind
from easeml_core.errors import ConfigError, EasemlError, counted, reason_of
from easeml_core.formats.display import span
from easeml_core.formats.encoding import typed_record
from easeml_core.services.referee.place_in_queue import referee_text
from easeml_core.services.selection.policy import current_config, require_policy
from easeml_core.services.selection.scheduler_process import MOST_LOCKS
from easeml_core.settings.limits import PLUGIN
from easeml_core.store import schema
from easeml_core.store.artifacts import disk
from easeml_core.store.artifacts.disk import room_at
from easeml_core.store.queries import health
from easeml_core.store.tables import referee_claims, scheduler_requests
from easeml_core.store.tables.decisions import may_look, replaced_lately

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from sqlalchemy import Connection

    from easeml_core.store.database import Store


State = Literal["ok", "warning", "failed", "skipped"]

SLOW_SECONDS, DEAD_SECONDS = 60.0, 600.0
LITTLE_BYTES = 5_000_000_000
_MAY_WAIT = {RequestKind.GATE, RequestKind.METER}
"""Requests whose answers may be delayed on purpose: for labels, or until the hour of publication."""


@typed_record
class Check:
    """The result of one check.

    Attributes:
        name: Short; the same from run to run.
        state: ``failed`` must be repaired before the installation works as promised, ``warning`` later, ``skipped`` was
            not checked, and ``found`` says why.
        found: The observation, as part of a sentence.
        remedy: What to do; empty where there is nothing.
    """

    name: str
    state: State
    found: str
    remedy: str = ""


def check_referee(tx: Connection) -> Check:
    """Check that the referee answers its requests."""
    waiting = health.waiting_requests(tx)
    now = health.who_and_when(tx).now
    life = referee_claims.referee_life(tx)
    if not life.alive and life.beat_seconds is not None:
        said = f"{referee_text(life.beat_seconds)}; nothing is sealed, judged or promoted until then"
        return Check("referee", "failed" if waiting else "warning", said, "trials train on meanwhile")
    remedy = "see that `easeml referee` runs, and what its log says; it answers what waits as soon as it starts"
    ages = {kind: (many, (now - since).total_seconds()) for kind, (many, since) in waiting.items()}
    late = {kind: (many, age) for kind, (many, age) in ages.items() if age >= SLOW_SECONDS}
    if not late:
        many = sum(many for many, _ in ages.values())
        said = f"{counted(many, 'request waits', 'requests wait')}, none for long" if many else "nothing waits for it"
        return Check("referee", "ok", said)
    found = "; ".join(
        f"{counted(many, f'{kind} request')}, the oldest {age / 60:,.0f} min" for kind, (many, age) in late.items()
    )
    if any(age >= DEAD_SECONDS and kind not in _MAY_WAIT for kind, (_, age) in late.items()):
        return Check("referee", "failed", f"unanswered: {found}", remedy)
    held = " (labels may be missing, or answers leave at an hour of the day)" if set(late) <= _MAY_WAIT else ""
    return Check("referee", "warning", f"unanswered: {found}{held}", remedy)


def check_policy(tx: Connection) -> Check:
    """Check that an installed policy that is set is installed here, and that it chose in the last day."""
    if not may_look(tx):
        return Check("policy", "skipped", "the address of easeml_worker is needed to look")
    policy = current_config(tx).policy
    if not policy.startswith(PLUGIN):
        return Check("policy", "ok", f"{policy} chooses")
    try:
        require_policy(policy)
    except EasemlError as error:
        return Check("policy", "warning", str(error), "where it decides without it, the default policy chooses instead")
    chosen, replaced, why = replaced_lately(tx)
    if replaced:
        found = f"the default policy chose {replaced} of {counted(chosen, 'trial')} of the last day: {why}"
        return Check("policy", "warning", found, "see the log of the process that decides; correct the policy")
    return Check("policy", "ok", f"{policy} chooses; {counted(chosen, 'trial')} in the last day")


def check_scheduler(tx: Connection, logins: int) -> Check:
    """Check that a process decides what the logins of tenants ask for."""
    name, life = "scheduler", scheduler_requests.scheduler_life(tx)
    if not logins and not life.waiting and not life.alive:
        return Check(name, "ok", "`easeml scheduler` is not needed: no tenant has a login")
    waiting = counted(life.waiting, "request for suggestions waits", "requests for suggestions wait")
    remedy = "start `easeml scheduler` with the address of easeml_scheduler; what waits is decided as soon as it starts"
    if not life.alive:
        since = "" if life.beat_seconds is None else f" since {span(timedelta(seconds=life.beat_seconds))}"
        return Check(name, "failed" if life.waiting else "warning", f"no scheduler runs{since}; {waiting}", remedy)
    if life.oldest_seconds is not None and life.oldest_seconds >= SLOW_SECONDS:
        found = f"{waiting}, the oldest {span(timedelta(seconds=life.oldest_seconds))}"
        return Check(name, "warning", found, "see what the log of `easeml scheduler` says")
    return Check(name, "ok", f"{counted(life.alive, 'process', 'processes')} of `easeml scheduler` at work; {waiting}")


def check_schema(revision: str | None) -> Check:
    """Compare the schema's revision with the code's."""
    if revision == schema.REVISION:
        return Check("schema", "ok", f"revision {revision}")
    found = f"revision {revision or 'none'}, this version needs {schema.REVISION}"
    remedy = "run `easeml db upgrade` as easeml_owner; of a revision that is newer, upgrade this program instead"
    return Check("schema", "failed", found, remedy)


def check_rooms(places: dict[str, str | Path]) -> list[Check]:
    """Check the free space at each place, by the name of what lies there."""
    return [check_room(f"disk: {name}", place) for name, place in places.items()]


def check_room(name: str, place: str | Path) -> Check:
    """Check the free space at one place."""
    if "://" in str(place):
        return Check(name, "skipped", f"{str(place).partition('://')[0]}:// has no disk of this machine")
    try:
        room = room_at(place)
    except ConfigError as error:
        return Check(name, "failed", str(error), f"correct {disk.VARIABLE}, or leave it out")
    except OSError as error:
        return Check(name, "failed", f"{place} cannot be looked at: {reason_of(error)}", "give this account access")
    remedy = "make room, or name another place (--artifacts, EASEML_CACHE)"
    if not room.suffices:
        return Check(name, "failed", f"{room}: trainings and sealing wait", f"{remedy}; they go on by themselves")
    found = f"{room.free / 1e9:,.1f} GB free at {place}"
    is_plenty = room.free >= max(LITTLE_BYTES, 2 * room.least)
    return Check(name, "ok", found) if is_plenty else Check(name, "warning", found, remedy)


KEPT_CONNECTIONS = 50
"""For the processes of the installation itself, beside all logins."""


def strong_members(found: Sequence[tuple[str, str]]) -> tuple[bool, str]:
    """Say which roles can become another one that they must not; empty for none."""
    said = "; ".join(f"{member} is a member of {strong}" for member, strong in found)
    return any(member.startswith("easeml_") for member, _ in found), said


def crowding(room: health.Capacity) -> tuple[str, str]:
    """Say what the logins could use up together, and what to do; two empty texts for nothing."""
    if room.unlimited:
        return (
            f"no limit of connections: {', '.join(room.unlimited)}",
            "make them anew with `easeml tenant login`, or ALTER ROLE ... CONNECTION LIMIT 50",
        )
    if room.connections + KEPT_CONNECTIONS > room.most_connections and room.logins:
        return (
            f"logins may open {room.connections} of the server's {room.most_connections} connections",
            f"set max_connections to {room.connections + KEPT_CONNECTIONS} or more, or lower their CONNECTION LIMIT",
        )
    if room.logins * MOST_LOCKS > room.locks:
        return (
            f"logins may hold {room.logins * MOST_LOCKS:,} locks, and the server has room for {room.locks:,}",
            f"set max_locks_per_transaction to {math.ceil(room.logins * MOST_LOCKS / room.sessions)} or more",
        )
    return "", ""


KEPT_SECONDS = 5.0
"""How long an answer is kept: callers without a login cause one look in that time."""


@typed_record
class Health:
    """The health of an installation.

    Attributes:
        status: ``failed`` where pages and tasks cannot work; ``degraded`` where a part does not, e.g. the referee.
        ready: Whether the database can be reached and its schema is current.
        checks: What was found.
    """

    status: Literal["ok", "degraded", "failed"]
    ready: bool
    checks: list[Check]


def installation_health(open_store: Callable[[], Store], place: Callable[[], str]) -> Health:
    """Look at database, schema, referee, scheduler and disk."""
    checks = [*_of_database(open_store), *_of_disk(place)]
    ready = all(check.state == "ok" for check in checks if check.name in ("database", "schema"))
    sound = all(check.state in ("ok", "skipped") for check in checks)
    return Health("failed" if not ready else "ok" if sound else "degraded", ready, checks)


def _of_database(open_store: Callable[[], Store]) -> list[Check]:
    try:
        with open_store().begin(check_schema=False, writes=False) as tx:
            revision = health.revision(tx)
            if revision != schema.REVISION:
                return [Check("database", "ok", "it answers"), check_schema(revision)]
            return [
                Check("database", "ok", "it answers"),
                check_schema(revision),
                check_referee(tx),
                check_scheduler(tx, health.logins_of_tenants(tx)[0]),
            ]
    except EasemlError as error:
        return [Check("database", "failed", str(error))]


def _of_disk(place: Callable[[], str]) -> list[Check]:
    try:
        places: dict[str, str | Path] = {"artifacts": place()}
        checks = check_rooms(places)
    except EasemlError as error:
        return [Check("disk: artifacts", "skipped", str(error))]
    return [Check(c.name, "ok", "there is room") if c.state == "warning" else c for c in checks]


T = TypeVar("T")


class KeptLook(Generic[T]):
    """Keeps what a look has found for a few seconds. Safe to share between threads.

    Args:
        look: Finds it.
        clock: Seconds that never go back.
    """

    def __init__(self, look: Callable[[], T], clock: Callable[[], float] = time.monotonic) -> None:
        self._look, self._clock = look, clock
        self._kept: tuple[float, T] | None = None
        self._guard = threading.Lock()

    def __call__(self) -> T:
        """Return what was found, at most ``KEPT_SECONDS`` ago."""
        with self._guard:
            now = self._clock()
            if self._kept is None or now >= self._kept[0] + KEPT_SECONDS:
                self._kept = now, self._look()
            return self._kept[1]


class KeptHealth(KeptLook[Health]):
    """Keeps the health of an installation."""


def watch_changes(
    look: Callable[[], list[Check]], tell: Callable[[Check], object], stop: threading.Event, *, seconds: float
) -> bool:
    """Repeat checks until ``stop`` is set; report each whose state has changed, and at first those that are not ok."""
    states: dict[str, str] = {}
    while True:
        found = look()
        for check in found:
            before = states.get(check.name, "skipped" if check.state == "skipped" else "ok")
            if check.state != before:
                tell(check)
        states = {check.name: check.state for check in found}
        if stop.wait(seconds):
            return "failed" in states.values()
