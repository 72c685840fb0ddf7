"""Seal new examples for a study: read files, encode, check and order them, in one transaction.

New examples must be enough, and unknown; rows with the same inputs are one example. A killed call has sealed nothing
and can be repeated.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from attrs import evolve

from easeml_core.data.columns import column_of_texts
from easeml_core.data.parts import load_open_parts
from easeml_core.data.rows.cells import cells_of_columns, cells_of_inputs
from easeml_core.data.rows.labeled_pairs import pairs_like
from easeml_core.data.rows.row_files import read_named_rows
from easeml_core.data.rows.row_tables import LONGEST_KEY, ExampleFile, input_columns, refused
from easeml_core.data.rows.row_tables import shown as quoted
from easeml_core.data.split_spec import check_split
from easeml_core.entities import SealedSetPurpose, SealedSetState, Task
from easeml_core.errors import AlreadyExistsError, ArtifactError, InvalidInputError, SealedSetTooSmallError
from easeml_core.formats.encoding import row_of, typed_record
from easeml_core.services.studies.columns import row_form
from easeml_core.services.test_sets.answers import meter_settings_of
from easeml_core.services.test_sets.compared_rows import new_rows
from easeml_core.services.test_sets.lifecycle import ShownSet, shown, when_live
from easeml_core.services.test_sets.planning import (
    gate_of,
    needed_examples,
    needed_of_slice,
    set_settings,
    study_plan,
)
from easeml_core.services.test_sets.row_registry import label_tokens, look_up, register
from easeml_core.settings.config import MOST_SLICES, GateConfig, JointConfig, MeterConfig
from easeml_core.store.artifacts.remote import is_of_store
from easeml_core.store.database import notify
from easeml_core.store.tables import datasets, releases, sealed, studies, test_sets, validation_sets
from easeml_core.store.tables import labels as examples
from easeml_core.store.tables import labels as label_rows
from easeml_core.store.tables.test_sets import example_hashes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from sqlalchemy import Connection

    from easeml_core.data.parts import OpenParts
    from easeml_core.data.rows.row_files import NamedRows
    from easeml_core.entities import DataVersion, Study
    from easeml_core.services.test_sets.compared_rows import NewRows
    from easeml_core.services.test_sets.row_registry import Found
    from easeml_core.settings.config import SetConfig
    from easeml_core.store.artifacts.local import ArtifactStore
    from easeml_core.store.database import Store
    from easeml_core.store.tables.test_sets import SealedSet
    from easeml_core.store.tables.validation_sets import ValidationPart


_COINCIDENCE = 1 / 20
"""Largest share of examples in other tenants' sets that counts as coincidence, as at registration."""


@dataclass(frozen=True, slots=True, eq=False)
class Content:
    """The content of a set, in its order: inputs (rows, features), labels (-1: wanted later), keys, slices.

    ``columns`` are the names of the inputs as stored with the study's data, None where they are not; ``repeated`` says
    how many rows of the file are left out, since another has the same inputs.
    """

    inputs: NDArray[np.float32]
    labels: NDArray[Any]
    keys: tuple[str, ...]
    slices: NDArray[np.int64] | None
    hashes: Sequence[bytes]
    columns: Sequence[str] | None
    repeated: int


@typed_record
class SealedUpload(ShownSet):
    """A set after ``seal_test_set``.

    Attributes:
        needed: Examples that the plan needs.
        repeated: Rows of the file that were left out, since another has the same inputs.
        sealed_before: Whether this same call was made before.
        when_live: When a waiting set becomes live, in words; None for one that does not wait.
        warnings: Differences of the examples from the study's open data, and why they may be no random sample.
    """

    needed: int
    repeated: int
    sealed_before: bool
    when_live: str | None
    warnings: tuple[str, ...]


def distinct(keys: Sequence[str], hashes: Sequence[bytes]) -> list[int]:
    """Return rows of different inputs, as in the study's own data; of those that repeat each other, one.

    Which one a hash of its name decides: neither its label nor its place in the file.
    """
    kept: dict[bytes, int] = {}
    for row in sorted(range(len(keys)), key=lambda row: hashlib.sha256(keys[row].encode()).digest()):
        kept.setdefault(hashes[row], row)
    return sorted(kept.values())


def _share(part: int, whole: int) -> str:
    return f"({100 * part / whole:.1f} %)"


