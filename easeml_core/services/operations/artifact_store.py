"""The installation's artifact store: adopted at first use, compared at every other, changed by the owner, and checked.

What a command stores in another place than that of the workers and the referee is never found. Each command, task, page
and referee that opens a place therefore compares the identity in its marker with the one in the database. The checks
count what lies there, and read whether each file that a row names is there and unchanged.
"""

from __future__ import annotations

import time
import uuid
from collections import defaultdict
from typing import TYPE_CHECKING

from easeml_core.errors import ArtifactError, ArtifactPlaceError, NotFoundError, StateError, counted, reason_of
from easeml_core.files.cache import TrafficReport
from easeml_core.formats.encoding import typed_record
from easeml_core.store.artifacts import location as rows
from easeml_core.store.artifacts.orphans import (
    NamedFile,
    is_trash,
    named_files,
    orphans_among,
    stored_files,
    uploads_of,
)
from easeml_core.store.artifacts.remote import RemoteArtifactStore, artifact_store
from easeml_core.store.logins import needs_token
from easeml_core.store.tables import studies
from easeml_core.store.tables.trials import ended_trials

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from easeml_core.store.artifacts.local import ArtifactStore
    from easeml_core.store.artifacts.location import ArtifactPlace
    from easeml_core.store.database import Store


REMEMBERED_SECONDS = 60.0
"""How long a process relies on an earlier comparison."""

_checked: dict[tuple[str, str], tuple[float, str | None]] = {}
"""When a place was compared with a database, and the identity that it has; None for a place that was not adopted."""


def installed_place(store: Store) -> ArtifactPlace | None:
    """Return the installation's artifact store; None where none was used yet. Any role."""
    with store.begin() as tx:
        return rows.artifact_place(tx)


def checked_artifacts(store: Store, artifacts: ArtifactStore, *, remembers: bool = False) -> ArtifactStore:
    """Return the artifacts once they are known to be the installation's.

    Where the installation has none yet, these are adopted if they hold the newest data that the database names, or it
    names none. A place that this account cannot write to is used as it is, and not adopted.
    """
    key = (store.dsn, artifacts.place)
    compared, identity = _checked.get(key, (-REMEMBERED_SECONDS, None))
    if not remembers or time.monotonic() - compared >= REMEMBERED_SECONDS:
        with store.begin() as tx:
            known = rows.artifact_place(tx)
            if known is None:
                known = _adopt(tx, artifacts)
            if known is not None and artifacts.identity() != known.store_id:
                raise ArtifactPlaceError(asked=artifacts.place, installed=known.place)
        identity = None if known is None else known.store_id
        _checked[key] = (time.monotonic(), identity)
    if identity is not None:
        artifacts.expect(identity)
    return artifacts


def artifacts_of_installation(store: Store) -> ArtifactStore | None:
    """Return the artifacts at the place in the database; None where the installation has none yet."""
    known = installed_place(store)
    if known is None:
        return None
    artifacts = artifact_store(known.place)
    if artifacts.identity() != known.store_id:
        raise ArtifactPlaceError(asked=None, installed=known.place)
    artifacts.expect(known.store_id)
    return artifacts


def set_artifacts(store: Store, artifacts: ArtifactStore, *, unchecked: bool = False) -> ArtifactPlace:
    """Make a place the installation's artifact store; harmless where it is.

    A copy of the present store has the marker of that, so both would be taken for the installation's. Under another
    place's name the marker is therefore written anew, with a new identity, and what still names the store that was
    copied is refused. Where the name is another one of the same storage, every host reads the new marker there.
    """
    with store.begin() as tx:
        newest = rows.newest_artifact(tx)
        if newest is not None and not unchecked and not _holds(artifacts, *newest):
            kind, remedy = "artifact", f"copy the artifacts to {artifacts.place} first, or give --unchecked"
            raise NotFoundError(kind, newest[1], owner=artifacts.place, remedy=remedy)
        known, identity = rows.artifact_place(tx), artifacts.identity()
        is_copy = known is not None and identity == known.store_id and artifacts.place != known.place
        if identity is None or is_copy:
            identity = uuid.uuid4().hex
        rows.set_place(tx, store_id=identity, place=artifacts.place)  # first: another role leaves no marker
        _mark(artifacts, identity, replaces=is_copy)
        found = rows.artifact_place(tx)
    assert found is not None  # it has just been written
    _checked.clear()
    return found


def _adopt(tx: Connection, artifacts: ArtifactStore) -> ArtifactPlace | None:
    """Make the artifacts the installation's; None where this account may not write there.

    The row comes before the marker: its primary key lets one process at a time make one.
    """
    newest = rows.newest_artifact(tx)
    if newest is not None and not _holds(artifacts, *newest):
        raise ArtifactPlaceError(asked=artifacts.place, installed=None)
    if not artifacts.is_writable():
        return None
    identity = artifacts.identity() or uuid.uuid4().hex
    if rows.adopt_place(tx, store_id=identity, place=artifacts.place):
        _mark(artifacts, identity)
    return rows.artifact_place(tx)


def _holds(artifacts: ArtifactStore, tenant: str, reference: str) -> bool:
    return artifacts.of_tenant(tenant).holds(reference)


def _mark(artifacts: ArtifactStore, identity: str, *, replaces: bool = False) -> None:
    if artifacts.mark(identity, replaces=replaces) != identity:
        message = f"{artifacts.place} was marked by another installation in this moment; try again"
        raise ArtifactError(message)


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
    """Count what lies in the artifact store. No file is read."""
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
    """Read every file that a row names, where it is kept, and compare its hash."""
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
