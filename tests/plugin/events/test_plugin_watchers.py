"""Each submission, alert and move of what is in production is an event of an asset: its trigger, and the asset."""

import asyncio
import inspect
import itertools
from functools import partial
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import pytest
from airflow.sdk import DAG, Asset, task
from airflow.serialization.serialized_objects import DagSerialization
from airflow.triggers.base import BaseEventTrigger
from task_doubles import SECONDS, cancel, made_anew, running, silent, told
from waiting import at_rest

from easeml_airflow import assets, operators
from easeml_airflow.triggers.alerts import AlertsTrigger
from easeml_airflow.triggers.evidence import EvidenceTrigger
from easeml_airflow.triggers.production import ProductionTrigger
from easeml_airflow.triggers.submissions import SubmissionsTrigger
from easeml_core.entities import AlertKind, SealedSetPurpose
from easeml_core.errors import StateError
from easeml_core.formats.encoding import to_json
from easeml_core.services.meter.alerts import clear_alert
from easeml_core.services.models.promotion import in_production
from easeml_core.services.models.submission import submit_model, waiting_submissions
from easeml_core.services.referee import requests
from easeml_core.services.referee.process import Referee
from easeml_core.services.test_sets.lifecycle import retire_test_set
from easeml_core.store.tables import releases, studies

EASY = {"condition": "n > 0.1 +/- 0.1", "reliability": 0.9, "adaptivity": "full", "steps": 6}
WINE = {"source": "sklearn:wine", "gate": {"condition": "n > 0.2 +/- 0.4", "reliability": 0.9, "steps": 2}}
LONGEST, ODD = "a" * 63, "0-iris..2_"


def heard_while(trigger, *acts, before=0):
    """What came ``before``, then what each act gives and the one event that it makes, silent before and after."""

    async def watch():
        async with running(trigger) as events:
            heard = await told(events, before)
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
        heard = []
        async with running(trigger) as events:
            while True:
                waiting = asyncio.ensure_future(anext(events))
                silence = asyncio.ensure_future(at_rest())
                await asyncio.wait([waiting, silence], return_when=asyncio.FIRST_COMPLETED)
                await cancel(silence)
                if not waiting.done():
                    await cancel(waiting)
                    return heard
                heard.append(waiting.result().payload)

    return asyncio.run(watch())


# Submissions.


@pytest.fixture
def hand_in(connected, make_study, artifacts, tmp_path):
    """Hand in a constant model, as often as wanted; the submission's id."""
    numbers = itertools.count()
    path = tmp_path / "model.json"
    path.write_text('{"label": 1}')

    def give(study="cancer"):
        given = {"message": "a test", "request_key": f"hand in {next(numbers)}"}
        submitted = submit_model(connected.worker, artifacts, study=study, path=path, format="constant", **given)
        return submitted.submission_id

    make_study("cancer")
    make_study("wine", **WINE)
    return give


def ids(found):
    return [s["submission_id"] for s in to_json(found)]  # records of the service, or events


def ask_gate(store, submission, *, key, **more):
    return requests.file_gate_request(
        store, study=submission.study, model_id=submission.model_id, request_key=key, **more
    )


def test_a_submission_waits_until_the_gate_is_asked_about_its_model(store, hand_in):
    first, other = hand_in(), hand_in("wine")
    assert ids(waiting_submissions(store)) == [first, other]
    (mine,) = waiting_submissions(store, study="cancer")
    assert (mine.submission_id, mine.study) == (first, "cancer")
    ask_gate(store, mine, key="advice", condition="n > 0.1 +/- 0.3")
    requests.file_meter_request(store, study="cancer", model_id=mine.model_id, request_key="meter")
    assert ids(waiting_submissions(store, study="cancer")) == [first]  # advice and a reading are no verdict
    ask_gate(store, mine, key="gate")
    assert ids(waiting_submissions(store)) == [other]
    again = hand_in()  # the same content, handed in anew, is another submission
    assert ids(waiting_submissions(store)) == [other, again]


def test_the_operator_lists_what_waits(store, hand_in):
    first = hand_in()
    find = operators.WaitingSubmissionsOperator
    assert ids(find(task_id="w").execute({})) == ids(find(task_id="w", study="None").execute({})) == [first]
    assert find(task_id="w", study="wine").execute({}) == []


def test_each_submission_is_told_once_and_at_once(hand_in):
    """Woken by the notification: the poll alone would need 80 % of an hour. What still waits is not told twice."""
    before = hand_in()  # while nobody watched
    acts = (partial(hand_in, study) for study in ("cancer", "wine"))
    first, *after = heard_while(SubmissionsTrigger(poll_interval=3600.0), *acts, before=1)
    handed_in, heard = [before, *(done for done, _ in after)], [first, *(event for _, event in after)]
    assert ids(heard) == handed_in
    assert [event["study"] for event in heard] == ["cancer", "cancer", "wine"]


