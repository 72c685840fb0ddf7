"""A new study from the pages: bring data, see the program and its carets, submit; and everybody who may not."""

import re
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from page_reader import Page

from easeml_airflow.web.pages import new_study
from easeml_core.entities import StudyState
from easeml_core.services.referee.process import Referee
from easeml_core.store.tables import studies

FORM = {"tenant": "garden", "study": "flowers"}
SETTINGS = {"gate_reliability": "0.9", "gate_steps": "3", "ranges": "0.2, 0.6", "meter_tolerance": "0.2"}
SETTINGS |= {"meter_reliability": "0.9", "meter_steps": "4", "budget_hours": "2"}

SCRIPT = "<script>alert"


def table(rows=900, header="petal,sepal,colour,species"):
    values = np.random.default_rng(1).normal(size=(rows, 2))
    lines = [f"{a:.6f},{b:.6f},{'red' if a > 0 else 'blue'},{'iris' if a + b > 0 else 'rose'}" for a, b in values]
    return "\n".join([header, *lines]).encode()


def brought(client, content=None, *, name="My flowers.csv", **form):
    files = {"file": (name, table() if content is None else content)}
    return client.post("/new/data", data=FORM | form, files=files)


def settings_of(client, content=None, **form):
    """The second page, after a file was brought, and what its form would send."""
    page = client.page(brought(client, content, **form).headers["location"])
    return page, page.form("/new/register").fields


def study_of(database, name):
    with database.worker.begin() as tx:
        return studies.get_study(tx, name)


def count_of_studies(database):
    with database.worker.begin() as tx:
        return tx.exec_driver_sql("SELECT count(*) FROM work.studies").scalar()


def test_a_newcomer_brings_a_file_sees_its_program_and_registers(ask_as, database, artifacts, recorded):
    client = ask_as("ann")
    assert "At most 256 MB" in client.page("/new").text
    assert brought(client).status_code == 303
    page, fields = settings_of(client)
    recorded(re.sub(r"uploaded [0-9-]+", "uploaded (day)", page.recorded()), "new_study")
    assert (fields["target"], fields["task"]) == ("species", "classification")
    assert "colour :: Category[2]" in fields["program"]
    assert "weight" not in fields, "an operator's"

    for _ in range(2):  # a browser may send it twice
        done = client.post("/new/register", data=fields | SETTINGS)
        assert (done.status_code, done.headers["location"]) == (303, "/studies/flowers")
    assert count_of_studies(database) == 1
    study = study_of(database, "flowers")
    assert (study.tenant, study.budget_seconds, study.source) == ("garden", 7200.0, fields["source"])
    assert study.config["gate"]["steps"] == 3

    Referee(database.referee, artifacts).answer_one()
    assert study_of(database, "flowers").state == StudyState.ACTIVE
    assert study_of(database, "flowers").program == " ".join(fields["program"].split()).replace("[ ", "[").replace(
        " ]", "]"
    )


def test_mistakes_are_pointed_at_where_they_are(ask_as):
    client = ask_as("ann")
    _, fields = settings_of(client)
    wrong = fields["program"].replace("Category[2]", "Kategory[2]", 1)
    answer = client.post("/new/check", data=fields | {"program": wrong, "condition": "n - o > 0.02 +- 0.1"})
    assert answer.status_code == 200
    page = Page(answer.text)
    program, condition, parts = (page.part(f"#{part}-check") for part in ("program", "condition", "parts"))
    line = next(i for i, text in enumerate(wrong.splitlines(), start=1) if "Kategory" in text)
    assert line > 1, "the line of the mistake is cut out of several"
    assert f"Line {line}, column" in program.text
    assert "'Kategory'" in program.text
    assert "Column 13:" in condition.text
    assert ("Not so yet:" in parts.text, "what is marked" in parts.text) == (True, True)
    marked, caret = (program.part(css).soup.get_text() for css in (".wrong", ".car"))
    assert caret == " " * wrong.splitlines()[line - 1].index(marked) + "^" * len(marked)
    assert condition.part(".car").soup.get_text() == " " * 12 + "^"

    refused = client.post("/new/register", data=fields | {"program": wrong})
    assert refused.status_code == 400
    page = Page(refused.text)
    assert "Kategory" in page.part("[role=alert] b").text
    assert page.form("/new/register").fields["program"] == wrong, "what was typed stays"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ranges": "0.6, 0.2"}, "ranges must be rising boundaries"),
        ({"ranges": "a"}, "edges of the ranges must be a number, got 'a'"),
        ({"gate_steps": "2.5"}, "verdicts must be a whole number"),
        ({"budget_hours": "1e999"}, "budget must be a number"),
        ({"budget_hours": "-1"}, "budget_seconds must be"),
        ({"adaptivity": "sometimes"}, "adaptivity must be none, full, firstChange"),
        ({"metric": "speed"}, "there is no metric 'speed'"),
        ({"weight": "2"}, "weight must be 1; only an operator gives another"),
        ({"program": "{input: {[Tensor[1]], []}, output: {[Category[2]], [a, b, c]}}"}, "output"),
    ],
)
def test_a_wrong_setting_is_told_and_nothing_is_registered(ask_as, database, changes, words):
    fields = FORM | SETTINGS | {"source": "sklearn:iris", "request_key": "k"}
    page = ask_as("ann").post("/new/register", data=fields | changes)
    assert page.status_code == 400
    assert words in Page(page.text).text
    assert count_of_studies(database) == 0


