"""What feeding must not move, and what it must say: the bar of the gate, and splits by group and time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from easeml_core.data.split_spec import check_split
from easeml_core.errors import InvalidInputError, StateError
from easeml_core.services.datasets import feed as feeding
from easeml_core.services.datasets.feed import MOST_REFRESHES, feed, file_refresh
from easeml_core.store.tables import models

CLASSES = ("malignant", "benign")


def baseline(lab: Any) -> Any:
    with lab.referee.begin() as tx:
        return models.baseline_model(tx, 1)


def fed(lab: Any, rows: int, label: int) -> str:
    """Feed moved training rows with one label; what the refresh answers."""
    inputs = lab.open_parts().train_inputs[:rows] * np.float32(1.003)
    pairs = [{"inputs": row.tolist(), "label": CLASSES[label]} for row in inputs]
    feed(lab.worker, lab.artifacts, study="full", pairs=pairs, fed_by="ann", request_key=lab.key())
    answer = lab.answer(file_refresh(lab.worker, study="full", request_key=lab.key()).request_id)
    assert not answer.refused
    assert answer.version is not None
    return str(answer.message)


def test_whoever_feeds_does_not_choose_what_the_gate_compares_with(lab: Any) -> None:
    """The most frequent class of the training part is another one afterwards; the baseline is what it was."""
    before, labels = baseline(lab), lab.open_parts().train_labels
    rarer = int(np.bincount(labels).argmin())
    fed(lab, len(labels), rarer)
    assert np.bincount(lab.open_parts().train_labels).argmax() == rarer
    after = baseline(lab)
    assert after.id != before.id  # each data version has a separate row
    assert (after.identity, after.validation_loss) == (before.identity, before.validation_loss)


def divide(lab: Any, split: str) -> None:
    lab.as_superuser("UPDATE work.studies SET config = jsonb_set(config, '{split}', to_jsonb(%s::text))", split)


@pytest.mark.parametrize("split", ["rows", "time:day"])
def test_feeding_a_study_that_is_divided_by_time_warns(lab: Any, split: str) -> None:
    divide(lab, split)
    warning = check_split(split).fed_warning
    assert (warning == "") == (split == "rows")
    assert fed(lab, 4, 0).partition("; warning: ")[2] == warning


def test_a_study_that_is_divided_by_group_takes_no_pairs(lab: Any) -> None:
    """Neither in a feed, nor after an earlier feed, nor written by SQL."""
    pairs = [{"inputs": (lab.open_parts().train_inputs[0] * np.float32(1.003)).tolist(), "label": CLASSES[0]}]
    feed(lab.worker, lab.artifacts, study="full", pairs=pairs, fed_by="ann", request_key=lab.key())
    divide(lab, "group:patient")
    with pytest.raises(InvalidInputError, match=r"divided by group \(patient\)"):
        feed(lab.worker, lab.artifacts, study="full", pairs=pairs, fed_by="ann", request_key=lab.key())
    answer = lab.answer(file_refresh(lab.worker, study="full", request_key=lab.key()).request_id)
    assert answer.version is None
    assert lab.rows("SELECT state, reason LIKE '%divided by group%' FROM work.feeds") == [("refused", True)]


def test_nobody_fills_the_referees_queue_with_refreshes(lab: Any) -> None:
    for number in range(MOST_REFRESHES):
        filed = file_refresh(lab.worker, study="full", request_key=f"r/{number}")
    with pytest.raises(StateError, match="3 refreshes of study 'full' wait for the referee's answer already"):
        file_refresh(lab.worker, study="full", request_key="r/more")
    assert file_refresh(lab.worker, study="full", request_key=f"r/{MOST_REFRESHES - 1}") == filed  # a repetition
    lab.answer_all()
    assert file_refresh(lab.worker, study="full", request_key="r/more").request_id > filed.request_id


def test_so_many_feeds_may_wait_and_no_more(lab: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(feeding, "MOST_FEEDS", 2)
    inputs = lab.open_parts().train_inputs[:3] * np.float32(1.003)
    asked = [{"inputs": row.tolist(), "label": CLASSES[0]} for row in inputs]
    for number in range(2):
        feed(lab.worker, lab.artifacts, study="full", pairs=[asked[number]], fed_by="a", request_key=f"f/{number}")
    with pytest.raises(StateError, match="2 feeds of study 'full' wait for a refresh already"):
        feed(lab.worker, lab.artifacts, study="full", pairs=[asked[2]], fed_by="a", request_key="f/2")
    feed(lab.worker, lab.artifacts, study="full", pairs=[asked[1]], fed_by="a", request_key="f/1")  # a repetition
