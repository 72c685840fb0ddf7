"""``easeml referee``, which holds the sealed sets and answers requests, and ``easeml service``: units of systemd."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
from datetime import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from easeml_core.cli.connection import (
    HOME,
    REFEREE,
    installation_options,
    open_artifacts,
    open_store,
)
from easeml_core.cli.operations.evidence import keys_option
from easeml_core.cli.output import example, json_option, process_options, show_json
from easeml_core.errors import ConfigError, counted
from easeml_core.formats.encoding import typed_record

if TYPE_CHECKING:
    from easeml_core.services.operations.units import Machine
    from easeml_core.services.referee.process import Duties
    from easeml_core.services.referee.publishing import Timetable


OLDEST_KNOWN = 252
"""The systemd of Debian 12, for which units are written where the machine has none."""

AUDIT_SHARE = 0.05
"""Of the referee's time, for checks of the audit's chain before answers."""


@typed_record
class AnsweredRequests:
    """The answer of ``easeml referee --once``: the number of requests that were answered."""

    answered: int


@click.command(
    epilog=example(
        "easeml referee", "easeml referee --once", "easeml referee --data /srv/easeml/data --answer-hour 06:00"
    ),
)
@click.option("--once", is_flag=True, help="Answer the requests there are, then stop.")
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    show_default="the cores of this machine",
    help="How many requests are decided at a time, and models run. Any number of referees share the requests.",
)
@click.option("--poll", default=10.0, show_default=True, help="Seconds between two looks when nothing is notified.")
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    default=HOME / "data",
    show_default=True,
    help="Folder whose subfolder TENANT holds that tenant's files; no other file is read.",
)
@click.option(
    "--allow-url",
    "prefixes",
    metavar="PREFIX",
    multiple=True,
    help="Studies may read url: sources under it, e.g. s3://tables/{tenant}/; default: none. Repeatable.",
)
@click.option(
    "--queries",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="YAML file of the queries that sql: sources may name; default: none.",
)
@click.option(
    "--answer-delay",
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="Answers of gate and meter leave so long after the question, or at the next multiple: the time tells nothing. "
    "0: at once, and the time of an answer can tell more than the answer.",
)
@click.option("--answer-hour", metavar="HH:MM", help="They leave daily at this time (UTC) instead.")
@click.option(
    "--put-offs",
    type=click.IntRange(0, 20),
    default=8,
    show_default=True,
    help="How often a request is put off at most whose model is killed, or runs out of time or memory.",
)
@click.option(
    "--check-share",
    type=click.FloatRange(0, 1),
    default=0.02,
    show_default=True,
    help="Probability with which the result of a trial is measured anew while nothing else is to do; 0: never.",
)
@click.option(
    "--orphan-days",
    type=click.FloatRange(0, 36_500),
    default=30.0,
    show_default=True,
    help="A file that no row names is removed once nothing has written it for so long, at least a day; 0: never.",
)
@click.option(
    "--keep-models",
    type=click.IntRange(1, 10**6),
    metavar="K",
    help="Only the best K models of each study keep their files, beside those that were judged, in production or "
    "submitted; default: all.",
)
@click.option(
    "--keep-days",
    type=click.FloatRange(1, 36_500),
    default=30.0,
    show_default=True,
    help="With --keep-models: age in days from which on the others lose them.",
)
@click.option(
    "--curve-days",
    type=click.FloatRange(0, 36_500),
    default=0.0,
    show_default=True,
    help="Learning curves of archived studies, and on earlier training data, are removed after so long; 0: never.",
)
@click.option("--smtp", metavar="HOST:PORT", help="Mail server for withheld verdicts and alerts; default: no mail.")
@click.option("--mail-from", default="easeml@localhost", show_default=True, help="Address that mail comes from.")
@click.option("--allow-forced", is_flag=True, help="Tasks may ask for promotions without a verdict.")
@click.option(
    "--bundle",
    "bundles",
    metavar="NAME=PATH",
    multiple=True,
    help="Git repository of an Airflow bundle: its tag easeml/production/STUDY follows production. Repeatable.",
)
@process_options("extends its lease")
@keys_option
@installation_options
def referee(
    once: bool,
    health_port: int | None,
    metrics_port: int | None,
    log_format: str,
    artifacts: str | None,
    database: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Answer requests: seal data, judge submissions, read the meter, move the production pointer.

    Its decisions go into hash chains that it signs with this host's key (--keys), which its first start makes.

    The address is that of the role easeml_referee; give it to no component of Airflow but the API server, in its own
    environment.
    """
    from easeml_core.sandbox.child_start import own_fork_server
    from easeml_core.sandbox.isolation import Sandbox, probe_isolation
    from easeml_core.services.operations.monitoring import (
        answering,
        exporting,
        health_of,
        installation_figures,
        metrics_of,
    )
    from easeml_core.services.referee.process import Referee
    from easeml_core.services.telemetry import start_log

    start_log(as_json=log_format == "json")
    options["workers"] = options["workers"] or len(os.sched_getaffinity(0))
    # Each worker holds a request with one connection and notes its attempt with another; the last are of other threads.
    store = open_store(database, role=REFEREE, lock_timeout_seconds=5, connections=2 * (options["workers"] + 1) + 4)
    worker = Referee(store, open_artifacts(artifacts, store), _duties(**options))
    if once:
        with own_fork_server():
            answered = worker.run_once()
        show_json(AnsweredRequests(answered)) if as_json else click.echo(f"{counted(answered, 'request')} answered")
        return
    stop = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: _end(stop))
    log = logging.getLogger(__name__)
    if options["smtp"] is None:
        log.info("no mail is sent, since --smtp names no server; it is kept until a referee with one is started")
    with (
        own_fork_server(),
        exporting(
            "easeml-referee", look=lambda: installation_figures(store), for_prometheus=metrics_port is not None
        ) as metrics,
        answering("health-port", health_port, health_of(lambda: worker.is_alive)),
        answering("metrics-port", metrics_port, metrics_of(metrics)),
    ):
        log.info("models run in a child; %s", probe_isolation(Sandbox()))
        worker.run(stop)


