"""What reaches a child, and above all what does not."""

import importlib.util
import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from airflow.configuration import conf
from cryptography.fernet import Fernet
from stack.account import Account, Accounts
from stack.components import FORKED, airflow_components, referee, suggesting_scheduler
from stack.environment import (
    CONNECTION,
    SEALED,
    airflow_environment,
    api_server_environment,
    connection_json,
    database_environment,
    plain_environment,
)
from stack.git_bundles import GIT, GitBundle, bundle_list, write_trust
from stack.keys import load_keys, write_passwords
from stack.places import Places

METADATA = "postgresql+psycopg2://airflow:meta-secret@127.0.0.1:5999/airflow"
WORKER = "postgresql+psycopg2://easeml_worker:w%40rk@127.0.0.1:5999/easeml"
SCHEDULER = "postgresql+psycopg2://easeml_scheduler:dec-secret@127.0.0.1:5999/easeml"
REFEREE = "postgresql+psycopg2://easeml_referee:ref-secret@127.0.0.1:5999/easeml"


@pytest.fixture
def places(tmp_path):
    places = Places.of(tmp_path / "state", tmp_path / "dags")
    places.make()
    return places


@pytest.fixture
def environment(places):
    return airflow_environment(places, load_keys(places.keys), port=8123, metadata=METADATA, worker=WORKER)


