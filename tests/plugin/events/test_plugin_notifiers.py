"""Being told, over real SMTP and HTTP: what comes, what is tried again, what no log holds, and what names cannot do."""

import http.server
import importlib
import json
import logging
import threading
import traceback

import pytest
from airflow.sdk import DAG, Variable
from hypothesis import given
from hypothesis import strategies as st
from page_reader import Page

from easeml_airflow import operators, params
from easeml_airflow.notifications import EasemlNotifier, FunctionNotifier, MailNotifier, WebhookNotifier, channels
from easeml_airflow.notifications.base import NEEDS, SUBJECTS, event_of, subject_of
from easeml_airflow.notifications.channels import address_of, mail_of, text_of
from easeml_airflow.provider_info import get_provider_info
from easeml_airflow.version_compat import AirflowException
from easeml_core.entities import SealedSetPurpose
from easeml_core.errors import ConfigError
from easeml_core.services.test_sets.lifecycle import retire_test_set
from easeml_core.store.tables import releases, studies

EVENT = {
    "kind": "promotion",
    "study": "digits",
    "model": 7,
    "message": "model 7 was promoted past the gate by ann: it is broken",
    "key": "promotion-3",
}
SECRET = "T0SECRET/B0SECRET/xyzzy"


class Chat(http.server.BaseHTTPRequestHandler):
    """A chat's incoming webhook, which answers what a test wants, in turn; at last 200."""

    def do_POST(self):
        size = int(self.headers["Content-Length"])
        self.server.posts.append((self.path, dict(self.headers), json.loads(self.rfile.read(size))))
        answer = self.server.answers.pop(0) if self.server.answers else 200
        if answer == "silent":
            self.server.awake.wait(20)
            return
        self.send_response(answer)
        if answer == 302:
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture
def chat(monkeypatch):
    """A server, with a connection ``chat`` to it; without pauses between tries."""
    monkeypatch.setattr(channels, "PAUSE_SECONDS", 0.0)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Chat) as server:
        server.posts, server.answers, server.awake = [], [], threading.Event()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        connect(monkeypatch, f"http://127.0.0.1:{server.server_address[1]}/services")
        yield server
        server.awake.set()
        server.shutdown()


def connect(monkeypatch, host, password=SECRET, **more):
    connection = {"conn_type": "http", "host": host, "password": password} | more
    monkeypatch.setenv("AIRFLOW_CONN_CHAT", json.dumps(connection))


def chat_notifier(**given):
    return WebhookNotifier(webhook_conn_id="chat", **given)


def test_a_chat_is_told_by_one_post(chat):
    chat_notifier().tell(EVENT)
    ((path, headers, body),) = chat.posts
    assert path == f"/services/{SECRET}"
    assert headers["Content-Type"] == "application/json"
    assert headers["Idempotency-Key"] == "easeml-promotion-3"
    assert body == {"text": f"*{subject_of(EVENT)}*\n{EVENT['message']}"}


def test_each_kind_of_event_has_a_subject_and_goes_as_recorded(recorded):
    events = [EVENT | {"kind": kind} for kind in SUBJECTS]
    events += [EVENT | {"kind": "new-test-set", "purpose": purpose} for purpose in NEEDS]
    page, head = "https://airflow.test/studies/digits", "5ea1ed"
    events.append(EVENT | {"kind": "of tomorrow", "page": page, "head": head})
    lines = [subject_of(event) for event in events]
    assert len(set(lines)) == len(lines) - 1, "an event that names no purpose is of the gate"
    recorded("".join(f"{line}\n" for line in [*lines, "", *mail_of(events[-1]), "", text_of(events[-1])]), "subjects")


def test_the_page_of_the_study_is_named_where_airflow_knows_its_own_address(chat, mails, monkeypatch):
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.test/af")
    chat_notifier().deliver(EVENT | {"study": "x/ray<"})
    MailNotifier(to="ada@test").deliver(EVENT)
    assert chat.posts[0][2]["text"].endswith("\nhttps://airflow.test/af/plugin/easeml/af/easeml/studies/x%2Fray%3C")
    assert Page(mails()[0][2]).links == {"digits": "https://airflow.test/af/plugin/easeml/af/easeml/studies/digits"}


