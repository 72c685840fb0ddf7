"""Start a child of ours: as a fork of a server that has imported the libraries (``fork_server``), or cold.

A process that holds secrets has a separate server, reached through an inherited socket (``own_fork_server``). Other
processes of one account on one machine share a server, which a socket file in the account's runtime folder names. The
name has a digest of all that a child inherits from what starts it, so that a warm child differs from a cold one in
nothing but the time of its start; after an upgrade the digest, and so the server, is another one.

Where no server can be used the child starts cold, and the log says why. ``EASEML_FORK_SERVER`` is ``on``, ``own`` (a
process uses no server but its own) or ``off`` (all children start cold).
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
import resource
import select
import signal
import socket
import stat
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol

import easeml_core
from easeml_core.errors import TrainingError
from easeml_core.sandbox import fork_server
from easeml_core.sandbox.fork_server import Request, peer_of
from easeml_core.settings.config import require

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from easeml_core.entities import JsonObject

logger = logging.getLogger(__name__)

SWITCH = "EASEML_FORK_SERVER"
"""Environment variable: which servers this process may use."""

SHARED, OWN, COLD = "on", "own", "off"
"""Its values: a shared one, the default; only one that belongs to the process; none."""

START_SECONDS = 30.0
"""A server that has not forked after so long is given up; it imports libraries for its first job."""

_PASSED_ON = (
    "PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV",
    "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUDA_HOME", "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES",
)  # fmt: skip
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "pid_for_children", "time", "time_for_children", "user", "uts")
"""By name: Airflow keeps the processes of its tasks from being traced, and such a process cannot list the folder."""

_INHERITED = (
    "Umask",
    "Uid",
    "Gid",
    "Groups",
    "CapPrm",
    "CapBnd",
    "NoNewPrivs",
    "Seccomp",
    "Cpus_allowed",
    "Mems_allowed",
)
"""Lines of /proc/self/status that a child has from its parent."""

_LIMITS = tuple(sorted(getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")))
_LONGEST_PATH = 100  # of a socket file; the kernel takes 107 bytes
_MESSAGE_BYTES = 4096


_PAUSE_SECONDS = 0.02
"""Between two looks at a child's end, where the kernel does not report it."""


class Child(Protocol):
    """A child that runs, with pipes to its standard output and error, and to its input where that was asked for.

    Attributes:
        pid: Its process id.
        shared_mb: Resident megabytes that it began with, since it is a copy of a server that holds them.
        stdin: To write to; None where it is empty.
        stdout: To read from.
        stderr: To read from.
    """

    pid: int
    shared_mb: float
    stdin: IO[bytes] | None
    stdout: IO[bytes]
    stderr: IO[bytes]

    def has_ended(self) -> bool:
        """Whether it has ended by itself; it is not waited for, so its process id is still its own."""

    def await_end(self, seconds: float) -> None:
        """Return when it has ended, or after so many seconds; it is not waited for."""

    def wait(self) -> int:
        """End it, and return its exit status; negative is the signal that ended it."""


def clean_environment(threads: int, device: str | None = None, gpus: Sequence[str] = ()) -> dict[str, str]:
    """The environment of a child: a short list of harmless names, and ``threads`` for every numerical library.

    With ``gpus``, which are UUIDs, it sees those alone. Else with a device it sees that GPU alone, counted among those
    that this process may use; or with ``cpu`` none.
    """
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    environment |= dict.fromkeys(_THREADS, str(threads))
    environment |= {"PYTHONUNBUFFERED": "1", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    if gpus:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    elif device is not None and device != "cuda":
        environment["CUDA_VISIBLE_DEVICES"] = _visible_gpu(device, environment.get("CUDA_VISIBLE_DEVICES"))
    # In a plugins-folder install the package lies on the parent's path only.
    root = str(Path(easeml_core.__file__).parents[1])
    if root not in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [environment.get("PYTHONPATH"), root]))
    return environment


def _visible_gpu(device: str, visible: str | None) -> str:
    """The value of CUDA_VISIBLE_DEVICES for a device, where it has been ``visible`` so far.

    Example:
        >>> _visible_gpu("cuda:1", "3,5"), _visible_gpu("cuda:1", None), _visible_gpu("cpu", "3,5")
        ('5', '1', '')
    """
    if device == "cpu":
        return ""
    number = device.partition(":")[2]
    if visible is None:
        return number
    names = [name.strip() for name in visible.split(",") if name.strip()]
    if int(number) >= len(names):
        message = f"this trial's slot is {device}, and this process sees {len(names)} GPUs ({visible!r}); name another"
        raise TrainingError(message)
    return names[int(number)]


def start_child(request: Request, *, with_input: bool, warm: bool = True) -> Child:
    """Start ``python -P -m MODULE PARENT_PID *ARGUMENTS`` in a new session."""
    server = _server() if warm else None
    if server is not None:
        try:
            return server.start(request, with_input=with_input)
        except OSError as error:
            _log_cold(str(error))
    return _ColdChild(request, with_input=with_input)


