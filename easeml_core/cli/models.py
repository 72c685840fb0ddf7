"""``easeml model``, ``easeml infer`` and ``easeml submit``: list, promote, run and submit models of a study."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from easeml_core.cli.connection import (
    GATE_MAY_WAIT,
    REFEREE,
    STUDY,
    gate_passes,
    installation_options,
    key_option,
    new_key,
    open_artifacts,
    open_installation,
    open_store,
    store_options,
    tell_gate_answer,
    wait_for_answer,
)
from easeml_core.cli.output import cell, example, plain, show_json, show_table, with_options
from easeml_core.errors import InvalidInputError, StateError, counted
from easeml_core.formats.encoding import row_of

if TYPE_CHECKING:
    from typing import TextIO

    from easeml_core.cli.output import Columns
    from easeml_core.entities import GivenAnswer
    from easeml_core.services.models.inference import InferenceResult, Inferred
    from easeml_core.services.models.submission import Submitted
    from easeml_core.services.referee.answers import ReadingAnswer
    from easeml_core.services.referee.place_in_queue import QueuePlace
    from easeml_core.store.artifacts.local import ArtifactStore
    from easeml_core.store.database import Store
    from easeml_core.store.tables.model_life import ListedModel


@click.group(epilog=example("easeml model list flowers", "easeml model promote flowers 7"))
def model() -> None:
    """Models of a study: list, show, meter, promote, roll back.

    With the address of the role easeml_referee (`easeml db url --role easeml_referee` prints that of the embedded
    server) a change is made at once; with any other, the referee's process gets a request, and the command waits.
    """


_waiting = with_options(
    click.option("--timeout", default=60.0, show_default=True, help="Seconds to wait for the referee's answer."),
    key_option,
)
"""Adds the options of every command that requests a change."""


@model.command("list", epilog=example("easeml model list flowers"))
@click.argument("study", type=STUDY)
@store_options
def list_(study: str, database: str | None, as_json: bool) -> None:
    """List the models of STUDY with their verdicts, and how they came into production.

    Right is the share of right answers on the validation part, which is what gate and meter count; by the study's
    metric candidates are compared in `easeml study show`. Data is the version of the data it was measured on.
    """
    from easeml_core.services.models.promotion import model_list

    found = model_list(open_store(database), study=study)
    if as_json:
        show_json(found)
        return
    columns: Columns = {
        "Model": "model_id",
        "Origin": "origin",
        "Right": "validation_quality",
        "Data": "data_version",
        "Verdict": "verdict",
        "Request": "gate_request_id",
        "Stands": lambda entry: "now" if entry.in_production else "",
        "Last move": _move,
    }
    show_table(f"Models of {study}", columns, found)


@model.command(epilog=example("easeml model show flowers 7", "easeml model show flowers 7 --json"))
@click.argument("study", type=STUDY)
@click.argument("model_id", type=int)
@store_options
def show(study: str, model_id: int, database: str | None, as_json: bool) -> None:
    """Show model MODEL_ID of STUDY: its file, and what trained it.

    That is the implementation that the worker stated when it claimed the trial, and that the candidate names: the kind,
    with the program, the image or the function; of a function also its module, qualified name and the hash of its
    source. Then the parameters, and the version of easeml that trained.
    """
    from easeml_core.services.models.promotion import model_record

    found = model_record(open_store(database), study=study, model_id=model_id)
    if as_json:
        show_json(found)
        return
    shown = row_of(found)
    del shown["trained_by"]
    shown |= {f"trained by {name.replace('_', ' ')}": value for name, value in (found.trained_by or {}).items()}
    if not found.trained_by and found.origin == "trial":
        shown["trained by"] = "not recorded: the trial was claimed by a version of easeml that kept no record"
    for name, value in shown.items():
        text = json.dumps(value, sort_keys=True) if isinstance(value, dict) else cell(value)
        click.echo(f"{name.replace('_', ' '):>25}  {plain(text)}")


def _move(entry: ListedModel) -> str:
    """Describe how the model last came into production: when, by what kind of move, by whom, and why."""
    if entry.moved_by is None or entry.promoted_at is None:
        return ""
    words = ": ".join(word for word in (entry.who, entry.why) if word)
    return f"{entry.moved_by} {entry.promoted_at.isoformat()[:16]}" + (f" ({words})" if words else "")


@model.command(
    epilog=example(
        "easeml model promote flowers 7", "easeml model promote flowers 7 --force --who ann --why 'the old one leaks'"
    )
)
@click.argument("study", type=STUDY)
@click.argument("model_id", type=int)
@click.option(
    "--request",
    "gate_request_id",
    type=int,
    help="Gate request whose pass it stands on; default: the last one with a verdict on it.",
)
@click.option("--force", is_flag=True, help="Without a verdict; needs --who and --why.")
@click.option("--who", help="Who takes the responsibility for a forced promotion.")
@click.option("--why", help="The reason of a forced promotion, kept for good.")
@_waiting
@store_options
def promote(
    study: str,
    model_id: int,
    gate_request_id: int | None,
    force: bool,
    who: str | None,
    why: str | None,
    request_key: str | None,
    timeout: float,
    database: str | None,
    as_json: bool,
) -> None:
    """Put model MODEL_ID of STUDY into production, on a pass of the gate or by force."""
    from easeml_core.services.models.promotion import last_verdict
    from easeml_core.services.referee.requests import file_forced_promotion, file_promotion

    store = open_store(database)
    key = new_key(request_key)
    if force:
        if gate_request_id is not None:
            message = "--force goes without --request: it stands on a person's word"
            raise InvalidInputError(message)
        if not who or not why:
            message = "--force stands on a person's word: say who it is with --who, and the reason with --why"
            raise InvalidInputError(message)
        filed = file_forced_promotion(
            store, study=study, model_id=model_id, who=who, why=why, request_key=key, directly=_is_referee(store)
        )
    else:
        if gate_request_id is None:
            gate_request_id = last_verdict(store, study=study, model_id=model_id)
        filed = file_promotion(
            store,
            study=study,
            model_id=model_id,
            gate_request_id=gate_request_id,
            request_key=key,
            directly=_is_referee(store),
        )
    _show_answer(store, filed, timeout, as_json)


@model.command(epilog=example("easeml model rollback flowers --why 'answers got slow'"))
@click.argument("study", type=STUDY)
@click.option("--to", "model_id", type=int, help="The model; default: what stood before the one that is there now.")
@click.option("--why", required=True, help="The reason, kept for good.")
@_waiting
@store_options
def rollback(request_key: str | None, timeout: float, database: str | None, as_json: bool, **given: Any) -> None:
    """Return a model to production that was there before."""
    from easeml_core.services.referee.requests import file_rollback

    store, key = open_store(database), new_key(request_key)
    filed = file_rollback(store, **given, request_key=key, directly=_is_referee(store))
    _show_answer(store, filed, timeout, as_json)


@model.command(epilog=example("easeml model meter flowers 7"))
@click.argument("study", type=STUDY)
@click.argument("model_id", metavar="[MODEL_ID]", type=int, required=False)
@click.option(
    "--team", type=int, default=1, show_default=True, help="Whose submission it is, where K teams share a set."
)
@_waiting
@store_options
@click.pass_context
def meter(
    context: click.Context,
    /,
    request_key: str | None,
    timeout: float,
    database: str | None,
    as_json: bool,
    **asked: Any,
) -> None:
    """Ask how far the validation set overstates model MODEL_ID of STUDY: one signal, from 1 (little) upwards.

    Without MODEL_ID it is the best one that the study has trained. Each answer about another model uses one step of the
    live meter set. With a second validation sample a second signal distinguishes tuning from drift.

    Exit status: 0 a signal, 1 a refusal, or a set that is retired instead, 2 any error, 130 interrupted.
    """
    from easeml_core.services.referee.answers import ReadingAnswer
    from easeml_core.services.referee.requests import file_meter_request

    store, key = open_store(database), new_key(request_key)
    filed = file_meter_request(store, **asked, request_key=key)
    answer = wait_for_answer(store, filed, timeout)
    if as_json:
        show_json(answer)
    elif isinstance(answer, ReadingAnswer):
        _tell_reading(answer)
    else:
        click.echo(answer.message)
    context.exit(0 if isinstance(answer, ReadingAnswer) and not answer.retired else 1)


def _tell_reading(answer: ReadingAnswer) -> None:
    """Print the signal in words, what is left of the set, what two signals mean together, and the raised alert."""
    left = answer.submissions_left
    rest = "" if left is None else f"; {counted(left, 'submission')} left"
    meaning = f": {answer.meaning}" if answer.meaning and answer.direct_signal is None else ""
    click.echo(f"{answer.message}{meaning}{rest}")
    for line in (answer.sentence, answer.alert):
        if line:
            click.echo(line)


def _is_referee(store: Store) -> bool:
    """Return whether the address is the referee's."""
    from easeml_core.store.tables.requests import role

    with store.begin() as tx:
        return role(tx) == REFEREE


