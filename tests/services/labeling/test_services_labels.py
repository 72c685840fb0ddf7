"""Labels on demand: what is wanted, what labelers say, where they differ, and that used labels stay."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from easeml_core.data.sources.load import load_source
from easeml_core.errors import ConfigError, InvalidInputError, NotFoundError, StateError, StoreError
from easeml_core.formats.encoding import row_of
from easeml_core.services.labeling.requests import GivenLabels, give_labels, label_conflicts, wanted_labels
from easeml_core.services.referee.requests import file_gate_request
from easeml_core.services.test_sets.lifecycle import retire_test_set
from easeml_core.services.test_sets.upload import seal_test_set
from easeml_core.store.tables import labels, sealed

if TYPE_CHECKING:
    from pathlib import Path

CLASSES = ("malignant", "benign")
ROWS = 300


class Desk:
    """A study whose live set asks people for labels, and the requests that wait for them."""

    def __init__(self, lab: Any, folder: Path) -> None:
        self.lab, self.folder = lab, folder
        retire_test_set(lab.referee, test_set="1")
        table, rng = load_source("sklearn:breast_cancer"), np.random.default_rng(1)
        chosen = rng.choice(len(table.labels), ROWS, replace=False)
        values = (table.inputs[chosen] * rng.uniform(0.99, 1.01, (ROWS, 30))).astype(np.float32)
        self.path = folder / "file.csv"
        self.write([["example", *table.feature_names], *([f"=p{i}", *map(str, v)] for i, v in enumerate(values))])
        done = seal_test_set(lab.referee, lab.artifacts, study="full", inputs=self.path)
        assert (done.state, done.labels_on_demand) == ("live", True)
        self.set_id: int = done.test_set_id
        with lab.referee.begin() as tx:
            self.keys, self.inputs = sealed.sealed_keys(tx, self.set_id), sealed.sealed_inputs(tx, self.set_id)
        self.truth = dict(zip((f"=p{i}" for i in range(ROWS)), table.labels[chosen], strict=True))

    def write(self, rows: list[list[Any]]) -> Path:
        with self.path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)
        return self.path

    def ask(self, positions: Any, model: str = "good") -> int:
        """A gate request that waits for the labels at these positions."""
        asked = {"study": "full", "model_id": self.lab.models["full"][model], "request_key": f"gate/{model}"}
        request_id: int = file_gate_request(self.lab.worker, **asked)
        self.want(request_id, positions)
        return request_id

    def want(self, request_id: int, positions: Any) -> None:
        with self.lab.referee.begin() as tx:
            labels.want(tx, request_id=request_id, test_set_id=self.set_id, positions=np.array(positions))

    def wanted(self, **asked: Any) -> list[str]:
        found = wanted_labels(self.lab.referee, study="full", **asked)
        return [entry.example for entry in found.examples]

    def give(self, labeler: str, said: dict[str, Any]) -> GivenLabels:
        self.write([["example", "label"], *([key, word] for key, word in said.items())])
        return give_labels(self.lab.referee, study="full", labeler=labeler, labels=self.path)

    def at(self, *positions: int) -> dict[str, str]:
        """Key to true class name of these positions."""
        return {self.keys[p]: CLASSES[self.truth[self.keys[p]]] for p in positions}

    def other(self, *positions: int) -> dict[str, str]:
        return {self.keys[p]: CLASSES[1 - self.truth[self.keys[p]]] for p in positions}

    def known(self) -> np.ndarray:
        with self.lab.referee.begin() as tx:
            return labels.known_labels(tx, self.set_id)

    def open_requests(self) -> list[int]:
        with self.lab.referee.begin() as tx:
            return [wanted.request_id for wanted in labels.open_wanted(tx)]

    def conflicts(self) -> list[dict[str, Any]]:
        return [row_of(found) for found in label_conflicts(self.lab.referee, study="full").conflicts]


@pytest.fixture
def desk(lab: Any, tmp_path: Path) -> Desk:
    return Desk(lab, tmp_path)


def test_nothing_is_wanted_before_a_request_needs_it(desk: Desk) -> None:
    assert (desk.wanted(), desk.conflicts(), set(desk.known())) == ([], [], {-1})


def test_what_is_wanted_is_the_union_over_requests_in_the_sets_order(desk: Desk) -> None:
    desk.ask([40, 7, 3])
    desk.ask([299, 3, 8], model="worse")
    assert desk.wanted() == [desk.keys[p] for p in (3, 7, 8, 40, 299)]
    found = wanted_labels(desk.lab.referee, study="full", limit=2)
    assert (found.wanted, found.classes, len(found.columns)) == (5, tuple(CLASSES), 30)
    assert [e.example for e in found.examples] == [desk.keys[3], desk.keys[7]]
    np.testing.assert_array_equal(np.float32(found.examples[1].inputs), desk.inputs[7])
    assert set(row_of(found)) == {
        "test_set_id",
        "study",
        "wanted",
        "classes",
        "columns",
        "examples",
    }  # no model, no prediction


def test_wanted_examples_are_written_as_csv_without_formulas_and_their_labels_are_taken(
    desk: Desk, tmp_path: Path
) -> None:
    desk.ask([5, 9])
    wanted_labels(desk.lab.referee, study="full", to=tmp_path / "wanted.csv")
    rows = list(csv.reader(io.StringIO((tmp_path / "wanted.csv").read_text())))
    assert desk.keys[5].startswith("=p")
    assert [row[0] for row in rows] == ["example", *(f"'{desk.keys[place]}" for place in (5, 9))]
    np.testing.assert_array_equal(np.array(rows[2][1:], dtype=np.float32), desk.inputs[9])
    answer = desk.give("ann", {rows[1][0]: CLASSES[0], rows[2][0]: CLASSES[1]})
    assert (answer.new, answer.wanted) == (2, 0)


def test_a_request_waits_until_all_its_labels_are_there(desk: Desk) -> None:
    first, second = desk.ask([1, 2, 3]), desk.ask([3, 4], model="worse")
    answer = desk.give("ann", desk.at(1, 3, 4))
    counts = {"new": 3, "unchanged": 0, "replaced": 0, "conflicts": 0, "wanted": 1}
    assert answer == GivenLabels(answer.test_set_id, "full", "ann", **counts)
    assert desk.open_requests() == [first]
    assert desk.wanted() == [desk.keys[2]]
    desk.give("bob", desk.at(2))
    assert desk.open_requests() == []
    expected = np.full(ROWS, -1)
    expected[[1, 2, 3, 4]] = [desk.truth[desk.keys[p]] for p in (1, 2, 3, 4)]
    np.testing.assert_array_equal(desk.known(), expected)
    desk.want(second, [3, 4])  # all known already: it does not wait
    assert desk.open_requests() == []


def test_labels_are_class_names_or_indices_and_the_call_may_be_repeated(desk: Desk) -> None:
    desk.ask([1, 2, 3])
    said = desk.at(1, 2)
    assert desk.give("ann", said).new == 2
    again = desk.give("ann", {key: CLASSES.index(word) for key, word in said.items()})
    assert (again.new, again.unchanged, again.replaced) == (0, 2, 0)


def test_whatever_is_wrong_is_named_by_its_line_and_nothing_is_kept(desk: Desk) -> None:
    desk.ask([1, 2])
    key, other, unasked = desk.keys[1], desk.keys[2], desk.keys[9]
    cases: dict[str, dict[str, Any]] = {
        "line 3 .* has no such example": {key: 0, "nobody": 1},
        "line 3 .* the label of this example is not wanted": {key: 0, unasked: 1},
        "line 3 .*: 'sick' is no class of the study": {key: 0, other: "sick"},
        r"line 3 .*: '2' is no class": {key: 0, other: 2},
        r"line 3 .*: '-1' is no class": {key: 0, other: -1},
        r"line 3 .*: '' is no class": {key: 0, other: ""},
        r"line 2 .*: a key must be 1 to 200 printable characters": {"": 0},
    }
    for message, said in cases.items():
        with pytest.raises(InvalidInputError, match=message):
            desk.give("ann", said)
    for name in ("", "Ann", "a b", "ann'; DROP TABLE", "x" * 64):
        with pytest.raises(InvalidInputError, match="a labeler's name must be"):
            desk.give(name, {key: 0})
    assert desk.lab.one("SELECT count(*) FROM sealed.labels") == 0
    assert set(desk.known()) == {-1}


def test_two_labelers_who_differ_make_a_conflict_and_the_referee_settles_it(desk: Desk) -> None:
    request_id = desk.ask([1, 2, 3])
    desk.give("ann", desk.at(1, 2))
    assert desk.wanted(labeler="bob") == [desk.keys[p] for p in (1, 2, 3)]
    assert desk.wanted(labeler="ann") == [desk.keys[3]]
    assert desk.give("bob", desk.at(1, 3) | desk.other(2)).conflicts == 1
    assert (desk.open_requests(), desk.wanted(), desk.known()[2]) == ([request_id], [], -1)
    said = {"ann": desk.at(2)[desk.keys[2]], "bob": desk.other(2)[desk.keys[2]]}
    assert desk.conflicts() == [{"example": desk.keys[2], "labels": said}]
    assert desk.give("referee", desk.other(2)).conflicts == 0
    assert (desk.open_requests(), desk.conflicts()) == ([], [])
    assert desk.known()[2] == 1 - desk.truth[desk.keys[2]]
    assert desk.known()[1] == desk.truth[desk.keys[1]]


def test_a_labeler_may_correct_what_no_verdict_can_have_used(desk: Desk) -> None:
    request_id = desk.ask([1, 2, 3])
    desk.give("ann", desk.other(1, 2))
    answer = desk.give("ann", desk.at(1) | desk.other(2))
    assert (answer.replaced, answer.unchanged) == (1, 1)
    assert desk.known()[1] == desk.truth[desk.keys[1]]
    desk.give("ann", desk.at(3))  # now the request has all it wanted
    refused = pytest.raises(InvalidInputError, match=r"line 2 .* a verdict may have used .* \(1 such rows\)")
    with refused:
        desk.give("ann", desk.at(2, 3))
    desk.want(request_id, [3, 4])  # a next batch: what was asked for before stays used
    with refused:
        desk.give("ann", desk.at(2))
    desk.give("ann", desk.other(4))
    assert desk.known()[2] == 1 - desk.truth[desk.keys[2]]


def test_a_label_that_another_requests_verdict_used_stays(desk: Desk) -> None:
    desk.ask([1])
    desk.give("ann", desk.at(1))
    desk.ask([1, 2], model="worse")
    with pytest.raises(InvalidInputError, match="a verdict may have used"):
        desk.give("ann", desk.other(1))


def test_no_other_labeler_turns_a_label_that_a_verdict_may_have_used(desk: Desk) -> None:
    """Else one person with two names, or the referee, could turn a verdict's labels after reading it."""
    desk.ask([1, 2])
    desk.give("ann", desk.at(1, 2))
    word = desk.at(1)[desk.keys[1]]
    refused = rf"line 2 .* a verdict may have used label '{word}' .* \(2 such rows\).* seal a new one"
    for labeler in ("bob", "referee"):
        with pytest.raises(InvalidInputError, match=refused):
            desk.give(labeler, desk.other(1, 2))
        assert desk.give(labeler, desk.at(1)).new == 1  # who says the same changes nothing
    assert [desk.known()[p] for p in (1, 2)] == [desk.truth[desk.keys[p]] for p in (1, 2)]
    assert (desk.conflicts(), desk.lab.one("SELECT count(*) FROM sealed.labels")) == ([], 3)


