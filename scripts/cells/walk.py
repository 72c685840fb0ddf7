"""What is done in a cell: a registration, a night, waiting tasks, a gate whose labels are missing, and the pages."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stack.environment import plain_environment
from stack.rest import ENDED, Rest, RestError

from cells.environments import CellError, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cells.environments import Environment
    from cells.stock_airflow import StockAirflow

TENANT, STUDY = "lab", "cell"
NIGHT = "easeml_nightly_retraining"
WAITING, WATCHING = "cell_waiting", "cell_watching"  # of waiting_dag.py
GATE = {"condition": "n > 0.7 +/- 0.2", "reliability": 0.95, "steps": 4, "adaptivity": "full"}
METER = {"ranges": [0.4], "tolerance": 0.2, "reliability": 0.95, "steps": 4}
SEALED_ROWS = 150
CANDIDATES = [
    {"name": "tree", "kind": "decision_tree", "parameters": {"max_depth": 3}},
    {"name": "bayes", "kind": "gaussian_naive_bayes"},
]
"""As many as the night trains: one is promoted by it, one by the gate that waits for labels."""

HELD_BEATS = 2
"""So many times the triggerer's heart beats while all triggers are pending at once."""

RUN_SECONDS = 600.0
PAGES = ("", "/new", "/compute", "/audit", "/labels", f"/labels/{STUDY}", f"/studies/{STUDY}", "/health")
PARTS = ("/lifecycle", "/submissions", "/gate", "/meter", "/data", "/use")
PASSED = ("success", "skipped")
EACH_KIND = Path(__file__).with_name("each_kind.py")


def steps(cell: StockAirflow) -> Iterator[tuple[str, Callable[[], str]]]:
    """Yield the name of each step, and what does it and returns what it found."""
    rest = cell.rest()
    yield "DAGs import", lambda: _import_dags(cell, rest)
    yield "registration over REST", lambda: _register(cell, rest)
    yield "night over REST", lambda: _night(cell, rest)
    yield "triggers of each kind pending", lambda: _wait(cell, rest)
    yield "gate with missing labels", lambda: _gate(cell, rest)
    yield "events of assets", lambda: _events(cell, rest)
    yield "pages answer", lambda: _pages(rest)
    yield "doctor", lambda: _doctor(cell)


def models_of_each_kind(environment: Environment) -> str:
    """Train, write and read a model of each kind; before Airflow is started, whose processes would wait meanwhile."""
    return run([str(environment.python), str(EACH_KIND)], env=plain_environment()).strip()


def _import_dags(cell: StockAirflow, rest: Rest) -> str:
    files = {path.name for path in (cell.folder / "dags").glob("*.py")}

    def read() -> bool:
        found = rest.call("GET", "/dags?limit=1000&exclude_stale=false")["dags"]
        return files <= {dag["relative_fileloc"] for dag in found} | set(rest.import_errors())

    cell.until("the DAG processor has not read all files", read)
    if errors := rest.import_errors():
        message = "\n".join(f"{name}: {trace.strip().splitlines()[-1]}" for name, trace in errors.items())
        raise CellError(message)
    return f"{len(files)} files"


def _switch_on(cell: StockAirflow, rest: Rest, dag_id: str) -> None:
    """Switch a DAG on; the triggerer watches its assets once its file has been read again."""
    rest.pause(dag_id, False)
    for path in (cell.folder / "dags").rglob("*.py"):
        if f'"{dag_id}"' in path.read_text(encoding="utf-8"):
            path.touch()


def _register(cell: StockAirflow, rest: Rest) -> str:
    _write_data(cell)
    conf = {"tenant": TENANT, "study": STUDY, "source": "csv:tumours.csv", "target": "malignant"}
    _run_dag(cell, rest, "easeml_register_study", conf | {"gate": GATE, "meter": METER, "candidates": CANDIDATES})
    return "sealed"


def _night(cell: StockAirflow, rest: Rest) -> str:
    run_id = _run_dag(cell, rest, NIGHT, {"trials_per_round": len(CANDIDATES)})
    ended = [task["task_id"] for task in rest.tasks(NIGHT, run_id) if task["state"] == "success"]
    return f"{sum(task.startswith('train_') for task in ended)} trained, {ended.count('release.promote')} promoted"


def _wait(cell: StockAirflow, rest: Rest) -> str:
    _switch_on(cell, rest, WATCHING)
    rest.pause(WAITING, False)
    run_id = rest.trigger(WAITING)

    def are_deferred() -> bool:
        states = [task["state"] for task in rest.tasks(WAITING, run_id)]
        if broken := [state for state in states if state in ("failed", "up_for_retry", "success")]:
            message = f"tasks that should wait are {broken}"
            raise CellError(message)
        return bool(states) and set(states) == {"deferred"}

    cell.until("the waiting tasks are not deferred", are_deferred)
    _hold(cell, rest, are_deferred)
    return f"{len(rest.tasks(WAITING, run_id))} tasks and 4 assets for {HELD_BEATS} heartbeats"


