"""Register a study; the referee then splits its data, seals parts of it, and activates the study."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from easeml_core.data.sources.load import check_source
from easeml_core.data.sources.spec import checked_task
from easeml_core.data.split_spec import check_split
from easeml_core.entities import JsonObject, Parameters, RequestKind, StudyState, Task
from easeml_core.errors import AlreadyExistsError, InvalidInputError, StateError
from easeml_core.formats.encoding import to_json, typed_record
from easeml_core.gate.condition import parse_condition
from easeml_core.metrics.metric import CLASSES, METRICS, check_metric_name, metric_of, require_gate_metric
from easeml_core.programs.language import parse_program
from easeml_core.programs.templates import Demands, demands_of
from easeml_core.services.studies.candidates import COARSE, adding_command, is_same, named_candidates
from easeml_core.services.studies.limits import checked_study_limits
from easeml_core.services.test_sets.planning import (
    plan_for_gate,
    plan_for_meter,
    plan_joint,
    refuse_own_reliability,
    set_purposes,
    study_plan,
)
from easeml_core.settings.config import (
    DirectConfig,
    GateConfig,
    JointConfig,
    MeterConfig,
    TrainingConfig,
    require_known,
)
from easeml_core.store.tables import requests, scheduler_requests, studies

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from easeml_core.actions.studies import RegisterStudy
    from easeml_core.entities import Candidate, JsonObject, Parameters, Study
    from easeml_core.store.database import Store


_LIMITS = ("weight", "budget_seconds", "priority", "deadline", "target_quality")
_DEFAULT_METRIC = {Task.CLASSIFICATION: "accuracy", Task.REGRESSION: "r2"}


@dataclass(frozen=True, slots=True)
class Goal:
    """The goal of a study.

    Attributes:
        task: Whether classes or numbers are predicted.
        metric: By which candidates are compared; a name of ``metrics.metric``.
        hit: What counts as right on sealed sets: ``accuracy``, or ``within:T``.
        program: In canonical form; None where it follows from the data.
    """

    task: Task
    metric: str
    hit: str
    program: str | None


def checked_goal(
    *, task: str | None = None, metric: str | None = None, hit: str | None = None, program: str | None = None
) -> Goal:
    """Return the goal that the arguments state or imply.

    Example:
        >>> checked_goal(metric="rmse", hit="within:5")
        Goal(task=<Task.REGRESSION: 'regression'>, metric='rmse', hit='within:5.0', program=None)
    """
    parsed = parse_program(program) if program is not None and program.strip() else None
    demands = None if parsed is None else demands_of(parsed)
    found = _task(checked_task(task), metric, hit, demands)
    name = check_metric_name(metric or _DEFAULT_METRIC[found])
    canonical = None if parsed is None else str(parsed)
    return Goal(found, metric_of(name).name if _is_ours(name) else name, _hit(found, name, hit), canonical)


def _is_ours(metric: str) -> bool:
    """Whether the metric is built in; a function of the tenant's is only imported where tenants' code runs."""
    return metric in METRICS or metric.startswith("within:")


def _task(asked: Task | None, metric: str | None, hit: str | None, demands: Demands | None) -> Task:
    said: dict[str, Task] = {}
    if asked is not None:
        said[f"task {asked}"] = asked
    if demands is not None:
        said["the program"] = demands.task
    if metric is not None and _is_ours(check_metric_name(metric)):
        about_numbers = metric_of(metric).needs == "numbers"
        said[f"metric {metric}"] = Task.REGRESSION if about_numbers else Task.CLASSIFICATION
    if hit is not None and hit != CLASSES:
        said[f"hit {hit}"] = Task.REGRESSION
    if demands is not None and demands.are_scores and len(said) > 1:
        del said["the program"]  # a list of numbers means a class, unless the user says otherwise
    tasks = sorted(set(said.values()))
    if len(tasks) > 1:
        listed = "; ".join(f"{what}: {task}" for what, task in said.items())
        message = f"a study predicts classes or numbers, and here not all say the same: {listed}"
        raise InvalidInputError(message)
    return tasks[0] if tasks else Task.CLASSIFICATION


def _hit(task: Task, metric: str, hit: str | None) -> str:
    if task == Task.CLASSIFICATION:
        return CLASSES
    chosen = hit or (metric if metric.startswith("within:") else "")
    if not chosen:
        message = (
            "gate and meter count answers that are right, so a study that predicts numbers says how far off a right "
            "one may be: give hit 'within:T', with T in the unit of the target, e.g. within:0.5; candidates are still "
            f"compared by {metric}"
        )
        raise InvalidInputError(message)
    if not chosen.startswith("within:") and (chosen not in METRICS or chosen == CLASSES):
        message = f"hit must be within:T where numbers are predicted, T > 0 in the unit of the target, got {chosen!r}"
        raise InvalidInputError(message)
    return metric_of(require_gate_metric(chosen)).name


_Config = TypeVar("_Config", GateConfig, MeterConfig, JointConfig, DirectConfig, TrainingConfig)


@typed_record
class RegisteredStudy:
    """A study that was registered, and the request to split and seal its data."""

    study: str
    study_id: int
    request_id: int


@typed_record
class KeptStudy(RegisteredStudy):
    """A study that was there already and was kept.

    Attributes:
        differs: Sentences about candidates and settings that the call states and the study has otherwise.
    """

    differs: tuple[str, ...]


@typed_record
class StudyStateReport:
    """A study and the state that it has now."""

    study: str
    state: StudyState


def register_study(store: Store, request: RegisterStudy, *, request_key: str) -> RegisteredStudy:
    """Register a study and ask the referee to split and seal its data.

    Args:
        store: Role ``easeml_worker``.
        request: The study; its tenant is made when new.
        request_key: Makes the call repeatable: the same key gives the same study.

    Returns:
        The study; the request is the referee's, wait for its answer. ``KeptStudy`` for one that was kept.

    Raises:
        InvalidInputError: A setting, a candidate, the source or the condition is not allowed, or the request key has
            made another study.
        AlreadyExistsError: Another request has registered a study of this name.
    """
    tenant, study = request.tenant, request.study
    goal = checked_goal(task=request.task, metric=request.metric, hit=request.hit, program=request.program)
    limits = checked_study_limits({name: getattr(request, name) for name in _LIMITS})
    check_source(request.source, request.target, goal.task, split=request.split)
    named = None if request.candidates is None else named_candidates(request.candidates, request.grid)
    parts = {name: getattr(request, name) for name in ("gate", "meter", "training", "joint", "direct")}
    config = study_settings(**parts)
    config = {**config, "split": str(check_split(request.split)), "grid": request.grid}
    stated = {name: getattr(request, name) for name in ("source", "target", "task", "metric", "hit", "program")}
    usual = {"weight": 1.0, "priority": 0}  # the same as where nothing is stated
    fields = {name: getattr(goal, name, value) for name, value in stated.items() if value}
    fields |= {name: value for name, value in limits.items() if value is not None and value != usual.get(name)}
    parts |= {"split": request.split} | ({} if request.grid == COARSE else {"grid": request.grid})

    def kept(tx: Connection) -> KeptStudy:
        found = _standing(tx, tenant, study)
        differs = other_settings(found, fields, config, {name: given for name, given in parts.items() if given})
        differs += other_candidates(study, named or (), studies.list_candidates(tx, found.id))
        return KeptStudy(study, found.id, requests.seal_request_of(tx, found.id), tuple(differs))

    try:
        with store.begin() as tx:
            # Its name is free; what a DAG registers each night would come back each night.
            if request.keep and studies.is_archived(tx, tenant, study):
                return kept(tx)
            tenant_id = studies.add_tenant(tx, name=tenant)
            study_id = studies.add_study(
                tx,
                name=study,
                metric=goal.metric,
                task=goal.task,
                hit=goal.hit,
                program=goal.program,
                config=config,
                tenant_id=tenant_id,
                data_set_id=studies.add_data_set(
                    tx, tenant_id=tenant_id, source=request.source, target=request.target or ""
                ),
                request_key=request_key,
                **limits,
            )
            if study_id is None:
                study_id = _made_before(tx, request_key, study)
            else:
                studies.add_candidates(tx, study_id, named or [])
            request_id = requests.file_request(
                tx, kind=RequestKind.SEAL, study_id=study_id, model_id=None, arguments={}, request_key=request_key
            )
            return RegisteredStudy(study, study_id, request_id)
    except AlreadyExistsError:
        if not request.keep:
            raise
    with store.begin() as tx:
        return kept(tx)


def _standing(tx: Connection, tenant: str, study: str) -> Study:
    """Return the tenant's study that has the name already."""
    found = studies.get_study(tx, study)
    if found.tenant != tenant:
        raise AlreadyExistsError(kind="study", name=study, remedy="it is another tenant's; choose another name")
    return found


