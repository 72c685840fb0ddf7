"""Evidence: chains that are extended with every answer, and what a change behind the referee's back does to them."""

from __future__ import annotations

import secrets
import shutil
import threading
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from evidence_office import Office

from easeml_core.errors import NotFoundError, StateError, TrainingKilled
from easeml_core.formats.attestation import NONCE_BYTES, SigningKey, commit
from easeml_core.services.evaluation import sealed_runs
from easeml_core.services.evidence import notary
from easeml_core.services.evidence.keys import KEY, MARKS, KeyFolder
from easeml_core.services.evidence.notary import Notary, verify_all
from easeml_core.services.referee.process import Referee
from easeml_core.services.referee.publishing import Timetable
from easeml_core.services.referee.requests import answer_of, file_gate_request
from easeml_core.store.tables import chain
from easeml_core.store.tables.chain import Head
from easeml_core.store.tables.chained_rows import ROWS_OF_SET, row_facts

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def owner(*statements: str) -> Callable[[Office], None]:
    """What the database's owner does with the triggers switched off."""

    def tamper(office: Office) -> None:
        office.lab.as_superuser(f"SET session_replication_role = replica; {'; '.join(statements)}")

    return tamper


def _replay(office: Office) -> None:
    """Restore the chain and its rows as they were before the last answer, all of them consistent."""
    owner(
        "DELETE FROM sealed.chain WHERE chain = 'set/1' AND place > 3",
        "DELETE FROM work.gate_verdicts WHERE request_id = (SELECT max(request_id) FROM work.gate_verdicts)",
        "DELETE FROM sealed.outbox WHERE request_id = (SELECT max(request_id) FROM sealed.ledger)",
        "DELETE FROM sealed.ledger WHERE step = 2 AND test_set_id = 1",
    )(office)


def _forge(office: Office, key: SigningKey | None) -> None:
    """Rewrite the last ledger entry with its chain from there on, hashes and all, signed by another key."""
    lab = office.lab
    owner("UPDATE sealed.ledger SET answer = 'pass' WHERE test_set_id = 1 AND step = 2")(office)
    owner("UPDATE work.gate_verdicts SET symbol = 'pass' WHERE test_set_id = 1 AND step = 2")(office)
    with lab.referee.begin() as tx:
        known = chain.entries(tx, "set/1")
        facts = {kind: row_facts(tx, "set/1", kind) for kind in ROWS_OF_SET}
    previous = known[2].hash
    for entry in known[3:]:
        nonce = secrets.token_bytes(NONCE_BYTES)
        committed = commit(nonce, facts[entry.link.kind][entry.link.subject])
        link = replace(entry.link, previous=previous, commitment=committed)
        previous = link.hash()
        signed = "NULL, NULL" if key is None else f"'{key.public.id}', '\\x{key.sign_head(previous).hex()}'"
        owner(
            f"UPDATE sealed.chain SET nonce = '\\x{nonce.hex()}', previous = '\\x{link.previous.hex()}', "
            f"commitment = '\\x{committed.hex()}', hash = '\\x{previous.hex()}', (key_id, signature) = "
            f"(SELECT {signed.replace(', ', '::text, ', 1)}::bytea) WHERE chain = 'set/1' AND place = {entry.place}"
        )(office)


def _write_file(name: str, content: Callable[[Office], bytes | None]) -> Callable[[Office], None]:
    """What happens to a file of the key folder."""

    def tamper(office: Office) -> None:
        found = content(office)
        (office.keys / name).unlink() if found is None else (office.keys / name).write_bytes(found)

    return tamper


def _raised(office: Office) -> bytes:
    """Marks that name fewer entries, with the old signature."""
    return (office.keys / MARKS).read_bytes().replace(b'"set/1":[5,', b'"set/1":[3,')