def _gate(cell: StockAirflow, rest: Rest) -> str:
    owner = {"EASEML_DATABASE_URL": cell.address("referee")}
    cell.run("easeml", "test-set", "seal", "--study", STUDY, "--name", "fresh", "--inputs", "fresh.csv", **owner)
    sets = _json(cell, "test-set", "list", "--study", STUDY)
    (live,) = (found["test_set_id"] for found in sets if (found["purpose"], found["state"]) == ("gate", "live"))
    cell.run("easeml", "test-set", "retire", str(live), **owner)
    models = _json(cell, "model", "list", STUDY)
    model = next(m["model_id"] for m in models if m["origin"] != "baseline" and not m["in_production"])
    _switch_on(cell, rest, "easeml_commit_gate")
    run_id = rest.trigger("easeml_commit_gate", {"study": STUDY, "model": model})
    cell.until("the gate does not wait for labels", lambda: "deferred" in _states(rest, run_id))
    wanted = cell.folder / "wanted.csv"

    def is_wanted() -> bool:
        cell.run("easeml", "labels", "wanted", STUDY, "--to", str(wanted), "--limit", "100000", **owner)
        return wanted.exists() and len(wanted.read_text(encoding="utf-8").splitlines()) > 1

    cell.until("no labels are asked for", is_wanted)
    _hold(cell, rest, lambda: "deferred" in _states(rest, run_id))
    given = _label(cell, wanted)
    cell.run("easeml", "labels", "give", "--study", STUDY, "--labeler", "ann", "given.csv", **owner)
    _end(cell, rest, "easeml_commit_gate", run_id)
    return f"{given} labels given, model {model} promoted"


def _events(cell: StockAirflow, rest: Rest) -> str:
    cell.until("no event of an asset has started a run", lambda: rest.count_runs(WATCHING) > 0)
    return f"{rest.count_runs(WATCHING)} runs"


def _pages(rest: Rest) -> str:
    paths = [*PAGES, *(f"/studies/{STUDY}{part}" for part in PARTS)]
    for path in paths:
        text = rest.text(f"/easeml{path or '/'}")
        if path != "/health" and "</html>" not in text:
            message = f"/easeml{path} is no page: {text[:200]}"
            raise CellError(message)
    return f"{len(paths)} pages"


def _doctor(cell: StockAirflow) -> str:
    found = _json(cell, "doctor", "--artifacts", "artifacts")
    if failed := [f"{check['name']}: {check['found']}" for check in found if check["state"] == "failed"]:
        raise CellError("\n".join(failed))
    return f"{len(found)} checks"


def _hold(cell: StockAirflow, rest: Rest, holds: Callable[[], bool]) -> None:
    """Require that something holds while the triggerer's heart beats a few times."""
    seen = {rest.heartbeats().get("triggerer")}

    def have_beaten() -> bool:
        if not holds():
            message = "a task that should wait has gone on"
            raise CellError(message)
        seen.add(rest.heartbeats().get("triggerer"))
        return len(seen - {None}) > HELD_BEATS

    cell.until(f"the triggerer's heart has not beaten {HELD_BEATS} times", have_beaten)


def _run_dag(cell: StockAirflow, rest: Rest, dag_id: str, conf: dict[str, Any]) -> str:
    """Run a DAG to a good end; the id of the run."""
    rest.pause(dag_id, False)
    run_id = rest.trigger(dag_id, conf)
    _end(cell, rest, dag_id, run_id)
    return run_id


def _end(cell: StockAirflow, rest: Rest, dag_id: str, run_id: str) -> None:
    """Wait until a run has ended well."""
    path = f"/dags/{dag_id}/dagRuns/{run_id.replace('+', '%2B')}"
    cell.until(f"{dag_id} has not ended", lambda: rest.call("GET", path)["state"] in ENDED, RUN_SECONDS)
    broken = [task for task in rest.tasks(dag_id, run_id) if task["state"] not in (*PASSED, "upstream_failed")]
    if rest.call("GET", path)["state"] == "success":
        return
    told = []
    for task in broken:
        try:
            log = rest.log(dag_id, run_id, task["task_id"], map_index=task["map_index"], attempt=task["try_number"])
        except RestError as error:
            log = [str(error)]
        told.append(f"{task['task_id']} is {task['state']}:\n" + "\n".join(log[-15:]))
    raise CellError(f"{dag_id} failed\n" + "\n".join(told))


def _states(rest: Rest, run_id: str) -> list[str]:
    return [str(task["state"]) for task in rest.tasks("easeml_commit_gate", run_id)]


def _json(cell: StockAirflow, *command: str, **more: str) -> Any:
    return json.loads(cell.run("easeml", *command, "--json", **more))


def _write_data(cell: StockAirflow) -> None:
    """Write scikit-learn's tumours: most as the study's table, the rest as rows without labels."""
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer()
    names = [str(name).replace(" ", "_") for name in bunch.feature_names]
    inputs, words = bunch.data.tolist(), ["yes" if value == 0 else "no" for value in bunch.target]
    cut = len(words) - SEALED_ROWS
    folder = cell.folder / "data" / TENANT
    folder.mkdir()
    _write(
        folder / "tumours.csv",
        [*names, "malignant"],
        [[*row, word] for row, word in zip(inputs, words, strict=True)][:cut],
    )
    fresh = [[f"e{place}", *row] for place, row in enumerate(inputs)][cut:]
    _write(cell.folder / "fresh.csv", ["example", *names], fresh)
    _write(cell.folder / "truth.csv", ["example", "label"], [[f"e{p}", word] for p, word in enumerate(words)][cut:])


def _label(cell: StockAirflow, wanted: Any) -> int:
    with (cell.folder / "truth.csv").open(encoding="utf-8", newline="") as file:
        truth = {row["example"]: row["label"] for row in csv.DictReader(file)}
    with wanted.open(encoding="utf-8", newline="") as file:
        asked = [row["example"] for row in csv.DictReader(file)]
    _write(cell.folder / "given.csv", ["example", "label"], [[name, truth[name]] for name in asked])
    return len(asked)


def _write(path: Any, header: list[str], table: list[list[Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *table])
