"""The data of a study as a resource: the public facts, and the referee's facts of sealed sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from asked import Asked

from easeml_core.errors import NotFoundError, StoreError
from easeml_core.services.datasets.feed import feed
from easeml_core.services.datasets.report import sealed_sets, study_data
from easeml_core.services.datasets.validation_sets import replace_validation
from easeml_core.services.labeling.desk import say
from easeml_core.services.test_sets.release import release_test_set

if TYPE_CHECKING:
    from pathlib import Path


def test_everybody_is_shown_public_facts_and_the_worker_can_read_no_others(
    database: Any, artifacts: Any, make_study: Any
) -> None:
    make_study()
    pairs = [{"inputs": [1.0] * 30, "label": "benign"}]
    feed(database.worker, artifacts, study="cancer", pairs=pairs, fed_by="ann", request_key="f")
    found = study_data(database.worker, artifacts, study="cancer")
    (version,) = found.versions
    assert (version.version, version.kind, version.classes, version.features) == (1, "table", 2, 30)
    assert (version.train_rows, version.validation_rows) == (
        *(found.validation.split and _rows(found.validation.split)),
    )
    assert [(one.purpose, one.state, one.steps_used) for one in found.sets] == [
        ("meter", "live", 0),
        ("gate", "live", 0),
    ]
    assert [(one.rows, one.fed_by, one.state) for one in found.feeds] == [(1, "ann", "waiting")]
    assert (found.refreshes, found.problem) == ([], "")
    with pytest.raises(StoreError, match="permission denied"):
        sealed_sets(database.worker, study="cancer")
    with pytest.raises(NotFoundError):
        study_data(database.worker, artifacts, study="nope")


def _rows(split: str) -> tuple[int, int]:
    """Training and validation rows, as the referee told them when it split the data."""
    words = split.replace(",", "").split()
    return int(words[words.index("train") + 1]), int(words[words.index("validation") + 1])


def test_the_referee_sees_labels_and_a_replaced_validation_set(
    database: Any, artifacts: Any, make_study: Any, tmp_path: Path
) -> None:
    asked = Asked(database, artifacts, tmp_path, make_study(), "sklearn:breast_cancer")
    asked.want([1, 2, 3])
    say(database.referee, study="cancer", test_set_id=asked.set_id, labeler="ann", place=2, label=1)
    autumn, _, first = sealed_sets(database.referee, study="cancer")
    assert (autumn.name, autumn.labelled, autumn.wanted, autumn.nats) == ("autumn", 1, 2, 0)
    assert (first.state, first.retired_why, first.labelled) == ("retired", "by hand", first.rows)
    release_test_set(database.referee, artifacts, test_set=str(first.test_set_id))
    replace_validation(database.referee, artifacts, study="cancer", from_set=str(first.test_set_id))
    found = study_data(database.worker, artifacts, study="cancer")
    newest, oldest = found.versions
    assert (newest.version, newest.training_of, newest.validation_rows) == (2, 1, first.rows)
    assert newest.train_rows == oldest.train_rows
    assert [part.state for part in found.validation.history] == ["replaced", found.validation.state]
