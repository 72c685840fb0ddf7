"""Facts of Airflow's database on our runs and tasks: who started a run, where a task runs, which question it asks.

Pages are shown without these facts where Airflow's database does not answer. The names of runs and tasks come from
request keys and the audit, which workers write and may forge. So the reader must have the right to see every run, and
single columns are read, never whole rows: a task's row has a pickle that tasks may forge.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from easeml_airflow import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime


DOTS = {".", ".."}
"""Names that a browser takes for a folder and the one above: such an address would lead elsewhere."""


def run_address(key: str | None) -> str | None:
    """The run of the DAG that used this request key, in Airflow's own pages; None for keys of the command line.

    Example:
        >>> run_address("nightly/manual__2026-01-02/train/3")
        '/dags/nightly/runs/manual__2026-01-02'
    """
    parts = parts_of(key)
    return None if parts is None else _address("dags", parts[0], "runs", parts[1])


def task_address(key: str | None, try_number: int | None = None) -> str | None:
    """The task that used this request key, and which try of it: its log is the first thing to see there.

    Example:
        >>> task_address("nightly/manual__2026-01-02/train/3")
        '/dags/nightly/runs/manual__2026-01-02/tasks/train/mapped/3'
        >>> task_address("nightly/manual__2026-01-02/train/-1", 2)
        '/dags/nightly/runs/manual__2026-01-02/tasks/train?try_number=2'
        >>> task_address("nightly/manual__2026-01-02/device/-1/17"), task_address("laptop")
        ('/dags/nightly/runs/manual__2026-01-02/tasks/device', None)
    """
    parts = parts_of(key)
    if parts is None:
        return None
    tried = "" if try_number is None else f"?try_number={try_number}"
    return _page_of_task(*parts) + tried


def is_of_stream(key: str | None) -> bool:
    """Whether one task asks and trains, trial after trial: then the task that asked has the log."""
    return parts_of(key) is not None and str(key).count("/") > 3


def parts_of(key: str | None) -> list[str] | None:
    """DAG, run, task and map index of a request key, None of any other; what a stream puts after them is left out."""
    parts = (key or "").split("/")[:4]
    index = parts[3].removeprefix("-") if len(parts) == 4 else ""
    named = all(parts) and DOTS.isdisjoint(parts)
    return parts if named and index.isascii() and index.isdecimal() and len(index) < 10 else None


def task_of(actor: str) -> tuple[str, str, str] | None:
    """DAG, run and task of who acts in a task, as ``hooks/easeml.py`` names them.

    Example:
        >>> task_of("nightly/manual__2026-01-02/release.promote"), task_of("ada")
        (('nightly', 'manual__2026-01-02', 'release.promote'), None)
    """
    dag, _, rest = actor.partition("/")
    run, _, task = rest.partition("/")
    return (dag, run, task) if dag and run and task and DOTS.isdisjoint((dag, run, task)) else None


def page_of_run(dag: str, run: str) -> str:
    """A run of a DAG, in Airflow's own pages."""
    return _address("dags", dag, "runs", run)


def page_of_question(dag: str, run: str, task: str, index: str) -> str:
    """What a task asks a person, in Airflow's own pages.

    Example:
        >>> page_of_question("easeml_forced_promotion", "manual__2026-01-02", "promote", "-1")
        '/dags/easeml_forced_promotion/runs/manual__2026-01-02/tasks/promote/required_actions'
    """
    return _page_of_task(dag, run, task, index) + "/required_actions"


def _page_of_task(dag: str, run: str, task: str, index: str) -> str:
    mapped = () if index == "-1" else ("mapped", index)
    return _address("dags", dag, "runs", run, "tasks", task, *mapped)


def _address(*parts: str) -> str:
    return "/".join([settings.base_path(), *(quote(part, safe="") for part in parts)])


logger = logging.getLogger(__name__)

Run = tuple[str, str]
"""A DAG and one of its runs."""

AT_ONCE = 500
"""Runs that one question names."""

MOST_PLACES = 50
"""Runs whose tasks are looked up, by one query each."""


MOST_QUESTIONS = 50
"""Forced promotions that one look gives, the oldest first."""

FORCES = "ForcePromotionOperator"
"""The operator that asks a referee in Airflow."""

WAITING = ("awaiting_input", "deferred")
"""States of a task that waits for a person, the second in versions of Airflow without the first."""

_ABOUT = re.compile(r"Promote model (\d+) of study (.+) without the gate\?")


