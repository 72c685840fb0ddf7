"""The assets of Ease.ml: what DAGs can be scheduled on.

``submissions()`` is told of every model that is handed in, by whatever way; ``alerts()`` of every alert;
``production_model()`` of every change of what is in production. Watchers in the triggerer look at the database, so that
nothing depends on a task. Names are what people read in Airflow's graph; the address is what stays.

``SubmitModelOperator`` tells of a submission too, since whoever hears of one twice judges nothing twice. It knows the
study only when it runs, so it reaches the asset through an alias. No operator tells of production: a deployment shall
run once a move, and a task's event beside the watcher's would be a second one.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import Asset, AssetAlias, AssetWatcher

SCHEME = "easeml"
SUBMITTED = "Ease.ml: a model is handed in"
"""Alias of the submission assets that ``SubmitModelOperator`` tells."""


def submissions(study: str | None = None, *, easeml_conn_id: str | None = None) -> Asset:
    """Models handed in; a DAG with ``schedule=[submissions()]`` runs for each.

    An event is only a wake-up call: the run asks ``WaitingSubmissionsOperator`` what there is to judge. Thus an event
    that came twice does no harm, and one that was lost is made good by the next.

    Args:
        study: Models of this study alone; None means of all.
        easeml_conn_id: Connection that the watcher uses; None means the installation's ``[easeml] conn_id``.
    """
    from easeml_airflow.triggers.submissions import SubmissionsTrigger

    name = f"Ease.ml: models handed in for {study or 'any study'}"
    trigger = SubmissionsTrigger(study=study, easeml_conn_id=easeml_conn_id)
    watchers = [AssetWatcher(name=f"{name}, watcher", trigger=trigger)]
    return Asset(name=name, uri=_uri("submissions", study), watchers=watchers)


def alerts(study: str | None = None, *, easeml_conn_id: str | None = None) -> Asset:
    """Alerts: the overfitting budget is broken, drift is certain, a new test set is needed.

    A DAG with ``schedule=[alerts("digits")]`` runs for each, without a task that waits. After a restart of the
    triggerer the events of open alerts come again, so the run looks at what is open (``easeml alerts``) and clears it.

    Args:
        study: Alerts of this study alone; None means of all.
        easeml_conn_id: Connection that the watcher uses; None means the installation's ``[easeml] conn_id``.
    """
    from easeml_airflow.triggers.alerts import AlertsTrigger

    name = f"Ease.ml: alerts of {study or 'any study'}"
    trigger = AlertsTrigger(study=study, easeml_conn_id=easeml_conn_id)
    watchers = [AssetWatcher(name=f"{name}, watcher", trigger=trigger)]
    return Asset(name=name, uri=_uri("alerts", study), watchers=watchers)


def production_model(study: str | None = None, *, easeml_conn_id: str | None = None) -> Asset:
    """The model in production; told of each promotion, forced promotion and rollback, by whatever way it was made.

    A DAG with ``schedule=[production_model("digits")]`` runs once a move: the watcher alone tells, and no task does. Of
    several moves between two looks the last alone is told. What stands is told when the DAG is switched on, and again
    when the triggerer starts anew; the move's ``promotion_id`` is the same then, so that the run can tell that it has
    nothing to do.

    Args:
        study: The model of this study alone; None means of all.
        easeml_conn_id: Connection that the watcher uses; None means the installation's ``[easeml] conn_id``.
    """
    from easeml_airflow.triggers.production import ProductionTrigger

    name = f"Ease.ml: {study or 'any study'} in production"
    trigger = ProductionTrigger(study=study, easeml_conn_id=easeml_conn_id)
    watchers = [AssetWatcher(name=f"{name}, watcher", trigger=trigger)]
    return Asset(name=name, uri=_uri("production", study), watchers=watchers)


def alias(name: str) -> AssetAlias:
    """The outlet of an operator that learns its study when it runs."""
    return AssetAlias(name)


def tell(context: Any, name: str, asset: Asset, extra: dict[str, Any]) -> None:
    """Add an event; Airflow records it when the task succeeds.

    Args:
        context: Of the running task.
        name: Alias under which the operator declares the asset.
        asset: What changed.
        extra: Plain JSON that comes with the event.
    """
    context["outlet_events"][alias(name)].add(Asset(name=asset.name, uri=asset.uri), extra=extra)


def _uri(kind: str, study: str | None) -> str:
    """The address in the form that Airflow makes of it."""
    return f"{SCHEME}://{kind}/{study or ''}"
