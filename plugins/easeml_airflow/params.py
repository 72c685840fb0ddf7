"""The fields of trigger forms, each once: what it means, what it may be, an example.

``Param`` gives a form's field and checks what is sent through Airflow's service as well. Airflow makes the form when it
parses the DAG file, so nothing here asks a database: the names of the studies come from a Variable of Airflow that
``ListStudiesOperator`` keeps. Without it, and for a study that is newer than it, the name is typed.
"""

from __future__ import annotations

import json
import logging
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from airflow.sdk import DAG, Param
from airflow.sdk.definitions.param import DagParam

from easeml_core.actions.action import options_of
from easeml_core.actions.studies import MOMENT
from easeml_core.settings import limits
from easeml_core.settings.config import POLICIES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from easeml_core.actions.action import Option

STUDIES = "easeml_studies"
"""The Variable with the names of the studies, as a JSON list."""
MOST_OFFERED = 1000

NAME = f"^{limits.NAME.pattern}$"
"""What the store takes as the name of a tenant or a study."""
MOST_CAPPED = 32
"""The largest K of ``upTo:K`` in the drop-down."""

ADAPTIVITY = {
    "None": "as sealed with the test set",
    "none": "none: developers learn nothing, the referee alone",
    "full": "full: developers learn every answer",
    "firstChange": "firstChange: every answer; the first pass ends the set",
    "recycle": "recycle: every answer; each pass makes the next ones dearer",
} | {f"upTo:{k}": f"upTo:{k}: every answer; change number {k} ends the set" for k in range(1, MOST_CAPPED + 1)}
"""What each choice of the drop-down says."""

EVENTS = (
    *("promotion", "rollback", "rejection", "new-test-set", "overfitting", "drift", "study-finished", "budget-spent"),
    "not-held",
)
"""Kinds of events that a notifier can tell."""

_log = logging.getLogger(__name__)


class FormValue(DagParam):
    """The value of a field of a DAG's form, with its type, when the task runs; see ``value``."""

    def serialize(self) -> dict[str, Any]:
        """Say which field of which DAG it is, without the default, which is always the field's own."""
        return {name: said for name, said in super().serialize().items() if name != "default"}


def value(dag: DAG, field: str) -> FormValue:
    """The value of a field of the DAG's form, for an argument of an operator or of a task.

    Like ``dag.param(field)``, but Airflow 3.1 can store the DAG, too: there ``dag.param`` as an operator's argument
    ends with "ArgNotSet is not JSON serializable".

    Args:
        dag: Whose ``params`` have the field.
        field: Its name.

    Raises:
        KeyError: The form has no such field.

    Example:
        >>> from airflow.sdk import DAG
        >>> with DAG("retrain", params={"policy": policy()}) as dag:
        ...     value(dag, "policy").serialize()
        {'dag_id': 'retrain', 'name': 'policy'}
    """
    if field not in dag.params:
        message = f"the form of {dag.dag_id} has no field {field!r}; it has {', '.join(dag.params) or 'none'}"
        raise KeyError(message)
    return FormValue(current_dag=dag, name=field)


def study(description: str, *, required: bool = False) -> Param:
    """A study, offered from the list, or typed.

    Args:
        description: What it is for, and what an empty field means.
        required: Whether the form wants one.
    """
    offered = studies_offered()
    more: dict[str, list[str]] = {"examples": list(offered)} if offered else {}
    return text("Study", description, required=required, pattern=NAME, **more)


def adaptivity() -> Param:
    """The adaptivity of a verdict, as a drop-down."""
    choices = [None, *[name for name in ADAPTIVITY if name != "None"]]
    description = (
        "What developers learn of the verdict. Empty: as sealed with the test set. Anything else than that is refused, "
        "so this only makes sure that the set is the one you mean."
    )
    return optional("Adaptivity", description, "string", enum=choices, values_display=ADAPTIVITY)


def condition() -> Param:
    """The condition of a gate, with an example."""
    description = (
        "What must hold, such as `n - o > 0.02 +/- 0.01`: n is the accuracy of the new model, o of the old one, d the "
        "share of examples on which they differ; behind +/- stands the tolerance. Empty: the condition sealed with the "
        "test set. The verdict on any other is advice, and its promotion is refused."
    )
    examples = ["n - o > 0.02 +/- 0.01", "n > 0.9 +/- 0.02", "d < 0.1 +/- 0.02 /\\ n - o > 0 +/- 0.02"]
    return text("Condition", description, maxLength=1000, examples=examples)