def test_too_few_rows_are_told_with_the_planners_figures(ask_as):
    page = ask_as("ann").page("/new?tenant=lab&study=iris&source=sklearn:iris")
    why = page.part("#parts-check .note.warn").text
    assert ("meter set" in why, "260 examples" in why) == (True, True)
    assert re.match("(150|149) rows; 3 classes ", page.lead)


def test_looking_again_infers_anew(ask_as):
    client = ask_as("ann")
    _, fields = settings_of(client)
    page = Page(client.post("/new/look", data=fields | {"target": "petal", "task": "regression"}).text)
    assert "numbers to predict" in page.lead
    assert "table regression" in page.part("#program-match h3").text
    assert "petal :: Tensor[1]" in page.form("/new/register").fields["program"].partition("output")[2]
    assert page.has("[name=hit][placeholder='within:0.5']")
    assert client.get("/new/look").headers["location"] == "/new"


def test_who_may_not_is_refused_and_leaves_nothing(ask_as, artifacts, database):
    asked = []

    def rights(study, tenant, *, write):
        asked.append((study, tenant, write))
        return tenant == "mine"

    client = ask_as("vic", rights=rights)
    for answer in (
        brought(client),
        client.get("/new?tenant=garden&study=flowers&source=sklearn:iris"),
        client.post("/new/check", data=FORM | {"source": "sklearn:iris"}),
        client.post("/new/register", data=FORM | {"source": "sklearn:iris", "request_key": "k"}),
    ):
        assert (answer.status_code, "of tenant 'garden'" in Page(answer.text).text) == (403, True)
    assert ("flowers", "garden", True) in asked
    assert artifacts.tenants() == []
    assert count_of_studies(database) == 0
    assert brought(client, tenant="mine").status_code == 303


def test_tenants_are_offered_to_those_who_may_register_for_them(ask_as, make_study):
    make_study("cancer", tenant="clinic")
    assert ask_as("ann").page("/new").has("#n-tenants option[value=clinic]")
    assert "clinic" not in ask_as("eve", rights=lambda _study, tenant, *, write: tenant != "clinic").get("/new").text


def test_another_tenants_upload_is_not_there(ask_as):
    client = ask_as("ann")
    source = parse_qs(urlsplit(brought(client).headers["location"]).query)["source"][0]
    page = client.get("/new", params={"tenant": "other", "study": "flowers", "source": source})
    assert (page.status_code, "no upload 'My_flowers.csv'" in Page(page.text).text) == (400, True)


def test_an_operator_gives_a_weight(ask_as, database):
    fields = FORM | SETTINGS | {"source": "sklearn:digits", "request_key": "k", "weight": "2.5"}
    assert ask_as("olga", "operator").post("/new/register", data=fields).status_code == 303
    assert study_of(database, "flowers").weight == 2.5


