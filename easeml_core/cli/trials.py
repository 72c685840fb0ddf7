"""``easeml trial``: show, cancel or retry one trial."""

from __future__ import annotations

from typing import Any

import click

from easeml_core.cli.connection import database_option, open_store
from easeml_core.cli.output import cell, example, json_option, show_json, show_table

_MOST_LINES = 50


@click.group(epilog=example("easeml trial show 12"))
def trial() -> None:
    """Trials: one run of one candidate each."""


@trial.command(epilog=example("easeml trial show 12"))
@click.argument("trial_id", type=int)
@database_option
@json_option
def show(trial_id: int, database: str | None, as_json: bool) -> None:
    """Show one trial: what came of it, its attempts, what was decided at its rungs, and its learning curve."""
    from easeml_core.services.trials.execution import trial_details
    from easeml_core.services.trials.pruning import sentence_of

    details = trial_details(open_store(database), trial_id=trial_id)
    if as_json:
        show_json(details)
        return
    curve, decided, news = details.pop("curve"), details.pop("rungs"), details.pop("progress") or {}
    _print({**details, "last_news": news.get("note"), "peak_mb": news.get("peak_mb")}, as_json=False)
    for told in decided:
        click.echo(f"It {sentence_of(told)}.")
    if curve:
        columns = {"Step": "step", "Of": "of", "Quality": "quality", "Loss": "loss", "Seconds": "seconds"}
        show_table("Learning curve", columns, _thinned(curve))


@trial.command(epilog=example("easeml trial cancel 12"))
@click.argument("trial_id", type=int)
@database_option
@json_option
def cancel(trial_id: int, database: str | None, as_json: bool) -> None:
    """Cancel a trial: at once when it waits, within two seconds when it runs."""
    from easeml_core.services.trials.execution import cancel_trial

    _print(cancel_trial(open_store(database), trial_id=trial_id), as_json)


@trial.command(epilog=example("easeml trial retry 12"))
@click.argument("trial_id", type=int)
@database_option
@json_option
def retry(trial_id: int, database: str | None, as_json: bool) -> None:
    """Let another trial take the place of one that failed because of its task, once that was mended.

    A trial failed because of its task where a package, a program, a column or a file was missing, and not because of
    what it tried. The new trial waits for the next task that asks and can execute it. Repeating the command adds none.
    """
    from easeml_core.services.selection.retry import retry_trial

    _print(retry_trial(open_store(database), trial_id=trial_id), as_json)


def _thinned(curve: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most 50 points or so of a long curve, and always its last one; ``--json`` has all of them."""
    every = -(-len(curve) // _MOST_LINES)
    return [point for number, point in enumerate(curve, start=1) if number % every == 0 or number == len(curve)]


def _print(report: dict[str, Any], as_json: bool) -> None:
    if as_json:
        show_json(report)
        return
    for key, value in report.items():
        click.echo(f"{key:>19}  {cell(value)}")
