"""The referee's first task: load a study's data, split it once, keep some parts sealed and open the rest."""

from __future__ import annotations

import hashlib
import hmac
import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.config import GateConfig, JointConfig, MeterConfig, TrainingConfig
from easeml_core.entities import SealedSetPurpose, Study, StudyState
from easeml_core.errors import AlreadyExistsError, InvalidInputError, SealedSetTooSmallError
from easeml_core.programs.language import parse_program
from easeml_core.services.baseline import add_baseline
from easeml_core.services.set_plans import needed_examples, set_purposes, settings_of_plan, study_plan
from easeml_core.services.set_sizes import plan_for_meter, plan_joint
from easeml_core.services.study_candidates import called_for, require_fitting
from easeml_core.store import sealed, studies
from easeml_core.store.database import notify
from easeml_core.store.example_hashes import example_hashes
from easeml_core.training.data_program import program_of_data
from easeml_core.training.layout import stored_layout
from easeml_core.training.parts import content_hash, save_open_parts, split_parts
from easeml_core.training.program_candidates import require_data_of
from easeml_core.training.split_specs import check_split

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from easeml_core.programs.data_type import Program
    from easeml_core.services.fetching import Fetches
    from easeml_core.services.set_plans import SetConfig
    from easeml_core.store.artifacts import ArtifactStore
    from easeml_core.store.requests import Request
    from easeml_core.training.parts import Parts
    from easeml_core.training.sources import RawTable

logger = logging.getLogger(__name__)

# Shares of the rows, where the plans need less: more sealed examples make verdicts sharper, never weaker.
_SHARES = {"gate": 0.2, "meter": 0.1, "joint": 0.3, "direct": 0.1, "validation": 0.15}
_CALLED = {"gate": "the gate", "meter": "the meter", "joint": "gate and meter", "direct": "the second meter"}
_LEAST_TRAINING_SHARE = 0.2
_COINCIDENCE = 1 / 20  # so large a share of the rows may lie in other sealed sets without a word
_LONGEST_NAMES = 1_000_000  # characters of all column names together: more of them are not worth a row


