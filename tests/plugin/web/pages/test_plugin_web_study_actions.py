"""The page of a study tells what the services tell, and changes what its viewer may change, once and no more."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace

import psycopg2
import pytest
from page_reader import Page
from sqlalchemy import Engine, event

from easeml_airflow.web import live
from easeml_airflow.web.pages.study.page import TIMES, next_trial_of, page_of
from easeml_airflow.web.server.auth import Viewer
from easeml_airflow.web.server.site import Site
from easeml_core.entities import Executor, RequestKind, TrialState
from easeml_core.services.referee.place_in_queue import queue
from easeml_core.services.reports.audit import audit
from easeml_core.services.reports.study import study_report
from easeml_core.services.selection.beliefs import Beliefs, Expected, Watch
from easeml_core.services.selection.scheduler import suggest_trials
from easeml_core.services.studies.candidates import add_candidates
from easeml_core.services.trials.execution import cancel_trial, claim, record_failure
from easeml_core.store.database import CHANNEL
from easeml_core.store.tables import leases, models, referee_claims, requests, studies, trials

HOSTILE = '<script>alert("1")</script>'
KINDS = ("nearest_centroid", "gaussian_naive_bayes", "decision_tree", "logistic_regression")
_keys = (f"key/{n}" for n in itertools.count())


@pytest.fixture
def study(make_study):
    """A sealed study with four candidates, none of which has run."""
    return make_study(candidates=[{"name": kind, "kind": kind} for kind in KINDS])


@pytest.fixture
def run(database):
    """Suggest the next trial of the study and let it end, or run; its id."""

    def one(quality=None, *, cost=90.0, state=TrialState.SUCCEEDED, failure=None, key="nightly/run-1/train/0"):
        batch = f"nightly/run-1/suggest/{next(_keys).removeprefix('key/')}"
        (told,) = suggest_trials(database.worker, count=1, request_key=batch).trials
        number = told.trial_id
        with database.worker.begin() as tx:
            attempt = leases.start_trial(
                tx,
                trial_id=number,
                lease_key=key,
                lease_seconds=60,
                executor=Executor(trials.get_trial(tx, number).implementation, "test"),
            )
            if state == TrialState.RUNNING:
                points = [
                    {"step": i, "of": 8, "quality": 0.5 + i / 20, "loss": None, "seconds": 1.0 * i} for i in (1, 2)
                ]
                trials.add_points(tx, number, points)
                return number
            ended = {"attempt": attempt, "state": state, "cost_seconds": cost, "failure": failure}
            assert leases.finish_trial(tx, trial_id=number, **ended)
            if quality is not None:
                models.add_observation(tx, trial_id=number, quality=quality, cost_seconds=cost)
        return number

    return one


def look_only(_study, _tenant, *, write):
    return not write


def nothing(_study, _tenant, *, write):
    return False


def tenant(_study, name, *, write):
    return name == "lab"


def view_of(database, study):
    return page_of(study_report(database.worker, study=study), page=1, all_candidates=False)


def stable(page):
    """The text of a page without its dialogs, what was predicted, and how long a trial has run."""
    told = page.recorded().partition("Withdraw a candidate")[0]
    told = re.sub(r"\b0\.\d{4}\b(?<!0\.8100)|(?<=beat the best\n)[0-9.]+ %", "(predicted)", told)
    return re.sub(r"[0-9.]+ \w+ of about [0-9.]+ \w+", "(time) of about (time)", told)


def badges(page):
    return [badge.get_text() for badge in page.soup.select(".head .badge")]


def test_the_page_reads_as_recorded(study, run, ask_as, recorded):
    ada = ask_as("ada", "operator")
    recorded(stable(ada.page(f"/studies/{study}")), "study_without_a_result")
    run(0.81)
    run(cost=30.0, state=TrialState.FAILED, failure="no memory")
    run(state=TrialState.RUNNING)
    page = ada.page(f"/studies/{study}")
    recorded(stable(page), "study")
    dialogs = [Page(dialog).recorded() for dialog in page.soup.select("dialog:not(#d-candidate)")]
    recorded("\n".join(dialogs), "study_dialogs")


def test_the_page_tells_what_the_services_tell(study, run, ask_as, database):
    first = run(0.81)
    run(cost=30.0, state=TrialState.FAILED, failure=f"no memory {HOSTILE}\nTraceback of many lines")
    running = run(state=TrialState.RUNNING)
    answer = ask_as("ada", "operator").get(f"/studies/{study}")
    assert answer.status_code == 200
    page, report, view = Page(answer.text), study_report(database.worker, study=study), view_of(database, study)
    told = Watch(database.worker).of(study)
    names = {t.trial_id: t.candidate for t in report.trials}
    assert (page.lead, "0.8100 accuracy" in page.lead) == (view.now[0], True)
    assert f"Running: {names[running]}, " in page.part("p.now").text
    assert f"Next: {told.next.candidate}, worth +{told.next.expected_improvement:.4f}" in page.part("p.now").text
    assert "nothing has beaten" in view.plot.title
    assert (told.competing, "only candidate" in view.next.price) == (1, True)
    data, overall = report.data, page.part("dl.facts").facts
    for label, fact in {
        "Best quality": f"0.8100 accuracy {names[first]}, trial #{first}",
        "Budget": "2.0 min used, no budget",
        "Candidates": "2 of 4 tried 1 succeeded, 1 failed",
        "Expected quality, 80 %": f"{told.next.low:.4f} to {told.next.high:.4f}",
        "Training examples": str(data.train_rows),
        "Validation examples": str(data.validation_rows),
        "Source": "sklearn:breast_cancer",
    }.items():
        assert (page.facts | overall)[label] == fact, label
    assert overall["Compute, 24 h"].startswith("100.0 % of 100.0 % due, weight 1")
    assert page.part('[aria-label="Program"]').text == " ".join(report.study.program.split())
    listed = page.section("Trials")
    assert [row["Quality"] for row in listed.table] == ["none", "none", "0.8100 best"]
    assert f"no memory {HOSTILE}" in listed.table[1]["Trial, candidate"]
    assert "Traceback" not in answer.text
    assert HOSTILE not in answer.text
    assert len(page.soup.select(".spark")) == 1
    chosen = page.part("tr.sel")
    assert chosen.part("th").text == told.next.candidate
    assert chosen.part("td.q").text.startswith(f"{told.next.mean:.4f}")
    log = 'a[href="/dags/nightly/runs/run-1/tasks/train/mapped/0"]'
    assert len(page.soup.select(log)) == 3, "ended ones as well"


def test_the_page_reads_its_study_in_one_transaction_of_a_few_statements(study, run, ask_as):
    run(0.81)
    run(state=TrialState.RUNNING)
    page, sent, begun = ask_as("ada", "operator"), [], []
    page.get(f"/studies/{study}")  # what the server keeps of a study is there
    hooks = (
        ("before_cursor_execute", lambda _connection, _cursor, sql, *_: sent.append(sql)),
        ("begin", lambda _connection: begun.append(1)),
    )
    for name, hook in hooks:
        event.listen(Engine, name, hook)
    try:
        assert page.get(f"/studies/{study}").status_code == 200
    finally:
        for name, hook in hooks:
            event.remove(Engine, name, hook)
    assert len(begun) == 2, sent  # the first one looks whether any study has changed
    assert len(sent) <= 14, sent


def test_who_waits_sees_the_place_in_the_queue_and_whether_a_referee_runs(database, artifacts, study, client_of):
    def page(path=""):
        viewer = Viewer("ada", frozenset(), lambda _study, _tenant, *, write: True)
        site = Site(lambda: database.worker, lambda: artifacts, None, lambda: viewer, queue_of=queue)
        return client_of(site).page(f"/studies/{study}{path}")

    assert "(request" not in page().text
    with database.worker.begin() as tx:
        study_id = studies.get_study(tx, study).id
        asked = requests.file_request(
            tx, kind=RequestKind.REFRESH, study_id=study_id, model_id=None, arguments={}, request_key="refresh"
        )
    waits, away = f"p:-soup-contains('(request {asked})')", "no referee runs"
    told = page("/submissions")
    assert all(words in told.part(waits).text for words in ("0 requests ahead", "about 1 s"))
    assert not told.has(".note.bad")
    assert away not in told.text
    with database.referee.begin() as tx:
        for (referee,) in tx.exec_driver_sql("SELECT id FROM sealed.referees").all():
            referee_claims.beat(tx, referee, 0.0)
    told = page()
    assert away in told.part(".note.bad").text
    assert away in told.part(waits).text


def test_when_all_have_run_the_page_says_so(study, run, ask_as, database):
    for quality in (0.5, 0.6, 0.7, 0.8):
        run(quality)
    page = ask_as("ada").page(f"/studies/{study}")
    assert badges(page) == ["Finished"]
    assert "Every candidate has" in page.section("Next trial").part(".empty").text
    title = view_of(database, study).plot.title
    assert "4 trials raised" in title
    assert title.endswith("6.0 device-minutes")


def test_who_may_not_see_it_hears_nothing_of_it(study, ask_as):
    stranger = ask_as("eve", rights=nothing)
    missing = stranger.get("/studies/nowhere")
    answer = stranger.get(f"/studies/{study}")
    assert (answer.status_code, missing.status_code) == (404, 404)
    assert "sklearn" not in answer.text
    for path in ("pause", "resume", "weight", "stops", "candidates", "trials/1/cancel"):
        form = {"weight": "2", "priority": "0", "name": "a", "kind": "decision_tree"}
        assert stranger.post(f"/studies/{study}/{path}", data=form).status_code == 404, path


def state_of(database, study):
    with database.worker.begin() as tx:
        return studies.get_study(tx, study)


def test_the_tenant_pauses_and_resumes_and_a_repetition_changes_nothing(study, ask_as, database):
    mine, path = ask_as("ada", rights=tenant), f"/studies/{study}"
    for act, state, word in (("pause", "PAUSED", "Resume"), ("resume", "ACTIVE", "Pause")):
        for _ in range(2):
            answer = mine.post(f"{path}/{act}")
            assert (answer.status_code, answer.headers["location"]) == (303, path)
        assert state_of(database, study).state == state
        assert word in mine.page(path).part(".head .acts").buttons
    mine.post(f"{path}/pause")
    assert "study is paused" in mine.page(path).section("Next trial").text
    viewer = ask_as("vic", rights=look_only)
    assert viewer.post(f"{path}/resume").status_code == 403
    page = viewer.page(path)
    assert not page.actions
    assert "may look" in page.part("#why-not").text
    buttons = page.soup.select(".head .acts button")
    assert len(buttons) == 5, "all acts are shown"
    for button in buttons:
        assert (button["aria-disabled"], button["aria-describedby"]) == ("true", page.part("#why-not").soup["id"])
    assert state_of(database, study).state == "PAUSED"


def test_the_tenant_archives_and_restores_and_a_reader_does_neither(study, ask_as, database, recorded):
    mine, viewer, path = ask_as("ada", rights=tenant), ask_as("vic", rights=look_only), f"/studies/{study}"
    assert mine.post(f"{path}/archive").status_code == 400  # without a reason
    assert viewer.post(f"{path}/archive", data={"why": "over"}).status_code == 403
    answer = mine.post(f"{path}/archive", data={"why": "a typo"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/archived")
    assert state_of(database, study).state == "ARCHIVED"
    recorded(mine.page("/archived").recorded(), "archived")
    (listed,) = mine.page("/archived").table
    assert (study in listed["Tenant, study"], listed["Was"], listed["Why"]) == (True, "active", "a typo")
    assert "a typo" not in ask_as("eve", rights=nothing).get("/archived").text
    assert study not in mine.page("/").text
    page = mine.page(path)
    assert badges(page) == ["Archived"]
    assert page.part(".head .acts").buttons == ["Restore"]
    assert "study is archived" in page.section("Next trial").text
    assert f"{path}%40{state_of(database, study).id}/restore" in page.actions
    assert mine.post(f"{path}/delete", data={"why": "x"}).status_code == 409  # it has sealed data
    assert mine.post(f"{path}/restore").status_code == 303
    assert state_of(database, study).state == "ACTIVE"
    form = mine.page(path).form(f"{path}/candidates/withdraw").fields
    form |= {"name": mine.page(path).section("Candidates").table[0]["Candidate"], "why": "weak"}
    assert mine.post(f"{path}/candidates/withdraw", data=form).status_code == 303
    first = mine.page(path).section("Candidates").table[0]
    assert first["Candidate"].startswith(f"{form['name']} withdrawn")


def test_the_operator_sets_weight_and_limits_and_the_tenant_does_not(study, ask_as, database):
    operator, mine, path = ask_as("olga", "operator", rights=nothing), ask_as("ada", rights=tenant), f"/studies/{study}"
    limits = {"budget_hours": "0.5", "deadline": "2031-05-01T10:00", "target_quality": "0.97"}
    weight = {"weight": "2.5", "priority": "-3"}
    assert mine.post(f"{path}/weight", data=weight).status_code == 403
    assert mine.post(f"{path}/stops", data=limits).status_code == 403
    assert operator.post(f"{path}/weight", data=weight).status_code == 303
    assert operator.post(f"{path}/stops", data=limits).status_code == 303
    found = state_of(database, study)
    assert (found.weight, found.priority, found.budget_seconds, found.target_quality) == (2.5, -3, 1800.0, 0.97)
    assert found.deadline == datetime(2031, 5, 1, 10, tzinfo=UTC)
    page = operator.page(path)
    assert page.form(f"{path}/weight").fields == weight | {"reason": ""}
    assert page.form(f"{path}/stops").fields == limits | {"reason": ""}
    assert operator.post(f"{path}/stops", data={}).status_code == 303
    cleared = state_of(database, study)
    assert (cleared.budget_seconds, cleared.deadline, cleared.target_quality) == (None, None, None)


def test_what_is_not_allowed_is_said_and_changes_nothing(study, ask_as, database):
    before, operator = state_of(database, study), ask_as("olga", "operator")
    for path, form in (
        ("weight", {"weight": "nan", "priority": "0"}),
        ("weight", {"weight": "1e9", "priority": "0"}),
        ("weight", {"weight": "1", "priority": "1000"}),
        ("weight", {"weight": HOSTILE, "priority": "0"}),
        ("stops", {"budget_hours": "-1"}),
        ("stops", {"budget_hours": "inf"}),
        ("stops", {"deadline": "tomorrow"}),
        ("stops", {"target_quality": "2"}),
        ("candidates", {"name": "a", "kind": "nothing"}),
        ("candidates", {"name": "a", "kind": "decision_tree", "parameters": "[1]"}),
        ("candidates", {"name": "a", "kind": "decision_tree", "parameters": "[" * 5000}),
        ("candidates", {"name": "a", "kind": "decision_tree", "parameters": '{"max_depth": 1' + " " * 5000 + "}"}),
        ("candidates", {"name": "", "kind": "decision_tree"}),
    ):
        answer = operator.post(f"/studies/{study}/{path}", data=form)
        assert answer.status_code == 400, answer.text
        assert 'role="alert"' in answer.text
        assert HOSTILE not in answer.text
        assert state_of(database, study) == before, (path, form)
    assert len(study_report(database.worker, study=study).candidates) == len(KINDS)


def test_a_candidate_joins_once_and_its_name_is_escaped(study, ask_as, database):
    mine, form = ask_as("ada", rights=tenant), {"name": HOSTILE, "kind": "decision_tree"}
    form |= {"parameters": '{"max_depth": 3}', "devices": "gpu, cpu"}
    for _ in range(2):
        assert mine.post(f"/studies/{study}/candidates", data=form).status_code == 303
    (added,) = [c for c in study_report(database.worker, study=study).candidates if c.name == HOSTILE]
    assert (added.kind, dict(added.parameters), list(added.devices)) == (
        "decision_tree",
        {"max_depth": 3},
        ["gpu", "cpu"],
    )
    page = mine.get(f"/studies/{study}?all=true").text
    assert HOSTILE not in page
    assert HOSTILE in [row["Candidate"] for row in Page(page).section("Candidates").table]
    assert ask_as("vic", rights=look_only).post(f"/studies/{study}/candidates", data=form).status_code == 403
    other = form | {"parameters": '{"max_depth": 4}'}
    assert mine.post(f"/studies/{study}/candidates", data=other).status_code == 409


def test_a_trial_is_cancelled_on_its_own_study_s_page_alone(study, run, make_study, ask_as, database):
    trial, mine = run(state=TrialState.RUNNING), ask_as("ada", rights=tenant)
    other, cancel = make_study("other", source="sklearn:digits"), f"/studies/{study}/trials/{trial}/cancel"
    assert mine.post(f"/studies/{other}/trials/{trial}/cancel").status_code == 404
    assert mine.post(f"/studies/{study}/trials/99999/cancel").status_code == 404
    assert ask_as("vic", rights=look_only).post(cancel).status_code == 403
    assert cancel in mine.page(f"/studies/{study}").actions
    for _ in range(2):
        assert mine.post(cancel).status_code == 303
    with database.worker.begin() as tx:
        assert trials.get_trial(tx, trial).cancel_requested
    page = mine.page(f"/studies/{study}")
    assert "will be cancelled" in page.section("Trials").table[0]["Trial, candidate"]
    assert cancel not in page.actions


def test_trials_come_page_by_page(study, database, ask_as):
    many = [{"name": f"tree-{n}", "kind": "decision_tree", "parameters": {"max_depth": n + 1}} for n in range(30)]
    add_candidates(database.worker, study=study, candidates=many)
    suggest_trials(database.worker, count=25, request_key="many")
    ada, path = ask_as("ada"), f"/studies/{study}"
    first, second = (ada.page(f"{path}?page={n}") for n in (1, 2))
    numbers = [
        [int(row["Trial, candidate"].split()[0].removeprefix("#")) for row in page.section("Trials").table]
        for page in (first, second)
    ]
    assert [len(n) for n in numbers] == [20, 5]
    assert numbers[0] + numbers[1] == sorted({*numbers[0], *numbers[1]}, reverse=True)
    assert first.section("Trials").part(".pager span").text == "Page 1 of 2"
    forest = "What is believed"
    assert first.section(forest).part(".pager span").text.endswith("of 34 shown")
    assert ada.page(f"{path}?all=true").section(forest).part(".pager span").text == "34 of 34 shown"
    assert "2 pages" in ada.page(f"{path}?page=9").section("Trials").part(".empty").text
    assert ada.get(f"{path}?page=0").status_code == 400


def test_the_next_trial_is_told_in_the_unit_that_decided_it():
    """Price is held against the gain without weight; a worth is a rate only where the policy divides by costs."""
    first = Expected("svm", 1, 0.9, 0.01, 0.89, 0.91, 0.99999, 1800.0, 0.01, 0.03 / 1800)
    told = Beliefs(
        policy="default",
        price_per_second=0.01 / 3600,
        weight=3.0,
        best=0.8,
        costs_known=True,
        cost_aware=True,
        chosen_by="acquisition",
        position=1,
        competing=2,
        studies=1,
        candidates=(first,),
    )
    study = SimpleNamespace(metric="accuracy")

    def words(believed):
        found = next_trial_of(believed, study)
        return {label: value for label, value, _ in found.pairs}, found.price, found.why

    pairs, price, why = words(told)
    assert pairs[f"Gain per device-hour {TIMES} weight 3"] == "0.0600"
    assert pairs["Price of a device-hour, in gain without weight"] == "0.0100"
    assert pairs["Chance to beat the best"] == "over 99.9 %"
    assert "2.0 times the" in price
    assert "per device-second" in why
    shared = replace(told, candidates=(replace(first, expected_improvement=0.004),))
    assert "times the" not in words(shared)[1]
    assert "share it" in words(shared)[1]
    pairs, _, why = words(replace(told, cost_aware=False, candidates=(replace(first, acquisition=0.03),)))
    assert pairs[f"Gain {TIMES} weight 3"] == "0.0300"
    assert "promises most" in why
    assert "policy hybrid" in words(replace(told, policy="hybrid"))[2]


def test_why_somebody_changed_it_stands_in_the_audit(study, ask_as, database):
    ada, why = ask_as("ada", "operator"), f"the lab moves house {HOSTILE}"
    for path, form, act in (
        ("pause", {}, "study paused"),
        ("resume", {}, "study resumed"),
        ("weight", {"weight": "3", "priority": "1"}, "study changed"),
        ("stops", {"budget_hours": "2"}, "study changed"),
    ):
        reason = f"{path}: {why}"
        assert ada.post(f"/studies/{study}/{path}", data=form | {"reason": f"  {reason} "}).status_code == 303
        newest = audit(database.worker, study=study).events[0]
        assert (newest.act, newest.who, newest.door, newest.reason) == (act, "ada", "page", reason)
        page = ada.get("/audit").text
        assert reason in Page(page).text
        assert HOSTILE not in page
        too_long = ada.post(f"/studies/{study}/{path}", data=form | {"reason": "x" * 2001})
        assert too_long.status_code == 400, path


def test_why_a_candidate_joins_and_why_a_trial_is_cancelled_stand_in_the_audit(study, run, ask_as, database):
    ada, trial = ask_as("ada", rights=tenant), run(state=TrialState.RUNNING)
    form = {"name": "deep", "kind": "decision_tree"}
    for path, more in (("candidates", form), (f"trials/{trial}/cancel", {})):
        too_long = ada.post(f"/studies/{study}/{path}", data=more | {"reason": "x" * 2001})
        assert too_long.status_code == 400, path
        for _ in range(2):
            told = ada.post(f"/studies/{study}/{path}", data=more | {"reason": f" {path} {HOSTILE} "})
            assert told.status_code == 303, path
    acts = [e for e in audit(database.worker, study=study).events if e.who == "ada"]
    assert [(e.act, e.door, e.reason) for e in acts] == [
        ("trial cancelled", "page", f"trials/{trial}/cancel {HOSTILE}"),
        ("candidate added", "page", f"candidates {HOSTILE}"),
    ]


def test_nobody_has_to_say_why(study, ask_as, database):
    ada = ask_as("ada", "operator")
    assert ada.post(f"/studies/{study}/weight", data={"weight": "3", "priority": "0", "reason": " "}).status_code == 303
    assert audit(database.worker, study=study).events[0].reason is None
    waits = suggest_trials(database.worker, count=1, request_key="waits").trials[0].trial_id
    page = ada.page(f"/studies/{study}")
    for field in ("pause-why", "weight-why", "stops-why", "candidate-why", f"cancel-why-{waits}"):
        assert "for the audit" in page.part(f"label[for={field}]").text
        assert page.has(f"input#{field}[name=reason]:not([required])"), field


class _Stays:
    async def is_disconnected(self):
        return False


def test_an_open_page_hears_of_a_suggestion_a_start_and_every_end_and_no_device_does(study, database, monkeypatch):
    monkeypatch.setattr(live, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(live, "SILENCE_SECONDS", 60.0)
    store = database.worker

    def suggest():
        (told,) = suggest_trials(store, count=1, request_key=next(_keys)).trials
        return told.trial_id

    async def changed(news, act, *given, **more):
        waiting = asyncio.ensure_future(anext(news))
        result = await asyncio.to_thread(act, *given, **more)
        assert await waiting == "event: changed\ndata:\n\n", act
        return result

    async def hear():
        news = live._news(_Stays(), store.dsn, [f"study:{study}"])
        assert [await anext(news), await anext(news)][1].startswith("event: listening")
        trial = await changed(news, suggest)
        with contextlib.closing(psycopg2.connect(store.dsn)) as device:
            device.autocommit = True
            device.cursor().execute(f"LISTEN {CHANNEL}")
            lease = await changed(news, claim, store, trial_id=trial, request_key="a-device")
            other = await changed(news, suggest)
            device.poll()
            assert device.notifies == []
        await changed(news, record_failure, store, lease, "no memory")
        await changed(news, cancel_trial, store, trial_id=other)
        await news.aclose()

    asyncio.run(hear())


def test_the_candidates_can_be_opened_by_hand(study, ask_as):
    summary = ask_as("ada").page(f"/studies/{study}").part("details#candidates > summary")
    assert summary.has("svg.turn")
    assert summary.text.startswith("Candidates 4, ")


def test_what_waits_for_an_implementation_is_named(make_study, ask_as, database):
    own = [{"name": f"<i>own-{number}", "kind": "function"} for number in (1, 2)]
    study = make_study(candidates=[*own, {"name": "bayes", "kind": "gaussian_naive_bayes"}])
    suggest_trials(database.worker, count=1, request_key=next(_keys))
    answer = ask_as("ada").get(f"/studies/{study}")
    told = Page(answer.text).part("p:-soup-contains('candidates <i>own-1, <i>own-2 ')").text
    assert "function '<i>own' (none has" in told
    assert "<i>own" not in answer.text
