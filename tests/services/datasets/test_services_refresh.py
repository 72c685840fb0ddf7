"""Feeding and refining: what is new comes into the next data version once, and nothing else does."""

from __future__ import annotations

import contextlib
import csv
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from fed_rows import CLASSES, NAMES, as_pairs, bring, new_rows, renew
from killed import die, killed_in

from easeml_core.errors import ConfigError, InvalidInputError, NotFoundError, StateError
from easeml_core.services.datasets import refresh
from easeml_core.services.datasets.feed import file_refresh, list_feeds, studies_that_wait
from easeml_core.services.datasets.refine import list_pairs
from easeml_core.services.models.inference import infer
from easeml_core.services.referee.process import Referee
from easeml_core.services.test_sets.lifecycle import retire_test_set
from easeml_core.services.test_sets.release import release_test_set
from easeml_core.store.database import Store
from easeml_core.store.tables import sealed
from easeml_core.store.tables.test_sets import example_hashes

if TYPE_CHECKING:
    from pathlib import Path


def test_new_pairs_are_in_the_next_training_part_and_nothing_else_changes(lab: Any) -> None:
    before, (inputs, labels) = lab.open_parts(), new_rows(40)
    fed = bring(lab, as_pairs(inputs, labels))
    assert fed.rows == 40
    assert studies_that_wait(lab.worker) == ["full"]
    assert lab.open_parts().train_labels.shape == before.train_labels.shape  # feeding alone makes no version
    answer = renew(lab)
    assert not answer.refused
    assert (answer.version, answer.train_rows) == (2, 214)
    assert answer.message == "study full has version 2 of its data; training rows: 214, before 174"
    after = lab.open_parts()
    assert (after.train_inputs == np.vstack([before.train_inputs, inputs])).all()
    assert (after.train_labels == np.concatenate([before.train_labels, labels])).all()
    assert (after.validation_inputs == before.validation_inputs).all()
    assert lab.one("SELECT same_training_as FROM work.data_versions WHERE study_id = 1 AND version = 2") is None
    assert lab.one("SELECT count(*) FROM work.fed_examples") == 40
    assert lab.one("SELECT count(*) FROM work.models WHERE data_version_id <> 1 AND study_id = 1") == 1  # a baseline
    (entry,) = list_feeds(lab.worker, study="full")
    assert (entry.state, entry.rows, entry.fed_by, entry.origin) == ("taken", 40, "ann", "pairs")


def test_a_run_takes_the_studies_that_have_waited_longest(lab: Any) -> None:
    """By name a study that is fed each day would come before others for ever."""
    for study in ("full", "first"):
        bring(lab, as_pairs(*new_rows(1)), study=study)
    assert [studies_that_wait(lab.worker, most=n) for n in (1, 2)] == [["full"], ["full", "first"]]
    file_refresh(lab.worker, study="full", request_key="r")  # and it would fail, night after night
    assert studies_that_wait(lab.worker) == ["first", "full"]
    with pytest.raises(ConfigError, match="most"):
        studies_that_wait(lab.worker, most=0)


def test_what_is_known_already_makes_no_version(lab: Any) -> None:
    parts, (inputs, labels) = lab.open_parts(), new_rows(3)
    twice = as_pairs(np.vstack([inputs, inputs]), np.concatenate([labels, labels]))
    bring(lab, twice)
    assert renew(lab).train_rows == 174 + 3
    again = [parts.train_inputs[:5], parts.validation_inputs[:5], inputs]
    other_labels = 1 - np.concatenate([parts.train_labels[:5], parts.validation_labels[:5], labels])
    bring(lab, as_pairs(np.vstack(again), other_labels))  # another label alone makes a known row no new one
    answer = renew(lab)
    assert (answer.version, answer.train_rows) == (None, None)
    assert answer.message == "nothing is new: the training part of study full stays as it is"
    assert [entry.state for entry in list_feeds(lab.worker, study="full")] == ["taken", "taken"]
    assert renew(lab).version is None


def sealed_rows(lab: Any, where: str = "true") -> list[np.ndarray]:
    """Some rows of every sealed set."""
    with lab.referee.begin() as tx:
        sets = lab.rows(f"SELECT id FROM work.test_sets WHERE {where} ORDER BY id")
        return [sealed.sealed_inputs(tx, set_id)[:6] for (set_id,) in sets]


