"""The processes of one stack: what each is called and how it is started."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from stack.account import Account


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


def airflow(*arguments: str) -> tuple[str, ...]:
    """The command line of Airflow, in this very environment."""
    return (sys.executable, "-m", "airflow", *arguments)


def easeml(*arguments: str) -> tuple[str, ...]:
    """The command line of ours, in this very environment."""
    return (sys.executable, "-m", "easeml_core.cli", *arguments)


def referee(environment: Mapping[str, str], artifacts: Path, *options: str) -> Component:
    """The referee's process, the only one that knows the referee's address; with further options of its command."""
    places = ("--artifacts", str(artifacts), "--data", str(artifacts.parent / "data"))
    return Component("referee", easeml("referee", *places, *options), environment)


def airflow_components(environment: Mapping[str, str], account: Account | None = None) -> tuple[Component, ...]:
    """Airflow's four. Their log servers would listen on all interfaces; logs are read from disk instead."""
    return (
        Component("api-server", airflow("api-server"), environment, account),
        Component("scheduler", airflow("scheduler", "--skip-serve-logs"), environment, account),
        Component("dag-processor", airflow("dag-processor"), environment, account),
        Component("triggerer", airflow("triggerer", "--skip-serve-logs"), environment, account),
    )
