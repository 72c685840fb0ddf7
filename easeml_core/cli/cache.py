"""``easeml cache``: what this account keeps on this machine of files that lie elsewhere."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from easeml_core.cli.output import example, json_option, show_json, show_table
from easeml_core.errors import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from easeml_core.remote.cache import FileCache


def folder_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--folder``."""
    return click.option(
        "--folder",
        type=click.Path(file_okay=False, path_type=Path),
        envvar="EASEML_CACHE",
        show_envvar=True,
        help="Folder of the cache; default: easeml in the account's folder for caches.",
    )(command)


@click.group(epilog=example("easeml cache show"))
def cache() -> None:
    """The cache of this machine: artifacts at an address and url: sources, brought here once."""


@cache.command(epilog=example("easeml cache show --json"))
@folder_option
@json_option
def show(folder: Path | None, as_json: bool) -> None:
    """Show size, limit (EASEML_CACHE_LIMIT_MB) and entries, the longest unused first."""
    from easeml_core.remote.cache import FileCache

    found = FileCache(folder)
    told = _told(found)
    if as_json:
        show_json(told)
        return
    click.echo(f"{found.folder}: {told['megabytes']:,.1f} of {told['limit_megabytes']:,.0f} MB")
    columns = {"Entry": "key", "MB": "megabytes", "Used": "used", "State": "state"}
    show_table("Entries", columns, told["entries"])


@cache.command(epilog=example("easeml cache clear --folder /var/cache/easeml"))
@folder_option
@json_option
def clear(folder: Path | None, as_json: bool) -> None:
    """Remove every entry that no process uses; what is needed again is fetched again."""
    from easeml_core.remote.cache import FileCache

    removed = FileCache(folder).clear()
    told = {"removed": len(removed), "megabytes": sum(entry.size for entry in removed) / 1e6}
    text = f"{counted(len(removed), 'entry', 'entries')} removed, {told['megabytes']:,.1f} MB"
    show_json(told) if as_json else click.echo(text)


def _told(found: FileCache) -> dict[str, Any]:
    entries = found.entries()
    return {
        "folder": str(found.folder),
        "megabytes": sum(entry.size for entry in entries) / 1e6,
        "limit_megabytes": found.limit / 1e6,
        "entries": [
            {
                "key": entry.path.name.partition(".")[0],
                "megabytes": entry.size / 1e6,
                "used": datetime.fromtimestamp(entry.used, UTC).isoformat(timespec="seconds"),
                "state": ("in use" if found.is_used(entry) else "whole") if entry.is_whole else "unfinished",
            }
            for entry in entries
        ],
    }