def require_enough(purpose: SealedSetPurpose, config: SetConfig, content: Content) -> None:
    """Require as many examples as the plan needs, of the set and of each slice."""
    asked, gate = [], gate_of(config)
    for code, (name, condition) in enumerate(() if gate is None else gate.slices):
        assert content.slices is not None
        assert isinstance(config, GateConfig | JointConfig)  # gate_of has found a gate in it
        members = int((content.slices == code).sum())
        asked.append((needed_of_slice(config, condition), members, f"slice {name}: {condition}"))
    whole = "the signals" if gate is None else gate.condition
    detail = f"{whole}, and the signals" if isinstance(config, JointConfig) else whole
    asked.append((needed_examples(config), len(content.keys), detail))
    for needed, available, what in asked:
        if available < needed:
            raise SealedSetTooSmallError(purpose=str(purpose), needed=needed, available=available, detail=what)


def require_same_ranges(direct: MeterConfig, meter: MeterConfig) -> None:
    """Require that the two signals of one submission can be compared."""
    there, here = (meter.ranges, meter.tolerance), (direct.ranges, direct.tolerance)
    if there != here:
        message = (
            f"a direct set must have the ranges and the tolerance of the study's meter, {list(meter.ranges)} and "
            f"{meter.tolerance:g}, since the signals on both are compared; got {list(direct.ranges)} and "
            f"{direct.tolerance:g}"
        )
        raise InvalidInputError(message)


def require_new(
    tx: Connection, artifacts: ArtifactStore, file: ExampleFile, study: Study, parts: OpenParts, content: Content
) -> None:
    """Refuse examples that developers can or could see, or that another set has: answers would be counted twice."""
    opened = set(example_hashes(parts.train_inputs, content.columns)) | validated_hashes(tx, artifacts, study.id)
    opened |= fed_hashes(tx, artifacts, study.id, parts)
    seen = {h: "the open parts of the study's data" for h in opened.intersection(content.hashes)}
    if not seen:
        sets = test_sets.tenants_sets_with(tx, study.id, content.hashes)
        seen = {h: f"test set {test_sets.get_set(tx, set_id).called!r}" for h, set_id in sets.items()}
    if seen:
        row_of = {key: row for row, key in enumerate(file.keys)}
        row, place = min(
            (row_of[key], seen[h]) for key, h in zip(content.keys, content.hashes, strict=True) if h in seen
        )
        what = (
            f"{len(seen):,} of {len(content.keys):,} examples are known already, the first of them from {place}; bring "
            f"examples that were never used. If these were left out {_share(len(seen), len(content.keys))}, the set "
            "would be a sample of new inputs alone, not of all that models meet"
        )
        raise refused(file, what, row)
    if sealed.sealed_for_others(tx, study.id, content.hashes) > _COINCIDENCE * len(content.hashes):
        raise AlreadyExistsError(
            kind="table", name=str(file.path), remedy="another tenant's study has sealed its examples"
        )


def require_unknown(file: ExampleFile, content: Content, known: Found) -> None:
    """Refuse examples that are rows of the installation, sealed or open, beyond what chance explains."""
    exact = np.flatnonzero(known.is_exact)
    if not len(exact) and not known.own and not known.others:
        return
    place = int(exact[0]) if len(exact) else int(np.argmax(known.is_known))
    row = {key: row for row, key in enumerate(file.keys)}[content.keys[place]]
    count = int(known.is_known.sum())
    whose = f" (study {known.own[0]!r})" if known.own else ""
    what = f"{count:,} of {len(content.keys):,} examples are rows that the installation has already{whose}"
    raise refused(file, what + "; bring examples that were never used", row)


def unlike(inputs: NDArray[np.float32], parts: OpenParts, names: Sequence[str] | None) -> list[str]:
    """Describe columns whose typical value is outside the range of the open parts: units often differ."""
    opened = parts.train_inputs, parts.validation_inputs
    low = np.fmin(*(np.fmin.reduce(part, axis=0) for part in opened))
    high = np.fmax(*(np.fmax.reduce(part, axis=0) for part in opened))
    typical = np.median(inputs, axis=0)
    for place in np.flatnonzero(np.isnan(typical)):
        known = inputs[~np.isnan(inputs[:, place]), place]
        typical[place] = np.median(known) if len(known) else np.nan
    return [
        f"column {quoted(names[place] if names else f'x{place + 1}')} has the median {typical[place]:g}, the study's "
        f"open data goes from {low[place]:g} to {high[place]:g}; is it in the same unit?"
        for place in np.flatnonzero((typical < low) | (typical > high))[:8]
    ]


