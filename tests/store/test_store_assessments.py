"""Kept assessments: which changes they hear of, and what a page selects from them."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event

from easeml_core.errors import ConcurrentUpdateError
from easeml_core.services.reports.assessments import assess_changes, kept_of, out_of_step
from easeml_core.store.database import Store
from easeml_core.store.queries import assessments, overview
from easeml_core.store.queries.assessments import Choice, KeptNeed
from easeml_core.store.queries.overview import InstallationTotals, counted_studies
from easeml_core.store.rows import change, scalar
from easeml_core.store.tables import trials

if TYPE_CHECKING:
    from collections.abc import Callable

ALL = Choice(standing="", kind="", text="", order="name", names=None)
SUMS = InstallationTotals(seconds=100.0, weight=3.0)

# Of what a summary reads: a data set never changes, a row of the audit comes with the row of a set that it is about,
# and the last two are the mechanism's own.
UNHEARD = {"data_sets", "audit", "assessments", "study_changes"}


def test_every_table_that_a_summary_reads_reports_its_changes(database: Any, ask: Any) -> None:
    reads = set(re.findall(r"work\.([a-z_]+)\b(?!\()", overview._COUNTED)) - UNHEARD
    assert len(reads) >= 13
    found = ask("SELECT event_object_table, event_manipulation, trigger_name FROM information_schema.triggers")
    heard = {(table, what) for table, what, name in found if name.endswith("_assessed")}
    assert {table for table, what in heard if what == "INSERT"} >= reads - {"tenants"}  # a tenant comes with a study
    granted = ask(
        "SELECT DISTINCT table_name::text FROM information_schema.column_privileges WHERE privilege_type = 'UPDATE' "
        "AND table_schema = 'work' AND grantee IN ('easeml_worker', 'easeml_referee')"
    )
    assert {table for table, what in heard if what == "UPDATE"} >= reads & {name for (name,) in granted}


def test_rows_that_are_kept_are_what_is_counted_in_a_world_with_a_row_in_every_table(
    database: Any, world: Any, ask: Any
) -> None:
    assess_changes(database.worker)
    assert out_of_step(database.worker) == []
    for statement, seen in (
        ("UPDATE work.tenants SET weight = 3", True),
        ("UPDATE work.tenants SET max_parallel = 20", True),
        (f"UPDATE work.trials SET limit_seconds = 70 WHERE id = {world.running}", True),
        (f"UPDATE work.trials SET lease_until = lease_until + interval '1 h' WHERE id = {world.running}", False),
        (f"UPDATE work.trials SET lease_until = now() - interval '1 h' WHERE id = {world.running}", True),
        (f"UPDATE work.trials SET lease_until = now() + interval '1 h' WHERE id = {world.running}", True),
        (f"UPDATE work.trials SET progress = '{{}}', beat_at = now() WHERE id = {world.running}", False),
        ("UPDATE work.studies SET target_quality = 0.99, weight = 4", True),
        ("UPDATE work.alerts SET cleared_at = now() WHERE cleared_at IS NULL", True),
        ("UPDATE work.studies SET state = 'PAUSED'", True),
        ("INSERT INTO work.candidates (study_id, name, kind) SELECT id, 'another', 'tree' FROM work.studies", True),
    ):
        ask(statement)
        with database.worker.begin() as tx:
            assert assessments.has_changed(tx) is seen, statement
        assess_changes(database.worker)
        assert out_of_step(database.worker) == [], statement


def test_a_row_that_is_wrong_is_named(database: Any, make_rows: Callable[..., Any], ask: Any) -> None:
    make_rows("iris")
    assert out_of_step(database.worker) == [], "what waits to be written is not wrong"
    assess_changes(database.worker)
    ask("UPDATE work.assessments SET waiting = 7")
    assert out_of_step(database.worker) == ["iris"]
    ask("DELETE FROM work.assessments")
    assert out_of_step(database.worker) == ["iris"]
    ask("INSERT INTO work.study_changes SELECT id FROM work.studies")
    assess_changes(database.worker)
    assert out_of_step(database.worker) == []


def test_a_change_that_commits_during_a_refresh_is_seen_by_the_next_one(
    database: Any, make_rows: Callable[..., Any]
) -> None:
    rows = make_rows("iris")
    assess_changes(database.worker)
    ids = {"study_id": rows.study_id, "data_version_id": rows.version_id}
    with database.owner.begin() as other:
        trials.add_trial(other, candidate_id=rows.candidates[0], **ids)
        assess_changes(database.worker)  # of something else that has committed
        with database.worker.begin() as tx:
            change(tx, "UPDATE work.studies SET priority = 1")
        assess_changes(database.worker)
    with database.worker.begin() as tx:
        assert assessments.has_changed(tx)
    assess_changes(database.worker)
    with database.worker.begin() as tx:
        assert assessments.kept_summaries(tx)[0].waiting == 1
        assert not assessments.has_changed(tx)


def test_a_refresh_that_ends_before_its_commit_loses_no_change(database: Any, make_rows: Callable[..., Any]) -> None:
    make_rows("iris")

    def killed() -> None:
        with database.worker.begin() as tx:
            assert len(assessments.take_changed(tx)) == 1
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        killed()
    assess_changes(database.worker)
    with database.worker.begin() as tx:
        assert [facts.study for facts in assessments.kept_summaries(tx)] == ["iris"]


def test_a_row_ends_when_the_time_changes_it(database: Any, make_rows: Callable[..., Any], ask: Any) -> None:
    rows = make_rows("iris")
    assess_changes(database.worker)
    with database.worker.begin() as tx:
        assert scalar(tx, "SELECT until FROM work.assessments") is None or not assessments.has_changed(tx)
        (counted,) = counted_studies(tx, [rows.study_id])
    soon = counted.read_at + timedelta(hours=1)
    assert kept_of(replace(counted, deadline=soon)).until == soon
    assert kept_of(replace(counted, deadline=soon, until=counted.read_at)).until == counted.read_at
    assert kept_of(replace(counted, asked_at=counted.read_at)).until == counted.read_at + timedelta(minutes=30)
    assert kept_of(replace(counted, deadline=counted.read_at - timedelta(hours=1))).until is None
    ask("UPDATE work.assessments SET until = now() - interval '1 s'")
    with database.worker.begin() as tx:
        assert assessments.has_changed(tx)
        assert assessments.take_changed(tx) == [rows.study_id]


def test_a_limit_of_a_tenant_holds_its_other_studies(database: Any, make_rows: Callable[..., Any], ask: Any) -> None:
    first, _ = make_rows("one"), make_rows("two")
    ask("UPDATE work.tenants SET max_parallel = 1")
    assess_changes(database.worker)
    ids = {"study_id": first.study_id, "data_version_id": first.version_id}
    with database.worker.begin() as tx:
        trials.add_trial(tx, candidate_id=first.candidates[0], **ids)
    assess_changes(database.worker)
    assert ask("SELECT study, tenant_full FROM work.assessments ORDER BY study") == [("one", True), ("two", True)]
    assert out_of_step(database.worker) == []
    with database.worker.begin() as tx:
        assert [facts.tenant_open_trials for facts in assessments.kept_summaries(tx)] == [1, 1]


def test_a_refused_study_is_shown_until_another_one_has_its_name(database: Any, ask: Any, make_rows: Any) -> None:
    refused = make_rows("iris", state="REFUSED")
    assess_changes(database.worker)
    assert ask("SELECT study_id, shown FROM work.assessments") == [(refused.study_id, True)]
    ask(
        "INSERT INTO work.studies (name, tenant_id, data_set_id, metric, config, request_key) "
        "SELECT name, tenant_id, data_set_id, metric, config, 'again' FROM work.studies"
    )
    assess_changes(database.worker)
    assert ask("SELECT shown FROM work.assessments ORDER BY study_id") == [(False,), (True,)]
    assert out_of_step(database.worker) == []


def test_looks_follow_each_other(database: Any, make_rows: Callable[..., Any]) -> None:
    """Of two at once the one that counted earlier could write later, and nothing would correct its row."""
    make_rows("a")
    assess_changes(database.worker)  # no row of the log is left to wait for
    with database.worker.begin() as tx:
        assessments.take_changed(tx)
        impatient = Store(database.url("easeml_worker"), lock_timeout_seconds=0.05)
        with pytest.raises(ConcurrentUpdateError), impatient.begin() as another:
            assessments.take_changed(another)


# -- what a page selects ----------------------------------------------------------------------------------------------


@pytest.fixture
def three(database: Any, make_rows: Callable[..., Any]) -> Any:
    """Rows of three studies of three tenants; the second one needs a person, the third one is paused."""
    made = [make_rows(name, tenant=tenant) for name, tenant in (("a", "t1"), ("b", "t2"), ("c", "t3"))]
    assess_changes(database.worker)
    need = KeptNeed("budget", "warn", "budget spent", None)
    changes = (
        {"best_quality": 0.5, "rise": 0.4, "day_seconds": 80.0, "due_weight": 1.0},
        {"best_quality": 0.9, "rise": 0.0, "day_seconds": 20.0, "due_weight": 1.0}
        | {"standing": "needs", "needs": [need], "urgency": 3},
        {"standing": "paused", "due_weight": 1.0},
    )
    with database.worker.begin() as tx:
        counted = {study.study_id: kept_of(study) for study in counted_studies(tx, [m.study_id for m in made])}
        found = [replace(counted[m.study_id], **c) for m, c in zip(made, changes, strict=True)]
        assessments.keep(tx, found)
    return database.worker


def test_a_page_selects_and_orders(three: Any) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"order": "needs"}, "bac"),
        ({"order": "name"}, "abc"),
        ({"order": "rise"}, "abc"),
        ({"order": "quality"}, "bac"),
        ({"order": "due"}, "cba"),
        ({"standing": "needs"}, "b"),
        ({"standing": "paused"}, "c"),
        ({"kind": "budget"}, "b"),
        ({"kind": "drift"}, ""),
        ({"text": "T1"}, "a"),
        ({"text": "T"}, "abc"),
        ({"text": "%"}, ""),
        ({"names": ["c", "a", "gone"]}, "ac"),
        ({"names": []}, ""),
    ]
    for asked, order in cases:
        choice = replace(ALL, **asked)
        with three.begin() as tx:
            page = assessments.chosen_page(tx, choice, SUMS, first=0, size=50)
            assert ("".join(page.names), page.found, page.first) == (order, len(order), 0), asked
            assert assessments.count_chosen(tx, choice) == len(order), asked


def test_a_page_begins_where_it_is_asked_to_or_where_the_marked_study_is(three: Any) -> None:
    for first, marked, begins, names in (
        (0, "", 0, "ab"), (2, "", 2, "c"), (900, "", 2, "c"), (0, "c", 2, "c"), (2, "a", 0, "ab"), (2, "gone", 2, "c"),
    ):  # fmt: skip
        with three.begin() as tx:
            page = assessments.chosen_page(tx, ALL, SUMS, first=first, size=2, marked=marked)
        assert (page.first, "".join(page.names), page.found) == (begins, names, 3), (first, marked)


def test_sums_of_all_are_those_of_their_rows(three: Any) -> None:
    with three.begin() as tx:
        crowd = assessments.crowd(tx, None)
        assert (crowd.studies, crowd.tenants, crowd.needs, crowd.bad, crowd.paused) == (3, 3, 1, 0, 1)
        assert (crowd.with_result, crowd.best, crowd.compared, crowd.risen) == (2, pytest.approx(1.4), 2, 1)
        assert isinstance(crowd.read_at, datetime)
        assert assessments.crowd(tx, ["c"]).studies == 1
        assert assessments.totals(tx) == InstallationTotals(100.0, 3.0)
        assert assessments.names_on_map(tx, None) == ["b", "a", "c"]
        (kind,) = assessments.kinds_of_needs(tx, None)
        assert (kind.kind, kind.studies, kind.names, kind.oldest) == ("budget", 1, ["b"], "b")
        assert assessments.kinds_of_needs(tx, ["a"]) == []
        assert assessments.in_need(tx, "budget", None, limit=5) == ["b"]
        assert assessments.worst_first(tx, limit=2) == ["b", "a"]
        assert assessments.names_like(tx, "tt", None, limit=10) == ["a", "b", "c", "t1", "t2", "t3"]
        assert assessments.names_like(tx, "Tt", None, limit=3) == ["t1", "t2", "t3"]


def test_a_look_reads_the_same_number_of_rows_of_trials_whatever_there_are(three: Any) -> None:
    statements: list[str] = []
    event.listen(three._engine, "before_cursor_execute", lambda *seen: statements.append(seen[2]))
    assess_changes(three)
    with three.begin() as tx:
        assessments.crowd(tx, None)
        assessments.kept_summaries(tx)
    assert not [s for s in statements if "work.trials" in s]
