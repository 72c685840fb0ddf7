"""``easeml evidence`` checks hash chains and manages keys; ``easeml promotion`` exports and checks verdicts."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from easeml_core.cli.connection import (
    HOME,
    REFEREE,
    account_name,
    installation_options,
    open_artifacts,
    open_store,
    store_options,
)
from easeml_core.cli.output import example, json_option, reading, show_json, show_table, show_warnings
from easeml_core.errors import InvalidInputError, counted, reason_of
from easeml_core.formats.encoding import typed_record

if TYPE_CHECKING:
    from collections.abc import Callable

    from easeml_core.services.evidence.notary import Notary


MOST_SHOWN = 20
"""Largest number of shown findings; ``--json`` has all of them."""


@typed_record
class ListedKey:
    """A key of ``easeml evidence keys``.

    Attributes:
        key_id: Its identity.
        signs: Whether it is this host's own.
        file: Where it is kept.
        pem: The public key.
    """

    key_id: str
    signs: bool
    file: Path
    pem: str


@typed_record
class NextKey:
    """The answer of ``easeml evidence rotate``: identities of both keys."""

    old: str
    new: str


@typed_record
class TrustedKey:
    """The answer of ``easeml evidence trust``."""

    key_id: str


@typed_record
class WrittenEvidence:
    """The answer of ``easeml promotion evidence``: the file, and what its reader has to know."""

    file: Path
    warning: str | None


def keys_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--keys``: this host's key folder."""
    return click.option(
        "--keys",
        metavar="FOLDER",
        type=click.Path(file_okay=False, path_type=Path),
        envvar="EASEML_REFEREE_KEYS",
        show_envvar=True,
        default=HOME / "referee",
        show_default=True,
        help="This host's signing key, trusted keys and high-water marks; of the referee's account alone.",
    )(command)


def open_notary(database: str | None, keys: Path, *, unknown_key: bool = False) -> Notary:
    """Return the notary of this host, and say where its first key was made."""
    from easeml_core.services.evidence.notary import Notary

    notary = Notary(open_store(database, role=REFEREE), keys)
    if made := notary.open_key(unknown=unknown_key):
        click.echo(made, err=True)
    return notary


@click.group(epilog=example("easeml evidence verify", "easeml evidence keys"))
def evidence() -> None:
    """Check the hash chains over answers and acts, and keep the keys that sign them: for the referee.

    The commands run as the referee's account, on its host.
    """


@evidence.command(
    epilog=example(
        'easeml evidence verify --database "$(easeml db url --role easeml_referee)"',
        "easeml evidence verify --head 3f0c5e9b0b4c9c3f5d7a1e2b4c6d8f0a1b2c3d4e5f60718293a4b5c6d7e8f901 --json",
    )
)
@click.option(
    "--head",
    "heads",
    metavar="HEX",
    multiple=True,
    help="A head that left with an answer (a notification, a git tag): it must be in a chain. Repeatable.",
)
@keys_option
@installation_options
@click.pass_context
def verify(
    context: click.Context,
    heads: tuple[str, ...],
    keys: Path,
    artifacts: str | None,
    database: str | None,
    as_json: bool,
) -> None:
    """Recompute every hash chain, and compare it with ledger, verdicts, promotions and models; name what is broken.

    Without this host's key folder signatures and high-water marks are not checked, and a chain that was rewritten as a
    whole, or an old backup, is not found. The address is that of the role easeml_referee.

    Exit status: 0 all is well or was acknowledged, 1 something is broken, 2 an error.
    """
    from easeml_core.services.evidence.keys import KeyFolder
    from easeml_core.services.evidence.notary import REMEDY, verify_all

    is_begun = KeyFolder(keys).is_begun
    store = open_store(database, role=REFEREE)
    with reading() as on_check:
        found = verify_all(
            store,
            keys if is_begun else None,
            open_artifacts(artifacts, store),
            heads=heads,
            on_progress=lambda chain, done, of: on_check(f"{chain}: {done:,} of {of:,} entries"),
        )
    if as_json:
        show_json(found)
    else:
        columns = {"Chain": "chain", "Entries": "length", "Unsigned": "unsigned", "State": "state"}
        show_table("Evidence", columns, found.chains)
        for line in found.findings[:MOST_SHOWN]:
            click.echo(line)
        if len(found.findings) > MOST_SHOWN:
            click.echo(f"and {len(found.findings) - MOST_SHOWN:,} more; --json has all")
        click.echo(found.sentence)
        if not found.sound:
            click.echo(f"to do: {REMEDY}")
    if not is_begun:
        show_warnings(
            [f"there is no signing key in {keys.absolute()}: signatures and high-water marks were not checked"]
        )
    context.exit(0 if found.sound else 1)


@evidence.command(
    epilog=example(
        "easeml evidence acknowledge 12 --why 'restored the backup of 1 November, see ticket 4711'",
        "easeml evidence acknowledge --all --why 'the key folder was lost with its disk'",
    )
)
@click.argument("chosen", metavar="[SET|audit]...", nargs=-1)
@click.option("--audit", "with_audit", is_flag=True, help="The chain of the audit and the promotions; as `audit`.")
@click.option("--all", "everything", is_flag=True, help="Every chain.")
@click.option("--why", required=True, help="The reason, kept for good.")
@keys_option
@store_options
def acknowledge(
    chosen: tuple[str, ...],
    with_audit: bool,
    everything: bool,
    why: str,
    keys: Path,
    database: str | None,
    as_json: bool,
) -> None:
    """Let sets judge again although their evidence is broken; the fault and the reason are recorded in their chains.

    SET is the number of a test set, or its chain as `easeml evidence verify` names it (set/12); `audit` is the chain of
    the audit and the promotions. Later changes are found again. Look at `easeml evidence verify` first: no later level
    corrects what an unknown change did to a ledger; a new set is the safe way.
    """
    from easeml_core.services.models.promotion import require_words
    from easeml_core.store.tables.chained_rows import AUDIT

    names = list(dict.fromkeys([*map(_chain_name, chosen), *([AUDIT] if with_audit else [])]))
    if everything == bool(names):
        message = "name the sets whose evidence you have looked at (and `audit`), or give --all"
        raise InvalidInputError(message)
    notary = open_notary(database, keys, unknown_key=True)
    found = notary.acknowledge(None if everything else names, who=account_name(), reason=require_words("why", why))
    if as_json:
        show_json(found)
        return
    for one in found[:MOST_SHOWN]:
        click.echo(str(one))
    click.echo(f"{counted(len(found), 'finding')} acknowledged" if found else "nothing is broken")


