"""``easeml status``: every study at a glance."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from easeml_core.cli.connection import database_option, open_store
from easeml_core.cli.output import example, json_option, plain, show_json, show_table

COLUMNS = {
    "Tenant": "tenant",
    "Study": "study",
    "State": "state",
    "Trials": "trials_of",
    "Best": "best_quality",
    "Gate": "verdict",
    "Signal": "signal_of",
}
"""What fits into a terminal of 80 columns; names of candidates and sentences stand below the table."""


@click.command(epilog=example("easeml status"))
@database_option
@json_option
def status(database: str | None, as_json: bool) -> None:
    """Show every study: quality, trials, verdict, signal, model in production, and what to do next.

    With the address of the role easeml_referee it also lists requests that are put off for a fault of the machine.
    """
    from easeml_core.services.evaluation.backoff import list_put_off, sentence
    from easeml_core.services.reports.overview import overview

    store = open_store(database)
    found, put_off = overview(store), list_put_off(store)
    if as_json:
        show_json(found | ({} if put_off is None else {"put_off": [asdict(one) for one in put_off]}))
        return
    if not found["tenants"]:
        click.echo("no studies yet; register one with `easeml study register` or the DAG easeml_register_study")
        return
    show_table(f"Policy: {found['policy'] or 'none yet'}", COLUMNS, [_shown(e) for e in found["tenants"]])
    for entry in found["tenants"]:
        click.echo(plain("\n".join(_lines(entry))))
    for one in put_off or ():
        click.echo(plain(sentence(one)))


def _lines(entry: dict[str, Any]) -> list[str]:
    """What the table has no room for, and what to do next."""
    standing = entry["production_model_id"]
    handed_in = None if standing is None else f"model {standing}"  # it has no candidate
    known = {"best": entry["best_candidate"], "in production": entry["production_candidate"] or handed_in}
    words = [f"{what} {name}" for what, name in known.items() if name]
    if entry["drift"] is not None:
        words.append(f"second signal {entry['direct_signal']} of {entry['signals']} (drift: {entry['drift']})")
    return [
        f"{entry['study']}: {', '.join([*words, f'{_device_seconds(entry)} device seconds'])}",
        f"  next: {entry['next']}",
    ]


def _device_seconds(entry: dict[str, Any]) -> str:
    """What the study has used, of how much; the rest of its limits is in the sentence on what to do next."""
    budget = "" if entry["budget_seconds"] is None else f" of {entry['budget_seconds']:,.1f}"
    return f"{entry['device_seconds']:,.1f}{budget}"


def _shown(entry: dict[str, Any]) -> dict[str, Any]:
    shared = "by team" if (entry["teams"] or 1) > 1 else None  # no team may be shown another one's signals
    signal = shared if entry["signal"] is None else f"{entry['signal']} of {entry['signals']}"
    trials = f"{entry['trials']}/{entry['candidates']}" + (f", {entry['failed']} failed" if entry["failed"] else "")
    return entry | {"signal_of": signal, "trials_of": trials}
