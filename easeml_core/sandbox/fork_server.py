"""The fork server: a process that has imported the numerical libraries once, and forks a child for each job.

A child of ours spends seconds on importing scikit-learn or PyTorch. The server imports what jobs ask for, keeps to one
thread, runs nothing of a job, and holds no connection and no secret; a new version is a new server. Each request comes
with four descriptors: the job's standard input, output and error, and one end of a socket pair, the job's *line*:

    client                            server                        job
      | request, 4 descriptors          |                            |
      |-------------------------------->| fork --------------------->| becomes python -m MODULE
      |<------------{"pid", "shared_mb"}|                            |
      |<-----------------------{"ended"}| (not waited for yet)       x
      | kills what it left behind       |
      |----------------------------REAP>| waits for it
      |<----------------------{"status"}|

A killed client ends its job, through the line and through its own process; a killed server ends its jobs
(PR_SET_PDEATHSIG). Linux. Compare multiprocessing.forkserver, whose children unpickle what they run, and have
the limits, account and descriptors of the server.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import selectors
import signal
import socket
import struct
import sys
import threading
import time
import weakref
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from easeml_core.sandbox import child_protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from easeml_core.entities import JsonObject

MODULE = "easeml_core.sandbox.fork_server"
MOST_BYTES = 200_000
"""Of one request; SOCK_SEQPACKET delivers it whole or not at all."""

REAP = b"reap"
"""What the client sends once it has killed what the job left behind."""

PACKAGES = (
    "easeml_core", "lightgbm", "numpy", "pandas", "pyarrow", "safetensors", "scipy", "sklearn", "skops", "torch",
    "xgboost",
)  # fmt: skip
"""Whose modules a request may have imported before the fork."""

IDLE_SECONDS = 300.0
"""A server that a socket file names ends after so long without a request or a job."""

_POLL_SECONDS = 5.0
_PAUSE_SECONDS = 0.05
_DESCRIPTORS = 4
_CREDENTIALS = struct.Struct("3i")


def main(arguments: list[str]) -> None:
    """Serve on descriptor ``arguments[0]``: a socket of the process that started this one, or a listener.

    With a socket file and its identity as further arguments the descriptor is a listener, and the server goes on
    without its starter.
    """
    control = socket.socket(fileno=int(arguments[0]))
    name = _Name(Path(arguments[1]), arguments[2]) if arguments[1:] else None
    if name is not None and os.fork():
        os._exit(0)  # the starter waits for this one alone
    child_protocol.keep_to_itself()
    _title()
    request = _Server(control, name).serve()
    if request is not None:
        _run(request)


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks for.

    Attributes:
        module: Run as ``python -P -m module PARENT_PID *arguments``. One that the server has imported has ``main``,
            which takes the arguments.
        arguments: Strings after the parent's process id.
        cwd: Working directory.
        environment: All of the job's environment.
        loads: Modules to import before the fork, of PACKAGES; one that cannot be imported is left to the job.
    """

    module: str
    arguments: tuple[str, ...]
    cwd: str
    environment: dict[str, str]
    loads: tuple[str, ...]

    def to_bytes(self) -> bytes:
        """JSON for the socket."""
        fields = {"module": self.module, "arguments": self.arguments, "cwd": self.cwd}
        return json.dumps({**fields, "environment": self.environment, "loads": self.loads}).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> Request:
        """What ``to_bytes`` gave."""
        fields: JsonObject = json.loads(content)
        return cls(
            fields["module"], tuple(fields["arguments"]), fields["cwd"], fields["environment"], tuple(fields["loads"])
        )


class Peer(NamedTuple):
    """The process at the other end of a socket, when it made or connected it: SO_PEERCRED of unix(7)."""

    pid: int
    uid: int
    gid: int


def peer_of(connection: socket.socket) -> Peer:
    """Who is at the other end; 0 for a process that this one's process namespace does not show."""
    return Peer(*_CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)))


def identity_of(path: Path) -> str:
    """What tells a socket file from one that replaced it; a file system may give the number of a node again."""
    status = path.stat()
    return f"{status.st_ino}-{status.st_mtime_ns}"


@dataclass(frozen=True, slots=True)
class _Name:
    """The socket file of a server.

    Attributes:
        path: Where clients look.
        identity: Of the file that the starter made: the server may begin when another one has replaced it.
    """

    path: Path
    identity: str

    def holds(self) -> bool:
        """Whether the file still is there: a server whose file was removed or replaced gets no new clients."""
        try:
            return identity_of(self.path) == self.identity
        except OSError:
            return False


@dataclass(slots=True, eq=False)
class _Job:
    """A job as the server sees it.

    Attributes:
        pid: Not waited for yet, so the number is the job's own.
        line: To the client.
        ended: Readable when the job has ended (pidfd).
        client: Readable when the client's process has ended (pidfd).
        is_running: Whether it has not ended yet.
        is_wanted: Whether the client has neither gone nor sent REAP.
    """

    pid: int
    line: socket.socket
    ended: int
    client: int
    is_running: bool = True
    is_wanted: bool = True


