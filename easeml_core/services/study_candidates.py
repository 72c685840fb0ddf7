"""The candidates of a study: those that a tenant names, or else those that its program or its data call for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_core.services.limits import check_candidate_count, check_candidate_limits, trainable
from easeml_core.training.candidate_grid import GRIDS, grid_of
from easeml_core.training.candidate_spaces import expand_candidates
from easeml_core.training.program_candidates import candidates_of_program
from easeml_core.training.trainers import check_candidates, default_candidates

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from easeml_core.entities import Study
    from easeml_core.programs.data_type import Program
    from easeml_core.training.raw_table import RawTable

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

    Raises:
        InvalidInputError: The program calls for nothing that can be trained here; says why.
        ConfigError: There are too many.
    """
    if study.program is None:
        found = default_candidates(raw.layout, raw.task, raw.target_layout)
    else:
        found = candidates_of_program(program, raw.layout, raw.task, raw.target_layout)
    divided = [one for candidate in found for one in grid_of(candidate, study.config.get("grid", COARSE))]
    check_candidate_count(len(divided))
    return divided
