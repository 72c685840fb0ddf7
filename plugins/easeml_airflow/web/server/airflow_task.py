"""Where a task that acts here is seen in Airflow: a request key, or its name in the audit, says which one it was."""

from __future__ import annotations

from urllib.parse import quote

from easeml_airflow import settings

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
    """DAG, run and task of who acts in a task, as ``hooks/request_key.py`` names them.

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
