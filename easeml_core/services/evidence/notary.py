"""The referee's process signs its evidence, remembers it, verifies it before each judgement, and appends the audit.

Each transaction that extends a chain is remembered in three steps, so that a kill at any time loses nothing and raises
no false alarm:

    1. the transaction's number and the heads that it is about to commit are written beside the key (``intended``);
    2. the transaction commits, and with it the answer may leave;
    3. the heads become high-water marks.

A process that is killed between 1 and 3 leaves an intention. The next one asks the server for the outcome of that
transaction: committed, so its heads must be there; aborted, so it is dropped.
"""

from __future__ import annotations

import contextlib
import logging
import re
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from easeml_core.errors import ArtifactError, InvalidInputError, NotFoundError, StateError, counted
from easeml_core.formats.attestation import SigningKey
from easeml_core.formats.encoding import typed_record
from easeml_core.services.evidence.keys import Intended, KeyFolder, Marks
from easeml_core.services.evidence.verification import Memory, examine
from easeml_core.store.tables import chain as chains
from easeml_core.store.tables import chained_rows
from easeml_core.store.tables.chained_rows import ACKNOWLEDGED, AUDIT, AUDITED, KEY, PROMOTION, Horizon, of_set

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
    from pathlib import Path

    from sqlalchemy import Connection

    from easeml_core.services.evidence.verification import Examined, Finding
    from easeml_core.store.artifacts.local import ArtifactStore
    from easeml_core.store.database import Store
    from easeml_core.store.tables.chain import Head


logger = logging.getLogger(__name__)

APPEND_AT_ONCE = 200
"""Rows of the audit that one transaction appends."""

LOOK_SECONDS = 300.0
"""Interval of the check of all chains while the referee is idle."""

LOOK_AT_ONCE_SECONDS = 0.2
"""After so long the check of all chains lets answers leave before it goes on: a chain takes some milliseconds."""

MOST_AUDIT_SECONDS = 60.0
"""A sound result about the audit's chain counts for so long at most, where ``Notary`` may let it count."""

LOCKED = (
    "test set {set_id} is locked: its evidence does not verify, so it judges nothing; a referee finds the reason with "
    "`easeml evidence verify` and unlocks the set with `easeml evidence acknowledge`"
)


NO_KEY = (
    "the key folder {folder} holds no signing key, and key {signer} signs the evidence of this installation: name the "
    "folder that has it with --keys (it holds {signer}.pub; by default it is .easeml/referee in the folder where the "
    "first referee was started). Where that key is lost, or on a further host, `easeml evidence keys --new` makes one"
)
STRANGER = (
    "no key of the key folder {folder} has signed anything in this installation, whose evidence key {signer} signs: "
    "name the folder that has that key with --keys. On a further host `easeml evidence trust {signer}.pub`, on both; "
    "where it is lost `easeml evidence acknowledge --all --why REASON`, after which the key of this folder signs"
)


@dataclass(slots=True)
class _Reach:
    """The number up to which every row of a kind is in the chain, and the numbers at an earlier look."""

    low: int = 0
    then: Horizon | None = None


