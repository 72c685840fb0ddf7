"""Asks for the next trials over all tenants and trains them: a trial a task, or one after the other on a device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from easeml_airflow import settings
from easeml_airflow.errors import airflow_outcome, settle_stream
from easeml_airflow.hooks.arguments import (
    EMPTY,
    optional_number,
    optional_plain,
    optional_text,
    optional_truth,
    optional_whole,
    whole,
)
from easeml_airflow.hooks.easeml import request_key
from easeml_airflow.hooks.lineage import lineage_of_trials
from easeml_airflow.hooks.trials import TrainingTask, dag_version_of, named_functions, offer_of
from easeml_airflow.operators.base import EasemlOperator
from easeml_core.formats.encoding import to_json
from easeml_core.settings.config import require

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow.sdk import Context

    from easeml_core.entities import Parameters


class SuggestTrialsOperator(EasemlOperator):
    """Gives up to ``count`` trials, each with the reason why it is the next, as a list to map training tasks over.

    A further try of the same task gives the same trials. Fewer than ``count``, or none, means that nothing more is
    worth running now; the message in XCom says why.

    Args:
        count: How many trials at most, >= 1; None for as many as the live devices of this kind can take now
            (``easeml device list``), at most 1,000.
        at_least: Without ``count``, how many trials also where fewer devices are live, from 1 to 1,000.
        policy: How to choose; None means the installation's ``[easeml] policy``.
        studies: Names of the studies to choose from; None means all active ones.
        device: The free device, such as ``gpu``: candidates that need another one are left out. ``gpu:4`` is for those
            that train on four at once, ``gpu/4`` for those that use a quarter of one. None means that every candidate
            of one device can run.
        functions: Names of the training functions (``@trial``) that what follows has: trials of others are left out.
            None means what the tasks after this one execute, or those of its DAG.
        trainers: Whether what follows has the trainers of easeml, which every other candidate needs. None means what
            the tasks after this one execute: only a DAG whose tasks are all made by ``@trial`` has none.
        kwargs: As of ``EasemlOperator``.
    """

    template_fields: Sequence[str] = (
        "count",
        "at_least",
        "policy",
        "studies",
        "device",
        "functions",
        "trainers",
        *EasemlOperator.template_fields,
    )

    def __init__(
        self,
        *,
        count: int | str | None = 1,
        at_least: int | str = 1,
        policy: str | None = None,
        studies: Sequence[str] | str | None = None,
        device: str | None = None,
        functions: Sequence[str] | str | None = None,
        trainers: bool | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.count = count
        self.at_least = at_least
        self.policy = policy
        self.studies = studies
        self.device = device
        self.functions = functions
        self.trainers = trainers

    def execute(self, context: Context) -> Any:
        """Ask, log the reasons, hand the trials on."""
        from easeml_core.services.selection.executors import source_hash
        from easeml_core.services.selection.scheduler import MOST_SUGGESTED
        from easeml_core.services.selection.scheduler_process import suggester_for
        from easeml_core.services.trials.devices import free_devices

        with airflow_outcome():
            store, device, count = self.hook.get_store(), optional_text(self.device), self.count
            if count is None or count in EMPTY:
                least = whole(self.at_least, "at_least")
                require(1 <= least <= MOST_SUGGESTED, "at_least", least, f"from 1 to {MOST_SUGGESTED:,}")
                count = min(max(least, free_devices(store, device=device)), MOST_SUGGESTED)
            named, trainers = optional_plain(self.functions, "functions"), optional_truth(self.trainers, "trainers")
            offer = offer_of(self)
            sources = {name: source_hash(function)[0] for name, function in offer.functions.items()}
            suggester = suggester_for(
                store,
                policy=optional_text(self.policy),
                usual_policy=settings.policy(),
                studies_only=optional_plain(self.studies, "studies"),
                functions=sources if named is None else named,
                trainers=(offer.trainers or named is not None) if trainers is None else trainers,
            )
            suggested = suggester.ask(
                count=whole(count, "count"),
                device=device,
                request_key=request_key(context),
            )
        context["ti"].xcom_push(key="policy", value=suggested.policy)
        context["ti"].xcom_push(key="message", value=suggested.message)
        self.log.info("policy %s: %s", suggested.policy, suggested.message)
        for trial in suggested.trials:
            self.log.info("trial %s: %s, %s: %s", trial.trial_id, trial.study, trial.candidate, trial.reason)
        return to_json(suggested.trials)


class ListDevicesOperator(EasemlOperator):
    """Lists the devices to map ``RunDeviceOperator`` over: those that are given, else what is live.

    Without a list it gives one entry for each slot of the live devices (``easeml device list``), GPUs first, 256 at
    most. Pool and claims decide which of the tasks run at the same time.

    Args:
        devices: The kinds, such as ``["gpu", "gpu:2", "cpu"]``; None or empty for those of the live devices.
        otherwise: What it gives where no device is live, as on hosts where nothing has trained for 90 s and no
            ``easeml device announce`` runs.
        kwargs: As of ``EasemlOperator``.

    Raises:
        ConfigError: One of the devices is no request, such as ``GPU``.
    """

    template_fields: Sequence[str] = ("devices", "otherwise", *EasemlOperator.template_fields)

    def __init__(
        self,
        *,
        devices: Sequence[str] | str | None = None,
        otherwise: Sequence[str] | str = ("cpu",),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.devices = devices
        self.otherwise = otherwise

    def execute(self, context: Context) -> list[str]:
        """Return the list; nothing is held or reserved."""
        from easeml_core.services.trials.devices import offered_devices
        from easeml_core.settings.device_requests import check_device_request

        with airflow_outcome():
            found = optional_plain(self.devices, "devices")
            if not found:
                found = offered_devices(self.hook.get_store()) or optional_plain(self.otherwise, "otherwise") or []
            for device in found:
                check_device_request("devices", device)
        self.log.info("devices: %s", ", ".join(found))
        return list(found)


class TrainTrialOperator(TrainingTask, EasemlOperator):
    """Runs one trial with the implementation that its candidate names: progress to the log, quality to the store.

    A candidate of easeml's own kinds, of a command or of a container is trained in a child process. A candidate of kind
    ``function`` is trained by that one of ``functions`` that it names, in the task's own process. A trial that nothing
    here executes is given back, and the task is skipped. A task that is stopped (a drained node, or a person who
    marks or clears it) hands its trial back: the attempt does not count, and a further try, or the next ask, trains it.
    A task that finds its trial with another worker, since its own was lost, is skipped.
    Only ``easeml trial cancel`` and the study's page cancel a trial. The task's ``execution_timeout`` ends an attempt,
    from whose last checkpoint a further try, or the next ask, goes on. It counts where the training had begun and no
    checkpoint was recorded in it; when no attempt is left, the trial has failed because of its task.

    Args:
        trial: An entry of what ``SuggestTrialsOperator`` returned, or a trial's id.
        functions: Training functions, made by ``@trial`` or plain ones; each trains the candidates of its name.
        on_failed: What a FAILED trial (crash, NaN, time-out, out of memory) does to its task: ``fail``, ``skip`` or
            ``ignore``. The trial is recorded with its reason in any case. A cancelled trial skips the task.
        slot: What to train on, on the worker's machine: ``cpu``, ``cuda`` or ``cuda:N``. None for the CPU where the
            trial was handed out for a device of the kind ``cpu``, else for a GPU if there is one.
        kwargs: As of ``EasemlOperator``; ``pool_slots`` must be at least the devices of each trial: Airflow takes all
            slots of a task at once, so that no two tasks wait for each other.

    Raises:
        ConfigError: The slot is none of these; one that is a template is looked at once it is rendered. Or the trial
            holds more devices than the task has slots of its pool.
        InvalidInputError: One of the functions has no name, or two have the same.

    Example:
        One mapped task for a study whose candidates are two functions and kinds of easeml::

            TrainTrialOperator.partial(task_id="train", functions=[const, tree]).expand(trial=suggest.output)
    """

    runs_trainers: ClassVar[bool] = True

    template_fields: Sequence[str] = ("trial", "slot", *EasemlOperator.template_fields)

    def __init__(
        self,
        *,
        trial: Parameters | int | str,
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

    def execute(self, context: Context) -> Any:
        """Run the trial and tell what came of it, before a failed one fails the task."""
        from easeml_core.services.selection.executors import executors_of
        from easeml_core.services.trials.attempts import run_routed_trial

        named, version = named_functions(self.functions).values(), dag_version_of(context["ti"])
        return self.run_trial(
            context,
            self.trial,
            run_routed_trial,
            executors=executors_of(named, trainers=True, dag_version=version),
            slot=optional_text(self.slot),
            most_devices=self.pool_slots,
        )


class RunDeviceOperator(TrainingTask, EasemlOperator):
    """Asks for a trial, trains it, and asks again, until nothing is left to train or a limit is reached.

    The task stands for one device and holds its slot of the pool all the time. A failed trial is recorded with its
    reason and does not fail the task. A further try of the task takes up where the one before it was killed. A task
    that is stopped hands its running trial back, and the attempt does not count.

    Args:
        device: The device, as candidates name it: ``gpu``, or ``gpu:4`` for candidates that train on four at once, or
            ``gpu/4`` for those that use a quarter; None where all are alike.
        functions: Training functions, made by ``@trial`` or plain ones; each trains the candidates of its name, in
            the task's own process. Candidates of other functions are left to other tasks.
        policy: How to choose; None means the installation's ``[easeml] policy``.
        studies: Names of the studies to choose from; None means all active ones.
        until: Seconds after which this try begins no further trial; None means no limit.
        max_trials: How many trials at most, in all tries together; None means no limit.
        poll_interval: Seconds between two asks while it waits for trials of other devices; None means the
            installation's.
        kwargs: As of ``EasemlOperator``. ``pool_slots`` is the number of devices unless it is given; Airflow takes all
            slots of a task at once, so that no two tasks wait for each other. A mapped task needs it in ``partial``.

    Raises:
        ConfigError: The device is no such request, or the task has fewer slots of its pool than devices.
        InvalidInputError: One of the functions has no name, or two have the same.
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
        is_literal = isinstance(device, str) and device not in EMPTY and "{" not in device
        if is_literal:
            from easeml_core.settings.device_requests import devices_of

            kwargs.setdefault("pool_slots", devices_of(device))
        super().__init__(**kwargs)
        self.device = device
        if is_literal:
            self._require_slots()
        self.functions = functions
        named_functions(functions)
        self.policy = policy
        self.studies = studies
        self.until = until
        self.max_trials = max_trials
        self.poll_interval = poll_interval

    def execute(self, context: Context) -> Any:
        """Run the device and tell what it did, before a stream that did not end by itself fails the task."""
        from easeml_core.services.selection.executors import executors_of
        from easeml_core.services.trials.worker import run_device

        with airflow_outcome():
            self._require_slots()
            named, version = named_functions(self.functions).values(), dag_version_of(context["ti"])
            store = self.hook.get_store()
            summary = run_device(
                store,
                self.hook.get_artifacts(),
                device=optional_text(self.device),
                request_key=request_key(context),
                policy=optional_text(self.policy),
                usual_policy=settings.policy(),
                studies_only=optional_plain(self.studies, "studies"),
                until=optional_number(self.until, "until"),
                max_trials=optional_whole(self.max_trials, "max_trials"),
                log=self.log.info,
                executors=executors_of(named, trainers=True, dag_version=version),
                should_stop=lambda: self.is_stopped,
                poll_seconds=settings.poll_interval_seconds() if self.poll_interval is None else self.poll_interval,
            )
        context["ti"].xcom_push(key="stream", value=to_json(summary))
        self._note_lineage(lambda: lineage_of_trials(store, [trial.trial_id for trial in summary.trials]))
        self.log.info("%s", summary.message)
        settle_stream(summary)
        return to_json(summary)

    def _require_slots(self) -> None:
        """Refuse a device that is several, of which the task's pool reserves fewer."""
        from easeml_core.settings.device_requests import require_held

        require_held(optional_text(self.device), self.pool_slots)
