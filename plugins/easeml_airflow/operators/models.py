"""Hands a model in, so that the gate judges it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_airflow.assets import SUBMITTED, alias, submissions, tell
from easeml_airflow.errors import airflow_outcome
from easeml_airflow.hooks.arguments import optional_text
from easeml_airflow.hooks.request_key import request_key
from easeml_airflow.links import SUBMISSIONS
from easeml_airflow.operators.base import EasemlOperator
from easeml_core.config import require

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context


class SubmitModelOperator(EasemlOperator):
    """Hands in a model that something else has trained: a file, or a command that predicts.

    The referee runs it itself on the sealed inputs; nothing here sees them. Whoever is scheduled on ``submissions()``
    is started. The submission, its message and its author are kept for ever.

    With ``bundle`` the model stands for a version of a DAG bundle: the version whose run has made it. When the model is
    promoted, so is that version: the referee moves the tag that the bundle of production follows.

    Args:
        study: For which study.
        path: The model's file, or the folder of a command, on this worker; may be another task's output.
        format: ``skops``, ``lightgbm``, ``xgboost``, ``safetensors`` or ``command``.
        command: For the format ``command``: how it is run; None where the folder says it.
        message: What is new about it; people read it beside the verdict.
        bundle: Name of the DAG bundle whose version is handed in; None for the model alone.
        bundle_version: The version, a git commit; None means the version that this very task runs from.
        kwargs: As of ``EasemlOperator``.
    """

    page_of_study = SUBMISSIONS
    template_fields: Sequence[str] = (
        "study",
        "path",
        "format",
        "command",
        "message",
        "bundle",
        "bundle_version",
        *EasemlOperator.template_fields,
    )

    def __init__(
        self,
        *,
        study: str,
        path: str,
        message: str,
        format: str = "skops",
        command: str | None = None,
        bundle: str | None = None,
        bundle_version: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.study = study
        self.path = path
        self.format = format
        self.command = command
        self.message = message
        self.bundle = bundle
        self.bundle_version = bundle_version
        self.outlets = [*self.outlets, alias(SUBMITTED)]

    def execute(self, context: Context) -> dict[str, Any]:
        """Hand in; a retry gives the first try's submission."""
        from easeml_core.services.models.submission import submit_model

        with airflow_outcome():
            bundle, version = self._version(context)
            hook = self.hook
            submitted = submit_model(
                hook.get_store(),
                hook.get_artifacts(),
                study=self.study,
                path=self.path,
                format=self.format,
                message=self.message,
                command=optional_text(self.command),
                bundle=bundle,
                bundle_version=version,
                request_key=request_key(context),
            )
        for name, value in submitted.items():
            context["ti"].xcom_push(key=name, value=value)
        extra = {name: submitted[name] for name in ("submission_id", "study", "model_id")}
        tell(context, SUBMITTED, submissions(self.study, easeml_conn_id=self.easeml_conn_id), extra)
        self.log.info("submission %(submission_id)s: model %(model_id)s of study %(study)s", submitted)
        return dict(submitted)

    def _version(self, context: Context) -> tuple[str | None, str | None]:
        """The bundle and the version that are handed in with the model."""
        bundle, version = optional_text(self.bundle), optional_text(self.bundle_version)
        if bundle is None:
            require(version is None, "bundle_version", version, "given together with bundle")
            return None, None
        if version is None:
            own = getattr(context["ti"], "bundle_instance", None)
            name, version = getattr(own, "name", None), getattr(own, "version", None)
            require(name == bundle, "bundle", bundle, f"this task's own ({name!r}), or given with bundle_version")
            require(bool(version), "bundle_version", version, f"given: bundle {bundle!r} has no versions of its own")
        return bundle, version
