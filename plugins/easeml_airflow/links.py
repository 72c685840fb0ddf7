"""The button on a task of ours that leads to the page of Ease.ml, without leaving Airflow's frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseOperatorLink

from easeml_airflow import settings

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

PAGE_ROUTE = "easeml"


def page_url() -> str:
    """Address of the page inside Airflow's own frame, under whatever path Airflow is served."""
    return f"{settings.base_path()}/plugin/{PAGE_ROUTE}"


class EasemlPageLink(BaseOperatorLink):
    """Leads from any of our tasks to the overview of all tenants."""

    name = "Ease.ml"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """The address behind the button; computed where the task ran."""
        return page_url()