def test_a_child_inherits_only_what_is_named(monkeypatch):
    for name in ("AIRFLOW__CORE__EXECUTOR", "EASEML_DATABASE_URL", "PGPASSWORD", "http_proxy", "PYTHONPATH", "TOKEN"):
        monkeypatch.setenv(name, "surprise")
    monkeypatch.setenv("LANG", "C.UTF-8")
    environment = plain_environment()
    assert "surprise" not in environment.values()
    assert environment["LANG"] == "C.UTF-8"
    assert environment["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)


def test_the_settings_that_the_page_recommends_are_those_of_the_stack_and_differ_from_airflows(environment):
    page = (Path(__file__).parents[2] / "docs/operations.md").read_text()
    table = page.partition("### Settings of Airflow that make it so\n")[2].partition("\n\n##")[0]
    recommended = {}
    for section, names, values, defaults in re.findall(r"\| `\[(\w+)\] ([^|]+) \| ([^|]+) \|([^|]*)\|", table):
        names = re.sub(r"for \w+|`", "", names)
        each = zip(*([w.strip(" `") for w in c.split(",") if w.strip()] for c in (names, values)), strict=True)
        recommended |= {(section, name): value for name, value in each}
        for name, default in zip(names.split(","), filter(None, defaults.strip().split(", ")), strict=False):
            assert str(conf.get_default_value(section, name.strip())) in (default, f"{default}.0")
    assert len(recommended) == 7
    for (section, name), value in recommended.items():
        assert environment[f"AIRFLOW__{section}__{name}".upper()] == value
        assert str(conf.get_default_value(section, name)) != value


def test_airflow_gets_no_address_but_its_own_and_the_workers(environment, places):
    addresses = {name for name, value in environment.items() if "5999" in value}
    assert addresses == {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", CONNECTION}
    assert "EASEML_DATABASE_URL" not in environment
    of_api_server = api_server_environment(environment, places, load_keys(places.keys), REFEREE, None)
    assert of_api_server[SEALED] == REFEREE
    for component in airflow_components(environment, of_api_server):
        knows = "ref-secret" in " ".join([*component.command, *component.environment.values()])
        assert knows == (component.name == "api-server")
        assert "ref-secret" not in " ".join(component.command)
    assert SEALED not in api_server_environment(environment, places, load_keys(places.keys), "", None)
    judge = referee(database_environment(REFEREE), places)
    assert judge.environment["EASEML_DATABASE_URL"] == REFEREE
    assert not any(name.startswith("AIRFLOW") for name in judge.environment)
    decides = suggesting_scheduler(database_environment(SCHEDULER))
    assert decides.environment["EASEML_DATABASE_URL"] == SCHEDULER
    assert not any(name.startswith("AIRFLOW") for name in decides.environment)
    assert "dec-secret" not in " ".join(decides.command)
    assert "ref-secret" not in " ".join(judge.command)  # every account may read a command line


def test_the_connection_is_airflows_json(tmp_path, monkeypatch):
    from airflow.sdk.definitions.connection import Connection

    connection = Connection.from_json(connection_json(WORKER, tmp_path), conn_id="easeml_default")
    assert (connection.conn_type, connection.host, connection.port) == ("easeml", "127.0.0.1", 5999)
    assert (connection.login, connection.password, connection.schema) == ("easeml_worker", "w@rk", "easeml")
    assert connection.extra_dejson == {"artifacts": str(tmp_path)}


def test_airflow_is_set_up_to_be_quiet_and_local(environment, places):
    assert environment["AIRFLOW__API__HOST"] == "127.0.0.1"
    assert environment["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://127.0.0.1:8123/execution/"
    assert environment["AIRFLOW__CORE__LOAD_EXAMPLES"] == "False"
    assert list(places.plugins.iterdir()) == []
    assert environment["AIRFLOW__CORE__PLUGINS_FOLDER"] == str(places.plugins)
    commands = {c.name: c.command for c in airflow_components(environment, environment)}
    assert set(commands) == {"api-server", "scheduler", "dag-processor", "triggerer"}
    assert "--skip-serve-logs" in commands["scheduler"]
    assert "--skip-serve-logs" in commands["triggerer"]
    for component in ("dag-processor", "scheduler"):
        modules = FORKED[component]
        assert all(module in commands[component][2] and importlib.util.find_spec(module) for module in modules)


def test_an_api_server_with_an_account_of_its_own_shares_no_home_and_no_key_of_people_with_tasks(places):
    keys = load_keys(places.keys)
    accounts = Accounts(Account(60001, 60001, str(places.airflow)), Account(60002, 60001, str(places.api_server)))
    addresses = {"port": 8123, "task_port": 8124, "metadata": METADATA, "worker": WORKER}
    environment = airflow_environment(places, keys, **addresses, account=accounts.tasks)
    own = api_server_environment(environment, places, keys, REFEREE, accounts)
    assert {name for name, value in own.items() if str(places.airflow) in value} == set()
    assert not any(str(places.api_server) in value for n, value in environment.items() if "PASSWORDS_FILE" not in n)
    assert own["AIRFLOW__API_AUTH__JWT_SECRET"] == keys.people_jwt
    assert keys.people_jwt not in environment.values()
    server, tasks_server, *others = airflow_components(environment, own, accounts, 8124)
    assert (server.name, server.account, server.environment) == ("api-server", accounts.api_server, own)
    assert server.command[-2:] == ("--apps", "core")
    assert tasks_server.command[-4:] == ("--apps", "execution", "--port", "8124")
    assert environment["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://127.0.0.1:8124/execution/"
    assert {c.account for c in (tasks_server, *others)} == {accounts.tasks}


def test_there_is_a_user_of_each_role(environment, places):
    users = dict(user.split(":") for user in environment["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS"].split(","))
    assert users == {name: name for name in ("admin", "op", "user", "viewer")}
    assert set(load_keys(places.keys).passwords) == set(users)
    assert len(set(load_keys(places.keys).passwords.values())) == 4
    assert environment["AIRFLOW__EASEML__REFEREES"] == "admin"
    assert environment["AIRFLOW__EASEML__LABELERS"] == "op"


def test_without_bundles_airflow_has_its_own(environment):
    from airflow.configuration import conf

    default = conf.get_default_value("dag_processor", "dag_bundle_config_list")
    assert json.loads(environment["AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"]) == json.loads(default)


def test_airflow_takes_git_bundles_beside_the_dag_folder(monkeypatch, tmp_path):
    from airflow.dag_processing.bundles.manager import DagBundlesManager

    bundles = [GitBundle("candidates", tmp_path, "main"), GitBundle("production", tmp_path, "easeml/production/x", 5)]
    monkeypatch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", bundle_list(bundles))
    monkeypatch.setenv("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
    monkeypatch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH", str(tmp_path / "bundles"))
    manager = DagBundlesManager()
    assert list(manager._bundle_config) == ["dags-folder", "candidates", "production"]
    found = manager._bundle_config["production"]
    assert f"{found.bundle_class.__module__}.{found.bundle_class.__qualname__}" == GIT
    assert found.kwargs == {"repo_url": str(tmp_path), "tracking_ref": "easeml/production/x", "refresh_interval": 5}


def test_git_reads_which_repositories_are_trusted(tmp_path):
    odd = tmp_path / 'a "b" \\ ü; # c.git'
    bundles = [GitBundle(name, path, "main") for name, path in (("a", odd), ("b", tmp_path), ("c", odd))]
    write_trust(tmp_path / "trust", bundles)
    command = ["git", "config", "--file", str(tmp_path / "trust"), "--get-all", "safe.directory"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert answer.splitlines() == [str(odd), str(tmp_path)]
    assert stat.S_IMODE((tmp_path / "trust").stat().st_mode) == 0o644
    write_trust(tmp_path / "trust", [])
    assert (tmp_path / "trust").read_text() == "[safe]\n"


def test_the_referee_gets_what_is_added_to_its_command(places):
    judge = referee({}, places, "--bundle", "dags=/srv/dags.git")
    assert judge.command[-2:] == ("--bundle", "dags=/srv/dags.git")
    assert {str(places.artifacts), str(places.home / "referee")} < set(judge.command)


@pytest.mark.parametrize("has_other", [False, True])
def test_keys_below_the_logs_come_to_the_referees_folder_and_others_stay_trusted(places, has_other):
    latest = places.logs / ".easeml" / "referee"
    latest.mkdir(parents=True)
    for name in ("key.pem", "marks.json", "b.pub"):
        (latest / name).write_text("latest")
    if has_other:
        other_keys(places)
    for _ in range(2):
        places.settle_referee(is_new=False)
    found = {file.name: file.read_text() for file in places.referee.iterdir()}
    wanted = dict.fromkeys(("key.pem", "marks.json", "b.pub"), "latest")
    assert found == (wanted | {"a.pub": "other"} if has_other else wanted)
    assert not latest.exists()
    assert (places.home / "referee-put-aside-1" / "key.pem").exists() == has_other


def test_a_new_database_begins_without_the_marks_of_another(places):
    other_keys(places)
    places.settle_referee(is_new=False)
    assert len(list(places.referee.iterdir())) == 3
    for number in (1, 2):
        places.settle_referee(is_new=True)
        assert [file.name for file in places.referee.iterdir()] == ["a.pub"]
        assert (places.home / f"referee-put-aside-{number}").exists()


def other_keys(places):
    places.referee.mkdir()
    for name in ("key.pem", "marks.json", "a.pub"):
        (places.referee / name).write_text("other")


def test_keys_are_kept_and_private(places):
    keys = load_keys(places.keys)
    assert load_keys(places.keys) == keys
    assert Fernet(keys.fernet).decrypt(Fernet(keys.fernet).encrypt(b"x")) == b"x"
    assert len(keys.jwt) == 64
    write_passwords(places.passwords, keys)
    assert json.loads(places.passwords.read_text()) == dict(keys.passwords)
    assert keys.passwords["admin"] == keys.admin_password
    for file in (places.keys, places.passwords):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_two_stacks_share_no_key(tmp_path):
    one, two = load_keys(tmp_path / "one"), load_keys(tmp_path / "two")
    secrets = [{k.fernet, k.jwt, k.api, k.people_jwt, *k.passwords.values()} for k in (one, two)]
    assert not secrets[0] & secrets[1]
    assert len(secrets[0]) == 8
