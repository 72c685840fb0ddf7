"""The next steps of each study, or of all, with reasons; on the pages and in ``easeml next``.

The overview's one sentence is the first step of a study. The sentences about candidates that wait for an
implementation, for a task with their function, or for its repair are here, too.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from operator import itemgetter
from typing import TYPE_CHECKING

from easeml_core.entities import AlertKind, SealedSetPurpose, StudyState, implementation_text
from easeml_core.errors import NotFoundError, counted
from easeml_core.formats.display import device_time
from easeml_core.formats.encoding import row_of, typed_record
from easeml_core.meter.validation_set import ValidationState, ValidationUse
from easeml_core.meter.validation_set import validation_report as report_on
from easeml_core.services.reports.assessments import assess_changes
from easeml_core.services.reports.recommendations import Severity, Step, StepKind, page_of, steps_of, to_run
from easeml_core.services.selection.policy import current_config
from easeml_core.services.test_sets.answers import meter_settings_of
from easeml_core.settings.config import MeterConfig
from easeml_core.store.logins import is_tenant
from easeml_core.store.queries import assessments, overview
from easeml_core.store.queries.assessments import KindOfNeed
from easeml_core.store.queries.study import CandidateWait, WaitKind, candidate_waits
from easeml_core.store.tables import releases, studies, validation_sets

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from sqlalchemy import Connection

    from easeml_core.store.database import Store
    from easeml_core.store.queries.overview import Promise, StudySummary
    from easeml_core.store.queries.study import CandidateWait
    from easeml_core.store.tables.releases import Alert


_FEW = 3
"""Candidates that a sentence names."""


@dataclass(frozen=True, slots=True)
class StudyWaits:
    """What the candidates of one study wait for.

    Attributes:
        missing: Implementations that nothing which asks for trials has.
        functions: Training functions that a task must execute, whether one has asked or not.
        repairs: Tasks that failed.
    """

    missing: list[CandidateWait] = field(default_factory=list)
    functions: list[CandidateWait] = field(default_factory=list)
    repairs: list[CandidateWait] = field(default_factory=list)

    def need_a_person(self) -> list[str]:
        """Return the sentences about what no caller can execute, and about tasks that wait for a repair."""
        of_function = {wait.implementation: function_sentence(wait) for wait in self.functions}
        missing = [of_function.get(wait.implementation) or _missing_sentence(wait) for wait in self.missing]
        return [*missing, *map(_repair_sentence, self.repairs)]

    def every(self) -> list[str]:
        """Return all sentences, also about functions that no task has executed yet."""
        return list(dict.fromkeys([*self.need_a_person(), *map(function_sentence, self.functions)]))


def waits_of_studies(tx: Connection, names: Collection[str]) -> dict[str, StudyWaits]:
    """Return what candidates of these studies wait for; a study of which none waits is left out."""
    found: dict[str, StudyWaits] = {}
    for wait in candidate_waits(tx, names=names):
        of_study = found.setdefault(wait.study, StudyWaits())
        of_kind = {
            WaitKind.IMPLEMENTATION: of_study.missing,
            WaitKind.FUNCTION: of_study.functions,
            WaitKind.REPAIR: of_study.repairs,
        }
        of_kind[wait.kind].append(wait)
    return found


def waits_of(tx: Connection, study: str) -> list[str]:
    """Return all sentences about the waits of one study's candidates."""
    return waits_of_studies(tx, [study]).get(study, StudyWaits()).every()


def studies_with_waits(tx: Connection, names: Collection[str] | None) -> list[str]:
    """Return the studies, in order, with candidates that no caller can execute or whose task waits for a repair."""
    return sorted({wait.study for wait in candidate_waits(tx, names=names, functions=False)})


def _missing_sentence(wait: CandidateWait) -> str:
    count, verb = counted(wait.candidates, "candidate"), "waits" if wait.candidates == 1 else "wait"
    named = implementation_text(wait.implementation or "")
    return f"{count} {verb} for an implementation: no DAG or device that asks has {named}"


