"""The faults: what is done to a running installation, for how long, and how it is undone.

Each is a function of the world and of the round's random numbers. It returns once the fault is over: a killed process
is for the supervisor to start again, a full disk has room again, the network is healed. What it returns says in words
what was done. Every function is a row of the table of results, under its name.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shutil
import signal
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import psutil
import psycopg2
from fault_proxy import Moment, Trap, Weather
from fault_world import DEVICES, OF_DEVICE, PEOPLE, REFEREES, SCHEDULER, Served, World, role_of, send

from easeml_core.store.server.cluster import LOOPBACK

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    Fault = Callable[["World", random.Random], str]

PARTS = (*DEVICES, *REFEREES, PEOPLE, SCHEDULER)
ROLES = ("worker", "referee", "device", "scheduler")
_LONGEST_TRAP_SECONDS = 25.0
_SHORT, _LONG = (0.2, 2.0), (2.0, 6.0)


class NotReachedError(Exception):
    """The fault could not be made: its target was not there, or its statement never came."""


# -- processes ---------------------------------------------------------------------------------------------------------


def kill_part(world: World, rng: random.Random) -> str:
    """SIGKILL of a device, a referee or the people."""
    return _signalled(world, rng.choice(PARTS), signal.SIGKILL)


def kill_all_parts(world: World, rng: random.Random) -> str:
    """SIGKILL of all parts at once."""
    hit = [part for part in PARTS if send_to(world, part, signal.SIGKILL)]
    return f"killed {', '.join(hit)}"


def kill_everything(world: World, rng: random.Random) -> str:
    """SIGKILL of all parts, of what they have started, and of the server with all its processes."""
    world.holds_server = True
    try:
        victims = [*world.strays(), *(c for part in PARTS for c in world.children(part)), *world.server_processes()]
        for part in PARTS:
            send_to(world, part, signal.SIGKILL)
        for process in victims:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        time.sleep(rng.uniform(*_SHORT))
    finally:
        world.holds_server = False
    return f"killed all parts and {len(victims)} other processes"


def kill_child(world: World, rng: random.Random) -> str:
    """SIGKILL of a process that trains, runs a model, or forks those."""
    found: list[psutil.Process] = []
    deadline = time.monotonic() + 5
    while not found and time.monotonic() < deadline:
        found = [*world.strays(), *(c for part in (*DEVICES, *REFEREES) for c in world.children(part))]
        time.sleep(0.01)
    if not found:
        raise NotReachedError
    victim = rng.choice(sorted(found, key=lambda p: p.pid))
    with contextlib.suppress(psutil.Error):
        words = " ".join(victim.cmdline()[:4])[-60:]
        victim.kill()
        return f"killed a child: {words}"
    raise NotReachedError


def stop_part(world: World, rng: random.Random) -> str:
    """SIGSTOP of a part, SIGCONT some seconds later, when its lease may be over."""
    part, seconds = rng.choice(PARTS), rng.uniform(0.5, 8.0)
    pid = _pid(world, part)
    send(pid, signal.SIGSTOP)
    time.sleep(seconds)
    send(pid, signal.SIGCONT)
    return f"stopped {part} for {seconds:.1f} s"


def end_part(world: World, rng: random.Random) -> str:
    """SIGTERM of a part."""
    return _signalled(world, rng.choice(PARTS), signal.SIGTERM)


# -- the server --------------------------------------------------------------------------------------------------------


def kill_backend(world: World, rng: random.Random) -> str:
    """SIGKILL of one process of the server: it ends all connections and recovers from its log."""
    pid, role = _backend(world, rng)
    send(pid, signal.SIGKILL)
    return f"killed a backend of {role}"


def end_backend(world: World, rng: random.Random) -> str:
    """SIGTERM of one process of the server."""
    pid, role = _backend(world, rng)
    send(pid, signal.SIGTERM)
    return f"ended a backend of {role}"


def stop_backend(world: World, rng: random.Random) -> str:
    """SIGSTOP of one process of the server, with its locks, and SIGCONT."""
    (pid, role), seconds = _backend(world, rng), rng.uniform(*_LONG)
    send(pid, signal.SIGSTOP)
    time.sleep(seconds)
    send(pid, signal.SIGCONT)
    return f"stopped a backend of {role} for {seconds:.1f} s"


def kill_postmaster(world: World, rng: random.Random) -> str:
    """SIGKILL of the server's first process; the supervisor starts it again after some time."""
    return _server_down(world, rng, signal.SIGKILL)


