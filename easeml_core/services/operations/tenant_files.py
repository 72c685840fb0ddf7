"""Files of tenants: moved from the place where an earlier version kept those of all, checked for rights, and removed.

What is removed are files that no row names (``store/artifacts/orphans.py``).
"""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from typing import TYPE_CHECKING

from easeml_core.errors import ArtifactError, StateError, reason_of
from easeml_core.formats.encoding import typed_record
from easeml_core.settings.config import require
from easeml_core.store.artifacts.orphans import (
    DAY_SECONDS,
    claimed_files,
    clear_bucket,
    find_in_bucket,
    find_orphans,
    named_files,
    remove_orphan,
    remove_unfinished_folders,
)
from easeml_core.store.artifacts.remote import RemoteArtifactStore
from easeml_core.store.artifacts.tenant_folders import closed_to_group, weaknesses
from easeml_core.store.logins import needs_token
from easeml_core.store.queries import health
from easeml_core.store.tables import studies

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from easeml_core.store.artifacts.local import ArtifactStore
    from easeml_core.store.artifacts.orphans import StoredFile
    from easeml_core.store.database import Store


ORPHAN_DAYS = 30.0
"""How long a file that no row names lies unwritten until it is removed, by default."""


@typed_record
class MovedFiles:
    """The answer of ``easeml artifacts move``.

    Attributes:
        moved: Files that lay in the common place and are in the folders of the tenants whose rows name them.
        copies: How many copies that made: equal content of two tenants is kept for each of them.
        missing: Files that a row names and that are nowhere, were changed, or cannot be written for its tenant.
        claimed: Files that were not copied for a tenant: it names them in rows that it writes itself, and another
            tenant names them too. Who is to have one hands it in again.
        dry_run: Whether nothing was done.
    """

    moved: int
    copies: int
    missing: tuple[str, ...]
    claimed: tuple[str, ...]
    dry_run: bool


def move_files(
    store: Store, artifacts: ArtifactStore, *, dry_run: bool = False, tell: Callable[[str], object] = lambda _: None
) -> MovedFiles:
    """Move each file that a row names into the folder of the row's tenant; repeatable, also after a kill.

    A file is copied for each tenant, and checked, before it leaves the common place; readers look in both meanwhile.
    Uploads and checkpoints stay: they are removed soon. Run it once no process of an earlier version is left. What is
    left then is given to no tenant: a file that several claim, in rows which they write themselves, is brought again.
    """
    with store.begin() as tx:
        named, claimed = named_files(tx), claimed_files(tx)
    tenants_of = defaultdict(list)
    for tenant, reference in sorted(named - claimed):
        tenants_of[reference].append(tenant)
    moved, copies, missing, refused, is_whole = 0, 0, list[str](), list[str](), True
    for tenant, reference in sorted(claimed):
        if not artifacts.of_tenant(tenant).holds_itself(reference):
            (refused if artifacts.holds_itself(reference) else missing).append(f"{reference} of tenant {tenant}")
    for reference, tenants in tenants_of.items():
        lacking = [tenant for tenant in tenants if not artifacts.of_tenant(tenant).holds_itself(reference)]
        if not artifacts.holds_itself(reference):
            missing += [f"{reference} of tenant {tenant}" for tenant in lacking]
            continue
        failed = [] if dry_run else _move(artifacts, reference, tenants)
        missing += failed
        is_whole = is_whole and not failed
        if not failed:
            moved, copies = moved + 1, copies + len(lacking)
            tell(f"{reference}: {', '.join(tenants)}")
    if is_whole and not dry_run:
        artifacts.note_moved()
    return MovedFiles(moved, copies, tuple(missing), tuple(refused), dry_run)


def _move(artifacts: ArtifactStore, reference: str, tenants: list[str]) -> list[str]:
    """Move a file; for whom that failed, and why: it stays in the common place then.

    A tenant that has it gets it too: what lies in its folder may be damaged, and what is whole is not written again.
    """
    failed = []
    with contextlib.ExitStack() as held:
        try:
            path = held.enter_context(artifacts.copy(reference))
        except ArtifactError as error:
            return [f"{reference} of tenant {tenant}: {error}" for tenant in tenants]
        for tenant in tenants:
            try:
                artifacts.of_tenant(tenant).put(path)
            except ArtifactError as error:
                failed.append(f"{reference} of tenant {tenant}: {error}")
    if not failed:
        artifacts.discard(reference)
    return failed


