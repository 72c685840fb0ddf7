"""``easeml gate plan --joint``: what one sealed set for gate and meter takes, beside one set for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from easeml_core.cli.output import show_json
from easeml_core.cli.plan_options import settings_of_json
from easeml_core.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from easeml_core.config import JointConfig

SHARE = 0.5
_OF_THE_GATE = ("condition", "steps", "adaptivity", "mode", "estimator", "power")
_ALONE = {"passes": 0, "target": "test", "difference": "split", "assume_disagreement": None}
"""Options that a plan for one set has no use for, with what they are where nobody gives them."""


def plan_both(asked: Mapping[str, Any], meter: str | None, share: float | None, *, as_json: bool) -> None:
    """Print the sizes of one set and of two.

    Args:
        asked: The arguments of the gate's plan; its reliability is that of both systems together.
        meter: JSON with settings of the meter; what is left out is a study's default. None for all of these.
        share: The gate's part of what may fail; None for half.
        as_json: Instead of text.

    Raises:
        InvalidInputError: An option says nothing here, or gate and meter cannot share a set with these settings.
    """
    from easeml_core.gate.condition import parse_condition
    from easeml_core.services.test_sets.planning import plan_joint

    config = _config(asked, meter, SHARE if share is None else share)
    sizes = plan_joint(config)
    two = sizes.separate_gate + sizes.separate_meter
    cheaper = "neither" if two == sizes.labels else "one set" if sizes.labels < two else "two sets"
    if as_json:
        said = {"condition": str(parse_condition(config.gate.condition)), "reliability": config.reliability}
        said |= {"gate_share": config.gate_share, "meter": config.meter.to_json()}
        show_json(said | sizes.to_json() | {"cheaper": cheaper})
        return
    click.echo(
        f"one set: {sizes.labels:,}; two sets: {sizes.separate_gate:,} + {sizes.separate_meter:,}; cheaper: {cheaper}"
    )
    click.echo(
        f"  on the one set the gate needs {sizes.gate_labels:,}, the meter {sizes.meter_labels:,}; labels of all"
    )
    if sizes.validation_minimum is not None:
        click.echo(f"  validation set: at least {sizes.validation_minimum:,}, so that its own noise stays in range 1")


def require_alone(meter: str | None, share: float | None) -> None:
    """Refuse options of a shared set where none is planned.

    Raises:
        InvalidInputError: One was given.
    """
    given = [name for name, value in (("--meter", meter), ("--gate-share", share)) if value is not None]
    if given:
        message = f"{' and '.join(given)}: only with --joint, which plans one set for gate and meter"
        raise InvalidInputError(message)


def _config(asked: Mapping[str, Any], meter: str | None, share: float) -> JointConfig:
    from easeml_core.config import JointConfig
    from easeml_core.services.test_sets.planning import refuse_own_reliability

    useless = [f"--{name.replace('_', '-')}" for name, usual in _ALONE.items() if asked.get(name, usual) != usual]
    if useless:
        message = f"{', '.join(useless)} plan a set for the gate alone; leave them out with --joint"
        raise InvalidInputError(message)
    gate = {name: asked[name] for name in _OF_THE_GATE if name in asked}
    settings = settings_of_json(meter or "{}")
    refuse_own_reliability("meter", settings)
    parts = {"gate": gate, "meter": settings, "reliability": asked["reliability"], "gate_share": share}
    return JointConfig.from_json(parts)
