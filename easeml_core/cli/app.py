"""The root command and every subcommand; errors become messages and exit statuses in ``root.py``."""

from __future__ import annotations

import getpass
import os

import click

from easeml_core import __version__
from easeml_core.cli.alerts import alerts
from easeml_core.cli.audit import audit
from easeml_core.cli.backtest import backtest
from easeml_core.cli.cache import cache
from easeml_core.cli.candidates import candidate
from easeml_core.cli.completion import completion
from easeml_core.cli.costs import costs
from easeml_core.cli.datasets import feed
from easeml_core.cli.device import device
from easeml_core.cli.doctor import doctor
from easeml_core.cli.evidence import evidence
from easeml_core.cli.explain import explain
from easeml_core.cli.gate import gate
from easeml_core.cli.infer import infer
from easeml_core.cli.labels import labels
from easeml_core.cli.ledger import ledger
from easeml_core.cli.meter import meter
from easeml_core.cli.mlflow_sync import mlflow
from easeml_core.cli.models import model, promote, rollback
from easeml_core.cli.next_steps import next_
from easeml_core.cli.operations import db
from easeml_core.cli.program import program
from easeml_core.cli.promotion import promotion
from easeml_core.cli.referee import referee
from easeml_core.cli.refine import refine
from easeml_core.cli.reports import status
from easeml_core.cli.root import RootGroup
from easeml_core.cli.selection import policy
from easeml_core.cli.simulate import simulate
from easeml_core.cli.studies import study
from easeml_core.cli.submit import submissions, submit
from easeml_core.cli.tenants import tenant
from easeml_core.cli.test_sets import test_set
from easeml_core.cli.trials import trial
from easeml_core.cli.validation import validation


@click.group(cls=RootGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="easeml")
@click.option("--by", metavar="NAME", help="Who acts, for the audit; default: your user name.")
@click.option("--reason", metavar="TEXT", default="", help="Why, for the audit; kept with what this command changes.")
@click.pass_context
def cli(context: click.Context, by: str | None, reason: str) -> None:
    """Ease.ml for Airflow: share devices between tenants, gate promotions, meter overfitting.

    The database is --database URL, else EASEML_DATABASE_URL, else the embedded server of ./.easeml. Every command
    takes --json. Exit status: 0 done, 1 the answer is no, 2 an error.
    """
    from easeml_core.store.actors import acting

    is_referee = context.invoked_subcommand == "referee"  # a process of its own, that answers what others ask
    name, door = by or ("referee" if is_referee else _user()), "referee" if is_referee else "command line"
    context.with_resource(acting(name, door=door, reason=reason))


def _user() -> str:
    """The user of the operating system; one without a name is known by the number."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


for command in (
    *(
        alerts,
        audit,
        backtest,
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
    *(candidate, completion, doctor, evidence, feed, infer, promote, promotion, refine, rollback),
    *(labels, ledger, mlflow, model, next_, program, submissions, submit, tenant, test_set, trial, validation),
):
    cli.add_command(command)
