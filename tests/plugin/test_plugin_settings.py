"""Installation settings, provider metadata and the hook's connection."""

import json
import os
from urllib.parse import unquote, urlencode

import jsonschema
import pytest

from easeml_airflow import settings
from easeml_airflow.hooks.easeml import EasemlHook
from easeml_airflow.links import EasemlPageLink, page_url
from easeml_airflow.provider_info import get_provider_info
from easeml_core.errors import ConfigError, InvalidInputError, NotFoundError

GOOD = {
    "conn_type": "easeml",
    "host": "127.0.0.1",
    "port": 5433,
    "login": "easeml_worker",
    "password": "p@ss/w:rd%",
    "schema": "easeml",
    "extra": {"artifacts": "/somewhere/artifacts"},
}
URL = "postgresql+psycopg2://easeml_worker:p%40ss%2Fw%3Ard%25@127.0.0.1:5433/easeml"


@pytest.fixture
def connect(monkeypatch):
    """Give Airflow the connection ``easeml_default`` with these changes."""

    def give(**changes):
        monkeypatch.setenv("AIRFLOW_CONN_EASEML_DEFAULT", json.dumps(GOOD | changes))
        return EasemlHook()

    return give


def test_lists_of_names_have_commas_between_and_nobody_is_nobody(monkeypatch):
    assert settings.referees() == settings.labelers() == frozenset()
    monkeypatch.setenv("AIRFLOW__EASEML__REFEREES", "ada, olga,,nobody")
    assert settings.referees() == {"ada", "olga"}


def test_every_option_has_a_default_that_its_function_reads(monkeypatch):
    monkeypatch.delenv("AIRFLOW__EASEML__ANSWER_WAIT_SECONDS")  # set for all tests
    read = {
        "conn_id": settings.conn_id,
        "policy": lambda: settings.policy() or "stored",
        "poll_interval_seconds": settings.poll_interval_seconds,
        "answer_timeout_seconds": settings.answer_timeout_seconds,
        "answer_timeout_seconds_ahead": settings.answer_timeout_seconds_ahead,
        "answer_wait_seconds": settings.answer_wait_seconds,
        "label_timeout_seconds": settings.label_timeout_seconds,
        "api_dag": settings.api_dag,
        "referees": lambda: ",".join(settings.referees()) or "nobody",
        "labelers": lambda: ",".join(settings.labelers()) or "nobody",
        "page_refresh_seconds": settings.page_refresh_seconds,
        "cache_folder": lambda: settings.cache_folder() or "account",
        "cache_limit_mb": settings.cache_limit_mb,
    }
    assert set(read) == {option.name for option in settings.OPTIONS}
    for option in settings.OPTIONS:
        assert str(read[option.name]()).removesuffix(".0") == option.default
        assert option.description.endswith(".")


def test_an_option_is_read_when_it_is_asked_for(monkeypatch):
    monkeypatch.setenv("AIRFLOW__EASEML__POLICY", "hybrid")
    monkeypatch.setenv("AIRFLOW__EASEML__CONN_ID", "other")
    assert settings.policy() == "hybrid"
    monkeypatch.delenv("AIRFLOW__EASEML__POLICY")
    assert settings.policy() is None
    assert EasemlHook().easeml_conn_id == "other"


@pytest.mark.parametrize(
    ("base_url", "own", "expected"),
    [
        ("http://h:8080", "http://h:8080", ""),
        ("http://h:8080/", "http://h:8080", ""),
        ("https://h/team/airflow/", "https://h", "/team/airflow"),
        ("", None, ""),
        ("/airflow", None, "/airflow"),
    ],
)
def test_the_link_honours_the_base_path(monkeypatch, base_url, own, expected):
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", base_url)
    assert settings.own_address() == own
    assert page_url() == f"{expected}/plugin/easeml"
    assert EasemlPageLink().get_link(None, ti_key=None) == page_url()
    assert page_url("digits") == f"{expected}/plugin/easeml{expected}/easeml/studies/digits"


class Task:
    """What the link looks at of a task."""

    def __init__(self, **arguments):
        vars(self).update(arguments)


INSIDE = "/plugin/easeml/easeml"
"""What Airflow's frame opens is the whole path behind its own."""


def link_of(**arguments):
    return EasemlPageLink().get_link(Task(**arguments), ti_key=None)


@pytest.mark.parametrize("study", ["digits", "a study & more", "../%2e"])
def test_the_link_of_a_task_leads_to_its_study(study):
    link = link_of(study=study)
    assert link.startswith(INSIDE + "/studies/")
    assert [unquote(part) for part in link.removeprefix(INSIDE).split("/")] == ["", "studies", study]


@pytest.mark.parametrize("study", [None, "", "None", 3, ["digits"]])
def test_the_link_of_a_task_without_a_study_leads_to_the_page(study):
    assert link_of(study=study) == page_url()


