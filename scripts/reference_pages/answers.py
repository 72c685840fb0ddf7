"""JSON Schemas of the answers of commands, from the classes of these answers (ADR 0027)."""

from __future__ import annotations

import inspect
import json
from typing import Any

DIALECT = "https://json-schema.org/draft/2020-12/schema"
COMMENT = "Made by scripts/reference.py (make reference) from the classes of the answers; do not edit."


def page() -> str:
    """Return the file: the answer of each command, and the definitions that answers share."""
    from easeml_core.encoding import schema_of
    from easeml_core.services.reports.next_steps import NextStep
    from easeml_core.services.reports.overview import Overview, StudyEntry

    answers: dict[str, Any] = {
        "easeml next": [NextStep],
        "easeml status": Overview,
        "easeml study list": [StudyEntry],
    }
    found: dict[str, Any] = {}
    shared: dict[str, Any] = {}
    for command, answer in answers.items():
        kind = answer[0] if isinstance(answer, list) else answer
        schema = schema_of(kind)
        shared |= schema.pop("$defs")
        found[command] = {"type": "array", "items": schema} if isinstance(answer, list) else schema
    for definition in shared.values():
        if "description" in definition:
            definition["description"] = inspect.cleandoc(definition["description"])
    made = {"$schema": DIALECT, "$comment": COMMENT, "answers": found, "$defs": dict(sorted(shared.items()))}
    return json.dumps(made, indent=1) + "\n"
