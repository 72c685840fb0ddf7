"""Load a study's data, split it once, seal some parts and open the rest; add the baseline.

The baseline is a constant answer that is the old model while none is in production. It is made once, from the first
training part, and each further data version keeps it: otherwise a user who feeds or switches rows could choose what the
gate compares with.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.data.layout import stored_layout
from easeml_core.data.parts import content_hash, divided_rows, parts_of, save_open_parts
from easeml_core.data.program import program_of_data
from easeml_core.data.split_spec import check_split
from easeml_core.data.table import rows_of
from easeml_core.entities import JsonObject, SealedSetPurpose, Study, StudyState
from easeml_core.errors import AlreadyExistsError, InvalidInputError, SealedSetTooSmallError, counted
from easeml_core.files.local import scratch_folder
from easeml_core.metrics.metric import wrong
from easeml_core.models.formats import load_constant, save_constant
from easeml_core.programs.language import parse_program
from easeml_core.services.studies.candidates import called_for, require_fitting
from easeml_core.services.test_sets.compared_rows import new_rows_of_table
from easeml_core.services.test_sets.planning import (
    canonical,
    needed_examples,
    plan_for_meter,
    plan_joint,
    set_purposes,
    study_plan,
)
from easeml_core.services.test_sets.row_registry import (
    is_public,
    label_tokens,
    look_up,
    register,
    require_few_refusals,
    require_other_rows,
)
from easeml_core.settings.config import GateConfig, JointConfig, MeterConfig, TrainingConfig
from easeml_core.store.database import notify
from easeml_core.store.tables import models, sealed, studies
from easeml_core.store.tables.test_sets import example_hashes
from easeml_core.training.candidates import require_data_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from sqlalchemy import Connection

    from easeml_core.data.parts import Parts
    from easeml_core.data.sources.load import RawTable
    from easeml_core.data.split_spec import Split
    from easeml_core.programs.data_type import Program
    from easeml_core.services.datasets.fetching import Fetches
    from easeml_core.services.test_sets.compared_rows import NewRows
    from easeml_core.services.test_sets.row_registry import Found
    from easeml_core.settings.config import SetConfig
    from easeml_core.store.artifacts.local import ArtifactStore
    from easeml_core.store.tables.requests import Request


def add_baseline(
    tx: Connection,
    artifacts: ArtifactStore,
    *,
    study_id: int,
    data_version_id: int,
    train_labels: NDArray[Any],
    validation_labels: NDArray[Any],
    hit: str,
) -> None:
    """Add the model that always answers the most frequent class of the training part, or the median of its numbers.

    Where an answer is several numbers, it is the median of each place in the row.
    """
    with scratch_folder("baseline") as folder:
        path = Path(folder) / "baseline.json"
        save_constant(path, _answer(train_labels))
        answers = load_constant(path).predict(validation_labels)
        artifact = artifacts.put(path)
    loss = float(np.mean(wrong(hit, validation_labels, answers)))
    _add(tx, study_id=study_id, data_version_id=data_version_id, artifact=artifact, validation_loss=loss)


def keep_baseline(
    tx: Connection,
    artifacts: ArtifactStore,
    *,
    study_id: int,
    data_version_id: int,
    validation_labels: NDArray[Any],
    hit: str,
) -> None:
    """Add the study's baseline, unchanged, to a further data version."""
    artifact = models.baseline_model(tx, study_id).artifact
    with artifacts.copy(artifact) as path:
        answers = load_constant(path).predict(validation_labels)
    loss = float(np.mean(wrong(hit, validation_labels, answers)))
    _add(tx, study_id=study_id, data_version_id=data_version_id, artifact=artifact, validation_loss=loss)


def _add(tx: Connection, **fields: Any) -> None:
    models.add_model(tx, trial_id=None, format="constant", **fields)


