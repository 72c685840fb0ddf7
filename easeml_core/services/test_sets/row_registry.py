"""The check that all rows pass before they are opened or sealed, and the registry of rows.

A row is sealed or open in the whole installation. Registrations, feeds, refreshes, uploads of test sets and
replacements of validation sets compare their rows with all that are registered (``look_up``), act on the result, and
register the rest (``register``). ``data/rows/matching.py`` defines a match and its probability by chance.

No label takes part: a source is registered with its input columns alone, a row that another study has sealed keeps its
tokens, and a column of it that is a label in the new study is removed from them. The result is therefore a function of
inputs, of the secret, and of the caller's rows (proof: docs/security.md).

Public sources, which every installation of the packages has with their labels, are not registered.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.data.parts import load_open_parts
from easeml_core.data.rows.cells import Cells, cells_of_inputs, name_tokens, tokens_of
from easeml_core.data.rows.matching import CHANCE, COINCIDENCE, Rows, match_rows
from easeml_core.data.rows.screen import Screen
from easeml_core.data.sources.spec import SCHEMES
from easeml_core.errors import ArtifactError, InvalidInputError, counted, is_put_off
from easeml_core.formats.encoding import typed_record
from easeml_core.services.test_sets.compared_rows import new_rows
from easeml_core.store.tables import row_registry as registry
from easeml_core.store.tables import sealed, studies, test_sets

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from sqlalchemy import Connection

    from easeml_core.data.rows.matching import Matches
    from easeml_core.entities import Study
    from easeml_core.services.test_sets.compared_rows import NewRows
    from easeml_core.store.artifacts.local import ArtifactStore

logger = logging.getLogger(__name__)

MOST_LIKELY = 1 / 5
"""Largest share of a table's rows that may be assigned a side because they are likely rows of other tables."""

MOST_REFUSED = 5
"""Tables of a tenant that may be refused in 30 days because their rows are known: each refusal reveals one bit."""

OWN_WORDS = "rows of it belong to a study of this tenant already"
OTHERS_WORDS = "rows of it belong to another tenant's study already"
_WHY = "a row that is sealed in one study must not be open in another"
_OWN_WAYS = (
    "two ways out: divide the rows of the table among its studies from the first one on (`--split 'rows?part=1/2'` for "
    "the first study, `--split 'rows?part=2/2'` for the second; docs/data.md), or bring rows that no study has"
)
_OTHERS_WAYS = "bring rows of your own"


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """The registry's knowledge of some rows.

    Attributes:
        known: The registered row that each is, None for none.
        is_exact: bool, shape (rows,): all cells are the same.
        is_certain: bool, shape (rows,): it is that row, but for the chance that ``matching.CHANCE`` states. False
            for rows that are likely the same (``matching.LIKELY``): they are on the side of the known row, and
            count for no refusal.
        is_sealed: bool, shape (rows,): it is sealed.
        study_id: int64, shape (rows,): the row's study; 0 for none.
        own: Names of the tenant's studies that hold more of the rows than chance explains, the most first.
        others: Whether studies of other tenants hold more of the rows than chance explains.
        is_set_copied: Whether the rows hold more of a sealed set than chance explains.
        tenant: The caller's tenant.
        tenant_of: Study to its tenant.
        study_called: Name to study.
    """

    known: list[bytes | None]
    is_exact: NDArray[np.bool_]
    is_certain: NDArray[np.bool_]
    is_sealed: NDArray[np.bool_]
    study_id: NDArray[np.int64]
    own: Sequence[str]
    others: bool
    is_set_copied: bool
    tenant: str
    tenant_of: Mapping[int, str]
    study_called: Mapping[str, int]

    @property
    def is_known(self) -> NDArray[np.bool_]:
        """Whether a row is registered, shape (rows,)."""
        return self.study_id > 0

    @property
    def is_shown(self) -> NDArray[np.bool_]:
        """Whether a row is registered and open, shape (rows,)."""
        return self.is_known & ~self.is_sealed

    def at(self, places: NDArray[np.intp]) -> Found:
        """Return the same for these rows; facts about all rows together stay, but for studies that hold none."""
        left = set(self.study_id[places].tolist())
        own = [name for name in self.own if self.study_called[name] in left]
        others = self.others and any(self.tenant_of.get(one) not in (None, self.tenant) for one in left)
        return replace(
            self,
            known=[self.known[i] for i in places.tolist()],
            is_exact=self.is_exact[places],
            is_certain=self.is_certain[places],
            is_sealed=self.is_sealed[places],
            study_id=self.study_id[places],
            own=own,
            others=others,
        )

    def of_tenant(self, tenant: str) -> NDArray[np.bool_]:
        """Whether a row belongs to a study of this tenant, shape (rows,)."""
        mine = [study for study, owner in self.tenant_of.items() if owner == tenant]
        return np.isin(self.study_id, mine)


