"""Operators and sensors one by one, against the real database: repeatable, deferred, polled, skipped, cancelled."""

import asyncio
import contextlib
import json
import logging
import os
import threading
import time

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
    TaskDeferred,
)
from task_doubles import context, first_event, made_anew
from waiting import at_rest

from easeml_airflow import decorators, operators, sensors
from easeml_airflow.triggers.easeml import facts_of
from easeml_core.errors import ConfigError
from easeml_core.services.trials.lease import claim
from easeml_core.store.tables.trials import get_trial

TREE = {"name": "tree", "kind": "decision_tree", "parameters": {"max_depth": 3}}
BAYES = {"name": "bayes", "kind": "gaussian_naive_bayes", "parameters": {}}
CENTROID = {"name": "centroid", "kind": "nearest_centroid", "parameters": {}}
FAILING = {"name": "failing", "kind": "nearest_neighbors", "parameters": {"n_neighbors": 1000}}


@pytest.fixture
def study(connected, make_study):
    """A study with four candidates, one of which fails."""
    return make_study("cancer", candidates=[FAILING, TREE, BAYES, CENTROID])


def suggest(count=4, task_id="suggest"):
    ctx = context(task_id)
    return operators.SuggestTrialsOperator(task_id=task_id, count=count).execute(ctx), ctx["ti"].pushed


def train(trial, **arguments):
    ctx = context(f"train_{trial['trial_id']}")
    return operators.TrainTrialOperator(task_id="train", trial=trial, **arguments).execute(ctx), ctx["ti"].pushed


def of(trials, candidate):
    return next(t for t in trials if t["candidate"] == candidate)


@pytest.fixture
def trained(study):
    """The study's tree, trained: its result."""
    trials, _ = suggest()
    return train(of(trials, "tree"))[0]


def test_a_retried_suggestion_is_the_same_one(study, caplog):
    with caplog.at_level(logging.INFO):
        first, pushed = suggest(2)
    assert len(first) == 2
    assert set(first[0]) == {"trial_id", "study", "candidate", "reason"}
    assert suggest(2)[0] == first
    other, _ = suggest(3, task_id="suggest_again")
    assert {t["trial_id"] for t in other}.isdisjoint(t["trial_id"] for t in first)
    none, told = suggest(1, task_id="suggest_more")
    assert none == []
    assert told["message"].startswith("nothing to train")
    assert pushed["policy"] == "default"


@pytest.mark.parametrize("role", ["easeml_referee", "airflow"])
def test_the_wrong_role_fails_at_once_and_is_named(study, connected, monkeypatch, role):
    """A further try would meet the same rights."""
    connection = json.loads(os.environ["AIRFLOW_CONN_EASEML_DEFAULT"])
    connection |= {"login": role, "password": connected.server.secrets[role]}
    monkeypatch.setenv("AIRFLOW_CONN_EASEML_DEFAULT", json.dumps(connection))
    named = rf"Airflow's connection 'easeml_default' .*logs in as '{role}'; the role easeml_worker is needed"
    for operator in (operators.SuggestTrialsOperator, operators.RunDeviceOperator):
        with pytest.raises(AirflowFailException, match=f"this role may not do that: .*permission denied.*{named}"):
            operator(task_id="task").execute(context())


def test_a_study_that_a_dag_keeps_says_what_the_dag_has_otherwise(study, capsys):
    given = {"tenant": "lab", "study": study, "source": "sklearn:breast_cancer", "deferrable": False}
    ctx, line = context("register"), {"name": "linie", "kind": "function"}
    operators.RegisterStudyOperator(task_id="r", candidates=[TREE, line], keep=True, **given).execute(ctx)
    (told,) = ctx["ti"].pushed["differs"]
    assert "lacks candidate 'linie'; add it: `easeml candidate add cancer --kind function --name linie`" in told
    assert told in capsys.readouterr().out


