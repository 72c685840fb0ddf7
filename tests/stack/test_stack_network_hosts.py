"""Celery workers and referee on hosts with a network each: nothing works only because all is on loopback.

Hosts are network namespaces that the test makes: a bridge joins them, and each has a loopback of its own. The thread of
the test moves into one, the hub, and so do the threads and processes that it starts: the machine's network gets no
address, no route and no interface. Services listen on the hub's loopback alone, and a relay at the hub's address on the
bridge hands on what other hosts send. Each namespace ends with the process that holds it. Man pages:
network_namespaces(7), veth(4).
"""

import contextlib
import ctypes
import os
import re
import selectors
import shutil
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest
from rich.console import Console
from stack import hosts, launcher
from stack.hosts import CELERY, WORKERS, Hosts
from stack.launcher import Stack
from stack.places import Places
from stack.processes import tethered
from stack.progress import Progress
from test_stack_celery import (
    DAGS,
    LEASE_SECONDS,
    LOST_STEPS,
    begin,
    broker,
    end,
    facts,
    part,
    register,
    trial_of,
    until,
)

from easeml_core.services.trials.execution import trial_details
from easeml_core.store.database import Store
from easeml_core.store.server.server import Server, throwaway_folder

pytestmark = [pytest.mark.journey, pytest.mark.nightly, pytest.mark.timeout(900)]

__all__ = ["broker"]

ADDRESSES = {"gpu": "10.213.87.11", "cpu": "10.213.87.12", "referee": "10.213.87.13"}
LOOPBACK, HUB = "127.0.0.1", "10.213.87.1"
_NEWNET = 0x40000000
_CONNECTING = """
import socket, sys
sys.exit(any(socket.socket().connect_ex((sys.argv[1], int(port))) == 0 for port in sys.argv[2:]))
"""
_LIBC = ctypes.CDLL(None, use_errno=True)


class Network:
    """The hub, and a host for each address.

    Attributes:
        addresses: Name of each host to its address on the bridge.
    """

    def __init__(self, addresses: dict[str, str]) -> None:
        self.addresses = addresses
        self._holders: dict[str, subprocess.Popen[bytes]] = {}
        self._relayed: dict[int, socket.socket] = {}

    def into(self, name: str) -> tuple[str, ...]:
        """The words before a command of root that is to run on a host."""
        return (_program("nsenter"), f"--net=/proc/{self._holders[name].pid}/ns/net")

    def placed(self, component, name: str):
        """A component of a stack on a host, which finds the services at the hub's address."""
        given = {key: value.replace(LOOPBACK, HUB) for key, value in component.environment.items()}
        for port in {int(port) for value in given.values() for port in re.findall(rf"{re.escape(HUB)}:(\d+)", value)}:
            self._relay(port)
        for port in {int(p) for value in given.values() for p in re.findall(r'"port": (\d+)', value)}:
            self._relay(port)
        command = (*self.into(name), *tethered(component.command, component.account))
        return replace(component, command=command, environment=given, account=None)

    def cut(self, name: str, *, off: bool = True) -> None:
        """Take the link of a host down, or up again; what it runs goes on."""
        _run("ip", "link", "set", f"to-{name}", "down" if off else "up")

    def reaches_loopback_of_hub(self, name: str) -> bool:
        """Whether any relayed port answers at the loopback that a host sees."""
        assert self._relayed
        command = (*self.into(name), sys.executable, "-c", _CONNECTING, LOOPBACK, *map(str, self._relayed))
        return subprocess.run(command, check=False).returncode != 0

    def make(self) -> None:
        """Make bridge and hosts in the present namespace, which is the hub's."""
        _run("ip", "link", "set", "lo", "up")
        _run("ip", "link", "add", "bridge", "type", "bridge")
        _run("ip", "address", "add", f"{HUB}/24", "dev", "bridge")
        _run("ip", "link", "set", "bridge", "up")
        for name, address in self.addresses.items():
            holder = subprocess.Popen(tethered((_program("unshare"), "--net", "sleep", "infinity")))
            self._holders[name] = holder
            own, deadline = os.readlink("/proc/thread-self/ns/net"), time.monotonic() + 30
            while os.readlink(f"/proc/{holder.pid}/ns/net") == own:
                assert time.monotonic() < deadline, "unshare made no namespace"
                time.sleep(0.01)
            pair = ("ip", "link", "add", f"to-{name}", "type", "veth", "peer", "name", "eth0", "netns", str(holder.pid))
            _run(*pair)
            _run("ip", "link", "set", f"to-{name}", "master", "bridge", "up")
            _run(*self.into(name), "ip", "link", "set", "lo", "up")
            _run(*self.into(name), "ip", "address", "add", f"{address}/24", "dev", "eth0")
            _run(*self.into(name), "ip", "link", "set", "eth0", "up")

    def end(self) -> None:
        """End relays and hosts."""
        for listener in self._relayed.values():
            listener.close()
        for holder in self._holders.values():
            holder.kill()
            holder.wait()

    def _relay(self, port: int) -> None:
        if port not in self._relayed:
            self._relayed[port] = socket.create_server((HUB, port), backlog=128)
            threading.Thread(target=_relay, args=(self._relayed[port], port), name=f"relay-{port}", daemon=True).start()