def without(rows: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The rows that are not among the known ones."""
    seen = {row.tobytes() for row in known}
    return np.array([row for row in rows if row.tobytes() not in seen])


def test_a_sealed_row_never_comes_in_and_no_user_is_notified(lab: Any) -> None:
    """Of the study's own sets, and of those of other studies of the same tenant."""
    parts = lab.open_parts()
    closed = without(np.vstack(sealed_rows(lab)), np.vstack([parts.train_inputs, parts.validation_inputs]))
    assert len(closed) > 12  # the own sets alone have so many here
    fresh, labels = new_rows(6)
    bring(lab, as_pairs(np.vstack([closed, fresh]), np.concatenate([np.zeros(len(closed), int), labels])))
    answer = renew(lab)
    assert answer.message == "study full has version 2 of its data; training rows: 180, before 174"
    assert (lab.open_parts().train_inputs[174:] == fresh).all()
    (entry,) = list_feeds(lab.worker, study="full")
    assert (entry.state, entry.reason) == ("taken", None)  # not reported


def test_a_released_row_may_be_learnt_from(bare: Any) -> None:
    bare.register("full")
    set_id = bare.one("SELECT id FROM work.test_sets WHERE purpose = 'meter'")
    (inputs,) = sealed_rows(bare, "purpose = 'meter'")
    before = len(bare.open_parts().train_labels)
    bring(bare, as_pairs(inputs, np.zeros(6, int)))
    assert renew(bare).version is None
    retire_test_set(bare.referee, test_set=str(set_id))
    release_test_set(bare.referee, bare.artifacts, test_set=str(set_id))
    bring(bare, as_pairs(inputs, np.zeros(6, int)))
    assert renew(bare).train_rows == before + 6


def seal_for_a_rival(lab: Any, inputs: np.ndarray) -> None:
    lab.as_superuser("INSERT INTO work.tenants (name) VALUES ('rival')")
    lab.as_superuser("ALTER TABLE work.studies DROP CONSTRAINT studies_data_set_fkey")
    rival = "tenant_id = (SELECT id FROM work.tenants WHERE name = 'rival')"
    lab.as_superuser(f"UPDATE work.studies SET {rival} WHERE name = 'first'")
    into = (
        "INSERT INTO sealed.examples (study_id, hash, test_set_id) SELECT t.study_id, h, t.id FROM work.test_sets t, "
        "unnest(%s) AS h WHERE t.study_id = (SELECT id FROM work.studies WHERE name = 'first') AND t.purpose = 'gate'"
    )
    lab.as_superuser(into, example_hashes(inputs, NAMES))


def test_another_tenants_table_is_refused_but_a_few_rows_of_it_tell_nothing(lab: Any) -> None:
    fresh, labels = new_rows(30)
    seal_for_a_rival(lab, fresh)
    bring(lab, as_pairs(fresh, labels))
    bring(lab, as_pairs(fresh[:5], labels[:5]))
    answer = renew(lab)
    assert answer.train_rows == 174 + 5
    assert answer.message.endswith("; feeds that were refused: 1 (`easeml refine feeds full` says why)")
    reasons = [entry.reason for entry in list_feeds(lab.worker, study="full")]
    assert reasons == [None, "another tenant's study has sealed its rows"]


def test_nobody_learns_row_by_row_what_another_tenant_has_sealed(lab: Any) -> None:
    """Beside five rows that are known to be sealed, one more decides; three such answers are given, and no fourth."""
    fresh, labels = new_rows(25)
    is_sealed = np.arange(25) % 2 == 0
    seal_for_a_rival(lab, fresh[is_sealed])
    known, probes = np.flatnonzero(is_sealed)[:5], range(10, 25)
    for probe in probes:
        chosen = [*known, probe]
        bring(lab, as_pairs(fresh[chosen], labels[chosen]))
    renew(lab)
    shown = [entry.reason for entry in reversed(list_feeds(lab.worker, study="full"))]
    anothers = "another tenant's study has sealed its rows"
    assert shown[:5] == [anothers, None, anothers, None, anothers]
    assert all("so it takes no more" in reason for reason in shown[5:])


def test_the_same_key_feeds_once_and_another_pair_under_it_is_refused(lab: Any) -> None:
    pairs = as_pairs(*new_rows(4))
    first = bring(lab, pairs, request_key="k")
    assert bring(lab, pairs, request_key="k") == first
    with pytest.raises(InvalidInputError, match="request key 'k' has fed other pairs"):
        bring(lab, pairs[:3], request_key="k")
    with pytest.raises(InvalidInputError, match="request_key must not be empty"):
        bring(lab, pairs, request_key="")
    filed = [file_refresh(lab.worker, study="full", request_key="r").request_id for _ in range(2)]
    assert filed[0] == filed[1]
    assert lab.answer(filed[0]).train_rows == 178


def test_two_referees_and_many_feeders_at_once_lose_and_double_nothing(lab: Any) -> None:
    inputs, labels = new_rows(48)
    pairs = as_pairs(inputs, labels)

    def feeder(number: int) -> None:
        for start in range(0, 48, 8):  # every tenant feeds the same rows, each in another order
            at = (start + 8 * number) % 48
            bring(lab, pairs[at : at + 8], request_key=f"{number}/{start}")
            with contextlib.suppress(StateError):  # enough of them wait
                file_refresh(lab.worker, study="full", request_key=f"refresh/{number}/{start}")

    def referee() -> None:
        for _ in range(12):
            Referee(lab.referee, lab.artifacts).answer_one()

    with ThreadPoolExecutor(5) as pool:
        work = [pool.submit(feeder, n) for n in range(3)] + [pool.submit(referee) for _ in range(2)]
        for one in work:
            one.result()
    lab.answer_all()
    assert (
        lab.one(
            "SELECT count(*) FROM work.requests r LEFT JOIN work.answers a ON a.request_id = r.id "
            "WHERE r.kind = 'refresh' AND (a.refused IS NULL OR a.refused)"
        )
        == 0
    )
    renew(lab)
    found = lab.open_parts().train_inputs[174:]
    assert {row.tobytes() for row in found} == {row.tobytes() for row in inputs}
    assert len(found) == 48
    assert {entry.state for entry in list_feeds(lab.worker, study="full")} == {"taken"}


def test_a_refresh_looks_at_so_many_feeds_and_says_that_there_are_more(lab: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(refresh, "MOST_FEEDS", 2)
    for pair in as_pairs(*new_rows(3)):
        bring(lab, [pair])
    answer = renew(lab)
    assert answer.train_rows == 176
    assert answer.message.endswith("; the first 2 feeds were looked at, ask again for the rest")
    assert studies_that_wait(lab.worker) == ["full"]
    assert renew(lab).train_rows == 177


def test_a_referee_that_is_killed_has_taken_nothing(lab: Any) -> None:
    bring(lab, as_pairs(*new_rows(5)))
    filed = file_refresh(lab.worker, study="full", request_key="r").request_id

    def referee() -> None:
        vars(refresh.datasets)["add_refresh"] = die
        Referee(Store(lab.url("easeml_referee")), lab.artifacts).answer_one()

    killed_in(referee)
    lab.end_leases()
    assert lab.one("SELECT count(*) FROM work.data_versions WHERE study_id = 1") == 1
    assert list_feeds(lab.worker, study="full")[0].state == "waiting"
    assert lab.answer(filed).train_rows == 179
    assert lab.one("SELECT count(*) FROM work.data_versions WHERE study_id = 1") == 2
    assert lab.one("SELECT count(*) FROM work.fed_examples") == 5


def write(path: Path, rows: list[list[Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def test_files_of_every_kind_are_fed(lab: Any, tmp_path: Path) -> None:
    inputs, labels = new_rows(40)
    words = [CLASSES[label] for label in labels]
    order = list(reversed(range(30)))  # columns may come in any order
    table = write(
        tmp_path / "a.csv",
        [
            [*(NAMES[i] for i in order), "truth"],
            *([*row[order].tolist(), w] for row, w in zip(inputs[:10], words, strict=False)),
        ],
    )
    keyed = write(tmp_path / "b.csv", [["example", *NAMES], *([f"r{i}", *inputs[10 + i].tolist()] for i in range(10))])
    truth = write(tmp_path / "c.csv", [["example", "label"], *([f"r{i}", words[10 + i]] for i in reversed(range(10)))])
    for name, targets, rows in (("names", np.array(words[20:30]), inputs[20:30]), ("codes", labels[30:], inputs[30:])):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "inputs.npy", rows)
        np.save(tmp_path / name / "targets.npy", targets)
    given = (
        {"path": table, "label_column": "truth"},
        {"path": keyed, "labels": truth},
        {"path": tmp_path / "names"},
        {"path": tmp_path / "codes"},
    )
    for one in given:
        assert bring(lab, None, **one).rows == 10
    renew(lab)
    after = lab.open_parts()
    assert (after.train_inputs[174:] == inputs).all()
    assert (after.train_labels[174:] == labels).all()


@pytest.mark.parametrize(
    ("header", "row", "words"),
    [
        ([*NAMES], [1] * 30, "there is no column 'label'"),
        ([*NAMES[:-1], "label"], [1] * 29 + ["benign"], "are missing"),
        ([*NAMES, "label", "note"], [1] * 30 + ["benign", "x"], "the columns 'note' are none of the study's inputs"),
        ([*NAMES, "label"], [1] * 29 + ["word", "benign"], "must be a number or empty, got 'word'"),
        ([*NAMES, "label"], [1] * 29 + ["benign"], "line 2 has 30 cells"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_with_the_place(
    header: list[str], row: list[Any], words: str, lab: Any, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInputError, match=words):
        bring(lab, None, path=write(tmp_path / "x.csv", [header, row]))


def test_who_feeds_and_to_what_is_checked(lab: Any, bare: Any) -> None:
    with pytest.raises(InvalidInputError, match="fed_by must be 1 to 200 printable characters"):
        bring(lab, as_pairs(*new_rows(1)), fed_by=" ")
    with pytest.raises(NotFoundError, match="there is no study 'fool'"):
        bring(lab, as_pairs(*new_rows(1)), study="fool")
    with pytest.raises(InvalidInputError, match="give pairs, or the path"):
        bring(lab, None)
    bare.register("iris", source="sklearn:iris")  # refused: too few rows
    with pytest.raises(StateError, match="study 'iris' was refused"):
        bring(bare, [], study="iris")


def test_numbers_to_predict_are_fed_refined_and_asked_for(bare: Any) -> None:
    answer = bare.register(
        "sugar",
        source="sklearn:diabetes",
        task="regression",
        hit="within:50",
        candidates=None,
        gate={"condition": "n > 0.2 +/- 0.2", "reliability": 0.8, "steps": 1},
        meter={"ranges": (0.9,), "tolerance": 0.5, "reliability": 0.8, "steps": 1},
    )
    assert not answer.refused, answer.message
    before = bare.open_parts("sugar")
    moved = before.train_inputs[:25] + np.float32(0.001)  # so many that the median moves, however the rows are divided
    labels = [20.5 + n for n in range(25)]
    pairs = [{"inputs": row.tolist(), "label": label} for row, label in zip(moved, labels, strict=True)]
    bring(bare, pairs, study="sugar")
    with pytest.raises(InvalidInputError, match="must be a number"):
        bring(bare, [pairs[0] | {"label": "much"}], study="sugar")
    shown = renew(bare, "sugar")
    assert shown.train_rows == len(before.train_labels) + 25
    after = bare.open_parts("sugar")
    assert after.train_labels[-25:].tolist() == labels
    listed = list_pairs(bare.worker, bare.artifacts, study="sugar", limit=1).pairs[0]
    assert (listed.label, listed.origin) == (labels[-1], "feed 1")
    (baseline,) = bare.rows("SELECT max(id) FROM work.models")[0]
    asked = infer(bare.worker, bare.artifacts, study="sugar", inputs=moved.tolist(), model=baseline)
    assert np.median(after.train_labels) != np.median(before.train_labels)
    assert asked.labels == [float(np.median(before.train_labels))] * 25
    with pytest.raises(InvalidInputError, match="predicts numbers, which have no probabilities"):
        infer(bare.worker, bare.artifacts, study="sugar", inputs=moved.tolist(), model=baseline, probabilities=True)
