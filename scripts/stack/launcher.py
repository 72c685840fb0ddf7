"""Bring one stack up, keep it up, take it down: database, schemas, referee, Airflow, in this order."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self

import psutil
import psycopg2

from easeml_core.errors import EasemlError
from easeml_core.files.local import sweep_scratch
from easeml_core.sandbox.child_start import end_shared_servers
from easeml_core.store.server.cluster import LOOPBACK, find_postmaster
from easeml_core.store.server.place import DATA, place_of
from easeml_core.store.server.server import Server, sweep_throwaways
from stack.account import end_processes_of, prepare_accounts, product_folders, trial
from stack.components import SUGGESTING, airflow, airflow_components, easeml, referee, suggesting_scheduler
from stack.environment import airflow_environment, api_server_environment, database_environment
from stack.failures import CommandFailedError, ComponentDiedError, StackError, UnhealthyError, last_line, tail
from stack.git_bundles import write_trust
from stack.hosts import CELERY, LOCAL, Hosts
from stack.keys import ADMIN, Keys, load_keys, write_passwords
from stack.network import remembered_port, require_loopback
from stack.processes import Processes, begin_command, finish_command, run_command
from stack.pulse import SILENCE_SECONDS, Pulse
from stack.record import (
    FAILED,
    HEALTHY,
    STOPPED,
    PartRecord,
    Record,
    end_leftovers,
    is_running,
    launcher_lock,
    launcher_of,
    read_record,
)
from stack.rest import Rest
from stack.stopping import StopRequestedError, ignoring_stop_signals
from stack.supervision import Supervisor

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType

    from stack.account import Account, Accounts
    from stack.components import Component
    from stack.git_bundles import GitBundle
    from stack.places import Places
    from stack.progress import Progress

POOL, POOL_SLOTS = "easeml_devices", 2
HEALTHY_PARTS = ("metadatabase", "scheduler", "triggerer", "dag_processor")
HEALTH_SECONDS = 120.0
PULSE_SECONDS = 10.0
PATIENCE_SECONDS = 300.0
"""How long a demo waits for a part that keeps failing."""
ABSENCE_SECONDS = 120.0
"""How long a demo waits for an API server that is away, and for another launcher to be started again."""


@dataclass(frozen=True, slots=True)
class Access:
    """How to talk to a running stack.

    Attributes:
        url: Where Airflow's UI and REST interface are.
        keys: The kept secrets, the admin's password among them.
        worker_url: Our database, as the worker's role.
    """

    url: str
    keys: Keys
    worker_url: str

    def rest(self) -> Rest:
        """A logged-in REST client, for which a restart of the API server is a pause."""
        rest = Rest(self.url, ADMIN, self.keys.admin_password, patience_seconds=ABSENCE_SECONDS)
        rest.log_in()
        return rest


@dataclass(frozen=True, slots=True)
class DatabaseServer:
    """The embedded server as a part that is watched: its main process, which PostgreSQL does not start again."""

    server: Server
    name: str = "database"

    def ended(self) -> str | None:
        """Why it does not run; None while it runs."""
        return None if find_postmaster(self.server.data) else "has no process any more"

    def start(self) -> None:
        """Start it, with PostgreSQL's recovery where it was killed; returns when it answers."""
        self.server.start()

    def last_lines(self) -> str:
        """The end of its log."""
        return tail(self.server.data / "server.log")