def end_postmaster(world: World, rng: random.Random) -> str:
    """SIGINT (fast) or SIGQUIT (immediate) of the server's first process."""
    return _server_down(world, rng, rng.choice([signal.SIGINT, signal.SIGQUIT]))


def stop_server(world: Served, rng: random.Random) -> str:
    """SIGSTOP of all processes of the server, and SIGCONT: it hangs."""
    seconds, found = rng.uniform(*_LONG), world.server_processes()
    for process in found:
        send(process.pid, signal.SIGSTOP)
    time.sleep(seconds)
    for process in found:
        send(process.pid, signal.SIGCONT)
    return f"stopped {len(found)} processes of the server for {seconds:.1f} s"


# -- room --------------------------------------------------------------------------------------------------------------


def fill_database_disk(world: Served, rng: random.Random) -> str:
    """The file system of the server's data has no byte left."""
    return _filled(world, "database", rng)


def fill_artifact_disk(world: Served, rng: random.Random) -> str:
    """The file system of artifacts has no byte left."""
    return _filled(world, "artifacts", rng)


def use_up_database_inodes(world: Served, rng: random.Random) -> str:
    """The file system of the server's data takes no further file."""
    return _without_inodes(world, "database", rng)


def use_up_artifact_inodes(world: Served, rng: random.Random) -> str:
    """The file system of artifacts takes no further file."""
    return _without_inodes(world, "artifacts", rng)


def limit_role(world: World, rng: random.Random) -> str:
    """A role may not connect, or has fewer connections than its parts want; open ones are ended."""
    role, most, seconds = rng.choice(ROLES), rng.randrange(3), rng.uniform(*_LONG)
    world.rows(f"ALTER ROLE easeml_{role} CONNECTION LIMIT {most}")
    try:
        world.rows("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", f"easeml_{role}")
        time.sleep(seconds)
    finally:
        world.rows(f"ALTER ROLE easeml_{role} CONNECTION LIMIT -1")
    return f"{most} connections of {role} at most for {seconds:.1f} s"


def use_up_connections(world: Served, rng: random.Random) -> str:
    """Others hold all of the server's connections."""
    seconds, held = rng.uniform(*_LONG), []
    try:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(psycopg2.Error):
                held.append(_connected(world))
                continue
            time.sleep(0.05)  # whatever a part gives back is taken, too
    finally:
        for connection in held:
            connection.close()
    return f"held {len(held)} connections for {seconds:.1f} s"


def limit_memory(world: World, rng: random.Random) -> str:
    """A device or a referee may not have more memory than it has, nor may its children."""
    part, seconds = rng.choice((*DEVICES, *REFEREES)), rng.uniform(*_LONG)
    pid = _pid(world, part)
    with contextlib.suppress(psutil.Error, ProcessLookupError):
        size = psutil.Process(pid).memory_info().vms + rng.choice([0, 4 << 20])
        resource.prlimit(pid, resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))
        time.sleep(seconds)
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        return f"{part} had no more memory than it held for {seconds:.1f} s"
    raise NotReachedError


# -- the network -------------------------------------------------------------------------------------------------------


def slow_network(world: World, rng: random.Random) -> str:
    """Each message between a part and the server is late."""
    late = rng.choice([0.02, 0.05, 0.15])
    return _weathered(world, rng, Weather(latency=late), f"{1000 * late:.0f} ms late")


def narrow_network(world: World, rng: random.Random) -> str:
    """Few bytes a second pass between a part and the server."""
    width = rng.choice([5_000, 20_000, 100_000])
    return _weathered(world, rng, Weather(bandwidth=width), f"{width:,} bytes a second")


