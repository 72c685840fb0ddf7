"""A test set's life from planned to live; what is refused; and that a killed call changes nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from easeml_core.errors import (
    AlreadyExistsError,
    ConfigError,
    InvalidInputError,
    SealedSetTooSmallError,
    StateError,
    WrongRoleError,
)
from easeml_core.formats.encoding import row_of
from easeml_core.services.evaluation.sealed_runs import at_once
from easeml_core.services.reports.next_steps import next_steps
from easeml_core.services.test_sets import lifecycle, upload
from easeml_core.services.test_sets.lifecycle import retire_test_set
from easeml_core.services.test_sets.planning import needed_examples
from easeml_core.services.test_sets.release import release_test_set
from easeml_core.services.test_sets.upload import seal_test_set
from easeml_core.store.tables import sealed

if TYPE_CHECKING:
    from collections.abc import Callable

from brought import CLASSES, NAMES, content, gate_sets, nothing_new, retire, seal, states, write
from brought import replace as validate_on


def test_a_new_set_waits_and_becomes_live_when_the_live_one_is_retired(lab: Any, bring: Any) -> None:
    spring, autumn = seal(lab, bring(), name="spring"), seal(lab, bring(seed=2), name="autumn")
    assert states(lab) == [(None, "live"), ("spring", "sealed"), ("autumn", "sealed")]
    first = gate_sets(lab)[-1].test_set_id
    gone = retire(lab, first)
    assert (gone.state, gone.retired_why, gone.live) == ("retired", "by hand", spring.test_set_id)
    assert retire(lab, first) == gone
    assert states(lab) == [(None, "retired"), ("spring", "live"), ("autumn", "sealed")]
    assert retire(lab, "spring", study="full", why="steps").live == autumn.test_set_id
    assert retire(lab, "autumn").live is None
    again = seal(lab, bring(seed=3))
    assert (again.state, again.name) == ("live", None)


def test_a_set_holds_what_was_brought_in_an_order_that_only_the_secret_decides(
    lab: Any, make_lab: Any, bring: Any
) -> None:
    brought = bring()
    set_id = seal(lab, brought).test_set_id
    inputs, truth, keys = content(lab, set_id)
    row_of = {key: i for i, key in enumerate(brought.keys)}
    order = [row_of[key] for key in keys]
    assert sorted(order) == list(range(300))
    np.testing.assert_array_equal(inputs, brought.values[order])
    np.testing.assert_array_equal(truth, brought.truth[order])
    # Chance gives a correlation beyond 0.3 to fewer than one order in a million.
    assert abs(np.corrcoef(order, range(300))[0, 1]) < 0.3
    brought.write(order=np.random.default_rng(3).permutation(300))
    twin, stranger = make_lab(), make_lab()
    stranger.as_superuser("UPDATE sealed.installation SET secret = gen_random_uuid()")
    assert content(twin, seal(twin, brought).test_set_id)[2] == keys
    assert content(stranger, seal(stranger, brought).test_set_id)[2] != keys


def test_what_everybody_sees_of_a_set(lab: Any, bring: Any) -> None:
    brought = bring()
    answer = seal(lab, brought, name="spring", settings={"steps": 2, "reliability": 0.8})
    (entry,) = [e for e in lifecycle.list_test_sets(lab.worker) if e.name == "spring"]
    assert row_of(entry).items() <= row_of(answer).items()
    facts = {"rows": 300, "steps": 2, "steps_used": 0, "state": "sealed", "labels_on_demand": False}
    assert {name: getattr(entry, name) for name in facts} == facts
    assert entry.plan.reliability == 0.8
    assert "patient" not in str(lab.rows("SELECT t::text FROM work.test_sets t", store=lab.worker))


def test_used_steps_are_those_of_released_verdicts(lab: Any) -> None:
    lab.gate("worse")
    assert [entry.steps_used for entry in gate_sets(lab)] == [1]


REFEREES_ALONE: dict[str, Callable[..., Any]] = {
    "seal": lambda lab, brought: seal_test_set(lab.worker, lab.artifacts, study="full", inputs=brought.inputs),
    "plan": lambda lab, _: lifecycle.plan_test_set(lab.worker, study="full", name="x", settings={}),
    "retire": lambda lab, _: retire_test_set(lab.worker, test_set="1"),
    "release": lambda lab, _: release_test_set(lab.worker, lab.artifacts, test_set="1"),
    "reevaluate": lambda lab, _: at_once(lifecycle.reevaluation_steps(lab.worker, lab.artifacts)),
}


@pytest.mark.parametrize("deed", REFEREES_ALONE)
def test_a_worker_can_do_none_of_it(deed: str, lab: Any, bring: Any) -> None:
    with pytest.raises(WrongRoleError):
        REFEREES_ALONE[deed](lab, bring(3))


# What is refused.


def test_too_few_examples_are_refused_with_the_planners_figure(lab: Any, bring: Any) -> None:
    needed = needed_examples(gate_sets(lab)[0].plan)
    with pytest.raises(SealedSetTooSmallError, match="gate set") as refused:
        seal(lab, bring(needed - 1))
    assert (refused.value.needed, refused.value.available) == (needed, needed - 1)
    assert seal(lab, bring(needed)).needed == needed


def test_examples_that_somebody_has_seen_are_refused_and_the_first_is_named(lab: Any, bring: Any) -> None:
    parts, live = lab.open_parts(), content(lab, 1)[0]
    known = {"open parts": parts.validation_inputs[3], "test set '1'": live[7]}
    for place, row in known.items():
        brought = bring()
        brought.values[[5, 40]] = row, parts.train_inputs[0] if "open" in place else live[8]
        brought.write()
        with pytest.raises(InvalidInputError, match=r"line 7 \(.*'patient 1-5'\): 2 of 300 .* " + place):
            seal(lab, brought)
    assert nothing_new(lab)


def test_an_example_that_is_sealed_for_a_sister_study_is_refused(lab: Any, bring: Any) -> None:
    seal(lab, bring(), study="first", name="spring")
    brought = bring(seed=2)
    brought.values[0] = bring().values[9]
    brought.write()
    with pytest.raises(InvalidInputError, match=r"1 of 300 .* set 'spring'"):
        seal(lab, brought)


def test_rows_with_the_same_inputs_are_kept_once_and_their_share_is_said(lab: Any, bring: Any) -> None:
    """Which of them is kept follows neither from their labels nor from their order in the file."""
    brought = bring()
    brought.values[[10, 11]] = brought.values[2]
    brought.truth[[2, 10, 11]] = 0, 1, 1
    brought.write()
    done = seal(lab, brought, name="spring")
    assert (done.rows, done.repeated, done.sealed_before) == (298, 2, False)
    (said,) = done.warnings
    assert said.startswith("2 of 300 rows (0.7 %) repeat")
    _, truth, keys = content(lab, done.test_set_id)
    assert len({"patient 1-2", "patient 1-10", "patient 1-11"} & set(keys)) == 1
    label_of = dict(zip(brought.keys, brought.truth, strict=True))
    assert [label_of[key] for key in keys] == truth.tolist()
    brought.write(order=range(299, -1, -1))
    again = seal(lab, brought, name="spring")
    assert (again.test_set_id, again.sealed_before, again.repeated) == (done.test_set_id, True, 2)


def test_of_rows_that_are_known_the_share_is_said(lab: Any, bring: Any) -> None:
    brought = bring()
    brought.values[:30] = lab.open_parts().train_inputs[:30]
    brought.write()
    with pytest.raises(InvalidInputError, match=r"30 of 300 .*\(10.0 %\)"):
        seal(lab, brought)


@pytest.mark.parametrize(("split", "said"), [("group:patient", "not divided by group"), ("time:day", "by time")])
def test_later_sets_of_a_study_that_is_divided_otherwise_come_with_a_warning(
    lab: Any, bring: Any, split: str, said: str
) -> None:
    lab.as_superuser("UPDATE work.studies SET config = config || jsonb_build_object('split', %s::text)", split)
    (warning,) = seal(lab, bring()).warnings
    assert said in warning
    assert split.partition(":")[2] in warning
    assert warning in validate_on(lab, bring(60, seed=3)).warnings


def test_the_same_examples_are_sealed_once_under_whatever_name(lab: Any, bring: Any) -> None:
    seal(lab, bring(), name="spring")
    for changed in ("name", "labels", "study", "keys"):
        brought = bring()
        if changed == "labels":
            brought.truth[3] = 1 - brought.truth[3]
        if changed == "keys":
            brought.keys[3] = "another"
        brought.write()
        asked = {
            "name": "autumn" if changed == "name" else "spring",
            "study": "first" if changed == "study" else "full",
        }
        with pytest.raises(AlreadyExistsError, match=r"exactly these .*'full' .*sealed") as refused:
            seal(lab, brought, **asked)
        assert refused.value.name == "spring"


def test_a_name_is_taken_once(lab: Any, bring: Any) -> None:
    seal(lab, bring(), name="spring")
    other = bring(seed=2)
    with pytest.raises(AlreadyExistsError, match="it is sealed") as refused:
        seal(lab, other, name="spring")
    assert (refused.value.kind, refused.value.name) == ("test set", "spring")
    for name in ("Spring", "a b", "", "x" * 64, "../x"):
        with pytest.raises(InvalidInputError, match="name must be"):
            seal(lab, other, name=name)


def test_ids_of_labels_and_inputs_must_match(lab: Any, bring: Any) -> None:
    brought = bring()
    rows = [[key, CLASSES[label]] for key, label in zip(brought.keys, brought.truth, strict=True)]
    head = ["example", "label"]
    cases = {
        r"labels-1.csv, line 302 \(example 'stranger'\): there is no such example": [
            head,
            *rows,
            ["stranger", "benign"],
        ],
        r"inputs-1.csv, line 301 \(example 'patient 1-299'\): there is no label": [head, *rows[:-1]],
        r"inputs-1.csv, line 2 .*: there is no label for this example and 9 others": [head, *rows[10:]],
        r"line 3 .*: the key is that of line 2 too": [head, rows[0], *rows],
        r"line 2 .*: 'sick' is no class of the study; it has 'malignant', 'benign'": [
            head,
            [rows[0][0], "sick"],
            *rows[1:],
        ],
        "a file of labels has the columns example and label": [[*head, "note"], *([*row, ""] for row in rows)],
    }
    for message, table in cases.items():
        write(brought.labels, table)
        with pytest.raises(InvalidInputError, match=message):
            seal(lab, brought)
    assert nothing_new(lab)


def test_a_meter_set_needs_all_its_labels(lab: Any, bring: Any) -> None:
    with pytest.raises(InvalidInputError, match="meter set needs"):
        seal(lab, bring(), purpose="meter", labelled=False)
    done = seal(lab, bring(), purpose="meter", settings={"steps": 2})
    assert (done.purpose, done.state, done.steps) == ("meter", "sealed", 2)


def test_settings_are_checked(lab: Any, bring: Any) -> None:
    brought = bring()
    for settings in ({"steps": 0}, {"reliability": 1.5}, {"adaptivity": "sometimes"}):
        with pytest.raises(ConfigError):
            seal(lab, brought, settings=settings)
    with pytest.raises(InvalidInputError, match=r"gate .* 'speed'; known: adaptivity"):
        seal(lab, brought, settings={"speed": 3})
    with pytest.raises(ConfigError) as refused:
        seal(lab, brought, purpose="pillow")
    assert (refused.value.field, refused.value.value) == ("purpose", "pillow")


# Repetition and death.


def test_the_same_call_is_made_twice_and_seals_once(lab: Any, bring: Any) -> None:
    brought = bring()
    first = seal(lab, brought, name="spring")
    brought.write(order=range(299, -1, -1))
    assert seal(lab, brought, name="spring") == replace(first, sealed_before=True)
    assert lab.one("SELECT count(*) FROM sealed.test_sets") == 7


def test_a_repetition_with_other_settings_is_refused_with_what_differs(lab: Any, bring: Any) -> None:
    brought = bring()
    first = seal(lab, brought, name="winter", settings={"steps": 2})
    other_calls: dict[str, dict[str, Any]] = {
        "steps 2 there, 5 here": {"settings": {"steps": 5}},
        r"condition 'n - o > 0 \+/- 0.2' there": {"settings": {"steps": 2, "condition": "n-o>0+/-0.3"}},
        "purpose 'gate' there, 'meter' here": {"purpose": "meter", "settings": {"steps": 2}},
        r"reliability 0.9 there, 0.8 here": {"settings": {"steps": 2, "reliability": 0.8}},
    }
    for words, asked in other_calls.items():
        with pytest.raises(AlreadyExistsError, match=f"'winter' .*other settings: {words}"):
            seal(lab, brought, name="winter", **asked)
    written = {"settings": {"steps": 2, "condition": "n-o > 0 +/- 0.20"}}  # the same in other words
    assert seal(lab, brought, name="winter", **written) == replace(first, sealed_before=True)
    assert seal(lab, brought, name="winter") == replace(
        first, sealed_before=True
    )  # of a named set they may be left out


def test_the_settings_of_a_set_without_a_name_are_the_studys_where_they_are_left_out(lab: Any, bring: Any) -> None:
    brought = bring()
    seal(lab, brought, settings={"steps": 2})
    with pytest.raises(AlreadyExistsError, match="steps 2 there, 3"):
        seal(lab, brought)


def test_the_next_step_of_a_study_knows_whether_another_set_is_live(lab: Any, bring: Any) -> None:
    def needs() -> str:
        return next_steps(lab.worker, studies_only=["full"], needs_only=True)[0].kind

    seal(lab, bring(), name="spring")
    retire_test_set(lab.referee, test_set="1")
    assert needs() == "set-served"
    retire_test_set(lab.referee, test_set="spring")
    assert needs() == "no-set"


class Killed(BaseException):
    """As abrupt as an exception can be."""


def test_a_call_that_is_killed_in_the_middle_has_sealed_nothing(lab: Any, bring: Any, monkeypatch: Any) -> None:
    def die(*_: Any) -> None:
        raise Killed

    brought = bring()
    with monkeypatch.context() as patch:
        patch.setattr(upload.label_rows, "announce", die)  # the last step, when all rows are written
        with pytest.raises(Killed):
            seal(lab, brought, name="spring")
    assert nothing_new(lab)
    done = seal(lab, brought, name="spring")
    assert (done.state, done.sealed_before) == ("sealed", False)


# Plans.


def test_a_plan_is_public_and_sealing_under_its_name_fulfils_it(lab: Any, bring: Any) -> None:
    asked = {"study": "full", "name": "spring", "settings": {"steps": 2, "condition": "n-o>0+/-0.2"}}
    planned = lifecycle.plan_test_set(lab.referee, **asked)
    assert planned == lifecycle.plan_test_set(lab.referee, **asked) == gate_sets(lab)[0]
    assert (planned.state, planned.plan.condition) == ("planned", "n - o > 0 +/- 0.2")
    assert planned.rows == needed_examples(planned.plan)
    with pytest.raises(AlreadyExistsError, match="this study 'spring'"):
        lifecycle.plan_test_set(lab.referee, **asked | {"settings": {"steps": 3}})
    with pytest.raises(InvalidInputError, match=r"planned .*got steps"):
        seal(lab, bring(), name="spring", settings={"steps": 2})
    with pytest.raises(SealedSetTooSmallError):
        seal(lab, bring(planned.rows - 1), name="spring")
    done = seal(lab, bring(), name="spring")
    ours = {"test_set_id": planned.test_set_id, "state": "sealed", "rows": 300, "steps": 2}
    assert {name: getattr(done, name) for name in ours} == ours
    assert done.plan == planned.plan
    assert seal(lab, bring(), name="spring") == replace(done, sealed_before=True)


def test_a_set_that_is_sealed_keeps_its_size_and_no_state_leads_back(lab: Any, bring: Any) -> None:
    set_id = seal(lab, bring()).test_set_id
    for change in ("rows = 1", "labels_on_demand = true", "state = 'planned'"):
        with pytest.raises(StateError, match=r"keeps its content|sealed to planned"):
            lab.rows(f"UPDATE work.test_sets SET {change} WHERE id = :id RETURNING id", id=set_id)


# Slices.


def test_slices_have_a_code_each_and_their_names_in_the_plan(lab: Any, bring: Any) -> None:
    brought = bring()
    wards = ["north" if i % 3 else "south" for i in range(299)] + [""]
    brought.write(columns={"ward": wards})
    slices = (("south", "n > 0.5 +/- 0.25"),)
    done = seal(lab, brought, slices_column="ward", settings={"slices": slices, "steps": 1})
    assert done.plan.slices == (("south", "n > 0.5 +/- 0.25"),)
    with lab.referee.begin() as tx:
        codes, keys = sealed.sealed_slices(tx, done.test_set_id), sealed.sealed_keys(tx, done.test_set_id)
        assert sealed.sealed_slices(tx, 1) is None
    ward_of = dict(zip(brought.keys, wards, strict=True))
    assert codes is not None
    assert codes.tolist() == [0 if ward_of[key] == "south" else -1 for key in keys]


def test_without_conditions_every_slice_has_the_sets_own(lab: Any, bring: Any) -> None:
    brought = bring(1200)
    brought.write(columns={"ward": ["north", "south", ""] * 400})
    done = seal(lab, brought, slices_column="ward")
    condition = done.plan.condition
    assert done.plan.slices == (("north", condition), ("south", condition))


def test_a_slice_with_too_few_examples_is_refused_by_name(lab: Any, bring: Any) -> None:
    brought = bring(600)
    brought.write(columns={"ward": ["north"] * 590 + ["south"] * 10})
    with pytest.raises(SealedSetTooSmallError, match="slice south") as refused:
        seal(lab, brought, slices_column="ward")
    assert refused.value.available == 10
    with pytest.raises(InvalidInputError, match="slice 'west' has"):
        seal(lab, brought, slices_column="ward", settings={"slices": (("west", "n > 0.5 +/- 0.2"),)})
    with pytest.raises(InvalidInputError, match="no column 'wing'"):
        seal(lab, brought, slices_column="wing")
    with pytest.raises(InvalidInputError, match="come together"):
        seal(lab, brought, settings={"slices": (("west", "n > 0.5 +/- 0.2"),)})
    with pytest.raises(InvalidInputError, match=r"'ward' .*--slices 'ward'"):
        seal(lab, brought)


def test_a_column_of_the_study_can_tell_the_slice_too(lab: Any, bring: Any) -> None:
    brought = bring()
    brought.values[:, 0] = np.where(np.arange(300) < 295, 7, 8)
    brought.write()
    slices = (("7.0", "n > 0.5 +/- 0.3"),)
    done = seal(lab, brought, slices_column=NAMES[0], settings={"slices": slices, "steps": 1})
    assert set(content(lab, done.test_set_id)[0][:, 0]) == {7, 8}
