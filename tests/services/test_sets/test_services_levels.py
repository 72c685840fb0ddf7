"""The level of a verdict is the same wherever it is stated: the plan, the referee, ``gate decide``, the evidence."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from easeml_core.gate.offline.verdict import log_level_of
from easeml_core.services.evidence.bundle_check import _Work
from easeml_core.services.gate.judge import _Case
from easeml_core.services.test_sets.planning import plan_for_gate
from easeml_core.settings.config import GateConfig

HALVED = {"fp-free": 3, "fn-free": 4}


@pytest.mark.parametrize("others", [0, 3])
@pytest.mark.parametrize("estimator", ["exact", "paper"])
@pytest.mark.parametrize("mode", ["fp-free", "fn-free"])
@pytest.mark.parametrize("adaptivity", ["none", "full", "firstChange", "upTo:2", "recycle"])
def test_plan_verdict_and_evidence_have_one_level(adaptivity: str, mode: str, estimator: str, others: int) -> None:
    config = GateConfig(
        condition="n > 0.5 +/- 0.2",
        reliability=0.9,
        mode=mode,
        adaptivity=adaptivity,
        steps=5,
        estimator=estimator,
        other_conditions=others,
    )
    changes = 1 if adaptivity in {"recycle", "upTo:2"} else 0
    asked = {"reliability": 0.9, "adaptivity": adaptivity, "steps": 5, "mode": mode, "estimator": estimator}
    decided = log_level_of(step=2, passes=changes, **asked)
    found = decided - HALVED[mode] * math.log(2) * (others > 0)

    assert plan_for_gate(config, changes).log_level == pytest.approx(found, rel=1e-12)
    case = SimpleNamespace(joint=None, config=config, usage=SimpleNamespace(gate_changes=changes))
    assert _Case.log_level.fget(case) == pytest.approx(found, rel=1e-12)
    for stated, faults in ((found, 0), (found + 1e-6, 1)):
        work = _Work({})
        work._level(
            {"purpose": "gate", "plan": asked},
            asked | {"other_conditions": others},
            {"log_level": stated},
            {"changes_before": changes},
            None,
        )
        assert len(work.faults) == faults