def test_sources_of_the_referees_are_named_and_not_read(ask_as, database):
    client = ask_as("ann")
    moved = client.post("/new/data", data=FORM | {"points": "csv:flowers.csv"}, files={"file": ("", b"")})
    page = client.page(moved.headers["location"])
    assert "Only the referee" in page.lead
    fields = page.form("/new/register").fields | {"target": "species"}
    assert client.post("/new/register", data=fields).status_code == 303
    assert study_of(database, "flowers").source == "csv:flowers.csv"


@pytest.mark.parametrize(
    ("form", "file", "words"),
    [
        ({"study": f"{SCRIPT}(1)</script>"}, b"a,b\n1,2\n", "study must be 1 to 63 of a-z, 0-9"),
        ({"tenant": "../other"}, b"a,b\n1,2\n", "tenant must be 1 to 63 of a-z, 0-9"),
        ({"points": "sklearn:iris"}, b"a,b\n1,2\n", "data must be a file, or the name of a source"),
        ({}, b"", "file must be not empty"),
        ({"source": "x" * 2001}, b"a,b\n1,2\n", "source has 2,001 characters"),
    ],
)
def test_a_wrong_first_step_is_told(ask_as, form, file, words):
    page = brought(ask_as("ann"), file, **form)
    assert page.status_code == 400
    assert words in Page(page.text).text
    assert SCRIPT not in page.text


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"a,b\n1,2\n3\n", "'csv:a.csv': the file line 3 has 1 cells, the header has 2"),
        ("a.zip", b"PK no zip", "a.zip is no zip file, or not a whole one"),
        ("a.npy", b"\x93NUMPY\x01\x00", "is one array"),
        ("a.exe", b"MZ", "is of no known kind"),
        ("a.parquet", b"PAR1", "a.parquet"),
    ],
)
def test_a_damaged_file_is_told_with_its_name_and_not_its_place(ask_as, name, content, words):
    client = ask_as("ann")
    page = client.get(brought(client, content, name=name).headers["location"])
    assert page.status_code == 400
    assert words in Page(page.text).text
    assert "/tmp" not in page.text


def test_what_stands_in_the_data_is_escaped(ask_as):
    client = ask_as("ann")
    image = "<img src=x onerror=alert(1)>"
    content = table(header=f"{image},sepal,colour,species").replace(b"iris", f"{SCRIPT}</script>".encode())
    page, _ = settings_of(client, content)
    assert (image in page.text, SCRIPT in page.text) == (True, True)
    assert (page.has("img"), page.has("script:-soup-contains('alert')")) == (False, False), "as text"


def test_a_file_that_is_too_large_is_refused_while_it_comes(ask_as, monkeypatch, artifacts):
    monkeypatch.setattr(new_study, "MOST_UPLOAD_BYTES", 3_000_000)
    client = ask_as("ann")
    page = brought(client, b"x" * 3_100_000)
    assert (page.status_code, "at most 3 MB" in page.text) == (413, True)

    async def pieces():
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\n'
        for _ in range(40):
            yield b"x" * 100_000

    kind = {"sec-fetch-site": "same-origin", "content-type": "multipart/form-data; boundary=b"}
    assert client.post("/new/data", headers=kind, content=pieces()).status_code == 413
    assert artifacts.tenants() == []


def test_a_tenant_does_not_fill_the_place_where_all_artifacts_lie(ask_as, monkeypatch):
    monkeypatch.setattr(new_study, "MOST_UPLOADS", 2)
    client = ask_as("ann")
    assert [brought(client, b"a,b\n1,2\n").status_code for _ in range(3)] == [303, 303, 409]
    other = brought(client, b"a,b\n1,2\n", tenant="other")
    assert other.status_code == 409, "a name of a tenant costs nothing, so a person has a limit, too"
    assert "2 files of user 'ann'" in Page(other.text).text
    assert brought(ask_as("bob"), b"a,b\n1,2\n").status_code == 303


def test_what_is_no_form_is_refused(ask_as):
    client = ask_as("ann")
    same = {"sec-fetch-site": "same-origin"}
    assert (
        client.post("/new/data", headers=same | {"content-type": "application/json"}, content=b"{}").status_code == 400
    )
    broken = same | {"content-type": "multipart/form-data; boundary=b"}
    assert client.post("/new/data", headers=broken, content=b"--b\r\nno form").status_code == 400
