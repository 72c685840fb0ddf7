"""Mirrors trials and models in MLflow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_airflow.errors import airflow_outcome
from easeml_airflow.hooks.arguments import optional_plain, optional_text
from easeml_airflow.operators.base import EasemlOperator
from easeml_core.encoding import to_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context


class MlflowSyncOperator(EasemlOperator):
    """Adds to MLflow what it has not yet: a run a trial, a version a model that was let out, the alias of production.

    It may be run as often as one likes. Nothing waits for it, so where MLflow is away only this task fails.

    Args:
        tracking_uri: The server; None means MLflow's own ``MLFLOW_TRACKING_URI``. Credentials are MLflow's own
            variables, in the environment of the workers.
        studies: Names of the studies to mirror; None means all.
        prefix: Experiments are ``PREFIX/TENANT/STUDY``, registered models ``PREFIX.STUDY``.
        alias: Of the version in production.
        kwargs: As of ``EasemlOperator``.
    """

    template_fields: Sequence[str] = ("tracking_uri", "studies", "prefix", "alias", *EasemlOperator.template_fields)

    def __init__(
        self,
        *,
        tracking_uri: str | None = None,
        studies: Sequence[str] | str | None = None,
        prefix: str = "easeml",
        alias: str = "production",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.tracking_uri = tracking_uri
        self.studies = studies
        self.prefix = prefix
        self.alias = alias

    def execute(self, context: Context) -> Any:
        """Sync, log, hand on."""
        from easeml_core.services.operations.mlflow_sync import Mirror, sync

        with airflow_outcome():
            mirrored = Mirror(optional_text(self.tracking_uri), str(self.prefix), str(self.alias))
            wanted = optional_plain(self.studies, "studies")
            done = sync(self.hook.get_store(), self.hook.get_artifacts(), mirrored, studies_only=wanted)
        for entry in done:
            self.log.info("%s: %d runs and %d versions added", entry.experiment, entry.runs, entry.versions)
        return to_json(done)