def seal_study(tx: Connection, artifacts: ArtifactStore, request: Request, fetches: Fetches) -> str:
    """Split, seal and activate the study of a request.

    The split is random but a function of the installation's secret, the study and the data, so that a repetition
    after a crash seals the very same examples and no file of an abandoned split shows them to anybody.

    Args:
        tx: Transaction of the referee's role.
        artifacts: Where the open parts go.
        request: The request.
        fetches: Where the study's data come from.

    Returns:
        The public message of the answer.

    Raises:
        NotFetchedError: The data lie elsewhere and were not fetched yet.
        InvalidInputError: The data cannot be read or has too few rows; the message carries the planner's figures.
        SealedSetTooSmallError: The rows do not suffice for what the plans of the sealed sets need.
    """
    study = studies.study_by_id(tx, request.study_id)
    if study.state != StudyState.REGISTERED:
        return f"study {study.name} is {study.state} already"
    split = check_split(study.config.get("split"))
    raw = fetches.table(request.id, study, split)
    program = _program(study, raw)
    named = {candidate.name: candidate.kind for candidate in studies.list_candidates(tx, study.id)}
    require_fitting(study, named, raw.layout, raw.target_layout)
    _require_no_slices(GateConfig.from_json(study.config["gate"]))  # before anything is planned for them
    plans = planned_sets(study.config)
    TrainingConfig.from_json(study.config["training"])  # once active, the study is everybody's: its settings must hold
    sizes = part_sizes(len(raw.labels), plans)
    # Keyed, because the plain hash of data that includes sealed labels would let anybody check guesses of them.
    digest = hmac.digest(sealed.installation_secret(tx), content_hash(raw).encode(), "sha256").hex()
    seed = hashlib.sha256(f"{digest}|{study.name}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(seed, "big"))
    parts = split_parts(raw, sizes=sizes, rng=rng, split=split)
    names = _kept_names(raw)
    hashes = [h for inputs, _ in _named(parts).values() for h in example_hashes(inputs, names)]
    _require_unsealed(tx, study, hashes)
    warning = _sealed_already(tx, study, hashes) + (f"; warning: {split.warning}" if split.warning else "")
    version_id = _open_parts(tx, artifacts, study, raw, parts, digest)
    _seal_parts(tx, study, version_id, parts, plans)
    if not named:
        studies.add_candidates(tx, study.id, called_for(study, program, raw))
    studies.set_program(tx, study.id, str(program))
    add_baseline(
        tx,
        artifacts,
        study_id=study.id,
        data_version_id=version_id,
        train_labels=parts.train.labels,
        validation_labels=parts.validation.labels,
        hit=study.hit,
    )
    studies.set_study_state(tx, study.id, StudyState.ACTIVE)
    notify(tx, f"study:{study.name}")
    shown = ", ".join(f"{name} {len(labels):,}" for name, (_, labels) in _named(parts).items())
    repeated = f"; rows with the inputs of another, left out: {raw.duplicates:,}" if raw.duplicates else ""
    return f"study {study.name} is active; rows: {shown}{repeated}{warning}"


def _program(study: Study, raw: RawTable) -> Program:
    """What goes in and what comes out, as the tenant has said it or as the data look.

    Raises:
        InvalidInputError: The tenant has said something else than the data are.
    """
    if study.program is None:
        return raw.program or program_of_data(raw.layout, raw.task, len(raw.class_names), raw.target_layout)
    program = parse_program(study.program)
    require_data_of(program, raw.layout, raw.task, len(raw.class_names), raw.target_layout)
    return program


def _kept_names(raw: RawTable) -> tuple[str, ...] | None:
    """The columns' names as they are kept with the data, and as rows are hashed with now and later."""
    return raw.feature_names if sum(map(len, raw.feature_names)) <= _LONGEST_NAMES else None


def _require_unsealed(tx: Connection, study: Study, hashes: Sequence[bytes]) -> None:
    """No table whose rows are sealed for another tenant: its open parts would show them, labels included.

    Raises:
        AlreadyExistsError: More than one row in twenty is; fewer are taken for coincidence.
    """
    if sealed.sealed_for_others(tx, study.id, hashes) > _COINCIDENCE * len(hashes):
        raise AlreadyExistsError(kind="table", name=study.source, remedy="another tenant's study has sealed its rows")


def _sealed_already(tx: Connection, study: Study, hashes: Sequence[bytes]) -> str:
    """What the answer says where the tenant has sealed the table's rows before; their number is for the log alone.

    A count would tell a developer, who can register any rows, which of them lie in a sealed set.
    """
    found = sealed.sealed_by_tenant(tx, study.id, hashes)
    for name, rows in found.items():
        logger.warning("%d of %d rows of study %s lie in sets of study %s", rows, len(hashes), study.name, name)
    known = [name for name, rows in found.items() if rows > _COINCIDENCE * len(hashes)]
    if not known:
        return ""
    more = f" and of {len(known) - 1} others" if len(known) > 1 else ""
    return (
        f"; warning: more than one row in twenty lies in a sealed set of this tenant's study {known[0]}{more} already; "
        "the data was split anew, so the open parts of each show rows that are sealed in the other: register a table "
        "once"
    )


def _require_no_slices(gate: GateConfig) -> None:
    """Which example belongs to which slice is known of uploaded examples only.

    Raises:
        InvalidInputError: The study's gate has conditions for slices.
    """
    if gate.slices:
        message = (
            "conditions for slices need a test set of their own: register the study without them, then seal one with "
            "`easeml test-set seal --slices COLUMN`"
        )
        raise InvalidInputError(message)


def planned_sets(settings: Mapping[str, Any]) -> dict[SealedSetPurpose, SetConfig]:
    """What each sealed set of a study with these settings is planned for.

    Raises:
        InvalidInputError: Gate and meter cannot share a set with these settings.
    """
    return {kind: settings_of_plan(kind, study_plan(settings, kind).to_json()) for kind in set_purposes(settings)}


def part_sizes(n_rows: int, plans: Mapping[SealedSetPurpose, SetConfig]) -> dict[str, int]:
    """Rows of every part but training: what the plans need, or a fixed share of the rows where that is more.

    Raises:
        SealedSetTooSmallError: Less than a fifth of the rows would be left for training; names the scarcest plan.
    """
    needed = {str(kind): needed_examples(config) for kind, config in plans.items()}
    needed["validation"] = max(_validation_minimum(config) for config in plans.values())
    if sum(needed.values()) > (1 - _LEAST_TRAINING_SHARE) * n_rows:
        purpose = max(needed, key=lambda name: needed[name])
        others = sum(needed.values()) - needed[purpose]
        sealed_parts = " and ".join(f"{needed[kind]:,} for {_CALLED[kind]}" for kind in plans)
        raise SealedSetTooSmallError(
            purpose=purpose,
            needed=needed[purpose],
            available=max(0, int((1 - _LEAST_TRAINING_SHARE) * n_rows) - others),
            detail=f"the data has {n_rows:,} distinct rows; the plans need {sealed_parts}, "
            f"{needed['validation']:,} for validation, and a fifth must be left for training",
            remedy="bring data with more rows",
        )
    wanted = {name: max(needed[name], int(_SHARES[name] * n_rows)) for name in needed}
    fits = sum(wanted.values()) <= (1 - _LEAST_TRAINING_SHARE) * n_rows
    return wanted if fits else needed


def _validation_minimum(config: SetConfig) -> int:
    if isinstance(config, JointConfig):
        return plan_joint(config).validation_minimum or 0
    return (plan_for_meter(config).validation_minimum or 0) if isinstance(config, MeterConfig) else 0


def _named(parts: Parts) -> dict[str, tuple[Any, Any]]:
    """The parts that have rows."""
    named = {name: getattr(parts, name) for name in ("train", "validation", *SealedSetPurpose)}
    return {str(name): part for name, part in named.items() if len(part.labels)}


def _open_parts(
    tx: Connection, artifacts: ArtifactStore, study: Study, raw: RawTable, parts: Parts, digest: str
) -> int:
    """Publish training and validation part; the id of the data version."""
    with tempfile.TemporaryDirectory(prefix="easeml-seal-") as folder:
        path = Path(folder) / "open.npz"
        save_open_parts(path, parts)
        artifact = artifacts.put(path)
    return studies.add_data_version(
        tx,
        study_id=study.id,
        content_hash=digest,
        artifact=artifact,
        features=int(np.prod(raw.inputs.shape[1:])),
        class_names=raw.class_names,
        parts={name: len(labels) for name, (_, labels) in _named(parts).items()},
        feature_names=_kept_names(raw),
        layout=stored_layout(raw.layout, raw.target_layout),
    )


def _seal_parts(
    tx: Connection, study: Study, version_id: int, parts: Parts, plans: Mapping[SealedSetPurpose, SetConfig]
) -> None:
    names = studies.feature_names(tx, version_id)
    for purpose, config in plans.items():
        inputs, labels = getattr(parts, purpose)
        order = sealed.fixed_order(tx, example_hashes(inputs, names))
        sealed.seal(
            tx,
            study_id=study.id,
            data_version_id=version_id,
            purpose=purpose,
            inputs=inputs[order],
            labels=labels[order],
            steps=config.steps,
            plan=config.to_json(),
        )
