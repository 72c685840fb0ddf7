"""The plot of a plan: how many labels the gate needs, beside what else could be asked for. Needs matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_core.display.figures import Bar, draw_bars
from easeml_core.errors import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easeml_core.gate.alternatives import Alternative
    from easeml_core.gate.planner import GatePlan, PlannedFor


def draw_gate_plan(condition: str, found: GatePlan, others: Sequence[Alternative], asked: PlannedFor) -> Any:
    """Bars of the labels that the plan and its alternatives need over all submissions.

    Args:
        condition: As it was asked.
        found: The plan.
        others: As of ``alternatives_to``.
        asked: What the plan is for.

    Returns:
        The figure, for ``display.figures.save_figure``.

    Raises:
        InvalidInputError: If matplotlib is not installed.
    """
    steps, kind = asked.steps, "labelled example" if found.labels else "example without a label"
    need = found.labels or found.unlabelled
    bars = [Bar("as asked", need, chosen=True)]
    for other in others:
        is_fresh = other.steps < steps
        total = (other.labels or other.unlabelled) * (steps if is_fresh else 1)
        bars.append(Bar(_change(other), total, note="in all" if is_fresh else ""))
    how = (
        f"reliability {asked.reliability:g}, adaptivity {asked.adaptivity}, {asked.mode}, {found.estimator} "
        f"({found.method}); blue: as asked, grey: one thing changed"
    )
    plural = f"{kind.replace('example', 'examples')}"
    clauses = condition.replace("+/-", "\u00b1").split(" /\\ ")
    shown = " /\\ ".join(clause.replace(" ", "\u00a0") for clause in clauses)  # no line ends within one
    finding = f"{counted(need, kind, plural)} let the gate judge {shown} for {counted(steps, 'submission')}"
    return draw_bars(bars, unit=f"{plural}, for all submissions together", finding=finding, how=how)


def _change(other: Alternative) -> str:
    """What is different, without the figures behind it."""
    return (other.change.rpartition(": ")[0] or other.change).removeprefix("with ")
