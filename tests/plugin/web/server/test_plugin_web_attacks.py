"""What attackers try: bodies before a login, crowds of slow senders, bombs, names and numbers made to break a page."""

from __future__ import annotations

import asyncio
import csv
import difflib
import io
import re
import tempfile
import threading
import zipfile
from dataclasses import replace
from datetime import UTC, datetime
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from fastapi import HTTPException
from fastapi.routing import APIRoute
from page_reader import Page
from PIL import Image
from starlette.requests import Request

from easeml_airflow.web import live
from easeml_airflow.web.pages import new_study, use
from easeml_airflow.web.pages.new_study import Draft
from easeml_airflow.web.pages.overview.page import nearest
from easeml_airflow.web.server import request_limits
from easeml_airflow.web.server.auth import Role, Viewer
from easeml_airflow.web.server.request_limits import MOST_OF_ONE, Intake, Turns, few_of_each
from easeml_airflow.web.server.service import Service
from easeml_airflow.web.server.site import REFEREE_VARIABLE, Site
from easeml_core.errors import ConcurrentUpdateError, StoreUnavailableError
from easeml_core.sandbox import child_start, process
from easeml_core.sandbox.isolation import Isolation
from easeml_core.services.datasets.refine import SuspiciousPair, SuspiciousPairs
from easeml_core.services.models import inference
from easeml_core.services.reports.audit import audit
from easeml_core.services.reports.overview import MOST_COMPARED
from easeml_core.services.studies.uploads import keep_upload
from easeml_core.store.database import Store

BASELINE = {"number": "1"}
"""The model that every study has once it is sealed."""


def away():
    raise StoreUnavailableError("the database cannot be reached")


def closed():
    raise HTTPException(status_code=401, detail="log in first")


def routes_of(app):
    """All routes of an application, those of included routers among them."""

    def walk(routes):
        for route in routes:
            yield from walk(route.routes) if hasattr(route, "routes") else [route]

    return [route for route in walk(app.routes) if isinstance(route, APIRoute)]


# -- before a login ---------------------------------------------------------------------------------------------------

FORMS = {
    "multipart/form-data; boundary=cut": b'--cut\r\nContent-Disposition: form-data; name="x"; filename="x"\r\n\r\n',
    "application/x-www-form-urlencoded": b"label=",
}


async def taken(app, path, kind):
    """Status of the answer to a body of 20 MB, and how much of it the server has taken."""
    left, seen, answers = [FORMS[kind], *[b"x" * 50_000] * 400], 0, []

    async def receive():
        nonlocal seen
        chunk = left.pop(0)
        seen += len(chunk)
        return {"type": "http.request", "body": chunk, "more_body": bool(left)}

    async def send(message):
        answers.append(message)

    headers = [(b"content-type", kind.encode()), (b"sec-fetch-site", b"same-origin"), (b"host", b"test")]
    scope = {"type": "http", "method": "POST", "path": path, "root_path": "", "query_string": b"", "headers": headers}
    await app(scope, receive, send)
    return answers[0]["status"], seen


@pytest.mark.parametrize("kind", FORMS)
def test_nobody_fills_disk_or_memory_before_the_login(client_of, kind):
    """The framework reads a form before it asks who sends it; every route, so that a new one cannot be forgotten."""
    app = client_of(Site(away, away, away, lambda: Viewer("ada")), require_login=closed).app
    posts = [re.sub(r"{[a-z_]+}", "1", route.path) for route in routes_of(app) if "POST" in route.methods]
    assert len(posts) > 20
    for path in posts:
        status, seen = asyncio.run(taken(app, path, kind))
        assert status in (401, 413), path
        assert seen <= 150_000, path


# -- crowds -----------------------------------------------------------------------------------------------------------


def slow_request():
    """A form that never comes to its end."""

    async def receive():
        await asyncio.sleep(3600)

    headers = [(b"content-type", b"application/x-www-form-urlencoded")]
    return Request({"type": "http", "headers": headers, request_limits._KEY: request_limits._Allowance()}, receive)


def test_who_sends_slowly_takes_their_own_places_and_not_those_of_others():
    async def crowd():
        intake = Intake(at_once=3, of_one=2)

        async def asked(*people):
            forms = [asyncio.ensure_future(intake.form(slow_request(), who=who, most_bytes=1000)) for who in people]
            await asyncio.sleep(0.01)
            refused = [form.done() and isinstance(form.exception(), ConcurrentUpdateError) for form in forms]
            for form in forms:
                form.cancel()
            await asyncio.gather(*forms, return_exceptions=True)
            return refused

        return await asked("eve", "eve", "eve", "ann", "bob"), await asked("eve", "eve")

    assert asyncio.run(crowd()) == ([False, False, True, False, True], [False, False])