def seal_test_set(
    store: Store,
    artifacts: ArtifactStore,
    *,
    study: str,
    inputs: Path,
    labels: Path | None = None,
    name: str | None = None,
    purpose: str | None = None,
    settings: Mapping[str, object] | None = None,
    slices_column: str | None = None,
) -> SealedUpload:
    """Seal new examples; the set is live at once, or waits as ``sealed`` while another one is live."""
    with store.begin() as tx:
        found = studies.get_study(tx, study)
        artifacts = artifacts.of_tenant(found.tenant)
        form = row_form(tx, artifacts, studies.latest_data_version(tx, found.id))
        asked = purpose, settings or {}, slices_column
        # Settings are looked at first, and the study is held last: to decode many images takes minutes.
        _settings(found, _named(tx, found, name), *asked)
        rows = read_named_rows(inputs, labels, form, beside=slices_column)
        releases.hold_study(tx, found.id)
        version = studies.latest_data_version(tx, found.id)
        named = _named(tx, found, name)
        kind, config = _settings(found, named, *asked)
        on_demand = rows.labels is None
        if on_demand and (kind != SealedSetPurpose.GATE or found.task == Task.REGRESSION):
            whose = f"a {kind} set" if found.task == Task.CLASSIFICATION else "a set of a study that predicts numbers"
            message = (
                f"{whose} needs the label of every example; give them with --labels, or in the inputs: images in a "
                "sub-folder for each class, targets.npy beside inputs.npy"
            )
            raise InvalidInputError(message)
        if isinstance(config, MeterConfig) and kind == SealedSetPurpose.DIRECT:
            require_same_ranges(config, _meter_of(tx, found))
        file = rows.file
        codes, config = _take_slices(file, slices_column, config)
        content = _content(tx, rows, codes, form.feature_names)
        before = test_sets.set_with_fingerprint(tx, sealed.fingerprint(content.hashes))
        if before is not None:
            _require_same(tx, before, found, name, content)
            _require_same_plan(before, kind, config)
            return _sealed(tx, before, config, content, sealed_before=True)
        if named is not None and named.state != SealedSetState.PLANNED:
            raise AlreadyExistsError(kind="test set", name=name, remedy=f"it is {named.state}; choose another name")
        require_enough(kind, config, content)
        with artifacts.copy(version.artifact) as path:
            parts = load_open_parts(path)
        require_new(tx, artifacts, file, found, parts, content)
        new = _new_rows(tx, file, version, content, parts)
        known = look_up(tx, artifacts, found, new)
        require_unknown(file, content, known)
        set_id = _seal(tx, found, version, kind, config, name, content, on_demand=on_demand)
        label = None if form.target is not None else label_tokens(tx, found, form.class_names, content.labels)
        register(tx, found.id, new, {set_id: np.arange(len(new.ids))}, known, label)
        if on_demand:
            _keep_cells(tx, set_id, file, content)
        warnings = unlike(content.inputs, parts, content.columns)
        warnings += filter(None, [check_split(found.config.get("split")).brought_warning])
        made = test_sets.get_set(tx, set_id)
        return _sealed(tx, made, config, content, sealed_before=False, warnings=warnings)


def _sealed(
    tx: Connection,
    found: SealedSet,
    config: SetConfig,
    content: Content,
    *,
    sealed_before: bool,
    warnings: Sequence[str] = (),
) -> SealedUpload:
    rows = len(content.keys) + content.repeated
    repeated = (
        f"{content.repeated:,} of {rows:,} rows {_share(content.repeated, rows)} repeat the inputs of another and were "
        "left out: verdicts weigh different inputs alike, however often each comes"
    )
    return SealedUpload(
        **row_of(shown(found)),
        needed=needed_examples(config),
        repeated=content.repeated,
        sealed_before=sealed_before,
        when_live=when_live(tx, found),
        warnings=(*([repeated] if content.repeated else []), *warnings),
    )


def _settings(
    study: Study,
    named: SealedSet | None,
    purpose: str | None,
    settings: Mapping[str, object],
    slices_column: str | None,
) -> tuple[SealedSetPurpose, SetConfig]:
    """Return purpose and settings, which fit the column of slices."""
    kind, config = _planned(study, named, purpose, settings)
    gate = gate_of(config)
    if (slices_column is not None) if gate is None else (slices_column is None and len(gate.slices) > 0):
        message = "conditions for slices and --slices COLUMN come together, for sets that a gate draws on only"
        raise InvalidInputError(message)
    return kind, config


