"""The button on a task of ours that leads to the page of Ease.ml, without leaving Airflow's frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from airflow.sdk import BaseOperatorLink

from easeml_airflow import settings

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

PAGE_ROUTE = "easeml"


def page_url(study: str | None = None) -> str:
    """Address of the page inside Airflow's own frame, under whatever path Airflow is served.

    Args:
        study: The study that the page shall point at; None for none.
    """
    page = f"{settings.base_path()}/plugin/{PAGE_ROUTE}"
    return page if study is None else f"{page}/?{urlencode({'study': study})}"


class EasemlPageLink(BaseOperatorLink):
    """Leads from any of our tasks to the overview; where the task is about a study, to its row with the verdict."""

    name = "Ease.ml"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """The address behind the button; computed where the task ran."""
        return page_url(_study(operator))


def _study(operator: Any) -> str | None:
    """The study that a task was about, as rendered."""
    study = getattr(operator, "study", None)
    return study if isinstance(study, str) and study not in ("", "None") else None