def _chain_name(word: str) -> str:
    """Return the name of a chain from the number of a set, or from the name itself."""
    from easeml_core.store.tables.chained_rows import AUDIT, of_set

    found = re.fullmatch(r"(?:set/)?([1-9][0-9]{0,17})", word)
    if word != AUDIT and found is None:
        message = f"a chain is named by the number of a test set (12 or set/12) or as `{AUDIT}`, got {word!r}"
        raise InvalidInputError(message)
    return word if found is None else of_set(int(found[1]))


@evidence.command(
    "keys", epilog=example("easeml evidence keys", "easeml evidence keys --new", "easeml evidence keys --json")
)
@click.option(
    "--new",
    "with_new",
    is_flag=True,
    help="Make a signing key where the folder has none: for a further host, or in place of a lost key.",
)
@keys_option
@json_option
def list_keys(with_new: bool, keys: Path, as_json: bool) -> None:
    """List the keys that this host trusts; --json has them in PEM, for `easeml promotion verify --key`.

    The first start of an installation's referee makes its key. Where others have signed already, no command makes one
    but this, with --new: before it signs, exchange public keys with the other hosts (`easeml evidence trust`), or,
    where the old key is lost, run `easeml evidence acknowledge --all`.
    """
    from easeml_core.services.evidence.keys import KeyFolder

    folder = KeyFolder(keys)
    if with_new:
        folder.make_key()
    own = folder.key().public.id if folder.has_key else None
    found = [
        ListedKey(one.id, signs=one.id == own, file=folder.path_of(one), pem=one.pem().decode())
        for one in folder.trusted().values()
    ]
    if own is None:
        show_warnings([f"there is no signing key in {keys.absolute()}"])
    if as_json:
        show_json(found)
        return
    columns: dict[str, str | Callable[[Any], object]] = {"Key": "key_id", "Use": _use_of, "File": "file"}
    show_table(f"Keys of {keys}", columns, found)


def _use_of(key: ListedKey) -> str:
    return "signs" if key.signs else "trusted"


@evidence.command(epilog=example("easeml evidence rotate"))
@keys_option
@store_options
def rotate(keys: Path, database: str | None, as_json: bool) -> None:
    """Sign with a new key from now on; the old one signs that it is the next, and its signatures stay valid."""
    old, new = open_notary(database, keys).rotate()
    show_json(NextKey(old, new)) if as_json else click.echo(f"key {new} signs now, after {old}")


@evidence.command(epilog=example("easeml evidence trust other-host.pub"))
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@keys_option
@json_option
def trust(file: Path, keys: Path, as_json: bool) -> None:
    """Trust the public key in FILE: of the referee on another host, received over a trusted channel."""
    from easeml_core.services.evidence.keys import KeyFolder, read_public

    found = read_public(file)
    KeyFolder(keys).trust(found)
    show_json(TrustedKey(found.id)) if as_json else click.echo(f"key {found.id} is trusted")


@click.group(
    epilog=example(
        "easeml promotion evidence 7 --out model-7.json", "easeml promotion verify model-7.json --key ID.pub"
    )
)
def promotion() -> None:
    """Evidence of the verdict that a promotion rests on: export it, and check it anywhere.

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
@store_options
def write_bundle(
    model_id: int, target: Path, request_id: int | None, keys: Path, database: str | None, as_json: bool
) -> None:
    """Write the signed evidence of the verdict on MODEL to FILE.

    With the address of the role easeml_referee, and this host's key, it is full: condition, plan, level, counts, hashes
    of set, models and predictions, the part of the chain. That is for the referee alone until the set is retired. With
    any other address it is the redacted one that was published with the answer.
    """
    from easeml_core.services.evidence.bundle import evidence_of

    bundle, warning = evidence_of(open_store(database), model_id=model_id, keys=keys, request_id=request_id)
    try:
        target.write_text(json.dumps(bundle, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        message = f"{target} cannot be written: {reason_of(error)}"
        raise InvalidInputError(message) from error
    show_json(WrittenEvidence(target, warning)) if as_json else click.echo(f"written to {target}")
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
    help="Public key of a referee's host, in PEM, received over a separate channel. Repeatable.",
)
@json_option
@click.pass_context
def verify_bundle(context: click.Context, file: Path, keys: tuple[Path, ...], as_json: bool) -> None:
    """Check the evidence in FILE: signatures and chain; level and verdict are recomputed. Needs no database.

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
        show_json(found)
    else:
        for line in found.checks:
            click.echo(f"ok        {line}")
        for line in found.attested:
            click.echo(f"attested  {line}")
        for line in found.faults:
            click.echo(f"FAULT     {line}")
        click.echo(f"{'does not hold' if found.faults else 'holds'}: {found.symbol} ({found.kind})")
    context.exit(1 if found.faults else 0)