def test_a_second_opinion_is_wanted_only_where_it_may_differ(desk: Desk) -> None:
    desk.ask([1])
    desk.give("ann", desk.at(1))
    desk.ask([1, 2, 3], model="worse")
    desk.give("ann", desk.at(2))
    assert desk.wanted(labeler="bob") == [desk.keys[p] for p in (2, 3)]


def test_a_set_with_sealed_labels_asks_nobody(desk: Desk) -> None:
    with pytest.raises(StateError, match="test set '2' was sealed with its labels"):
        give_labels(desk.lab.referee, study="full", labeler="ann", labels=desk.path, test_set="2")


def test_a_study_without_a_live_set_says_what_to_do(desk: Desk) -> None:
    retire_test_set(desk.lab.referee, test_set=str(desk.set_id))
    with pytest.raises(StateError, match="has no live gate set; seal one with `easeml test-set seal --study full`"):
        desk.wanted()
    with pytest.raises(NotFoundError, match="there is no test set 'spring'"):
        desk.wanted(test_set="spring")
    assert desk.wanted(test_set=str(desk.set_id)) == []


@pytest.mark.parametrize("limit", [0, -1, 100_001])
def test_the_limit_is_bounded(limit: int, desk: Desk) -> None:
    with pytest.raises(ConfigError, match="limit must be from 1 to 100,000"):
        desk.wanted(limit=limit)


