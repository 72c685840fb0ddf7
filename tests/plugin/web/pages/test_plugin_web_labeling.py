"""The labelling desk in a browser: who gets in, what they see, what a word does, and that nothing else is shown."""

from __future__ import annotations

import base64
import io
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from asked import Asked
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from page_reader import Page
from PIL import Image

from easeml_airflow.web.pages.labeling import data_uri, specimen_of
from easeml_core.errors import InvalidInputError
from easeml_core.services.labeling.desk import DeskExample
from easeml_core.store.tables.labels import ExampleLayout

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

nobody: Any = lambda _study, _tenant, *, write: False  # noqa: E731 - a Protocol with a keyword


@pytest.fixture
def asked(database: Any, artifacts: Any, make_study: Callable[..., str], tmp_path: Path) -> Asked:
    made = Asked(database, artifacts, tmp_path, make_study(), "sklearn:breast_cancer")
    made.want([2, 5, 10])
    return made


def word(asked: Asked, place: int, label: Any) -> dict[str, Any]:
    return {"test_set_id": asked.set_id, "place": place, "label": label}


def test_a_labeler_labels_one_after_another_and_sees_what_was_kept(asked: Asked, ask_as: Any) -> None:
    lea = ask_as("Lea", "labeler", rights=nobody)  # no right on the study's DAG is needed
    answer = lea.get("/labels/cancer")
    assert answer.status_code == 200
    page, key = Page(answer.text), asked.keys[2]
    assert page.lead.startswith("3 of 3 labels ")
    assert page.part("#ex").text == f"Example {key}"
    assert key not in answer.text  # its name has angle brackets, and is escaped
    assert page.part("dl.cells").facts["mean radius"] == f"{asked.values[int(key[2:-1])][0]:.6g}"
    given = page.form("/labels/cancer").fields | {"label": "1"}
    saved = lea.post("/labels/cancer", data=given)
    assert (saved.status_code, saved.headers["location"]) == (303, "/labels/cancer?saved=2")
    assert lea.post("/labels/cancer", data=given).status_code == 303
    page = lea.page("/labels/cancer?saved=2")
    assert page.part("[role=status][data-saved]").text.startswith(f"Example {key} saved as benign .")
    assert "1 of 3 labelled" in page.part("section.main").text
    lea.post("/labels/cancer/undo", data=page.form("/labels/cancer/undo").fields)
    assert (asked.known() == -1).all()
    lea.post("/labels/cancer", data=word(asked, 2, "unsure"))
    assert "cannot tell" in lea.page("/labels/cancer?saved=2").part("[data-saved]").text
    for place in (5, 10):
        lea.post("/labels/cancer", data=word(asked, place, 0))
    page = lea.page("/labels/cancer")
    assert ("for another labeler" in page.part(".empty").text, page.has("#answer")) == (True, False)
    assert asked.is_open()
    with asked.database.referee.begin() as tx:
        from easeml_core.store.tables import labels

        assert set(labels.labels_given(tx, asked.set_id)) == {"lea"}


def test_two_labelers_differ_and_the_referee_decides(asked: Asked, ask_as: Any) -> None:
    lea, bob, ada = ask_as("lea", "labeler"), ask_as("bob", "labeler"), ask_as("ada", "referee")
    lea.post("/labels/cancer", data=word(asked, 10, 0))
    bob.post("/labels/cancer", data=word(asked, 10, 1))
    for client in (lea, bob):
        page = client.page("/labels/cancer?at=10")
        assert re.search("1 example .* third opinion", page.part("p.now").text)
        assert "malignant against benign" not in page.text
        assert client.post("/labels/cancer/decide", data=word(asked, 10, 1)).status_code == 403
    page = ada.page("/labels/cancer?settle=10")
    assert "malignant against benign" in page.text
    assert "labelers disagree" in page.part("section.main .note.warn").text
    assert "lea" not in page.text.split()
    settled = page.form("/labels/cancer/decide").fields | {"label": "1"}
    for _ in range(2):
        assert ada.post("/labels/cancer/decide", data=settled).status_code == 303
    assert asked.known()[10] == 1
    assert ada.page("/labels").facts["referee"] == "1 label"
    assert "lea" not in lea.page("/labels").facts


