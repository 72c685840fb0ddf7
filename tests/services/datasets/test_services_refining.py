"""Rows switched off and on, labels put right, and doubtful labels found; old observations stay where they were."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from easeml_core.data.sources.load import load_source
from easeml_core.errors import InvalidInputError, NotFoundError, TrainingError
from easeml_core.models.formats import save_constant
from easeml_core.services.datasets.feed import feed, file_refresh, studies_that_wait
from easeml_core.services.datasets.refine import PairList, SwitchedPairs, list_pairs, rank_pairs, switch_pairs
from easeml_core.services.selection.scheduler import suggest_trials
from easeml_core.services.test_sets.upload import seal_test_set
from easeml_core.store.tables import models
from easeml_core.store.tables.test_sets import example_hashes

if TYPE_CHECKING:
    from pathlib import Path

NAMES = load_source("sklearn:breast_cancer").feature_names
CLASSES = ("malignant", "benign")


def switch(lab: Any, hashes: list[str], *, on: bool = False, **more: Any) -> SwitchedPairs:
    given = {"study": "full", "hashes": hashes, "on": on, "reason": "looks wrong", "switched_by": "ann"}
    return switch_pairs(lab.worker, lab.artifacts, **given | {"request_key": lab.key()} | more)


def listed(lab: Any, **more: Any) -> PairList:
    return list_pairs(lab.worker, lab.artifacts, study="full", **more)


def renew(lab: Any) -> Any:
    return lab.answer(file_refresh(lab.worker, study="full", request_key=lab.key()).request_id)


def bring(lab: Any, row: np.ndarray, label: str) -> None:
    pairs = [{"inputs": row.tolist(), "label": label}]
    feed(lab.worker, lab.artifacts, study="full", pairs=pairs, fed_by="ann", request_key=lab.key())


def names_of(rows: np.ndarray) -> list[str]:
    return [example.hex() for example in example_hashes(rows, NAMES)]


def test_a_row_is_switched_off_and_on_again(lab: Any) -> None:
    before = lab.open_parts()
    first, second = names_of(before.train_inputs[:2])
    assert switch(lab, [first[:8], second]) == SwitchedPairs("full", 2, on=False)
    assert studies_that_wait(lab.worker) == ["full"]
    found = listed(lab, off=True)
    assert (found.on, found.off, found.waiting_pairs) == (174, 0, 0)
    assert [(p.hash, p.state) for p in found.pairs] == [
        (second[:12], "on, off with the next refresh"),
        (first[:12], "on, off with the next refresh"),
    ]
    assert renew(lab).train_rows == 172
    assert (lab.open_parts().train_inputs == before.train_inputs[2:]).all()
    found = listed(lab, off=True)
    assert (found.version, found.on, found.off) == (2, 172, 2)
    assert {(p.state, p.reason, p.origin) for p in found.pairs} == {("off", "looks wrong", "registered")}
    assert found.pairs[1].label == CLASSES[before.train_labels[0]]
    switch(lab, [first], on=True, reason="it was right")
    assert listed(lab, off=True).pairs[1].state == "off, on with the next refresh"
    assert renew(lab).train_rows == 173
    after = lab.open_parts()
    assert names_of(after.train_inputs[-1:]) == [first]
    assert after.train_labels[-1] == before.train_labels[0]
    switch(lab, [second], on=True)
    assert renew(lab).train_rows == 174
    assert {*names_of(lab.open_parts().train_inputs)} == {*names_of(before.train_inputs)}
    assert listed(lab, off=True).pairs == []
    switch(lab, [second], on=True)  # it is on already
    assert renew(lab).version is None


def test_the_last_word_counts(lab: Any) -> None:
    (first,) = names_of(lab.open_parts().train_inputs[:1])
    switch(lab, [first])
    switch(lab, [first], on=True)
    assert renew(lab).version is None
    switch(lab, [first], on=True)
    switch(lab, [first])
    assert renew(lab).train_rows == 173


def test_a_wrong_label_is_put_right_by_feeding_the_row_anew(lab: Any) -> None:
    parts = lab.open_parts()
    row, wrong = parts.train_inputs[0], CLASSES[parts.train_labels[0]]
    right = CLASSES[1 - parts.train_labels[0]]
    bring(lab, row, right)
    assert renew(lab).version is None  # as long as the row is on, its label stays
    switch(lab, names_of(row[None]))
    renew(lab)
    bring(lab, row, wrong)
    assert renew(lab).version is None  # the same pair stays off
    bring(lab, row, right)
    assert renew(lab).train_rows == 174
    after = lab.open_parts()
    assert (after.train_inputs[-1] == row).all()
    assert CLASSES[after.train_labels[-1]] == right
    newest = listed(lab, limit=1).pairs[0]
    assert (newest.origin, newest.state, newest.label) == ("feed 3", "on", right)


def test_only_rows_of_the_training_part_can_be_switched(lab: Any) -> None:
    parts = lab.open_parts()
    with pytest.raises(NotFoundError, match="rows of the validation part cannot be switched"):
        switch(lab, names_of(parts.validation_inputs[:1]))
    with pytest.raises(InvalidInputError, match="8 to 64 hexadecimal digits, got 'abc'"):
        switch(lab, ["abc"])
    with pytest.raises(InvalidInputError, match="reason must be 1 to 500 characters"):
        switch(lab, names_of(parts.train_inputs[:1]), reason="")
    with pytest.raises(InvalidInputError, match="hashes must be 1 to 10,000 rows"):
        switch(lab, [])
    first, second = names_of(parts.train_inputs[:2])
    assert switch(lab, [first], request_key="k").switched == 1
    assert switch(lab, [first], request_key="k").switched == 0
    with pytest.raises(InvalidInputError, match="request key 'k' has switched these rows otherwise"):
        switch(lab, [first], on=True, request_key="k")
    assert switch(lab, [second], request_key="k").switched == 1


def test_a_study_keeps_enough_rows_and_what_was_switched_waits(lab: Any) -> None:
    parts = lab.open_parts()
    benign = parts.train_inputs[parts.train_labels == 1]
    switch(lab, names_of(benign))
    answer = renew(lab)
    assert answer.refused
    assert "not all of one label: switch some on again" in answer.message
    assert studies_that_wait(lab.worker) == ["full"]
    switch(lab, names_of(benign[3:]), on=True)
    assert renew(lab).train_rows == 171


def test_a_row_that_was_sealed_meanwhile_does_not_come_back(lab: Any, tmp_path: Path) -> None:
    """Nothing seals a row that is open; if it happens all the same, the sealed set comes first."""
    row = lab.open_parts().train_inputs[:1]
    switch(lab, names_of(row))
    renew(lab)
    into = "INSERT INTO sealed.examples (study_id, hash, test_set_id) VALUES (1, %s, 1)"
    lab.as_superuser(into, example_hashes(row, NAMES)[0])
    switch(lab, names_of(row), on=True)
    assert renew(lab).version is None


def test_rows_that_are_switched_off_or_wait_are_not_sealed(lab: Any, tmp_path: Path) -> None:
    parts = lab.open_parts()
    moved = parts.train_inputs[:2] * np.float32(1.01)
    bring(lab, moved[0], "benign")
    renew(lab)
    switch(lab, names_of(moved[:1]))
    renew(lab)
    bring(lab, moved[1], "benign")
    for row in moved:
        path = tmp_path / "inputs.csv"
        rows = [row * np.float32(1 + k / 10_000) for k in range(300)]
        lines = [",".join(["example", *NAMES]), *(f"r{i}," + ",".join(map(str, r)) for i, r in enumerate(rows))]
        path.write_text("\n".join(lines))
        with pytest.raises(InvalidInputError, match="1 of 300 examples are known already, the first of them from the"):
            seal_test_set(lab.referee, lab.artifacts, study="full", inputs=path)


def test_candidates_are_tried_again_and_old_observations_stay_apart(lab: Any, tmp_path: Path) -> None:
    def suggested() -> set[str]:
        asked = {"count": 10, "studies_only": ["full"], "request_key": lab.key()}
        return {trial.candidate for trial in suggest_trials(lab.worker, **asked).trials}

    observed = lab.rows("SELECT trial_id, quality, cost_seconds FROM work.observations ORDER BY trial_id")
    new = suggested()
    assert new.isdisjoint({"good", "worse", "rare"})  # those have run
    switch(lab, names_of(lab.open_parts().train_inputs[:1]))
    renew(lab)
    with lab.worker.begin() as tx:
        assert models.best_model(tx, 1) is None  # nothing of the old version counts on the new one
        so_far = models.best_model_so_far(tx, 1)
        assert so_far is not None
        assert so_far.id == lab.models["full"]["good"]  # but until something was trained anew, it answers
    assert suggested() == new | {"good", "worse", "rare"}
    assert lab.rows("SELECT trial_id, quality, cost_seconds FROM work.observations ORDER BY trial_id") == observed
    save_constant(tmp_path / "rare", 0)
    handed = lab.hand_in("full", "late", tmp_path / "rare", kind="constant", loss=0.9)
    with lab.worker.begin() as tx:
        newest = models.best_model_so_far(tx, 1)
        assert newest is not None
        assert newest.id == handed  # the first of the new version, however good


def test_doubtful_labels_come_first(lab: Any) -> None:
    """Ten percent of the labels are flipped; most of the first ten percent of the ranking are these."""
    parts = lab.open_parts()
    rng = np.random.default_rng(0)
    flipped = rng.choice(174, 17, replace=False)
    switch(lab, names_of(parts.train_inputs[flipped]))
    for row in flipped:
        bring(lab, parts.train_inputs[row], CLASSES[1 - parts.train_labels[row]])
    assert renew(lab).train_rows == 174
    found = rank_pairs(lab.worker, lab.artifacts, study="full", limit=17)
    wrong = {name[:12] for name in names_of(parts.train_inputs[flipped])}
    hits = sum(p.hash in wrong for p in found.pairs)
    assert hits >= 14, hits
    first = found.pairs[0]
    assert first.expected != first.label
    assert first.suspected
    assert 0.9 < first.doubt <= 1
    assert 10 <= found.suspected <= 30
    assert found.rows == 174
    doubts = [p.doubt for p in found.pairs]
    assert doubts == sorted(doubts, reverse=True)
    switch(lab, [p.hash for p in found.pairs if p.suspected])
    assert renew(lab).train_rows < 174


@pytest.mark.cold  # the start of the child takes longer than the limit
def test_a_ranking_that_takes_too_long_says_so(lab: Any) -> None:
    with pytest.raises(TrainingError, match="out of time"):
        rank_pairs(lab.worker, lab.artifacts, study="full", time_limit_seconds=0.01)
    with pytest.raises(InvalidInputError, match="limit must be a whole number >= 1"):
        rank_pairs(lab.worker, lab.artifacts, study="full", limit=0)
