"""Using a study from its page: ask, feed, refine, refresh; what is told, and who may."""

import io
import zipfile
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from easeml_airflow.web.pages.use import CELL, MOST_FIELDS, RowField, inputs_of, row_fields
from easeml_core.data.sources.load import load_source
from easeml_core.errors import ConfigError
from easeml_core.services.datasets.feed import list_feeds
from easeml_core.services.models.inference import infer
from easeml_core.services.referee.process import Referee
from easeml_core.services.registration.register import register_study
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


def test_a_row_of_a_form_is_answered_with_the_model_and_the_time(ask_as, study, text_of):
    client = ask_as("ann", rights=looking)
    page = client.get(USE)
    assert "Nothing is in production" in text_of(page.text) or "No model is trained yet" in text_of(page.text)
    assert client.get("/studies/none/use").status_code == 404
    answer = client.post(USE, data=ROW | BASELINE | {"probabilities": ""})
    assert answer.status_code == 200
    words = text_of(answer.text)
    assert "The answer benign" in words
    assert "model 1, handed in, of data version 1" in words
    assert " ms" in words
    missing = client.post(USE, data=BASELINE | {f"{CELL}mean radius": "1"})
    assert missing.status_code == 400
    assert "the study's columns 'mean texture'" in text_of(missing.text)
    wrong = client.post(USE, data=ROW | BASELINE | {f"{CELL}mean radius": "<b>wide</b>"})
    assert wrong.status_code == 400
    assert "<b>wide" not in wrong.text
    nobody = client.post(USE, data=ROW | {"model": "production"})
    assert nobody.status_code == 409
    assert "no model in production yet" in text_of(nobody.text)


def test_a_file_is_answered_on_the_page_and_as_a_file(ask_as, study, text_of, database, artifacts, tmp_path):
    client = ask_as("ann", rights=looking)
    files = {"file": ("rows.csv", csv_of(60))}
    words = text_of(client.post(USE, data=BASELINE, files=files).text)
    assert "60 answers" in words
    assert "The first 50 are shown" in words
    told = client.post(USE, data=BASELINE | {"as": "csv"}, files=files)
    assert told.headers["content-type"].startswith("text/csv")
    (tmp_path / "rows.csv").write_bytes(csv_of(60))
    expected = infer(database.worker, artifacts, study="cancer", path=tmp_path / "rows.csv", model=1).labels
    assert [line.rsplit(",", 1)[1] for line in told.text.splitlines()[1:]] == expected

    array = io.BytesIO()
    np.save(array, TABLE.inputs[:1])
    assert "The answer benign" in text_of(
        client.post(USE, data=BASELINE, files={"file": ("a.npy", array.getvalue())}).text
    )
    for name, content, told in (
        ("rows.csv", b"a,b\n1,2\n", "rows.csv"),
        ("photo.png", b"no image", "photo.png"),
        ("rows.zip", b"no zip", "rows.zip is no zip file"),
        ("rows.npy", b"\x80\x04cos\nsystem\n", "rows.npy"),
        ("rows.csv", b"", "file must be not empty"),
        ("rows.Parquet", b"PAR1", "rows.parquet: no Parquet file is read here"),
    ):
        refused = client.post(USE, data=BASELINE, files={"file": (name, content)})
        assert refused.status_code == 400
        assert told in text_of(refused.text)
        assert "/tmp" not in refused.text


def test_pairs_are_fed_once_and_by_those_who_may(ask_as, study, database, text_of):
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
    words = text_of(client.get(USE).text)
    assert "3 feeds and 0 switched rows wait for the next refresh" in words
    assert "more.csv, by ann" in words

    wrong = client.post(f"{USE}/feed", data=pair | {"label": "other", "request_key": "w"})
    assert wrong.status_code == 400
    assert "is no class of the study" in text_of(wrong.text)
    assert ask_as("vic", rights=looking).post(f"{USE}/feed", data=pair).status_code == 403
    assert ask_as("eve", rights=lambda *_, write: False).post(f"{USE}/feed", data=pair).status_code == 404
    assert "You may look at this study, not feed it" in text_of(ask_as("vic", rights=looking).get(USE).text)