ISSUE = owner(
    "DELETE FROM sealed.ledger WHERE test_set_id = 1",
    "DELETE FROM sealed.outbox",
    "DELETE FROM work.gate_verdicts",
    "UPDATE work.audit SET who = 'ann' WHERE act = 'promoted'",
)
ENTRY = "chain = 'set/1' AND place = 4"
COPIED = "kind, subject, at, content, nonce, previous, commitment, hash, key_id, signature"
TAMPERING = {
    "the issue's": (ISSUE, "chain set/1, entry 2: ledger 1 is gone"),
    "a ledger entry deleted": (owner("DELETE FROM sealed.ledger WHERE step = 1"), "ledger 1 is gone"),
    "a ledger entry edited": (
        owner("UPDATE sealed.ledger SET report = report || '{\"wins\": 99}' WHERE step = 2"),
        "entry 4: ledger 2 is not what",
    ),
    "a level edited": (owner("UPDATE sealed.ledger SET log_level = -1 WHERE step = 1"), "entry 2: ledger 1 is not"),
    "entries reordered": (
        owner(
            "UPDATE sealed.chain SET place = 99 WHERE chain = 'set/1' AND place = 2",
            "UPDATE sealed.chain SET place = 2 WHERE chain = 'set/1' AND place = 4",
            "UPDATE sealed.chain SET place = 4 WHERE chain = 'set/1' AND place = 99",
        ),
        "entry 2: it does not name the hash",
    ),
    "ledger steps swapped": (
        owner(
            "UPDATE sealed.ledger SET step = 3, system_step = 3 WHERE step = 1",
            "UPDATE sealed.ledger SET step = 1, system_step = 1 WHERE step = 2",
            "UPDATE sealed.ledger SET step = 2, system_step = 2 WHERE step = 3",
        ),
        "entry 2: ledger 1 is not what",
    ),
    "an old backup replayed": (_replay, "this host has seen 5 entries, and there are 3"),
    "the chain deleted with its rows": (
        owner(
            "DELETE FROM sealed.chain WHERE chain = 'set/1' AND place > 1",
            "DELETE FROM sealed.ledger",
            "DELETE FROM sealed.outbox",
            "DELETE FROM work.gate_verdicts",
        ),
        "this host has seen 5 entries, and there are 1",
    ),
    "an artifact swapped": (
        owner("UPDATE work.models SET artifact = 'sha256:' || repeat('a', 64) WHERE id = 2"),
        "entry 3: verdict",
    ),
    "a verdict edited": (
        owner("UPDATE work.gate_verdicts SET symbol = 'pass' WHERE step = 2"),
        "entry 5: verdict",
    ),
    "a verdict added": (
        owner(
            "INSERT INTO work.requests (request_key, kind, study_id, model_id, arguments) SELECT 'forged', kind, "
            "study_id, model_id, arguments FROM work.requests WHERE kind = 'gate' LIMIT 1",
            "INSERT INTO work.gate_verdicts (request_id, study_id, model_id, incumbent_id, test_set_id, purpose, step, "
            "symbol, planned, cached) SELECT (SELECT max(id) FROM work.requests), study_id, model_id, incumbent_id, "
            "test_set_id, purpose, 1, 'pass', true, true FROM work.gate_verdicts WHERE step = 2",
        ),
        "is in no entry",
    ),
    "the pointer moved": (
        owner("UPDATE work.production SET model_id = (SELECT max(id) FROM work.models WHERE study_id = 1)"),
        "is in production by promotion 1; the last promotion is 1",
    ),
    "a promotion's ground edited": (
        owner(
            "UPDATE work.promotions SET kind = 'force', who = 'ann', why = 'it is good', gate_request_id = NULL, "
            "symbol = NULL, planned = NULL"
        ),
        "promotion 1 is not what",
    ),
    "the last promotion deleted": (
        owner("DELETE FROM work.production", "DELETE FROM work.promotions"),
        "promotion 1 is gone",
    ),
    "an audit row edited": (owner("UPDATE work.audit SET reason = 'none' WHERE id = 2"), "entry 3: audit 2 is not"),
    "the audit truncated": (owner("TRUNCATE work.audit"), "chain audit, entry 2: audit 1 is gone"),
    "the end of a chain truncated": (owner(f"DELETE FROM sealed.chain WHERE {ENTRY}"), "entry 5: it follows entry 3"),
    "an entry duplicated": (
        owner(
            "ALTER TABLE sealed.chain DROP CONSTRAINT chain_subject_key",
            f"INSERT INTO sealed.chain (chain, place, {COPIED}) SELECT chain, 6, {COPIED} FROM sealed.chain "
            f"WHERE {ENTRY}",
        ),
        "entry 6: it does not name the hash",
    ),
    "an entry of another chain spliced in": (
        owner(
            f"DELETE FROM sealed.chain WHERE {ENTRY}",
            f"INSERT INTO sealed.chain (chain, place, {COPIED}) SELECT 'set/1', 4, {COPIED} FROM sealed.chain "
            "WHERE chain = 'audit' AND place = 4",
        ),
        "entry 4: it does not name the hash",
    ),
    "rewritten with another key": (lambda o: _forge(o, SigningKey.new()), "entry 4: key"),
    "rewritten without a key": (lambda o: _forge(o, None), "entry 4: it is not signed"),
    "the host's key replaced": (_write_file(KEY, lambda _: SigningKey.new().pem()), "it was replaced"),
    "the marks deleted": (_write_file(MARKS, lambda _: None), "are gone"),
    "the marks lowered": (_write_file(MARKS, _raised), "are not signed by a key of this folder"),
    "the time of an entry edited": (
        owner(f"UPDATE sealed.chain SET at = at - interval '1 day' WHERE {ENTRY}"),
        "its hash is not that of what it says",
    ),
    "a nonce edited": (owner(f"UPDATE sealed.chain SET nonce = sha256('n') WHERE {ENTRY}"), "or the nonce"),
    "a signature edited": (
        owner(f"UPDATE sealed.chain SET signature = decode(repeat('00', 64), 'hex') WHERE {ENTRY}"),
        "entry 4: the signature",
    ),
    "a plan edited": (
        owner("UPDATE work.test_sets SET plan = plan || '{\"reliability\": 0.5}' WHERE id = 1"),
        "the sealed set is not what it was: plan",
    ),
    "labels edited": (
        owner("UPDATE sealed.test_sets SET labels = set_byte(labels, length(labels) - 1, 7) WHERE id = 1"),
        "the sealed set is not what it was: labels",
    ),
    "a fingerprint edited": (
        owner("UPDATE sealed.test_sets SET fingerprint = repeat('a', 64) WHERE id = 1"),
        "the sealed set is not what it was: fingerprint",
    ),
    "predictions edited": (
        owner("UPDATE sealed.predictions SET labels = set_byte(labels, length(labels) - 1, 7) WHERE test_set_id = 1"),
        "entry 2: ledger 1 is not what",
    ),
}


