"""The artifact store as a whole: what lies there, and whether each file that a row names is there and unchanged."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import TYPE_CHECKING

from easeml_core.encoding import typed_record
from easeml_core.errors import ArtifactError, NotFoundError, StateError, counted, reason_of
from easeml_core.remote.cache import TrafficReport
from easeml_core.store.artifacts.orphans import (
    NamedFile,
    is_trash,
    named_files,
    orphans_among,
    stored_files,
    uploads_of,
)
from easeml_core.store.artifacts.remote import RemoteArtifactStore
from easeml_core.store.logins import needs_token
from easeml_core.store.tables import studies
from easeml_core.store.tables.trials import ended_trials

if TYPE_CHECKING:
    from collections.abc import Callable

    from easeml_core.store.artifacts.local import ArtifactStore
    from easeml_core.store.database import Store


@typed_record
class TenantFiles:
    """What a tenant has in the artifact store.

    Attributes:
        tenant: The tenant; None for the common place, where an earlier version kept the files of all.
        files: How many, those that are put aside included.
        megabytes: All together.
    """

    tenant: str | None
    files: int
    megabytes: float


@typed_record
class ArtifactStatus:
    """The answer of ``easeml artifacts status``; sizes in megabytes.

    Attributes:
        place: The folder, or the address.
        identity: Of the store's marker; None where it has none.
        files: All files.
        megabytes: All files together.
        tenants: By tenant, the largest first.
        unnamed: Files that no row names, however young.
        unnamed_megabytes: Those together.
        put_aside: Files that a sweep has put aside, and that go in a day.
        unfinished_uploads: Uploads in parts that have begun and not ended; some may be under way.
        missing: Files that a row names and that are not there.
        cache: What this machine has fetched and sent; None for a folder, which needs no cache.
    """

    place: str
    identity: str | None
    files: int
    megabytes: float
    tenants: tuple[TenantFiles, ...]
    unnamed: int
    unnamed_megabytes: float
    put_aside: int
    unfinished_uploads: int
    missing: int
    cache: TrafficReport | None


def artifact_status(store: Store, artifacts: ArtifactStore) -> ArtifactStatus:
    """Count what lies in the artifact store. No file is read.

    Args:
        store: A role that sees the rows of all tenants.
        artifacts: The installation's store.

    Raises:
        StateError: The role sees the rows of some tenants only.
        ArtifactError: The store cannot be listed.
    """
    bucket = artifacts if isinstance(artifacts, RemoteArtifactStore) else None
    try:
        files = list(stored_files(artifacts))
        uploads = [] if bucket is None else uploads_of(bucket)
    except OSError as error:
        message = f"{artifacts.place} cannot be listed: {reason_of(error)}"
        raise ArtifactError(message) from error
    named = _named(store)
    with store.begin() as tx:
        ended = set(ended_trials(tx, sorted({file.trial_id for file in files if file.trial_id is not None})))
    unnamed = orphans_among(files, named, ended)
    there = {(file.tenant, file.reference or f"sha256:{file.path.name}") for file in files}
    sums = defaultdict(list)
    for file in files:
        sums[file.tenant].append(file.size)
    of_tenants = [TenantFiles(tenant, len(sizes), sum(sizes) / 1e6) for tenant, sizes in sums.items()]
    return ArtifactStatus(
        place=artifacts.place,
        identity=artifacts.identity(),
        files=len(files),
        megabytes=sum(file.size for file in files) / 1e6,
        tenants=tuple(sorted(of_tenants, key=lambda one: (-one.megabytes, one.tenant or ""))),
        unnamed=len(unnamed),
        unnamed_megabytes=sum(file.size for file in unnamed) / 1e6,
        put_aside=sum(map(is_trash, files)),
        unfinished_uploads=len(uploads),
        missing=sum((one.tenant, one.reference) not in there and (None, one.reference) not in there for one in named),
        cache=None if bucket is None else bucket.cache.traffic(),
    )


@typed_record
class FaultyFile:
    """A file of the artifact store that a row names and that cannot be used.

    Attributes:
        tenant: Whose it is.
        reference: ``sha256:<hex>``.
        fault: What is wrong with it.
    """

    tenant: str
    reference: str
    fault: str


@typed_record
class VerifiedFiles:
    """The answer of ``easeml artifacts verify``.

    Attributes:
        place: The folder, or the address.
        files: Files that were read.
        seconds: That took.
        faulty: Those that are missing, or hold something else than their hash says.
    """

    place: str
    files: int
    seconds: float
    faulty: tuple[FaultyFile, ...]


def verify_files(
    store: Store,
    artifacts: ArtifactStore,
    *,
    tenant: str | None = None,
    tell: Callable[[str], object] = lambda _: None,
) -> VerifiedFiles:
    """Read every file that a row names, where it is kept, and compare its hash.

    Args:
        store: A role that sees the rows of all tenants.
        artifacts: The installation's store.
        tenant: Only those of this tenant.
        tell: Hears how far it is.

    Raises:
        NotFoundError: There is no such tenant.
        StateError: The role sees the rows of some tenants only.
        ArtifactError: The store is away, or does not let this process read.
    """
    began = time.monotonic()
    if tenant is not None:
        with store.begin() as tx:
            known = [one.name for one in studies.list_tenants(tx)]
        if tenant not in known:
            raise NotFoundError(kind="tenant", name=tenant, known=known)
    named = sorted(one for one in _named(store) if tenant in (None, one.tenant))
    faulty = []
    for number, one in enumerate(named, start=1):
        fault = artifacts.of_tenant(one.tenant).fault_of(one.reference)
        if fault is not None:
            faulty.append(FaultyFile(one.tenant, one.reference, fault))
        if number % 100 == 0:
            tell(f"{number:,} of {counted(len(named), 'file')} read")
    return VerifiedFiles(artifacts.place, len(named), time.monotonic() - began, tuple(faulty))


def _named(store: Store) -> set[NamedFile]:
    with store.begin() as tx:
        if needs_token(tx):
            message = "this login sees the rows of some tenants only; use the address of easeml_referee or easeml_owner"
            raise StateError(message)
        return named_files(tx)