def test_what_nobody_can_tell_is_settled_by_the_referee_alone(asked: Asked, ask_as: Any, recorded: Any) -> None:
    lea, bob, ada = ask_as("lea", "labeler"), ask_as("bob", "labeler"), ask_as("ada", "referee")
    for client, place in ((lea, 2), (bob, 2), (bob, 5)):
        client.post("/labels/cancer", data=word(asked, place, "unsure"))
    answer = lea.get("/labels/cancer").text
    page = Page(answer)
    assert "2 examples no labeler" in page.part("p.now").text
    (passed,) = page.section("You passed on").items  # only another labeler passed on the second one
    assert passed.startswith(f"Example {asked.keys[2]} Look again")
    assert "labeler passed" not in page.text
    assert "/again" not in answer
    assert "settle=" not in answer
    assert "bob" not in page.text
    assert lea.page("/labels/cancer?at=2").part("#ex").text == f"Example {asked.keys[2]}"
    for path in ("decide", "again"):
        assert lea.post(f"/labels/cancer/{path}", data=word(asked, 2, 1)).status_code == 403
    page = ada.page("/labels/cancer?settle=2")
    page.part("dl.cells").soup.decompose()
    recorded(page.recorded(), "labels_settled")
    assert "2 examples no labeler" in ada.page("/labels").part("p.now").text
    assert "2 examples without" in ada.page("/studies/cancer/gate").part("#needs").text
    for _ in range(2):
        assert ada.post("/labels/cancer/decide", data=word(asked, 2, 1)).status_code == 303
        assert ada.post("/labels/cancer/again", data=word(asked, 5, 1)).status_code == 303
    assert (asked.known()[2], asked.known()[5]) == (1, -1)
    assert ada.post("/labels/cancer/decide", data=word(asked, 10, 1)).status_code == 409
    assert ada.post("/labels/cancer/decide", data=word(asked, 2, "unsure")).status_code == 400
    page = bob.page("/labels/cancer")
    assert ("Nobody can tell" in page.text, f"Example {asked.keys[5]} " in page.text) == (False, True)


def test_nobody_else_gets_in_and_nobody_can_be_the_referee_by_name(asked: Asked, ask_as: Any) -> None:
    for client in (ask_as("dev"), ask_as("olga", "operator")):
        assert client.get("/labels").status_code == 403
        assert "/labels" not in client.get("/").text
        for path in ("/labels/cancer", "/labels/cancer/wanted.csv"):
            assert client.get(path).status_code == 403
        for path in ("", "/undo", "/decide", "/again"):
            assert client.post(f"/labels/cancer{path}", data=word(asked, 2, 1)).status_code == 403
        file = {"labels": ("x.csv", b"example,label\n", "text/csv")}
        assert client.post("/labels/cancer/file", files=file).status_code == 403
    taken = ask_as("Referee", "labeler").post("/labels/cancer", data=word(asked, 2, 1))
    assert taken.status_code == 403
    named = ask_as("ä b", "labeler").get("/labels")
    assert named.status_code == 400
    foreign = ask_as("lea", "labeler").post("/labels/cancer", data=word(asked, 2, 1), headers={})
    assert foreign.status_code == 403
    assert (asked.known() == -1).all()


def test_a_word_that_cannot_be_is_refused(asked: Asked, ask_as: Any) -> None:
    lea = ask_as("lea", "labeler")
    refused: list[tuple[dict[str, Any], int]] = [
        ({"place": 3}, 409),
        ({"place": 10**12}, 409),
        ({"place": "x"}, 400),
        ({"label": 2}, 400),
        ({"label": "-1"}, 400),
        ({"label": "²"}, 400),
        ({"label": "9" * 13}, 400),
        ({"test_set_id": 1}, 409),
    ]
    for change, status in refused:
        assert lea.post("/labels/cancer", data=word(asked, 2, 1) | change).status_code == status, change
    assert (asked.known() == -1).all()
    missing = lea.post("/labels/nope", data=word(asked, 2, 1))
    assert missing.status_code == 404
    assert "cancer" not in missing.text