def _show_answer(store: Store, request_id: int, timeout: float, as_json: bool) -> None:
    """Wait for the answer and print it; a refusal is an error."""
    answer = _answer(store, request_id, timeout)
    show_json(answer) if as_json else click.echo(answer.message)


def _answer(store: Store, request_id: int, timeout: float) -> GivenAnswer:
    answer = wait_for_answer(store, request_id, timeout)
    if answer.refused:
        raise StateError(answer.message)
    return answer


_EXAMPLES = """\b
Examples:
  easeml infer flowers new.csv --output answers.csv
  easeml infer flowers lake.parquet --output answers.csv
  easeml infer flowers --row "5.1,3.5,1.4,0.2" --model best
  easeml infer digits photo.png --probabilities
  head -1 values.csv | easeml infer flowers
"""


@click.command(epilog=_EXAMPLES)
@click.argument("study", type=STUDY)
@click.argument("path", type=click.Path(path_type=Path), required=False)
@click.option(
    "--row", "rows", multiple=True, help="Numbers of one row, by commas; empty for a missing one. Repeatable."
)
@click.option("--model", default="production", show_default=True, help="production, best, or the id of a model.")
@click.option("--probabilities", is_flag=True, help="The probability of each class too.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="CSV file for the answers.")
@installation_options
def infer(
    path: Path | None, rows: tuple[str, ...], output: Path | None, artifacts: str | None, database: str | None,
    as_json: bool, **asked: Any,
) -> None:  # fmt: skip
    """Answer the rows of PATH (CSV, Parquet, .npy, an image, or a folder), those of --row, or those on standard input.

    Columns of a table that are no inputs of the study are written beside the answers. The last line on standard error
    names the model that has answered, and the duration. A CSV or Parquet file may be larger than memory with --output
    and without --json: it is answered in blocks of rows.
    """
    from easeml_core.services.models.inference import infer as ask
    from easeml_core.services.models.inference import infer_into, public_answers, write_answers, write_answers_to

    if path is not None and rows:
        message = "give a PATH or --row, not both"
        raise InvalidInputError(message)
    place = open_installation(database, artifacts)
    if path is not None and output is not None and not as_json:
        done = infer_into(*place, **asked, path=path, answers=output)
        click.echo(plain(_by_whom(done, done.rows)), err=True)
        return
    given = None if path is not None else [_numbers(row) for row in (rows or _lines(sys.stdin))]
    found = ask(*place, **asked, inputs=given, path=path)
    if output is not None:
        write_answers(output, found)
    if as_json:
        show_json(public_answers(found))
        return
    if output is None:
        write_answers_to(sys.stdout, found)
    click.echo(plain(_by_whom(found, len(found.labels))), err=True)


def _by_whom(found: Inferred | InferenceResult, rows: int) -> str:
    latency = found.latency
    who = f"{found.model}, {found.candidate or 'handed in'}, data version {found.data_version}"
    took = f"{latency.total_ms:,.0f} ms, {latency.ms_per_row:,.2f} ms a row, the start of the model included"
    return f"answered by model {found.model_id} ({who}): {counted(rows, 'row')} in {took}"


def _lines(stream: TextIO) -> list[str]:
    if stream.isatty():
        message = "give a PATH, --row, or rows of numbers on standard input"
        raise InvalidInputError(message)
    return [line for line in stream.read(64 * 1024 * 1024).splitlines() if line.strip()]


def _numbers(row: str) -> list[float | None]:
    try:
        return [float(cell) if cell.strip() else None for cell in row.split(",")]
    except ValueError as error:
        message = (
            f"a row must be numbers by commas, in the order of the columns of `easeml study show`, such as "
            f"5.1,3.5,,0.2; {error}. Words and a line of names go into a CSV file: easeml infer STUDY FILE"
        )
        raise InvalidInputError(message) from error


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
@key_option
@installation_options
@click.pass_context
def submit(
    context: click.Context, /, asks_gate: bool, waits: bool, timeout: float, request_key: str | None,
    artifacts: str | None, database: str | None, as_json: bool, **handed: Any,
) -> None:  # fmt: skip
    """Submit MODEL for a study, and ask the gate whether it may be promoted.

    It is run on the open validation part first, and on some of its rows again; what cannot run there, or answers a row
    differently among others, is refused and spends nothing. A submission and its request cannot be withdrawn.

    Exit status: 0 submitted (with --wait: a pass, or a verdict that is withheld), 1 a fail or a refusal of the gate
    (with --wait only), 2 any error, 130 interrupted.
    """
    if waits and not asks_gate:
        message = "--wait waits for the gate's answer; leave out --no-gate"
        raise click.UsageError(message)
    if not handed["path"].exists():
        message = f"{handed['path']} cannot be handed in: there is no such file or folder"
        raise InvalidInputError(message)
    store, key = open_store(database), new_key(request_key)
    asked = (asks_gate, timeout if waits else None)
    context.exit(_submit(store, open_artifacts(artifacts, store), key, asked, as_json, **handed))


def _submit(
    store: Store, artifacts: ArtifactStore, key: str, asked: tuple[bool, float | None], as_json: bool, **handed: Any
) -> int:
    """Submit, ask the gate, wait; ``asked`` says whether the gate is asked and how long to wait for its answer."""
    from easeml_core.services.models.submission import submit_model
    from easeml_core.services.referee.place_in_queue import place_of
    from easeml_core.services.referee.requests import JudgedSubmission

    submitted = submit_model(store, artifacts, request_key=key, **handed)
    asks_gate, timeout = asked
    request_id = _ask_gate(store, submitted, key) if asks_gate else None
    shown = JudgedSubmission(**row_of(submitted) | ({} if request_id is None else {"request_id": request_id}))
    place = None if timeout is not None or request_id is None else place_of(store, request_id)
    if not as_json:
        _tell(submitted, request_id, place, waits=timeout is not None)
    if timeout is None or request_id is None:
        if as_json:
            show_json(shown if request_id is None else replace(shown, place=place))
        return 0
    answer = wait_for_answer(store, request_id, timeout, GATE_MAY_WAIT)
    show_json(replace(shown, answer=answer)) if as_json else tell_gate_answer(answer)
    return 0 if gate_passes(answer) else 1


def _ask_gate(store: Store, submitted: Submitted, key: str) -> int:
    from easeml_core.services.referee.requests import file_gate_request

    filed = file_gate_request(store, study=submitted.study, model_id=submitted.model_id, request_key=f"{key}/gate")
    return filed


def _tell(submitted: Submitted, request_id: int | None, place: QueuePlace | None, *, waits: bool) -> None:
    """Print what is known before the answer, so that a user who stops waiting knows submission and request."""
    from easeml_core.services.referee.place_in_queue import place_text

    click.echo(
        f"submission {submitted.submission_id}: model {submitted.model_id} of study {submitted.study}, "
        f"quality {submitted.validation_quality:.4f} on the open validation part"
    )
    if request_id is not None:
        later = (
            "waiting for its answer" if waits else f"`easeml submissions --study {submitted.study}` shows its answer"
        )
        ahead = "" if place is None else f" ({place_text(place)})"
        click.echo(f"the gate is asked, request {request_id}{ahead}; {later}")


@click.command(epilog=example("easeml submissions --study flowers"))
@click.option("--study", type=STUDY, help="Of this study only.")
@store_options
def submissions(study: str | None, database: str | None, as_json: bool) -> None:
    """List submissions, the newest first, and what was released about each."""
    from easeml_core.services.models.submission import list_submissions

    entries = list_submissions(open_store(database), study=study)
    if as_json:
        show_json(entries)
        return
    columns = {"No.": "submission_id"} | ({} if study else {"Study": "study"}) | {"Model": "model_id", "Kind": "kind"}
    columns |= {"State": "state", "Right": "validation_quality"}
    if any(entry.bundle for entry in entries):
        columns |= {"Bundle": "bundle", "Version": "bundle_version"}
    columns |= {"Message": "message"}
    show_table("Submissions", columns, entries)