def test_who_brings_much_work_has_a_place_for_it_until_it_is_done():
    def request():
        async def receive():
            return {"type": "http.request", "body": b"label=a", "more_body": False}

        headers = [(b"content-type", b"application/x-www-form-urlencoded")]
        return Request({"type": "http", "headers": headers, request_limits._KEY: request_limits._Allowance()}, receive)

    async def crowd():
        intake, begun, done = Intake(at_once=3, of_one=2), threading.Semaphore(0), threading.Event()

        def work(_):
            begun.release()
            done.wait()

        people = ("eve", "eve", "ann")
        working = [asyncio.ensure_future(intake.answer(request(), work, who=w, most_bytes=1000)) for w in people]
        try:
            for _ in working:
                await asyncio.to_thread(begun.acquire)
            for who in ("eve", "bob"):
                with pytest.raises(ConcurrentUpdateError):
                    await intake.form(request(), who=who, most_bytes=1000)
        finally:
            done.set()
        await asyncio.gather(*working)
        return await intake.form(request(), who="eve", most_bytes=1000)

    assert asyncio.run(crowd())["label"] == "a"


def test_who_names_many_tenants_has_one_turn_at_their_data(monkeypatch):
    looks, refused = new_study.Looks(Turns(at_once=2, waiting=0)), []

    def look(_artifacts, *, tenant, source, asked):
        if tenant == "first":
            looks.at(None, Draft(tenant="of-ann", source="s"), who="ann")
            with pytest.raises(ConcurrentUpdateError):
                looks.at(None, Draft(tenant="second", source="s"), who="eve")
            refused.append(tenant)

    monkeypatch.setattr(new_study, "look_at_data", look)
    looks.at(None, Draft(tenant="first", source="s"), who="eve")
    assert refused == ["first"]


def test_a_crowd_that_comes_at_once_gets_no_more_streams_than_one_after_the_other(make_study, database, artifacts):
    make_study("cancer")
    viewer = Viewer("eve", rights=lambda _study, _tenant, *, write: True)
    site = Site(lambda: database.worker, lambda: artifacts, away, lambda: viewer)
    (route,) = live.routes(site).routes

    class Browser:
        async def is_disconnected(self):
            return False

    async def crowd():
        asked = [route.endpoint(Browser(), study="cancer", viewer=viewer) for _ in range(live.MOST_OF_ONE + 8)]
        streams = [answer.body_iterator for answer in await asyncio.gather(*asked)]
        opened = [await anext(stream, None) for stream in streams]
        for stream in streams:
            await stream.aclose()
        return sum(event is not None for event in opened)

    assert asyncio.run(crowd()) == live.MOST_OF_ONE


def test_asking_for_one_row_more_does_not_search_for_wrong_labels_again(ask_as, make_study, monkeypatch):
    make_study("cancer")
    calls = []
    pairs = [SuspiciousPair(f"{n:02}", "a", "b", 0.5, suspected=False) for n in range(use.MOST_ROWS)]

    def suspicious(_self, study, *, limit):
        calls.append(study)
        return SuspiciousPairs(study, 1, len(pairs), 0, pairs[:limit])

    monkeypatch.setattr(Service, "suspicious", suspicious)
    client = ask_as("ann")
    shown = [client.get(f"/studies/cancer/use?of=suspicious&limit={n}").text.count('name="row"') for n in (5, 6, 7)]
    assert (shown, len(calls)) == ([5, 6, 7], 1)


def test_one_person_does_not_take_all_threads_of_the_server():
    eve, ann = Viewer("eve"), Viewer("ann")
    place = few_of_each(lambda: eve)

    async def crowd():
        taken = [place(eve) for _ in range(MOST_OF_ONE)]
        for one in taken:
            await anext(one)
        with pytest.raises(HTTPException, match="429"):
            await anext(place(eve))
        await anext(place(ann))
        await taken[0].aclose()
        await anext(place(eve))

    asyncio.run(crowd())


def test_every_page_counts_the_requests_of_one_person(client_of):
    app = client_of(Site(away, away, away, lambda: Viewer("ada"))).app
    for route in routes_of(app):
        names = {dependency.call.__qualname__ for dependency in route.dependant.dependencies}
        assert route.path in ("/events", "/health", "/static/{name}") or "few_of_each.<locals>.place" in names, (
            route.path
        )


