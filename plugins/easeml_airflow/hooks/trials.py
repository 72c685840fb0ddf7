"""What tasks that train share: the life of a trial in a task, and the training functions (``@trial``) of a DAG.

A function stays what the DAG file defines: every worker parses that file, so a task finds its functions in its own
arguments, and nothing of them is serialised. A DAG is handed only the trials that its functions and trainers can run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from easeml_airflow.errors import airflow_outcome, settle_trial, skipped_if_taken, time_limit_of
from easeml_airflow.hooks.arguments import trial_id
from easeml_airflow.hooks.easeml import EasemlHook, request_key
from easeml_airflow.hooks.lineage import EmitsLineage, lineage_of_trials
from easeml_core.errors import InvalidInputError
from easeml_core.formats.encoding import to_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from airflow.sdk import BaseOperator, Context

    from easeml_core.store.tables.trials import TrialReport

    Function = Callable[..., Any]

FUNCTION = "training_function"
"""Where the callable that Airflow sees keeps the function that trains; nothing of it has to be serialised there."""


class TrainingTask(EmitsLineage):
    """Base of the operators that train, beside Airflow's own base: a task that is stopped hands its trial back."""

    easeml_conn_id: str | None
    on_failed: str
    is_stopped = False

    def on_kill(self) -> None:
        """Let the task hand its trial back, to be trained by another one, whether a person or the machine stops it.

        A training function ends when it calls ``report``.
        """
        self.is_stopped = True  # no more than a flag: the signal may come in the middle of a transaction

    def run_trial(self: Any, context: Context, trial: Any, run: Callable[..., TrialReport], **how: Any) -> Any:
        """Claim a trial, run it, and tell what came of it, before a failed one fails the task."""
        from easeml_core.services.selection.retry import in_place_of

        hook, key = EasemlHook(self.easeml_conn_id), request_key(context)
        with airflow_outcome():
            store = hook.get_store()
            number = in_place_of(store, trial_id=trial_id(trial), request_key=key)
            with skipped_if_taken():
                result = run(
                    store,
                    hook.get_artifacts(),
                    trial_id=number,
                    request_key=key,
                    log=self.log.info,
                    should_stop=lambda: self.is_stopped,
                    time_limit=time_limit_of(self),
                    **how,
                )
            context["ti"].xcom_push(key="trial", value=to_json(result))
            self._note_lineage(lambda: lineage_of_trials(store, [result.trial_id]))
            settle_trial(result, on_failed=self.on_failed, is_stopped=self.is_stopped)
        return to_json(result)


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
    """Return training functions by the names by which candidates name them."""
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