def silent_network(world: World, rng: random.Random) -> str:
    """Nothing passes, and both ends wait; then it goes on, or the connections are reset."""
    is_reset = rng.random() < 0.5
    said = _weathered(
        world, rng, Weather(silent=True), "silent, then " + ("reset" if is_reset else "as before"), is_reset
    )
    return said


def half_open_network(world: World, rng: random.Random) -> str:
    """The server's ends are closed, and the parts hear nothing of it for some seconds."""
    part, seconds = rng.choice(PARTS), rng.uniform(*_LONG)
    world.proxies[part].half_open()
    time.sleep(seconds)
    world.proxies[part].set_weather(Weather())
    return f"the connections of {part} were half open for {seconds:.1f} s"


def reset_network(world: World, rng: random.Random) -> str:
    """All connections of a part, or of all, are reset."""
    hit = PARTS if rng.random() < 0.3 else (rng.choice(PARTS),)
    for part in hit:
        world.proxies[part].reset_all()
    return f"reset the connections of {', '.join(hit)}"


def refusing_network(world: World, rng: random.Random) -> str:
    """No new connection of a part succeeds, and the open ones are reset."""
    part, seconds = rng.choice(PARTS), rng.uniform(*_LONG)
    world.proxies[part].set_weather(Weather(refuses=True))
    world.proxies[part].reset_all()
    time.sleep(seconds)
    world.proxies[part].set_weather(Weather())
    return f"refused the connections of {part} for {seconds:.1f} s"


def cut_message(world: World, rng: random.Random) -> str:
    """Connections end in the middle of a message, several times."""
    part, times = rng.choice(PARTS), rng.randrange(1, 6)
    for _ in range(times):
        world.proxies[part].set_weather(Weather(cut_after=rng.randrange(1, 6000)))
        time.sleep(rng.uniform(0.1, 0.8))
    world.proxies[part].set_weather(Weather())
    return f"cut {part} {times} times in the middle of a message"


# -- named points ------------------------------------------------------------------------------------------------------

POINTS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "a suggestion": ((DEVICES[0], SCHEDULER), r"INSERT INTO work\.suggestion_batches"),
    "a request for suggestions": ((OF_DEVICE,), r"INSERT INTO work\.suggestion_requests"),
    "a decision on a request for suggestions": ((SCHEDULER,), r"UPDATE work\.suggestion_requests[\s\S]*decided_at"),
    "a claim of a trial": (DEVICES, r"UPDATE work\.trials[\s\S]*RUNNING|work\.claim_trial\("),
    "a trial's end": (DEVICES, r"UPDATE work\.trials[\s\S]*finished_at"),
    "an observation": (DEVICES, r"INSERT INTO work\.observations"),
    "a model": (DEVICES, r"INSERT INTO work\.models"),
    "validation predictions": (DEVICES, r"INSERT INTO work\.predictions"),
    "a registration": ((PEOPLE,), r"INSERT INTO work\.studies"),
    "a request": ((PEOPLE,), r"INSERT INTO work\.requests"),
    "a feed": ((PEOPLE,), r"INSERT INTO work\.feeds"),
    "a set that people bring": ((PEOPLE,), r"INSERT INTO sealed\.test_sets"),
    "labels": ((PEOPLE,), r"sealed\.labels"),
    "a data version": (REFEREES, r"INSERT INTO work\.data_versions"),
    "a sealed set": (REFEREES, r"INSERT INTO sealed\.test_sets"),
    "a claim of a request": (REFEREES, r"INSERT INTO sealed\.claims"),
    "an attempt": (REFEREES, r"INSERT INTO sealed\.attempts"),
    "predictions on a sealed set": (REFEREES, r"INSERT INTO sealed\.predictions"),
    "the ledger": (REFEREES, r"INSERT INTO sealed\.ledger"),
    "a chain": (REFEREES, r"INSERT INTO sealed\.chain\b"),
    "a decision": (REFEREES, r"INSERT INTO sealed\.outbox"),
    "a verdict": (REFEREES, r"INSERT INTO work\.gate_verdicts"),
    "a reading": (REFEREES, r"INSERT INTO work\.meter_readings"),
    "evidence": (REFEREES, r"INSERT INTO work\.evidence"),
    "an answer": (REFEREES, r"INSERT INTO work\.answers"),
    "a promotion": (REFEREES, r"INSERT INTO work\.promotions"),
    "production": (REFEREES, r"INSERT INTO work\.production"),
    "wanted labels": (REFEREES, r"INSERT INTO sealed\.wanted"),
    "a refresh": (REFEREES, r"INSERT INTO work\.refreshes"),
    "kept rows": (REFEREES, r"work\.assessments"),
}
"""Named points of the three journeys: whose statement it is, and how it is known."""

