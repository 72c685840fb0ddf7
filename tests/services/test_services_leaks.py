"""What the developer's side can reach tells of the sealed sets what was released, and nothing else.

Two installations that are alike to the last id live through the same requests; only their sealed labels differ, in a
way that changes counts, p-values, intervals and gaps but no symbol. All that a worker can see must then be equal.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg2
import pytest

from easeml_core.errors import StoreError
from easeml_core.services.alerts import open_alerts
from easeml_core.services.answers import Timetable
from easeml_core.services.overview import overview, study_details
from easeml_core.services.referee import Referee
from easeml_core.services.requests import answer_of, file_gate_request
from easeml_core.store import labels, sealed
from easeml_core.store.database import CHANNEL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GATE_SETS, METER_SETS = (1, 3, 5), (2, 4, 6)  # of the studies full, first, hidden

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
        seen["answer_texts" if name == "answers" else name] = sorted(
            map(repr, see(f"SELECT {columns} FROM {schema}.{name}"))
        )
    return seen


@contextlib.contextmanager
def overheard(lab: Any) -> Iterator[list[str]]:
    """What a worker hears on the channel that every role may listen to."""
    address = lab.url("easeml_worker").replace("postgresql+psycopg2", "postgresql")
    heard: list[str] = []
    with contextlib.closing(psycopg2.connect(address)) as ear:
        ear.autocommit = True
        with ear.cursor() as cursor:
            cursor.execute(f"LISTEN {CHANNEL}")
            yield heard
            cursor.execute("SELECT 1")
        heard.extend(n.payload for n in ear.notifies)


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
        "answers": answers,
        "pages": without_times(pages),
        "log": [r.getMessage() for r in caplog.records if r.name.startswith("easeml_core")],
        "heard": heard,
        **reachable(lab),
    }


def everything(lab: Any) -> list[Any]:
    """Gates of all three kinds, cached and refused ones, a promotion, readings."""
    lab.allow_other_conditions()  # one that is refused costs none
    asked = [lab.gate(model, study) for study in lab.models for model in ("rare", "good", "rare")]
    asked.append(lab.promote(next(a["request_id"] for a in asked if a.get("symbol") == "pass")))
    asked += [lab.gate("good", condition=condition) for condition in ("n - o > 0 +/- 0.01", "n - o > 0.1 +/- 0.2")]
    return [*asked, lab.meter("rare"), lab.meter("rare"), lab.meter("rare", "first")]


def reports(lab: Any) -> list[dict[str, Any]]:
    return [report for (report,) in lab.rows("SELECT report FROM sealed.ledger ORDER BY id")]


def flip(count: int) -> Callable[[np.ndarray], np.ndarray]:
    """The other label for some examples of either class, not equally many: every two models then fare otherwise."""

    def change(labels: np.ndarray) -> np.ndarray:
        changed = labels.copy()
        changed[np.flatnonzero(labels == 1)[:count]] = 0
        changed[np.flatnonzero(labels == 0)[: count // 3]] = 1
        return changed

    return change


def relabel(worlds: tuple[Any, Any], set_id: int, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Let the second world have other labels; the first is written as often, so that no size tells them apart."""
    here, there = worlds
    here.relabel(set_id, lambda labels: labels)
    there.relabel(set_id, change)


@pytest.fixture
def worlds(make_lab: Any) -> tuple[Any, Any]:
    return make_lab(), make_lab()


def test_worlds_that_differ_only_in_what_is_sealed_look_alike(worlds: Any, caplog: Any) -> None:
    here, there = worlds
    for set_id, count in [*((s, 12) for s in GATE_SETS), *((s, 3) for s in METER_SETS)]:
        relabel(worlds, set_id, flip(count))
    seen, elsewhere = (live_through(lab, caplog, everything) for lab in worlds)
    for what in seen:
        assert seen[what] == elsewhere[what], what
    # And the worlds do differ, in every single verdict and reading:
    assert len(reports(here)) == 9
    for ours, theirs in zip(reports(here), reports(there), strict=True):
        assert ours != theirs
    # And there was something to see:
    released = [a.get("symbol", a.get("signal")) for a in seen["answers"]]
    assert {"pass", "fail", "withheld", 1, None} <= set(released)


