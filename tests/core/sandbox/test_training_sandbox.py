"""A hostile model in the referee's sandbox, as root and as an ordinary user: it looks everywhere and finds nothing.

The attempts are real, on a real victim: a process with a secret in its environment, files, sockets on the loopback and
in a folder. Without the sandbox the same program finds them, which shows that the attempts are good.
"""

from __future__ import annotations

import json
import os
import pwd
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from property_sizes import at_night

import easeml_core
from easeml_core.errors import ConfigError, StateError, TrainingError
from easeml_core.models.command_model import pack_command
from easeml_core.models.predict import predict_in_child
from easeml_core.sandbox import isolation as sandbox
from easeml_core.sandbox.child_start import COLD, OWN, SWITCH
from easeml_core.sandbox.isolation import Isolation, Sandbox, probe_isolation

ATTEMPTS = (
    "loopback", "outside", "environ", "ptrace", "signal", "secret file", "open file", "socket file", "leave a file",
    "descriptors", "rights", "environment", "models of others", "home", "checkout",
)  # fmt: skip
ROOT = str(Path(easeml_core.__file__).parents[1])

HOSTILE = """
import ctypes, os, socket
PID, PORT, FOLDER = {pid}, {port}, {folder!r}
def loopback():
    return socket.create_connection(("127.0.0.1", PORT), timeout=5)
def outside():
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.connect(("8.8.8.8", 53))
    return True
def environ():
    return any(b"hunter2" in open(f"/proc/{{p}}/environ", "rb").read() for p in (PID, os.getppid()))
def ptrace():
    return ctypes.CDLL(None, use_errno=True).ptrace(0x4206, PID, None, None) == 0  # PTRACE_SEIZE stops no process
def signal():
    os.kill(PID, 0)
    return True
def secret_file():
    return open(FOLDER + "/secret").read() == "hunter2"
def open_file():
    return open(FOLDER + "/open").read() == "hunter2"
def socket_file():
    socket.socket(socket.AF_UNIX).connect(FOLDER + "/socket")
    return True
def leave_a_file():
    for place in ("/tmp", "/var/tmp", "/dev/shm", FOLDER):
        try:
            open(place + "/easeml-left-behind", "w").close()
        except OSError:
            pass
    return False
def descriptors():
    return any(is_open(n) for n in range(3, 200))
def is_open(number):
    try:
        os.fstat(number)
        return True
    except OSError:
        return False
def rights():
    said = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
    return int(said["CapEff"], 16) or int(said["CapPrm"], 16) or said["NoNewPrivs"].strip() != "1"
def environment():
    return any("hunter2" in v or k.startswith(("EASEML", "PG")) for k, v in os.environ.items())
def models_of_others():
    mine, others = os.path.expanduser("~"), [n for n in os.listdir("/tmp") if n.startswith(("easeml-p", "easeml-a"))]
    return any(not mine.startswith("/tmp/" + name) for name in others)
def home():
    return bool(os.listdir(os.path.expanduser("~root"))) and os.path.exists("/etc/shadow")
def checkout():
    return os.path.exists({root!r} + "/pyproject.toml") or os.path.exists({root!r} + "/.easeml")
for attempt in (loopback, outside, environ, ptrace, signal, secret_file, open_file, socket_file, leave_a_file,
                descriptors, rights, environment, models_of_others, home, checkout):
    try:
        print(int(bool(attempt())))
    except (OSError, ValueError):
        print(0)
"""

HARNESS = """
import json, os, socket, subprocess, sys
from pathlib import Path
import numpy as np
os.environ["EASEML_REFEREE_DSN"] = "postgresql://easeml_referee:hunter2@127.0.0.1/easeml"
from easeml_core.models.command_model import pack_command
from easeml_core.models.predict import predict_in_child
from easeml_core.sandbox.child_start import own_fork_server
from easeml_core.sandbox.isolation import Sandbox, probe_isolation
folder = Path(os.getcwd())
(folder / "secret").touch(mode=0o600)
for name in ("secret", "open"):
    (folder / name).write_text("hunter2")
folder.chmod(0o755)
listener, local = socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_UNIX)
local.bind(str(folder / "socket"))
os.chmod(folder / "socket", 0o777)
local.listen()
victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
try:
    code = HOSTILE.format(pid=victim.pid, port=listener.getsockname()[1], folder=str(folder), root=ROOT)
    (folder / "predict.py").write_text(code)
    pack_command(folder / "predict.py", folder / "model", command="python predict.py")
    used = Sandbox() if SANDBOXED else None
    with own_fork_server():
        found = predict_in_child(folder / "model", "command", np.zeros((15, 2)), sandbox=used)
        isolation = probe_isolation(Sandbox())
finally:
    victim.kill()
    victim.wait()
left = [str(p) for d in ("/tmp", "/var/tmp", "/dev/shm", folder) if (p := Path(d) / "easeml-left-behind").exists()]
for path in left:
    os.unlink(path)
print(json.dumps({"uid": os.getuid(), "found": found.tolist(), "left": left, "isolation": isolation.to_json()}))
"""

