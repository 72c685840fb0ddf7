"""``easeml backtest``, ``simulate`` and ``costs``: policies and predicted costs, judged on results that are known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from easeml_core.cli.connection import OWNER, numbers, open_store, store_options
from easeml_core.cli.output import example, json_option, plot_option, progress, show_json, show_table, write_plot
from easeml_core.errors import InvalidInputError, counted
from easeml_core.formats.encoding import row_of
from easeml_core.settings.config import COST_MODES, OBJECTIVES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from easeml_core.selection.costs.learn import CostReport
    from easeml_core.selection.simulate.backtest import CalibrationReport, CostToLoss, PolicyFigures
    from easeml_core.selection.simulate.compare import ComparedPolicies
    from easeml_core.selection.simulate.report import FairnessCurve, LossPrice, SimulatedPolicy
    from easeml_core.services.selection.backtest import Backtest, BacktestAnswer


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

    losses = numbers("--losses", options.pop("losses"))
    objective = options.pop("objective")
    if objective not in OBJECTIVES:
        objective = numbers("--objective", objective, "mean, maxmin or a number")[0]
    with progress() as on_done:
        found = compare(**options, losses=losses, objective=objective, processes=processes, on_done=on_done)
    if plot is not None:
        write_plot(found.plot(), plot)
    if as_json:
        show_json(found.to_json())
    else:
        _show(found)


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
    text = f"{_three(needed.median)} ({_two(needed.p10)}-{_two(needed.p90)})"
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


@click.command(
    epilog=example(
        "easeml backtest --repeats 20", "easeml backtest --quality quality.csv --cost cost.csv --plot backtest.png"
    )
)
@click.option("--served", type=int, help="Tenants served in each draw. Default: a third of them, at most 10.")
@click.option("--repeats", type=int, default=30, show_default=True, help="Draws of tenants.")
@click.option("--seed", type=int, default=0, show_default=True, help="Same seed and same past, same answer.")
@click.option("--apply", is_flag=True, help="Follow the winner from now on; the address must be that of easeml_owner.")
@click.option("--quality", type=FILE, metavar="FILE", help="Judge a CSV of tenants x candidates, not the database.")
@click.option("--cost", type=FILE, metavar="FILE", help="CSV of the same shape: costs > 0. Without it all are 1.")
@click.option(
    "--cost-mode",
    type=click.Choice(COST_MODES),
    help="What policies know of the costs of a file; the installation's are predicted, as they are live.",
)
@plot_option
@click.option("--processes", type=click.IntRange(min=1), help="Default: one for each core.")
@store_options
def backtest(as_json: bool, plot: Path | None, database: str | None, **options: Any) -> None:
    """Replay the past under several policies, show what each would have saved, and which one to follow.

    Each study is a tenant. In each draw some are served, the others are history. `default` stays unless another policy
    needs less compute by more than the standard error of the difference, or there is too little history.
    """
    from easeml_core.selection.simulate.plot import draw_losses

    asked = _Asked(**options)
    _check(asked)
    found = _run(asked, database)
    if plot is not None and found.simulation is not None:
        write_plot(draw_losses(found.simulation), plot)
    if as_json:
        show_json(found.answer)
    else:
        _show_backtest(found.answer)


@dataclass(frozen=True, slots=True)
class _Asked:
    """The options of a backtest without those of its output."""

    served: int | None
    repeats: int
    seed: int
    apply: bool
    quality: Path | None
    cost: Path | None
    cost_mode: str | None
    processes: int | None


def _check(options: _Asked) -> None:
    """Check that the options fit together, before the long work."""
    if options.quality is None and (options.cost is not None or options.cost_mode is not None):
        message = "--cost and --cost-mode go with --quality FILE; the installation's own costs are in its database"
        raise InvalidInputError(message)
    if options.quality is not None and options.apply:
        message = "--apply goes by the installation's own history; leave out --quality, or use `easeml policy set`"
        raise InvalidInputError(message)


def _run(options: _Asked, database: str | None) -> Backtest:
    from easeml_core.services.selection.backtest import Replay, backtest_installation, backtest_table

    with progress() as on_done:
        replay = Replay(options.served, options.repeats, options.seed, options.processes, on_done=on_done)
        if options.quality is not None:
            return backtest_table(options.quality, options.cost, replay, cost_mode=options.cost_mode)
        store = open_store(database, role=OWNER if options.apply else "easeml_worker")
        return backtest_installation(store, replay, apply=options.apply)


def _show_backtest(answer: BacktestAnswer) -> None:
    """Print the answer for people."""
    results, tenants = counted(answer.results, "result"), counted(answer.tenants, "tenant")
    left_out = counted(answer.left_out, "tenant has", "tenants have")
    click.echo(f"{results} of {tenants} with {counted(answer.candidates, 'candidate')}; {left_out} too few results\n")
    if answer.enough:
        _show_prices(answer)
    click.echo(answer.message)
    if answer.applied is not None:
        click.echo(f"applied: change {answer.applied}, see `easeml policy show`")
    elif answer.winner != "default" and answer.source == "installation":
        click.echo("not applied; --apply follows the winner from now on")


def _show_prices(answer: BacktestAnswer) -> None:
    """Print what losses cost: as percentages, and in the unit of the past for the tenants of one draw."""
    assert answer.protocol is not None  # there is one where there are policies
    policies, served = answer.policies, answer.protocol.served
    losses = {loss: loss for loss in answer.policies["default"].to_loss}
    show_table(
        "Percent of the cost of everything to an average loss of ...: median (10th to 90th percentile)",
        {"Policy": "policy", **losses, "Against default": "ratio"},
        [
            {"policy": name, "ratio": _ratio(figures)} | {loss: _price_of(figures.to_loss[loss]) for loss in losses}
            for name, figures in policies.items()
        ],
    )
    unit = answer.cost_unit
    show_table(
        f"The same in {'device time' if unit == 'seconds' else unit}, for {served} tenants: median",
        {"Policy": "policy", **losses},
        [
            {"policy": name} | {loss: _amount(figures.to_loss[loss].cost, unit) for loss in losses}
            for name, figures in policies.items()
        ],
    )
    click.echo("Against default: how many times as much, and one standard error on either side.\n")
    if answer.calibration is not None:
        _show_calibration(answer.calibration)


def _show_calibration(report: CalibrationReport) -> None:
    """Print the calibration of the posterior of ``default``."""
    entries = [entry for entry in report.entries if entry.tenant_scale]
    if not entries:
        return
    columns = {"Own results": "own", "z std": "z_std", "In interval": "interval_coverage"}
    title = f"Calibration of default on tenants left out; intervals of {report.coverage:.0%}"
    show_table(title, columns | {"Improvement expected / seen": "improvement_ratio"}, entries)


def _price_of(needed: CostToLoss) -> str:
    return f"{needed.percent:.3g} ({_two(needed.p10)}-{_two(needed.p90)})"


def _two(percent: float) -> str:
    """Format two figures, without an exponent for a hundred."""
    return f"{percent:.2g}" if percent < 99.5 else f"{percent:.0f}"


def _ratio(figures: PolicyFigures) -> str:
    against = figures.against_default
    if against is None:
        return ""
    high = "?" if against.high is None else f"{against.high:.2f}"
    return f"x {against.ratio:.2f} ({against.low:.2f}-{high})"


def _amount(cost: float, unit: str) -> str:
    """Format a cost: hours or minutes for many seconds, plain figures otherwise.

    Example:
        >>> _amount(11520.0, "seconds"), _amount(14.0, "trials")
        ('3.2 h', '14')
    """
    if unit != "seconds":
        return f"{cost:,.4g}"
    for size, name in ((3600.0, "h"), (60.0, "min")):
        if cost >= size:
            return f"{cost / size:,.1f} {name}"
    return f"{cost:.2g} s"


_COST_COLUMNS = {
    "Own trials": "own",
    "Half within x": "factor",
    "RMSE of ln": "rmse_log",
    "R2 of ln": "r2",
    "In interval": "interval_coverage",
    "Right order": "right_order",
}


@click.command(epilog=example("easeml costs --json"))
@click.option(
    "--history",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="CSV of costs in seconds, tenants x candidates, instead of the database.",
)
@store_options
def costs(history: Path | None, database: str | None, as_json: bool) -> None:
    """Report the error of predicted costs, for tenants that the model has not seen.

    Each tenant is predicted from the others alone, then after 1, 2 and 5 of its finished trials.
    """
    from easeml_core.services.selection.backtest import report_cost_table, report_costs

    report = report_cost_table(history) if history else report_costs(open_store(database))
    if as_json:
        show_json(report)
    elif report.errors:
        _show_cost_report(report)
    else:
        click.echo(
            f"{counted(report.trials, 'measured trial')} of {counted(report.tenants, 'study', 'studies')}: too few, it "
            "takes two studies or more"
        )


def _show_cost_report(report: CostReport) -> None:
    counts = ", ".join(counted(getattr(report, f"{what}s"), what) for what in ("tenant", "candidate", "trial"))
    entries = [row_of(e) | {"factor": 10**e.median_absolute_log10} for e in report.errors]
    show_table(f"{counts}; intervals of {report.coverage:.0%}", _COST_COLUMNS, entries)
