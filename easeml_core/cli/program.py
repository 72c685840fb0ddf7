"""``easeml program``: check a program, infer one from data, find the candidates it calls for. Needs no database."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from easeml_core.cli.output import example, json_option, plain, show_json, show_table
from easeml_core.errors import InvalidInputError, ProgramError, reason_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from easeml_core.programs.data_type import DataType
    from easeml_core.programs.schema import Schema
    from easeml_core.programs.templates import Matched

_FILE = click.argument("file", type=click.Path(path_type=Path))


@click.group(epilog=example("easeml program match images.txt"))
def program() -> None:
    """Programs: what goes in, what comes out, and which candidates that calls for."""


@program.command(epilog=example("easeml program check images.txt"))
@_FILE
@json_option
def check(file: Path, as_json: bool) -> None:
    """Read the program in FILE, or one side of one, and print its canonical form."""
    from easeml_core.programs.data_type import Program
    from easeml_core.programs.language import is_schema_text, parse_any

    text = read_program(file)
    with _named(file):
        found = parse_any(text)
    if as_json:
        form = "schema" if is_schema_text(text) else "paper"
        show_json({"what": "program" if isinstance(found, Program) else "side", "form": form, "canonical": str(found)})
    else:
        click.echo(str(found))


@program.command(epilog=example("easeml program infer prices.csv --target price > prices.txt"))
@click.argument("file", metavar="PATH", type=click.Path(path_type=Path))
@click.option(
    "--target",
    metavar="COLUMN",
    help="What to predict, or COLUMN>NUMBER. [default: target, label, class or y, else the last column]",
)
@click.option(
    "--task",
    type=click.Choice(("classification", "regression")),
    help="What the target is. [default: what it looks like]",
)
@click.option("--split", metavar="HOW", help="rows (default), group:COLUMN or time:COLUMN: how rows will be divided.")
@click.option("--id", "id_column", metavar="COLUMN", help="Of series, which one a line belongs to. [default: id]")
@click.option("--step", "step_column", metavar="COLUMN", help="Of series, when. [default: step]")
@json_option
def infer(file: Path, as_json: bool, **asked: str | None) -> None:
    """Print the program of the data in PATH: a table, series, a folder of images by class, or arrays.

    What decided is said in comments. The text can be edited, and read by check and match; a study of the same data
    has this program where none is given.
    """
    from easeml_core.cli.reading_progress import reading
    from easeml_core.data.inference.infer import infer_program

    with reading() as report:
        found = infer_program(file, **asked, report=report)
    if as_json:
        show_json(found.as_mapping())
    else:
        click.echo(found.text)


@program.command(epilog=example("easeml program match table.yml --targets numbers"))
@_FILE
@click.option(
    "--targets",
    type=click.Choice(("one-hot", "numbers", "several")),
    help="What the rows of the target are, once there are data. [default: not known]",
)
@click.option(
    "--module",
    type=click.Path(path_type=Path),
    help="Instead of the templates: a file with what a module takes, to match against FILE.",
)
@json_option
@click.pass_context
def match(context: click.Context, file: Path, targets: str | None, module: Path | None, as_json: bool) -> None:
    """Find the template of the program in FILE, its candidates, and why the rows above did not match.

    Exit status 1 if nothing matches.
    """
    if module is not None and targets is not None:
        message = "--targets is about templates; leave it out with --module"
        raise InvalidInputError(message)
    done = _match_templates(file, targets, as_json) if module is None else _match_module(file, module, as_json)
    if not done:
        context.exit(1)


def _match_templates(file: Path, targets: str | None, as_json: bool) -> bool:
    from easeml_core.programs.language import parse_program
    from easeml_core.programs.templates import match_program

    with _named(file):
        data = parse_program(read_program(file))
    found = match_program(data, targets=targets)
    if as_json:
        show_json(_as_json(found))
    else:
        _show(found)
    return found.template is not None


def _as_json(found: Matched) -> dict[str, Any]:
    row = found.template
    return {
        "template": None if row is None else {"name": row.name, "input": row.input, "output": row.output},
        "workloads": [
            {"name": w.name, "targets": w.targets or None, "candidates": list(w.candidates)} for w in found.workloads
        ],
        "mapping": dict(found.mapping),
        "rejected": [{"template": name, "why": why} for name, why in found.rejected],
    }


def _show(found: Matched) -> None:
    """The answer for people."""
    if found.template is None:
        click.echo("no template matches")
    else:
        click.echo(f"template {plain(found.template.name)}: {found.template.input} -> {found.template.output}")
        if found.mapping:
            click.echo("with " + ", ".join(f"{name} = {_value(value)}" for name, value in found.mapping.items()))
    for workload in found.workloads:
        condition = f", if the rows of the target are {workload.targets}" if len(found.workloads) > 1 else ""
        click.echo(f"\n{plain(workload.name)}{condition}:")
        for candidate in workload.candidates:
            click.echo(f"  {plain(candidate)}")
    if found.rejected:
        click.echo("")
        rows = [{"template": name, "why": why} for name, why in found.rejected]
        show_table("Rows above that did not match", {"Template": "template", "Why": "why"}, rows)


def _match_module(file: Path, module: Path, as_json: bool) -> bool:
    """Match one side, or both, against those of a module."""
    from easeml_core.programs.forms import as_schema
    from easeml_core.programs.schema_match import Match, match_schema

    wanted, given = _sides(module), _sides(file)
    if wanted.keys() != given.keys():
        whole, side = (module, file) if "input" in wanted else (file, module)
        message = f"{whole} has input and output, {side} one side alone; both must be of one kind"
        raise InvalidInputError(message)
    answers = {word: match_schema(as_schema(wanted[word]), as_schema(given[word])) for word in wanted}
    found: dict[str, Any] = {}
    for word, answer in answers.items():
        if isinstance(answer, Match):
            names = ("nodes", "fields", "classes", "dims")
            found[word] = {"matches": True} | {name: dict(getattr(answer, name)) for name in names}
        else:
            found[word] = {"matches": False, "why": answer.reason}
    if as_json:
        show_json(found)
    else:
        for word, facts in found.items():
            click.echo(f"{word}: {'matches' if facts['matches'] else 'does not match: ' + facts['why']}")
            for name in ("nodes", "fields", "classes", "dims"):
                for key, value in facts.get(name, {}).items():
                    click.echo(f"  {name}: {key} = {value}")
    return all(facts["matches"] for facts in found.values())


def _sides(path: Path) -> dict[str, DataType | Schema]:
    """What the file holds: both sides of a program, or one alone."""
    from easeml_core.programs.data_type import Program
    from easeml_core.programs.language import parse_any

    with _named(path):
        found = parse_any(read_program(path))
    return {"input": found.input, "output": found.output} if isinstance(found, Program) else {"side": found}


def _value(value: object) -> str:
    """A size, a name, or the sizes in a repeated field; of many the first."""
    if not isinstance(value, tuple):
        return str(value)
    shown = [str(size) for size in value[:8]]
    return f"({', '.join(shown)}{', ...' if len(value) > len(shown) else ''})"


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Tell a mistake with the file that it stands in."""
    try:
        yield
    except ProgramError as error:
        raise error.in_file(plain(str(path))) from error


def read_program(path: Path) -> str:
    """The text of a program's file; InvalidInputError if it cannot be read."""
    from easeml_core.programs.bounds import MAX_LENGTH

    try:
        with path.open(encoding="utf-8") as file:
            return file.read(MAX_LENGTH + 1)
    except (OSError, UnicodeDecodeError) as error:
        message = f"{path} cannot be read: {reason_of(error)}"
        raise InvalidInputError(message) from error
