"""Functions and kinds of easeml in one study: one mapped task routes each trial to what its candidate names."""

from airflow.sdk import DAG

from easeml_airflow import operators as easeml
from easeml_airflow.decorators import trial

with DAG("cookbook_mixed", schedule="@daily", catchup=False, max_active_runs=1):

    @trial(space={"C": {".float": [-2, 1], ".scale": "exp"}}, count=2)
    def line(data, parameters, report):
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression(max_iter=500, **parameters).fit(data.train_inputs, data.train_labels)

    @trial
    def tree(data, parameters, report):
        from sklearn.tree import DecisionTreeClassifier

        return DecisionTreeClassifier(random_state=0).fit(data.train_inputs, data.train_labels)

    bayes = {"name": "bayes", "kind": "gaussian_naive_bayes"}
    register = easeml.RegisterStudyOperator(
        task_id="register",
        tenant="garden",
        study="mixed",
        source="sklearn:digits",
        candidates=[*line.candidates, *tree.candidates, bayes],
        gate={"condition": "n - o > 0.1 +/- 0.1", "steps": 4},
        meter={"tolerance": 0.1},
        keep=True,
    )
    suggest = easeml.SuggestTrialsOperator(task_id="suggest", count=4, studies=["mixed"])
    train = easeml.TrainTrialOperator.partial(task_id="train", functions=[line, tree]).expand(trial=suggest.output)
    register >> suggest
