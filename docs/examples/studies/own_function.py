"""Your own functions beside a kind of easeml: one mapped task trains each trial with what its candidate names."""

from datetime import timedelta

from airflow.sdk import DAG, task_group
from airflow.timetables.trigger import CronTriggerTimetable

from easeml_airflow import operators as easeml
from easeml_airflow.decorators import trial

NIGHTLY = CronTriggerTimetable("0 1 * * *", timezone="UTC", run_immediately=timedelta())
PLAN = {"gate": {"condition": "n - o > 0.1 +/- 0.1", "steps": 4}, "meter": {"tolerance": 0.1}}

with DAG("mail", schedule=NIGHTLY, catchup=False):

    @trial(space={"C": {".float": [-2, 1], ".scale": "exp"}}, count=3)
    def line(data, parameters, report):
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression(max_iter=500, **parameters).fit(data.train_inputs, data.train_labels)

    @trial
    def tree(data, parameters, report):
        from sklearn.tree import DecisionTreeClassifier

        return DecisionTreeClassifier(random_state=0).fit(data.train_inputs, data.train_labels)

    named = {"tenant": "office", "study": "mail", "source": "csv:mail.csv", "target": "spam"}
    candidates = [*line.candidates, *tree.candidates, {"name": "bayes", "kind": "gaussian_naive_bayes"}]
    register = easeml.RegisterStudyOperator(task_id="register", candidates=candidates, keep=True, **named, **PLAN)
    suggest = easeml.SuggestTrialsOperator(task_id="suggest", studies=["mail"], count=5)
    train = easeml.TrainTrialOperator.partial(task_id="train", functions=[line, tree], pool="easeml_devices")
    best = easeml.BestModelsOperator(task_id="best", studies=["mail"], trigger_rule="all_done")

    @task_group
    def release(study, model_id, quality):
        asked = easeml.GateOperator(task_id="gate", study=study, model_id=model_id).output["request_id"]
        easeml.PromoteModelOperator(task_id="promote", study=study, model_id=model_id, gate_request_id=asked)

    register >> suggest >> train.expand(trial=suggest.output) >> best
    release.expand_kwargs(best.output)