def test_a_device_gets_what_may_run_on_it(connected, make_study):
    make_study("cancer", candidates=[TREE | {"devices": ["gpu"]}, BAYES])

    def names(task_id, device):
        operator = operators.SuggestTrialsOperator(task_id=task_id, count=4, device=device)
        return [t["candidate"] for t in operator.execute(context(task_id))]

    assert names("on_cpu", "cpu") == ["bayes"]
    assert names("anywhere", "None") == ["tree"]
    with pytest.raises(AirflowFailException, match="device must be a kind of device"):
        names("nowhere", "GPU 0")


def test_as_many_trials_are_asked_for_as_the_live_devices_take_and_no_more_than_may_be(study, monkeypatch):
    for number, (free, asked) in enumerate([(0, 1), (2, 2), (5000, 1000)]):
        monkeypatch.setattr("easeml_core.services.trials.devices.free_devices", lambda *_, free=free, **__: free)
        trials, pushed = suggest(None, task_id=f"many_{number}")
        assert len(trials) <= asked
    assert pushed["policy"]


def test_the_installations_policy_holds_where_the_task_names_none(study, monkeypatch):
    monkeypatch.setenv("AIRFLOW__EASEML__POLICY", "roundrobin")
    assert suggest(1)[1]["policy"] == "roundrobin"
    with pytest.raises(AirflowFailException, match="policy must be one of"):
        operators.SuggestTrialsOperator(task_id="s", policy="luck").execute(context("s"))
    with pytest.raises(AirflowFailException, match="there is no study 'nowhere'; known: 'cancer'"):
        operators.SuggestTrialsOperator(task_id="t", studies=["nowhere"]).execute(context("t"))


def test_a_trial_succeeds_once_and_a_retry_only_reports_it(study, caplog):
    trials, _ = suggest()
    with caplog.at_level(logging.INFO):
        result, pushed = train(of(trials, "tree"))
    assert result["state"] == "SUCCEEDED"
    assert 0.5 < result["quality"] <= 1
    assert pushed == {"trial": result}
    assert train(of(trials, "tree"))[0] == result


def test_a_slot_is_checked_when_it_is_named_and_again_once_it_is_rendered(study, store):
    from easeml_core.services.trials.execution import trial_state

    for wrong in ("gpu", "cuda:", "cuda:1000", "CPU"):
        with pytest.raises(ConfigError, match=f"slot must be cpu, cuda or cuda:N, got '{wrong}'"):
            operators.TrainTrialOperator(task_id="train", trial=1, slot=wrong)
    trial = of(suggest()[0], "tree")
    operator = operators.TrainTrialOperator(task_id="train", trial=trial, slot="{{ params.slot }}")
    operator.render_template_fields({"params": {"slot": "cuda:x"}})
    with pytest.raises(AirflowFailException, match="slot must be cpu, cuda or cuda:N, got 'cuda:x'"):
        operator.execute(context())
    assert trial_state(store, trial_id=trial["trial_id"]).state == "SUGGESTED"


@pytest.mark.journey
def test_a_trial_is_trained_on_the_slot_that_its_task_names(study, store, monkeypatch):
    """A slot that the machine cannot have is refused before the trial is claimed, which a failure would use up."""
    trials, _ = suggest()
    assert train(of(trials, "tree"), slot="cpu")[0]["state"] == "SUCCEEDED"
    assert train(of(trials, "bayes"), slot="None")[0]["state"] == "SUCCEEDED"
    monkeypatch.setattr("easeml_core.training.job._GPU_DEVICES", ())
    monkeypatch.setenv("PATH", "/nonexistent")
    failing = of(trials, "failing")
    with pytest.raises(AirflowFailException, match="slot cuda:200: there is no GPU on this machine"):
        train(failing, slot="cuda:200", on_failed="ignore")
    with store.begin() as tx:  # said before the claim: the trial waits for a worker that has one
        assert get_trial(tx, failing["trial_id"]).state == "SUGGESTED"


