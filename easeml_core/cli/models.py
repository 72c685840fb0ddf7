"""``easeml model``: which models a study has, what trained them, what is in production, and how it comes there."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

import click

from easeml_core.cli.answers import wait_for_answer
from easeml_core.cli.connection import database_option, open_store
from easeml_core.cli.names import STUDY
from easeml_core.cli.output import cell, example, json_option, plain, show_json, show_table
from easeml_core.errors import InvalidInputError, NotFoundError, StateError, counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from easeml_core.store.database import Store

_REFEREE = "easeml_referee"
_NO_ANSWER = "is the referee running? It stays filed"


@click.group(epilog=example("easeml model list flowers", "easeml model promote flowers 7"))
def model() -> None:
    """Models of a study: list, show, meter, promote, roll back.

    With the address of the role easeml_referee (`easeml db url --role easeml_referee` prints that of the embedded
    server) a change is made at once; with any other, the referee's process is asked and its answer waited for.
    """


def _waiting(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every command that asks for a change."""
    for option in (
        click.option("--request-key", help="Makes the call repeatable; default: a new one."),
        click.option("--timeout", default=60.0, show_default=True, help="Seconds to wait for the referee's answer."),
    ):
        command = option(command)
    return command


@model.command("list", epilog=example("easeml model list flowers"))
@click.argument("study", type=STUDY)
@database_option
@json_option
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
    columns = {
        "Model": "model_id",
        "Origin": "origin",
        "Right": "validation_quality",
        "Data": "data_version",
        "Verdict": "verdict",
        "Request": "gate_request_id",
        "Stands": "production",
        "Last move": "move",
    }
    shown = [entry | {"production": "now" if entry["in_production"] else "", "move": _move(entry)} for entry in found]
    show_table(f"Models of {study}", columns, shown)


@model.command(epilog=example("easeml model show flowers 7", "easeml model show flowers 7 --json"))
@click.argument("study", type=STUDY)
@click.argument("model_id", type=int)
@database_option
@json_option
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
    trained = found.pop("trained_by") or {}
    shown = found | {f"trained by {name.replace('_', ' ')}": value for name, value in trained.items()}
    if not trained and found["origin"] == "trial":
        shown["trained by"] = "not recorded: the trial was claimed by a version of easeml that kept no record"
    for name, value in shown.items():
        text = json.dumps(value, sort_keys=True) if isinstance(value, dict) else cell(value)
        click.echo(f"{name.replace('_', ' '):>24}  {plain(text)}")


def _move(entry: dict[str, Any]) -> str:
    """How the model last came into production: when, by what kind of move, on whose word, and why."""
    if entry["moved_by"] is None:
        return ""
    words = ": ".join(word for word in (entry["who"], entry["why"]) if word)
    return f"{entry['moved_by']} {entry['promoted_at'][:16]}" + (f" ({words})" if words else "")


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
@database_option
@json_option
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
    from easeml_core.services.referee.requests import file_forced_promotion, file_promotion

    store = open_store(database)
    given: dict[str, Any] = {"study": study, "model_id": model_id, "request_key": request_key or f"cli/{uuid.uuid4()}"}
    if force:
        if gate_request_id is not None:
            message = "--force goes without --request: it stands on a person's word"
            raise InvalidInputError(message)
        if not who or not why:
            message = "--force stands on a person's word: say who it is with --who, and the reason with --why"
            raise InvalidInputError(message)
        given |= {"who": who, "why": why}
        filed = file_forced_promotion(store, **given, directly=_is_referee(store))
    else:
        if gate_request_id is None:
            gate_request_id = _last_verdict(store, study, model_id)
        filed = file_promotion(store, **given, gate_request_id=gate_request_id, directly=_is_referee(store))
    _show_answer(store, filed["request_id"], timeout, as_json)