ACTIONS = ("kill the part", "stop the part", "kill its backend", "end its backend", "kill the server", "reset")


def at_point(world: World, rng: random.Random) -> str:
    """At a statement that a journey rests on: before it, after it, at its commit or after that."""
    point, moment, action = rng.choice(sorted(POINTS)), rng.choice(list(Moment)), rng.choice(ACTIONS)
    parts, pattern = POINTS[point]
    sprung, done = threading.Event(), threading.Event()

    def spring(part: str) -> bool:
        for other in parts:
            world.proxies[other].set_trap(None)
        sprung.set()
        try:
            return _act(world, part, action, rng)
        finally:
            done.set()

    skip = rng.choice([0, 0, 1, 3]) if point in ("a chain", "a claim of a request", "an attempt", "a request") else 0
    for part in parts:
        trap = Trap(re.compile(pattern.encode()), moment, partial(spring, part), skip)
        world.proxies[part].set_trap(trap)
    said = f"{action} {moment} {point}"
    deadline = time.monotonic() + _LONGEST_TRAP_SECONDS
    while not sprung.wait(0.1):
        if time.monotonic() > deadline or world.parts[PEOPLE].is_done:
            for part in parts:
                world.proxies[part].set_trap(None)
            if not sprung.is_set():
                raise NotReachedError(said)
    done.wait(60)
    return said


def _act(world: World, part: str, action: str, rng: random.Random) -> bool:
    """Do it while the connection is held; whether the connection goes on then."""
    if action == "kill the part":
        send_to(world, part, signal.SIGKILL)
    elif action == "stop the part":
        pid = _pid(world, part)
        send(pid, signal.SIGSTOP)
        time.sleep(rng.uniform(1.0, 6.0))
        send(pid, signal.SIGCONT)
        return True
    elif action in ("kill its backend", "end its backend"):
        busy = world.backends(role_of(part))
        if busy:
            send(busy[0], signal.SIGKILL if action.startswith("kill") else signal.SIGTERM)
        return True
    elif action == "kill the server":
        send(world.postmaster(), signal.SIGKILL)
        return True
    return False


def none(world: World, rng: random.Random) -> str:
    """Nothing: how long it takes without a fault."""
    return "nothing"


FAULTS: Mapping[str, tuple[Fault, int]] = {
    "none": (none, 1),
    "kill a part": (kill_part, 3),
    "kill all parts": (kill_all_parts, 1),
    "kill everything": (kill_everything, 1),
    "kill a child": (kill_child, 2),
    "stop a part": (stop_part, 2),
    "end a part": (end_part, 1),
    "kill a backend": (kill_backend, 2),
    "end a backend": (end_backend, 1),
    "stop a backend": (stop_backend, 1),
    "kill the postmaster": (kill_postmaster, 2),
    "end the postmaster": (end_postmaster, 1),
    "stop the server": (stop_server, 1),
    "database disk full": (fill_database_disk, 2),
    "artifact disk full": (fill_artifact_disk, 1),
    "database out of inodes": (use_up_database_inodes, 1),
    "artifacts out of inodes": (use_up_artifact_inodes, 1),
    "role's connections used up": (limit_role, 1),
    "server's connections used up": (use_up_connections, 1),
    "memory limit": (limit_memory, 1),
    "network late": (slow_network, 1),
    "network narrow": (narrow_network, 1),
    "network silent": (silent_network, 2),
    "network half open": (half_open_network, 1),
    "network reset": (reset_network, 1),
    "network refuses": (refusing_network, 1),
    "message cut": (cut_message, 2),
    "named point": (at_point, 12),
}
"""Name of each fault, as in the table, its function, and its weight among the rounds."""


