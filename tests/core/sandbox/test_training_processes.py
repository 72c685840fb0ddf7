"""Children under limits. The children here are real and badly behaved; they are found through PYTHONPATH."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from easeml_core.errors import TrainingError
from easeml_core.sandbox.child_protocol import LINE_LIMIT, LineReader, reason_in
from easeml_core.sandbox.child_start import COLD, SWITCH
from easeml_core.sandbox.process import Limits, clean_environment, failure_reason, is_alive, kill_family, run_child

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

GUARDED = (
    "import os, sys, time\nfrom easeml_core.sandbox import child_protocol\nchild_protocol.prepare(int(sys.argv[1]))\n"
)

pytestmark = pytest.mark.cold


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., bytes]:
    """Run the given code as a child; its standard output."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    numbers = itertools.count()

    def run_code(code: str, *arguments: str, time_seconds: float = 60, memory_mb: int = 1000, **settings) -> bytes:
        name = f"naughty{next(numbers)}"  # a second one of the same name could run the compiled first one
        (tmp_path / f"{name}.py").write_text(GUARDED + code)
        output = bytearray()
        run_child(
            name, arguments, cwd=tmp_path, limits=Limits(time_seconds, memory_mb),
            on_output=output.extend, on_poll=settings.pop("on_poll", lambda: None), poll_seconds=0.05, **settings,
        )  # fmt: skip
        return bytes(output)

    return run_code


def gone(pid: int) -> bool:
    """Whether a process ends within a few seconds; a zombie that init has not fetched yet counts as ended."""
    for _ in range(100):
        if not is_alive(pid):
            return True
        time.sleep(0.05)
    return False


def test_a_process_that_ends_while_it_is_looked_at_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    this = psutil.Process()
    assert is_alive(this)
    assert is_alive(this.pid)

    def ended(process: psutil.Process) -> str:
        raise psutil.NoSuchProcess(process.pid)

    monkeypatch.setattr(psutil.Process, "status", ended)
    assert not is_alive(this)


def test_output_input_and_arguments(run) -> None:
    code = "print(sys.argv[2:], sys.stdin.read().upper())"
    assert run(code, "a", "b c", feed=lambda pipe: pipe.write(b"hello")) == b"['a', 'b c'] HELLO\n"


def test_more_bytes_than_a_pipe_holds_in_all_directions(run) -> None:
    code = "sys.stderr.write('x' * 10**6); text = sys.stdin.read(); sys.stdout.write(text)"
    assert len(run(code, feed=lambda pipe: pipe.write(b"a" * 10**7))) == 10**7


def test_a_child_that_reads_nothing_makes_nobody_wait(run) -> None:
    assert run("print('done')", feed=lambda pipe: pipe.write(b"a" * 10**7)) == b"done\n"


