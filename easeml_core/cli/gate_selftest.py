"""``easeml gate selftest``: identical models through the gate, to see how often it errs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from easeml_core.cli.gate_decide import SAME, plan_of, plan_options
from easeml_core.cli.output import example, json_option, show_json, show_warnings
from easeml_core.cli.simulate_output import progress
from easeml_core.errors import InvalidInputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FILE = click.Path(path_type=Path)
_LOOSE = 2.0  # an interval that reaches further beyond the promise says little about it
_PLAN: dict[str, Any] = {
    "condition": "n - o > 0 +/- 0.02",
    "reliability": 0.95,
    "steps": 1,
    "adaptivity": "none",
    "mode": "fp-free",
    "sampling": "fixed",
    "power": SAME,
}


@click.command(epilog=example("easeml gate selftest --accuracy 0.9 --disagreement 0.05 --runs 500"))
@plan_options(_PLAN)
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

    Says how often they passed, and whether that fits the level of one verdict. Exit status: 0 it fits, 1 it does not,
    2 any error.
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
    from easeml_core.gate.offline import log_level_of
    from easeml_core.gate.self_test import identical_models, run_self_test

    plan = plan_of(script, given, _PLAN | {"estimator": "exact"})
    condition, mode = parse_condition(str(plan["condition"])), str(plan["mode"])
    asked = {name: plan[name] for name in ("reliability", "adaptivity", "steps", "mode", "estimator")}
    log_level = log_level_of(**asked, step=None, passes=0)
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
            sampling=plan["sampling"],
            power=plan["power"],
            seed=seed,
            on_done=on_done,
        )
    if as_json:
        show_json({"condition": str(condition), "mode": mode, "examples": examples, "seed": seed} | found.to_json())
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
    from easeml_core.gate.offline import read_predictions
    from easeml_core.gate.outcomes import count_outcomes
    from easeml_core.gate.self_test import identical_to

    data = read_predictions(labels, old, new)
    show_warnings(data.mismatches)
    outcomes = count_outcomes(data.labels, data.old, data.new)
    if outcomes.new_correct is None:
        message = f"{labels} lacks labels; two real models are made identical only with all of them"
        raise InvalidInputError(message)
    return identical_to(outcomes)