def _repair_sentence(wait: CandidateWait) -> str:
    count, verb = counted(wait.candidates, "candidate"), "waits" if wait.candidates == 1 else "wait"
    return f"{count} {verb} since their task failed: repair it, then `easeml trial retry {wait.trials[0]}`"


def function_sentence(wait: CandidateWait) -> str:
    """Return which candidates wait for a training function, when a task with it last asked, and what to do."""
    named, names = (wait.implementation or "").partition(":")[2], wait.names
    listed = ", ".join(names[:_FEW]) + (f" and {len(names) - _FEW:,} more" if len(names) > _FEW else "")
    who = f"candidate {listed} waits" if len(names) == 1 else f"candidates {listed} wait"
    asked = wait.asked_at
    last = "none has asked yet" if asked is None else f"one last asked on {asked.astimezone(UTC):%Y-%m-%d at %H:%M} UTC"
    return (
        f"{who} for a task that executes function {named!r} ({last}; `easeml device run` cannot): map "
        f"`TrainTrialOperator(functions=[{named}])` or the @trial function over the trials, or "
        f"`easeml candidate withdraw {wait.study} {names[0]} --why 'renamed'`"
    )


MOST_IN_DETAIL = 50
"""Largest number of studies whose last promise and validation set are read, too: some queries each."""

_ALERTED = {
    AlertKind.OVERFITTING: (StepKind.OVERFITTING,),
    AlertKind.DRIFT: (StepKind.DRIFT,),
    AlertKind.NEW_TEST_SET: (StepKind.NO_SET, StepKind.SET_SERVED),
}
_ORDER = {kind: place for place, kind in enumerate(StepKind)}
_WORST = {severity: place for place, severity in enumerate(Severity)}


@typed_record
class NextStep:
    """A step of one study, or of the whole installation.

    Attributes:
        study: None of a step that several studies share; likewise ``tenant``.
        kind: What it is about.
        severity: ``bad`` and ``warn`` need a person.
        title: A few words, without the study's name.
        why: The reason, with its numbers.
        act: What to do.
        page: Path below the pages' own; empty for none.
        command: The same in the command line; empty where there is none.
        since: Since when; None where that is not known.
    """

    study: str | None
    tenant: str | None
    kind: StepKind
    severity: Severity
    title: str
    why: str
    act: str
    page: str
    command: str
    since: datetime | None


def next_steps(
    store: Store,
    *,
    studies_only: Collection[str] | None = None,
    limit: int = 1000,
    needs_only: bool = False,
) -> list[NextStep]:
    """Return the next steps, worst first; those of the whole installation once, and without a study."""
    assess_changes(store)
    with store.begin() as tx:
        if is_tenant(tx):  # its login writes no assessment, and sees few studies
            entries = overview.study_summaries(tx, names=studies_only)
        else:
            names = assessments.worst_first(tx, limit=limit) if studies_only is None else studies_only
            entries = assessments.kept_summaries(tx, names)
        missing = sorted(set(studies_only or ()) - {e.study for e in entries})
        for name in missing:
            if studies.get_study(tx, name).state is not StudyState.ARCHIVED:  # else raises with the known names
                raise NotFoundError(kind="study", name=name)
        found = _shared(steps_of_all(tx, entries, in_detail=not needs_only))
    return [step for step in found if not needs_only or step.severity != Severity.INFO][:limit]