def test_no_secret_is_in_the_environment(run, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = ("EASEML_DATABASE_URL", "AIRFLOW_CONN_EASEML_DEFAULT", "AIRFLOW__CORE__FERNET_KEY", "PGPASSWORD",
               "AWS_SECRET_ACCESS_KEY", "LD_PRELOAD", "PYTHONSTARTUP")  # fmt: skip
    for name in secrets:
        if name != "LD_PRELOAD":  # a wrong one would stop this very process from starting children
            monkeypatch.setenv(name, "hunter2")
    seen = json.loads(run("import json; print(json.dumps(dict(os.environ)))"))
    assert not [name for name in seen if name.startswith(("EASEML", "AIRFLOW", "PG", "AWS")) or name in secrets]
    assert "hunter2" not in json.dumps(seen)
    assert seen["OMP_NUM_THREADS"] == "1"
    assert {"PATH", "PYTHONPATH"} <= set(seen)


def test_the_environment_is_a_list_of_names_not_all_but_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOMETHING_NEW", "1")
    assert "SOMETHING_NEW" not in clean_environment(2)
    assert clean_environment(2)["OPENBLAS_NUM_THREADS"] == "2"


def test_a_module_in_the_working_directory_replaces_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    (tmp_path / "json.py").write_text("raise SystemExit('taken over')")
    with pytest.raises(TrainingError, match="exit status 1") as caught:
        run_child(
            "easeml_core.training.child", [str(tmp_path / "none.json")], cwd=tmp_path, limits=Limits(60, 1000),
            on_output=lambda _: None, on_poll=lambda: None,
        )  # fmt: skip
    assert "FileNotFoundError" in str(caught.value)


def test_out_of_time(run) -> None:
    started = time.monotonic()
    with pytest.raises(TrainingError, match=r"out of time: not finished after 0.3 s; raise time_limit_seconds"):
        run("time.sleep(60)", time_seconds=0.3)
    assert time.monotonic() - started < 55


def test_out_of_time_although_output_is_closed_and_signals_are_ignored(run) -> None:
    code = (
        "import signal\nfor s in (1, 2, 15): signal.signal(s, signal.SIG_IGN)\nos.close(1); os.close(2)\ntime.sleep(60)"
    )
    with pytest.raises(TrainingError, match="out of time"):
        run(code, time_seconds=2)


def test_out_of_memory(run) -> None:
    with pytest.raises(TrainingError, match=r"out of memory: \d+ MB in use, 200 MB allowed; raise memory_limit_mb"):
        run("hog = bytearray(300 * 2**20)\ntime.sleep(60)", memory_mb=200)


def test_memory_of_grandchildren_counts(run) -> None:
    hog = "x = bytearray(300 * 2**20); import time; time.sleep(60)"
    code = f"import subprocess\nsubprocess.run([sys.executable, '-c', {hog!r}])"
    with pytest.raises(TrainingError, match="out of memory"):
        run(code, memory_mb=200)


@pytest.mark.parametrize("new_session", [False, True], ids=["same group", "own session"])
def test_grandchildren_end_with_the_child(run, new_session: bool, tmp_path: Path) -> None:
    code = (
        "import subprocess\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'], "
        f"start_new_session={new_session}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
        "open('grandchild', 'w').write(str(p.pid))\ntime.sleep(60)"
    )
    with pytest.raises(TrainingError, match="out of time"):
        run(code, time_seconds=3)
    assert gone(int((tmp_path / "grandchild").read_text()))


def test_a_grandchild_left_behind_by_a_good_child_ends_too(run) -> None:
    code = (
        "import subprocess\np = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'], "
        "stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\nprint(p.pid)"
    )
    assert gone(int(run(code)))


def test_what_on_poll_raises_ends_the_child_and_is_passed_on(run, tmp_path: Path) -> None:
    def stop() -> None:
        if (tmp_path / "pid").exists() and (tmp_path / "pid").read_text():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run("open('pid', 'w').write(str(os.getpid()))\ntime.sleep(60)", on_poll=stop)
    assert gone(int((tmp_path / "pid").read_text()))


def test_a_crash_has_status_last_line_and_tail(run) -> None:
    with pytest.raises(TrainingError) as caught:
        run("print('noise ' * 10000, file=sys.stderr)\nraise ValueError('no luck')")
    lines = str(caught.value).splitlines()
    assert lines[0] == "the process crashed with exit status 1: ValueError: no luck"
    assert any("Traceback" in line for line in lines)
    assert len(str(caught.value)) < 5000


def test_a_signal_is_named(run) -> None:
    with pytest.raises(TrainingError, match="ended by SIGSEGV"):
        run("import signal\nos.kill(os.getpid(), signal.SIGSEGV)")
    with pytest.raises(TrainingError, match="ended by SIGKILL, from outside or because the machine ran out of memory"):
        run("import signal\nos.kill(os.getpid(), signal.SIGKILL)")


def test_a_child_that_knows_why_says_so(run) -> None:
    with pytest.raises(TrainingError) as caught:
        run("print('a warning', file=sys.stderr)\nchild_protocol.fail('the data\\nare gone')")
    assert str(caught.value) == "the data\nare gone"


@pytest.mark.parametrize("text", ["", "\n", "no json", "[1]", "{}", '{"reason"', "3", "[" * 4000])
def test_a_reason_that_is_none_falls_back_to_the_crash(text: str) -> None:
    assert reason_in(text) is None
    assert failure_reason(3, text).startswith("the process crashed with exit status 3")


def test_a_child_whose_parent_is_gone_already_does_nothing(run) -> None:
    code = GUARDED + "print('worked')"
    answer = subprocess.run([sys.executable, "-c", code, "1"], capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stdout) == (1, "")
    assert "is gone" in answer.stderr


PARENT = """
import pathlib, sys
from easeml_core.sandbox.process import Limits, run_child
run_child("sleeper", [], cwd=pathlib.Path(sys.argv[1]), limits=Limits(300, 1000), on_output=lambda _: None,
          on_poll=lambda: None)
"""


def test_a_parent_killed_with_9_takes_a_silent_child_with_it(tmp_path: Path) -> None:
    (tmp_path / "sleeper.py").write_text(GUARDED + "open('ready', 'w').close()\ntime.sleep(300)")
    environment = {"PYTHONPATH": str(tmp_path), "PATH": os.environ["PATH"], SWITCH: COLD}
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], env=environment)
    try:
        while not (tmp_path / "ready").exists():
            assert parent.poll() is None
            time.sleep(0.05)
        (child,) = psutil.Process(parent.pid).children()
        parent.kill()
        try:
            assert gone(child.pid)
        finally:
            kill_family(child.pid)
    finally:
        parent.kill()
        parent.wait()


def test_what_libraries_print_does_not_get_between_the_lines(run) -> None:
    code = (
        "from easeml_core.sandbox.child_protocol import report_to, take_stdout\n"
        "report = report_to(take_stdout())\nprint('noise')\nos.system('echo more noise')\n"
        "report(0.5, 'half')\nreport(1, 'done', float('nan'))\n"
    )
    assert run(code) == b'{"progress": 0.5, "note": "half"}\n{"progress": 1, "note": "done"}\n'


def test_lines_of_progress_survive_any_cut_and_any_noise() -> None:
    stream = b'{"progress": 0.1}\nnoise\n[1]\n\n' + b"x" * 3 * LINE_LIMIT + b'\n{"progress": 1.0}\n{"progress'
    for size in (1, 7, 1000, len(stream)):
        seen: list = []
        reader = LineReader(seen.append)
        for start in range(0, len(stream), size):
            reader(stream[start : start + size])
        assert seen == [{"progress": 0.1}, {"progress": 1.0}]


def test_deep_json_is_only_noise() -> None:
    seen: list = []
    LineReader(seen.append)(b"[" * 9000 + b"\n")
    assert seen == []
