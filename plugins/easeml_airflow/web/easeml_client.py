"""Feed, refine and infer from a program of yours. One file, Python 3.9 and newer, nothing to install.

    study = Study("https://airflow.example", "flowers", token=login("https://airflow.example", "ann", "..."))
    study.infer([{"length": 5.1, "width": 3.5}])["labels"]
    study.feed([{"inputs": {"length": 5.1, "width": 3.5}, "label": "setosa"}], request_key="file 17")
    study.wait(study.refine(apply=True)["request_id"])

Inputs are rows: numbers in the order of the study's columns, or a mapping of column to value; None is missing. The same
``request_key`` feeds and switches once, however often it is sent. A token ends after a while: log in again.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Answer = dict[str, Any]


class EasemlError(Exception):
    """The server has refused something; ``status`` is the one of its answer, the text says why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def login(server: str, username: str, password: str, *, timeout: float = 60) -> str:
    """Return a token for a user who logs in to Airflow with a password."""
    given = {"username": username, "password": password}
    return str(_asked(f"{server.rstrip('/')}/auth/token", given, {}, timeout)["access_token"])


class Study:
    """One study on a server of Airflow's, such as ``https://airflow.example`` with its base path, if it has one."""

    def __init__(self, server: str, study: str, *, token: str, timeout: float = 60) -> None:
        if not server.startswith(("http://", "https://")):
            message = f"the server must begin with http:// or https://, got {server!r}"
            raise ValueError(message)
        self._place = f"{server.rstrip('/')}/easeml/api/v1/studies/{quote(study, safe='')}"
        self._headers, self._timeout = {"Authorization": f"Bearer {token}"}, timeout

    def infer(self, inputs: Sequence[Any], *, model: str | int = "production", probabilities: bool = False) -> Answer:
        """Answers to rows, under ``labels``; ``model`` is production, best, or the number of one."""
        return self._send("infer", {"inputs": inputs, "model": model, "probabilities": probabilities})

    def feed(self, pairs: Sequence[Mapping[str, Any]], *, request_key: str | None = None) -> Answer:
        """Bring ``{"inputs": ..., "label": ...}`` each; they count from the next refresh on."""
        return self._send("feed", {"pairs": pairs, "request_key": request_key})

    def feeds(self) -> list[Answer]:
        """What was fed, newest first, and what became of it."""
        return list(self._send("feeds")["feeds"])

    def rows(self, *, off: bool = False, limit: int = 50) -> list[Answer]:
        """Rows that the study learns from, or with ``off`` those that it leaves out, each with its ``hash``."""
        return list(self._send("refine?" + urlencode({"off": str(off).lower(), "limit": limit}))["pairs"])

    def refine(
        self,
        *,
        off: Iterable[str] = (),
        on: Iterable[str] = (),
        reason: str = "",
        apply: bool = False,
        request_key: str | None = None,
    ) -> Answer:
        """Switch rows off or on by their hashes, with a reason; with ``apply`` ask for a refresh at once."""
        rows = {name: list(hashes) for name, hashes in (("off", off), ("on", on)) if hashes}
        return self._send("refine", {**rows, "reason": reason, "apply": apply, "request_key": request_key})

    def answer(self, request_id: int) -> Answer | None:
        """The referee's answer to a refresh; None while there is none."""
        answer: Answer | None = self._send(f"requests/{request_id}")["answer"]
        return answer

    def wait(self, request_id: int, *, patience_seconds: float = 600, pause_seconds: float = 2) -> Answer:
        """The referee's answer to a refresh, once it is there."""
        deadline = time.monotonic() + patience_seconds
        while (answer := self.answer(request_id)) is None:
            if time.monotonic() > deadline:
                message = f"no answer to request {request_id} within {patience_seconds:g} s"
                raise TimeoutError(message)
            time.sleep(pause_seconds)
        return answer

    def _send(self, what: str, body: Answer | None = None) -> Answer:
        body = None if body is None else {name: value for name, value in body.items() if value is not None}
        return _asked(f"{self._place}/{what}", body, self._headers, self._timeout)


def _asked(url: str, body: Answer | None, headers: Mapping[str, str], timeout: float) -> Answer:
    """The JSON that an address answers with; with a body it is a POST."""
    data = None if body is None else json.dumps(body).encode()
    headers = {**headers, "Accept": "application/json", "Content-Type": "application/json"}
    try:
        request = urllib.request.Request(url, data=data, headers=headers)  # noqa: S310 - http only
        with urllib.request.urlopen(request, timeout=timeout) as answer:  # noqa: S310 - http only
            content: Answer = json.load(answer)
            return content
    except urllib.error.HTTPError as error:
        text = error.read().decode(errors="replace")
        try:
            refused = json.loads(text)
            message = str(refused.get("error") or refused.get("detail") or text)
        except (ValueError, AttributeError):
            message = text
        raise EasemlError(error.code, message or error.reason) from error
