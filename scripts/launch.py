"""Start and stop the whole stack for a person: ``up`` leaves it running in the background, ``down`` stops it."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from stack.failures import StackError, tail
from stack.hosts import EXECUTORS, LOCAL
from stack.keys import USERS, load_keys
from stack.launcher import Stack
from stack.places import Places
from stack.progress import Progress
from stack.record import (
    FAILED,
    HEALTHY,
    Record,
    end_leftovers,
    is_running,
    launcher_of,
    launcher_pid,
    read_record,
)
from stack.stopping import StopRequestedError, stop_on_signals

from easeml_core.store.server.server import Server

UP_SECONDS, DOWN_SECONDS = 300.0, 90.0
console = Console(highlight=False, soft_wrap=True)


FORCED = "--allow-forced"
allow_forced_option = click.option(
    FORCED, is_flag=True, help="Tasks may ask for promotions without a verdict (the DAG easeml_forced_promotion)."
)

SCHEDULER = "--scheduler"
scheduler_option = click.option(
    SCHEDULER, is_flag=True, help="Run `easeml scheduler`, too; it runs in any case where a tenant has a login."
)


EXECUTOR = "--executor"
executor_option = click.option(
    EXECUTOR, type=click.Choice(EXECUTORS), help=f"Where tasks run: {LOCAL}, or celery for separate hosts."
)


@click.group(help=__doc__)
@click.option("--home", type=click.Path(path_type=Path), help="The state folder; .easeml of the repository by default.")
@click.option("--dags", type=click.Path(path_type=Path, exists=True), hidden=True, help="Another folder of DAGs.")
@click.pass_context
def main(context: click.Context, home: Path | None, dags: Path | None) -> None:
    """Start and stop the stack."""
    context.obj = Places.of(home, dags)


@main.command()
@allow_forced_option
@scheduler_option
@executor_option
@click.pass_obj
def up(places: Places, /, executor: str | None, **options: bool) -> None:
    """Start the stack in the background, wait until it is healthy, say where it is."""
    if is_running(places):
        console.print(f"A stack runs already: {launcher_of(places)}", markup=False)
        for name in _given(options):
            console.print(f"{name} counts where the stack is started: first `make down`")
        record = read_record(places.record)
        if record and executor not in (None, record.executor):
            console.print(f"Its executor is {record.executor}, not {executor}: that counts where the stack is started")
        _follow(places, None)
    else:
        places.make()
        with (places.logs / "launcher.log").open("wb") as log:
            command = [sys.executable, __file__, "--home", str(places.home), "--dags", str(places.dags), "run"]
            command += [*([EXECUTOR, executor] if executor else []), *_given(options)]
            launcher = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        _follow(places, launcher)
    _show(places)


def _given(options: dict[str, bool]) -> list[str]:
    """The flags that were given, as they are typed."""
    return [f"--{name.replace('_', '-')}" for name, is_given in options.items() if is_given]


@main.command(hidden=True)
@allow_forced_option
@scheduler_option
@executor_option
@click.pass_obj
def run(places: Places, *, allow_forced: bool, scheduler: bool, executor: str | None) -> None:
    """Be the launcher: hold the stack up until told to stop; what ends is started again, for ever."""
    stop_on_signals()
    try:
        options = [FORCED] if allow_forced else []
        with Stack(
            places, Progress(), referee_options=options, with_scheduler=scheduler, executor=executor or LOCAL
        ) as stack:
            while True:
                stack.check(patience_seconds=math.inf)
                time.sleep(0.5)
    except StopRequestedError as asked:
        console.print(str(asked))


@main.command()
@click.pass_obj
def down(places: Places) -> None:
    """Stop the stack, or what a killed launcher left of it. Nothing to stop is fine, too."""
    if is_running(places):
        pid = launcher_pid(places)
        if pid is None:
            message = f"a process holds {places.lock}, but neither that file nor {places.record} says which; stop it"
            raise StackError(message)
        with console.status("stopping"):
            with contextlib.suppress(ProcessLookupError):  # it ends by itself
                os.kill(pid, signal.SIGTERM)
            _await_end(places)
        console.print("The stack has stopped; its state stays in", str(places.home))
        return
    left = end_leftovers(places) if places.home.exists() else 0
    if (places.database / "data").exists():
        Server(places.database).stop()
    console.print(f"Stopped {left} leftover components." if left else "Nothing is running.")


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print what the launcher says of itself as JSON.")
@click.pass_obj
def status(places: Places, *, as_json: bool) -> None:
    """Say whether the stack runs, where, and what became of each of its parts."""
    record = read_record(places.record)
    if as_json:
        runs = is_running(places)
        shown = asdict(record) if record else {}
        print(json.dumps({"running": runs, "launched_by": launcher_of(places) if runs else None} | shown, indent=2))
        raise SystemExit(0 if runs else 3)
    if not is_running(places):
        console.print("Nothing is running; `make up` starts the stack.")
        raise SystemExit(3)
    if record is None:
        console.print(f"A stack runs ({launcher_of(places)}), but {places.record} is damaged.", markup=False)
        return
    _show(places)
    _show_parts(record)


def _show_parts(record: Record) -> None:
    """One line for each part, and one more for its last failure."""
    for part in record.parts:
        since = datetime.fromisoformat(part.since).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        line = f"{part.name:20} {part.state}, since {since}, started again {part.restarts} times"
        console.print(line, markup=False)
        for line in part.failure.splitlines():
            console.print(f"{'':20}   {line}", markup=False)


def _follow(places: Places, launcher: subprocess.Popen[bytes] | None) -> None:
    """Show what the launcher does until the stack is healthy."""
    deadline = time.monotonic() + UP_SECONDS
    with console.status("starting") as shown:
        while time.monotonic() < deadline:
            ended = launcher.poll() is not None if launcher else not is_running(places)
            record = read_record(places.record)
            if record and (launcher is None or record.launcher == launcher.pid):
                shown.update(f"starting: {record.step}")
                if record.state == HEALTHY:
                    return
                if record.state == FAILED:
                    raise StackError(record.failure)
            if ended:
                message = f"{tail(places.logs / 'launcher.log')}\nthe launcher ended before the stack was healthy"
                raise StackError(message)
            time.sleep(0.2)
    message = f"the stack was not healthy after {UP_SECONDS:.0f} s; see {places.logs}"
    raise StackError(message)


def _await_end(places: Places) -> None:
    deadline = time.monotonic() + DOWN_SECONDS
    while is_running(places):
        if time.monotonic() > deadline:
            message = f"the launcher did not stop within {DOWN_SECONDS:.0f} s; see {places.logs / 'launcher.log'}"
            raise StackError(message)
        time.sleep(0.2)


def _show(places: Places) -> None:
    record: Any = read_record(places.record)
    console.print(f"Airflow runs at      {record.url}")
    console.print(f"pages of Ease.ml     {record.url}/plugin/easeml/")
    passwords = load_keys(places.keys).passwords
    for number, (name, may) in enumerate(USERS.items()):
        title = "" if number else "users, passwords"
        console.print(f"{title:20} {name:8} {passwords[name]}  {may}", markup=False)
    console.print(f"logs                 {places.logs}")
    console.print(f"launcher             {launcher_of(places)}", markup=False)
    console.print("                     stop it with `make down`")


if __name__ == "__main__":
    try:
        main(standalone_mode=False)
    except (StackError, click.ClickException) as error:
        console.print(str(error), style="red", markup=False)
        sys.exit(1)