def test_a_search_compares_no_more_names_than_it_can_in_a_moment(monkeypatch):
    compared = []
    monkeypatch.setattr(difflib, "get_close_matches", lambda text, names, **_: compared.append((text, names)) or [])
    nearest(["ab", "ac"], "A" * 200)
    ((text, names),) = compared
    assert (len(text), names) == (40, ["ab", "ac"])
    assert MOST_COMPARED == 500  # and no more are read, see test_store_assessments.py


# -- bombs ------------------------------------------------------------------------------------------------------------


def zipped(name, content, copies=1):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for copy in range(copies):
            packed.writestr(name.format(copy), content)
    return file.getvalue()


def test_a_small_zip_file_does_not_become_much(ask_as, make_study):
    make_study("cancer")
    array = io.BytesIO()
    np.save(array, np.zeros((160_000, 30)))
    bomb = zipped("inputs.npy", array.getvalue())
    assert len(bomb) < 200_000
    refused = ask_as("eve").post("/studies/cancer/use", data=BASELINE, files={"file": ("x.zip", bomb)})
    assert refused.status_code == 400
    assert "holds more than 32,000,000 bytes" in Page(refused.text).text


def test_images_that_claim_many_pixels_together_are_not_decoded(tmp_path):
    image = io.BytesIO()
    Image.new("L", (5000, 4900)).save(image, "PNG")
    (tmp_path / "x.zip").write_bytes(zipped("c/{}.png", image.getvalue(), copies=21))
    (tmp_path / "out").mkdir()
    with pytest.raises(use.InvalidInputError, match="more than 500,000,000 pixels together"):
        use._unpacked(tmp_path / "x.zip", tmp_path / "out")


# -- programs of others beside secrets --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("isolation", "status"),
    [
        (Isolation(None, ("network", "processes"), ("account: needs root", "files: forbidden")), 409),
        (Isolation(None, ("network", "processes", "files")), 200),
        (Isolation("a dedicated user id", ("network",)), 200),
    ],
)
def test_the_server_runs_no_program_that_could_read_its_environment(ask_as, make_study, monkeypatch, isolation, status):
    """The environment of a child is clean, but below /proc lies that of its parent, with the referee's address."""
    make_study("cancer")
    chosen = inference._model
    monkeypatch.setattr(inference, "_model", lambda *asked: replace(chosen(*asked), format="command"))
    monkeypatch.setattr(inference, "probe_isolation", lambda _: isolation)
    monkeypatch.setattr(inference.WarmModels, "answer", lambda *asked: np.zeros(len(asked[-1]), int))
    answer = ask_as("ann").post("/studies/cancer/use", data=BASELINE | {"numbers": ",".join(["1"] * 30)})
    assert answer.status_code == status
    if status == 409:
        assert "the secrets of" in Page(answer.text).text


def test_no_child_of_the_server_inherits_the_referees_address(monkeypatch):
    monkeypatch.setenv(REFEREE_VARIABLE, "postgresql://easeml_referee:secret@h/easeml")
    monkeypatch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "secret")
    monkeypatch.setattr(child_start, "_own", None)
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="e") as folder:
        patch.setenv("XDG_RUNTIME_DIR", folder)
        started = []
        patch.setattr(child_start.subprocess, "Popen", lambda _, *, env, **__: started.append(env) or away())
        for allowed in (child_start.COLD, child_start.SHARED):  # the child itself, and the server that would fork it
            patch.setenv(child_start.SWITCH, allowed)
            with pytest.raises(StoreUnavailableError):
                process.run_child("m", [], cwd=Path(), limits=None, on_output=print, on_poll=print)
    assert "secret" not in str(started)
    assert ["PATH" in environment for environment in started] == [True, True]


@pytest.mark.parametrize("address", ["ann:{}@127.0.0.1:1/easeml", "ann@127.0.0.1:1/easeml?password={}"])
def test_no_page_shows_the_password_of_a_database_that_is_away(client_of, address):
    store = Store(f"postgresql://{address.format('hush')}")
    page = client_of(Site(lambda: store, away, away, lambda: Viewer("ada"))).get("/")
    assert page.status_code == 503
    assert "cannot be reached" in Page(page.text).text
    assert "hush" not in f"{page.text}{store!r}"


