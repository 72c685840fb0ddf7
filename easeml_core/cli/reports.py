"""``easeml status``, ``next``, ``alerts``, ``audit``, ``metrics``: state, next steps, alerts, history and figures."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from easeml_core.cli.connection import STUDY, asked_to_end, open_store, store_options
from easeml_core.cli.operations.evidence import verify
from easeml_core.cli.output import example, plain, print_table, show_json, show_table
from easeml_core.formats.encoding import row_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from easeml_core.cli.output import Columns
    from easeml_core.services.reports.audit import AuditEvent
    from easeml_core.services.reports.next_steps import NextStep
    from easeml_core.services.reports.overview import StudyEntry
    from easeml_core.store.tables.releases import Alert


@click.command(epilog=example("easeml status"))
@store_options
def status(database: str | None, as_json: bool) -> None:
    """Show every study: quality, trials, verdict, signal, model in production, and what to do next.

    With the address of the role easeml_referee it also lists requests that are postponed for a fault of the machine.
    """
    from easeml_core.services.evaluation.backoff import list_put_off, sentence
    from easeml_core.services.referee.place_in_queue import no_referee
    from easeml_core.services.reports.overview import overview

    store = open_store(database)
    found, put_off = overview(store), list_put_off(store)
    dead = no_referee(store)
    if as_json:
        show_json(row_of(found) | ({} if put_off is None else {"put_off": put_off}))
        return
    if dead:
        click.echo(dead)
    if not found.tenants:
        click.echo("no studies yet; register one with `easeml study register` or the DAG easeml_register_study")
        return
    show_table(f"Policy: {found.policy or 'none yet'}", COLUMNS, found.tenants)
    for entry in found.tenants:
        click.echo(plain("\n".join(_lines(entry))))
    for one in put_off or ():
        click.echo(plain(sentence(one)))


def _lines(entry: StudyEntry) -> list[str]:
    """Return what does not fit into the table, and the next step."""
    number = entry.production_model_id
    submitted = None if number is None else f"model {number}"  # it has no candidate
    known = {"best": entry.best_candidate, "in production": entry.production_candidate or submitted}
    words = [f"{what} {name}" for what, name in known.items() if name]
    if entry.drift is not None:
        words.append(f"second signal {entry.direct_signal} of {entry.signals} (drift: {entry.drift})")
    return [
        f"{entry.study}: {', '.join([*words, f'{_device_seconds(entry)} device seconds'])}",
        f"  next: {entry.next}",
    ]


def _device_seconds(entry: StudyEntry) -> str:
    """Return the used device time and its limit; the sentence on the next step names the other limits."""
    budget = "" if entry.budget_seconds is None else f" of {entry.budget_seconds:,.1f}"
    return f"{entry.device_seconds:,.1f}{budget}"


def _trials(entry: StudyEntry) -> str:
    return f"{entry.trials}/{entry.candidates}" + (f", {entry.failed} failed" if entry.failed else "")


def _signal(entry: StudyEntry) -> str | None:
    if entry.signal is not None:
        return f"{entry.signal} of {entry.signals}"
    return "by team" if (entry.teams or 1) > 1 else None  # no team may be shown another one's signals


COLUMNS: Mapping[str, str | Callable[[Any], object]] = {
    "Tenant": "tenant",
    "Study": "study",
    "State": "state",
    "Trials": _trials,
    "Best": "best_quality",
    "Gate": "verdict",
    "Signal": _signal,
}
"""Columns that fit into a terminal of 80 characters; names of candidates and sentences are below the table."""


_MARKS = {"bad": ("!!", "bold red"), "warn": ("! ", "yellow"), "info": ("  ", "dim")}


@click.command("next", epilog="\b\nExamples:\n  easeml next\n  easeml next flowers --json\n  easeml next --needs")
@click.argument("study", required=False)
@click.option("--needs", is_flag=True, help="Only what needs a person.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=1000, show_default=True, help="Steps at most.")
@store_options
def next_(study: str | None, needs: bool, limit: int, database: str | None, as_json: bool) -> None:
    """Show the next steps for STUDY, or for all studies, and why; worst first.

    "!!" and "!" need a user; the rest comes by itself. Exit status 0, also where something needs a user.
    """
    from easeml_core.services.reports.next_steps import next_steps

    only = None if study is None else [study]
    found = next_steps(open_store(database), studies_only=only, limit=limit, needs_only=needs)
    if as_json:
        show_json(found)
    elif found:
        _show(found)
    else:
        click.echo("nothing needs a person" if needs else "no studies yet; register one with `easeml study register`")


def _show(steps: list[NextStep]) -> None:
    """Print two columns in 80 characters: the subject, then title, reason and remedy below each other."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title="What next, and why", title_justify="left", header_style="bold", show_lines=True)
    table.add_column("Study", overflow="fold", max_width=24)
    table.add_column("What, why, and what to do", overflow="fold")
    for step in steps:
        mark, look = _MARKS[step.severity]
        words = Text.assemble((plain(f"{mark} {step.title}"), look), f"\n{plain(step.why)}\n")
        words.append(plain(f"-> {step.act}"))
        if step.command and step.command not in step.act:
            words.append(f"\n   {plain(step.command)}", style="cyan")
        table.add_row(Text(plain(step.study or "all studies")), words)
    print_table(table)


