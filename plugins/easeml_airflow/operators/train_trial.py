"""Trains one suggested trial on the device that the task's pool stands for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_airflow.errors import airflow_outcome, settle_trial
from easeml_airflow.hooks.arguments import EMPTY, optional_text, trial_id
from easeml_airflow.hooks.request_key import request_key
from easeml_airflow.operators.base import EasemlOperator
from easeml_core.errors import EasemlError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context

    from easeml_core.store.database import Store


class TrainTrialOperator(EasemlOperator):
    """Runs one trial in a child process: progress to the log, quality and cost to the store.

    Args:
        trial: An entry of what ``SuggestTrialsOperator`` returned, or a trial's id.
        on_failed: What a FAILED trial (crash, NaN, time-out, out of memory) does to its task: ``fail``, ``skip`` or
            ``ignore``. The trial is recorded with its reason in any case. A cancelled trial skips the task.
        slot: What to train on, on the worker's machine: ``cpu``, ``cuda`` or ``cuda:N``. None for the CPU where the
            trial was handed out for a device of the kind ``cpu``, else for a GPU if there is one.
        kwargs: As of ``EasemlOperator``.

    Raises:
        ConfigError: The slot is none of these; one that is a template is looked at once it is rendered.
    """

    template_fields: Sequence[str] = ("trial", "slot", *EasemlOperator.template_fields)

    def __init__(
        self,
        *,
        trial: Mapping[str, Any] | int | str,
        on_failed: str = "fail",
        slot: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.trial = trial
        self.on_failed = on_failed
        self.slot = slot
        if isinstance(slot, str) and slot not in EMPTY and "{" not in slot:
            from easeml_core.training.job import check_slot

            check_slot(slot)
        self._running: tuple[Store, int] | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        """Run the trial and tell what came of it, before a failed one fails the task."""
        from easeml_core.services.trials import run_trial

        with airflow_outcome():
            hook = self.hook
            trial = trial_id(self.trial)
            self._running = (hook.get_store(), trial)
            result = run_trial(
                hook.get_store(),
                hook.get_artifacts(),
                trial_id=trial,
                request_key=request_key(context),
                log=self.log.info,
                slot=optional_text(self.slot),
            )
            self._running = None
            context["ti"].xcom_push(key="trial", value=result)
            settle_trial(result, on_failed=self.on_failed)
        return result

    def on_kill(self) -> None:
        """Cancel the trial: the child process ends, and the device is free."""
        if self._running is None:
            return
        from easeml_core.services.trials import cancel_trial

        # A store of its own: the one that trains may be in the middle of a transaction when the signal comes.
        store, trial = self._running
        self.log.info("cancelling trial %d", trial)
        try:
            cancel_trial(store, trial_id=trial)
        except EasemlError as error:
            self.log.warning("trial %d could not be cancelled, its lease will run out instead: %s", trial, error)
