"""Each alert is an event of an asset: the trigger that tells it, at once and once, and the asset itself."""

import asyncio
from functools import partial

import pytest
from airflow.sdk import Asset
from airflow.sdk.module_loading import import_string
from waiting import at_rest

from easeml_airflow import assets
from easeml_airflow.triggers.alerts import AlertsTrigger
from easeml_core.entities import AlertKind, SealedSetPurpose
from easeml_core.services.meter.alerts import clear_alert
from easeml_core.services.test_sets.lifecycle import retire_test_set
from easeml_core.store.tables import releases, studies

SECONDS = 30
"""Longer than anything here takes; a wait that is longer has failed."""


@pytest.fixture
def alert(connected, make_study):
    """Raise the one alert of a study that its gate set needs; its number."""
    for study in ("cancer", "wine"):
        source = "sklearn:wine" if study == "wine" else "sklearn:breast_cancer"
        make_study(study, source=source, gate={"condition": "n > 0.2 +/- 0.4", "reliability": 0.9, "steps": 2})

    def give(study):
        with connected.referee.begin() as tx:
            found = studies.get_study(tx, study)
            test_set = releases.live_test_set(tx, found.id, SealedSetPurpose.GATE)
            about = {"test_set_id": test_set.id, "kind": AlertKind.NEW_TEST_SET, "message": f"{study} needs one"}
            releases.add_alert(tx, study_id=found.id, study=study, **about)
            return releases.newest_alert(tx, found.id)

    return give


async def heard_while(trigger, before, act=None):
    """What an act gives, and the events of a trigger as the triggerer makes it: some before the act, and one after."""
    path, arguments = trigger.serialize()
    events = import_string(path)(**arguments).run()
    try:
        heard = [(await asyncio.wait_for(anext(events), SECONDS)).payload for _ in range(before)]
        if act is None:
            return None, heard
        waiting = asyncio.ensure_future(anext(events))
        await at_rest()
        acted = await asyncio.to_thread(act)
        return acted, [*heard, (await asyncio.wait_for(waiting, SECONDS)).payload]
    finally:
        await events.aclose()


def test_each_alert_is_told_at_once_and_once(alert):
    """Woken by the notification: the poll alone would need 80 % of an hour."""
    before = alert("cancer")
    after, heard = asyncio.run(heard_while(AlertsTrigger(poll_interval=3600.0), 1, partial(alert, "wine")))
    shown = {"kind": "new-test-set", "over_budget": None}
    assert heard == [
        {"alert_id": before, "study": "cancer", "message": "cancer needs one", **shown},
        {"alert_id": after, "study": "wine", "message": "wine needs one", **shown},
    ]


def test_a_watcher_of_one_study_hears_of_no_other_and_of_nothing_that_is_cleared(store, alert):
    clear_alert(store, study="wine", alert_id=alert("wine"))
    mine = alert("cancer")
    _, heard = asyncio.run(heard_while(AlertsTrigger(study="cancer", poll_interval=3600.0), 1))
    assert [event["alert_id"] for event in heard] == [mine]
    assert AlertsTrigger.unseen(store, "wine", set()) is None


def test_the_end_of_a_set_tells_the_asset(connected, alert):
    """Through the product itself: the referee retires a set by hand."""
    with connected.referee.begin() as tx:
        study = studies.get_study(tx, "cancer")
        set_id = str(releases.live_test_set(tx, study.id, SealedSetPurpose.METER).id)
    retire = partial(retire_test_set, connected.referee, test_set=set_id, study="cancer")
    _, (event,) = asyncio.run(heard_while(AlertsTrigger(study="cancer", poll_interval=3600.0), 0, retire))
    assert (event["study"], event["kind"]) == ("cancer", "new-test-set")


def test_a_dag_may_be_scheduled_on_alerts():
    from airflow.sdk import DAG
    from airflow.serialization.serialized_objects import DagSerialization

    asset = assets.alerts("digits", easeml_conn_id="other")
    assert asset.uri == Asset(asset.uri).uri == "easeml://alerts/digits?conn=other"
    assert asset.name == "Ease.ml: alerts of digits (other)"
    (watcher,) = asset.watchers
    arguments = {"study": "digits", "easeml_conn_id": "other", "poll_interval": None}
    assert watcher.trigger.serialize() == ("easeml_airflow.triggers.alerts.AlertsTrigger", arguments)
    with DAG("scheduled", schedule=[asset]) as dag:
        pass
    stored = DagSerialization.to_dict(dag)
    assert "AlertsTrigger" in str(stored)
    DagSerialization.from_dict(stored)