@click.command(epilog=example("easeml alerts flowers", "easeml alerts flowers --clear 3"))
@click.argument("study", type=STUDY)
@click.option("--clear", type=int, metavar="ID", help="Number of an open alert: it is dealt with, and listed no more.")
@click.option(
    "--team", type=int, metavar="K", help="Which team is asking, where several share a meter set: its alerts, too."
)
@store_options
def alerts(study: str, clear: int | None, team: int | None, database: str | None, as_json: bool) -> None:
    """List the open alerts of STUDY, or clear one of them.

    Where several teams share a meter set, an alert about signals is shown to the team that received them.
    """
    from easeml_core.services.meter.alerts import clear_alert, open_alerts

    store = open_store(database)
    if clear is not None:
        clear_alert(store, study=study, alert_id=clear, team=team)
        if not as_json:
            click.echo(f"alert {clear} of {study} is cleared")
    found = open_alerts(store, study=study, team=team)
    columns: Columns = {
        "Alert": "alert_id",
        "Kind": "kind",
        "Signal": _signals,
        "Model": "model_id",
        "Since": "created_at",
        "What": "message",
    }
    if as_json:
        show_json(found)
    elif found:
        show_table(f"Open alerts of {study}", columns, found)
    else:
        click.echo(f"{study} has no open alert")


def _signals(alert: Alert) -> str | None:
    """Return the signal, and that of the second meter where there is one."""
    if alert.signal is None or alert.direct_signal is None:
        return None if alert.signal is None else str(alert.signal)
    return f"{alert.signal} / {alert.direct_signal}"


class _Audit(click.Command):
    """Shows the audit; with the word ``verify`` in the study's place it checks it: ``easeml evidence verify``."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """As click does."""
        if args[:1] == ["verify"]:
            return verify.make_context(f"{info_name} verify", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)


GROUPS = ("promotions", "sets", "limits", "studies", "refused")


@click.command(
    cls=_Audit,
    epilog=example(
        "easeml audit flowers --since 2026-11-01",
        "easeml audit --only promotions --csv",
        "easeml audit verify",
    ),
)
@click.argument("study", required=False)
@click.option("--since", type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]), help="From then on, UTC.")
@click.option("--only", type=click.Choice(GROUPS), help="Acts of this kind.")
@click.option("--who", metavar="NAME", help="Acts of this person or task.")
@click.option("--limit", type=click.IntRange(1, 20_000), default=50, show_default=True, help="The newest so many.")
@click.option("--csv", "as_csv", is_flag=True, help="Print a table that other programs read.")
@store_options
def audit(
    study: str | None, since: datetime | None, only: str | None, database: str | None, as_json: bool, **given: Any
) -> None:
    """Show who did what, when and with which reason: of STUDY, or of the whole installation.

    Promotions and forced ones, rollbacks, sealed sets, limits, the policy, studies, candidates, alerts, pairs that were
    fed and switched. Give your own reason with `easeml --reason TEXT COMMAND`.

    `easeml audit verify` checks that nothing was changed: `easeml evidence verify --help`.
    """
    from easeml_core.services.reports import audit as service

    store, moment = open_store(database), None if since is None else since.replace(tzinfo=UTC)
    if study is not None:
        _must_be(store, study)
    found = service.audit(store, study=study, since=moment, group=only, who=given["who"], limit=given["limit"])
    if as_json:
        show_json(found.events)
    elif given["as_csv"]:
        click.echo(service.as_csv(found.events), nl=False)
    elif not found.events:
        click.echo("nothing of the kind has been done")
    else:
        columns: Columns = {
            "When (UTC)": lambda event: f"{event.at:%Y-%m-%d %H:%M}",
            "What": _what,
            "Where": _where,
            "Who": "who",
            "How": "door",
            "Why": "reason",
        }
        show_table(f"Audit, {len(found.events)} of {found.total:,}", columns, found.events)


def _must_be(store: Any, study: str) -> None:
    """Refuse an unknown study, which would look like one without events."""
    from easeml_core.store.tables.studies import get_study

    with store.begin() as tx:
        get_study(tx, study)


def _what(event: AuditEvent) -> str:
    return f"{event.title}: {event.detail}" if event.detail else event.title


def _where(event: AuditEvent) -> str:
    return "/".join(filter(None, [event.tenant, event.study])) or "installation"


@click.command(
    epilog=example(
        "easeml metrics",
        "easeml metrics --port 9464",
        "OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4317 easeml metrics --port 9464",
    )
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help="Answer Prometheus on this port of 127.0.0.1, GET /metrics, until interrupted; default: print them once.",
)
@store_options
def metrics(port: int | None, database: str | None, as_json: bool) -> None:
    """Print or export figures of the installation, in Prometheus' text format.

    They are sums for each tenant and each kind of request; a tenant's login gets those of its tenants. They are
    also sent to the collector of OTEL_EXPORTER_OTLP_ENDPOINT, where that is set. --json prints them as records, without
    the extra `metrics`.
    """
    from easeml_core.services.operations.monitoring import (
        answering,
        exporting,
        installation_figures,
        metrics_of,
        metrics_text,
        readings,
    )

    store = open_store(database)
    if port is None:
        if as_json:
            show_json(readings(installation_figures(store)))
        else:
            click.echo(metrics_text(store).decode(), nl=False)
        return
    stop = asked_to_end()
    with (
        exporting("easeml", look=lambda: installation_figures(store), for_prometheus=True) as text,
        answering("port", port, metrics_of(text)),
    ):
        click.echo(f"http://127.0.0.1:{port}/metrics", err=True)
        stop.wait()
