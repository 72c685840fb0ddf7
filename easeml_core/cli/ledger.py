"""``easeml ledger``: what a study's sealed sets have said, for the referee."""

from __future__ import annotations

from typing import Any

import click

from easeml_core.cli.connection import database_option, open_store
from easeml_core.cli.names import STUDY
from easeml_core.cli.output import example, json_option, show_json, show_table


@click.command(epilog=example('easeml ledger flowers --database "$(easeml db url --role easeml_referee)"'))
@click.argument("study", type=STUDY)
@database_option
@json_option
def ledger(study: str, database: str | None, as_json: bool) -> None:
    """Show every answer of STUDY's sealed sets: step, models, verdict, price in nats, isolation of the run.

    The address is that of the role easeml_referee. Developers must not see this. --json has more: condition, level,
    what later steps lose, changes, times, and the "isolation": the account that the model ran under and what it was
    "kept_from".
    """
    from easeml_core.services.test_sets.ledger import study_ledger

    found = [_with_isolation(e) for e in study_ledger(open_store(database, role="easeml_referee"), study=study)]
    if as_json:
        show_json(found)
        return
    columns = {
        "Set": "test_set_id",
        "Step": "of",
        "Model": "compared",
        "Verdict": "verdict",
        "Released": "released",
        "Nats": "cost",
        "Ran": "ran",
    }
    show_table(f"Ledger of {study}", columns, [entry | _in_words(entry) for entry in found])


def _in_words(entry: dict[str, Any]) -> dict[str, Any]:
    """What a line of 80 characters has no columns for."""
    against = "" if entry["incumbent_id"] is None else f" vs {entry['incumbent_id']}"
    return {
        "of": f"{entry['system']} {entry['step']}",
        "compared": f"{entry['model_id']}{against}",
        "cost": f"{entry['log_cost']:.2f}",
        "ran": _ran(entry["isolation"]),
    }


def _with_isolation(entry: dict[str, Any]) -> dict[str, Any]:
    """The entry, its isolation in the words of now: rows of an earlier version have others."""
    from easeml_core.sandbox.isolation import Isolation

    kept = entry["isolation"]
    return entry | {"isolation": None if kept is None else Isolation.from_json(kept).to_json()}


def _ran(isolation: dict[str, Any] | None) -> str:
    """What the model was kept from, in a few words."""
    from easeml_core.sandbox.isolation import Isolation

    if isolation is None:
        return ""
    reached = list(Isolation.from_json(isolation).reaches())
    if not isolation["account"]:
        reached.insert(0, "the referee's account")
    return f"reaches {', '.join(reached)}" if reached else "cut off"
