"""What stands is a model, not a row of it: each data version has its own for the baseline and for what it measured."""

from __future__ import annotations

from typing import Any

import pytest

from easeml_core.services.datasets.validation_sets import replace_validation
from easeml_core.services.evaluation.reevaluation import remeasure


def replaced(lab: Any, bring: Any, study: str, seed: int = 1) -> None:
    brought = bring(seed=seed)
    replace_validation(lab.referee, lab.artifacts, study=study, inputs=brought.inputs, labels=brought.labels)


def test_a_pass_against_the_baseline_holds_after_the_validation_set_was_replaced(lab: Any, bring: Any) -> None:
    passed = lab.gate("good", "first")  # under firstChange a pass ends the set: no further question is possible
    assert passed.symbol == "pass"
    before = lab.one("SELECT count(*) FROM work.models m WHERE m.trial_id IS NULL AND NOT m.submitted")
    replaced(lab, bring, "first")
    assert lab.one("SELECT count(*) FROM work.models m WHERE m.trial_id IS NULL AND NOT m.submitted") == before + 1
    assert lab.promote(passed.request_id, "good", "first").promoted


@pytest.mark.journey
def test_another_model_that_stands_makes_it_stale_still(lab: Any, bring: Any) -> None:
    first, second = lab.gate("worse").request_id, lab.gate("good").request_id
    replaced(lab, bring, "full")
    remeasure(lab.referee, lab.artifacts, "full")
    assert lab.promote(first, "worse").promoted
    answer = lab.promote(second)
    assert answer.refused
    assert " stands now" in answer.message
