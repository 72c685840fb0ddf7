"""Using a study from its page: ask, feed, refine, refresh; what is told, and who may."""

import io
import re
import zipfile
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from page_reader import Page
from registering import register_study

from easeml_airflow.web.pages.use import CELL, MOST_FIELDS, RowField, inputs_of, row_fields
from easeml_core.data.sources.load import load_source
from easeml_core.errors import ConfigError
from easeml_core.services.datasets.feed import list_feeds
from easeml_core.services.models.inference import infer
from easeml_core.services.referee.process import Referee
from easeml_core.services.referee.requests import file_forced_promotion
from easeml_core.services.studies.uploads import keep_upload

TABLE = load_source("sklearn:breast_cancer")
USE = "/studies/cancer/use"
ROW = {f"{CELL}{name}": str(float(value)) for name, value in zip(TABLE.feature_names, TABLE.inputs[0], strict=True)}
BASELINE = {"number": "1"}
"""The model that every study has once it is sealed; it always gives the most frequent class."""


@pytest.fixture
def study(make_study):
    return make_study("cancer")


def looking(_study, _tenant, *, write):
    return not write


def csv_of(rows, *, label=False):
    lines = [",".join([*TABLE.feature_names, *(["label"] if label else [])])]
    for row in range(rows):
        cells = [*map(str, TABLE.inputs[row] + 0.25)]
        lines.append(",".join([*cells, *([TABLE.class_names[TABLE.labels[row]]] if label else [])]))
    return "\n".join(lines).encode()


def _waiting(page):
    """How much waits for the next refresh, as the first lines of the page say."""
    return re.findall(r"\d+ (?:feeds?|switched rows?)", page.part("p.now").text)


def test_the_page_reads_as_recorded(ask_as, study, recorded, monkeypatch):
    """After a row was answered, while a feed waits."""
    monkeypatch.delenv("AIRFLOW__API__BASE_URL", raising=False)
    client = ask_as("ann")
    pair = ROW | {f"{CELL}mean radius": "1", "label": "benign", "request_key": "k"}
    assert client.post(f"{USE}/feed", data=pair).status_code == 303
    answer = client.post(USE, data=ROW | BASELINE)
    recorded(re.sub(r"\b[0-9.,]+ ms\b", "(time) ms", Page(answer.text).recorded()), "use")


def test_a_row_of_a_form_is_answered_with_the_model_and_the_time(ask_as, study):
    client = ask_as("ann", rights=looking)
    page = client.page(USE)
    assert USE not in page.actions, "there is no model to ask"
    assert client.get("/studies/none/use").status_code == 404
    answer = client.post(USE, data=ROW | BASELINE | {"probabilities": ""})
    assert answer.status_code == 200
    told = Page(answer.text).section("The answer")
    assert told.part("p.answer").text == "benign"
    assert told.facts["Answered by"] == "model 1, handed in, of data version 1"
    assert re.fullmatch(r"[0-9.,]+ ms", told.facts["Took"])
    missing = client.post(USE, data=BASELINE | {f"{CELL}mean radius": "1"})
    assert (missing.status_code, "columns 'mean texture'" in Page(missing.text).text) == (400, True)
    wrong = client.post(USE, data=ROW | BASELINE | {f"{CELL}mean radius": "<b>wide</b>"})
    assert wrong.status_code == 400
    assert "<b>wide" not in wrong.text
    nobody = client.post(USE, data=ROW | {"model": "production"})
    assert (nobody.status_code, "in production yet" in Page(nobody.text).text) == (409, True)


def test_a_model_in_production_can_be_asked_for_a_row_and_for_a_file(ask_as, study, database):
    said = {"who": "bob", "why": "to begin with", "request_key": "forced", "directly": True}
    file_forced_promotion(database.referee, study=study, model_id=1, **said)
    client = ask_as("ann", rights=looking)
    page = client.page(USE)
    assert page.actions == {USE: 2}
    answer = Page(client.post(USE, data=ROW | {"model": "production"}).text)
    assert answer.section("The answer").facts["Answered by"].startswith("model 1,")


