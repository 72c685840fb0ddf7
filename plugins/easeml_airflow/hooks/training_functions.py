"""The training functions (``@trial``) of tasks and of DAGs, so that a DAG is handed only the trials that it can run.

A function stays what the DAG file defines: every worker parses that file, so a task finds its functions in its own
arguments, and nothing of them is serialised.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from easeml_core.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from airflow.sdk import BaseOperator

    Function = Callable[..., Any]

FUNCTION = "training_function"
"""Where the callable that Airflow sees keeps the function that trains; nothing of it has to be serialised there."""


class Offer(NamedTuple):
    """What tasks can execute.

    Attributes:
        functions: Training functions by name.
        trainers: Whether one of the tasks has the trainers of easeml as well, which run commands and containers too.
    """

    functions: Mapping[str, Function]
    trainers: bool


def plain_function(given: Function) -> Function:
    """Return the training function that ``@trial`` was put on, or the function itself where it is a plain one."""
    seen = getattr(given, "function", given)  # Airflow's decorator keeps there what it was put on
    return getattr(seen, "__dict__", {}).get(FUNCTION, seen)  # type: ignore[no-any-return]  # the wrapped function, untyped by nature


def named_functions(given: Iterable[Function]) -> dict[str, Function]:
    """Return training functions by the names by which candidates name them.

    Args:
        given: Made by ``@trial``, or plain functions.

    Raises:
        InvalidInputError: One is no function with a name, or two have the same name.
    """
    if not isinstance(given, list | tuple):
        message = f"functions must be a list of training functions, got {given!r:.100}"
        raise InvalidInputError(message)
    named: dict[str, Function] = {}
    for function in map(plain_function, given):
        name = getattr(function, "__name__", "")
        if not (callable(function) and isinstance(name, str) and name.isidentifier()):
            message = f"functions must be training functions made by `def` (or @trial), got {function!r:.100}"
            raise InvalidInputError(message)
        if named.setdefault(name, function) is not function:
            message = f"two training functions are called {name!r}: candidates name a function, so rename one of them"
            raise InvalidInputError(message)
    return named


def offer_of(task: BaseOperator) -> Offer:
    """Return what the tasks after this one can execute; those of its whole DAG where none of them executes trials.

    A DAG without any such task hands its trials on to something else, which has the trainers of easeml.
    """
    if not task.has_dag():
        return Offer({}, trainers=True)
    found = [offer for other in _after(task) if (offer := _offer_of(other)) is not None]
    found = found or [offer for other in task.dag.tasks if (offer := _offer_of(other)) is not None]
    if not found:
        return Offer({}, trainers=True)
    functions = {name: function for offer in found for name, function in offer.functions.items()}
    return Offer(dict(sorted(functions.items())), any(offer.trainers for offer in found))


def dag_version_of(task_instance: Any) -> str | None:
    """Return the version of the DAG bundle that a task runs from; None where the bundle has no versions."""
    version = getattr(getattr(task_instance, "bundle_instance", None), "version", None)
    return version if isinstance(version, str) else None


def _after(task: BaseOperator) -> Iterator[Any]:
    """All tasks below this one."""
    waiting, seen = set(task.downstream_task_ids), set[str]()
    while waiting:
        task_id = waiting.pop()
        if task_id not in seen:
            seen.add(task_id)
            other = task.dag.get_task(task_id)
            waiting |= set(other.downstream_task_ids)
            yield other


def _offer_of(task: Any) -> Offer | None:
    """What one task can execute, mapped or not; None where it executes no trials."""
    function = getattr(getattr(task, "python_callable", None), "__dict__", {}).get(FUNCTION)
    if function is not None:
        return Offer({function.__name__: function}, trainers=False)
    if not getattr(getattr(task, "operator_class", type(task)), "runs_trainers", False):
        return None
    given: Any = getattr(task, "partial_kwargs", {}).get("functions") or getattr(task, "functions", ())
    return Offer(named_functions(given), trainers=True)
