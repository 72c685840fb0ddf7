"""``@trial`` with a search space: its candidates, checked while the DAG is parsed, and a DAG that registers them."""

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowSkipException
from task_doubles import context

from easeml_airflow import operators
from easeml_airflow.decorators import trial
from easeml_airflow.hooks.trials import offer_of
from easeml_core.errors import InvalidInputError
from easeml_core.formats.encoding import to_json
from easeml_core.training.candidates import expand_candidates
from easeml_core.training.trainers import check_candidates


def test_a_function_carries_its_candidates():
    space = {"C": {".float": [-3, 3], ".scale": "exp"}, "penalty": {".choice": ["l1", {"mix": 0.5}]}}
    with DAG("own", schedule=None) as dag:

        @trial(space=space, count=6, seed=3, devices=["flowers"], pool="easeml_devices")
        def fit_line(data, parameters, report):
            """Fit."""

        fit_line(trial=1)
    entry = {"name": "fit_line", "kind": "function", "space": space, "count": 6, "seed": 3, "devices": ["flowers"]}
    assert fit_line.candidates == [entry]
    assert dag.task_dict["fit_line"].pool == "easeml_devices"
    found = expand_candidates(fit_line.candidates)
    assert check_candidates([{k: v for k, v in c.items() if k != "devices"} for c in found])
    assert len(found) == 6
    assert all(c["name"].startswith("fit_line-") and 1e-3 <= c["parameters"]["C"] <= 1e3 for c in found)


def test_a_function_without_a_space_is_one_candidate():
    @trial
    def plain(data, parameters, report):
        """Fit."""

    assert plain.candidates == [{"name": "plain", "kind": "function"}]
    assert check_candidates(plain.candidates) == [{"name": "plain", "kind": "function", "parameters": {}}]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"space": {"C": {".float": [3, 1]}}}, r"C\.float: the low bound comes first"),
        ({"space": "C: {.float: [1"}, "neither YAML nor JSON"),
        ({"space": {"C": {".float": [1, 3]}}}, "more than 1,000 points needs a count"),
        ({"space": {"C": 1}, "count": 0}, "count must be a whole number from 1 to 1,000, got 0"),
        ({"space": {"kind": "linear_svm"}}, "one kind; it is given both beside the space and inside it"),
        ({"count": 3}, "@trial of fit: count and seed are about a space"),
    ],
)
def test_a_mistake_is_found_when_the_dag_is_parsed(arguments, words):
    with pytest.raises(InvalidInputError, match=words):

        @trial(**arguments)
        def fit(data, parameters, report):
            """Fit."""


def names_of_dag(*functions, mapped):
    """What a task of a DAG with these functions says that the DAG has."""
    with DAG("some", schedule=None):
        first = operators.SuggestTrialsOperator(task_id="suggest")
        for function in functions:
            task = trial(pool="default_pool")(function)
            task.expand(trial=first.output) if mapped else task(trial=1)
    return list(offer_of(first).functions)


@pytest.mark.parametrize("mapped", [True, False])
def test_the_functions_of_a_dag_are_those_that_it_calls(mapped):
    def fit(data, parameters, report):
        """Fit."""

    def grow(data, parameters, report):
        """Grow."""

    assert names_of_dag(mapped=mapped) == []
    assert names_of_dag(grow, fit, mapped=mapped) == ["fit", "grow"]
    assert offer_of(operators.SuggestTrialsOperator(task_id="alone")) == ({}, True)


def test_a_dag_without_the_function_leaves_the_trial_to_one_that_has_it(make_study, connected, run_dag, store):
    """It is handed nothing of it; and where it is named a trial all the same, that is given back and skipped."""
    from easeml_core.services.selection.scheduler import suggest_trials
    from easeml_core.services.trials.execution import trial_state

    make_study(candidates=[{"name": "elsewhere", "kind": "function"}])
    with DAG("no_function", schedule=None) as dag:
        suggested = operators.SuggestTrialsOperator(task_id="suggest", count=4)
        operators.TrainTrialOperator.partial(task_id="train").expand(trial=suggested.output)
    done = run_dag(dag)
    assert [str(ti.state) for ti in done.get_task_instances() if ti.task_id == "train"] == ["skipped"]
    told = next(ti for ti in done.get_task_instances() if ti.task_id == "suggest")
    assert "training function" in told.xcom_pull(task_ids="suggest", key="message")
    (found,) = suggest_trials(store, count=1, functions=["elsewhere"], request_key="k").trials
    with pytest.raises(AirflowSkipException, match=r"\(cancer, elsewhere\) was given back: this task does not execute"):
        operators.TrainTrialOperator(task_id="train", trial=to_json(found)).execute(context("train"))
    assert trial_state(store, trial_id=found.trial_id).state == "SUGGESTED"
    asked = operators.SuggestTrialsOperator(task_id="again", functions='["elsewhere"]').execute(context("again"))
    assert [t["trial_id"] for t in asked] == [found.trial_id]


