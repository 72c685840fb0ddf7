"""Ports, and the check that nothing can be reached from outside: with real sockets of real processes."""

import contextlib
import socket
import subprocess
import sys

import psutil
import pytest
from stack.failures import ExposedError
from stack.network import listening, remembered_port, require_loopback

SERVER = """
import socket, sys
kind = socket.SOCK_DGRAM if sys.argv[2] == "udp" else socket.SOCK_STREAM
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
s = socket.socket(family, kind); s.bind((sys.argv[1], 0))
if kind == socket.SOCK_STREAM: s.listen()
print(s.getsockname()[1], flush=True); sys.stdin.read()
"""


@contextlib.contextmanager
def child(address, kind="tcp"):
    command = [sys.executable, "-c", SERVER, address, kind]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield psutil.Process(process.pid), int(process.stdout.readline())
        process.stdin.close()


def test_a_server_on_loopback_is_seen_and_fine():
    with child("127.0.0.1") as (process, port):
        assert [s[:2] for s in listening([process])] == [("127.0.0.1", port)]
        assert require_loopback([process]) == 1


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_a_server_on_all_interfaces_is_an_error_that_names_it(kind):
    with child("127.0.0.1") as (good, _), child("0.0.0.0", kind) as (bad, port):
        with pytest.raises(ExposedError, match=rf"process {bad.pid}\) on 0\.0\.0\.0:{port}") as caught:
            require_loopback([good, bad])
        assert len(caught.value.sockets) == 1


def test_a_process_that_has_ended_listens_nowhere():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        gone = psutil.Process(process.pid)
    assert require_loopback([gone]) == 0


def test_the_port_is_remembered_while_it_is_free(tmp_path):
    file = tmp_path / "port"
    port = remembered_port(file)
    assert remembered_port(file) == port
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        moved = remembered_port(file)
    assert moved != port
    assert int(file.read_text()) == moved


@pytest.mark.parametrize("content", ["", "http", "-1", "0", "70000"])
def test_a_damaged_file_only_costs_the_memory(tmp_path, content):
    file = tmp_path / "port"
    file.write_text(content)
    assert 0 < remembered_port(file) < 2**16