@pytest.mark.parametrize(("tamper", "found"), TAMPERING.values(), ids=list(TAMPERING))
def test_what_is_changed_behind_the_referee_is_found_and_the_set_judges_nothing(
    office: Office, tamper: Callable[[Office], None], found: str
) -> None:
    tamper(office)
    office.require_locked(found)
    assert office.lab.rows("SELECT 1 FROM sealed.ledger WHERE step = 3") == []


EDITED = "UPDATE sealed.ledger SET report = report || '{\"wins\": %d}' WHERE step = %d AND test_set_id = 1"


def test_a_sound_audit_counts_for_a_while_and_a_broken_one_never(office: Office, monkeypatch: Any) -> None:
    """Twenty times as long as the check took where it may take a twentieth of the time, at most a minute."""
    now = [1000.0]
    monkeypatch.setattr(notary, "time", SimpleNamespace(monotonic=lambda: now.__setitem__(0, now[0] + 0.5) or now[0]))
    patient = Notary(office.lab.referee, office.keys, audit_share=0.05)
    patient.require_sound([1])  # the check has taken .5 s by this clock, so it counts for 9.5
    owner("UPDATE work.audit SET reason = 'none' WHERE id = 2")(office)
    now[0] += 7
    patient.require_sound([1])
    now[0] += 3
    for _ in range(2):
        with pytest.raises(StateError, match="test set 1 is locked"):
            patient.require_sound([1])
    with pytest.raises(StateError, match="test set 1 is locked"):
        Notary(office.lab.referee, office.keys).require_sound([1])


