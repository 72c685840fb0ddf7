"""Requests about studies: register one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easeml_core.actions.action import action, option
from easeml_core.settings.config import GRIDS
from easeml_core.settings.limits import NAME, PRIORITY, SECONDS, TARGET_QUALITY, WEIGHT, OneOf

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from easeml_core.entities import Parameters

TASKS = ("classification", "regression")
MOMENT = r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?$"
METRIC = r"^(accuracy|balanced_accuracy|f1|auc|log_loss|rmse|mae|r2|within:[0-9.e+-]+|[\w.]+:\w+)$"
METRICS = ("accuracy", "balanced_accuracy", "f1", "auc", "log_loss", "rmse", "mae", "r2", "within:0.5")
SOURCES = ("sklearn:digits", "csv:FILE.csv", "images:FOLDER", "series:FILE.csv?id=COLUMN&step=COLUMN", "sql:NAME")


@action(
    "easeml_core.services.registration.register:register_study",
    name="register-study",
    role="easeml_worker",
    route="/tenants/{tenant}/studies/{study}",
)
class RegisterStudy:
    """Register a study; the referee splits its data, seals some parts, and activates it."""

    tenant: str = option(f"Who owns the study: {NAME.rule}. A new name makes a new tenant.", limit=NAME)
    study: str = option(f"Its name: {NAME.rule}; unique in the installation.", limit=NAME)
    source: str = option(
        "Where the data is, as the referee reads it: `sklearn:digits`, `csv:NAME`, `images:FOLDER`, ... "
        "(docs/data.md).",
        title="Data",
        examples=SOURCES,
        longest=1000,
    )
    target: str | None = option("Column to predict, where the source has a choice.", default=None, longest=200)
    task: str | None = option(
        "What is predicted. Default: what program and metric say, else classes.", default=None, limit=OneOf.of(*TASKS)
    )
    metric: str | None = option(
        "How candidates are compared: accuracy, balanced_accuracy, f1, auc, log_loss, rmse, mae, r2, `within:T`, or "
        "`module:function` (docs/studies.md). Default: accuracy, or r2 where numbers are predicted.",
        default=None,
        pattern=METRIC,
        examples=METRICS,
    )
    hit: str | None = option(
        "Where numbers are predicted, as `within:T`: one that is at most T off is right for gate and meter.",
        default=None,
        pattern=r"^within:[0-9.e+-]+$",
        metavar="within:T",
    )
    program: str | None = option(
        "What goes in and what comes out, as `easeml program infer` writes it (docs/data.md, Programs). It calls "
        "for the candidates where none are named. Default: what the data look like.",
        default=None,
        longest=10_000,
    )
    split: str | None = option(
        "How rows are divided into parts: `rows` (default), `group:COLUMN` or `time:COLUMN`; with ?part=K/N, part K of N "
        "of a table.",
        default=None,
        pattern="^(rows|(group|time):.+)$",
        examples=("rows", "group:COLUMN", "time:COLUMN"),
        metavar="HOW",
    )
    grid: str = option(
        "How fine networks are divided into candidates: one each, one for each rate, or also one for each "
        "normalisation.",
        default="one",
        limit=OneOf.of(*GRIDS),
    )
    weight: float = option(
        "The study's weight in sharing the devices: 2 counts twice as much as 1.",
        default=1.0,
        limit=WEIGHT,
        is_for_operators=True,
    )
    budget_seconds: float | None = option(
        "Device seconds that the study may use, such as 3600 for an hour. Default: no limit.",
        default=None,
        limit=SECONDS,
        title="Budget",
    )
    priority: int = option(
        f"From {PRIORITY.least} to {PRIORITY.most}; studies of a higher one come first.",
        default=0,
        limit=PRIORITY,
        is_for_operators=True,
    )
    deadline: str | datetime | None = option(
        "No trial begins that would end later, such as 2026-08-01T18:00 (UTC). Default: none.",
        default=None,
        pattern=MOMENT,
        metavar="TIME",
    )
    target_quality: float | None = option(
        "The search ends once a trial reaches it, > 0 and <= 1. Default: when every candidate has run.",
        default=None,
        limit=TARGET_QUALITY,
    )
    candidates: Sequence[Parameters] | None = option(
        'What to try: `[{"name": "small", "kind": "torch_mlp", "parameters": {"epochs": 9}}]`, with `devices` where it '
        "may run on some kinds only, or `space` and `count`. Default: what program or data call for.",
        default=None,
    )
    gate: Parameters | None = option(
        'What differs from the usual gate: `{"condition": "n - o > 0.02 +/- 0.01", "reliability": 0.99, "steps": 8}`.',
        default=None,
    )
    meter: Parameters | None = option(
        'What differs from the usual meter: `{"ranges": [0.05, 0.1], "tolerance": 0.02, "steps": 8}`.', default=None
    )
    joint: Parameters | None = option(
        'Gate and meter share one sealed set: `{"reliability": 0.99, "gate_share": 0.5}`. Default: a set each.',
        default=None,
        title="One set for both",
    )
    direct: Parameters | None = option(
        'A second meter, which distinguishes drift from tuning: `{"share": 0.1}`. Default: none.',
        default=None,
        title="Second meter",
    )
    training: Parameters | None = option('Limits of one trial: `{"time_limit_seconds": 300}`.', default=None)
    keep: bool = option(
        "Leave a study of this tenant and name that is there already, or is archived, as it is: for a DAG that "
        "registers before each run.",
        default=False,
    )


ACTIONS = (RegisterStudy,)
"""The requests of this module; the client and the routes offer all of them."""