@contextmanager
def own_fork_server() -> Iterator[None]:
    """Start the children of this process from a server that belongs to it alone, and that ends with this block."""
    global _own
    before, _own = _own, _OwnServer()
    try:
        yield
    finally:
        _own.close()
        _own = before


@functools.lru_cache(maxsize=100)
def _log_cold(reason: str) -> None:
    logger.warning("a child process starts cold, which costs seconds: %s", reason)


class _ColdChild:
    """A new interpreter."""

    def __init__(self, request: Request, *, with_input: bool) -> None:
        process = subprocess.Popen(
            # -P: a file in the working directory must not stand in for a module.
            [sys.executable, "-P", "-m", request.module, str(os.getpid()), *request.arguments],
            stdin=subprocess.PIPE if with_input else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=request.cwd,
            env=request.environment,
            start_new_session=True,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        self._process, self.pid, self.shared_mb = process, process.pid, 0.0
        self.stdin, self.stdout, self.stderr = process.stdin, process.stdout, process.stderr

    def has_ended(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def await_end(self, seconds: float) -> None:
        try:
            descriptor = os.pidfd_open(self.pid)
        except OSError:  # a kernel before 5.3, or one that is imitated
            time.sleep(min(seconds, _PAUSE_SECONDS))
            return
        try:
            _await_input(descriptor, seconds)
        finally:
            os.close(descriptor)

    def wait(self) -> int:
        if not self.has_ended():
            self._process.kill()
        return self._process.wait()


class _WarmChild:
    """A fork of a server."""

    def __init__(self, line: socket.socket, pid: int, shared_mb: float, pipes: _Pipes) -> None:
        self._line, self.pid, self.shared_mb = line, pid, shared_mb
        self.stdin: IO[bytes] | None = None if pipes.stdin is None else os.fdopen(pipes.stdin, "wb")
        self.stdout: IO[bytes] = os.fdopen(pipes.stdout, "rb")
        self.stderr: IO[bytes] = os.fdopen(pipes.stderr, "rb")
        self._has_ended = False

    def has_ended(self) -> bool:
        if not self._has_ended:
            self._line.setblocking(False)
            try:
                _heard(self._line)
            except BlockingIOError:
                return False
            except ConnectionError:
                pass  # the server is gone, and the job with it
            self._has_ended = True
        return self._has_ended

    def await_end(self, seconds: float) -> None:
        if not self._has_ended:
            _await_input(self._line.fileno(), seconds)

    def wait(self) -> int:
        self._line.settimeout(START_SECONDS)  # a server that was stopped must not stop its clients
        with self._line:
            try:
                self._line.send(fork_server.REAP)
                while (heard := _heard(self._line)) is not None:
                    if "status" in heard:
                        return int(heard["status"])
            except OSError:
                pass  # the server is gone, which ends the job likewise
        return -signal.SIGKILL


@dataclass(frozen=True, slots=True)
class _Pipes:
    """This side's ends of a job's pipes."""

    stdin: int | None
    stdout: int
    stderr: int

    def close(self) -> None:
        for end in (self.stdin, self.stdout, self.stderr):
            if end is not None:
                os.close(end)


def _await_input(descriptor: int, seconds: float) -> None:
    """Return when there is something to read, the other end is closed, or the time is over."""
    waiting = select.poll()  # not select.select, which takes no descriptor above 1,023
    waiting.register(descriptor, select.POLLIN)
    waiting.poll(1000 * seconds)


def _heard(line: socket.socket) -> JsonObject | None:
    """The next message of the server; None when it has gone."""
    content = line.recv(_MESSAGE_BYTES)
    fields: JsonObject = json.loads(content) if content else {}
    return fields or None


def _ask(control: socket.socket, request: Request, *, with_input: bool) -> _WarmChild:
    """Let the server at ``control`` fork."""
    read_in, write_in = os.pipe() if with_input else (os.open(os.devnull, os.O_RDONLY), None)
    read_out, write_out = os.pipe()
    read_err, write_err = os.pipe()
    pipes = _Pipes(write_in, read_out, read_err)
    line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        line.settimeout(START_SECONDS)
        with theirs:
            socket.send_fds(control, [request.to_bytes()], [read_in, write_out, write_err, theirs.fileno()])
        heard = _heard(line)
        if heard is None or "pid" not in heard:
            why = "the fork server ended before it forked" if heard is None else str(heard.get("refused"))
            raise ConnectionAbortedError(why)
        return _WarmChild(line, int(heard["pid"]), float(heard["shared_mb"]), pipes)
    except BaseException:
        pipes.close()
        line.close()
        raise
    finally:
        for end in (read_in, write_out, write_err):
            os.close(end)


class _Server(Protocol):
    def start(self, request: Request, *, with_input: bool) -> Child:
        """Start it; OSError where it cannot, and then it has not run."""


class _OwnServer:
    """A server that only this process can reach; started with the first child, and again if it was killed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.owner = os.getpid()

    def start(self, request: Request, *, with_input: bool) -> Child:
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._begin()
            assert self._control is not None
            control = self._control.dup()
        with control:
            return _ask(control, request, with_input=with_input)

    def _begin(self) -> None:
        self._end()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = _popen(theirs)

    def _end(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            self._process.wait()

    def close(self) -> None:
        """End the server, and with it the jobs that still run."""
        with self._lock:
            if self._process is not None:
                self._process.kill()
            self._end()
            self._control = self._process = None


class _SharedServer:
    """The server of this account on this machine, started where there is none."""

    def start(self, request: Request, *, with_input: bool) -> Child:
        path = socket_path()
        if len(os.fsencode(path)) > _LONGEST_PATH:
            message = f"the path of the fork server's socket is longer than {_LONGEST_PATH} bytes: {path}"
            raise OSError(message)
        try:
            with self._connected(path) as control:
                return _ask(control, request, with_input=with_input)
        except (BrokenPipeError, ConnectionResetError):  # it ended when its idle time was over, or was killed
            with self._connected(path) as control:
                return _ask(control, request, with_input=with_input)

    def _connected(self, path: Path) -> socket.socket:
        control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        control.settimeout(START_SECONDS)
        try:
            try:
                control.connect(str(path))
            except (FileNotFoundError, ConnectionRefusedError):
                self._begin(path)
                control.connect(str(path))
            if peer_of(control).uid != os.geteuid():
                message = f"{path} is not served by this account"
                raise PermissionError(message)
        except BaseException:
            control.close()
            raise
        return control

    def _begin(self, path: Path) -> None:
        """Start a server; of several that are started at once the last one keeps the name, and the others end."""
        unnamed = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(str(unnamed))
            unnamed.chmod(0o600)
            listener.listen(128)
            identity = fork_server.identity_of(unnamed)
            unnamed.rename(path)
            _popen(listener, str(path), identity).wait()  # it goes on in a fork of itself


_own: _OwnServer | None = None
_SHARED = _SharedServer()


def _server() -> _Server | None:
    """What starts the children of this process; None for cold starts."""
    allowed = os.environ.get(SWITCH) or SHARED
    require(allowed in (SHARED, OWN, COLD), SWITCH, allowed, f"{SHARED}, {OWN} or {COLD}")
    if allowed == COLD or not hasattr(os, "pidfd_open"):
        return None
    if _own is not None:
        return _own if _own.owner == os.getpid() else None
    return _SHARED if allowed == SHARED else None


def _popen(control: socket.socket, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", fork_server.MODULE, str(control.fileno()), *arguments],
        pass_fds=[control.fileno()],
        # PyArrow's memory would have a thread for itself.
        env=clean_environment(1, "cuda") | {"JE_ARROW_MALLOC_CONF": "background_thread:false"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
    )


def socket_path() -> Path:
    """The socket file of the shared server that suits this process."""
    return runtime_folder() / f"fork-{_digest(os.getpid())}.sock"


def end_shared_servers(uid: int) -> None:
    """Let the servers of an account end once their present jobs have ended, by removing their socket files.

    For what stops a whole installation; a process of the account that starts a child later starts a new server.
    """
    for path in (Path(tempfile.gettempdir()) / f"easeml-{uid}").glob("fork-*.sock"):
        path.unlink(missing_ok=True)


def runtime_folder() -> Path:
    """The folder of this account's sockets: in XDG_RUNTIME_DIR, or in the folder for temporary files; mode 0700."""
    given = os.environ.get("XDG_RUNTIME_DIR", "")
    if given and Path(given).is_dir() and Path(given).stat().st_uid == os.geteuid():
        folder = Path(given) / "easeml"
    else:
        folder = Path(tempfile.gettempdir()) / f"easeml-{os.geteuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        message = f"{folder} must be a folder of this account that no other may enter (mode 0700)"
        raise PermissionError(message)
    return folder


def own_namespaces() -> list[str]:
    """Return the namespaces of this process, which it may know even where it must not be traced."""
    return [os.readlink(entry) for name in _NAMESPACES if (entry := Path("/proc/self/ns", name)).is_symlink()]


@functools.lru_cache(maxsize=1)
def _digest(pid: int) -> str:
    """Of all that a child inherits, and of the code and libraries that it would import."""
    status = Path("/proc/self/status").read_text().splitlines()
    package = Path(easeml_core.__file__).parent
    environment = clean_environment(1)
    inherited = {
        "environment": {name: environment[name] for name in environment if not name.startswith(("CUDA", "NVIDIA"))},
        "status": [line for line in status if line.partition(":")[0] in _INHERITED],
        "limits": [resource.getrlimit(limit) for limit in _LIMITS],
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "namespaces": own_namespaces(),
        "cgroup": Path("/proc/self/cgroup").read_text(),
        "interpreter": [sys.executable, sys.version],
        "package": sorted((str(p), p.stat().st_mtime_ns) for p in package.rglob("*.py")),
        "libraries": sorted(
            entry.name for kind in ("purelib", "platlib") for entry in os.scandir(sysconfig.get_path(kind))
        ),
    }
    return hashlib.sha256(json.dumps(inherited, sort_keys=True).encode()).hexdigest()[:16]