def test_a_failed_trial_fails_its_task_with_the_reason_and_tells_it_first(study):
    trials, _ = suggest()
    ctx = context()
    operator = operators.TrainTrialOperator(task_id="train", trial=of(trials, "failing"))
    with pytest.raises(AirflowFailException, match=r"\(cancer, failing\) failed: .*Expected n_neighbors <="):
        operator.execute(ctx)
    assert ctx["ti"].pushed["trial"]["state"] == "FAILED"
    with pytest.raises(AirflowSkipException, match="Expected n_neighbors <= n_samples_fit"):
        train(of(trials, "failing"), on_failed="skip")
    assert train(of(trials, "failing"), on_failed="ignore")[0]["state"] == "FAILED"


def killed(operator, ctx, until):
    """Let the task be told to stop once ``until`` holds; what its execution raised."""
    outcome = []

    def run():
        try:
            outcome.append(operator.execute(ctx))
        except AirflowException as error:
            outcome.append(error)

    task = threading.Thread(target=run)
    task.start()
    deadline = time.monotonic() + 60
    while not until() and time.monotonic() < deadline:
        time.sleep(0.01)
    operator.on_kill()
    task.join(60)
    assert not task.is_alive()
    return outcome[0]


@pytest.mark.cold  # a copy has trained before the stop comes
def test_a_task_that_is_told_to_stop_hands_its_trial_back_and_a_further_try_trains_it(connected, make_study, store):
    """The hook is called alike for a drained node and for a person who marks the task: nothing of it counts."""
    # The default lease: its heartbeat comes after 15 s, Airflow kills for good after 5.
    make_study("cancer", candidates=[BAYES])
    trials, _ = suggest()
    trial_id, ctx = of(trials, "bayes")["trial_id"], context()
    for tries in range(4):  # more often than a trial has attempts
        operator = operators.TrainTrialOperator(task_id="train", trial=trial_id)
        told = killed(operator, ctx, lambda: trial_row(store, trial_id)[0] == "RUNNING")
        assert type(told) is AirflowException  # neither skipped nor failed for good
        assert "was handed back" in str(told)
        assert trial_row(store, trial_id) == ("SUGGESTED", tries + 1, tries + 1)
    assert operators.TrainTrialOperator(task_id="train", trial=trial_id).execute(ctx)["state"] == "SUCCEEDED"


@pytest.mark.parametrize("form", ["operator", "decorator"])
def test_a_function_that_is_told_to_stop_hands_its_trial_back_when_it_reports(connected, make_study, store, form):
    begun, ended = threading.Event(), threading.Event()

    def fit(data, parameters, report):
        begun.set()
        for step in range(10_000):
            report(step, 0.5)
            time.sleep(0.01)
        ended.set()

    make_study("cancer", candidates=[{"name": "fit-1", "kind": "function"}])
    (found,) = operators.SuggestTrialsOperator(task_id="ask", count=1, functions=["fit"]).execute(context("ask"))
    with DAG("stopped", schedule=None):
        of_type = operators.TrainTrialOperator(task_id="train", trial=found, functions=[fit])
        decorated = decorators.trial(fit)(trial=found).operator
    task = {"operator": of_type, "decorator": decorated}[form]
    assert "was handed back" in str(killed(task, context(), begun.is_set))
    assert (trial_row(store, found["trial_id"]), ended.is_set()) == (("SUGGESTED", 1, 1), False)


def test_a_task_that_comes_late_finds_its_trial_taken_and_is_skipped(connected, make_study, store):
    """As the second try of a task whose worker was lost: another device has the trial by then."""
    make_study("cancer", candidates=[BAYES])
    (found,) = suggest()[0]
    claim(store, trial_id=found["trial_id"], request_key="of another device")
    with pytest.raises(AirflowSkipException, match="RUNNING on another worker"):
        operators.TrainTrialOperator(task_id="train", trial=found).execute(context())
    assert trial_row(store, found["trial_id"]) == ("RUNNING", 1, 0)


def trial_row(store, trial_id):
    with store.begin() as tx:
        found = tx.exec_driver_sql(f"SELECT state, attempt, excused FROM work.trials WHERE id = {trial_id}").one()
    return tuple(found)