def _planned(
    study: Study, named: SealedSet | None, purpose: str | None, settings: Mapping[str, object]
) -> tuple[SealedSetPurpose, SetConfig]:
    """Return purpose and settings; those of a planned set stay as planned, also when the call is repeated."""
    if named is None or (named.state != SealedSetState.PLANNED and settings):
        return set_settings(study, purpose or SealedSetPurpose.GATE, settings)
    if purpose not in (None, named.purpose):
        message = (
            f"test set {named.name!r} is planned with --purpose {named.purpose}, got {purpose}; leave --purpose out, "
            "or choose another name"
        )
        raise InvalidInputError(message)
    if settings:
        message = (
            f"test set {named.name!r} is planned already, with other settings; leave settings out, or choose "
            f"another name; got {', '.join(settings)}"
        )
        raise InvalidInputError(message)
    return named.purpose, named.plan


def _named(tx: Connection, study: Study, name: str | None) -> SealedSet | None:
    return None if name is None else test_sets.set_named(tx, study.id, name)


def _meter_of(tx: Connection, study: Study) -> MeterConfig:
    """Return the meter that a second one is compared with: of the live set, else of the study's settings."""
    live = releases.live_test_set(tx, study.id, SealedSetPurpose.METER)
    if live is not None:
        return meter_settings_of(live)
    planned = study_plan(study.config, SealedSetPurpose.METER)
    assert isinstance(planned, MeterConfig)
    return planned


def _take_slices(
    file: ExampleFile, column: str | None, config: SetConfig
) -> tuple[NDArray[np.int64] | None, SetConfig]:
    """Return the code of each example's slice, and the settings with all slices."""
    gate = gate_of(config)
    if column is None or gate is None:
        return None, config
    slices = gate.slices
    words = [cell.strip() for cell in file.columns[column]]
    if not slices:
        found = sorted(set(words) - {""})
        if len(found) > MOST_SLICES or not all(word.isprintable() and len(word) <= LONGEST_KEY for word in found):
            raise refused(file, f"column {column!r} must have at most {MOST_SLICES} different words of printable text")
        slices = tuple((word, gate.condition) for word in found)
        gate = evolve(gate, slices=slices)
        config = evolve(config, gate=gate) if isinstance(config, JointConfig) else gate
    place = {name: code for code, (name, _) in enumerate(slices)}
    unknown = sorted(set(place) - set(words))
    if unknown:
        raise refused(file, f"slice {quoted(unknown[0])} has no example in column {column!r}")
    codes = np.array([place.get(word, -1) for word in words], dtype=np.int64)
    return codes, config


def _content(
    tx: Connection, rows: NamedRows, codes: NDArray[np.int64] | None, columns: Sequence[str] | None
) -> Content:
    """Return inputs, labels, keys and slices in the set's order."""
    hashes = example_hashes(rows.inputs, columns)
    kept = distinct(rows.file.keys, hashes)
    order = np.array(kept)[sealed.fixed_order(tx, [hashes[i] for i in kept])]
    return Content(
        rows.inputs[order],
        np.full(len(order), label_rows.UNKNOWN) if rows.labels is None else rows.labels[order],
        tuple(rows.file.keys[i] for i in order),
        None if codes is None else codes[order],
        [hashes[i] for i in order],
        columns,
        repeated=len(hashes) - len(kept),
    )


def _equal(one: NDArray[Any] | None, other: NDArray[Any] | None) -> bool:
    if one is None or other is None:
        return one is other
    return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")


def _require_same(tx: Connection, before: SealedSet, study: Study, name: str | None, content: Content) -> None:
    """Refuse examples that were sealed before, unless the call is the same."""
    slices = sealed.sealed_slices(tx, before.id)
    same = (
        before.study_id == study.id
        and before.name == name
        and tuple(sealed.sealed_keys(tx, before.id)) == content.keys
        and _equal(sealed.sealed_labels(tx, before.id), content.labels)
        and _equal(slices, content.slices)
    )
    if not same:
        remedy = f"study {before.study!r} has it, {before.state}; under whatever name, what was used of it stays used"
        raise AlreadyExistsError(kind="test set with exactly these examples", name=before.called, remedy=remedy)


