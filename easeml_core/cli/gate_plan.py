"""``easeml gate plan``: how many examples a condition needs, and alternatives; and the settings of a new test set."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from easeml_core.cli.connection import mapping_of, read_text
from easeml_core.cli.output import example, json_option, plot_option, show_json, show_table, with_options, write_plot
from easeml_core.entities import Mode
from easeml_core.errors import InvalidInputError
from easeml_core.formats.encoding import row_of
from easeml_core.gate.offline import DecisionPlan
from easeml_core.settings.config import ESTIMATORS, SAMPLINGS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from easeml_core.entities import JsonObject
    from easeml_core.gate.offline.planned import PlannedGate
    from easeml_core.gate.planner import PlannedFor
    from easeml_core.gate.script import Script
    from easeml_core.settings.config import JointConfig


_FILE = click.Path(path_type=Path)
SAME = "same"
"""Power as high as the level requires of the other side."""


def plan_options(defaults: DecisionPlan) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add the options of a set's plan; without defaults in click, so that options beside a script are noticed."""

    def shown(text: str, key: str) -> str:
        usual = SAME if key == "power" else getattr(defaults, key)
        return f"{text} [default: {usual}]" if usual else text

    options = (
        click.option("--condition", help=shown('E.g. "n - o > 0.02 +/- 0.01 /\\ d < 0.1 +/- 0.01".', "condition")),
        click.option("--reliability", type=float, help=shown("1 - delta, over all steps.", "reliability")),
        click.option("--steps", type=int, help=shown("Verdicts that one set must serve.", "steps")),
        click.option("--adaptivity", help=shown("none, full, firstChange, upTo:K or recycle.", "adaptivity")),
        click.option(
            "--mode",
            type=click.Choice([m.value for m in Mode]),
            help=shown("Which error is promised not to happen.", "mode"),
        ),
        click.option(
            "--sampling",
            type=click.Choice(SAMPLINGS),
            help=shown(
                "early: go through the examples in an order drawn by their names, stop when certain.", "sampling"
            ),
        ),
        click.option(
            "--power",
            callback=lambda *given: power_of(given[-1]),
            help=shown("With early: chance not to give up a model twice the tolerance above, or same.", "power"),
        ),
        click.option("--script", type=_FILE, help="An ml.yml that holds all of these instead."),
    )
    return with_options(*options)


def power_of(text: str | None) -> float | str | None:
    """Return ``same`` (as the level requires), or a number; None where nothing is given."""
    if text is None or text == SAME:
        return text
    try:
        return float(text)
    except ValueError:
        message = f"--power must be '{SAME}' or a number > 0 and < 1, got {text!r}"
        raise InvalidInputError(message) from None


def plan_of(script: Path | None, defaults: DecisionPlan, **given: Any) -> DecisionPlan:
    """Return the condition and the settings of ``defaults``, from a script or from options, never from both."""
    named = {key: value for key, value in given.items() if value is not None}
    if script is None:
        if named.get("power") == SAME:
            named["power"] = None
        asked = replace(defaults, **named)
        if not asked.condition:
            message = "give --condition, or --script with a file that holds one"
            raise InvalidInputError(message)
        return asked
    if named:
        message = f"--script holds the whole plan; leave out --{', --'.join(named)}"
        raise InvalidInputError(message)
    found = _read(script)
    return DecisionPlan(**{field.name: getattr(found, field.name) for field in fields(DecisionPlan)})


def slice_pairs(texts: Sequence[str]) -> list[tuple[str, str]]:
    """Return ``"NAME: CONDITION"`` as pairs of texts."""
    pairs = []
    for text in texts:
        name, colon, source = text.partition(":")
        if not colon or not name.strip():
            message = f'--slice must be "NAME: CONDITION", got {text!r}'
            raise InvalidInputError(message)
        pairs.append((name.strip(), source.strip()))
    if len(dict(pairs)) < len(pairs):
        message = "--slice names a slice twice; join its conditions with /\\"
        raise InvalidInputError(message)
    return pairs


SHARE = 0.5
_OF_THE_GATE = ("steps", "adaptivity", "mode", "estimator", "power")
_ALONE = ("changes", "target", "difference", "assume_disagreement")
"""Fields that only a plan for the gate alone uses."""
_OPTIONS = {"changes": "--passes", "assume_disagreement": "--assume-disagreement"}


def plan_both(condition: str, asked: PlannedFor, meter: str | None, share: float | None, *, as_json: bool) -> None:
    """Print the sizes of one set and of two."""
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
    """Refuse options of a shared set where none is planned."""
    given = [name for name, value in (("--meter", meter), ("--gate-share", share)) if value is not None]
    if given:
        message = f"{' and '.join(given)}: only with --joint, which plans one set for gate and meter"
        raise InvalidInputError(message)


def _config(condition: str, asked: PlannedFor, meter: str | None, share: float) -> JointConfig:
    from easeml_core.services.test_sets.planning import refuse_own_reliability
    from easeml_core.settings.config import JointConfig

    usual = {field.name: field.default for field in fields(asked)}
    useless = [_OPTIONS.get(name, f"--{name}") for name in _ALONE if getattr(asked, name) != usual[name]]
    if useless:
        message = f"{', '.join(useless)} plan a set for the gate alone; leave them out with --joint"
        raise InvalidInputError(message)
    gate = {"condition": condition} | {name: getattr(asked, name) for name in _OF_THE_GATE}
    settings = mapping_of("meter", meter or "{}")
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

    return read_script(read_text(path, MAX_LENGTH))


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


GATE_SETTINGS = ("condition", "reliability", "steps", "adaptivity", "mode", "power", "estimator", "sampling", "mail")


settings_options = with_options(
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
        type=click.Path(dir_okay=False, exists=True, path_type=Path),
        help="YAML script (ml.yml) that says all of this instead, but for slices and other conditions.",
    ),
    click.option("--meter", metavar="JSON", help='Settings of the meter, e.g. {"tolerance": 0.05, "steps": 16}.'),
    click.option("--gate-share", type=float, help="With joint: the gate's part of what may fail, > 0 and < 1."),
)
"""Adds ``--purpose`` and every setting, as keywords for ``settings_given``."""


def settings_given(**given: Any) -> JsonObject:
    """Return the settings among a command's keywords, those of the script included."""
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
    return mapping_of("meter", given["meter"] or "{}")


def _of_both(gate: JsonObject, meter: str | None, share: float | None) -> JsonObject:
    """Return the settings of a shared set: the reliability is that of both together."""
    whole = {"reliability": gate.get("reliability"), "gate_share": share}
    own = {name: value for name, value in gate.items() if name != "reliability"}
    parts = {"gate": own, "meter": mapping_of("meter", meter or "{}")}
    return {name: value for name, value in (whole | parts).items() if value not in (None, {})}


def _of_script(path: Path, gate: JsonObject) -> JsonObject:
    """Return the settings of a script, with those that no script has."""
    both = [name for name in gate if name not in ("slices", "other_conditions")]
    if both:
        message = f"--script holds the whole plan; leave out --{', --'.join(both)}"
        raise InvalidInputError(message)
    script = _read(path)
    found = {name: getattr(script, name) for name in GATE_SETTINGS}
    return dict(gate) | {name: value for name, value in found.items() if value not in (None, "")}
