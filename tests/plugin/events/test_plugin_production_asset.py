"""Each move of what is in production is an event of an asset, whoever made it: the trigger that tells it, the asset."""

import asyncio
import contextlib
import inspect
import itertools
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import pytest
from airflow.sdk import DAG, Asset, task
from airflow.sdk.module_loading import import_string
from airflow.serialization.serialized_objects import DagSerialization
from airflow.triggers.base import BaseEventTrigger
from waiting import at_rest

from easeml_airflow import assets, operators
from easeml_airflow.triggers.production import ProductionTrigger
from easeml_core.errors import StateError
from easeml_core.services.models.promotion import in_production
from easeml_core.services.models.submission import submit_model
from easeml_core.services.referee import requests
from easeml_core.services.referee.process import Referee

SECONDS = 30
"""Longer than anything here takes; a wait that is longer has failed."""
EASY = {"condition": "n > 0.1 +/- 0.1", "reliability": 0.9, "adaptivity": "full", "steps": 6}
LONGEST, ODD = "a" * 63, "0-iris..2_"
HOSTILE = ["nowhere", "", 7, ["x"], "a" * 64, "x" * 100_000, "'; DROP TABLE work.studies; --", "\x00", "cancer\n"]


class Production:
    """What is in production, moved as the command line, a page or a task has the referee move it."""

    def __init__(self, database, artifacts, folder):
        self.worker, self.database, self.artifacts, self.folder = database.worker, database, artifacts, folder
        self.keys = map(str, itertools.count())

    def model(self, label, study="cancer"):
        """A model that always says the same, handed in; its number."""
        path = self.folder / f"{label}.json"
        path.write_text(f'{{"label": {label}}}')
        given = {"path": path, "format": "constant", "message": "a test", "request_key": next(self.keys)}
        return submit_model(self.worker, self.artifacts, study=study, **given).model_id

    def answered(self, file, study, **given):
        """A request's number, once the referee has answered it; refused or not."""
        asked = file(self.worker, study=study, request_key=next(self.keys), **given)
        referee = Referee(self.database.referee, self.artifacts, allow_forced=True)
        while referee.answer_one() is not None:
            pass
        return asked, requests.answer_of(self.worker, asked).refused

    def promote(self, model_id, study="cancer"):
        verdict, _ = self.answered(requests.file_gate_request, study, model_id=model_id)
        return self.answered(requests.file_promotion, study, model_id=model_id, gate_request_id=verdict)[0]

    def force(self, model_id, study="cancer"):
        given = {"model_id": model_id, "who": "Ada", "why": "it crashes"}
        return self.answered(requests.file_forced_promotion, study, **given)[0]

    def roll_back(self, study="cancer"):
        return self.answered(requests.file_rollback, study, why="it is slow")[0]

    def roll_back_directly(self, study="cancer"):
        """As ``easeml rollback`` does for who holds the referee's address."""
        given = {"why": "it is slow", "request_key": next(self.keys), "directly": True}
        return requests.file_rollback(self.database.referee, study=study, **given)


@pytest.fixture
def production(connected, artifacts, tmp_path):
    return Production(connected, artifacts, tmp_path)


@pytest.fixture
def study(make_study):
    return make_study("cancer", gate=EASY)


@contextlib.asynccontextmanager
async def running(trigger):
    """The events of a trigger as the triggerer makes it, and its end as the triggerer brings it about."""
    path, arguments = trigger.serialize()
    events = import_string(path)(**arguments).run()
    try:
        yield events
    finally:
        await events.aclose()


async def silent(events):
    """A wait for the next event, after a look that has found none."""
    waiting = asyncio.ensure_future(anext(events))
    await at_rest()
    assert not waiting.done()
    return waiting


async def cancel(waiting):
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting


def heard_while(trigger, *acts):
    """What each act gives and the one event that it makes, of a trigger that is silent before and after."""

    async def watch():
        heard = []
        async with running(trigger) as events:
            waiting = await silent(events)
            for act in acts:
                done = await asyncio.to_thread(act)
                heard.append((done, (await asyncio.wait_for(waiting, SECONDS)).payload))
                waiting = await silent(events)
            await cancel(waiting)
        return heard

    return asyncio.run(watch())


def first_of(trigger):
    """What a trigger tells that starts now, up to its silence."""

    async def watch():
        told = []
        async with running(trigger) as events:
            while True:
                waiting = asyncio.ensure_future(anext(events))
                silence = asyncio.ensure_future(at_rest())
                await asyncio.wait([waiting, silence], return_when=asyncio.FIRST_COMPLETED)
                await cancel(silence)
                if not waiting.done():
                    await cancel(waiting)
                    return told
                told.append(waiting.result().payload)

    return asyncio.run(watch())


