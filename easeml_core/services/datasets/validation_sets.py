"""Report how far a study's validation set is used up, and replace it while the training part stays.

The new validation part is a new version of the study's data. Nothing is trained again: models of the same training part
are evaluated again (``services/evaluation/reevaluation.py``). Warnings about a new set do not prevent its use.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.data.layout import stored_layout
from easeml_core.data.parts import OpenParts, content_hash, load_open_parts, require_in_memory, write_open_parts
from easeml_core.data.split_spec import check_split
from easeml_core.data.table import RawTable
from easeml_core.entities import SealedSetPurpose
from easeml_core.errors import InvalidInputError, counted
from easeml_core.files.local import scratch_folder
from easeml_core.formats.encoding import typed_record
from easeml_core.meter.planner import validation_minimum
from easeml_core.meter.validation_set import ValidationReport, ValidationState, ValidationUse, heritage
from easeml_core.meter.validation_set import validation_report as report_on
from easeml_core.services.datasets.validation_rows import (
    Brought,
    brought_files,
    registered_open,
    require_open,
    rows_of_set,
)
from easeml_core.services.registration.sealing import keep_baseline
from easeml_core.services.studies.columns import row_form
from easeml_core.services.test_sets.answers import meter_settings_of
from easeml_core.services.test_sets.upload import part_hashes, unlike
from easeml_core.settings.config import MeterConfig, require
from easeml_core.store.database import REFEREE_CHANNEL, notify
from easeml_core.store.tables import releases, sealed, studies, test_sets, validation_sets
from easeml_core.store.tables.test_sets import example_hashes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from sqlalchemy import Connection

    from easeml_core.entities import DataVersion, Study
    from easeml_core.store.artifacts.local import ArtifactStore
    from easeml_core.store.database import Store
    from easeml_core.store.tables.validation_sets import ValidationPart


def too_few(rows: int, minimum: int | None) -> list[str]:
    """Warn where the set's own noise leaves range 1 of the meter; ``minimum`` is None where no number is enough."""
    if minimum is None or rows >= minimum:
        return []
    counts = counted(rows, "row is", "rows are")
    return [f"{counts} too few to keep their own noise in range 1 of the meter; it takes {minimum:,}"]


def goes_on(earlier: Sequence[set[bytes]], rows: set[bytes], *, add: bool) -> list[str]:
    """Warn where models were chosen by its rows already, and where it is a new set by name only."""
    kept = len(rows & set[bytes]().union(*earlier))
    new = len(rows) - kept
    if heritage([*earlier, rows]):
        return [
            f"{counted(kept, 'row was', 'rows were')} in an earlier validation set and "
            f"{counted(new, 'was', 'were')} in none: looks and signals of before count on, until as many rows are new"
        ]
    if kept == 0 or add:
        return []
    counts = counted(kept, "of the rows was", "of the rows were")
    return [f"{counts} in an earlier validation set: models were chosen by them already"]


def second_sample(tx: Connection, study: Study) -> list[str]:
    """Warn where the second validation sample was drawn from where an earlier validation set came from."""
    live = releases.live_test_set(tx, study.id, SealedSetPurpose.DIRECT)
    if live is None:
        return []
    found = test_sets.get_set(tx, live.id)
    if found.data_version_id == studies.latest_data_version(tx, study.id).id:
        return []
    return [
        f"second validation sample {found.called} is from where an earlier validation set came from; unless these rows "
        "are from there too, it cannot tell tuning from drift any more: retire it (`easeml test-set retire "
        f"{found.called} --study {study.name}`) and seal one from where these rows come from (--purpose direct)"
    ]


# -- how far it is used up --------------------------------------------------------------------------------------------


@typed_record
class ValidationEntry:
    """A validation set in the list of those that a study had; ``looks`` counts by kind."""

    version: int
    rows: int
    since: datetime
    looks: dict[str, int]
    state: ValidationState