@pytest.mark.parametrize("roles", [(), ("operator",), ("labeler",)])
def test_nothing_sealed_is_opened_for_anybody_but_referees_and_at_the_desk(
    database, artifacts, client_of, make_study, roles
):
    """Every route there is; the labelling desk alone opens it, for labelers."""
    make_study("cancer")
    opened, path = [], ""

    def open_sealed():
        opened.append(path)
        return database.referee

    viewer = Viewer("dev", frozenset(map(Role, roles)), lambda _study, _tenant, *, write: True)
    client = client_of(Site(lambda: database.worker, lambda: artifacts, open_sealed, lambda: viewer))
    for route in routes_of(client.app):
        path = re.sub(r"{([a-z_]+)}", lambda m: "cancer" if m[1] == "study" else "1", route.path)
        if path != "/events":
            for method in route.methods:
                fields = {field.alias: "1" for field in route.dependant.body_params}
                client.request(method, path, headers={"sec-fetch-site": "same-origin"}, data=fields)
    desk = {"/labels", "/labels/cancer", "/labels/cancer/undo", "/labels/cancer/wanted.csv"}
    assert set(opened) == (desk if roles == ("labeler",) else set())


# -- words and numbers ------------------------------------------------------------------------------------------------


def test_no_character_and_no_number_breaks_a_page(ask_as, make_study):
    make_study("cancer")
    client = ask_as("ada", "operator", "referee", "labeler")
    own = {"sec-fetch-site": "same-origin"}
    for route in routes_of(client.app):
        for study, number in (("a%00b", "1"), ("cancer", "9" * 30), ("%F0%9F%92%A3%22%3E%3Csvg onload=1%3E", "-1")):
            path = re.sub(r"{([a-z_]+)}", lambda m: study if m[1] == "study" else number, route.path)  # noqa: B023 - called within the iteration
            if path != "/events":
                for method in route.methods:
                    fields = {field.alias: "a\0b" if number == "1" else number for field in route.dependant.body_params}
                    answer = client.request(method, path, headers=own, data=fields)
                    assert answer.status_code < 500, (method, path)
                    assert "<svg onload" not in answer.text, (method, path)


def test_a_nul_in_a_form_is_told_and_not_an_error_of_the_server(ask_as, make_study):
    make_study("cancer")
    form = {"model": "1", "request_key": "a\0b", "gate": "1"}
    answer = ask_as("ann").post("/studies/cancer/submissions", data=form)
    assert answer.status_code == 400
    assert "neither the character NUL" in Page(answer.text).text


def test_settings_beyond_all_counting_are_told(ask_as, artifacts, tmp_path):
    (tmp_path / "t").write_text("\n".join(["a,b,y", *(f"{n},{n % 7},{n % 2}" for n in range(400))]))
    today = datetime.now(UTC).date()
    upload = keep_upload(artifacts, tmp_path / "t", tenant="lab", file="t.csv", today=today)
    draft = {"study": "fresh", "tenant": "lab", "source": f"csv:{upload}", "target": "y"}
    answer = ask_as("ann").post("/new/check", data=draft | {"meter_tolerance": "1e-300"})
    assert answer.status_code == 200
    assert "tolerance must be >= 1e-9 and < 1" in Page(answer.text).text


HOSTILE = '"}]);exit()#'


def test_a_hostile_class_runs_neither_in_a_snippet_nor_in_a_spreadsheet(ask_as, make_study, artifacts, tmp_path):
    rows = [["size", "colour", "kind"]]
    rows += [[n / 10, ("-1", "@red")[n % 2], ("=1+1", HOSTILE)[n % 2]] for n in range(700)]
    with (tmp_path / "t").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    today = datetime.now(UTC).date()
    upload = keep_upload(artifacts, tmp_path / "t", tenant="lab", file="t.csv", today=today)
    make_study("fruit", source=f"csv:{upload}", target="kind")
    client = ask_as("ann")
    snippet = unescape(client.get("/studies/fruit/use").text).partition("from easeml_client")[2].partition("</div>")[0]
    compile(f"from easeml_client{snippet}", "snippet", "exec")
    assert "exit()" not in re.sub(r'"(\\.|[^"\\])*"', "", snippet)
    brought = "\n".join(["size,colour,=cmd()", "1,@red,=2+2", "-2.5,-1,+3"])
    told = client.post("/studies/fruit/use", data=BASELINE | {"as": "csv"}, files={"file": ("r.csv", brought.encode())})
    assert told.status_code == 200
    table = list(csv.reader(io.StringIO(told.text)))
    armed = [cell for row in table for cell in row if cell[:1] in ("=", "@", "+") and not cell[1:].isdigit()]
    assert armed == []
    assert table[0][-2:] == ["'=cmd()", "answer"]


def test_no_name_of_a_study_makes_a_page_look_like_a_program(ask_as, make_study, store):
    make_study("api")
    assert ask_as("ann").post("/studies/api/pause").status_code == 303
    (event,) = audit(store, study="api", text="ann").events
    assert (event.act, event.door) == ("study paused", "page")
