"""``easeml candidate``: bring a program of your own, and let candidates join a study, one or a whole space of them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from easeml_core.cli.connection import artifacts_option, database_option, open_installation, open_store
from easeml_core.cli.names import STUDY
from easeml_core.cli.output import example, json_option, show_json, show_table
from easeml_core.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from easeml_core.store.artifacts.local import ArtifactStore
    from easeml_core.store.database import Store

_EXAMPLE = """\b
Examples:
  easeml candidate add flowers --program my_net/ --name net --parameters '{"layers": 2}'
  easeml candidate add flowers --program my_net/ --space space.yaml --count 20
  easeml candidate add flowers --kind random_forest --space '{"n_estimators": {".int": [50, 500]}}' --count 5
"""


@click.group(epilog=example("easeml candidate add flowers --kind random_forest --name forest"))
def candidate() -> None:
    """Candidates: what a study may train; a program of your own can be one."""


def _program_options(command: Callable[..., Any]) -> Callable[..., Any]:
    train = click.option(
        "--train", metavar="LINE", help="How it is trained: 'python train.py'; else command.json says."
    )
    answers = click.option("--command", metavar="LINE", help="How it predicts: 'python predict.py'; else likewise.")
    return train(answers(command))


@candidate.command(
    epilog=example("easeml candidate pack my_net/ --train 'python train.py' --command 'python predict.py'")
)
@click.argument("program", type=click.Path(exists=True, path_type=Path))
@_program_options
@artifacts_option
@database_option
@json_option
def pack(
    program: Path, train: str | None, command: str | None, artifacts: str | None, database: str | None, as_json: bool
) -> None:
    """Keep PROGRAM (a folder or a file) for the workers, and print its reference.

    The reference is the parameter `program` of candidates of kind `command`, e.g. for `easeml study register`.
    """
    from easeml_core.services.studies.candidates import bring_program

    _, kept_at = open_installation(database, artifacts)
    reference = bring_program(kept_at, program, train=train, command=command)
    show_json({"program": reference}) if as_json else click.echo(reference)


@candidate.command(epilog=_EXAMPLE)
@click.argument("study", type=STUDY, metavar="STUDY")
@click.option("--program", type=click.Path(exists=True, path_type=Path), help="A folder or file with code of your own.")
@_program_options
@click.option("--kind", help="Kind of the trainer; not with --program, or where the space chooses it.")
@click.option("--name", help="Name within the study; with --space, what the names begin with.")
@click.option("--parameters", metavar="JSON", default="{}", help='E.g. {"max_depth": 5}; with --space, what all share.')
@click.option("--space", metavar="FILE|TEXT", help="A search space, YAML or JSON: docs/search-spaces.md.")
@click.option("--count", type=int, help="How many candidates of the space; all, where it has at most 1000 points.")
@click.option("--seed", type=int, help="Of the space's sample; default 0.")
@click.option("--device", "devices", multiple=True, help="Kind of device that they may run on; repeat for several.")
@click.option("--dry-run", is_flag=True, help="Show the candidates, add none.")
@artifacts_option
@database_option
@json_option
def add(
    study: str, program: Path | None, dry_run: bool, artifacts: str | None, database: str | None, as_json: bool,
    **given: Any,
) -> None:  # fmt: skip
    """Let candidates join STUDY, also while it runs: all or none of them; repeating the command changes nothing."""
    from easeml_core.services.studies.candidates import add_candidates, named_candidates

    entry = _entry(program, partial(open_installation, database, artifacts), given)
    if dry_run:
        told = named_candidates([entry])
        columns = {"Candidate": "name", "Kind": "kind", "Parameters": "parameters"}
    else:
        told = add_candidates(open_store(database), study=study, candidates=[entry])
        columns = {"Candidate": "candidate", "Kind": "kind", "Parameters": "parameters", "New": "added"}
    show_json(told) if as_json else show_table("Candidates", columns, told)


def _entry(
    program: Path | None, opened: Callable[[], tuple[Store, ArtifactStore]], given: dict[str, Any]
) -> dict[str, Any]:
    """The entry of a study that the options describe; a program is packed and kept first."""
    from easeml_core.cli.studies import mapping_of

    parameters = mapping_of("parameters", given["parameters"])
    if program is None and (given["train"] or given["command"]):
        message = "--train and --command say how a --program is run; name the program too"
        raise InvalidInputError(message)
    if program is not None:
        from easeml_core.services.studies.candidates import bring_program

        if given["kind"] not in (None, "command"):
            message = f"a --program is of kind command, not {given['kind']!r}; leave --kind out"
            raise InvalidInputError(message)
        kept = bring_program(opened()[1], program, train=given["train"], command=given["command"])
        parameters |= {"program": kept}
        given = given | {"kind": "command", "name": given["name"] or program.resolve().stem}
    entry = {name: given[name] for name in ("name", "kind", "count", "seed") if given[name] is not None}
    entry |= {"parameters": parameters} | ({"devices": list(given["devices"])} if given["devices"] else {})
    if given["space"] is None:
        return entry
    return entry | {"space": _space(given["space"])}


def _space(text: str) -> str:
    """The text of a file, or the text itself."""
    path = Path(text)
    try:
        is_file = path.is_file()
    except (OSError, ValueError):  # too long for a name, or no name at all
        is_file = False
    return path.read_text(encoding="utf-8") if is_file else text
