"""New examples come in the form of the study's data: images, arrays and zip files beside tables, for every purpose."""

from __future__ import annotations

import csv
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from any_tenant import AnyTenant
from registering import register_study

from easeml_core.errors import AlreadyExistsError, InvalidInputError
from easeml_core.services.datasets.feed import feed
from easeml_core.services.datasets.validation_sets import replace_validation
from easeml_core.services.referee.process import Referee
from easeml_core.services.referee.requests import answer_of
from easeml_core.services.test_sets.lifecycle import list_test_sets
from easeml_core.services.test_sets.upload import seal_test_set

if TYPE_CHECKING:
    from pathlib import Path

from brought import content

SIDE = 26
"""Of an RGB image: more numbers than a CSV file has columns."""

SHAPE = (SIDE, SIDE, 3)
CLASSES = ("even", "odd")
SETTINGS = {
    "gate": {"condition": "n - o > 0 +/- 0.4", "reliability": 0.8, "steps": 1, "estimator": "paper"},
    "meter": {"ranges": (0.3, 0.6), "tolerance": 0.4, "reliability": 0.8, "steps": 1},
}
FORMS = ("by class", "zip", "images", "arrays", "array")


def pixels(seed: int, rows: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (rows, *SHAPE), dtype=np.uint8)


def truth(rows: int) -> np.ndarray:
    return np.arange(rows) % 2


def register(lab: Any, place: Path, study: str, seed: int = 0, **asked: Any) -> None:
    """Register images of two classes, or what else is given, as a study."""
    folder = place / "data" / "lab" / study
    folder.mkdir(parents=True)
    given = asked.pop("arrays", {"inputs": pixels(seed, 160), "targets": np.array(CLASSES)[truth(160)]})
    for name, values in given.items():
        np.save(folder / f"{name}.npy", values)
    settings = SETTINGS | {"tenant": "lab", "source": f"npy:{study}", "request_key": lab.key()} | asked
    filed = register_study(lab.worker, study=study, **settings)
    while Referee(lab.referee, lab.artifacts, data=place / "data").answer_one() is not None:
        pass
    answer = answer_of(lab.worker, filed.request_id)
    assert answer is not None
    assert not answer.refused, answer


@pytest.fixture(scope="module")
def with_images(templates: Any, tmp_path_factory: Any) -> Any:
    folder = tmp_path_factory.mktemp("images")
    lab = templates("easeml", AnyTenant(folder / "artifacts"))
    register(lab, folder, "s")
    register(lab, folder, "other", seed=9)
    return lab


@pytest.fixture
def lab(with_images: Any, copied: Any) -> Any:
    """A laboratory with two studies of images, ``s`` and ``other``."""
    return copied(with_images)


def write(folder: Path, form: str, values: np.ndarray) -> dict[str, Any]:
    """These images in one of the forms: the arguments ``inputs`` and ``labels``."""
    images = pytest.importorskip("PIL.Image")
    folder.mkdir()
    place = folder / "new"
    words = [CLASSES[label] for label in truth(len(values))]
    names = [str(number) for number in range(1, len(values) + 1)]
    if form in ("by class", "zip", "images"):
        names = [f"{name}.png" if form == "images" else f"{w}/{name}.png" for name, w in zip(names, words, strict=True)]
        for name, value in zip(names, values, strict=True):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            images.fromarray(value).save(place / name)
    elif form == "arrays":
        place.mkdir()
        np.save(place / "inputs.npy", values)
        np.save(place / "targets.npy", np.array(words))
    else:
        place = place.with_suffix(".npy")
        np.save(place, values)
    if form == "zip":
        place = place.with_suffix(".zip")
        shutil.make_archive(str(place.with_suffix("")), "zip", folder, "new")
    labels = None
    if form in ("images", "array"):
        labels = folder / "labels.csv"
        with labels.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("example", "label"), *zip(names, words, strict=True)])
    return {"inputs": place, "labels": labels}