class _Server:
    """One thread that receives requests, forks, and waits for the jobs.

    Args:
        control: Of the starter, or the listener of ``name``.
        name: The socket file. Without it the server has one client, and ends with it.
    """

    def __init__(self, control: socket.socket, name: _Name | None) -> None:
        self._name = name
        self._selector = selectors.DefaultSelector()
        self._jobs: set[_Job] = set()
        self._clients: set[socket.socket] = set()
        self._used = time.monotonic()
        self._is_over = False
        if name is None:
            self._watch(control, partial(self._answer, control))
            self._watch(os.pidfd_open(peer_of(control).pid), self._end)
        else:
            self._watch(control, partial(self._accept, control))

    def serve(self) -> Request | None:
        """Answer until there is no reason to go on; returns the request in a process that was forked for one."""
        gc.disable()
        while True:
            is_free = self._is_free()
            events = self._selector.select(0 if is_free else _POLL_SECONDS)
            if is_free and (self._name is None or not events):  # no client has connected meanwhile
                return None
            for key, _ in events:
                if self._selector.get_map().get(key.fd) is not key:
                    continue  # an earlier one of these events has closed it
                request: Request | None = key.data()
                if request is not None:
                    return request

    def _watch(self, file: socket.socket | int, react: Callable[[], Request | None]) -> None:
        self._selector.register(file, selectors.EVENT_READ, react)

    def _close(self, file: socket.socket | int) -> None:
        self._selector.unregister(file)
        _close(file)

    def _end(self) -> None:
        """The only client has ended, and its jobs end likewise."""
        self._is_over = True

    def _is_free(self) -> bool:
        """Whether nothing keeps it: no job, and neither its client, where it has one alone, nor a name.

        A client that has connected may still send its request, so it keeps a server that has lost its name, but not
        for longer than IDLE_SECONDS.
        """
        if self._jobs:
            return False
        if self._name is None:
            return self._is_over
        return time.monotonic() - self._used > IDLE_SECONDS or not (self._clients or self._name.holds())

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except OSError:  # no descriptor is left, or the client has gone: jobs that run must not end for that
            time.sleep(_PAUSE_SECONDS)
            return
        if peer_of(connection).uid == os.geteuid():
            self._used = time.monotonic()
            self._clients.add(connection)
            self._watch(connection, partial(self._answer, connection))
        else:
            connection.close()

    def _answer(self, connection: socket.socket) -> Request | None:
        """Take one request and fork for it; None in the server."""
        self._used = time.monotonic()
        try:
            content, files, flags, _ = socket.recv_fds(connection, MOST_BYTES, _DESCRIPTORS)
        except OSError:
            content, files, flags = b"", [], 0
        request, is_job = None, False
        if not content:  # the client has gone
            self._close(connection)
            self._clients.discard(connection)
            self._is_over |= self._name is None
        elif len(files) == _DESCRIPTORS and not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            line: socket.socket | None = None
            try:
                line = socket.socket(fileno=os.dup(files[3]))
                request = Request.from_bytes(content)
                _load(request.loads)
                is_job = self._fork(line, files[:3])
            except (ValueError, LookupError, TypeError, OSError) as error:
                if line is not None:
                    _send(line, {"refused": str(error)})
                    line.close()
        for file in files:
            os.close(file)
        return request if is_job else None

    def _fork(self, line: socket.socket, standard: list[int]) -> bool:
        """Fork the job; whether this is the job."""
        if _has_gone(line):
            message = "the client has given up"
            raise ConnectionError(message)
        server, shared = os.getpid(), _resident_mb()
        client = os.pidfd_open(peer_of(line).pid)
        try:
            pid = os.fork()
        except OSError:
            os.close(client)
            raise
        if pid:
            self._keep(_Job(pid, line, os.pidfd_open(pid), client))
            _send(line, {"pid": pid, "shared_mb": shared})
            return False
        try:
            child_protocol.die_with_parent(server)
            os.setsid()
            for target, file in enumerate(standard):
                os.dup2(file, target)
            for held in (
                line,
                client,
                *(job.line for job in self._jobs),
                *[key.fileobj for key in self._selector.get_map().values()],
            ):
                _close(held)
            self._selector.close()
        except BaseException:  # this process must never go on as the server
            os._exit(1)
        return True

    def _keep(self, job: _Job) -> None:
        self._jobs.add(job)
        self._watch(job.ended, partial(self._has_run, job))
        self._watch(job.client, partial(self._let_go, job))
        self._watch(job.line, partial(self._hear, job))

    def _has_run(self, job: _Job) -> None:
        """The job has ended; it is waited for when its client has killed what it left behind."""
        job.is_running = False
        self._close(job.ended)
        if job.is_wanted:
            _send(job.line, {"ended": True})
        else:
            self._finish(job)

    def _hear(self, job: _Job) -> None:
        with suppress(OSError):
            job.line.recv(len(REAP))  # or the end of the line: either way the client needs the job no more
        self._let_go(job)

    def _let_go(self, job: _Job) -> None:
        """The client has gone, or wants the exit status."""
        job.is_wanted = False
        self._selector.unregister(job.line)
        self._close(job.client)
        with suppress(ProcessLookupError):
            os.kill(job.pid, signal.SIGKILL)
            os.killpg(job.pid, signal.SIGKILL)
        if not job.is_running:
            self._finish(job)

    def _finish(self, job: _Job) -> None:
        status = os.waitstatus_to_exitcode(os.waitpid(job.pid, 0)[1])
        _send(job.line, {"status": status})
        job.line.close()
        self._jobs.discard(job)
        self._used = time.monotonic()


