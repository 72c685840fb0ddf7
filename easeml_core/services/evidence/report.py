"""Check all evidence of an installation at once, for ``easeml evidence verify`` and ``easeml doctor``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from easeml_core.encoding import typed_record
from easeml_core.errors import ArtifactError, InvalidInputError, counted
from easeml_core.services.evidence.notary import Notary
from easeml_core.store.tables import chain as chains
from easeml_core.store.tables import chained_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from easeml_core.services.evidence.verification import Examined
    from easeml_core.store.artifacts.local import ArtifactStore
    from easeml_core.store.database import Store

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
    """Check every chain, the files of all models that were in production, and heads that left the installation.

    Args:
        store: Role ``easeml_referee``.
        keys: The host's key folder; None checks neither signatures nor high-water marks.
        artifacts: Where models lie; None reads no file.
        heads: Hashes (hex) that must be in a chain.
        on_progress: Called with the chain, entries done and entries there are.

    Raises:
        InvalidInputError: A head is not a hash.
    """
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