def test_a_file_is_answered_on_the_page_and_as_a_file(ask_as, study, database, artifacts, tmp_path):
    client = ask_as("ann", rights=looking)
    files = {"file": ("rows.csv", csv_of(60))}
    shown = Page(client.post(USE, data=BASELINE, files=files).text).section("60 answers")
    assert len(shown.table) == 50
    assert "first 50 are" in shown.text
    told = client.post(USE, data=BASELINE | {"as": "csv"}, files=files)
    assert told.headers["content-type"].startswith("text/csv")
    (tmp_path / "rows.csv").write_bytes(csv_of(60))
    expected = infer(database.worker, artifacts, study="cancer", path=tmp_path / "rows.csv", model=1).labels
    assert [line.rsplit(",", 1)[1] for line in told.text.splitlines()[1:]] == expected

    array = io.BytesIO()
    np.save(array, TABLE.inputs[:1])
    answer = client.post(USE, data=BASELINE, files={"file": ("a.npy", array.getvalue())})
    assert Page(answer.text).part("p.answer").text == "benign"
    for name, content, told in (
        ("rows.csv", b"a,b\n1,2\n", "rows.csv"),
        ("photo.png", b"no image", "photo.png"),
        ("rows.zip", b"no zip", "no zip file"),
        ("rows.npy", b"\x80\x04cos\nsystem\n", "rows.npy"),
        ("rows.csv", b"", "not empty"),
        ("rows.Parquet", b"PAR1", "no Parquet file"),
    ):
        refused = client.post(USE, data=BASELINE, files={"file": (name, content)})
        assert refused.status_code == 400
        why = Page(refused.text).part("[role=alert]").text
        assert told in why
        assert name.lower() in why
        assert "/tmp" not in refused.text


def test_pairs_are_fed_once_and_by_those_who_may(ask_as, study, database):
    client = ask_as("ann")
    pair = ROW | {f"{CELL}mean radius": "11.25", "label": "benign", "request_key": "k"}
    for _ in range(2):
        done = client.post(f"{USE}/feed", data=pair)
        assert (done.status_code, done.headers["location"]) == (303, f"{USE}#fed")
    files = {"file": ("more.csv", csv_of(3, label=True))}
    assert client.post(f"{USE}/feed", data={"request_key": "f", "column": "label"}, files=files).status_code == 303
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        for name, array in (("inputs", TABLE.inputs[3:5] + 0.125), ("targets", TABLE.labels[3:5])):
            content = io.BytesIO()
            np.save(content, array)
            packed.writestr(f"new/{name}.npy", content.getvalue())
    files = {"file": ("new.zip", archive.getvalue())}
    assert client.post(f"{USE}/feed", data={"request_key": "z"}, files=files).status_code == 303
    fed = list_feeds(database.worker, study="cancer")
    assert [(f.rows, f.fed_by, f.state) for f in fed] == [(n, "ann", "waiting") for n in (2, 3, 1)]
    page = client.page(USE)
    assert _waiting(page) == ["3 feeds", "0 switched rows"]
    assert "more.csv, by ann" in page.section("Feeds").table[1]["What"]

    wrong = client.post(f"{USE}/feed", data=pair | {"label": "other", "request_key": "w"})
    assert (wrong.status_code, "no class of" in Page(wrong.text).text) == (400, True)
    viewer = ask_as("vic", rights=looking)
    assert viewer.post(f"{USE}/feed", data=pair).status_code == 403
    assert ask_as("eve", rights=lambda *_, write: False).post(f"{USE}/feed", data=pair).status_code == 404
    assert page.actions == {f"{USE}/feed": 2, f"{USE}/apply": 1}
    assert not viewer.page(USE).actions
    assert "may look" in viewer.page(USE).part("#feed").text


