"""``easeml gate``: plan a sealed set for a condition, ask the referee, judge two files, test the gate itself."""

from __future__ import annotations

import click

from easeml_core.cli.gate_ask import ask
from easeml_core.cli.gate_decide import decide
from easeml_core.cli.gate_plan import plan
from easeml_core.cli.gate_selftest import selftest


@click.group()
def gate() -> None:
    """The gate: a condition that a model must satisfy before it is promoted."""


for command in (plan, ask, decide, selftest):
    gate.add_command(command)
