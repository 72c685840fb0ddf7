"""What new examples must be before they are sealed: distinct, enough, and unknown to everybody."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.config import GateConfig, JointConfig
from easeml_core.data.rows.encoding import refused
from easeml_core.data.rows.encoding import shown as quoted
from easeml_core.errors import AlreadyExistsError, InvalidInputError, SealedSetTooSmallError
from easeml_core.services.test_sets.planning import gate_of, needed_examples, needed_of_slice
from easeml_core.services.test_sets.visible_rows import fed_hashes, validated_hashes
from easeml_core.store.tables import sealed, test_sets
from easeml_core.store.tables.example_hashes import example_hashes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from sqlalchemy import Connection

    from easeml_core.config import MeterConfig
    from easeml_core.data.parts import OpenParts
    from easeml_core.data.rows.encoding import ExampleFile
    from easeml_core.entities import SealedSetPurpose, Study
    from easeml_core.services.test_sets.planning import SetConfig
    from easeml_core.services.test_sets.row_registry import Found
    from easeml_core.store.artifacts.local import ArtifactStore

_COINCIDENCE = 1 / 20
"""Share of examples that may lie in other tenants' sets: so many are taken for coincidence, as at registration."""


@dataclass(frozen=True, slots=True, eq=False)
class Content:
    """What will be sealed, in the set's order: inputs (rows, features), labels (-1: to be asked for), keys, slices.

    ``columns`` are the names of the inputs as they are kept with the study's data, None where they are not.
    """

    inputs: NDArray[np.float32]
    labels: NDArray[Any]
    keys: tuple[str, ...]
    slices: NDArray[np.int64] | None
    hashes: Sequence[bytes]
    columns: Sequence[str] | None


def require_distinct(file: ExampleFile, hashes: Sequence[bytes]) -> None:
    """No two rows have the same inputs, as in the study's own data.

    Raises:
        InvalidInputError: Some have; names the first.
    """
    first: dict[bytes, int] = {}
    twins = [(row, first[h]) for row, h in enumerate(hashes) if first.setdefault(h, row) != row]
    if twins:
        row, twin = twins[0]
        what = f"{len(twins):,} rows repeat the inputs of an earlier one, the first of them those of line "
        raise refused(file, what + f"{file.lines[twin]}; leave one of each", row)


def require_enough(purpose: SealedSetPurpose, config: SetConfig, content: Content) -> None:
    """The set has what its plan needs, and each slice too.

    Raises:
        SealedSetTooSmallError: It has not; gives the planner's figure.
    """
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
    """The two signals of one submission can be compared.

    Raises:
        InvalidInputError: Ranges or tolerance of a direct set are not those of the study's meter.
    """
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
    """No example that developers can or could see, and none that another set has: its answers would be counted twice.

    Raises:
        InvalidInputError: There are such; names the first.
        AlreadyExistsError: More than one in twenty is sealed for other tenants.
    """
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
        what = f"{len(seen):,} of {len(content.keys):,} examples are known already, the first of them from {place}"
        raise refused(file, what + "; bring examples that nobody has seen", row)
    if sealed.sealed_for_others(tx, study.id, content.hashes) > _COINCIDENCE * len(content.hashes):
        raise AlreadyExistsError(
            kind="table", name=str(file.path), remedy="another tenant's study has sealed its examples"
        )


def require_unknown(file: ExampleFile, content: Content, known: Found) -> None:
    """No example is a row of the installation, sealed or open; a few may look like one by chance.

    Raises:
        InvalidInputError: One has the very same cells, or more look like rows than chance explains; names the first.
    """
    exact = np.flatnonzero(known.is_exact)
    if not len(exact) and not known.own and not known.others:
        return
    place = int(exact[0]) if len(exact) else int(np.argmax(known.is_known))
    row = {key: row for row, key in enumerate(file.keys)}[content.keys[place]]
    count = int(known.is_known.sum())
    whose = f" (study {known.own[0]!r})" if known.own else ""
    what = f"{count:,} of {len(content.keys):,} examples are rows that the installation has already{whose}"
    raise refused(file, what + "; bring examples that nobody has seen", row)


def unlike(inputs: NDArray[np.float32], parts: OpenParts, names: Sequence[str] | None) -> list[str]:
    """Sentences about columns whose typical value lies outside everything in the open parts: units often differ."""
    opened = np.vstack([parts.train_inputs, parts.validation_inputs])
    warnings = []
    for place in range(inputs.shape[1]):
        there, here = opened[:, place], inputs[:, place]
        there, here = there[~np.isnan(there)], here[~np.isnan(here)]
        if len(there) and len(here) and not there.min() <= np.median(here) <= there.max():
            name = names[place] if names else f"x{place + 1}"
            warnings.append(
                f"column {quoted(name)} has the median {np.median(here):g}, the study's open data goes from "
                f"{there.min():g} to {there.max():g}; is it in the same unit?"
            )
    return warnings[:8]