def test_doubtful_rows_are_switched_off_with_a_reason_and_a_refresh_takes_all(ask_as, study, database, artifacts):
    client, switching = ask_as("ann"), f"{USE}/switch"
    page = client.page(f"{USE}?of=suspicious&limit=5")
    doubts = [float(row["Doubt, 0 to 1"]) for row in page.section("Look over").table]
    assert doubts == sorted(doubts, reverse=True)
    row, *others = [field["value"] for field in page.soup.select("[name=row]")]
    assert len(others) == 4
    form = page.form(switching).fields | {"to": "off", "row": row}
    assert client.post(switching, data=form).status_code == 400, "without a reason"
    reason = "the label is <i>wrong</i>"
    for _ in range(2):
        assert client.post(switching, data=form | {"reason": reason}).status_code == 303
    page = client.page(f"{USE}?of=off")
    (off,) = page.section("Look over").table
    assert (off["Row"], off["Reason"], off["State"].startswith("on, off")) == (row, reason, True)
    assert not page.has("i:-soup-contains('wrong')")
    assert _waiting(page) == ["0 feeds", "1 switched row"]
    assert client.post(f"{USE}/apply", data=page.form(f"{USE}/apply").fields).status_code == 303
    (refresh,) = client.page(USE).section("Feeds").table
    assert refresh["State"].startswith("waits")
    Referee(database.referee, artifacts).run_once()
    page = client.page(USE)
    assert "version 2" in page.part("p.now").text
    (refresh,) = page.section("Feeds").table
    assert refresh["State"] == "version 2"
    assert "version 2" in refresh["What became of it"]

    viewer = ask_as("vic", rights=looking)
    assert not viewer.page(f"{USE}?of=newest").has("[name=row]")
    for path, data in (("switch", {"to": "on", "row": row, "request_key": "v"}), ("apply", {"request_key": "v"})):
        assert viewer.post(f"{USE}/{path}", data=data).status_code == 403
    assert client.get(f"{USE}?of=all").status_code == 400
    assert client.get(f"{USE}?of=off&limit=100000").status_code == 400


def test_a_study_that_is_not_sealed_says_so(ask_as, database):
    register_study(database.worker, tenant="lab", study="fresh", source="sklearn:digits", request_key="k")
    page = ask_as("ann").page("/studies/fresh/use")
    assert "not sealed yet" in page.part(".empty").text
    assert not page.actions


def test_the_columns_of_a_model_become_the_fields_of_a_person():
    columns = ["size", "colour=red", "colour=blue", "text_note_0", "text_note_1", "x=1"]
    assert row_fields(columns) == [
        RowField("size"),
        RowField("colour", ("red", "blue")),
        RowField("note", is_text=True),
        RowField("x=1"),
    ]
    assert row_fields(None) == []
    assert row_fields([f"p{i}" for i in range(MOST_FIELDS + 1)]) == []


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.none(), min_size=1, max_size=20))
def test_pasted_numbers_are_read_as_they_are_written(numbers):
    pasted = ", ".join("null" if number is None else repr(number) for number in numbers)
    assert inputs_of({"numbers": f"[{pasted}]"}) == numbers


def test_words_are_chosen_and_encoded_as_the_studys_own(ask_as, make_study, artifacts, tmp_path):
    lines = [f"{row / 10},{('red', 'blue')[row % 2]},{('yes', 'no')[row % 2]}" for row in range(700)]
    (tmp_path / "table").write_text("\n".join(["size,colour,ripe", *lines]))
    today = datetime.now(UTC).date()
    upload = keep_upload(artifacts, tmp_path / "table", tenant="lab", file="table.csv", today=today)
    make_study("fruit", source=f"csv:{upload}", target="ripe")
    client, path = ask_as("ann"), "/studies/fruit/use"
    page = client.page(path)
    choice = page.part(f'select[name="{CELL}colour"]').soup
    assert [option.get_text() for option in choice.select("option")] == ["missing", "blue", "red"]
    row = {f"{CELL}size": "1.5", f"{CELL}colour": "red", "label": "yes", "request_key": "k"}
    assert client.post(f"{path}/feed", data=row).status_code == 303
    assert client.post(path, data=row | BASELINE).status_code == 200
    assert len(client.page(f"{path}?of=suspicious").soup.select("[name=row]")) == 20
    refused = client.post(path, data=BASELINE | {f"{CELL}size": "1.5"})
    assert "columns 'colour=blue', 'colour=red'" in Page(refused.text).text


def test_an_empty_row_is_told():
    with pytest.raises(ConfigError) as error:
        inputs_of({"numbers": " ", "model": "best"})
    assert error.value.field == "row"


def test_examples_for_programs_name_the_address_that_people_use(study, ask_as, monkeypatch):
    """They hold a password: behind a proxy that ends TLS, the address that this server sees is not encrypted."""
    monkeypatch.delenv("AIRFLOW__API__BASE_URL", raising=False)
    assert "curl -X POST http://test/auth/token" in ask_as("ann").page(USE).part("#sh").text
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://example.org/airflow")
    page = ask_as("ann").page(USE)
    assert "curl -X POST https://example.org/airflow/auth/token" in page.part("#sh").text
    assert "http://test" not in page.part("#programs").text
