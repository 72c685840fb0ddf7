"""The stream of news: says that something changed and nothing else, and of nothing that somebody may not see."""

import asyncio

import pytest

from easeml_airflow.web import live
from easeml_airflow.web.frame import Site
from easeml_airflow.web.people import Role, Viewer
from easeml_core.store.database import notify


class Request:
    """A browser that stays."""

    async def is_disconnected(self):
        return False


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(live, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(live, "SILENCE_SECONDS", 0.3)


async def heard(store, topics, notified, number):
    """The first events after the opening one, while these topics are notified."""
    news = live._news(Request(), store.dsn, topics)
    events = [await anext(news), await anext(news)]
    assert events.pop() == "event: listening\ndata:\n\n", "what happened before is looked for once"
    waiting = asyncio.ensure_future(anext(news))
    await asyncio.sleep(0.1)
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


def test_news_of_other_studies_are_silence(store):
    events = asyncio.run(heard(store, ["study:mine"], ["study:other", "trial:1", "answer:7"], 3))
    assert events[1:] == [": still here\n\n"] * 2


def test_somebody_hears_of_what_they_may_see(make_study, database, artifacts):
    make_study("cancer")
    make_study("wine", source="sklearn:wine", request_key="w")

    def topics(viewer):
        site = Site(lambda: database.worker, lambda: artifacts, object, lambda: viewer)
        return live._topics(site, viewer, "")

    tenant = Viewer("uma", rights=lambda study, _tenant, *, write: study == "wine")
    assert topics(tenant) == ["study:wine"]
    assert topics(Viewer("olga", frozenset({Role.OPERATOR}))) == ["study:cancer", "study:wine"]
    assert topics(Viewer("eve")) == []


def test_a_stream_of_a_strangers_study_is_refused_like_one_of_no_study(ask_as, make_study):
    make_study("cancer")
    client = ask_as("eve", rights=lambda _study, _tenant, *, write: False)
    answers = [client.get(f"/events?study={name}") for name in ("cancer", "nothing")]
    assert [answer.status_code for answer in answers] == [404, 404]
    assert answers[0].text.replace("cancer", "nothing") == answers[1].text


def test_a_stream_ends_when_the_database_is_away():
    async def ask():
        news = live._news(Request(), "postgresql://nobody@127.0.0.1:1/nothing", ["study:mine"])
        return [event async for event in news]

    assert asyncio.run(ask()) == ["retry: 5000\n\n"]
