"""Brings labelled pairs to studies, switches rows, and makes data versions of what was fed and switched."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from easeml_airflow.errors import airflow_outcome
from easeml_airflow.hooks.arguments import optional_plain, optional_text, whole
from easeml_airflow.hooks.easeml import request_key
from easeml_airflow.operators.base import EasemlOperator, RefereeOperator
from easeml_core.formats.encoding import to_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from easeml_core.entities import JsonObject
    from easeml_core.store.database import Store


class FeedOperator(EasemlOperator):
    """Feeds pairs; they wait for the study's next refresh (``RefineOperator``, or ``easeml_feed_retraining`` at night).

    A further try of the task feeds nothing twice. Rows that the study knows already are left out by the refresh.

    Args:
        study: For which study.
        path: On this worker: a CSV or Parquet file with the study's columns and one of labels, a folder of
            ``inputs.npy`` and ``targets.npy``, a folder of images by class, or a zip file of such a folder; may be
            another task's output.
        labels: CSV file ``example,label``; then ``path`` has rows without labels, in a table with a column ``example``.
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
        pairs: Sequence[JsonObject] | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.study = study
        self.path = path
        self.labels = labels
        self.label_column = label_column
        self.pairs = pairs

    def execute(self, context: Context) -> Any:
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
        self.log.info("feed %d of study %s: %d pairs", fed.feed_id, fed.study, fed.rows)
        return to_json(fed)


class RefineOperator(RefereeOperator):
    """Switches rows off and on where any are named, and waits until the referee has refreshed the study's data.

    Afterwards the study has a new data version, on which every candidate is tried again; what was observed on the one
    before stays with it. Where nothing was fed or switched there is no new version, and the task succeeds.

    Args:
        study: The study.
        off: Names of rows to switch off, or the first 8 digits or more of them.
        on: Likewise, to switch on.
        reason: Why rows are switched; kept with them.
        kwargs: As of ``RefereeOperator``.
    """

    asks_by_subject = True
    template_fields: Sequence[str] = ("study", "off", "on", "reason", *EasemlOperator.template_fields)

    def __init__(
        self,
        *,
        study: str,
        off: Sequence[str] | str | None = None,
        on: Sequence[str] | str | None = None,
        reason: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.study = study
        self.off = off
        self.on = on
        self.reason = reason

    def file_request(self, store: Store, key: str) -> int:
        """Switch, then ask for the refresh."""
        from easeml_core.services.datasets.feed import file_refresh
        from easeml_core.services.datasets.refine import switch_pairs

        for name, rows in (("off", self.off), ("on", self.on)):
            if hashes := optional_plain(rows, name):
                switch_pairs(
                    store,
                    self.hook.get_artifacts(),
                    study=self.study,
                    hashes=hashes,
                    on=name == "on",
                    reason=optional_text(self.reason) or "",
                    switched_by=f"DAG {self.dag_id}"[:200],
                    request_key=f"{key}/{name}",
                )
        return file_refresh(store, study=self.study, request_key=key).request_id


class FedStudiesOperator(EasemlOperator):
    """Gives the names of the active studies whose pairs and switches are not yet released.

    Those with pairs or switches that no refresh has taken, with candidates to be trained on what a refresh has made, or
    with a best model on it that waits for a verdict. Made to map ``RefineOperator`` over, and to retrain these studies
    alone: a study that a run could not bring to its end is in the list of the next one, and in that of the same run
    where it is cleared. An empty list skips what is mapped over it.
    Where more studies wait than one run takes, those come first that have waited longest; the next run has the others.

    Args:
        most: The largest number of studies, >= 1. Airflow maps a task over 1,024 entries at most, unless its
            ``max_map_length`` says otherwise.
        kwargs: As of ``EasemlOperator``.
    """

    template_fields: Sequence[str] = ("most", *EasemlOperator.template_fields)

    def __init__(self, *, most: int | str = 1000, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.most = most

    def execute(self, context: Context) -> list[str]:
        """Look, log, hand on."""
        from easeml_core.services.datasets.feed import studies_that_wait

        with airflow_outcome():
            found = studies_that_wait(self.hook.get_store(), most=whole(self.most, "most"))
        self.log.info("new pairs or switches are not yet released of: %s", ", ".join(found) or "no study")
        return found
