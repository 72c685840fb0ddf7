"""``easeml meter``: plan a sealed set for an overfitting meter, and replay a history through one."""

from __future__ import annotations

import click

from easeml_core.cli.meter_plan import plan
from easeml_core.cli.meter_replay import replay
from easeml_core.cli.output import example


@click.group(epilog=example("easeml meter plan --ranges 0.1,0.3,0.5 --steps 16"))
def meter() -> None:
    """The meter: how far the validation set has been overfitted."""


meter.add_command(plan)
meter.add_command(replay)