def two_meters_and_a_shared_set(lab: Any) -> list[Any]:
    """Readings on two sets at once, repeated ones, and verdicts and signals out of one ledger."""
    asked = [lab.meter(lab.models[s][m], s) for s in ("two", "shared") for m in ("rare", "other", "rare")]
    return [
        *asked,
        lab.gate(lab.models["shared"]["rare"], "shared"),
        lab.meter(lab.models["shared"]["third"], "shared"),
    ]


def test_nothing_more_shows_of_two_meters_or_of_a_shared_set(worlds: Any, caplog: Any, tmp_path: Path) -> None:
    gate = {"condition": "n > 0.1 +/- 0.25", "steps": 3, "estimator": "paper", "adaptivity": "full"}
    meter = {"ranges": (-0.2, 0.6), "tolerance": 0.19, "steps": 4, "ambiguous": 4, "overfitting_budget": 3}
    for lab in worlds:
        lab.models = {}
        lab.register("two", gate=gate | {"reliability": 0.8}, meter=meter | {"reliability": 0.8}, direct={"share": 0.5})
        lab.register("shared", gate=gate, meter=meter, joint={"reliability": 0.6})
        for study in ("two", "shared"):
            lab.models[study] = {}
            for blanks, name in enumerate(("rare", "other", "third")):
                path = tmp_path / f"{study}-{name}"
                path.write_text('{"label": 0}' + " " * blanks)
                lab.models[study][name] = lab.hand_in(study, name, path, kind="constant", loss=0.6)
        # Numbers of transactions are the server's, and times are of no interest.
        lab.as_superuser("UPDATE work.studies SET active_since = '2026-01-01'")
        lab.as_superuser("UPDATE work.catalogue SET changed_by = '1'")
    here, there = worlds
    kinds = dict(here.rows("SELECT id, purpose FROM work.test_sets WHERE id > 6"))
    for set_id, purpose in kinds.items():
        if purpose != "gate":
            relabel(worlds, set_id, flip(7 if purpose == "direct" else 4))
    seen, elsewhere = (live_through(lab, caplog, two_meters_and_a_shared_set) for lab in worlds)
    for what in seen:
        assert seen[what] == elsewhere[what], what
    assert sorted(kinds.values()) == ["direct", "gate", "joint", "meter"]
    systems = here.rows("SELECT test_set_id, system FROM sealed.ledger ORDER BY id")
    assert [(kinds[set_id], system) for set_id, system in systems] == [
        *[("meter", "meter"), ("direct", "meter")] * 2,
        *[("joint", "meter")] * 2,
        ("joint", "gate"),
        ("joint", "meter"),
    ]
    for ours, theirs in zip(reports(here), reports(there), strict=True):
        assert ours != theirs
    assert {a["drift"] for a in seen["answers"][:3]} == {"none seen"}
    said = json.dumps(seen, default=str)
    assert [figure for figure in figures(reports(here)) if figure in said] == []


def test_under_none_not_even_the_verdict_shows(worlds: Any, caplog: Any) -> None:
    here, there = worlds
    relabel(worlds, 5, lambda labels: 1 - labels)  # now the good model is the worse one

    def ask(lab: Any) -> list[Any]:
        return [lab.gate("good", "hidden"), lab.gate("rare", "hidden"), lab.gate("good", "hidden")]

    seen, elsewhere = (live_through(lab, caplog, ask) for lab in worlds)
    assert [r["symbol"] for r in reports(here)] == ["pass", "fail", "pass"]
    assert [r["symbol"] for r in reports(there)] == ["fail", "pass", "fail"]
    assert seen == elsewhere


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
        assert without_symbols(seen[what]) == without_symbols(elsewhere[what]), what


def test_under_none_with_mail_and_a_delay_nothing_shows_either(worlds: Any, caplog: Any) -> None:
    relabel(worlds, 5, lambda labels: 1 - labels)
    for lab in worlds:
        lab.as_superuser("""UPDATE work.test_sets SET plan = plan || '{"mail": "a@b.example"}' WHERE id = 5""")

    def ask(lab: Any) -> list[Any]:
        given = {"study": "hidden", "model_id": lab.models["hidden"]["good"], "request_key": "k"}
        asked = file_gate_request(lab.worker, **given)["request_id"]
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


