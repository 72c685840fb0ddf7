"""A device as a task: it streams, tells what it did, is killed politely, and its next try goes on."""

import threading
import time

import numpy as np
import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from task_doubles import context

from easeml_airflow.errors import STREAM_OUTCOMES, settle_stream
from easeml_airflow.operators import RunDeviceOperator
from easeml_core.errors import InvalidInputError

pytestmark = pytest.mark.journey

TREES = [{"name": f"tree-{d}", "kind": "decision_tree", "parameters": {"max_depth": d}} for d in (1, 2, 3)]
FAILING = {"name": "failing", "kind": "nearest_neighbors", "parameters": {"n_neighbors": 1000}}


def run_device(ctx=None, **arguments):
    return RunDeviceOperator(task_id="run_device", **arguments).execute(ctx or context())


def test_the_dag_keeps_every_device_busy_until_nothing_is_left(run_dag, root, connected, make_study, store):
    from airflow.dag_processing.dagbag import DagBag

    from easeml_core.services.reports.overview import overview

    make_study("cancer", candidates=[FAILING, *TREES])
    dag = DagBag(dag_folder=str(root / "dags" / "easeml_stream.py")).dags["easeml_stream"]
    done = run_dag(dag, run_conf={"devices": ["cpu", "cpu"], "max_trials": 3, "policy": "roundrobin"})
    assert str(done.state) == "success"
    tasks = {ti.map_index: ti for ti in done.get_task_instances() if ti.task_id == "run_device"}
    assert {str(ti.state) for ti in tasks.values()} == {"success"}
    assert {ti.rendered_map_index for ti in tasks.values()} == {"cpu"}
    told = [tasks[i].xcom_pull(task_ids="run_device", map_indexes=i) for i in (0, 1)]
    # In this process one task runs after the other, either first: it trains as many as it may, the second the rest.
    assert sorted((t["reason"], len(t["trials"])) for t in told) == [("enough trials", 3), ("nothing left", 1)]
    (summary,) = overview(store).tenants
    assert (summary.trials, summary.failed) == (3, 1)


def test_what_the_form_leaves_empty_and_text_where_numbers_belong(connected, make_study):
    make_study("cancer", candidates=TREES)
    unset = {"device": "None", "policy": "", "studies": None}
    ctx = context()
    told = run_device(ctx, until="3600.0", max_trials="1", **unset)
    assert (told["reason"], told["device"], len(told["trials"])) == ("enough trials", None, 1)
    assert ctx["ti"].pushed == {"stream": told}
    assert run_device(until="", max_trials="None", studies='["cancer"]')["trials"][0] == told["trials"][0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"until": "soon"}, "until must be a number"),
        ({"max_trials": "0"}, "max_trials must be >= 1"),
        ({"policy": "luck"}, "policy must be one of"),
        ({"studies": ["nowhere"]}, "there is no study 'nowhere'"),
    ],
)
def test_a_mistake_fails_the_task_without_another_try(arguments, words, connected, make_study):
    make_study("cancer", candidates=TREES)
    with pytest.raises(AirflowFailException, match=words):
        run_device(**arguments)


@pytest.mark.cold  # a fork has trained before the stop comes
def test_a_killed_task_hands_its_trial_back_and_its_next_try_trains_it(connected, make_study, store):
    from easeml_core.services.reports.overview import study_details

    # The default lease: its heartbeat comes after 15 s, Airflow kills for good after 5.
    make_study("cancer", candidates=TREES[:1])
    operator, outcome, ctx = RunDeviceOperator(task_id="run_device"), [], context()

    def run():
        try:
            outcome.append(operator.execute(ctx))
        except AirflowException as error:
            outcome.append(error)

    def states():
        return sorted(t.state for t in study_details(store, study="cancer").trials)

    task = threading.Thread(target=run)
    task.start()
    deadline = time.monotonic() + 60
    while "RUNNING" not in states() and time.monotonic() < deadline:
        time.sleep(0.01)
    operator.on_kill()
    task.join(60)
    assert not task.is_alive()
    assert isinstance(outcome[0], AirflowException)
    assert not isinstance(outcome[0], AirflowFailException)  # so that it is tried again
    assert "stopped from outside" in str(outcome[0])
    handed_back = ctx["ti"].pushed["stream"]["handed_back"]
    assert f"trial {handed_back} was handed back" in str(outcome[0])
    assert "RUNNING" not in states()
    assert "SUGGESTED" in states()

    assert run_device()["reason"] == "nothing left"
    assert states() == ["SUCCEEDED"]


def test_a_device_with_functions_trains_their_candidates_and_kinds_of_easeml_in_one_stream(connected, make_study):
    def own(data, parameters, report):
        from sklearn.naive_bayes import GaussianNB

        return GaussianNB().fit(np.nan_to_num(data.train_inputs), data.train_labels)

    def other(data, parameters, report):
        raise AssertionError

    functions = [{"name": name, "kind": "function"} for name in ("own-1", "own-2", "else-1")]
    make_study("mixed", candidates=[*functions, TREES[0]])
    told = run_device(functions=[own, other])
    trained = {report["candidate"]: report["state"] for report in told["trials"]}
    assert trained == dict.fromkeys(("own-1", "own-2", TREES[0]["name"]), "SUCCEEDED")
    assert [one["candidate"] for one in told["blocked"]] == ["else-1"]  # and the task has done its part
    make_study("alone", candidates=functions)
    for task, reason in (("first", "nothing left"), ("again", "nothing runnable")):  # it could run some, which have run
        told = run_device(context(task_id=task), studies=["alone"], functions=[own, other])
        assert (told["reason"], told["is_useless"]) == (reason, False)
    with pytest.raises(InvalidInputError, match="functions must be training functions"):
        RunDeviceOperator(task_id="run", functions=[lambda *_: None])


def test_a_device_that_can_run_no_candidate_of_its_studies_fails_its_task(connected, make_study):
    functions = [{"name": f"fit-{n}", "kind": "function"} for n in (1, 2)]
    make_study("mine", candidates=functions)
    words = "can run none of them: fit-1 of mine needs its training function 'fit', which an Airflow task with `@trial`"
    with pytest.raises(AirflowFailException, match=words):
        run_device()
    make_study("trees", candidates=TREES[:1])
    assert run_device()["reason"] == "nothing left"
    told = run_device(context(task_id="other"))  # it could run one, which has run: the others are for other tasks
    assert (told["reason"], len(told["blocked"])) == ("nothing runnable", 2)


def test_the_ends_of_a_stream_and_their_outcomes():
    from easeml_core.services.trials.worker import DeviceSummary, Reason

    def end(reason: Reason, *, is_useless: bool = False) -> None:
        settle_stream(DeviceSummary(None, reason, "why", None, (), (), is_useless))

    assert set(STREAM_OUTCOMES) < set(Reason)
    for reason in Reason:
        raised = STREAM_OUTCOMES.get(reason)
        if raised is None:
            end(reason)
        else:
            with pytest.raises(AirflowException, match="why") as caught:
                end(reason)
            assert type(caught.value) is raised
    with pytest.raises(AirflowFailException, match="why"):
        end(Reason.NOTHING_RUNNABLE, is_useless=True)
    by_itself = {Reason.NOTHING_LEFT, Reason.NOTHING_RUNNABLE, Reason.TIME_IS_UP, Reason.ENOUGH_TRIALS}
    assert set(Reason) - set(STREAM_OUTCOMES) == by_itself