def reliability() -> Param:
    """The reliability of a verdict."""
    description = "1 - delta, such as 0.999: how sure the promise is. Empty: as sealed; anything else is refused."
    return optional("Reliability", description, "number", exclusiveMinimum=0, exclusiveMaximum=1)


def policy() -> Param:
    """The policy that chooses the next trials."""
    description = "How the next trials are chosen (docs/settings.md). Empty: as set for the installation."
    return optional("Policy", description, "string", enum=[None, *POLICIES], values_display={"None": "the usual one"})


def devices(default: list[str] | None = None) -> Param:
    """The devices that train, one entry each; by default those that are live when the run begins."""
    description = (
        "The kind of each device, one a line; candidates may name the kinds that they run on. Empty: one for each slot "
        "of the devices that are live (the page Compute shows them)."
    )
    items = {"type": "string", "pattern": NAME}
    return Param(default or [], title="Devices", description=description, type="array", items=items, maxItems=256)


def moment(title: str, description: str) -> Param:
    """A day and an hour; the pattern, since Airflow checks the format only where a further library is installed."""
    return text(title, description, format="date-time", pattern=MOMENT)


def mail(description: str) -> Param:
    """Addresses that a mail goes to."""
    return text("Mail to", description, maxLength=1000, pattern=r"^[^@\s,]+@[^@\s,]+(\s*,\s*[^@\s,]+@[^@\s,]+)*$")


def events() -> Param:
    """Kinds of events, to choose several of."""
    return Param(
        list(EVENTS),
        title="Events",
        description="Which events are sent.",
        type="array",
        items={"type": "string", "enum": list(EVENTS)},
        examples=list(EVENTS),
        uniqueItems=True,
    )


def text(title: str, description: str, *, required: bool = False, **schema: Any) -> Param:
    """A line of text; without ``required`` it may be left empty."""
    if required:
        return Param(title=title, description=description, type="string", minLength=1, **schema)
    return optional(title, description, "string", **schema)


def optional(title: str, description: str, kind: str, **schema: Any) -> Param:
    """A field that may be left empty: a JSON type, and what else its schema says."""
    return Param(None, title=title, description=description, type=["null", kind], **schema)


def params_of(action: type[Any], *, leaves: Sequence[str] = (), **starts: Any) -> dict[str, Param]:
    """The fields of a form for an action, from its options; a field that may be left empty takes null, too.

    Args:
        action: The class of the request.
        leaves: Options that the form does not have.
        starts: What a field starts with where that is not the option's default.

    Example:
        >>> from easeml_core.actions.studies import RegisterStudy
        >>> params_of(RegisterStudy, source="sklearn:digits")["priority"].schema["maximum"]
        100
    """
    return {one.name: _param(one, starts.get(one.name)) for one in options_of(action) if one.name not in leaves}


def _param(one: Option, start: Any) -> Param:
    schema: dict[str, Any] = {"title": one.title, "description": one.help, **one.schema}
    kind = schema.pop("type")
    if one.examples:
        schema["examples"] = list(one.examples)
    if one.pattern == MOMENT:
        schema["format"] = "date-time"
    if one.is_required:
        schema |= {"minLength": 1} if kind == "string" else {}
        return Param(type=kind, **schema) if start is None else Param(start, type=kind, **schema)
    if one.default is not None:
        return Param(one.default, type=kind, **schema)
    if "enum" in schema:
        schema |= {"enum": [None, *schema["enum"]], "values_display": {"None": "the default"}}
    return Param(None, type=["null", kind], **schema)


def explained(about: str, form: Mapping[str, Param]) -> str:
    """The text of a DAG's page: the file's own words, then every field of its form.

    Args:
        about: The docstring of the file.
        form: The params of the DAG.
    """
    lines = [f"* `{name}` ({field.schema['title']}): {field.description}" for name, field in form.items()]
    return "\n".join([about.strip(), "", "**The form:**", "", *lines, ""])


@lru_cache(maxsize=1)
def studies_offered() -> tuple[str, ...]:
    """Names to choose from; none where there is no list. Read once a process: each parse of a file is a new one."""
    from airflow.sdk import Variable

    try:
        found = json.loads(Variable.get(STUDIES, default=None) or "[]")
    except Exception as error:  # whatever it is: a form without a list is better than a DAG that cannot be read
        _log.info("trigger forms offer no studies, their names can be typed: %s", error)
        return ()
    names = found if isinstance(found, list) else []
    return tuple(name for name in names if isinstance(name, str) and re.match(NAME, name))[:MOST_OFFERED]