def test_each_way_to_move_it_is_told_at_once_and_once(study, production):
    """Woken by the notification: the poll alone would need 80 % of an hour."""
    one, two = production.model(0), production.model(1)
    moves = (
        ("promote", one, lambda: production.promote(one)),
        ("force", two, lambda: production.force(two)),
        ("rollback", one, production.roll_back),
        ("force", two, lambda: production.force(two)),
        ("rollback", one, production.roll_back_directly),
    )
    heard = heard_while(ProductionTrigger(study=study, poll_interval=3600.0), *(act for _, _, act in moves))
    for (kind, model_id, _), (request_id, event) in zip(moves, heard, strict=True):
        told = {"study": study, "model_id": model_id, "request_id": request_id, "kind": kind}
        assert event == told | {"promotion_id": event["promotion_id"]}
    numbers = [event["promotion_id"] for _, event in heard]
    assert numbers == sorted(set(numbers))


def test_nothing_in_production_and_nothing_but_a_refusal_is_no_event(study, production, store):
    model_id = production.model(0)
    assert in_production(store) == in_production(store, study=study) == []
    assert ProductionTrigger.unseen(store, study, set()) is None
    _, refused = production.answered(requests.file_promotion, study, model_id=model_id, gate_request_id=99)
    assert refused
    with pytest.raises(StateError):
        production.roll_back_directly()
    assert first_of(ProductionTrigger(study=study)) == []


def test_a_new_start_tells_what_stands_and_nothing_older(study, production):
    one, two = production.model(0), production.model(1)
    production.force(one)
    last = production.force(two)
    (event,) = first_of(ProductionTrigger(study=study, poll_interval=0.1))
    assert (event["model_id"], event["request_id"]) == (two, last)
    assert first_of(ProductionTrigger(study=study, poll_interval=0.1)) == [event]  # the same number: nothing to do


def test_a_watcher_of_one_study_hears_of_no_other_and_one_of_all_hears_each(make_study, production):
    wine = {"source": "sklearn:wine", "gate": {"condition": "n > 0.2 +/- 0.4", "reliability": 0.9, "steps": 2}}
    odd, longest = make_study(ODD, **wine), make_study(LONGEST, **wine)
    models = {study: production.model(0, study) for study in (odd, longest)}

    def both():
        production.force(models[longest], longest)
        return production.force(models[odd], odd)

    ((request_id, event),) = heard_while(ProductionTrigger(study=odd, poll_interval=3600.0), both)
    assert (event["study"], event["request_id"]) == (odd, request_id)
    everything = first_of(ProductionTrigger(poll_interval=3600.0))
    assert [(event["study"], event["model_id"]) for event in everything] == [
        (longest, models[longest]),
        (odd, models[odd]),
    ]


@pytest.mark.parametrize("study", HOSTILE, ids=lambda value: repr(value)[:20])
def test_a_name_that_is_none_is_said_and_never_ends_the_trigger(connected, monkeypatch, caplog, study):
    trigger = ProductionTrigger(study=study, poll_interval=0.01)
    looks = []
    real = ProductionTrigger._next

    async def count(self, told):
        looks.append(1)
        if len(looks) == 3:
            raise asyncio.CancelledError
        return await real(self, told)

    monkeypatch.setattr(ProductionTrigger, "_next", count)

    async def watch():
        async with running(trigger) as events:
            with pytest.raises(asyncio.CancelledError):
                await anext(events)

    asyncio.run(watch())
    assert caplog.text.count("cannot be watched, trying again") == 2
    assert "the production events of" in caplog.text


def test_the_asset_has_the_watcher_and_equal_ones_are_one():
    asset = assets.production_model("digits", easeml_conn_id="other")
    named = ("Ease.ml: digits in production (other)", "easeml://production/digits?conn=other")
    assert (asset.name, asset.uri) == named
    (watcher,) = asset.watchers
    path, arguments = watcher.trigger.serialize()
    assert path == "easeml_airflow.triggers.production.ProductionTrigger"
    assert arguments == {"study": "digits", "easeml_conn_id": "other", "poll_interval": None}
    (same,) = assets.production_model("digits", easeml_conn_id="other").watchers
    (more,) = assets.production_model().watchers
    hashes = [BaseEventTrigger.hash(*made.trigger.serialize()) for made in (watcher, same, more)]
    assert hashes[0] == hashes[1] != hashes[2]
    assert assets.production_model().name == "Ease.ml: any study in production"


KINDS = [assets.submissions, assets.alerts, assets.production_model, assets.evidence]


def facets(asset):
    """What Airflow tells assets and watchers apart by."""
    (watcher,) = asset.watchers
    return asset.name, asset.uri, watcher.name, BaseEventTrigger.hash(*watcher.trigger.serialize())


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_two_connections_are_two_assets_and_the_installation_s_own_is_one_however_it_is_written(kind, monkeypatch):
    """Airflow keeps the watchers of the file that it read last: assets that share an address share them."""
    usual = [facets(kind("digits", easeml_conn_id=given)) for given in (None, "", "easeml_default")]
    assert usual[0] == usual[1] == usual[2]
    all_of_it = [usual[0], *(facets(kind("digits", easeml_conn_id=given)) for given in ("other", "third"))]
    for facet in zip(*all_of_it, strict=True):
        assert len(set(facet)) == 3
    monkeypatch.setenv("AIRFLOW__EASEML__CONN_ID", "other")
    assert facets(kind("digits", easeml_conn_id="other")) == facets(kind("digits")) == usual[0]
    assert facets(kind("digits", easeml_conn_id="easeml_default")) not in all_of_it


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_no_name_of_a_study_is_any_study(kind):
    assert facets(kind("")) == facets(kind(None)) == facets(kind())


