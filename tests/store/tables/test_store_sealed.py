"""The sealed side: sets, predictions on them, and a ledger that only grows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from easeml_core.entities import SealedSetPurpose, SealedSetState
from easeml_core.errors import ShapeError, StoreError
from easeml_core.settings.config import GateConfig, MeterConfig
from easeml_core.store.rows import scalar
from easeml_core.store.tables import ledger, models, releases, sealed
from easeml_core.store.tables.ledger import RETIRED, MeterEntry
from easeml_core.store.tables.test_sets import example_hashes

if TYPE_CHECKING:
    from collections.abc import Callable


def test_a_set_comes_back_as_it_was_sealed(database: Any, make_rows: Any, seal: Callable[..., int]) -> None:
    set_id = seal(make_rows(), "gate", examples=7)
    with database.referee.begin() as tx:
        inputs, labels = sealed.sealed_inputs(tx, set_id), sealed.sealed_labels(tx, set_id)
    np.testing.assert_array_equal(inputs, np.arange(14.0).reshape(7, 2))
    np.testing.assert_array_equal(labels, [0, 1, 0, 1, 0, 1, 0])


def test_everybody_sees_size_steps_and_plan(store: Any, make_rows: Any, seal: Callable[..., int]) -> None:
    study = make_rows()
    gate, meter = seal(study, "gate", steps=4), seal(study, "meter", start=50, examples=9)
    live = {"state": SealedSetState.LIVE}
    with store.begin() as tx:
        assert releases.public_test_sets(tx, study.study_id) == [
            releases.PublicSet(meter, SealedSetPurpose.METER, rows=9, steps=3, plan=MeterConfig(), **live),
            releases.PublicSet(gate, SealedSetPurpose.GATE, rows=5, steps=4, plan=GateConfig(), **live),
        ]


def test_labels_must_belong_to_the_inputs(database: Any, make_rows: Any) -> None:
    study = make_rows()
    uneven = pytest.raises(ShapeError, match=r"labels must have shape \(3,\), got \(2,\)")
    with uneven, database.referee.begin() as tx:
        sealed.seal(
            tx,
            study_id=study.study_id,
            data_version_id=study.version_id,
            purpose=SealedSetPurpose.GATE,
            inputs=np.zeros((3, 1)),
            labels=np.zeros(2),
            steps=1,
            plan=GateConfig(),
        )


def test_a_retired_set_is_not_live_and_makes_room(database: Any, make_rows: Any, seal: Callable[..., int]) -> None:
    study = make_rows()
    first = seal(study, "gate")
    with database.referee.begin() as tx:
        assert releases.live_test_set(tx, study.study_id, SealedSetPurpose.GATE).id == first
        assert [found.id for found in releases.hold_study(tx, study.study_id)] == [first]
        assert releases.live_test_set(tx, study.study_id, SealedSetPurpose.METER) is None
        releases.retire_test_set(tx, first)
        retired_at = scalar(tx, "SELECT retired_at FROM work.test_sets")
        releases.retire_test_set(tx, first)
        assert scalar(tx, "SELECT retired_at FROM work.test_sets") == retired_at
        assert releases.live_test_set(tx, study.study_id, SealedSetPurpose.GATE) is None
    second = seal(study, "gate", start=90)
    with database.referee.begin() as tx:
        assert releases.live_test_set(tx, study.study_id, SealedSetPurpose.GATE).id == second


def test_a_model_is_run_once_on_a_set(database: Any, make_rows: Any, seal: Callable[..., int]) -> None:
    study = make_rows()
    set_id, bad = seal(study, "gate"), f"skops {study.artifact(2)}"
    good, other_format = f"skops {study.artifact(1)}", f"constant {study.artifact(1)}"
    labels = np.array([3, 1, 4, 1, 5], dtype=np.int64)
    with database.referee.begin() as tx:
        assert sealed.known_predictions(tx, set_id, good) == {}
        sealed.keep_predictions(tx, set_id, good, labels=labels, failure=None)
        sealed.keep_predictions(tx, set_id, bad, labels=None, failure="it crashed\0")
        known = sealed.known_predictions(tx, set_id, good, bad, other_format)
        assert known.keys() == {good, bad}  # the same file, read as something else, is another model
        found = known[good]
        assert (found.labels.tolist(), found.labels.dtype, found.failure) == ([3, 1, 4, 1, 5], np.int64, None)
        assert (known[bad].labels, (known[bad].failure or "").rstrip()) == (None, "it crashed\ufffd")
    with database.referee.begin() as tx:
        sealed.keep_predictions(tx, set_id, good, labels=labels + 1, failure=None)  # the first answer counts
        assert sealed.known_predictions(tx, set_id, good)[good].labels.tolist() == [3, 1, 4, 1, 5]


def test_the_same_file_in_two_formats_is_two_models(make_rows: Any, succeed: Any, store: Any) -> None:
    study = make_rows()
    trial_id, model_id = succeed(study, 0)
    with store.begin() as tx:
        model = models.get_model(tx, study.study_id, model_id)
    assert model.identity == f"skops {study.artifact(trial_id)}"
    assert replace(model, format="constant").identity != model.identity == replace(model, id=9, trial_id=9).identity


def test_examples_sealed_for_other_tenants_are_counted_and_no_others(
    database: Any, make_rows: Any, seal: Callable[..., int]
) -> None:
    """Sets hold rows [0, 1], [2, 3], ...; study "own" has a sister of the same tenant and two rivals."""
    own, sister = make_rows("own", tenant="lab"), make_rows("sister", tenant="lab")
    rivals = make_rows("rival-1", tenant="rival"), make_rows("rival-2", tenant="another")
    seal(own, "gate", start=0, examples=5)
    seal(sister, "gate", start=10, examples=5)
    for start, rival in zip((20, 24), rivals, strict=True):  # rows 10 to 14 and 12 to 16: three of them in both
        seal(rival, "meter", start=start, examples=5)

    def count(study: Any, first: int, examples: int) -> int:
        hashes = example_hashes(2.0 * first + np.arange(2.0 * examples).reshape(examples, 2), None)
        with database.referee.begin() as tx:
            return sealed.sealed_for_others(tx, study.study_id, hashes)

    assert count(own, 0, 10) == count(sister, 0, 10) == 0  # one's own tenant's
    assert count(own, 0, 30) == count(sister, 0, 30) == 7  # each example once
    assert count(own, 8, 4) == 2
    assert count(own, 17, 9) == 0
    with database.referee.begin() as tx:
        assert sealed.sealed_for_others(tx, own.study_id, []) == 0
    assert count(rivals[0], 0, 30) == 10 + 5
    assert count(rivals[1], 0, 30) == 10 + 5


def test_a_retired_set_still_counts_for_other_tenants(database: Any, make_rows: Any, seal: Callable[..., int]) -> None:
    own, rival = make_rows("own", tenant="lab"), make_rows("rival", tenant="rival")
    set_id = seal(rival, "gate")
    with database.referee.begin() as tx:
        releases.retire_test_set(tx, set_id)
        hashes = example_hashes(sealed.sealed_inputs(tx, set_id), None)
        assert sealed.sealed_for_others(tx, own.study_id, hashes) == 5


def entry(tx: Any, set_id: int, request_id: int, step: int, **changes: Any) -> None:
    values: dict[str, Any] = {
        "cache_key": f"question {step}",
        "answer": "fail",
        "log_level": -4.0,
        "log_cost": 0.5,
        "tolerance": 0.1,
        "report": {"wins": 7},
        "system": "gate",
    }
    sealed.add_entry(tx, test_set_id=set_id, step=step, steps=3, request_id=request_id, **values | changes)


def test_the_ledger_adds_up_and_knows_what_it_was_asked(
    database: Any, make_rows: Any, seal: Callable[..., int], file: Callable[..., int]
) -> None:
    study = make_rows()
    gate, meter = seal(study, "gate"), seal(study, "meter", start=50)
    first, second, other = (file(study, "gate", study.baseline_id, key=k) for k in "abc")
    with database.referee.begin() as tx:
        assert sealed.spent(tx, gate) == (0, 0.0)
        assert ledger.usage(tx, gate, "question 1") == ledger.Usage(0, 0, 0, 0, [], None, None)
        entry(tx, gate, first, 1)
        entry(tx, gate, second, 2, log_cost=0.25, answer="pass", tolerance=None)
        entry(tx, meter, other, 1)
        assert sealed.spent(tx, gate) == (2, 0.75)
        used = ledger.usage(tx, gate, "question 2")
        assert (used.known_step, used.known_answer, used.log_weight) == (2, "pass", 0.75)
        assert ledger.usage(tx, meter, "question 2").known_step is None  # each set has a separate memory
        entries = ledger.set_ledger(tx, gate, limit=9)
        shown = [(e.step, e.request_id, e.answer, e.tolerance) for e in entries]
        assert shown == [(2, second, "pass", None), (1, first, "fail", 0.1)]
        assert entries[-1].report == {"wins": 7}


def test_a_shared_ledger_counts_each_system_and_adds_up_both(
    database: Any, make_rows: Any, seal: Callable[..., int], succeed: Any, file: Any
) -> None:
    study = make_rows()
    both, (_, model_id) = seal(study, "joint"), succeed(study, 0)
    asked = [file(study, kind, model_id, key=f"{kind}{n}") for n, kind in enumerate(("meter", "gate", "meter"))]
    said = [("meter", 1, "2", 0.5), ("gate", 1, "pass", 0.25), ("meter", 2, RETIRED, 0.0)]
    with database.referee.begin() as tx:
        for step, (request_id, (system, own, answer, cost)) in enumerate(zip(asked, said, strict=True), 1):
            assert not ledger.meter_has_retired(tx, both)
            assert ledger.next_step(tx, both) == step
            of_system = {"system": system, "system_step": own, "system_steps": 2}
            changes = {"cache_key": f"q{step}", "answer": answer, "log_cost": cost, "is_change": system == "gate"}
            entry(tx, both, request_id, step, **changes, **of_system)
        assert (ledger.used(tx, both), ledger.used(tx, both, ledger.METER)) == ((1, 1), (2, 0))
        assert ledger.joint_log_weight(tx, both) == 0.75
        assert ledger.meter_has_retired(tx, both)
        assert [(e.step, e.signal, e.cache_key) for e in ledger.meter_entries(tx, both)] == [
            (1, 2, "q1"),
            (2, None, "q3"),
        ]
        advice = {"cache_key": "q4", "answer": "fail", "log_cost": 0.5}
        entry(
            tx,
            both,
            file(study, "gate", model_id, key="other"),
            4,
            **advice,
            system="other",
            system_step=1,
            system_steps=4,
        )
        found = ledger.usage(tx, both, "q2")
        assert sorted(found.log_costs) == [0.0, 0.25, 0.5, 0.5]
        assert (found.gate_steps, found.gate_changes, found.other_steps, found.entries) == (1, 1, 1, 3)
        assert (found.known_step, found.known_answer, found.log_weight) == (1, "pass", 1.25)


def test_the_meter_s_entries_are_what_their_reports_say_or_leave_out(
    database: Any, make_rows: Any, seal: Callable[..., int], file: Callable[..., int]
) -> None:
    study = make_rows()
    meter = seal(study, "meter")
    said = {"team": 2, "edges": [0.05, 0.25], "promised_tolerance": 0.125, "ends": True}
    with database.referee.begin() as tx:
        for step, (answer, report) in enumerate([("2", {}), ("1", said), (RETIRED, {"team": 3})], 1):
            request_id = file(study, "meter", study.baseline_id, key=str(step))
            entry(tx, meter, request_id, step, answer=answer, report=report, system="meter")
        assert ledger.meter_entries(tx, meter) == [
            MeterEntry(1, "question 1", 2, 0.5, team=1, edges=(), tolerance=None, ends=False),
            MeterEntry(2, "question 2", 1, 0.5, team=2, edges=(0.05, 0.25), tolerance=0.125, ends=True),
            MeterEntry(3, "question 3", None, 0.5, team=3, edges=(), tolerance=None, ends=True),
        ]


def test_the_meter_answers_anew_whoever_was_not_answered_and_has_not_ended(
    database: Any, make_rows: Any, seal: Callable[..., int], succeed: Any, file: Callable[..., int]
) -> None:
    study = make_rows()
    both, (_, model_id) = seal(study, "joint"), succeed(study, 0)
    asked = [file(study, kind, model_id, key=f"{kind}{n}") for n, kind in enumerate(("meter", "meter", "gate"))]

    def anew(tx: Any) -> list[bool]:
        shown = [("question 1", 1), ("new", 1), ("new", 2), ("new", 3)]
        return [ledger.meter_answers_anew(tx, both, cache_key=key, team=team) for key, team in shown]

    with database.referee.begin() as tx:
        assert anew(tx) == [True, True, True, True]
        entry(tx, both, asked[0], 1, answer="2", report={}, system="meter", system_step=1)
        assert anew(tx) == [False, True, True, True]
        entry(tx, both, asked[1], 2, answer="1", report={"team": 2, "ends": True}, system="meter", system_step=2)
        assert anew(tx) == [False, True, False, True]
        # A verdict ends nothing of the meter's, whatever stands in its report.
        entry(tx, both, asked[2], 3, answer="pass", report={"ends": True}, system="gate", system_step=1)
        assert anew(tx) == [False, True, False, True]


def test_a_retired_meter_answers_nothing_anew(
    database: Any, make_rows: Any, seal: Callable[..., int], file: Callable[..., int]
) -> None:
    study = make_rows()
    meter = seal(study, "meter")
    with database.referee.begin() as tx:
        entry(tx, meter, file(study, "meter", study.baseline_id, key="k"), 1, answer=RETIRED, report={}, system="meter")
        assert not ledger.meter_answers_anew(tx, meter, cache_key="new", team=1)
        assert ledger.meter_answers_anew(tx, meter, cache_key="new", team=2)


@pytest.mark.parametrize("clash", [{"step": 2}, {"step": 1, "cache_key": "another"}])
def test_no_question_and_no_step_is_answered_twice(
    database: Any, make_rows: Any, seal: Callable[..., int], file: Callable[..., int], clash: dict[str, Any]
) -> None:
    study = make_rows()
    set_id, first, second = seal(study, "gate"), file(study, "seal", None), file(study, "gate", study.baseline_id)
    with database.referee.begin() as tx:
        entry(tx, set_id, first, 1)
    twice = pytest.raises(StoreError, match=r"ledger_(step|cache)_key")
    with twice, database.referee.begin() as tx:
        entry(tx, set_id, second, clash["step"], cache_key=clash.get("cache_key", "question 1"))


def test_predictions_of_any_content_take_the_same_room(
    database: Any, ask: Any, make_rows: Any, seal: Callable[..., int]
) -> None:
    """Every role may ask for a table's size; compressed, constant predictions would be recognised by it."""
    study = make_rows()
    set_id, examples = seal(study, "gate"), 20_000

    def room_of(artifact: str, labels: Any) -> int:
        before = "SELECT pg_total_relation_size('sealed.predictions')"
        ((start,),) = ask(before)
        with database.referee.begin() as tx:
            sealed.keep_predictions(tx, set_id, artifact, labels=labels, failure=None)
        return int(ask(before)[0][0] - start)

    room_of(study.artifact(1), np.zeros(examples, dtype=np.int64))  # the first one makes the files
    constant = room_of(study.artifact(2), np.zeros(examples, dtype=np.int64))
    varied = room_of(study.artifact(3), np.random.default_rng(7).integers(0, 2**60, examples))
    assert abs(constant - varied) <= 8192  # a page more or less, by where it falls
    assert constant > 8 * examples
