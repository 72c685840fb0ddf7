"""``easeml costs``: the error of predicted costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from easeml_core.cli.connection import database_option, open_store
from easeml_core.cli.output import example, json_option, show_json, show_table
from easeml_core.encoding import row_of
from easeml_core.errors import counted

if TYPE_CHECKING:
    from easeml_core.selection.costs.learn import CostReport

_COLUMNS = {
    "Own trials": "own",
    "Half within x": "factor",
    "RMSE of ln": "rmse_log",
    "R2 of ln": "r2",
    "In interval": "interval_coverage",
    "Right order": "right_order",
}


@click.command(epilog=example("easeml costs --json"))
@click.option(
    "--history",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="CSV of costs in seconds, tenants x candidates, instead of the database.",
)
@database_option
@json_option
def costs(history: Path | None, database: str | None, as_json: bool) -> None:
    """Report the error of predicted costs, for tenants that the model has not seen.

    Each tenant is predicted from the others alone, then after 1, 2 and 5 of its finished trials.
    """
    from easeml_core.services.selection.costs import report_cost_table, report_costs

    report = report_cost_table(history) if history else report_costs(open_store(database))
    if as_json:
        show_json(report)
    elif report.errors:
        _show_cost_report(report)
    else:
        click.echo(
            f"{counted(report.trials, 'measured trial')} of {counted(report.tenants, 'study', 'studies')}: too few, it "
            "takes two studies or more"
        )


def _show_cost_report(report: CostReport) -> None:
    counts = ", ".join(counted(getattr(report, f"{what}s"), what) for what in ("tenant", "candidate", "trial"))
    entries = [row_of(e) | {"factor": 10**e.median_absolute_log10} for e in report.errors]
    show_table(f"{counts}; intervals of {report.coverage:.0%}", _COLUMNS, entries)