def gate(**arguments):
    return operators.GateOperator(task_id="gate", study="cancer", **arguments)


def deferral(operator, ctx):
    with pytest.raises(TaskDeferred) as caught:
        operator.execute(ctx)
    return caught.value


def plan_gate(connected, **changes):
    """Let the live gate set have been planned with other settings."""
    with contextlib.closing(connected.server.connect(database=connected.name)) as opened, opened.cursor() as cursor:
        plan = "UPDATE work.test_sets SET plan = plan || %s WHERE purpose = 'gate'"
        cursor.execute(plan, [json.dumps(changes)])


@pytest.mark.journey
def test_a_gate_is_filed_once_and_deferred_until_the_answer(trained, connected, artifacts):
    """The trigger is woken by the notification, long before its own poll."""
    from easeml_core.services.referee.process import Referee

    ctx = context("gate")
    operator = gate()
    first, second = deferral(operator, ctx), deferral(operator, ctx)
    assert first.trigger.subject == second.trigger.subject == str(ctx["ti"].pushed["request_id"])
    assert first.method_name == "execute_complete"
    assert first.timeout.total_seconds() == 604800  # people may have to give labels first
    assert first.trigger.poll_interval == 60

    async def wait():
        waiting = asyncio.create_task(anext(made_anew(first.trigger).run()))
        await at_rest()
        assert not waiting.done()
        await asyncio.to_thread(Referee(connected.referee, artifacts).answer_one)
        start = time.monotonic()
        return await asyncio.wait_for(waiting, 60), time.monotonic() - start

    event, seconds = asyncio.run(wait())
    assert seconds < 40  # the poll alone would need 48 s or more
    facts = operator.execute_complete(ctx, event.payload)
    assert facts["symbol"] == "pass"
    assert ctx["ti"].pushed["symbol"] == "pass"
    assert operator.execute(ctx) == facts  # a retry after the answer does not defer, and spends no step
    assert facts["step"] == 1


@pytest.mark.journey
def test_a_failed_gate_tells_its_symbol_before_it_fails(trained, connected, referee):
    plan_gate(connected, condition="n > 0.95 +/- 0.3")
    for on_fail, expected in (("fail", AirflowFailException), ("skip", AirflowSkipException)):
        ctx = context("gate")
        operator = gate(on_fail=on_fail, deferrable=False, poll_interval=0.05)
        with pytest.raises(expected, match="study 'cancer': model 2 did not pass the gate"):
            operator.execute(ctx)
        assert ctx["ti"].pushed["symbol"] == "fail"
        assert set(ctx["ti"].pushed) == {
            *("request_id", "kind", "study", "model_id", "refused", "message", "symbol", "step", "steps", "cached"),
            "planned",
        }


def test_a_choice_that_is_none_is_told_before_anything_is_filed(trained, store):
    with pytest.raises(AirflowFailException, match="on_fail must be fail, skip or None, got 'stop'"):
        gate(on_fail="stop").execute(context("gate"))
    with pytest.raises(AirflowFailException, match="model_id must be a whole number, got 'best'"):
        gate(model_id="best").execute(context("gate"))
    with pytest.raises(AirflowFailException, match=r"there is no model .*99"):
        gate(model_id=99).execute(context("gate"))


def test_a_referee_that_never_answers_is_named(trained):
    operator = gate(deferrable=False, poll_interval=0.05, answer_timeout=0.2)
    with pytest.raises(AirflowException, match=r"within 0.2 s: 1 referee .* the last sign .* ago") as caught:
        operator.execute(context("gate"))
    assert not isinstance(caught.value, AirflowFailException)  # the request stays filed: trying again is right
    with pytest.raises(AirflowException, match=r"1 referee .*`easeml labels wanted`"):
        operator.resume_execution("__fail__", {"error": "Trigger timeout"}, context("gate"))


def promotion(**arguments):
    return operators.PromoteModelOperator(task_id="p", study="cancer", model_id=2, gate_request_id=1, **arguments)


