"""The assets of Ease.ml: what DAGs can be scheduled on.

``submissions()`` receives an event for every submitted model; ``alerts()`` of every alert;
``production_model()`` of every change of what is in production; ``evidence()`` of every head of a hash chain that
leaves with an answer. Watchers in the triggerer look at the database, so that nothing depends on a task. Names are what
people read in Airflow's graph; the address is what stays.

An event is only a wake-up call: every user who may create asset events in Airflow, such as a DAG author, can forge one.
What is acted on is asked of the database.

``SubmitModelOperator`` creates an event too: a submission with two events is judged once. It knows the
study only when it runs, so it reaches the asset through an alias. No operator tells of production: a deployment shall
run once a move, and a task's event beside the watcher's would be a second one.

Airflow keeps the watchers of the file that was read last. So assets with different watchers must not share a name or an
address: a connection other than the installation's stands in both, and the installation's own, if named, in neither.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from airflow.sdk import Asset, AssetAlias, AssetWatcher

from easeml_airflow import settings

if TYPE_CHECKING:
    from easeml_airflow.triggers.watcher import WatcherTrigger
    from easeml_core.entities import JsonObject

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
    return _watched("submissions", name, SubmissionsTrigger, study, easeml_conn_id)


def alerts(study: str | None = None, *, easeml_conn_id: str | None = None) -> Asset:
    """Alerts: the overfitting budget is broken, drift is certain, a new test set is needed.

    A DAG with ``schedule=[alerts("digits")]`` runs on each, without a task that waits; Airflow may make one run of
    several. After a restart of the triggerer the events of open alerts come again, so the run looks at what is open
    (``easeml alerts``) and clears it.

    Args:
        study: Alerts of this study alone; None means of all.
        easeml_conn_id: Connection that the watcher uses; None means the installation's ``[easeml] conn_id``.
    """
    from easeml_airflow.triggers.alerts import AlertsTrigger

    return _watched("alerts", f"Ease.ml: alerts of {study or 'any study'}", AlertsTrigger, study, easeml_conn_id)


def production_model(study: str | None = None, *, easeml_conn_id: str | None = None) -> Asset:
    """The model in production; told of each promotion, forced promotion and rollback, by whatever way it was made.

    A DAG with ``schedule=[production_model("digits")]`` runs on each: the watcher alone tells, and no task does. Of
    several moves between two polls only the last one has an event, and Airflow may create one run for several events.
    The present state has an event when the DAG is enabled, and again when the triggerer restarts.

    An event is only a wake-up call: the run asks the database what is in production (``in_production``), deploys that,
    and remembers its ``promotion_id``. A deployment that took the model from the event would put out whatever a forged
    one names, without a gate; and without that memory it would put out again what stands.

    Args:
        study: The model of this study alone; None means of all.
        easeml_conn_id: Connection that the watcher uses; None means the installation's ``[easeml] conn_id``.
    """
    from easeml_airflow.triggers.production import ProductionTrigger

    name = f"Ease.ml: {study or 'any study'} in production"
    return _watched("production", name, ProductionTrigger, study, easeml_conn_id)


def evidence(study: str | None = None, *, easeml_conn_id: str | None = None) -> Asset:
    """Heads of hash chains, as they leave with the answers of gate and meter: a pass, a fail, a withheld verdict alike.

    A DAG with ``schedule=[evidence()]`` keeps them where neither the database's owner nor the referee can change them;
    ``easeml evidence verify --head`` checks them later. A head is a hash over a secret nonce and says nothing of the
    answer. Of several answers of one set between two looks the last head alone is given: it vouches for all before it.

    Args:
        study: Of this study alone; None means of all.
        easeml_conn_id: Connection that the watcher uses; None means the installation's ``[easeml] conn_id``.
    """
    from easeml_airflow.triggers.evidence import EvidenceTrigger

    return _watched("evidence", f"Ease.ml: evidence of {study or 'any study'}", EvidenceTrigger, study, easeml_conn_id)


def tell(context: Any, name: str, asset: Asset, extra: JsonObject) -> None:
    """Add an event; Airflow records it when the task succeeds.

    Args:
        context: Of the running task.
        name: Alias under which the operator declares the asset.
        asset: What changed.
        extra: Plain JSON that comes with the event.
    """
    context["outlet_events"][AssetAlias(name)].add(Asset(name=asset.name, uri=asset.uri), extra=extra)


def _watched(
    kind: str, name: str, trigger_class: type[WatcherTrigger], study: str | None, conn_id: str | None
) -> Asset:
    """The asset with its watcher; both say the connection only where it is not the installation's."""
    other = None if conn_id in (None, "", settings.conn_id()) else conn_id
    if other is not None:
        name = f"{name} ({other})"
    trigger = trigger_class(study=study or None, easeml_conn_id=other)
    watchers = [AssetWatcher(name=f"{name}, watcher", trigger=trigger)]
    return Asset(name=name, uri=_uri(kind, study, other), watchers=watchers)


def _uri(kind: str, study: str | None, conn_id: str | None) -> str:
    """The address in the form that Airflow makes of it."""
    address = f"{SCHEME}://{kind}/{study or ''}"
    return address if conn_id is None else f"{address}?{urlencode({'conn': conn_id})}"
