"""``easeml gate ask``: ask the referee about a model that a study has already, and wait for its answer."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import click

from easeml_core.cli.answers import GATE_MAY_WAIT, gate_passes, tell_gate_answer, wait_for_answer
from easeml_core.cli.connection import database_option, open_store
from easeml_core.cli.names import STUDY
from easeml_core.cli.output import example, json_option, show_json

if TYPE_CHECKING:
    from easeml_core.store.database import Store


@click.command(epilog=example("easeml gate ask flowers 7 --wait 60 --request-key nightly-7"))
@click.argument("study", type=STUDY)
@click.argument("model_id", metavar="[MODEL]", type=int, required=False)
@click.option(
    "--condition",
    help="Another condition than the set's, where its plan has answers for such; a pass is advice. Default: the set's.",
)
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=600.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for the answer; 0: only ask.",
)
@click.option("--request-key", metavar="K", help="The same key gives the same answer; default: a new one.")
@database_option
@json_option
@click.pass_context
def ask(
    context: click.Context, study: str, model_id: int | None, condition: str | None, wait: float,
    request_key: str | None, database: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Ask the gate whether model MODEL of STUDY may be promoted.

    Without MODEL it is the best one that the study has trained. Each answer about another model uses one step of the
    live set. Whoever stops waiting loses nothing: the request stands, and the same call with its key shows the answer.

    Exit status: 0 a pass or a verdict that is withheld (with --wait 0: asked), 1 a fail or a refusal, 2 any error,
    130 interrupted.
    """
    key = request_key or f"cli/{uuid.uuid4()}"
    asked: dict[str, Any] = {"study": study, "model_id": model_id, "condition": condition, "request_key": key}
    context.exit(_ask(open_store(database), asked, wait, as_json))


def _ask(store: Store, asked: dict[str, Any], wait: float, as_json: bool) -> int:
    from easeml_core.services.referee.requests import file_gate_request

    request_id = file_gate_request(store, **asked)["request_id"]
    told = {"study": asked["study"], "request_id": request_id, "request_key": asked["request_key"]}
    again = f"the same call with --request-key {asked['request_key']} shows its answer"
    if not as_json:  # at once: whoever stops waiting knows the request and its key
        later = f"waiting at most {wait:g} s for its answer; later {again}" if wait else again
        click.echo(f"the gate is asked, request {request_id}; {later}")
    if not wait:
        if as_json:
            show_json(told)
        return 0
    answer = wait_for_answer(store, request_id, wait, f"{GATE_MAY_WAIT}, {again}")
    show_json(told | {"answer": answer}) if as_json else tell_gate_answer(answer)
    return 0 if gate_passes(answer) else 1
