"""The form of ``easeml_register_study``: each field of a new study, with what it means and what it may be."""

from __future__ import annotations

from airflow.sdk import Param

from easeml_airflow import params
from easeml_core.settings import limits

METRIC = r"^(accuracy|balanced_accuracy|f1|auc|log_loss|rmse|mae|r2|within:[0-9.e+-]+|[\w.]+:\w+)$"
METRICS = ["accuracy", "balanced_accuracy", "f1", "auc", "log_loss", "rmse", "mae", "r2", "within:0.5"]
SOURCES = ["sklearn:digits", "csv:FILE.csv", "images:FOLDER", "series:FILE.csv?id=COLUMN&step=COLUMN", "sql:NAME"]
SPLITS = ["rows", "group:COLUMN", "time:COLUMN"]
NAMED = limits.NAME.rule
ROWS = "Values are device seconds, such as 3600 for an hour. Empty: no limit."

text, optional = params.text, params.optional
FORM = {
    "tenant": text(
        "Tenant", f"Who owns the study: {NAMED}. A new name makes a new tenant.", required=True, pattern=params.NAME
    ),
    "study": text("Study", f"Its name: {NAMED}; unique.", required=True, pattern=params.NAME),
    "source": Param(
        "sklearn:digits",
        title="Data",
        type="string",
        minLength=3,
        maxLength=1000,
        examples=SOURCES,
        description="Where the data is, as the referee reads it: `csv:NAME`, `images:FOLDER`, ... (docs/data.md).",
    ),
    "target": text("Target", "Column to predict. Empty: the source's own, where it has no choice.", maxLength=200),
    "task": optional(
        "Task",
        "What is predicted. Empty: as the metric says.",
        "string",
        enum=[None, "classification", "regression"],
        values_display={"None": "as the metric says"},
    ),
    "metric": text(
        "Metric",
        "What is compared: one of the list, `within:T`, or `module:function`. Empty: accuracy, or r2.",
        pattern=METRIC,
        examples=METRICS,
    ),
    "hit": text(
        "Hit", "Where numbers are predicted: how far off is right, `within:0.5`.", pattern=r"^within:[0-9.e+-]+$"
    ),
    "program": text(
        "Program", "What goes in and comes out (docs/data.md, Programs). Empty: as the data look.", maxLength=10000
    ),
    "split": text(
        "Split",
        "What is kept together: `rows`, `group:COLUMN` or `time:COLUMN`. Empty: rows.",
        pattern="^(rows|(group|time):.+)$",
        examples=SPLITS,
    ),
    "grid": Param(
        "one",
        title="Grid",
        type="string",
        enum=["one", "rates", "full"],
        description="How fine networks are divided into candidates: one each, one a rate, or also one a normalisation.",
    ),
    "weight": Param(
        1.0,
        title="Weight",
        type="number",
        minimum=limits.WEIGHT.least,
        maximum=limits.WEIGHT.most,
        description="The study's weight in the scheduler: 2 counts twice as much as 1.",
    ),
    "budget_seconds": optional("Budget", f"What it may use. {ROWS}", "number", exclusiveMinimum=0, maximum=1e9),
    "priority": Param(
        0,
        title="Priority",
        type="integer",
        minimum=limits.PRIORITY.least,
        maximum=limits.PRIORITY.most,
        description="Studies of a higher one come first.",
    ),
    "deadline": params.moment("Deadline", "No trial begins that would end later. Empty: none."),
    "target_quality": optional(
        "Target quality",
        "The search ends once a trial reaches it, such as 0.95. Empty: when every candidate has run.",
        "number",
        exclusiveMinimum=limits.TARGET_QUALITY.above,
        maximum=limits.TARGET_QUALITY.most,
    ),
    "candidates": optional(
        "Candidates",
        'What to try: `[{"name": "small", "kind": "torch_mlp", "parameters": {"epochs": 9}}]`. Empty: the usual ones.',
        "array",
        items={"type": "object"},
        maxItems=1000,
    ),
    "gate": optional(
        "Gate",
        'What differs from the usual gate: `{"condition": "n - o > 0.02 +/- 0.01", "reliability": 0.99, "steps": 8}`.',
        "object",
    ),
    "meter": optional(
        "Meter",
        'What differs from the usual meter: `{"ranges": [0.05, 0.1], "tolerance": 0.02, "steps": 8}`.',
        "object",
    ),
    "joint": optional(
        "One set for both", 'Gate and meter share a set: `{"reliability": 0.99}`. Empty: a set each.', "object"
    ),
    "direct": optional("Second meter", 'Tells tuning from drift: `{"share": 0.1}`. Empty: none.', "object"),
}
