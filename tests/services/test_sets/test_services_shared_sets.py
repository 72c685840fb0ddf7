"""Sets that gate and meter share, and second validation samples, brought as files; which set follows which."""

from __future__ import annotations

import math
from typing import Any

import pytest
from brought import retire, seal

from easeml_core.errors import AlreadyExistsError, InvalidInputError, SealedSetTooSmallError
from easeml_core.services.test_sets import lifecycle
from easeml_core.services.test_sets.planning import plan_joint

JOINT = {"purpose": "joint", "settings": {"reliability": 0.8, "gate": {"estimator": "exact"}, "meter": {"steps": 5}}}


def live(lab: Any) -> dict[str, int]:
    """The live sets of the study ``full``, by purpose."""
    return dict(lab.rows("SELECT purpose, id FROM work.test_sets WHERE study_id = 1 AND state = 'live'"))


@pytest.mark.journey
def test_a_shared_set_waits_until_both_have_ended(lab: Any, bring: Any) -> None:
    waiting = seal(lab, bring(), name="both", **JOINT)
    assert (waiting.state, waiting.purpose, waiting.steps) == ("sealed", "joint", 3 + 5)
    retire(lab, 1)
    assert live(lab) == {"meter": 2}
    retire(lab, 2)
    assert live(lab) == {"joint": waiting.test_set_id}
    assert not lab.gate("good").refused
    assert not lab.meter("good").refused
    (entry,) = [e for e in lifecycle.list_test_sets(lab.worker) if e.name == "both"]
    assert entry.steps_used == 2


def test_after_a_shared_set_one_for_each_can_follow(lab: Any, bring: Any) -> None:
    for set_id in (1, 2):
        retire(lab, set_id)
    both = seal(lab, bring(seed=1), **JOINT).test_set_id
    assert live(lab) == {"joint": both}
    gate, meter = (
        seal(lab, bring(seed=seed), purpose=purpose).test_set_id for seed, purpose in ((2, "gate"), (3, "meter"))
    )
    last = seal(lab, bring(seed=4), **JOINT)
    assert last.state == "sealed"
    retire(lab, both)
    assert live(lab) == {"gate": gate, "meter": meter}


def test_the_set_that_was_sealed_first_follows_a_shared_one(lab: Any, bring: Any) -> None:
    for set_id in (1, 2):
        retire(lab, set_id)
    both = seal(lab, bring(seed=1), **JOINT).test_set_id
    following = seal(lab, bring(seed=2), **JOINT).test_set_id
    seal(lab, bring(seed=3), purpose="gate")
    retire(lab, both)
    assert live(lab) == {"joint": following}


def test_a_shared_set_that_only_meets_a_live_one_is_passed_over(lab: Any, bring: Any) -> None:
    seal(lab, bring(seed=1), **JOINT)
    gate = seal(lab, bring(seed=2), purpose="gate").test_set_id
    retire(lab, 1)
    assert live(lab) == {"gate": gate, "meter": 2}


def test_without_other_settings_a_shared_set_keeps_what_both_have_promised(lab: Any, bring: Any) -> None:
    config = seal(lab, bring(500), purpose="joint").plan
    assert (1 - config.reliability, config.gate_share) == pytest.approx((0.1 + 0.1, 0.5), rel=1e-9)
    parts = [1 - config.gate.reliability, 1 - config.meter.reliability]
    assert parts == pytest.approx([0.1, 0.1], rel=1e-9)
    assert math.fsum(parts) <= 0.2 + 1e-12