@typed_record
class Orphan:
    """A file that no row names.

    Attributes:
        path: Inside the artifact store.
        tenant: In whose folder it lies; None for the common place.
        bytes: Its size.
        days: Since it was written last.
    """

    path: str
    tenant: str | None
    bytes: int
    days: float


@typed_record
class SweptFiles:
    """The answer of ``easeml artifacts sweep``.

    Attributes:
        orphans: The files that no row names, by path.
        removed: How many of them were removed; in an object store, put aside for a day.
        days: How long a file must have lain unwritten.
        dry_run: Whether none was to be removed.
        trashed: Files that were put aside a day ago, which no row names yet, and which go now; 0 in a folder.
        restored: Files that were put aside and that a row names by now: they return; 0 in a folder.
        uploads: Uploads in parts that were interrupted and never went on, which are given up; 0 in a folder.
    """

    orphans: tuple[Orphan, ...]
    removed: int
    days: float
    dry_run: bool
    trashed: int = 0
    restored: int = 0
    uploads: int = 0


def sweep_files(
    store: Store, artifacts: ArtifactStore, *, days: float = ORPHAN_DAYS, dry_run: bool = False
) -> SweptFiles:
    """Remove files that no row names and that nothing has written for some days.

    In an object store they are put aside, and removed by a sweep a day later (``store/artifacts/orphans.py``).
    """
    least = 0.0 if dry_run else 1.0
    require(least <= days <= 36_500, "days", days, f"from {least:g} to 36,500")
    with store.begin() as tx:
        if needs_token(tx):
            message = "this login sees the rows of some tenants only: the files of all others would be orphans"
            raise StateError(message)
    if isinstance(artifacts, RemoteArtifactStore):
        return _sweep_bucket(store, artifacts, days, dry_run)
    with store.begin() as tx:
        found = find_orphans(tx, artifacts, older_than=days * DAY_SECONDS)
    if not dry_run:
        remove_unfinished_folders(artifacts, older_than=days * DAY_SECONDS)
    removed = sum(not dry_run and remove_orphan(artifacts, file, older_than=days * DAY_SECONDS) for file in found)
    return SweptFiles(_shown(found), removed, days, dry_run)


def _sweep_bucket(store: Store, artifacts: RemoteArtifactStore, days: float, dry_run: bool) -> SweptFiles:
    try:
        found = find_in_bucket(store, artifacts, older_than=days * DAY_SECONDS)
        done = found if dry_run else clear_bucket(store, artifacts, found)
    except OSError as error:
        message = f"{artifacts.place} cannot be swept: {reason_of(error)}"
        raise ArtifactError(message) from error
    return SweptFiles(
        orphans=_shown(found.orphans),
        removed=0 if dry_run else len(done.orphans),
        days=days,
        dry_run=dry_run,
        trashed=len(done.trashed),
        restored=len(done.needed),
        uploads=len(done.uploads),
    )


def _shown(files: list[StoredFile]) -> tuple[Orphan, ...]:
    now = time.time()
    return tuple(
        Orphan(str(f.path), f.tenant, f.size, round((now - f.modified) / DAY_SECONDS, 2)) for f in sorted(files)
    )


def open_folders(store: Store, artifacts: ArtifactStore) -> str | None:
    """Say what lets accounts reach files of other tenants; None where nothing does, or tenants are one team."""
    with store.begin() as tx:
        logins = health.logins_of_tenants(tx)
        tenants = [tenant.name for tenant in studies.list_tenants(tx)]
    if not logins.logins or isinstance(artifacts, RemoteArtifactStore):
        return None
    said = weaknesses(artifacts, tenants)
    if logins.devices:
        said.append(
            "code that a device trains can read what the device's account can, so the folders of all its tenants"
        )
    return "; ".join(said) or None


def may_write(store: Store, artifacts: ArtifactStore) -> bool:
    """Return whether this account may add files to the store or to a tenant's folder, as far as the system tells."""
    with store.begin() as tx:
        tenants = [tenant.name for tenant in studies.list_tenants(tx)]
    return artifacts.is_writable() or any(artifacts.of_tenant(tenant).is_writable() for tenant in tenants)


def closed_folders(store: Store, artifacts: ArtifactStore) -> tuple[Path, ...]:
    """Return the tenants' folders that the group of the store's root may not use, although tenants are one team."""
    with store.begin() as tx:
        logins = health.logins_of_tenants(tx)
        tenants = [tenant.name for tenant in studies.list_tenants(tx)]
    if logins.logins or isinstance(artifacts, RemoteArtifactStore):
        return ()
    return closed_to_group(artifacts, tenants)