def test_an_answer_that_comes_soon_costs_no_second_start(trained, referee, monkeypatch):
    monkeypatch.setenv("AIRFLOW__EASEML__ANSWER_WAIT_SECONDS", "60")
    with pytest.raises(AirflowFailException, match="request 1"):  # a refusal: no model is run for it
        promotion(poll_interval=60).execute(context("promote"))


def test_time_outs_follow_the_number_of_requests_ahead(trained, monkeypatch):
    monkeypatch.setenv("AIRFLOW__EASEML__ANSWER_WAIT_SECONDS", "60")
    monkeypatch.setattr("easeml_airflow.operators.base.FEW_AHEAD", -1)  # too many are ahead to wait on the worker
    waits = {
        "first": (promotion(), 3600),
        "second": (promotion(), 3630),
        "gate": (gate(), 604860),
        "own": (promotion(answer_timeout=5), 5),
    }
    for name, (operator, seconds) in waits.items():
        assert deferral(operator, context(name)).timeout.total_seconds() == seconds, name


@pytest.mark.journey
def test_promotion_needs_a_recorded_pass(trained, connected, referee):
    plan_gate(connected, other_conditions=1, condition="n - o > 0 +/- 0.4")
    more = {"study": "cancer", "model_id": 2, "deferrable": False, "poll_interval": 0.05}
    with pytest.raises(AirflowFailException, match="gate request 12345 has no verdict on model 2"):
        operators.PromoteModelOperator(task_id="p", gate_request_id=12345, **more).execute(context("p1"))
    now = {"deferrable": False, "poll_interval": 0.05}
    advice = gate(condition="n > 0.5 +/- 0.3", **now).execute(context("advice"))
    assert (advice["symbol"], advice["planned"]) == ("pass", False)
    with pytest.raises(AirflowFailException, match="another condition than the one sealed with the set"):
        operators.PromoteModelOperator(task_id="p", gate_request_id=advice["request_id"], **more).execute(context("p0"))
    passed = gate(**now).execute(context("gate"))
    promoted = operators.PromoteModelOperator(task_id="p", gate_request_id=str(passed["request_id"]), **more)
    assert promoted.execute(context("p2"))["promoted"] is True

    from easeml_core.data.sources.load import load_source

    inputs = load_source("sklearn:breast_cancer", None).inputs[:4].tolist()
    answered = operators.InferOperator(task_id="infer", study="cancer", inputs=inputs).execute(context())
    assert answered["model_id"] == 2
    assert len(answered["labels"]) == 4
    with pytest.raises(AirflowFailException, match=r"inputs must have shape \(n >= 1, 30\)"):
        operators.InferOperator(task_id="infer", study="cancer", inputs=[[1.0]]).execute(context())
    assert operators.BestModelsOperator(task_id="best").execute(context()) == []


def test_inference_without_production_is_told(study):
    with pytest.raises(AirflowFailException, match="no model in production yet"):
        operators.InferOperator(task_id="infer", study="cancer", inputs=[[0.0] * 30]).execute(context())


def test_the_best_model_waits_for_the_gate(trained):
    (best,) = operators.BestModelsOperator(task_id="best", studies=["cancer"]).execute(context())
    assert best == {"study": "cancer", "model_id": trained["model_id"], "quality": pytest.approx(trained["quality"])}


def poke(sensor):
    looked = sensor.poke(context())
    return looked.xcom_value if looked.is_done else None


def test_the_trial_sensor_in_both_ways(study):
    trials, _ = suggest()
    trial = of(trials, "tree")
    poking = sensors.TrialFinishedSensor(task_id="s", trial=trial, deferrable=False, poke_interval=0.05, timeout=0.2)
    assert poke(poking) is None
    with pytest.raises(AirflowException, match=r"time.*out"):
        poking.execute(context())
    waiting = deferral(sensors.TrialFinishedSensor(task_id="s", trial=trial, timeout=90), context())
    assert waiting.timeout.total_seconds() == 90
    result, _ = train(trial)
    assert poke(poking) == poking.execute(context()) == result
    event = first_event(waiting.trigger)
    assert sensors.TrialFinishedSensor(task_id="s", trial=trial).execute_complete(context(), event) == result
    assert facts_of(event) == result


