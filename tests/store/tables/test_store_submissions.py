"""Submissions as rows: one a model, for submitted models alone, announced to listeners in the order of their ids."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from easeml_core.errors import StoreError
from easeml_core.formats.encoding import row_of
from easeml_core.store.database import CHANNEL
from easeml_core.store.tables import models
from easeml_core.store.tables.models import add_submission, list_submissions, submission_of_key

if TYPE_CHECKING:
    from collections.abc import Callable

VERSION = "0123456789abcdef0123456789abcdef01234567"
PLAIN: dict[str, Any] = {"kind": "artifact", "message": "new", "bundle": None, "bundle_version": None}
BUNDLE = PLAIN | {"kind": "bundle", "bundle": "dags", "bundle_version": VERSION}


@pytest.fixture
def hand_in(store: Any) -> Callable[..., tuple[int, int]]:
    """Add a submitted model and its submission as the worker; their ids."""

    def add(study: Any, key: str, **changes: Any) -> tuple[int, int]:
        with store.begin() as tx:
            model_id = add_model(tx, study)
            given = PLAIN | {"study_id": study.study_id, "study": study.name, "request_key": key}
            return model_id, add_submission(tx, model_id=model_id, **given | changes)

    return add


def add_model(tx: Any, study: Any, *, submitted: bool = True) -> int:
    return models.add_model(
        tx, study_id=study.study_id, data_version_id=study.version_id, trial_id=None, format="command",
        artifact=study.artifact(7), validation_loss=0.25, submitted=submitted,
    )  # fmt: skip


def test_a_submission_is_read_back_and_reported(store: Any, make_rows: Any, hand_in: Any, heard: Any) -> None:
    study = make_rows()
    model_id, submission_id = hand_in(study, "k", **BUNDLE)
    assert [h for h in heard(2) if h[1].startswith("submission")] == [
        (CHANNEL, "submission:cancer"),
        (CHANNEL, "submission:*"),
    ]
    with store.begin() as tx:
        found = submission_of_key(tx, "k")
        assert submission_of_key(tx, "other") is None
        assert models.baseline_model(tx, study.study_id).id == study.baseline_id
    ours = {"study": "cancer", "model_id": model_id, "submission_id": submission_id, "format": "command"}
    assert row_of(found) == BUNDLE | ours | {"artifact": study.artifact(7), "validation_loss": 0.25}


def test_the_newest_come_in_order_by_study_or_all(store: Any, make_rows: Any, hand_in: Any) -> None:
    first, second = make_rows("one"), make_rows("two")
    ids = [hand_in(study, str(n))[1] for n, study in enumerate((first, second, first))]
    with store.begin() as tx:
        assert [r.submission_id for r in list_submissions(tx, first.study_id)] == [ids[2], ids[0]]
        assert [r.submission_id for r in list_submissions(tx)] == ids[::-1]
        assert [r.submission_id for r in list_submissions(tx, second.study_id)] == [ids[1]]


def test_what_does_not_fit_together_is_refused(make_rows: Any, hand_in: Any) -> None:
    study = make_rows()
    for changes in (
        {"message": " \n\t"}, {"message": "x" * 2001}, {"kind": "other"}, {"kind": "bundle"},
        BUNDLE | {"kind": "artifact"}, BUNDLE | {"bundle": None}, BUNDLE | {"bundle_version": None},
        BUNDLE | {"bundle_version": "main"}, BUNDLE | {"bundle": "-x"}, BUNDLE | {"bundle": "a/b"},
    ):  # fmt: skip
        with pytest.raises(StoreError):
            hand_in(study, "k", **changes)


def test_nobody_says_later_what_a_model_stands_for(
    store: Any, database: Any, make_rows: Any, succeed: Any, hand_in: Any
) -> None:
    """Else the bundle of production could be moved to any version without a gate."""
    study = make_rows()
    handed_in, _ = hand_in(study, "k")
    _, trained = succeed(study, 0)
    for n, model_id in enumerate((handed_in, trained, study.baseline_id)):
        given = BUNDLE | {"study_id": study.study_id, "study": study.name, "request_key": f"again/{n}"}
        with pytest.raises(StoreError), store.begin() as tx:
            add_submission(tx, model_id=model_id, **given)
    for role in (database.worker, database.referee):
        for statement in ("UPDATE work.submissions SET bundle_version = 'abcdef0'", "DELETE FROM work.submissions"):
            with pytest.raises(StoreError), role.begin() as tx:
                tx.exec_driver_sql(statement)


def test_a_submitted_model_is_no_baseline_even_of_newer_data(
    store: Any, make_rows: Any, add_data: Any, hand_in: Any
) -> None:
    study = make_rows()
    study.version_id = add_data(study)
    hand_in(study, "k")
    with store.begin() as tx:
        assert models.baseline_model(tx, study.study_id).id == study.baseline_id


def test_there_is_one_baseline_and_any_number_of_submitted_models(database: Any, make_rows: Any, hand_in: Any) -> None:
    study = make_rows()
    hand_in(study, "1")
    hand_in(study, "2")
    with pytest.raises(StoreError), database.worker.begin() as tx:
        add_model(tx, study, submitted=False)
