"""An error while judging: what may depend on labels spends the step, what cannot is looked at again."""

from __future__ import annotations

import math
from typing import Any

import pytest
from joint_lab import LN2, Shared

from easeml_core.errors import StoreUnavailableError
from easeml_core.services.gate import judge


class _OddError(RuntimeError):
    pass


@pytest.mark.parametrize(("adaptivity", "said"), [("full", "fail"), ("none", "withheld")])
def test_an_error_while_judging_spends_the_step_and_looks_like_a_fail(
    adaptivity: str, said: str, request: Any, monkeypatch: Any
) -> None:
    """Answered as refused and free, an error that depends on labels would be a question that costs nothing."""
    shared = request.getfixturevalue("shared" if adaptivity == "full" else "hidden")

    def fail(*_: Any, **__: Any) -> Any:
        raise _OddError("17 of 40")

    monkeypatch.setattr(judge, "judge_predictions", fail)
    model = shared.model(0.0)
    answer = shared.gate(model)
    assert (answer.refused, answer.symbol, answer.step) == (False, said, 1)
    assert "17" not in answer.message
    ((report, cost),) = shared.lab.rows("SELECT report, log_cost FROM sealed.ledger")
    assert (report["verdict"], report["symbol"], report["error"]) == ("FAIL", "fail", "_OddError: 17 of 40")
    assert cost == (LN2 if adaptivity == "full" else 0.0)
    assert shared.gate(model).cached
    monkeypatch.undo()
    assert shared.gate(shared.model(0.0)).step == 2


def test_an_unfit_report_spends_the_step_too(shared: Shared, monkeypatch: Any) -> None:
    found = judge.judge_predictions

    class Odd:
        passed = True

        def to_json(self) -> dict[str, Any]:
            return {"estimate": math.nan}

    monkeypatch.setattr(judge, "judge_predictions", lambda *given, **more: found(*given, **more) and Odd())
    assert shared.gate(shared.model(0.0)).symbol == "fail"
    assert "finite numbers" in shared.lab.one("SELECT report ->> 'error' FROM sealed.ledger")


def test_a_database_that_is_away_while_judging_spends_nothing(shared: Shared, monkeypatch: Any) -> None:
    def away(*_: Any, **__: Any) -> Any:
        raise StoreUnavailableError("gone")

    model = shared.model(0.0)
    with monkeypatch.context() as patch:
        patch.setattr(judge, "judge_predictions", away)
        with pytest.raises(StoreUnavailableError):
            shared.gate(model)
    assert shared.ledger() == []
    assert shared.gate(model).symbol == "pass"
