"""The OpenAPI document of the service's routes, for generators of clients: ``docs/reference/openapi.json``.

Airflow's server publishes none of ours (ADR 0007). Paths, methods and query parameters are those of the router, answers
those of ``answers.py``; bodies are read as plain JSON, so their schemas stand here.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from reference_pages.answers import TYPED, kind_of, router

if TYPE_CHECKING:
    from fastapi.routing import APIRoute

TITLE, VERSION = "Ease.ml: feed, refine and infer", "1"
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


def document() -> str:
    """Return the document as JSON."""
    from easeml_core.encoding import schemas_of

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
    operation: dict[str, Any] = {
        "operationId": f"{method.lower()}_{named}",
        "summary": SUMMARIES[f"{method} {last}"],
        "parameters": parameters,
    }
    if method == "POST":
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": BODIES[last]}}}
    operation["responses"] = {"200": _response("The answer.", answer)} | {
        status: _response(text, {"$ref": "#/components/schemas/Error"}) for status, text in ERRORS.items()
    }
    return operation


def _response(text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": schema}}}