def test_a_watcher_of_submissions_of_one_study_hears_of_no_other(hand_in):
    hand_in("cancer")
    ((mine, heard),) = heard_while(SubmissionsTrigger(study="wine", poll_interval=3600.0), partial(hand_in, "wine"))
    assert (heard["submission_id"], heard["study"]) == (mine, "wine")


def test_what_came_while_the_triggerer_was_away_is_told_and_what_was_judged_is_not(store, hand_in):
    first, second = hand_in("cancer"), hand_in("wine")
    assert ids(first_of(SubmissionsTrigger())) == [first, second]
    ask_gate(store, waiting_submissions(store, study="cancer")[0], key="gate")
    assert ids(first_of(SubmissionsTrigger())) == [second]


def test_what_has_reached_the_gate_is_forgotten(store, hand_in):
    """The memory of a trigger that runs for a year holds what waits now, and no more."""
    seen = set()
    first = hand_in()
    found, waiting = SubmissionsTrigger.unseen(store, None, seen)
    assert (ids(found), waiting) == ([first], {first})
    assert SubmissionsTrigger.unseen(store, None, {first}) is None

    async def watch():
        trigger = SubmissionsTrigger(poll_interval=3600.0)
        memory = set()
        await trigger._next(memory)
        ask_gate(store, waiting_submissions(store)[0], key="gate")
        second = hand_in("wine")
        await trigger._next(memory)
        return memory, second

    memory, second = asyncio.run(watch())
    assert memory == {second}


# Alerts.


@pytest.fixture
def alert(connected, make_study):
    """Raise the one alert of a study that its gate set needs; its number."""
    for study in ("cancer", "wine"):
        make_study(study, **WINE | ({} if study == "wine" else {"source": "sklearn:breast_cancer"}))

    def give(study):
        with connected.referee.begin() as tx:
            found = studies.get_study(tx, study)
            test_set = releases.live_test_set(tx, found.id, SealedSetPurpose.GATE)
            about = {"test_set_id": test_set.id, "kind": AlertKind.NEW_TEST_SET, "message": f"{study} needs one"}
            releases.add_alert(tx, study_id=found.id, study=study, **about)
            return releases.newest_alert(tx, found.id)

    return give


def test_each_alert_is_told_at_once_and_once(alert):
    before = alert("cancer")
    first, (after, second) = heard_while(AlertsTrigger(poll_interval=3600.0), partial(alert, "wine"), before=1)
    shown = {"kind": "new-test-set", "over_budget": None}
    assert first == {"alert_id": before, "study": "cancer", "message": "cancer needs one", **shown}
    assert second == {"alert_id": after, "study": "wine", "message": "wine needs one", **shown}


def test_a_watcher_of_alerts_of_one_study_hears_of_no_other_and_of_nothing_that_is_cleared(store, alert):
    clear_alert(store, study="wine", alert_id=alert("wine"))
    mine = alert("cancer")
    assert [event["alert_id"] for event in first_of(AlertsTrigger(study="cancer", poll_interval=3600.0))] == [mine]
    assert AlertsTrigger.unseen(store, "wine", set()) is None


def test_the_end_of_a_set_tells_the_asset(connected, alert):
    """Through the product itself: the referee retires a set by hand."""
    with connected.referee.begin() as tx:
        study = studies.get_study(tx, "cancer")
        set_id = str(releases.live_test_set(tx, study.id, SealedSetPurpose.METER).id)
    retire = partial(retire_test_set, connected.referee, test_set=set_id, study="cancer")
    ((_, event),) = heard_while(AlertsTrigger(study="cancer", poll_interval=3600.0), retire)
    assert (event["study"], event["kind"]) == ("cancer", "new-test-set")


# What is in production.


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
        moved = {"study": study, "model_id": model_id, "request_id": request_id, "kind": kind}
        assert event == moved | {"promotion_id": event["promotion_id"]}
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


def test_a_watcher_of_production_of_one_study_hears_of_no_other_and_one_of_all_hears_each(make_study, production):
    odd, longest = make_study(ODD, **WINE), make_study(LONGEST, **WINE)
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


# All kinds.


TRIGGERS = [SubmissionsTrigger, AlertsTrigger, ProductionTrigger, EvidenceTrigger]
HOSTILE = ["nowhere", "", 7, ["x"], "a" * 64, "x" * 100_000, "'; DROP TABLE work.studies; --", "\x00", "cancer\n"]


