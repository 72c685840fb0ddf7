"""The faults of rounds on a whole stack; as in ``fault_kinds``, each returns in words what was done, once it is over.

What the launcher supervises comes back by itself. Only where the launcher was killed is `make up` given again, as
a person or a unit of the service manager would.
"""

from __future__ import annotations

import contextlib
import signal
import time
from typing import TYPE_CHECKING

import psutil
import psycopg2
from fault_kinds import (
    NotReachedError,
    fill_artifact_disk,
    fill_database_disk,
    stop_server,
    use_up_connections,
)
from fault_world import send
from stack.components import SUGGESTING
from stack_world import PARTS

from easeml_core.errors import EasemlError
from easeml_core.store.server.place import locked
from easeml_core.store.server.server import START_LOCK

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping

    from stack_world import StackWorld

    StackFault = Callable[["StackWorld", random.Random], str]

ROLES = ("airflow", "worker", "referee", "scheduler")
_AWAY, _STOPPED = (5.0, 15.0), (3.0, 20.0)
_LOOK_SECONDS, _LONGEST_LOOK_SECONDS = 0.02, 60.0


# -- processes ---------------------------------------------------------------------------------------------------------


def kill_part(world: StackWorld, rng: random.Random) -> str:
    """SIGKILL of a part."""
    return _signalled(world, rng.choice(list(PARTS)), signal.SIGKILL)


def end_part(world: StackWorld, rng: random.Random) -> str:
    """SIGTERM of a part."""
    return _signalled(world, rng.choice(list(PARTS)), signal.SIGTERM)


def kill_scheduler_of_logins(world: StackWorld, rng: random.Random) -> str:
    """SIGSTOP of `easeml scheduler` until a request waits for it, then SIGKILL."""
    found = world.part(SUGGESTING)
    if not any(send(process.pid, signal.SIGSTOP) for process in found):
        raise NotReachedError(f"{SUGGESTING} does not run")
    try:
        _await_rows(world, *POINTS["a request for suggestions is open"])
    finally:
        _kill(found)
    return f"killed {SUGGESTING} while a request waits for it"


def cut_scheduler_of_logins(world: StackWorld, rng: random.Random) -> str:
    """The role of `easeml scheduler` may not connect until a request waits for it, and its connections are ended."""
    seconds = rng.uniform(*_AWAY)
    world.rows("ALTER ROLE easeml_scheduler CONNECTION LIMIT 0")
    try:
        world.rows("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'easeml_scheduler'")
        _await_rows(world, *POINTS["a request for suggestions is open"])
        time.sleep(seconds)
    finally:
        world.rows("ALTER ROLE easeml_scheduler CONNECTION LIMIT -1")
    return f"easeml_scheduler had no connection until {seconds:.1f} s after a request waited"


def stop_part(world: StackWorld, rng: random.Random) -> str:
    """SIGSTOP of a part, and SIGCONT."""
    name, seconds = rng.choice(list(PARTS)), rng.uniform(*_STOPPED)
    return _stopped(world.part(name), seconds, name)


def kill_parts(world: StackWorld, rng: random.Random) -> str:
    """SIGKILL of all parts at once, not of the launcher and the server."""
    found = [process for name in PARTS for process in world.part(name)]
    _kill(found)
    return f"killed all {len(found)} parts"


def kill_launcher(world: StackWorld, rng: random.Random) -> str:
    """SIGKILL of the launcher, then `make up`."""
    launcher = world.launcher()
    if launcher is None:
        raise NotReachedError
    launcher.kill()
    time.sleep(rng.uniform(0.2, 3.0))
    began = time.monotonic()
    world.up()
    return f"killed the launcher; make up took {time.monotonic() - began:.1f} s"


def kill_everything(world: StackWorld, rng: random.Random) -> str:
    """SIGKILL of every process of the stack, the server's included, by one command; then `make up`."""
    found = world.all_processes()
    _kill(found)
    time.sleep(rng.uniform(0.2, 3.0))
    began = time.monotonic()
    world.up()
    return f"killed all {len(found)} processes; make up took {time.monotonic() - began:.1f} s"


def kill_nearly_everything(world: StackWorld, rng: random.Random) -> str:
    """SIGKILL of each process of the stack but the launcher with a probability of .8."""
    launcher = world.launcher()
    found = [p for p in world.all_processes() if p != launcher and rng.random() < 0.8]
    _kill(found)
    return f"killed {len(found)} processes, not the launcher"


