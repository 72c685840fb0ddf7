"""``refine``: list a study's training rows, switch single ones off and on, and rank those whose labels look wrong.

A row is named by the hash of its inputs, or its first digits. Rows of the validation part cannot be switched: results
before and after would not be comparable (``easeml validation replace`` gives another validation part).
"""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.data.parts import load_open_parts
from easeml_core.data.rows.labeled_pairs import Pairs, pairs_like
from easeml_core.errors import InvalidInputError, NotFoundError, StateError, counted
from easeml_core.files.local import scratch_folder
from easeml_core.formats.encoding import typed_record
from easeml_core.models.label_errors import Ranking
from easeml_core.sandbox.process import Limits, run_child
from easeml_core.services.datasets.feed import active_study, require_name
from easeml_core.settings.config import require
from easeml_core.store.rows import clean
from easeml_core.store.tables import datasets, studies
from easeml_core.store.tables.test_sets import example_hashes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection

    from easeml_core.entities import DataVersion
    from easeml_core.store.artifacts.local import ArtifactStore
    from easeml_core.store.database import Store

CHILD = "easeml_core.models.label_errors_child"
SHORT = 12
"""Digits of a row's name that are shown."""

MOST_SWITCHED = 10_000
_NAME = re.compile(r"[0-9a-f]{8,64}")
_LONGEST_REASON = 500


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of the training part, switched on or off."""

    hash: bytes
    label: Any
    is_on: bool


@typed_record
class ListedPair:
    """A row that was registered or fed.

    Attributes:
        hash: The first digits of its name.
        label: Its label: a class by name, a number, or a list of numbers.
        origin: ``registered`` or ``feed N``.
        state: ``on``, ``off``, ``on, off with the next refresh`` or ``off, on with the next refresh``.
        reason: Why it was switched last; None where it was not.
    """

    hash: str
    label: Any
    origin: str
    state: str
    reason: str | None


@typed_record
class PairList:
    """Rows of a study's newest training part: how many are on and off, fed pairs that wait, and some of the rows."""

    study: str
    version: int
    on: int
    off: int
    waiting_pairs: int
    pairs: list[ListedPair]


@typed_record
class SwitchedPairs:
    """How many rows one call has switched, on or off."""

    study: str
    switched: int
    on: bool


@typed_record
class SuspiciousPair:
    """A training row with the label that the others suggest, and how doubtful its own is; ``suspected`` by the rule."""

    hash: str
    label: Any
    expected: Any
    doubt: float
    suspected: bool


@typed_record
class SuspiciousPairs:
    """Rows of the training part, how many of these the rule holds for wrong, and the most suspicious ones."""

    study: str
    version: int
    rows: int
    suspected: int
    pairs: list[SuspiciousPair]


def list_pairs(
    store: Store,
    artifacts: ArtifactStore,
    *,
    study: str,
    off: bool = False,
    limit: int = 50,
    most_cells: int | None = None,
) -> PairList:
    """Return rows of the newest training part, and those that are switched off."""
    require(type(limit) is int and limit >= 1, "limit", limit, "a whole number >= 1")
    with store.begin() as tx:
        found, version = active_study(tx, study)
        known = _rows(tx, artifacts.of_tenant(found.tenant), version, most_cells)
        origins, last = datasets.fed_examples(tx, found.id), datasets.last_switches(tx, found.id)
        waiting = {s.hash: s.is_on for s in datasets.waiting_switches(tx, found.id)}
        fed = sum(f.rows for f in datasets.waiting_feeds(tx, found.id, limit=1000))
        names = studies.class_names(tx, version.id)
    chosen = [row for row in known if not off or not row.is_on or not waiting.get(row.hash, True)]
    return PairList(
        study=study,
        version=version.version,
        on=sum(row.is_on for row in known),
        off=sum(not row.is_on for row in known),
        waiting_pairs=fed,
        pairs=[
            ListedPair(
                hash=row.hash.hex()[:SHORT],
                label=_called(row.label, names),
                origin=f"feed {origins[row.hash]}" if row.hash in origins else "registered",
                state=_state(row.is_on, waiting.get(row.hash, row.is_on)),
                reason=last[row.hash].reason if row.hash in last else None,
            )
            for row in reversed(chosen[-limit:])
        ],
    )


def switch_pairs(
    store: Store,
    artifacts: ArtifactStore,
    *,
    study: str,
    hashes: Sequence[str],
    on: bool,
    reason: str,
    switched_by: str,
    request_key: str,
    most_cells: int | None = None,
) -> SwitchedPairs:
    """Switch rows of the training part off or on, from the study's next refresh on."""
    is_fine = isinstance(reason, str) and reason.strip() != "" and len(reason) <= _LONGEST_REASON
    require(is_fine and clean(reason) == reason, "reason", reason, f"1 to {_LONGEST_REASON} characters of text")
    who = require_name("switched_by", switched_by)
    require(1 <= len(hashes) <= MOST_SWITCHED, "hashes", f"{len(hashes)} of them", f"1 to {MOST_SWITCHED:,} rows")
    with store.begin() as tx:
        found, version = active_study(tx, study)
        rows = _rows(tx, artifacts.of_tenant(found.tenant), version, most_cells)
        known = sorted(row.hash.hex() for row in rows)
        chosen = {bytes.fromhex(_whole(name, known, study)) for name in hashes}
        switched = datasets.add_switches(
            tx,
            study_id=found.id,
            hashes=sorted(chosen),
            is_on=on,
            reason=reason.strip(),
            switched_by=who,
            request_key=request_key,
        )
    return SwitchedPairs(study, switched, on)


