"""Whether Airflow lacks a connection or a variable, or could not look for it: its look-ups say "not found" for both.

``get_connection`` and ``Variable.get`` ask one backend of secrets after the other and pass over every error, so that an
API server that is away, or has no database, reads like a missing name. Here the supervisor of the task or trigger
itself is asked, whose answer tells the two apart (``airflow.sdk.execution_time.comms.ErrorResponse``).
"""

from __future__ import annotations

import sys
from typing import Literal

from easeml_core.errors import StoreUnavailableError

_RUNNER = "airflow.sdk.execution_time.task_runner"


def require_missing(kind: Literal["connection", "variable"], name: str) -> None:
    """Return where Airflow says that there is none of this name, or where it cannot be asked from this process.

    Args:
        kind: What was looked for.
        name: Under which it was not found.

    Raises:
        StoreUnavailableError: Airflow could not look, or finds it by now; a further try may.
    """
    supervisor = getattr(sys.modules.get(_RUNNER), "SUPERVISOR_COMMS", None)
    if supervisor is None:  # neither a task nor a trigger
        return
    from airflow.sdk.exceptions import ErrorType
    from airflow.sdk.execution_time.comms import ErrorResponse, GetConnection, GetVariable

    question, missing = {
        "connection": (GetConnection(conn_id=name), ErrorType.CONNECTION_NOT_FOUND),
        "variable": (GetVariable(key=name), ErrorType.VARIABLE_NOT_FOUND),
    }[kind]
    message = (
        f"Airflow could not look for the {kind} {name!r}: its API server, or the database of that, is away; "
        "the next try asks again"
    )
    try:
        answer = supervisor.send(question)
    except Exception as error:  # whatever it is: the supervisor did not say that there is none
        raise StoreUnavailableError(message) from error
    if not isinstance(answer, ErrorResponse) or answer.error is not missing:
        raise StoreUnavailableError(message)
