"""How another validation set takes the place of one, beside the same training part."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from registering import register_study

from easeml_core.data.parts import load_open_parts
from easeml_core.errors import InvalidInputError, StateError, WrongRoleError
from easeml_core.services.datasets.validation_sets import ReplacedValidation, replace_validation, validation_report
from easeml_core.services.labeling.requests import give_labels
from easeml_core.services.referee.process import Referee
from easeml_core.services.referee.requests import answer_of, file_gate_request
from easeml_core.services.test_sets.release import release_test_set
from easeml_core.store.tables import labels, models, studies
from easeml_core.store.tables.test_sets import example_hashes

if TYPE_CHECKING:
    from pathlib import Path

from brought import CLASSES, NAMES, replace, retire, seal, write


def from_set(lab: Any, name: str, **more: Any) -> ReplacedValidation:
    return replace_validation(lab.referee, lab.artifacts, study="full", from_set=name, **more)


def versions(lab: Any, study: str = "full") -> list[int]:
    found = lab.rows(
        "SELECT v.version FROM work.data_versions v JOIN work.studies s ON s.id = v.study_id WHERE s.name = :n "
        "ORDER BY v.id",
        n=study,
    )
    return [version for (version,) in found]


def test_only_the_validation_part_is_another(lab: Any, bring: Any) -> None:
    brought, old = bring(), lab.open_parts()
    sets = lab.rows("SELECT id, state, rows, plan::text FROM work.test_sets ORDER BY id")
    done = replace(lab, brought)
    names = ("version", "rows", "added", "duplicates", "already", "unlabelled", "replaced_before", "to_measure")
    assert [getattr(done, name) for name in names] == [2, 300, 300, 0, 0, 0, False, 3]
    assert (done.minimum, done.warnings) == (38, [])
    new = lab.open_parts()
    np.testing.assert_array_equal(new.train_inputs, old.train_inputs)
    np.testing.assert_array_equal(new.train_labels, old.train_labels)
    truth = {brought.values[i].tobytes(): brought.truth[i] for i in range(300)}
    assert {row.tobytes(): y for row, y in zip(new.validation_inputs, new.validation_labels, strict=True)} == truth
    with lab.worker.begin() as tx:
        study = studies.get_study(tx, "full")
        version = studies.latest_data_version(tx, study.id)
        assert studies.class_names(tx, version.id) == studies.class_names(tx, 1)
        assert studies.feature_names(tx, version.id) == studies.feature_names(tx, 1)
        assert (version.train_rows, version.validation_rows) == (len(old.train_labels), 300)
        baseline = models.baseline_model(tx, study.id)
    majority = int(np.bincount(old.train_labels).argmax())
    assert baseline.validation_loss == pytest.approx(np.mean(new.validation_labels != majority))
    assert lab.one("SELECT same_training_as FROM work.data_versions WHERE id = :id", id=version.id) == 1
    assert lab.rows("SELECT id, state, rows, plan::text FROM work.test_sets ORDER BY id") == sets


def test_the_same_call_twice_makes_one_whatever_the_order_of_the_rows(lab: Any, bring: Any) -> None:
    brought = bring()
    first = replace(lab, brought)
    brought.write(order=np.random.default_rng(0).permutation(300))
    again = replace(lab, brought)
    assert (again.version, again.replaced_before, again.added, again.rows) == (2, True, 0, 300)
    assert versions(lab) == [1, first.version]
    replace(lab, bring(seed=2))
    third = replace(lab, bring(40, seed=3))
    assert versions(lab) == [1, 2, 3, third.version]
    # All have the training part that version 1 brought.
    assert lab.rows("SELECT DISTINCT same_training_as FROM work.data_versions WHERE version > 1") == [(1,)]
    assert [entry.state for entry in validation_report(lab.worker, lab.artifacts, "full").history][:3] == [
        "replaced"
    ] * 3


def test_rows_are_added_to_those_that_are_there(lab: Any, bring: Any) -> None:
    old, few = lab.open_parts(), bring(50)
    done = replace(lab, few, add=True)
    assert (done.rows, done.added, done.already, done.version) == (85 + 50, 50, 0, 2)
    new = lab.open_parts()
    np.testing.assert_array_equal(new.validation_inputs[:85], old.validation_inputs)
    np.testing.assert_array_equal(new.validation_labels[:85], old.validation_labels)
    again = replace(lab, few, add=True)
    assert (again.version, again.replaced_before, again.already, again.rows) == (2, True, 50, 135)
    more = bring(60)
    more.values[:50], more.truth[:50] = few.values, few.truth
    more.write()
    done = replace(lab, more, add=True)
    assert (done.version, done.rows, done.added, done.already) == (3, 145, 10, 50)


def test_rows_that_repeat_another_are_left_out_and_counted(lab: Any, bring: Any) -> None:
    brought = bring(60)
    brought.values[50:], brought.truth[50:] = brought.values[:10], brought.truth[:10]
    brought.write()
    done = replace(lab, brought)
    assert (done.rows, done.added, done.duplicates) == (50, 50, 10)
    assert len(np.unique(lab.open_parts().validation_inputs, axis=0)) == 50


def test_what_models_learn_from_is_refused(lab: Any, bring: Any) -> None:
    brought = bring(50)
    brought.values[7] = lab.open_parts().train_inputs[0]
    brought.write()
    with pytest.raises(InvalidInputError, match=r"1 of 50 .* line 9 \(.*'patient 1-7'\), .* training"):
        replace(lab, brought)
    assert versions(lab) == [1]


def test_what_is_sealed_is_refused_until_it_is_released(lab: Any, bring: Any, tmp_path: Path) -> None:
    spring = bring()
    seal(lab, spring, name="spring")
    brought = bring(50, seed=2)
    brought.values[3] = spring.values[11]
    brought.write()
    with pytest.raises(InvalidInputError, match=r"1 of 50 .* line 5 .* 'spring'"):
        replace(lab, brought)
    with pytest.raises(StateError, match="'spring' is sealed"):
        from_set(lab, "spring")
    retire(lab, "spring")
    with pytest.raises(InvalidInputError, match=r"'spring', .* not released"):
        replace(lab, brought)  # retired: its answers still say something of the future
    with pytest.raises(StateError, match="'spring' is retired"):
        from_set(lab, "spring")
    release_test_set(lab.referee, lab.artifacts, test_set="spring")
    assert replace(lab, brought).rows == 50
    done = from_set(lab, "spring")
    assert (done.version, done.rows, done.already) == (3, 300, 1)
    (said,) = done.warnings
    assert "1 of the rows" in said
    assert from_set(lab, "spring").replaced_before
    assert validation_report(lab.worker, lab.artifacts, "full").version == 3
    truth = {spring.values[i].tobytes(): spring.truth[i] for i in range(300)}
    new = lab.open_parts()
    assert {row.tobytes(): y for row, y in zip(new.validation_inputs, new.validation_labels, strict=True)} == truth


def seal_with(lab: Any, spring: Any, *, known: int) -> None:
    """Release a set that was sealed without labels and has those of the first examples in the file."""
    retire(lab, 1)
    set_id = seal(lab, spring, name="spring", labelled=False).test_set_id
    asked = {"study": "full", "model_id": lab.models["full"]["good"], "request_key": "k"}
    request_id = file_gate_request(lab.worker, **asked)
    with lab.referee.begin() as tx:
        labels.want(tx, request_id=request_id, test_set_id=set_id, positions=np.arange(300))
    some = spring.labels.with_name("some.csv")
    write(some, [["example", "label"], *([spring.keys[i], CLASSES[spring.truth[i]]] for i in range(known))])
    give_labels(lab.referee, study="full", labels=some, test_set="spring", labeler="ann")
    retire(lab, "spring")
    release_test_set(lab.referee, lab.artifacts, test_set="spring")


def test_a_set_with_labels_of_some_examples_alone_is_no_validation_set(lab: Any, bring: Any) -> None:
    """They are of those that verdicts asked for, such as disagreements: no random sample of the set."""
    spring = bring()
    seal_with(lab, spring, known=299)
    with pytest.raises(InvalidInputError, match=r"299 of .*no random sample.*fetch spring"):
        from_set(lab, "spring")
    assert versions(lab) == [1]
    assert replace(lab, spring).rows == 300  # the way out: all of them with all labels


def test_a_set_whose_labels_were_all_asked_for_is_one(lab: Any, bring: Any) -> None:
    spring = bring()
    seal_with(lab, spring, known=300)
    assert from_set(lab, "spring").rows == 300


def test_another_tenant_s_sealed_rows_are_refused(lab: Any, bring: Any) -> None:
    brought = bring(60)
    assert not lab.register("theirs", tenant="others", source="sklearn:digits").refused
    hashes, set_id = example_hashes(brought.values, NAMES), lab.one("SELECT max(id) FROM work.test_sets")
    for count, refused in ((3, False), (4, True)):  # a twentieth of 60 is coincidence
        for example in hashes[:count]:
            lab.as_superuser(
                "INSERT INTO sealed.examples (study_id, hash, test_set_id) SELECT study_id, %s, id FROM work.test_sets "
                "WHERE id = %s ON CONFLICT DO NOTHING",
                example,
                set_id,
            )
        if refused:
            with pytest.raises(StateError, match="another tenant's"):
                replace(lab, brought, add=True)
        else:
            assert replace(lab, brought).rows == 60


def test_rows_that_models_were_chosen_by_make_no_new_set(lab: Any, bring: Any) -> None:
    first = bring(60)
    replace(lab, first)
    replace(lab, bring(50, seed=2))
    with pytest.raises(InvalidInputError, match=r"all 60 .* 'full' before"):
        replace(lab, first)
    assert versions(lab) == [1, 2, 3]


def test_what_was_open_once_is_never_sealed(lab: Any, bring: Any) -> None:
    first = bring()
    replace(lab, first)
    replace(lab, bring(50, seed=2))
    with pytest.raises(InvalidInputError, match=r"300 of 300 .* the open"):
        seal(lab, first)


def test_a_small_set_or_another_unit_is_said(lab: Any, bring: Any, recorded: Any) -> None:
    brought = bring(30)
    brought.values[:, 0] *= 1000
    brought.write()
    recorded("\n".join(replace(lab, brought).warnings), "warnings_of_a_validation_set")


@pytest.mark.parametrize(
    "given",
    [{"inputs": None}, {"labels": None}, {"from_set": "spring"}, {"inputs": None, "labels": None}],
)
def test_files_or_a_set_must_be_named(lab: Any, bring: Any, given: dict[str, Any]) -> None:
    words = "has no labels; give" if given == {"labels": None} else "^give --inputs, .* or --from-set alone$"
    with pytest.raises(InvalidInputError, match=words):
        replace(lab, bring(40), **given)


def test_only_the_referee_replaces_it(lab: Any, bring: Any) -> None:
    brought = bring(50)
    given = {"study": "full", "inputs": brought.inputs, "labels": brought.labels}
    with pytest.raises(WrongRoleError):
        replace_validation(lab.worker, lab.artifacts, **given)
    assert versions(lab) == [1]


def test_files_that_are_wrong_change_nothing(lab: Any, bring: Any, tmp_path: Path) -> None:
    brought = bring(50)
    write(brought.labels, [["example", "label"], ["patient 1-0", "benign"]])
    with pytest.raises(InvalidInputError, match="and 48 others"):
        replace(lab, brought)
    write(brought.inputs, [["example", *NAMES[1:]], ["a", *["1"] * 29]])
    with pytest.raises(InvalidInputError, match="'mean radius' are"):
        replace(lab, brought)
    assert versions(lab) == [1]


def test_rows_left_out_at_registration_are_counted(lab: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    rows = [[f"{v:.6f}" for v in rng.normal(size=3)] for _ in range(400)]
    rows += rows[:25]
    labelled = [["a", "b", "c", "y"], *([*row, "yes" if float(row[0]) > 0 else "no"] for row in rows)]
    (tmp_path / "lab").mkdir()
    with (tmp_path / "lab" / "t.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(labelled)
    settings = {"tenant": "lab", "source": "csv:t.csv", "target": "y", "request_key": "twice"}
    settings |= {
        "gate": {"condition": "n - o > 0 +/- 0.3", "reliability": 0.8, "steps": 1},
        "meter": {"ranges": (0.3, 0.7), "tolerance": 0.3, "reliability": 0.8, "steps": 1},
    }
    filed = register_study(lab.worker, study="twice", **settings)
    Referee(lab.referee, lab.artifacts, data=tmp_path).run_once()
    answer = answer_of(lab.worker, filed.request_id)
    assert answer is not None
    assert answer.message.endswith(", left out: 25")
    assert validation_report(lab.worker, lab.artifacts, "twice").split == answer.message


def test_open_parts_are_what_was_written(lab: Any, bring: Any) -> None:
    replace(lab, bring(50))
    artifact = lab.one("SELECT artifact FROM work.data_versions WHERE version = 2")
    assert load_open_parts(lab.artifacts.path(artifact)).classes == 2


@pytest.mark.journey
def test_the_meter_measures_the_gap_to_the_new_set(lab: Any, bring: Any) -> None:
    lab.relabel(2, lambda labels: 1 - labels)  # sealed loss near 1, open loss near 0
    assert lab.meter("good").signal == 3
    brought = bring()
    brought.truth[:] = 1 - brought.truth  # now open loss is near 1, too
    brought.write()
    replace(lab, brought)
    answer = lab.meter("good")
    assert (answer.signal, answer.cached) == (1, False)
    assert validation_report(lab.worker, lab.artifacts, "full").signals == [1]
    assert lab.meter("good").cached