@typed_record
class ValidationSetReport:
    """State of a study's validation set.

    Attributes:
        study: The study.
        version: Of the data that it belongs to.
        rows: How many it has.
        looks: How often models were chosen by it, by kind.
        state: How far it is used up.
        minimum: Rows that keep their own noise in range 1 of the meter; None where no number is enough.
        rows_for_looks: Rows for so many looks at once, or None.
        add_rows: New rows that would make it fresh.
        advice: What to do.
        signals: Since it came into use, oldest first, of the second validation sample where that has answered.
        inherits_from: Versions whose looks and signals count as well, since most of its rows come from them.
        inherited_looks: Their looks.
        inherited_signals: Their signals.
        to_measure: Trained models that it has not measured yet.
        given_up: Models that could not be measured.
        under_way: Trials on earlier data that have not ended.
        split: What the referee said when it split the data, or None.
        history: All validation sets of the study, oldest first.
    """

    study: str
    version: int
    rows: int
    looks: dict[str, int]
    state: ValidationState
    minimum: int | None
    rows_for_looks: int | None
    add_rows: int
    advice: str
    signals: list[int]
    inherits_from: list[int]
    inherited_looks: dict[str, int]
    inherited_signals: list[int]
    to_measure: int
    given_up: int
    under_way: int
    split: str | None
    history: list[ValidationEntry]


def validation_report(
    store: Store, artifacts: ArtifactStore, study: str, *, team: int | None = None
) -> ValidationSetReport:
    """Return the state of a study's validation set, what to do about it, and the sets that it has replaced."""
    with store.begin() as tx:
        found = studies.get_study(tx, study)
        artifacts = artifacts.of_tenant(found.tenant)
        studies.latest_data_version(tx, found.id)  # says what to do where there is none
        parts = validation_sets.validation_parts(tx, found.id)
        part, config = parts[-1], _meter_settings(tx, found)
        known = team is None or (type(team) is int and 1 <= team <= config.teams)
        require(known, "team", team, f"a whole number from 1 to {config.teams}")
        use, before = _use(tx, artifacts, found, parts, config, team)
        report = report_on(use, config)
        to_measure, under_way = validation_sets.count_waiting(tx, found.id)
        given_up = validation_sets.count_given_up(tx, found.id)
        split = validation_sets.split_message(tx, found.id)
    return ValidationSetReport(
        study=study,
        version=part.version,
        rows=part.rows,
        looks=part.looks(),
        state=report.state,
        minimum=report.minimum,
        rows_for_looks=report.rows_for_looks,
        add_rows=report.add_rows,
        advice=report.advice,
        signals=list(use.signals),
        inherits_from=[p.version for p in before],
        inherited_looks=dict(use.inherited_looks),
        inherited_signals=list(use.inherited_signals),
        to_measure=to_measure,
        given_up=given_up,
        under_way=under_way,
        split=split,
        history=[_in_history(p, None if p is not part else report, config) for p in parts],
    )


def _meter_settings(tx: Connection, study: Study) -> MeterConfig:
    """Return the settings of the set that the meter reads now; without one, those of the study's registration."""
    live = releases.live_test_set(tx, study.id, SealedSetPurpose.METER)
    return MeterConfig.from_json(study.config["meter"]) if live is None else meter_settings_of(live)


def _use(
    tx: Connection,
    artifacts: ArtifactStore,
    study: Study,
    parts: Sequence[ValidationPart],
    config: MeterConfig,
    team: int | None,
) -> tuple[ValidationUse, list[ValidationPart]]:
    """Return the use of the last part, and the parts that it continues."""
    part = parts[-1]
    before = [parts[i] for i in heritage(part_hashes(tx, artifacts, parts))] if len(parts) > 1 else []
    use = ValidationUse(
        part.rows,
        part.looks(),
        _signals(tx, study, part, config, team),
        inherited_looks={kind: sum(p.looks()[kind] for p in before) for kind in part.looks()},
        inherited_signals=[s for p in before for s in _signals(tx, study, p, config, team)],
    )
    return use, before


def _signals(tx: Connection, study: Study, part: ValidationPart, config: MeterConfig, team: int | None) -> list[int]:
    """Return the signals that count; those of a set with other ranges are on another scale."""
    mine = {team} if team is not None else ({1} if config.teams == 1 else set())
    found = validation_sets.readings(tx, study.id, part)
    return [r.signal for r in found if meter_settings_of(r).ranges == config.ranges and r.team in mine]


