"""A study that is being written down: fields of the form, what they mean for ``register_study``, and their checks."""

from __future__ import annotations

import json
import math
import uuid
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import TYPE_CHECKING

from easeml_airflow.web.components.condition_field import Check, check_of, read_condition
from easeml_core.config import GateConfig, MeterConfig, require
from easeml_core.data.sources.spec import is_upload, parse_source, upload_of
from easeml_core.entities import Adaptivity, Parameters, Task
from easeml_core.errors import EasemlError, InvalidInputError, ProgramError
from easeml_core.gate.condition import parse_condition
from easeml_core.limits import LONGEST_TEXT, NAME
from easeml_core.metrics.metric import METRICS
from easeml_core.services.registration.preview import MatchReport, match_of, planned_parts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from easeml_core.data.sources.spec import UploadName

LONGEST = {"program": 200_000, "source": LONGEST_TEXT}
ADAPTIVITIES = {
    str(Adaptivity.FULL): "pass or fail, each time",
    str(Adaptivity.NONE): "nothing; the verdict goes to the referee alone",
    str(Adaptivity.FIRST_CHANGE): "pass or fail; the set ends at the first pass",
    str(Adaptivity.RECYCLE): "pass or fail; each pass costs more",
    "upTo:3": "pass or fail; the set ends at the third pass",
}
"""What a gate may be asked for, and what a developer then learns."""

_GATE, _METER = GateConfig(), MeterConfig()


@dataclass(frozen=True, slots=True)
class Draft:
    """The fields of the form, as text; the server keeps nothing else between two steps."""

    study: str = ""
    tenant: str = ""
    source: str = ""
    target: str = ""
    task: str = ""
    split: str = "rows"
    split_column: str = ""
    id_column: str = ""
    step_column: str = ""
    program: str = ""
    metric: str = ""
    own_metric: str = ""
    hit: str = ""
    budget_hours: str = ""
    target_quality: str = ""
    weight: str = "1"
    condition: str = _GATE.condition
    gate_reliability: str = str(_GATE.reliability)
    gate_steps: str = str(_GATE.steps)
    adaptivity: str = _GATE.adaptivity
    mode: str = _GATE.mode
    ranges: str = ", ".join(map(str, _METER.ranges))
    meter_tolerance: str = str(_METER.tolerance)
    meter_reliability: str = str(_METER.reliability)
    meter_steps: str = str(_METER.steps)
    request_key: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def split_text(self) -> str:
        """How rows are divided, as a study says it."""
        return "rows" if self.split == "rows" or not self.split_column else f"{self.split}:{self.split_column}"

    @property
    def upload(self) -> UploadName | None:
        """The upload that the source names; None for another source."""
        source = parse_source(self.source)
        return upload_of(source.name) if is_upload(source.name) else None

    @property
    def asked(self) -> dict[str, str]:
        """What was said of the data, for ``look_at_data``."""
        named = {"target": self.target, "task": self.task, "split": self.split_text}
        return named | {"id_column": self.id_column, "step_column": self.step_column}

    @property
    def gate(self) -> Parameters:
        """Settings of the gate; a wrong one is refused with its name."""
        return {
            "condition": self.condition,
            "reliability": _number("reliability of the gate", self.gate_reliability),
            "steps": _whole("verdicts", self.gate_steps),
            "adaptivity": self.adaptivity,
            "mode": self.mode,
        }

    @property
    def meter(self) -> Parameters:
        """Likewise of the meter."""
        return {
            "ranges": [_number("edges of the ranges", edge) for edge in self.ranges.split(",")],
            "tolerance": _number("tolerance of the meter", self.meter_tolerance),
            "reliability": _number("reliability of the meter", self.meter_reliability),
            "steps": _whole("submissions", self.meter_steps),
        }

    def arguments(self, *, may_weigh: bool) -> Parameters:
        """What to call ``register_study`` with.

        Raises:
            InvalidInputError: A field is none of what is allowed; says what is.
        """
        for name in ("study", "tenant"):
            NAME.check(name, getattr(self, name))
        weight = _number("weight", self.weight or "1")
        require(may_weigh or weight == 1, "weight", weight, "1; only an operator gives another")
        hours = _number("budget", self.budget_hours) if self.budget_hours else None
        return {
            **{name: getattr(self, name) for name in ("study", "tenant", "source", "request_key")},
            **{name: getattr(self, name) or None for name in ("target", "task", "hit", "program")},
            "metric": self.own_metric or self.metric or None,
            "split": self.split_text,
            "budget_seconds": None if hours is None else 3600 * hours,
            "target_quality": _number("target quality", self.target_quality) if self.target_quality else None,
            "weight": weight,
            "gate": self.gate,
            "meter": self.meter,
        }