@pytest.mark.parametrize("conn_id", ["a/b", "a#b", r"a\b", "(x):1!", "x" * 250, "ü", "a b&conn=c"])
def test_every_name_of_a_connection_is_kept_apart_in_the_address(conn_id):
    asset = assets.production_model("digits", easeml_conn_id=conn_id)
    assert Asset(asset.uri).uri == asset.uri
    assert parse_qs(urlsplit(asset.uri).query) == {"conn": [conn_id]}


@pytest.mark.parametrize("study", [None, "digits", LONGEST, ODD])
def test_a_dag_with_the_asset_as_schedule_or_as_outlet_is_stored_and_read(study):
    from airflow.providers.standard.operators.empty import EmptyOperator

    asset = assets.production_model(study)
    assert Asset(asset.uri).uri == asset.uri
    with DAG("scheduled", schedule=[asset, assets.submissions("digits")]) as scheduled:
        pass
    with DAG("outlet", schedule=None) as outlet:
        EmptyOperator(task_id="tell", outlets=[asset])
    for dag in (scheduled, outlet):
        stored = DagSerialization.to_dict(dag)
        assert asset.uri in str(stored)
        DagSerialization.from_dict(stored)


def test_no_operator_tells_of_production_beside_the_watcher():
    """A task's event would be a second one, and a deployment would run twice a move."""
    moved = {"study": "digits", "model_id": 7}
    for operator in (
        operators.PromoteModelOperator(task_id="p", gate_request_id=3, **moved),
        operators.RollbackModelOperator(task_id="r", why="it is slow", **moved),
        operators.ForcePromotionOperator(task_id="f", **moved),
    ):
        assert operator.outlets == []


# The recipe of docs/cookbook.md that deploys.


@pytest.fixture
def deployed(run_dag, root, monkeypatch, connected, make_study):
    """Run the recipe's task in a DAG that was woken by events with this in them; the model that it deploys."""
    from airflow.dag_processing.dagbag import DagBag
    from airflow.models import Variable  # that of the SDK needs a task around it
    from airflow.sdk.execution_time.context import TriggeringAssetEventsAccessor

    make_study("flowers", gate=EASY)
    folder = root / "docs" / "examples" / "cookbook"
    recipe = DagBag(dag_folder=str(folder / "on_promotion.py")).dags["cookbook_on_promotion"]
    deploy = recipe.task_dict["deploy"].python_callable
    asset = assets.production_model("flowers")

    def run(*extras):
        heard = [SimpleNamespace(asset=asset, source_aliases=[], extra=extra) for extra in extras]
        with DAG("deployment", schedule=None) as dag:

            @task(task_id="deploy")
            def again():
                """It hears of the events where it asks for them; what it asks for is its own affair."""
                wanted = inspect.signature(deploy).parameters
                given = {"triggering_asset_events": TriggeringAssetEventsAccessor.build(heard)}
                return deploy(**{name: given[name] for name in wanted})

            again()
        (instance,) = run_dag(dag).get_task_instances()
        assert str(instance.state) == "success"
        return instance.xcom_pull(task_ids="deploy")

    yield run
    Variable.delete("flowers_deployed")  # noqa: AIR311 - the test runs no task


def event_of(store):
    """What the watcher tells now."""
    (move,) = in_production(store, study="flowers")
    return {"from_trigger": True, "payload": move}


def test_the_recipe_deploys_each_move_once_and_what_stands_alone(deployed, production, store):
    one, two = (production.model(label, "flowers") for label in (0, 1))
    production.promote(one, "flowers")
    first = event_of(store)
    assert deployed(first) == one
    assert deployed(first) is None  # told again
    production.force(two, "flowers")
    second = event_of(store)
    production.roll_back("flowers")
    assert deployed(second) == one  # late: the rollback has been made meanwhile
    assert deployed(second, event_of(store)) is None
    production.force(two, "flowers")
    assert deployed(first, event_of(store)) == two  # two events in one run


@pytest.mark.parametrize("extra", [{}, {"payload": {}}, {"payload": {"promotion_id": 10**9}}], ids=str)
def test_a_forged_event_deploys_nothing_of_its_own_and_silences_no_later_move(deployed, production, store, extra):
    one, bad = (production.model(label, "flowers") for label in (0, 1))
    if "payload" in extra:
        extra["payload"] |= {"study": "flowers", "model_id": bad, "request_id": 1, "kind": "promote"}
    assert deployed(extra) is None  # nothing is in production
    production.promote(one, "flowers")
    assert deployed(extra) == one  # the gate's model, though the event names another
    assert deployed(extra) is None
    production.force(bad, "flowers")
    assert deployed(event_of(store)) == bad
