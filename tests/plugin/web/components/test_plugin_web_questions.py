"""Forced promotions that wait for a referee in Airflow are told to referees, and to nobody else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from device_rows import add_study
from page_reader import Page
from study_facts import next_step_of

from easeml_airflow.web.components import action_items
from easeml_airflow.web.pages.overview.page import lines_of
from easeml_airflow.web.server import airflow_runs
from easeml_airflow.web.server.airflow_runs import Question, questions
from easeml_airflow.web.server.auth import Role, Viewer
from easeml_airflow.web.server.formats import sentence_case
from easeml_core.services.reports.recommendations import Severity, StepKind
from easeml_core.store.queries.assessments import KindOfNeed

SUBJECT = "Promote model 7 of study can<cer without the gate?"
SINCE = datetime(2026, 3, 1, 12, tzinfo=UTC)
RITA = Viewer("rita", frozenset({Role.REFEREE}))
ASKED = Question("can<cer", "7", "una", SINCE, "/dags/forced/runs/r%201/tasks/promote/required_actions")


@pytest.fixture
def asks(run_dag):
    """Let a task of a finished run ask a question, as ``ForcePromotionOperator`` does; gives the run."""
    from airflow.models.hitl import HITLDetail
    from airflow.models.taskinstance import TaskInstance
    from airflow.sdk import DAG, task
    from airflow.utils.session import create_session
    from sqlalchemy import delete, select, update

    with DAG("forced", schedule=None) as dag:

        @task
        def promote(number):
            return number

        promote.expand(number=[1, 2])
    run = run_dag(dag)

    def ask(index=0, *, state="awaiting_input", operator="ForcePromotionOperator", subject=SUBJECT, **more):
        mine = (TaskInstance.run_id == run.run_id) & (TaskInstance.map_index == index)
        with create_session() as session:
            told = update(TaskInstance).where(mine).values(state=state, operator=operator)
            session.execute(told.execution_options(synchronize_session=False))
            number = session.scalar(select(TaskInstance.id).where(mine))
            asked = {"options": ["Approve", "Reject"], "subject": subject, "params": {}, "created_at": SINCE}
            session.execute(delete(HITLDetail).where(HITLDetail.ti_id == number))
            session.add(HITLDetail(ti_id=number, **asked | more))
        return run

    yield ask
    with create_session() as session:
        session.execute(delete(HITLDetail))


def test_a_question_without_an_answer_is_found_with_who_asked(asks):
    run = asks(0)
    page = f"/dags/forced/runs/{run.run_id.replace(':', '%3A').replace('+', '%2B')}/tasks/promote/mapped/0"
    assert questions() == [Question("can<cer", "7", run.triggering_user_name or "", SINCE, f"{page}/required_actions")]
    asks(0, state="deferred")  # so it waits in earlier versions of Airflow
    asks(1, subject="Anything?", created_at=SINCE - timedelta(hours=1))
    assert [(asked.study, asked.model) for asked in questions()] == [("", ""), ("can<cer", "7")]


@pytest.mark.parametrize(
    "ended",
    [
        {"responded_at": SINCE},
        *({"state": state} for state in ("failed", "success", "skipped", None)),
        {"operator": "ApprovalOperator"},
    ],
)
def test_what_is_answered_over_or_no_forced_promotion_is_none(asks, ended):
    asks(0, **ended)
    assert questions() == []


def test_no_more_are_read_than_fit(asks, monkeypatch):
    asks(0), asks(1, created_at=SINCE + timedelta(hours=1))
    monkeypatch.setattr(airflow_runs, "MOST_QUESTIONS", 1)
    assert [asked.since for asked in questions()] == [SINCE]


def test_pages_are_shown_where_airflow_does_not_answer(monkeypatch, caplog):
    def away(**_):
        raise OSError("no route")

    monkeypatch.setattr("airflow.utils.session.create_session", away)
    assert questions() == []
    assert "no route" in caplog.text


@pytest.fixture
def looks(monkeypatch):
    """How often Airflow was asked; it has one question, or as many as ``found`` then has."""
    asked, found = [], [ASKED]

    def say():
        asked.append(1)
        return list(found)

    for place in ("components.action_items", "pages.audit"):
        monkeypatch.setattr(f"easeml_airflow.web.{place}.questions", say)
    asked.append(found)
    return asked


def test_a_referee_reads_who_asks_for_what_and_goes_to_the_answer(looks, database, ask_as):
    add_study(database, "mine")
    rita = ask_as("rita", "referee")
    (step,) = action_items.forced_steps(RITA)
    assert (step.study, step.kind, step.severity, step.since) == ("can<cer", StepKind.PROMOTE, Severity.WARN, SINCE)
    home = rita.page("/")
    for told in (f"can<cer: {step.title}", "una asks for", "model 7 of can<cer"):
        assert told in home.text
    assert home.has('a[href="/audit#forced"]')
    page = rita.page("/audit")
    assert page.lead.startswith("1 forced promotion waits ")
    (asked,) = page.part("#forced").items
    assert all(told in asked for told in ("Model 7 of", "can<cer", "by una", "2026-03-01 12:00 UTC"))
    assert page.part("#forced a[data-airflow]").soup["href"] == ASKED.page


@pytest.mark.parametrize("roles", [(), ("operator",), ("labeler",), ("operator", "labeler")])
def test_nobody_else_is_told_and_airflow_is_not_even_asked(looks, database, ask_as, roles):
    add_study(database, "mine")
    title = action_items.forced_steps(RITA)[0].title.partition(" ")[2]  # a line may begin with a capital letter
    del looks[1:]
    other = ask_as("una", *roles)
    for path in ("/", "/audit", "/compute", "/studies/mine", "/of-run?dag=forced&run=r"):
        page = other.get(path)
        assert page.status_code == 200
        assert title not in page.text
        assert "/audit#forced" not in page.text
        assert not Page(page.text).has("#forced")
        assert ASKED.page not in page.text
    assert action_items.count_needs(database.worker, Viewer("una", frozenset(map(Role, roles)))) >= 0
    assert len(looks) == 1  # what the fixture has put there


def test_the_bar_counts_them(looks, database):
    add_study(database, "mine")
    others = action_items.count_needs(database.worker, Viewer("ada", frozenset({Role.OPERATOR})))
    assert action_items.count_needs(database.worker, RITA) == others + 1


def test_they_come_after_the_worst_and_many_are_one_line(looks):
    looks[0][:] = [ASKED._replace(study=name) for name in ("", "a", "b", "c")]
    kinds = [
        KindOfNeed("no-set", "bad", 1, None, "a title", ["x"], "x"),
        KindOfNeed("budget", "warn", 2, None, "a title", ["y", "z"], "y"),
    ]
    steps = [next_step_of("x", StepKind.NO_SET, Severity.BAD)]
    steps += [next_step_of(name, StepKind.BUDGET, Severity.WARN) for name in ("y", "z")]
    board, forced = SimpleNamespace(needs=kinds, steps=steps, needs_total=3), action_items.forced_steps(RITA)
    lines = [line.title for line in lines_of(board, forced, RITA)]
    assert lines == [
        "x: a title",
        f"3 studies: {forced[0].title}",
        "y: a title",
        "z: a title",
    ]
    whole = [line.title for line in lines_of(board, forced, RITA, is_whole=True)]
    assert whole[:3] == ["x: a title", sentence_case(forced[0].title), f"a: {forced[0].title}"]
    assert len(whole) == 7
    promotes = KindOfNeed("promote", "warn", 9, None, "a title", ["a", "b", "e"], "a")
    both = SimpleNamespace(needs=[promotes], steps=[], needs_total=9)
    assert [line.title for line in lines_of(both, forced, RITA)] == ["10 studies: promotion"]
