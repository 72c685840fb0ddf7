"""The environment of each child, built from nothing: what is not named here does not reach it.

A secret in the caller's shell, a proxy, another Airflow's settings or the referee's address would else be inherited by
every task. Airflow's components get the addresses of ``airflow`` and ``easeml_worker``; that of the referee gets the
referee, and for the referee's pages the API server.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from easeml_core.store.server.cluster import LOOPBACK
from stack.git_bundles import bundle_list
from stack.keys import ADMIN, USERS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stack.account import Account, Accounts
    from stack.git_bundles import GitBundle
    from stack.keys import Keys
    from stack.places import Places

INHERITED = ("HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "TERM", "CUDA_VISIBLE_DEVICES")
CONNECTION = "AIRFLOW_CONN_EASEML_DEFAULT"
SEALED = "EASEML_REFEREE_DATABASE_URL"
PARALLELISM = 4
ACCOUNT_NAME = "easeml-airflow"  # the user id has none, and Airflow asks


def plain_environment(source: Mapping[str, str] | None = None) -> dict[str, str]:
    """What every child gets: where programs and the home are, language and time zone; nothing of Airflow or ours."""
    source = os.environ if source is None else source
    kept = {name: source[name] for name in INHERITED if name in source}
    programs = os.pathsep.join((str(Path(sys.executable).parent), source.get("PATH", os.defpath)))
    return kept | {"PATH": programs, "PYTHONUNBUFFERED": "1"}


def database_environment(url: str) -> dict[str, str]:
    """For the command line and the referee: one address, of one role."""
    return plain_environment() | {"EASEML_DATABASE_URL": url}


def connection_json(url: str, artifacts: Path | str) -> str:
    """Airflow's JSON form of the connection ``easeml_default`` to the database at the address."""
    parts = urlsplit(url)
    return json.dumps(
        {
            "conn_type": "easeml",
            "host": parts.hostname,
            "port": parts.port,
            "login": unquote(parts.username or ""),
            "password": unquote(parts.password or ""),
            "schema": parts.path.lstrip("/"),
            "extra": {"artifacts": str(artifacts)},
        }
    )


def airflow_environment(
    places: Places,
    keys: Keys,
    *,
    port: int,
    task_port: int | None = None,
    metadata: str,
    worker: str,
    account: Account | None = None,
    bundles: Sequence[GitBundle] = (),
    artifacts: str | None = None,
) -> dict[str, str]:
    """For every Airflow component: the same settings, the metadata database, and our store as the worker's role.

    Args:
        places: Where the files lie.
        keys: The kept secrets.
        port: Port of the API server.
        task_port: Port of the API server of tasks, where it is a separate one.
        metadata: Address of Airflow's metadata database.
        worker: Address of our database for the role ``easeml_worker``.
        account: Under which it runs; None for that of the launcher.
        bundles: Whose DAGs it reads besides the folder's.
        artifacts: Address of the object store; None for the folder.
    """
    settings = {
        **_sections(places, port, task_port or port),
        "database.sql_alchemy_conn": metadata,
        "core.fernet_key": keys.fernet,
        "api.secret_key": keys.api,
        "api_auth.jwt_secret": keys.jwt,
        "dag_processor.dag_bundle_config_list": bundle_list(bundles),
    }
    home = {"AIRFLOW_HOME": str(places.airflow), CONNECTION: connection_json(worker, artifacts or places.artifacts)}
    return _of_account(plain_environment(), places, account) | home | _variables(settings)


def api_server_environment(
    environment: Mapping[str, str], places: Places, keys: Keys, sealed: str, accounts: Accounts | None
) -> dict[str, str]:
    """The same for the API server that people use: a separate home, and the referee's address for their pages.

    Where it has a separate account it also signs people's tokens with a separate key. With the key that tasks
    share, each could sign one of the referee's.

    Args:
        environment: As ``airflow_environment`` made it.
        places: Where the files lie.
        keys: The kept secrets.
        sealed: Address of our database for the role ``easeml_referee``; empty to keep it back.
        accounts: Under which Airflow runs; None for that of the launcher.
    """
    settings = {
        "core.plugins_folder": str(places.api_server / "plugins"),
        "dag_processor.dag_bundle_storage_path": str(places.api_server / "bundles"),
    }
    if accounts is not None:
        settings["api_auth.jwt_secret"] = keys.people_jwt
    own = _of_account(dict(environment), places, accounts.api_server if accounts else None)
    given = {SEALED: sealed} if sealed else {}
    return own | {"AIRFLOW_HOME": str(places.api_server)} | given | _variables(settings)


def _variables(settings: Mapping[str, str]) -> dict[str, str]:
    return {f"AIRFLOW__{key.replace('.', '__').upper()}": value for key, value in settings.items()}


def _of_account(environment: dict[str, str], places: Places, account: Account | None) -> dict[str, str]:
    """The same for another account: home and name are its own, and the caller's folder for files in use is not."""
    if account is None:
        return environment
    own = {"HOME": account.cwd, "USER": ACCOUNT_NAME, "LOGNAME": ACCOUNT_NAME}
    own |= {"GIT_CONFIG_GLOBAL": str(places.git_trust)}
    return {name: value for name, value in environment.items() if name != "TMPDIR"} | own


def _sections(places: Places, port: int, task_port: int) -> dict[str, str]:
    url = f"http://{LOOPBACK}:{port}"
    return {
        "core.load_examples": "False",
        "core.dags_folder": str(places.dags),
        "core.plugins_folder": str(places.plugins),
        "core.executor": "easeml_airflow.executors.AdoptingLocalExecutor",
        "core.parallelism": str(PARALLELISM),
        "core.simple_auth_manager_users": ",".join(f"{name}:{name}" for name in USERS),
        "core.simple_auth_manager_passwords_file": str(places.passwords),
        "core.execution_api_server_url": f"http://{LOOPBACK}:{task_port}/execution/",
        "core.test_connection": "Enabled",
        "database.load_default_connections": "False",
        "api.host": LOOPBACK,
        "api.port": str(port),
        "api.workers": "1",
        "api.base_url": url,
        "logging.base_log_folder": str(places.task_logs),
        "logging.colored_console_log": "False",
        # The default of one second is paid at every step of a chain, and a tenth of one costs a fifth of a core always.
        "scheduler.scheduler_idle_sleep_time": "0.3",
        # The default of five seconds is the time after which a failed task is seen as failed.
        "workers.min_heartbeat_interval": "1",
        # A restart of the API server or of the database is a pause for tasks, not an end: they ask again every few
        # seconds, 60 times. By default they give up after about half a minute.
        "workers.execution_api_retries": "60",
        "workers.execution_api_retry_wait_max": "5",
        # Who has been silent for so long is dead; by default 30, 300, 300 and 30 seconds pass. Longer than the pause
        # between two tries above, so that no task is given up that only waited for its server.
        "scheduler.scheduler_health_check_threshold": "20",
        "scheduler.orphaned_tasks_check_interval": "10",
        "scheduler.task_instance_heartbeat_timeout": "60",
        "triggerer.triggerer_health_check_threshold": "15",
        "dag_processor.parsing_processes": "1",
        "dag_processor.refresh_interval": "10",
        # The default of 30 seconds is for files that have not changed; what has changed is read at the next refresh.
        "dag_processor.min_file_process_interval": "60",
        "dag_processor.dag_bundle_storage_path": str(places.bundles),
        "easeml.referees": ADMIN,
        "easeml.labelers": "op",
    }
