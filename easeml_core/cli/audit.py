"""``easeml audit``: who did what, when and with which reason."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from easeml_core.cli.connection import database_option, open_store
from easeml_core.cli.evidence import verify
from easeml_core.cli.output import example, json_option, show_json, show_table


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
@database_option
@json_option
def audit(
    study: str | None, since: datetime | None, only: str | None, database: str | None, as_json: bool, **given: Any
) -> None:
    """Say who did what, when and with which reason: of STUDY, or of the whole installation.

    Promotions and forced ones, rollbacks, sealed sets, limits, the policy, studies, candidates, alerts, pairs that were
    fed and switched. Say your own reason with `easeml --reason TEXT COMMAND`.

    `easeml audit verify` checks that nothing was changed: `easeml evidence verify --help`.
    """
    from easeml_core.services.operations import audit as service

    store, moment = open_store(database), None if since is None else since.replace(tzinfo=UTC)
    if study is not None:
        _must_be(store, study)
    found = service.audit(store, study=study, since=moment, group=only, who=given["who"], limit=given["limit"])
    if as_json:
        show_json(found["events"])
    elif given["as_csv"]:
        click.echo(service.as_csv(found["events"]), nl=False)
    elif not found["events"]:
        click.echo("nothing of the kind has been done")
    else:
        columns = {"When (UTC)": "when", "What": "what", "Where": "where", "Who": "who", "How": "door", "Why": "reason"}
        show_table(f"Audit, {len(found['events'])} of {found['total']:,}", columns, [_row(e) for e in found["events"]])


def _must_be(store: Any, study: str) -> None:
    """A name that is no study's would look like a study of which nothing is known."""
    from easeml_core.store.tables.studies import get_study

    with store.begin() as tx:
        get_study(tx, study)


def _row(event: dict[str, Any]) -> dict[str, Any]:
    where = "/".join(filter(None, [event["tenant"], event["study"]]))
    what = f"{event['title']}: {event['detail']}" if event["detail"] else event["title"]
    return event | {"when": f"{event['at']:%Y-%m-%d %H:%M}", "what": what, "where": where or "installation"}