def _answer(labels: NDArray[Any]) -> int | float | tuple[float, ...]:
    if labels.dtype == np.int64:
        return int(np.bincount(labels).argmax())
    if labels.ndim == 1:
        return float(np.median(labels))
    unknown = np.isnan(labels).all(axis=0)  # such as the steps that only a series of another part has
    medians = np.nanmedian(np.where(unknown, 0.0, labels), axis=0)
    return tuple(float(number) for number in medians)


logger = logging.getLogger(__name__)

# Shares of the rows, where the plans need less: more sealed examples make verdicts sharper, never weaker.
_SHARES = {"gate": 0.2, "meter": 0.1, "joint": 0.3, "direct": 0.1, "validation": 0.15}
_SHARE_CELLS = 30_000_000
"""Numbers of one part beyond what its plan needs, 120 MB: the largest share of a table that is held in memory."""

_CALLED = {"gate": "the gate", "meter": "the meter", "joint": "gate and meter", "direct": "the second meter"}
_LEAST_TRAINING_SHARE = 0.2
_COINCIDENCE = 1 / 20  # so large a share of the rows may lie in other sealed sets without an error
_LONGEST_NAMES = 1_000_000  # characters of all column names together: more of them are not worth a row


def seal_study(tx: Connection, artifacts: ArtifactStore, request: Request, study: Study, fetches: Fetches) -> str:
    """Split, seal and activate the study of a request.

    The split is random but a function of the installation's secret, the study and the data, so that a repetition after
    a crash seals the same examples and no file of an abandoned split shows them.
    """
    if study.state != StudyState.REGISTERED:
        return f"study {study.name} is {study.state} already"
    artifacts = artifacts.of_tenant(study.tenant)
    split = check_split(study.config.get("split"))
    raw = fetches.table(request.id, study, split)
    program = _program(study, raw)
    named = {candidate.name: candidate.kind for candidate in studies.list_candidates(tx, study.id)}
    require_fitting(study, named, raw.layout, raw.target_layout)
    _require_no_slices(GateConfig.from_json(study.config["gate"]))  # before anything is planned for them
    plans = planned_sets(study.config)
    TrainingConfig.from_json(study.config["training"])  # the scheduler reads it for all studies: it must be valid
    rows = _registered_rows(tx, artifacts, study, split, raw)
    raw = rows.raw
    sizes = part_sizes(len(raw.labels), plans, features=raw.inputs.shape[1])
    # Keyed, because the plain hash of data that includes sealed labels would let a user check guesses of them.
    digest = hmac.digest(sealed.installation_secret(tx), content_hash(raw).encode(), "sha256").hex()
    seed = hashlib.sha256(f"{digest}|{study.name}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(seed, "big"))
    divided = divided_rows(raw, sizes=sizes, rng=rng, split=split, hidden=rows.hidden, shown=rows.shown)
    parts = parts_of(raw, divided)
    _require_sizes(parts, sizes, plans)
    warning = f"; warning: {split.warning}" if split.warning else ""
    if rows.new is None:
        hashes = [h for inputs, _ in _named(parts).values() for h in example_hashes(inputs, _kept_names(raw))]
        _require_unsealed(tx, study, hashes)
        warning = _sealed_already(tx, study, hashes) + warning
    version_id = _open_parts(tx, artifacts, study, raw, parts, digest)
    set_ids = _seal_parts(tx, study, version_id, parts, plans)
    if rows.new is not None:
        places: dict[int | None, NDArray[np.intp]] = {set_ids[kind]: divided[str(kind)] for kind in plans}
        places[None] = np.concatenate([divided["train"], divided["validation"]])
        register(tx, study.id, rows.new, places, rows.found, rows.label)
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


@dataclass(frozen=True, slots=True, eq=False)
class _Registered:
    """The rows that a study may use, as the registry knows them.

    Attributes:
        raw: The rows.
        new: Their tokens; None for public data, which are not registered.
        found: What the registry knows of them; None likewise.
        label: Tokens of the labels, and of their column's name; None where a label is no single cell.
    """

    raw: RawTable
    new: NewRows | None = None
    found: Found | None = None
    label: tuple[NDArray[np.uint64], int] | None = None

    @property
    def hidden(self) -> NDArray[np.bool_] | None:
        """Whether a row is sealed elsewhere, shape (rows,)."""
        return None if self.found is None else self.found.is_sealed

    @property
    def shown(self) -> NDArray[np.bool_] | None:
        """Whether a row is open elsewhere, shape (rows,)."""
        return None if self.found is None else self.found.is_shown


def _registered_rows(
    tx: Connection, artifacts: ArtifactStore, study: Study, split: Split, raw: RawTable
) -> _Registered:
    """Compare the rows with all that are registered, and leave out those that this study may not have.

    Rows of the same cells are one row, whatever their encoding: one of them is kept. With ``part=K/N`` the rows that
    the tenant's studies have are left out, and of the others a share of 1 / (N - K + 1) is drawn by their keyed hash.
    """
    if is_public(study.source) and split.part is None:
        return _Registered(raw)
    require_few_refusals(tx, study)
    new = new_rows_of_table(tx, raw)
    first: dict[bytes, int] = {}
    for place, row in enumerate(new.ids):
        first.setdefault(row, place)
    kept = np.array(list(first.values()), dtype=np.intp)
    found = look_up(tx, artifacts, study, new)
    if split.part is not None:
        kept = _part_of(split, raw, new, kept, found.of_tenant(study.tenant))
    if len(kept) < len(new.ids):
        repeated = len(new.ids) - len(first)
        raw = replace(rows_of(raw, kept), duplicates=raw.duplicates + repeated)
        new, found = new.at(kept), found.at(kept)
    require_other_rows(tx, study, found)
    label = None if raw.target_layout is not None else label_tokens(tx, study, raw.class_names, raw.labels)
    return _Registered(raw, new, found, label)


def _part_of(
    split: Split, raw: RawTable, new: NewRows, kept: NDArray[np.intp], taken: NDArray[np.bool_]
) -> NDArray[np.intp]:
    """Return part K of N: of the rows that no study of the tenant has, 1 / (N - K + 1); of groups, whole groups."""
    assert split.part is not None
    groups = raw.split_values if split.kind == "group" else None
    of_row = np.arange(len(new.ids)) if groups is None else np.unique(groups, return_inverse=True)[1]
    left = kept[~np.isin(of_row[kept], of_row[taken])]
    key: dict[int, bytes] = {}
    for place in left.tolist():
        group = int(of_row[place])
        key[group] = min(key.get(group, new.ids[place]), new.ids[place])
    number, parts = split.part
    drawn = sorted(key, key=key.__getitem__)[: -(-len(key) // (parts - number + 1))]
    found: NDArray[np.intp] = left[np.isin(of_row[left], drawn)]
    if len(found) < 2:
        message = (
            f"split {str(split)!r}: the tenant's other studies leave {len(found)} rows of the table; bring more "
            "rows, or divide the table from its first study on (`--split 'rows?part=1/2'`)"
        )
        raise InvalidInputError(message)
    return np.sort(found)


def _require_sizes(parts: Parts, sizes: Mapping[str, int], plans: Mapping[SealedSetPurpose, SetConfig]) -> None:
    """Require that the sealed parts have what their plans need, also after known rows took their places."""
    for kind, config in plans.items():
        needed, rows = needed_examples(config), len(getattr(parts, kind).labels)
        if rows < min(needed, sizes[str(kind)]):
            raise SealedSetTooSmallError(
                purpose=str(kind), needed=needed, available=rows, remedy="bring data with more rows"
            )


def _program(study: Study, raw: RawTable) -> Program:
    """Return the study's program, as given by the tenant or inferred from the data."""
    if study.program is None:
        return raw.program or program_of_data(raw.layout, raw.task, len(raw.class_names), raw.target_layout)
    program = parse_program(study.program)
    require_data_of(program, raw.layout, raw.task, len(raw.class_names), raw.target_layout)
    return program


def _kept_names(raw: RawTable) -> tuple[str, ...] | None:
    """Return the columns' names as they are stored with the data and used in the hashes of rows."""
    return raw.feature_names if sum(map(len, raw.feature_names)) <= _LONGEST_NAMES else None


def _require_unsealed(tx: Connection, study: Study, hashes: Sequence[bytes]) -> None:
    """Refuse a table whose rows are sealed for another tenant: its open parts would show them, labels included."""
    if sealed.sealed_for_others(tx, study.id, hashes) > _COINCIDENCE * len(hashes):
        raise AlreadyExistsError(kind="table", name=study.source, remedy="another tenant's study has sealed its rows")


def _sealed_already(tx: Connection, study: Study, hashes: Sequence[bytes]) -> str:
    """Return the answer's sentence where the tenant has sealed the table's rows before; the log has their number.

    A count would tell a developer, who can register any rows, which of them lie in a sealed set.
    """
    found = sealed.sealed_by_tenant(tx, study.id, hashes)
    for name, rows in found.items():
        logger.warning("%d of %d rows of study %s lie in sets of study %s", rows, len(hashes), study.name, name)
    known = [name for name, rows in found.items() if rows > _COINCIDENCE * len(hashes)]
    if not known:
        return ""
    more = f" and of {counted(len(known) - 1, 'other')}" if len(known) > 1 else ""
    return (
        f"; warning: more than one row in twenty lies in a sealed set of this tenant's study {known[0]}{more} already; "
        "the data was split anew, so the open parts of each show rows that are sealed in the other: register a table "
        "once"
    )


def _require_no_slices(gate: GateConfig) -> None:
    """Refuse conditions for slices: only uploaded examples name their slice."""
    if gate.slices:
        message = (
            "conditions for slices need a separate test set: register the study without them, then seal one with "
            "`easeml test-set seal --slices COLUMN`"
        )
        raise InvalidInputError(message)


def planned_sets(settings: JsonObject) -> dict[SealedSetPurpose, SetConfig]:
    """Return the plan of each sealed set of a study with these settings."""
    return {kind: canonical(study_plan(settings, kind)) for kind in set_purposes(settings)}


def part_sizes(n_rows: int, plans: Mapping[SealedSetPurpose, SetConfig], *, features: int = 1) -> dict[str, int]:
    """Return the rows of every part but training: what the plans need, or a fixed share of the rows if that is more.

    A share has at most ``_SHARE_CELLS`` numbers: sealed rows lie in the database, and models answer them in memory.
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
    most = max(1, _SHARE_CELLS // features)
    wanted = {name: max(needed[name], min(int(_SHARES[name] * n_rows), most)) for name in needed}
    fits = sum(wanted.values()) <= (1 - _LEAST_TRAINING_SHARE) * n_rows
    return wanted if fits else needed


def _validation_minimum(config: SetConfig) -> int:
    if isinstance(config, JointConfig):
        return plan_joint(config).validation_minimum or 0
    return (plan_for_meter(config).validation_minimum or 0) if isinstance(config, MeterConfig) else 0


def _named(parts: Parts) -> dict[str, tuple[Any, Any]]:
    """Return the parts that have rows."""
    named = {name: getattr(parts, name) for name in ("train", "validation", *SealedSetPurpose)}
    return {str(name): part for name, part in named.items() if len(part.labels)}


def _open_parts(
    tx: Connection, artifacts: ArtifactStore, study: Study, raw: RawTable, parts: Parts, digest: str
) -> int:
    """Publish training and validation part; return the id of the data version."""
    with scratch_folder("seal") as folder:
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
) -> dict[SealedSetPurpose, int]:
    """Seal the parts; return the number of each set."""
    names = studies.feature_names(tx, version_id)
    set_ids: dict[SealedSetPurpose, int] = {}
    for purpose, config in plans.items():
        inputs, labels = getattr(parts, purpose)
        order = sealed.fixed_order(tx, example_hashes(inputs, names))
        set_ids[purpose] = sealed.seal(
            tx,
            study_id=study.id,
            data_version_id=version_id,
            purpose=purpose,
            inputs=inputs[order],
            labels=labels[order],
            steps=config.steps,
            plan=config,
        )
    return set_ids
