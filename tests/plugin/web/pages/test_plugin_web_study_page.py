"""What the page of a study shows at a glance: its state as the overview has it, its candidates in order, its panels."""

from __future__ import annotations

import itertools
import re
from types import SimpleNamespace

import pytest
from sqlalchemy import text
from study_facts import study_facts

from easeml_airflow.web.pages.study.page import _alarms, _state
from easeml_airflow.web.server.formats import mark_of
from easeml_core.entities import Executor, TrialState
from easeml_core.services.reports.recommendations import Assessment, Severity, Step, StepKind, standing
from easeml_core.services.selection.policy import set_policy
from easeml_core.services.selection.scheduler import suggest_trials
from easeml_core.services.studies.candidates import add_candidates
from easeml_core.services.trials.execution import claim, expire_leases, record_failure
from easeml_core.store.callers import Actor
from easeml_core.store.database import Store
from easeml_core.store.tables import datasets, leases, models, studies, trials

KINDS = ("nearest_centroid", "gaussian_naive_bayes", "decision_tree", "logistic_regression")
PATH = "/studies/cancer"
_keys = (f"key/{n}" for n in itertools.count())


@pytest.fixture
def study(make_study):
    """A sealed study with four candidates, none of which has run."""
    return make_study(candidates=[{"name": kind, "kind": kind} for kind in KINDS])


@pytest.fixture
def run(database):
    """Suggest the next trial and let it run with two points of its curve, or end, with a quality or without; its id."""

    def one(quality=None, *, cost=90.0, is_running=False):
        (told,) = suggest_trials(database.worker, count=1, request_key=next(_keys)).trials
        number, state = told.trial_id, TrialState.FAILED if quality is None else TrialState.SUCCEEDED
        with database.worker.begin() as tx:
            attempt = leases.start_trial(
                tx,
                trial_id=number,
                lease_key="w",
                lease_seconds=60,
                executor=Executor(trials.get_trial(tx, number).implementation, "test"),
            )
            if is_running:
                points = [
                    {"step": i, "of": 8, "quality": 0.5 + i / 20, "loss": None, "seconds": 1.0 * i} for i in (1, 2)
                ]
                trials.add_points(tx, number, points)
                return number
            ended = {"attempt": attempt, "state": state, "cost_seconds": cost}
            failure = "no memory" if quality is None else None
            assert leases.finish_trial(tx, trial_id=number, failure=failure, **ended)
            if quality is not None:
                models.add_observation(tx, trial_id=number, quality=quality, cost_seconds=cost)
        return number

    return one


SEARCHING, FINISHED = ["Searching"], ["Finished"]


@pytest.mark.parametrize(
    ("then", "state"),
    [
        ("nothing", SEARCHING),
        ("a trial waits", SEARCHING),
        ("state = 'REGISTERED'", ["Being sealed"]),
        ("state = 'REFUSED'", ["Refused"]),
        ("state = 'PAUSED'", ["Paused"]),
        ("all have run", FINISHED),
        ("target_quality = 0.5", FINISHED),
        ("deadline = now() - interval '1 h'", FINISHED),
        ("budget_seconds = 90", FINISHED),
        ("budget_seconds = 90, target_quality = 0.9", ["Budget spent"]),
        ("deadline = now() - interval '1 h', target_quality = 0.9", ["Budget spent"]),
    ],
)
def test_the_overview_and_the_page_of_a_study_tell_the_same_state(study, run, ask_as, database, then, state):
    run(0.81)
    if then == "a trial waits":
        suggest_trials(database.worker, count=1, request_key="waits")
    elif then == "all have run":
        for _ in KINDS[1:]:
            run(0.7)
    elif then != "nothing":
        with database.owner.begin() as tx:
            tx.execute(text("ALTER TABLE work.studies DISABLE TRIGGER USER"))
            tx.execute(text(f"UPDATE work.studies SET {then}"))
            tx.execute(text("ALTER TABLE work.studies ENABLE TRIGGER USER"))
    ada = ask_as("ada", "operator")
    badges = [ada.page(path).soup.select(css) for path, css in (("/", "td.s .badge"), (PATH, ".head .badge"))]
    assert [[badge.get_text() for badge in found] for found in badges] == [state, state]


