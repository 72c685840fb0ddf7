"""Copies of a warm process behave as children that start cold: parent, session, environment, folder, pipes and end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import warm_children

if TYPE_CHECKING:
    from pathlib import Path

LOOKS = """
import json, os, sys
def main():
    print(json.dumps({
        "parent": os.getppid(), "session": os.getsid(0) == os.getpid(), "cwd": os.getcwd(), "argv": sys.argv[1:],
        "env": dict(os.environ), "read": sys.stdin.read(), "open": sorted(os.listdir("/proc/self/fd"))[:-1],
        "shown": open("/proc/self/cmdline").read().rstrip("\\0").replace("\\0", " "),
    }))
    sys.stderr.write("last words")
    sys.exit(7)
if __name__ == "__main__":
    main()
"""


@pytest.fixture
def warm(pytestconfig: pytest.Config) -> warm_children.WarmStart:
    """The process that the tests of this session share."""
    plugin = pytestconfig.pluginmanager.get_plugin("warm starts")
    if plugin is None:
        pytest.skip("at night all children start cold")
    return plugin.start


@pytest.fixture
def module(tmp_path: Path) -> str:
    (tmp_path / "looks.py").write_text(LOOKS)
    return "looks"


@pytest.mark.parametrize("is_warm", [True, False])
def test_a_copy_is_as_a_cold_child(is_warm: bool, warm: Any, module: str, tmp_path: Path) -> None:
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path), "PYTHONUNBUFFERED": "1", "HOME": "/nowhere"}
    command = [sys.executable, "-P", "-m", module, "a", "b c"]
    pipe = subprocess.PIPE
    popen = warm_children.popen_of(warm) if is_warm else subprocess.Popen
    child = popen(command, stdin=pipe, stdout=pipe, stderr=pipe, cwd=tmp_path, env=env, start_new_session=True)
    out, err = child.communicate(b"hello")
    seen = json.loads(out)
    assert seen.pop("env").items() >= env.items()
    assert (child.returncode, err) == (7, b"last words")
    assert seen == {
        "parent": os.getpid(), "session": True, "cwd": str(tmp_path), "argv": ["a", "b c"], "read": "hello",
        "open": ["0", "1", "2"], "shown": " ".join(command),
    }  # fmt: skip


@pytest.mark.parametrize(("code", "status", "said"), [
    ("raise SystemExit('a sentence')", 1, "a sentence"), ("1 / 0", 1, "ZeroDivisionError: division by zero"),
    ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -9, ""), ("", 0, ""),
])  # fmt: skip
def test_every_end_is_seen(code: str, status: int, said: str, warm: Any, tmp_path: Path) -> None:
    (tmp_path / "ends.py").write_text(code)
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-P", "-m", "ends"]
    child = warm_children.popen_of(warm)(command, stderr=subprocess.PIPE, env=env)
    _, err = child.communicate()
    assert child.returncode == status
    assert err.decode().strip().endswith(said)


def test_it_is_begun_again_when_it_was_killed(tmp_path: Path) -> None:
    (tmp_path / "ends.py").write_text("raise SystemExit(5)")
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path)}
    start = warm_children.WarmStart(loaded=())
    for _ in range(2):
        child = warm_children.popen_of(start)([sys.executable, "-P", "-m", "ends"], env=env)
        assert child.wait() == 5
        start._process.kill()
        start._process.wait()