def test_wanted_examples_and_labels_travel_as_csv(asked: Asked, ask_as: Any) -> None:
    lea = ask_as("lea", "labeler")
    wanted = lea.get("/labels/cancer/wanted.csv")
    assert [line.split(",")[0] for line in wanted.text.splitlines()] == [
        "example",
        *(asked.keys[p] for p in (2, 5, 10)),
    ]
    file = {"labels": ("mine.csv", f"example,label\n{asked.keys[2]},benign\n".encode(), "text/csv")}
    for _ in range(2):
        assert lea.post("/labels/cancer/file", files=file).status_code == 303
    assert asked.known()[2] == 1
    bad = lea.post("/labels/cancer/file", files={"labels": ("x.csv", b"example,label\nnope,1\n", "text/csv")})
    assert bad.status_code == 400
    assert "the file, line 2 (example 'nope')" in Page(bad.text).text
    assert "/tmp" not in bad.text
    huge = lea.post("/labels/cancer/file", files={"labels": ("x.csv", b"x" * 8_000_001, "text/csv")})
    assert huge.status_code == 413


def test_an_image_is_shown_as_a_picture(
    database: Any, artifacts: Any, make_study: Any, tmp_path: Path, ask_as: Any
) -> None:
    asked = Asked(database, artifacts, tmp_path, make_study("digits", source="sklearn:digits"), "sklearn:digits")
    of_place = [asked.values[int(key[2:-1])] for key in asked.keys]
    place = next(n for n, values in enumerate(of_place) if values.max() > 1)  # up to 1 it would not be stretched
    asked.want([place])
    page = ask_as("lea", "labeler").page("/labels/digits")
    kind, _, shown = page.part(".specimen img").soup["src"].partition(",")
    assert kind == "data:image/png;base64"
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(shown))))
    row = of_place[place].reshape(8, 8)
    assert picture.shape == (8, 8)
    np.testing.assert_allclose(picture, (row - row.min()) / (row.max() - row.min()) * 255, atol=0.51)
    assert page.has("[data-key='0']")  # ten classes have ten keys


@given(
    arrays(
        np.float32,
        st.tuples(st.integers(1, 5), st.integers(1, 5), st.sampled_from([1, 2, 3, 4])),
        elements=st.floats(0, 1, width=32),
    )
)
def test_any_picture_is_one_that_another_library_reads(picture: np.ndarray) -> None:
    uri = data_uri(picture)
    read = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))).reshape(*picture.shape[:2], -1)
    shown = picture if picture.shape[2] != 2 else picture[:, :, :1]
    np.testing.assert_allclose(read, shown * 255, atol=0.51)


def test_a_picture_that_is_too_large_is_refused_and_holes_are_dark() -> None:
    with pytest.raises(InvalidInputError, match="too large"):
        data_uri(np.zeros((2001, 2000, 1), dtype=np.float32))
    assert data_uri(np.full((2, 2, 1), np.nan, dtype=np.float32)) == data_uri(np.zeros((2, 2, 1), dtype=np.float32))


def test_a_row_is_shown_in_the_words_it_was_made_of() -> None:
    columns = ["age", "colour=red", "colour=blue", "text_note_0", "text_note_1", "last"]
    example = DeskExample(0, "a", None, columns, [41.5, 0.0, 1.0, 0.3, 0.1, None], settles="")
    found = specimen_of(example, ExampleLayout("table", (6,)))
    assert found.pairs == [*(("age", "41.5"), ("colour", "blue"), ("note", found.pairs[2][1]), ("last", "missing"))]
    assert "not kept" in found.pairs[2][1]
    lines = DeskExample(0, "a", None, None, [1.0, 5.0, 2.0, 6.0, None, None], settles="")
    series = specimen_of(lines, ExampleLayout("series", (3, 2)))
    assert [(line.name, line.low, line.high) for line in series.series] == [
        ("channel 1, 2 steps", "1", "2"),
        ("channel 2, 2 steps", "5", "6"),
    ]