def steps_of_all(tx: Connection, entries: Sequence[StudySummary], *, in_detail: bool = False) -> list[NextStep]:
    """Return the steps of these studies, worst first."""
    alerts = _newest_alerts(tx, entries)
    detailed = in_detail and len(entries) <= MOST_IN_DETAIL
    promises = overview.promises(tx, [e.study for e in entries]) if detailed else {}
    price = current_config(tx).price_per_second if promises else 0.0
    waits = waits_of_studies(tx, [e.study for e in entries])
    found: list[NextStep] = []
    for entry in entries:
        steps = [_with_alert(step, alerts.get(entry.study, {})) for step in steps_of(entry)]
        waiting = waits.get(entry.study, StudyWaits())
        steps = [_with_functions(step, entry, waiting.functions if to_run(entry) > 0 else []) for step in steps]
        if detailed:
            promise = promises.get(entry.study)
            steps = [_with_promise(step, promise, price) for step in steps] + _validation(tx, entry)
        if sentences := waiting.need_a_person():
            steps.append(_waiting(entry, sentences))
        found += [NextStep(study=entry.study, tenant=entry.tenant, **row_of(step)) for step in steps]
    return sorted(found, key=_place)


def _place(step: NextStep) -> tuple[int, int, str]:
    return _WORST[step.severity], _ORDER[step.kind], step.study or ""


def _shared(steps: Sequence[NextStep]) -> list[NextStep]:
    """Return the steps with one step for all studies where the referee does not answer."""
    silent = [(step.since, step) for step in steps if step.kind == StepKind.REFEREE and step.since is not None]
    if len(silent) < 2:
        return list(steps)
    _, first = min(silent, key=itemgetter(0))
    rest = [step for step in steps if step.kind != StepKind.REFEREE]
    return sorted([of_all(first, len(silent)), *rest], key=_place)


def of_all(step: NextStep, number: int) -> NextStep:
    """Return a step of the study that has waited longest as that of this number of studies."""
    why = f"requests of {number} studies wait; {step.why.partition('; ')[2]}"
    return replace(step, study=None, tenant=None, why=why, page="")


# -- what needs a person, of very many studies -------------------------------------------------------------------------


def kinds_of_needs(tx: Connection, names: Collection[str] | None) -> list[KindOfNeed]:
    """Return what these studies, or all, need a person for, worst first; of kept rows that are up to date."""
    found = assessments.kinds_of_needs(tx, names)
    if every := studies_with_waits(tx, names):
        kind = (str(StepKind.IMPLEMENTATION), str(Severity.WARN), len(every), None, _WAITING)
        found.append(KindOfNeed(*kind, names=every[: assessments.NAMED], oldest=every[0]))
    return sorted(found, key=lambda k: (_WORST[Severity(k.severity)], _ORDER[StepKind(k.kind)]))


def count_needs(store: Store, names: Collection[str] | None) -> int:
    """Return how many things need a person, of these studies, or of all."""
    assess_changes(store)
    with store.begin(writes=False) as tx:
        return count_of(kinds_of_needs(tx, names))


def count_of(kinds: Sequence[KindOfNeed]) -> int:
    """Return the number of steps; that the referee does not answer is one."""
    return sum(1 if kind.kind == StepKind.REFEREE else kind.studies for kind in kinds)


def names_in_full(
    tx: Connection, kinds: Sequence[KindOfNeed], names: Collection[str] | None, *, few: int, limit: int
) -> list[str]:
    """Return the studies whose steps are shown in full."""
    found: list[str] = []
    is_whole = count_of(kinds) <= limit
    for kind in kinds:
        if kind.kind == StepKind.REFEREE:
            found.append(kind.oldest)
        elif kind.studies <= len(kind.names) and (is_whole or kind.studies <= few):
            found += kind.names
        elif is_whole:
            found += assessments.in_need(tx, kind.kind, names, limit=limit)
    return list(dict.fromkeys(found))


# -- beyond the row of the overview ------------------------------------------------------------------------------------


def _newest_alerts(tx: Connection, entries: Sequence[StudySummary]) -> dict[str, dict[AlertKind, Alert]]:
    """Return the newest open alert of each study by kind."""
    alarmed = [e.study for e in entries if e.open_alerts]
    if not alarmed:
        return {}
    found: dict[str, dict[AlertKind, Alert]] = {}
    for alert in releases.list_alerts(tx, None, open_only=True, studies=alarmed):
        found.setdefault(alert.study, {})[alert.kind] = alert
    return found