def _made_before(tx: Connection, request_key: str, study: str) -> int:
    found = studies.study_of_request(tx, request_key)
    if found.name != study:
        message = f"request key {request_key!r} has made the study {found.name!r}, not {study!r}; {requests.NEW_KEY}"
        raise InvalidInputError(message)
    return found.id


def study_settings(
    *,
    gate: Parameters | None,
    meter: Parameters | None,
    training: Parameters | None,
    joint: Parameters | None = None,
    direct: Parameters | None = None,
) -> JsonObject:
    """Return a study's settings as they are stored, checked: the condition parses and every set has a plan."""
    settings = {
        **_gate_and_meter(gate, meter, joint),
        "direct": None if direct is None else _config(DirectConfig, "direct", direct).to_json(),
        "training": _config(TrainingConfig, "training", training).to_json(),
    }
    _require_plans(settings)
    return settings


def _gate_and_meter(gate: Parameters | None, meter: Parameters | None, joint: Parameters | None) -> JsonObject:
    """Return the settings of gate and meter, with the shares that follow from a joint set."""
    gate_config, meter_config = _config(GateConfig, "gate", gate), _config(MeterConfig, "meter", meter)
    shared = None
    if joint is not None:
        for name, given in (("gate", gate), ("meter", meter)):
            refuse_own_reliability(name, given)
        if isinstance(joint, Mapping):
            require_known("joint", joint, ("reliability", "gate_share"))
            joint = {"gate": gate_config, "meter": meter_config, **joint}
        config = _config(JointConfig, "joint", joint)
        gate_config, meter_config = config.gate, config.meter
        shared = {"reliability": config.reliability, "gate_share": config.gate_share}
    condition = str(parse_condition(gate_config.condition))
    return {"gate": gate_config.to_json() | {"condition": condition}, "meter": meter_config.to_json(), "joint": shared}