def test_the_trial_sensor_fails_with_a_failed_trial(study):
    trials, _ = suggest()
    train(of(trials, "failing"), on_failed="ignore")
    with pytest.raises(AirflowFailException, match="Expected n_neighbors <= n_samples_fit"):
        sensors.TrialFinishedSensor(task_id="s", trial=of(trials, "failing")).execute(context())
    result = sensors.TrialFinishedSensor(task_id="s", trial=of(trials, "failing"), on_failed="ignore")
    assert result.execute(context())["state"] == "FAILED"


def test_the_test_set_sensor(connected, artifacts, store):
    from registering import register_study

    from easeml_core.services.referee.process import Referee
    from easeml_core.services.studies.archive import archive_study

    def register(study, **gate):
        settings = {"tenant": "lab", "source": "sklearn:breast_cancer", "request_key": study}
        register_study(store, study=study, gate={"condition": "n > 0.5 +/- 0.2", "steps": 2} | gate, **settings)

    register("cancer")
    either, meter = (sensors.TestSetReadySensor(task_id="s", study="cancer", purpose=p) for p in (None, "meter"))
    assert poke(either) is None
    assert deferral(meter, context()).trigger.subject == "cancer/meter"
    Referee(connected.referee, artifacts).answer_one()
    ready = {"study": "cancer", "state": "ACTIVE", "sealed_sets": ["gate", "meter"]}
    assert poke(either) == meter.execute(context()) == ready
    register("greedy", condition="n > 0.5 +/- 0.001")
    Referee(connected.referee, artifacts).answer_one()
    with pytest.raises(AirflowFailException, match="study 'greedy' was refused by the referee"):
        sensors.TestSetReadySensor(task_id="s", study="greedy").execute(context())
    archive_study(store, study="cancer", why="over")
    with pytest.raises(AirflowFailException, match="study 'cancer' is archived; restore it"):
        either.execute(context())
    with pytest.raises(AirflowFailException, match="purpose must be one of gate, meter, joint, direct, got 'fun'"):
        sensors.TestSetReadySensor(task_id="s", study="cancer", purpose="fun").execute(context())


