"""The page of a decision tells what was stored, names nobody whom its reader may not see, and is where tasks lead."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import fields, replace

import pytest
from sqlalchemy import text

from easeml_airflow.web.pages.decision import CHOSEN, UNSEEN, worth_text
from easeml_airflow.web.server.formats import expected_text
from easeml_core.entities import Executor, TrialState
from easeml_core.services.reports.decision import Chosen, explain_trial
from easeml_core.services.reports.overview import study_state
from easeml_core.services.selection.scheduler import suggest_trials
from easeml_core.store.tables import leases, models, trials

KINDS = ("nearest_centroid", "gaussian_naive_bayes", "decision_tree", "logistic_regression")
_keys = (f"key/{n}" for n in itertools.count())


@pytest.fixture
def two(make_study, database):
    """Two studies of two tenants, each with four candidates."""
    candidates = [{"name": kind, "kind": kind} for kind in KINDS]
    mine = make_study("mine", tenant="lab", candidates=candidates)
    theirs = make_study("theirs", tenant="rivals", source="sklearn:digits", candidates=candidates)
    for study in (mine, theirs):
        assert study_state(database.worker, study=study) == "ACTIVE"
    return mine, theirs


@pytest.fixture
def run(database):
    """Suggest the next trial, let it end with this quality, and tell what was suggested."""

    def one(quality, *, cost=90.0, curve=(), **asked):
        (told,) = suggest_trials(database.worker, count=1, request_key=next(_keys), **asked).trials
        with database.worker.begin() as tx:
            number = told.trial_id
            attempt = leases.start_trial(
                tx,
                trial_id=number,
                lease_key="w",
                lease_seconds=60,
                executor=Executor(trials.get_trial(tx, number).implementation, "test"),
            )
            points = [{"step": i + 1, "of": 4, "quality": q, "loss": None, "seconds": 1.0} for i, q in enumerate(curve)]
            trials.add_points(tx, number, points)
            ended = {"attempt": attempt, "state": TrialState.SUCCEEDED, "cost_seconds": cost}
            assert leases.finish_trial(tx, trial_id=number, **ended)
            models.add_observation(tx, trial_id=number, quality=quality, cost_seconds=cost)
        return told

    return one


def tenant_of_lab(_study, name, *, write):
    return name == "lab"


def figures(text):
    return re.findall(r"\d+\.?\d*", text)


def path_of(trial):
    return f"/studies/{trial.study}/decisions/{trial.trial_id}"


def test_the_page_tells_the_numbers_of_the_decision_and_its_outcome(two, run, ask_as, database):
    run(0.7), run(0.6)
    told = [run(0.75, cost=60.0, curve=(0.5, 0.7)) for _ in range(3)]
    for trial in told:
        page = ask_as("ada", "operator").page(path_of(trial))
        found = explain_trial(database.worker, trial_id=trial.trial_id)
        batch, outcome = found.chosen, found.outcome
        assert f"trains {trial.candidate} because" in page.lead
        expected = page.section("What was expected").facts
        assert expected["Mean"] == f"{batch.mean:.4f}"
        assert expected["Expected gain"] == expected_text(batch.expected_improvement)
        assert f"Runner-up, {batch.runner_up.study} {batch.runner_up.candidate}" in expected
        ended = page.section("How it turned").facts
        side = "above" if outcome.surprise >= 0 else "below"
        assert ended["Reached"] == f"{outcome.quality:.4f}"
        assert f"{abs(outcome.surprise):.1f} deviations {side}" in ended.values()
        assert page.section("Cost").facts["Measured over predicted"] == f"{outcome.cost_ratio:.2f}"
        assert "0.7000 after 50 %" in page.text
        policy, place = list(page.section("What was known").facts.values())[4:6]
        assert (policy, figures(place)) == ("default", ["1", "1"])
        is_told = any(heading.startswith("It would") for heading in page.headings)
        assert is_told == (batch.chosen_by == "acquisition")


def reason(database, trial, *, rival, cost):
    """Let the trial have been chosen for its worth of 0.0002 a second, before a rival of another worth."""
    told = {"study": "theirs", "candidate": "knn", "study_id": 2, "arm": 0, "acquisition": rival}
    new = {"acquisition": 0.0002, "expected_improvement": 0.02, "predicted_cost_seconds": cost, "mean": 0.8}
    new |= {"std": 0.05, "best": 0.81, "guarded": False, "learning": False, "runner_up": told}
    with database.owner.begin() as tx:
        change = "UPDATE work.suggestions SET reasons = reasons || CAST(:new AS jsonb) WHERE trial_id = :id"
        tx.execute(text(change), {"id": trial, "new": json.dumps(new)})


def test_what_would_have_changed_it_is_in_proportion(two, run, ask_as, database, recorded):
    run(0.7), run(0.6)
    trial = run(0.7)
    reason(database, trial.trial_id, rival=0.00016, cost=200.0)
    page = ask_as("ada", "operator").page(path_of(trial))
    assert CHOSEN["acquisition"] in page.lead
    assert "theirs knn" in page.part("p.now").text
    assert figures(page.part("p.now").text) == ["0.0200", "3.3", "20"]
    assert figures(page.part(".formula").text)[1:4] == ["0.0200", "3.33", "0.0120"]
    lost = page.section("It would have lost").facts.values()
    assert [figures(told) for told in lost] == [["4.2", "3.3"], ["0.0160", "0.0200"], ["25"], ["20"]]
    expected = page.section("What was expected").facts
    assert "Chance to beat 0.8100" in expected
    assert list(expected.values())[-2:] == ["0.0120", "0.0096"]
    recorded(page.recorded(), "decision")


def test_ties_and_near_ties_read_as_such(two, run, ask_as, database):
    run(0.7), run(0.6)
    trial = run(0.7)
    for worth, cost, now, facts in (
        (0.0002, 15.3, "was worth as", ("anything about", "first of equals")),
        (0.0001999, 15.3, "worth about as", ("a little worse", "worth about as")),
        (0.0001996, 15.3, "worth 0.2 % less", ("0.2 % more than 15.3 s", "promised 0.2 % more")),
        (0.000199, 1530.0, "worth 0.5 % less", ("25.6 min (was 25.5 min)", "0.0199 (was 0.0200)")),
        (0.0002, 1.0, "was worth as", ("first of equals",)),
    ):
        reason(database, trial.trial_id, rival=worth, cost=cost)
        page = ask_as("ada", "operator").page(path_of(trial))
        assert now in page.part("p.now").text
        lost = page.section("It would have lost").text
        for fact in facts:
            assert fact in lost, fact


def test_what_was_known_is_counted_as_of_the_decision(two, run, ask_as, database):
    """What has ended, or begun, since then counts as it was then."""
    first, second = run(0.7), run(0.6)
    waits = suggest_trials(database.worker, count=2, request_key=next(_keys)).trials
    third, fourth = run(0.75), run(0.72)
    for trial in waits:
        with database.worker.begin() as tx:
            attempt = leases.start_trial(
                tx,
                trial_id=trial.trial_id,
                lease_key="w",
                lease_seconds=60,
                executor=Executor(trials.get_trial(tx, trial.trial_id).implementation, "test"),
            )
            ended = {"attempt": attempt, "state": TrialState.FAILED, "cost_seconds": 9.0, "failure": "no memory"}
            assert leases.finish_trial(tx, trial_id=trial.trial_id, **ended)
    last = run(0.77)
    ada = ask_as("ada", "operator")

    def known(trial):
        """What had succeeded and failed in the study, what was under way in it and in all, what was not eligible."""
        return [figures(told) for told in ada.page(path_of(trial)).section("What was known").facts.values()][:4]

    def mine(trial, *others):
        return str(sum(other.study == trial.study for other in others))

    assert known(first)[:2] == [["0"], ["0"]]
    assert {third.study, fourth.study} == set(two), "with and without what waited"
    for trial, before in ((third, [first, second]), (fourth, [first, second, third])):
        ended, open_, taken = mine(trial, *before), mine(trial, *waits), mine(trial, *before, *waits)
        assert known(trial) == [[ended], [open_], ["2"], [taken]]
    ended, failed = mine(last, first, second, third, fourth), mine(last, *waits)
    assert known(last)[:3] == [[ended, failed] if failed != "0" else [ended], ["0"], ["0"]]


def test_the_cost_has_the_band_that_was_stored(two, run, ask_as, database):
    *_, last = [run(0.6 + n / 50, cost=30.0 * (n + 1)) for n in range(4)]
    ada, band = ask_as("ada", "operator"), "80 % expected between"
    assert band not in ada.page(path_of(last)).section("Cost").facts
    with database.owner.begin() as tx:
        stored = """UPDATE work.suggestions SET
          reasons = reasons || '{"predicted_cost_interval_seconds": [7, 8]}' WHERE trial_id = :id"""
        tx.execute(text(stored), {"id": last.trial_id})
    assert ada.page(path_of(last)).section("Cost").facts[band] == "7.0 s and 8.0 s"


def test_the_guard_is_told_with_what_it_did_in_the_last_day(two, run, ask_as, database):
    told = [run(0.7, cost=90.0), run(0.6, cost=30.0), run(0.65, cost=60.0)]
    with database.owner.begin() as tx:
        tx.execute(text("UPDATE work.suggestions SET reasons = reasons || '{\"guarded\": false}'"))
        guarded = "UPDATE work.suggestions SET reasons = reasons || '{\"guarded\": true}' WHERE trial_id = :id"
        tx.execute(text(guarded), {"id": told[1].trial_id})
    seconds = {name: sum(c for t, c in zip(told, (90, 30, 60), strict=True) if t.study == name) for name in two}
    mine, theirs = two
    least, tenant = min((seconds[mine], "lab"), (seconds[theirs], "rivals"))
    trial = next(t for t in told if t.study == mine)
    ada, seer = ask_as("ada", "operator"), ask_as("ada", rights=tenant_of_lab)
    guard = ada.page(path_of(trial)).section("Guard")
    *_, used, served = guard.facts.values()
    assert used.startswith("16.7 %")
    assert served.startswith(f"{tenant}, {100 * least / 90:.0f} %")
    assert guard.has('.meterline[aria-label*="16.7 %"][aria-label*="10.0 %"]')
    among, served = list(seer.page(path_of(trial)).section("Guard").facts.items())[-1]
    assert "those you see" in among
    assert served.startswith(f"lab, {100 * seconds[mine] / 90:.0f} %")
    with database.owner.begin() as tx:
        tx.execute(text("ALTER TABLE work.trials DISABLE TRIGGER USER"))
        tx.execute(text("UPDATE work.trials SET finished_at = finished_at - interval '25 h'"))
        tx.execute(text("ALTER TABLE work.trials ENABLE TRIGGER USER"))
    guard = ada.page(path_of(trial)).section("Guard")
    assert (list(guard.facts.values())[-1], guard.has(".meterline")) == ("nothing ran", False)


def test_names_of_others_are_not_told(two, run, ask_as):
    told = [run(0.5 + i / 50) for i in range(6)]
    mine = ask_as("ada", rights=tenant_of_lab)
    rivals = 0
    for trial in told:
        answer = mine.get(f"/studies/{trial.study}/decisions/{trial.trial_id}")
        if trial.study == "theirs":
            assert answer.status_code == 404
            assert mine.get(f"/trials/{trial.trial_id}").status_code == 404
            continue
        assert answer.status_code == 200
        assert "theirs" not in answer.text
        assert "rivals" not in answer.text
        rivals += UNSEEN in answer.text
    assert rivals > 0


def test_a_trial_is_found_without_its_study_and_only_in_its_own(two, run, ask_as):
    trial = run(0.5)
    other = next(name for name in two if name != trial.study)
    ada, number = ask_as("ada", "operator"), trial.trial_id
    found = ada.get(f"/trials/{number}")
    assert (found.status_code, found.headers["location"]) == (303, f"/studies/{trial.study}/decisions/{number}")
    assert ada.get(f"/studies/{other}/decisions/{number}").status_code == 404
    for path in (f"/studies/{trial.study}/decisions/99999", "/trials/99999", "/studies/none/decisions/1"):
        assert ada.get(path).status_code == 404, path
    assert ada.get("/trials/x").status_code == 400


def test_the_first_choice_of_all_has_no_cost_and_says_so(two, run, ask_as):
    page = ask_as("ada", "operator").page(path_of(run(0.5)))
    assert "no cost is" in page.lead or CHOSEN["learning"] in page.lead
    assert page.section("Cost").facts["Predicted"].startswith("nothing measured")
    assert "the first result" in page.section("How it turned").facts.values()


def test_a_trial_that_was_handed_out_again_keeps_its_reasons(two, ask_as, database):
    (trial,) = suggest_trials(database.worker, count=1, request_key=next(_keys)).trials
    with database.owner.begin() as tx:
        tx.execute(text("UPDATE work.trials SET lease_until = now() - interval '1 s'"))
    (again,) = suggest_trials(database.worker, count=1, request_key=next(_keys)).trials
    assert again.trial_id == trial.trial_id
    facts = ask_as("ada", "operator").page(path_of(trial)).facts
    assert (facts["Handed out"], facts["State"], "Mean" in facts) == ("2 times", "Suggested", True)


def test_without_costs_in_the_policy_no_worth_is_told_as_a_rate():
    known = {"policy": "default", "predicted_cost_seconds": 7200.0, "settings": {"cost_aware": True}}
    chosen = Chosen(**dict.fromkeys(field.name for field in fields(Chosen)) | known)
    assert worth_text(chosen, 0.001) == "3.6000"
    unaware = replace(chosen, settings={"cost_aware": False})
    assert worth_text(unaware, 0.001) == "0.0010"
