"""The embedded server's life: starts, crashes, adoptions, ports, owners. Real servers, each in a separate home."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import psycopg2
import pytest

from easeml_core.errors import InvalidInputError, StateError, StoreUnavailableError
from easeml_core.sandbox.process import is_alive
from easeml_core.store.server import server as server_module
from easeml_core.store.server.cluster import Postmaster, find_postmaster, free_port
from easeml_core.store.server.place import server_account
from easeml_core.store.server.server import FAST_SETTINGS, Server, default_home

if TYPE_CHECKING:
    from collections.abc import Iterator

FAST = dict(FAST_SETTINGS)
START = (
    "import sys; from easeml_core.store.server.server import Server; from easeml_core.store.server.cluster import *\n"
    "server = Server(sys.argv[1], fsync='off').start(); print(find_postmaster(server.data).pid)"
)


def running(server: Server) -> Postmaster:
    postmaster = find_postmaster(server.data)
    assert postmaster is not None
    return postmaster


def ask(server: Server, query: str) -> object:
    with closing(server.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        row = cursor.fetchone()
        return row[0] if row else None


def do(server: Server, statement: str) -> None:
    with closing(server.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(statement)


@contextmanager
def stranger(server: Server) -> Iterator[subprocess.Popen[bytes]]:
    """A process of the server's own account that is no PostgreSQL, with its id in the pid file."""
    account = server_account(server.data)
    with subprocess.Popen(["/bin/sleep", "60"], user=account.uid if not account.is_ours else None) as process:
        leave_pid_file(server, process.pid)
        yield process
        process.kill()


def leave_pid_file(server: Server, pid: int) -> None:
    """What a crashed server leaves behind, with another process id."""
    file = server.data / "postmaster.pid"
    file.write_text(f"{pid}\n{server.data}\n1790000000\n{server.port}\n\n127.0.0.1\n  1234567     32768\nready   \n")
    file.chmod(0o600)
    server_account(server.data).own(file)


def test_first_start_stop_and_start_again(new_home: Path) -> None:
    server = Server(new_home, **FAST)
    assert not server.alive()
    assert not new_home.exists()  # asking changes nothing
    assert server.start() is server
    assert server.alive()
    do(server, "CREATE TABLE kept AS SELECT 17 AS value")
    address = server.url("postgres", "postgres")
    server.stop()
    assert not server.alive()
    server.stop()  # once more is fine

    again = Server(new_home, **FAST).start()
    assert ask(again, "SELECT value FROM kept") == 17
    assert again.url("postgres", "postgres") == address


def test_stopping_what_never_was_leaves_no_trace(new_home: Path) -> None:
    Server(new_home).stop()
    assert not new_home.exists()


def test_before_the_first_start_the_error_names_the_command(new_home: Path) -> None:
    with pytest.raises(StateError, match="was never started; run `easeml db start`"):
        Server(new_home).url("easeml_worker", "easeml")


def test_a_running_server_is_found_and_no_other_is_taken_for_it(home: Path) -> None:
    server = Server(home, **FAST).start()
    before = running(server)
    assert running(Server(home, **FAST).start()) == before, "a second start attaches"
    assert os.getsid(before.pid) != os.getsid(0), "Ctrl-C in the starter's terminal would reach it"

    (home / "port").write_text("1\n")
    assert not server.alive()
    server.start()
    assert (running(server), server.port) == (before, before.port), "a lost port is found again"

    copy = home.parent / "copy"
    copy.mkdir()
    for name in ("secrets.json", "port"):
        shutil.copy(home / name, copy / name)
    assert not Server(copy).alive(), "another home with the same secrets and port is taken for this one"
    assert server.alive()


def test_eight_first_starts_at_once_give_one_server(new_home: Path) -> None:
    command = [sys.executable, "-c", START, str(new_home)]
    starters = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(8)]
    pids = {starter.communicate(timeout=120)[0] for starter in starters}
    assert [starter.returncode for starter in starters] == [0] * 8
    assert pids == {f"{running(Server(new_home)).pid}\n"}


