"""Where the files of one stack lie, under one state folder that git ignores."""

from __future__ import annotations

import itertools
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
STATE_FOLDER = ".easeml"


@dataclass(frozen=True, slots=True)
class Places:
    """The files of one stack.

    Attributes:
        home: The state folder.
        dags: The folder of DAG files that Airflow reads.
    """

    home: Path
    dags: Path

    @classmethod
    def of(cls, home: Path | None = None, dags: Path | None = None) -> Places:
        """The places of the given folders, or of the repository's own."""
        return cls((home or REPOSITORY / STATE_FOLDER).absolute(), (dags or REPOSITORY / "dags").absolute())

    @property
    def database(self) -> Path:
        """Home of the embedded PostgreSQL server."""
        return self.home / "postgres"

    @property
    def artifacts(self) -> Path:
        """Models and open data parts, by content hash."""
        return self.home / "artifacts"

    @property
    def airflow(self) -> Path:
        """AIRFLOW_HOME."""
        return self.home / "airflow"

    @property
    def api_server(self) -> Path:
        """AIRFLOW_HOME of the API server, which has a separate one: what tasks may write there it would load."""
        return self.home / "api-server"

    @property
    def bundles(self) -> Path:
        """Where Airflow keeps the versions of its DAG bundles that it has fetched; by default it is a folder of all."""
        return self.airflow / "bundles"

    @property
    def git_trust(self) -> Path:
        """Which git repositories of another owner Airflow's account may read."""
        return self.home / "git-trust"

    @property
    def plugins(self) -> Path:
        """Airflow's plugins folder, kept empty: the installed package brings the plugin."""
        return self.airflow / "plugins"

    @property
    def passwords(self) -> Path:
        """The file from which SimpleAuthManager reads the users' passwords."""
        return self.api_server / "passwords.json"

    @property
    def logs(self) -> Path:
        """One file for each component."""
        return self.home / "logs"

    @property
    def task_logs(self) -> Path:
        """Logs of tasks, which Airflow writes itself."""
        return self.logs / "tasks"

    @property
    def data(self) -> Path:
        """The tables that the referee reads and splits."""
        return self.home / "data"

    @property
    def keys(self) -> Path:
        """Fernet key, JWT secret and the like; readable by the owner only."""
        return self.home / "keys.json"

    @property
    def referee(self) -> Path:
        """The referee's key folder, where the commands of evidence look for it, too."""
        return self.home / "referee"

    @property
    def port(self) -> Path:
        """The port that Airflow's API server had last time."""
        return self.home / "port"

    @property
    def task_port(self) -> Path:
        """The port that the API server of tasks had last time, where it is a separate one."""
        return self.home / "task-port"

    @property
    def lock(self) -> Path:
        """Held by the launcher for its whole life."""
        return self.home / "launcher.lock"

    @property
    def record(self) -> Path:
        """What the launcher says of itself."""
        return self.home / "stack.json"

    @property
    def hosts(self) -> Path:
        """Where tasks run on Celery: a folder for each host."""
        return self.home / "hosts"

    @property
    def broker_settings(self) -> Path:
        """The settings of Celery's broker, its password among them."""
        return self.home / "broker.conf"

    def host(self, name: str) -> Path:
        """The folder of one host, which no other host looks into."""
        return self.hosts / name

    def settle_referee(self, *, is_new: bool) -> None:
        """Bring the referee's keys from below the logs, and put aside what belongs to another database.

        The version of one day has made the keys below the logs: they are those that this stack's referee has signed
        with last. What lies in the folder beside them, or beside a new database, has marks of another database, which
        would lock all sets of this one; its public keys stay trusted. It may be killed at any moment.

        Args:
            is_new: Whether this start has made the database.
        """
        latest = self.logs / STATE_FOLDER / "referee"
        if latest.is_dir():
            self._put_referee_aside(latest)
            latest.rename(self.referee)
        if is_new:
            trusted = self.referee.with_name("referee-new")
            trusted.mkdir(mode=0o700, exist_ok=True)
            self._put_referee_aside(trusted)
            trusted.rename(self.referee)

    def _put_referee_aside(self, trusting: Path) -> None:
        if not self.referee.is_dir():
            return
        for public in sorted(self.referee.glob("*.pub")):
            shutil.copy2(public, trusting / public.name)
        asides = (self.home / f"referee-put-aside-{number}" for number in itertools.count(1))
        self.referee.rename(next(aside for aside in asides if not aside.exists()))

    def make(self) -> None:
        """Create the folders. The state folder may be passed through, its secrets are files of mode 0600."""
        for folder in (self.home, self.artifacts, self.airflow, self.plugins, self.api_server, self.logs):
            folder.mkdir(parents=True, exist_ok=True)
        self.home.chmod(0o711)  # the database's account passes through; no other account may read it
        if self.airflow.stat().st_uid == os.geteuid():  # else they are an account's, perhaps of a stack that runs
            for folder in (self.logs, self.artifacts, self.airflow, self.api_server):
                folder.chmod(0o700)
