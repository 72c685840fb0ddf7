"""``easeml backtest``: replay the past under several policies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from easeml_core.cli.connection import database_option, open_store
from easeml_core.cli.output import example, json_option, plot_option, progress, show_json, show_table, write_plot
from easeml_core.cli.selection.simulate import FILE
from easeml_core.config import COST_MODES
from easeml_core.errors import InvalidInputError, counted

if TYPE_CHECKING:
    from pathlib import Path

    from easeml_core.selection.simulate.backtest import CalibrationReport, CostToLoss, PolicyFigures
    from easeml_core.services.selection.backtest import Backtest, BacktestAnswer


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
@database_option
@json_option
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
        store = open_store(database, role="easeml_owner" if options.apply else "easeml_worker")
        return backtest_installation(store, replay, apply=options.apply)


def _show_backtest(answer: BacktestAnswer) -> None:
    """Print the answer for people."""
    results, tenants = counted(answer.results, "result"), counted(answer.tenants, "tenant")
    left_out = counted(answer.left_out, "tenant has", "tenants have")
    click.echo(f"{results} of {tenants} with {counted(answer.candidates, 'candidate')}; {left_out} too few results\n")
    if answer.enough:
        _show_policies(answer)
    click.echo(answer.message)
    if answer.applied is not None:
        click.echo(f"applied: change {answer.applied}, see `easeml policy show`")
    elif answer.winner != "default" and answer.source == "installation":
        click.echo("not applied; --apply follows the winner from now on")


def _show_policies(answer: BacktestAnswer) -> None:
    """Print what losses cost: as percentages, and in the unit of the past for the tenants of one draw."""
    assert answer.protocol is not None  # there is one where there are policies
    policies, served = answer.policies, answer.protocol.served
    losses = {loss: loss for loss in answer.policies["default"].to_loss}
    show_table(
        "Percent of the cost of everything to an average loss of ...: median (10th to 90th percentile)",
        {"Policy": "policy", **losses, "Against default": "ratio"},
        [
            {"policy": name, "ratio": _ratio(figures)} | {loss: _price(figures.to_loss[loss]) for loss in losses}
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


def _price(needed: CostToLoss) -> str:
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
