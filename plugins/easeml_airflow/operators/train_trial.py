"""Trains one suggested trial with what its candidate names, on the device that the task's pool stands for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from easeml_airflow.errors import airflow_outcome, cancelled_by_timeout, settle_trial
from easeml_airflow.hooks.arguments import EMPTY, optional_text, trial_id
from easeml_airflow.hooks.request_key import request_key
from easeml_airflow.hooks.training_functions import dag_version_of, named_functions
from easeml_airflow.operators.base import EasemlOperator

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from airflow.sdk import Context


class TrainTrialOperator(EasemlOperator):
    """Runs one trial with the implementation that its candidate names: progress to the log, quality to the store.

    A candidate of easeml's own kinds, of a command or of a container is trained in a child process. A candidate of kind
    ``function`` is trained by that one of ``functions`` that it names, in the task's own process. A trial that nothing
    here executes is given back, and the task is skipped. A task that is stopped (a drained node, or a person who
    marks or clears it) hands its trial back: the attempt does not count, and a further try, or the next ask, trains it.
    Only ``easeml trial cancel``, the study's page and the task's ``execution_timeout`` cancel a trial.

    Args:
        trial: An entry of what ``SuggestTrialsOperator`` returned, or a trial's id.
        functions: Training functions, made by ``@trial`` or plain ones; each trains the candidates of its own name.
        on_failed: What a FAILED trial (crash, NaN, time-out, out of memory) does to its task: ``fail``, ``skip`` or
            ``ignore``. The trial is recorded with its reason in any case. A cancelled trial skips the task.
        slot: What to train on, on the worker's machine: ``cpu``, ``cuda`` or ``cuda:N``. None for the CPU where the
            trial was handed out for a device of the kind ``cpu``, else for a GPU if there is one.
        kwargs: As of ``EasemlOperator``.

    Raises:
        ConfigError: The slot is none of these; one that is a template is looked at once it is rendered.
        InvalidInputError: One of the functions has no name of its own, or two have the same.

    Example:
        One mapped task for a study whose candidates are two functions and kinds of easeml::

            TrainTrialOperator.partial(task_id="train", functions=[const, tree]).expand(trial=suggest.output)
    """

    runs_trainers: ClassVar[bool] = True

    template_fields: Sequence[str] = ("trial", "slot", *EasemlOperator.template_fields)

    def __init__(
        self,
        *,
        trial: Mapping[str, Any] | int | str,
        functions: Sequence[Callable[..., Any]] = (),
        on_failed: str = "fail",
        slot: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.trial = trial
        self.functions = functions
        named_functions(functions)
        self.on_failed = on_failed
        self.slot = slot
        if isinstance(slot, str) and slot not in EMPTY and "{" not in slot:
            from easeml_core.training.job import check_slot

            check_slot(slot)
        self._killed = False

    def execute(self, context: Context) -> dict[str, Any]:
        """Run the trial and tell what came of it, before a failed one fails the task."""
        from easeml_core.services.selection.executors import executors_of
        from easeml_core.services.selection.retry import in_place_of
        from easeml_core.services.trials.function_trials import run_routed_trial

        with airflow_outcome():
            store, key = self.hook.get_store(), request_key(context)
            named = named_functions(self.functions).values()
            version = dag_version_of(context["ti"])
            trial = in_place_of(store, trial_id=trial_id(self.trial), request_key=key)
            with cancelled_by_timeout(store, trial, self.log.info):
                result = run_routed_trial(
                    store,
                    self.hook.get_artifacts(),
                    trial_id=trial,
                    request_key=key,
                    executors=executors_of(named, trainers=True, dag_version=version),
                    log=self.log.info,
                    slot=optional_text(self.slot),
                    should_stop=lambda: self._killed,
                )
            context["ti"].xcom_push(key="trial", value=result)
            settle_trial(result, on_failed=self.on_failed, is_stopped=self._killed)
        return result

    def on_kill(self) -> None:
        """Let the task hand its trial back, to be trained by another one, whether a person or the machine stops it."""
        self._killed = True  # no more than a flag: the signal may come in the middle of a transaction
