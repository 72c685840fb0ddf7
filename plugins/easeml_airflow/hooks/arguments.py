"""Reads the arguments of tasks: values after Airflow has rendered them, and training functions (``@trial``).

A template leaves text where a number was meant. A function stays what the DAG file defines: every worker parses that
file, so a task finds its functions in its own arguments, and nothing of them is serialised.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from easeml_core.config import require
from easeml_core.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from airflow.sdk import BaseOperator

    Function = Callable[..., Any]

EMPTY = (None, "", "None")
"""What an unset field of a trigger form becomes, with and without a template in between."""


def optional_text(value: Any) -> str | None:
    """The text, or None for an unset field.

    Example:
        >>> optional_text("None"), optional_text("n > 0.8 +/- 0.1")
        (None, 'n > 0.8 +/- 0.1')
    """
    return None if value in EMPTY else str(value)


def whole(value: Any, name: str) -> int:
    """The whole number.

    Raises:
        ConfigError: If it is none; names the argument.
    """
    text = str(value).strip()
    require(text.removeprefix("-").isdecimal(), name, value, "a whole number")
    return int(text)


def optional_whole(value: Any, name: str) -> int | None:
    """The whole number, or None for an unset field."""
    return None if value in EMPTY else whole(value, name)


def optional_number(value: Any, name: str) -> float | None:
    """The number, or None for an unset field.

    Raises:
        ConfigError: If it is none; names the argument.
    """
    if value in EMPTY:
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        require(False, name, value, "a number")
        raise


def optional_plain(value: Any, name: str) -> Any:
    """A list or mapping, given as such or as JSON text; None for an unset field.

    Example:
        >>> optional_plain('["digits"]', "studies"), optional_plain({"steps": 3}, "gate"), optional_plain("", "gate")
        (['digits'], {'steps': 3}, None)

    Raises:
        ConfigError: If the text is no JSON list or object; names the argument.
    """
    if value in EMPTY:
        return None
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            require(False, name, value, "a list or an object, or one of these as JSON text")
    require(isinstance(value, list | tuple | dict), name, value, "a list or an object, or one of these as JSON text")
    return value


def optional_truth(value: Any, name: str) -> bool | None:
    """True or false, given as such or as the text that a template makes of it; None for an unset field.

    Example:
        >>> optional_truth(True, "trainers"), optional_truth("False", "trainers"), optional_truth("", "trainers")
        (True, False, None)

    Raises:
        ConfigError: If it is neither; names the argument.
    """
    if value in EMPTY:
        return None
    known = {"true": True, "false": False}.get(value.lower()) if isinstance(value, str) else value
    require(known is True or known is False, name, value, "true, false or None")
    return bool(known)


def trial_id(trial: Any) -> int:
    """The id of a trial, given itself or as one of the entries that ``SuggestTrialsOperator`` returns.

    Example:
        >>> trial_id({"trial_id": 7, "study": "digits"}), trial_id("7")
        (7, 7)
    """
    return whole(trial.get("trial_id") if isinstance(trial, dict) else trial, "trial")


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
