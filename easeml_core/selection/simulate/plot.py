"""Plots of a simulation: loss over cost, and efficiency against fairness. Needs matplotlib, and no display."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.canvas import empty_figure, save_figure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from easeml_core.selection.posterior import Array
    from easeml_core.selection.simulate.metrics import Curve
    from easeml_core.selection.simulate.report import Report

STEPS = 600
LEAST_LOSS = 1e-4
"""Losses below are not worth a decade of the axis."""
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")
"""Okabe and Ito's palette, which colour-blind people can tell apart; dashes tell further policies apart."""
DASHES = ("-", "--", ":", "-.")


def plot_losses(report: Report, path: Path) -> None:
    """Median loss of each policy over the cost, with a band from the 10th to the 90th percentile of the repeats.

    Both axes are logarithmic: policies differ in the first few percent, and in the last few hundredths of the loss. The
    losses whose price is reported are dotted lines; less than half the smallest is not shown.

    Raises:
        InvalidInputError: If matplotlib is missing, or the file cannot be written.
    """
    figure, axes = empty_figure()
    curves = {name: [outcome.curve for outcome in outcomes] for name, outcomes in report.outcomes.items()}
    percent = _grid([curve for each in curves.values() for curve in each], report.protocol.until)
    floor = max(min(report.protocol.losses) / 2, LEAST_LOSS)
    for loss in report.protocol.losses:
        axes.axhline(max(loss, floor), color="black", linewidth=0.6, linestyle=":", alpha=0.5)
    for i, (name, each) in enumerate(curves.items()):
        losses = np.maximum([curve.at(percent) for curve in each], floor / 2)
        low, middle, high = np.quantile(losses, [0.1, 0.5, 0.9], axis=0)
        colour, dash = COLOURS[i % len(COLOURS)], DASHES[i // len(COLOURS) % len(DASHES)]
        axes.plot(percent, middle, dash, color=colour, label=name, drawstyle="steps-post")
        axes.fill_between(percent, low, high, step="post", color=colour, alpha=0.12, linewidth=0)
    axes.set_xscale("log")
    axes.set_xlim(percent[0], percent[-1])
    axes.set_yscale("log")
    axes.set_ylim(bottom=floor)
    axes.set_xlabel("cost spent, percent of the cost of everything")
    axes.set_ylabel("accuracy loss, average over tenants")
    served, repeats = report.protocol.served, report.protocol.repeats
    axes.set_title(f"{served} tenants served, median of {repeats} repeats, band: 10th to 90th percentile", fontsize=10)
    axes.legend(frameon=False)
    save_figure(figure, path)


def _grid(curves: Sequence[Curve], until: float) -> Array:
    """Percentages from just before the first result of anybody to the end, evenly spaced in the logarithm."""
    firsts = [float(curve.percent[1]) for curve in curves if len(curve.percent) > 1]
    first = min(min(firsts, default=until), until / 10)
    return np.geomspace(first / 1.2, until, STEPS)


def plot_fairness(curve: Mapping[str, Any], path: Path) -> None:
    """Total regret against the regret of the worst-off tenant, a point for each value of the knob.

    Args:
        curve: As of ``fairness.curve_json``.
        path: Where to write.

    Raises:
        InvalidInputError: If matplotlib is missing, or the file cannot be written.
    """
    figure, axes = empty_figure()
    for i, policy in enumerate(dict.fromkeys(point["policy"] for point in curve["points"])):
        points = [point for point in curve["points"] if point["policy"] == policy]  # one, for a policy without the knob
        total, worst = ([point[key] for point in points] for key in ("total_regret", "worst_tenant_regret"))
        axes.plot(total, worst, "o-", color=COLOURS[i % len(COLOURS)], label=policy)
        for x, y, point in zip(total, worst, points, strict=True):
            label = "" if point["value"] is None else f"{point['value']:g}"
            axes.annotate(label, (x, y), textcoords="offset points", xytext=(6, 4), fontsize=9)
    axes.set_xlabel("total regret (quality x cost): less is more efficient")
    axes.set_ylabel("regret of the worst-off tenant: less is fairer")
    axes.set_title(f"efficiency against fairness over the {curve['knob']}, medians over the repeats", fontsize=10)
    axes.legend(frameon=False)
    save_figure(figure, path)
