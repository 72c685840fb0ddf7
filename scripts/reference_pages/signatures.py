"""Signatures of operators and client methods that are made from actions, for editors and type checkers."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING

from easeml_core.actions.action import action_of, parameters_of
from easeml_core.actions.studies import ACTIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

MADE = "# Made by scripts/reference.py (make reference) from easeml_core/actions; do not edit."
_TYPES = {"Sequence": "collections.abc", "datetime": "datetime", "Parameters": "easeml_core.entities"}


def stubs() -> dict[str, str]:
    """The text of each stub by its path in the repository."""
    return {
        "plugins/easeml_airflow/operators/signatures.pyi": _operators(),
        "easeml_core/client/signatures.pyi": _client(),
    }


def _operators() -> str:
    parts = [
        f"class {action.__name__}Base(ActionOperator):\n"
        + "".join(f"    {one.name}: {one.annotation}\n" for one in parameters_of(action, is_templated=True))
        + _function("__init__", parameters_of(action, is_templated=True), "**kwargs: Any", "None")
        for action in ACTIONS
    ]
    return _module(parts, ["from easeml_airflow.operators.base import ActionOperator"])


def _client() -> str:
    key = "request_key: str | None = None"
    parts, imports = ["class Actions:\n    store: Store"], ["from easeml_core.store.database import Store"]
    for action in ACTIONS:
        service = action_of(action).function
        answer = str(inspect.signature(service).return_annotation)
        imports.append(f"from {service.__module__} import {answer}")
        parts[0] += "\n" + _function(action_of(action).method, parameters_of(action), key, answer)
    return _module(parts, imports)


def _function(name: str, parameters: Sequence[inspect.Parameter], rest: str, answer: str) -> str:
    lines = [
        f"{one.name}: {one.annotation}" + ("" if one.default is one.empty else f" = {one.default!r}".replace("'", '"'))
        for one in parameters
    ]
    inner = "".join(f"        {line},\n" for line in ["self", "*", *lines, rest])
    return f"    def {name}(\n{inner}    ) -> {answer}: ..."


def _module(parts: Sequence[str], imports: Sequence[str]) -> str:
    body = "\n\n".join(parts)
    if "Any" in body:
        imports = [*imports, "from typing import Any"]
    used = [f"from {module} import {name}" for name, module in _TYPES.items() if re.search(rf"\b{name}\b", body)]
    own = sorted(line for line in [*imports, *used] if "easeml" in line)
    library = sorted(line for line in [*imports, *used] if "easeml" not in line)
    return "\n".join([MADE, "", *library, "", *own, "", body, ""])