def test_all_chains_are_checked_some_at_a_time(office: Office, monkeypatch: Any, caplog: Any) -> None:
    """Answers leave in between: with a thousand sets a check of all takes ten seconds."""
    with office.lab.referee.begin() as tx:
        names = sorted(chain.names(tx))
    monkeypatch.setattr(notary, "LOOK_AT_ONCE_SECONDS", -1.0)
    owner("UPDATE work.audit SET reason = 'none' WHERE id = 2")(office)
    checked = office.notary()
    assert [checked.look_over() for _ in names] == [True] * (len(names) - 1) + [False]
    assert not checked.look_over()  # the next round is not due
    referee = office.referee()
    while office.notary().append_committed():
        pass
    assert [referee._say_or_move() for _ in names] == [True] * (len(names) - 1) + [False]  # no pause between the parts
    assert [r.message.partition(": ")[0] for r in caplog.records if "audit 2" in r.message] == [
        "evidence is broken"
    ] * 2


def test_marks_are_read_again_once_another_process_has_written_them(tmp_path: Path) -> None:
    """The inode of the file that was read is not given to a newer one, and a key that is no longer trusted counts."""
    mine, other = KeyFolder(tmp_path / "keys"), KeyFolder(tmp_path / "keys")
    assert mine.make_key()
    assert not other.make_key()
    for place in range(1, 20):
        head = Head("set/1", place, bytes([place]) * 32)
        (other if place % 3 else mine).change_marks(lambda marks, head=head: marks.raised(head))
        assert mine.marks().heads == other.marks().heads == {"set/1": head}
    mine.path_of(mine.key().public).rename(tmp_path / "away")
    assert "are not signed by a key of this folder" in mine.marks().fault


def test_a_set_judges_again_once_it_is_acknowledged_and_a_later_change_is_found_again(office: Office) -> None:
    owner(EDITED % (1, 1))(office)
    _write_file(MARKS, lambda _: b"")(office)
    with pytest.raises(StateError, match="that concerns every chain"):
        office.notary().acknowledge(["set/1"], who="ada", reason="ticket 4711")
    answer = office.notary().acknowledge(None, who="ada", reason="ticket 4711")
    assert any("ledger 1 is not what" in str(one) for one in answer)
    assert office.broken() == []
    assert office.gate("worse").symbol in ("pass", "fail")
    (content,) = office.lab.rows("SELECT content FROM sealed.chain WHERE chain = 'set/1' AND kind = 'acknowledged'")
    assert (content[0]["who"], content[0]["reason"]) == ("ada", "ticket 4711")
    for edited in (EDITED % (2, 1), EDITED % (2, 2)):
        owner(edited)(office)
        assert "is not what" in office.broken()[0]
        office.notary().acknowledge(["set/1"], who="ada", reason="again")
        assert office.broken() == []


