"""Registers a study: data, metric, candidates, budgets; keeps the list of studies that trigger forms offer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from airflow.sdk import Variable

from easeml_airflow.errors import airflow_outcome
from easeml_airflow.hooks.arguments import optional_number, optional_plain, optional_text, optional_whole
from easeml_airflow.operators.base import EasemlOperator, RefereeOperator
from easeml_airflow.params import MOST_OFFERED, STUDIES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from easeml_airflow.triggers.questions import Facts
    from easeml_core.entities import JsonObject
    from easeml_core.store.database import Store


class RegisterStudyOperator(RefereeOperator):
    """Registers a study and waits until the referee has split its data and sealed the test sets.

    Fails at once when the study cannot be: an unknown source, a name already taken, too few rows for the planned
    sealed sets. Afterwards the study takes part in the next round of suggestions.

    Args:
        tenant: Who owns the study.
        study: Its name, unique in the installation.
        source: Where the data is: ``sklearn:digits``, ``csv:NAME``, ``images:FOLDER``, ... (``docs/data.md``).
        target: Column to predict, where the source has a choice.
        task: ``classification`` or ``regression``; None means what program and metric say, else classification.
        metric: By which candidates are compared: ``accuracy``, ``balanced_accuracy``, ``f1``, ``auc``, ``log_loss``,
            ``rmse``, ``mae``, ``r2``, ``within:T``, or ``module:function``; None means ``accuracy``, or ``r2``.
        hit: ``within:T``: where numbers are predicted, one that is at most T off is right for gate and meter.
        program: What goes in and what comes out; it calls for the candidates where none are named.
        split: ``rows``, ``group:COLUMN`` or ``time:COLUMN``: how rows are divided into parts; None means ``rows``.
        grid: ``one``, ``rates`` or ``full``: how fine networks are divided into candidates; None means ``one``.
        weight: The study's weight in the scheduler, > 0.
        budget_seconds: Device seconds the study may use; None means no limit.
        priority: From -100 to 100; studies of a higher one come first.
        deadline: No trial begins that would end after it, in ISO 8601; None means no deadline.
        target_quality: The study ends once a trial reaches it, in (0, 1]; None means never.
        candidates: What could be trained: ``{"name", "kind", "parameters"}`` each, and where wanted ``devices``, the
            kinds that it may run on; None means the usual set.
        gate: Settings of the gate (condition, reliability, mode, adaptivity, steps); what is left out has defaults.
        meter: Settings of the meter (ranges, tolerance, reliability, steps, ...); likewise.
        joint: ``{"reliability", "gate_share"}`` of one sealed set that gate and meter share; None means a set each.
        direct: ``{"share"}`` of a second meter, on a hidden sample of the validation distribution, which tells drift
            from tuning; None means no such meter.
        training: Limits of one trial (time_limit_seconds, memory_limit_mb, ...); likewise.
        keep: Let a study of this tenant and name that is there already, or is archived, stand as it is: for a DAG that
            registers its study before each run. The log and the XCom ``differs`` name candidates and settings that the
            study has otherwise. Without ``keep`` the name must be free.
        kwargs: As of ``RefereeOperator``.
    """

    template_fields: Sequence[str] = (
        "tenant",
        "study",
        "source",
        "target",
        "task",
        "metric",
        "hit",
        "program",
        "split",
        "grid",
        "weight",
        "budget_seconds",
        "priority",
        "deadline",
        "target_quality",
        "candidates",
        "gate",
        "meter",
        "joint",
        "direct",
        "training",
        *EasemlOperator.template_fields,
    )

    def __init__(
        self,
        *,
        tenant: str,
        study: str,
        source: str,
        target: str | None = None,
        task: str | None = None,
        metric: str | None = None,
        hit: str | None = None,
        program: str | None = None,
        split: str | None = None,
        grid: str | None = None,
        weight: float | str = 1.0,
        budget_seconds: float | str | None = None,
        priority: int | str = 0,
        deadline: str | None = None,
        target_quality: float | str | None = None,
        candidates: Sequence[JsonObject] | str | None = None,
        gate: JsonObject | str | None = None,
        meter: JsonObject | str | None = None,
        joint: JsonObject | str | None = None,
        direct: JsonObject | str | None = None,
        training: JsonObject | str | None = None,
        keep: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.tenant = tenant
        self.study = study
        self.source = source
        self.target = target
        self.task = task
        self.metric = metric
        self.hit = hit
        self.program = program
        self.split = split
        self.grid = grid
        self.weight = weight
        self.budget_seconds = budget_seconds
        self.priority = priority
        self.deadline = deadline
        self.target_quality = target_quality
        self.candidates = candidates
        self.gate = gate
        self.meter = meter
        self.joint = joint
        self.direct = direct
        self.training = training
        self.keep = keep
        self._differs: list[str] = []

    def file_request(self, store: Store, key: str) -> int:
        """Register the study; the referee's part is to seal its test sets."""
        from easeml_core.services.registration.register import KeptStudy, register_study

        weight = optional_number(self.weight, "weight")
        registered = register_study(
            store,
            tenant=self.tenant,
            study=self.study,
            source=self.source,
            target=optional_text(self.target),
            task=optional_text(self.task),
            metric=optional_text(self.metric),
            hit=optional_text(self.hit),
            program=optional_text(self.program),
            split=optional_text(self.split),
            grid=optional_text(self.grid) or "one",
            weight=1.0 if weight is None else weight,
            budget_seconds=optional_number(self.budget_seconds, "budget_seconds"),
            priority=optional_whole(self.priority, "priority") or 0,
            deadline=optional_text(self.deadline),
            target_quality=optional_number(self.target_quality, "target_quality"),
            candidates=optional_plain(self.candidates, "candidates"),
            gate=optional_plain(self.gate, "gate"),
            meter=optional_plain(self.meter, "meter"),
            joint=optional_plain(self.joint, "joint"),
            direct=optional_plain(self.direct, "direct"),
            training=optional_plain(self.training, "training"),
            keep=self.keep,
            request_key=key,
        )
        if isinstance(registered, KeptStudy):
            self._differs = list(registered.differs)
            self.log.info("study %s of tenant %s is there already and stays as it is", self.study, self.tenant)
            for sentence in self._differs:
                self.log.warning("study %s differs from this task's arguments: %s", self.study, sentence)
        else:
            self.log.info("study %s of tenant %s is registered; its data is being sealed", self.study, self.tenant)
        return registered.request_id

    def execute(self, context: Context) -> Facts:
        """Register; push first how a study that is kept differs, as the task may wait in the triggerer."""
        try:
            return super().execute(context)
        finally:
            if self.keep:
                context["ti"].xcom_push(key="differs", value=self._differs)


class ListStudiesOperator(EasemlOperator):
    """Writes the names of the studies into the Variable that ``params.study`` reads; only when they have changed.

    A form is made when a DAG file is parsed, which asks no database of ours. So it offers the studies of this list.

    Args:
        kwargs: As of ``EasemlOperator``.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    def execute(self, context: Context) -> list[str]:
        """List, compare, write."""
        from easeml_core.services.registration.register import study_names

        with airflow_outcome():
            names = study_names(self.hook.get_store(), limit=MOST_OFFERED)
        listed = json.dumps(names)
        if Variable.get(STUDIES, default=None) != listed:
            Variable.set(STUDIES, listed, description="Studies that the trigger forms of Ease.ml offer.")
        return names
