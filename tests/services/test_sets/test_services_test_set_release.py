"""What a new set knows of the past, and what becomes of a retired one."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from easeml_core.entities import SealedSetPurpose
from easeml_core.errors import (
    InvalidInputError,
    NotFoundError,
    StateError,
)
from easeml_core.models.formats import load_predictor
from easeml_core.services.evaluation.sealed_runs import at_once
from easeml_core.services.labeling.requests import give_labels, wanted_labels
from easeml_core.services.referee.requests import answer_of, file_gate_request
from easeml_core.services.test_sets import lifecycle
from easeml_core.services.test_sets.lifecycle import retire_test_set
from easeml_core.services.test_sets.release import fetch_test_set, release_test_set
from easeml_core.store.tables import labels, models, releases, sealed, studies

if TYPE_CHECKING:
    from pathlib import Path

from brought import CLASSES, NAMES, content, gate_sets, retire, seal, states, write

# What a new set knows of the past.


@pytest.mark.journey
def test_the_past_is_run_on_the_new_set_production_first(lab: Any, bring: Any) -> None:
    lab.promote(lab.gate("good").request_id)
    lab.gate("worse")
    retire(lab, 1)
    set_id = seal(lab, bring()).test_set_id
    with lab.referee.begin() as tx:
        study_id = studies.get_study(tx, "full").id
        good, worse = (models.get_model(tx, study_id, lab.models["full"][name]) for name in ("good", "worse"))
        expected = [good, models.baseline_model(tx, study_id), worse]
    seen = []
    while at_once(lifecycle.reevaluation_steps(lab.referee, lab.artifacts, set_id)):
        known = lab.rows("SELECT model FROM sealed.predictions WHERE test_set_id = :id", id=set_id)
        seen += [model for (model,) in known if model not in seen]
    assert seen == [model.identity for model in expected]
    with lab.referee.begin() as tx:
        inputs = sealed.sealed_inputs(tx, set_id)
        for model in expected:
            (found,) = sealed.known_predictions(tx, set_id, model.identity).values()
            predictor = load_predictor(lab.artifacts.path(model.artifact), model.format)
            assert found.failure is None
            np.testing.assert_array_equal(found.labels, predictor.predict(inputs))


def test_a_model_whose_file_is_gone_keeps_nobody_from_the_others(lab: Any, bring: Any) -> None:
    lab.gate("worse")
    retire(lab, 1)
    gone = f"UPDATE work.models SET artifact = 'sha256:{'0' * 64}' WHERE id = %s"
    lab.as_superuser(gone, lab.models["full"]["worse"])
    set_id = seal(lab, bring()).test_set_id
    assert at_once(lifecycle.reevaluation_steps(lab.referee, lab.artifacts, set_id, limit=9)) == 1  # the baseline
    assert at_once(lifecycle.reevaluation_steps(lab.referee, lab.artifacts, set_id, limit=9)) == 0


def test_a_model_that_was_handed_in_and_never_judged_is_not_run(lab: Any, bring: Any) -> None:
    flood = "INSERT INTO work.models (study_id, data_version_id, format, artifact, validation_loss, submitted) "
    flood += "SELECT 1, 1, format, artifact, 0.5, true FROM work.models WHERE id = %s"
    lab.as_superuser(flood, lab.models["full"]["good"])
    retire(lab, 1)
    set_id = seal(lab, bring()).test_set_id
    assert at_once(lifecycle.reevaluation_steps(lab.referee, lab.artifacts, set_id, limit=9)) == 1
    (known,) = lab.rows("SELECT model FROM sealed.predictions WHERE test_set_id = :id", id=set_id)
    assert known[0].startswith("constant ")  # the baseline


def test_requests_that_waited_for_labels_of_a_retired_set_are_open_again(lab: Any, bring: Any) -> None:
    retire(lab, 1)
    set_id = seal(lab, bring(), labelled=False).test_set_id
    asked = {"study": "full", "model_id": lab.models["full"]["good"], "request_key": "k"}
    request_id = file_gate_request(lab.worker, **asked)
    with lab.referee.begin() as tx:
        labels.want(tx, request_id=request_id, test_set_id=set_id, positions=np.arange(3))
        assert [w.request_id for w in labels.open_wanted(tx)] == [request_id]
    retire(lab, set_id)
    with lab.referee.begin() as tx:
        assert labels.open_wanted(tx) == []


# Release.


def test_only_a_retired_set_is_released_and_then_anybody_fetches_it(lab: Any, bring: Any, tmp_path: Path) -> None:
    brought = bring()
    done = seal(lab, brought, name="spring")
    give_away = {"test_set": "spring", "study": "full"}
    with pytest.raises(StateError, match=r"sealed; .*be released"):
        release_test_set(lab.referee, lab.artifacts, **give_away)
    with pytest.raises(StateError, match=r"sealed; .*fetched"):
        fetch_test_set(lab.worker, lab.artifacts, to=tmp_path / "x.npz", **give_away)
    retire(lab, "spring")
    released = release_test_set(lab.referee, lab.artifacts, **give_away)
    assert released == release_test_set(lab.referee, lab.artifacts, **give_away)
    assert (released.state, released.test_set_id) == ("released", done.test_set_id)
    shown = fetch_test_set(lab.worker, lab.artifacts, to=tmp_path / "x.npz", **give_away)
    assert (shown.rows, shown.labelled) == (300, 300)
    inputs, truth, keys = content(lab, done.test_set_id)
    with np.load(tmp_path / "x.npz", allow_pickle=False) as file:
        np.testing.assert_array_equal(file["inputs"], inputs)
        np.testing.assert_array_equal(file["labels"], truth)
        assert file["keys"].tolist() == keys
        assert file["feature_names"].tolist() == list(NAMES)
    fetch_test_set(lab.worker, lab.artifacts, to=tmp_path / "x.csv", **give_away)
    with (tmp_path / "x.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["example", *NAMES, "label"]
    assert [row[0] for row in rows[1:]] == keys
    np.testing.assert_array_equal(np.array([row[1:-1] for row in rows[1:]], dtype=np.float32), inputs)
    assert [row[-1] for row in rows[1:]] == [CLASSES[label] for label in truth]
    with pytest.raises(InvalidInputError, match=r"\.npz or \.csv"):
        fetch_test_set(lab.worker, lab.artifacts, to=tmp_path / "x.pkl", **give_away)


def test_labels_that_nobody_gave_are_missing_from_what_is_released(lab: Any, bring: Any, tmp_path: Path) -> None:
    seal(lab, bring(), name="spring", labelled=False)
    retire(lab, "spring")
    release_test_set(lab.referee, lab.artifacts, test_set="spring")
    assert fetch_test_set(lab.worker, lab.artifacts, test_set="spring", to=tmp_path / "x.csv").labelled == 0
    assert {row.split(",")[-1] for row in (tmp_path / "x.csv").read_text().splitlines()} == {"label", ""}


def test_a_plan_without_examples_is_retired_but_never_released(lab: Any) -> None:
    lifecycle.plan_test_set(lab.referee, study="full", name="spring", settings={})
    retire(lab, "spring")
    with pytest.raises(StateError, match="was only planned"):
        release_test_set(lab.referee, lab.artifacts, test_set="spring")


def test_a_set_is_found_by_name_or_number(lab: Any, bring: Any) -> None:
    seal(lab, bring(), name="spring")
    seal(lab, bring(seed=2), study="first", name="spring")
    for handle, study in (("spring", None), ("winter", None), ("99", None), ("spring", "hidden"), ("1", "first")):
        with pytest.raises(NotFoundError):
            retire_test_set(lab.referee, test_set=handle, study=study)
    assert retire(lab, "spring", study="first").study == "first"


def test_a_column_in_another_unit_is_warned_of(lab: Any, bring: Any) -> None:
    brought = bring()
    assert seal(lab, brought).warnings == ()
    other = bring(seed=2)
    other.values[:, 4] *= 1000
    other.write()
    (warning,) = seal(lab, other).warnings
    assert warning.startswith(f"column {NAMES[4]!r} has the median ")
    assert warning.endswith("same unit?")


def test_data_whose_column_names_were_not_kept_takes_encoded_columns_in_order(lab: Any, bring: Any) -> None:
    lab.as_superuser("UPDATE work.data_versions SET feature_names = NULL")
    brought = bring()
    rows = [[key, *values] for key, values in zip(brought.keys, brought.values, strict=True)]
    write(brought.inputs, [["example", *(f"c{i}" for i in range(29))], *(row[:-1] for row in rows)])
    with pytest.raises(InvalidInputError, match=r"29 columns .* has 30"):
        seal(lab, brought)
    write(brought.inputs, [["example", *(f"c{i}" for i in range(30))], *rows])
    inputs, _, keys = content(lab, seal(lab, brought).test_set_id)
    np.testing.assert_array_equal(inputs, brought.values[[brought.keys.index(key) for key in keys]])


def test_nothing_becomes_live_while_another_one_is(lab: Any, bring: Any) -> None:
    seal(lab, bring())
    with lab.referee.begin() as tx:
        assert releases.live_test_set(tx, 1, SealedSetPurpose.GATE) is not None
        assert lifecycle.go_live(tx, 1, SealedSetPurpose.GATE) is None
    assert [state for _, state in states(lab)] == ["live", "sealed"]


def test_the_alarm_for_a_new_set_tells_of_an_end_by_hand_too(lab: Any, bring: Any, recorded: Any) -> None:
    spring = seal(lab, bring(), name="spring").test_set_id
    retire(lab, 1)
    retire(lab, spring)
    shown = [message for (message,) in lab.rows("SELECT message FROM work.alerts ORDER BY id", store=lab.worker)]
    recorded("\n".join(shown), "alerts_of_gate_sets")


@pytest.mark.journey
def test_a_verdict_comes_from_labels_that_people_gave_and_only_where_the_models_differ(lab: Any, bring: Any) -> None:
    """From upload to symbol: the referee asks, a labeler answers from the truth, the referee decides."""
    retire(lab, 1)
    brought = bring()
    set_id = seal(lab, brought, labelled=False).test_set_id
    asked = {"study": "full", "model_id": lab.models["full"]["good"], "request_key": "k"}
    request_id = file_gate_request(lab.worker, **asked)
    lab.answer_all()
    assert answer_of(lab.worker, request_id) is None
    wanted = wanted_labels(lab.referee, study="full")
    with lab.referee.begin() as tx:
        identity = models.get_model(tx, 1, lab.models["full"]["good"]).identity
        base = models.baseline_model(tx, 1).identity
        known = sealed.known_predictions(tx, set_id, identity, base)
        new, old = (known[m].labels if m in known else None for m in (identity, base))
    keys = np.array([entry.example for entry in wanted.examples])
    with lab.referee.begin() as tx:
        in_order = np.array(sealed.sealed_keys(tx, set_id))
    apart = in_order[new != old]
    assert 0 < wanted.wanted == keys.size < apart.size < 300  # as many of them as this submission needs
    assert np.array_equal(keys, apart[: keys.size])
    truth = dict(zip(brought.keys, brought.truth, strict=True))
    write(brought.labels, [["example", "label"], *([e.example, truth[e.example]] for e in wanted.examples)])
    shown = give_labels(lab.referee, study="full", labeler="ann", labels=brought.labels)
    assert (shown.new, shown.wanted) == (wanted.wanted, 0)
    assert lab.answer(request_id).message == "step 1 of 3: pass"
    assert wanted_labels(lab.referee, study="full").examples == ()
    assert gate_sets(lab)[0].steps_used == 1
