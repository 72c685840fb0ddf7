"""The button on a task of ours that leads to the page of Ease.ml about its work, without leaving Airflow's frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.sdk import BaseOperatorLink

from easeml_airflow import settings

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

PAGE_ROUTE = "easeml"
URL_PREFIX = "/easeml"
"""Where the application with the pages is mounted."""

RUN_ROUTE = "easeml-run"
TASK_ROUTE = "easeml-task"
"""Airflow shows its tabs of a run and of a task at ``plugin/ROUTE`` below the page of each."""

SUBMISSIONS = "submissions"
"""What follows the study's address for tasks about models that were handed in; see ``page_of_study`` of an operator."""


def tab_urls() -> tuple[str, str]:
    """What the frames open in Airflow's tabs of a run and of a task; Airflow's page puts the names in, each quoted.

    Names stand in the query: a quoted slash in a path would not survive every proxy.

    Example:
        >>> tab_urls()[0]
        '/easeml/of-run?dag={DAG_ID}&run={RUN_ID}'
    """
    here, run = f"{settings.base_path()}{URL_PREFIX}", "dag={DAG_ID}&run={RUN_ID}"
    return f"{here}/of-run?{run}", f"{here}/of-task?{run}&task={{TASK_ID}}&index={{MAP_INDEX}}"


def page_url(study: str | None = None, trial_id: int | None = None, *, below: str = "") -> str:
    """Address of a page inside Airflow's own frame, under whatever path Airflow is served.

    Example:
        >>> page_url("digits", 7), page_url(trial_id=7)
        ('/plugin/easeml/easeml/studies/digits/decisions/7', '/plugin/easeml/easeml/trials/7')
        >>> page_url("digits", below="submissions")
        '/plugin/easeml/easeml/studies/digits/submissions'
    """
    base = settings.base_path()
    frame = f"{base}/plugin/{PAGE_ROUTE}"
    inside = f"{frame}{base}{URL_PREFIX}"  # what follows the frame's own path is, whole, the path that the frame opens
    if study is None:
        return frame if trial_id is None else f"{inside}/trials/{trial_id}"
    about = f"{inside}/studies/{quote(study, safe='')}"
    if trial_id is not None:
        return f"{about}/decisions/{trial_id}"
    return f"{about}/{below}" if below else about


class EasemlPageLink(BaseOperatorLink):
    """Leads from a task to what it was about: a trial's decision, a study, its submissions, else the overview."""

    name = "Ease.ml"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """The address behind the button; computed where the task ran, from its rendered arguments."""
        study, trial_id = _trial(operator)
        if trial_id is not None:
            return page_url(study, trial_id)
        return page_url(_name(getattr(operator, "study", None)), below=getattr(operator, "page_of_study", ""))


def _trial(operator: Any) -> tuple[str | None, int | None]:
    """Study and number of the trial that a task was about, as far as its argument says them."""
    given = getattr(operator, "trial", None)
    if given is None:  # the argument of a user's function
        given = (getattr(operator, "op_kwargs", None) or {}).get("trial") or next(
            iter(getattr(operator, "op_args", None) or ()), None
        )
    entry = given if isinstance(given, dict) else {"trial_id": given}
    number = str(entry.get("trial_id"))
    return _name(entry.get("study")), int(number) if number.isdecimal() else None


def _name(study: Any) -> str | None:
    return study if isinstance(study, str) and study not in ("", "None") else None
