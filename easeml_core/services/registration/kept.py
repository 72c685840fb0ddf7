"""What a study that is kept has otherwise than the call that would register it: a DAG's author may have edited it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from easeml_core.encoding import to_json
from easeml_core.services.studies.candidates import adding_command, is_same

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easeml_core.entities import Candidate, JsonObject, Parameters, Study

MOST_NAMED = 10
"""Candidates for which a sentence is written; of more, the number."""


def other_candidates(study: str, wanted: Sequence[Parameters], there: Sequence[Candidate]) -> list[str]:
    """Return sentences about candidates that the study lacks or has otherwise, with the commands that add them.

    Args:
        study: The study's name.
        wanted: Candidates as ``named_candidates`` returns them.
        there: The study's candidates, withdrawn ones included.
    """
    by_name = {candidate.name: candidate for candidate in there}
    missing = [c for c in wanted if c["name"] not in by_name]
    found = [
        f"the study lacks candidate {candidate['name']!r}; add it: `{adding_command(study, candidate)}`"
        for candidate in missing[:MOST_NAMED]
    ]
    changed = [c for c in wanted if c["name"] in by_name and not is_same(c, by_name[c["name"]])]
    for candidate in changed[:MOST_NAMED]:
        name, has = candidate["name"], by_name[candidate["name"]]
        other = {**candidate, "name": f"{name}-v2"}
        found.append(
            f"candidate {name!r} is {_text(has.kind, has.parameters, has.devices)} in the study, and here "
            f"{_text(candidate['kind'], candidate.get('parameters'), candidate.get('devices'))}; a candidate stays as "
            f"it was added, so add another one: `{adding_command(study, other)}`"
        )
    left = max(0, len(missing) - MOST_NAMED) + max(0, len(changed) - MOST_NAMED)
    return [*found, f"{left:,} more candidates differ: `easeml study show {study}`"] if left else found


def other_settings(found: Study, wanted: Mapping[str, Any], config: JsonObject, given: Mapping[str, Any]) -> list[str]:
    """Return sentences about settings that the study has otherwise.

    Args:
        found: The study.
        wanted: Fields of ``Study`` as the call would have stored them; only those that it states.
        config: The settings that the call would have stored, as ``Study.config`` has them.
        given: Of ``config``, what the call states: a value, or the mapping of a part.
    """
    pairs = {name: (getattr(found, name), value) for name, value in wanted.items()}
    for name, stated in given.items():
        has, would = found.config.get(name), config[name]
        if isinstance(stated, Mapping) and isinstance(would, Mapping):
            known = has if isinstance(has, Mapping) else {}
            pairs |= {f"{name}.{key}": (known.get(key), would[key]) for key in stated if key in would}
        else:
            pairs[name] = (has, would)
    # A tuple is stored as a list.
    told = [(name, (to_json(has), to_json(value))) for name, (has, value) in pairs.items()]
    return [f"{name} is {has} in the study, and here {value}" for name, (has, value) in told if has != value]


def _text(kind: str, parameters: Parameters | None, devices: Sequence[str] | None) -> str:
    on = "" if devices is None else f" on {', '.join(devices)}"
    return f"{kind} {json.dumps(parameters or {})}{on}"
