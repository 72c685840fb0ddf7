"""The part of Airflow's REST interface that a launcher and a demo need, over loopback with the standard library."""

from __future__ import annotations

import http.client
import json
import secrets
import time
import urllib.error
import urllib.parse
import urllib.request
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from stack.failures import StackError

if TYPE_CHECKING:
    from collections.abc import Iterator

PUBLIC = "/api/v2"
REPEAT_SECONDS = 0.5
ENDED = ("success", "failed")


class RestError(StackError):
    """Raised when Airflow's API server refuses or does not answer; keeps the status (0: no answer)."""

    def __init__(self, method: str, path: str, status: int, detail: str) -> None:
        self.method, self.path, self.status, self.detail = method, path, status, detail
        super().__init__(f"{method} {path}: {f'status {status}' if status else 'no answer'}: {detail}")

    def is_passing(self) -> bool:
        """Whether the same request may succeed later: there is no server, or it has no database."""
        return self.status == 0 or self.status >= 500


class Rest:
    """One logged-in user of one API server.

    Args:
        url: Where it is.
        user: Who logs in.
        password: Of the user.
        timeout_seconds: Of one request.
        patience_seconds: How long a request is repeated while the server is away or fails, as in a restart; every
            request of this class may be repeated.
    """

    def __init__(
        self, url: str, user: str, password: str, *, timeout_seconds: float = 30.0, patience_seconds: float = 0.0
    ) -> None:
        self.url, self.user, self.password, self.timeout = url.rstrip("/"), user, password, timeout_seconds
        self.patience = patience_seconds
        self.token: str | None = None
        # Proxies of the caller's environment are not for loopback.
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def _open(self, method: str, path: str, body: Any, timeout: float) -> Any:
        headers = {"Content-Type": "application/json", "Accept": "application/json, application/x-ndjson"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, headers=headers, method=method)  # noqa: S310 - http only
        try:
            return self.opener.open(request, timeout=timeout)
        except urllib.error.HTTPError as error:
            with error:
                raise RestError(method, path, error.code, _detail(error.read())) from None
        except (OSError, http.client.HTTPException) as error:
            raise RestError(method, path, 0, str(error)) from None

    def log_in(self) -> None:
        """Fetch a token."""
        self.token = None
        answer = self.call("POST", "/auth/token", {"username": self.user, "password": self.password}, root="")
        self.token = answer["access_token"]

    def call(self, method: str, path: str, body: Any = None, *, root: str = PUBLIC) -> Any:
        """Ask and read the JSON answer, again while the server is away, for as long as the patience lasts.

        Raises:
            RestError: If the server refuses or does not answer.
        """
        deadline = time.monotonic() + self.patience
        while True:
            try:
                return self._ask(method, root + path, body)
            except RestError as error:
                if not error.is_passing() or time.monotonic() > deadline:
                    raise
                time.sleep(REPEAT_SECONDS)

    def _ask(self, method: str, path: str, body: Any) -> Any:
        try:
            with self._open(method, path, body, self.timeout) as response:
                content = response.read()
        except (OSError, http.client.HTTPException) as error:  # the server ended in the middle of its answer
            raise RestError(method, path, 0, str(error)) from None
        return json.loads(content) if content else None

    def text(self, path: str) -> str:
        """Return what is at a path, such as a page.

        Raises:
            RestError: If the server refuses or does not answer.
        """
        with self._open("GET", path, None, self.timeout) as response:
            return str(response.read().decode())

    def answers(self, path: str) -> bool:
        """Whether an address that needs no login answers."""
        try:
            self._ask("GET", path, None)
        except RestError:
            return False
        return True

    def health(self, since: datetime) -> dict[str, str]:
        """State of each part that Airflow knows of; empty while the API server does not answer. No login needed.

        A part whose last heartbeat is older than ``since`` is ``stale``: after a crash, Airflow goes on calling the
        dead one healthy for half a minute.
        """
        try:
            answer = self._ask("GET", f"{PUBLIC}/monitor/health", None)
        except RestError:
            return {}
        return {name: _health(part or {}, since) for name, part in answer.items()}

    def heartbeats(self) -> dict[str, str]:
        """The latest heartbeat of each part that Airflow knows of; empty while the API server does not answer."""
        try:
            answer = self._ask("GET", f"{PUBLIC}/monitor/health", None)
        except RestError:
            return {}
        beats = {
            name: [str(v) for k, v in (part or {}).items() if k.startswith("latest_")] for name, part in answer.items()
        }
        return {name: found[0] for name, found in beats.items() if found}

    def has_dag(self, dag_id: str) -> bool:
        """Whether the DAG processor has read a DAG of this id."""
        try:
            self.call("GET", f"/dags/{_quoted(dag_id)}")
        except RestError as error:
            if error.status == 404:
                return False
            raise
        return True

    def import_errors(self) -> dict[str, str]:
        """File name to stack trace of every DAG file that could not be read."""
        return {e["filename"]: e["stack_trace"] for e in self.call("GET", "/importErrors")["import_errors"]}

    def pause(self, dag_id: str, paused: bool) -> None:
        """Keep the scheduler from running a DAG, or let it."""
        self.call("PATCH", f"/dags/{_quoted(dag_id)}?update_mask=is_paused", {"is_paused": paused})

    def count_runs(self, dag_id: str) -> int:
        """How many runs of a DAG there have been."""
        return int(self.call("GET", f"/dags/{_quoted(dag_id)}/dagRuns?limit=1")["total_entries"])

    def trigger(self, dag_id: str, conf: dict[str, Any] | None = None) -> str:
        """Start a run now; gives its id. Values that the DAG's params forbid are refused with status 400.

        The id is chosen here, so that a request whose answer was lost starts no second run.
        """
        run_id = f"manual__{datetime.now(UTC).isoformat()}_{secrets.token_hex(4)}"
        body = {"logical_date": None, "conf": conf or {}, "dag_run_id": run_id}
        try:
            self.call("POST", f"/dags/{_quoted(dag_id)}/dagRuns", body)
        except RestError as error:
            if error.status != 409:
                raise
        return run_id

    def wait(self, dag_id: str, run_id: str, *, interval_seconds: float = 1.0) -> Iterator[str]:
        """The state of a run, again and again until it has ended.

        Raises:
            RestError: If the server stops answering for longer than the patience.
        """
        path = f"{PUBLIC}/dags/{_quoted(dag_id)}/dagRuns/{_quoted(run_id)}/wait?interval={interval_seconds:g}"
        deadline = time.monotonic() + self.patience
        while True:
            try:
                for state in self._stream(path):
                    deadline = time.monotonic() + self.patience
                    yield state
                    if state in ENDED:
                        return
                lost = RestError("GET", path, 0, "the server ended its answer before the run ended")
            except RestError as error:
                lost = error
            if not lost.is_passing() or time.monotonic() > deadline:
                raise lost
            time.sleep(REPEAT_SECONDS)

    def _stream(self, path: str) -> Iterator[str]:
        method = "GET"
        with self._open(method, path, None, 60.0) as stream:
            try:
                for line in stream:
                    if line.strip():
                        yield str(json.loads(line)["state"])
            except (OSError, ValueError, http.client.HTTPException) as error:
                raise RestError(method, path, 0, str(error)) from error

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Every task instance of a run, mapped ones included."""
        path = f"/dags/{_quoted(dag_id)}/dagRuns/{_quoted(run_id)}/taskInstances"
        found: list[dict[str, Any]] = []
        while True:
            page = self.call("GET", f"{path}?limit=100&offset={len(found)}")
            found += page["task_instances"]
            if not page["task_instances"] or len(found) >= page["total_entries"]:
                return found

    def xcom(self, dag_id: str, run_id: str, task_id: str, *, map_index: int = -1, key: str = "return_value") -> Any:
        """What a task returned, or left under another key; None if it left nothing there."""
        path = f"/dags/{_quoted(dag_id)}/dagRuns/{_quoted(run_id)}/taskInstances/{_quoted(task_id)}"
        try:
            answer = self.call("GET", f"{path}/xcomEntries/{_quoted(key)}?map_index={map_index}&deserialize=true")
        except RestError as error:
            if error.status == 404:
                return None
            raise
        return answer["value"]

    def log(self, dag_id: str, run_id: str, task_id: str, *, map_index: int = -1, attempt: int = 1) -> list[str]:
        """The lines that a task logged, an exception as one line of its type and message."""
        path = f"/dags/{_quoted(dag_id)}/dagRuns/{_quoted(run_id)}/taskInstances/{_quoted(task_id)}"
        answer = self.call("GET", f"{path}/logs/{attempt}?map_index={map_index}&full_content=true")
        return [line for entry in answer["content"] if not (line := _event(entry)).startswith("::")]

    def make_pool(self, name: str, slots: int, description: str) -> None:
        """Create a pool whose slots deferred tasks keep, too; one that is there already stays as a person set it."""
        body = {"name": name, "slots": slots, "description": description, "include_deferred": True}
        try:
            self.call("POST", "/pools", body)
        except RestError as error:
            if error.status != 409:
                raise


def _health(part: dict[str, Any], since: datetime) -> str:
    beats = [datetime.fromisoformat(value) for name, value in part.items() if name.startswith("latest_") and value]
    return str(part.get("status")) if all(beat >= since for beat in beats) else "stale"


def _event(entry: Any) -> str:
    if not isinstance(entry, dict):
        return str(entry)
    causes = [f"{e.get('exc_type')}: {e.get('exc_value')}" for e in entry.get("error_detail") or ()]
    return ": ".join([str(entry.get("event", entry)), *causes])


def _quoted(part: str) -> str:
    return urllib.parse.quote(part, safe="")


def _detail(content: bytes) -> str:
    try:
        detail = json.loads(content)["detail"]
    except (ValueError, KeyError, TypeError):
        return content.decode(errors="replace")[:500]
    return detail if isinstance(detail, str) else json.dumps(detail)
