"""The container files, as far as they can be held to account without a Docker daemon."""

import os
import re
import subprocess
import tomllib
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from easeml_core.store.server.place import PROGRAMS, installed_site
from easeml_core.store.server.server import throwaway_server

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
JOBS = {"airflow-migrate", "easeml-migrate"}
AIRFLOW = {"api-server", "scheduler", "dag-processor", "triggerer"}
PASSWORDS = ("AIRFLOW_DATABASE", "EASEML_OWNER", "EASEML_WORKER", "EASEML_REFEREE", "EASEML_SCHEDULER")
RIGHTS = """
    SELECT 'database ' || datname, datacl::text FROM pg_database WHERE datname <> 'template0'
    UNION ALL SELECT 'schema ' || nspname, nspacl::text FROM pg_namespace WHERE nspname IN ('work', 'sealed', 'public')
    UNION ALL SELECT 'owner ' || datname, pg_get_userbyid(datdba) FROM pg_database
      WHERE datname IN ('airflow', 'easeml')
    UNION ALL SELECT 'role ' || rolname,
      concat_ws(' ', rolsuper, rolcreatedb, rolcreaterole, rolcanlogin, rolbypassrls, rolconfig)
      FROM pg_roles WHERE rolname NOT LIKE 'pg\\_%'
    UNION ALL SELECT 'member ' || member::regrole, roleid::regrole::text FROM pg_auth_members
"""


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((DOCKER / "compose.yaml").read_text())


@pytest.fixture(scope="module")
def services(compose):
    return compose["services"]


PEOPLE = {"EASEML_REFEREES", "EASEML_LABELERS"}
"""Lists of names, and no secrets: where they are not set, nobody is meant."""


def variables(text):
    """Names of ${NAME...} and what follows each; $${NAME} is the container's own business."""
    return re.findall(r"(?<!\$)\$\{(\w+)([^}]*)\}", text)


