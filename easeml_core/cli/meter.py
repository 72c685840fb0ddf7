"""``easeml meter``: plan a sealed set for an overfitting meter, and replay a recorded history through one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from easeml_core.cli.connection import numbers
from easeml_core.cli.output import (
    example,
    json_option,
    plot_option,
    show_json,
    show_table,
    show_warnings,
    with_options,
    write_plot,
)
from easeml_core.errors import counted
from easeml_core.settings.config import DEVELOPERS, TAILS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from easeml_core.meter.history import Replay
    from easeml_core.meter.planner import MeterPlan
    from easeml_core.settings.config import MeterConfig


meter_options = with_options(
    click.option("--ranges", default="0.1,0.3,0.5,0.7", show_default=True, help="Inner boundaries, comma-separated."),
    click.option("--tolerance", type=float, default=0.05, show_default=True, help="How far a boundary may be off."),
    click.option("--reliability", type=float, default=0.99, show_default=True, help="1 - delta, over all submissions."),
    click.option("--steps", type=int, default=32, show_default=True, help="Submissions that one set must serve."),
    click.option(
        "--method", default="path-adaptive", show_default=True, help="How the developer's reactions are paid."
    ),
    click.option(
        "--ambiguous", type=int, default=5, show_default=True, help="path-adaptive: ambiguous answers planned."
    ),
    click.option("--deviations", type=int, default=3, show_default=True, help="deviations: how many the set survives."),
    click.option("--teams", type=int, default=1, show_default=True, help="multitenant, path-adaptive: separate teams."),
    click.option("--tolerances", help="nonuniform: one for each worst signal so far, comma-separated."),
    click.option(
        "--tail", type=click.Choice(TAILS), default="hoeffding", show_default=True, help="Which inequality is used."
    ),
    click.option("--one-sided", is_flag=True, help="Promise only that the gap is not above the answered range."),
    click.option("--open-ended", is_flag=True, help="Serve more than --steps submissions while the set lasts."),
    click.option(
        "--developer",
        type=click.Choice(DEVELOPERS),
        default="any",
        show_default=True,
        help="path-adaptive: which histories are made cheap.",
    ),
)
"""Adds every setting of a meter, as keywords for ``meter_settings``."""


def meter_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keywords of ``plan_meter`` and ``MeterConfig``."""
    lists = {"ranges": numbers("--ranges", given["ranges"])}
    lists["tolerances"] = numbers("--tolerances", given["tolerances"]) if given["tolerances"] else ()
    return {**given, **lists}


_BAR = 40


@click.command(
    epilog=example("easeml meter plan --tolerance 0.02 --steps 16", "easeml meter plan --method full --plot plan.png")
)
@meter_options
@click.option("--error-rate", type=float, help="clopper-pearson: error rate of the models that is planned with.")
@plot_option
@json_option
def plan(as_json: bool, error_rate: float | None, plot: Path | None, **given: Any) -> None:
    """Show how many examples a sealed meter set needs. Needs no database.

    The defaults are the paper's. The set of a study that says nothing else is planned with --ranges 0.2,0.6 --tolerance
    0.1 --reliability 0.95 --steps 8 --ambiguous 2 --tail clopper-pearson.

    --method is one of path-adaptive, pruned, exact-tree, full, first-change, dithered, ratchet, deviations, nonuniform,
    multitenant, non-adaptive, fresh, score.
    """
    from easeml_core.meter.alternatives import plan as plan_set
    from easeml_core.settings.config import METER_METHODS

    planned = plan_set(**meter_settings(given), error_rate=error_rate)
    found, reliability = planned.found, planned.config.reliability
    if plot is not None:
        write_plot(planned.plot(), plot)
    show_warnings(found.warnings)
    if as_json:
        show_json(planned.report())
        return
    click.echo(f"{counted(found.labels, 'labelled example')} ({found.method})")
    if found.validation_minimum is not None:
        click.echo(f"  validation set: at least {found.validation_minimum:,}, so that its own noise stays in range 1")
    if found.method in METER_METHODS:
        click.echo(f"  promise: with probability {reliability:g}, for all submissions, {planned.promise}")
    _show_bars(found, planned.alternatives)


def _show_bars(found: MeterPlan, others: Sequence[MeterPlan]) -> None:
    """Print one line and one bar for each method, cheapest first."""
    plans = sorted((found, *others), key=lambda plan: plan.labels)
    most = plans[-1].labels
    click.echo("  all methods:")
    for each in plans:
        mark = "*" if each is found else " "
        bar = "#" * max(1, round(_BAR * each.labels / most))
        click.echo(f"  {mark} {each.method:<14}{each.labels:>12,}  {bar}")


_FILE = click.Path(path_type=Path)


@click.command(epilog=example("easeml meter replay --history history.csv --test-size 2000 --plot replay.png"))
@click.option("--history", type=_FILE, required=True, help="CSV submission,validation_loss,test_errors; also team.")
@click.option("--test-size", type=int, required=True, help="How many examples the sealed set has.")
@meter_options
@click.option(
    "--budget", multiple=True, metavar="RULE", help='E.g. "signal above range 2"; may be given several times.'
)
@click.option("--seed", type=int, default=0, show_default=True, help="dithered: seed of the shifts.")
@plot_option
@json_option
def replay(
    history: Path, test_size: int, budget: tuple[str, ...], seed: int, plot: Path | None, as_json: bool, **given: Any
) -> None:
    """Replay a recorded history through the meter. Needs no database.

    What is printed depends on the sealed set: it is for the referee, and submitters of models must not read it.
    """
    from easeml_core.meter.history import read_history, replay_config
    from easeml_core.settings.config import MeterConfig, require

    require(test_size >= 1, "--test-size", test_size, "a whole number >= 1")
    require(seed >= 0, "--seed", seed, ">= 0")
    config = MeterConfig(**meter_settings(given), budget=budget)
    rows = read_history(history, examples=test_size, teams=config.teams)
    replayed = replay_config(rows, examples=test_size, config=config, seed=seed)
    if plot is not None:
        write_plot(replayed.plot(), plot)
    if as_json:
        show_json(replayed.report())
    else:
        _show(replayed.found, config)
    show_warnings(replayed.warnings)


def _show(found: Replay, config: MeterConfig) -> None:
    entries = [
        {"submission": str(row.submission), "signal": r.signal, "tolerance": r.tolerance_now, "reachable": r.reachable}
        for row, r in found.readings
    ]
    columns = {name: name for name in ("submission", "signal", "tolerance", "reachable")}
    show_table(f"{len(entries)} answered ({config.method}, {config.tail})", columns, entries)
    if found.retired_at is not None:
        reasons = {
            "tolerance": f"the answer would need more than the promised tolerance of {config.tolerance:g}",
            "steps": f"all {config.steps} submissions are used",
            "regulation": f"the method {config.method} ends the set",
        }
        click.echo(f"retired at submission {found.retired_at}: {reasons[found.why]}")
    for position, message in found.alerts:
        click.echo(f"alert at submission {position}: {message}")


@click.group(epilog=example("easeml meter plan --ranges 0.1,0.3,0.5 --steps 16"))
def meter() -> None:
    """The meter: how far the validation set has been overfitted."""


meter.add_command(plan)
meter.add_command(replay)
