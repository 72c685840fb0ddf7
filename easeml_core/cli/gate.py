"""``easeml gate``: plan a sealed set, ask the referee, judge two files, test and attack the gate itself."""

from __future__ import annotations

import click

from easeml_core.cli.gate_ask import ask
from easeml_core.cli.gate_attack import attack
from easeml_core.cli.gate_decide import decide
from easeml_core.cli.gate_plan import plan
from easeml_core.cli.gate_selftest import selftest
from easeml_core.cli.output import example


@click.group(epilog=example("easeml gate plan --condition 'n > 0.8 +/- 0.05' --steps 8", "easeml gate ask flowers 7"))
def gate() -> None:
    """The gate: a condition that a model must satisfy before it is promoted."""


for command in (plan, ask, decide, selftest, attack):
    gate.add_command(command)
