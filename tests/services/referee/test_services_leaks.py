"""Worlds with other symbols differ in the symbols alone, a delayed answer shows nothing, and statistics are closed.

Worlds in which only the sealed labels differ, in every mode and through everything that a developer can observe:
``observable/test_observable_worlds.py``.
"""

from __future__ import annotations

import contextlib
import logging
import re
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest

from easeml_core.errors import StoreError
from easeml_core.formats.encoding import to_json
from easeml_core.services.meter.alerts import open_alerts
from easeml_core.services.referee.process import Referee
from easeml_core.services.referee.publishing import Timetable
from easeml_core.services.referee.requests import answer_of, file_gate_request
from easeml_core.services.reports.overview import overview, study_details
from easeml_core.store.database import CHANNEL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np

READABLE = """
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'v', 'm', 'f', 'p', 'S') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
AND has_schema_privilege(n.oid, 'USAGE') AND has_any_column_privilege(c.oid, 'SELECT')
ORDER BY 1, 2
"""
COLUMNS = """
SELECT column_name FROM information_schema.columns WHERE table_schema = :schema AND table_name = :name
AND data_type <> 'timestamp with time zone' AND (table_name, column_name) NOT IN (
  ('evidence', 'head'), ('evidence', 'audit_head'), ('evidence', 'envelope'))  -- hashes over secret random nonces
ORDER BY ordinal_position
"""
TIMES = re.compile(r'"\d{4}-\d\d-\d\dT[0-9:.]+(Z|\+00:00)"')
"""Times within JSON."""

SIZES = """
SELECT c.relname, pg_relation_size(c.oid), pg_total_relation_size(c.oid) FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'sealed' AND c.relkind = 'r' ORDER BY 1
"""

CATALOGUE = """
SELECT c.relname, c.relpages, c.reltuples FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'sealed' ORDER BY 1
"""


def reachable(lab: Any) -> dict[str, Any]:
    """Every row that a worker may read but its times, and the sizes that every role may ask for."""

    def see(sql: str, **values: Any) -> list[Any]:
        return list(lab.rows(sql, store=lab.worker, **values))

    tables = see(READABLE)
    assert {schema for schema, _ in tables} == {"work"}
    # No role of ours may ask for sizes; where a server was not closed (docs/install.md) they must not tell either.
    seen: dict[str, Any] = {"sizes": lab.superuser_rows(SIZES), "catalogue": lab.superuser_rows(CATALOGUE)}
    for schema, name in tables:
        columns = ", ".join(f"{c}::text" for (c,) in see(COLUMNS, schema=schema, name=name))
        texts = map(repr, see(f"SELECT {columns} FROM {schema}.{name}"))
        seen["answer_texts" if name == "answers" else name] = sorted(TIMES.sub("TIME", found) for found in texts)
    return seen


@contextlib.contextmanager
def overheard(lab: Any) -> Iterator[list[str]]:
    """What a worker hears on the channel that every role may listen to."""
    address = lab.url("easeml_worker").replace("postgresql+psycopg2", "postgresql")
    heard: list[str] = []
    with contextlib.closing(psycopg2.connect(address)) as listener:
        listener.autocommit = True
        with listener.cursor() as cursor:
            cursor.execute(f"LISTEN {CHANNEL}")
            yield heard
            cursor.execute("SELECT 1")
        heard.extend(n.payload for n in listener.notifies)


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if not k.endswith("_at")}
    return [without_times(v) for v in value] if isinstance(value, list) else value


def live_through(lab: Any, caplog: Any, ask: Callable[[Any], list[Any]]) -> dict[str, Any]:
    """Everything that came out of a number of requests on the developer's side."""
    files = sorted(p.name for p in lab.artifacts.root.rglob("*"))
    caplog.clear()
    with overheard(lab) as heard, caplog.at_level(logging.DEBUG, logger="easeml_core"):
        answers = ask(lab)
    assert sorted(p.name for p in lab.artifacts.root.rglob("*")) == files  # judging leaves no file
    pages = [overview(lab.worker), open_alerts(lab.worker, study=None)]
    pages += [study_details(lab.worker, study=study) for study in lab.models]
    return {
        "answers": to_json(answers),
        "pages": without_times(to_json(pages)),
        "log": [r.getMessage() for r in caplog.records if r.name.startswith("easeml_core")],
        "heard": heard,
        **reachable(lab),
    }


