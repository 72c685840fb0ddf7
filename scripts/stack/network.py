"""The API server's port on loopback, and the check that no process of ours listens on another address."""

from __future__ import annotations

import contextlib
import ipaddress
from typing import TYPE_CHECKING

import psutil

from easeml_core.errors import StateError
from easeml_core.store.server.cluster import free_port
from stack.failures import ExposedError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def listening(processes: Iterable[psutil.Process]) -> list[tuple[str, int, str, int]]:
    """(address, port, program, process id) of each TCP socket that listens, and of each UDP socket that is bound.

    A process that may not be looked into (Airflow's task supervisors, for an ordinary user) is left out; whatever it
    inherited is seen at its parent.
    """
    found = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            for connection in process.net_connections(kind="inet"):
                bound = connection.status == psutil.CONN_NONE and not connection.raddr
                if connection.laddr and (bound or connection.status == psutil.CONN_LISTEN):
                    found.append((connection.laddr.ip, connection.laddr.port, process.name(), process.pid))
    return found


def require_loopback(processes: Iterable[psutil.Process]) -> int:
    """The number of listening sockets, all of which are on loopback.

    Raises:
        ExposedError: If one is not.
    """
    sockets = listening(processes)
    exposed = [s for s in sockets if not ipaddress.ip_address(s[0].split("%")[0]).is_loopback]
    if exposed:
        raise ExposedError(f"{name} (process {pid}) on {address}:{port}" for address, port, name, pid in exposed)
    return len(sockets)


def remembered_port(path: Path) -> int:
    """The port in the file if it is still free, else another one, which the file then holds.

    Raises:
        StateError: If this machine has no free port.
    """
    try:
        wanted = int(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        wanted = 0
    port = (free_port(wanted) if 0 < wanted < 2**16 else None) or free_port()
    if port is None:
        message = "no port of 127.0.0.1 is free"
        raise StateError(message)
    path.write_text(f"{port}\n", encoding="utf-8")
    return port