def test_without_a_connections_name_the_log_alone_is_told(chat, capsys):
    drift = EVENT | {"kind": "drift"}
    for name in (None, "", "None"):
        WebhookNotifier(webhook_conn_id=name).deliver(drift)
    assert capsys.readouterr().out.count(f"{subject_of(drift)}. {drift['message']}") == 3
    assert chat.posts == []


@pytest.mark.parametrize("answers", [[503], [429, 500]])
def test_what_may_pass_is_tried_again_with_the_same_key(chat, answers):
    chat.answers += answers
    chat_notifier().tell(EVENT)
    assert len(chat.posts) == len(answers) + 1
    assert {headers["Idempotency-Key"] for _, headers, _ in chat.posts} == {"easeml-promotion-3"}


@pytest.mark.parametrize(
    ("answers", "tries", "said"),
    [
        ([500, 502, 503, 200], 3, "it answered 503"),
        ([404, 200], 1, "it answered 404"),
        ([302, 200], 1, "it answered 302"),  # to a place that nobody has named
        (["silent"] * 2, 2, "cannot be reached"),
    ],
)
def test_what_cannot_be_told_is_raised_and_the_secret_stays_one(chat, capsys, caplog, answers, tries, said):
    chat.answers += answers
    limits = {"timeout_seconds": 0.3, "attempts": 2} if "silent" in answers else {}
    with caplog.at_level(logging.DEBUG), pytest.raises(AirflowException) as raised:
        chat_notifier(**limits).tell(EVENT)
    assert len(chat.posts) == tries
    assert all(path == f"/services/{SECRET}" for path, _, _ in chat.posts)
    told = f"{traceback.format_exception(raised.value)} {caplog.text} {capsys.readouterr()} {chat_notifier()!r}"
    assert said in str(raised.value)
    assert "promotion-3" in str(raised.value)
    assert "SECRET" not in told
    assert "xyzzy" not in told
    assert "/services" not in told


def test_a_server_that_is_not_there(monkeypatch, capsys, caplog):
    monkeypatch.setattr(channels, "PAUSE_SECONDS", 0.0)
    connect(monkeypatch, "http://127.0.0.1:1/services")
    with caplog.at_level(logging.DEBUG), pytest.raises(AirflowException, match="cannot be reached") as raised:
        chat_notifier().tell(EVENT)
    assert SECRET not in f"{traceback.format_exception(raised.value)} {caplog.text} {capsys.readouterr()}"


@pytest.mark.parametrize(
    ("connection", "address"),
    [
        ({"host": "https://hooks.test/services", "password": "a/b"}, "https://hooks.test/services/a/b"),
        ({"host": "https://hooks.test/services/", "password": "/a/b"}, "https://hooks.test/services/a/b"),
        ({"host": "https://hooks.test/hook?x=1"}, "https://hooks.test/hook?x=1"),
        ({"host": "hooks.test", "password": "a"}, "https://hooks.test/a"),
        (
            {"host": "hooks.test", "schema": "http", "port": 8065, "password": "hooks/a"},
            "http://hooks.test:8065/hooks/a",
        ),
    ],
)
def test_the_address_of_a_connection(connection, address):
    from airflow.sdk import Connection

    assert address_of(Connection(conn_id="chat", conn_type="http", **connection)) == address


