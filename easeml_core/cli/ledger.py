"""``easeml ledger``: what a study's sealed sets have said, for the referee."""

from __future__ import annotations

from typing import Any

import click

from easeml_core.cli.connection import database_option, open_store
from easeml_core.cli.output import json_option, show_json, show_table


@click.command()
@click.argument("study")
@database_option
@json_option
def ledger(study: str, database: str | None, as_json: bool) -> None:
    """Show every answer of STUDY's sealed sets: step, level, price, verdict, isolation of the run.

    The address is that of the role easeml_referee. Developers must not see this. With --json, "isolation" names the
    account that the model ran under and what it was "kept_from".
    """
    from easeml_core.services.ledger import study_ledger

    found = [_with_isolation(e) for e in study_ledger(open_store(database, role="easeml_referee"), study=study)]
    if as_json:
        show_json(found)
        return
    columns = {
        "Set": "test_set_id",
        "By": "system",
        "Step": "step",
        "Model": "model_id",
        "Against": "incumbent_id",
        "Verdict": "verdict",
        "Released": "released",
        "Change": "is_change",
        "ln level": "log_level",
        "ln cost": "log_cost",
        "Nats": "nats",
        "Ran": "ran",
    }
    show_table(f"Ledger of {study}", columns, [entry | {"ran": _ran(entry["isolation"])} for entry in found])


def _with_isolation(entry: dict[str, Any]) -> dict[str, Any]:
    """The entry, its isolation in the words of now: rows of an earlier version have others."""
    from easeml_core.training.sandbox import Isolation

    kept = entry["isolation"]
    return entry | {"isolation": None if kept is None else Isolation.from_json(kept).to_json()}


def _ran(isolation: dict[str, Any] | None) -> str:
    """What the model was kept from, in a few words."""
    from easeml_core.training.sandbox import Isolation

    if isolation is None:
        return ""
    reached = list(Isolation.from_json(isolation).reaches())
    if not isolation["account"]:
        reached.insert(0, "the referee's account")
    return f"reaches {', '.join(reached)}" if reached else "cut off"
