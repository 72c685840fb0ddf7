"""From a program to the candidates of a study: the template that it matches, and which of its names can be trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_core.data.program import program_of_data, sizes_of
from easeml_core.entities import Task
from easeml_core.errors import InvalidInputError
from easeml_core.programs.demands import demands_of
from easeml_core.programs.template import NUMBERS, ONE_HOT, SEVERAL
from easeml_core.programs.templates import match_program
from easeml_core.training.trainers import NOT_TRAINED, TRAINERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easeml_core.data.layout import Layout
    from easeml_core.programs.data_type import Program


def require_data_of(program: Program, layout: Layout, task: Task, classes: int, target: Layout | None = None) -> None:
    """The data are what the program says.

    Raises:
        InvalidInputError: They are others; says what differs.
    """
    wanted = demands_of(program)
    wanted = wanted.as_numbers() if task == Task.REGRESSION else wanted
    there_target = "" if target is None else target.kind
    for what, asked, there in (
        ("rows", wanted.kind, layout.kind),
        ("the shape of a row", wanted.shape, wanted.shape and sizes_of(layout)),
        ("the task", str(wanted.task), str(task)),
        ("the number of classes", wanted.classes, wanted.classes and classes),
        ("answers", wanted.target or _ONE, there_target or _ONE),
        ("the shape of an answer", wanted.target_shape, sizes_of(target) if wanted.target_shape and target else None),
    ):
        if asked != there:
            message = (
                f"the program and the data differ in {what}: {_said(asked)} in the program, {_said(there)} in the "
                f"data, whose program is {program_of_data(layout, task, classes, target)}; correct the program, or "
                "leave it out"
            )
            raise InvalidInputError(message)


def candidates_of_program(
    program: Program, layout: Layout, task: Task, target: Layout | None = None
) -> list[dict[str, Any]]:
    """What the program's template calls for, as far as it can be trained on such data here.

    Args:
        program: In either form.
        layout: What a row stands for.
        task: What is predicted.
        target: What an answer stands for; None for one class or number.

    Returns:
        Entries ``{"name", "kind", "parameters"}``, in the template's order.

    Raises:
        InvalidInputError: If no template matches, or nothing that it calls for can be trained; says why for each.

    Example:
        >>> from easeml_core.data.layout import table_layout
        >>> table = program_of_data(table_layout(4), Task.REGRESSION, 0)
        >>> candidates_of_program(table, table_layout(4), Task.REGRESSION)[0]["name"]
        'hist_gradient_boosting'
    """
    one = NUMBERS if task == Task.REGRESSION else ONE_HOT
    matched = match_program(program, targets=one if target is None else SEVERAL)
    if matched.template is None:
        message = f"no template matches the program {program}; name the study's candidates yourself"
        raise InvalidInputError(message)
    names = [name for workload in matched.workloads for name in workload.candidates]
    why_not = {name: _why_not(name, layout, task, target) for name in names}
    fitting = [name for name in names if not why_not[name]]
    if not fitting:
        reasons = "; ".join(f"{name}: {why}" for name, why in why_not.items())
        called = f"nothing that template {matched.template.name} calls for can be trained on these data here"
        message = f"{called}: {reasons}"
        raise InvalidInputError(message)
    return [{"name": name, "kind": name, "parameters": {}} for name in fitting]


def _why_not(kind: str, layout: Layout, task: Task, target: Layout | None) -> str:
    """Why it cannot be trained; empty if it can."""
    trainer = TRAINERS.get(kind)
    if trainer is None:
        return NOT_TRAINED.get(kind, "there is no trainer of that name")
    if not trainer.is_available():
        return f"it needs {trainer.library}: pip install 'easeml-airflow[{trainer.requires}]'"
    return trainer.misfit(layout, task, target)


_ONE = "one class or number"


def _said(value: str | int | Sequence[int] | None) -> str:
    return " x ".join(map(str, value)) if isinstance(value, tuple) else str(value)