@pytest.mark.parametrize(
    "connection",
    [
        {},
        {"host": "file:///etc/passwd"},
        {"host": "ftp://hooks.test"},
        {"host": "https://", "password": "secret"},
        {"host": "https://hooks.test", "password": "secret\r\nHost: other"},
        {"host": "https://hooks.test", "password": "secret word"},
        {"host": "https://hooks.test:port", "password": "secret"},
        {"host": "https://[::1", "password": "secret"},
    ],
)
def test_what_is_no_address_is_refused_and_not_shown(connection):
    from airflow.sdk import Connection

    with pytest.raises(ConfigError, match=r"^webhook_conn_id must be") as raised:
        address_of(Connection(conn_id="chat", conn_type="http", **connection))
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "markup", ["<!channel>", "<@U123>", "@everyone", "@here", "<http://evil.test|our page>", "[a](b)"]
)
def test_nobody_is_mentioned_and_no_link_hides_where_it_leads(markup):
    for field in ("message", "study"):
        text = text_of(EVENT | {field: markup})
        assert markup not in text
        assert "<" not in text


@given(st.text(), st.text())
def test_whatever_is_typed_in_is_one_line_of_text(study, message):
    event = EVENT | {"study": study, "message": message}
    subject = subject_of(event)
    assert subject.isprintable()
    assert len(subject) <= 200
    assert text_of(event).count("\n") <= 1


HOSTILE = "a\r\nBcc: everybody@test\r\n\r\n<script>"


def test_a_mail_comes_whole_and_a_name_begins_no_header(mails):
    event = EVENT | {"study": HOSTILE, "message": f"{HOSTILE} {{{{ conn.smtp_default.password }}}}", "key": "alert-3"}
    MailNotifier(to="ada@test, eve@test").tell(event)
    MailNotifier(to="ada@test").tell(EVENT)
    first, second = mails.messages()
    assert (first["To"], first["Bcc"]) == ("ada@test, eve@test", None)
    assert first["Subject"].startswith("a Bcc: everybody@test <script>: ")
    text = Page(first.get_body(("html",)).get_content())
    assert ("<script>" in text.text, text.has("script")) == (True, False)
    assert "{{ conn.smtp_default.password }}" in text.text
    assert (first["Message-ID"], second["Message-ID"]) == (
        "<easeml.alert-3@easeml.invalid>",
        "<easeml.promotion-3@easeml.invalid>",
    )
    assert second["Subject"] == subject_of(EVENT)


def test_a_mail_server_that_is_away_is_an_error(monkeypatch):
    extra = {"disable_ssl": True, "disable_tls": True, "from_email": "gate@test", "retry_limit": 1, "timeout": 1}
    connection = {"conn_type": "smtp", "host": "127.0.0.1", "port": 1, "extra": extra, "password": "hunter2"}
    monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", json.dumps(connection))
    with pytest.raises(Exception, match=r".") as raised:
        MailNotifier(to="ada@test").tell(EVENT)
    assert "hunter2" not in "".join(traceback.format_exception(raised.value))


def test_a_function_gets_an_event_of_its_own_and_may_refuse():
    told = []
    FunctionNotifier(told.append).tell(EVENT)
    assert told == [EVENT]
    assert told[0] is not EVENT

    def refuse(event):
        message = f"no place for {event['key']}"
        raise OSError(message)

    with pytest.raises(OSError, match="for promotion-3"):
        FunctionNotifier(refuse).tell(EVENT)


@pytest.mark.parametrize(
    ("given_", "wanted"),
    [
        ({}, True),
        ({"events": ["promotion"]}, True),
        ({"events": '["promotion", "drift"]', "studies": '["digits"]'}, True),
        ({"events": ["drift"]}, False),
        ({"events": []}, False),
        ({"studies": ["wine"]}, False),
        ({"events": "None", "studies": ""}, True),
    ],
)
def test_what_is_wanted(given_, wanted):
    assert FunctionNotifier(print, **given_).wants(EVENT) is wanted


def test_an_unknown_kind_of_event_is_told_to_who_asked_for_it():
    with pytest.raises(ConfigError, match=r"^events must .*promotion.*'party'"):
        FunctionNotifier(print, events=["party"]).wants(EVENT)