@pytest.mark.parametrize(
    ("task", "leads_to"),
    [
        ({"trial": {"trial_id": 7, "study": "digits", "candidate": "knn"}}, "/studies/digits/decisions/7"),
        ({"trial": "7"}, "/trials/7"),
        ({"trial": {"trial_id": "7"}}, "/trials/7"),
        ({"op_kwargs": {"trial": {"trial_id": 7, "study": "digits"}}}, "/studies/digits/decisions/7"),
        ({"op_args": ({"trial_id": 7, "study": "digits"},)}, "/studies/digits/decisions/7"),
        ({"trial": "../7", "study": "digits"}, "/studies/digits"),
        ({"study": "digits", "page_of_study": "submissions"}, "/studies/digits/submissions"),
    ],
)
def test_the_link_of_a_trial_leads_to_its_decision_and_that_of_a_verdict_to_the_submissions(task, leads_to):
    assert link_of(**task) == INSIDE + leads_to


def test_tasks_that_judge_and_hand_in_say_where_their_link_leads():
    from easeml_airflow.operators import GateOperator, MeterOperator, SubmitModelOperator, TrainTrialOperator
    from easeml_airflow.sensors import OverfittingMeterSensor

    judged = (GateOperator, MeterOperator, SubmitModelOperator, OverfittingMeterSensor)
    assert {operator.page_of_study for operator in judged} == {"submissions"}
    train = TrainTrialOperator(task_id="train", trial={"trial_id": 3, "study": "digits"})
    assert EasemlPageLink().get_link(train, ti_key=None) == page_url("digits", 3)


def test_the_metadata_is_what_airflow_asks_for():
    from importlib.resources import files

    info = get_provider_info()
    jsonschema.validate(info, json.loads(files("airflow").joinpath("provider_info.schema.json").read_text()))
    named = {m for kind in ("operators", "sensors", "hooks", "triggers") for m in modules(info[kind])}
    from easeml_airflow import notifications, operators, sensors

    assert named >= homes(operators) | homes(sensors)
    assert {name.rpartition(".")[0] for name in info["notifications"]} == homes(notifications)


def homes(face):
    """The modules that define what a package offers."""
    return {getattr(face, name).__module__ for name in face.__all__}


def modules(entries):
    """Module paths of one kind of the metadata, each imported to prove that it is there."""
    import importlib

    paths = [path for entry in entries for path in entry["python-modules"]]
    for path in paths:
        importlib.import_module(path)
    return paths


# Asked for all decorators, Airflow imports those of its own providers, and they use one of its own old names.
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_airflow_knows_the_provider_its_connection_and_its_options():
    from airflow.configuration import conf
    from airflow.providers_manager import ProvidersManager
    from airflow.sdk.providers_manager_runtime import ProvidersManagerTaskRuntime

    manager, tasks = ProvidersManager(), ProvidersManagerTaskRuntime()
    assert "easeml-airflow" in manager.providers
    assert tasks.hooks["easeml"].hook_class_name == "easeml_airflow.hooks.easeml.EasemlHook"
    assert manager.field_behaviours["easeml"]["relabeling"]["schema"] == "Database"
    assert "extra__easeml__artifacts" in manager.connection_form_widgets
    assert "easeml_trial" in dict(tasks.taskflow_decorators)
    assert "easeml_airflow.links.EasemlPageLink" in manager.extra_links_class_names
    assert conf.get("easeml", "conn_id") == "easeml_default"


def test_the_address_is_made_of_the_connection(connect):
    assert connect().url == URL
    assert ":5432/" in connect(port=None).url
    assert "@[::1]:5433/" in connect(host="::1").url


TLS = {"sslmode": "verify-full", "sslrootcert": "/etc/ssl/db+1.pem", "sslcert": "/etc/ssl/w.pem", "sslkey": "/k"}


def test_what_the_extra_says_of_tls_reaches_every_connection(connect):
    from psycopg2.extensions import parse_dsn
    from sqlalchemy.engine import make_url

    hook = connect(extra=GOOD["extra"] | TLS)
    assert hook.url.startswith(f"{URL}?")
    assert dict(make_url(hook.url).query) == TLS  # of the store
    listened = parse_dsn(hook.get_store().dsn)  # of its listener
    assert {key: listened[key] for key in TLS} == TLS
    assert listened["password"] == GOOD["password"]
    assert str(hook.named_artifacts().root) == "/somewhere/artifacts"


def test_what_a_form_left_empty_says_nothing_of_tls(connect):
    assert connect(extra=GOOD["extra"] | {"sslmode": "", "sslkey": None}).url == URL


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("sslmode", "on", "must be one of disable, allow, prefer, require, verify-ca, verify-full"),
        ("sslmode", True, "must be one of disable, allow"),
        ("sslrootcert", "/etc/two words.pem", "must be the path of a file, without blanks"),
        ("sslkey", ["/k"], "must be the path of a file"),
        (
            "sslkey",
            "-----BEGIN PRIVATE KEY-----\nMIIE",
            "must be the path of a file, without blanks, got 'text with blanks'",
        ),
        ("sslcert", 3, "must be the path of a file, without blanks, got 'int'"),
    ],
)
def test_a_word_on_tls_that_libpq_does_not_know_is_refused(connect, key, value, words):
    with pytest.raises(ConfigError, match=rf"connection 'easeml_default': extra\.{key}.*{words}") as refused:
        _ = connect(extra=GOOD["extra"] | {key: value}).url
    assert repr(value) not in str(refused.value)
    assert "MIIE" not in str(refused.value)


