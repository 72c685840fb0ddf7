"""``easeml tenant``: list the tenants, and set what they may use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from easeml_core.cli.connection import database_option, open_store
from easeml_core.cli.output import cell, example, json_option, show_json, show_table

if TYPE_CHECKING:
    from collections.abc import Mapping


def changes_of(given: Mapping[str, Any], flags: Mapping[str, str]) -> dict[str, Any]:
    """The settings that options name: a value, or None for those that a ``--no-...`` option takes away.

    Args:
        given: Every option's value; None or False where it was not used.
        flags: The ``--no-...`` option to the setting that it takes away.

    Raises:
        UsageError: A setting is given and taken away at once, or nothing is named at all.
    """
    changes = {name: value for name, value in given.items() if value is not None and name not in flags}
    for name in (setting for flag, setting in flags.items() if given[flag]):
        if name in changes:
            message = f"--{name.replace('_', '-')} is given and taken away at once; name one of the two"
            raise click.UsageError(message)
        changes[name] = None
    if not changes:
        message = "nothing to change; name at least one option, see --help"
        raise click.UsageError(message)
    return changes


def show_settings(settings: Mapping[str, Any], as_json: bool) -> None:
    """Settings as they are now, one a line."""
    if as_json:
        show_json(settings)
        return
    for key, value in settings.items():
        click.echo(f"{key:>16}  {cell(value)}")


@click.group(epilog=example("easeml tenant list"))
def tenant() -> None:
    """Tenants: who shares the devices, and how much of them each may use."""


@tenant.command("list", epilog=example("easeml tenant list"))
@database_option
@json_option
def list_tenants(database: str | None, as_json: bool) -> None:
    """List the tenants with their limits and what they use now."""
    from easeml_core.services.studies.limits import list_tenants

    found = list_tenants(open_store(database))
    columns = {
        "Tenant": "tenant",
        "Studies": "studies",
        "Weight": "weight",
        "Open trials": "open_trials",
        "At most": "max_parallel",
        "Used s": "used_seconds",
        "Reserved s": "reserved_seconds",
        "Quota s": "quota_seconds",
    }
    show_json(found) if as_json else show_table("Tenants", columns, found)


@tenant.command("set", epilog=example("easeml tenant set garden --weight 2 --max-parallel 4"))
@click.argument("name")
@click.option("--weight", type=float, help="Share of everybody's attention, > 0; the studies' weights are times this.")
@click.option("--max-parallel", type=int, help="Open trials at once, over all its studies, >= 1.")
@click.option("--no-max-parallel", is_flag=True, help="As many as there are.")
@click.option("--quota-seconds", type=float, help="Device seconds, over all its studies, > 0.")
@click.option("--no-quota", is_flag=True, help="No limit of device seconds.")
@database_option
@json_option
def set_tenant(name: str, database: str | None, as_json: bool, **given: Any) -> None:
    """Set what a tenant may use; what is not named stays.

    A limit below what the tenant has used and reserved, or of fewer trials than it has open now, is refused.
    """
    from easeml_core.services.studies.limits import set_tenant

    changes = changes_of(given, {"no_max_parallel": "max_parallel", "no_quota": "quota_seconds"})
    show_settings(set_tenant(open_store(database), tenant=name, **changes), as_json)
