"""``easeml gate attack``: a simulated developer who learns from the gate's answers, against sets of a plan."""

from __future__ import annotations

from typing import Any

import click

from easeml_core.cli.output import example, json_option, show_json


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
    from easeml_core.gate.attack import attack_plan

    found = attack_plan(**plan)
    if as_json:
        show_json({"plan": plan} | found.to_json())
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
