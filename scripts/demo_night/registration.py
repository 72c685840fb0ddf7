"""Register the demo's studies, each once: most through the service, one as a person would, through the DAG's form."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from stack.failures import NightError

from demo_night.runs import await_dag, follow, require_no_broken_tasks
from demo_night.tenants import BY_FORM, WISHES, Wish
from easeml_core.entities import StudyState
from easeml_core.services.referee.requests import answer_of
from easeml_core.services.registration.register import register_study
from easeml_core.services.reports.overview import overview

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stack.progress import Progress
    from stack.rest import Rest

    from easeml_core.store.database import Store

FORM_DAG = "easeml_register_study"
PATIENCE_SECONDS = 180.0


def registered(store: Store) -> set[str]:
    """Names of the demo's studies that there are.

    Raises:
        NightError: If one of them was refused before.
    """
    ours = {w.study for w in (*WISHES, BY_FORM)}
    present = [entry for entry in overview(store).tenants if entry.study in ours]
    for entry in present:
        if entry.state == StudyState.REFUSED:
            message = f"study {entry.study} was refused earlier: {entry.refusal}; remove .easeml to begin anew"
            raise NightError(message)
    return {entry.study for entry in present}


def register_by_service(store: Store, wishes: Sequence[Wish]) -> dict[str, int]:
    """File the registrations; study name to the request that the referee answers."""
    return {w.study: register_study(store, **w.arguments(), request_key=f"demo/{w.study}").request_id for w in wishes}


def await_answers(
    store: Store, requests: dict[str, int], check: Callable[[], None], tell: Callable[[str], None]
) -> dict[str, str]:
    """Wait for the referee; study name to its public message.

    Raises:
        NightError: If a study was refused, or there is no answer in time.
    """
    messages: dict[str, str] = {}
    deadline = time.monotonic() + PATIENCE_SECONDS
    while waiting := [study for study in requests if study not in messages]:
        check()
        tell(f"the referee splits and seals {waiting[0]}, {len(waiting)} to go")
        answer = answer_of(store, requests[waiting[0]])
        if answer is not None:
            if answer.refused:
                message = f"study {waiting[0]} was refused: {answer.message}"
                raise NightError(message)
            messages[waiting[0]] = str(answer.message)
        elif time.monotonic() > deadline:
            message = f"the referee has not sealed {', '.join(waiting)} within {PATIENCE_SECONDS:.0f} s"
            raise NightError(message)
        else:
            time.sleep(0.2)
    return messages


def register_by_form(rest: Rest, wish: Wish, check: Callable[[], None], tell: Callable[[str], None]) -> None:
    """Trigger the registration DAG as its form would, and wait for it.

    Raises:
        BrokenTasksError: If the run fails.
    """
    await_dag(rest, FORM_DAG, check)
    rest.pause(FORM_DAG, False)
    run_id = rest.trigger(FORM_DAG, wish.arguments())
    for state, _ in follow(rest, FORM_DAG, run_id, check):
        tell(f"run {run_id}, {state}")
    require_no_broken_tasks(rest, FORM_DAG, run_id)


def register_missing(store: Store, rest: Rest, progress: Progress, check: Callable[[], None]) -> list[str]:
    """Register what is not there yet; gives the names of the new studies."""
    present = registered(store)
    missing = [w for w in WISHES if w.study not in present]
    if missing:
        with progress.step(f"register {len(missing)} studies; the referee seals their test sets") as tell:
            await_answers(store, register_by_service(store, missing), check, tell)
    new = [w.study for w in missing]
    if BY_FORM.study not in present:
        with progress.step(f"register one more, {BY_FORM.study}, through the form of {FORM_DAG}") as tell:
            register_by_form(rest, BY_FORM, check, tell)
        new.append(BY_FORM.study)
    return new
