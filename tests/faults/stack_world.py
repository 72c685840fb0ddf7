"""A whole stack as `make up` brings it up, with a tenant's login: Airflow, our processes, PostgreSQL, the launcher.

The DAGs are the product's. Those that a round runs are copied to a folder of the installation, with a shorter pause
between the tries of a task, once for the connection ``easeml_default`` and once for that of the tenant's login. The
database and the artifacts lie on file systems in memory where root may mount them, so that they can be filled.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import psutil
from demo_night.runs import await_dag
from fault_world import Served
from stack.keys import ADMIN, load_keys
from stack.launcher import HEALTHY_PARTS
from stack.places import REPOSITORY, Places
from stack.record import HEALTHY, is_running, read_record
from stack.rest import Rest, RestError

from easeml_core.errors import EasemlError
from easeml_core.services.studies.logins import make_login
from easeml_core.store.database import Store
from easeml_core.store.rows import scalar
from easeml_core.store.server.cluster import LOOPBACK
from easeml_core.store.server.server import Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REGISTER, NIGHT, STREAM, GATE = DAGS = (
    "easeml_register_study",
    "easeml_nightly_retraining",
    "easeml_stream",
    "easeml_commit_gate",
)
LOGIN_TENANT, TENANT = "garden", "lab"
OF_LOGIN = "_of_login"
"""Suffix of the DAGs whose connection has the tenant's login: `easeml scheduler` decides what they are to train."""

PARTS = {
    "referee": "easeml_core.cli referee",
    "easeml-scheduler": "easeml_core.cli scheduler",
    "scheduler": "scheduler --skip-serve-logs",
    "dag-processor": ") dag-processor",
    "triggerer": "airflow triggerer",
    "api-server": "airflow api_server",
}
"""Part -> words of its command line; there are two API servers where tasks have a separate one."""

DATABASE_BYTES, ARTIFACT_BYTES, INODES = 1 << 30, 700 << 20, 100_000
"""Trainings and sealing wait where less than 500 MB are free."""

UP_SECONDS, PATIENCE_SECONDS = 400.0, 240.0
_SETTLED = ("success", "failed", "upstream_failed", "skipped", "removed")


