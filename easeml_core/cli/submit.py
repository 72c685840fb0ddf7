"""``easeml submit`` and ``easeml submissions``: a developer hands a model in, and sees how far it is."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from easeml_core.cli.answers import gate_passes, tell_gate_answer, wait_for_answer
from easeml_core.cli.connection import artifacts_option, database_option, open_artifacts, open_store
from easeml_core.cli.names import STUDY
from easeml_core.cli.output import example, json_option, show_json, show_table
from easeml_core.errors import InvalidInputError

if TYPE_CHECKING:
    from easeml_core.store.artifacts.local import ArtifactStore
    from easeml_core.store.database import Store

_SUBMIT_EXAMPLE = """\b
Example:
  easeml submit model.skops --study flowers --format skops -m "deeper trees" --wait
"""
FORMATS = ("skops", "lightgbm", "xgboost", "safetensors", "constant", "command")


@click.command(epilog=_SUBMIT_EXAMPLE)
@click.argument("path", metavar="MODEL", type=click.Path(path_type=Path))
@click.option("--study", type=STUDY, required=True, help="For which study.")
@click.option("--format", type=click.Choice(FORMATS), required=True, help="What MODEL is; command: a program.")
@click.option("--command", metavar="LINE", help="How a command is run: 'python predict.py'; else command.json says.")
@click.option("--message", "-m", required=True, help="What is new about it; kept for ever.")
@click.option("--bundle", help="Name of the DAG bundle whose run has made the model.")
@click.option("--bundle-version", metavar="COMMIT", help="The version of the bundle; promoted with the model.")
@click.option("--gate/--no-gate", "asks_gate", default=True, show_default=True, help="Also ask the gate about it.")
@click.option("--wait", "waits", is_flag=True, help="Wait for the gate's answer; exit status 1 unless it passes.")
@click.option("--timeout", default=600.0, show_default=True, help="Seconds to wait at most.")
@click.option("--request-key", help="Makes the call repeatable; default: a new one.")
@artifacts_option
@database_option
@json_option
@click.pass_context
def submit(
    context: click.Context, /, asks_gate: bool, waits: bool, timeout: float, request_key: str | None,
    artifacts: str | None, database: str | None, as_json: bool, **handed: Any,
) -> None:  # fmt: skip
    """Hand MODEL in for a study, and ask the gate whether it may be promoted.

    It is run on the open validation part first, and on some of its rows again; what cannot run there, or answers a row
    by the others, is refused and spends nothing. What was handed in and asked cannot be withdrawn.

    Exit status: 0 handed in (with --wait: a pass, or a verdict that is withheld), 1 a fail or a refusal of the gate
    (with --wait only), 2 any error, 130 interrupted.
    """
    if waits and not asks_gate:
        message = "--wait waits for the gate's answer; leave out --no-gate"
        raise click.UsageError(message)
    if not handed["path"].exists():
        message = f"{handed['path']} cannot be handed in: there is no such file or folder"
        raise InvalidInputError(message)
    store, key = open_store(database), request_key or f"cli/{uuid.uuid4()}"
    asked = (asks_gate, timeout if waits else None)
    context.exit(_submit(store, open_artifacts(artifacts, store), key, handed, asked, as_json))


def _submit(
    store: Store, artifacts: ArtifactStore, key: str, handed: dict[str, Any], asked: tuple[bool, float | None],
    as_json: bool,
) -> int:  # fmt: skip
    """Hand in, ask the gate, wait; ``asked`` says whether the gate is asked and how long its answer is waited for."""
    from easeml_core.services.models.submission import submit_model

    told: dict[str, Any] = submit_model(store, artifacts, request_key=key, **handed)
    asks_gate, timeout = asked
    if asks_gate:
        told |= _ask_gate(store, told, key)
    if not as_json:
        _tell(told, waits=timeout is not None)
    if timeout is None:
        if as_json:
            show_json(told)
        return 0
    answer = wait_for_answer(store, told["request_id"], timeout)
    show_json(told | {"answer": answer}) if as_json else tell_gate_answer(answer)
    return 0 if gate_passes(answer) else 1


def _ask_gate(store: Store, told: dict[str, Any], key: str) -> dict[str, Any]:
    from easeml_core.services.referee.requests import file_gate_request

    return file_gate_request(store, study=told["study"], model_id=told["model_id"], request_key=f"{key}/gate")


def _tell(told: dict[str, Any], *, waits: bool) -> None:
    """What is known before the answer, at once: whoever stops waiting knows the submission and the request."""
    click.echo(
        f"submission {told['submission_id']}: model {told['model_id']} of study {told['study']}, "
        f"quality {told['validation_quality']:.4f} on the open validation part"
    )
    if "request_id" in told:
        later = "waiting for its answer" if waits else f"`easeml submissions --study {told['study']}` shows its answer"
        click.echo(f"the gate is asked, request {told['request_id']}; {later}")


@click.command(epilog=example("easeml submissions --study flowers"))
@click.option("--study", type=STUDY, help="Of this study only.")
@database_option
@json_option
def submissions(study: str | None, database: str | None, as_json: bool) -> None:
    """List what was handed in, the newest first, and what was released about it."""
    from easeml_core.services.models.submission import list_submissions

    entries = list_submissions(open_store(database), study=study)
    if as_json:
        show_json(entries)
        return
    columns = {"No.": "submission_id"} | ({} if study else {"Study": "study"}) | {"Model": "model_id", "Kind": "kind"}
    columns |= {"State": "state", "Right": "validation_quality"}
    if any(entry["bundle"] for entry in entries):
        columns |= {"Bundle": "bundle", "Version": "bundle_version"}
    columns |= {"Message": "message"}
    show_table("Submissions", columns, entries)
