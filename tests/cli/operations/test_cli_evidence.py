"""``easeml evidence``: what is broken is named with status 1, and acknowledged with a reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def ask(database: Any, artifacts: Any, make_study: Any, run: Callable[..., Any]) -> Callable[..., Any]:
    """Runs a command of the referee on a database with one study, whose chains a referee has signed."""
    make_study()
    url = database.url("easeml_referee")
    assert (
        run("referee", "--once", "--answer-delay", "0", "--artifacts", str(artifacts.root), "--database", url).status
        == 0
    )
    return lambda *words: run(*words, "--database", url)


def test_what_is_changed_is_named_and_can_be_acknowledged(ask: Any, run: Any, database: Any, nowhere: Any) -> None:
    assert "verify" in ask("audit", "verify").text
    (own,) = run("evidence", "keys", "--json").json
    assert own["signs"]
    assert own["pem"].startswith("-----BEGIN PUBLIC KEY-----")
    checks = {check["name"]: check for check in ask("doctor", "--json").json}
    assert checks["evidence"]["state"] == "ok"
    with database.server.connect(database=database.name) as opened, opened.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica; UPDATE work.audit SET who = 'ann' WHERE id = 1")
    broken = ask("audit", "verify")
    assert broken.status == 1
    assert "chain audit, entry 2: audit 1" in " ".join(broken.out.split())
    assert ask("evidence", "verify", "--json").json["sound"] is False
    checks = {check["name"]: check for check in ask("doctor", "--json").json}
    assert checks["evidence"]["state"] == "failed"
    assert ask("evidence", "acknowledge", "--why", "x").status == 2
    for word, said in (("audits", "got 'audits'"), ("set/0", "got 'set/0'"), ("999", "chain 'set/999'")):
        refused = ask("evidence", "acknowledge", word, "--why", "x")
        assert (refused.status, said in " ".join(refused.err.split())) == (2, True), refused.err
    assert ask("evidence", "acknowledge", "audit", "--why", "ticket 4711").text.endswith("1 finding acknowledged")
    assert ask("evidence", "acknowledge", "--audit", "set/1", "--why", "again").text.endswith("nothing is broken")
    assert "1 finding acknowledged" in ask("audit", "verify").text
    assert ask("evidence", "verify", "--head", "0" * 64).status == 1
    assert ask("evidence", "verify", "--head", "zero").status == 2
    assert "signs now, after" in ask("evidence", "rotate").text
    assert [key["signs"] for key in run("evidence", "keys", "--json").json].count(True) == 1
    away = ask("evidence", "verify", "--keys", str(nowhere / "away"))
    assert away.status == 0
    assert "were not checked" in away.err


def test_no_command_makes_a_key_where_another_one_signs(ask: Any, database: Any, nowhere: Any, artifacts: Any) -> None:
    """The referee of the day before was started in another folder; nothing is written then."""
    (signer,) = (file.stem for file in (nowhere / ".easeml" / "referee").glob("*.pub"))
    count = "SELECT count(*), (SELECT count(*) FROM sealed.referees) FROM sealed.chain"
    with database.server.connect(database=database.name) as opened, opened.cursor() as cursor:
        cursor.execute(count)
        before = cursor.fetchone()
    for words in (
        ("referee", "--once", "--artifacts", str(artifacts.root)),
        ("referee", "--artifacts", str(artifacts.root)),
        ("evidence", "rotate"),
        ("evidence", "acknowledge", "--all", "--why", "x"),
        ("test-set", "delete", "1", "--why", "x", "--yes"),
    ):
        refused = ask(*words, "--keys", "other")
        assert refused.status == 2, words
        said = " ".join(refused.err.split())
        assert f"{nowhere / 'other'} holds no" in said, words
        assert f"key {signer} signs" in said, words
        assert "`easeml evidence keys --new`" in said
    ask("evidence", "verify", "--keys", "other")
    ask("doctor", "--keys", "other")
    assert not (nowhere / "other").exists()
    with database.server.connect(database=database.name) as opened, opened.cursor() as cursor:
        cursor.execute(count)
        assert cursor.fetchone() == before
    assert "verify" in ask("audit", "verify").text


def test_the_worker_cannot_look(run: Any, database: Any, ask: Any) -> None:
    refused = run("audit", "verify", "--database", database.url("easeml_worker"))
    assert refused.status == 2
    assert "easeml_referee" in refused.err


def test_a_file_that_is_no_bundle_is_refused(run: Any, nowhere: Any) -> None:
    key = nowhere / "key.pub"
    assert "no signing key" in run("evidence", "keys").err
    assert run("evidence", "keys", "--new").status == 0
    key.write_text(run("evidence", "keys", "--json").json[0]["pem"])
    for text, words in (("{", "no JSON file"), ("{}", "no DSSE envelope"), ("[1]", "no DSSE envelope")):
        (nowhere / "file").write_text(text)
        answer = run("promotion", "verify", "file", "--key", "key.pub")
        assert answer.status == 2
        assert words in answer.err
    assert "no public key" in run("promotion", "verify", "file", "--key", "file").err


def test_no_verdict_no_bundle(ask: Any, nowhere: Any) -> None:
    answer = ask("promotion", "evidence", "99", "--out", "file")
    assert answer.status == 2
    assert "verdict on model 99" in answer.err