def kill_task(world: StackWorld, rng: random.Random) -> str:
    """SIGKILL of a process that runs a task, or of one that it has started."""
    deadline = time.monotonic() + _LONGEST_LOOK_SECONDS
    while not (found := world.tasks()):
        if time.monotonic() > deadline:
            raise NotReachedError
        time.sleep(_LOOK_SECONDS)
    victim = rng.choice(sorted(found, key=lambda p: p.pid))
    with contextlib.suppress(psutil.Error):
        words = " ".join(victim.cmdline()).strip()[-80:] or victim.name()
        victim.kill()
        return f"killed a task's process: {words}"
    raise NotReachedError


def kill_worker(world: StackWorld, rng: random.Random) -> str:
    """SIGKILL of a worker of the executor, idle or not."""
    found = [child for process in world.part("scheduler") for child in process.children()]
    if not found:
        raise NotReachedError
    _kill([rng.choice(sorted(found, key=lambda p: p.pid))])
    return "killed a worker of the executor"


# -- the server --------------------------------------------------------------------------------------------------------


def kill_backend(world: StackWorld, rng: random.Random) -> str:
    """SIGKILL of one process of the server: it ends all connections and recovers from its log."""
    return _signalled_backend(world, rng, signal.SIGKILL)


def end_backend(world: StackWorld, rng: random.Random) -> str:
    """SIGTERM of one process of the server."""
    return _signalled_backend(world, rng, signal.SIGTERM)


def stop_backend(world: StackWorld, rng: random.Random) -> str:
    """SIGSTOP of one process of the server, with its locks, and SIGCONT."""
    pid, role = _backend(world, rng)
    return _stopped([psutil.Process(pid)], rng.uniform(*_STOPPED), f"a backend of {role}")


def kill_postmaster(world: StackWorld, rng: random.Random) -> str:
    """SIGKILL of the server's first process."""
    if not send(world.postmaster(), signal.SIGKILL):
        raise NotReachedError
    return "SIGKILL of the server"


def database_away(world: StackWorld, rng: random.Random) -> str:
    """The server is halted and stays away for some seconds, whatever would start it."""
    number, seconds = rng.choice([signal.SIGINT, signal.SIGQUIT, signal.SIGKILL]), rng.uniform(*_AWAY)
    with locked(world.server.home / START_LOCK):
        if not send(world.postmaster(), number):
            raise NotReachedError
        time.sleep(seconds)
    return f"the server was away for {seconds:.1f} s after {number.name}"


def slow_server(world: StackWorld, rng: random.Random) -> str:
    """The processes of the server run a tenth of the time, in slices of .2 s."""
    seconds = rng.uniform(*_AWAY)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = [process.pid for process in world.server_processes()]
        for pid in found:
            send(pid, signal.SIGSTOP)
        time.sleep(0.18)
        for pid in found:
            send(pid, signal.SIGCONT)
        time.sleep(0.02)
    return f"the server ran a tenth of the time for {seconds:.1f} s"


# -- named points ------------------------------------------------------------------------------------------------------

_STATE = "SELECT 1 FROM task_instance WHERE state = '{state}' LIMIT 1"
_OPEN = """SELECT 1 FROM work.requests r WHERE r.kind = '{kind}'
  AND NOT EXISTS (SELECT FROM work.answers a WHERE a.request_id = r.id)"""
POINTS: Mapping[str, tuple[str, str]] = {
    "a task is queued": ("airflow", _STATE.format(state="queued")),
    "a task runs": ("airflow", _STATE.format(state="running")),
    "a task waits in the triggerer": ("airflow", _STATE.format(state="deferred")),
    "a trial runs": ("easeml", "SELECT 1 FROM work.trials WHERE state = 'RUNNING' AND lease_until > now() LIMIT 1"),
    "a request for suggestions is open": ("easeml", "SELECT 1 FROM work.suggestion_requests WHERE decided_at IS NULL"),
    "a registration is open": ("easeml", _OPEN.format(kind="seal")),
    "a gate request is open": ("easeml", _OPEN.format(kind="gate")),
    "a reading is open": ("easeml", _OPEN.format(kind="meter")),
    "a promotion is open": ("easeml", _OPEN.format(kind="promote")),
    "a claim is held": ("easeml", """SELECT 1 FROM sealed.claims c WHERE c.referee_id IS NOT NULL
      AND NOT EXISTS (SELECT FROM work.answers a WHERE a.request_id = c.request_id)"""),
}  # fmt: skip
"""Named points of a journey: the database that knows it, and a query that has a row while it is there."""

