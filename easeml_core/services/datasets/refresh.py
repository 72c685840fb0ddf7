"""The referee's refresh: one new data version of all that was fed and switched.

The training part grows by what is new and loses what is switched off; the validation part stays. Only the referee may
write data and can recognise sealed rows. A sealed row is left out without a message, and their number is not reported.
A user who feeds a row can see in the open part whether it was taken, and so learns that it is sealed, for rows that the
user knows with their labels. Taking it instead would let the sealed set judge models that have learnt it.
"""

from __future__ import annotations

import hmac
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.data.layout import stored_layout
from easeml_core.data.parts import (
    TRAIN_ROWS_OF_NUMBERS,
    TRAIN_ROWS_PER_CLASS,
    load_open_parts,
    require_in_memory,
    write_open_parts,
)
from easeml_core.data.rows.cells import cells_of_inputs
from easeml_core.data.rows.labeled_pairs import Pairs, Pool, pairs_like, write_pairs
from easeml_core.data.rows.matching import COINCIDENCE
from easeml_core.data.split_spec import check_split
from easeml_core.data.table import MAX_CELLS, RawTable, content_hash
from easeml_core.entities import Task
from easeml_core.errors import ArtifactError, InvalidInputError, StateError, counted
from easeml_core.files.local import scratch_folder
from easeml_core.services.registration.sealing import keep_baseline
from easeml_core.services.test_sets.compared_rows import new_rows
from easeml_core.services.test_sets.row_registry import look_up, register
from easeml_core.store.artifacts.remote import is_of_store
from easeml_core.store.database import notify
from easeml_core.store.tables import datasets, releases, sealed, studies, validation_sets
from easeml_core.store.tables.test_sets import example_hashes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection

    from easeml_core.data.parts import OpenParts
    from easeml_core.entities import DataVersion, Study
    from easeml_core.services.test_sets.row_registry import Found
    from easeml_core.store.artifacts.local import ArtifactStore
    from easeml_core.store.tables.datasets import Feed, Switch
    from easeml_core.store.tables.requests import Request

logger = logging.getLogger(__name__)

MOST_FEEDS = 1000
"""Feeds of one refresh; the rest waits for the next."""

_FEW = 100
"""Rows that a smaller feed counts as: a refusal for a single row would reveal that row."""

_ANOTHERS = "another tenant's study has sealed its rows"
_MOST_REFUSED = 3
"""Feeds of a study that may be refused for that. With five rows that are known to be sealed, the answer to one more row
reveals that row: without the limit a user could find all rows of a set."""


def refresh(tx: Connection, artifacts: ArtifactStore, request: Request, study: Study) -> str:
    """Make a data version of what was fed and switched since the last one, if any of it is new.

    Observations stay with the old version; on the new one every candidate is tried again. Production and what the gate
    compares with do not change.
    """
    artifacts = artifacts.of_tenant(study.tenant)
    releases.hold_study(tx, study.id)  # another writer of a version waits here, and reads the data again below
    switches = datasets.waiting_switches(tx, study.id)
    fed = datasets.waiting_feeds(tx, study.id, limit=MOST_FEEDS)
    version = studies.latest_data_version(tx, study.id)
    refused, rows, warning = 0, None, ""
    if fed or switches:
        require_in_memory(version.train_rows, version.features)
        with artifacts.copy(version.artifact) as path:
            parts = load_open_parts(path)
        pool = _pool(tx, artifacts, study, version, parts)
        _take_switches(tx, request, study, pool, switches)
        refused = _take_feeds(tx, artifacts, study, pool, fed, parts)
        rows = _write(tx, artifacts, request, study, version, parts, pool) if pool.changed else None
        warning = check_split(study.config.get("split")).fed_warning if pool.fed else ""
    more = f"; feeds that were refused: {refused:,} (`easeml refine feeds {study.name}` says why)" if refused else ""
    if len(fed) == MOST_FEEDS:
        more += f"; the first {MOST_FEEDS:,} feeds were looked at, ask again for the rest"
    if rows is None:
        datasets.add_refresh(tx, request_id=request.id, study_id=study.id)
        return f"nothing is new: the training part of study {study.name} stays as it is{more}"
    return (
        f"study {study.name} has version {version.version + 1} of its data; training rows: {rows:,}, before "
        f"{version.train_rows:,}{more}" + (f"; warning: {warning}" if warning else "")
    )