def test_a_worker_reads_and_gives_no_label(desk: Desk) -> None:
    desk.ask([1])
    worker = desk.lab.worker
    for call in (wanted_labels, label_conflicts):
        with pytest.raises(StoreError, match="this role may not do that"):
            call(worker, study="full")
    desk.write([["example", "label"], [desk.keys[1], 0]])
    with pytest.raises(StoreError, match="this role may not do that"):
        give_labels(worker, study="full", labeler="ann", labels=desk.path)
    for table in ("labels", "wanted"):
        with pytest.raises(StoreError, match="permission denied for schema sealed"):
            desk.lab.rows(f"SELECT * FROM sealed.{table}", store=worker)


def test_neither_how_many_labels_nor_which_shows_in_the_tables_shape(desk: Desk) -> None:
    """Every role may ask for the number and the size of the rows, not for what is in them."""
    request_id = desk.ask(range(100))
    shape = "SELECT count(*), min(octet_length({0})), max(octet_length({0})) FROM sealed.{1}"
    seen = set()
    for count in (1, 60, 100):
        desk.give("ann", desk.at(*range(count)))
        desk.want(request_id, range(100, 100 + count))
        with desk.lab.referee.begin() as tx:
            labels.close_wanted(tx, request_id)
        columns = (("labels", "labels"), ("examples", "wanted"), ("asked", "wanted"))
        seen.add(tuple(desk.lab.rows(shape.format(column, table))[0] for column, table in columns))
    assert len(seen) == 1
