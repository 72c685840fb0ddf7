"""``easeml gate decide``: the verdict on two files of predictions, without a database."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from easeml_core.cli.output import example, json_option, show_json, show_warnings
from easeml_core.config import SAMPLINGS
from easeml_core.csv_text import GuardedWriter
from easeml_core.entities import Mode
from easeml_core.errors import InvalidInputError, MissingLabelsError, reason_of
from easeml_core.files import written_whole
from easeml_core.gate.offline import DecisionPlan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_FILE = click.Path(path_type=Path)
SAME = "same"
"""Power as high as the level requires of the other side."""


_PLAN = DecisionPlan()


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

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def power_of(text: str | None) -> float | str | None:
    """Return ``same`` (as the level requires), or a number; None where nothing is given.

    Raises:
        InvalidInputError: It is neither.
    """
    if text is None or text == SAME:
        return text
    try:
        return float(text)
    except ValueError:
        message = f"--power must be '{SAME}' or a number > 0 and < 1, got {text!r}"
        raise InvalidInputError(message) from None


def plan_of(script: Path | None, defaults: DecisionPlan, **given: Any) -> DecisionPlan:
    """Return the condition and the settings of ``defaults``, from a script or from options, never from both.

    Raises:
        InvalidInputError: Both or neither have the condition, or the script cannot be read.
    """
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
    from easeml_core.gate.script import read_script

    try:
        text = script.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        message = f"{script} cannot be read: {reason_of(error)}"
        raise InvalidInputError(message) from error
    found = read_script(text)
    return DecisionPlan(**{field.name: getattr(found, field.name) for field in fields(DecisionPlan)})


def slice_pairs(texts: Sequence[str]) -> list[tuple[str, str]]:
    """Return ``"NAME: CONDITION"`` as pairs of texts.

    Raises:
        InvalidInputError: One has no colon or name, or a slice comes twice.
    """
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


@click.command(
    epilog=example(
        "easeml gate decide --condition 'n - o > 0 +/- 0.02' --labels labels.csv --old old.csv --new new.csv"
    )
)
@plan_options(_PLAN)
@click.option("--labels", type=_FILE, help="CSV example,label; may lack examples that cannot matter.")
@click.option("--old", type=_FILE, required=True, help="CSV example,prediction of the model that stands now.")
@click.option("--new", type=_FILE, required=True, help="CSV example,prediction of the model handed in.")
@click.option("--step", type=int, help="Which verdict of the set this is, 1 to --steps.")
@click.option(
    "--passes",
    type=int,
    help="With firstChange, upTo, recycle: earlier verdicts on this set that passed (fn-free: that failed, but for "
    "firstChange); needed there unless --step is 1.",
)
@click.option("--slices", type=_FILE, help="CSV example,slice.")
@click.option("--wanted", type=_FILE, help="Where labels are missing: write a CSV of the examples that need them next.")
@click.option("--slice", "slice_texts", multiple=True, help='"NAME: CONDITION" that must hold too; repeatable.')
@json_option
@click.pass_context
def decide(context: click.Context, /, as_json: bool, **options: Any) -> None:
    """Judge a new model against an old one on labelled examples. Needs no database.

    Prints the one word that may be released, pass or fail. What --json prints is for the referee: submitters of models
    must not read it. No state is kept: take no more than --steps verdicts from one set. Under adaptivity none
    submitters of models must see neither the word nor the exit status.

    Standard error names why the verdict behind the word may be UNKNOWN, which is released as fail (--mode fp-free) or
    as pass (fn-free): fewer examples than the plan needs, labels that no model predicts. It does not tell FAIL from
    UNKNOWN; --json does, with the same warnings.

    Exit status: 0 pass, 1 fail, 2 any error.
    """
    context.exit(_decide(as_json, **options))


def _decide(
    as_json: bool,
    *,
    script: Path | None,
    labels: Path | None,
    old: Path,
    new: Path,
    step: int | None,
    passes: int | None,
    slices: Path | None,
    wanted: Path | None,
    slice_texts: Sequence[str],
    **given: Any,
) -> int:
    from easeml_core.gate.offline.columns import read_predictions, read_slice_names
    from easeml_core.gate.offline.verdict import judge_offline

    plan = plan_of(script, _PLAN, **given)
    conditions = slice_pairs(slice_texts)
    if bool(conditions) != (slices is not None):
        message = "--slices and --slice belong together: the file tells the slices, the options what must hold on them"
        raise InvalidInputError(message)
    data = read_predictions(labels, old, new)
    try:
        found = judge_offline(
            plan,
            data,
            step=step,
            passes=passes,
            slice_names=None if slices is None else read_slice_names(slices, data.examples),
            slice_conditions=conditions,
            source=str(labels or "--labels"),
        )
    except MissingLabelsError as missing:
        if wanted is not None:
            _write_wanted(wanted, missing.examples)
        raise
    show_warnings(found.warnings)
    show_json(found.report()) if as_json else click.echo(found.symbol)
    return 0 if found.passed else 1


def _write_wanted(path: Path, examples: Sequence[str]) -> None:
    try:
        with written_whole(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = GuardedWriter(file)
            for name in ("example", *examples):
                writer.row([name])
    except OSError as error:
        message = f"{path} cannot be written: {reason_of(error)}"
        raise InvalidInputError(message) from error