def test_what_needs_a_person_stands_beside_the_state_with_the_words_of_the_overview():
    def step(kind, severity=Severity.INFO, act="train"):
        return Step(kind, severity, "a title", "a reason", act)

    def marks(*steps):
        report = SimpleNamespace(assessment=Assessment(study_facts(), list(steps), standing(steps)), alerts=[])
        state, (need, *_) = _state(report.assessment), [*_alarms(report), None]
        assert mark_of(steps, standing(steps)) in (state, need)
        return state.word, need and need.word

    labels, search = step(StepKind.LABELS, Severity.WARN), step(StepKind.COMPUTE)
    assert marks(search) == ("Searching", None)
    assert marks(labels, search) == ("Searching", "Labels wanted")
    assert marks(labels, step(StepKind.SEALING)) == ("Being sealed", "Labels wanted")
    assert marks(labels, step(StepKind.COMPUTE, act="nothing: it is done")) == ("Finished", "Labels wanted")
    assert marks(labels, step(StepKind.BUDGET, Severity.WARN), search) == ("Budget spent", "Labels wanted")
    assert marks(step(StepKind.BUDGET, Severity.WARN), search) == ("Budget spent", None)
    assert marks(labels) == ("Labels wanted", None)


def test_the_panels_tell_the_template_what_was_fed_and_the_price(study, ask_as, database):
    ada = ask_as("ada", "operator")
    page = ada.page(PATH)
    assert "template 5a, " in page.text
    assert (page.facts["Switched off by refine"], page.facts["Last feed"]) == ("0 examples", "none")
    assert page.facts["Gain below price"].startswith("no price")
    with database.worker.begin() as tx:
        mine = {"study_id": studies.get_study(tx, study).id, "origin": "a.csv"}
        for number in (3, 12):
            told = {"artifact": f"sha256:{number:064}", "rows": number, "request_key": f"feed/{number}"}
            datasets.add_feed(tx, fed_by="ada", **mine, **told)
        for key, on in (("first", False), ("second", True)):
            named = [b"a" * 32, b"b" * 32] if key == "first" else [b"a" * 32]
            asked = {"study_id": mine["study_id"], "hashes": named, "is_on": on, "reason": "odd", "switched_by": "ada"}
            datasets.add_switches(tx, **asked, request_key=key)
    set_policy(database.owner, changes={"price_per_second": 0.36 / 3600}, reason="devices are dear")
    page = ada.page(PATH)
    assert page.facts["Switched off by refine"] == "1 example"
    assert page.facts["Last feed"].endswith(", 12 examples")
    assert page.soup.find("dt", string="Last feed").find_next_sibling("dd").time
    assert page.facts["Gain below price"] == "yes, 0.3600 a device-hour"
    set_policy(database.owner, changes={"policy": "roundrobin"}, reason="to see")
    assert ada.page(PATH).facts["Gain below price"].startswith("no, ")
    assert "roundrobin" in ada.page(PATH).facts["Gain below price"]


def test_why_a_trial_was_chosen_is_one_press_away_and_curves_have_their_scale(study, run, ask_as):
    ended, ada = run(0.7), ask_as("ada")
    why, under_way = f"{PATH}/decisions", f'a.btn:not(.quiet)[href*="{PATH}/decisions/"]'
    page = ada.page(PATH)
    assert page.has(f'a.btn.quiet[href="{why}/{ended}"]')
    assert "Learning curve" in page.section("Trials").table[0]
    assert not page.has(under_way)
    running = run(is_running=True)
    page = ada.page(PATH)
    assert page.part(under_way).soup["href"] == f"{why}/{running}"
    assert page.part(under_way).text.startswith(f"Why trial #{running}, ")
    assert re.fullmatch(r"Learning curve, 0\.5\d* to 0\.6\d*", page.part("th.lc").text)
    for trial in (ended, running):
        assert ada.get(f"{why}/{trial}").status_code == 200


