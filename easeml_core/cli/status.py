"""``easeml status``: every study at a glance."""

from __future__ import annotations

from typing import Any

import click

from easeml_core.cli.connection import database_option, open_store
from easeml_core.cli.output import json_option, show_json, show_table

COLUMNS = {
    "Tenant": "tenant",
    "Study": "study",
    "State": "state",
    "Trials": "trials_of",
    "Best quality": "best_quality",
    "Best candidate": "best_candidate",
    "Device s": "device_of",
    "Gate": "verdict",
    "Signal": "signal_of",
    "Production": "production_candidate",
    "Next": "next",
}


@click.command()
@database_option
@json_option
def status(database: str | None, as_json: bool) -> None:
    """Show every study: quality, trials, verdict, signal, model in production, and what to do next."""
    from easeml_core.services.overview import overview

    found = overview(open_store(database))
    if as_json:
        show_json(found)
        return
    if not found["tenants"]:
        click.echo("no studies yet; register one with `easeml study register` or the DAG easeml_register_study")
        return
    show_table(f"Policy: {found['policy'] or 'none yet'}", COLUMNS, [_shown(e) for e in found["tenants"]])


def _device_seconds(entry: dict[str, Any]) -> str:
    """What the study has used, of how much; the rest of its limits is in the sentence on what to do next."""
    budget = "" if entry["budget_seconds"] is None else f" of {entry['budget_seconds']:,.1f}"
    return f"{entry['device_seconds']:,.1f}{budget}"


def _shown(entry: dict[str, Any]) -> dict[str, Any]:
    signal = None if entry["signal"] is None else f"{entry['signal']} of {entry['signals']}"
    trials = f"{entry['trials']}/{entry['candidates']}" + (f" ({entry['failed']} failed)" if entry["failed"] else "")
    return entry | {"signal_of": signal, "trials_of": trials, "device_of": _device_seconds(entry)}
