"""Our DAGs, run in this process against a real database, with a referee at work and real training."""

import pytest

TREE = {"name": "tree", "kind": "decision_tree", "parameters": {"max_depth": 4}}
BAYES = {"name": "bayes", "kind": "gaussian_naive_bayes", "parameters": {}}
FAILING = {"name": "failing", "kind": "nearest_neighbors", "parameters": {"n_neighbors": 1000}}
FORM = {
    "tenant": "lab",
    "study": "cancer",
    "source": "sklearn:breast_cancer",
    "candidates": [TREE, BAYES],
    "gate": {"condition": "n > 0.5 +/- 0.2", "reliability": 0.9, "adaptivity": "full", "steps": 3},
    "meter": {"ranges": [0.2, 0.6], "tolerance": 0.2, "reliability": 0.9, "steps": 4},
}
HARD = {"condition": "n > 0.95 +/- 0.2", "reliability": 0.9, "adaptivity": "full", "steps": 3}
JUDGE = ("judge.gate", "judge.promote", "judge.meter")


def states(run, *tasks):
    """Final states of the task instances, those of a mapped task by the label or number of the instance."""
    return {(ti.task_id, ti.map_index): str(ti.state) for ti in run.get_task_instances() if ti.task_id in tasks}


def tally(run, task):
    """How many instances of a task ended in which state."""
    found = sorted(states(run, task).values())
    return {state: found.count(state) for state in found}


def xcom(run, task_id, key="return_value", map_index=-1):
    (ti,) = [t for t in run.get_task_instances() if (t.task_id, t.map_index) == (task_id, map_index)]
    return ti.xcom_pull(task_ids=task_id, key=key, map_indexes=map_index)


@pytest.fixture
def run(run_dag, root, referee):
    """Run one of our DAGs with a filled form; read anew each time, since a run in this process keeps its form."""
    from airflow.dag_processing.dagbag import DagBag

    def go(name, **form):
        return run_dag(DagBag(dag_folder=str(root / "dags" / f"{name}.py")).dags[name], run_conf=form)

    return go


@pytest.fixture
def registered(make_study):
    """Register a study as the form would, without a DAG."""
    return lambda **changes: make_study(**FORM | changes)


def test_a_study_is_registered_by_its_form(run, store):
    from easeml_core.services.reports.overview import live_sets, study_state
    from easeml_core.store.tables import studies

    limits = {"priority": 4, "deadline": "2199-01-01T12:00:00Z", "target_quality": 0.99, "budget_seconds": 900}
    done = run("easeml_register_study", **FORM | limits)
    assert states(done, "register") == {("register", -1): "success"}
    with store.begin() as tx:
        study = studies.get_study(tx, FORM["study"])
    found = {name: getattr(study, name) for name in limits} | {"deadline": study.deadline.isoformat()}
    assert found == limits | {"deadline": "2199-01-01T12:00:00+00:00"}
    assert xcom(done, "register", "refused") is False
    assert study_state(store, study="cancer") == "ACTIVE"
    assert live_sets(store, study="cancer") == ["gate", "meter"]

    for wrong in ({"source": "sklearn:nothing"}, {}):  # the last: its name is taken
        again = run("easeml_register_study", **FORM | wrong)
        assert states(again, "register") == {("register", -1): "failed"}

    too_few = run("easeml_register_study", **FORM | {"study": "greedy", "gate": {"condition": "n > 0.5 +/- 0.01"}})
    assert states(too_few, "register") == {("register", -1): "failed"}
    assert "needs at least" in xcom(too_few, "register", "message")
    assert study_state(store, study="greedy") == "REFUSED"


@pytest.mark.journey
def test_two_nights(run, registered, store):
    """A failed trial, a rejected model and an empty round stop nobody else; the second night trains nothing."""
    registered(candidates=[FAILING, TREE, BAYES])
    registered(study="strict", gate=HARD, candidates=[TREE])
    first = run("easeml_nightly_retraining", trials_per_round=2)

    assert [tally(first, f"suggest_{n}") for n in (1, 2, 3)] == [{"success": 1}] * 3
    trained = [state for n in (1, 2, 3) for state in states(first, f"train_{n}").values()]
    assert sorted(trained) == ["failed", "skipped", "success", "success", "success"]
    assert [m["study"] for m in xcom(first, "best_models")] == ["cancer", "strict"]
    assert states(first, "release.gate") == {("release.gate", 0): "success", ("release.gate", 1): "failed"}
    assert states(first, "release.promote") == {
        ("release.promote", 0): "success",
        ("release.promote", 1): "upstream_failed",
    }
    labels = {ti.rendered_map_index for ti in first.get_task_instances()}
    assert {"cancer: tree", "cancer: bayes", "strict: tree", "cancer", "strict"} <= labels
    assert tally(first, "release.meter") == {"success": 2}  # the rejected one is metered too
    # What the failed task learnt stands in XCom all the same, and is one symbol.
    assert xcom(first, "release.gate", "symbol", 0) == "pass"
    assert xcom(first, "release.gate", "symbol", 1) == "fail"

    from easeml_core.services.reports.overview import overview

    by_study = {s.study: s for s in overview(store).tenants}
    assert by_study["cancer"].production_model_id == xcom(first, "release.promote", "model_id", 0)
    assert (by_study["cancer"].trials, by_study["cancer"].failed) == (2, 1)
    assert by_study["strict"].production_model_id is None

    second = run("easeml_nightly_retraining", trials_per_round=2)
    assert [tally(second, f"suggest_{n}") for n in (1, 2, 3)] == [{"success": 1}] * 3
    assert [tally(second, f"train_{n}") for n in (1, 2, 3)] == [{"skipped": 1}] * 3
    assert xcom(second, "suggest_1", "message").startswith("nothing to train")
    assert xcom(second, "best_models") == []  # one stands, and the other was rejected
    assert {s for t in ("gate", "promote", "meter") for s in states(second, f"release.{t}").values()} == {"skipped"}


