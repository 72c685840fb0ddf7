"""``easeml simulate``: compare policies on tables of known results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from easeml_core.cli.output import example, json_option, plot_option, progress, show_json, show_table, write_plot
from easeml_core.config import COST_MODES, OBJECTIVES
from easeml_core.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from easeml_core.selection.simulate.compare import ComparedPolicies, FairnessCurve
    from easeml_core.selection.simulate.report import LossPrice, SimulatedPolicy

FILE = click.Path(path_type=Path)


@click.command(
    epilog=example(
        "easeml simulate --synthetic 'SYN(0.5,1.0)' --repeats 5",
        "easeml simulate --quality quality.csv --cost cost.csv --policy default --policy hybrid --plot losses.png",
    )
)
@click.option("--quality", type=FILE, metavar="FILE", help="CSV: tenants x candidates, qualities in [0, 1].")
@click.option("--cost", type=FILE, metavar="FILE", help="CSV of the same shape: costs > 0. Without it all are 1.")
@click.option("--synthetic", metavar='"SYN(SIGMA,ALPHA)"', help="A generated table of 200 x 100 instead of files.")
@click.option(
    "--policy",
    "policies",
    multiple=True,
    default=("default", "hybrid", "roundrobin"),
    show_default=True,
    metavar="NAME",
    help="default, hybrid, hybrid@BETA, order:FILE, clairvoyant, default:SETTING=VALUE, module:function; repeatable.",
)
@click.option("--served", type=int, default=10, show_default=True, help="Tenants served in each repeat.")
@click.option("--repeats", type=int, default=30, show_default=True, help="Draws of tenants.")
@click.option("--seed", type=int, default=0, show_default=True, help="Same seed, same output, measured times apart.")
@click.option("--history", type=int, help="How many of the other tenants are history; 0 for none. Default: all.")
@click.option("--devices", type=int, default=1, show_default=True, help="Cost is wall time x devices.")
@click.option(
    "--drive",
    type=click.Choice(("stream", "rounds")),
    default="stream",
    show_default=True,
    help="Whether a free device waits for the others.",
)
@click.option(
    "--cost-mode",
    type=click.Choice(COST_MODES),
    help="What policies know of costs; unit: all are 1. Default: known where there are costs, else unit.",
)
@click.option(
    "--beta-scale", type=float, default=1.0, show_default=True, help="Multiplier of beta where none is given."
)
@click.option("--guard", type=float, default=0.1, show_default=True, help="Share of compute for the least served.")
@click.option(
    "--objective",
    default="mean",
    show_default=True,
    metavar="mean|maxmin|DIAL",
    help="Whom the default policy favours.",
)
@click.option("--losses", default="0.05,0.02,0.01", show_default=True, help="Losses whose price is wanted.")
@click.option("--until", type=float, default=100.0, show_default=True, help="Percent of the cost where a repeat ends.")
@click.option(
    "--curve",
    type=click.Choice(("guard", "objective")),
    help="Efficiency against fairness: run the default policy over the values of this knob.",
)
@plot_option
@click.option("--processes", type=click.IntRange(min=1), help="Default: one for each core.")
@json_option
def simulate(as_json: bool, plot: Path | None, processes: int | None, **options: Any) -> None:
    """Compare policies on a table of known results. Needs no database, trains nothing.

    In each repeat some tenants are drawn and served, the others are history. The price of a loss is the cost spent,
    in percent of the cost of everything, until the average distance of the tenants to their best candidate is at most
    that. CSV: a header line, the tenant's key in the first column, an empty cell where a candidate is not available.
    """
    from easeml_core.selection.simulate.compare import simulate as compare

    losses = _numbers("--losses", options.pop("losses"))
    objective = options.pop("objective")
    if objective not in OBJECTIVES:
        objective = _numbers("--objective", objective, "mean, maxmin or a number")[0]
    with progress() as on_done:
        found = compare(**options, losses=losses, objective=objective, processes=processes, on_done=on_done)
    if plot is not None:
        write_plot(found.plot(), plot)
    if as_json:
        show_json(found.to_json())
    else:
        _show(found)


def _numbers(
    option: str, text: str, allowed: str = "numbers separated by commas, such as 0.05,0.02"
) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        message = f"{option} must be {allowed}; got {text!r}"
        raise InvalidInputError(message) from None


def _show(found: ComparedPolicies) -> None:
    """Print the figures as tables."""
    protocol, source = found.simulation.protocol, found.source
    devices = "1 device" if protocol.devices == 1 else f"{protocol.devices} devices"
    click.echo(
        f"{protocol.repeats} repeats, {protocol.served} of {source.tenants} tenants served, "
        f"{source.candidates} candidates, {devices}, costs {protocol.cost_mode}\n"
    )
    if found.curve is not None:
        _show_curve(found.curve)
    else:
        _show_policies(found.policies)


def _show_policies(policies: Mapping[str, SimulatedPolicy]) -> None:
    """Print the prices of losses, then the tenants' losses."""
    losses = next(iter(policies.values())).percent_to_loss
    show_table(
        "Percent of the cost to an average loss of ...: median (10th to 90th percentile)",
        {"Policy": "policy", **{loss: loss for loss in losses}, "Worst": "worst"},
        [_prices(name, figures) for name, figures in policies.items()],
    )
    if any(n.reached < 1 for figures in policies.values() for n in figures.percent_to_loss.values()):
        click.echo("[share of the repeats that got there; the others count as 100]")
    click.echo("Worst: largest loss of a repeat when 10 % are spent.\n")
    show_table(
        "Fairness",
        {"Policy": "policy", "Regret": "total", "Worst": "worst", "First %": "first", "Least": "least", "us": "us"},
        [_fairness(name, figures) for name, figures in policies.items()],
    )
    click.echo(
        "Regret: loss x cost, of all tenants; Worst: of the worst-off one. First %: cost at which the last tenant of\n"
        "all repeats got its first model. Least: compute of the least-served tenant over its due when 10 % are spent.\n"
        "us: microseconds of a decision. Medians over the repeats, but for First %."
    )


