"""Forks of a warm server behave as children that start cold, and no end of a process leaves anything behind."""

from __future__ import annotations

import errno
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

import psutil
import pytest

from easeml_core.errors import ConfigError, TrainingError, TrainingKilled
from easeml_core.sandbox import child_start, fork_server
from easeml_core.sandbox.child_start import COLD, OWN, SHARED, SWITCH, own_fork_server, runtime_folder, socket_path
from easeml_core.sandbox.confinement import Confinement
from easeml_core.sandbox.fork_server import Request
from easeml_core.sandbox.process import Limits, is_alive, run_child

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LOOKS = """
import json, os, random, resource, sys
json.dump({
    "is_child": os.getppid() == int(sys.argv[1]), "session": os.getsid(0) == os.getpid(), "cwd": os.getcwd(),
    "argv": sys.argv[2:], "env": dict(os.environ), "read": sys.stdin.read(),
    "open": sorted(os.listdir("/proc/self/fd"))[:-1], "module": __name__, "umask": os.umask(0),
    "shown": open("/proc/self/cmdline").read().rstrip("\\0").replace("\\0", " ").split()[1:3],
    "files": resource.getrlimit(resource.RLIMIT_NOFILE), "threads": len(os.listdir("/proc/self/task")),
}, sys.stdout)
sys.stderr.write("last words")
"""
NUMBERS = itertools.count()
SLEEPS = "import os, sys, time\nprint(os.getpid(), os.getppid(), flush=True)\ntime.sleep(300)\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Modules that are written here can be run."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The socket file of a shared server that only this test uses; the server ends when the file is gone."""
    path = None
    monkeypatch.setattr(child_start, "_own", None)
    with pytest.MonkeyPatch.context() as patch, short_folder() as short:
        patch.setenv(SWITCH, SHARED)
        patch.setenv("XDG_RUNTIME_DIR", short)
        path = socket_path()
        yield path
        for server in servers(path):
            server.kill()


@contextmanager
def short_folder() -> Iterator[str]:
    import tempfile

    with tempfile.TemporaryDirectory(prefix="e") as name:
        yield name


def servers(path: Path) -> list[psutil.Process]:
    return [p for p in psutil.process_iter(["cmdline"]) if str(path) in (p.info["cmdline"] or ())]


def run(folder: Path, code: str, *arguments: str, on_poll: Callable[[], None] = lambda: None, **more: Any) -> str:
    """Run the code as a child; what it has written."""
    name = f"looks{next(NUMBERS)}"  # a second one of the same name could run the compiled first one
    (folder / f"{name}.py").write_text(code)
    output = bytearray()
    run_child(
        name, arguments, cwd=folder, on_output=output.extend, on_poll=on_poll, poll_seconds=0.02,
        **{"limits": Limits(60, 1000)} | more,
    )  # fmt: skip
    return output.decode()


def eventually(holds: Callable[[], bool]) -> bool:
    for _ in range(500):
        if holds():
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("threads", [1, 2])
def test_a_warm_child_differs_from_a_cold_one_in_nothing(
    threads: int, folder: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def looked() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            run(folder, LOOKS, "a", "b c", threads=threads, device="cpu", feed=lambda pipe: pipe.write(b"hello"))
        )
        return found

    monkeypatch.setenv(SWITCH, COLD)
    cold = looked()
    assert cold["read"] == "hello"
    monkeypatch.setenv(SWITCH, SHARED)
    assert looked() == cold
    monkeypatch.setenv(SWITCH, OWN)
    with own_fork_server():
        assert looked() == cold


@pytest.mark.parametrize(("code", "status", "said"), [
    ("raise SystemExit('a sentence')", 1, "a sentence"), ("1 / 0", 1, "ZeroDivisionError: division by zero"),
    ("raise SystemExit(300)", 44, ""), ("", 0, ""),
    ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", -15, ""), ("raise KeyboardInterrupt", -2, ""),
    ("import threading, time; threading.Thread(target=lambda: (time.sleep(.1), print('late'))).start()", 0, ""),
    ("import atexit, sys; atexit.register(lambda: sys.stderr.write('bye'))", 0, "bye"),
    ("import sys, weakref; held = weakref.finalize(sys.stderr, lambda: sys.stderr.write('freed'))", 0, "freed"),
])  # fmt: skip
def test_every_end_is_that_of_a_cold_child(code: str, status: int, said: str, folder: Path) -> None:
    (folder / "ends.py").write_text(code)
    request = Request("ends", (), str(folder), {"PYTHONPATH": str(folder), "PATH": os.environ["PATH"]}, ())
    child = child_start.start_child(request, with_input=False)
    output, error = child.stdout.read(), child.stderr.read()
    assert eventually(child.has_ended)
    assert child.wait() == status
    assert error.decode().strip().endswith(said)
    assert output == (b"late\n" if "late" in code else b"")


def test_a_job_leaves_the_server_s_libraries_as_they_are(folder: Path) -> None:
    """PyTorch frees its operators at the end of a process, which took each fork 25 ms."""
    (folder / "ends.py").write_text("import sys, weakref; weakref.finalize(sys.stdout, print, 'of the job')")
    code = (
        "import os, sys, weakref; from easeml_core.sandbox import fork_server;"
        "weakref.finalize(sys.stdin, print, 'of a library');"
        "request = fork_server.Request('ends', (), sys.argv[1], {'PYTHONPATH': sys.argv[1]}, ());"
        "os._exit(os.wait()[1]) if os.fork() else fork_server._run(request)"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    assert ended.stdout == "of the job\n"


def test_jobs_have_random_numbers_of_their_own(folder: Path) -> None:
    code = "import json, random, numpy as np\nprint(random.random(), np.random.random())"
    said = {run(folder, code, loads=("numpy",)) for _ in range(4)}
    assert len({word for line in said for word in line.split()}) == 8


def test_nothing_of_a_job_is_seen_by_the_next(folder: Path) -> None:
    leaves = "import builtins, sys, os, easeml_core.errors as e\nbuiltins.left = e.left = 1\nos.environ['LEFT'] = '1'"
    run(folder, leaves, loads=("easeml_core.errors",))
    looks = (
        "import builtins, os, easeml_core.errors as e\nprint(*(hasattr(x, 'left') for x in (builtins, e)), os.environ)"
    )
    assert run(folder, looks, loads=("easeml_core.errors",)).startswith("False False environ({'PATH'")


def test_a_job_whose_client_is_killed_ends(folder: Path) -> None:
    (folder / "sleeps.py").write_text(SLEEPS)
    client = (
        "import sys, pathlib\nfrom easeml_core.sandbox.process import Limits, run_child\n"
        "from easeml_core.sandbox.child_start import own_fork_server\n"
        "with own_fork_server():\n  run_child('sleeps', [], cwd=pathlib.Path(sys.argv[1]), limits=Limits(300, 1000),"
        " on_output=lambda b: (sys.stdout.buffer.write(b), sys.stdout.flush()), on_poll=lambda: None)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", client, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    job, server = map(int, process.stdout.readline().split())
    assert is_alive(job)
    process.kill()
    process.wait()
    assert eventually(lambda: not is_alive(job) and not is_alive(server))


def test_a_killed_server_ends_its_jobs_and_is_replaced(folder: Path, shared: Path) -> None:
    seen: list[int] = []

    def kill_server() -> None:
        for server in servers(shared):
            seen.extend(child.pid for child in server.children())
            server.kill()

    with pytest.raises(TrainingKilled):
        run(folder, SLEEPS, on_poll=kill_server)
    assert seen
    assert eventually(lambda: not any(map(is_alive, seen)))
    assert run(folder, "print('again')") == "again\n"
    assert len(servers(shared)) == 1


def test_a_server_without_its_file_ends_after_its_jobs(folder: Path, shared: Path) -> None:
    waits = "import os, sys, time\nwhile os.path.exists(sys.argv[2]): time.sleep(.01)\ntime.sleep(.1)\nprint(1)"
    assert run(folder, waits, str(shared), on_poll=lambda: shared.unlink(missing_ok=True)) == "1\n"
    assert eventually(lambda: not servers(shared))


def test_of_servers_that_start_at_once_every_one_answers(folder: Path, shared: Path) -> None:
    first = child_start._SHARED._connected(shared)
    child_start._SHARED._begin(shared)
    assert run(folder, "print(2)") == "2\n"  # the second server has started, so the first one has missed its name
    with first:
        request = Request("looks", (), str(folder), child_start.clean_environment(1), ())
        (folder / "looks.py").write_text("print(1)")
        child = child_start._ask(first, request, with_input=False)
        assert child.stdout.read() == b"1\n"
        assert child.wait() in (0, -signal.SIGKILL)
    assert eventually(lambda: len(servers(shared)) == 1)


def test_a_server_that_ends_between_the_connection_and_the_request_is_replaced(
    folder: Path, shared: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run(folder, "")
    ask, ended = child_start._ask, []

    def ends_first(*arguments: Any, **more: Any) -> Any:
        if not ended:
            ended.extend(servers(shared))
            ended[0].kill()
            assert eventually(lambda: not is_alive(ended[0].pid))
        return ask(*arguments, **more)

    monkeypatch.setattr(child_start, "_ask", ends_first)
    assert run(folder, "print(3)") == "3\n"
    assert not caplog.text  # it would say that the child started cold


def test_what_cannot_be_served_starts_cold_and_the_log_says_why(
    folder: Path, shared: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    child_start._log_cold.cache_clear()
    assert run(folder, "print(1)", loads=("antigravity",)) == "1\n"
    assert "not 'antigravity'" in caplog.text
    runtime_folder().chmod(0o755)
    assert run(folder, "print(2)") == "2\n"
    assert "mode 0700" in caplog.text
    monkeypatch.setenv(SWITCH, "maybe")
    with pytest.raises(ConfigError, match="on, own or off"):
        run(folder, "print(3)")


def test_only_its_account_may_ask_a_server(folder: Path, shared: Path) -> None:
    run(folder, "")
    assert (shared.stat().st_mode & 0o777, shared.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    if os.geteuid() != 0:
        pytest.skip("only root may become another account")
    asks = (
        "import os, socket, sys\npath = sys.argv[1]\nfd = os.open(os.path.dirname(path), os.O_PATH)\nos.setuid(65534)\n"
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        "try: s.connect(f'/proc/self/fd/{fd}/' + os.path.basename(path))\nexcept PermissionError: print('refused')\n"
    )
    done = subprocess.run([sys.executable, "-c", asks, str(shared)], capture_output=True, text=True, check=False)
    assert done.stdout == "refused\n", done.stderr


def test_a_malformed_request_is_refused_and_the_server_goes_on(folder: Path, shared: Path) -> None:
    run(folder, "")
    for content in (b"{", b"[]", b'{"module": 1}'):
        with child_start._SHARED._connected(shared) as control:
            line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with line, theirs, open(os.devnull) as nothing:
                socket.send_fds(control, [content], [nothing.fileno()] * 3 + [theirs.fileno()])
                line.settimeout(10)
                assert "refused" in json.loads(line.recv(4096))
    assert len(servers(shared)) == 1
    assert run(folder, "print(1)") == "1\n"


def test_whatever_a_child_would_inherit_or_import_names_another_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def digest() -> str:
        return child_start._digest.__wrapped__(os.getpid())

    (tmp_path / "module.py").write_text("")
    monkeypatch.setattr(child_start.easeml_core, "__file__", str(tmp_path / "__init__.py"))
    monkeypatch.setattr(child_start.sysconfig, "get_path", lambda _: str(tmp_path))
    found = [digest()]
    assert digest() == found[0]
    os.utime(tmp_path / "module.py", (1, 1))  # an upgrade of this package
    found.append(digest())
    (tmp_path / "library-2.0.dist-info").mkdir()
    found.append(digest())
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    found.append(digest())
    before = os.umask(0o027)
    try:
        found.append(digest())
    finally:
        os.umask(before)
    assert len(set(found)) == len(found)


def test_a_library_that_fails_in_any_way_is_left_to_the_job(folder: Path, shared: Path) -> None:
    for module, code in (("xgboost", "raise RuntimeError('broken')"), ("lightgbm", "raise SystemExit(3)")):
        (folder / f"{module}.py").write_text(code)
        assert run(folder, "print(1)", loads=(module,)) == "1\n"
    assert len(servers(shared)) == 1


def test_a_server_without_a_descriptor_left_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fork_server, "_PAUSE_SECONDS", 0.0)
    server, full = object.__new__(fork_server._Server), mock.Mock()
    full.accept.side_effect = OSError(errno.EMFILE, "too many open files")
    server._accept(full)


@pytest.mark.parametrize(("parts", "is_apart"), [
    (("account",), True), (("processes", "files"), True), (("network", "processes"), False), (("files",), False),
])  # fmt: skip
def test_a_child_that_could_reach_a_server_does_not_come_from_one(parts: tuple[str, ...], is_apart: bool) -> None:
    assert Confinement(parts, None, None, 64).is_apart is is_apart


def test_nothing_is_forked_for_a_client_that_has_given_up() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        with ours:
            assert not fork_server._has_gone(theirs)
        assert fork_server._has_gone(theirs)


def test_limits_hold_for_a_warm_child(folder: Path) -> None:
    with pytest.raises(TrainingError, match="out of memory"):
        run(folder, "data = bytearray(2_000_000_000)\nimport time\ntime.sleep(60)")
    left = "import os, subprocess, sys\np = subprocess.Popen(['sleep', '300'])\nprint(p.pid, flush=True)"
    pid = int(run(folder, left))
    assert eventually(lambda: not is_alive(pid))


HOLDS = """
import subprocess, sys
from easeml_core.sandbox import child_protocol
child_protocol.prepare(int(sys.argv[1]))
subprocess.run([sys.executable, "-c", "import time; kept = b'x' * (150 * 2**20); time.sleep(60)"])
"""


def test_what_a_program_holds_counts_in_full_since_it_is_no_copy_of_the_server(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SWITCH, OWN)
    with own_fork_server(), pytest.raises(TrainingError, match="out of memory"):
        run(folder, HOLDS, limits=Limits(30, 140), loads=["easeml_core.training.estimators"])


def test_a_fork_of_the_owner_does_not_use_its_server(folder: Path) -> None:
    with own_fork_server():
        run(folder, "")
        pid = os.fork()
        if pid == 0:
            os._exit(0 if child_start._server() is None else 1)
        assert os.waitpid(pid, 0)[1] == 0


def test_the_end_of_a_server_ends_its_jobs(folder: Path) -> None:
    (folder / "sleeps.py").write_text(SLEEPS)
    with own_fork_server():
        request = Request("sleeps", (), str(folder), child_start.clean_environment(1), ())
        child = child_start.start_child(request, with_input=False)
        child.stdout.readline()
    assert child.wait() == -signal.SIGKILL
    assert eventually(lambda: not is_alive(child.pid))


def test_a_thread_in_the_server_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fork_server.os, "listdir", lambda _: ["1", "2"])
    with pytest.raises(ValueError, match="2 threads"):
        fork_server._load(("easeml_core.errors",))


def test_a_task_of_airflow_which_may_not_be_traced_knows_its_namespaces() -> None:
    """Without them it would find no server, and each of its children would start cold."""
    code = (
        "import os; from easeml_core.sandbox import child_protocol, child_start; from pathlib import Path\n"
        "entries = sorted(os.readlink(entry) for entry in Path('/proc/self/ns').iterdir())\n"
        "if os.geteuid() == 0: os.setresuid(65534, 65534, 65534)\n"
        "child_protocol.keep_to_itself()\n"
        "assert sorted(child_start.own_namespaces()) == entries, entries"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