def test_blanks_quotes_and_a_path_longer_than_a_socket_name(new_home: Path) -> None:
    deep = new_home / "two words" / "Änn's & Bo;b (100%)" / ("x" * 120) / ("y" * 120)
    server = Server(deep, **FAST)
    assert server.start().alive()
    assert server.data == deep / "data"


@pytest.mark.parametrize("character", ['"', "$", "`", "\\", "\n"])
def test_a_path_that_a_shell_would_read_is_refused(new_home: Path, character: str) -> None:
    with pytest.raises(InvalidInputError, match="not allowed"):
        Server(new_home / f"a{character}b")


def test_own_settings_hold_and_are_quoted(home: Path) -> None:
    server = Server(home, max_connections=17, cluster_name=r"Ann's \n", **FAST).start()
    assert ask(server, "SHOW max_connections") == "17"
    assert ask(server, "SHOW cluster_name") == r"Ann's \n"
    assert ask(server, "SHOW fsync") == "off"


@pytest.mark.parametrize("name", ["listen_addresses", "unix_socket_directories", "port", "Fsync", "a b", "x\ny"])
def test_settings_that_would_open_it_or_are_none_are_refused(new_home: Path, name: str) -> None:
    with pytest.raises(InvalidInputError, match="setting"):
        Server(new_home, **{name: "*"})


def test_a_start_that_fails_ends_with_the_servers_own_words(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "PAUSE_SECONDS", 0)
    with pytest.raises(StateError, match=r"does not start: (.|\n)*invalid value for parameter \"shared_buffers\""):
        Server(home, **FAST, shared_buffers="plenty").start()
    assert Server(home, **FAST).start().alive()


def test_killed_postmaster_recovers_with_its_data(home: Path) -> None:
    server = Server(home, synchronous_commit="on").start()
    do(server, "CREATE TABLE kept AS SELECT 17 AS value")
    killed = running(server)
    psutil.Process(killed.pid).kill()
    while server.alive():
        time.sleep(0.01)
    server.start()
    assert running(server).pid != killed.pid
    assert ask(server, "SELECT value FROM kept") == 17


def test_a_server_that_is_still_starting_is_waited_for(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "PAUSE_SECONDS", 0)  # so that no number of attempts could outlast the wait
    server = Server(home, **FAST)
    (server.data / "recovery.signal").touch(mode=0o600)
    server_account(server.data).own(server.data / "recovery.signal")
    slow = "from easeml_core.store.server.server import Server; import sys\n"
    slow += "Server(sys.argv[1], fsync='off', restore_command='sleep 0.6; false').start()"
    with subprocess.Popen([sys.executable, "-c", slow, str(home)]) as launcher:
        while find_postmaster(server.data) is None:
            time.sleep(0.01)
        launcher.kill()
    starting = running(server)
    assert not server.alive()
    server.start()
    assert server.alive()
    assert running(server) == starting


def test_pid_of_a_stranger_is_no_server(home: Path) -> None:
    server = Server(home, **FAST)
    with stranger(server) as process:
        server.stop()  # must not signal it
        assert not server.alive()
        assert server.start().alive()
        assert process.poll() is None
        assert running(server).pid != process.pid


def test_pid_of_a_dead_process_is_no_server_whether_collected_or_not(home: Path) -> None:
    server = Server(home, **FAST)
    with stranger(server) as process:
        process.kill()
        while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        assert server.start().alive()
    server.stop()
    leave_pid_file(server, process.pid)
    assert server.start().alive()


@pytest.mark.parametrize("content", ["", "not a number\n", "1\n"])
def test_a_damaged_pid_file_is_no_server(new_home: Path, content: str) -> None:
    data = new_home / "data"
    data.mkdir(parents=True)
    (data / "postmaster.pid").write_text(content)
    assert find_postmaster(data) is None