def _require_plans(settings: JsonObject) -> None:
    """Require a plan for every set that the study's data will be cut into."""
    for purpose in set_purposes(settings):
        config = study_plan(settings, purpose)
        if isinstance(config, JointConfig):
            plan_joint(config)
        elif isinstance(config, GateConfig):
            plan_for_gate(config)
        else:
            plan_for_meter(config)


def _config(kind: type[_Config], name: str, values: Parameters | None) -> _Config:
    """Return the settings of one kind, from a form or a file."""
    given: Any = {} if values is None else values
    try:
        if isinstance(given, Mapping):
            return kind.from_json(given)
        reason = f"it is a {type(given).__name__}"
    except TypeError as error:  # a word where a number belongs
        reason = str(error)
    message = f"{name} must be a mapping such as {kind().to_json()!r}, got {values!r}: {reason}"
    raise InvalidInputError(message)


def pause_study(store: Store, *, study: str, paused: bool) -> StudyStateReport:
    """Pause an active study, or resume a paused one; it gets no new trial while paused."""
    with store.begin() as tx:
        found = studies.get_study(tx, study)
        wanted, needed = (StudyState.PAUSED, StudyState.ACTIVE) if paused else (StudyState.ACTIVE, StudyState.PAUSED)
        if found.state == needed:
            studies.set_study_state(tx, found.id, wanted)
        elif found.state != wanted:
            message = (
                f"study {study!r} is {found.state}; only one that is {needed} can be "
                f"{'paused' if paused else 'resumed'}; `easeml study show {study}` says what to do"
            )
            raise StateError(message)
    scheduler_requests.wait_until_made(store, study_id=found.id)
    return StudyStateReport(study, wanted)


_GONE = (StudyState.REFUSED, StudyState.ARCHIVED)


def study_names(store: Store, *, limit: int = 1000) -> list[str]:
    """Return the names of studies that were neither refused nor archived, in alphabetical order, so many at most."""
    with store.begin() as tx:
        found = studies.list_studies(tx)
    return sorted({study.name for study in found if study.state not in _GONE})[:limit]


MOST_NAMED = 10
"""Candidates for which a sentence is written; of more, the number."""


def other_candidates(study: str, wanted: Sequence[Parameters], there: Sequence[Candidate]) -> list[str]:
    """Return sentences about candidates that the study lacks or has otherwise, with the commands that add them."""
    by_name = {candidate.name: candidate for candidate in there}
    missing = [c for c in wanted if c["name"] not in by_name]
    found = [
        f"the study lacks candidate {candidate['name']!r}; add it: `{adding_command(study, candidate)}`"
        for candidate in missing[:MOST_NAMED]
    ]
    changed = [c for c in wanted if c["name"] in by_name and not is_same(c, by_name[c["name"]])]
    for candidate in changed[:MOST_NAMED]:
        name, has = candidate["name"], by_name[candidate["name"]]
        other = {**candidate, "name": f"{name}-v2"}
        found.append(
            f"candidate {name!r} is {_text(has.kind, has.parameters, has.devices)} in the study, and here "
            f"{_text(candidate['kind'], candidate.get('parameters'), candidate.get('devices'))}; a candidate stays as "
            f"it was added, so add another one: `{adding_command(study, other)}`"
        )
    left = max(0, len(missing) - MOST_NAMED) + max(0, len(changed) - MOST_NAMED)
    return [*found, f"{left:,} more candidates differ: `easeml study show {study}`"] if left else found


def other_settings(found: Study, wanted: Mapping[str, Any], config: JsonObject, given: Mapping[str, Any]) -> list[str]:
    """Return sentences about settings that the study has otherwise."""
    pairs = {name: (getattr(found, name), value) for name, value in wanted.items()}
    for name, stated in given.items():
        has, would = found.config.get(name), config[name]
        if isinstance(stated, Mapping) and isinstance(would, Mapping):
            known = has if isinstance(has, Mapping) else {}
            pairs |= {f"{name}.{key}": (known.get(key), would[key]) for key in stated if key in would}
        else:
            pairs[name] = (has, would)
    # A tuple is stored as a list.
    told = [(name, (to_json(has), to_json(value))) for name, (has, value) in pairs.items()]
    return [f"{name} is {has} in the study, and here {value}" for name, (has, value) in told if has != value]


def _text(kind: str, parameters: Parameters | None, devices: Sequence[str] | None) -> str:
    on = "" if devices is None else f" on {', '.join(devices)}"
    return f"{kind} {json.dumps(parameters or {})}{on}"
