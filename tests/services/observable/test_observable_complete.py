"""Every column, route, command, event, mail, error and log that exists has a letter of the observable alphabet."""

from __future__ import annotations

import collections
import contextlib
import re
from typing import TYPE_CHECKING, Any

import pytest
from alphabet import ALPHABET, Basis, Kind, Letter, letter_of
from developer import NOT_RUN, command_lines
from surfaces import commands, found

from easeml_airflow.web import app as web
from easeml_airflow.web.server.auth import Viewer
from easeml_airflow.web.server.site import Site

if TYPE_CHECKING:
    from pathlib import Path

WHERE = {kind: "interfaces.py" for kind in Kind} | {
    kind: "database.py" for kind in (Kind.TABLE, Kind.COLUMN, Kind.VALUE, Kind.FUNCTION, Kind.CATALOGUE, Kind.TOPIC)
}
HOW = """
{kind} {name!r} has no letter, so nothing states whether it may depend on sealed labels.
Add it to scripts/alphabet/{file} with the letter that says what it depends on (letters.py defines them) and the
reason; then run `make reference`. A letter with the basis "public facts" is compared by value between two worlds with
different sealed labels, one with the basis "released symbols" where the symbols are equal."""


@pytest.fixture(scope="module")
def existing(server: Any) -> dict[Kind, set[str]]:
    from easeml_core.store.database import Store

    app = web.create_app(
        Site(lambda: None, lambda: None, lambda: None, lambda: Viewer("ann")),
        require_login=lambda: None,
        rights=lambda *, write: lambda: "ann",
    )
    store = Store(server.url("easeml_worker", "easeml"))
    yield found(store, app)
    store.close()


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.CATALOGUE])
def test_everything_that_exists_has_a_letter_and_the_reverse(existing: dict[Kind, set[str]], kind: Kind) -> None:
    known = {item.name for item in ALPHABET if item.kind is kind}
    missing = sorted(existing[kind] - known)
    assert not missing, "".join(HOW.format(kind=kind, name=name, file=WHERE[kind]) for name in missing)
    gone = sorted(known - existing[kind])
    assert not gone, f"{kind} {gone} no longer exists: remove it from scripts/alphabet/{WHERE[kind]}"


def test_every_command_with_a_database_can_be_run_in_two_worlds(tmp_path: Path) -> None:
    given = {"model_id": 1, "trial_id": 1, "handle": 1}
    named = {line.name for line in command_lines("full", given, tmp_path, is_first=True)}
    with_database = {" ".join(words) for words, c in commands() if any(p.name == "database" for p in c.params)}
    assert named == with_database - NOT_RUN


def test_only_the_worker_reads_the_installation_beside_the_referee(server: Any) -> None:
    """The two worlds look as ``easeml_worker``: a role that may connect, too, would need sights of its own."""
    with contextlib.closing(server.connect(database="easeml")) as opened, opened.cursor() as cursor:
        cursor.execute(
            "SELECT rolname FROM pg_roles WHERE has_database_privilege(oid, 'easeml', 'CONNECT') AND NOT rolsuper "
            "AND NOT pg_has_role(oid, 'easeml_owner', 'USAGE') ORDER BY 1"
        )
        beside = [
            "easeml_device",
            "easeml_scheduler",
            "easeml_tenant",
        ]  # they read a part of what the worker reads
        assert [name for (name,) in cursor if name not in beside] == ["easeml_referee", "easeml_worker"]


def test_no_function_that_a_worker_may_call_with_the_rights_of_another_reads_what_is_sealed(server: Any) -> None:
    """Such a function could read schema sealed for its caller; a trigger's function cannot be called."""
    with contextlib.closing(server.connect(database="easeml")) as opened, opened.cursor() as cursor:
        cursor.execute(
            "SELECT p.proname, pg_get_functiondef(p.oid) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace "
            "WHERE p.prosecdef AND has_schema_privilege('easeml_worker', n.oid, 'USAGE') "
            "AND has_function_privilege('easeml_worker', p.oid, 'EXECUTE') AND p.prorettype <> 'trigger'::regtype"
        )
        found = dict(cursor.fetchall())
        cursor.execute(
            "SELECT string_agg(prosrc, '') FROM pg_proc WHERE proname IN ('delete_now', 'delete_tenant_now')"
        )
        (called,) = cursor.fetchone()
    # Look at what it reads before one joins them.
    looked_at = {"rival_of", "change_study", "change_tenant", "set_candidate_withdrawn", "announce_device"}
    assert set(found) <= looked_at
    assert not [name for name, text in found.items() if "sealed." in text or "EXECUTE " in text]
    # What these call to delete a study that was never sealed, or a tenant without studies.
    assert set(re.findall(r"sealed\.(\w+)", called)) == {
        "attempts",
        "claims",
        "outbox",
        "put_offs",
        "referees",
        "turns",
    }


def test_an_item_has_one_letter_and_a_reason() -> None:
    counts = collections.Counter((item.kind, item.name) for item in ALPHABET)
    assert [name for name, count in counts.items() if count > 1] == []
    assert all(item.why.endswith(".") for item in ALPHABET)
    assert {item.letter for item in ALPHABET} | {Letter.WANTED, Letter.LABEL_COUNT} == set(Letter)


def test_no_column_that_a_worker_reads_holds_sealed_data() -> None:
    assert [
        i.name for i in ALPHABET if i.kind is Kind.COLUMN and i.letter.basis in (Basis.SEALED, Basis.STOPPING)
    ] == []


def test_a_column_depends_on_at_least_what_its_rows_depend_on() -> None:
    for item in (i for i in ALPHABET if i.kind is Kind.COLUMN):
        rows = letter_of(Kind.TABLE, item.name.rpartition(".")[0])
        assert rows is not None
        if rows.basis is Basis.SYMBOLS:
            assert item.letter.basis in (Basis.SYMBOLS, Basis.TIMES, Basis.RANDOM), item.name