def _with_alert(step: Step, alerts: Mapping[AlertKind, Alert]) -> Step:
    """Return a step about an alert in the alert's own words, with its time."""
    kind = next((kind for kind, steps in _ALERTED.items() if step.kind in steps), None)
    alert = alerts.get(kind) if kind is not None else None
    if alert is None or (kind is AlertKind.NEW_TEST_SET and str(alert.purpose) not in step.page):
        return step if alert is None else replace(step, since=alert.created_at)
    message = alert.message.removeprefix(f"{alert.study}: ").partition(" (`")[0]
    return replace(step, why=message, since=alert.created_at)


def _with_promise(step: Step, promise: Promise | None, price: float) -> Step:
    """Add what the last choice promised, where the search goes on, and whether it is worth its price."""
    if promise is None or step.kind is not StepKind.COMPUTE or not step.act.startswith(("train", "wait: trials")):
        return step
    gain, seconds = promise.gain, promise.seconds
    raised = "under +0.0001" if 0 < gain < 0.00005 else f"{gain:+.4f}"  # a small gain is not shown as none
    words = f"the last choice, {promise.candidate}, promised {raised} for {device_time(seconds)}"
    if price > 0:
        least = price * seconds
        worth = "worth it" if gain >= least else "not worth it"
        words += f", {worth} at {price:g} a second ({least:.4f})"
    return replace(step, why=f"{step.why}; {words}")


def _with_functions(step: Step, entry: StudySummary, waits: Sequence[CandidateWait]) -> Step:
    """Say which candidates wait for tasks with their functions, and advise a device only where it can run one."""
    if not waits or step.kind is not StepKind.COMPUTE or not step.command.startswith("easeml device run"):
        return step
    sentences = "; ".join(function_sentence(wait) for wait in waits)
    if any(wait.has_others for wait in waits):
        return replace(step, why=f"{step.why}; {sentences}")
    return replace(step, why=f"{step.why}; {sentences}", command=f"easeml study show {entry.study}")


_WAITING = "candidates wait for what executes them"


def _waiting(entry: StudySummary, sentences: Sequence[str]) -> Step:
    """Return that candidates wait for an implementation or for a repair of their task."""
    return Step(
        StepKind.IMPLEMENTATION,
        Severity.WARN,
        _WAITING,
        "; ".join(sentences),
        "let a DAG that asks execute them, or mend the task and retry its trials",
        page_of(entry),
        f"easeml study show {entry.study}",
    )


def _validation(tx: Connection, entry: StudySummary) -> list[Step]:
    """Return whether its validation set is used up: by signals of the meter, or by more looks than its size allows."""
    if entry.state not in (StudyState.ACTIVE, StudyState.PAUSED):
        return []
    study = studies.get_study(tx, entry.study)
    part = validation_sets.validation_parts(tx, study.id)[-1]
    live = releases.live_test_set(tx, study.id, SealedSetPurpose.METER)
    config = MeterConfig.from_json(study.config["meter"]) if live is None else meter_settings_of(live)
    found = validation_sets.readings(tx, study.id, part) if config.teams == 1 else []
    signals = [r.signal for r in found if meter_settings_of(r).ranges == config.ranges]
    report = report_on(ValidationUse(part.rows, part.looks(), signals), config)
    if report.state is not ValidationState.WORN:
        return []
    why = f"{part.rows:,} rows were looked at {sum(part.looks().values()):,} times"
    why += f"; the last signal is {signals[-1]} of {len(config.ranges) + 1}" if signals else ""
    command = f"easeml validation show {study.name}"
    title, page = "the validation set is worn", page_of(entry, "/data")
    return [Step(StepKind.VALIDATION, Severity.INFO, title, why, report.advice, page, command, part.created_at)]
