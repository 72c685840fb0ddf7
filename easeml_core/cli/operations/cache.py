"""``easeml cache``: the cache of remote files on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from easeml_core.cli.output import example, json_option, show_json, show_table
from easeml_core.encoding import typed_record
from easeml_core.errors import counted

if TYPE_CHECKING:
    from collections.abc import Callable


def folder_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--folder``."""
    return click.option(
        "--folder",
        type=click.Path(file_okay=False, path_type=Path),
        envvar="EASEML_CACHE",
        show_envvar=True,
        help="Folder of the cache; default: easeml in the account's folder for caches.",
    )(command)


@click.group(epilog=example("easeml cache show"))
def cache() -> None:
    """The cache of this machine: remote artifacts and url: sources, fetched once."""


@typed_record
class Cleared:
    """The answer of ``easeml cache clear``: number and size of the entries that were removed."""

    removed: int
    megabytes: float


@cache.command(epilog=example("easeml cache show --json"))
@folder_option
@json_option
def show(folder: Path | None, as_json: bool) -> None:
    """Show size, limit (EASEML_CACHE_LIMIT_MB), entries, the longest unused first, hits and bandwidth."""
    from easeml_core.remote.cache import FileCache

    found = FileCache(folder)
    contents = found.report()
    if as_json:
        show_json(contents)
        return
    click.echo(f"{contents.folder}: {contents.megabytes:,.1f} of {contents.limit_megabytes:,.0f} MB")
    columns = {"Entry": "key", "MB": "megabytes", "Used": "used", "State": "state"}
    show_table("Entries", columns, contents.entries)
    click.echo(str(contents.traffic))


@cache.command(epilog=example("easeml cache clear --folder /var/cache/easeml"))
@folder_option
@json_option
def clear(folder: Path | None, as_json: bool) -> None:
    """Remove every entry that no process uses; what is needed again is fetched again."""
    from easeml_core.remote.cache import FileCache

    removed = FileCache(folder).clear()
    done = Cleared(len(removed), sum(entry.size for entry in removed) / 1e6)
    text = f"{counted(done.removed, 'entry', 'entries')} removed, {done.megabytes:,.1f} MB"
    show_json(done) if as_json else click.echo(text)
