"""The referee's answers at the command line: wait for one, show the gate's, and what a script may do with it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from easeml_core.cli.reading_progress import reading
from easeml_core.errors import StateError

if TYPE_CHECKING:
    from easeml_core.store.database import Store

GATE_MAY_WAIT = (
    "labels may be missing, answers may leave at an hour of the day, or `easeml referee` is not running; the request "
    "stands"
)
"""Why the gate has not answered yet; which of it is true is no public fact."""


def wait_for_answer(store: Store, request_id: int, timeout: float, hint: str = GATE_MAY_WAIT) -> dict[str, Any]:
    """The answer to a request, as of ``services.requests.answer_of``.

    Args:
        store: Any role.
        request_id: The request.
        timeout: Seconds to wait at most; an answer that is there already is given in any case.
        hint: What the error adds: why there may be none yet, and what is next.

    Raises:
        StateError: There is no answer in time.
    """
    from easeml_core.services.referee.requests import answer_of

    deadline = time.monotonic() + timeout
    answer = answer_of(store, request_id)
    if answer is not None:
        return answer
    with reading() as told:
        told(f"waiting for the referee's answer to request {request_id}")
        while time.monotonic() < deadline:
            time.sleep(0.2)
            answer = answer_of(store, request_id)
            if answer is not None:
                return answer
    message = f"no answer to request {request_id} within {timeout:g} s: {hint}"
    raise StateError(message)


def gate_passes(answer: dict[str, Any]) -> bool:
    """Withheld is no failure: under adaptivity ``none`` the command ends alike whatever the verdict."""
    return not answer["refused"] and answer["symbol"] in ("pass", "withheld")


def tell_gate_answer(answer: dict[str, Any]) -> None:
    """The gate's answer for people, with what to do after a pass; one on another condition is advice only."""
    click.echo(answer["message"])
    if not answer["refused"] and answer["symbol"] == "pass" and answer["planned"]:
        click.echo(f"promote it with `easeml model promote {answer['study']} {answer['model_id']}`")
