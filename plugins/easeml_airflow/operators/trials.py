"""Asks the scheduler which trials come next, over all tenants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_airflow import settings
from easeml_airflow.errors import airflow_outcome
from easeml_airflow.hooks.arguments import optional_plain, optional_text, whole
from easeml_airflow.hooks.request_key import request_key
from easeml_airflow.hooks.training_functions import offer_of
from easeml_airflow.operators.base import EasemlOperator
from easeml_core.config import require

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context


class SuggestTrialsOperator(EasemlOperator):
    """Gives up to ``count`` trials, each with the reason why it is the next, as a list to map training tasks over.

    A further try of the same task gives the same trials. Fewer than ``count``, or none, means that nothing more is
    worth running now; the message in XCom says why.

    Args:
        count: How many trials at most, >= 1; usually the number of free devices.
        policy: How to choose; None means the installation's ``[easeml] policy``.
        studies: Names of the studies to choose from; None means all active ones.
        device: Kind of the free device, such as ``gpu``: candidates that need another one are left out; None means
            that every candidate can run.
        functions: Names of the training functions (``@trial``) that what follows has: trials of others are left out.
            None means what the tasks after this one execute, or those of its DAG.
        trainers: Whether what follows has the trainers of easeml, which every other candidate needs. None means what
            the tasks after this one execute: only a DAG whose tasks are all made by ``@trial`` has none.
        kwargs: As of ``EasemlOperator``.
    """

    template_fields: Sequence[str] = (
        "count",
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
        count: int | str = 1,
        policy: str | None = None,
        studies: Sequence[str] | str | None = None,
        device: str | None = None,
        functions: Sequence[str] | str | None = None,
        trainers: bool | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.count = count
        self.policy = policy
        self.studies = studies
        self.device = device
        self.functions = functions
        self.trainers = trainers

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Ask, log the reasons, hand the trials on."""
        from easeml_core.services.selection.executors import source_hash
        from easeml_core.services.selection.scheduler import suggest_trials

        with airflow_outcome():
            named, trainers = optional_plain(self.functions, "functions"), optional_plain(self.trainers, "trainers")
            offer = offer_of(self)
            sources = {name: source_hash(function)[0] for name, function in offer.functions.items()}
            require(trainers in (None, True, False), "trainers", trainers, "true, false or None")
            suggested = suggest_trials(
                self.hook.get_store(),
                count=whole(self.count, "count"),
                policy=optional_text(self.policy) or settings.policy(),
                studies_only=optional_plain(self.studies, "studies"),
                device=optional_text(self.device),
                functions=sources if named is None else named,
                trainers=(offer.trainers or named is not None) if trainers is None else trainers,
                request_key=request_key(context),
            )
        context["ti"].xcom_push(key="policy", value=suggested["policy"])
        context["ti"].xcom_push(key="message", value=suggested["message"])
        self.log.info("policy %s: %s", suggested["policy"], suggested["message"])
        for trial in suggested["trials"]:
            self.log.info("trial %(trial_id)s: %(study)s, %(candidate)s: %(reason)s", trial)
        return list(suggested["trials"])
