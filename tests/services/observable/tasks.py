"""What a task of a DAG returns, pushes and logs: every operator and sensor, run as the worker."""

from __future__ import annotations

import importlib
import inspect
import json
import logging
from typing import TYPE_CHECKING, Any
from unittest.mock import MagicMock
from urllib.parse import unquote, urlsplit

from developer import Sight

from easeml_core.observable import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

UNRUN = {
    "TrainTrialOperator": "trains on open rows and measures real times",
    "RunDeviceOperator": "trains on open rows and measures real times",
    "MlflowSyncOperator": "needs an MLflow server",
    "NotifyOperator": "hands the news of services.events, which are compared, to a notifier",
    "ForcePromotionOperator": "waits for a person; what it files is compared as a request of the kind force",
    "RegisterStudyOperator": "registers a study, which has no answer of a sealed set yet",
}

NOT_GIVEN = {"FeedOperator": ("path",)}
"""Arguments that exclude others of the same operator."""


class Instance:
    """A task instance that keeps what is pushed."""

    dag_id, run_id, map_index, try_number = "dag", "run", -1, 1

    def __init__(self, task_id: str) -> None:
        self.task_id, self.pushed = task_id, dict[str, Any]()

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value

    def xcom_pull(self, **_: Any) -> Any:
        return None


def connection_of(lab: Any) -> str:
    """Airflow's connection to the installation, as the environment holds it."""
    url = urlsplit(lab.url("easeml_worker"))
    given = {"conn_type": "easeml", "host": url.hostname, "port": url.port, "schema": url.path.lstrip("/")}
    given |= {"login": unquote(url.username or ""), "password": unquote(url.password or "")}
    return json.dumps(given | {"extra": {"artifacts": str(lab.artifacts.root)}})


def task_sights(lab: Any, answer_all: Callable[[], None], given: dict[str, Any], where: str) -> Iterator[Sight]:
    """Run every operator and sensor with these arguments, let the referee answer, and run it again, as a retry would.

    Args:
        lab: The installation; the environment holds its connection.
        answer_all: Lets the referee answer.
        given: Arguments by name.
        where: What the sights are of.
    """
    for package in ("operators", "sensors"):
        module = importlib.import_module(f"easeml_airflow.{package}")
        for name in module.__all__:
            if name not in UNRUN:
                kind = getattr(module, name)
                tries = [_run(kind, name, given, where)]
                answer_all()
                yield Sight(Kind.CLASS, name, where, [*tries, _run(kind, name, given, where)])


def _run(kind: Any, name: str, given: dict[str, Any], where: str) -> tuple[Any, ...]:
    """What one try returns or raises, what it pushes, and what it logs."""
    allowed = set(inspect.signature(kind.__init__).parameters) - set(NOT_GIVEN.get(name, ()))
    arguments = {k: v for k, v in given.items() if k in allowed}
    ti, lines = Instance(f"{name}-{where}"), _Lines()
    logger = logging.getLogger()
    logger.addHandler(lines)
    try:
        operator = kind(task_id=f"{name}-{where}", **arguments)
        said = repr(operator.execute({"ti": ti, "outlet_events": MagicMock()}))
    except BaseException as error:  # a deferral is no Exception
        said = f"{type(error).__name__}: {error}"
    finally:
        logger.removeHandler(lines)
    return said, ti.pushed, lines.found


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if not record.name.startswith("easeml_core.services"):  # the referee's, in this very process
            self.found.append(record.getMessage())