def test_remembered_port_taken_meanwhile(home: Path) -> None:
    server = Server(home, **FAST)
    port = server.port
    with socket.socket() as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        thief.bind(("127.0.0.1", port))
        thief.listen()
        assert free_port(port) is None
        assert not server.alive()  # the thief accepts, and says nothing
        assert server.start().alive()
        assert server.port != port


def test_data_of_another_major_version_are_refused(home: Path) -> None:
    server = Server(home, **FAST)
    (server.data / "PG_VERSION").write_text("17\n")
    with pytest.raises(StateError, match=r"made by PostgreSQL 17, .* brings 18\.\d.*version 17.*pg_dump"):
        server.start()


def test_a_folder_that_is_no_data_directory_is_left_alone(new_home: Path) -> None:
    server = Server(new_home)
    server.secret("postgres")
    (new_home / "data").mkdir()
    (new_home / "data" / "letter.txt").write_text("dear Bob")
    server_account(new_home.parent / "none").own(new_home / "data")
    with pytest.raises(StateError, match="holds no PostgreSQL data"):
        server.start()
    assert (new_home / "data" / "letter.txt").read_text() == "dear Bob"


def test_data_without_their_password_are_refused(home: Path) -> None:
    server = Server(home, **FAST)
    (home / "secrets.json").unlink()
    with pytest.raises(StateError, match=r"secrets.json lacks the password"):
        server.start()


def test_killed_in_the_middle_of_initdb(new_home: Path) -> None:
    command = [sys.executable, "-c", START, str(new_home)]
    starter = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    while not list(new_home.glob("new-*/data/PG_VERSION")):
        assert starter.poll() is None
        time.sleep(0.002)
    os.killpg(starter.pid, signal.SIGKILL)
    starter.wait()
    assert list(new_home.glob("new-*"))
    assert not (new_home / "data").exists()

    server = Server(new_home, **FAST).start()
    assert server.alive()
    assert not list(new_home.glob("new-*"))


def test_the_owner_starts_and_stops_and_others_connect(home: Path) -> None:
    server = Server(home, **FAST)
    with server.owned() as owned:
        assert owned is server
        address = Server(home).url("postgres", "postgres").replace("+psycopg2", "")
        with closing(psycopg2.connect(address)) as guest, guest.cursor() as cursor:
            cursor.execute("SELECT 1")
        with pytest.raises(StateError, match=f"process {os.getpid()} owns the embedded server of {home}"):
            Server(home).owned().__enter__()
        assert server.alive()  # the refused one stopped nothing
    assert not server.alive()


def test_an_owners_error_stops_the_server_and_passes(home: Path) -> None:
    with pytest.raises(RuntimeError, match="launcher's own"), Server(home, **FAST).owned():
        raise RuntimeError("launcher's own")
    assert find_postmaster(Server(home).data) is None


def test_the_server_of_a_killed_owner_is_adopted(home: Path) -> None:
    code = (
        "import sys, time; from easeml_core.store.server.server import Server\n"
        "with Server(sys.argv[1], fsync='off').owned():\n"
        "    print('up', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(home)], stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout is not None
        assert launcher.stdout.readline() == "up\n"
        launcher.kill()
    orphan = running(Server(home))
    with Server(home).owned() as server:
        assert running(server) == orphan
    deadline = time.monotonic() + 60
    while is_alive(orphan.pid):  # it removes the file of its number, which ends the block, a moment before it ends
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_generated_secrets_outlive_the_server(new_home: Path) -> None:
    server = Server(new_home, **FAST)
    key = server.secret("fernet_key", lambda: "made once")  # may be asked for before the first start
    server.start()
    server.stop()
    assert Server(new_home).secret("fernet_key", lambda: "made again") == key == "made once"
    assert set(server.secrets) == {"fernet_key", "postgres"}


def test_no_connection_says_where_and_why(home: Path) -> None:
    server = Server(home, **FAST)
    with pytest.raises(StoreUnavailableError, match=rf"'postgres' at 127.0.0.1:{server.port}: .*refused"):
        server.connect()


def test_default_home_follows_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert default_home() == Path.cwd() / ".easeml" / "postgres"
