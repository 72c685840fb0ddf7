"""Preview a study before it is registered: its program, candidates and sealed parts; its data in a limited process."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from easeml_core.data.inference.result import DataPreview, spec_of
from easeml_core.data.sources.spec import SCHEMES, is_upload, parse_source, upload_of
from easeml_core.entities import Parameters, Task
from easeml_core.errors import InvalidInputError, TrainingError, TrainingKilled
from easeml_core.files.local import scratch_folder
from easeml_core.formats.encoding import from_json
from easeml_core.programs.language import parse_program
from easeml_core.programs.templates import NUMBERS, ONE_HOT, SEVERAL, demands_of, match_program
from easeml_core.sandbox.process import Limits, run_child
from easeml_core.services.registration.register import study_settings
from easeml_core.services.registration.sealing import part_sizes, planned_sets
from easeml_core.services.studies.uploads import opened_upload
from easeml_core.training.trainers import NOT_TRAINED, TRAINERS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from easeml_core.data.sources.spec import Source
    from easeml_core.programs.data_type import Program
    from easeml_core.store.artifacts.local import ArtifactStore


@dataclass(frozen=True, slots=True)
class CandidateMatch:
    """A candidate that a template calls for; ``why_not`` is empty where this machine can train it."""

    name: str
    why_not: str


@dataclass(frozen=True, slots=True)
class RejectedTemplate:
    """A template that did not match, and why."""

    template: str
    why: str


@dataclass(frozen=True, slots=True)
class MatchReport:
    """The template that a program matches.

    Attributes:
        canonical: The program in canonical form.
        template: Its name; None where nothing matches, as ``input`` and ``output``.
        input: The template's input.
        output: The template's output.
        work: Names of the workloads.
        mapping: Name of each variable of the template to its value; those of repeated fields are left out.
        candidates: What the template calls for.
        rejected: Templates above it.
    """

    canonical: str
    template: str | None
    input: str | None
    output: str | None
    work: list[str]
    mapping: Mapping[str, object]
    candidates: list[CandidateMatch]
    rejected: list[RejectedTemplate]


def match_of(text: str, *, task: str | None = None) -> MatchReport:
    """Return the template that a program matches, and its candidates.

    Example:
        >>> found = match_of("{input: {[Tensor[4]], []}, output: {[Category[3]], []}}")
        >>> found.template, found.candidates[0]
        ('5a', CandidateMatch(name='hist_gradient_boosting', why_not=''))
    """
    program = parse_program(text)
    found = match_program(program, targets=_targets(program, task))
    row = found.template
    names = dict.fromkeys(name for workload in found.workloads for name in workload.candidates)
    return MatchReport(
        canonical=str(program),
        template=None if row is None else row.name,
        input=None if row is None else row.input,
        output=None if row is None else row.output,
        work=[workload.name for workload in found.workloads],
        mapping={name: value for name, value in found.mapping.items() if not isinstance(value, tuple)},
        candidates=[CandidateMatch(name, _why_not(name)) for name in names],
        rejected=[RejectedTemplate(name, why) for name, why in found.rejected],
    )


def planned_parts(rows: int, *, gate: Parameters, meter: Parameters) -> dict[str, int]:
    """Return how many rows each part of a study gets, in the order of training, validation and the sealed ones.

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
    """Return why it cannot be trained here, whatever the data; empty if it can."""
    trainer = TRAINERS.get(kind)
    if trainer is None:
        return NOT_TRAINED.get(kind, "there is no trainer of that name")
    return "" if trainer.is_available() else f"it needs {trainer.library}: extra {trainer.requires}"


CHILD = "easeml_core.data.inference.child"
TIME_LIMIT_SECONDS = 60.0
MEMORY_LIMIT_MB = 2048


def look_at_data(artifacts: ArtifactStore, *, tenant: str, source: str, asked: Mapping[str, str]) -> DataPreview | None:
    """Return the program of a study's data, and what decided it."""
    given = parse_source(source)
    said = {name: text for name, text in asked.items() if text}
    if is_upload(given.name) and SCHEMES[given.scheme].reads in ("file", "folder"):
        with opened_upload(artifacts, given, tenant=tenant) as path:
            return _seen_upload(given, path, said)
    return None if SCHEMES[given.scheme].reads else _ask({"source": source} | said)


def _seen_upload(given: Source, path: Path, said: Mapping[str, str]) -> DataPreview:
    try:
        found = _ask({"path": str(path)} | dict(said))
    except InvalidInputError as error:  # the place of the copy is not shown
        raise InvalidInputError(str(error).replace(str(path), upload_of(given.name).file)) from error
    seen = parse_source(found.source)
    kept = tuple(option for option in given.options if option[0] == "rows")  # all others follow from the data
    return replace(
        found,
        source=spec_of(seen._replace(name=given.name, options=(*kept, *seen.options))),
        notes=[note for note in found.notes if not note.startswith("source ")],
    )


def _ask(asked: Mapping[str, str]) -> DataPreview:
    with scratch_folder("look") as name:
        folder = Path(name)
        try:
            run_child(
                CHILD,
                [json.dumps(asked), str(folder / "found.json")],
                cwd=folder,
                limits=Limits(TIME_LIMIT_SECONDS, MEMORY_LIMIT_MB),
                on_output=lambda _: None,
                on_poll=lambda: None,
                loads=("easeml_core.data.inference.infer", "easeml_core.data.sources.load"),
            )
        except TrainingKilled:
            raise
        except TrainingError as error:
            raise InvalidInputError(_reworded(str(error))) from error
        return from_json(json.loads((folder / "found.json").read_text(encoding="utf-8")), DataPreview)


def _reworded(reason: str) -> str:
    if reason.startswith(("out of time", "out of memory")):
        return (
            f"the data take more than {TIME_LIMIT_SECONDS:g} s or {MEMORY_LIMIT_MB:,} MB to look at here; bring fewer "
            "rows or columns, or register the study with `easeml study register`"
        )
    return reason
