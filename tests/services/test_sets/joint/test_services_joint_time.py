"""How long a decision on a shared set takes tells nothing of the log weight: no size is searched for at it.

Whether a signal was ambiguous shows in the log weight alone, which stays sealed until the set ends.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from attrs import evolve
from joint_lab import LN2, Shared, costs, parked

from easeml_core.entities import SealedSetPurpose
from easeml_core.meter.shared_ledger import joint_plan, planned_gate_log_weight
from easeml_core.services.referee.process import Referee
from easeml_core.services.referee.publishing import Timetable
from easeml_core.services.referee.requests import file_meter_request
from easeml_core.services.test_sets import answers, planning
from easeml_core.services.test_sets.planning import examples_for_joint_gate, joint_weight_limit, plan_joint
from easeml_core.settings.config import GateConfig, JointConfig, MeterConfig
from easeml_core.store.tables import releases

if TYPE_CHECKING:
    from collections.abc import Iterator

CONDITIONS = [
    "n - o > 0 +/- 0.2",
    "n > 0.8 +/- 0.05",
    "d < 0.2 +/- 0.05 /\\ n - o > 0.02 +/- 0.05",
    "n - 1.1 * o > 0 +/- 0.1",
]


@pytest.fixture
def searches(monkeypatch: Any) -> Iterator[list[tuple[str, float]]]:
    """Conditions and log weights that a size was searched for; no limit is known beforehand."""
    found, real = list[tuple[str, float]](), planning.plan_gate

    def plan(condition: Any, **given: Any) -> Any:
        found.append((str(condition), given["log_weight"]))
        return real(condition, **given)

    monkeypatch.setattr(planning, "plan_gate", plan)
    joint_weight_limit.cache_clear()
    yield found
    joint_weight_limit.cache_clear()


def planned(condition: str = "n - o > 0 +/- 0.2", **changes: Any) -> JointConfig:
    gate = GateConfig(condition=condition, steps=3, adaptivity="full")
    return JointConfig(gate, MeterConfig(tolerance=0.3, steps=4, ambiguous=2), 0.9, **changes)


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("weight", [0.7, 2.0, 3.5, 6.0])
def test_the_examples_suffice_at_the_limit_and_not_above(condition: str, weight: float) -> None:
    config = planned(condition)
    examples = examples_for_joint_gate(config.gate, weight)
    limit = joint_weight_limit(config, condition, examples)
    assert examples_for_joint_gate(config.gate, limit - 1e-8) <= examples
    assert examples_for_joint_gate(config.gate, limit + 1e-3) > examples
    # The need takes small steps back, so that the one weight need not be the limit itself.
    assert limit == pytest.approx(weight, abs=0.2)


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("ambiguous", [0, 1, 2, 3])
def test_what_is_planned_for_always_fits_into_the_planned_set(condition: str, ambiguous: int) -> None:
    config = planned(condition)
    config = evolve(config, meter=evolve(config.meter, ambiguous=ambiguous))
    weight = planned_gate_log_weight(joint_plan(config), ambiguous)
    limit = joint_weight_limit(config, condition, examples_for_joint_gate(config.gate, weight))
    assert limit > math.nextafter(weight, math.inf)  # the same costs, added up in another order


def test_a_set_that_is_large_enough_for_whatever_is_answered_has_no_limit() -> None:
    """The most: three verdicts, and four signals that could have been any of three."""
    config = planned()
    most = 3 * LN2 + 4 * math.log(len(config.meter.ranges) + 1)
    examples = examples_for_joint_gate(config.gate, most)
    assert joint_weight_limit(config, config.gate.condition, examples) == math.inf
    assert joint_weight_limit(config, config.gate.condition, examples - 3) < most


def test_a_set_that_is_too_small_from_the_start_has_ended() -> None:
    config = planned()
    first = examples_for_joint_gate(config.gate, 0.0)
    assert 0 <= joint_weight_limit(config, config.gate.condition, first) < LN2
    assert joint_weight_limit(config, config.gate.condition, first - 1) == -math.inf
    assert joint_weight_limit(config, config.gate.condition, 0) == -math.inf


def answered(shared: Shared, shares: list[float]) -> None:
    for share in shares:
        assert not shared.meter(shared.model(share)).refused


@pytest.mark.parametrize(("shares", "cost"), [([0.5, 0.496, 0.492], 1.0), ([0.0, 0.004, 0.008], 0.0)])
def test_signals_take_the_same_searches_whether_they_were_clear(
    shares: list[float], cost: float, shared: Shared, searches: Any
) -> None:
    """The first decision searches what the plan and the size tell to, and no later one searches anything."""
    parked(shared)
    ((rows, plan),) = shared.lab.rows("SELECT rows, plan FROM work.test_sets")
    config = JointConfig.from_json(plan)
    joint_weight_limit(config, config.gate.condition, rows)
    expected = list(searches)
    joint_weight_limit.cache_clear()
    searches.clear()
    answered(shared, shares[:1])
    assert searches == expected != []
    answered(shared, shares[1:])
    assert searches == expected
    assert costs(shared) == [("meter", cost)] * 3


def test_verdicts_take_no_search_at_the_weight_of_the_signals(shared: Shared, searches: Any) -> None:
    """What the condition of a request needs is searched for at the planned weight."""
    parked(shared)
    answered(shared, [0.5, 0.496])
    searches.clear()
    shared.gate(shared.model(0.0))
    config = JointConfig.from_json(shared.lab.one("SELECT plan FROM work.test_sets"))
    assert {weight for _, weight in searches} == {plan_joint(config).gate_log_weight}


def test_the_limit_is_found_whatever_the_answers_were(shared: Shared, searches: Any) -> None:
    """Also by a referee that finds that the set has ended, which is not said yet."""
    lab, model = shared.lab, shared.model(0.1)
    lab.as_superuser("UPDATE work.test_sets SET plan = jsonb_set(plan, '{meter,tolerance}', '0.01')")
    file_meter_request(lab.worker, study="shared", model_id=model, request_key=lab.key())
    Referee(lab.referee, lab.artifacts, timetable=Timetable(delay_seconds=3600.0)).run_once()
    assert shared.state() == ("live", None)  # publicly
    joint_weight_limit.cache_clear()
    searches.clear()
    with lab.referee.begin() as tx:
        assert answers.joint_end(tx, releases.live_test_set(tx, 1, SealedSetPurpose.GATE)) == "signals"
    assert searches != []


def test_the_smallest_slice_ends_the_set(shared: Shared, monkeypatch: Any) -> None:
    rows = shared.lab.one("SELECT rows FROM work.test_sets")
    condition = "n > 0.5 +/- 0.2"
    sliced = f'[["small", "{condition}"], ["rest", "n > 0.1 +/- 0.3"]]'
    shared.lab.as_superuser("UPDATE work.test_sets SET plan = jsonb_set(plan, '{gate,slices}', %s::jsonb)", sliced)
    config = JointConfig.from_json(shared.lab.one("SELECT plan FROM work.test_sets"))
    small = examples_for_joint_gate(evolve(config.gate, condition=condition), 1.5 * LN2)
    codes = np.repeat([0, 1], [small, rows - small])
    monkeypatch.setattr(answers.sealed, "sealed_slices", lambda *_: codes)
    ends = []
    for weight in (LN2, 2 * LN2):
        monkeypatch.setattr(answers.ledger, "joint_log_weight", lambda *_, weight=weight: weight)
        with shared.lab.referee.begin() as tx:
            ends.append(answers.joint_end(tx, releases.live_test_set(tx, 1, SealedSetPurpose.GATE)))
    assert ends == [None, "tolerance"]