def _end(stop: threading.Event) -> None:
    """Ask the loop to end; written to the file itself, since a signal may come in the middle of a line of the log."""
    if not stop.is_set():
        os.write(2, b"stopping; a request that is being answered is answered first\n")
    stop.set()


def _duties(
    *,
    workers: int,
    poll: float,
    data: Path,
    prefixes: tuple[str, ...],
    queries: Path | None,
    answer_delay: float,
    answer_hour: str | None,
    put_offs: int,
    check_share: float,
    orphan_days: float,
    keep_models: int | None,
    keep_days: float,
    curve_days: float,
    smtp: str | None,
    mail_from: str,
    allow_forced: bool,
    bundles: tuple[str, ...],
    keys: Path,
) -> Duties:
    from easeml_core.files.urls import parse_prefix
    from easeml_core.services.datasets.access import read_queries
    from easeml_core.services.referee.process import Duties
    from easeml_core.services.referee.publishing import MailServer
    from easeml_core.services.reports.assessments import shorten_log

    return Duties(
        data=data,
        prefixes=tuple(parse_prefix(prefix) for prefix in prefixes),
        queries={} if queries is None else read_queries(queries),
        timetable=_timetable(answer_delay, answer_hour),
        allow_forced=allow_forced,
        mail=None if smtp is None else MailServer.parse(smtp, mail_from),
        repositories=_repositories(bundles),
        put_offs=put_offs,
        keys=keys,
        audit_share=AUDIT_SHARE,
        check_share=check_share,
        orphan_days=max(1.0, orphan_days) if orphan_days else 0.0,
        keep_models=keep_models,
        keep_days=keep_days,
        curve_days=max(1.0, curve_days) if curve_days else 0.0,
        workers=workers,
        poll_seconds=poll,
        upkeep=shorten_log,
    )


def _repositories(bundles: tuple[str, ...]) -> dict[str, Path]:
    """Return the repositories of the bundles; one that cannot be read is found at the start, not after a promotion."""
    from easeml_core.services.models.dag_bundles import parse_repositories, require_repository

    found = parse_repositories(bundles)
    for path in found.values():
        require_repository(path)
    return found


def _timetable(delay: float, hour: str | None) -> Timetable:
    """Return the timetable; an hour of the day replaces the delay, unless that was given too."""
    from easeml_core.services.referee.publishing import Timetable

    if hour is None:
        return Timetable(delay)
    given = click.get_current_context().get_parameter_source("answer_delay") is not ParameterSource.DEFAULT
    return Timetable(delay if given else 0.0, _hour(hour))


def _hour(given: str) -> time:
    option = "answer-hour"
    try:
        return time.fromisoformat(given)
    except ValueError as error:
        raise ConfigError(option, given, "HH:MM, from 00:00 to 23:59 (UTC)") from error


@click.group(epilog=example("easeml service install --print"))
def service() -> None:
    """Services of systemd: referee, scheduler, devices, the mirror in MLflow."""