def _in_history(part: ValidationPart, report: ValidationReport | None, config: MeterConfig) -> ValidationEntry:
    report = report or report_on(ValidationUse(part.rows, part.looks(), replaced=True), config)
    return ValidationEntry(part.version, part.rows, part.created_at, part.looks(), report.state)


# -- another one takes its place --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Next:
    """The next validation part: inputs and labels in their order.

    Of the given rows, ``added`` were not in the last part, ``already`` were, ``duplicates`` repeat another.
    """

    inputs: NDArray[np.float32]
    labels: NDArray[Any]
    added: int
    duplicates: int
    already: int


@typed_record
class ReplacedValidation:
    """A validation set that takes the place of another one.

    Attributes:
        study: The study.
        version: Of the data that it belongs to.
        rows: How many it has.
        added: Rows that were brought and are new to the last one.
        duplicates: Rows that were left out since they repeat another.
        already: Rows that were in the last one already; they are left out where that is kept.
        unlabelled: Rows that were left out since they have no label: always 0, a set that lacks labels is refused.
        replaced_before: Whether this very part was in use before the call.
        to_measure: Models that wait to be measured on it.
        minimum: Rows that keep their own noise in range 1 of the meter; None where no number is enough.
        warnings: One sentence each.
    """

    study: str
    version: int
    rows: int
    added: int
    duplicates: int
    already: int
    unlabelled: int
    replaced_before: bool
    to_measure: int
    minimum: int | None
    warnings: list[str]


def replace_validation(
    store: Store,
    artifacts: ArtifactStore,
    *,
    study: str,
    inputs: Path | None = None,
    labels: Path | None = None,
    from_set: str | int | None = None,
    add: bool = False,
) -> ReplacedValidation:
    """Give a study another validation set: one transaction, and the same call twice makes one.

    The referee evaluates existing models on it when it has time, or ``remeasure`` does at once.
    """
    if (inputs is None) == (from_set is None) or (inputs is None and labels is not None):
        message = "give --inputs, with --labels where they tell none themselves, or --from-set alone"
        raise InvalidInputError(message)
    with store.begin() as tx:
        found = studies.get_study(tx, study)
        artifacts = artifacts.of_tenant(found.tenant)
        version = studies.latest_data_version(tx, found.id)
        require_in_memory(version.train_rows, version.features)
        brought = None
        if inputs is not None:  # before others wait for the study: it takes minutes to decode many images
            brought = brought_files(inputs, labels, row_form(tx, artifacts, version))
        releases.hold_study(tx, found.id)  # another call waits here, and reads the data again below
        version = studies.latest_data_version(tx, found.id)
        brought = brought or rows_of_set(tx, artifacts, from_set or "", study, version)
        with artifacts.copy(version.artifact) as path:
            parts = load_open_parts(path)
        require_open(tx, found, brought, parts)
        brought, left_out = registered_open(tx, artifacts, found, brought, parts)
        following = _following(brought, parts, add=add)
        digest = _digest(tx, found, version, following, parts)
        is_there = digest == version.content_hash or (add and following.added == 0)
        if not is_there:
            before = validation_sets.validation_parts(tx, found.id)
            earlier = part_hashes(tx, artifacts, before)
            _require_new(earlier, found, brought)
            rows = set(example_hashes(following.inputs, brought.columns))
            inherits = [before[place].id for place in heritage([*earlier, rows])]
            _write(tx, artifacts, found, version, parts, following, digest, inherits=inherits)
        answer = _answer(tx, found, brought, following, is_there=is_there)
        warnings = second_sample(tx, found)
        if left_out:
            warnings.append(f"{left_out:,} rows were left out: they match rows that are sealed in a test set")
        if not is_there:
            warnings += filter(None, [check_split(found.config.get("split")).brought_warning])
            warnings += too_few(answer.rows, answer.minimum)
            warnings += goes_on(earlier, rows, add=add)
            warnings += unlike(brought.inputs, parts, brought.columns)
        return replace(answer, warnings=warnings)


