"""Options for the plan of a new test set or of a meter; settings that are left out are the study's."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from easeml_core.cli.gate_decide import SAME, power_of, slice_pairs
from easeml_core.config import DEVELOPERS, ESTIMATORS, SAMPLINGS, TAILS
from easeml_core.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from easeml_core.entities import JsonObject


GATE_SETTINGS = ("condition", "reliability", "steps", "adaptivity", "mode", "power", "estimator", "sampling", "mail")


def settings_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--purpose`` and every setting, as keywords for ``settings_given``."""
    for option in reversed(_SET_OPTIONS):
        command = option(command)
    return command


_SET_OPTIONS = (
    click.option("--purpose", help="gate, meter, joint (both) or direct. [default: that of the plan, else gate]"),
    click.option("--condition", help='What must hold, e.g. "n - o > 0.02 +/- 0.01".'),
    click.option("--reliability", type=float, help="Chance that all answers of the set are right."),
    click.option("--steps", type=int, help="Answers that the set must serve."),
    click.option("--adaptivity", help="none, full, firstChange, recycle or upTo:K."),
    click.option("--mode", help="fp-free or fn-free."),
    click.option(
        "--power",
        callback=lambda *given: power_of(given[-1]),
        help="Chance that a model beyond the threshold by two tolerances passes, or same (as the level asks).",
    ),
    click.option("--estimator", help=" or ".join(ESTIMATORS) + ": how the size is planned."),
    click.option("--sampling", help=" or ".join(SAMPLINGS) + ": whether labelling stops as soon as it is certain."),
    click.option("--mail", help="Where verdicts go under none, and the alert for a new set."),
    click.option(
        "--other-conditions",
        type=int,
        help="Answers about other conditions, beside its steps; each halves the level of every test. [default: 0]",
    ),
    click.option(
        "--slice",
        "slices",
        multiple=True,
        help='"NAME: CONDITION" that must hold on a slice too; repeatable.',
    ),
    click.option(
        "--script",
        type=click.Path(dir_okay=False, exists=True),
        help="YAML script (ml.yml) that says all of this instead, but for slices and other conditions.",
    ),
    click.option("--meter", metavar="JSON", help='Settings of the meter, e.g. {"tolerance": 0.05, "steps": 16}.'),
    click.option("--gate-share", type=float, help="With joint: the gate's part of what may fail, > 0 and < 1."),
)


def settings_given(**given: Any) -> JsonObject:
    """Return the settings among a command's keywords, those of the script included.

    Raises:
        InvalidInputError: Settings of gate and meter, or of options and a script, are mixed, or one cannot be read.
    """
    gate = {name: given[name] for name in GATE_SETTINGS if given[name] is not None}
    if gate.get("power") == SAME:
        gate["power"] = None
    if given["other_conditions"] is not None:
        gate["other_conditions"] = given["other_conditions"]
    if given["slices"]:
        gate["slices"] = tuple(slice_pairs(given["slices"]))
    if given["script"]:
        gate = dict(_of_script(given["script"], gate))
    purpose, share = given["purpose"] or "gate", given["gate_share"]
    if share is not None and purpose != "joint":
        message = "--gate-share is for --purpose joint"
        raise InvalidInputError(message)
    if purpose == "joint":
        return _of_both(gate, given["meter"], share)
    if purpose not in ("meter", "direct"):
        if given["meter"] is not None:
            message = "--meter is for --purpose meter, joint and direct"
            raise InvalidInputError(message)
        return gate
    if gate:
        message = f"{', '.join(gate)} are settings of a gate set; a {purpose} set takes --meter JSON"
        raise InvalidInputError(message)
    return settings_of_json(given["meter"] or "{}")


def _of_both(gate: JsonObject, meter: str | None, share: float | None) -> JsonObject:
    """Return the settings of a shared set: the reliability is that of both together."""
    whole = {"reliability": gate.get("reliability"), "gate_share": share}
    own = {name: value for name, value in gate.items() if name != "reliability"}
    parts = {"gate": own, "meter": settings_of_json(meter or "{}")}
    return {name: value for name, value in (whole | parts).items() if value not in (None, {})}


def _of_script(path: str | Path, gate: JsonObject) -> JsonObject:
    """Return the settings of a script, with those that no script has."""
    both = [name for name in gate if name not in ("slices", "other_conditions")]
    if both:
        message = f"--script holds the whole plan; leave out --{', --'.join(both)}"
        raise InvalidInputError(message)
    from easeml_core.gate.script import read_script

    with open(path, encoding="utf-8", errors="replace") as file:
        script = read_script(file.read(1_000_000))
    found = {name: getattr(script, name) for name in GATE_SETTINGS}
    return dict(gate) | {name: value for name, value in found.items() if value not in (None, "")}


def settings_of_json(text: str) -> JsonObject:
    """Return the object behind ``--meter``.

    Raises:
        InvalidInputError: It is not a JSON object.
    """
    try:
        values = json.loads(text)
    except ValueError as error:
        message = f"--meter must be JSON: {error}"
        raise InvalidInputError(message) from error
    if not isinstance(values, dict):
        message = f"--meter must be a JSON object, got {text[:60]!r}"
        raise InvalidInputError(message)
    return values


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
    """Add every setting of a meter, as keywords for ``meter_settings``."""
    for option in reversed(_METER_OPTIONS):
        command = option(command)
    return command


def meter_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keywords of ``plan_meter`` and ``MeterConfig``.

    Raises:
        InvalidInputError: A list of numbers is invalid.
    """
    lists = {"ranges": numbers("--ranges", given["ranges"])}
    lists["tolerances"] = numbers("--tolerances", given["tolerances"]) if given["tolerances"] else ()
    return {**given, **lists}


def numbers(option: str, text: str) -> tuple[float, ...]:
    """Return ``"0.1,0.3"`` as numbers.

    Raises:
        InvalidInputError: One of them is no number.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        message = f"{option} must be numbers separated by commas, such as 0.1,0.3; got {text!r}"
        raise InvalidInputError(message) from error
