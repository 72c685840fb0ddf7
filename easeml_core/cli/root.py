"""The outermost group: where every error, interruption and lost reader becomes a message and an exit status.

    0    done
    1    the answer is no: a fail of the gate, a refusal, a check of ``doctor`` that failed
    2    an error, of whatever kind: also a fault of ours, which Python alone would end with 1, and a reader of standard
         output that has gone, of which nothing is said
    130  interrupted (Ctrl-C)

Only a command itself ends with 1: nothing that goes wrong may look like an answer.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from typing import Any, NoReturn

import click

from easeml_core.cli.connection import role_remedy
from easeml_core.errors import EasemlError

ERROR, INTERRUPTED = 2, 130
ALIASES = {"label": "labels"}
"""Other names under which a command is found; help lists it once, under its own."""
_JSON = "easeml.json"


class RootGroup(click.Group):
    """Turns whatever ends a command into one message on standard error and a status; also knows aliases."""

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """The command of this name or alias."""
        return super().get_command(context, ALIASES.get(name, name))

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """As click does; remembers whether errors are to be JSON, too, since they may come before options are read."""
        context.meta[_JSON] = "--json" in args
        return super().parse_args(context, args)

    def invoke(self, context: click.Context) -> Any:
        """Run the command; what it raises ends the program with a status of the module's table."""
        try:
            answer = super().invoke(context)
            if sys.stdout is not None:  # it is None where the program was started with a closed one
                sys.stdout.flush()  # here a reader that has gone is noticed, not when Python ends
        except (click.exceptions.Exit, SystemExit):
            raise
        except EasemlError as error:
            _fail(context, f"{error}{role_remedy(error)}", type(error).__name__)
        except click.ClickException as error:
            _fail_usage(context, error)
        except (KeyboardInterrupt, click.Abort):
            _hear_no_more()
            click.echo(err=True)  # the terminal has just printed ^C
            _fail(context, "interrupted", "Interrupted", status=INTERRUPTED)
        except BrokenPipeError:
            _leave_quietly()
            context.exit(ERROR)
        except Exception as error:  # a fault of ours must not end with 1, which is an answer
            traceback.print_exc()
            _fail(context, f"this is a fault of easeml: {error!r}; please report it", type(error).__name__)
        return answer


def _fail(context: click.Context, message: str, kind: str, *, status: int = ERROR) -> NoReturn:
    """Say it on standard error, as one line of JSON if asked, and end."""
    text = json.dumps({"error": message, "kind": kind}) if context.meta.get(_JSON) else f"easeml: {message}"
    click.echo(text, err=True)
    context.exit(status)


def _fail_usage(context: click.Context, error: click.ClickException) -> NoReturn:
    """What click has to say about options and arguments, with the usage where people read it."""
    if context.meta.get(_JSON):
        _fail(context, error.format_message(), type(error).__name__)
    error.show()
    context.exit(ERROR)


def _hear_no_more() -> None:
    """It ends now, and whoever presses Ctrl-C once more meanwhile gets no traceback for it."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _leave_quietly() -> None:
    """Let Python's own flush at the end go nowhere: there it would complain once more, and change the status."""
    try:
        output = sys.stdout.fileno()
    except (OSError, ValueError):  # no file behind it, as in tests
        return
    os.dup2(os.open(os.devnull, os.O_WRONLY), output)
