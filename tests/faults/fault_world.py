"""A whole installation without Airflow, and a supervisor that starts again whatever ends.

Real are the server, every process and every file. Each part reaches the server over a separate proxy
(``fault_proxy``). Data and artifacts lie on small file systems in memory where root may mount them, so that they can be
filled; the harness is the reaper of all its descendants, so that nothing outlives it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from fault_proxy import Loop, Proxy

from easeml_core.errors import EasemlError
from easeml_core.store import schema
from easeml_core.store.database import Store
from easeml_core.store.server.cluster import find_postmaster
from easeml_core.store.server.server import Server, throwaway_folder

if TYPE_CHECKING:
    import signal
    from collections.abc import Iterator, Sequence
    from contextlib import ExitStack

HERE = Path(__file__).parent
DEVICES, REFEREES = ("device-1", "device-2"), ("referee-1", "referee-2")
PEOPLE, SCHEDULER = "people", "scheduler"
OF_DEVICE = DEVICES[1]
"""The device that has the role ``easeml_device``: the scheduler decides what it asks for."""

SETTINGS: dict[str, str | int] = {
    "fsync": "off",  # the machine does not lose its power here, and a killed server has handed its writes over
    "full_page_writes": "off",
    "synchronous_commit": "on",
    "scram_iterations": 1,
    "max_connections": 60,
    "min_wal_size": "32MB",
    "max_wal_size": "64MB",
    "shared_buffers": "32MB",
}
DATA_BYTES, ARTIFACT_BYTES = 400 << 20, 8 << 20
DATA_INODES, ARTIFACT_INODES = 4000, 400

_TICK_SECONDS, _FIRST_PAUSE, _LONGEST_PAUSE, _CALM_SECONDS = 0.05, 0.2, 2.0, 10.0
_SUBREAPER = 36
_MOUNTED = "tmpfs"


@dataclass(slots=True, eq=False)
class Part:
    """One process that is supervised.

    Attributes:
        name: Of the part.
        command: As it is started.
        log: File of its two outputs.
        restarts: How often it was started again.
        process: The running one, or the last.
        is_once: Whether an end with status 0 is its last.
    """

    name: str
    command: Sequence[str]
    log: Path
    environment: dict[str, str]
    is_once: bool = False
    restarts: int = 0
    process: subprocess.Popen[bytes] | None = None
    is_wanted: bool = True
    _started: float = 0.0
    _pause: float = _FIRST_PAUSE
    _due: float = 0.0

    def look(self, now: float) -> None:
        """Start it if its time has come."""
        if self.process is None:
            self._start(now)
        elif self.process.poll() is not None and self.is_wanted and not self.is_done:
            if not self._due:
                self._pause = _FIRST_PAUSE if now - self._started > _CALM_SECONDS else self._pause
                self._due, self._pause = now + self._pause, min(2 * self._pause, _LONGEST_PAUSE)
            elif now >= self._due:
                self.restarts += 1
                self._start(now)

    @property
    def is_done(self) -> bool:
        """Whether it has done all it was to do."""
        return self.is_once and self.process is not None and self.process.poll() == 0

    @property
    def is_up(self) -> bool:
        """Whether it runs."""
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        """Its process; 0 where it has none."""
        return self.process.pid if self.process is not None and self.is_up else 0

    def _start(self, now: float) -> None:
        with self.log.open("ab") as log:
            log.write(f"-- start {self.restarts}\n".encode())
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                cwd=self.log.parent,
            )
        self._started, self._due = now, 0.0


class Served:
    """What faults of the server and of file systems need to know of an installation.

    Attributes:
        server: The embedded server.
        mounted: Name -> folder of a file system in memory that can be filled.
    """

    server: Server

    def __init__(self) -> None:
        self.mounted: dict[str, Path] = {}

    def mount(self, stack: ExitStack, name: str, place: Path, size: int, inodes: int) -> None:
        """Mount a file system of this size in memory; a plain folder where that is not allowed."""
        place.mkdir(exist_ok=True)
        mount = shutil.which("mount")
        if os.geteuid() != 0 or mount is None:
            return
        options = f"size={size},nr_inodes={inodes},mode=711"
        done = subprocess.run(
            [mount, "-t", _MOUNTED, "-o", options, "easeml-faults", str(place)], capture_output=True, check=False
        )
        if done.returncode == 0:
            self.mounted[name] = place
            stack.callback(subprocess.run, ["umount", "--lazy", str(place)], capture_output=True, check=False)

    def rows(self, sql: str, *values: Any, database: str = "easeml") -> list[Any]:
        """Return the rows of a query of the administrator, who passes by all proxies."""
        with contextlib.closing(self.server.connect(database=database)) as opened, opened.cursor() as cursor:
            cursor.execute(sql, values or None)
            return list(cursor) if cursor.description else []

    def postmaster(self) -> int:
        """The process id of the server; 0 where none runs."""
        found = find_postmaster(self.server.data)
        return 0 if found is None else found.pid

    def server_processes(self) -> list[psutil.Process]:
        """The server and its children."""
        pid = self.postmaster()
        with contextlib.suppress(psutil.NoSuchProcess):
            if pid:
                found = psutil.Process(pid)
                return [found, *found.children()]
        return []

    def backends(self, role: str) -> list[int]:
        """Process ids of the server's processes for clients of a role, those at work first."""
        name = role if role == "airflow" else f"easeml_{role}"
        return [
            pid
            for (pid,) in self.rows(
                "SELECT pid FROM pg_stat_activity WHERE usename = %s ORDER BY state = 'idle', pid", name
            )
        ]


