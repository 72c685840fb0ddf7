"""Recompute a hash chain and compare it with its rows and with a host's marks.

Each entry must name the hash of the one before, have the hash of its content, be signed by a trusted key, and commit to
a row that exists unchanged. Each row must have an entry. Entries before a chain's first signed one are accepted
unsigned where this host has not seen them before: so begin chains of an earlier version, and of sets that were sealed
without a key.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from easeml_core.formats.attestation import FIRST, commit, digest
from easeml_core.formats.encoding import from_json, typed_record
from easeml_core.store.tables import chain as chains
from easeml_core.store.tables import chained_rows, labels
from easeml_core.store.tables.chain import Head
from easeml_core.store.tables.chained_rows import ACKNOWLEDGED, AUDIT, GENESIS, LABELS
from easeml_core.store.tables.labels import StatedLabels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sqlalchemy import Connection

    from easeml_core.entities import JsonObject
    from easeml_core.formats.attestation import PublicKey
    from easeml_core.store.tables.chain import Entry

BATCH = 1000
"""Entries that are read at once."""


@typed_record
class Finding:
    """One deviation from the chain.

    Attributes:
        chain: Name of the chain.
        place: The entry, from 1; None where it concerns no single entry.
        what: In words for the referee. It names the present state by the beginning of a hash, so that an
            acknowledgement of it covers no later change.
        acknowledged: Whether a referee has acknowledged it since.
    """

    chain: str
    place: int | None
    what: str
    acknowledged: bool = False

    def __str__(self) -> str:
        """One line."""
        where = f"chain {self.chain}" + ("" if self.place is None else f", entry {self.place}")
        return f"{where}: {self.what}" + (" (acknowledged)" if self.acknowledged else "")


@dataclass(frozen=True, slots=True)
class Examined:
    """The result of examining a chain.

    Attributes:
        head: Its end.
        findings: Faults, in the order of the entries.
        unsigned: Entries before the first signed one.
        acknowledged: Place and words of the findings that a referee has acknowledged.
        versions: Of every row that the chain depends on, when it was examined.
    """

    head: Head
    findings: tuple[Finding, ...]
    unsigned: int
    acknowledged: frozenset[tuple[int | None, str]]
    versions: Mapping[tuple[str, int], str] = field(default_factory=dict, repr=False)

    @property
    def first_broken(self) -> Finding | None:
        """The first finding that is not acknowledged, or None."""
        return next((one for one in self.findings if not one.acknowledged), None)


@dataclass(frozen=True, slots=True)
class Memory:
    """What a host knows independently of the database.

    Attributes:
        trusted: Public keys by id; None where signatures are not checked, for want of a key folder.
        required: Ends that the chain must have had.
        is_marked: Whether this host has seen the chain before.
        absent: Ends of other chains that this host has seen and the database lacks; of the audit's chain.
        fault: Why the host's marks cannot be used; empty where they can.
    """

    trusted: Mapping[str, PublicKey] | None = None
    required: Sequence[Head] = ()
    is_marked: bool = False
    absent: Sequence[Head] = ()
    fault: str = ""


def examine(
    tx: Connection,
    chain: str,
    memory: Memory,
    *,
    known: Examined | None = None,
    on_progress: Callable[[int, int], None] = lambda _done, _of: None,
) -> Examined:
    """Check a chain; from the last result on, where no row that it depends on has changed since."""
    versions = chained_rows.versions(tx, chain)
    if known is not None and not _only_grew(known, versions):
        known = None
    walk = _Walk(tx, chain, memory, versions, known)
    walk.go(on_progress)
    return walk.result()


def _only_grew(known: Examined, versions: Mapping[tuple[str, int], str]) -> bool:
    """Return whether every row is unchanged and the last result had no fault."""
    return known.first_broken is None and all(versions.get(row) == version for row, version in known.versions.items())


class _Walk:
    """One pass over a chain."""

    def __init__(
        self,
        tx: Connection,
        chain: str,
        memory: Memory,
        versions: Mapping[tuple[str, int], str],
        known: Examined | None,
    ) -> None:
        self._tx, self._chain, self._memory, self._versions = tx, chain, memory, versions
        self._known = known
        self._last = Head(chain, 0, FIRST) if known is None else known.head
        self._found = [] if known is None else [one for one in known.findings if one.place is not None]
        self._covered: set[tuple[str, int]] = set()
        self._marked = max((head.length for head in memory.required), default=0)
        self._is_signed = known is not None and known.unsigned < known.head.length
        self._unsigned = 0 if known is None else known.unsigned
        self._acknowledged = frozenset() if known is None else known.acknowledged

    def result(self) -> Examined:
        order = sorted(self._found, key=lambda one: (one.place is None, one.place or 0))
        findings = [replace(one, acknowledged=(one.place, one.what) in self._acknowledged) for one in order]
        return Examined(self._last, tuple(findings), self._unsigned, self._acknowledged, self._versions)

    def go(self, on_progress: Callable[[int, int], None]) -> None:
        of = max((place for kind, place in self._versions if kind == "chain"), default=0)
        while batch := chains.entries(self._tx, self._chain, after=self._last.length, limit=BATCH):
            self._check(batch)
            on_progress(self._last.length, of)
            if len(batch) < BATCH:
                break
        self._check_rows()
        self._check_marks()
        if self._memory.fault:
            self._note(None, self._memory.fault)
        for what in chained_rows.contradictions(self._tx, self._chain):
            self._note(None, what)

    def _note(self, place: int | None, what: str) -> None:
        self._found.append(Finding(self._chain, place, what))

    def _check(self, batch: Sequence[Entry]) -> None:
        kinds = {entry.link.kind for entry in batch} & set(chained_rows.kinds_of(self._chain))
        facts = {
            kind: chained_rows.row_facts(
                self._tx, self._chain, kind, [e.link.subject for e in batch if e.link.kind == kind and e.link.subject]
            )
            for kind in kinds
        }
        for entry in batch:
            is_genuine = self._check_link(entry) and self._check_signature(entry)
            if entry.link.subject is not None:
                self._check_row(entry, facts.get(entry.link.kind, {}))
            else:
                self._check_content(entry, is_genuine=is_genuine)
            self._last = Head(self._chain, entry.place, entry.hash)

    def _check_link(self, entry: Entry) -> bool:
        said, hash_now, before = len(self._found), entry.hash.hex()[:16], self._last.hash.hex()[:16]
        if entry.place != self._last.length + 1:
            self._note(entry.place, f"it follows entry {self._last.length}: entries are missing, or one is there twice")
        if entry.link.previous != self._last.hash:
            self._note(entry.place, f"it does not name the hash of the entry before ({before})")
        if entry.link.hash() != entry.hash:
            self._note(entry.place, f"its hash is not that of what it says ({hash_now})")
        if entry.place == 1 and entry.link.kind != GENESIS:
            self._note(entry.place, f"a chain begins with {GENESIS!r}, not with {entry.link.kind!r} ({hash_now})")
        return len(self._found) == said

    def _check_signature(self, entry: Entry) -> bool:
        if entry.signature is None or entry.key_id is None:
            if self._is_signed or (self._memory.is_marked and entry.place > self._marked):
                self._note(entry.place, f"it is not signed, as entries before it are ({entry.hash.hex()[:16]})")
                return False
            self._unsigned = entry.place
            return self._memory.trusted is None
        self._is_signed = True
        if self._memory.trusted is None:
            return True
        key = self._memory.trusted.get(entry.key_id)
        if key is None:
            self._note(
                entry.place,
                f"key {entry.key_id[:16]} has signed it, which this host does not trust; of another referee's host "
                "trust it with `easeml evidence trust FILE`",
            )
        elif not key.verifies_head(entry.signature, entry.hash):
            self._note(
                entry.place,
                f"the signature of key {entry.key_id[:16]} is not on this entry ({entry.signature.hex()[:16]})",
            )
            return False
        return key is not None

    def _check_row(self, entry: Entry, facts: Mapping[int, Any]) -> None:
        kind, subject = entry.link.kind, entry.link.subject or 0
        self._covered.add((kind, subject))
        if kind not in chained_rows.kinds_of(self._chain):
            self._note(entry.place, f"an entry about a {kind} belongs to another chain")
        elif subject not in facts:
            self._note(entry.place, f"{kind} {subject} is gone")
        elif commit(entry.nonce, facts[subject]) != entry.link.commitment:
            now = digest([digest(facts[subject]), entry.nonce.hex(), entry.link.commitment.hex()])[:16]
            self._note(
                entry.place,
                f"{kind} {subject} is not what the entry commits to: it was changed, or a model or prediction that it "
                f"rests on, or the nonce ({now})",
            )

    def _check_content(self, entry: Entry, *, is_genuine: bool) -> None:
        content = entry.content if isinstance(entry.content, dict) else {}
        if commit(entry.nonce, content) != entry.link.commitment:
            now = digest([content, entry.nonce.hex()])[:16]
            self._note(entry.place, f"its content is not what it commits to ({now})")
        elif entry.link.kind == ACKNOWLEDGED and is_genuine:
            self._acknowledged |= {(place, what) for place, what in content["findings"]}
        if entry.link.kind == GENESIS:
            self._check_stated(entry.place, content)
        if entry.link.kind == LABELS:
            self._check_labels(entry.place, content)

    def _check_labels(self, place: int, content: JsonObject) -> None:
        """Compare the labels that were given on demand with what the entry states of them."""
        set_id = chained_rows.set_of(self._chain)
        if set_id is None:
            self._note(place, f"an entry about {LABELS} belongs to another chain")
            return
        try:
            stated = from_json(content, StatedLabels)
        except ValueError as error:
            self._note(place, f"what it states of labels cannot be read: {error}")
            return
        for what in labels.differences(self._tx, set_id, stated):
            self._note(place, what)

    def _check_stated(self, place: int, content: JsonObject) -> None:
        """Compare what the first entry states of the set and the rows that were there with what is there now."""
        set_id = chained_rows.set_of(self._chain)
        if set_id is not None:
            stated, found = content.get("set"), chained_rows.set_facts(self._tx, set_id)
            if stated != found:
                now = digest(found)[:16]
                self._note(place, f"the sealed set is not what it was: {_differences(stated, found)} ({now})")
        for kind, digests in (content.get("rows") or {}).items():
            subjects = sorted(int(subject) for subject in digests)
            for start in range(0, len(subjects), BATCH):
                part = subjects[start : start + BATCH]
                facts = chained_rows.row_facts(self._tx, self._chain, kind, part)
                self._covered |= {(kind, subject) for subject in part}
                for subject in part:
                    if subject not in facts:
                        self._note(place, f"{kind} {subject} is gone")
                    elif (now := digest(facts[subject])) != digests[str(subject)]:
                        self._note(place, f"{kind} {subject} was changed ({now[:16]})")

    def _check_rows(self) -> None:
        """Each row of a set has an entry; rows of the audit get theirs after they are committed."""
        if self._last.length == 0:
            self._note(None, "the chain has no entry")
        if self._chain == AUDIT:
            return
        seen: Iterable[tuple[str, int]] = () if self._known is None else self._known.versions
        there = {row for row in self._versions if row[0] in chained_rows.ROWS_OF_SET}
        for kind, subject in sorted(there - self._covered - set(seen)):
            now = digest(chained_rows.row_facts(self._tx, self._chain, kind, [subject]))[:16]
            self._note(None, f"{kind} {subject} is in no entry ({now})")

    def _check_marks(self) -> None:
        for head in self._memory.required:
            at = chains.hash_at(self._tx, self._chain, head.length)
            if at is None:
                self._note(
                    None,
                    f"this host has seen {head.length} entries, and there are {self._last.length}: entries were "
                    "deleted, or an old backup was restored",
                )
            elif at != head.hash:
                self._note(head.length, f"it is not the entry that this host has seen at this place ({at.hex()[:16]})")
        for head in self._memory.absent:
            self._note(
                None,
                f"chain {head.chain} is not in the database, and this host has seen {head.length} entries of it: its "
                f"set was deleted, or a backup that is older than the set was restored ({head.hash.hex()[:16]})",
            )


def _differences(stated: Any, found: Any) -> str:
    if not isinstance(stated, dict) or not isinstance(found, dict):
        return "it is gone" if found is None else "nothing was stated of it"
    return ", ".join(sorted(name for name in {*stated, *found} if stated.get(name) != found.get(name)))