def test_a_chain_that_left_the_database_is_a_finding_of_its_own_and_nothing_is_judged(office: Office) -> None:
    """A set that was deleted with its chain, as after the restore of a backup that is older than the set."""
    assert office.gate("worse", study="first").symbol in ("pass", "fail")
    (set_id,) = office.lab.rows("SELECT test_set_id FROM work.gate_verdicts ORDER BY request_id DESC LIMIT 1")[0]
    of_this_set = f"WHERE test_set_id = {set_id}"
    owner(
        f"DELETE FROM sealed.chain WHERE chain = 'set/{set_id}'",
        f"DELETE FROM sealed.chains WHERE name = 'set/{set_id}'",
        f"DELETE FROM sealed.outbox WHERE request_id IN (SELECT request_id FROM sealed.ledger {of_this_set})",
        *(f"DELETE FROM {table} {of_this_set}" for table in ("sealed.ledger", "work.gate_verdicts")),
        *(f"DELETE FROM {table} WHERE id = {set_id}" for table in ("sealed.test_sets", "work.test_sets")),
    )(office)
    (broken,) = office.broken()
    assert f"chain audit: chain set/{set_id} is not in the database, and this host has seen 3 entries of it" in broken
    assert verify_all(office.lab.referee, office.keys).broken == (broken,)
    assert "judges nothing" in office.gate("worse").message  # another study's set could have been made live again
    for name, remedy in ((f"set/{set_id}", "acknowledge that one"), ("set/999", "lists the chains")):
        with pytest.raises(NotFoundError, match=remedy):
            office.notary().acknowledge([name], who="ada", reason="ticket 4711")
    assert [str(one) for one in office.notary().acknowledge(["audit"], who="ada", reason="restored")] == [broken]
    assert office.broken() == []
    assert office.gate("worse").symbol == "fail"


def test_why_a_model_could_not_be_run_is_signed_with_its_fail(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed_runs, "run_model", lambda *_: (None, "no luck"))  # as short as is kept with blanks
    not_run_yet = "WHERE test_set_id = 1 AND model = (SELECT format || ' ' || artifact FROM work.models WHERE id = %s)"
    office.lab.as_superuser(f"DELETE FROM sealed.predictions {not_run_yet}", office.lab.models["full"]["worse"])
    assert office.gate("worse").symbol == "fail"
    assert office.broken() == []
    owner("UPDATE sealed.predictions SET failure = 'bad luck' WHERE failure IS NOT NULL")(office)
    (broken,) = office.broken()
    assert "ledger 3 is not what" in broken


class Killed(BaseException):
    """The process ends here."""


def test_a_process_that_is_killed_between_the_steps_loses_nothing_and_raises_no_alarm(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*_: Any) -> Any:
        raise Killed

    intend = Notary._intend

    def intend_and_die(notary: Notary, *given: Any) -> Any:
        intend(notary, *given)
        raise Killed

    def intend_while_another_looks(notary: Notary, *given: Any) -> Any:
        intended = intend(notary, *given)
        assert office.broken() == []  # and it must not forget what is in progress still
        return intended

    asked = {"study": "full", "model_id": office.lab.models["full"]["worse"], "request_key": "killed"}
    request = file_gate_request(office.lab.worker, **asked)
    for name, dies in (("Notary._intend", intend_and_die), ("_done", kill)):  # before the commit, and after it
        with monkeypatch.context() as patched:
            patched.setattr(Notary, "_intend", intend_while_another_looks)
            patched.setattr(f"easeml_core.services.evidence.notary.{name}", dies)
            with pytest.raises(Killed):
                office.referee().answer_one()
        office.lab.end_leases()
        assert b'"transaction"' in (office.keys / MARKS).read_bytes()
        is_answered = answer_of(office.lab.worker, request) is not None
        assert is_answered == (name == "_done")
        if not is_answered:
            assert office.broken() == []
    # What was committed counts, though the mark was not written: to delete it is found.
    owner(
        "DELETE FROM sealed.chain WHERE chain = 'set/1' AND place > 5",
        "DELETE FROM work.gate_verdicts WHERE step = 3",
        "DELETE FROM sealed.outbox WHERE request_id = (SELECT max(request_id) FROM sealed.ledger)",
        "DELETE FROM sealed.ledger WHERE step = 3",
    )(office)
    assert "this host has seen 7 entries, and there are 5" in office.broken()[0]