def _has_gone(line: socket.socket) -> bool:
    """Whether the client has closed its end, for instance since importing took longer than it waits."""
    look = select.poll()
    look.register(line, 0)  # POLLHUP is always reported
    return bool(look.poll(0))


def _close(file: object) -> None:
    if isinstance(file, socket.socket):
        file.close()
    elif isinstance(file, int):
        os.close(file)


def _send(line: socket.socket, fields: JsonObject) -> None:
    with suppress(OSError):  # the client has gone
        line.send(json.dumps(fields).encode())


def _resident_mb() -> float:
    """Megabytes of this process, all of which a job begins with, and shares until it writes to them.

    Those of files and of shared memory are left out (proc_pid_statm(5)): a fork maps them when it touches them.
    """
    resident, mapped = map(int, Path("/proc/self/statm").read_text().split()[1:3])
    return (resident - mapped) * os.sysconf("SC_PAGE_SIZE") / 2**20


def _load(modules: tuple[str, ...]) -> None:
    """Import modules that are not imported yet, and what they import."""
    missing = [name for name in modules if name not in sys.modules]
    for name in missing:
        if name.partition(".")[0] not in PACKAGES:
            message = f"it imports modules of {', '.join(PACKAGES)} only, not {name!r}"
            raise ValueError(message)
        with suppress(Exception, SystemExit):  # whatever a library raises, the job meets it as one that starts cold
            importlib.import_module(name)
    if missing:
        gc.collect()
        gc.freeze()  # a collection in a job would copy every page
    threads = len(os.listdir("/proc/self/task"))
    if threads > 1:
        message = f"the fork server has {threads} threads after importing {', '.join(modules)}"
        raise ValueError(message)


def _become(request: Request) -> None:
    """Be ``python -P -m MODULE SERVER ARGUMENTS`` from here on, with a fresh state of random numbers."""
    child_protocol.show_to_account()
    os.chdir(request.cwd)
    os.environ.clear()
    os.environ.update(request.environment)
    time.tzset()
    _set_threads(int(request.environment.get("OMP_NUM_THREADS", "1")))
    _seed()
    for finalizer in getattr(weakref.finalize, "_registry", ()):
        finalizer.atexit = False  # of libraries that the server has imported: PyTorch's take 25 ms to free memory
    gc.enable()
    for folder in reversed(request.environment.get("PYTHONPATH", "").split(os.pathsep)):
        if folder and folder not in sys.path:
            sys.path.insert(0, folder)
    sys.argv = [request.module, str(os.getppid()), *request.arguments]
    _title(f"{sys.executable} -P -m {' '.join(sys.argv)}")
    if request.module in sys.modules:
        sys.modules[request.module].main(sys.argv[1:])
    else:
        runpy.run_module(request.module, run_name="__main__", alter_sys=True)


def _run(request: Request) -> NoReturn:
    """Run what was asked for, and end as the interpreter would, but without taking the libraries apart.

    That takes up to half a second, and all it would free is a copy of the server's.
    """
    status: object = 0
    try:
        _become(request)
    except SystemExit as end:
        status = end.code
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        status = 1
        if isinstance(error, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
    if isinstance(status, str):
        sys.stderr.write(status + "\n")
    for thread in threading.enumerate():
        if not thread.daemon and thread is not threading.current_thread():
            thread.join()
    atexit._run_exitfuncs()
    with suppress(OSError):  # a reader that has gone
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status & 0xFF if isinstance(status, int) else int(status is not None))


def _set_threads(threads: int) -> None:
    """Numerical libraries read their number of threads when they are loaded, and the server's is 1."""
    if threads > 1 and "numpy" in sys.modules:
        import threadpoolctl

        threadpoolctl.threadpool_limits(threads)
    torch: Any = sys.modules.get("torch")
    if torch is not None and threads > 1:
        torch.set_num_threads(threads)


def _seed() -> None:
    """Give libraries fresh entropy; ``random`` takes it after every fork by itself."""
    if "numpy" in sys.modules:
        import numpy as np

        np.random.seed()  # noqa: NPY002 - the state that libraries share
    torch: Any = sys.modules.get("torch")
    if torch is not None:
        torch.default_generator.seed()


def _title(command: str | None = None) -> None:
    """Let ``ps`` show this command, where the library for that is installed (Airflow brings it).

    It looks for the place when it is called first, which must be before the environment changes.
    """
    with suppress(ImportError):
        import setproctitle

        setproctitle.setproctitle(command or setproctitle.getproctitle())


if __name__ == "__main__":
    main(sys.argv[1:])
