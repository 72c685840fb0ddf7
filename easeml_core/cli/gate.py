"""``easeml gate``: ask the referee, judge files of predictions, test the gate with identical models, and attack it.

``gate_plan.py`` holds the command ``plan``, and the options of a plan.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from easeml_core.cli.connection import (
    GATE_MAY_WAIT,
    STUDY,
    gate_passes,
    new_key,
    open_store,
    store_options,
    tell_gate_answer,
    wait_for_answer,
)
from easeml_core.cli.gate_plan import plan, plan_of, plan_options, slice_pairs
from easeml_core.cli.output import example, json_option, progress, show_json, show_warnings
from easeml_core.errors import InvalidInputError, MissingLabelsError, reason_of
from easeml_core.files.local import written_whole
from easeml_core.formats.csv_text import GuardedWriter
from easeml_core.formats.encoding import row_of
from easeml_core.gate.offline import DecisionPlan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from easeml_core.store.database import Store


_FILE = click.Path(path_type=Path)
_DECIDE_PLAN = DecisionPlan()


@click.command(
    epilog=example(
        "easeml gate decide --condition 'n - o > 0 +/- 0.02' --labels labels.csv --old old.csv --new new.csv"
    )
)
@plan_options(_DECIDE_PLAN)
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

    plan = plan_of(script, _DECIDE_PLAN, **given)
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


@click.command(epilog=example("easeml gate ask flowers 7 --wait 60 --request-key nightly-7"))
@click.argument("study", type=STUDY)
@click.argument("model_id", metavar="[MODEL]", type=int, required=False)
@click.option(
    "--condition",
    help="Another condition than the set's, where its plan has answers for such; a pass is advice. Default: the set's.",
)
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=600.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for the answer; 0: only ask.",
)
@click.option("--request-key", metavar="K", help="The same key gives the same answer; default: a new one.")
@store_options
@click.pass_context
def ask(
    context: click.Context, study: str, model_id: int | None, condition: str | None, wait: float,
    request_key: str | None, database: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Ask the gate whether model MODEL of STUDY may be promoted.

    Without MODEL it is the best one that the study has trained. Each answer about another model uses one step of the
    live set. The request remains when you stop waiting, and the same call with its key shows the answer.

    Exit status: 0 a pass or a verdict that is withheld (with --wait 0: asked), 1 a fail or a refusal, 2 any error,
    130 interrupted.
    """
    key = new_key(request_key)
    context.exit(_ask(open_store(database), study, model_id, condition, key, wait=wait, as_json=as_json))


def _ask(
    store: Store, study: str, model_id: int | None, condition: str | None, key: str, *, wait: float, as_json: bool
) -> int:
    from easeml_core.services.referee.place_in_queue import place_of, place_text
    from easeml_core.services.referee.requests import AskedGate, file_gate_request

    request_id = file_gate_request(store, study=study, model_id=model_id, condition=condition, request_key=key)
    request = AskedGate(study, request_id, key)
    again = f"the same call with --request-key {key} shows its answer"
    place = place_of(store, request_id)
    if not as_json:  # at once, so that a user who stops waiting knows the request and its key
        ahead = "" if wait or place is None else f" ({place_text(place)})"
        later = f"waiting at most {wait:g} s for its answer; later {again}" if wait else again
        click.echo(f"the gate is asked, request {request_id}{ahead}; {later}")
    if not wait:
        if as_json:
            show_json(replace(request, place=place))
        return 0
    answer = wait_for_answer(store, request_id, wait, f"{GATE_MAY_WAIT}, {again}")
    show_json(replace(request, answer=answer)) if as_json else tell_gate_answer(answer)
    return 0 if gate_passes(answer) else 1


_LOOSE = 2.0  # an interval that reaches further beyond the promise says little about it
_SELFTEST_PLAN = DecisionPlan(condition="n - o > 0 +/- 0.02", reliability=0.95, steps=1, adaptivity="none")


@click.command(epilog=example("easeml gate selftest --accuracy 0.9 --disagreement 0.05 --runs 500"))
@plan_options(_SELFTEST_PLAN)
@click.option("--labels", type=_FILE, help="CSV example,label: take two real models, with --old and --new.")
@click.option("--old", type=_FILE, help="CSV example,prediction.")
@click.option("--new", type=_FILE, help="CSV example,prediction; at every example a coin says which is the new one.")
@click.option("--accuracy", type=float, default=0.85, show_default=True, help="Of both models, where none are given.")
@click.option("--disagreement", type=float, default=0.1, show_default=True, help="Share on which they differ.")
@click.option("--examples", type=int, default=2000, show_default=True, help="Of each set that is drawn.")
@click.option("--runs", type=int, default=1000, show_default=True, help="Sets that are drawn.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the random numbers.")
@json_option
@click.pass_context
def selftest(context: click.Context, /, as_json: bool, **options: Any) -> None:
    """A/A test: judge models of identical quality many times. Needs no database.

    Reports how often they passed, and whether that fits the level of one verdict. Exit status: 0 it fits, 1 it does
    not, 2 any error.
    """
    context.exit(_selftest(as_json, **options))