@pytest.mark.parametrize("kind", [SubmissionsTrigger, ProductionTrigger])
def test_a_trigger_that_cannot_watch_says_so_and_goes_on(connected, monkeypatch, caplog, kind):
    """An error would end the watcher for ever; and a study that is not there yet may come."""
    looks, real = [], kind._next

    async def count(self, seen):
        looks.append(1)
        if len(looks) == 3:
            raise asyncio.CancelledError
        if self.study == "":  # means all studies, of which none has anything
            raise OSError("no more sockets")
        return await real(self, seen)

    monkeypatch.setattr(kind, "_next", count)

    async def watch(study):
        async with running(kind(study=study, easeml_conn_id="easeml_default", poll_interval=0.01)) as events:
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(anext(events), SECONDS)

    for study in HOSTILE:
        looks.clear()
        caplog.clear()
        asyncio.run(watch(study))
        assert len(looks) == 3, study
        assert caplog.text.count(f"the {kind.topic} events of") == 2, study
        assert caplog.text.count("cannot be watched, trying again") == 2, study


@pytest.mark.parametrize("value", [None, "", 0, -1, "often", float("nan"), float("inf"), [], {}, object()])
def test_the_constructor_never_raises_and_the_interval_is_a_time(value):
    """One that raised anything but TypeError would end the triggerer, and every one after it."""
    trigger = SubmissionsTrigger(study=value, easeml_conn_id=value, poll_interval=value)
    assert 0 < trigger._seconds() < float("inf")


ASSETS = {
    assets.submissions: ("submissions", "models handed in for {}", "any study"),
    assets.alerts: ("alerts", "alerts of {}", "any study"),
    assets.production_model: ("production", "{} in production", "any study"),
    assets.evidence: ("evidence", "evidence of {}", "any study"),
}
KINDS = pytest.mark.parametrize("kind", ASSETS, ids=lambda kind: kind.__name__)


@KINDS
def test_the_asset_has_the_watcher_in_the_form_that_airflow_makes_of_it_and_equal_ones_are_one(kind):
    address, name, any_study = ASSETS[kind]
    asset, every = kind("digits", easeml_conn_id="other"), kind()
    assert (asset.uri, every.uri) == (f"easeml://{address}/digits?conn=other", f"easeml://{address}/")
    assert [Asset(one.uri).uri for one in (asset, every)] == [asset.uri, every.uri]
    assert asset.name == f"Ease.ml: {name.format('digits')} (other)"
    assert every.name == f"Ease.ml: {name.format(any_study)}"
    trigger, same, more = (made.watchers[0].trigger for made in (asset, kind("digits", easeml_conn_id="other"), every))
    path, arguments = trigger.serialize()
    assert path == f"easeml_airflow.triggers.{address}.{type(trigger).__name__}"  # Airflow's database has it
    assert arguments == {"study": "digits", "easeml_conn_id": "other", "poll_interval": None}
    assert made_anew(trigger).serialize() == (path, arguments)
    hashes = [BaseEventTrigger.hash(*made.serialize()) for made in (trigger, same, more)]
    assert hashes[0] == hashes[1] != hashes[2]


def facets(asset):
    """What Airflow tells assets and watchers apart by."""
    (watcher,) = asset.watchers
    return asset.name, asset.uri, watcher.name, BaseEventTrigger.hash(*watcher.trigger.serialize())


@KINDS
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


@KINDS
def test_no_name_of_a_study_is_any_study(kind):
    assert facets(kind("")) == facets(kind(None)) == facets(kind())


@pytest.mark.parametrize("conn_id", ["a/b", "a#b", r"a\b", "(x):1!", "x" * 250, "ü", "a b&conn=c"])
def test_every_name_of_a_connection_is_kept_apart_in_the_address(conn_id):
    asset = assets.production_model("digits", easeml_conn_id=conn_id)
    assert Asset(asset.uri).uri == asset.uri
    assert parse_qs(urlsplit(asset.uri).query) == {"conn": [conn_id]}


@pytest.mark.parametrize("study", [None, "digits", LONGEST, ODD])
def test_a_dag_with_the_assets_as_schedule_or_as_outlet_is_stored_and_read(study):
    from airflow.providers.standard.operators.empty import EmptyOperator

    found = [kind(study) for kind in ASSETS]
    with DAG("scheduled", schedule=found) as scheduled:
        pass
    with DAG("outlet", schedule=None) as outlet:
        EmptyOperator(task_id="tell", outlets=found)
    for dag in (scheduled, outlet):
        stored = DagSerialization.to_dict(dag)
        assert all(asset.uri in str(stored) for asset in found)
        DagSerialization.from_dict(stored)
    stored = str(DagSerialization.to_dict(scheduled))
    assert all(trigger.__name__ in stored for trigger in TRIGGERS)


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