# -- how it is done ----------------------------------------------------------------------------------------------------


def send_to(world: World, part: str, number: signal.Signals) -> bool:
    """Send a signal to a part; False where it does not run."""
    pid = world.parts[part].pid if part in world.parts else 0
    return bool(pid) and send(pid, number)


def _signalled(world: World, part: str, number: signal.Signals) -> str:
    if not send_to(world, part, number):
        raise NotReachedError(f"{part} does not run")
    return f"{number.name} of {part}"


def _pid(world: World, part: str) -> int:
    pid = world.parts[part].pid if part in world.parts else 0
    if not pid:
        raise NotReachedError(f"{part} does not run")
    return pid


def _backend(world: World, rng: random.Random) -> tuple[int, str]:
    role = rng.choice(ROLES)
    found = world.backends(role)
    if not found:
        raise NotReachedError(f"{role} is not connected")
    return rng.choice(found[:3]), role


def _server_down(world: World, rng: random.Random, number: signal.Signals) -> str:
    seconds, pid = rng.uniform(*_SHORT), world.postmaster()
    world.holds_server = True
    try:
        if not pid:
            raise NotReachedError
        send(pid, number)
        time.sleep(seconds)
    finally:
        world.holds_server = False
    return f"{number.name} of the server, down for {seconds:.1f} s"


def _connected(world: Served) -> Any:
    return psycopg2.connect(
        host=LOOPBACK,
        port=world.server.port,
        user="easeml_worker",
        password=world.server.secrets["easeml_worker"],
        dbname="easeml",
        connect_timeout=2,
        sslmode="disable",
    )


@contextlib.contextmanager
def _room(world: Served, name: str) -> Iterator[Path]:
    """The folder of a file system that is small enough to be filled; what is put there is removed."""
    place = world.mounted.get(name)
    if place is None:
        raise NotReachedError(f"no file system could be mounted for {name}")
    filler = place / "filler"
    filler.mkdir(mode=0o700)
    try:
        yield filler
    finally:
        for path in filler.iterdir():
            path.unlink()
        filler.rmdir()


def _filled(world: Served, name: str, rng: random.Random) -> str:
    seconds = rng.uniform(*_LONG)
    with _room(world, name) as folder, (folder / "bytes").open("wb", buffering=0) as file:
        written, deadline = 0, time.monotonic() + seconds
        room = shutil.disk_usage(folder).free
        with contextlib.suppress(OSError):  # at once where the file system can do it, then what is left
            os.posix_fallocate(file.fileno(), 0, room)
            written = file.seek(room)
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                written += file.write(bytes(1 << 20)) or 0
                continue
            with contextlib.suppress(OSError):
                written += file.write(bytes(512)) or 0
                continue
            time.sleep(0.02)  # whatever is freed is taken, too
    return f"no room for {name} for {seconds:.1f} s, {written >> 20} MiB taken"


def _without_inodes(world: Served, name: str, rng: random.Random) -> str:
    seconds, number = rng.uniform(*_LONG), 0
    with _room(world, name) as folder:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                os.close(os.open(folder / str(number), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
                number += 1
                continue
            time.sleep(0.02)
    return f"no inode for {name} for {seconds:.1f} s, {number} taken"


def _weathered(world: World, rng: random.Random, weather: Weather, said: str, is_reset: bool = False) -> str:
    hit = PARTS if rng.random() < 0.3 else (rng.choice(PARTS),)
    seconds = rng.uniform(*_LONG)
    for part in hit:
        world.proxies[part].set_weather(weather)
    time.sleep(seconds)
    for part in hit:
        if is_reset:
            world.proxies[part].reset_all()
        world.proxies[part].set_weather(Weather())
    return f"{', '.join(hit)}: {said}, {seconds:.1f} s"