@pytest.mark.parametrize(
    ("facts", "kind", "key"),
    [
        ({"kind": "gate", "symbol": "fail", "planned": True}, "rejection", "rejection-9"),
        ({"kind": "gate", "symbol": "fail", "planned": False}, None, None),
        ({"kind": "gate", "symbol": "pass"}, None, None),
        ({"kind": "gate", "symbol": "withheld"}, None, None),
        ({"kind": "promote", "promoted": True}, "promotion", "request-9"),
        ({"kind": "force", "promoted": True}, "promotion", "request-9"),
        ({"kind": "rollback", "promoted": True}, "rollback", "request-9"),
        ({"kind": "promote", "refused": True}, None, None),
        ({"kind": "meter", "signal": 3, "alert": "signal 3 of 4"}, "overfitting", "reading-9"),
        ({"kind": "meter", "signal": 1, "alert": None}, None, None),
        ({"kind": "drift", "alert_id": 4}, "drift", "alert-4"),
        ({"kind": "refresh", "version": 2}, None, None),
        ({}, None, None),
    ],
)
def test_what_the_result_of_a_task_tells(facts, kind, key):
    event = event_of({"study": "digits", "model_id": 7, "request_id": 9, "message": "so it is"} | facts)
    assert (kind, key) == (None, None) if event is None else (event["kind"], event["key"]) == (kind, key)
    assert event is None or (event["study"] == "digits" and kind in SUBJECTS)


def test_every_notifier_is_in_the_providers_metadata():
    import easeml_airflow.notifications as room

    listed = {path.rpartition(".")[2]: path for path in get_provider_info()["notifications"]}
    assert set(listed) == set(room.__all__)
    for name, path in listed.items():
        assert getattr(importlib.import_module(path.rpartition(".")[0]), name) is getattr(room, name)
    with pytest.raises(NotImplementedError):
        EasemlNotifier().tell(EVENT)


# -- in Airflow -------------------------------------------------------------------------------------------------------


STRICT = {"condition": "n > 0.9 +/- 0.2", "reliability": 0.9, "adaptivity": "full", "steps": 2}


def test_what_a_task_found_is_told_by_its_callback(run_dag, make_study, referee, chat, tmp_path):
    """A task that fails has told its facts one by one, and returned nothing."""
    make_study("cancer", gate=STRICT)
    (tmp_path / "zero.json").write_text('{"label": 0}')
    told = {"on_failure_callback": chat_notifier(), "on_success_callback": chat_notifier()}
    with DAG("own_callback", schedule=None) as dag:
        model = operators.SubmitModelOperator(
            task_id="submit",
            study="cancer",
            path=str(tmp_path / "zero.json"),
            format="constant",
            message="always no",
            on_success_callback=chat_notifier(),
        )
        operators.GateOperator(task_id="gate", study="cancer", model_id=model.output["model_id"], **told)
    done = {ti.task_id: ti for ti in run_dag(dag).get_task_instances()}
    assert {name: str(ti.state) for name, ti in done.items()} == {"submit": "success", "gate": "failed"}
    number = done["submit"].xcom_pull(task_ids="submit")["model_id"]
    assert texts(chat) == [f"*{subject_of({'kind': 'rejection', 'study': 'cancer', 'model': number})}*"]


@pytest.fixture
def watcher(run_dag, connected):
    """Run a task that tells a chat of everything; its state and result. Its memory is that of this test alone."""

    def run(**given_):
        with DAG("telling", schedule=None) as dag:
            operators.NotifyOperator(task_id="chat", watcher=name, notifier=chat_notifier(attempts=1, **given_))
        (task,) = run_dag(dag).get_task_instances()
        return str(task.state), (task.xcom_pull(task_ids="chat") or {}).get("events")

    name = f"watcher_{connected.name}"
    run.name = name
    return run


def retire(connected, purpose):
    with connected.referee.begin() as tx:
        found = releases.live_test_set(tx, studies.get_study(tx, "cancer").id, purpose)
    retire_test_set(connected.referee, test_set=str(found.id))


def texts(chat):
    return [body["text"].split("\n")[0] for _, _, body in chat.posts]


