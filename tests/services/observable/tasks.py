"""What a task of a DAG returns, pushes and logs: every operator and sensor, run as the worker."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import logging
import traceback
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import structlog
from alphabet import Kind
from developer import EPOCH, Sight
from every_mode import MODES
from structlog.testing import LogCapture
from surfaces import arguments_of
from undriven import UNDRIVEN

from easeml_airflow.hooks.easeml import EasemlHook
from easeml_airflow.notifications import FunctionNotifier
from easeml_airflow.notifications.base import SUBJECTS
from easeml_airflow.triggers.answers import AnswersTrigger
from easeml_airflow.triggers.questions import look
from easeml_airflow.version_compat import AirflowException, TaskAwaitingInput, TaskDeferred
from easeml_core.errors import EasemlError
from easeml_core.services.referee.release import AnswerWatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pytest
    from neutral import Neutral

MORE: dict[str, Any] = {
    "answer_timeout": 60.0,
    "condition": "n > 0.1 +/- 0.4",
    "reliability": 0.5,
    "adaptivity": "full",
    "on_fail": "skip",
    "on_failed": "ignore",
    "team": 1,
    "purpose": "gate",
    "after_id": 1,
    "reported": [],
    "kind": "overfitting",
    "wait_for": "alert",
    "device": "cpu",
    "policy": "roundrobin",
    "functions": (),
    "trainers": True,
    "slot": "cpu",
    "bundle": "dags",
    "bundle_version": "1",
    "command": "python predict.py",
    "model": 1,
    "probabilities": True,
    "label_column": "y",
    "labels": "labels.csv",
    "off": ["0" * 64],
    "on": ["0" * 64],
}
"""Arguments that are given one at a time, of the studies whose tasks are tried again."""

NOT_GIVEN = {"FeedOperator": ("path",), "InferOperator": ("path",)}
"""Arguments that exclude others of the same operator."""


class Instance:
    """A task instance that keeps what is pushed."""

    id, dag_id, run_id, map_index, try_number = "id", "dag", "run", -1, 1

    def __init__(self, task_id: str) -> None:
        self.task_id, self.pushed = task_id, dict[str, Any]()

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value

    def xcom_pull(self, *, key: str = "return_value", **_: Any) -> Any:
        return self.pushed.get(key)


def connection_of(lab: Any) -> str:
    """Airflow's connection to the installation, as the environment holds it."""
    url = urlsplit(lab.url("easeml_worker"))
    given = {"conn_type": "easeml", "host": url.hostname, "port": url.port, "schema": url.path.lstrip("/")}
    given |= {"login": unquote(url.username or ""), "password": unquote(url.password or "")}
    return json.dumps(given | {"extra": {"artifacts": str(lab.artifacts.root)}})


def task_sights(
    neutral: Neutral, answer_all: Callable[[], None], given: dict[str, Any], where: str, *, is_tried_again: bool
) -> Iterator[Sight]:
    """Run every operator and sensor with these arguments; where it waits, let the referee answer, and let it go on.

    Args:
        neutral: Of the installation; the environment holds its connection.
        answer_all: Lets the referee answer.
        given: Arguments by name.
        where: What the sights are of.
        is_tried_again: Whether each is run from the beginning once more, as Airflow does after a failure.
    """
    for package in ("operators", "sensors"):
        module = importlib.import_module(f"easeml_airflow.{package}")
        for name in module.__all__:
            if name not in NOT_RUN:
                kind = getattr(module, name)
                allowed = set(arguments_of(kind)) - set(NOT_GIVEN.get(name, ()))
                arguments = {k: v for k, v in given.items() if k in allowed}
                task = Task(kind, name, where, arguments)
                yield from _tries(task, neutral, answer_all, is_tried_again=is_tried_again)
                for more in sorted(allowed & MORE.keys() - arguments.keys()) if is_tried_again else ():
                    task = Task(kind, name, f"{where}-{more}", arguments | {more: MORE[more]})
                    yield from _tries(task, neutral, answer_all)
    yield from _tries(Task(_decorated, "trial", where, {"trial": given["trial"]}), neutral, answer_all)


