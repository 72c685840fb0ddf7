"""The page of a decision tells what was stored, names nobody whom its reader may not see, and is where tasks lead."""

from __future__ import annotations

import itertools
import json
from dataclasses import fields, replace

import pytest
from sqlalchemy import text

from easeml_airflow.web.pages.decision import worth_text
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


def test_the_page_tells_the_numbers_of_the_decision_and_its_outcome(two, run, ask_as, database, text_of):
    run(0.7), run(0.6)
    told = [run(0.75, cost=60.0, curve=(0.5, 0.7)) for _ in range(3)]
    for trial in told:
        number, study = trial.trial_id, trial.study
        words = text_of(ask_as("ada", "operator").get(f"/studies/{study}/decisions/{number}").text)
        found = explain_trial(database.worker, trial_id=number)
        batch, outcome = found.batches[0], found.outcome
        assert batch.mean is not None
        for fact in (
            f"trains {trial.candidate} because",
            f"Mean {batch.mean:.4f}",
            f"{batch.expected_improvement:.4f}",
            f"Reached {outcome.quality:.4f}",
            f"{abs(outcome.surprise):.1f} deviations {'above' if outcome.surprise >= 0 else 'below'}",
            f"Measured over predicted {outcome.cost_ratio:.2f}",
            "What it told while it trained: 0.7000 after 50 % of its steps",
            "Policy default Place in its batch 1 of 1 trial asked for",
            f"Runner-up, {batch.runner_up.study} {batch.runner_up.candidate}",
        ):
            assert fact in words, fact
    assert "It would have lost if" in words or "This pick came from the" in words


def reason(database, trial, *, rival, cost):
    """Let the trial have been chosen for its worth of 0.0002 a second, before a rival of another worth."""
    told = {"study": "theirs", "candidate": "knn", "study_id": 2, "arm": 0, "acquisition": rival}
    new = {"acquisition": 0.0002, "expected_improvement": 0.02, "predicted_cost_seconds": cost, "mean": 0.8}
    new |= {"std": 0.05, "best": 0.81, "guarded": False, "learning": False, "runner_up": told}
    with database.owner.begin() as tx:
        change = "UPDATE work.suggestions SET reasons = reasons || CAST(:new AS jsonb) WHERE trial_id = :id"
        tx.execute(text(change), {"id": trial, "new": json.dumps(new)})


def test_what_would_have_changed_it_is_in_proportion(two, run, ask_as, database, text_of):
    run(0.7), run(0.6)
    trial = run(0.7).trial_id
    reason(database, trial, rival=0.00016, cost=200.0)
    page = ask_as("ada", "operator").get(f"/studies/{study_of(database, trial)}/decisions/{trial}").text
    words = text_of(page)
    for fact in (
        "because a device-second adds most there. Expected +0.0200 for 3.3 min of a device; the next best, "
        "theirs knn, was worth 20 % less.",
        "weight of",
        "0.0200 ÷ predicted cost, device-minutes 3.33 = weighted gain per device-minute 0.0120",
        "its cost were above 4.2 min (was 3.3 min)",
        "its expected gain were below 0.0160 (was 0.0200)",
        "the runner-up promised 25 % more for its cost",
        "or cost 20 % less for its gain",
        "Chance to beat 0.8100",
        "Weighted gain per device-minute 0.0120 Runner-up, theirs knn 0.0096",
    ):
        assert fact in words, fact


def test_ties_and_near_ties_read_as_such(two, run, ask_as, database, text_of):
    run(0.7), run(0.6)
    trial = run(0.7).trial_id
    for worth, cost, facts in (
        (0.0002, 15.3, ("was worth as much", "anything about it were worse the runner-up is worth as much; the first")),
        (0.0001999, 15.3, ("was worth about as much", "a little worse the runner-up is worth about as much")),
        (0.0001996, 15.3, ("was worth 0.2 % less", "above 0.2 % more than 15.3 s", "promised 0.2 % more for its cost")),
        (0.000199, 1530.0, ("was worth 0.5 % less", "were above 25.6 min (was 25.5 min)", "0.0199 (was 0.0200)")),
        (0.0002, 1.0, ("was worth as much", "the first of equals was taken")),
    ):
        reason(database, trial, rival=worth, cost=cost)
        page = ask_as("ada", "operator").get(f"/studies/{study_of(database, trial)}/decisions/{trial}").text
        words = text_of(page)
        for fact in facts:
            assert fact in words, (fact, words[words.find("It would have lost") :][:300])


def study_of(database, trial):
    with database.worker.begin() as tx:
        return trials.get_trial(tx, trial).study


