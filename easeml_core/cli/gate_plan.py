"""``easeml gate plan``: how many examples a condition needs, and alternatives; ``--joint`` for a shared set."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from easeml_core.cli.gate_decide import SAME, power_of
from easeml_core.cli.output import example, json_option, plot_option, show_json, show_table, write_plot
from easeml_core.cli.plan_options import settings_of_json
from easeml_core.config import ESTIMATORS
from easeml_core.encoding import row_of
from easeml_core.entities import Mode
from easeml_core.errors import InvalidInputError, reason_of

if TYPE_CHECKING:
    from easeml_core.config import JointConfig
    from easeml_core.gate.offline.planned import PlannedGate
    from easeml_core.gate.planner import PlannedFor
    from easeml_core.gate.script import Script


SHARE = 0.5
_OF_THE_GATE = ("steps", "adaptivity", "mode", "estimator", "power")
_ALONE = ("changes", "target", "difference", "assume_disagreement")
"""Fields that only a plan for the gate alone uses."""
_OPTIONS = {"changes": "--passes", "assume_disagreement": "--assume-disagreement"}


def plan_both(condition: str, asked: PlannedFor, meter: str | None, share: float | None, *, as_json: bool) -> None:
    """Print the sizes of one set and of two.

    Args:
        condition: The gate's, not parsed yet.
        asked: What the gate's set is planned for; its reliability is that of both systems together.
        meter: JSON with settings of the meter; what is left out is a study's default. None for all of these.
        share: The gate's part of what may fail; None for half.
        as_json: Instead of text.

    Raises:
        InvalidInputError: An option has no effect here, or gate and meter cannot share a set with these settings.
    """
    from easeml_core.gate.condition import parse_condition
    from easeml_core.services.test_sets.planning import JointPlanReport, SetsAlternative, plan_joint

    config = _config(condition, asked, meter, SHARE if share is None else share)
    sizes = plan_joint(config)
    two = sizes.separate_gate + sizes.separate_meter
    cheaper = "neither" if two == sizes.labels else "one set" if sizes.labels < two else "two sets"
    if as_json:
        report = JointPlanReport(
            **row_of(sizes),
            condition=str(parse_condition(config.gate.condition)),
            reliability=config.reliability,
            gate_share=config.gate_share,
            meter=config.meter.to_json(),
            alternatives=[SetsAlternative("joint", sizes.labels), SetsAlternative("separate", two)],
            cheaper=cheaper,
        )
        show_json(report)
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


def _config(condition: str, asked: PlannedFor, meter: str | None, share: float) -> JointConfig:
    from easeml_core.config import JointConfig
    from easeml_core.services.test_sets.planning import refuse_own_reliability

    usual = {field.name: field.default for field in fields(asked)}
    useless = [_OPTIONS.get(name, f"--{name}") for name in _ALONE if getattr(asked, name) != usual[name]]
    if useless:
        message = f"{', '.join(useless)} plan a set for the gate alone; leave them out with --joint"
        raise InvalidInputError(message)
    gate = {"condition": condition} | {name: getattr(asked, name) for name in _OF_THE_GATE}
    settings = settings_of_json(meter or "{}")
    refuse_own_reliability("meter", settings)
    parts = {"gate": gate, "meter": settings, "reliability": asked.reliability, "gate_share": share}
    return JointConfig.from_json(parts)


_OF_SCRIPT = ("condition", "reliability", "steps", "adaptivity", "mode")


@click.command(
    epilog=example(
        "easeml gate plan --condition 'n - o > 0.02 +/- 0.01' --steps 8",
        "easeml gate plan --script ml.yml --plot plan.png",
    )
)
@click.option("--condition", help='E.g. "n - o > 0.02 +/- 0.01 /\\ d < 0.1 +/- 0.01".')
@click.option("--reliability", type=float, help="1 - delta, over all steps. [default: 0.9999]")
@click.option("--steps", type=int, help="Answers that one set must serve. [default: 32]")
@click.option("--adaptivity", help="none, full, firstChange, upTo:K or recycle. [default: full]")
@click.option(
    "--passes",
    type=int,
    default=0,
    help="With upTo, recycle: plan the next set after so many passes (fn-free: fails). [default: 0]",
)
@click.option(
    "--mode", type=click.Choice([m.value for m in Mode]), help="The error promised not to happen. [default: fp-free]"
)
@click.option("--estimator", type=click.Choice(ESTIMATORS), help="paper: the published sizes. [default: exact]")
@click.option(
    "--target",
    type=click.Choice(("test", "estimate")),
    default="test",
    show_default=True,
    help="With exact: size the test, or the interval.",
)
@click.option("--power", help="With exact: same (as the level asks), or a chance such as 0.9. [default: same]")
@click.option(
    "--difference",
    type=click.Choice(("split", "paired")),
    default="split",
    show_default=True,
    help="With paper: n - o as two variables, or as one of range 2.",
)
@click.option("--assume-disagreement", type=float, metavar="P", help="Suppose d < P without a clause that tests it.")
@click.option("--script", type=click.Path(path_type=Path), help="An ml.yml instead of condition, reliability, ...")
@click.option(
    "--joint", is_flag=True, help="Compare one set for gate and meter with two; --reliability is that of both."
)
@click.option("--meter", metavar="JSON", help="With --joint: the meter's settings; default: those of a new study.")
@click.option(
    "--gate-share", type=float, help="With --joint: the gate's part of what may fail, > 0, < 1. [default: 0.5]"
)
@plot_option
@json_option
def plan(
    script: Path | None, as_json: bool, passes: int, joint: bool, meter: str | None, gate_share: float | None,
    plot: Path | None, **options: Any,
) -> None:  # fmt: skip
    """Show how many examples a sealed set needs for a condition, and the alternatives.

    The defaults are the paper's. The set of a study that says nothing else is planned with --condition 'n - o > 0 +/-
    0.2' --reliability 0.95 --steps 4.
    """
    from easeml_core.gate.condition import parse_condition
    from easeml_core.gate.offline.planned import plan_with_alternatives

    source, asked = _asked(script, passes, **options)
    if joint:
        if plot is not None:
            message = "--plot compares ways to plan for the gate alone; leave out --joint"
            raise InvalidInputError(message)
        plan_both(source, asked, meter, gate_share, as_json=as_json)
        return
    require_alone(meter, gate_share)
    planned = plan_with_alternatives(parse_condition(source), asked)
    if plot is not None:
        write_plot(planned.plot(), plot)
    if as_json:
        show_json(planned.report())
    else:
        _show(planned)


def _asked(script: Path | None, passes: int, **options: Any) -> tuple[str, PlannedFor]:
    """The condition, and what else the plan is for, from options and script."""
    from easeml_core.gate.offline.planned import GATE_DEFAULTS
    from easeml_core.gate.planner import PlannedFor

    given = {key: value for key, value in options.items() if value is not None}
    if "power" in given:
        power = power_of(given["power"])
        given["power"] = None if power == SAME else power
    if script is None:
        if "condition" not in given:
            message = "give --condition, or --script with a file that holds one"
            raise InvalidInputError(message)
        return str(given.pop("condition")), PlannedFor(**row_of(GATE_DEFAULTS) | given | {"changes": passes})
    both = [key for key in _OF_SCRIPT if key in given]
    if both:
        message = f"--script says what the gate is; leave out --{', --'.join(both)}"
        raise InvalidInputError(message)
    found = _read(script)
    asked = {key: getattr(found, key) for key in (*_OF_SCRIPT, "estimator", "power")}
    if given.get("estimator") == "paper" or given["target"] == "estimate":
        asked["power"] = None  # the script's power is about the exact test
    asked.update(given)
    return str(asked.pop("condition")), PlannedFor(**asked, changes=passes)


def _read(path: Path) -> Script:
    from easeml_core.gate.script import MAX_LENGTH, read_script

    try:
        with path.open(encoding="utf-8") as file:
            return read_script(file.read(MAX_LENGTH + 1))
    except (OSError, UnicodeDecodeError) as error:
        message = f"{path} cannot be read: {reason_of(error)}"
        raise InvalidInputError(message) from error


def _show(planned: PlannedGate) -> None:
    """Print the plan."""
    from easeml_core.gate.offline.planned import mean_in_words

    found = planned.found
    each_below = found.labels_per_submission < found.labels
    whose = f"{mean_in_words(planned)} (disagreements)" if each_below else "at most"
    needs = {
        f"labelled examples ({found.estimator}, {found.method})": found.labels,
        "examples for d, without labels": found.unlabelled,
        f"labels of one submission, {whose}": found.labels_per_submission,
    }
    if found.labels_per_verdict != found.labels_per_submission:  # d needs more examples than are labelled
        needs[f"  on a sealed set of {found.examples:,}, all its disagreements"] = found.labels_per_verdict
    rows = [{"need": need, "count": f"{count:,}"} for need, count in needs.items()]
    show_table(planned.condition, {"Need": "need", "Examples": "count"}, rows)
    level = f"{found.level:.4g}" if found.level else f"e^{found.log_level:.1f}"  # below the smallest double
    click.echo(f"\nlevel of one answer: {level}")
    for reason in found.reasons:
        click.echo(f"  {reason}")
    click.echo("\nor instead:")
    for other in planned.alternatives:
        click.echo(f"  {other.change}")