def _tries(
    task: Task, neutral: Neutral, answer_all: Callable[[], None], *, is_tried_again: bool = False
) -> Iterator[Sight]:
    """All tries of a task, and what a notifier is told as its callback."""
    tries = [task.run()]
    if task.deferral is not None or is_tried_again:
        answer_all()
    if task.deferral is not None:
        tries.append(task.resume())
    if is_tried_again:
        tries.append(task.run())
    yield Sight(Kind.CLASS, task.name, task.where, [neutral.text(repr(each)) for each in tries])
    if task.told:
        yield Sight(Kind.CLASS, "FunctionNotifier", f"{task.where} {task.name}", neutral.text(repr(task.told)))


def _decorated(*, task_id: str, trial: Any) -> Any:
    """The operator of a training function, which gives back a trial of another implementation."""
    from easeml_airflow import decorators

    @decorators.trial(task_id=task_id)
    def train(data: Any, parameters: Any, report: Any) -> None:
        raise AssertionError

    made: Any = train(trial)
    return made.operator


NOT_RUN = frozenset(item.name for item in UNDRIVEN if item.kind is Kind.CLASS)


class Task:
    """One task of a DAG, through its tries.

    Args:
        kind: Makes the operator.
        name: The class or decorator, as the alphabet names it.
        where: What the task is of.
        arguments: Of the operator.

    Attributes:
        deferral: What the last try waits for; None where it does not wait.
        told: Events that a notifier was given as the callback of the task.
    """

    def __init__(self, kind: Any, name: str, where: str, arguments: dict[str, Any]) -> None:
        self.name, self.where = name, where
        self._make = partial(kind, task_id=f"{name}-{where}", **arguments)
        self._ti = Instance(f"{name}-{where}")
        self.deferral: TaskDeferred | None = None
        self.told: list[dict[str, Any]] = []
        DRIVEN.update(f"{name} {argument}" for argument in arguments)

    def run(self) -> tuple[Any, ...]:
        """A try from the beginning."""
        return self._seen(lambda operator, context: operator.execute(context))

    def resume(self) -> tuple[Any, ...]:
        """Go on as Airflow does: the trigger looks, and its event goes to the method that the deferral names."""
        deferral = self.deferral
        assert deferral is not None
        trigger, method = deferral.trigger, deferral.method_name
        if isinstance(trigger, AnswersTrigger):
            if AnswerWatch(EasemlHook().get_store(), trigger.request_ids)() is None:
                return ("waits", ("answers", *trigger.request_ids))
        elif look(EasemlHook().get_store(), *(question := (trigger.question, trigger.subject, trigger.after))) is None:
            return ("waits", question)
        event = asyncio.run(_first(trigger))
        return (event, *self._seen(lambda operator, context: getattr(operator, method)(context, event)))

    def _seen(self, act: Callable[[Any, Any], Any]) -> tuple[Any, ...]:
        """What one try returns or raises, pushes, tells of assets, and logs."""
        ti, assets, self.deferral = self._ti, Outlets(), None
        context: Any = {"ti": ti, "task_instance": ti, "outlet_events": assets}
        with logged() as lines:
            try:
                ti.pushed["return_value"] = act(self._make(), context)
                said = repr(ti.pushed["return_value"])
            except TaskDeferred as wait:
                self.deferral = wait
                said = repr(
                    (type(wait).__name__, wait.trigger.serialize(), wait.method_name, wait.kwargs, wait.timeout)
                )
            except TaskAwaitingInput as wait:
                said = repr((type(wait).__name__, wait.method_name, wait.kwargs))
            except Exception as error:
                said = f"{type(error).__name__}: {error}"
                if not isinstance(error, AirflowException | EasemlError):
                    BROKEN.append(f"{self.name} {self.where}: {''.join(traceback.format_exception(error)[-4:])}")
            FunctionNotifier(self.told.append).notify(context)
        return said, ti.pushed, assets.told, lines


async def _first(trigger: Any) -> Any:
    """The payload of the first event that a trigger gives."""
    async with contextlib.aclosing(trigger.run()) as events:
        return (await asyncio.wait_for(anext(events), timeout=60)).payload


BROKEN: list[str] = []
"""Errors that no task of ours raises: the task did not run as it does in Airflow, so nothing was compared."""

DRIVEN: set[str] = set()
"""Class and argument, for every argument that a task was given."""