def test_news_are_told_once_and_a_chat_that_was_away_loses_none(connected, make_study, chat, watcher):
    make_study("cancer")
    assert watcher() == ("success", [])  # what has happened before is no news
    retire(connected, SealedSetPurpose.GATE)
    retire(connected, SealedSetPurpose.METER)
    asked = {"kind": "new-test-set", "study": "cancer"}
    gate, meter = (f"*{subject_of(asked | {'purpose': purpose})}*" for purpose in ("gate", "meter"))
    chat.answers += [200, 500]
    assert watcher() == ("failed", None)
    assert texts(chat) == [gate, meter]
    assert watcher() == ("success", ["alert-2"])  # the first one is not told again
    assert texts(chat) == [gate, meter, meter]
    assert len({headers["Idempotency-Key"] for _, headers, _ in chat.posts}) == 2
    assert watcher() == ("success", [])


def test_news_that_nobody_wants_are_passed_over(connected, make_study, chat, watcher):
    make_study("cancer")
    assert watcher() == ("success", [])
    retire(connected, SealedSetPurpose.GATE)
    assert watcher(events=["promotion"]) == ("success", [])
    assert watcher() == ("success", [])
    assert chat.posts == []


def test_a_memory_of_another_hand_is_refused_and_deleted_by_whom_it_concerns(connected, make_study, chat, watcher):
    make_study("cancer")
    keep(watcher.name, "no JSON")
    assert watcher() == ("failed", None)
    keep(watcher.name, json.dumps({"since": "noon", "told": {}}))
    assert watcher() == ("failed", None)
    assert chat.posts == []


def keep(name, value):
    from airflow.models.variable import Variable as Stored

    Stored.set(name, value)


def kept(name):
    from airflow.models.variable import Variable as Stored

    return Stored.get(name, default_var=None)


def test_the_dag_tells_by_both_ways_and_lists_the_studies(
    run_dag, root, connected, make_study, mails, chat, monkeypatch
):
    from airflow.dag_processing.dagbag import DagBag

    for task in ("mail", "webhook"):
        forget(f"easeml_told_easeml_notify.{task}")
    forget(params.STUDIES)
    monkeypatch.setenv("AIRFLOW_VAR_EASEML_NOTIFY_MAIL", "ada@test")

    def run(**form):
        params.studies_offered.cache_clear()
        dag = DagBag(dag_folder=str(root / "dags" / "easeml_notify.py")).dags["easeml_notify"]
        return {ti.task_id: str(ti.state) for ti in run_dag(dag, run_conf=form).get_task_instances()}

    fine = dict.fromkeys(("mail", "webhook", "list_studies"), "success")
    make_study("cancer")
    assert run() == fine
    assert json.loads(kept(params.STUDIES)) == ["cancer"]
    retire(connected, SealedSetPurpose.GATE)
    assert run(webhook="chat", events=["new-test-set"]) == fine
    subject = subject_of({"kind": "new-test-set", "study": "cancer", "purpose": "gate"})
    assert [mail[:2] for mail in mails()] == [("ada@test", subject)]
    assert texts(chat) == [f"*{subject}*"]
    assert run(webhook="chat") == fine
    assert len(mails()) == len(chat.posts) == 1


def forget(name):
    from airflow.models.variable import Variable as Stored

    Stored.delete(name)


def test_the_list_is_written_only_when_it_has_changed(run_dag, connected, make_study, monkeypatch):
    forget(params.STUDIES)
    written = []
    real = Variable.set
    monkeypatch.setattr(Variable, "set", lambda *a, **k: (written.append(a[1]), real(*a, **k)))
    make_study("cancer")
    with DAG("listing", schedule=None) as dag:
        operators.ListStudiesOperator(task_id="list_studies")
    for _ in range(2):
        (task,) = run_dag(dag).get_task_instances()
        assert task.xcom_pull(task_ids="list_studies") == ["cancer"]
    assert written == ['["cancer"]']