def as_bytes(inputs: np.ndarray) -> np.ndarray:
    """Rows of a study as the images that they were."""
    return np.rint(inputs * 255).astype(np.uint8).reshape(-1, *SHAPE)


def test_every_form_seals_the_same_examples(lab: Any, tmp_path: Path) -> None:
    fresh = pixels(1, 40)
    place = {"study": "s", "purpose": "joint"}  # which needs the label of every example
    first = seal_test_set(lab.referee, lab.artifacts, **place, **write(tmp_path / "first", "by class", fresh))
    assert (first.state, first.rows, first.labels_on_demand, first.warnings) == ("sealed", 40, False, ())
    inputs, labels, keys = content(lab, first.test_set_id)
    rows = [int(key.partition("/")[2].removesuffix(".png")) - 1 for key in keys]
    assert (as_bytes(inputs) == fresh[rows]).all()
    assert labels.tolist() == truth(40)[rows].tolist()
    assert {key.partition("/")[0] for key in keys} == set(CLASSES)
    again = seal_test_set(lab.referee, lab.artifacts, **place, inputs=tmp_path / "first" / "new")
    assert (again.test_set_id, again.sealed_before) == (first.test_set_id, True)
    for form in FORMS:
        with pytest.raises(AlreadyExistsError, match="exactly these examples"):
            seal_test_set(lab.referee, lab.artifacts, **place, name=form, **write(tmp_path / form, form, fresh))


@pytest.mark.parametrize("form", ["by class", "array"])
def test_rows_that_are_known_are_refused_in_every_form(lab: Any, tmp_path: Path, form: str) -> None:
    opened, others = lab.open_parts("s"), lab.open_parts("other")
    hidden = content(lab, lab.one("SELECT max(id) FROM sealed.test_sets"))[0]
    known = {
        "the open parts": opened.train_inputs,
        "from test set": hidden,
        "that the installation": others.validation_inputs,
    }
    named = {"by class": "even/7.png", "array": "7"}[form]
    for number, (what, rows) in enumerate(known.items()):
        values = pixels(2, 40)
        values[6] = as_bytes(rows)[0]
        with pytest.raises(InvalidInputError, match=f"'{named}': 1 of 40 .* {what}"):
            seal_test_set(lab.referee, lab.artifacts, study="s", **write(tmp_path / str(number), form, values))
    values[6] = np.flip(as_bytes(opened.train_inputs)[0], axis=1)  # mirrored, it is another image
    assert seal_test_set(lab.referee, lab.artifacts, study="s", **write(tmp_path / "m", form, values)).rows == 40


def test_labels_of_images_may_be_asked_for_later(lab: Any, tmp_path: Path) -> None:
    brought = write(tmp_path / "new", "images", pixels(1, 40))
    with pytest.raises(InvalidInputError, match=r"meter set .*-folder"):
        seal_test_set(lab.referee, lab.artifacts, study="s", inputs=brought["inputs"], purpose="meter")
    found = seal_test_set(lab.referee, lab.artifacts, study="s", inputs=brought["inputs"])
    _, labels, keys = content(lab, found.test_set_id)
    assert (found.labels_on_demand, set(labels.tolist())) == (True, {-1})
    assert sorted(keys) == sorted(f"{number}.png" for number in range(1, 41))
    assert list_test_sets(lab.worker, study="s")[0].labels_on_demand
    assert ".png" not in str(lab.rows("SELECT t::text FROM work.test_sets t", store=lab.worker))


