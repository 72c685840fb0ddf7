"""``easeml gate``: plan a sealed set for a condition, judge two files of predictions, test the gate itself."""

from __future__ import annotations

import click

from easeml_core.cli.gate_decide import decide
from easeml_core.cli.gate_plan import plan
from easeml_core.cli.gate_selftest import selftest


@click.group()
def gate() -> None:
    """The gate: a condition that a model must satisfy before it is promoted."""


for command in (plan, decide, selftest):
    gate.add_command(command)
