"""Pairs that are hostile, damaged or do not fit: refused with the place, and no other feed is stopped."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from fed_rows import as_pairs, bring, new_rows, renew

from easeml_core.errors import InvalidInputError
from easeml_core.services.datasets.feed import list_feeds
from easeml_core.store.tables import datasets

if TYPE_CHECKING:
    from pathlib import Path


def store_feed(lab: Any, content: bytes, rows: int, folder: Path) -> None:
    """What a hostile worker could write: any file as the pairs of a feed."""
    path = folder / "pairs.npz"
    path.write_bytes(content)
    with lab.worker.begin() as tx:
        datasets.add_feed(
            tx, study_id=1, artifact=lab.artifacts.put(path), rows=rows, origin="x", fed_by="eve", request_key=lab.key()
        )


def archive(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


X, Y = np.ones((2, 30), np.float32), np.array([0, 1])
HOSTILE = [
    (b"no archive", "cannot be read"),
    (archive(inputs=X, labels=np.array([0, 2])), "must have labels from 0 to 1"),
    (archive(inputs=X, labels=np.array([-1, 0])), "must have labels from 0 to 1"),
    (archive(inputs=X, labels=np.array([0.0, np.nan], np.float32)), "must have a label for each of its rows"),
    (archive(inputs=X, labels=np.array(["a", "b"])), "allowed: numbers"),
    (archive(inputs=X, labels=np.array([0, "b"], dtype=object)), "holds object"),
    (archive(inputs=X[:, :29], labels=Y), r"must have float32 inputs of shape \(rows, 30\)"),
    (archive(inputs=X.astype(np.float64), labels=Y), "must have float32 inputs"),
    (archive(inputs=X * np.inf, labels=Y), "must have finite inputs"),
    (archive(inputs=X[:1], labels=Y), "must have a label for each of its rows"),
    (archive(inputs=X, labels=Y, more=Y), "nothing else"),
    (archive(inputs=X), "nothing else"),
    (archive(inputs=np.ones((3, 30), np.float32), labels=np.array([0, 1, 0])), "its file holds 3 rows and not 2"),
]


@pytest.mark.parametrize(("content", "words"), HOSTILE)
def test_a_hostile_file_is_refused_and_stops_nobody_else(content: bytes, words: str, lab: Any, tmp_path: Path) -> None:
    store_feed(lab, content, 2, tmp_path)
    bring(lab, as_pairs(*new_rows(2)))
    answer = renew(lab)
    assert answer.train_rows == 176
    entry = list_feeds(lab.worker, study="full")[1]
    assert entry.state == "refused"
    assert re.search(words, entry.reason)


def test_a_compressed_file_is_not_unpacked(lab: Any, tmp_path: Path) -> None:
    file = io.BytesIO()
    np.savez_compressed(file, inputs=X, labels=Y)
    store_feed(lab, file.getvalue(), 2, tmp_path)
    assert renew(lab).version is None
    assert "not compressed" in list_feeds(lab.worker, study="full")[0].reason


def test_a_file_that_was_swapped_since_or_is_gone_is_refused(lab: Any, tmp_path: Path) -> None:
    store_feed(lab, archive(inputs=X, labels=Y), 2, tmp_path)
    path = lab.artifacts.path(lab.one("SELECT artifact FROM work.feeds"))
    path.write_bytes(archive(inputs=X + 1, labels=Y))
    with lab.worker.begin() as tx:
        datasets.add_feed(
            tx, study_id=1, artifact="sha256:" + "0" * 64, rows=2, origin="x", fed_by="e", request_key="k"
        )
        datasets.add_feed(
            tx, study_id=1, artifact="sha256:" + "1" * 64, rows=10**8, origin="x", fed_by="e", request_key="huge"
        )
    assert renew(lab).version is None
    huge, gone, swapped = (entry.reason for entry in list_feeds(lab.worker, study="full"))
    assert "was changed after it was stored" in swapped
    assert "is missing" in gone
    assert "are more than 100,000,000 numbers" in huge


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        ([], "pairs: must be a list of at least one row"),
        ([{"inputs": [0.0] * 29, "label": "benign"}], r"inputs must have shape \(n >= 1, 30\)"),
        ([{"inputs": [0.0] * 30, "label": "good"}], "'good' is no class of the study"),
        ([{"inputs": [0.0] * 30, "label": None}], "'' is no class of the study"),
        ([{"inputs": [0.0] * 30, "label": float("nan")}], "'nan' is no class of the study"),
        ([{"inputs": [0.0] * 30}], 'must be a list of {"inputs": ..., "label": ...}'),
        ([{"inputs": {"mean radius": 1}, "label": "benign"}], "are missing"),
        ([{"inputs": [[0.0] * 30], "label": "benign"}], r"inputs must have shape"),
        ([{"inputs": [1e39] * 30, "label": "benign"}], "at most 3.4e38"),
    ],
)
def test_pairs_that_do_not_fit_are_refused_at_once(pairs: Any, words: str, lab: Any) -> None:
    with pytest.raises(InvalidInputError, match=words):
        bring(lab, pairs)
    assert lab.one("SELECT count(*) FROM work.feeds") == 0