def test_the_settings_of_a_shared_set_are_those_asked_for(lab: Any, bring: Any) -> None:
    config = seal(lab, bring(), **JOINT).plan
    assert (config.reliability, config.gate.estimator, config.meter.steps) == (0.8, "exact", 5)
    assert (config.gate.steps, config.meter.tolerance) == (3, 0.2)  # of the study
    again = seal(lab, bring(), **JOINT)
    assert again.sealed_before
    with pytest.raises(AlreadyExistsError, match=r"gate .*; meter .*; reliability 0.8"):
        seal(lab, bring(), purpose="joint", settings=JOINT["settings"] | {"reliability": 0.9})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"gate": {"adaptivity": "recycle"}}, "it reuses the"),
        ({"gate": {"sampling": "early"}}, "sampling 'early'"),
        ({"gate": {"reliability": 0.9}}, "no separate reliability"),
        ({"meter": {"teams": 2}}, "with a gate:"),
        ({"condition": "n > 0.5 +/- 0.1"}, "joint .* 'condition'; known: gate"),
    ],
)
def test_what_the_proof_does_not_cover_is_not_sealed(settings: Any, words: str, lab: Any, bring: Any) -> None:
    with pytest.raises(InvalidInputError, match=words):
        seal(lab, bring(), purpose="joint", settings=settings)
    with pytest.raises(InvalidInputError, match=words):
        lifecycle.plan_test_set(lab.referee, study="full", name="next", purpose="joint", settings=settings)


@pytest.mark.parametrize("purpose", ["joint", "direct"])
def test_both_need_all_their_labels(purpose: str, lab: Any, bring: Any) -> None:
    with pytest.raises(InvalidInputError, match=f"{purpose} set needs"):
        seal(lab, bring(), purpose=purpose, labelled=False)


def test_a_shared_set_is_planned_and_fulfilled(lab: Any, bring: Any) -> None:
    planned = lifecycle.plan_test_set(lab.referee, study="full", name="next", **JOINT)
    sizes = plan_joint(planned.plan)
    assert planned.rows == sizes.labels == max(sizes.gate_labels, sizes.meter_labels)
    with pytest.raises(SealedSetTooSmallError, match="joint set") as refused:
        seal(lab, bring(sizes.labels - 1), name="next", purpose="joint")
    assert refused.value.needed == sizes.labels
    sealed = seal(lab, bring(sizes.labels), name="next", purpose="joint")
    assert (sealed.plan, sealed.needed) == (planned.plan, sizes.labels)


@pytest.mark.journey
def test_slices_of_a_shared_set(lab: Any, bring: Any) -> None:
    for set_id in (1, 2):
        retire(lab, set_id)
    side = ["left" if i % 2 else "right" for i in range(560)]
    sealed = seal(lab, bring(560, columns={"side": side}), slices_column="side", **JOINT)
    slices = sealed.plan.gate.slices
    assert [name for name, _ in slices] == ["left", "right"]
    assert not lab.gate("good").refused
    report = lab.one("SELECT report FROM sealed.ledger")
    assert [name for name, *_ in report["slices"]] == ["left", "right"] or len(report["slices"]) == 2


def test_a_second_sample_is_live_beside_the_others(lab: Any, bring: Any) -> None:
    sealed = seal(lab, bring(), purpose="direct", settings={"reliability": 0.95})
    assert (sealed.state, sealed.purpose) == ("live", "direct")
    config = sealed.plan
    assert (config.reliability, config.ranges, config.tolerance) == (0.95, (0.2, 0.6), 0.2)
    assert set(live(lab)) == {"gate", "meter", "direct"}
    following = seal(lab, bring(seed=2), purpose="direct")
    assert following.state == "sealed"
    retire(lab, sealed.test_set_id)
    assert live(lab)["direct"] == following.test_set_id


@pytest.mark.parametrize("change", [{"ranges": [0.1, 0.6]}, {"tolerance": 0.1}])
def test_a_second_sample_has_the_ranges_and_the_tolerance_of_the_meter(change: Any, lab: Any, bring: Any) -> None:
    words = r"a direct set must have the ranges and the tolerance of the study's meter, \[0.2, 0.6\] and 0.2, since"
    with pytest.raises(InvalidInputError, match=words):
        seal(lab, bring(), purpose="direct", settings=change)
    retire(lab, 2)  # without a live meter set, those of the study
    with pytest.raises(InvalidInputError, match=words):
        seal(lab, bring(), purpose="direct", settings=change)
