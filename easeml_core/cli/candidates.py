"""``easeml candidate`` and ``easeml program``: pack and check programs, infer and match them, add candidates."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from easeml_core.cli.connection import (
    STUDY,
    installation_options,
    mapping_of,
    open_installation,
    open_store,
    read_program,
)
from easeml_core.cli.operations.archive import CANDIDATE_COMMANDS
from easeml_core.cli.output import example, json_option, plain, show_json, show_table
from easeml_core.errors import InvalidInputError, ProgramError
from easeml_core.formats.encoding import typed_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from easeml_core.entities import Parameters
    from easeml_core.programs.data_type import DataType
    from easeml_core.programs.schema import Schema
    from easeml_core.programs.schema_match import Match, Mismatch
    from easeml_core.programs.templates import Matched
    from easeml_core.store.artifacts.local import ArtifactStore


_EXAMPLE = """\b
Examples:
  easeml candidate add flowers --program my_net/ --name net --parameters '{"layers": 2}'
  easeml candidate add flowers --program my_net/ --space space.yaml --count 20
  easeml candidate add flowers --kind random_forest --space '{"n_estimators": {".int": [50, 500]}}' --count 5
"""


@typed_record
class KeptProgram:
    """The answer of ``easeml candidate pack``: the reference of the program that was kept."""

    program: str


@typed_record
class CheckedProgram:
    """The answer of ``easeml program check``.

    Attributes:
        what: ``program``, or ``side`` for one side of one.
        form: ``schema``, or ``paper`` for the published form.
        canonical: The canonical text.
    """

    what: str
    form: str
    canonical: str


@click.group(epilog=example("easeml candidate add flowers --kind random_forest --name forest"))
def candidate() -> None:
    """Candidates: what a study may train; your own program can be one."""


for _command in CANDIDATE_COMMANDS:
    candidate.add_command(_command)


def _program_options(command: Callable[..., Any]) -> Callable[..., Any]:
    train = click.option(
        "--train", metavar="LINE", help="How it is trained: 'python train.py'; else command.json says."
    )
    answers = click.option("--command", metavar="LINE", help="How it predicts: 'python predict.py'; else likewise.")
    return train(answers(command))


@candidate.command(
    epilog=example(
        "easeml candidate pack my_net/ --tenant garden --train 'python train.py' --command 'python predict.py'"
    )
)
@click.argument("program", type=click.Path(exists=True, path_type=Path))
@_program_options
@click.option("--tenant", required=True, help="Whose studies may train it.")
@installation_options
def pack(
    program: Path, train: str | None, command: str | None, tenant: str, artifacts: str | None,
    database: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Store PROGRAM (a folder or a file) for the workers, and print its reference.

    The reference is the parameter `program` of candidates of kind `command`, e.g. for `easeml study register`.
    """
    from easeml_core.services.studies.candidates import bring_program

    _, kept_at = open_installation(database, artifacts)
    reference = bring_program(kept_at.of_tenant(tenant), program, train=train, command=command)
    show_json(KeptProgram(reference)) if as_json else click.echo(reference)


@candidate.command(epilog=_EXAMPLE)
@click.argument("study", type=STUDY, metavar="STUDY")
@click.option("--program", type=click.Path(exists=True, path_type=Path), help="A folder or file with code of your own.")
@_program_options
@click.option("--kind", help="Kind of the trainer; not with --program, or where the space chooses it.")
@click.option("--name", help="Name within the study; with --space, what the names begin with.")
@click.option("--parameters", metavar="JSON", default="{}", help='E.g. {"max_depth": 5}; with --space, what all share.')
@click.option("--space", metavar="FILE|TEXT", help="A search space, YAML or JSON: docs/studies.md.")
@click.option("--count", type=int, help="How many candidates of the space; all, where it has at most 1000 points.")
@click.option("--seed", type=int, help="Of the space's sample; default 0.")
@click.option("--device", "devices", multiple=True, help="Kind of device that they may run on; repeat for several.")
@click.option("--dry-run", is_flag=True, help="Show the candidates, add none.")
@installation_options
def add(
    study: str, program: Path | None, dry_run: bool, artifacts: str | None, database: str | None, as_json: bool,
    **given: Any,
) -> None:  # fmt: skip
    """Add candidates to STUDY, also while it runs: all or none of them; repeating the command changes nothing."""
    from easeml_core.services.studies.candidates import NamedCandidate, add_candidates, files_of, named_candidates

    entry = _entry(program, lambda: files_of(*open_installation(database, artifacts), study=study), given)
    if dry_run:
        named = [NamedCandidate(**candidate) for candidate in named_candidates([entry])]
        columns = {"Candidate": "name", "Kind": "kind", "Parameters": "parameters"}
        show_json(named) if as_json else show_table("Candidates", columns, named)
        return
    added = add_candidates(open_store(database), study=study, candidates=[entry])
    columns = {"Candidate": "candidate", "Kind": "kind", "Parameters": "parameters", "New": "added"}
    show_json(added) if as_json else show_table("Candidates", columns, added)


