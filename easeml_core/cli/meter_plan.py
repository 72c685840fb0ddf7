"""``easeml meter plan``: how many examples a sealed meter set needs, by one method and by all others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from easeml_core.cli.meter_options import meter_options, meter_settings
from easeml_core.cli.output import example, json_option, show_json, show_warnings
from easeml_core.cli.plots import plot_option, write_plot
from easeml_core.errors import counted

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from easeml_core.meter.planner import MeterPlan

_BAR = 40


@click.command(
    epilog=example("easeml meter plan --tolerance 0.02 --steps 16", "easeml meter plan --method full --plot plan.png")
)
@meter_options
@click.option("--error-rate", type=float, help="clopper-pearson: error rate of the models that is planned with.")
@plot_option
@json_option
def plan(as_json: bool, error_rate: float | None, plot: Path | None, **given: Any) -> None:
    """How many examples a sealed meter set needs. Needs no database.

    --method is one of path-adaptive, pruned, exact-tree, full, first-change, dithered, ratchet, deviations, nonuniform,
    multitenant, non-adaptive, fresh, score.
    """
    from easeml_core.config import METER_METHODS, MeterConfig
    from easeml_core.meter.alternatives import alternatives_to
    from easeml_core.meter.planner import plan_meter
    from easeml_core.meter.promises import promise

    settings = meter_settings(given)
    method, teams = settings["method"], settings["teams"]
    tolerances = settings["tolerances"]
    if method not in ("path-adaptive", "multitenant"):
        settings["teams"] = 1  # the others have none; --teams and --tolerances are for the comparison then
    if method != "nonuniform":
        settings["tolerances"] = ()
    found = plan_meter(**settings, error_rate=error_rate)
    config = MeterConfig(**settings | {"method": method if method in METER_METHODS else "full"})
    others = alternatives_to(config, error_rate=error_rate, method=method, teams=teams, tolerances=tolerances)
    if plot is not None:
        from easeml_core.meter.plot import draw_meter_plan

        write_plot(draw_meter_plan(found, others, settings), plot)
    show_warnings(found.warnings)
    if as_json:
        alternatives = [{"method": other.method, "labels": other.labels} for other in others]
        show_json(found.to_json() | {"promise": promise(config), "alternatives": alternatives})
        return
    click.echo(f"{counted(found.labels, 'labelled example')} ({found.method})")
    if found.validation_minimum is not None:
        click.echo(f"  validation set: at least {found.validation_minimum:,}, so that its own noise stays in range 1")
    if method in METER_METHODS:
        click.echo(f"  promise: with probability {config.reliability:g}, for all submissions, {promise(config)}")
    _show_bars(found, others)


def _show_bars(found: MeterPlan, others: Sequence[MeterPlan]) -> None:
    """One line and one bar for each method, cheapest first."""
    plans = sorted((found, *others), key=lambda plan: plan.labels)
    most = plans[-1].labels
    click.echo("  all methods:")
    for each in plans:
        mark = "*" if each is found else " "
        bar = "#" * max(1, round(_BAR * each.labels / most))
        click.echo(f"  {mark} {each.method:<14}{each.labels:>12,}  {bar}")
