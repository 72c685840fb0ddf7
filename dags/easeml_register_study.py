"""Register a study: name the tenant, the data, the target, the metric and the budget; it joins the next round.

The task waits until the referee has split the data and sealed the test sets. It fails at once, with the figure that
would do, when the data has too few rows for the gate and the meter that were asked for.

Needs: the connection `easeml_default` and the referee's process, which must be able to read the data.
"""

from datetime import timedelta

import pendulum
from airflow.sdk import DAG, Param

from easeml_airflow.operators import RegisterStudyOperator

TEXT, NUMBER, SETTINGS = ["null", "string"], ["null", "number"], ["null", "object"]
METRIC = r"^(accuracy|balanced_accuracy|f1|auc|log_loss|rmse|mae|r2|within:[0-9.e+-]+|[\w.]+:\w+)$"

with DAG(
    dag_id="easeml_register_study",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    default_args={
        "easeml_conn_id": "easeml_default",
        "retries": 2,
        "retry_delay": timedelta(seconds=30),
        "execution_timeout": timedelta(hours=1),
    },
    params={
        "tenant": Param(type="string", minLength=1, description="Who owns the study."),
        "study": Param(type="string", minLength=1, description="Its name, unique in the installation."),
        "source": Param(
            "sklearn:digits",
            type="string",
            description="`sklearn:NAME`, `csv:NAME`, `images:FOLDER`, `series:NAME`, ... (docs/data.md).",
        ),
        "target": Param(None, type=TEXT, description="Column to predict, where the source has a choice."),
        "task": Param(
            None, type=TEXT, enum=[None, "classification", "regression"], description="Empty: as the metric says."
        ),
        "metric": Param(None, type=TEXT, pattern=METRIC, description="E.g. auc, rmse or r2; empty: accuracy."),
        "hit": Param(None, type=TEXT, description="For numbers: how far off is right, as `within:0.5`."),
        "program": Param(None, type=TEXT, description="What goes in and out; empty: as the data look."),
        "split": Param("rows", type="string", description="`rows`, `group:COLUMN` or `time:COLUMN`."),
        "grid": Param(
            "one", type="string", enum=["one", "rates", "full"], description="How fine networks are divided."
        ),
        "weight": Param(
            1.0, type="number", exclusiveMinimum=0, description="The study's share of everybody's attention."
        ),
        "budget_seconds": Param(
            None, type=NUMBER, exclusiveMinimum=0, description="Device seconds it may use; empty: no limit."
        ),
        "priority": Param(
            0, type="integer", minimum=-100, maximum=100, description="Studies of a higher one come first."
        ),
        "deadline": Param(
            None, type=TEXT, format="date-time", description="No trial begins that would end later; empty for none."
        ),
        "target_quality": Param(
            None, type=NUMBER, exclusiveMinimum=0, maximum=1, description="It ends once a trial reaches it, if given."
        ),
        "candidates": Param(None, type=["null", "array"], description="What to try; empty for the usual set."),
        "gate": Param(None, type=SETTINGS, description="Condition, reliability, mode, adaptivity, steps, if others."),
        "meter": Param(None, type=SETTINGS, description="Ranges, tolerance, reliability, steps, if others."),
        "joint": Param(None, type=SETTINGS, description="Of one sealed set for gate and meter; empty for a set each."),
        "direct": Param(None, type=SETTINGS, description="Share of a second meter that tells drift; empty for none."),
    },
    doc_md=__doc__,
    tags=["easeml"],
) as dag:
    RegisterStudyOperator(task_id="register", **{name: dag.param(name) for name in dag.params})
