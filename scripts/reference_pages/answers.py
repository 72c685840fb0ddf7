"""JSON Schemas of public answers: ``--json`` of the commands, routes of the API, XComs of the tasks.

An answer has a schema once its class is named in TYPED; an answer that is still a mapping is listed by its name.
"""

from __future__ import annotations

import inspect
import json
import re
from functools import reduce
from importlib import import_module
from operator import or_
from types import GenericAlias
from typing import TYPE_CHECKING, Any

import click

from easeml_core.actions.action import action_of, schema_of
from easeml_core.actions.studies import ACTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastapi.routing import APIRoute


CLI, SERVICES, STORE = "easeml_core.cli", "easeml_core.services", "easeml_core.store"
API, PAGES = "/api/v1/studies/{study}", "easeml_airflow.web.server.service"
QUESTIONS = "easeml_airflow.triggers.questions"
CANDIDATES = f"{SERVICES}.studies.candidates"

TYPED = {
    f"GET {API}/feeds": f"{PAGES}:Feeds",
    f"GET {API}/refine": f"{SERVICES}.datasets.refine:PairList",
    f"GET {API}/requests/{{request_id}}": f"{PAGES}:RefreshAnswer",
    "POST /api/v1/tenants/{tenant}/studies/{study}": f"{SERVICES}.registration.register:RegisteredStudy",
    f"POST {API}/feed": f"{SERVICES}.datasets.feed:FeedReceipt",
    f"POST {API}/infer": f"{SERVICES}.models.inference:InferredAnswers",
    f"POST {API}/refine": f"{PAGES}:Refined",
    "XCom of BestModelsOperator": f"list {STORE}.tables.models:BestModel",
    "XCom of FedStudiesOperator": "list builtins:str",
    "XCom of FeedOperator": f"{SERVICES}.datasets.feed:FeedReceipt",
    "XCom of ForcePromotionOperator": f"{SERVICES}.referee.answers:MoveAnswer",
    "XCom of GateOperator": f"{SERVICES}.referee.answers:VerdictAnswer",
    "XCom of InferOperator": f"{SERVICES}.models.inference:InferenceResult",
    "XCom of ListDevicesOperator": "list builtins:str",
    "XCom of ListStudiesOperator": "list builtins:str",
    "XCom of MeterOperator": f"{SERVICES}.referee.answers:ReadingAnswer",
    "XCom of MlflowSyncOperator": f"list {SERVICES}.operations.mlflow_sync:MirrorReport",
    "XCom of NewTestSetSensor": f"{STORE}.tables.releases:Alert",
    "XCom of NotifyOperator": "easeml_airflow.operators.notify:SentNotifications",
    "XCom of OverfittingMeterSensor": f"{STORE}.tables.releases:Alert | {QUESTIONS}:NoAlert",
    "XCom of PauseOnAlertOperator": f"{SERVICES}.meter.alerts:PausedStudy",
    "XCom of PromoteModelOperator": f"{SERVICES}.referee.answers:MoveAnswer",
    "XCom of RefineOperator": f"{SERVICES}.referee.answers:RefreshedAnswer",
    "XCom of RegisterStudyOperator": "easeml_core.entities:GivenAnswer",
    "XCom of RollbackModelOperator": f"{SERVICES}.referee.answers:MoveAnswer",
    "XCom of RunDeviceOperator": f"{SERVICES}.trials.worker:DeviceSummary",
    "XCom of SubmitModelOperator": f"{SERVICES}.models.submission:Submitted",
    "XCom of SuggestTrialsOperator": f"list {STORE}.tables.decisions:SuggestedTrial",
    "XCom of TestSetReadySensor": f"{QUESTIONS}:ReadySets",
    "XCom of TrainTrialOperator": f"{STORE}.tables.trials:TrialReport",
    "XCom of TrialFinishedSensor": f"{STORE}.tables.trials:TrialReport",
    "XCom of WaitingSubmissionsOperator": f"list {STORE}.tables.models:WaitingSubmission",
    "easeml alerts": f"list {STORE}.tables.releases:Alert",
    "easeml artifacts prune": f"{SERVICES}.studies.archive:PrunedModels",
    "easeml artifacts status": f"{SERVICES}.operations.artifact_store:ArtifactStatus",
    "easeml artifacts verify": f"{SERVICES}.operations.artifact_store:VerifiedFiles",
    "easeml audit": f"list {SERVICES}.reports.audit:AuditEvent",
    "easeml backtest": f"{SERVICES}.selection.backtest:BacktestReport",
    "easeml cache clear": f"{CLI}.operations.artifacts:Cleared",
    "easeml cache show": "easeml_core.files.cache:CacheReport",
    "easeml candidate add": f"list {CANDIDATES}:AddedCandidate | {CANDIDATES}:NamedCandidate",
    "easeml candidate pack": f"{CLI}.candidates:KeptProgram",
    "easeml candidate restore": f"{SERVICES}.studies.archive:WithdrawnCandidate",
    "easeml candidate withdraw": f"{SERVICES}.studies.archive:WithdrawnCandidate",
    "easeml completion": f"{CLI}.app:CompletionScript",
    "easeml costs": "easeml_core.selection.costs.learn:CostReport",
    "easeml dags copy": f"{SERVICES}.operations.example_dags:CopiedDags",
    "easeml db artifacts": f"{STORE}.artifacts.location:ArtifactPlace | None",
    "easeml db backup": f"{SERVICES}.operations.backup:WrittenBackup",
    "easeml db create": f"{SERVICES}.operations.creation:CreatedInstallation",
    "easeml db note-restart": f"{CLI}.operations.database:NotedRestart",
    "easeml db restore": f"{SERVICES}.operations.backup:RestoredBackup",
    "easeml db start": f"{CLI}.operations.database:ServerAddress",
    "easeml db upgrade": f"{CLI}.operations.database:Upgraded",
    "easeml db url": f"{CLI}.operations.database:RoleAddress",
    "easeml device announce": f"list {STORE}.tables.capacity:Device",
    "easeml device list": f"list {STORE}.tables.capacity:RegisteredDevice",
    "easeml device run": f"{SERVICES}.trials.worker:DeviceSummary",
    "easeml doctor": f"list {SERVICES}.operations.doctor:Check",
    "easeml evidence acknowledge": f"list {SERVICES}.evidence.verification:Finding",
    "easeml evidence keys": f"list {CLI}.operations.evidence:ListedKey",
    "easeml evidence rotate": f"{CLI}.operations.evidence:NextKey",
    "easeml evidence trust": f"{CLI}.operations.evidence:TrustedKey",
    "easeml evidence verify": f"{SERVICES}.evidence.notary:Report",
    "easeml explain": f"{SERVICES}.reports.decision:TrialExplanation",
    "easeml feed": f"{SERVICES}.referee.requests:FedPairs",
    "easeml gate ask": f"{SERVICES}.referee.requests:AskedGate",
    "easeml gate attack": "easeml_core.gate.attack:AttackReport",
    "easeml gate decide": "easeml_core.gate.offline.verdict:DecisionReport",
    "easeml gate plan": (
        f"easeml_core.gate.offline.planned:GatePlanReport | {SERVICES}.test_sets.planning:JointPlanReport"
    ),
    "easeml gate selftest": "easeml_core.gate.self_test:SelfTestReport",
    "easeml infer": f"{SERVICES}.models.inference:InferredAnswers",
    "easeml labels conflicts": f"{SERVICES}.labeling.requests:Conflicts",
    "easeml labels give": f"{SERVICES}.labeling.requests:GivenLabels",
    "easeml labels unsure": f"{SERVICES}.labeling.adjudication:UnsureExamples",
    "easeml labels wanted": f"{SERVICES}.labeling.requests:WantedLabels",
    "easeml ledger": f"list {SERVICES}.test_sets.answers:ShownEntry",
    "easeml meter plan": "easeml_core.meter.planner:MeterPlanReport",
    "easeml meter replay": "easeml_core.meter.history:ReplayReport",
    "easeml metrics": f"list {SERVICES}.operations.monitoring:MetricReading",
    "easeml mlflow sync": f"list {SERVICES}.operations.mlflow_sync:MirrorReport",
    "easeml model list": f"list {STORE}.tables.model_life:ListedModel",
    "easeml model meter": f"{SERVICES}.referee.answers:ReadingAnswer | easeml_core.entities:GivenAnswer",
    "easeml model promote": f"{SERVICES}.referee.answers:MoveAnswer",
    "easeml model rollback": f"{SERVICES}.referee.answers:MoveAnswer",
    "easeml model show": f"{SERVICES}.models.promotion:ShownModel",
    "easeml next": f"list {SERVICES}.reports.next_steps:NextStep",
    "easeml policy history": f"list {SERVICES}.selection.policy:PolicyReport",
    "easeml policy set": f"{SERVICES}.selection.policy:PolicyChange",
    "easeml policy show": f"{SERVICES}.selection.policy:PolicyReport",
    "easeml program check": f"{CLI}.candidates:CheckedProgram",
    "easeml program infer": "easeml_core.data.inference.result:ProgramReport",
    "easeml promote": f"{SERVICES}.referee.answers:MoveAnswer",
    "easeml promotion evidence": f"{CLI}.operations.evidence:WrittenEvidence",
    "easeml promotion verify": f"{SERVICES}.evidence.bundle_check:Checked",
    "easeml referee": f"{CLI}.referee:AnsweredRequests",
    "easeml refine apply": f"{SERVICES}.referee.answers:RefreshedAnswer | easeml_core.entities:GivenAnswer",
    "easeml refine feeds": f"list {SERVICES}.datasets.feed:FeedEntry",
    "easeml refine list": f"{SERVICES}.datasets.refine:PairList | {SERVICES}.datasets.refine:SuspiciousPairs",
    "easeml refine off": f"{SERVICES}.datasets.refine:SwitchedPairs",
    "easeml refine on": f"{SERVICES}.datasets.refine:SwitchedPairs",
    "easeml refine rank": f"{SERVICES}.datasets.refine:SuspiciousPairs",
    "easeml rollback": f"{SERVICES}.referee.answers:MoveAnswer",
    "easeml status": f"{SERVICES}.reports.overview:Overview",
    "easeml study archive": f"{SERVICES}.studies.archive:ChangedStudy",
    "easeml study delete": f"{SERVICES}.studies.archive:ChangedStudy",
    "easeml study list": f"list {SERVICES}.reports.overview:StudyEntry | {STORE}.archive:ArchivedStudy",
    "easeml study pause": f"{SERVICES}.registration.register:StudyStateReport",
    "easeml study register": f"{SERVICES}.referee.requests:Registration",
    "easeml study restore": f"{SERVICES}.studies.archive:ChangedStudy",
    "easeml study resume": f"{SERVICES}.registration.register:StudyStateReport",
    "easeml study set": f"{SERVICES}.studies.limits:StudyLimits",
    "easeml study show": f"{SERVICES}.reports.overview:ShownStudy",
    "easeml submissions": f"list {SERVICES}.models.submission:ListedSubmission",
    "easeml submit": f"{SERVICES}.referee.requests:JudgedSubmission",
    "easeml tenant archive": f"{SERVICES}.studies.archive:ChangedTenant",
    "easeml tenant delete": f"{SERVICES}.studies.archive:ChangedTenant",
    "easeml tenant list": f"list {SERVICES}.studies.limits:TenantReport",
    "easeml tenant restore": f"{SERVICES}.studies.archive:ChangedTenant",
    "easeml tenant set": f"{SERVICES}.studies.limits:TenantReport",
    "easeml test-set delete": f"{SERVICES}.test_sets.release:DeletedSet",
    "easeml test-set fetch": f"{SERVICES}.test_sets.release:FetchedSet",
    "easeml test-set list": f"list {SERVICES}.test_sets.lifecycle:ShownSet",
    "easeml test-set overlaps": f"list {SERVICES}.test_sets.row_registry:Overlap",
    "easeml test-set plan": f"{SERVICES}.test_sets.lifecycle:ShownSet",
    "easeml test-set release": f"{SERVICES}.test_sets.lifecycle:ShownSet",
    "easeml test-set retire": f"{SERVICES}.test_sets.lifecycle:RetiredSet",
    "easeml test-set seal": f"{SERVICES}.test_sets.upload:SealedUpload",
    "easeml trial cancel": f"{STORE}.tables.trials:TrialReport",
    "easeml trial retry": f"{STORE}.tables.trials:TrialReport",
    "easeml trial show": f"{SERVICES}.trials.execution:TrialDetails",
    "easeml validation remeasure": f"{SERVICES}.evaluation.reevaluation:Remeasured",
    "easeml validation replace": f"{SERVICES}.datasets.validation_sets:ReplacedValidation",
    "easeml validation show": f"{SERVICES}.datasets.validation_sets:ValidationSetReport",
}
"""Answer to the class of its value, with ``list`` before it, or to several ones and None, with ``|`` between them."""