# What an ordinary user is here: root's interpreter may be where other users cannot reach it, so it is mounted for them.
ORDINARY = """
from easeml_core.sandbox.confinement import Confinement, enter
enter(Confinement(("files", "account"), None, None, 2048))
"""


def ask(tmp_path: Path, *, sandboxed: bool, before: str = "", prefix: tuple[str, ...] = ()) -> dict[str, Any]:
    """Run the harness in a separate process; return the hostile model's findings by name, and the isolation."""
    code = f"HOSTILE = {HOSTILE!r}\nROOT = {ROOT!r}\nSANDBOXED = {sandboxed}\n{before}\n{HARNESS}"
    environment = {"PYTHONPATH": ROOT, "PATH": os.environ["PATH"], SWITCH: os.environ[SWITCH]}
    answer = subprocess.run(
        [*prefix, sys.executable, "-P", "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    reported = json.loads(answer.stdout)
    reported["found"] = [name for name, found in zip(ATTEMPTS, reported["found"], strict=True) if found]
    return reported


def as_ordinary_user() -> str:
    if os.geteuid() != 0:
        return ""
    isolation = probe_isolation(Sandbox())
    if isolation.account is None or "files" in isolation.reaches():
        pytest.skip(f"root cannot make an ordinary user here: {isolation}")
    return ORDINARY


@pytest.fixture(params=["warm", "cold"])
def start(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What holds for a new interpreter holds for a fork of a server."""
    monkeypatch.setenv(SWITCH, OWN if request.param == "warm" else COLD)


both_starts = pytest.mark.usefixtures("start")
cold_at_night = pytest.mark.parametrize("start", ["warm", at_night("cold")], indirect=True)


@pytest.fixture(params=["root", "ordinary user"])
def before(request: pytest.FixtureRequest) -> str:
    if request.param == "root" and os.geteuid() != 0:
        pytest.skip("these tests do not run as root")
    return "" if request.param == "root" else as_ordinary_user()


@both_starts
def test_a_hostile_model_finds_nothing(before: str, tmp_path: Path) -> None:
    reported = ask(tmp_path, sandboxed=True, before=before)
    isolation = Isolation.from_json(reported["isolation"])
    assert (reported["uid"] == 0) == (isolation.account is not None)
    if isolation.reaches():
        pytest.skip(f"the kernel does not allow all of the sandbox here: {isolation}")
    assert reported["found"] == []
    assert reported["left"] == []


@cold_at_night
def test_without_the_sandbox_the_same_model_finds_almost_everything(before: str, tmp_path: Path, start: None) -> None:
    reported = ask(tmp_path, sandboxed=False, before=before)
    found = set(reported["found"])
    assert {"loopback", "environ", "ptrace", "signal", "secret file", "open file", "socket file"} <= found
    assert not {"descriptors", "environment"} & found
    assert reported["left"] != []


@cold_at_night
def test_root_without_the_right_to_make_namespaces_says_what_is_missing(tmp_path: Path, start: None) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    dropped = ("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin")
    isolation = ask(tmp_path, sandboxed=True, prefix=dropped)["isolation"]
    assert isolation["kept_from"] == []
    assert "network: Operation not permitted" in isolation["reasons"]
    assert len(isolation["reasons"]) >= 3


@pytest.fixture
def hostile(tmp_path: Path) -> Any:
    """Pack a program as a model."""

    def make(code: str) -> Path:
        (tmp_path / "predict.py").write_text(code)
        pack_command(tmp_path / "predict.py", tmp_path / "model", command="python predict.py")
        return tmp_path / "model"

    return make


def marked(marker: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        if process.info["status"] != psutil.STATUS_ZOMBIE and marker in " ".join(process.info["cmdline"] or []):
            found.append(process)
    return found


def wait_until(holds: Any) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)


@both_starts
def test_a_daemon_does_not_outlive_its_model(hostile: Any) -> None:
    if "processes" in probe_isolation(Sandbox()).reaches():
        pytest.skip(f"no process namespace here: {probe_isolation(Sandbox())}")
    marker = f"easeml-daemon-{os.getpid()}"
    code = f"""
import os, subprocess, sys, time
if os.fork() == 0:
    os.setsid()
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)", {marker!r}], start_new_session=True,
                     stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os._exit(0)
os.wait()
print(1, 1)
"""
    assert predict_in_child(hostile(code), "command", np.zeros((2, 2))).tolist() == [1, 1]
    try:
        wait_until(lambda: not marked(marker))
    finally:
        for process in marked(marker):
            process.kill()


PARENT = """
import sys, numpy as np
from pathlib import Path
from easeml_core.models.predict import predict_in_child
predict_in_child(Path(sys.argv[1]), "command", np.zeros((2, 2)))
"""


def test_a_parent_killed_with_9_takes_the_sandbox_with_it(hostile: Any) -> None:
    marker = f"easeml-orphan-{os.getpid()}"
    sleeper = "import time; time.sleep(300)"
    model = hostile(f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {sleeper!r}, {marker!r}])")
    command = [sys.executable, "-P", "-c", PARENT, str(model)]
    parent = subprocess.Popen(command, env={"PYTHONPATH": ROOT, "PATH": os.environ["PATH"]})
    try:
        wait_until(lambda: marked(marker))
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        wait_until(lambda: not marked(marker))
    finally:
        for process in [*marked(marker), parent]:
            process.kill()


@cold_at_night
def test_limits_hold_in_the_sandbox(hostile: Any, start: None) -> None:
    with pytest.raises(TrainingError, match="out of time: not finished after 3 s"):
        predict_in_child(hostile("import time; time.sleep(60)"), "command", np.zeros((2, 2)), time_limit_seconds=3)
    with pytest.raises(TrainingError, match="out of memory"):
        predict_in_child(hostile("x = bytearray(2 << 30)\nimport time; time.sleep(60)"), "command", np.zeros((2, 2)),
                         memory_limit_mb=600)  # fmt: skip


@cold_at_night
def test_files_are_limited_too(hostile: Any, start: None) -> None:
    if "files" in probe_isolation(Sandbox()).reaches():
        pytest.skip(f"no separate file system here: {probe_isolation(Sandbox())}")
    code = "for n in range(9):\n    open(f'f{n}', 'wb').write(bytes(100 << 20))\nprint(1, 1)"
    with pytest.raises(TrainingError, match="No space left on device"):
        predict_in_child(hostile(code), "command", np.zeros((2, 2)), memory_limit_mb=500)


def test_an_account_must_exist_and_not_be_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root looks the account up")
    for account in ("root", "no-such-account"):
        with pytest.raises(ConfigError, match="account must be an account of this machine other than root's"):
            probe_isolation(Sandbox(account=account))


@both_starts
def test_a_named_account_is_used(hostile: Any) -> None:
    if probe_isolation(Sandbox()).account is None:
        pytest.skip(f"no other account can be used here: {probe_isolation(Sandbox())}")
    model = hostile("import os\nprint(os.getuid(), os.geteuid(), os.getgid(), len(os.getgroups()))")
    groups = os.getgroups()
    os.setgroups([4242])
    try:
        labels = predict_in_child(model, "command", np.zeros((4, 2)), sandbox=Sandbox("nobody"))
    finally:
        os.setgroups(groups)
    nobody = pwd.getpwnam("nobody")
    assert labels.tolist() == [nobody.pw_uid, nobody.pw_uid, nobody.pw_gid, 0]
    uid, *_ = predict_in_child(model, "command", np.zeros((4, 2)))
    assert 61184 <= uid < 65520
    assert probe_isolation(Sandbox("nobody")).account == "nobody"


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Stand in for a machine on which children start with some parts only; root asks."""

    def pretend(starts: Any) -> Isolation:
        monkeypatch.setattr(sandbox, "_try", lambda _, parts: starts(parts))
        return sandbox._probed(Sandbox(), 0)[1]

    sandbox._probed.cache_clear()
    yield pretend
    sandbox._probed.cache_clear()


def test_a_part_that_fails_is_left_out_with_its_reason(machine: Any) -> None:
    refused = {"network": "not here", "files": "nor this"}
    isolation = machine(lambda parts: next((sandbox._Failure(p, refused[p]) for p in parts if p in refused), None))
    assert isolation == Isolation(sandbox.OWN_ACCOUNT, ("processes",), ("network: not here", "files: nor this"))
    said = "account: a dedicated user id; network: not cut off; processes: cut off; files: not cut off"
    assert str(isolation) == said + "; network: not here; files: nor this"


def test_what_was_kept_reads_the_same_in_the_words_of_before() -> None:
    isolation = Isolation("nobody", ("network", "files"), ("processes: not here",))
    assert isolation.to_json() == {
        "account": "nobody", "kept_from": ["network", "files"], "reasons": ["processes: not here"],
    }  # fmt: skip
    assert isolation.reaches() == ("processes",)
    assert Isolation.from_json(isolation.to_json()) == isolation
    before = {"account": "nobody", "network": False, "processes": True, "files": False}  # whether it still had it
    assert Isolation.from_json(before | {"reasons": ["processes: not here"]}) == isolation


@pytest.mark.parametrize(
    ("hides", "lost"),
    [
        (lambda parts: "files" in parts, "files"),
        (lambda parts: "account" in parts, "account"),
        (lambda parts: "files" in parts and "account" in parts, "files"),  # the account is worth more
        (lambda parts: "files" in parts or "account" in parts, "files, account"),
    ],
)
def test_what_hides_python_is_left_out_and_the_account_last(hides: Any, lost: str, machine: Any) -> None:
    isolation = machine(lambda parts: sandbox._Failure(None, "no numpy") if hides(parts) else None)
    assert (isolation.account is None, "files" in isolation.reaches()) == ("account" in lost, "files" in lost)
    assert isolation.kept_from[:2] == ("network", "processes")
    assert isolation.reasons == (f"{lost}: no numpy",)


def test_no_child_at_all_is_an_error(machine: Any) -> None:
    with pytest.raises(StateError, match="no child can be started to run models: no Python"):
        machine(lambda _: sandbox._Failure(None, "no Python"))


def test_a_sandbox_that_cannot_be_made_any_more_is_no_verdict(hostile: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child's message is not released: a model could write it too, with information about its inputs."""
    model = hostile("print(1, 1)")
    monkeypatch.setattr("easeml_core.models.predict.run_child", fail_with("sandbox could not be made, part x: rows 7"))
    with pytest.raises(StateError, match="the model was not judged") as caught:
        predict_in_child(model, "command", np.zeros((2, 2)))
    assert "7" not in str(caught.value)


def fail_with(words: str) -> Any:
    def run(*_: Any, **__: Any) -> float:
        message = f"the {words}"
        raise TrainingError(message)

    return run


FORBIDDEN = """
from pathlib import Path
import ctypes, os
libc = ctypes.CDLL(None)
assert libc.unshare(0x10000000) == 0
libc.prctl(4, 1, 0, 0, 0)  # after a change of account the files below would be root's
for name, content in (("setgroups", "deny"), ("uid_map", "1000 {uid} 1"), ("gid_map", "1000 {gid} 1")):
    Path(f"/proc/self/{name}").write_text(content.format(uid=UID, gid=GID))
for kind in KINDS:
    Path(f"/proc/sys/user/max_{kind}_namespaces").write_text("0")
"""


@cold_at_night
@pytest.mark.parametrize(
    ("kinds", "missing"),
    [
        (["user"], {"network", "processes", "files"}),
        (["net"], {"network"}),
        (["pid"], {"processes"}),
        (["mnt"], {"files"}),
        (["net", "mnt"], {"network", "files"}),
    ],
    ids=lambda v: " ".join(sorted(v)),
)
def test_what_a_kernel_forbids_is_said_and_the_rest_is_made(
    kinds: list[str], missing: set[str], tmp_path: Path, start: None
) -> None:
    """The limits of an outer user namespace stand for a machine that allows less."""
    before = as_ordinary_user() + "import os\nUID, GID, KINDS = os.geteuid(), os.getegid(), " + repr(kinds) + FORBIDDEN
    reported = ask(tmp_path, sandboxed=True, before=before)
    isolation = reported["isolation"]
    assert {"network", "processes", "files"} - set(isolation["kept_from"]) == missing
    assert all("No space left on device" in r for r in isolation["reasons"][1:])  # ENOSPC: the kernel's word for it
    assert ("loopback" in reported["found"]) == ("network" in missing)
    assert ("open file" in reported["found"]) == ("files" in missing)


CONFINED = """
import ctypes
from pathlib import Path
from easeml_core.sandbox.confinement import Confinement, enter
ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # as it would be after a program was started
Path("inner").mkdir()
Path("inner/model.bin").write_bytes(b"content")
copy = enter(Confinement(("network",), None, None, 100), Path("inner/model.bin").resolve())
assert copy.name == "model.bin" and copy.read_bytes() == b"content" and copy.stat().st_mode & 0o777 == 0o444
print([line.split()[1] for line in open("/proc/self/status") if line.startswith(("CapPrm", "CapEff", "NoNewPrivs"))])
"""


def test_the_confined_process_itself_has_no_rights(before: str, tmp_path: Path) -> None:
    """Also before it runs another program: a model that is loaded, not run, is in this very process."""
    code = before + CONFINED
    answer = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, env={"PYTHONPATH": ROOT}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert answer.stdout.strip() == str(["0" * 16, "0" * 16, "1"]), answer.stderr