def test_who_waits_for_labels_looks_alike_whatever_they_will_be(worlds: Any, caplog: Any) -> None:
    truths = []
    for lab, change in zip(worlds, (lambda labels: labels, lambda labels: 1 - labels), strict=True):
        with lab.referee.begin() as tx:
            truths.append(change(sealed.sealed_labels(tx, 1).astype(np.int64)))
        lab.relabel(1, lambda labels: np.full_like(labels, -1))

    def ask_and_label(lab: Any) -> list[Any]:
        asked = file_gate_request(lab.worker, study="full", model_id=2, request_key="k")["request_id"]
        lab.answer_all()
        waiting = reachable(lab)
        with lab.referee.begin() as tx:
            labels.keep_labels(tx, 1, "ann", truths[worlds.index(lab)])
        lab.answer_all()
        return [waiting, answer_of(lab.worker, asked)]

    seen, elsewhere = (live_through(lab, caplog, ask_and_label) for lab in worlds)
    assert seen["answers"][0] == elsewhere["answers"][0]
    assert [s["answers"][1]["symbol"] for s in (seen, elsewhere)] == ["pass", "fail"]
    for what in seen:
        assert without_symbols(seen[what]) == without_symbols(elsewhere[what]), what


def test_the_statistics_of_the_server_are_closed_in_our_database_only(lab: Any, server: Any) -> None:
    asked = "SELECT relname, n_tup_ins, n_tup_upd FROM pg_stat_all_tables WHERE schemaname = 'sealed'"
    for sql in (asked, SIZES, "SELECT pg_current_wal_lsn()", "SELECT * FROM pg_stat_activity"):
        with pytest.raises(StoreError, match="permission denied for function"):
            lab.rows(sql, store=lab.worker)
    with contextlib.closing(server.connect("airflow", "airflow")) as opened, opened.cursor() as cursor:
        for sql in ("SELECT count(n_tup_ins) FROM pg_stat_all_tables", "SELECT pg_relation_size('pg_class')"):
            cursor.execute(sql)  # Airflow's own database keeps its statistics
            assert cursor.fetchone()[0] > 0


def test_the_manual_has_what_closes_them() -> None:
    from easeml_core.store import roles

    manual = (Path(__file__).resolve().parents[2] / "docs/install.md").read_text(encoding="utf-8")
    assert roles._CLOSE_STATISTICS.strip() in manual


def test_the_catalogue_does_not_learn_how_large_what_was_decided_is(lab: Any) -> None:
    options = "SELECT array_to_string(reloptions, ',') FROM pg_class WHERE oid = CAST(:name AS regclass)"
    for (table,) in lab.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'sealed'"):
        assert "autovacuum_enabled=false" in (lab.one(options, name=f"sealed.{table}") or ""), table


def test_the_comparison_would_notice_a_symbol(worlds: Any, caplog: Any) -> None:
    relabel(worlds, 1, lambda labels: 1 - labels)
    seen, elsewhere = (live_through(lab, caplog, lambda lab: [lab.gate("good")]) for lab in worlds)
    assert [w for w in seen if seen[w] != elsewhere[w]] == ["answers", "pages", "answer_texts", "gate_verdicts"]


def figures(value: Any) -> set[str]:
    """All figures of a report that are not round numbers."""
    if isinstance(value, dict):
        return set().union(*(figures(v) for v in value.values()))
    if isinstance(value, list):
        return set().union(*map(figures, value))
    return {repr(value)} if isinstance(value, float) and math.isfinite(value) and value != round(value, 2) else set()


def test_no_figure_of_any_report_can_be_found(lab: Any, caplog: Any) -> None:
    said = json.dumps(live_through(lab, caplog, everything), default=str)
    told = figures(reports(lab))
    assert len(told) > 30
    assert [figure for figure in told if figure in said] == []
    words = ("p_value", "log_p", "log_level", "log_cost", "interval", 'gap":', "wins", "losses", 'validation_loss":')
    for word in words:
        assert word not in json.dumps(lab.gate("good", condition="n - o > 0.1 +/- 0.2")) + said.replace("'", '"')