def document() -> str:
    """The file of schemas: each answer, the definitions that they share, and the answers without a schema."""
    from easeml_core.formats.encoding import schemas_of

    schemas, shared = schemas_of([kind_of(TYPED[name]) for name in sorted(TYPED)])
    for definition in shared.values():
        if "description" in definition:
            definition["description"] = inspect.cleandoc(definition["description"])
    found = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$comment": "Made by scripts/reference.py (make reference) from the classes of the answers; do not edit.",
        "answers": dict(zip(sorted(TYPED), schemas, strict=True)),
        "untyped": untyped(),
        "$defs": shared,
    }
    return json.dumps(found, indent=1) + "\n"


def kind_of(text: str) -> Any:
    """The type that an entry of TYPED names."""
    kinds = [_named(one) for one in text.removeprefix("list ").split(" | ")]
    kind = reduce(or_, kinds)
    return GenericAlias(list, (kind,)) if text.startswith("list ") else kind


def _named(name: str) -> Any:
    module, _, kind = name.partition(":")
    return None if name == "None" else getattr(import_module(module), kind)


def untyped() -> list[str]:
    """Public answers without an entry in TYPED, sorted."""
    return sorted({*commands(), *routes(), *tasks()} - set(TYPED))


def commands() -> Iterator[str]:
    """Every command that has ``--json``."""
    from easeml_core.cli.app import cli

    def below(command: click.Command, name: str) -> Iterator[str]:
        if any("--json" in parameter.opts for parameter in command.params):
            yield name
        if isinstance(command, click.Group):
            for word, inner in command.commands.items():
                yield from below(inner, f"{name} {word}")

    return below(cli, "easeml")