class Place(NamedTuple):
    """Where a task runs.

    Attributes:
        host: What Airflow's worker calls its machine; empty before it has begun.
        pool: The one of whose slots it holds.
    """

    host: str
    pool: str


class Question(NamedTuple):
    """A forced promotion that waits for a referee's answer in Airflow.

    Attributes:
        study: As the task names it; empty where it says something else.
        model: The number of the model, likewise.
        asked_by: Who started the run by hand; empty for none.
        since: When the task began to wait.
        page: Airflow's page with the question.
    """

    study: str
    model: str
    asked_by: str
    since: datetime
    page: str


def starters(runs: Iterable[Run]) -> dict[Run, str]:
    """Return who started these runs by hand; other runs are left out."""
    wanted = set(runs)
    found: dict[Run, str] = {}

    def look() -> None:
        from airflow.models.dagrun import DagRun
        from airflow.utils.session import create_session

        with create_session() as session:
            query = session.query(DagRun.dag_id, DagRun.run_id, DagRun.triggering_user_name)
            for some in _batches(sorted(wanted)):
                dags, names = ({run[part] for run in some} for part in (0, 1))
                here = query.filter(DagRun.dag_id.in_(dags), DagRun.run_id.in_(names))
                found.update({(dag, run): user for dag, run, user in here if user})

    if wanted:
        _try(look)
    return {run: user for run, user in found.items() if run in wanted}


def places(keys: Iterable[str]) -> dict[str, Place]:
    """Where the tasks of these request keys run; keys of the command line, and tasks that are gone, are left out."""
    tasks = {key: (dag, run, task, int(index)) for key in keys for dag, run, task, index in _parts(key)}
    found: dict[tuple[str, str, str, int], Place] = {}

    def look() -> None:
        from airflow.models.taskinstance import TaskInstance
        from airflow.utils.session import create_session

        with create_session() as session:
            query = session.query(
                TaskInstance.task_id, TaskInstance.map_index, TaskInstance.hostname, TaskInstance.pool
            )
            for dag, run in sorted({task[:2] for task in tasks.values()})[:MOST_PLACES]:
                names, indexes = ({t[part] for t in tasks.values() if t[:2] == (dag, run)} for part in (2, 3))
                here = query.filter(TaskInstance.dag_id == dag, TaskInstance.run_id == run)
                here = here.filter(TaskInstance.task_id.in_(names), TaskInstance.map_index.in_(indexes))
                found.update({(dag, run, task, index): Place(host or "", pool) for task, index, host, pool in here})

    if tasks:
        _try(look)
    return {key: found[task] for key, task in tasks.items() if task in found}


def questions() -> list[Question]:
    """Forced promotions that wait for a referee, the oldest first; for referees alone, who see every study."""
    found: list[Question] = []

    def look() -> None:
        from airflow.models.dagrun import DagRun
        from airflow.models.hitl import HITLDetail
        from airflow.models.taskinstance import TaskInstance as Task
        from airflow.utils.session import create_session

        task = (Task.dag_id, Task.run_id, Task.task_id, Task.map_index)
        with create_session() as session:
            query = session.query(HITLDetail.subject, HITLDetail.created_at, DagRun.triggering_user_name, *task)
            query = query.join(Task, Task.id == HITLDetail.ti_id)
            query = query.join(DagRun, (DagRun.dag_id == Task.dag_id) & (DagRun.run_id == Task.run_id))
            query = query.filter(Task.operator == FORCES, Task.state.in_(WAITING), HITLDetail.responded_at.is_(None))
            query = query.order_by(HITLDetail.created_at, HITLDetail.ti_id).limit(MOST_QUESTIONS)
            found.extend(_question(*row) for row in query)

    _try(look)
    return found


def _question(subject: str, since: datetime, asked_by: str | None, *task: str | int) -> Question:
    about = _ABOUT.fullmatch(subject)
    model, study = (about[1], about[2]) if about else ("", "")
    return Question(study, model, asked_by or "", since, page_of_question(*map(str, task)))


def _batches(runs: list[Run]) -> list[list[Run]]:
    return [runs[first : first + AT_ONCE] for first in range(0, len(runs), AT_ONCE)]


def _parts(key: str) -> list[list[str]]:
    parts = parts_of(key)
    return [] if parts is None else [parts]


def _try(look: Callable[[], None]) -> None:
    """Ask Airflow, whose database may be away or another version's: what it has not said is left out."""
    try:
        look()
    except Exception:  # any error of Airflow's: the page is worth showing without
        logger.warning("Airflow does not say what its runs and tasks do", exc_info=True)