@dataclass(frozen=True, slots=True)
class Checks:
    """What is said of a draft.

    Attributes:
        program: Whether the program can be read, and where not; None for an empty one.
        match: The template and its candidates; None where the program cannot be read.
        condition: Of the gate's condition.
        parts: Name of each part and its rows; empty where they are not known.
        problem: Why it cannot be registered so, as far as can be seen; empty for nothing.
    """

    program: Check | None
    match: MatchReport | None
    condition: Check
    parts: Sequence[tuple[str, int, float]] = ()
    problem: str = ""


def draft_of(values: Mapping[str, str]) -> Draft:
    """The draft of a form; what it does not have keeps its default."""
    names = [f.name for f in fields(Draft)]
    return Draft(**{name: values[name] for name in names if values.get(name) is not None and name in values})


def checks_of(draft: Draft, *, rows: int | None, plans: bool) -> Checks:
    """Check a draft.

    Args:
        draft: The fields.
        rows: How many rows the data have, where that is known.
        plans: Whether the sealed parts are planned, which may take seconds.
    """
    condition, wrong = read_condition(draft.condition)
    checked = check_of(draft.condition, wrong, condition or parse_condition(_GATE.condition))
    program, match = _program(draft)
    problem = "" if checked.is_sound and (program is None or program.is_sound) else "see what is marked above"
    parts: list[tuple[str, int, float]] = []
    if plans and rows and checked.is_sound:
        try:
            sizes = _planned(rows, json.dumps(draft.gate), json.dumps(draft.meter))
            parts = [(name, size, 100 * size / rows) for name, size in sizes.items()]
        except EasemlError as error:
            problem = str(error)
    return Checks(program, match, checked, parts, problem)


def metrics_of(task: str) -> list[tuple[str, str]]:
    """The metrics that suit a task, each as a choice and its word; all where the task is not known."""
    tasks = {True: Task.REGRESSION, False: Task.CLASSIFICATION}
    return [(name, name) for name, metric in METRICS.items() if task in ("", tasks[metric.needs == "numbers"])]


@lru_cache(maxsize=256)
def _planned(rows: int, gate: str, meter: str) -> dict[str, int]:
    """Return ``planned_parts`` of JSON; cached while the user edits another field."""
    return planned_parts(rows, gate=json.loads(gate), meter=json.loads(meter))


def _program(draft: Draft) -> tuple[Check | None, MatchReport | None]:
    if not draft.program.strip():
        return None, None
    try:
        found = match_of(draft.program, task=draft.task or None)
    except ProgramError as error:
        return _pointed(error), None
    except InvalidInputError as error:
        return Check([(draft.program[:200], "")], "", str(error), is_sound=False), None
    said = f"Reads as {'no template' if found.template is None else f'template {found.template}'}"
    return Check([(found.canonical, "")], "", said, is_sound=True), found


def _pointed(error: ProgramError) -> Check:
    """The line in which the mistake is, with carets under it."""
    place = error.source.rfind("\n", 0, error.start) + 1
    line = error.source[place:].partition("\n")[0] if error.source else ""
    begin = max(0, error.start - place - 60)
    shown = "".join(c if c.isprintable() else " " for c in line[begin : begin + 100])
    first = error.start - place - begin
    last = min(max(first + 1, error.end - place - begin), max(len(shown), first + 1))
    pieces = [(shown[:first], ""), (shown[first:last], "wrong"), (shown[last:], "")]
    caret = " " * first + "^" * (last - first)
    where = f"Line {error.line}, column {error.column}: " if error.source else ""
    return Check([p for p in pieces if p[0]], caret, where + error.message, is_sound=False)


def _number(name: str, text: str) -> float:
    try:
        found = float(text.strip()) if len(text) <= 40 else math.nan
    except ValueError:
        found = math.nan
    require(math.isfinite(found), name, text[:40], "a number")
    return found


def _whole(name: str, text: str) -> int:
    text = text.strip()
    require(text.isascii() and text.isdigit() and len(text) <= 9, name, text[:40], "a whole number")
    return int(text)