def routes() -> Iterator[str]:
    """Every route of the API."""
    for route in router().routes:
        for method in getattr(route, "methods", ()):
            yield f"{method} {getattr(route, 'path', '')}"


def router() -> Any:
    """The router of the API, without anything behind it."""
    from unittest.mock import Mock

    from easeml_airflow.web.server.service import create_router

    return create_router(service=Mock(), rights=lambda **_: lambda: None)


def tasks() -> Iterator[str]:
    """Every operator and sensor: what it gives as its XCom."""
    for package in ("easeml_airflow.operators", "easeml_airflow.sensors"):
        yield from (f"XCom of {name}" for name in import_module(package).__all__)


TITLE, VERSION = "Ease.ml: register, feed, refine and infer", "1"
_ROWS = 10_000
_KEY = {
    "type": "string",
    "maxLength": 200,
    "description": "The same key of the same person has its effect once; left out, each request is a new one.",
}
_INPUTS = {
    "description": "A row: numbers in the study's order, or an object of column to value; null for a missing value.",
    "oneOf": [{"type": "array"}, {"type": "object"}],
}
_HASHES = {"type": "array", "minItems": 1, "maxItems": _ROWS, "items": {"type": "string", "pattern": "^[0-9a-f]{64}$"}}


def _body(required: list[str], properties: dict[str, Any], example: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": required,
        "properties": properties,
        "examples": [example],
    }