def _prices(name: str, figures: SimulatedPolicy) -> dict[str, object]:
    """Return the prices of losses under one policy."""
    prices = {loss: _price(needed) for loss, needed in figures.percent_to_loss.items()}
    return {"policy": name, **prices, "worst": figures.worst_loss["10"]}


def _fairness(name: str, figures: SimulatedPolicy) -> dict[str, object]:
    """Return the tenants' losses under one policy."""
    share = figures.compute_share["10"]
    return {
        "policy": name,
        "total": _three(figures.regret.total),
        "worst": _three(figures.regret.worst_tenant),
        "first": _three(figures.first_model_percent.worst),
        "least": None if share is None else f"{share.least:.2f}",
        "us": f"{figures.decision_microseconds:.0f}",
    }


def _price(needed: LossPrice) -> str:
    """Format median and range of a price, and how many repeats paid it where not all did."""
    text = f"{_three(needed.median)} ({needed.p10:.2g}-{needed.p90:.2g})"
    return text if needed.reached == 1 else f"{text} [{100 * needed.reached:.0f} %]"


def _three(value: float) -> str:
    """Format three figures, without an exponent where that can be read.

    Example:
        >>> [_three(value) for value in (0.02634, 2.5, 12345.6, 1.5e9)]
        ['0.0263', '2.5', '12,346', '1.5e+09']
    """
    return f"{value:,.0f}" if 100 <= value < 1e8 else f"{value:.3g}"


def _show_curve(curve: FairnessCurve) -> None:
    """Print efficiency against fairness."""
    losses = curve.points[0].percent_to_loss
    columns = {"Policy": "policy", "Value": "value", **{f"to {loss}": loss for loss in losses}}
    columns |= {"Regret": "total", "Worst": "worst", "p10": "p10", "First %": "first"}
    entries = [
        {
            "policy": point.policy,
            "value": None if point.value is None else f"{point.value:g}",
            **{loss: _three(needed) for loss, needed in point.percent_to_loss.items()},
            "total": _three(point.total_regret),
            "worst": _three(point.worst_tenant_regret),
            "p10": _three(point.p10_tenant_regret),
            "first": _three(point.first_model_worst_percent),
        }
        for point in curve.points
    ]
    show_table(f"Efficiency against fairness over the {curve.knob}, medians over the repeats", columns, entries)
    click.echo(
        "to LOSS: percent of the cost. Regret: loss x cost, of all tenants; Worst: of the worst-off one; p10: a tenth\n"
        "of the tenants fare worse. First %: cost at which the last tenant of all repeats got its first model."
    )