def test_what_is_told_of_tls_is_read_the_same_in_an_address(monkeypatch):
    """Airflow writes an extra that has no plain parameters as ``__extra__``; ``easeml doctor`` reads both alike."""
    for query in (TLS | GOOD["extra"], {"__extra__": json.dumps(TLS | GOOD["extra"])}):
        address = f"easeml://easeml_worker:p@127.0.0.1:5433/easeml?{urlencode(query)}"
        monkeypatch.setenv("AIRFLOW_CONN_EASEML_DEFAULT", address)
        assert EasemlHook().extra == TLS | GOOD["extra"]


@pytest.mark.parametrize(
    "extra",
    [
        {"host": "evil.example"},
        {"options": "-c role=postgres"},
        {"password": "stolen"},
        {"connect_args": {"host": "evil.example"}},
        {"__extra__": '{"host": "evil.example"}'},
        {"sslMode": "verify-full"},
        {"sslpassword": "stolen"},
        {"folder": "/x"},
    ],
)
def test_an_extra_that_we_do_not_know_is_refused_by_name(connect, extra):
    hook = connect(extra=GOOD["extra"] | extra)
    (name,) = extra
    allowed = "artifacts, sslmode, sslrootcert, sslcert, sslkey"
    for use in (lambda: hook.url, hook.get_store, hook.get_artifacts):
        with pytest.raises(ConfigError, match=rf"extra must be a mapping of no more than {allowed}.*{name}") as refused:
            use()
        assert "evil" not in str(refused.value)
        assert "stolen" not in str(refused.value)


def test_an_extra_that_is_no_mapping_is_refused(connect):
    with pytest.raises(ConfigError, match=r"extra must be a mapping of no more than artifacts.*list"):
        _ = connect(extra='["/somewhere"]').url


@pytest.mark.parametrize("field", ["host", "login", "schema"])
def test_a_missing_field_is_named(connect, field):
    with pytest.raises(ConfigError, match=rf"connection 'easeml_default': {field}.* must be given"):
        _ = connect(**{field: ""}).url


@pytest.mark.parametrize("extra", [{}, {"artifacts": ""}, {"artifacts": ["a"]}])
def test_a_missing_folder_is_named(connect, extra):
    with pytest.raises(ConfigError, match=r"extra\.artifacts must be the path of a folder"):
        connect(extra=extra).named_artifacts()


def test_artifacts_at_an_address_are_read_through_the_installations_cache(connect, monkeypatch, tmp_path):
    monkeypatch.setenv("AIRFLOW__EASEML__CACHE_FOLDER", str(tmp_path / "cache"))
    monkeypatch.setenv("AIRFLOW__EASEML__CACHE_LIMIT_MB", "7")
    found = connect(extra={"artifacts": "memory://bucket/easeml"}).named_artifacts()
    assert str(found.address) == "memory://bucket/easeml"
    assert (found.cache.folder, found.cache.limit) == (tmp_path / "cache", 7_000_000)
    with pytest.raises(InvalidInputError, match="a web server takes no files"):
        connect(extra={"artifacts": "https://data.example/easeml"}).named_artifacts()


def test_a_missing_connection_says_what_to_do():
    with pytest.raises(
        NotFoundError, match=r"no connection 'nowhere'; start the stack with `make up`, or set AIRFLOW_CONN_NOWHERE"
    ):
        _ = EasemlHook("nowhere").url


def test_the_button_in_the_form_tells_what_is_wrong(connect):
    ok, message = connect(port=1).test_connection()
    assert not ok
    assert "cannot be reached" in message
    assert "p@ss" not in message
    ok, message = connect(extra={}).test_connection()
    assert not ok
    assert "extra.artifacts" in message


def test_tls_that_the_server_does_not_have_is_not_done_without(connected, monkeypatch):
    told = json.loads(os.environ["AIRFLOW_CONN_EASEML_DEFAULT"])
    for mode, is_well in (("disable", True), ("prefer", True), ("require", False)):
        extra = told["extra"] | {"sslmode": mode}
        monkeypatch.setenv("AIRFLOW_CONN_EASEML_DEFAULT", json.dumps(told | {"extra": extra}))
        ok, message = EasemlHook().test_connection()
        assert ok is is_well
        assert ("SSL" in message) is not is_well


def test_the_button_is_content_with_a_good_database(connected):
    hook = EasemlHook()
    assert hook.test_connection() == (True, "The database answers and its schema is the one that this version needs.")
    assert hook.get_conn().dsn == connected.worker.dsn