def relabel(worlds: tuple[Any, Any], set_id: int, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Let the second world have other labels; the first is written as often, so that no size tells them apart."""
    here, there = worlds
    here.relabel(set_id, lambda labels: labels)
    there.relabel(set_id, change)


@pytest.fixture
def worlds(make_lab: Any) -> tuple[Any, Any]:
    return make_lab(), make_lab()


def without_symbols(value: Any) -> Any:
    """The same with one word for both symbols, and without what follows from them: what is next."""
    if isinstance(value, dict):
        return {k: without_symbols(v) for k, v in value.items() if k != "next"}
    if isinstance(value, list | tuple):
        return sorted(map(repr, map(without_symbols, value)))
    return re.sub(r"\b(pass|fail)\b", "SYMBOL", value) if isinstance(value, str) else value


def test_worlds_with_other_symbols_differ_in_the_symbols_alone(worlds: Any, caplog: Any) -> None:
    relabel(worlds, 1, lambda labels: 1 - labels)

    def ask(lab: Any) -> list[Any]:
        return [lab.gate(model) for model in ("good", "rare", "good", "worse")]  # the set retires in both worlds

    seen, elsewhere = (live_through(lab, caplog, ask) for lab in worlds)
    assert [a["symbol"] for a in seen["answers"]] != [a["symbol"] for a in elsewhere["answers"]]
    for what in seen:
        if what == "assessments":  # what is next of each study, which follows from the symbols
            continue
        assert without_symbols(seen[what]) == without_symbols(elsewhere[what]), what


def test_under_none_with_mail_and_a_delay_nothing_shows_either(worlds: Any, caplog: Any) -> None:
    relabel(worlds, 5, lambda labels: 1 - labels)
    for lab in worlds:
        lab.as_superuser("""UPDATE work.test_sets SET plan = plan || '{"mail": "a@b.example"}' WHERE id = 5""")

    def ask(lab: Any) -> list[Any]:
        given = {"study": "hidden", "model_id": lab.models["hidden"]["good"], "request_key": "k"}
        asked = file_gate_request(lab.worker, **given)
        late = Referee(lab.referee, lab.artifacts, timetable=Timetable(delay_seconds=3600))
        late.run_once()
        between = answer_of(lab.worker, asked)
        lab.as_superuser("UPDATE sealed.outbox SET leaves_at = now()")
        late.run_once()
        return [between, answer_of(lab.worker, asked), *(lab.gate(m, "hidden") for m in ("rare", "worse"))]

    seen, elsewhere = (live_through(lab, caplog, ask) for lab in worlds)
    assert seen == elsewhere
    assert seen["answers"][0] is None
    bodies = [lab.rows("SELECT body FROM sealed.mails ORDER BY id") for lab in worlds]
    assert len(bodies[0]) == len(bodies[1]) == 4  # three verdicts and the alarm
    assert bodies[0] != bodies[1]


def test_the_statistics_of_the_server_are_closed_in_our_database_only(lab: Any, server: Any) -> None:
    asked = "SELECT relname, n_tup_ins, n_tup_upd FROM pg_stat_all_tables WHERE schemaname = 'sealed'"
    for sql in (asked, SIZES, "SELECT pg_current_wal_lsn()", "SELECT * FROM pg_stat_activity"):
        with pytest.raises(StoreError, match="permission denied for function"):
            lab.rows(sql, store=lab.worker)
    with contextlib.closing(server.connect("airflow", "airflow")) as opened, opened.cursor() as cursor:
        for sql in ("SELECT count(n_tup_ins) FROM pg_stat_all_tables", "SELECT pg_relation_size('pg_class')"):
            cursor.execute(sql)  # Airflow's own database keeps its statistics
            assert cursor.fetchone()[0] > 0


def test_the_catalogue_does_not_learn_how_large_what_was_decided_is(lab: Any) -> None:
    options = "SELECT array_to_string(reloptions, ',') FROM pg_class WHERE oid = CAST(:name AS regclass)"
    for (table,) in lab.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'sealed'"):
        assert "autovacuum_enabled=false" in (lab.one(options, name=f"sealed.{table}") or ""), table


pytestmark = pytest.mark.own_database  # others' connections are looked at
