"""A real MLflow server on this machine, what stands in it, and a laboratory that is mirrored there."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from typing import TYPE_CHECKING, Any

from reaper import reaper

from easeml_core.entities import Executor, TrialState
from easeml_core.formats.encoding import to_json
from easeml_core.services.operations.mlflow_sync import Mirror, sync
from easeml_core.services.referee.process import Referee
from easeml_core.services.referee.requests import answer_of, file_forced_promotion
from easeml_core.store.tables import leases, studies, trials

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

START_SECONDS = 120


def free_address() -> str:
    """Of a port without a listener."""
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{opened.getsockname()[1]}"


@contextlib.contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """A server that keeps everything in the folder; its address. It and its children are gone at the end."""
    address = free_address()
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
    command += ["--host", "127.0.0.1", "--port", address.rpartition(":")[2]]
    command += [
        "--backend-store-uri",
        f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination",
        str(folder / "files"),
    ]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "server.log").open("wb") as log:
        started = subprocess.Popen(
            command, env=os.environ | quiet, cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
    reaper().kills(started.pid)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _answers(address):
            said = (folder / "server.log").read_text(errors="replace")
            assert started.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.2)
        yield address
    finally:
        os.killpg(started.pid, signal.SIGKILL)
        started.wait()
        reaper().forgets(started.pid)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def standing(address: str, prefix: str) -> dict[str, Any]:
    """All that stands under the prefix, without the numbers that MLflow gives: what two mirrors must agree in."""
    import mlflow

    client = mlflow.MlflowClient(address)
    experiments = client.search_experiments(filter_string=f"name LIKE '{prefix}/%'")
    runs = {e.name.removeprefix(prefix): _runs(client, e.experiment_id) for e in experiments}
    registered = client.search_registered_models(f"name LIKE '{prefix}.%'")
    models = {m.name.removeprefix(prefix): _registered(client, m.name) for m in registered}
    return {"runs": runs, "models": models}


def _runs(client: Any, experiment_id: str) -> list[Any]:
    found = client.search_runs([experiment_id], run_view_type=3)
    return sorted((_run(client, r) for r in found), key=str)


def _run(client: Any, run: Any) -> dict[str, Any]:
    history = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
    return {
        "name": run.info.run_name,
        "status": run.info.status,
        "begin": run.info.start_time,
        "end": run.info.end_time,
        "params": run.data.params,
        "tags": {k: v for k, v in run.data.tags.items() if k.startswith("easeml.")},
        "metrics": {name: [(m.value, m.step, m.timestamp) for m in points] for name, points in history.items()},
        "files": [f.path for f in client.list_artifacts(run.info.run_id, "model")],
    }


def _registered(client: Any, name: str) -> dict[str, Any]:
    versions = client.search_model_versions(f"name = '{name}'", max_results=1000)
    aliases = client.get_registered_model(name).aliases
    model_of = {str(v.version): v.tags["easeml.model_id"] for v in versions}
    return {
        "versions": sorted((v.tags for v in versions), key=str),
        "trials": sorted(str(client.get_run(v.run_id).data.tags.get("easeml.trial_id")) for v in versions),
        "aliases": {alias: model_of[version] for alias, version in aliases.items()},
    }


def sync_of(lab: Any, mirrored: Mirror, *names: str) -> dict[str, dict[str, Any]]:
    return {e.study: to_json(e) for e in sync(lab.worker, lab.artifacts, mirrored, studies_only=names or None)}


def seen(mirrored: Mirror) -> dict[str, Any]:
    return standing(str(mirrored.tracking_uri), mirrored.prefix)


def run_of(mirrored: Mirror, trial_id: int, study: str = "full") -> dict[str, Any]:
    found = [r for r in seen(mirrored)["runs"][f"/lab/{study}"] if r["tags"].get("easeml.trial_id") == str(trial_id)]
    assert len(found) == 1
    return dict(found[0])


def end_trial(
    lab: Any,
    name: str,
    state: TrialState = TrialState.FAILED,
    *,
    study: str = "full",
    failure: str | None = None,
    parameters: Mapping[str, Any] | None = None,
) -> int:
    """A trial of a new candidate that ended like this; its id."""
    with lab.worker.begin() as tx:
        found = studies.get_study(tx, study)
        studies.add_candidates(tx, found.id, [{"name": name, "kind": "decision_tree", "parameters": parameters or {}}])
        candidate = next(c for c in studies.list_candidates(tx, found.id) if c.name == name)
        version = studies.latest_data_version(tx, found.id)
        trial = trials.add_trial(tx, study_id=found.id, candidate_id=candidate.id, data_version_id=version.id)
        attempt = leases.start_trial(
            tx,
            trial_id=trial,
            lease_key="x",
            lease_seconds=60,
            executor=Executor(trials.get_trial(tx, trial).implementation, "test"),
        )
        assert attempt is not None
        assert leases.finish_trial(tx, trial_id=trial, attempt=attempt, state=state, cost_seconds=2.5, failure=failure)
    return trial


def force(lab: Any, name: str, study: str = "full") -> None:
    model = {"study": study, "model_id": lab.models[study][name], "request_key": lab.key()}
    asked = file_forced_promotion(lab.worker, **model, who="Ada", why="in haste")
    list(iter(Referee(lab.referee, lab.artifacts, allow_forced=True).answer_one, None))
    answer = answer_of(lab.worker, asked)
    assert answer is not None
    assert not answer.refused
