"""A night whose tasks are pods, without a cluster: each has what the template of docs/examples/kubernetes gives it."""

import json
import re
import subprocess
import sys
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path

import demo
import pods_here
import pytest
import stack.launcher
import yaml
from rich.console import Console
from stack.failures import NightError
from stack.launcher import Stack
from stack.places import Places
from stack.progress import Progress

from easeml_core.store.server.server import throwaway_folder

ROOT = Path(__file__).resolve().parents[2]
SECRET = re.compile("SQL_ALCHEMY|FERNET|SECRET|PASSWORD|CONN_|PLUGINS_FOLDER|EXECUTOR")
"""Settings that the chart's ConfigMap has not."""


def can_make_namespaces():
    tried = [*pods_here.NAMESPACES, "mount", "-t", "proc", "proc", "/proc"]
    return subprocess.run(tried, check=False, capture_output=True).returncode == 0


needs_namespaces = pytest.mark.skipif(not can_make_namespaces(), reason="this account may not make mount namespaces")


def config_of(environment):
    """The airflow.cfg of the pods, from the settings of the stack."""
    sections = {}
    for name, value in environment.items():
        if name.startswith("AIRFLOW__") and not SECRET.search(name):
            _, section, option = name.lower().split("__", 2)
            sections.setdefault(section, {})[option] = value
    sections["core"]["dags_folder"] = str(pods_here.HOME / "dags")
    sections["logging"]["base_log_folder"] = str(pods_here.HOME / "logs")
    lines = []
    for section, options in sections.items():
        lines += [f"[{section}]", *(f"{option} = {value.replace('%', '%%')}" for option, value in options.items())]
    return "\n".join(lines)


@pytest.fixture
def places():
    with throwaway_folder() as folder:
        yield Places.of(folder / "state", None)


def cluster_of(places, environment):
    """What a cluster with the example's template would hold, for the stack's settings."""
    values = yaml.safe_load((ROOT / "docs/examples/kubernetes/values.yaml").read_text(encoding="utf-8"))
    logs = re.sub(r"\{\{ template \"airflow_logs_volume_claim\" \. \}\}", "airflow-logs", values["podTemplate"])
    connection = json.loads(environment["AIRFLOW_CONN_EASEML_DEFAULT"])
    claims = {"easeml-artifacts": connection["extra"]["artifacts"], "airflow-logs": str(places.task_logs)}
    connection["extra"]["artifacts"] = str(pods_here.HOME / "artifacts")
    config = places.home / "pods.cfg"
    config.write_text(config_of(environment), encoding="utf-8")
    config.chmod(0o644)
    return pods_here.Cluster(
        template=yaml.safe_load(re.sub(r"\{\{.*?\}\}", "airflow", logs)),
        secrets={"easeml-worker": {"connection": json.dumps(connection)}},
        claims=claims,
        config=str(config),
        image={
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "HOME": str(pods_here.HOME),
            "AIRFLOW_HOME": str(pods_here.HOME),
            "AIRFLOW__CORE__DAGS_FOLDER": str(places.dags),
        },
        hidden=[str(ROOT / ".easeml")],
    )


@pytest.fixture
def pods(places, monkeypatch):
    """Let the stack's tasks run in pods."""
    made = stack.launcher.airflow_environment

    def with_pods(*args, **named):
        environment = made(*args, **named)
        file = places.home / "pods.json"
        file.write_text(json.dumps(asdict(cluster_of(places, environment))), encoding="utf-8")
        file.chmod(0o644)
        return environment | {
            "AIRFLOW__CORE__EXECUTOR": "pods_here.PodsHere",
            "PYTHONPATH": str(Path(__file__).parent),
            pods_here.PLACE: str(file),
        }

    monkeypatch.setattr(stack.launcher, "airflow_environment", with_pods)


PROBE = """
import json, os
from pathlib import Path

def can_write(folder):
    try:
        (Path(folder) / "probe").touch()
    except OSError:
        return False
    return True

places = ["/opt/airflow/artifacts", "/opt/airflow/logs", "/scratch", "/etc", "/usr", os.environ["PROBED"]]
print(json.dumps({"writes": [place for place in places if can_write(place)],
                  "own_processes": os.readlink("/proc/self") == str(os.getpid()),
                  "sees": os.path.exists(os.environ["PROBED"]),
                  "config": Path("/opt/airflow/airflow.cfg").read_text(), "names": sorted(os.environ)}))
"""


@needs_namespaces
def test_a_pod_has_its_mounts_and_its_environment_and_nothing_of_the_machine(places, tmp_path):
    for folder in (places.home, places.artifacts, places.task_logs):
        folder.mkdir(parents=True, exist_ok=True)
    connection = {"extra": {"artifacts": str(places.artifacts)}}
    secrets = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "secret", "AIRFLOW__CORE__FERNET_KEY": "secret"}
    shown = {"AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False", "AIRFLOW__CORE__PARALLELISM": "4"}
    cluster = cluster_of(places, shown | secrets | {"AIRFLOW_CONN_EASEML_DEFAULT": json.dumps(connection)})
    cluster.image["PROBED"] = str(places.home)
    pod = deepcopy(cluster.template)
    pod["spec"]["containers"][0]["args"] = ["python", "-c", PROBE]
    command = [*pods_here.NAMESPACES, "bash", "-c", pods_here.script_of(cluster, pod, tmp_path)]
    ran = subprocess.run(command, check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found["writes"] == ["/opt/airflow/artifacts", "/opt/airflow/logs", "/scratch"]
    assert not found["sees"]
    assert found["own_processes"]
    assert "parallelism = 4" in found["config"]
    assert "secret" not in found["config"]
    assert {name for name in found["names"] if name.startswith(("AIRFLOW", "EASEML"))} == {
        "AIRFLOW_CONN_EASEML_DEFAULT",
        "AIRFLOW_HOME",
        "AIRFLOW__CORE__DAGS_FOLDER",
        "AIRFLOW__CORE__EXECUTOR",
        "EASEML_CACHE",
    }


@pytest.mark.nightly
@pytest.mark.journey
@pytest.mark.timeout(1200)
@needs_namespaces
def test_a_night_runs_in_pods_with_what_their_template_mounts(places, pods):
    progress = Progress(Console(stderr=True))
    with Stack(places, progress) as running:
        try:
            report = demo.run(running.access, running.check, progress, {})
        except NightError:
            print((places.logs / "scheduler.log").read_text()[-6000:])
            raise
    assert report.night.suggested
    assert any(release.promoted for release in report.night.released)