def _following(brought: Brought, parts: OpenParts, *, add: bool) -> _Next:
    """Return the next validation part: rows in the order of their hashes, independent of the order of a file."""
    first: dict[bytes, int] = {}
    for row in np.random.default_rng(0).permutation(len(brought.hashes)):  # not the first: files are often sorted
        first.setdefault(brought.hashes[row], int(row))
    there = set(example_hashes(parts.validation_inputs, brought.columns))
    chosen = [first[h] for h in sorted(first) if not (add and h in there)]
    inputs, labels = brought.inputs[chosen], brought.labels[chosen]
    if add:
        inputs = np.concatenate([parts.validation_inputs, inputs])
        labels = np.concatenate([parts.validation_labels, labels])
    added = len(first.keys() - there)
    duplicates = len(brought.hashes) - len(first)
    return _Next(inputs, labels, added, duplicates, len(first) - added)


def _digest(tx: Connection, study: Study, version: DataVersion, following: _Next, parts: OpenParts) -> str:
    """Return the content hash of the data with this validation part, keyed as that of the first version is."""
    training_id = next(p.training_id for p in validation_sets.validation_parts(tx, study.id) if p.id == version.id)
    names = tuple(studies.class_names(tx, version.id))
    table = RawTable(following.inputs, following.labels, names, (), layout=parts.layout, task=parts.task)
    said = f"validation|{training_id}|{content_hash(table)}"
    return hmac.digest(sealed.installation_secret(tx), said.encode(), "sha256").hex()


def _require_new(earlier: Sequence[set[bytes]], study: Study, brought: Brought) -> None:
    """Require at least one row that was never open: returning to a used-up set does not renew it."""
    if set[bytes]().union(*earlier).issuperset(brought.hashes):
        message = (
            f"{brought.origin}: all {len(brought.hashes):,} rows have been in the validation set of study "
            f"{study.name!r} before, and its models were chosen by them; bring rows that were never used"
        )
        raise InvalidInputError(message)


def _write(
    tx: Connection,
    artifacts: ArtifactStore,
    study: Study,
    version: DataVersion,
    parts: OpenParts,
    following: _Next,
    digest: str,
    *,
    inherits: Sequence[int],
) -> None:
    opened = OpenParts(
        parts.train_inputs,
        parts.train_labels,
        following.inputs,
        following.labels,
        parts.classes,
        parts.layout,
        parts.task,
        parts.target_layout,
    )
    training_id = next(p.training_id for p in validation_sets.validation_parts(tx, study.id) if p.id == version.id)
    version_id = studies.add_data_version(
        tx,
        study_id=study.id,
        content_hash=digest,
        artifact=_put(artifacts, opened),
        features=version.features,
        class_names=studies.class_names(tx, version.id),
        parts={"train": len(parts.train_labels), "validation": len(following.labels)},
        feature_names=studies.feature_names(tx, version.id),
        same_training_as=training_id,
        goes_on_with=inherits[-1] if inherits else None,
        layout=stored_layout(parts.layout, parts.target_layout),
    )
    keep_baseline(
        tx,
        artifacts,
        study_id=study.id,
        data_version_id=version_id,
        validation_labels=opened.validation_labels,
        hit=study.hit,
    )
    notify(tx, f"study:{study.name}")
    notify(tx, f"study:{study.name}", channel=REFEREE_CHANNEL)  # models wait to be measured


def _put(artifacts: ArtifactStore, opened: OpenParts) -> str:
    with scratch_folder("validation") as folder:
        path = Path(folder) / "open.npz"
        write_open_parts(path, opened)
        return artifacts.put(path)


def _answer(tx: Connection, study: Study, brought: Brought, following: _Next, *, is_there: bool) -> ReplacedValidation:
    version, config = studies.latest_data_version(tx, study.id), _meter_settings(tx, study)
    return ReplacedValidation(
        study=study.name,
        version=version.version,
        rows=version.validation_rows,
        added=0 if is_there else following.added,
        duplicates=following.duplicates,
        already=following.already,
        unlabelled=0,
        replaced_before=is_there,
        to_measure=validation_sets.count_waiting(tx, study.id)[0],
        minimum=validation_minimum(ranges=config.ranges, reliability=config.reliability),
        warnings=[],
    )
