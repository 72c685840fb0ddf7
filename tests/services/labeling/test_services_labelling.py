"""The labeling desk: what each labeler sees, what is stored, taken back and adjudicated, and what stays."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from asked import ROWS, Asked
from hypothesis import given
from hypothesis import strategies as st
from registering import register_study
from sqlalchemy import text

from easeml_core.errors import ConfigError, InvalidInputError, NotFoundError, StateError
from easeml_core.formats.encoding import row_of
from easeml_core.services.evidence.bundle_check import _Work
from easeml_core.services.labeling import adjudication, desk
from easeml_core.services.labeling.adjudication import Kept
from easeml_core.services.labeling.requests import give_labels, wanted_labels
from easeml_core.services.referee.process import Referee
from easeml_core.services.referee.requests import file_gate_request
from easeml_core.services.test_sets.lifecycle import retire_test_set
from easeml_core.services.test_sets.upload import seal_test_set
from easeml_core.store.rows import pack
from easeml_core.store.tables import labels, models, sealed
from easeml_core.store.tables.labels import cannot_tell
from easeml_core.store.tables.labels import open_wanted as open_wanted_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from easeml_core.store.tables.labels import Wanted


SMALL_GATE = {"condition": "n - o > 0 +/- 0.2", "reliability": 0.9, "adaptivity": "full", "steps": 3}
SMALL_METER = {"ranges": (0.2, 0.6), "tolerance": 0.2, "reliability": 0.9, "steps": 4}


@pytest.fixture
def asked(database: Any, artifacts: Any, make_study: Callable[..., str], tmp_path: Path) -> Asked:
    return Asked(database, artifacts, tmp_path, make_study(), "sklearn:breast_cancer")


def see(asked: Asked, labeler: str, **more: Any) -> desk.Desk:
    return desk.desk(asked.database.referee, study=asked.study, labeler=labeler, **more)


def shown(asked: Asked, labeler: str, **more: Any) -> int | None:
    example = see(asked, labeler, **more).example
    return None if example is None else int(example.place)


def say(asked: Asked, labeler: str, place: int, label: int | None, **more: Any) -> Kept:
    answer = {"study": asked.study, "test_set_id": asked.set_id, "labeler": labeler, "place": place, "label": label}
    return desk.say(asked.database.referee, **answer | more)


def settle(asked: Asked, place: int, label: int, **more: Any) -> Kept:
    answer = {"study": asked.study, "test_set_id": asked.set_id, "place": place, "label": label}
    return adjudication.settle(asked.database.referee, **answer | more)


def ask_again(asked: Asked, place: int, **more: Any) -> adjudication.AskedAgain:
    answer = {"study": asked.study, "test_set_id": asked.set_id, "place": place}
    return adjudication.ask_again(asked.database.referee, **answer | more)


def undo(asked: Asked, labeler: str, place: int) -> Kept:
    answer = {"study": asked.study, "test_set_id": asked.set_id, "labeler": labeler, "place": place}
    return desk.take_back(asked.database.referee, **answer)


def wanted(asked: Asked, labeler: str) -> list[str]:
    found = wanted_labels(asked.database.referee, study=asked.study, labeler=labeler)
    return [entry.example for entry in found.examples]


def open_wanted(asked: Asked) -> list[Wanted]:
    with asked.database.referee.begin() as tx:
        return open_wanted_of(tx)


def test_one_example_after_another_until_the_request_has_what_it_waits_for(asked: Asked) -> None:
    asked.want([41, 7, 3])
    for place in (3, 7, 41):
        found = see(asked, "ann")
        example = found.example
        assert (example.place, example.example) == (place, asked.keys[place])
        np.testing.assert_array_equal(np.float32(example.inputs), asked.values[int(asked.keys[place][2:-1])])
        assert asked.is_open()
        assert say(asked, "ann", place, 1) == Kept(place, changed=True)
    assert (see(asked, "ann").example, asked.is_open()) == (None, False)
    assert [asked.known()[p] for p in (3, 7, 41)] == [1, 1, 1]
    (batch,) = desk.batches(asked.database.referee, labeler="ann")
    assert [
        getattr(batch, k) for k in ("study", "test_set", "kind", "wanted", "known", "left", "mine", "conflicts")
    ] == [
        *(asked.study, "autumn", "row"),
        *(3, 3, 0, 3, 0),
    ]
    assert desk.labelers(asked.database.referee) == [desk.Labeler("ann", labels=3, passed=0)]


def test_nothing_tells_which_model_asked_or_what_others_said(asked: Asked) -> None:
    asked.want([1, 2])
    say(asked, "ann", 1, 0)
    assert set(row_of(see(asked, "bob"))) == {
        *("study", "test_set_id", "test_set", "kind", "wanted", "known", "left", "mine", "conflicts", "classes"),
        *("layout", "agreement", "disputes", "example", "last", "unsure", "passed"),
    }
    assert set(row_of(see(asked, "bob").example)) == {"place", "example", "cells", "columns", "inputs", "settles"}


def test_what_somebody_cannot_tell_is_asked_of_another(asked: Asked) -> None:
    asked.want([5, 6])
    say(asked, "ann", 5, None)
    assert (shown(asked, "ann"), shown(asked, "bob")) == (6, 5)
    assert see(asked, "ann", last=5).last == desk.LastWord(5, asked.keys[5], label=None, may_undo=True)
    assert (asked.known()[5], see(asked, "ann").mine) == (-1, 0)
    path = asked.write([["example", "label"], [asked.keys[6], "benign"]])
    give_labels(asked.database.referee, study=asked.study, labeler="ann", labels=path)
    assert shown(asked, "ann") is None  # a file of other labels does not bring it back
    assert [wanted(asked, who) for who in ("ann", "bob")] == [[], [asked.keys[5], asked.keys[6]]]
    undo(asked, "ann", 5)
    assert shown(asked, "ann") == 5


def test_what_nobody_can_tell_is_waited_for_and_never_left_out(asked: Asked) -> None:
    asked.want([5, 6])
    for who in ("ann", "bob", "referee"):
        say(asked, who, 5, None)
        say(asked, who, 6, 1)
    (wants,) = open_wanted(asked)
    assert wants.is_open  # the verdict waits: a set without its hard examples would be another set
    assert list(wants.positions) == [5, 6]
    path = asked.write([["example", "label"], [asked.keys[5], "malignant"]])
    give_labels(asked.database.referee, study=asked.study, labeler="referee", labels=path)
    assert (open_wanted(asked), asked.known()[5]) == ([], 0)


def test_one_example_in_ten_has_a_second_labeler_and_the_referee_settles_a_difference(asked: Asked) -> None:
    asked.want([10, 11, 12, 20])
    say(asked, "ann", 10, 0)
    say(asked, "ann", 11, 0)
    say(asked, "ann", 20, 1)
    assert shown(asked, "bob") == 10  # 11 has its label; 10 and 20 are shown twice
    say(asked, "bob", 10, 1)
    say(asked, "bob", 20, 1)
    found = see(asked, "bob")
    assert (found.agreement, found.conflicts, found.disputes) == (desk.Agreement(both=2, same=1), 1, [])
    assert shown(asked, "cy") == 12  # a third labeler is not asked about a difference
    assert see(asked, "ada", decides=True).disputes == [
        adjudication.Difference(10, asked.keys[10], ["malignant", "benign"])
    ]
    assert shown(asked, "ada", settles=10, decides=True) == 10
    assert (shown(asked, "cy", at=10), shown(asked, "cy", settles=10)) == (12, 12)
    assert settle(asked, 10, 1).changed
    assert not settle(asked, 10, 1).changed
    assert (asked.known()[10], see(asked, "ada", decides=True).disputes) == (1, [])
    assert settle(asked, 10, 0).changed  # a slip of the finger, while no verdict may have used it
    assert asked.known()[10] == 0
    with pytest.raises(StateError, match="labelers agree on the example at place 11"):
        settle(asked, 11, 1)


def test_what_nobody_can_tell_is_listed_and_settled_by_the_referees_word(asked: Asked) -> None:
    asked.want([5, 6, 7])
    for who, place in (("ann", 5), ("bob", 5), ("ann", 6), ("bob", 7)):
        say(asked, who, place, None)
    say(asked, "bob", 6, 1)  # a labeler can tell
    five, seven = asked.keys[5], asked.keys[7]
    assert see(asked, "ada", decides=True).passed == [
        adjudication.Passed(5, five, passed=2, mine=False),
        adjudication.Passed(7, seven, passed=1, mine=False),
    ]
    own = [adjudication.Passed(5, five, passed=1, mine=True)]
    assert (see(asked, "ann").passed, see(asked, "cy").passed) == (own, [])  # nothing of what others said
    (batch,) = desk.batches(asked.database.referee, labeler="ann")
    assert (batch.unsure, see(asked, "ann").unsure) == (2, 2)
    assert shown(asked, "ann") == 7
    assert shown(asked, "ann", at=5) == 5  # who has passed may look again
    assert shown(asked, "ann", at=6) == 7  # it has its label
    example = see(asked, "ada", decides=True, settles=5).example
    assert (example.place, example.settles) == (5, "unsure")
    assert see(asked, "ada", settles=7).example.settles == ""  # no referee
    assert asked.is_open()
    assert [settle(asked, 5, 0).changed for _ in range(2)] == [True, False]
    left = [one.place for one in see(asked, "ada", decides=True).passed]
    assert (asked.known()[5], left, see(asked, "ann").passed) == (0, [7], [])
    settle(asked, 7, 1)
    assert (asked.is_open(), see(asked, "ann").passed) == (False, [])
    with pytest.raises(StateError, match="a verdict may have used"):
        settle(asked, 5, 1)


def test_to_ask_again_brings_an_example_back_to_those_who_passed_and_changes_no_label(asked: Asked) -> None:
    asked.want([5, 6])
    for who in ("ann", "bob"):
        say(asked, who, 5, None)
        say(asked, who, 6, 1)
    assert [shown(asked, who) for who in ("ann", "bob", "cy")] == [None, None, 5]
    assert [ask_again(asked, 5).asked for _ in range(2)] == [2, 0]
    assert [shown(asked, who) for who in ("ann", "bob")] == [5, 5]
    assert (list(asked.known()[[5, 6]]), see(asked, "ann").passed, asked.is_open()) == ([-1, 1], [], True)
    say(asked, "ann", 5, None)
    say(asked, "bob", 5, 0)
    assert (asked.known()[5], asked.is_open()) == (0, False)
    assert ask_again(asked, 5).asked == 0  # it has its label: ann need not look
    assert see(asked, "ann", last=5).last.label is None


def test_only_what_waits_can_be_settled_or_asked_again(asked: Asked) -> None:
    asked.want([4, 9])
    say(asked, "ann", 4, None)
    for act in (lambda place, **m: settle(asked, place, 0, **m), lambda place, **m: ask_again(asked, place, **m)):
        for place in (5, -1, 300, 10**30):
            with pytest.raises(StateError, match="not wanted"):
                act(place)
        with pytest.raises(StateError, match="has ended"):
            act(4, test_set_id=asked.set_id + 1)
    with pytest.raises(StateError, match="none has passed on it"):
        settle(asked, 9, 0)
    for label in (2, -1, -2, 10**30):
        with pytest.raises(ConfigError, match="from 0 to 1"):
            settle(asked, 4, label)
    for place in (300, -1, 10**30):
        assert see(asked, "ada", decides=True, settles=place).example.settles == ""
    assert (asked.known() == -1).all()


@given(st.lists(st.lists(st.integers(-2, 2), min_size=6, max_size=6), max_size=4))
def test_nobody_can_tell_where_some_pass_and_none_has_a_label(table: list[list[int]]) -> None:
    words = {f"l{n}": np.array(said, dtype=np.int64) for n, said in enumerate(table)}
    expected = [
        0 if any(said[place] >= 0 for said in table) else sum(said[place] == -2 for said in table) for place in range(6)
    ]
    assert cannot_tell(words, 6).tolist() == expected


def test_a_label_is_kept_once_replaced_and_taken_back_until_it_may_be_used(asked: Asked) -> None:
    asked.want([1, 2])
    assert [say(asked, "ann", 1, 0).changed for _ in range(2)] == [True, False]
    assert (say(asked, "ann", 1, 1).changed, asked.known()[1]) == (True, 1)
    assert [undo(asked, "ann", 1).changed for _ in range(2)] == [True, False]
    assert (asked.known()[1], shown(asked, "ann")) == (-1, 1)
    say(asked, "ann", 1, 1)
    assert see(asked, "ann", last=1).last.may_undo
    say(asked, "ann", 2, 1)
    assert not see(asked, "ann", last=1).last.may_undo
    for change in (lambda: say(asked, "ann", 1, 0), lambda: undo(asked, "ann", 1)):
        with pytest.raises(StateError, match="a verdict may have used"):
            change()
    assert asked.known()[1] == 1


def test_one_person_with_two_names_turns_no_label_that_a_verdict_may_have_used(asked: Asked) -> None:
    asked.want([1, 2, 3])
    say(asked, "ann", 3, 0)
    say(asked, "bob", 3, 1)
    settle(asked, 3, 0)
    for place in (1, 2):
        say(asked, "ann", place, 0)
    assert not asked.is_open()
    for place in (1, 2, 3):
        with pytest.raises(StateError, match=rf"place {place} already, so it stays; .* seal a new one"):
            say(asked, "boss", place, 1)
        for act in (lambda at: settle(asked, at, 1), lambda at: say(asked, "referee", at, 1)):
            with pytest.raises(StateError, match=r"nothing to settle|a verdict may have used"):
                act(place)
    assert say(asked, "boss", 1, 0).changed  # the same word, and none, change nothing
    assert say(asked, "cy", 1, None).changed
    assert [asked.known()[p] for p in (1, 2, 3)] == [0, 0, 0]
    assert see(asked, "ada", decides=True).disputes == []


def test_no_second_labeler_is_shown_what_they_could_not_answer_freely(asked: Asked) -> None:
    asked.want([10])
    say(asked, "ann", 10, 0)
    with asked.database.worker.begin() as tx:
        model_id = models.baseline_model(tx, asked.study_id).id
    answer = {"study": asked.study, "model_id": model_id, "request_key": "another"}
    later = file_gate_request(asked.database.worker, **answer)
    with asked.database.referee.begin() as tx:
        labels.want(tx, request_id=later, test_set_id=asked.set_id, positions=np.array([10, 20, 21]))
    say(asked, "ann", 20, 0)
    assert (shown(asked, "bob"), shown(asked, "bob", at=10)) == (20, 20)


def test_what_was_not_asked_or_is_no_class_is_refused(asked: Asked) -> None:
    with pytest.raises(NotFoundError, match="no study that wants labels 'cancer'"):
        see(asked, "ann")
    asked.want([4])
    for place in (5, -1, 300, 10**30):
        with pytest.raises(StateError, match="not wanted"):
            say(asked, "ann", place, 0)
    for label in (2, -1, -2, 10**30):
        with pytest.raises(ConfigError, match="from 0 to 1"):
            say(asked, "ann", 4, label)
    with pytest.raises(StateError, match="has ended"):
        say(asked, "ann", 4, 0, test_set_id=asked.set_id + 1)
    assert see(asked, "ann", at=10**30, last=-(10**30)).last is None
    retire_test_set(asked.database.referee, test_set="autumn")
    with pytest.raises(NotFoundError, match="no study that wants labels"):
        say(asked, "ann", 4, 0)
    assert (asked.known() == -1).all()


def test_the_command_line_and_the_desk_ask_for_the_same_examples(asked: Asked) -> None:
    asked.want(range(0, 40, 3))
    for entry in wanted_labels(asked.database.referee, study=asked.study, labeler="ann").examples:
        example = see(asked, "ann").example
        assert (example.example, tuple(example.inputs)) == (entry.example, entry.inputs)
        say(asked, "ann", example.place, 0)
    assert shown(asked, "ann") is None


def test_words_are_shown_as_they_were_brought(database: Any, artifacts: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def rows(count: int, first: int) -> list[list[str]]:
        kinds = rng.integers(0, 2, count)
        texts = [f'ticket {first + i} says {("no", "yes")[kind]} "a\tb"' for i, kind in enumerate(kinds)]
        return [[text, f"{rng.normal():.4f}", ("no", "yes")[kind]] for text, kind in zip(texts, kinds, strict=True)]

    (tmp_path / "lab").mkdir()
    table = tmp_path / "lab" / "tickets.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([["text", "age", "label"], *rows(900, 0)])
    settings = {"gate": SMALL_GATE, "meter": SMALL_METER, "request_key": "register"}
    register_study(database.worker, study="tickets", tenant="lab", source="csv:tickets.csv", target="label", **settings)
    Referee(database.referee, artifacts, data=tmp_path).answer_one()
    path = tmp_path / "more.csv"
    brought = [[f"t{i}", *row[:2]] for i, row in enumerate(rows(300, 5000))]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["example", "text", "age"], *brought])
    retire_test_set(database.referee, test_set="1")
    done = seal_test_set(database.referee, artifacts, study="tickets", inputs=path)
    by_key = {key: [("text", text), ("age", age)] for key, text, age in brought}
    with database.referee.begin() as tx:
        keys = sealed.sealed_keys(tx, done.test_set_id)
        for place in (0, 150, 299):
            assert labels.example_cells(tx, done.test_set_id, place) == by_key[keys[place]]
        assert labels.example_cells(tx, done.test_set_id, 300) is None
    assert seal_test_set(database.referee, artifacts, study="tickets", inputs=path).sealed_before


@given(st.text(max_size=70))
def test_a_labelers_name_is_one_that_the_schema_takes_or_is_refused(name: str) -> None:
    try:
        kept = desk.labeler_name(name)
    except InvalidInputError:
        return
    assert kept == kept.lower()
    assert 1 <= len(kept) <= 63
    assert kept.isascii()
    assert " " not in kept


@pytest.mark.parametrize("dtype", ["float32", "float64", "<i8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_one_example_is_read_without_the_others(asked: Asked, dtype: str, order: Any) -> None:
    inputs = np.asarray(np.random.default_rng(0).uniform(0, 99, (300, 30)).astype(dtype), order=order)
    with asked.database.referee.begin() as tx:
        before = sealed.sealed_inputs(tx, asked.set_id)
        np.testing.assert_array_equal(labels.example_inputs(tx, asked.set_id, 299), before[299])
    parts = pack(inputs)
    shape, in_columns, kind, begin = labels._header(parts[:1024])
    assert (shape, in_columns, kind) == ((300, 30), order == "F", np.dtype(dtype))
    assert parts[begin:] == inputs.tobytes(order)


def test_where_not_all_batches_are_listed_none_that_waits_is_left_out(
    asked: Asked, database: Any, artifacts: Any, make_study: Callable[..., str], tmp_path: Path
) -> None:
    """By name alone, finished batches would replace those that a request waits for."""
    later = make_study("ulcer", source="sklearn:digits", tenant="elsewhere")
    other = Asked(database, artifacts, tmp_path, later, "sklearn:digits")
    asked.want([3])
    other.want([5])
    say(asked, "ann", 3, 1)

    def listed(limit: int) -> list[str]:
        return [batch.study for batch in desk.batches(database.referee, labeler="ann", limit=limit)]

    assert listed(1) == ["ulcer"]
    assert listed(2) == ["ulcer", "cancer"]


def test_the_referee_asks_for_as_many_disagreements_as_the_submission_needs(asked: Asked) -> None:
    """Not for all: the first ones in the set's order, as many as predictions alone say; the report counts no others."""
    rng, judge = np.random.default_rng(4), Referee(asked.database.referee, asked.artifacts)
    old, differ = rng.integers(0, 2, ROWS), rng.random(ROWS) < 0.3
    with asked.database.referee.begin() as tx:
        newest = tx.execute(text("SELECT max(id) FROM work.models")).scalar_one()
        new = np.where(differ, 1 - old, old)
        said = {models.baseline_model(tx, asked.study_id): old, models.get_model(tx, asked.study_id, newest): new}
        for model, answers in said.items():
            sealed.keep_predictions(tx, asked.set_id, model.identity, labels=answers, failure=None)
    judge.answer_one()
    (wants,) = open_wanted(asked)
    many = wants.positions.size
    assert np.array_equal(wants.positions, np.flatnonzero(differ)[:many])
    assert 0 < many < differ.sum() / 2
    truth = [[asked.keys[k], ("malignant", "benign")[new[k]]] for k in wants.positions]
    path = asked.write([["example", "label"], *truth])
    give_labels(asked.database.referee, study=asked.study, labeler="ann", labels=path)
    judge.answer_one()
    with asked.database.referee.begin() as tx:
        report = tx.execute(text("SELECT report FROM sealed.ledger")).scalar_one()
    counted = [report[name] for name in ("symbol", "judged", "wins", "losses", "labels", "disagreements")]
    assert counted == ["pass", many, many, 0, many, differ.sum()]
    # A third party judges the counts again (``promotion verify``), with the number that was counted among.
    checked = _Work({})
    checked._verdict({"mode": "fp-free"}, report, report, on_demand=True)
    assert checked.faults == []
    checked._verdict({"mode": "fp-free"}, report, report | {"judged": many - 1}, on_demand=True)
    assert f"counts the first {many - 1} disagreements, by the predictions it is the first {many}" in checked.faults[0]