def rank_pairs(
    store: Store,
    artifacts: ArtifactStore,
    *,
    study: str,
    limit: int = 50,
    time_limit_seconds: float = 900.0,
    memory_limit_mb: int = 8192,
    most_cells: int | None = None,
) -> SuspiciousPairs:
    """Return the training rows whose labels look wrong, most suspicious first: see ``models/label_errors.py``."""
    require(type(limit) is int and limit >= 1, "limit", limit, "a whole number >= 1")
    with store.begin() as tx:
        found, version = active_study(tx, study)
        artifacts = artifacts.of_tenant(found.tenant)
        _require_small(version, most_cells)
        columns, names = studies.feature_names(tx, version.id), studies.class_names(tx, version.id)
    with artifacts.copy(version.artifact) as path, scratch_folder("rank") as folder:
        output = Path(folder) / "ranking.npz"
        run_child(
            CHILD,
            [str(path), str(output)],
            cwd=Path(folder),
            limits=Limits(time_limit_seconds, memory_limit_mb),
            on_output=lambda _: None,
            on_poll=lambda: None,
            loads=("easeml_core.data.parts", "easeml_core.models.label_errors"),
        )
        with np.load(output, allow_pickle=False) as arrays:
            ranking = Ranking(**{name: arrays[name] for name in Ranking._fields})
        parts = load_open_parts(path)
    order = np.argsort(-ranking.doubt, kind="stable")[:limit]
    hashes = example_hashes(parts.train_inputs[order], columns)
    return SuspiciousPairs(
        study=study,
        version=version.version,
        rows=len(parts.train_labels),
        suspected=int(ranking.suspected.sum()),
        pairs=[
            SuspiciousPair(
                hash=example.hex()[:SHORT],
                label=_called(parts.train_labels[row], names),
                expected=_called(ranking.expected[row], names),
                doubt=float(ranking.doubt[row]),
                suspected=bool(ranking.suspected[row]),
            )
            for example, row in zip(hashes, order, strict=True)
        ],
    )


def _rows(tx: Connection, artifacts: ArtifactStore, version: DataVersion, most_cells: int | None) -> list[_Row]:
    """Return all rows of the newest training part, and those that it leaves out, in their order."""
    _require_small(version, most_cells)
    columns, left_out = studies.feature_names(tx, version.id), datasets.switched_off(tx, version.study_id)
    with artifacts.copy(version.artifact) as path:
        parts = load_open_parts(path)
    found = list(_named(Pairs(parts.train_inputs, parts.train_labels), columns, is_on=True))
    if left_out is not None:
        with artifacts.copy(left_out) as path:
            found += _named(pairs_like(path, parts), columns, is_on=False)
    return found


def _require_small(version: DataVersion, most_cells: int | None) -> None:
    cells = version.features * (version.train_rows + version.validation_rows)
    if most_cells is not None and cells > most_cells:
        message = f"the data have {cells:,} numbers, more than {most_cells:,}; use `easeml refine` on the command line"
        raise StateError(message)


def _named(pairs: Pairs, columns: Sequence[str] | None, *, is_on: bool) -> Iterable[_Row]:
    for example, label in zip(example_hashes(pairs.inputs, columns), pairs.labels, strict=True):
        yield _Row(example, label, is_on)


def _whole(name: str, known: Sequence[str], study: str) -> str:
    """Return the whole name that a short one stands for; ``known`` are all, sorted."""
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        message = f"a row is named by 8 to 64 hexadecimal digits, got {name!r}; `easeml refine list {study}` shows them"
        raise InvalidInputError(message)
    first = bisect_left(known, name)
    found = [whole for whole in known[first : first + 2] if whole.startswith(name)]
    if not found:
        remedy = f"list them with `easeml refine list {study}`; rows of the validation part cannot be switched"
        raise NotFoundError(kind=f"row in the training part of study {study!r}", name=name, remedy=remedy)
    if len(found) > 1:
        message = f"{name!r} stands for more than one row of study {study!r}; give more digits"
        raise InvalidInputError(message)
    return found[0]


def _state(is_on: bool, will_be_on: bool) -> str:
    now, then = ("on" if on else "off" for on in (is_on, will_be_on))
    return now if is_on == will_be_on else f"{now}, {then} with the next refresh"


def _called(label: Any, class_names: Sequence[str]) -> Any:
    """Return the name of a class, the number, or how many numbers there are."""
    if np.ndim(label):
        return counted(np.size(label), "number")
    return class_names[int(label)] if class_names else float(label)