class Notary:
    """Maintains the evidence of one referee's process.

    Args:
        store: Role ``easeml_referee``.
        folder: The host's key folder; None signs nothing and checks nothing, for tests and for use as a library.
        audit_share: Largest share of the time, in [0, 1), that checks of the audit's chain before judgements may take.
            The chain grows with the installation: a sound result counts until the next check is within the share. 0
            checks it before each judgement, as the chain of the set is in any case.
    """

    def __init__(self, store: Store, folder: Path | None, *, audit_share: float = 0.0) -> None:
        self._store, self._audit_share = store, audit_share
        self._audit_counts_until = 0.0
        self._keys = None if folder is None else KeyFolder(folder)
        self._is_open = folder is None
        self._examined: dict[str, Examined] = {}
        self._reach = {kind: _Reach() for kind in (PROMOTION, AUDITED)}
        self._look_due, self._left_to_look = 0.0, list[str]()

    def open_key(self, *, unknown: bool = False) -> str:
        """Require a signing key that belongs to this installation, before anything is written; make its first one.

        A key that no other host trusts would break every chain that it extends, for each of them.
        """
        if self._is_open or self._keys is None:
            return ""
        said = ""
        if not self._keys.has_key:
            with self._store.begin() as tx:
                signer = chains.last_signer(tx)
            if signer is None and self._keys.make_key():
                said = f"made this host's signing key {self._keys.key().public.id} in {self._keys.folder.absolute()}"
                logger.info("%s", said)
            elif not self._keys.has_key:  # else another process of this host has made it, and signed with it
                raise StateError(NO_KEY.format(folder=self._keys.folder.absolute(), signer=signer))
        trusted = self._keys.trusted()
        with self._store.begin() as tx:
            is_known = chains.is_signed_by(tx, trusted)
            signer = None if is_known else chains.last_signer(tx)
        if signer is not None and not unknown:
            raise StateError(STRANGER.format(folder=self._keys.folder.absolute(), signer=signer))
        # Until something is signed a referee elsewhere may do so first, with another key: each transaction looks.
        self._is_open = is_known or unknown
        return said

    @contextlib.contextmanager
    def begin(self) -> Iterator[Connection]:
        """Open a transaction whose entries are signed and remembered, as of ``Store.begin``."""
        self.open_key()
        if self._keys is None:
            with self._store.begin() as tx:
                yield tx
            return
        intended: Intended | None = None
        with chains.recording(self._keys.key()) as recorded, self._store.begin() as tx:
            yield tx
            if recorded is not None and recorded.heads:
                intended = self._intend(tx, recorded.heads)
        if intended is not None:
            self._keys.change_marks(lambda marks: _done(marks, intended))

    def _intend(self, tx: Connection, names: Iterable[str]) -> Intended | None:
        """Record the heads that this transaction is about to commit; last in it, since savepoints may be undone.

        A chain that lacks an entry seen earlier keeps its mark, so that later entries cannot hide that.
        """
        assert self._keys is not None
        known = self._keys.marks().heads
        heads = tuple(
            chains.head(tx, name)
            for name in names
            if name not in known or chains.hash_at(tx, name, known[name].length) == known[name].hash
        )
        intended = Intended(chains.transaction(tx), heads)
        self._keys.change_marks(lambda marks: replace(marks, intended=(*marks.intended, intended)))
        return intended

    def require_sound(self, test_set_ids: Collection[int]) -> None:
        """Refuse to judge on a set whose chain, or the audit's, does not verify.

        The chain of promotions counts too, since a model is compared with the one in production.
        """
        if self._keys is None or not test_set_ids:
            return
        with self.look() as look:
            for set_id in test_set_ids:
                self._require_sound(look, of_set(set_id), set_id)
            if time.monotonic() >= self._audit_counts_until:
                began = time.monotonic()
                self._require_sound(look, AUDIT, min(test_set_ids))
                took = time.monotonic() - began
                counts = min(took / self._audit_share - took, MOST_AUDIT_SECONDS) if self._audit_share else 0.0
                self._audit_counts_until = time.monotonic() + counts

    @staticmethod
    def _require_sound(look: Look, name: str, set_id: int) -> None:
        broken = look.examine(name).first_broken
        if broken is not None:
            logger.error("test set %d judges nothing: %s", set_id, broken)
            raise StateError(LOCKED.format(set_id=set_id))

    @contextlib.contextmanager
    def look(self) -> Iterator[Look]:
        """Read all chains at one moment. Marks are read before, so that none can be newer than the chains."""
        marks = Marks() if self._keys is None else self._keys.marks()
        with self._store.snapshot() as tx:
            yield Look(tx, self._keys, marks, self._examined)

    def acknowledge(self, names: Sequence[str] | None, *, who: str, reason: str) -> list[Finding]:
        """Let sets judge again although their evidence has a fault, which stays recorded in the chain."""
        assert self._keys is not None
        self.open_key(unknown=True)
        with self._store.begin() as tx:
            there = chains.names(tx)
        for name in names or ():
            if name not in there:
                raise _no_chain(name, is_marked=name in self._keys.marks().heads)
        if names is not None and self._keys.marks().fault:
            message = f"{self._keys.marks().fault}: that concerns every chain; check all of them and give --all"
            raise StateError(message)
        names = there if names is None else names
        acknowledged: list[Finding] = []
        heads: dict[str, Head] = {}
        with self.begin() as tx:
            for name in names:
                chains.hold(tx, name)
                look = Look(tx, self._keys, self._keys.marks(), {})
                found = [one for one in look.examine(name).findings if not one.acknowledged]
                if found:
                    content = {
                        "version": 1,
                        "who": who,
                        "reason": reason,
                        "findings": [[f.place, f.what] for f in found],
                    }
                    chains.append(tx, name, ACKNOWLEDGED, content=content)
                acknowledged += found
                heads[name] = chains.head(tx, name)
        self._keys.renew_marks(heads)
        return acknowledged

    def unexplained(self, tx: Connection, name: str) -> list[Finding]:
        """Return the faults of a chain that no referee has acknowledged; the chain is held until the end."""
        chains.hold(tx, name)
        marks = Marks() if self._keys is None else self._keys.marks()
        return [one for one in Look(tx, self._keys, marks, {}).examine(name).findings if not one.acknowledged]

    def explain(self, tx: Connection, name: str, *, known: Sequence[Finding], who: str, reason: str) -> None:
        """State in a chain what this transaction has changed of its set, so that later checks find that and no more."""
        if known:
            message = (
                f"the evidence of chain {name} is broken ({known[0].what}); look at `easeml evidence verify`, and "
                "acknowledge it first"
            )
            raise StateError(message)
        found = [[one.place, one.what] for one in self.unexplained(tx, name)]
        content = {"version": 1, "who": who, "reason": reason, "findings": found}
        chains.append(tx, name, ACKNOWLEDGED, content=content)

    def rotate(self) -> tuple[str, str]:
        """Sign with a new key from now on; an entry of the audit's chain, signed by the old one, names the new one."""
        assert self._keys is not None
        self.open_key()
        old, new = self._keys.key(), SigningKey.new()
        with self.begin() as tx:
            chains.append(
                tx, AUDIT, KEY, content={"version": 1, "key": new.public.id, "pem": new.public.pem().decode()}
            )
        self._keys.replace_key(new)
        return old.public.id, new.public.id

    def append_committed(self) -> bool:
        """Append committed rows of the audit and promotions that are in no entry yet; False without any.

        Triggers write them in transactions of all roles, so they become visible in another order than that of their
        numbers, and any number may be missing. Below ``low`` no row can appear any more: every transaction that had
        begun when the numbers stood there has ended.
        """
        if self._keys is None:
            return False
        with self.begin() as tx:
            chains.hold(tx, AUDIT)
            new = [self._append(tx, kind, reach) for kind, reach in self._reach.items()]
        self._reach = {kind: reach for kind, (reach, _) in zip(self._reach, new, strict=True)}
        return any(appended for _, appended in new)

    def _append(self, tx: Connection, kind: str, reach: _Reach) -> tuple[_Reach, int]:
        now = chained_rows.horizon(tx, kind)
        missing = chained_rows.unchained(tx, kind, above=reach.low, limit=APPEND_AT_ONCE)
        for subject in missing:
            chains.append(tx, AUDIT, kind, subject=subject)
        if len(missing) == APPEND_AT_ONCE:
            return reach, len(missing)
        if reach.then is not None and now.running_since < reach.then.begun:
            return reach, len(missing)
        return _Reach(reach.low if reach.then is None else reach.then.newest, now), len(missing)

    def look_over(self) -> bool:
        """Check every chain at intervals, so that a change is found before the next question."""
        if self._keys is None or (not self._left_to_look and time.monotonic() < self._look_due):
            return False
        began = time.monotonic()
        with self.look() as look:
            if not self._left_to_look:
                self._look_due = began + LOOK_SECONDS
                self._left_to_look = sorted(chains.names(look.tx), reverse=True)
            while self._left_to_look:
                broken = look.examine(self._left_to_look.pop()).first_broken
                if broken is not None:
                    logger.error("evidence is broken: %s", broken)
                if time.monotonic() - began > LOOK_AT_ONCE_SECONDS:
                    break
        return bool(self._left_to_look)


