"""``easeml meter replay``: what the meter would have answered to a recorded history."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from easeml_core.cli.meter_options import meter_options, meter_settings
from easeml_core.cli.output import example, json_option, show_json, show_table, show_warnings
from easeml_core.cli.plots import plot_option, write_plot

if TYPE_CHECKING:
    from easeml_core.config import MeterConfig
    from easeml_core.meter.replay import Replay

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

    What is printed depends on the sealed set: it is the referee's, whoever hands in models must not read it.
    """
    from easeml_core.config import MeterConfig, require
    from easeml_core.meter.planner import plan_config
    from easeml_core.meter.plot import draw_replay
    from easeml_core.meter.replay import read_history
    from easeml_core.meter.replay import replay as replay_history

    require(test_size >= 1, "--test-size", test_size, "a whole number >= 1")
    require(seed >= 0, "--seed", seed, ">= 0")
    config = MeterConfig(**meter_settings(given), budget=budget)
    rows = read_history(history, examples=test_size, teams=config.teams)
    found = replay_history(rows, examples=test_size, config=config, seed=seed)
    planned = plan_config(config).labels
    warnings = []
    if test_size < planned:
        warnings.append(f"the plan asks for {planned:,} examples, the set has {test_size:,}")
    if plot is not None:
        write_plot(draw_replay(found, config), plot)
    if as_json:
        show_json(found.to_json() | {"planned": planned, "warnings": warnings})
    else:
        _show(found, config)
    show_warnings(warnings)


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
