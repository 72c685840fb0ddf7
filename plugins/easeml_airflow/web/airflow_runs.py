"""What Airflow itself says of the runs and tasks that act here: who started a run, and where a task runs.

A page is shown without it where Airflow's database does not answer: what Ease.ml knows is the main thing.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from easeml_airflow.web.airflow_task import parts_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

logger = logging.getLogger(__name__)

Run = tuple[str, str]
"""A DAG and one of its runs."""

AT_ONCE = 500
"""Runs that one question names."""

MOST_PLACES = 50
"""Runs whose tasks are looked up: each is a question of its own."""


class Place(NamedTuple):
    """Where a task runs.

    Attributes:
        host: What Airflow's worker calls its machine; empty before it has begun.
        pool: The one of whose slots it holds.
    """

    host: str
    pool: str


def starters(runs: Iterable[Run]) -> dict[Run, str]:
    """Who started these runs by hand, as far as Airflow knows; those that nobody did are left out."""
    wanted = set(runs)
    found: dict[Run, str] = {}

    def look() -> None:
        from airflow.models.dagrun import DagRun

        for some in _batches(sorted(wanted)):
            told = DagRun.find(dag_id=sorted({dag for dag, _ in some}), run_id=sorted({run for _, run in some}))
            found.update({(r.dag_id, r.run_id): r.triggering_user_name for r in told if r.triggering_user_name})

    if wanted:
        _try(look)
    return {run: user for run, user in found.items() if run in wanted}


def places(keys: Iterable[str]) -> dict[str, Place]:
    """Where the tasks of these request keys run; keys of the command line, and tasks that are gone, are left out."""
    tasks = {key: (dag, run, task, int(index)) for key in keys for dag, run, task, index in _parts(key)}
    found: dict[tuple[str, str, str, int], Place] = {}

    def look() -> None:
        from airflow.models.dagrun import DagRun

        for dag, run in sorted({task[:2] for task in tasks.values()})[:MOST_PLACES]:
            names = sorted({name for d, r, name, _ in tasks.values() if (d, r) == (dag, run)})
            for ti in DagRun.fetch_task_instances(dag_id=dag, run_id=run, task_ids=names):
                found[dag, run, ti.task_id, ti.map_index] = Place(ti.hostname or "", ti.pool)

    if tasks:
        _try(look)
    return {key: found[task] for key, task in tasks.items() if task in found}


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
        logger.warning("Airflow does not say who started a run, or where a task runs", exc_info=True)
