"""One night for many tenants on a real Airflow, from registration to release; run it again for the next night.

Uses the stack that `make up` started and leaves it running, or starts one and stops it afterwards.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from demo_night.registration import register_missing
from demo_night.report import Report, ended_trials, print_report, require_nothing_repeated, trials_of_all
from demo_night.retraining import GATE_DAG, NIGHT_DAG, find_worse, hand_in, run_night
from rich.console import Console
from stack.failures import NightError, StackError
from stack.hosts import EXECUTORS
from stack.keys import ADMIN
from stack.launcher import running_stack
from stack.places import Places
from stack.progress import Progress
from stack.stopping import StopRequestedError, stop_on_signals

from easeml_core.errors import EasemlError
from easeml_core.services.reports.overview import overview
from easeml_core.store.database import Store

if TYPE_CHECKING:
    from collections.abc import Callable

    from stack.launcher import Access

WIDTH = 150
USUAL = {"trials_per_round": 6}
"""The same night on every machine: the DAG suggests more where there are more processors."""


def run(access: Access, check: Callable[[], None], progress: Progress, conf: dict[str, Any]) -> Report:
    """Do the demo on a stack that is up; ``conf`` is what the night's trigger form would give.

    Raises:
        NightError: If something did not go as it should.
    """
    began = time.monotonic()
    store, rest = Store(access.worker_url), access.rest()
    register_missing(store, rest, progress, check)
    before = ended_trials(trials_of_all(store))
    night = run_night(rest, progress, check, conf or USUAL)
    require_nothing_repeated(before, night.suggested, trials_of_all(store))
    if night.number == 1 and not conf and not any(release.promoted for release in night.released):
        message = "the first night promoted no model, though at least one should pass its gate honestly"
        raise NightError(message)
    tenants = overview(store).tenants
    worse, rejection = None, None
    if rest.count_runs(GATE_DAG) == 0 and (worse := find_worse(store)) is not None:
        rejection = hand_in(rest, worse, progress, check)
    return Report(night, tenants, worse, rejection, time.monotonic() - began, access.url)


def where_to_look(report: Report, access: Access, stays: bool, console: Console, executor: str | None) -> None:
    """Say where a person can see the same in Airflow."""
    with_executor = f" EXECUTOR={executor}" if executor else ""
    console.print()
    if not stays:
        console.print(
            f"The stack of this demo is stopped again. To look around: [b]make up{with_executor}[/], then make down."
        )
    console.print(f"  the tenants    {report.url}/plugin/easeml")
    console.print(f"  this night     {report.url}/dags/{NIGHT_DAG}/runs/{report.night.run_id}", soft_wrap=True)
    console.print(f"  a rejection    {report.url}/dags/{GATE_DAG}")
    console.print(f"  user           {ADMIN}, password {access.keys.admin_password}", markup=False)


@click.command(help=__doc__)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON; everything else goes to stderr.")
@click.option("--trials-per-round", type=click.IntRange(1, 256), help="Instead of six.")
@click.option("--home", type=click.Path(path_type=Path), help="The state folder; .easeml of the repository by default.")
@click.option("--executor", type=click.Choice(EXECUTORS), help="Where tasks run; celery: on separate hosts.")
@click.option("--dags", type=click.Path(path_type=Path, exists=True), hidden=True, help="Another folder of DAGs.")
def main(
    as_json: bool, trials_per_round: int | None, home: Path | None, executor: str | None, dags: Path | None
) -> None:
    """Run the demo."""
    conf = {} if trials_per_round is None else {"trials_per_round": trials_per_round}
    console = make_console(as_json)
    stop_on_signals()
    try:
        with contextlib.ExitStack() as held:
            access, check, stays = held.enter_context(running_stack(Places.of(home, dags), Progress(console), executor))
            report = run(access, check, Progress(console), conf)
    except StopRequestedError as asked:
        console.print(str(asked))
        sys.exit(128 + asked.number)
    except (StackError, EasemlError) as error:
        console.print("The demo failed.", style="red")
        console.print(str(error), style="red", markup=False, soft_wrap=True)
        sys.exit(1)
    print_report(report, console)
    where_to_look(report, access, stays, console, executor)
    console.print(f"Done in {report.seconds:.0f} s.")
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=2))


def make_console(as_json: bool) -> Console:
    """Return a console that is wide enough for the table where its output is no terminal."""
    width = None if sys.stdout.isatty() else WIDTH
    return Console(highlight=False, stderr=as_json, width=width)


if __name__ == "__main__":
    main()
