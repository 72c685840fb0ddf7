"""Brings labelled pairs to a study."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from easeml_airflow.errors import airflow_outcome
from easeml_airflow.hooks.arguments import optional_plain, optional_text
from easeml_airflow.hooks.request_key import request_key
from easeml_airflow.operators.base import EasemlOperator

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context


class FeedOperator(EasemlOperator):
    """Feeds pairs; they wait for the study's next refresh (``RefineOperator``, or ``easeml_feed_retraining`` at night).

    A further try of the task feeds nothing twice. Rows that the study knows already are left out by the refresh.

    Args:
        study: For which study.
        path: On this worker: a CSV file with the study's columns and one of labels, a folder of ``inputs.npy`` and
            ``targets.npy``, or a folder of images by class; may be another task's output.
        labels: CSV file ``example,label``; then ``path`` is a CSV file of inputs with a column ``example``.
        label_column: Column of the labels in ``path``.
        pairs: Instead of files: ``{"inputs": [numbers] or {column: value}, "label": ...}`` each.
        kwargs: As of ``EasemlOperator``.
    """

    template_fields: Sequence[str] = (
        "study",
        "path",
        "labels",
        "label_column",
        "pairs",
        *EasemlOperator.template_fields,
    )

    def __init__(
        self,
        *,
        study: str,
        path: str | None = None,
        labels: str | None = None,
        label_column: str = "label",
        pairs: Sequence[Mapping[str, Any]] | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.study = study
        self.path = path
        self.labels = labels
        self.label_column = label_column
        self.pairs = pairs

    def execute(self, context: Context) -> dict[str, Any]:
        """Feed; a retry gives the first try's feed."""
        from easeml_core.services.datasets.feed import feed

        path, labels = optional_text(self.path), optional_text(self.labels)
        with airflow_outcome():
            hook = self.hook
            fed = feed(
                hook.get_store(),
                hook.get_artifacts(),
                study=self.study,
                path=None if path is None else Path(path),
                labels=None if labels is None else Path(labels),
                label_column=self.label_column,
                pairs=optional_plain(self.pairs, "pairs"),
                fed_by=f"DAG {context['ti'].dag_id}"[:200],
                request_key=request_key(context),
            )
        self.log.info("feed %(feed_id)d of study %(study)s: %(rows)d pairs", fed)
        return dict(fed)