@model.command(epilog=example("easeml model rollback flowers --why 'answers got slow'"))
@click.argument("study", type=STUDY)
@click.option("--to", "model_id", type=int, help="The model; default: what stood before the one that is there now.")
@click.option("--why", required=True, help="The reason, kept for good.")
@_waiting
@database_option
@json_option
def rollback(
    study: str,
    model_id: int | None,
    why: str,
    request_key: str | None,
    timeout: float,
    database: str | None,
    as_json: bool,
) -> None:
    """Put a model back into production that was there before."""
    from easeml_core.services.referee.requests import file_rollback

    store, key = open_store(database), request_key or f"cli/{uuid.uuid4()}"
    given: dict[str, Any] = {"study": study, "model_id": model_id, "why": why, "request_key": key}
    filed = file_rollback(store, **given, directly=_is_referee(store))
    _show_answer(store, filed["request_id"], timeout, as_json)


@model.command(epilog=example("easeml model meter flowers 7"))
@click.argument("study", type=STUDY)
@click.argument("model_id", metavar="[MODEL_ID]", type=int, required=False)
@click.option(
    "--team", type=int, default=1, show_default=True, help="Whose submission it is, where K teams share a set."
)
@_waiting
@database_option
@json_option
@click.pass_context
def meter(
    context: click.Context,
    study: str,
    model_id: int | None,
    team: int,
    request_key: str | None,
    timeout: float,
    database: str | None,
    as_json: bool,
) -> None:
    """Ask how far the validation set flatters model MODEL_ID of STUDY: one signal, from 1 (little) upwards.

    Without MODEL_ID it is the best one that the study has trained. Each answer about another model uses one step of the
    live meter set. With a second validation sample a second signal tells tuning from drift.

    Exit status: 0 a signal, 1 a refusal, or a set that is retired instead, 2 any error, 130 interrupted.
    """
    asked: dict[str, Any] = {"study": study, "model_id": model_id, "team": team}
    asked["request_key"] = request_key or f"cli/{uuid.uuid4()}"
    context.exit(_meter(open_store(database), asked, timeout, as_json))


def _meter(store: Store, asked: dict[str, Any], timeout: float, as_json: bool) -> int:
    from easeml_core.services.referee.requests import file_meter_request

    filed = file_meter_request(store, **asked)
    answer = wait_for_answer(store, filed["request_id"], timeout, _NO_ANSWER)
    if as_json:
        show_json(answer)
    elif answer["refused"]:
        click.echo(answer["message"])
    else:
        _tell_reading(answer)
    return 1 if answer["refused"] or answer["retired"] else 0


def _tell_reading(answer: dict[str, Any]) -> None:
    """The signal in words, what is left of the set, what two signals mean together, and the alert that was raised."""
    left = answer["submissions_left"]
    rest = "" if left is None else f"; {counted(left, 'submission')} left"
    meaning = f": {answer['meaning']}" if answer["meaning"] and answer["direct_signal"] is None else ""
    click.echo(f"{answer['message']}{meaning}{rest}")
    for line in (answer["sentence"], answer["alert"]):
        if line:
            click.echo(line)


def _last_verdict(store: Store, study: str, model_id: int) -> int:
    """The gate request that last gave a verdict on the model."""
    from easeml_core.services.models.promotion import model_list

    requests = {entry["model_id"]: entry["gate_request_id"] for entry in model_list(store, study=study)}
    if model_id not in requests:
        kind = f"model of study {study!r}"
        raise NotFoundError(kind, model_id, remedy=f"see `easeml model list {study}`")
    if requests[model_id] is None:
        message = (
            f"the gate has given no verdict on model {model_id} of study {study!r}; ask it first, or use --force with "
            "--who and --why"
        )
        raise StateError(message)
    return int(requests[model_id])


def _is_referee(store: Store) -> bool:
    """Whether the address is the referee's."""
    from easeml_core.store.tables.requests import role

    with store.begin() as tx:
        return role(tx) == _REFEREE


def _show_answer(store: Store, request_id: int, timeout: float, as_json: bool) -> None:
    """Wait for the answer and print it; a refusal is an error."""
    answer = _answer(store, request_id, timeout)
    show_json(answer) if as_json else click.echo(answer["message"])


def _answer(store: Store, request_id: int, timeout: float) -> dict[str, Any]:
    answer = wait_for_answer(store, request_id, timeout, _NO_ANSWER)
    if answer["refused"]:
        raise StateError(answer["message"])
    return answer