def test_what_does_not_fit_is_refused(lab: Any, tmp_path: Path) -> None:
    flat, sorted_ = (write(tmp_path / form, form, pixels(1, 40)) for form in ("images", "by class"))
    seal: dict[str, Any] = {"study": "s"}
    array = write(tmp_path / "array", "array", pixels(1, 40))["inputs"]
    with pytest.raises(InvalidInputError, match="already; leave out"):
        seal_test_set(lab.referee, lab.artifacts, **seal, inputs=sorted_["inputs"], labels=flat["labels"])
    with pytest.raises(InvalidInputError, match=r"1\.png'.* no such"):
        seal_test_set(lab.referee, lab.artifacts, **seal, inputs=array, labels=flat["labels"])
    with pytest.raises(InvalidInputError, match=r"no columns, .* 'ward'"):
        seal_test_set(lab.referee, lab.artifacts, **seal, **sorted_, slices_column="ward")
    (sorted_["inputs"] / "odd").rename(sorted_["inputs"] / "strange")
    with pytest.raises(InvalidInputError, match=r"'strange/10.png': 'strange'"):
        seal_test_set(lab.referee, lab.artifacts, **seal, **sorted_)
    shutil.copy(sorted_["inputs"] / "even" / "1.png", sorted_["inputs"] / "even" / "x.png")
    (sorted_["inputs"] / "strange").rename(sorted_["inputs"] / "odd")
    assert seal_test_set(lab.referee, lab.artifacts, **seal, **sorted_).repeated == 1


@pytest.mark.parametrize("form", ["by class", "array"])
def test_images_and_arrays_become_the_validation_set_or_are_fed(lab: Any, tmp_path: Path, form: str) -> None:
    opened, fresh = lab.open_parts("s"), pixels(3, 30)
    fresh[0] = as_bytes(opened.train_inputs)[0]
    with pytest.raises(InvalidInputError, match="1 of 30 rows"):
        replace_validation(lab.referee, lab.artifacts, study="s", **write(tmp_path / "known", form, fresh))
    brought = write(tmp_path / "new", form, fresh[1:])
    assert replace_validation(lab.referee, lab.artifacts, study="s", **brought).added == 29
    now = lab.open_parts("s")
    assert {row.tobytes() for row in as_bytes(now.validation_inputs)} == {row.tobytes() for row in fresh[1:]}
    assert feed(
        lab.worker, lab.artifacts, study="s", path=brought["inputs"], labels=brought["labels"], fed_by="ann",
        request_key=lab.key(),
    ).rows == 29  # fmt: skip


def test_long_series_are_sealed(bare: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    walks = rng.normal(size=(300, 1100, 2)).astype(np.float32).cumsum(axis=1)
    walks[::3, 700:] = np.nan
    register(bare, tmp_path, "s", arrays={"inputs": walks[:240], "targets": truth(240)})
    place = tmp_path / "new.npy"
    np.save(place, walks[240:])
    found = seal_test_set(bare.referee, bare.artifacts, study="s", inputs=place)
    inputs, _, keys = content(bare, found.test_set_id)
    order = [int(key) - 1 for key in keys]
    np.testing.assert_array_equal(inputs, walks[240:].reshape(60, -1)[order])


def test_answers_of_several_numbers_are_sealed_and_validated_on(bare: Any, tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(400, 8)).astype(np.float32)
    targets = values[:, :4] * 2
    targets[::2, 3] = np.nan
    register(
        bare,
        tmp_path,
        "s",
        arrays={"inputs": values[:300], "targets": targets[:300]},
        task="regression",
        hit="within:0.2",
    )
    for name, rows in (("test", slice(300, 350)), ("valid", slice(350, 400))):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "inputs.npy", values[rows])
        np.save(tmp_path / name / "targets.npy", targets[rows])
    for is_repeated in (False, True):
        found = seal_test_set(bare.referee, bare.artifacts, study="s", inputs=tmp_path / "test")
        assert found.sealed_before == is_repeated
    _, labels, keys = content(bare, found.test_set_id)
    np.testing.assert_array_equal(labels, targets[300:350][[int(key) - 1 for key in keys]])
    assert replace_validation(bare.referee, bare.artifacts, study="s", inputs=tmp_path / "valid").added == 50
    assert bare.open_parts("s").validation_labels.shape == (50, 4)
