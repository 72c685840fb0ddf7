"""What a study may ask of a set that gate and meter share, and how its data is cut and its delta split."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
from joint_lab import GATE, JOINT, METER, register

from easeml_core.errors import ConfigError, InvalidInputError
from easeml_core.services.registration.register import study_settings
from easeml_core.services.test_sets.planning import plan_joint
from easeml_core.settings.config import GateConfig, JointConfig, MeterConfig


@pytest.mark.parametrize("adaptivity", ["recycle", "upTo:2", "firstChange"])
def test_allocations_that_the_proof_does_not_cover_are_refused_at_registration(adaptivity: str) -> None:
    with pytest.raises(InvalidInputError, match=f"'{adaptivity}' .*'full' or"):
        study_settings(gate=GATE | {"adaptivity": adaptivity}, meter=METER, training=None, joint=JOINT)


@pytest.mark.parametrize(
    ("gate", "meter", "joint", "words"),
    [
        ({"sampling": "early"}, {}, JOINT, "sampling 'early'"),
        ({}, {"method": "ratchet"}, JOINT, "method 'ratchet', 1 team"),
        ({}, {"teams": 2}, JOINT, "2 team.* with a gate"),
        ({"reliability": 0.9}, {}, JOINT, "the gate .* separate"),
        ({}, {"reliability": 0.9}, JOINT, "the meter .* separate"),
        ({}, {}, {"share": 0.5}, "joint .* 'share'; known: gate_share"),
        ({}, {}, {"gate_share": 1}, "gate_share must be"),
        ({}, {}, "yes", "joint must be"),
    ],
)
def test_settings_of_a_shared_set_are_checked_at_registration(gate: Any, meter: Any, joint: Any, words: str) -> None:
    with pytest.raises((InvalidInputError, ConfigError), match=words):
        study_settings(gate=GATE | gate, meter=METER | meter, training=None, joint=joint)


def test_without_the_setting_each_has_a_set_of_its_own(bare: Any) -> None:
    settings = study_settings(gate=None, meter=None, training=None)
    assert (settings["joint"], settings["direct"]) == (None, None)
    assert settings["gate"]["reliability"] == GateConfig().reliability
    bare.register("apart", gate={"steps": 3}, meter={"tolerance": 0.2})
    assert [p for (p,) in bare.rows("SELECT purpose FROM work.test_sets ORDER BY id")] == ["gate", "meter"]


def test_a_study_settings_that_slipped_through_is_refused_when_it_is_sealed(bare: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("easeml_core.services.registration.register._require_plans", lambda settings: None)
    answer = bare.register("odd", gate=GATE | {"adaptivity": "recycle"}, meter=METER, joint=JOINT)
    assert answer.refused
    assert "it reuses the" in answer.message


def test_a_second_validation_sample_is_cut_and_takes_its_part_of_delta(bare: Any) -> None:
    meter = {"ranges": (0.2, 0.6), "tolerance": 0.3, "reliability": 0.9, "steps": 4}
    assert not bare.register("two", gate={"steps": 3}, meter=meter, direct={"share": 0.25}).refused
    plans = dict(bare.rows("SELECT purpose, plan FROM work.test_sets ORDER BY id"))
    assert list(plans) == ["gate", "meter", "direct"]
    total, direct = (MeterConfig.from_json(plans[purpose]) for purpose in ("meter", "direct"))
    assert (1 - total.reliability, 1 - direct.reliability) == pytest.approx((0.075, 0.025), rel=1e-9)
    assert (1 - total.reliability) + (1 - direct.reliability) <= 1 - 0.9
    assert (direct.ranges, direct.tolerance) == (total.ranges, total.tolerance)
    rows = dict(bare.rows("SELECT part, rows FROM work.data_parts"))
    assert set(rows) == {"train", "validation", "gate", "meter", "direct"}
    assert sum(rows.values()) == 569


def test_a_shared_set_and_a_second_sample_split_one_delta_in_three(bare: Any, tmp_path: Any) -> None:
    register(bare, tmp_path, direct={"share": 0.5})
    plans = dict(bare.rows("SELECT purpose, plan FROM work.test_sets ORDER BY id"))
    shared, direct = JointConfig.from_json(plans["joint"]), MeterConfig.from_json(plans["direct"])
    deltas = [1 - part.reliability for part in (shared.gate, shared.meter, direct)]
    assert deltas == pytest.approx([0.025, 0.0375, 0.0375], rel=1e-9)
    assert math.fsum(deltas) <= 1 - 0.9


def test_the_page_has_the_planners_sizes() -> None:
    page = (Path(__file__).parents[4] / "docs" / "meter.md").read_text(encoding="utf-8")
    table = page.split("| gate needs | meter needs | one set | two sets |\n")[1].split("\n\n")[0].splitlines()[1:]
    for place, line in enumerate(table):
        condition, adaptivity, *figures = (cell.strip(" `") for cell in line.strip("|").split("|"))
        steps, tolerance, ambiguous, *sizes = (float(re.sub(",", "", figure)) for figure in figures)
        gate = GateConfig(condition=condition, adaptivity=adaptivity, steps=int(steps))
        meter = MeterConfig(tolerance=tolerance, ambiguous=int(ambiguous), steps=32 if place else 8)
        found = plan_joint(JointConfig(gate, meter))
        both = found.separate_gate + found.separate_meter
        assert sizes == [found.gate_labels, found.meter_labels, found.labels, both], condition
    assert len(table) == 4


def test_the_planned_sizes_follow_from_the_formulas() -> None:
    """Hoeffding for the meter by hand; for the gate, the published size of F1 with ln H + log weight for ln M."""
    gate = GateConfig(condition="n > 0.8 +/- 0.05", steps=8, estimator="paper")
    meter = MeterConfig(tolerance=0.05, steps=16, ambiguous=3, tail="hoeffding")
    found = plan_joint(JointConfig(gate, meter, reliability=0.99, gate_share=0.2))
    nats = math.log(2 * 16 / 0.008) + (8 + 3) * math.log(2)
    assert found.meter_labels == math.ceil(nats / (2 * 0.05**2))
    nats = math.log(8 / 0.002) + (7 + 3) * math.log(2)
    assert found.gate_labels == math.ceil(nats / (2 * 0.05**2))
    hidden = plan_joint(JointConfig(GateConfig(**gate.to_json() | {"adaptivity": "none"}), meter, 0.99, 0.2))
    assert hidden.gate_labels == math.ceil((nats - 7 * math.log(2)) / (2 * 0.05**2))
    assert hidden.meter_labels == math.ceil((math.log(2 * 16 / 0.008) + 3 * math.log(2)) / (2 * 0.05**2))