def _action_body(kind: type[Any]) -> dict[str, Any]:
    """The options of an action that are not in its path, and the request key."""
    body = schema_of(kind, leaves=re.findall(r"{(\w+)}", action_of(kind).route))
    return {**body, "properties": {**body["properties"], "request_key": _KEY}}


BODIES: dict[str, dict[str, Any]] = {
    "feed": _body(
        ["pairs"],
        {
            "pairs": {
                "type": "array",
                "minItems": 1,
                "maxItems": _ROWS,
                "items": {
                    "type": "object",
                    "required": ["inputs", "label"],
                    "properties": {"inputs": _INPUTS, "label": {"type": ["string", "number", "integer"]}},
                },
            },
            "request_key": _KEY,
        },
        {"pairs": [{"inputs": [5.1, 3.5, 1.4, 0.2], "label": "setosa"}], "request_key": "file 17"},
    ),
    "refine": _body(
        [],
        {
            "off": {**_HASHES, "description": "Rows to switch off, by their hashes."},
            "on": {**_HASHES, "description": "Rows to switch on again."},
            "reason": {"type": "string", "description": "Kept with each row that is switched."},
            "apply": {"type": "boolean", "default": False, "description": "Ask for a new data version afterwards."},
            "request_key": _KEY,
        },
        {"off": ["0f" * 32], "reason": "another class, says the photographer", "apply": True},
    ),
    "infer": _body(
        ["inputs"],
        {
            "inputs": {"type": "array", "minItems": 1, "maxItems": _ROWS, "items": _INPUTS},
            "model": {
                "oneOf": [{"enum": ["production", "best"]}, {"type": "integer", "minimum": 1}],
                "default": "production",
                "description": "The model in production, the best one, or the number of a model.",
            },
            "probabilities": {"type": "boolean", "default": False},
        },
        {"inputs": [[5.1, 3.5, 1.4, 0.2]], "model": "best", "probabilities": True},
    ),
}
"""Body of each POST, by the last part of its path."""