def is_public(source: str) -> bool:
    """Return whether a study's data come with a package and are public, labels included."""
    scheme = SCHEMES.get(source.partition(":")[0])
    return scheme is not None and not scheme.reads


def look_up(tx: Connection, artifacts: ArtifactStore, study: Study, new: NewRows) -> Found:
    """Compare rows with the registry, which is locked until the transaction ends."""
    registry.hold_registry(tx)
    register_earlier(tx, artifacts)
    sources = registry.list_sources(tx)
    rows = _Rows.of_states(_states(tx, new.ids))
    comparison = _Comparison(tx, sources, new)
    looked = comparison.made()
    for one in looked:
        rows.take(one, one.matches.place, ~rows.is_exact)
    is_certain = rows.study_id > 0
    # Likely rows of the table with the fewest coincidences first, so that others cannot displace them.
    for one in sorted(looked, key=lambda one: one.matches.doubt):
        is_new = (one.matches.likely >= 0) & ~is_certain
        if float(np.mean(is_new | (rows.study_id > 0) & ~is_certain)) <= MOST_LIKELY:
            rows.take(one, one.matches.likely, ~is_certain)
    own, others = _refusing(study, comparison, np.where(is_certain, rows.study_id, 0))
    return Found(
        rows.known,
        rows.is_exact,
        is_certain,
        rows.is_sealed,
        rows.study_id,
        own,
        others,
        any(group > 0 for one in looked for group in one.matches.copied),
        study.tenant,
        {source.study_id: source.tenant for source in sources},
        {source.study: source.study_id for source in sources},
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Compared:
    """A source, its rows, and which of the new rows are among them."""

    source: registry.Source
    rows: registry.KnownRows
    matches: Matches


class _Comparison:
    """The new rows against the sources.

    Sources in which no row has two values of a new row hold none of the new rows (``data/rows/screen.py``). The
    chance of a coincidence in them is all that a comparison would add; it is made where a decision depends on it.

    Args:
        tx: Transaction of the referee's role.
        sources: All sources, oldest first.
        new: The rows.
    """

    def __init__(self, tx: Connection, sources: Sequence[registry.Source], new: NewRows) -> None:
        self._tx, self.sources, self._new = tx, sources, new
        screen = Screen(new.rows.tokens)
        shared = registry.shared_values(tx, screen.values)
        near = set(shared.sources[screen.may_match(shared.parts, shared.tokens, shared.rows)].tolist())
        self._made = {one.id: self._compared(one) for one in sources if one.id in near}
        self._of_study: dict[int, list[registry.Source]] = {}
        for one in sources:
            self._of_study.setdefault(one.study_id, []).append(one)

    def made(self) -> list[_Compared]:
        """Return the comparisons that were made, in the order of the sources."""
        return [self._made[one.id] for one in self.sources if one.id in self._made]

    def chance(self, study_id: int) -> float:
        """Return the summed ``Matches.chance`` of the sources of a study."""
        mine = self._of_study[study_id]
        self._made |= {one.id: self._compared(one) for one in mine if one.id not in self._made}
        return sum(self._made[one.id].matches.chance for one in mine)

    def _compared(self, source: registry.Source) -> _Compared:
        rows = registry.source_rows(self._tx, source)
        known, seed = Rows(rows.tokens, source.names), registry.seed_of(self._tx, source.id)
        chance = CHANCE / len(self.sources)
        matches = match_rows(self._new.rows, known, rows.is_sealed, groups=rows.holder, chance=chance, seed=seed)
        return _Compared(source, rows, matches)


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """The facts of each new row so far: see ``Found``."""

    known: list[bytes | None]
    is_exact: NDArray[np.bool_]
    is_sealed: NDArray[np.bool_]
    study_id: NDArray[np.int64]

    @classmethod
    def of_states(cls, states: Sequence[tuple[bytes, tuple[int, bool] | None]]) -> _Rows:
        """Return the rows whose cells are all the same as those of a registered one."""
        return cls(
            [None if state is None else row for row, state in states],
            np.array([state is not None for _, state in states], dtype=bool),
            np.array([state is not None and state[1] for _, state in states], dtype=bool),
            np.array([0 if state is None else state[0] for _, state in states], dtype=np.int64),
        )

    def take(self, one: _Compared, place: NDArray[np.int64], is_free: NDArray[np.bool_]) -> None:
        """Record the rows that are those of a source at ``place``; a sealed row replaces an open one."""
        for row in np.flatnonzero((place >= 0) & is_free & ~self.is_sealed).tolist():
            at = int(place[row])
            if self.known[row] is None or one.rows.is_sealed[at]:
                self.known[row], self.is_sealed[row] = one.rows.ids[at], one.rows.is_sealed[at]
                self.study_id[row] = one.source.study_id


def _refusing(study: Study, comparison: _Comparison, certain: NDArray[np.int64]) -> tuple[list[str], bool]:
    """Return the studies that refuse the new rows.

    A study does if more than ``COINCIDENCE`` of the new rows are its own beyond chance, or if the new rows hold more
    than that share of one of its sets, of its open rows, or of all its rows (``Matches.copied``): added rows lower the
    first share and not the second.
    """
    looked = comparison.made()
    tenant_of = {one.study_id: one.tenant for one in comparison.sources}
    name_of = {one.study_id: one.study for one in comparison.sources}
    owners, counts = np.unique(certain, return_counts=True)
    held = dict(zip(owners.tolist(), (counts / max(1, len(certain))).tolist(), strict=True))
    share = {owner: held.get(owner, 0.0) for owner in tenant_of}
    for one in looked:
        share[one.source.study_id] = max(share[one.source.study_id], one.matches.share)
    copied = {one.source.study_id for one in looked if one.matches.copied}
    over = {o for o, part in share.items() if o in copied or _is_beyond(part, comparison, [o])}
    own, others = ([o for o in share if (tenant_of[o] == study.tenant) == is_own] for is_own in (True, False))
    for side in (own, others):
        some = {o for o in side if o in held} - over
        together = float(np.mean(np.isin(certain, side))) if len(certain) else 0.0
        # One study of other tenants is as good as several.
        if some and (side is own or over.isdisjoint(others)) and _is_beyond(together, comparison, side):
            over |= some
    mine = sorted(over.intersection(own), key=lambda o: (-share[o], name_of[o]))
    return [name_of[o] for o in mine], not over.isdisjoint(others)


def _is_beyond(share: float, comparison: _Comparison, studies: Sequence[int]) -> bool:
    """Return whether a share of the new rows is more than the studies' rows explain by chance."""
    chance = 0.0
    if share <= COINCIDENCE:
        return False
    for study_id in studies:
        chance += comparison.chance(study_id)
        if share <= min(1.0, chance) + COINCIDENCE:
            return False
    return True


def _states(tx: Connection, ids: Sequence[bytes]) -> list[tuple[bytes, tuple[int, bool] | None]]:
    states = registry.states_of(tx, ids)
    return [(row, states.get(row)) for row in ids]


def require_other_rows(tx: Connection, study: Study, found: Found) -> None:
    """Refuse a table whose rows belong to other studies; names the tenant's own, and no counts."""
    if found.others:
        message = f"source {study.source!r}: {OTHERS_WORDS}; {_WHY}; {_OTHERS_WAYS}"
        raise InvalidInputError(message)
    own = [name for name in found.own if name != study.name]
    if own:
        more = f" and {counted(len(own) - 1, 'other')}" if len(own) > 1 else ""
        message = f"source {study.source!r}: {OWN_WORDS} ({own[0]!r}{more}); {_WHY}; {_OWN_WAYS}"
        archived = next((name for name in own if studies.is_archived(tx, study.tenant, name)), None)
        if archived is not None:
            message += (
                f"; {archived!r} is archived and keeps its rows: `easeml study restore {archived}` brings it back"
            )
        raise InvalidInputError(message)


def require_few_refusals(tx: Connection, study: Study) -> None:
    """Compare no further table of a tenant with many refusals: each refusal reveals whether rows are known."""
    refused = sum(registry.count_refusals(tx, study.id, words) for words in (OWN_WORDS, OTHERS_WORDS))
    if refused >= MOST_REFUSED:
        message = (
            f"source {study.source!r}: {MOST_REFUSED} tables of tenant {study.tenant!r} were refused in the last 30 "
            "days since their rows belong to other studies, so no further table of it is compared; register again "
            "when the first of them is 30 days old"
        )
        raise InvalidInputError(message)


def register(
    tx: Connection,
    study_id: int,
    new: NewRows,
    places: Mapping[int | None, NDArray[np.intp]],
    found: Found | None = None,
    label: tuple[NDArray[np.uint64], int] | None = None,
) -> None:
    """Register rows of a study.

    A row that another study has sealed keeps its record, and the new set holds it as well if it is certainly that row.
    It gets no second record, which could have the other study's label among its inputs (proof: docs/security.md). All
    other rows get a record, also where they are like an open row, or like a sealed row of the same study, whose label
    is no input in either.
    """
    source = registry.add_source(tx, study_id, new.rows.names[new.kept])
    is_sealed = None if found is None else found.is_sealed & (found.study_id != study_id)
    held: list[int] = []
    for test_set_id, rows in sorted(places.items(), key=lambda item: item[0] is not None):
        is_held = np.zeros(len(rows), dtype=bool) if is_sealed is None else is_sealed[rows]
        is_new = ~is_held if found is None else ~(is_held | found.is_exact[rows])
        fresh = rows[is_new]
        tokens = new.rows.tokens[fresh][:, new.kept]
        registry.add_rows(tx, source, [new.ids[i] for i in fresh.tolist()], tokens, test_set_id)
        if found is None or test_set_id is None or not is_held.any():
            continue
        like = rows[is_held].tolist()
        registry.hold_rows(tx, [found.known[i] or b"" for i in like if found.is_certain[i]], test_set_id)
        held += like
    if found is not None and label is not None and held:
        _forget_labels(tx, found, held, label)


def label_tokens(
    tx: Connection, study: Study, class_names: Sequence[str], labels: NDArray[Any]
) -> tuple[NDArray[np.uint64], int]:
    """Return the labels as the cells that they would be in a table."""
    words = np.array([*class_names, None], dtype=object)
    column = words[labels] if class_names else labels.astype(np.float64)
    cells = Cells((study.target.partition(">")[0] or "\0label",), (column,))
    key = registry.registry_key(tx)
    return tokens_of(cells, key)[:, 0], int(name_tokens(cells, key)[0])


def _forget_labels(tx: Connection, found: Found, held: Sequence[int], label: tuple[NDArray[np.uint64], int]) -> None:
    """Remove a column from rows that are sealed elsewhere, if it is what the new study predicts.

    The column is that of the label's name, or one that equals the label in most of the rows that are certainly the same
    (in most of all rows, where none is). It is removed from all of them alike, so that the rest does not follow from
    the label of a single row. The sets of the new study vote together: one alone may hold one row, known by chance.
    """
    tokens, name = label
    near = registry.sources_of(tx, [found.known[i] or b"" for i in held])
    for source in (one for one in registry.list_sources(tx) if one.id in near):
        known = registry.source_rows(tx, source)
        place = {row: number for number, row in enumerate(known.ids)}
        mine = [(i, place[found.known[i] or b""]) for i in held if found.known[i] in place]
        if mine:
            of_new, of_known = (np.array(side) for side in zip(*mine, strict=True))
            is_certain = found.is_certain[of_new]
            votes = is_certain if is_certain.any() else ~is_certain
            said = tokens[of_new][votes, None]
            agree = ((known.tokens[of_known[votes]] == said) & (said != 0)).mean(axis=0)
            places = np.flatnonzero((agree > 0.5) | (source.names == np.uint64(name))).tolist()
            registry.forget_columns(tx, [known.ids[i] for i in of_known.tolist()], places)


def register_earlier(tx: Connection, artifacts: ArtifactStore) -> None:
    """Register the rows of studies that are older than the registry, as they are encoded.

    A row that is open in one of them and sealed in another is open: ``overlapping_sets`` lists such sets.
    """
    waiting: list[tuple[int, NewRows, dict[int | None, NDArray[np.intp]]]] = []
    for one in registry.unregistered(tx):
        earlier = _earlier(tx, artifacts, one)
        if earlier is not None:
            waiting.append((one.study_id, *earlier))
    for opened in (True, False):
        for study_id, new, places in waiting:
            register(tx, study_id, new, {s: rows for s, rows in places.items() if (s is None) == opened})


def _earlier(
    tx: Connection, artifacts: ArtifactStore, one: registry.Unregistered
) -> tuple[NewRows, dict[int | None, NDArray[np.intp]]] | None:
    """Return the rows of one study: its newest open parts, and its sets; None where there is nothing to register."""
    public = is_public(one.source)
    sets = [
        (set_id, released) for set_id, brought, released in registry.sets_of(tx, one.study_id) if brought or not public
    ]
    if public and not sets:
        return None
    names = studies.feature_names(tx, one.data_version_id)
    blocks: list[NDArray[Any]] = []
    owners: list[int | None] = []
    layout = None
    if not public:
        try:
            of_tenant = artifacts.of_tenant(studies.study_by_id(tx, one.study_id).tenant)
            with of_tenant.copy(studies.data_artifact(tx, one.data_version_id)) as path:
                parts = load_open_parts(path)
            layout = parts.layout
            blocks += [parts.train_inputs, parts.validation_inputs]
            owners += [None, None]
        except ArtifactError as error:
            if is_put_off(error):  # else they would count as registered, and a later study might seal them
                raise
            logger.warning("the open rows of study %d cannot be registered: %s", one.study_id, error)
    for set_id, released in sets:
        blocks.append(sealed.sealed_inputs(tx, set_id))
        owners.append(None if released else set_id)
    ends = np.cumsum([len(block) for block in blocks])
    new = new_rows(tx, cells_of_inputs(np.concatenate(blocks), names, layout))
    places: dict[int | None, list[NDArray[np.intp]]] = {}
    for owner, end, block in zip(owners, ends.tolist(), blocks, strict=True):
        places.setdefault(owner, []).append(np.arange(end - len(block), end))
    return new, {owner: np.concatenate(rows) for owner, rows in places.items()}


@typed_record
class Overlap:
    """A set in use whose rows are open in another study, of whatever tenant.

    Attributes:
        test_set_id: Its number.
        test_set: Its display name.
        study: Its study.
        rows: Its examples.
        shown: How many of them are open elsewhere.
    """

    test_set_id: int
    test_set: str
    study: str
    rows: int
    shown: int


def overlapping_sets(tx: Connection, artifacts: ArtifactStore) -> list[Overlap]:
    """Return sets that are live or wait and have more rows open in other studies than chance explains.

    Only sets older than the registry can be such sets: all others, and all rows that were opened since, passed
    ``look_up``. Public data are ignored.
    """
    before = registry.sets_from_before(tx)
    if not before:
        return []
    registry.hold_registry(tx)
    register_earlier(tx, artifacts)
    sources = registry.list_sources(tx)
    found = []
    for one in test_sets.list_sets(tx):
        if one.id not in before:
            continue
        study = studies.study_by_id(tx, one.study_id)
        is_brought = {set_id: brought for set_id, brought, _ in registry.sets_of(tx, one.study_id)}
        if is_public(study.source) and not is_brought[one.id]:
            continue
        with artifacts.of_tenant(study.tenant).copy(studies.data_artifact(tx, one.data_version_id)) as path:
            layout = load_open_parts(path).layout
        names = studies.feature_names(tx, one.data_version_id)
        new = new_rows(tx, cells_of_inputs(sealed.sealed_inputs(tx, one.id), names, layout))
        states = [state for _, state in _states(tx, new.ids)]
        shown = np.array([s is not None and s[0] != one.study_id and not s[1] for s in states], dtype=bool)
        chance = 0.0
        for source in sources:
            if source.study_id != one.study_id:
                rows = registry.source_rows(tx, source)
                known = Rows(rows.tokens, source.names)
                seed = registry.seed_of(tx, source.id)
                match = match_rows(new.rows, known, ~rows.is_sealed, chance=CHANCE / len(sources), seed=seed)
                known_open = np.append(~rows.is_sealed, False)  # the last one for rows without a match
                shown |= known_open[match.place]
                chance += match.chance
        if shown.mean() > min(1.0, chance) + COINCIDENCE:
            found.append(Overlap(one.id, one.called, one.study, one.rows, int(shown.sum())))
    return found