def test_the_state_of_a_transaction_is_known_whatever_ends_after_it(office: Office) -> None:
    states = []

    def look(asked: chain.Transaction) -> None:
        with office.lab.referee.snapshot() as tx:
            states.append(chain.transaction_state(tx, asked))

    with office.lab.referee.begin() as tx:
        open_one = chain.transaction(tx)
        look(open_one)  # the newest of the server
        with office.lab.worker.begin() as other:
            chain.transaction(other)
        look(open_one)
    look(open_one)
    look(replace(open_one, number=open_one.number + 1_000_000))  # was not given out, or was forgotten in a crash
    assert states == ["in progress", "in progress", "committed", None]


def test_a_run_that_is_kept_after_the_verdict_breaks_no_chain(
    lab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The verdict rested on a run that was killed and is not kept; housekeeping runs the model again."""
    office = Office(lab, tmp_path / "keys")
    kept = (
        "SELECT count(*) FROM sealed.predictions p JOIN work.models m ON p.model = m.format || ' ' || m.artifact "
        f"WHERE test_set_id = 1 AND m.id = {lab.models['full']['worse']}"
    )
    lab.as_superuser(
        "DELETE FROM sealed.predictions p USING work.models m "
        "WHERE p.model = m.format || ' ' || m.artifact AND m.id = %s",
        lab.models["full"]["worse"],
    )

    def kill(*_: Any) -> Any:
        message = "the process was ended by SIGKILL"
        raise TrainingKilled(message)

    asked = {"study": "full", "model_id": lab.models["full"]["worse"], "request_key": "killed"}
    request = file_gate_request(lab.worker, **asked)
    with monkeypatch.context() as patched:
        patched.setattr(sealed_runs, "run_model", kill)
        impatient = Referee(lab.referee, lab.artifacts, keys=office.keys, timetable=Timetable(0.0), put_offs=0)
        assert impatient.answer_one() == request
    assert answer_of(lab.worker, request).symbol == "fail"
    assert (lab.one(kept), office.broken()) == (0, [])
    office.referee().run_once()
    assert (lab.one(kept), office.broken()) == (1, [])
    assert office.gate("rare").step == 2


def test_what_is_appended_after_a_change_does_not_hide_it(office: Office) -> None:
    owner("DELETE FROM sealed.chain WHERE chain = 'audit' AND place > 20")(office)
    with office.lab.worker.begin() as tx:
        tx.exec_driver_sql("UPDATE work.studies SET weight = 7 WHERE name = 'first'")
    office.referee().run_once()  # the rows without an entry are appended anew: the chain is longer than it was
    assert "it is not the entry that this host has seen at this place" in office.broken()[0]


def test_referees_on_two_hosts_extend_each_other_s_chains_once_they_trust_each_other(
    office: Office, tmp_path: Path
) -> None:
    second = Office(office.lab, tmp_path / "second")
    before = office.lab.one("SELECT count(*) FROM sealed.chain")
    signer = KeyFolder(office.keys).key().public
    with pytest.raises(StateError, match=f"second holds no signing key, and key {signer.id} signs"):
        second.referee().run_once()
    assert not second.keys.exists()
    KeyFolder(second.keys).make_key()
    for act in (second.referee().run_once, lambda: second.referee().run(threading.Event()), second.notary().rotate):
        with pytest.raises(StateError, match=f"no key of .*second has signed anything .* key {signer.id} signs"):
            act()
    assert office.lab.one("SELECT count(*) FROM sealed.chain") == before
    assert office.broken() == []
    for here, there in ((office, second), (second, office)):
        KeyFolder(here.keys).trust(KeyFolder(there.keys).key().public)
    assert second.gate("worse").symbol == "fail"
    assert office.broken() == second.broken() == []  # the first host's mark is shorter: what extends it is well
    owner("DELETE FROM work.gate_verdicts WHERE step = 3")(office)
    assert office.broken()
    assert second.broken()


def test_of_two_first_keys_the_one_that_has_signed_first_stays(lab: Any, tmp_path: Path) -> None:
    first, second = Notary(lab.referee, tmp_path / "first"), Notary(lab.referee, tmp_path / "second")
    assert all("made this host's signing key" in one.open_key() for one in (first, second))
    assert first.append_committed()
    with lab.worker.begin() as tx:
        tx.exec_driver_sql("UPDATE work.studies SET weight = 7 WHERE name = 'first'")
    with pytest.raises(StateError, match=r"no key of .*second has signed anything"):
        second.append_committed()
    assert first.append_committed()


def test_a_referee_whose_key_is_lost_goes_on_with_another_once_that_is_acknowledged(office: Office) -> None:
    (office.keys / KEY).unlink()
    with pytest.raises(StateError, match="holds no signing key"):
        office.notary().acknowledge(None, who="ada", reason="the disk is gone")
    shutil.rmtree(office.keys)
    KeyFolder(office.keys).make_key()
    with pytest.raises(StateError, match="has signed anything"):
        office.referee().run_once()
    assert office.notary().acknowledge(None, who="ada", reason="the disk is gone")
    assert office.gate("worse").symbol == "fail"
    assert office.broken() == []


def test_a_key_is_rotated_and_what_the_old_one_has_signed_stays_valid(office: Office) -> None:
    old, new = office.notary().rotate()
    assert office.gate("worse").symbol == "fail"
    assert office.broken() == []
    signers = office.lab.rows("SELECT kind, key_id FROM sealed.chain WHERE kind IN ('key', 'ledger') ORDER BY at")
    assert signers == [("ledger", old), ("ledger", old), ("key", old), ("ledger", new)]
    assert (office.keys / KEY).stat().st_mode & 0o777 == 0o600
    (office.keys / KEY).chmod(0o640)
    with pytest.raises(StateError, match="mode 0600"):
        office.referee().run_once()


def test_a_referee_appends_all_that_has_committed_before_it_waits(
    office: Office, wait_for: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("easeml_core.services.evidence.notary.APPEND_AT_ONCE", 1)
    for weight in (2, 3, 4):
        with office.lab.worker.begin() as tx:
            tx.exec_driver_sql(f"UPDATE work.studies SET weight = {weight} WHERE name = 'first'")
    missing = "SELECT count(*) FROM work.audit WHERE id NOT IN (SELECT subject FROM sealed.chain WHERE kind = 'audit')"
    assert office.lab.one(missing) >= 3
    stop = threading.Event()
    referee = Referee(office.lab.referee, office.lab.artifacts, keys=office.keys, poll_seconds=3600)
    thread = threading.Thread(target=referee.run, args=(stop,))
    thread.start()
    try:
        wait_for(lambda: office.lab.one(missing) == 0)
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive()


def test_audit_rows_that_commit_late_or_never_leave_no_gap(office: Office) -> None:
    notary, worker = office.notary(), office.lab.worker

    def chained() -> set[int]:
        while notary.append_committed():
            pass
        return {n for (n,) in office.lab.rows("SELECT subject FROM sealed.chain WHERE kind = 'audit'")}

    def there() -> set[int]:
        return {n for (n,) in office.lab.rows("SELECT id FROM work.audit")}

    def touch(tx: Any, weight: float) -> None:
        tx.exec_driver_sql(f"UPDATE work.studies SET weight = {weight} WHERE name = 'first'")

    with worker.begin() as never:
        touch(never, 2)
        never.rollback()
    with worker.begin() as late:
        touch(late, 3)
        with worker.begin() as early:
            early.exec_driver_sql("UPDATE work.studies SET weight = 4 WHERE name = 'full'")
        for _ in range(3):
            assert chained() == there()  # without waiting for the open one
    for _ in range(3):
        assert chained() == there()
    assert max(there()) - len(there()) == 1  # the number that was never committed
    order = [n for (n,) in office.lab.rows("SELECT subject FROM sealed.chain WHERE kind = 'audit' ORDER BY place")]
    assert order != sorted(order)
    assert office.broken() == []
