"""Browsers on the event stream of one API server: memory, files, and what a change costs.

    python benchmarks/at_scale/browsers.py --browsers 1000 --studies 1000

The pages run in uvicorn, as in Airflow's API server but without its login; each browser is a different person with one
TCP connection that hears of all studies. Then changes of a study are notified, first one, then some each second, as a
night does. With ``--reload`` each browser asks for a study's page after an event, as the page's script does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import resource
import socket
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import writers as load
from fastapi import Request  # noqa: TC002 - FastAPI reads the annotation while it runs

from easeml_core.store.database import Store, notify_pages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OPENED_AT_ONCE = 50
LONGEST_SECONDS = 110.0
"""A stream ends by itself after 120 s."""


def serve(url: str, port: int) -> None:
    """Be the API server until the process is ended."""
    import uvicorn

    from easeml_airflow.web.app import create_app
    from easeml_airflow.web.components.action_items import count_needs
    from easeml_airflow.web.server.auth import Role, Viewer
    from easeml_airflow.web.server.site import Site

    store = Store(url)

    def viewer(request: Request) -> Viewer:
        return Viewer(request.headers.get("x-person", "ada"), frozenset({Role.OPERATOR}))

    site = Site(lambda: store, _no_artifacts, lambda: store, viewer, count_needs)
    app = create_app(site, require_login=lambda: None)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", backlog=2048)


def _no_artifacts() -> Any:
    raise NotImplementedError


@dataclass
class Crowd:
    """All browsers, in one event loop.

    Attributes:
        port: Of the server.
        reloads: Whether each asks for a page after an event.
        heard: Times of events since the last ``clear``.
        refused: Statuses of streams that were not opened.
        reload_ms: Milliseconds of pages that were asked for.
        open: Streams that are open now.
    """

    port: int
    reloads: bool
    heard: list[float] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    reload_ms: list[float] = field(default_factory=list)
    open: int = 0

    def have_come(self, number: int) -> bool:
        """Whether so many have a stream, or were refused one."""
        return self.open + sum(self.refused.values()) >= number

    async def browse(self, number: int) -> None:
        """Hold one stream open."""
        try:
            reader, writer = await self._ask("/events", number)
            status = (await reader.readline()).decode().split()[1]
        except (OSError, IndexError) as error:
            self.refused[type(error).__name__] += 1
            return
        if status != "200":
            self.refused[status] += 1
            writer.close()
            return
        self.open += 1
        try:
            while line := await reader.readline():
                if line == b"event: changed\n":
                    self.heard.append(time.perf_counter())
                    if self.reloads:
                        await self._reload(number)
        except OSError as error:
            self.refused[type(error).__name__] += 1
        finally:
            self.open -= 1
            writer.close()

    async def _ask(self, path: str, number: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: here\r\nX-Person: p{number}\r\n\r\n".encode())
        await writer.drain()
        return reader, writer

    async def _reload(self, number: int) -> None:
        began = time.perf_counter()
        reader, writer = await self._ask("/studies/t-3", number)
        length = 0
        while (line := await reader.readline()) not in (b"\r\n", b""):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        await reader.readexactly(length)
        writer.close()
        self.reload_ms.append(1e3 * (time.perf_counter() - began))


def use(server: psutil.Process) -> dict[str, Any]:
    """Memory and files of the server."""
    found = server.memory_full_info()
    return {
        "rss_mb": round(found.rss / 1e6, 1),
        "pss_mb": round(found.pss / 1e6, 1),
        "files": server.num_fds(),
        "threads": server.num_threads(),
        "cpu": sum(server.cpu_times()[:2]),
    }


async def crowd(server: psutil.Process, store: Store, port: int, browsers: int, seconds: float, reloads: bool) -> Any:
    """Open the streams, and notify of changes."""
    people, tasks = Crowd(port, reloads), list[asyncio.Task[None]]()
    alone = use(server)
    began = time.perf_counter()
    for first in range(0, browsers, OPENED_AT_ONCE):
        tasks += [asyncio.create_task(people.browse(n)) for n in range(first, min(first + OPENED_AT_ONCE, browsers))]
        await _until(partial(people.have_come, len(tasks)), LONGEST_SECONDS)
    opened = time.perf_counter() - began
    await asyncio.sleep(2)
    crowded = use(server)
    one = await _notify(people, server, store, times=1, until=LONGEST_SECONDS - opened - seconds)
    many = await _notify(people, server, store, times=int(seconds), until=seconds)
    found = {
        "kind": "browsers", "browsers": browsers, "open": people.open, "refused": dict(people.refused),
        "opened_seconds": round(opened, 2), "alone": alone, "crowded": crowded,
        "kb_a_stream": round(1e3 * (crowded["pss_mb"] - alone["pss_mb"]) / max(1, people.open), 1),
        "one_change": one, "a_change_each_second": many, "reload": load.percentiles(people.reload_ms),
        "after": use(server), "load": round(psutil.getloadavg()[0], 1),
    }  # fmt: skip
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(3)
    return found | {"closed": use(server)}


async def _until(is_so: Callable[[], bool], seconds: float) -> None:
    """Wait until something is so, or the time is over."""
    for _ in range(max(1, int(seconds / 0.05))):
        if is_so():
            return
        await asyncio.sleep(0.05)


async def _notify(people: Crowd, server: psutil.Process, store: Store, *, times: int, until: float) -> dict[str, Any]:
    """Notify of changes, one a second, and wait until all have heard or the time is over."""
    people.heard.clear()
    began, used = time.perf_counter(), use(server)["cpu"]
    for number in range(times):
        with store.begin() as tx:
            notify_pages(tx, f"t-{number % 3}")
        await asyncio.sleep(1)
    await _until(lambda: len(people.heard) >= people.open, until - times)
    took = time.perf_counter() - began
    after = np.array(people.heard) - began
    return {
        "changes": times,
        "events": len(people.heard),
        "seconds": round(took, 1),
        "first_last": [round(float(after.min()), 2), round(float(after.max()), 2)] if after.size else [],
        "server_cpu_share": round((use(server)["cpu"] - used) / took, 3),
    }


@contextlib.contextmanager
def server_of(url: str) -> Iterator[tuple[psutil.Process, int]]:
    """The running API server, in a separate process, and its port."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(url, port))
    process.start()
    try:
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.1)
        yield psutil.Process(process.pid), port
    finally:
        process.terminate()
        process.join()


def measure(*, browsers: int, studies: int, seconds: float, reloads: bool) -> dict[str, Any]:
    """Fill a database, start the server, and let the browsers come."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, max(soft, 4 * browsers))
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    with (
        load.installation(studies, 5) as (server, _, _),
        contextlib.closing(Store(server.url("easeml_worker", "easeml"))) as store,
        server_of(str(server.url("easeml_worker", "easeml"))) as (process, port),
    ):
        found = asyncio.run(crowd(process, store, port, browsers, seconds, reloads))
        return {**found, "studies": studies, "files_limit": wanted}


@click.command(help=__doc__)
@click.option("--browsers", default=50, show_default=True, type=click.IntRange(1, 20_000))
@click.option("--studies", default=20, show_default=True, type=click.IntRange(4, 20_000))
@click.option("--seconds", default=10.0, show_default=True, help="With a change each second.")
@click.option("--reload", "reloads", is_flag=True, help="Ask for a study's page after each event.")
@click.option("--save", is_flag=True, help="Keep the figures in benchmarks/results/load.jsonl.")
def main(save: bool, **sizes: Any) -> None:
    """Measure and print."""
    found = measure(**sizes)
    if save:
        load.keep(found)
    click.echo(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
