"""Splitting and sealing a study's data: what is planned is there, nothing overlaps, a crash changes nothing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from property_sizes import examples
from registering import register_study
from sqlalchemy import text

from easeml_core.data.layout import Layout
from easeml_core.data.sources.load import load_source
from easeml_core.entities import RequestKind, SealedSetPurpose, Task
from easeml_core.errors import SealedSetTooSmallError, WrongRoleError
from easeml_core.services.registration import sealing
from easeml_core.services.registration.sealing import part_sizes
from easeml_core.services.reports.overview import overview, study_state
from easeml_core.services.test_sets.planning import plan_for_gate, plan_for_meter
from easeml_core.settings.config import GateConfig, MeterConfig
from easeml_core.store.tables import requests, sealed, studies
from easeml_core.store.tables.test_sets import example_hashes
from easeml_core.training.trainers import default_candidates

SEALED_TABLES = ("installation", "test_sets", "examples", "predictions", "ledger")


def sealed_set(lab: Any, purpose: str, study: str = "full") -> tuple[np.ndarray, np.ndarray]:
    find = "SELECT t.id FROM work.test_sets t JOIN work.studies s ON s.id = t.study_id WHERE s.name = :study"
    set_id = lab.one(find + " AND purpose = :purpose", study=study, purpose=purpose)
    with lab.referee.begin() as tx:
        return sealed.sealed_inputs(tx, set_id), sealed.sealed_labels(tx, set_id)


def as_set(inputs: np.ndarray, labels: np.ndarray) -> set[bytes]:
    return {row.tobytes() + bytes([label]) for row, label in zip(inputs, labels, strict=True)}


def test_the_four_parts_share_no_row_and_together_are_the_data(lab: Any) -> None:
    parts, table = lab.open_parts(), load_source("sklearn:breast_cancer")
    pieces = [
        as_set(parts.train_inputs, parts.train_labels),
        as_set(parts.validation_inputs, parts.validation_labels),
        as_set(*sealed_set(lab, "gate")),
        as_set(*sealed_set(lab, "meter")),
    ]
    assert sum(map(len, pieces)) == len(table.labels)
    assert set.union(*pieces) == as_set(table.inputs, table.labels)


def test_the_gate_set_has_the_papers_size_for_its_condition(lab: Any) -> None:
    # Ease.ml/ci (2019), two variables, full adaptivity: 2 (ln 2^H + ln(2 / delta)) / epsilon^2.
    planned = math.ceil(2 * (3 * math.log(2) + math.log(2 / 0.1)) / 0.2**2)
    assert len(sealed_set(lab, "gate")[1]) == planned == 254
    # Under firstChange and none, ln H in place of ln 2^H.
    planned = math.ceil(2 * (math.log(3) + math.log(2 / 0.1)) / 0.2**2)
    assert len(sealed_set(lab, "gate", "first")[1]) == len(sealed_set(lab, "gate", "hidden")[1]) == planned


def test_the_parts_are_published_with_their_sizes_only(lab: Any, recorded: Any) -> None:
    rows = dict(lab.rows("SELECT part, rows FROM work.data_parts WHERE data_version_id = 1", store=lab.worker))
    assert rows == {"gate": 254, "meter": 56, "train": 174, "validation": 85}
    message = lab.one("SELECT message FROM work.answers ORDER BY request_id LIMIT 1")
    recorded(message, "study_is_sealed")


@pytest.mark.parametrize("table", SEALED_TABLES)
def test_a_worker_sees_no_sealed_row(table: str, lab: Any) -> None:
    with pytest.raises(WrongRoleError, match="schema sealed"):
        lab.rows(f"SELECT * FROM sealed.{table}", store=lab.worker)


def test_the_baseline_is_the_majority_class_and_no_trial_made_it(lab: Any) -> None:
    parts = lab.open_parts()
    majority = int(np.bincount(parts.train_labels).argmax())
    found = lab.rows(
        "SELECT format, artifact, validation_loss FROM work.models WHERE study_id = 1 AND trial_id IS NULL"
    )
    ((kind, artifact, loss),) = found
    assert (kind, lab.artifacts.path(artifact).read_text()) == ("constant", f'{{"label": {majority}}}')
    assert loss == pytest.approx(float(np.mean(parts.validation_labels != majority)), abs=0)


def test_too_few_rows_are_refused_with_the_planners_figures(bare: Any) -> None:
    answer = bare.register("iris", source="sklearn:iris")
    needed = plan_for_gate(PAPERS)
    assert answer.refused
    for figure in (f"at least {needed.labels:,} examples", "149 distinct rows", "254 for the gate", "for the meter"):
        assert figure in answer.message
    assert "widen the tolerance" in answer.message  # and what to do
    assert study_state(bare.worker, study="iris") == "REFUSED"
    (entry,) = overview(bare.worker).tenants
    assert entry.refusal == answer.message
    assert entry.next.startswith("register it again: ")
    assert " 254 examples" in entry.next


def test_a_refused_study_leaves_nothing_behind(bare: Any) -> None:
    bare.register("iris", source="sklearn:iris")
    for table in ("work.data_versions", "work.test_sets", "work.models", "sealed.test_sets", "sealed.examples"):
        assert bare.one(f"SELECT count(*) FROM {table}") == 0
    assert not bare.artifacts.root.exists()


def test_data_that_cannot_be_read_refuse_the_study_with_the_reason(bare: Any, tmp_path: Any) -> None:
    answer = bare.register("lost", source=f"csv:{tmp_path}/none.csv", target="label")
    assert answer.refused
    assert "none.csv" in answer.message
    assert study_state(bare.worker, study="lost") == "REFUSED"


class Killed(BaseException):
    """As abrupt as an exception can be."""


def test_a_crash_in_the_middle_seals_the_same_examples_the_next_time(bare: Any, monkeypatch: Any) -> None:
    seen: list[str] = []

    def die(tx: Any, *_: Any, **__: Any) -> None:
        seen.extend(tx.execute(text("SELECT fingerprint FROM sealed.test_sets ORDER BY id")).scalars())
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(sealing, "add_baseline", die)
        with pytest.raises(Killed):
            bare.register("cancer", request_key="night/1")
    bare.end_leases()
    assert bare.one("SELECT count(*) FROM sealed.test_sets") == 0
    assert study_state(bare.worker, study="cancer") == "REGISTERED"
    assert bare.answer_all() == 1
    assert [f for (f,) in bare.rows("SELECT fingerprint FROM sealed.test_sets ORDER BY id")] == seen
    assert len(seen) == 2
    # The open parts of the first attempt are those of the second: no file shows what is sealed now.
    open_files = [p for p in bare.artifacts.root.rglob("*") if p.is_file() and p.stat().st_size > 1000]
    assert len(open_files) == 1


@pytest.mark.parametrize("purpose", ["gate", "meter"])
def test_sealed_examples_lie_in_an_order_that_only_the_secret_decides(purpose: str, lab: Any) -> None:
    hashes = example_hashes(sealed_set(lab, purpose)[0], load_source("sklearn:breast_cancer").feature_names)
    with lab.referee.begin() as tx:
        assert sealed.fixed_order(tx, hashes).tolist() == list(range(len(hashes)))


def test_the_names_of_the_columns_are_kept_for_whoever_brings_new_examples(lab: Any) -> None:
    with lab.worker.begin() as tx:
        version = studies.latest_data_version(tx, studies.get_study(tx, "full").id)
        assert studies.feature_names(tx, version.id) == list(load_source("sklearn:breast_cancer").feature_names)


def test_conditions_for_slices_need_examples_of_which_the_slice_is_known(bare: Any) -> None:
    gate = {"condition": "n - o > 0 +/- 0.2", "reliability": 0.9, "steps": 3, "slices": [["north", "n > 0.5 +/- 0.3"]]}
    answer = bare.register("cancer", gate=gate)
    assert answer.refused
    assert "easeml test-set seal --slices COLUMN" in answer.message


def test_another_installation_splits_otherwise(bare: Any, lab: Any) -> None:
    bare.register("full", request_key="register/full")  # the very call that made the laboratory's study
    ours, theirs = (x.one("SELECT min(fingerprint) FROM sealed.test_sets WHERE id <= 2") for x in (bare, lab))
    assert ours != theirs


def test_one_set_for_gate_and_meter_is_refused_by_the_schema(bare: Any, monkeypatch: Any) -> None:
    split = sealing.parts_of

    def overlapping(*given: Any, **more: Any) -> Any:
        parts = split(*given, **more)
        object.__setattr__(parts, "meter", parts.gate)
        return parts

    monkeypatch.setattr(sealing, "parts_of", overlapping)
    answer = bare.register("cancer")
    assert answer.refused
    assert "need disjoint sets" in answer.message
    assert bare.one("SELECT count(*) FROM sealed.test_sets") == bare.one("SELECT count(*) FROM work.test_sets") == 0


def test_sealing_twice_changes_nothing(lab: Any) -> None:
    before = lab.rows("SELECT id, fingerprint FROM sealed.test_sets ORDER BY id")
    with lab.worker.begin() as tx:
        study = studies.get_study(tx, "full")
        asked = {"study_id": study.id, "model_id": None, "arguments": {}, "request_key": "again"}
        request_id = requests.file_request(tx, kind=RequestKind.SEAL, **asked)
    answer = lab.answer(request_id)
    assert (answer.refused, answer.message) == (False, "study full is ACTIVE already")
    assert lab.rows("SELECT id, fingerprint FROM sealed.test_sets ORDER BY id") == before


def test_images_get_the_networks_as_default_candidates(bare: Any) -> None:
    bare.register("digits", source="sklearn:digits", candidates=None)
    names = [name for (name,) in bare.rows("SELECT name FROM work.candidates ORDER BY id")]
    assert names == [c["name"] for c in default_candidates(Layout("image", (8, 8, 1)), Task.CLASSIFICATION)]
    assert {"torch_mlp", "torch_cnn"} <= set(names)


def test_a_new_study_is_waiting_until_the_referee_came(bare: Any) -> None:
    register_study(bare.worker, tenant="lab", study="iris", source="sklearn:iris", request_key="k")
    (entry,) = overview(bare.worker).tenants
    assert (entry.state, entry.next.startswith("wait: the referee ")) == ("REGISTERED", True)


PAPERS = GateConfig(condition="n - o > 0 +/- 0.2", reliability=0.9, steps=3, estimator="paper")
CONFIGS = {SealedSetPurpose.GATE: PAPERS, SealedSetPurpose.METER: MeterConfig(tolerance=0.2)}


@given(rows=st.integers(1, 20_000))
@settings(deadline=None, max_examples=examples(100))
def test_part_sizes_hold_the_plans_and_leave_a_fifth_for_training(rows: int) -> None:
    gate, meter = PAPERS, CONFIGS[SealedSetPurpose.METER]
    least = {"gate": plan_for_gate(gate).labels, "meter": plan_for_meter(meter).labels}
    least["validation"] = plan_for_meter(meter).validation_minimum or 0
    if sum(least.values()) > 0.8 * rows:
        with pytest.raises(SealedSetTooSmallError, match="bring data") as refused:
            part_sizes(rows, CONFIGS)
        assert refused.value.needed == 254
        return
    sizes = part_sizes(rows, CONFIGS)
    assert all(sizes[name] >= least[name] for name in least)
    assert sum(sizes.values()) <= 0.8 * rows


def test_large_data_give_sharper_sets_than_planned() -> None:
    assert part_sizes(10_000, CONFIGS) == {"gate": 2000, "meter": 1000, "validation": 1500}


def test_the_forms_own_source_is_large_enough_for_the_default_plans() -> None:
    rows = len(load_source("sklearn:digits").labels)
    sizes = part_sizes(rows, {SealedSetPurpose.GATE: GateConfig(), SealedSetPurpose.METER: MeterConfig()})
    assert sizes["gate"] >= 150  # the plan of the default condition
    assert sum(sizes.values()) <= 0.8 * rows
