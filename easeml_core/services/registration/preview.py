"""What a study would be, before it is registered: the candidates that its program calls for, and its sealed parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_core.entities import Task
from easeml_core.programs.demands import demands_of
from easeml_core.programs.language import parse_program
from easeml_core.programs.template import NUMBERS, ONE_HOT, SEVERAL
from easeml_core.programs.templates import match_program
from easeml_core.services.registration.register import study_settings
from easeml_core.services.registration.sealing import part_sizes, planned_sets
from easeml_core.training.trainers import NOT_TRAINED, TRAINERS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from easeml_core.programs.data_type import Program


def match_of(text: str, *, task: str | None = None) -> dict[str, Any]:
    """The template that a program matches, and what that calls for.

    Args:
        text: The program, in either form.
        task: What is predicted, where somebody said so or the data do.

    Returns:
        ``{"canonical", "template", "input", "output", "work", "mapping", "candidates", "rejected"}``: ``template``,
        ``input`` and ``output`` are None where nothing matches; ``candidates`` are ``{"name", "why_not"}``, the latter
        empty for what can be trained on a machine such as this one; ``rejected`` are ``{"template", "why"}`` of the
        templates above.

    Raises:
        ProgramError: It cannot be read; shows where.
        InvalidInputError: No study has such data.

    Example:
        >>> found = match_of("{input: {[Tensor[4]], []}, output: {[Category[3]], []}}")
        >>> found["template"], found["candidates"][0]
        ('5a', {'name': 'hist_gradient_boosting', 'why_not': ''})
    """
    program = parse_program(text)
    found = match_program(program, targets=_targets(program, task))
    row = found.template
    names = dict.fromkeys(name for workload in found.workloads for name in workload.candidates)
    return {
        "canonical": str(program),
        "template": None if row is None else row.name,
        "input": None if row is None else row.input,
        "output": None if row is None else row.output,
        "work": [workload.name for workload in found.workloads],
        "mapping": {name: value for name, value in found.mapping.items() if not isinstance(value, tuple)},
        "candidates": [{"name": name, "why_not": _why_not(name)} for name in names],
        "rejected": [{"template": name, "why": why} for name, why in found.rejected],
    }


def planned_parts(rows: int, *, gate: Mapping[str, Any], meter: Mapping[str, Any]) -> dict[str, int]:
    """How many rows each part of a study gets, in the order of training, validation and the sealed ones.

    Args:
        rows: Different rows of the data.
        gate: Settings of GateConfig.
        meter: Settings of MeterConfig.

    Raises:
        InvalidInputError: A setting is not allowed.
        SealedSetTooSmallError: There are too few rows; says how many the plans need.

    Example:
        >>> planned_parts(1000, gate={}, meter={})
        {'train': 390, 'validation': 150, 'gate': 200, 'meter': 260}
    """
    settings = study_settings(gate=gate, meter=meter, training=None)
    sizes = part_sizes(rows, planned_sets(settings))
    sealed = {name: size for name, size in sizes.items() if name != "validation"}
    return {"train": rows - sum(sizes.values()), "validation": sizes["validation"]} | sealed


def _targets(program: Program, task: str | None) -> str:
    wanted = demands_of(program)
    wanted = wanted.as_numbers() if task == Task.REGRESSION else wanted
    if wanted.target:
        return SEVERAL
    return NUMBERS if (task or wanted.task) == Task.REGRESSION else ONE_HOT


def _why_not(kind: str) -> str:
    """Why it cannot be trained here, whatever the data; empty if it can."""
    trainer = TRAINERS.get(kind)
    if trainer is None:
        return NOT_TRAINED.get(kind, "there is no trainer of that name")
    return "" if trainer.is_available() else f"it needs {trainer.library}: extra {trainer.requires}"
