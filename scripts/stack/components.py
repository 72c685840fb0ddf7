"""The processes of one stack: what each is called and how it is started."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stack.account import Account, Accounts
    from stack.places import Places


SUGGESTING = "easeml-scheduler"
"""What ``easeml scheduler`` is called here: ``scheduler`` is Airflow's."""

_OF_TASKS = (
    "easeml_airflow.operators.trials",
    "easeml_core.services.models.submission",
    "easeml_core.services.referee.requests",
    "easeml_core.services.selection.scheduler",
    "easeml_core.services.trials.attempts",
)
FORKED = {
    "dag-processor": ("easeml_airflow.operators.trials",),
    "scheduler": _OF_TASKS,
    "celery": _OF_TASKS,
}
"""Component -> what it imports before it starts, since each of its tasks or of its parsed files is a fork of it.

A task takes .1 s of processor time then instead of .4 s.
"""
GARBAGE_INTERVAL = 50_000
"""How many more objects are made than given back before Python looks for garbage; its default is 700."""

PATIENCE_OF_API_SERVER = ("--worker-timeout", "8")
"""Seconds for which an API server that is asked to end waits for requests that have begun; 120 by default.

A client that sends half a request would else keep the server after its stack is gone. Less than the grace of a stop
(``stack.processes.GRACE_SECONDS``), and more than the 5 seconds after which httpx gives an idle connection up, since
the server closes idle ones after this time, too.
"""


@dataclass(frozen=True, slots=True)
class Component:
    """One long-running child.

    Attributes:
        name: What people and log files call it.
        command: Program and arguments.
        environment: The whole environment; nothing is inherited.
        account: What it becomes; None for the account of the launcher.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    account: Account | None = None


def airflow(command: str, *arguments: str) -> tuple[str, ...]:
    """The command line of a command of Airflow's, in this very environment; it has imported what its forks need.

    Airflow's servers build some hundred thousand objects that stay, and Python's search for garbage goes through them
    again and again: with a wider interval an API server starts with a quarter less processor time.
    """
    modules = ", ".join(("gc", "runpy", *FORKED.get(command, ())))
    seldom = f"gc.set_threshold({GARBAGE_INTERVAL}, 50, 100)"
    program = f"import {modules}; {seldom}; runpy.run_module('airflow', None, '__main__', True)"
    return (sys.executable, "-c", program, command, *arguments)


def easeml(*arguments: str) -> tuple[str, ...]:
    """The command line of ours, in this very environment."""
    return (sys.executable, "-m", "easeml_core.cli", *arguments)


def referee(environment: Mapping[str, str], places: Places, *options: str, artifacts: str | None = None) -> Component:
    """The referee's process, with further options of its command; answers leave at once unless these say otherwise.

    Args:
        environment: The whole one.
        places: Where the files lie.
        options: The further options.
        artifacts: Address of the object store; None for the folder.
    """
    kept = artifacts or str(places.artifacts)
    named = ("--artifacts", kept, "--data", str(places.data), "--keys", str(places.referee))
    at_once = () if "--answer-hour" in options else ("--answer-delay", "0")
    return Component("referee", easeml("referee", *named, *at_once, *options), environment)


def suggesting_scheduler(environment: Mapping[str, str]) -> Component:
    """The process that decides the requests for suggestions of roles that may not suggest (``easeml scheduler``)."""
    return Component(SUGGESTING, easeml("scheduler"), environment)


def airflow_components(
    environment: Mapping[str, str],
    of_api_server: Mapping[str, str],
    accounts: Accounts | None = None,
    task_port: int | None = None,
) -> tuple[Component, ...]:
    """Airflow's four. Their log servers would listen on all interfaces; logs are read from disk instead.

    Where the API server has a separate account there is a fifth: the API server that tasks speak to, since the key
    that signs their tokens must not be the one that signs people's.
    """
    account = accounts.tasks if accounts else None
    serving = ("api-server", *PATIENCE_OF_API_SERVER)
    apart = (*serving, "--apps", "execution", "--port", str(task_port))
    return (
        Component(
            "api-server",
            airflow(*serving, *(("--apps", "core") if accounts else ())),
            of_api_server,
            accounts.api_server if accounts else None,
        ),
        *([Component("task-api-server", airflow(*apart), environment, account)] if accounts else ()),
        Component("scheduler", airflow("scheduler", "--skip-serve-logs"), environment, account),
        Component("dag-processor", airflow("dag-processor"), environment, account),
        Component("triggerer", airflow("triggerer", "--skip-serve-logs"), environment, account),
    )
