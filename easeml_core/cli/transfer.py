"""``easeml export`` and ``easeml import``: a study's open facts as one file, and a new study from such a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from easeml_core.cli.answers import wait_for_answer
from easeml_core.cli.connection import artifacts_option, database_option, open_artifacts, open_store
from easeml_core.cli.names import STUDY
from easeml_core.cli.output import example, json_option, plain, show_json
from easeml_core.cli.studies import NO_REFEREE
from easeml_core.errors import counted

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("export", epilog=example("easeml export flowers flowers.zip", "easeml export flowers f.zip --data"))
@click.argument("study", type=STUDY)
@click.argument("file", type=_FILE)
@click.option("--data", "with_data", is_flag=True, help="Take the open rows (training, validation) along.")
@artifacts_option
@database_option
@json_option
def export(study: str, file: Path, with_data: bool, artifacts: str | None, database: str | None, as_json: bool) -> None:
    """Write the open facts of STUDY to FILE, a zip of JSON lines: definition, candidates, trials, curves, symbols.

    Nothing sealed is in it, and no trained model. The same facts give the same bytes.
    """
    from easeml_core.services.exporting import export_study

    store = open_store(database)
    told = export_study(store, open_artifacts(artifacts, store), study=study, path=file, with_data=with_data)
    if as_json:
        show_json(told)
        return
    parts = ["the definition", *_rows(told["rows"]), counted(told["files"], "artifact")]
    click.echo(f"{file}: {', '.join(parts)}; {told['bytes']:,} bytes")


@click.command(
    "import",
    epilog=example(
        "easeml import flowers.zip --check",
        "easeml import flowers.zip --study flowers-again --source csv:flowers.csv",
    ),
)
@click.argument("file", type=_FILE)
@click.option("--study", metavar="NAME", help="Name of the new study; default: the old one's.")
@click.option("--tenant", help="Whose study it is; default: as it was.")
@click.option("--source", help="Where its data comes from here; default: as it was.")
@click.option("--check", is_flag=True, help="Only check FILE, and show what is in it; needs no database.")
@click.option("--request-key", help="Makes the call repeatable; default: it follows from FILE and the name.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait for the referee's answer.")
@click.option("--timeout", default=300.0, show_default=True, help="Seconds to wait at most.")
@artifacts_option
@database_option
@json_option
@click.pass_context
def import_(
    context: click.Context, /, file: Path, check: bool, wait: bool, timeout: float, artifacts: str | None,
    database: str | None, as_json: bool, **asked: Any,
) -> None:  # fmt: skip
    """Register a new study as FILE defines it; its data is read, split and sealed anew by the referee.

    Old results stay in FILE: they were measured on other rows than the new study's.

    Exit status: 0 registered, 1 refused by the referee (unless --no-wait), 2 any error.
    """
    if check:
        _show_content(file, as_json)
        return
    from easeml_core.services.importing import import_study

    store = open_store(database)
    changes = {name: asked[name] for name in ("tenant", "source")}
    key = asked["request_key"]
    kept = open_artifacts(artifacts, store)
    filed = import_study(store, kept, path=file, study=asked["study"], request_key=key, changes=changes)
    if wait:
        click.echo(f"request {filed['request_id']} waits for the referee, at most {timeout:g} s", err=True)
    answer = wait_for_answer(store, filed["request_id"], timeout, NO_REFEREE) if wait else None
    if as_json:
        show_json(filed | {"answer": answer})
    else:
        later = f"registered; the referee's answer is request {filed['request_id']}"
        click.echo(plain(answer["message"]) if answer else later)
    context.exit(1 if answer and answer["refused"] else 0)


def _show_content(file: Path, as_json: bool) -> None:
    from easeml_core.services.importing import look_into

    found = look_into(file)
    if as_json:
        show_json(found)
        return
    click.echo(f"study {plain(found['study'])}, whole and unchanged")
    for name, value in found["definition"].items():
        if value is not None:
            click.echo(f"{name:>16}  {plain(str(value))}")
    rows = ", ".join(_rows(found["rows"])) or "none"
    click.echo(f"{'rows':>16}  {rows}\n{'artifacts':>16}  {len(found['artifacts'])}")


def _rows(counts: dict[str, int]) -> list[str]:
    """How many there are of each kind that there is any of."""
    singular = {table: table[:-1].replace("_", " ") for table in counts} | {"curves": "curve point"}
    return [counted(count, singular[table]) for table, count in counts.items() if count]
