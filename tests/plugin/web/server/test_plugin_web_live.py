"""The stream of news: says that something changed and nothing else, and of nothing that somebody may not see."""

import asyncio

import pytest
from page_client import without_times
from page_reader import Page
from waiting import at_rest

from easeml_airflow.web import live
from easeml_airflow.web.server.auth import Role, Viewer
from easeml_airflow.web.server.site import Site
from easeml_core.errors import StoreUnavailableError
from easeml_core.store.database import notify


class Request:
    """A browser that stays."""

    async def is_disconnected(self):
        return False


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(live, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(live, "SILENCE_SECONDS", 60.0)  # on a full machine news may take some time


@pytest.fixture
def short_silence(monkeypatch):
    monkeypatch.setattr(live, "SILENCE_SECONDS", 0.3)


async def heard(store, topics, notified, number):
    """The first events after the opening one, while these topics are notified."""
    news = live._news(Request(), store.dsn, topics)
    events = [await anext(news), await anext(news)]
    assert events.pop() == "event: listening\ndata:\n\n", "what happened before is looked for once"
    waiting = asyncio.ensure_future(anext(news))
    await at_rest()
    for topic in notified:
        with store.begin() as tx:
            notify(tx, topic)
    events.append(await waiting)
    while len(events) < number:
        events.append(await anext(news))
    await news.aclose()
    return events


def test_news_of_an_own_study_are_an_empty_event(store):
    events = asyncio.run(heard(store, ["study:mine"], ["study:mine"], 2))
    assert events == ["retry: 5000\n\n", "event: changed\ndata:\n\n"]


def test_news_of_other_studies_are_silence(store, short_silence):
    events = asyncio.run(heard(store, ["study:mine"], ["study:other", "trial:1", "answer:7"], 3))
    assert events[1:] == [": still here\n\n"] * 2


def test_one_topic_hears_of_every_study(store):
    assert asyncio.run(heard(store, ["study:*"], ["study:other"], 2))[1] == "event: changed\ndata:\n\n"


def test_one_topic_hears_of_nothing_but_studies(store, short_silence):
    assert asyncio.run(heard(store, ["study:*"], ["trial:1", "answer:7"], 2))[1] == ": still here\n\n"


@pytest.mark.parametrize(("streams", "most"), [(1, 1.0), (20, 1.0), (1000, 50.0)])
def test_the_more_pages_are_open_the_longer_news_may_wait(streams, most, monkeypatch):
    monkeypatch.setattr(live, "PAUSE_SECONDS", 1.0)
    drawn = [live.pause_seconds(streams) for _ in range(200)]
    assert 1.0 <= min(drawn) <= max(drawn) <= most
    assert streams < 21 or max(drawn) - min(drawn) > most / 2, "false alarm: (1/2)^199 * 200"


def test_streams_leave_half_of_the_files_that_a_process_may_open(monkeypatch):
    for limit, most in ((1024, 512), (100_000, live.MOST)):
        monkeypatch.setattr(live.resource, "getrlimit", lambda _, limit=limit: (limit, limit))
        assert live.most_streams() == most


def test_somebody_hears_of_what_they_may_see(make_study, database, artifacts):
    make_study("cancer")
    make_study("wine", source="sklearn:wine", request_key="w")

    def topics(viewer):
        site = Site(lambda: database.worker, lambda: artifacts, object, lambda: viewer)
        return live._topics(site, viewer, "")

    tenant = Viewer("uma", rights=lambda study, _tenant, *, write: study == "wine")
    assert topics(tenant) == ["study:wine"]
    assert topics(Viewer("olga", frozenset({Role.OPERATOR}))) == ["study:*"]
    assert topics(Viewer("eve")) == []


def test_a_stream_of_a_strangers_study_is_refused_like_one_of_no_study(ask_as, make_study):
    make_study("cancer")
    client = ask_as("eve", rights=lambda _study, _tenant, *, write: False)
    answers = [client.get(f"/events?study={name}") for name in ("cancer", "nothing")]
    assert [answer.status_code for answer in answers] == [404, 404]
    first, second = (without_times(answer.text) for answer in answers)
    assert first.replace("cancer", "nothing") == second


def test_a_stream_ends_when_the_database_is_away():
    async def ask():
        news = live._news(Request(), "postgresql://nobody@127.0.0.1:1/nothing", ["study:mine"])
        return [event async for event in news]

    assert asyncio.run(ask()) == ["retry: 5000\n\n"]


def test_a_stream_ends_after_a_while_so_that_rights_and_studies_are_looked_at_anew(store, monkeypatch, short_silence):
    monkeypatch.setattr(live, "LIFE_SECONDS", 0.2)

    async def ask():
        return [event async for event in live._news(Request(), store.dsn, ["study:mine"])]

    heard = asyncio.run(asyncio.wait_for(ask(), timeout=20))
    assert (heard[0], heard[-1]) == ("retry: 5000\n\n", "retry: 100\n\n")
    assert "event: listening\ndata:\n\n" in heard


def test_a_page_brings_along_what_it_says_when_it_cannot_look_again(ask_as, monkeypatch):
    monkeypatch.setenv("AIRFLOW__EASEML__PAGE_REFRESH_SECONDS", "7")
    page = ask_as("ada", "operator").page("/")
    notes = page.part("#notes[role=status]").soup
    assert (list(notes.children), notes.find_next_sibling().name) == ([], "main"), "heard only where it was empty"
    failed, polls = (page.part(f"template#note-{name}") for name in ("failed", "polls"))
    assert all(failed.part(f"[{mark}]") for mark in ("data-again", "data-why", "data-read-at"))
    assert "every 7 s" in str(polls.soup)


@pytest.mark.parametrize(
    ("method", "path", "again"), [("GET", "/", True), ("POST", "/compute/release", False), ("GET", "/nothing", False)]
)
def test_an_error_page_offers_what_helps(client_of, method, path, again):
    def away():
        raise StoreUnavailableError("the database at h cannot be reached")

    operator = Viewer("ada", frozenset({Role.OPERATOR}))
    client = client_of(Site(away, away, away, lambda: operator))
    page = Page(client.request(method, path, headers={"sec-fetch-site": "same-origin"}).text)
    wrong = page.part("#wrong[role=alert]")  # by this the page's script knows that it holds nothing worth keeping
    assert page.has('a.btn.primary[href=""]') is again
    assert ("looks again" in wrong.text) is again