def test_doubtful_rows_are_switched_off_with_a_reason_and_a_refresh_takes_all(
    ask_as, study, database, artifacts, text_of
):
    client = ask_as("ann")
    page = client.get(f"{USE}?of=suspicious&limit=5")
    assert page.text.count('name="row"') == 5
    assert "Doubt, 0 to 1" in text_of(page.text)
    row = page.text.partition('name="row" value="')[2].partition('"')[0]
    no_reason = client.post(f"{USE}/switch", data={"to": "off", "row": row, "request_key": "s"})
    assert no_reason.status_code == 400
    reason = "the label is <i>wrong</i>"
    for _ in range(2):
        done = client.post(f"{USE}/switch", data={"to": "off", "row": row, "request_key": "t", "reason": reason})
        assert done.status_code == 303
    off = client.get(f"{USE}?of=off")
    assert "on, off with the next refresh" in text_of(off.text)
    assert "the label is &lt;i&gt;wrong" in off.text
    assert "0 feeds and 1 switched row wait" in text_of(off.text)
    assert client.post(f"{USE}/apply", data={"request_key": "a"}).status_code == 303
    assert "waits for the referee" in text_of(client.get(USE).text)
    Referee(database.referee, artifacts).run_once()
    words = text_of(client.get(USE).text)
    assert "version 2 of its data" in words
    assert "study cancer has version 2 of its data" in words

    viewer = ask_as("vic", rights=looking)
    assert 'name="row"' not in viewer.get(f"{USE}?of=newest").text
    for path, data in (("switch", {"to": "on", "row": row, "request_key": "v"}), ("apply", {"request_key": "v"})):
        assert viewer.post(f"{USE}/{path}", data=data).status_code == 403
    assert client.get(f"{USE}?of=all").status_code == 400
    assert client.get(f"{USE}?of=off&limit=100000").status_code == 400


def test_a_study_that_is_not_sealed_says_so(ask_as, database, text_of):
    register_study(database.worker, tenant="lab", study="fresh", source="sklearn:digits", request_key="k")
    assert "Its data are not sealed yet" in text_of(ask_as("ann").get("/studies/fresh/use").text)


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


def test_words_are_chosen_and_encoded_as_the_studys_own(ask_as, make_study, artifacts, tmp_path, text_of):
    lines = [f"{row / 10},{('red', 'blue')[row % 2]},{('yes', 'no')[row % 2]}" for row in range(700)]
    (tmp_path / "table").write_text("\n".join(["size,colour,ripe", *lines]))
    today = datetime.now(UTC).date()
    upload = keep_upload(artifacts, tmp_path / "table", tenant="lab", file="table.csv", today=today)
    make_study("fruit", source=f"csv:{upload}", target="ripe")
    client = ask_as("ann")
    page = client.get("/studies/fruit/use").text
    assert "<option>red</option>" in page
    row = {f"{CELL}size": "1.5", f"{CELL}colour": "red", "label": "yes", "request_key": "k"}
    assert client.post("/studies/fruit/use/feed", data=row).status_code == 303
    assert client.post("/studies/fruit/use", data=row | BASELINE).status_code == 200
    assert client.get("/studies/fruit/use?of=suspicious").text.count('name="row"') == 20
    refused = client.post("/studies/fruit/use", data=BASELINE | {f"{CELL}size": "1.5"})
    assert "the study's columns 'colour=blue', 'colour=red' are missing" in text_of(refused.text)


def test_an_empty_row_is_told():
    with pytest.raises(ConfigError, match="fill in its fields, or paste its numbers"):
        inputs_of({"numbers": " ", "model": "best"})


def test_examples_for_programs_name_the_address_that_people_use(study, ask_as, monkeypatch):
    """They hold a password: behind a proxy that ends TLS, the address that this server sees is not encrypted."""
    monkeypatch.delenv("AIRFLOW__API__BASE_URL", raising=False)
    assert "curl -X POST http://test/auth/token" in ask_as("ann").get(USE).text
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://example.org/airflow")
    assert "curl -X POST https://example.org/airflow/auth/token" in ask_as("ann").get(USE).text
