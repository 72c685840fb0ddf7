"""``@trial`` with a search space: its candidates, checked while the DAG is parsed, and a DAG that registers them."""

import pytest
from airflow.sdk import DAG

from easeml_airflow import operators
from easeml_airflow.decorators import trial
from easeml_core.errors import InvalidInputError
from easeml_core.training.candidate_spaces import expand_candidates
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


# Checking what a function returned walks through all loaded modules, and some of Airflow's warn when looked at.
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_study_of_a_dags_own_function_is_trained_by_it(make_study, connected, run_dag):
    """The whole way: the space stands in the DAG, the study takes its candidates from it, the trials are mapped."""
    with DAG("own_study", schedule=None) as dag:
        suggested = operators.SuggestTrialsOperator(task_id="suggest", count=4, studies=["cancer"], device="own")

        @trial(space={"C": {".float": [-3, 1], ".scale": "exp"}}, count=3, devices=["own"], pool="default_pool")
        def fit_line(data, parameters, report):
            """Fit a line."""
            from sklearn.linear_model import LogisticRegression
            from sklearn.pipeline import make_pipeline
            from sklearn.preprocessing import StandardScaler

            return make_pipeline(StandardScaler(), LogisticRegression(**parameters)).fit(
                data.train_inputs, data.train_labels
            )

        fit_line.expand(trial=suggested.output)
    make_study(candidates=fit_line.candidates)
    done = run_dag(dag)
    trials = [ti for ti in done.get_task_instances() if ti.task_id == "fit_line"]
    told = [t.xcom_pull(task_ids="fit_line", key="trial", map_indexes=t.map_index) for t in trials]
    assert [result["state"] for result in told] == ["SUCCEEDED"] * 3
    assert len({result["candidate"] for result in told}) == 3
    assert all(result["candidate"].startswith("fit_line-c") and result["quality"] > 0.8 for result in told)