def _entry(program: Path | None, opened: Callable[[], ArtifactStore], given: Parameters) -> Parameters:
    """Return the candidate entry that the options describe; a program is packed and stored first."""
    parameters = mapping_of("parameters", given["parameters"])
    if program is None and (given["train"] or given["command"]):
        message = "--train and --command say how a --program is run; name the program too"
        raise InvalidInputError(message)
    if program is not None:
        from easeml_core.services.studies.candidates import bring_program

        if given["kind"] not in (None, "command"):
            message = f"a --program is of kind command, not {given['kind']!r}; leave --kind out"
            raise InvalidInputError(message)
        kept = bring_program(opened(), program, train=given["train"], command=given["command"])
        parameters = {**parameters, "program": kept}
        given = {**given, "kind": "command", "name": given["name"] or program.resolve().stem}
    entry = {name: given[name] for name in ("name", "kind", "count", "seed") if given[name] is not None}
    entry |= {"parameters": parameters} | ({"devices": list(given["devices"])} if given["devices"] else {})
    if given["space"] is None:
        return entry
    return entry | {"space": _space(given["space"])}


def _space(text: str) -> str:
    """Return the text of a file, or the text itself."""
    path = Path(text)
    try:
        is_file = path.is_file()
    except (OSError, ValueError):  # too long for a name, or no name at all
        is_file = False
    return path.read_text(encoding="utf-8") if is_file else text


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
        show_json(CheckedProgram("program" if isinstance(found, Program) else "side", form, str(found)))
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

    Comments name what decided. The text can be edited, and read by check and match; a study of the same data
    has this program where none is given.
    """
    from easeml_core.cli.output import reading
    from easeml_core.data.inference.infer import infer_program

    with reading() as report:
        found = infer_program(file, **asked, report=report)
    if as_json:
        show_json(found.report())
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


def _as_json(found: Matched) -> object:
    row = found.template
    return {
        "template": None if row is None else {"name": row.name, "input": row.input, "output": row.output},
        "workloads": [
            {"name": w.name, "targets": w.targets or None, "candidates": w.candidates} for w in found.workloads
        ],
        "mapping": found.mapping,
        "rejected": [{"template": name, "why": why} for name, why in found.rejected],
    }


def _show(found: Matched) -> None:
    """Print the answer for people."""
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
    from easeml_core.programs.pattern import as_schema
    from easeml_core.programs.schema_match import Match, match_schema

    wanted, given = _sides(module), _sides(file)
    if wanted.keys() != given.keys():
        whole, side = (module, file) if "input" in wanted else (file, module)
        message = f"{whole} has input and output, {side} one side alone; both must be of one kind"
        raise InvalidInputError(message)
    answers = {word: match_schema(as_schema(wanted[word]), as_schema(given[word])) for word in wanted}
    if as_json:
        show_json({word: _side_as_json(answer) for word, answer in answers.items()})
    else:
        for word, answer in answers.items():
            click.echo(f"{word}: {'matches' if isinstance(answer, Match) else f'does not match: {answer.reason}'}")
            for name in _SIDE if isinstance(answer, Match) else ():
                for key, value in getattr(answer, name).items():
                    click.echo(f"  {name}: {key} = {value}")
    return all(isinstance(answer, Match) for answer in answers.values())


_SIDE = ("nodes", "fields", "classes", "dims")


def _side_as_json(answer: Match | Mismatch) -> object:
    from easeml_core.programs.schema_match import Mismatch

    if isinstance(answer, Mismatch):
        return {"matches": False, "why": answer.reason}
    return {"matches": True} | {name: dict(getattr(answer, name)) for name in _SIDE}


def _sides(path: Path) -> dict[str, DataType | Schema]:
    """Return both sides of a program in the file, or one alone."""
    from easeml_core.programs.data_type import Program
    from easeml_core.programs.language import parse_any

    with _named(path):
        found = parse_any(read_program(path))
    return {"input": found.input, "output": found.output} if isinstance(found, Program) else {"side": found}


def _value(value: object) -> str:
    """Format a size, a name, or the sizes in a repeated field; of many the first."""
    if not isinstance(value, tuple):
        return str(value)
    shown = [str(size) for size in value[:8]]
    return f"({', '.join(shown)}{', ...' if len(value) > len(shown) else ''})"


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Add the file's name to errors."""
    try:
        yield
    except ProgramError as error:
        raise error.in_file(plain(str(path))) from error
