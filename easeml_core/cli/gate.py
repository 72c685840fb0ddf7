"""``easeml gate``: plan a sealed set for a condition."""

from __future__ import annotations

import click

from easeml_core.cli.output import json_option, show_json
from easeml_core.entities import Adaptivity, Mode


@click.group()
def gate() -> None:
    """The gate: a condition that a model must satisfy before it is promoted."""


@gate.command()
@click.option("--condition", required=True, help='E.g. "n - o > 0.02 +/- 0.01 /\\ d < 0.1 +/- 0.01".')
@click.option("--reliability", type=float, default=0.9999, show_default=True, help="1 - delta, over all steps.")
@click.option("--steps", type=int, default=32, show_default=True, help="Verdicts that one set must serve.")
@click.option(
    "--adaptivity",
    type=click.Choice([a.value for a in Adaptivity]),
    default="full",
    show_default=True,
    help="What the developer learns between submissions.",
)
@click.option(
    "--mode",
    type=click.Choice([m.value for m in Mode]),
    default="fp-free",
    show_default=True,
    help="Which error is promised not to happen.",
)
@click.option(
    "--estimator", type=click.Choice(["paper"]), default="paper", show_default=True, help="How sizes are computed."
)
@json_option
def plan(
    condition: str, reliability: float, steps: int, adaptivity: str, mode: str, estimator: str, as_json: bool
) -> None:
    """How many examples a sealed set needs for a condition. Needs no database."""
    from easeml_core.gate.condition import parse_condition
    from easeml_core.gate.planner import plan_gate

    found = plan_gate(
        parse_condition(condition),
        reliability=reliability,
        steps=steps,
        adaptivity=adaptivity,
        mode=mode,
        estimator=estimator,
    )
    if as_json:
        show_json(found.to_json())
        return
    click.echo(f"{found.labels:,} labelled examples, {found.unlabelled:,} unlabelled ({found.method})")
    for reason in found.reasons:
        click.echo(f"  {reason}")