class Look:
    """All chains at one moment.

    Args:
        tx: Transaction of the referee's role that sees one state: a snapshot, or one that holds the chains.
        keys: The host's key folder; None checks neither signatures nor marks.
        marks: What the host remembered before ``tx`` saw anything.
        known: Earlier results of this process by chain; changed in place.
    """

    def __init__(self, tx: Connection, keys: KeyFolder | None, marks: Marks, known: dict[str, Examined]) -> None:
        self.tx, self._keys, self._known = tx, keys, known
        self._marks = marks if keys is None else self._settle(keys, marks)

    def _settle(self, keys: KeyFolder, marks: Marks) -> Marks:
        """Record the outcome of transactions whose end this host has not seen."""
        states = {one: chains.transaction_state(self.tx, one.transaction) for one in marks.intended}
        ended = [one for one, state in states.items() if state != "in progress"]
        if not ended:
            return marks
        kept = [one for one in ended if states[one] == "committed" or _is_there(self.tx, one)]
        keys.change_marks(lambda now: _settled(now, ended, kept))
        return _settled(marks, ended, kept)

    def examine(self, name: str, on_progress: Callable[[int, int], None] = lambda _done, _of: None) -> Examined:
        """Check one chain and remember its end where all is well."""
        found = examine(self.tx, name, self._memory(name), known=self._known.get(name), on_progress=on_progress)
        self._known[name] = found
        if found.first_broken is None and self._keys is not None:
            self._keys.change_marks(lambda marks: marks.raised(found.head))
        return found

    def _memory(self, name: str) -> Memory:
        if self._keys is None:
            return Memory()
        fault = self._marks.fault
        if not fault and not self._keys.is_own_trusted():
            fault = "the signing key of this host is not one that its key folder trusts: it was replaced"
        head = self._marks.heads.get(name)
        required = () if head is None else (head,)
        return Memory(self._keys.trusted(), required, head is not None, self._absent() if name == AUDIT else (), fault)

    def _absent(self) -> list[Head]:
        """Return marks of chains that are not in the database: a finding of the audit's chain."""
        there = {*chains.names(self.tx)}
        return [head for name, head in sorted(self._marks.heads.items()) if name not in there]


