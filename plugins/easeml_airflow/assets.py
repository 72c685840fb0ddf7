"""The assets of Ease.ml: what DAGs can be scheduled on.

``submissions()`` is told of every model that is handed in, by whatever way; ``alerts()`` of every alert;
``production_model(study)`` of every change of what is in production. Operators know the study only when they run, so
they reach the assets through aliases. Names are what people read in Airflow's graph; the address is what stays.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import Asset, AssetAlias, AssetWatcher

SCHEME = "easeml"
SUBMITTED = "Ease.ml: a model is handed in"
"""Alias of the submission assets that ``SubmitModelOperator`` tells."""
PROMOTED = "Ease.ml: production changes"
"""Alias of the production models that ``PromoteModelOperator`` and ``RollbackModelOperator`` tell."""


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


def production_model(study: str) -> Asset:
    """The model of a study that is in production; told of each promotion and each rollback.

    Args:
        study: The study.
    """
    return Asset(name=f"Ease.ml: {study} in production", uri=_uri("production", study))


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