@pytest.mark.journey
def test_a_night_at_scale(run, registered, store):
    """Two studies in one chunk: one passes, one is rejected. The chunk is deferred, promotes, and ends red."""
    from easeml_core.services.reports.overview import overview
    from easeml_core.store.queries.timeline import requests_of

    registered()
    registered(study="strict", gate=HARD)
    night = run("easeml_night_at_scale", devices=["cpu"], max_trials=4)
    assert states(night, "train", "release") == {("train", 0): "success", ("release", 0): "failed"}
    assert [[m["study"] for m in chunk] for chunk in xcom(night, "best_models")] == [["cancer", "strict"]]
    passed, rejected = xcom(night, "release", "released", 0)
    assert (passed["study"], passed["outcome"], passed["symbol"]) == ("cancer", "promoted", "pass")
    assert (rejected["study"], rejected["outcome"], rejected["symbol"]) == ("strict", "rejected", "fail")
    assert all(isinstance(released["signal"], int) for released in (passed, rejected))
    assert set(passed) == {
        *("study", "model_id", "outcome", "symbol", "signal", "alert", "message", "meter_refusal"),
    }
    labels = {ti.rendered_map_index for ti in night.get_task_instances()}
    assert "cancer … strict (2)" in labels
    in_production = {s.study: s.production_model_id for s in overview(store).tenants}
    assert in_production == {"cancer": passed["model_id"], "strict": None}
    with store.begin() as tx:
        asked = requests_of(tx, key=f"{night.dag_id}/{night.run_id}/release/all", studies=None)
    assert sorted(str(request.kind) for request in asked) == ["gate", "gate", "meter", "meter", "promote"]


@pytest.mark.nightly
@pytest.mark.journey
def test_by_hand_after_the_night(run, registered, store):
    """A night that promotes, an idle night, commits judged by hand, and the watch over the meter."""
    from easeml_core.services.registration.register import pause_study
    from easeml_core.services.reports.overview import study_state

    gate = FORM["gate"] | {"steps": 4}
    # Signal 2 means a gap above -0.5, which every model has: the budget of 1 is exceeded by every reading.
    meter = FORM["meter"] | {"ranges": [-0.5, 0.6], "overfitting_budget": 1}
    registered(gate=gate, meter=meter)
    night = run("easeml_nightly_retraining", trials_per_round=2)
    assert str(night.state) == "success"
    promoted = xcom(night, "release.promote", "model_id", 0)
    (other,) = {xcom(night, "train_1", "trial", i)["model_id"] for i in (0, 1)} - {promoted}

    idle = run("easeml_nightly_retraining", trials_per_round=2)
    assert str(idle.state) == "success"
    assert xcom(idle, "best_models") == []
    assert {s for t in ("gate", "promote", "meter") for s in states(idle, f"release.{t}").values()} == {"skipped"}

    first = run("easeml_overfitting_watch")
    ended = {("watch", -1): "success", ("raise_alert", -1): "failed", ("pause", -1): "success"}
    assert states(first, "watch", "raise_alert", "pause") == ended
    assert study_state(store, study="cancer") == "PAUSED"  # the search, not the gate
    pause_study(store, study="cancer", paused=False)
    assert (xcom(first, "watch")["study"], xcom(first, "watch")["model_id"]) == ("cancer", promoted)

    typo = run("easeml_commit_gate", study="cancer", model=other, condition="n - o > 0.02")
    assert states(typo, "check_condition") == {("check_condition", -1): "failed"}
    assert [tally(typo, task) for task in JUDGE] == [{"upstream_failed": 1}] * 3  # mapped already, or not yet

    # The set answers about no other condition than its own unless the referee has planned such answers.
    worse = run("easeml_commit_gate", study="cancer", model=other, condition="n - o > 0.4 +/- 0.5")
    assert states(worse, *JUDGE) == {
        ("judge.gate", 0): "failed",
        ("judge.promote", 0): "upstream_failed",
        ("judge.meter", 0): "success",
    }
    assert xcom(worse, "judge.gate", "symbol", 0) is None
    assert "it answers about no other condition" in xcom(worse, "judge.gate", "message", 0)

    # That reading raised the second alert while nobody looked; the first one is not reported again.
    again = run("easeml_overfitting_watch", pause=False)
    assert states(again, "pause") == {("pause", -1): "skipped"}
    assert study_state(store, study="cancer") == "ACTIVE"
    second = xcom(again, "watch")
    assert (second["model_id"], second["signal"]) == (other, 2)
    assert second["alert_id"] > xcom(first, "watch")["alert_id"]

    refused = run("easeml_commit_gate", study="cancer", model=other, reliability=0.5)
    assert states(refused, "judge.gate") == {("judge.gate", 0): "failed"}
    assert "reliability must be 0.9" in xcom(refused, "judge.gate", "message", 0)
    assert xcom(refused, "judge.gate", "symbol", 0) is None

    good = run("easeml_commit_gate", study="cancer", model=other)
    assert states(good, *JUDGE) == dict.fromkeys([(t, 0) for t in JUDGE], "success")
    assert xcom(good, "judge.promote", "model_id", 0) == other