@contextlib.contextmanager
def network(addresses: dict[str, str]):
    """A network for this thread and what it starts; skips the test where the kernel refuses."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces that a bridge joins need root")
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    made = Network(addresses)
    try:
        if _LIBC.unshare(_NEWNET):
            pytest.skip(f"the kernel makes no network namespace: {os.strerror(ctypes.get_errno())}")
        try:
            made.make()
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"the kernel joins no network namespaces by a bridge: {error}")
        yield made
    finally:
        made.end()
        assert _LIBC.setns(before, _NEWNET) == 0, os.strerror(ctypes.get_errno())
        os.close(before)


def _program(name: str) -> str:
    return shutil.which(name) or f"/usr/bin/{name}"


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def _relay(listener: socket.socket, port: int) -> None:
    """Hand on what comes to the service at this port; a thread for each connection."""
    with contextlib.suppress(OSError):  # it is closed
        while True:
            outer, _ = listener.accept()
            threading.Thread(target=_pump, args=(outer, port), daemon=True).start()


def _pump(outer: socket.socket, port: int) -> None:
    with (
        outer,
        contextlib.suppress(OSError),
        socket.create_connection((LOOPBACK, port)) as inner,
        selectors.DefaultSelector() as selector,
    ):
        selector.register(outer, selectors.EVENT_READ, (outer, inner))
        selector.register(inner, selectors.EVENT_READ, (inner, outer))
        while True:
            for key, _ in selector.select():
                source, target = key.data
                content = source.recv(65536)
                if not content:
                    return
                target.sendall(content)


@pytest.fixture
def net(monkeypatch):
    """The network, and stacks that put workers and referee on its hosts."""
    with network(ADDRESSES) as made:
        workers, referee = Hosts.workers, launcher.referee
        for name in WORKERS:
            monkeypatch.setitem(hosts.WORKERS, name, ADDRESSES[name])
        monkeypatch.setattr(
            Hosts,
            "workers",
            lambda *given: tuple(made.placed(one, one.name.rpartition("-")[2]) for one in workers(*given)),
        )
        monkeypatch.setattr(launcher, "referee", lambda *given, **more: made.placed(referee(*given, **more), "referee"))
        monkeypatch.setattr(Stack, "exposed", lambda _: 0)  # log servers listen on their hosts' addresses
        yield made


def test_a_host_that_is_cut_off_loses_its_trial_to_another_and_nothing_counts_twice(net, monkeypatch):
    with throwaway_folder() as folder:
        dags = folder / "dags"
        dags.mkdir()
        (dags / "hosts.py").write_text(DAGS)
        places = Places.of(folder / "home-of-networks", dags)
        with Stack(places, Progress(Console(quiet=True)), executor=CELERY) as stack:
            for name, value in stack.hosts.of_store().items():
                monkeypatch.setenv(name, value)
            store, rest = Store(stack.access.worker_url), stack.access.rest()
            assert not any(map(net.reaches_loopback_of_hub, ADDRESSES))
            register(stack, store, cut={"steps": LOST_STEPS, "until": str(dags / "let-go")})  # the referee answers
            alone = begin(stack, rest, "train_on_gpu", "cut")
            until(lambda: (facts(stack, "cut")["kept"] or 0) > 0)
            net.cut("gpu")
            time.sleep(LEASE_SECONDS)
            other = begin(stack, rest, "stream_on_cpu", "cut")
            until(lambda: facts(stack, "cut")["attempt"] == 2)
            net.cut("gpu", off=False)
            (dags / "let-go").touch()  # both trainings may end now
            end(stack, rest, "stream_on_cpu", other)
            (train,) = [t for t in end(stack, rest, "train_on_gpu", alone) if t["task_id"] == "train"]
            found = facts(stack, "cut")
            assert (found["state"], found["attempt"], found["results"], found["models"]) == ("SUCCEEDED", 2, 1, 1)
            assert (train["state"], train["hostname"]) == ("skipped", ADDRESSES["gpu"])
            curve = trial_details(store, trial_id=trial_of(store, "cut").trial_id).curve
            assert [point.step for point in curve] == list(range(1, LOST_STEPS + 1))
            assert part(stack, "worker-gpu").restarts == 0  # it was cut off, and never ended
            assert any("DAG bundles loaded" in line for line in rest.log("train_on_gpu", alone, "suggest"))
        Server(places.database).stop()