def _require_same_plan(before: SealedSet, purpose: SealedSetPurpose, config: SetConfig) -> None:
    """Refuse another plan for a sealed set: the caller must not believe that it was applied."""
    there, here = row_of(before.plan), row_of(config)
    if before.purpose != purpose:
        there, here = {"purpose": str(before.purpose)}, {"purpose": str(purpose)}
    names = [name for name in here if here[name] != there[name]]
    if names:
        differs = "; ".join(f"{name} {there[name]!r} there, {here[name]!r} here" for name in names)
        remedy = f"sealed with other settings: {differs}. They stay as they are; seal other examples for other settings"
        raise AlreadyExistsError(kind="test set with exactly these examples", name=before.called, remedy=remedy)


def _keep_cells(tx: Connection, set_id: int, file: ExampleFile, content: Content) -> None:
    """Store the words of examples to be labelled; for numbers their cells say no more."""
    words = [name for name in file.columns if name not in (content.columns or file.columns)]
    if words:
        place = {key: row for row, key in enumerate(file.keys)}
        cells = list(zip(*file.columns.values(), strict=True))
        examples.keep_cells(tx, set_id, list(file.columns), [cells[place[key]] for key in content.keys])


def _new_rows(tx: Connection, file: ExampleFile, version: DataVersion, content: Content, parts: OpenParts) -> NewRows:
    """Return the rows of a file in the set's order: its cells, and the encoding where there are none."""
    encoded = cells_of_inputs(content.inputs, content.columns, parts.layout)
    if content.columns is None or parts.layout.kind != "table" or not file.columns:
        return new_rows(tx, encoded)
    place = {key: row for row, key in enumerate(file.keys)}
    order = np.array([place[key] for key in content.keys], dtype=np.intp)
    names = sorted(input_columns(file, content.columns))
    columns = {name: column_of_texts(file.columns[name])[order] for name in names}
    return new_rows(tx, cells_of_columns(columns, encoded))


def _seal(
    tx: Connection,
    study: Study,
    version: DataVersion,
    purpose: SealedSetPurpose,
    config: SetConfig,
    name: str | None,
    content: Content,
    *,
    on_demand: bool,
) -> int:
    taken = test_sets.is_served(tx, study.id, purpose)
    set_id = sealed.seal(
        tx,
        study_id=study.id,
        data_version_id=version.id,
        purpose=purpose,
        inputs=content.inputs,
        labels=content.labels,
        steps=config.steps,
        plan=config,
        state=SealedSetState.SEALED if taken else SealedSetState.LIVE,
        name=name,
        labels_on_demand=on_demand,
        keys=content.keys,
        slices=content.slices,
    )
    notify(tx, f"study:{study.name}")
    label_rows.announce(tx, set_id)  # a live set wakes the referee: earlier models are run on it
    return set_id


MOST_WAITING = 10_000
"""Largest number of waiting feeds that are read."""


def part_hashes(tx: Connection, artifacts: ArtifactStore, parts: Iterable[ValidationPart]) -> list[set[bytes]]:
    """Return the hashes of the rows of each of these validation parts."""
    found = []
    for part in parts:
        with artifacts.copy(part.artifact) as path:
            inputs = load_open_parts(path).validation_inputs
        found.append(set(example_hashes(inputs, studies.feature_names(tx, part.id))))
    return found


def validated_hashes(tx: Connection, artifacts: ArtifactStore, study_id: int) -> set[bytes]:
    """Return the hashes of all rows that are or were in a validation part of the study."""
    return set[bytes]().union(*part_hashes(tx, artifacts, validation_sets.validation_parts(tx, study_id)))


def fed_hashes(tx: Connection, artifacts: ArtifactStore, study_id: int, parts: OpenParts) -> set[bytes]:
    """Return the hashes of the rows of waiting feeds, and of those that the training part leaves out.

    An invalid file is skipped: its own refresh will refuse it. One that cannot be read now is not.
    """
    columns = studies.feature_names(tx, studies.latest_data_version(tx, study_id).id)
    waiting = [feed.artifact for feed in datasets.waiting_feeds(tx, study_id, limit=MOST_WAITING)]
    found = set[bytes]()
    for reference in filter(None, [datasets.switched_off(tx, study_id), *waiting]):
        try:
            with artifacts.copy(reference) as path:
                pairs = pairs_like(path, parts)
        except (ArtifactError, InvalidInputError) as error:
            if is_of_store(error):
                raise
            continue
        found.update(example_hashes(pairs.inputs, columns))
    return found
