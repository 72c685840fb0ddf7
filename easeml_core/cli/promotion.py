"""``easeml promotion``: a verdict with its evidence as a file, and the check of such a file without a database."""

from __future__ import annotations

import json
from pathlib import Path

import click

from easeml_core.cli.connection import database_option, open_store
from easeml_core.cli.evidence import keys_option
from easeml_core.cli.output import example, json_option, show_json, show_warnings
from easeml_core.errors import InvalidInputError, reason_of


@click.group(
    epilog=example(
        "easeml promotion evidence 7 --out model-7.json", "easeml promotion verify model-7.json --key ID.pub"
    )
)
def promotion() -> None:
    """Evidence of the verdict that a promotion rests on: write it, and check it anywhere.

    A file is an in-toto statement in a DSSE envelope, which standard tools read.
    """


@promotion.command(
    "evidence",
    epilog=example(
        "easeml promotion evidence 7 --out model-7.json",
        'easeml promotion evidence 7 --out full.json --database "$(easeml db url --role easeml_referee)"',
    ),
)
@click.argument("model_id", metavar="MODEL", type=int)
@click.option(
    "--out",
    "target",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="Where the bundle goes.",
)
@click.option("--request", "request_id", type=int, help="The gate request; default: the last verdict on the model.")
@keys_option
@database_option
@json_option
def write_bundle(
    model_id: int, target: Path, request_id: int | None, keys: Path, database: str | None, as_json: bool
) -> None:
    """Write the signed evidence of the verdict on MODEL to FILE.

    With the address of the role easeml_referee, and this host's key, it is full: condition, plan, level, counts, hashes
    of set, models and predictions, the part of the chain. That is for the referee alone until the set is retired. With
    any other address it is the redacted one that left with the answer.
    """
    from easeml_core.services.evidence.bundle import evidence_of

    bundle, warning = evidence_of(open_store(database), model_id=model_id, keys=keys, request_id=request_id)
    try:
        target.write_text(json.dumps(bundle, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        message = f"{target} cannot be written: {reason_of(error)}"
        raise InvalidInputError(message) from error
    show_json({"file": str(target), "warning": warning}) if as_json else click.echo(f"written to {target}")
    show_warnings([warning] if warning else [])


@promotion.command(
    "verify",
    epilog=example(
        "easeml promotion verify model-7.json --key ID.pub",
        "easeml promotion verify model-7.json --key old.pub --key new.pub --json",
    ),
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--key",
    "keys",
    metavar="PUB",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    required=True,
    help="Public key of a referee's host, in PEM, got by a way of its own. Repeatable.",
)
@json_option
@click.pass_context
def verify_bundle(context: click.Context, file: Path, keys: tuple[Path, ...], as_json: bool) -> None:
    """Check the evidence in FILE: signatures, chain, and level and verdict computed anew. Needs no database.

    Exit status: 0 it holds, whatever the verdict is, 1 it does not, 2 an error, such as a file no --key has signed.
    """
    from easeml_core.services.evidence.bundle_check import check_bundle
    from easeml_core.services.evidence.keys import read_public

    try:
        bundle = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        message = f"{file} is no JSON file: {reason_of(error)}"
        raise InvalidInputError(message) from error
    found = check_bundle(bundle, [read_public(key) for key in keys])
    if as_json:
        show_json(found.to_json())
    else:
        for line in found.checks:
            click.echo(f"ok        {line}")
        for line in found.attested:
            click.echo(f"attested  {line}")
        for line in found.faults:
            click.echo(f"FAULT     {line}")
        click.echo(f"{'does not hold' if found.faults else 'holds'}: {found.symbol} ({found.kind})")
    context.exit(1 if found.faults else 0)
