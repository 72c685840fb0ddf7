"""``easeml simulate``: compare policies on tables of known results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from easeml_core.cli.output import example, json_option, plot_option, progress, show_json, show_report, write_plot
from easeml_core.cli.selection import OBJECTIVES
from easeml_core.config import COST_MODES
from easeml_core.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from easeml_core.config import SelectionConfig
    from easeml_core.selection.simulate.protocol import Protocol
    from easeml_core.selection.simulate.report import Report
    from easeml_core.selection.simulate.tables import Table

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
    help="default, hybrid, hybrid@BETA, order:FILE, clairvoyant, default:SETTING=VALUE, ...; as often as wanted.",
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
    report, curve = _run(options, processes)
    answer = report.to_json() | ({"curve": curve} if curve else {})
    if plot is not None:
        write_plot(_drawn(report, curve), plot)
    if as_json:
        show_json(answer)
    else:
        show_report(answer)


def _run(options: Mapping[str, Any], processes: int | None) -> tuple[Report, dict[str, Any] | None]:
    """The simulation that the options ask for, and its curve of fairness."""
    from easeml_core.selection.simulate.contestants import parse_contestants
    from easeml_core.selection.simulate.fairness import curve_json, points_of
    from easeml_core.selection.simulate.repeats import run_repeats
    from easeml_core.selection.simulate.report import Report

    protocol, base, knob = _protocol(options), _settings(options), options["curve"]
    table = _table(options, protocol)
    contestants = parse_contestants(options["policies"], base=base, candidates=table.candidates)
    points = points_of(contestants, knob) if knob else ()
    if knob:
        contestants = tuple(point.contestant for point in points)
    protocol.check(table)
    with progress() as on_done:
        outcomes = run_repeats(table, protocol, contestants, processes=processes, on_done=on_done)
    report = Report(protocol, _source(options, table, base), outcomes)
    return report, curve_json(knob, points, report.to_json()["policies"]) if knob else None


def _protocol(options: Mapping[str, Any]) -> Protocol:
    from easeml_core.selection.simulate.protocol import Protocol

    has_costs = options["cost"] is not None or options["synthetic"] is not None
    names = ("served", "repeats", "seed", "history", "devices", "until", "drive")
    return Protocol(
        cost_mode=options["cost_mode"] or ("known" if has_costs else "unit"),
        losses=_numbers("--losses", options["losses"]),
        **{name: options[name] for name in names},
    )


def _settings(options: Mapping[str, Any]) -> SelectionConfig:
    """What all policies share."""
    from easeml_core.config import SelectionConfig

    return SelectionConfig(
        beta_multiplier=options["beta_scale"], guard=options["guard"], objective=_dial(options["objective"])
    )


def _dial(text: str) -> float:
    return OBJECTIVES[text] if text in OBJECTIVES else _numbers("--objective", text, "mean, maxmin or a number")[0]


def _numbers(
    option: str, text: str, allowed: str = "numbers separated by commas, such as 0.05,0.02"
) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        message = f"{option} must be {allowed}; got {text!r}"
        raise InvalidInputError(message) from None


def _table(options: Mapping[str, Any], protocol: Protocol) -> Table:
    """The table that the options name.

    Raises:
        InvalidInputError: Not exactly one of --quality and --synthetic was given, or the table is not one.
    """
    from easeml_core.selection.simulate.synthetic import parse_synthetic
    from easeml_core.selection.simulate.tables import read_table

    quality, cost, synthetic = options["quality"], options["cost"], options["synthetic"]
    if (quality is None) == (synthetic is None):
        message = 'give either --quality FILE (with --cost FILE, or all costs are 1) or --synthetic "SYN(0.01,1.0)"'
        raise InvalidInputError(message)
    if synthetic is None:
        return read_table(quality, cost)
    if cost is not None:
        message = "--synthetic has costs of its own; leave out --cost, or add --cost-mode unit for costs of 1"
        raise InvalidInputError(message)
    return parse_synthetic(synthetic).table(protocol.seed)


def _source(options: Mapping[str, Any], table: Table, base: SelectionConfig) -> dict[str, Any]:
    """What joins the protocol in the JSON: where the results came from, and what all policies share."""
    paths = {name: None if options[name] is None else str(options[name]) for name in ("quality", "cost")}
    return {
        **paths,
        "synthetic": options["synthetic"],
        "tenants": len(table.tenants),
        "candidates": len(table.candidates),
        "beta_scale": base.beta_multiplier,
        "guard": base.guard,
        "objective": base.objective,
    }


def _drawn(report: Report, curve: Mapping[str, Any] | None) -> Any:
    from easeml_core.selection.simulate.plot import draw_fairness, draw_losses

    return draw_losses(report) if curve is None else draw_fairness(curve)