def _no_chain(name: str, *, is_marked: bool) -> NotFoundError:
    remedy = "`easeml evidence verify` lists the chains"
    if is_marked:
        remedy = f"this host has seen it: that it is gone is a finding of the chain {AUDIT}; acknowledge that one"
    return NotFoundError("chain", name, remedy=remedy)


def _done(marks: Marks, intended: Intended) -> Marks:
    return _settled(marks, [intended], {intended})


def _settled(marks: Marks, ended: Iterable[Intended], kept: Iterable[Intended]) -> Marks:
    """Return the marks without these intentions; the heads of committed ones become marks."""
    gone = set(ended)
    for one in kept:
        for head in one.heads:
            marks = marks.raised(head)
    return replace(marks, intended=tuple(one for one in marks.intended if one not in gone))


def _is_there(tx: Connection, intended: Intended) -> bool:
    return all(chains.hash_at(tx, head.chain, head.length) == head.hash for head in intended.heads)


_HEAD = re.compile(r"[0-9a-f]{64}")
REMEDY = (
    "run `easeml evidence verify` with the referee's address and key folder, find out who changed what, then "
    "acknowledge it with `easeml evidence acknowledge` (SET for a chain set/SET, --audit for the audit chain; "
    "docs/security.md)"
)


@typed_record
class ChainReport:
    """One chain.

    Attributes:
        chain: Its name.
        length: Entries.
        unsigned: Entries before the first signed one.
        state: ``ok``, ``acknowledged`` or ``broken``.
    """

    chain: str
    length: int
    unsigned: int
    state: str

    @classmethod
    def of(cls, found: Examined) -> ChainReport:
        """Sum up the result of a chain."""
        state = "broken" if found.first_broken else "acknowledged" if found.findings else "ok"
        return cls(found.head.chain, found.head.length, found.unsigned, state)


@typed_record
class Report:
    """All chains.

    Attributes:
        sound: Whether nothing is broken but what was acknowledged.
        chains: One each.
        findings: Faults, one line each, of every chain the first broken entry first; acknowledged ones too.
        broken: Those that are not acknowledged.
    """

    sound: bool
    chains: tuple[ChainReport, ...]
    findings: tuple[str, ...]
    broken: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """The summary in one sentence."""
        entries = sum(one.length for one in self.chains)
        if self.broken:
            return f"BROKEN, first: {self.broken[0]}"
        known = len(self.findings)
        more = f", {counted(known, 'finding')} acknowledged" if known else ""
        return f"{counted(len(self.chains), 'chain')} of {entries:,} entries verify{more}"


def verify_all(
    store: Store,
    keys: Path | None,
    artifacts: ArtifactStore | None = None,
    *,
    heads: Sequence[str] = (),
    on_progress: Callable[[str, int, int], None] = lambda _chain, _done, _of: None,
) -> Report:
    """Check every chain, the files of all models that were in production, and heads that left the installation."""
    for head in heads:
        if not _HEAD.fullmatch(head):
            message = f"a head is 64 digits of 0-9 and a-f, got {head!r}"
            raise InvalidInputError(message)
    found: list[Examined] = []
    lines: list[str] = []
    with Notary(store, keys).look() as look:
        for name in chains.names(look.tx):
            found.append(look.examine(name, lambda done, of, name=name: on_progress(name, done, of)))  # type: ignore[misc]  # a lambda with a default
        lines += [f"head {head}: no chain has it" for head in heads if not chains.has_hash(look.tx, head)]
        promoted = chained_rows.promoted_artifacts(look.tx)
    for tenant, reference in promoted if artifacts is not None else ():
        assert artifacts is not None
        on_progress(reference, 0, 1)
        try:
            with artifacts.of_tenant(tenant).staged(reference):
                pass  # its content was checked
        except ArtifactError as error:
            lines.append(f"model file {reference}: {error}")
    findings = [one for each in found for one in each.findings]
    broken = [str(one) for one in findings if not one.acknowledged] + lines
    every = [str(one) for one in findings] + lines
    return Report(not broken, tuple(ChainReport.of(one) for one in found), tuple(every), tuple(broken))