ACTIONS = (*PARTS, "a backend", "the server", "the launcher", "a task")


def at_point(world: StackWorld, rng: random.Random) -> str:
    """While a journey is at a named point, what drives it is killed."""
    point, action = rng.choice(list(POINTS)), rng.choice(ACTIONS)
    _await_rows(world, *POINTS[point])
    others: Mapping[str, StackFault] = {
        "a backend": kill_backend, "the server": kill_postmaster, "the launcher": kill_launcher, "a task": kill_task,
    }  # fmt: skip
    did = others[action](world, rng) if action in others else _signalled(world, action, signal.SIGKILL)
    return f"while {point}: {did}"


def none(world: StackWorld, rng: random.Random) -> str:
    """Nothing: how long it takes without a fault."""
    return "nothing"


KILL_SUGGESTING, CUT_SUGGESTING = "kill easeml scheduler", "cut easeml scheduler off"
STACK_FAULTS: Mapping[str, tuple[StackFault, int]] = {
    "none": (none, 2),
    "kill a part": (kill_part, 6),
    "end a part": (end_part, 2),
    "stop a part": (stop_part, 4),
    "kill all parts": (kill_parts, 2),
    KILL_SUGGESTING: (kill_scheduler_of_logins, 3),
    CUT_SUGGESTING: (cut_scheduler_of_logins, 2),
    "kill the launcher": (kill_launcher, 2),
    "kill everything": (kill_everything, 2),
    "kill nearly everything": (kill_nearly_everything, 2),
    "kill a task": (kill_task, 2),
    "kill a worker": (kill_worker, 2),
    "kill a backend": (kill_backend, 3),
    "end a backend": (end_backend, 2),
    "stop a backend": (stop_backend, 2),
    "kill the postmaster": (kill_postmaster, 2),
    "database away": (database_away, 3),
    "database slow": (slow_server, 2),
    "stop the server": (stop_server, 2),
    "server's connections used up": (use_up_connections, 2),
    "database disk full": (fill_database_disk, 2),
    "artifact disk full": (fill_artifact_disk, 1),
    "named point": (at_point, 10),
}
"""Name of each fault, as in the table, its function, and its weight among the rounds."""


# -- how it is done ----------------------------------------------------------------------------------------------------


def _signalled(world: StackWorld, name: str, number: signal.Signals) -> str:
    found = world.part(name)
    if not any(send(process.pid, number) for process in found):
        raise NotReachedError(f"{name} does not run")
    return f"{number.name} of {name}"


def _stopped(found: list[psutil.Process], seconds: float, what: str) -> str:
    if not any(send(process.pid, signal.SIGSTOP) for process in found):
        raise NotReachedError(f"{what} does not run")
    time.sleep(seconds)
    for process in found:
        send(process.pid, signal.SIGCONT)
    return f"stopped {what} for {seconds:.1f} s"


def _kill(found: list[psutil.Process]) -> None:
    for process in found:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def _backend(world: StackWorld, rng: random.Random) -> tuple[int, str]:
    role = rng.choice(ROLES)
    found = world.backends(role)
    if not found:
        raise NotReachedError(f"{role} is not connected")
    return rng.choice(found[:3]), role


def _signalled_backend(world: StackWorld, rng: random.Random, number: signal.Signals) -> str:
    pid, role = _backend(world, rng)
    send(pid, number)
    return f"{number.name} of a backend of {role}"


def _await_rows(world: StackWorld, database: str, query: str, *, seconds: float = _LONGEST_LOOK_SECONDS) -> None:
    """Wait until a query has a row.

    Raises:
        NotReachedError: If it has none for so long.
    """
    deadline = time.monotonic() + seconds
    with contextlib.closing(world.server.connect(database=database)) as opened, opened.cursor() as cursor:
        while time.monotonic() < deadline:
            try:
                cursor.execute(query)
                if cursor.fetchone():
                    return
            except (psycopg2.Error, EasemlError) as error:
                raise NotReachedError(str(error)) from error
            time.sleep(_LOOK_SECONDS)
    raise NotReachedError(query)
