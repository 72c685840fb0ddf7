"""Plots of a simulation: loss over cost, and efficiency against fairness. Needs matplotlib, and no display."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.formats.display import COLOURS, empty_figure, entitle

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from easeml_core.selection.simulate.report import Curve, FairnessCurve, FairnessPoint, Simulation
    from easeml_core.selection.surrogate.posterior import Array

STEPS = 600
LEAST_LOSS = 1e-4
"""Losses below are not worth a decade of the axis."""
DASHES = ("-", "--", ":", "-.")
MOST_IN_TITLE = 4
"""Most policies whose figures the title names."""
_CLOSE_POINTS = 10
"""Values of a knob whose points lie nearer on paper share a label."""


def _plain(value: float) -> str:
    """A tick without an exponent: ``0.00001``, not ``1e-05``."""
    return np.format_float_positional(value, precision=6, fractional=False, trim="-")


def draw_losses(report: Simulation) -> Any:
    """Median loss of each policy over the cost, with a band from the 10th to the 90th percentile of the repeats.

    Both axes are logarithmic: policies differ in the first few percent, and in the last few hundredths of the loss. The
    losses whose price is reported are dotted lines; less than half the smallest is not shown.
    """
    figure, axes = empty_figure(height=5.4)
    curves = {name: [outcome.curve for outcome in outcomes] for name, outcomes in report.outcomes.items()}
    percent = _grid([curve for each in curves.values() for curve in each], report.protocol.until)
    floor = max(min(report.protocol.losses) / 2, LEAST_LOSS)
    target = _target(report)
    prices = _prices(report, target)
    for loss in report.protocol.losses:
        axes.axhline(max(loss, floor), color="black", linewidth=0.6, linestyle=":", alpha=0.5)
    for i, (name, each) in enumerate(curves.items()):
        losses = np.maximum([curve.at(percent) for curve in each], floor / 2)
        low, middle, high = np.quantile(losses, [0.1, 0.5, 0.9], axis=0)
        colour, dash = COLOURS[i % len(COLOURS)], DASHES[i // len(COLOURS) % len(DASHES)]
        axes.plot(percent, middle, dash, color=colour, label=name, drawstyle="steps-post")
        axes.fill_between(percent, low, high, step="post", color=colour, alpha=0.12, linewidth=0)
        if math.isfinite(prices[name]):
            axes.plot([prices[name]], [target], "o", color=colour, markersize=5)
    _scale_losses(axes, percent, floor, report.protocol.losses)
    _name_lines(axes, prices)
    served, repeats = report.protocol.served, report.protocol.repeats
    how = (
        f"{served} tenants served; lines: median of {repeats} repeats, bands: 10th to 90th percentile, "
        f"dots: median cost to a loss of {target:g}"
    )
    entitle(figure, _price_found(prices, target), how)
    return figure


def _scale_losses(axes: Any, percent: Array, floor: float, losses: Sequence[float]) -> None:
    """Logarithmic axes with figures as people write them."""
    axes.set_xscale("log")
    axes.set_xlim(percent[0], percent[-1])
    axes.set_yscale("log")
    axes.set_ylim(bottom=floor)
    top = axes.get_ylim()[1]
    ticks = sorted({loss for loss in (*losses, 0.01, 0.1, 0.5, 1.0) if floor <= loss <= top})
    axes.set_yticks(ticks, [f"{loss:g}" for loss in ticks])
    axes.set_yticks([], minor=True)
    axes.xaxis.set_major_formatter(lambda value, _: f"{_plain(value)} %")
    axes.set_xlabel("cost spent, of the cost of training everything")
    axes.set_ylabel("accuracy lost against the best candidate,\naverage over tenants")


def _name_lines(axes: Any, prices: Mapping[str, float]) -> None:
    """Names in the colours of their lines, cheapest first, where falling lines leave room."""
    lines = {line.get_label(): line for line in axes.get_lines()}
    ranked = sorted(prices, key=lambda name: prices[name])
    axes.legend([lines[name] for name in ranked], ranked, loc="upper right", frameon=False, labelcolor="linecolor")


def _target(report: Simulation) -> float:
    """The middle one of the losses whose price is wanted: the title tells what it costs."""
    losses = sorted(report.protocol.losses)
    return losses[len(losses) // 2]


def _prices(report: Simulation, loss: float) -> dict[str, float]:
    """Percent of the cost to the loss by policy, median of the repeats; infinite where fewer than half get there."""
    with np.errstate(invalid="ignore"):  # the mean of two that never get there
        return {
            name: float(np.median([outcome.curve.percent_to(loss) for outcome in outcomes]))
            for name, outcomes in report.outcomes.items()
        }


def _price_found(prices: Mapping[str, float], loss: float) -> str:
    """What the loss costs, cheapest policy first."""
    ranked = sorted(prices.items(), key=lambda item: item[1])
    there = [f"{name} {float(f'{price:.2g}'):g}\u00a0%" for name, price in ranked if math.isfinite(price)]
    if not there:
        return f"No policy comes within {loss:g} of the best candidate before the end"
    more = f" and {len(there) - MOST_IN_TITLE} more" if len(there) > MOST_IN_TITLE else ""
    return f"To a loss of {loss:g}, of the cost of everything: {', '.join(there[:MOST_IN_TITLE])}{more}"


def _grid(curves: Sequence[Curve], until: float) -> Array:
    """Percentages from just before the first result to the end, evenly spaced in the logarithm."""
    firsts = [float(curve.percent[1]) for curve in curves if len(curve.percent) > 1]
    first = min(min(firsts, default=until), until / 10)
    return np.geomspace(first / 1.2, until, STEPS)


def draw_fairness(curve: FairnessCurve) -> Any:
    """Total regret against the regret of the worst-off tenant, a point for each value of the knob."""
    figure, axes = empty_figure(height=5.4)
    axes.margins(x=0.12, y=0.1)
    policies = {
        policy: [point for point in curve.points if point.policy == policy]  # one, for a policy without the knob
        for policy in dict.fromkeys(point.policy for point in curve.points)
    }
    for i, points in enumerate(policies.values()):
        axes.plot(*_places(points), "o-", color=COLOURS[i % len(COLOURS)])
    axes.set_xlabel("total regret (loss x cost, all tenants): less is more efficient")
    axes.set_ylabel("regret of the worst-off tenant: less is fairer")
    how = f"dots: medians over the repeats, at values of the {curve.knob}; lower left is better"
    entitle(figure, _dial_found(curve), how)
    figure.draw_without_rendering()  # places on paper are known only now
    for i, (policy, points) in enumerate(policies.items()):
        _name_points(axes, _point_names(axes, policy, curve.knob, points), COLOURS[i % len(COLOURS)])
    return figure


def _name_points(axes: Any, names: Sequence[tuple[str, tuple[float, float]]], colour: str) -> None:
    """Words beside points, with a white edge where a line passes under them."""
    from matplotlib.patheffects import withStroke

    edge = withStroke(linewidth=4, foreground="white")
    for words, place in names:
        look = {"fontsize": 9, "color": colour, "fontweight": "bold", "path_effects": [edge]}
        axes.annotate(words, place, textcoords="offset points", xytext=(8, -4), **look)


def _places(points: Sequence[FairnessPoint]) -> tuple[list[float], list[float]]:
    return [point.total_regret for point in points], [point.worst_tenant_regret for point in points]


def _point_names(
    axes: Any, policy: str, knob: str, points: Sequence[FairnessPoint]
) -> list[tuple[str, tuple[float, float]]]:
    """The values beside their points, one label where points lie close; the policy's name with the last of them."""
    groups: list[list[FairnessPoint]] = []
    for point in points:
        if groups and _distance(axes, groups[-1][-1], point) < _CLOSE_POINTS:
            groups[-1].append(point)
        else:
            groups.append([point])
    named = []
    for group in groups:
        values = [f"{point.value:g}" for point in (group[0], group[-1]) if point.value is not None]
        words = " to ".join(dict.fromkeys(values))
        if group is groups[-1]:
            words = f"{policy}, {knob} {words}" if words else policy
        named.append((words, (group[-1].total_regret, group[-1].worst_tenant_regret)))
    return named


def _distance(axes: Any, one: FairnessPoint, other: FairnessPoint) -> float:
    """Between two points on paper, in points."""
    (x, y), (u, v) = axes.transData.transform([*zip(*_places([one, other]), strict=True)])
    return float(np.hypot(u - x, v - y)) * 72.0 / float(axes.figure.dpi)


def _dial_found(curve: FairnessCurve) -> str:
    """Which point is best for all together, and which for the tenant that fares worst."""
    efficient = min(curve.points, key=lambda point: point.total_regret)
    fair = min(curve.points, key=lambda point: point.worst_tenant_regret)
    first, second = _dialled(efficient, curve), _dialled(fair, curve)
    if first == second:
        return f"{first} is best for all tenants together and for the worst-off one"
    return f"{first} is best for all tenants together, {second} for the worst-off one"


def _dialled(point: FairnessPoint, curve: FairnessCurve) -> str:
    value = point.value
    return point.policy if value is None else f"{point.policy} with {curve.knob} {value:g}"
