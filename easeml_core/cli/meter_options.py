"""Options that say what a meter is planned for, shared by ``meter plan`` and ``meter replay``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from easeml_core.config import DEVELOPERS, TAILS
from easeml_core.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_METER_OPTIONS = (
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


def meter_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Every setting of a meter; the command gets them as keywords for ``meter_settings``."""
    for option in reversed(_METER_OPTIONS):
        command = option(command)
    return command


def meter_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords of ``plan_meter`` and ``MeterConfig``.

    Raises:
        InvalidInputError: A list of numbers is none.
    """
    lists = {"ranges": numbers("--ranges", given["ranges"])}
    lists["tolerances"] = numbers("--tolerances", given["tolerances"]) if given["tolerances"] else ()
    return {**given, **lists}


def numbers(option: str, text: str) -> tuple[float, ...]:
    """``"0.1,0.3"`` as numbers.

    Raises:
        InvalidInputError: One of them is no number.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        message = f"{option} must be numbers separated by commas, such as 0.1,0.3; got {text!r}"
        raise InvalidInputError(message) from error