def _pool(tx: Connection, artifacts: ArtifactStore, study: Study, version: DataVersion, parts: OpenParts) -> Pool:
    """Return the rows of the training part, those that it leaves out, and those of the validation part."""
    columns, reference = studies.feature_names(tx, version.id), datasets.switched_off(tx, study.id)
    pool = Pool(lambda inputs: example_hashes(inputs, columns), parts.validation_inputs)
    pool.add(Pairs(parts.train_inputs, parts.train_labels), is_on=True)
    if reference is not None:
        with artifacts.copy(reference) as path:
            pool.add(pairs_like(path, parts), is_on=False)
    return pool


def _take_switches(tx: Connection, request: Request, study: Study, pool: Pool, switches: Sequence[Switch]) -> None:
    """Switch rows; a row that is now sealed or in the validation part does not come back."""
    closed = pool.validated | datasets.hidden_in_study(tx, study.id, [s.hash for s in switches if s.is_on])
    for switch in switches:
        if not (switch.is_on and switch.hash in closed):
            pool.switch(switch.hash, is_on=switch.is_on)
    datasets.settle_switches(tx, [s.id for s in switches], request_id=request.id)


def _take_feeds(
    tx: Connection, artifacts: ArtifactStore, study: Study, pool: Pool, fed: Sequence[Feed], parts: OpenParts
) -> int:
    """Take the new rows of each feed; return how many feeds were refused."""
    refused, room = 0, MAX_CELLS // parts.layout.features - len(pool) - len(pool.validated)
    given: list[tuple[Feed, Pairs]] = []
    for one in fed:
        try:
            check_split(study.config.get("split")).require_feedable()
            given.append((one, _read(artifacts, one, parts, room)))
        except (InvalidInputError, StateError, ArtifactError) as error:
            if is_of_store(error):  # no fault of the feed, which waits for the next refresh
                raise
            datasets.settle_feed(tx, one.id, refused=str(error))
            refused += 1
        else:
            room -= one.rows
    if not given:
        return refused
    inputs = np.concatenate([pairs.inputs for _, pairs in given])
    names = studies.feature_names(tx, studies.latest_data_version(tx, study.id).id)
    new = new_rows(tx, cells_of_inputs(inputs, names, parts.layout))
    known, end = look_up(tx, artifacts, study, new), 0
    for one, pairs in given:
        rows = np.arange(end, end + len(pairs.labels))
        end += len(pairs.labels)
        try:
            hashes = pool.hashes(pairs.inputs)
            closed = _sealed(tx, study, one, hashes, known.at(rows), pool)
        except InvalidInputError as error:
            datasets.settle_feed(tx, one.id, refused=str(error))
            refused += 1
            continue
        is_new = [h not in closed and h not in pool and h not in pool.validated for h in hashes]
        register(tx, study.id, new, {None: rows[np.array(is_new, dtype=bool)]}, known)
        pool.feed(one.id, pairs, hashes, closed=closed)
        datasets.settle_feed(tx, one.id)
    return refused


def _read(artifacts: ArtifactStore, one: Feed, parts: OpenParts, room: int) -> Pairs:
    if one.rows > room:
        message = f"its {one.rows:,} rows and those that are there are more than {MAX_CELLS:,} numbers"
        raise InvalidInputError(message)
    with artifacts.copy(one.artifact) as path:
        pairs = pairs_like(path, parts)
    if len(pairs.labels) != one.rows:
        message = f"its file holds {len(pairs.labels):,} rows and not {one.rows:,}"
        raise InvalidInputError(message)
    return pairs