@typed_record
class WrittenUnit:
    """One unit of the answer of ``easeml service install``.

    Attributes:
        name: File name.
        path: Where it lies, or would lie with ``--print``.
        text: Its content.
        credential: File that must hold the address of the database before the service starts; of root, mode 0600.
        role: Which role of the database that address names.
        written: Whether the file was written now; one that is as it should be is left alone.
        start: With which name it is enabled.
    """

    name: str
    path: str
    text: str
    credential: str
    role: str
    written: bool
    start: str


@service.command(
    epilog=example(
        "easeml service install --print",
        "easeml service install referee --artifacts /var/lib/easeml/artifacts --data /srv/easeml/data",
        "easeml service install device --user",
    )
)
@click.argument("names", nargs=-1, type=click.Choice(("referee", "scheduler", "device", "announce", "mlflow")))
@click.option("--print", "only_print", is_flag=True, help="Print the units; write nothing.")
@click.option("--user", "is_user", is_flag=True, help="For your own service manager (systemctl --user).")
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path), help="Where units lie; default: systemd's.")
@click.option("--account", help="Account of the services; default: easeml-NAME, a separate one for each.")
@click.option(
    "--secrets",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of NAME.url, the address of the database, and NAME.env; default: /etc/easeml or ~/.config/easeml.",
)
@click.option("--artifacts", default="", metavar="PLACE", help="As of `easeml referee` and `easeml device run`.")
@click.option("--data", default="", metavar="FOLDER", help="As of `easeml referee`.")
@click.option("--systemd", type=click.IntRange(232), help="Its major version; default: that of this machine, else 252.")
@click.option("--replace", is_flag=True, help="Replace a unit that another hand wrote.")
@json_option
def install(
    names: tuple[str, ...], *, only_print: bool, is_user: bool, folder: Path | None, replace: bool, as_json: bool,
    **given: Any,
) -> None:  # fmt: skip
    """Write units of systemd that start our long-running processes again, whatever ends them.

    NAMES are `referee`, `scheduler`, `device` (a template, an instance for each slot: easeml-device@cuda:0), `announce`
    and `mlflow`; default: the referee and a device. Nothing is started, and no unit holds a password.
    """
    from easeml_core.services.operations import units

    chosen = [each for each in units.SERVICES if each.name in (names or ("referee", "device"))]
    made = [units.make_unit(each, _machine(is_user=is_user, **given)) for each in chosen]
    folder = (folder or _unit_folder(is_user)).absolute()
    written = [] if only_print else units.install(made, folder, replace=replace)
    answer = [
        WrittenUnit(
            unit.name, str(folder / unit.name), unit.text, str(unit.needs), each.role, folder / unit.name in written,
            unit.start,
        )
        for each, unit in zip(chosen, made, strict=True)
    ]  # fmt: skip
    if as_json:
        show_json(answer)
        return
    for unit in answer:
        if only_print:
            click.echo(f"# {unit.path}\n{unit.text}")
        else:
            click.echo(f"{unit.path}: {'written' if unit.written else 'is as it should be'}")
    if not only_print:
        _tell_next(answer, is_user=is_user)


def _machine(
    *, is_user: bool, account: str | None, secrets: Path | None, artifacts: str, data: str, systemd: int | None
) -> Machine:
    from easeml_core.services.operations.units import Machine

    if is_user and account:
        message = "--account is not for --user: your own service manager runs under your account"
        raise click.UsageError(message)
    program = Path(sys.executable).with_name("easeml")
    words = (str(program),) if program.exists() else (sys.executable, "-m", "easeml_core.cli")
    return Machine(
        program=words,
        systemd=systemd or _systemd_version() or OLDEST_KNOWN,
        is_user=is_user,
        account=account or "",
        secrets=(secrets or configuration_folder(is_user) / "easeml").absolute(),
        artifacts=artifacts,
        data=str(Path(data).absolute()) if data else "",
    )


def _unit_folder(is_user: bool) -> Path:
    return configuration_folder(is_user) / "systemd" / ("user" if is_user else "system")


def configuration_folder(is_user: bool) -> Path:
    """Return where settings of programs are: of the caller, or of the machine."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") if is_user else Path("/etc")


def _systemd_version() -> int | None:
    """Return the major version of this machine's systemd; None where there is none."""
    program = shutil.which("systemctl")
    if program is None:
        return None
    done = subprocess.run((program, "--version"), capture_output=True, text=True, check=False)
    words = done.stdout.split()
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else None


def _tell_next(answer: list[WrittenUnit], *, is_user: bool) -> None:
    systemctl = "systemctl --user" if is_user else "systemctl"
    for unit in answer:
        click.echo(f"{unit.credential}: put the address of the role {unit.role} there, mode 0600")
    click.echo(f"then: {systemctl} daemon-reload && {systemctl} enable --now {' '.join(u.start for u in answer)}")