class Stack:
    """The stack of one state folder, owned by this process from ``with`` to its end.

    Args:
        places: Where its files lie.
        progress: Whom it tells of its steps.
        bundles: Whose DAGs Airflow reads besides those of the folder.
        referee_options: Further options of ``easeml referee``.
        with_scheduler: Whether ``easeml scheduler`` is a part, too; it is one in any case where a tenant has a login.
        executor: Where tasks run: ``local``, or ``celery`` for separate hosts.

    Example::

        with Stack(Places.of(), Progress()) as stack:
            rest = stack.access.rest()
            stack.check()
    """

    def __init__(
        self,
        places: Places,
        progress: Progress,
        *,
        bundles: Sequence[GitBundle] = (),
        referee_options: Sequence[str] = (),
        with_scheduler: bool = False,
        executor: str = LOCAL,
    ) -> None:
        self.places, self.progress, self.with_scheduler = places, progress, with_scheduler
        self.executor = executor
        self.bundles, self.referee_options = bundles, referee_options
        self.server = Server(places.database)
        self.processes = Processes(places.logs)
        self.ended = threading.Event()
        self.record = Record(launcher=os.getpid(), executor=executor)
        self.record_lock = threading.Lock()
        self.supervisor = Supervisor(
            DatabaseServer(self.server), is_database_up=self.server.alive, on_change=self._tell_change
        )
        self.accounts: Accounts | None = None
        self.hosts: Hosts | None = None
        self.held = contextlib.ExitStack()
        progress.on_step = lambda title: self._note(step=title)

    def __enter__(self) -> Self:
        self.places.make()
        self.held.enter_context(launcher_lock(self.places))
        try:
            self._start()
        except BaseException as error:
            self._stop(error)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop(error)

    @property
    def access(self) -> Access:
        """How to talk to this stack."""
        return Access(self.record.url, load_keys(self.places.keys), self.server.url("easeml_worker", "easeml"))

    def check(self, patience_seconds: float = PATIENCE_SECONDS) -> None:
        """Do nothing while all is well, or may become so: what ends is started again.

        Args:
            patience_seconds: How long a part may keep failing.

        Raises:
            ComponentDiedError: If one has kept failing for longer.
        """
        if read_record(self.places.record) is None:  # damaged by another hand, or by a full disk
            self._note()
        life = self.supervisor.failing(patience_seconds)
        if life is not None:
            raise ComponentDiedError(life.part.name, life.failures, life.failure, self.places.logs)

    def exposed(self) -> int:
        """The number of listening sockets of all our processes, the database's included.

        Raises:
            ExposedError: If one is not on loopback.
        """
        return require_loopback([*self.processes.tree(), *_database_processes(self.places)])

    def _start(self) -> None:
        self._note(step="looking for leftovers")
        end_leftovers(self.places)
        sweep_throwaways()
        sweep_scratch()
        self._note(step="starting")
        compiling = self._begin_compiling()
        is_new = not self.server.data.exists()
        with self.progress.step("embedded PostgreSQL"):
            self.held.enter_context(self.server.owned())
            self.server.ensure_installation()
        self.places.settle_referee(is_new=is_new)
        keys = load_keys(self.places.keys)
        self.hosts = Hosts.prepare(self.places, keys) if self.executor == CELERY else None
        self.accounts = self._airflow_accounts()
        write_passwords(self.places.passwords, keys, self.accounts.api_server if self.accounts else None)
        port = remembered_port(self.places.port)
        task_port = remembered_port(self.places.task_port) if self.accounts else None
        environment = airflow_environment(
            self.places,
            keys,
            port=port,
            task_port=task_port,
            metadata=self.server.url("airflow", "airflow"),
            worker=self.server.url("easeml_worker", "easeml"),
            account=self.accounts.tasks if self.accounts else None,
            bundles=self.bundles,
            artifacts=self.hosts.artifacts if self.hosts else None,
        )
        environment |= self.hosts.shared() if self.hosts else {}
        of_api_server = api_server_environment(environment, self.places, keys, self._sealed_url(), self.accounts)
        with self.progress.step("database schemas: ours and Airflow's"):
            self._migrate(environment)
            compiling.wait()
        self._note(url=f"http://{LOOPBACK}:{port}")
        with self.progress.step("referee, API server, scheduler, DAG processor, triggerer") as tell:
            since = datetime.now(UTC)
            self.supervisor.start()
            parts = airflow_components(environment, of_api_server, self.accounts, task_port)
            self._start_components([*parts, *(self.hosts.workers(environment, self.accounts) if self.hosts else ())])
            self._await_health(since, tell)
            self._await_tasks_server(task_port)
            if self.hosts:
                self._await("workers", self.hosts.workers_ready)
        with self.progress.step("device pool; nothing listens outside loopback"):
            self.access.rest().make_pool(POOL, POOL_SLOTS, "One slot for each training device")
            self.exposed()
        self._note(state=HEALTHY, step="")
        threading.Thread(target=self._watch_pulse, name="pulse", daemon=True).start()

    def _begin_compiling(self) -> subprocess.Popen[bytes]:
        """Compile the product's bytecode, which accounts that cannot write there would do anew in each process."""
        command = (sys.executable, "-m", "compileall", "-qq", *map(str, product_folders()))
        process = begin_command("compile", command, {}, self.places.logs)
        self.held.callback(process.wait)
        self.held.callback(process.kill)
        return process

    def _airflow_accounts(self) -> Accounts | None:
        """The accounts that root's Airflow runs under; None, said in one line, where they cannot be made to work."""
        try:
            write_trust(self.places.git_trust, self.bundles)
            repositories = [bundle.repository for bundle in self.bundles]
            needs = self.hosts.needs() if self.hosts else None
            accounts = prepare_accounts(self.places, [self.places.git_trust, *repositories], needs)
            if accounts is None:
                return None
            for account in (accounts.tasks, *accounts.hosts.values()):
                self._try(account)
            accounts = replace(accounts, api_server=self._confined(accounts.api_server))
        except (OSError, CommandFailedError) as error:
            reason = str(error) if isinstance(error, OSError) else last_line(self.places.logs / "account.log")
            warning = f"Airflow and the referee share root's account: what tasks run can read its secrets ({reason})."
            self._warn(warning)
            return None
        self.held.callback(end_processes_of, *accounts.uids())
        return accounts

    def _confined(self, account: Account) -> Account:
        """The account of an API server that tasks cannot make read its own secrets, where the kernel has the means."""
        try:
            self._try(account)
        except CommandFailedError:
            reason = last_line(self.places.logs / "account.log")
            self._warn(f"Pages show nothing of sealed sets, which tasks could see through the API server ({reason}).")
            account = replace(account, linkless=())
            self._try(account)
        return account

    def _sealed_url(self) -> str:
        """The referee's address for the API server; empty where tasks of another account could learn it."""
        is_safe = self.accounts is None or self.accounts.api_server.linkless
        return self.server.url("easeml_referee", "easeml") if is_safe else ""

    def _try(self, account: Account) -> None:
        run_command("account", trial(self.places, account), {}, self.places.logs, account)

    def _warn(self, warning: str) -> None:
        self.progress.console.print(warning, style="yellow", markup=False, soft_wrap=True)

    def _migrate(self, environment: dict[str, str]) -> None:
        owner = database_environment(self.server.url("easeml_owner", "easeml"))
        logs = self.places.logs
        account = self.accounts.tasks if self.accounts else None
        begun = {
            "airflow-migrate": begin_command("airflow-migrate", airflow("db", "migrate"), environment, logs, account),
            "easeml-upgrade": begin_command("easeml-upgrade", easeml("db", "upgrade"), owner, logs),
        }
        try:
            for name, process in begun.items():
                finish_command(process, name, logs)
        finally:
            for process in begun.values():
                process.kill()
                process.wait()

    def _start_components(self, components: Sequence[Component]) -> None:
        secret = database_environment(self.server.url("easeml_referee", "easeml"))
        if self.hosts:
            self._start_servers(self.hosts)
            secret |= self.hosts.of_referee()
        judge = referee(
            secret, self.places, *self.referee_options, artifacts=self.hosts.artifacts if self.hosts else None
        )
        own = [judge, self._scheduler()] if self._wants_scheduler() else [judge]
        for component in (*own, *components):
            self.supervisor.watch(self.processes.start(component))
        self._note_parts()

    def _start_servers(self, hosts: Hosts) -> None:
        """Start what the hosts share, and wait until it answers."""
        for component in hosts.servers(self.accounts):
            self.supervisor.watch(self.processes.start(component))
        self._await("broker and object store", hosts.servers_answer)

    def _await(self, what: str, answers: Callable[[], bool]) -> None:
        deadline = time.monotonic() + HEALTH_SECONDS
        while not answers():
            self.check(0)
            if time.monotonic() > deadline:
                raise UnhealthyError({what: "silent"}, HEALTH_SECONDS, self.places.logs)
            time.sleep(0.25)

    def _scheduler(self) -> Component:
        """``easeml scheduler``: no part of Airflow gets the address of its role."""
        return suggesting_scheduler(database_environment(self.server.url("easeml_scheduler", "easeml")))

    def _add_scheduler(self) -> None:
        """Have ``easeml scheduler`` started where it does not run and a login was made since the start."""
        if all(life.part.name != SUGGESTING for life in self.supervisor.lives):
            with contextlib.suppress(EasemlError, psycopg2.Error):  # the database is away: the next look asks again
                if self._wants_scheduler():
                    self.supervisor.add(SUGGESTING, lambda: self.processes.start(self._scheduler()))

    def _wants_scheduler(self) -> bool:
        with contextlib.closing(self.server.connect(database="easeml")) as opened, opened.cursor() as cursor:
            cursor.execute(
                "SELECT EXISTS (SELECT FROM work.tenant_logins) "
                "OR EXISTS (SELECT FROM pg_roles WHERE starts_with(rolname::text, 'easeml_d_'))"
            )
            (has_logins,) = cursor.fetchone() or (False,)
        return self.with_scheduler or bool(has_logins)

    def _watch_pulse(self) -> None:
        """End what lives but does nothing, so that the supervisor starts it again; start what a login needs."""
        pulse = Pulse()
        while not self.ended.wait(PULSE_SECONDS):
            self._add_scheduler()
            for name in pulse.note(self._signs()):
                self._warn(f"{name} has shown no sign of life for {SILENCE_SECONDS:.0f} s; it is killed")
                for running in self.processes.running:
                    if running.name == name:
                        running.process.kill()

    def _signs(self) -> dict[str, object]:
        """What shows that each part works: its latest heartbeat; of an API server, an answer."""
        if not self.server.alive():
            return {}
        beats = Rest(self.record.url, ADMIN, "", timeout_seconds=5).heartbeats()
        now = time.monotonic()
        signs: dict[str, object] = {part.replace("_", "-"): beat for part, beat in beats.items()}
        signs["api-server"] = now if beats else None
        if self.places.task_port.exists():
            port = self.places.task_port.read_text(encoding="utf-8").strip()
            tasks = Rest(f"http://{LOOPBACK}:{port}", ADMIN, "", timeout_seconds=5)
            signs["task-api-server"] = now if tasks.answers("/execution/health") else None
        signs |= self._beats()
        pids = {running.name: running.process.pid for running in self.processes.running}
        return {name: (pids[name], sign) for name, sign in signs.items() if name in pids}

    def _beats(self) -> dict[str, object]:
        """The latest heartbeats of our own parts; none while the database cannot be asked."""
        asked = "SELECT (SELECT max(beat_at) FROM work.heartbeats), (SELECT max(beat_at) FROM work.scheduler_beats)"
        try:
            with contextlib.closing(self.server.connect(database="easeml")) as opened, opened.cursor() as cursor:
                cursor.execute(asked)
                found = cursor.fetchone() or (None, None)
        except (EasemlError, psycopg2.Error):
            return {}
        return dict(zip(("referee", SUGGESTING), found, strict=True))

    def _await_health(self, since: datetime, tell: Callable[[str], None]) -> None:
        rest = Rest(self.record.url, ADMIN, "", timeout_seconds=5)
        deadline = time.monotonic() + HEALTH_SECONDS
        waiting: Sequence[str] = HEALTHY_PARTS
        while waiting:
            self.check(0)
            states = rest.health(since)
            waiting = [part for part in HEALTHY_PARTS if states.get(part) != "healthy"]
            tell("waiting for " + ", ".join(waiting).replace("_", " "))
            if waiting and time.monotonic() > deadline:
                raise UnhealthyError(states, HEALTH_SECONDS, self.places.logs)
            time.sleep(0.25)

    def _await_tasks_server(self, port: int | None) -> None:
        """Wait for the API server of tasks, where it is a separate one."""
        if port is not None:
            rest = Rest(f"http://{LOOPBACK}:{port}", ADMIN, "", timeout_seconds=5)
            self._await("task api server", lambda: rest.answers("/execution/health"))

    def _stop(self, error: BaseException | None) -> None:
        failed = error is not None and not isinstance(error, StopRequestedError | KeyboardInterrupt)
        with ignoring_stop_signals():
            self.held.callback(self._note_end, error if failed else None)
            with self.held:
                self.ended.set()
                self.supervisor.hold()
                self.processes.stop()
                self.supervisor.stop()
                end_shared_servers(os.geteuid())

    def _note_end(self, failure: BaseException | None) -> None:
        state = FAILED if failure else STOPPED
        self._note(state=state, step="", failure=str(failure or ""), children=(), parts=())

    def _tell_change(self, line: str) -> None:
        self.progress.console.print(
            f"{datetime.now(UTC).astimezone():%H:%M:%S} {line}", style="yellow", markup=False, soft_wrap=True
        )
        self._note_parts()

    def _note_parts(self) -> None:
        parts = tuple(
            PartRecord(x.part.name, x.state, x.since.isoformat(timespec="seconds"), x.restarts, x.failure)
            for x in self.supervisor.all()
        )
        self._note(children=self.processes.identities(), parts=parts)

    def _note(self, **changes: object) -> None:
        with self.record_lock:  # the supervisor's thread notes, too
            self.record = self.record.write(self.places.record, **changes)


