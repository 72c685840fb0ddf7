"""``easeml alerts``: list and clear the alerts of a study."""

from __future__ import annotations

from typing import Any

import click

from easeml_core.cli.connection import database_option, open_store
from easeml_core.cli.names import STUDY
from easeml_core.cli.output import example, json_option, show_json, show_table


@click.command(epilog=example("easeml alerts flowers", "easeml alerts flowers --clear 3"))
@click.argument("study", type=STUDY)
@click.option("--clear", type=int, metavar="ID", help="Number of an open alert: it is dealt with, and listed no more.")
@click.option(
    "--team", type=int, metavar="K", help="Which team is asking, where several share a meter set: its alerts, too."
)
@database_option
@json_option
def alerts(study: str, clear: int | None, team: int | None, database: str | None, as_json: bool) -> None:
    """List the open alerts of STUDY, or clear one of them.

    Where several teams share a meter set, an alert about signals is shown to the team that they were given to.
    """
    from easeml_core.services.meter.alerts import clear_alert, open_alerts

    store = open_store(database)
    if clear is not None:
        clear_alert(store, study=study, alert_id=clear, team=team)
        if not as_json:
            click.echo(f"alert {clear} of {study} is cleared")
    found = open_alerts(store, study=study, team=team)
    columns = {
        "Alert": "alert_id",
        "Kind": "kind",
        "Signal": "signal_of",
        "Model": "model_id",
        "Since": "created_at",
        "What": "message",
    }
    if as_json:
        show_json(found)
    elif found:
        show_table(f"Open alerts of {study}", columns, [alert | {"signal_of": _signals(alert)} for alert in found])
    else:
        click.echo(f"{study} has no open alert")


def _signals(alert: dict[str, Any]) -> str | None:
    """The signal, and that of the second meter where there is one."""
    if alert["signal"] is None or alert["direct_signal"] is None:
        return None if alert["signal"] is None else str(alert["signal"])
    return f"{alert['signal']} / {alert['direct_signal']}"
