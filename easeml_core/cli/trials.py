"""``easeml trial``: show or cancel one trial."""

from __future__ import annotations

from typing import Any

import click

from easeml_core.cli.connection import database_option, open_store
from easeml_core.cli.output import cell, json_option, show_json


@click.group()
def trial() -> None:
    """Trials: one run of one candidate each."""


@trial.command()
@click.argument("trial_id", type=int)
@database_option
@json_option
def show(trial_id: int, database: str | None, as_json: bool) -> None:
    """Show one trial."""
    from easeml_core.services.trials import trial_state

    _print(trial_state(open_store(database), trial_id=trial_id), as_json)


@trial.command()
@click.argument("trial_id", type=int)
@database_option
@json_option
def cancel(trial_id: int, database: str | None, as_json: bool) -> None:
    """Cancel a trial: at once when it waits, at its next heartbeat when it runs."""
    from easeml_core.services.trials import cancel_trial

    _print(cancel_trial(open_store(database), trial_id=trial_id), as_json)


def _print(report: dict[str, Any], as_json: bool) -> None:
    if as_json:
        show_json(report)
        return
    for key, value in report.items():
        click.echo(f"{key:>14}  {cell(value)}")