def _database_processes(places: Places) -> list[psutil.Process]:
    postmaster = find_postmaster(place_of(places.database) / DATA)
    with contextlib.suppress(psutil.NoSuchProcess):
        if postmaster is not None:
            process = psutil.Process(postmaster.pid)
            return [process, *process.children(recursive=True)]
    return []


@contextlib.contextmanager
def running_stack(
    places: Places, progress: Progress, executor: str | None = None
) -> Iterator[tuple[Access, Callable[[], None], bool]]:
    """A stack that is up: the one that runs already, which is left running, or one of our own.

    Gives how to talk to it, a function that raises when it is not well any more, and whether it stays. With an
    executor it must be that one; a new stack has ``local`` without one.
    """
    if not is_running(places):
        with Stack(places, progress, executor=executor or LOCAL) as stack:
            yield stack.access, stack.check, False
            stack.exposed()
        return
    record = read_record(places.record)
    if record is None or record.state != HEALTHY:
        message = (
            f"{launcher_of(places)} holds {places.home}, but its stack is not healthy yet; try again, or `make down`"
        )
        raise StackError(message)
    if executor not in (None, record.executor):
        message = f"the stack that runs has the executor {record.executor}, not {executor}; first `make down`"
        raise StackError(message)
    worker = Server(places.database).url("easeml_worker", "easeml")
    yield Access(record.url, load_keys(places.keys), worker), Presence(places).require, True


class Presence:
    """Whether the stack of another launcher is there; a launcher that was killed may be started again.

    Args:
        places: Of the stack.
    """

    def __init__(self, places: Places) -> None:
        self.places = places
        self.seen = time.monotonic()

    def require(self) -> None:
        """Do nothing while the launcher runs, or has been away for less than ``ABSENCE_SECONDS``.

        Raises:
            StackError: If it was stopped or failed, or has been away for longer.
        """
        if is_running(self.places):
            self.seen = time.monotonic()
            return
        record = read_record(self.places.record)
        was_ended = record is not None and record.state in (FAILED, STOPPED)
        if was_ended or time.monotonic() - self.seen > ABSENCE_SECONDS:
            failure = record.failure if record else ""
            message = f"{failure}\nthe stack that `make up` started has stopped; see {self.places.logs}"
            raise StackError(message)
