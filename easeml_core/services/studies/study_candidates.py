"""The candidates of a study: those that a tenant names, or else those that its program or its data call for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_core.errors import InvalidInputError
from easeml_core.metrics.metric import METRICS
from easeml_core.services.studies.limits import check_candidate_count, check_candidate_limits, trainable
from easeml_core.training.candidate_grid import GRIDS, grid_of
from easeml_core.training.candidates import expand_candidates
from easeml_core.training.program_candidates import candidates_of_program
from easeml_core.training.trainers import check_candidates, default_candidates, trainer_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from easeml_core.data.layout import Layout
    from easeml_core.data.table import RawTable
    from easeml_core.entities import Study
    from easeml_core.programs.data_type import Program

COARSE = GRIDS[0]


def named_candidates(entries: Sequence[Mapping[str, Any]], grid: str = COARSE) -> list[dict[str, Any]]:
    """The candidates that a tenant names, as they are stored.

    Args:
        entries: ``{"name", "kind", "parameters", "devices"}``, or entries with a search space
            (``training.candidate_spaces``).
        grid: How fine networks are divided (``training.candidate_grid``).

    Raises:
        InvalidInputError: An entry, a kind, a space or the grid is not allowed, or two have one name.
        ConfigError: A parameter is outside its range, or there are too many candidates.
    """
    expanded = expand_candidates(entries)
    check_candidates(trainable(expanded))
    check_candidate_limits(expanded)
    found = [
        divided | {name: entry[name] for name in ("devices",) if entry.get(name) is not None}
        for entry in expanded
        for divided in grid_of(entry, grid)
    ]
    check_candidate_count(len(found))
    check_candidates(trainable(found))  # a divided name may be one that is there
    return found


def called_for(study: Study, program: Program, raw: RawTable) -> list[dict[str, Any]]:
    """The candidates of a study that names none: those of its program's template, or the usual ones of such data.

    Those whose models the study's metric cannot score are left out.

    Raises:
        InvalidInputError: The program calls for nothing that can be trained here; says why.
        ConfigError: There are too many.
    """
    if study.program is None:
        found = default_candidates(raw.layout, raw.task, raw.target_layout)
    else:
        found = candidates_of_program(program, raw.layout, raw.task, raw.target_layout)
    scored = [candidate for candidate in found if not _unscored(study, candidate["kind"])]
    divided = [one for candidate in scored for one in grid_of(candidate, study.config.get("grid", COARSE))]
    check_candidate_count(len(divided))
    return divided


def require_fitting(study: Study, kinds: Mapping[str, str], layout: Layout, target: Layout | None) -> None:
    """Refuse a candidate that can never give a model of this study, before anything is sealed or trained for it.

    Args:
        study: Its task and its metric count.
        kinds: Name of each candidate to its kind.
        layout: What a row of the study stands for.
        target: What an answer stands for; None for one class or number a row.

    Raises:
        InvalidInputError: The first candidate that does not fit; says why.
    """
    for name, kind in kinds.items():
        why_not = trainer_of(kind).misfit(layout, study.task, target) or _unscored(study, kind)
        if why_not:
            message = f"candidate {name!r} does not fit the study: {why_not}; leave it out, or name another kind"
            raise InvalidInputError(message)


def _unscored(study: Study, kind: str) -> str:
    """Why the study's metric cannot score models of the kind; empty if it can, or if only the metric's code knows."""
    metric = METRICS.get(study.metric)
    if metric is None or metric.needs != "probabilities" or trainer_of(kind).gives_chances:
        return ""
    return f"{study.metric} needs the probabilities of the classes, and models of {kind} give none"