SUMMARIES = {
    "POST feed": "Feed rows with labels; they are used from the next data version on.",
    "POST refine": "Switch rows of the training part off or on.",
    "POST infer": "Let a model answer.",
    "GET feeds": "What was fed, and what became of it.",
    "GET refine": "Rows of the training part.",
    "GET {request_id}": "The referee's answer to a refresh.",
}
ERRORS = {
    "400": "The request does not fit.",
    "401": "There is no token.",
    "403": "The person may not do this.",
    "404": "There is no such study, model or request.",
    "409": "It is not possible now.",
    "413": "The body is larger than 4 MB.",
    "415": "The body is not JSON.",
    "503": "Too many requests at once, or the database is away; try again.",
}


def openapi_document() -> str:
    """Return the document as JSON."""
    from easeml_core.formats.encoding import schemas_of

    routes = router().routes
    kinds = [kind_of(TYPED[f"{method} {route.path}"]) for route in routes for method in sorted(route.methods)]
    answers, shared = schemas_of(kinds)
    paths: dict[str, Any] = {}
    for route, answer in zip(routes, answers, strict=True):
        (method,) = route.methods
        paths.setdefault(f"/easeml{route.path}", {})[method.lower()] = _operation(route, method, answer)
    found = {
        "openapi": "3.1.0",
        "info": {"title": TITLE, "version": VERSION},
        "servers": [{"url": "https://airflow.example", "description": "Airflow's API server"}],
        "security": [{"token": []}],
        "paths": dict(sorted(paths.items())),
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "Of Airflow: POST /auth/token."}
            },
            "schemas": {
                **shared,
                "Error": {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}},
            },
        },
    }
    return json.dumps(found, indent=1).replace("#/$defs/", "#/components/schemas/") + "\n"


def _operation(route: APIRoute, method: str, answer: dict[str, Any]) -> dict[str, Any]:
    last = route.path.rsplit("/", 1)[-1]
    named = re.sub(r"\W", "", last)
    integers = {"request_id"}
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "integer" if name in integers else "string"}}
        for name in re.findall(r"{(\w+)}", route.path)
    ]
    for parameter in route.dependant.query_params:
        default = parameter.field_info.default
        kind = "boolean" if isinstance(default, bool) else "integer"
        parameters.append({"name": parameter.name, "in": "query", "schema": {"type": kind, "default": default}})
    actions = {action_of(kind).route: kind for kind in ACTIONS}
    action = actions.get(route.path.removeprefix("/api/v1"))
    summary = SUMMARIES[f"{method} {last}"] if action is None else action_of(action).help
    operation: dict[str, Any] = {
        "operationId": f"{method.lower()}_{named}" if action is None else action_of(action).method,
        "summary": summary,
        "parameters": parameters,
    }
    if method == "POST":
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": BODIES[last] if action is None else _action_body(action)}},
        }
    operation["responses"] = {"200": _response("The answer.", answer)} | {
        status: _response(text, {"$ref": "#/components/schemas/Error"}) for status, text in ERRORS.items()
    }
    return operation


def _response(text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": schema}}}