def test_candidates_are_sorted_by_a_column_and_what_has_no_number_comes_last(study, run, ask_as, database):
    run(0.81, cost=200.0)
    run(cost=30.0)
    many = [{"name": f"tree-{n}", "kind": "decision_tree", "parameters": {"max_depth": n + 1}} for n in range(15)]
    add_candidates(database.worker, study=study, candidates=many)
    ada = ask_as("ada")

    def asked(sort, *, all_of_them="true"):
        page = ada.page(f"{PATH}?sort={sort}&all={all_of_them}").section("What is believed")
        return page, [(name, *numbers) for name, _, _, *numbers in (row.values() for row in page.table)]

    def number(cell):
        found = re.match(r"(?:under )?[+]?([0-9.]+)(?: (s|min|h))?", cell)
        return None if found is None else float(found[1]) * {"s": 1, "min": 60, "h": 3600, None: 1}[found[2]]

    usual = [line[0] for line in asked("")[1]]
    for column, sort in enumerate(("quality", "cost", "gain", "rate"), start=1):
        page, lines = asked(sort)
        assert sorted(line[0] for line in lines) == sorted(usual)
        told = [number(line[column]) for line in lines]
        known = [n for n in told if n is not None]
        assert known == sorted(known, reverse=sort != "cost"), sort
        assert told[len(known) :] == [None] * (len(told) - len(known)), sort
        head = page.part("[aria-sort]")
        assert head.soup["aria-sort"] == ("ascending" if sort == "cost" else "descending")
        assert head.part(f"a#by-{sort}").soup["href"].startswith(f"{PATH}?sort=&"), "it is taken away by another press"
        assert len(asked(sort, all_of_them="false")[1]) == 12
    page, lines = asked("nonsense")
    assert [line[0] for line in lines] == usual
    assert not page.has("[aria-sort]")
    assert ada.get(f"{PATH}?sort={'x' * 30}").status_code == 400


# ---- attempts: what a lost one took, and where the log is


def test_the_log_of_a_trial_is_that_of_the_try_that_worked_on_it_last(study, ask_as, database):
    """A worker is killed, its lease runs out, and the next try of its task ends the trial: there the log is."""
    ada, key = ask_as("ada"), "nightly/run-1/train/4"
    task = "/dags/nightly/runs/run-1/tasks/train/mapped/4"

    def linked(trial):
        pages = [ada.page(path) for path in (PATH, f"{PATH}/decisions/{trial}")]
        found = [[link["href"] for link in page.soup.select('a[href^="/dags/"][data-airflow]')] for page in pages]
        return [{link for link in links if "/tasks/" in link} for links in found]

    batch = "nightly/run-1/suggest/-1"
    (told,) = suggest_trials(database.worker, count=1, request_key=batch).trials
    trial = told.trial_id
    assert linked(trial) == [set(), set()]  # nobody has worked on it: the run that asked is all there is
    assert ada.page(PATH).has('a[href="/dags/nightly/runs/run-1"][data-airflow]')
    for number in (1, 2):
        worker = Store(database.url("easeml_worker"), actor=Actor("nightly/run-1/train", "task", try_number=number))
        lease = claim(worker, trial_id=trial, request_key=key)
        assert linked(trial) == [{f"{task}?try_number={number}"}] * 2
        if number == 1:
            with database.owner.begin() as tx:
                tx.execute(text("UPDATE work.trials SET lease_until = now() - interval '1 s'"))
            assert expire_leases(database.worker) == [trial]
            assert linked(trial) == [{f"{task}?try_number=1"}] * 2  # what the lost try has told
        else:
            record_failure(worker, lease, "no memory")
        worker.close()
    assert linked(trial) == [{f"{task}?try_number=2"}] * 2


def test_the_time_of_a_lost_attempt_counts_in_the_first_sentence_as_in_the_table(study, ask_as, database):
    (told,) = suggest_trials(database.worker, count=1, request_key="nightly/run-1/suggest/-1").trials
    trial = told.trial_id
    claim(database.worker, trial_id=trial, request_key="nightly/run-1/train/0")
    with database.owner.begin() as tx:
        lost = (
            "UPDATE work.trials SET attempt_started_at = now() - interval '20 min', lease_until = now() WHERE id = :id"
        )
        tx.execute(text(lost), {"id": trial})
    assert expire_leases(database.worker) == [trial]
    claim(database.worker, trial_id=trial, request_key="nightly/run-1/train/0")
    page = ask_as("ada").page(PATH)
    (listed,) = page.section("Trials").table
    assert "20.0 min" in listed["Cost"]
    assert f"Running: {told.candidate}, 20.0 min" in page.part("p.now").text


def test_who_works_without_airflow_has_no_log_there(study, ask_as, database):
    (told,) = suggest_trials(database.worker, count=1, request_key="laptop").trials
    lease = claim(database.worker, trial_id=told.trial_id, request_key="laptop/1")
    record_failure(database.worker, lease, "no memory")
    assert not ask_as("ada").page(PATH).has('[href^="/dags/"]')