def example():
    lines = (DOCKER / "env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_it_is_the_same_stack(services):
    assert set(services) == AIRFLOW | JOBS | {"postgres", "referee", "easeml-scheduler"}
    assert [name for name in services if "profiles" in services[name]] == ["easeml-scheduler"]
    assert services["easeml-scheduler"]["command"][:2] == ["easeml", "scheduler"]
    for name in AIRFLOW:
        assert name in str(services[name]["command"])
    assert services["referee"]["command"][:2] == ["easeml", "referee"]


def test_all_that_stays_up_has_a_health_check_and_all_wait_for_it(services):
    for name, service in services.items():
        assert ("healthcheck" in service) == (name not in JOBS), name
        for other, how in service.get("depends_on", {}).items():
            assert how["condition"] == ("service_completed_successfully" if other in JOBS else "service_healthy")
    assert all(set(services[name]["depends_on"]) == JOBS for name in AIRFLOW | {"referee"})


def test_no_secret_has_a_default_and_every_variable_is_in_the_example():
    used = variables((DOCKER / "compose.yaml").read_text())
    assert {name for name, _ in used} == set(example())
    assert {name for name, rest in used if not rest.startswith(":?")} == PEOPLE
    assert {rest for name, rest in used if name in PEOPLE} == {":-nobody"}
    assert {name for name, value in example().items() if value} == {"AIRFLOW_PORT"} | PEOPLE


def test_each_container_gets_the_secrets_it_needs_and_no_other(services):
    holders = {p: {n for n, s in services.items() if f"{p}_PASSWORD" in str(s["environment"])} for p in PASSWORDS}
    everywhere_in_airflow = AIRFLOW | {"airflow-migrate", "postgres"}
    assert holders == {
        "AIRFLOW_DATABASE": everywhere_in_airflow,
        "EASEML_WORKER": everywhere_in_airflow,
        "EASEML_OWNER": {"easeml-migrate", "postgres"},
        "EASEML_REFEREE": {"referee", "postgres"},
        "EASEML_SCHEDULER": {"easeml-scheduler", "postgres"},
    }


def test_the_connection_is_json_that_names_the_worker(services):
    import json

    value = services["scheduler"]["environment"]["AIRFLOW_CONN_EASEML_DEFAULT"]
    connection = json.loads(re.sub(r"\$\{(\w+):\?[^}]*\}", r"\1", value))
    assert connection["login"] == "easeml_worker"
    assert connection["password"] == "EASEML_WORKER_PASSWORD"
    artifacts = connection["extra"]["artifacts"]
    command = services["referee"]["command"]
    assert command[command.index("--artifacts") + 1] == artifacts
    assert f"data:{command[command.index('--data') + 1]}:ro" in services["referee"]["volumes"]
    for name in AIRFLOW | {"referee"}:
        assert f"artifacts:{artifacts}" in services[name]["volumes"]


def test_only_loopback_is_published(services):
    published = [port for service in services.values() for port in service.get("ports", ())]
    assert len(published) == 1
    assert published[0].startswith("127.0.0.1:")


def test_every_volume_is_declared(compose, services):
    mounted = {volume.split(":")[0] for service in services.values() for volume in service.get("volumes", ())}
    assert {name for name in mounted if not name.startswith(".")} == set(compose["volumes"])
    for name in mounted - set(compose["volumes"]):
        assert (DOCKER / name).exists()


def test_the_image_has_two_stages_of_the_tested_airflow_and_never_becomes_root(services):
    lines = (DOCKER / "Dockerfile").read_text().splitlines()
    stages = [line.split() for line in lines if line.startswith("FROM ")]
    (tested,) = re.findall(r"^apache-airflow==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert [stage[1:] for stage in stages] == [
        [f"apache/airflow:{tested}-python3.11", "AS", "deps"],
        ["deps", "AS", "prod"],
    ]
    assert not any(re.match(r"\s*USER\b|.*apt-get|.*\bplugins/\s*$", line) for line in lines)
    assert services["scheduler"]["build"]["target"] == "prod"
    assert (ROOT / services["scheduler"]["build"]["dockerfile"]).exists()


def test_what_the_image_copies_is_there_and_reaches_the_builder():
    copied = re.findall(r"^COPY (?:--\S+ )*(.+) \S+$", (DOCKER / "Dockerfile").read_text(), re.MULTILINE)
    sources = {source.rstrip("/") for line in copied for source in line.split()}
    let_in = {
        line[1:] for line in (DOCKER / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")
    }
    assert sources == {"requirements.txt", "constraints.txt", "dags"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    of_the_wheel = set(project["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]) | {"pyproject.toml"}
    assert sources | of_the_wheel == let_in
    assert all((ROOT / name).exists() for name in let_in)


@pytest.mark.parametrize("script", ["init-databases.sh", "smoke.sh"])
def test_scripts_are_executable_and_parse(script):
    assert os.access(DOCKER / script, os.X_OK)
    assert subprocess.run(["bash", "-n", DOCKER / script]).returncode == 0


def rights(server):
    found = []
    for database in ("postgres", "easeml"):
        with closing(server.connect(database=database)) as connection, connection.cursor() as cursor:
            cursor.execute(RIGHTS)
            found += [(database, *row) for row in cursor]
    return sorted(found, key=str)


def test_the_container_database_opens_the_same_doors_as_the_embedded_one():
    """The init script runs on a real server; then owners, roles and rights are compared one by one."""
    tools = installed_site() / PROGRAMS
    with throwaway_server() as ours, throwaway_server() as theirs:
        ours.ensure_installation()
        environment = {f"{name}_PASSWORD": "x1" for name in PASSWORDS} | {
            "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
            "POSTGRES_USER": "postgres",
            "PGHOST": "127.0.0.1",
            "PGPORT": str(theirs.port),
            "PGPASSWORD": theirs.secrets["postgres"],
        }
        done = subprocess.run([DOCKER / "init-databases.sh"], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert rights(ours) == rights(theirs)
