"""An Airflow as others run it: the default settings, LocalExecutor, a separate database; nothing of our launcher.

The PostgreSQL server has an administrator and a role of Airflow, and nothing of ours before the commands of the install
page are run. Airflow's four processes, the referee and every command are those of the cell's environment.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from stack.environment import plain_environment
from stack.rest import Rest

from cells.environments import ADMIN, DAGS, REPOSITORY, STATE, CellError, Environment, page_commands, run
from easeml_core.store.server.server import throwaway_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from easeml_core.store.server.server import Server

USER = "admin"
PARTS = {
    "api-server": ("airflow", "api-server"),
    "scheduler": ("airflow", "scheduler", "--skip-serve-logs"),
    "dag-processor": ("airflow", "dag-processor"),
    "triggerer": ("airflow", "triggerer", "--skip-serve-logs"),
}
PARTS_WITH_HEARTBEAT = ("scheduler", "triggerer", "dag_processor")
PATIENCE_SECONDS = 180.0
LOOK_SECONDS = 1.0


@dataclass
class StockAirflow:
    """A running Airflow with our package.

    Attributes:
        environment: Its programs.
        folder: Its home; logs are in ``logs``.
        port: Of the API server.
        variables: Of its processes, and of commands.
        processes: By name.
    """

    environment: Environment
    folder: Path
    port: int
    variables: dict[str, str]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, *command: str, **more: str) -> None:
        """Start a process of the environment in the background, with its output in a log file."""
        log = (self.folder / "logs" / f"{name}.log").open("ab")
        with log:
            self.processes[name] = subprocess.Popen(
                [self.program(command[0]), *command[1:]],
                env=self.variables | more,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def program(self, name: str) -> str:
        """Return the path of a program of the environment; bash is the machine's."""
        return name if name == "bash" else str(self.environment.python.with_name(name))

    def address(self, role: str) -> str:
        """Return the address of our database for a role, such as ``referee``, as `easeml db create` has written it."""
        return (self.folder / ".config" / "easeml" / f"{role}.url").read_text(encoding="utf-8").strip()

    def run(self, *command: str, **more: str) -> str:
        """Run a command of the environment to its end.

        Raises:
            CellError: It failed.
        """
        return run([self.program(command[0]), *command[1:]], env=self.variables | more, cwd=self.folder)

    def rest(self) -> Rest:
        """Return a logged-in user of the REST interface."""
        passwords = self.folder / "passwords.json"
        rest = Rest(f"http://127.0.0.1:{self.port}", USER, json.loads(passwords.read_text())[USER], patience_seconds=30)
        rest.log_in()
        return rest

    def require_alive(self) -> None:
        """Raise ``CellError`` with the last lines of a process that has ended."""
        for name, process in self.processes.items():
            if process.poll() is not None:
                log = (self.folder / "logs" / f"{name}.log").read_text(encoding="utf-8", errors="replace")
                last = "\n".join(log.splitlines()[-40:])
                message = f"{name} ended with {process.returncode}:\n{last}"
                raise CellError(message)

    def until(self, what: str, holds: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until something holds, while all processes live.

        Raises:
            CellError: It does not hold in time, or a process has ended.
        """
        deadline = time.monotonic() + seconds
        while not holds():
            self.require_alive()
            if time.monotonic() > deadline:
                message = f"after {seconds:.0f} s: {what}"
                raise CellError(message)
            time.sleep(LOOK_SECONDS)

    def stop(self) -> None:
        """End all processes and theirs."""
        for process in reversed(self.processes.values()):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in self.processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextlib.contextmanager
def stock_airflow(environment: Environment, folder: Path) -> Iterator[StockAirflow]:
    """Start an Airflow with our DAGs, a referee and an empty installation of ours; end all of it afterwards.

    Raises:
        CellError: It does not start, or a DAG cannot be imported.
    """
    for part in ("logs", "dags", "data", "keys"):
        (folder / part).mkdir(parents=True)
    for file in (REPOSITORY / "docs/examples/cookbook").glob("*.py"):
        shutil.copy(file, folder / "dags")
    shutil.copy(REPOSITORY / "scripts/cells/waiting_dag.py", folder / "dags")
    with throwaway_server() as server:
        port = _free_port()
        metadata = _database_of_airflow(server)
        cell = StockAirflow(environment, folder, port, _variables(folder, environment.python.parent, metadata, port))
        try:
            cell.run("airflow", "db", "migrate")
            _install_as_the_page_says(cell, server.url("postgres", "postgres"))
            for name, command in PARTS.items():
                given = {"EASEML_REFEREE_DATABASE_URL": cell.address("referee")} if name == "api-server" else {}
                cell.start(name, *command, **given)
            _until_ready(cell)
            yield cell
        finally:
            cell.stop()


def _database_of_airflow(server: Server) -> str:
    """Make the database that Airflow has already, with a separate role; return its address."""
    password = secrets.token_hex(16)
    with contextlib.closing(server.connect()) as opened, opened.cursor() as cursor:
        cursor.execute(f"CREATE ROLE airflow LOGIN PASSWORD '{password}'")
        cursor.execute("CREATE DATABASE airflow OWNER airflow")
    return f"postgresql+psycopg2://airflow:{password}@127.0.0.1:{server.port}/airflow"


def _install_as_the_page_says(cell: StockAirflow, admin: str) -> None:
    """Run the commands of the install page after the first, and leave the referee running."""
    address = cell.folder / "administrator"
    address.touch(mode=0o600)
    address.write_text(admin, encoding="utf-8")
    commands = page_commands({ADMIN: str(address), STATE: str(cell.folder), DAGS: str(cell.folder / "dags")})
    for line in commands.once:
        run(["bash", "-c", line], env=cell.variables, cwd=cell.folder)
    cell.variables["EASEML_DATABASE_URL"] = cell.address("worker")
    # What the page has no reason to say: answers at once, and no trial measured anew, so that a cell takes less time.
    cell.start("referee", "bash", "-c", f"{commands.referee} --answer-delay 0 --check-share 0 --keys keys")


def _until_ready(cell: StockAirflow) -> None:
    cell.until("the API server does not answer", (cell.folder / "passwords.json").exists)
    nobody = Rest(cell.variables["AIRFLOW__API__BASE_URL"], USER, "")
    began = datetime.now(UTC)

    def is_healthy() -> bool:
        found = nobody.health(began)
        return all(found.get(part) == "healthy" for part in ("metadatabase", *PARTS_WITH_HEARTBEAT))

    cell.until("a part of Airflow is not healthy", is_healthy)


def _variables(folder: Path, programs: Path, metadata: str, port: int) -> dict[str, str]:
    settings = {
        "core.load_examples": "False",
        "core.dags_folder": str(folder / "dags"),
        "core.executor": "LocalExecutor",
        "core.parallelism": "4",
        "core.fernet_key": "",
        "core.simple_auth_manager_users": f"{USER}:admin",
        "core.simple_auth_manager_passwords_file": str(folder / "passwords.json"),
        "core.execution_api_server_url": f"http://127.0.0.1:{port}/execution/",
        "database.sql_alchemy_conn": metadata,
        "database.load_default_connections": "False",
        "api.host": "127.0.0.1",
        "api.port": str(port),
        "api.workers": "1",
        "api.base_url": f"http://127.0.0.1:{port}",
        "api.secret_key": secrets.token_hex(16),
        "api_auth.jwt_secret": secrets.token_hex(32),
        "dag_processor.refresh_interval": "5",
        "dag_processor.min_file_process_interval": "600",  # a file is read again once it has changed (`switch_on`)
        "easeml.referees": USER,
        "easeml.labelers": USER,
    }
    return (
        plain_environment()
        | {f"AIRFLOW__{key.replace('.', '__').upper()}": value for key, value in settings.items()}
        | {"AIRFLOW_HOME": str(folder), "HOME": str(folder)}
        | {"PATH": os.pathsep.join((str(programs), os.environ.get("PATH", os.defpath)))}
    )


def _free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])