class World(Served):
    """One installation, from its first process to its last.

    Args:
        folder: For everything that it keeps.
        loop: Of its proxies.
        delay: Seconds by which answers of gate and meter leave late, >= 0.
        with_cli: Whether the referees are those of the command line, whose lease is 20 s.
    """

    def __init__(self, folder: Path, loop: Loop, *, delay: float = 0.0, with_cli: bool = False) -> None:
        super().__init__()
        self.folder, self.delay, self.with_cli = folder, delay, with_cli
        self.artifacts, self.data, self.keys = folder / "artifacts", folder / "data", folder / "keys"
        self._loop, self._guard, self._over = loop, threading.Lock(), threading.Event()
        self.parts: dict[str, Part] = {}
        self.proxies: dict[str, Proxy] = {}
        self.server_starts = 0
        self.holds_server = False
        self.complaints: list[str] = []

    @contextlib.contextmanager
    def running(self) -> Iterator[World]:
        """Bring everything up for the length of a block."""
        with contextlib.ExitStack() as stack:
            for name in ("logs", "people", "data", "run", "tmp"):
                (self.folder / name).mkdir(mode=0o700)
            self.mount(stack, "database", self.folder / "postgres", DATA_BYTES, DATA_INODES)
            self.mount(stack, "artifacts", self.artifacts, ARTIFACT_BYTES, ARTIFACT_INODES)
            (self.folder / "postgres").chmod(0o711)
            self.server = Server(self.folder / "postgres" / "home", **SETTINGS)
            self.server.start()
            stack.callback(self.server.stop)
            self._install()
            for part in (*DEVICES, *REFEREES, SCHEDULER, PEOPLE):
                self.proxies[part] = Proxy(self._loop, lambda: self.server.port)
            stack.callback(self._end_all)
            self.worker, self.referee = (
                Store(self.server.url(r, "easeml")) for r in ("easeml_worker", "easeml_referee")
            )
            for part in DEVICES:
                state = self.folder / "people" / f"{part}.number"
                self._add(
                    part,
                    [
                        *_ours("fault_parts.py"),
                        "device",
                        self.url(part, role_of(part)),
                        str(self.artifacts),
                        str(state),
                    ],
                )
            for part in REFEREES:
                self._add(part, self._referee(part))
            deciding = (sys.executable, "-m", "easeml_core.cli", "scheduler", "--poll", "1")
            self._add(SCHEDULER, [*deciding, "--database", self.url(SCHEDULER, "scheduler")])
            threads = [threading.Thread(target=work, daemon=True) for work in (self._supervise, self._keep_server)]
            for thread in threads:
                thread.start()
            try:
                yield self
            finally:
                self._over.set()
                for thread in threads:
                    thread.join()
                self.worker.close()
                self.referee.close()

    def _install(self) -> None:
        self.server.ensure_installation()
        owner = Store(self.server.url("easeml_owner", "easeml"))
        schema.upgrade(owner)
        owner.close()

    def _referee(self, part: str) -> list[str]:
        url, delay = self.url(part, "referee"), f"{self.delay:g}"
        if not self.with_cli:
            return [
                *_ours("fault_parts.py"), "referee", url, str(self.artifacts), str(self.keys), str(self.data), delay
            ]  # fmt: skip
        return [
            *(sys.executable, "-m", "easeml_core.cli", "referee", "--database", url),
            *("--artifacts", str(self.artifacts), "--keys", str(self.keys), "--data", str(self.data)),
            *("--answer-delay", delay, "--poll", "1", "--workers", "2"),
        ]

    def url(self, part: str, role: str) -> str:
        """Return the address of a role over the proxy of a part, password included."""
        direct = self.server.url(f"easeml_{role}", "easeml")
        return direct.replace(f":{self.server.port}/", f":{self.proxies[part].port}/")

    def _add(self, name: str, command: Sequence[str], *, is_once: bool = False) -> Part:
        environment = {
            **os.environ,
            "XDG_RUNTIME_DIR": str(self.folder / "run"),
            "TMPDIR": str(self.folder / "tmp"),
            "EASEML_MIN_FREE": "100K",  # the file system of artifacts has 8 MB
            "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
        }
        part = Part(name, command, self.folder / "logs" / f"{name}.log", environment, is_once)
        with self._guard:
            self.parts[name] = part
        return part

    def begin(self, study: str) -> Part:
        """Let people work on a new study."""
        urls = (self.url(PEOPLE, "worker"), self.url(PEOPLE, "referee"))
        return self._add(PEOPLE, [*_ours("fault_people.py"), str(self.folder), study, *urls], is_once=True)

    # -- the supervisor ------------------------------------------------------------------------------------------------

    def _supervise(self) -> None:
        while not self._over.wait(_TICK_SECONDS):
            with self._guard:
                for part in self.parts.values():
                    part.look(time.monotonic())
                ours = {part.process.pid for part in self.parts.values() if part.process is not None}
            _reap(ours)

    def _keep_server(self) -> None:
        """Start the server again once it has ended, as long as it takes."""
        pause = _FIRST_PAUSE
        while not self._over.wait(pause):
            if self.holds_server or find_postmaster(self.server.data) is not None:
                pause = _FIRST_PAUSE
                continue
            try:
                self.server.start()
                self.server_starts += 1
            except (EasemlError, OSError) as error:
                self.complaints.append(f"the server does not start yet: {error}")
                pause = _LONGEST_PAUSE

    def _end_all(self) -> None:
        with self._guard:
            for part in self.parts.values():
                part.is_wanted = False
        for proxy in self.proxies.values():
            proxy.close()
        server = {p.pid for p in self.server_processes()}
        for process in psutil.Process().children(recursive=True):
            if process.pid not in server:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        for part in self.parts.values():
            if part.process is not None:
                part.process.wait()
        _reap(set())

    # -- what is there -------------------------------------------------------------------------------------------------

    def children(self, part: str) -> list[psutil.Process]:
        """What a part has started, and what is left of it."""
        pid = self.parts[part].pid
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(pid).children(recursive=True) if pid else []
        return []

    def strays(self) -> list[psutil.Process]:
        """Descendants that belong to no part: shared fork servers and their jobs."""
        known = {part.pid for part in self.parts.values()} | {p.pid for p in self.server_processes()}
        for part in self.parts:
            known |= {p.pid for p in self.children(part)}
        found = [p for p in psutil.Process().children(recursive=True) if p.pid not in known]
        return [p for p in found if not _is_of_server(p)]


