"""Lets one device train one trial after the other, so that no device waits for the slowest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from easeml_airflow import settings
from easeml_airflow.errors import airflow_outcome, settle_stream
from easeml_airflow.hooks.arguments import optional_number, optional_plain, optional_text, optional_whole
from easeml_airflow.hooks.request_key import request_key
from easeml_airflow.hooks.training_functions import dag_version_of, named_functions
from easeml_airflow.operators.base import EasemlOperator

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow.sdk import Context


class RunDeviceOperator(EasemlOperator):
    """Asks for a trial, trains it, and asks again, until nothing is left to train or a limit is reached.

    The task stands for one device and holds its slot of the pool all the time. A failed trial is recorded with its
    reason and does not fail the task. A further try of the task takes up where the one before it was killed. A task
    that is stopped hands its running trial back, and the attempt does not count.

    Args:
        device: Kind of the device, as candidates name it; None where all are alike.
        functions: Training functions, made by ``@trial`` or plain ones; each trains the candidates of its own name, in
            the task's own process. Candidates of other functions are left to other tasks.
        policy: How to choose; None means the installation's ``[easeml] policy``.
        studies: Names of the studies to choose from; None means all active ones.
        until: Seconds after which this try begins no further trial; None means no limit.
        max_trials: How many trials at most, in all tries together; None means no limit.
        poll_interval: Seconds between two asks while it waits for trials of other devices; None means the
            installation's.
        kwargs: As of ``EasemlOperator``.

    Raises:
        InvalidInputError: One of the functions has no name of its own, or two have the same.
    """

    runs_trainers: ClassVar[bool] = True
    template_fields: Sequence[str] = (
        "device",
        "policy",
        "studies",
        "until",
        "max_trials",
        *EasemlOperator.template_fields,
    )

    def __init__(
        self,
        *,
        device: str | None = None,
        functions: Sequence[Callable[..., Any]] = (),
        policy: str | None = None,
        studies: Sequence[str] | str | None = None,
        until: float | str | None = None,
        max_trials: int | str | None = None,
        poll_interval: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.device = device
        self.functions = functions
        named_functions(functions)
        self.policy = policy
        self.studies = studies
        self.until = until
        self.max_trials = max_trials
        self.poll_interval = poll_interval
        self._killed = False

    def execute(self, context: Context) -> dict[str, Any]:
        """Run the device and tell what it did, before a stream that did not end by itself fails the task."""
        from easeml_core.services.selection.executors import executors_of
        from easeml_core.services.trials.worker import run_device

        with airflow_outcome():
            named, version = named_functions(self.functions).values(), dag_version_of(context["ti"])
            summary = run_device(
                self.hook.get_store(),
                self.hook.get_artifacts(),
                device=optional_text(self.device),
                request_key=request_key(context),
                policy=optional_text(self.policy) or settings.policy(),
                studies_only=optional_plain(self.studies, "studies"),
                until=optional_number(self.until, "until"),
                max_trials=optional_whole(self.max_trials, "max_trials"),
                log=self.log.info,
                executors=executors_of(named, trainers=True, dag_version=version),
                should_stop=lambda: self._killed,
                poll_seconds=settings.poll_interval_seconds() if self.poll_interval is None else self.poll_interval,
            )
        context["ti"].xcom_push(key="stream", value=summary)
        self.log.info("%s", summary["message"])
        settle_stream(summary)
        return summary

    def on_kill(self) -> None:
        """Let the device hand its running trial back, to be trained by another one; it says so in the log."""
        self._killed = True  # no more than a flag: the signal may come in the middle of a transaction
