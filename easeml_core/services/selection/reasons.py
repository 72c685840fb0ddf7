"""What is kept of a suggestion: its figures and its sentence, with names in place of the scheduler's indices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from easeml_core.entities import Study
    from easeml_core.selection.suggest import Suggestion
    from easeml_core.store.tables.decisions import Menu


def stored_reasons(suggestion: Suggestion, studies: Mapping[int, Study], arms: Mapping[int, Menu]) -> dict[str, Any]:
    """The reasons as plain JSON; the runner-up has the names of its study and its candidate.

    An arm is an index that means nothing later, when a candidate has joined or was withdrawn.

    Args:
        suggestion: Of ``selection.suggest``.
        studies: The studies chosen from, by id.
        arms: Their candidates in the order of the arms, by id of the study.
    """
    reasons = suggestion.to_json()
    rival = reasons["runner_up"]
    if rival is not None:
        study_id, arm = rival["study_id"], rival["arm"]
        names = {"study": studies[study_id].name, "candidate": arms[study_id].names[arm]}
        reasons["runner_up"] = rival | names
    return reasons