def test_what_was_known_is_counted_as_of_the_decision(two, run, ask_as, database, text_of):
    """What has ended, or begun, since then counts as it was then."""
    first, second = run(0.7), run(0.6)
    waits = suggest_trials(database.worker, count=2, request_key=next(_keys)).trials
    third = run(0.75)
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

    def words(trial):
        page = ada.get(f"/studies/{trial.study}/decisions/{trial.trial_id}").text
        return text_of(page[page.index("What was known") :])

    def mine(trial, *others):
        return sum(other.study == trial.study for other in others)

    assert "Observations of this study 0 succeeded Under way in this study, counted at their mean 0 trials" in words(
        first
    )
    told, own = words(third), mine(third, *waits)
    assert f"Observations of this study {mine(third, first, second)} succeeded Under way in this study" in told
    assert f"counted at their mean {own} trial" in told
    assert "Under way in all studies 2 trials" in told
    taken = mine(third, first, second, *waits)
    assert f"Not eligible in this study {taken} candidate{'' if taken == 1 else 's'} run or under way" in told
    told, failed = words(last), mine(last, *waits)
    ended = f"{mine(last, first, second, third)} succeeded" + (f", {failed} failed" if failed else "")
    assert f"Observations of this study {ended} Under way" in told
    assert "Under way in all studies 0 trials" in told


def test_the_cost_has_the_band_that_was_stored(two, run, ask_as, database, text_of):
    *_, last = [run(0.6 + n / 50, cost=30.0 * (n + 1)) for n in range(4)]
    ada = ask_as("ada", "operator")

    def words(trial):
        return text_of(ada.get(f"/studies/{trial.study}/decisions/{trial.trial_id}").text)

    assert "80 % expected between" not in words(last)
    with database.owner.begin() as tx:
        stored = """UPDATE work.suggestions SET
          reasons = reasons || '{"predicted_cost_interval_seconds": [7, 8]}' WHERE trial_id = :id"""
        tx.execute(text(stored), {"id": last.trial_id})
    assert "80 % expected between 7.0 s and 8.0 s" in words(last)


def test_the_guard_is_told_with_what_it_did_in_the_last_day(two, run, ask_as, database, text_of):
    told = [run(0.7, cost=90.0), run(0.6, cost=30.0), run(0.65, cost=60.0)]
    with database.owner.begin() as tx:
        tx.execute(text("UPDATE work.suggestions SET reasons = reasons || '{\"guarded\": false}'"))
        guarded = "UPDATE work.suggestions SET reasons = reasons || '{\"guarded\": true}' WHERE trial_id = :id"
        tx.execute(text(guarded), {"id": told[1].trial_id})
    seconds = {name: sum(c for t, c in zip(told, (90, 30, 60), strict=True) if t.study == name) for name in two}
    mine, theirs = two
    least, tenant = min((seconds[mine], "lab"), (seconds[theirs], "rivals"))
    trial = next(t for t in told if t.study == mine)
    path = f"/studies/{mine}/decisions/{trial.trial_id}"
    page = ask_as("ada", "operator").get(path).text
    words = text_of(page)
    assert "Used in the last 24 h 16.7 % of compute" in words
    assert f"Least served in the last 24 h {tenant}, {100 * least / 90:.0f} % of its due share" in words
    assert 'aria-label="The guard used 16.7 % of compute in the last 24 h, 10.0 % promised"' in page
    seen = text_of(ask_as("ada", rights=tenant_of_lab).get(path).text)
    assert f"in the last 24 h, of those you see lab, {100 * seconds[mine] / 90:.0f} % of its due share" in seen
    with database.owner.begin() as tx:
        tx.execute(text("ALTER TABLE work.trials DISABLE TRIGGER USER"))
        tx.execute(text("UPDATE work.trials SET finished_at = finished_at - interval '25 h'"))
        tx.execute(text("ALTER TABLE work.trials ENABLE TRIGGER USER"))
    assert "Used in the last 24 h nothing ran" in text_of(ask_as("ada", "operator").get(path).text)


def test_names_of_others_are_not_told(two, run, ask_as, database, text_of):
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
        rivals += "a study that you may not see" in answer.text
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


def test_the_first_choice_of_all_has_no_cost_and_says_so(two, run, ask_as, text_of):
    trial = run(0.5)
    words = text_of(ask_as("ada", "operator").get(f"/studies/{trial.study}/decisions/{trial.trial_id}").text)
    assert "while no cost is known" in words or "a cheap trial teaches" in words
    assert "nothing measured yet" in words
    assert "Change of the best the first result" in words


def test_a_trial_that_was_handed_out_again_keeps_its_reasons(two, ask_as, database, text_of):
    (trial,) = suggest_trials(database.worker, count=1, request_key=next(_keys)).trials
    with database.owner.begin() as tx:
        tx.execute(text("UPDATE work.trials SET lease_until = now() - interval '1 s'"))
    (again,) = suggest_trials(database.worker, count=1, request_key=next(_keys)).trials
    assert again.trial_id == trial.trial_id
    page = ask_as("ada", "operator").get(f"/studies/{trial.study}/decisions/{trial.trial_id}").text
    words = text_of(page)
    assert "Handed out 2 times" in words
    assert "Mean" in words
    assert "State Suggested" in words


def test_without_costs_in_the_policy_no_worth_is_told_as_a_rate():
    known = {"policy": "default", "predicted_cost_seconds": 7200.0, "settings": {"cost_aware": True}}
    chosen = Chosen(**dict.fromkeys(field.name for field in fields(Chosen)) | known)
    assert worth_text(chosen, 0.001) == "3.6000"
    unaware = replace(chosen, settings={"cost_aware": False})
    assert worth_text(unaware, 0.001) == "0.0010"
