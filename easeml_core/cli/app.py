"""The root command: loads subcommands, turns errors into messages and exit statuses, and completes names in shells.

    0    done
    1    the answer is no: a fail of the gate, a refusal, a check of ``doctor`` that failed
    2    an error, of whatever kind, also a fault of this program, which Python alone would end with 1; and, without a
         message, a closed reader of standard output
    130  interrupted (Ctrl-C)

Only a command itself ends with 1: no error may look like an answer.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from typing import Any, NoReturn

import click

from easeml_core import __version__
from easeml_core.cli.candidates import candidate, program
from easeml_core.cli.connection import account_name, role_remedy
from easeml_core.cli.datasets import feed, refine, validation
from easeml_core.cli.gate import gate
from easeml_core.cli.meter import meter
from easeml_core.cli.models import infer, model, promote, rollback, submissions, submit
from easeml_core.cli.operations.artifacts import artifacts_group, cache
from easeml_core.cli.operations.database import db
from easeml_core.cli.operations.doctor import doctor
from easeml_core.cli.operations.evidence import evidence, promotion
from easeml_core.cli.operations.integrations import dags, mlflow
from easeml_core.cli.output import example, json_option, show_json
from easeml_core.cli.policy import policy, scheduler
from easeml_core.cli.referee import referee, service
from easeml_core.cli.reports import alerts, audit, metrics, next_, status
from easeml_core.cli.simulation import backtest, costs, simulate
from easeml_core.cli.studies import study, tenant
from easeml_core.cli.test_sets import labels, ledger, test_set
from easeml_core.cli.trials import device, explain, trial
from easeml_core.errors import EasemlError
from easeml_core.formats.encoding import typed_record

ERROR, INTERRUPTED = 2, 130
ALIASES = {"label": "labels"}
"""Alternative names of commands; help lists each command once, under its own name."""
_JSON = "easeml.json"


class RootGroup(click.Group):
    """Turns whatever ends a command into one message on standard error and a status; also resolves aliases."""

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """Return the command of this name or alias."""
        return super().get_command(context, ALIASES.get(name, name))

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """As click does; records whether errors are to be JSON, too, since they may come before options are read."""
        context.meta[_JSON] = "--json" in args
        return super().parse_args(context, args)

    def invoke(self, context: click.Context) -> Any:
        """Run the command; an exception ends the program with a status of the module's table."""
        try:
            answer = super().invoke(context)
            if sys.stdout is not None:  # it is None where the program was started with a closed one
                sys.stdout.flush()  # a closed reader is found here, not when Python ends
        except (click.exceptions.Exit, SystemExit):
            raise
        except EasemlError as error:
            _fail(context, f"{error}{role_remedy(error)}", type(error).__name__)
        except click.ClickException as error:
            _fail_usage(context, error)
        except (KeyboardInterrupt, click.Abort):
            _ignore_interrupts()
            click.echo(err=True)  # the terminal has just printed ^C
            _fail(context, "interrupted", "Interrupted", status=INTERRUPTED)
        except BrokenPipeError:
            _leave_quietly()
            context.exit(ERROR)
        except Exception as error:  # a fault of this program must not end with 1, which is an answer
            traceback.print_exc()
            _fail(context, f"this is a fault of easeml: {error!r}; please report it", type(error).__name__)
        return answer


def _fail(context: click.Context, message: str, kind: str, *, status: int = ERROR) -> NoReturn:
    """Write the error to standard error, as one line of JSON if requested, and end."""
    text = json.dumps({"error": message, "kind": kind}) if context.meta.get(_JSON) else f"easeml: {message}"
    click.echo(text, err=True)
    context.exit(status)


def _fail_usage(context: click.Context, error: click.ClickException) -> NoReturn:
    """Report click's error about options and arguments, with the usage unless JSON was requested."""
    if context.meta.get(_JSON):
        _fail(context, error.format_message(), type(error).__name__)
    error.show()
    context.exit(ERROR)


def _ignore_interrupts() -> None:
    """End now; a second Ctrl-C in the meantime prints no traceback."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _leave_quietly() -> None:
    """Redirect Python's own flush at the end, which would fail again and change the status."""
    try:
        output = sys.stdout.fileno()
    except (OSError, ValueError):  # no file behind it, as in tests
        return
    os.dup2(os.open(os.devnull, os.O_WRONLY), output)


SHELLS = ("bash", "zsh", "fish")
PROGRAM, VARIABLE = "easeml", "_EASEML_COMPLETE"


@typed_record
class CompletionScript:
    """The answer of ``easeml completion``."""

    shell: str
    script: str


@click.command(
    epilog=example(
        "easeml completion bash > ~/.local/share/bash-completion/completions/easeml",
        "easeml completion zsh > ~/.zfunc/_easeml",
        "easeml completion fish > ~/.config/fish/completions/easeml.fish",
    )
)
@click.argument("shell", type=click.Choice(SHELLS))
@json_option
@click.pass_context
def completion(context: click.Context, shell: str, as_json: bool) -> None:
    """Print the script that lets SHELL complete commands, options and names of studies.

    Names come from the database where it answers at once, else none are offered.
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    if kind is None:  # click has all of SHELLS; a later one may not
        message = f"click knows no completion for {shell}"
        raise click.UsageError(message)
    # `source` of click's own class asks the shell for its version first, and fails where there is none.
    made = kind(context.find_root().command, {}, PROGRAM, VARIABLE)
    script = made.source_template % made.source_vars()
    show_json(CompletionScript(shell, script)) if as_json else click.echo(script, nl=False)


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
    from easeml_core.store.callers import acting

    process = context.invoked_subcommand if context.invoked_subcommand in PROCESSES else None
    context.with_resource(acting(by or process or account_name(), door=process or "command line", reason=reason))


PROCESSES = ("referee", "scheduler")
"""Commands that are separate processes, which answer requests: the audit names them."""


for command in (
    *(
        alerts,
        artifacts_group,
        audit,
        backtest,
        cache,
        costs,
        dags,
        db,
        device,
        explain,
        gate,
        meter,
        policy,
        referee,
        scheduler,
        service,
        simulate,
        status,
        study,
    ),
    *(candidate, completion, doctor, evidence, feed, infer, promote, promotion, refine, rollback),
    *(labels, ledger, metrics, mlflow, model, next_, program, submissions, submit, tenant, test_set, trial, validation),
):
    cli.add_command(command)
