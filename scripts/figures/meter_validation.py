"""How large a validation set must be, so that a signal above 1 does not come from its own noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easeml_core.meter.planner import validation_minimum
from easeml_core.meter.validation_set import rows_for_looks
from figures.exact_validation import exact_validation_minimum
from figures.markdown import shown, table
from figures.meter_answers import plan

if TYPE_CHECKING:
    from figures.meter_answers import MeterRunner

BOUNDARIES, RELIABILITY = (0.02, 0.05, 0.1), 0.99
LOOKS = 500


def validation(runner: MeterRunner) -> str:
    """Rows by the first boundary: by the rule, by exact tails, and for many looks."""
    rows = []
    for b in BOUNDARIES:
        sizes = (
            validation_minimum(ranges=(b,), reliability=RELIABILITY),
            exact_validation_minimum(ranges=(b,), reliability=RELIABILITY),
            exact_validation_minimum(ranges=(b,), reliability=RELIABILITY, error_rate=0.1),
            rows_for_looks(LOOKS, ranges=(b,), reliability=RELIABILITY),
        )
        rows.append([f"{b:g}", *(f"{size:,}" for size in sizes)])
    command = plan(tolerance=0.02, steps=32, ranges="0.05,0.13,0.25")
    if runner.answer(command)["validation_minimum"] != validation_minimum(ranges=(0.05,), reliability=RELIABILITY):
        message = "the plan and the rule disagree on the size of the validation set"
        raise RuntimeError(message)
    header = ["first boundary", "rule", "exact, any error rate", "exact, error rate .1", f"rule for {LOOKS} models"]
    return f"{table(header, rows)}\n\n{shown([command], '`validation_minimum` of the answer is the rule.')}"