class StackWorld(Served):
    """One installation with its stack.

    Args:
        home: Its state folder.
    """

    def __init__(self, home: Path) -> None:
        super().__init__()
        self.places = Places.of(home, home.parent / f"{home.name}-dags")
        self.server = Server(self.places.database)

    @contextlib.contextmanager
    def running(self) -> Iterator[StackWorld]:
        """Bring everything up for the length of a block."""
        with contextlib.ExitStack() as stack:
            self.places.home.mkdir(mode=0o711, exist_ok=True)
            self.mount(stack, "database", self.places.database, DATABASE_BYTES, INODES)
            self.mount(stack, "artifacts", self.places.artifacts, ARTIFACT_BYTES, INODES)
            self._write_dags()
            stack.callback(self._down)
            self.up()
            self.worker, self.referee = (
                Store(self.server.url(r, "easeml")) for r in ("easeml_worker", "easeml_referee")
            )
            stack.callback(self.worker.close)
            stack.callback(self.referee.close)
            self.rest = self.new_rest()
            self._make_login()
            for dag_id in self.dags():
                await_dag(self.rest, dag_id, lambda: None)
                self.rest.pause(dag_id, False)
            yield self

    def up(self) -> None:
        """Start the stack, or wait until it is healthy, as a person does with `make up`.

        Raises:
            RuntimeError: If it does not come up.
        """
        done = subprocess.run(
            [sys.executable, "scripts/launch.py", *self._named(), "up", "--scheduler"],
            cwd=REPOSITORY, capture_output=True, text=True, timeout=UP_SECONDS, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            message = f"`make up` ends with {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
            raise RuntimeError(message)

    def _named(self) -> list[str]:
        return ["--home", str(self.places.home), "--dags", str(self.places.dags)]

    def _down(self) -> None:
        subprocess.run(
            [sys.executable, "scripts/launch.py", *self._named(), "down"],
            cwd=REPOSITORY, capture_output=True, timeout=UP_SECONDS, check=False,
        )  # fmt: skip
        with contextlib.suppress(EasemlError):
            self.server.stop()

    def new_rest(self) -> Rest:
        """A logged-in client that repeats what a restart of the API server has cut."""
        rest = Rest(self.url(), ADMIN, load_keys(self.places.keys).admin_password, patience_seconds=PATIENCE_SECONDS)
        rest.log_in()
        return rest

    def url(self) -> str:
        """Where Airflow's API server is."""
        record = read_record(self.places.record)
        return record.url if record is not None else ""

    def dags(self) -> list[str]:
        """The DAGs that a round may run."""
        return [f"{dag_id}{suffix}" for dag_id in DAGS for suffix in ("", OF_LOGIN)]

    def _write_dags(self) -> None:
        shutil.rmtree(self.places.dags, ignore_errors=True)
        self.places.dags.mkdir(mode=0o755)
        for dag_id in DAGS:
            text = (REPOSITORY / "dags" / f"{dag_id}.py").read_text(encoding="utf-8")
            text = text.replace("timedelta(seconds=30)", "timedelta(seconds=10)")
            text = text.replace(
                'schedule=CronTriggerTimetable("0 1 * * *", ', 'schedule=CronTriggerTimetable("0 1 1 1 *", '
            )
            text = text.replace("schedule=[submissions()]", "schedule=None")
            for suffix, connection in (("", "easeml_default"), (OF_LOGIN, "easeml_of_login")):
                own = text.replace(f'dag_id="{dag_id}"', f'dag_id="{dag_id}{suffix}"')
                own = own.replace('"easeml_conn_id": None', f'"easeml_conn_id": "{connection}"')
                (self.places.dags / f"{dag_id}{suffix}.py").write_text(own, encoding="utf-8")

    def _make_login(self) -> None:
        """Make the tenant's login, and the connection that has it."""
        administrator = Store(self.server.url("postgres", "easeml"))
        try:
            with administrator.begin() as tx:
                scalar(
                    tx,
                    "INSERT INTO work.tenants (name) VALUES (:name) ON CONFLICT (name) DO UPDATE SET name = :name "
                    "RETURNING id",
                    name=LOGIN_TENANT,
                )
            made = make_login(administrator, name=LOGIN_TENANT, tenants=[LOGIN_TENANT])
        finally:
            administrator.close()
        body = {
            "connection_id": "easeml_of_login", "conn_type": "easeml", "host": LOOPBACK, "port": self.server.port,
            "login": made.login.login, "password": made.password, "schema": "easeml",
            "extra": json.dumps({"artifacts": str(self.places.artifacts)}),
        }  # fmt: skip
        try:
            self.rest.call("POST", "/connections", body)
        except RestError as error:
            if error.status != 409:
                raise
            self.rest.call("PATCH", "/connections/easeml_of_login", body)

    # -- what is there -------------------------------------------------------------------------------------------------

    def part(self, name: str) -> list[psutil.Process]:
        """The processes of a part: none while it is away, two API servers where tasks have a separate one."""
        found = []
        for process in self._of_launcher():
            with contextlib.suppress(psutil.Error):
                if PARTS[name] in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def launcher(self) -> psutil.Process | None:
        """The process that supervises the parts."""
        record = read_record(self.places.record)
        with contextlib.suppress(psutil.Error):
            if record is not None and is_running(self.places):
                return psutil.Process(record.launcher)
        return None

    def _of_launcher(self) -> list[psutil.Process]:
        launcher = self.launcher()
        with contextlib.suppress(psutil.Error):
            return launcher.children() if launcher is not None else []
        return []

    def all_processes(self) -> list[psutil.Process]:
        """The launcher, the parts, all that they have started, and the server's."""
        launcher = self.launcher()
        found = [launcher] if launcher is not None else []
        with contextlib.suppress(psutil.Error):
            found += launcher.children(recursive=True) if launcher is not None else []
        return [*found, *self.server_processes()]

    def tasks(self) -> list[psutil.Process]:
        """The processes that run tasks: children of the executor's workers."""
        found = []
        for scheduler in self.part("scheduler"):
            with contextlib.suppress(psutil.Error):
                for worker in scheduler.children():
                    if "idle" not in " ".join(worker.cmdline()):
                        found += [worker, *worker.children(recursive=True)]
        return found

    def not_well(self, since: datetime) -> list[str]:
        """What does not run or has sent no heartbeat since then, in words."""
        record = read_record(self.places.record)
        if record is None or not is_running(self.places):
            return ["the launcher does not run"]
        if record.state != HEALTHY:
            return [f"the stack is {record.state}: {record.step}{record.failure[-300:]}"]
        bad = [
            f"{part.name} is {part.state}: {part.failure[-300:]}" for part in record.parts if part.state != "running"
        ]
        if bad:
            return bad
        health = Rest(record.url, ADMIN, "", timeout_seconds=5).health(since)
        return [f"{part} is {health.get(part, 'silent')}" for part in HEALTHY_PARTS if health.get(part) != "healthy"]

    def open_tasks(self) -> list[str]:
        """Task instances of Airflow that are not at an end, in words."""
        rows = self.rows(
            "SELECT dag_id, task_id, map_index, state FROM task_instance WHERE (state IS NULL OR state <> ALL(%s)) "
            "AND run_id IN (SELECT run_id FROM dag_run WHERE state IN ('running', 'queued'))",
            list(_SETTLED),
            database="airflow",
        )
        return [f"{dag}.{task}[{index}] is {state}" for dag, task, index, state in rows]

    def restarts(self) -> int:
        """How often a part was started again by the launcher that runs."""
        record = read_record(self.places.record)
        return sum(part.restarts for part in record.parts) if record is not None else 0


def since_now() -> datetime:
    """This moment, as heartbeats are compared."""
    return datetime.now(UTC)
