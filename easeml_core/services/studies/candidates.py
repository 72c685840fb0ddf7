"""The candidates of a study: those that a tenant names, or that its program or data call for; programs for them.

Candidates can join a running study. A candidate's name identifies it, so calls are repeatable.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import UNSET, UnsetType

from easeml_core.data.layout import Layout, stored_target
from easeml_core.entities import Parameters, StudyState
from easeml_core.errors import AlreadyExistsError, ArtifactError, InvalidInputError, StateError
from easeml_core.files.local import scratch_folder
from easeml_core.formats.encoding import row_of, typed_record
from easeml_core.metrics.metric import METRICS
from easeml_core.models.command_model import pack_command, read_program
from easeml_core.services.studies.limits import check_candidate_count, check_candidate_limits, trainable
from easeml_core.settings.config import GRIDS
from easeml_core.store.tables import studies
from easeml_core.training.candidates import candidates_of_program, expand_candidates, grid_of
from easeml_core.training.trainers import check_candidates, default_candidates, trainer_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from easeml_core.data.table import RawTable
    from easeml_core.entities import Candidate, Study
    from easeml_core.programs.data_type import Program
    from easeml_core.store.artifacts.local import ArtifactStore
    from easeml_core.store.database import Store


COARSE = GRIDS[0]


def named_candidates(entries: Sequence[Parameters], grid: str = COARSE) -> list[Parameters]:
    """Return the candidates that a tenant names, as they are stored."""
    expanded = expand_candidates(entries)
    check_candidates(trainable(expanded))
    check_candidate_limits(expanded)
    found = [
        divided if entry.get("devices") is None else {**divided, "devices": entry["devices"]}
        for entry in expanded
        for divided in grid_of(entry, grid)
    ]
    check_candidate_count(len(found))
    check_candidates(trainable(found))  # a divided name may exist already
    return found


def called_for(study: Study, program: Program, raw: RawTable) -> list[Parameters]:
    """Return the candidates of a study that names none: those of its program's template, or the usual ones of its data.

    Those whose models the study's metric cannot score are left out.
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
    """Refuse a candidate that can never give a model of this study, before anything is sealed or trained for it."""
    for name, kind in kinds.items():
        why_not = trainer_of(kind).misfit(layout, study.task, target) or _unscored(study, kind)
        if why_not:
            message = f"candidate {name!r} does not fit the study: {why_not}; leave it out, or name another kind"
            raise InvalidInputError(message)


def _unscored(study: Study, kind: str) -> str:
    """Return why the study's metric cannot score models of the kind; empty if it can, or if only its code knows."""
    metric = METRICS.get(study.metric)
    if metric is None or metric.needs != "probabilities" or trainer_of(kind).gives_chances:
        return ""
    return f"{study.metric} needs the probabilities of the classes, and models of {kind} give none"


@typed_record
class NamedCandidate:
    """A candidate as it would be stored; ``devices`` are left out where it runs on any."""

    name: str
    kind: str
    parameters: Parameters
    devices: list[str] | UnsetType = UNSET


@typed_record
class AddedCandidate:
    """A candidate that was asked to join a study; ``added`` is False when it was there already."""

    study: str
    candidate: str
    kind: str
    parameters: Parameters
    devices: list[str] | None
    added: bool


def add_candidates(store: Store, *, study: str, candidates: Sequence[Parameters]) -> list[AddedCandidate]:
    """Add candidates to a study, all or none of them; the names make the call repeatable."""
    wanted = [{"parameters": {}, **candidate} for candidate in named_candidates(candidates)]
    with store.begin() as tx:
        found = studies.get_study(tx, study)
        if found.state not in (StudyState.ACTIVE, StudyState.PAUSED):
            message = f"study {study!r} is {found.state}; candidates join one that is ACTIVE or PAUSED"
            raise StateError(message)
        layout = studies.latest_data_version(tx, found.id).layout
        if layout is not None:  # versions older than layouts have none
            kinds = {c["name"]: c["kind"] for c in wanted}
            require_fitting(found, kinds, Layout.from_json(layout), stored_target(layout))
        added = {c["name"] for c in wanted if studies.add_candidates(tx, found.id, [c])}
        mine = studies.list_candidates(tx, found.id)
        check_candidate_count(len(mine))
        by_name = {c.name: c for c in mine}
        for candidate in wanted:
            _require_same(study, candidate, by_name[candidate["name"]])
    return [_shown(study, by_name[c["name"]], added=c["name"] in added) for c in wanted]


def adding_command(study: str, candidate: Parameters) -> str:
    """Return the command that adds a candidate ``{"name", "kind", "parameters", "devices"}`` to a study."""
    words = ["easeml", "candidate", "add", study, "--kind", candidate["kind"], "--name", candidate["name"]]
    if candidate.get("parameters"):
        words += ["--parameters", json.dumps(candidate["parameters"])]
    for device in candidate.get("devices") or ():
        words += ["--device", device]
    return shlex.join(words)


def is_same(wanted: Parameters, there: Candidate) -> bool:
    """Whether a candidate as ``named_candidates`` returns it is this one of a study, but for its name."""
    devices = wanted.get("devices")
    has = (there.kind, there.parameters, _devices(there))
    return has == (wanted["kind"], wanted.get("parameters") or {}, None if devices is None else list(devices))


def _require_same(study: str, wanted: Parameters, there: Candidate) -> None:
    if not is_same(wanted, there):
        message = f"candidate of study {study!r}"
        existing = row_of(_shown(study, there, added=False))
        del existing["added"]
        remedy = f"it is another one ({existing}); choose another name"
        raise AlreadyExistsError(message, wanted["name"], remedy=remedy)


def _shown(study: str, candidate: Candidate, *, added: bool) -> AddedCandidate:
    return AddedCandidate(
        study=study,
        candidate=candidate.name,
        kind=candidate.kind,
        parameters=candidate.parameters,
        devices=_devices(candidate),
        added=added,
    )


def _devices(candidate: Candidate) -> list[str] | None:
    return None if candidate.devices is None else list(candidate.devices)


def files_of(store: Store, artifacts: ArtifactStore, *, study: str) -> ArtifactStore:
    """Return the files of the study's tenant."""
    with store.begin() as tx:
        return artifacts.of_tenant(studies.get_study(tx, study).tenant)


def bring_program(artifacts: ArtifactStore, path: Path, *, train: str | None = None, command: str | None = None) -> str:
    """Pack a program that can be trained and store it; the same content has the same reference."""
    with scratch_folder("program") as folder:
        packed = Path(folder) / "program"
        try:
            pack_command(path, packed, command=command, train=train)
            read_program(packed)
        except (ArtifactError, OSError) as error:
            message = f"{path} cannot be brought as a program: {error}"
            raise InvalidInputError(message) from error
        return artifacts.put(packed)
