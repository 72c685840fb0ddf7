"""Switches rows of a study's training part, and makes a data version of all that was fed and switched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_airflow.hooks.arguments import optional_plain, optional_text
from easeml_airflow.operators.base import EasemlOperator, RefereeOperator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easeml_core.store.database import Store


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
        return int(file_refresh(store, study=self.study, request_key=key)["request_id"])