def role_of(part: str) -> str:
    """Return the role of a part, without its prefix; people have two."""
    return {**dict.fromkeys(REFEREES, "referee"), SCHEDULER: "scheduler", OF_DEVICE: "device"}.get(part, "worker")


@dataclass
class Worlds:
    """Makes one world after the other.

    Attributes:
        keep: Folder where the logs of a world go that has not come through.
    """

    keep: Path
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def __enter__(self) -> Worlds:
        ctypes.CDLL(None, use_errno=True).prctl(_SUBREAPER, 1, 0, 0, 0)
        self._folder, self._loop = self.stack.enter_context(throwaway_folder()), self.stack.enter_context(Loop())
        self._made = 0
        return self

    def __exit__(self, *given: Any) -> None:
        self.stack.__exit__(*given)

    @contextlib.contextmanager
    def new(self, **options: Any) -> Iterator[World]:
        """A world in a separate folder, which is removed."""
        self._made += 1
        folder = self._folder / f"world-{self._made}"
        folder.mkdir(mode=0o711)
        try:
            with World(folder, self._loop, **options).running() as world:
                yield world
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def keep_logs(self, world: World, name: str) -> Path:
        """Copy logs and journals; where they are."""
        target = self.keep / name
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for part in ("logs", "journal"):
            if (world.folder / part).exists():
                shutil.copytree(world.folder / part, target / part)
        with contextlib.suppress(OSError):
            shutil.copy(world.server.data / "server.log", target / "logs" / "server.log")
        return target


def _is_of_server(process: psutil.Process) -> bool:
    """Whether it is one of PostgreSQL's, or is gone."""
    try:
        return bool(process.name() == "postgres")
    except psutil.NoSuchProcess:
        return True


def _ours(script: str) -> list[str]:
    return [sys.executable, str(HERE / script)]


def _reap(ours: set[int]) -> None:
    """Wait for dead descendants that were not started here, which no other process waits for."""
    for process in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess, ChildProcessError):
            if process.pid not in ours and process.status() == psutil.STATUS_ZOMBIE:
                os.waitpid(process.pid, os.WNOHANG)


def send(pid: int, number: signal.Signals) -> bool:
    """Send a signal; False where the process is gone."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
