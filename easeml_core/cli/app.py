"""The root command: every subcommand, and one place where errors become a message and an exit status."""

from __future__ import annotations

from typing import Any

import click

from easeml_core import __version__
from easeml_core.cli.alerts import alerts
from easeml_core.cli.backtest import backtest
from easeml_core.cli.bench import bench
from easeml_core.cli.cache import cache
from easeml_core.cli.candidates import candidate
from easeml_core.cli.connection import ROLE, role_remedy
from easeml_core.cli.costs import costs
from easeml_core.cli.db import db
from easeml_core.cli.device import device
from easeml_core.cli.explain import explain
from easeml_core.cli.feed import feed
from easeml_core.cli.gate import gate
from easeml_core.cli.infer import infer
from easeml_core.cli.labels import labels
from easeml_core.cli.ledger import ledger
from easeml_core.cli.meter import meter
from easeml_core.cli.mlflow_sync import mlflow
from easeml_core.cli.model import model
from easeml_core.cli.policy import policy
from easeml_core.cli.program import program
from easeml_core.cli.referee import referee
from easeml_core.cli.refine import refine
from easeml_core.cli.simulate import simulate
from easeml_core.cli.status import status
from easeml_core.cli.studies import study
from easeml_core.cli.submit import submissions, submit
from easeml_core.cli.tenants import tenant
from easeml_core.cli.test_set import test_set
from easeml_core.cli.trials import trial
from easeml_core.cli.validation import validation
from easeml_core.errors import EasemlError


class _Group(click.Group):
    """Prints our errors as one message and exits with 2; anything else is a bug and keeps its traceback."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except EasemlError as error:
            click.echo(f"easeml: {error}{role_remedy(error, context.meta.get(ROLE))}", err=True)
            context.exit(2)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="easeml")
def cli() -> None:
    """Ease.ml for Airflow: share devices between tenants, gate promotions, meter overfitting.

    The database is --database URL, else EASEML_DATABASE_URL, else the embedded server of ./.easeml. Every command
    takes --json. Exit status: 0 done, 1 the answer is no, 2 an error.
    """


for command in (
    *(
        alerts,
        backtest,
        bench,
        cache,
        costs,
        db,
        device,
        explain,
        gate,
        meter,
        policy,
        referee,
        simulate,
        status,
        study,
    ),
    *(candidate, feed, infer, refine),
    *(labels, ledger, mlflow, model, program, submissions, submit, tenant, test_set, trial, validation),
):
    cli.add_command(command)