def _sealed(tx: Connection, study: Study, one: Feed, hashes: Sequence[bytes], known: Found, pool: Pool) -> set[bytes]:
    """Return the rows that are sealed anywhere in the installation; their number goes to the log only."""
    if datasets.count_refused(tx, study.id, _ANOTHERS) >= _MOST_REFUSED:
        message = (
            f"{_MOST_REFUSED} feeds of this study held rows that another tenant's study has sealed, so it takes no "
            "more; register another study with rows of your own"
        )
        raise InvalidInputError(message)
    theirs = int((known.is_certain & known.is_sealed & ~known.of_tenant(study.tenant)).sum())
    hidden = max(theirs, validation_sets.hidden_by_others(tx, study.id, hashes))
    if hidden > COINCIDENCE * max(_FEW, len(hashes)):
        raise InvalidInputError(_ANOTHERS)
    found = datasets.hidden_in_study(tx, study.id, hashes)
    found |= validation_sets.hidden_from(tx, study.id, [h for h in hashes if h not in pool]).keys()
    found |= {h for h, is_sealed in zip(hashes, known.is_sealed.tolist(), strict=True) if is_sealed and h not in pool}
    if found:
        logger.warning("%d rows of feed %d lie in sealed sets of the installation", len(found), one.id)
    return found


def _write(
    tx: Connection,
    artifacts: ArtifactStore,
    request: Request,
    study: Study,
    version: DataVersion,
    parts: OpenParts,
    pool: Pool,
) -> int:
    """Write the data version; return the rows of its training part."""
    there, off = pool.pairs(is_on=True), pool.pairs(is_on=False)
    names = studies.class_names(tx, version.id)
    _require_rows(study, there, parts)
    assert there is not None
    opened = replace(parts, train_inputs=there.inputs, train_labels=there.labels)
    version_id = studies.add_data_version(
        tx,
        study_id=study.id,
        content_hash=_digest(tx, version, opened, names),
        artifact=_put(artifacts, lambda path: write_open_parts(path, opened)),
        features=version.features,
        class_names=names,
        parts={"train": len(opened.train_labels), "validation": len(opened.validation_labels)},
        feature_names=studies.feature_names(tx, version.id),
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
    datasets.add_fed_examples(tx, study.id, pool.fed)
    left_out = None if off is None else _put(artifacts, lambda path: write_pairs(path, off))
    datasets.add_refresh(tx, request_id=request.id, study_id=study.id, data_version_id=version_id, off=left_out)
    notify(tx, f"study:{study.name}")
    return len(opened.train_labels)


def _require_rows(study: Study, there: Pairs | None, parts: OpenParts) -> None:
    """Require as many rows as a study must begin with, and more than one class."""
    rows = 0 if there is None else len(there.labels)
    is_classes = parts.task == Task.CLASSIFICATION
    needed = TRAIN_ROWS_PER_CLASS * parts.classes if is_classes else TRAIN_ROWS_OF_NUMBERS
    if there is None or rows < needed or len(np.unique(there.labels)) < 2:
        message = (
            f"study {study.name!r} would be left with {counted(rows, 'training row')}; at least {needed:,} are "
            "needed, and not all of one label: switch some on again (`easeml refine on`), or feed more"
        )
        raise InvalidInputError(message)


def _digest(tx: Connection, version: DataVersion, opened: OpenParts, class_names: Sequence[str]) -> str:
    """Return the content hash of the data, keyed as that of the first version is.

    It includes the version before: rows that are switched off and on again give the same data.
    """
    table = RawTable(
        opened.train_inputs, opened.train_labels, tuple(class_names), (), layout=opened.layout, task=opened.task
    )
    said = f"refresh|{version.id}|{content_hash(table)}"
    return hmac.digest(sealed.installation_secret(tx), said.encode(), "sha256").hex()


def _put(artifacts: ArtifactStore, write: Callable[[Path], None]) -> str:
    with scratch_folder("refresh") as folder:
        path = Path(folder) / "data.npz"
        write(path)
        return artifacts.put(path)
