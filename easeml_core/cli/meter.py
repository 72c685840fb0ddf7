"""``easeml meter``: plan a sealed set for an overfitting meter."""

from __future__ import annotations

import click

from easeml_core.cli.output import json_option, show_json
from easeml_core.config import TAILS
from easeml_core.errors import InvalidInputError


@click.group()
def meter() -> None:
    """The meter: how far the validation set has been overfitted."""


@meter.command()
@click.option("--ranges", default="0.1,0.3,0.5,0.7", show_default=True, help="Inner boundaries, comma-separated.")
@click.option("--tolerance", type=float, default=0.05, show_default=True, help="How far a boundary may be off.")
@click.option("--reliability", type=float, default=0.99, show_default=True, help="1 - delta, over all submissions.")
@click.option("--steps", type=int, default=32, show_default=True, help="Submissions that one set must serve.")
@click.option("--method", default="path-adaptive", show_default=True, help="How reachable answers are counted.")
@click.option("--ambiguous", type=int, default=5, show_default=True, help="Ambiguous answers to plan for.")
@click.option(
    "--tail", type=click.Choice(TAILS), default="hoeffding", show_default=True, help="Which inequality is used."
)
@click.option("--error-rate", type=float, help="Planning assumption of clopper-pearson.")
@json_option
def plan(
    ranges: str,
    tolerance: float,
    reliability: float,
    steps: int,
    method: str,
    ambiguous: int,
    tail: str,
    error_rate: float | None,
    as_json: bool,
) -> None:
    """How many examples a sealed meter set needs. Needs no database."""
    from easeml_core.meter.planner import plan_meter

    found = plan_meter(
        ranges=boundaries(ranges),
        tolerance=tolerance,
        reliability=reliability,
        steps=steps,
        method=method,
        ambiguous=ambiguous,
        tail=tail,
        error_rate=error_rate,
    )
    if as_json:
        show_json(found.to_json())
        return
    click.echo(f"{found.labels:,} labelled examples ({found.method})")
    if found.validation_minimum is not None:
        click.echo(f"  validation set: at least {found.validation_minimum:,}, so that its own noise stays in range 1")
    for warning in found.warnings:
        click.echo(f"  warning: {warning}", err=True)


def boundaries(text: str) -> tuple[float, ...]:
    """``"0.1,0.3"`` as numbers.

    Raises:
        InvalidInputError: One of them is no number.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        message = f"--ranges must be numbers separated by commas, such as 0.1,0.3; got {text!r}"
        raise InvalidInputError(message) from error