def _selftest(
    as_json: bool,
    *,
    script: Path | None,
    labels: Path | None,
    old: Path | None,
    new: Path | None,
    accuracy: float,
    disagreement: float,
    examples: int,
    runs: int,
    seed: int,
    **given: Any,
) -> int:
    from easeml_core.gate.condition import parse_condition
    from easeml_core.gate.offline.verdict import log_level_of
    from easeml_core.gate.self_test import SelfTestReport, identical_models, run_self_test

    plan = plan_of(script, _SELFTEST_PLAN, **given)
    condition, mode = parse_condition(plan.condition), plan.mode
    log_level = log_level_of(
        reliability=plan.reliability,
        adaptivity=plan.adaptivity,
        steps=plan.steps,
        mode=mode,
        estimator=plan.estimator,
        step=None,
        passes=0,
    )
    if labels is not None and old is not None and new is not None:
        law = _real_law(labels, old, new)
    elif (labels, old, new) == (None, None, None):
        law = identical_models(accuracy=accuracy, disagreement=disagreement)
    else:
        message = "--labels, --old and --new belong together; give all three, or none for models that are made up"
        raise InvalidInputError(message)
    with progress("sets") as on_done:
        found = run_self_test(
            condition,
            law,
            examples=examples,
            runs=runs,
            log_level=log_level,
            mode=mode,
            sampling=plan.sampling,
            power=plan.power,
            seed=seed,
            on_done=on_done,
        )
    if as_json:
        asked: dict[str, Any] = {"condition": str(condition), "mode": mode, "examples": examples, "seed": seed}
        show_json(SelfTestReport(**row_of(found), **asked, level=math.exp(found.log_level)))
    else:
        click.echo(f"identical models passed {found.passes:,} of {found.runs:,} times ({condition}, {mode})")
        low, high = found.interval
        click.echo(f"  chance of a wrong answer: {found.rate:.4f}, between {low:.4f} and {high:.4f} (99.9 %)")
        fits = "fits" if found.compatible else "DOES NOT FIT"
        click.echo(f"  {fits} the promised {math.exp(log_level):.3g}")
        if found.compatible and high > _LOOSE * math.exp(log_level):
            click.echo(f"  so few runs cannot rule out a chance of up to {high:.3g}; ask for more with --runs")
    return 0 if found.compatible else 1


def _real_law(labels: Path, old: Path, new: Path) -> NDArray[Any]:
    from easeml_core.gate.offline.columns import read_predictions
    from easeml_core.gate.outcomes import count_outcomes
    from easeml_core.gate.self_test import identical_to

    data = read_predictions(labels, old, new)
    show_warnings(data.mismatches)
    outcomes = count_outcomes(data.labels, data.old, data.new)
    if outcomes.new_correct is None:
        message = f"{labels} lacks labels; two real models are made identical only with all of them"
        raise InvalidInputError(message)
    return identical_to(outcomes)


@click.command(epilog=example("easeml gate attack --examples 303 --reliability 0.95 --steps 8"))
@click.option("--examples", type=int, required=True, help="N, the examples that the plan asks for.")
@click.option("--reliability", type=float, default=0.9999, show_default=True, help="1 - delta, over all steps.")
@click.option("--steps", type=int, default=32, show_default=True, help="H, the verdicts of the plan; 1 to 1,024.")
@click.option("--adaptivity", default="full", show_default=True, help="none, full, firstChange, upTo:K or recycle.")
@click.option("--mode", default="fp-free", show_default=True, help="fp-free or fn-free.")
@json_option
@click.pass_context
def attack(context: click.Context, /, as_json: bool, **plan: Any) -> None:
    """Attack sets of a plan: a developer tunes each model by the answers to the last. Needs no database.

    The sets are simulated: labels are fair coins, and the condition is n > 0.5. A set of more than 2,000 examples is
    attacked at that size. The same plan always gives the same result. Exit status: 0 the promise holds, 1 it does not,
    2 any error.
    """
    from easeml_core.gate.attack import AttackReport, attack_plan

    found = attack_plan(**plan)
    if as_json:
        show_json(AttackReport(**row_of(found), plan=plan))
        context.exit(0 if found.holds else 1)
    wrong = "pass" if plan["mode"] == "fp-free" else "fail"
    low, high = found.interval
    click.echo(f"the attack got a wrong {wrong} on {found.fooled} of {found.runs} sets of {found.examples:,} examples")
    click.echo(f"  chance of a wrong {wrong}: between {low:.2g} and {high:.2g} (99.9 %)")
    click.echo(f"  {'fits' if found.holds else 'DOES NOT FIT'} the promised {found.promised:.3g}")
    click.echo(f"  with each verdict released and tested at delta / {plan['steps']:,}: {found.naive} of {found.runs}")
    if found.naive / found.runs <= found.promised:
        click.echo("  the attack is too weak on this plan to show what counting the answers prevents")
    context.exit(0 if found.holds else 1)


@click.group(epilog=example("easeml gate plan --condition 'n > 0.8 +/- 0.05' --steps 8", "easeml gate ask flowers 7"))
def gate() -> None:
    """The gate: a condition that a model must satisfy before it is promoted."""


for command in (plan, ask, decide, selftest, attack):
    gate.add_command(command)