@pytest.mark.journey
def test_the_meter_sensor_sees_each_alert_and_its_end(connected, make_study, artifacts, store):
    """An alert raised while nobody looks, even one that was cleared at once, is found by its number."""
    from easeml_core.services.meter.alerts import clear_alert
    from easeml_core.services.referee.process import Referee

    meter = {"ranges": (-0.5, 0.6), "tolerance": 0.2, "reliability": 0.9, "steps": 4}
    make_study("cancer", candidates=[TREE, BAYES], meter=meter)
    trials, _ = suggest()
    models = [train(trial)[0]["model_id"] for trial in trials]

    def read(model, key):
        with pytest.raises(TaskDeferred):
            operators.MeterOperator(task_id="meter", study="cancer", model_id=model).execute(context(key))
        Referee(connected.referee, artifacts).answer_one()
        return operators.MeterOperator(task_id="meter", study="cancer", model_id=model).execute(context(key))

    def sensor(wait_for, after_id=0, study="cancer"):
        return sensors.OverfittingMeterSensor(task_id="s", study=study, wait_for=wait_for, after_id=after_id)

    assert [poke(sensor(w)) is None for w in ("alert", "clear", "any")] == [True, False, True]
    waiting = deferral(sensor("alert", study=None), context())
    reading = read(models[0], "one")
    assert (reading["signal"], reading["signals"], reading["submissions_left"]) == (2, 3, 3)
    assert "budget" in reading["alert"]
    alert = facts_of(first_event(waiting.trigger))
    assert (alert["study"], alert["model_id"]) == ("cancer", models[0])
    assert poke(sensor("alert")) == poke(sensor("any")) == poke(sensor("alert", study="None")) == alert
    assert poke(sensor("clear")) is None
    assert poke(sensor("alert", alert["alert_id"])) is poke(sensor("any", alert["alert_id"])) is None

    clear_alert(store, study="cancer", alert_id=alert["alert_id"])
    assert poke(sensor("alert")) is None
    assert poke(sensor("any", alert["alert_id"]))["message"] == f"no alert up to number {alert['alert_id']} is open"

    # A wait that began when nothing was open finds an alert that was raised and cleared between two looks, also after
    # the triggerer was restarted with it.
    looking = {w: sensor(w) for w in ("alert", "any")}
    waits = {w: deferral(looking[w], context()).trigger for w in looking}
    read(models[1], "two")
    assert poke(sensor("clear", alert["alert_id"]))["alert_id"] == alert["alert_id"]  # the later one is another story
    ending = sensor("clear")
    end = deferral(ending, context()).trigger
    second = poke(sensor("alert", str(alert["alert_id"])))
    assert poke(ending) is None
    clear_alert(store, study="cancer", alert_id=second["alert_id"])
    assert poke(sensor("alert", alert["alert_id"]))["alert_id"] == second["alert_id"]
    for wait_for, trigger in waits.items():
        found = facts_of(first_event(trigger))
        assert found["alert_id"] == poke(looking[wait_for])["alert_id"] == second["alert_id"]
    assert facts_of(first_event(end))["study"] == "cancer"
    assert poke(sensor("clear"))["study"] == poke(ending)["study"] == "cancer"

    # The alert pauses the study while nobody has dealt with it, and not any more.
    pause = operators.PauseOnAlertOperator(task_id="p", study="cancer", alert_id=str(second["alert_id"]))
    assert pause.execute(context()) == {
        "study": "cancer",
        "alert_id": second["alert_id"],
        "paused": False,
        "state": "ACTIVE",
    }
    with pytest.raises(AirflowFailException, match="alert_id must be the number of an alert"):
        operators.PauseOnAlertOperator(task_id="p", study="cancer", alert_id=0).execute(context())

    with pytest.raises(AirflowFailException, match="wait_for must be one of alert, clear, any, got 'luck'"):
        poke(sensor("luck"))
    with pytest.raises(AirflowFailException, match="there is no study 'nowhere'"):
        poke(sensor("alert", study="nowhere"))


# Checking what a function returned walks through all loaded modules, and some of Airflow's warn when looked at.
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_training_function_of_ones_own(make_study, run_dag, connected):
    """In a DAG: one trial is trained by the function, another fails with what the function said."""
    from easeml_airflow.decorators import trial

    candidates = [{"name": "train_it", "kind": "function"}, {"name": "train_it-deep", "kind": "function"}]
    make_study(candidates=[candidates[0], candidates[1] | {"parameters": {"depth": 1}}])
    with DAG("bring_your_own", schedule=None) as dag:
        suggested = operators.SuggestTrialsOperator(task_id="suggest", count=4)

        @trial(pool="default_pool", retries=0)
        def train_it(data, parameters, report):
            """Fit a stump."""
            from sklearn.tree import DecisionTreeClassifier

            report(1, 0.5)
            if not parameters:
                message = "this function wants parameters"
                raise ValueError(message)
            return DecisionTreeClassifier(max_depth=parameters["depth"]).fit(data.train_inputs, data.train_labels)

        train_it.expand(trial=suggested.output)

    done = run_dag(dag)
    trials = {ti.map_index: ti for ti in done.get_task_instances() if ti.task_id == "train_it"}
    told = [t.xcom_pull(task_ids="train_it", key="trial", map_indexes=i) for i, t in sorted(trials.items())]
    assert {result["candidate"] for result in told} == {"train_it", "train_it-deep"}
    for index, result in enumerate(told):
        has = result["candidate"] == "train_it-deep"  # what the function wants
        assert str(trials[index].state) == ("success" if has else "failed")
        assert result["state"] == ("SUCCEEDED" if has else "FAILED")
        assert has or "this function wants parameters" in result["failure"]