# Checking what a function returned walks through all loaded modules, and some of Airflow's warn when looked at.
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_study_of_a_dags_own_function_is_trained_by_it(make_study, connected, run_dag):
    """The whole way: the space stands in the DAG, the study takes its candidates from it, the trials are mapped."""
    with DAG("own_study", schedule=None) as dag:
        suggested = operators.SuggestTrialsOperator(task_id="suggest", count=4, studies=["cancer"])

        @trial(space={"C": {".float": [-3, 1], ".scale": "exp"}}, count=3, pool="default_pool")
        def fit_line(data, parameters, report):
            """Fit a line."""
            from sklearn.linear_model import LogisticRegression
            from sklearn.pipeline import make_pipeline
            from sklearn.preprocessing import StandardScaler

            return make_pipeline(StandardScaler(), LogisticRegression(**parameters)).fit(
                data.train_inputs, data.train_labels
            )

        fit_line.expand(trial=suggested.output)
    make_study(candidates=[*fit_line.candidates, {"name": "elsewhere", "kind": "function"}])
    done = run_dag(dag)
    trials = [ti for ti in done.get_task_instances() if ti.task_id == "fit_line"]
    told = [t.xcom_pull(task_ids="fit_line", key="trial", map_indexes=t.map_index) for t in trials]
    assert [result["state"] for result in told] == ["SUCCEEDED"] * 3
    assert len({result["candidate"] for result in told}) == 3
    assert all(result["candidate"].startswith("fit_line-c") and result["quality"] > 0.8 for result in told)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_function_mapped_over_everything_trains_its_own_candidates_alone(make_study, connected, run_dag, store):
    """``const.expand(trial=suggest.output)``: it is handed its own, and gives back whatever else it is told to run."""
    from easeml_core.services.selection.scheduler import suggest_trials

    named = [{"name": name, "kind": "function"} for name in ("const", "tree")]
    make_study(candidates=[*named, {"name": "nb", "kind": "gaussian_naive_bayes"}])
    with DAG("mapped", schedule=None) as dag:
        suggested = operators.SuggestTrialsOperator(task_id="suggest", count=3)

        @trial(pool="default_pool")
        def const(data, parameters, report):
            """Fit."""
            from sklearn.naive_bayes import GaussianNB

            return GaussianNB().fit(data.train_inputs, data.train_labels)

        const.expand(trial=suggested.output)
    assert offer_of(suggested).trainers is False
    done = run_dag(dag)
    assert [str(ti.state) for ti in done.get_task_instances() if ti.task_id == "const"] == ["success"]
    left = suggest_trials(store, count=9, functions=["tree"], request_key="k").trials
    assert sorted(t.candidate for t in left) == ["nb", "tree"]
    for number, found in enumerate(left):
        with DAG(f"forced_{number}", schedule=None) as forced:
            task = trial(const.function.__dict__["training_function"])(trial=to_json(found)).operator
        with pytest.raises(AirflowSkipException, match="was given back: this task does not execute what"):
            task.execute(context("const"))
        assert forced.task_ids == ["const"]
    with store.begin() as tx:
        ran = tx.exec_driver_sql("SELECT executor, state FROM work.trials WHERE attempt > 0").all()
    assert [tuple(r) for r in ran] == [("function:const", "SUCCEEDED")]


def test_a_task_without_a_column_does_not_use_its_candidate_up_and_runs_it_again_once_cleared(
    make_study, connected, store
):
    """What failed because of the task is FAILED, and tells no one anything of the candidate; cleared, it runs anew."""
    from airflow.sdk.exceptions import AirflowFailException

    from easeml_core.services.selection.scheduler import suggest_trials

    make_study(candidates=[{"name": "own", "kind": "function"}])
    (found,) = suggest_trials(store, count=1, functions=["own"], request_key="k").trials

    def own(data, parameters, report):
        if not mended:
            raise KeyError("hidden")
        from sklearn.naive_bayes import GaussianNB

        return GaussianNB().fit(data.train_inputs, data.train_labels)

    mended, task = [], operators.TrainTrialOperator(task_id="train", trial=to_json(found), functions=[own])
    with pytest.raises(AirflowFailException, match=r"failed because of its task, .* clear this task, .* 'hidden'"):
        task.execute(context("train"))
    assert suggest_trials(store, count=1, functions=["own"], request_key="l").trials == ()
    mended.append(True)
    again = task.execute(context("train"))
    assert (again["state"], again["candidate"], again["trial_id"] > found.trial_id) == ("SUCCEEDED", "own", True)