class Told:
    """Stands for Airflow's variables, a mail server and a chat, and keeps what they are told.

    Attributes:
        heard: What was told, in order.
        variables: Airflow's variables by name.
    """

    def __init__(self, **variables: str) -> None:
        self.heard: list[Any] = []
        self.variables = variables

    def take_variables(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Be Airflow's variables from now on."""
        from airflow.sdk import Variable

        def put(name: str, value: str, description: str | None = None) -> None:
            self.variables[name] = value
            self.heard.append(("variable", name, value, description))

        monkeypatch.setattr(Variable, "get", lambda name, default=None: self.variables.get(name, default))
        monkeypatch.setattr(Variable, "set", put)

    def take_questions(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Be the place where Airflow keeps what a task asks people."""
        asked = "airflow.providers.standard.operators.hitl.upsert_hitl_detail"
        monkeypatch.setattr(asked, lambda **question: self.heard.append(("question", sorted(question.items()))))

    @contextlib.contextmanager
    def open(self, request: Any, timeout: float) -> Iterator[None]:
        """Take what is posted to a chat."""
        self.heard.append(("post", request.full_url, sorted(request.header_items()), request.data.decode()))
        yield

    @contextlib.contextmanager
    def hook(self, **_: Any) -> Iterator[Told]:
        """Airflow's connection to a mail server."""
        yield self

    def send_email_smtp(self, **mail: Any) -> None:
        """Take a mail."""
        self.heard.append(("mail", sorted(mail.items())))


def notified_sights(neutral: Neutral, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sight]:
    """Let ``NotifyOperator`` tell all news by each notifier: what a person, a chat and a function are told."""
    from easeml_airflow.notifications import MailNotifier, WebhookNotifier
    from easeml_airflow.operators import NotifyOperator

    monkeypatch.setenv("AIRFLOW_CONN_CHAT", json.dumps({"conn_type": "http", "host": "http://chat.example"}))
    wanted: dict[Any, dict[str, Any]] = {
        FunctionNotifier: {"function": None},
        MailNotifier: {"to": "ann@lab.example", "smtp_conn_id": "mail"},
        WebhookNotifier: {"webhook_conn_id": "chat", "timeout_seconds": 1.0, "attempts": 1},
    }
    for kind, arguments in wanted.items():
        told, name = Told(watcher=json.dumps({"since": EPOCH, "told": {}})), kind.__name__
        told.take_variables(monkeypatch)
        monkeypatch.setattr("airflow.providers.smtp.hooks.smtp.SmtpHook", told.hook)
        monkeypatch.setattr("urllib.request.build_opener", lambda _handler, told=told: told)
        arguments = {n: told.heard.append if n == "function" else v for n, v in arguments.items()}
        arguments |= {"events": list(SUBJECTS), "studies": list(MODES), "task": "gate"}
        DRIVEN.update(f"{name} {argument}" for argument in arguments)
        given = {"notifier": kind(**arguments), "watcher": "watcher"}
        task = Task(NotifyOperator, "NotifyOperator", name, given)
        yield Sight(Kind.CLASS, "NotifyOperator", name, neutral.text(repr(task.run())))
        yield Sight(Kind.CLASS, name, "", neutral.text(repr(told.heard)))


class Outlets:
    """Events of assets that a task gives: alias, asset and extra of each."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def __getitem__(self, alias: Any) -> Outlet:
        return Outlet(alias, self.told)


@dataclass
class Outlet:
    """The events of one alias, or of one asset."""

    alias: Any
    told: list[tuple[Any, ...]]

    def add(self, asset: Any, extra: Any = None) -> None:
        """Keep an event."""
        self.told.append((repr(self.alias), asset.name, asset.uri, extra))


@contextlib.contextmanager
def logged() -> Iterator[list[str]]:
    """Every line of every level that this process logs, with the module that it is of."""
    lines = _Lines()
    root, ours = (
        logging.getLogger(),
        [logging.getLogger(name) for name in ("easeml_core", "easeml_airflow", "airflow.task")],
    )
    levels = [logger.level for logger in ours]
    root.addHandler(lines)
    for logger in ours:
        logger.setLevel(logging.DEBUG)
    told, before = LogCapture(), structlog.get_config()  # an operator's own ``log``, whatever level the tests set
    at_all_levels = structlog.make_filtering_bound_logger(logging.DEBUG)
    structlog.configure(**before | {"processors": [told], "wrapper_class": at_all_levels})
    try:
        yield lines.found
    finally:
        structlog.configure(**before)
        lines.found += [repr(dict(entry)) for entry in told.entries]
        root.removeHandler(lines)
        for logger, level in zip(ours, levels, strict=True):
            logger.setLevel(level)


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(f"{record.name}: {record.getMessage()}")
