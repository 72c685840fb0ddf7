"""Files of tenants: moved from the place where an earlier version kept those of all, and checked for their rights."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from easeml_core.encoding import typed_record
from easeml_core.errors import ArtifactError
from easeml_core.store.artifacts.references import named_files
from easeml_core.store.artifacts.remote import RemoteArtifactStore
from easeml_core.store.artifacts.tenant_folders import folder_of, writable_above
from easeml_core.store.queries import health
from easeml_core.store.tables import studies

if TYPE_CHECKING:
    from collections.abc import Callable

    from easeml_core.store.artifacts.local import ArtifactStore
    from easeml_core.store.database import Store


@typed_record
class MovedFiles:
    """The answer of ``easeml artifacts move``.

    Attributes:
        moved: Files that lay in the common place and are in the folders of the tenants whose rows name them.
        copies: How many copies that made: equal content of two tenants is kept for each of them.
        missing: Files that a row names and that are nowhere, or were changed.
        dry_run: Whether nothing was done.
    """

    moved: int
    copies: int
    missing: tuple[str, ...]
    dry_run: bool


def move_files(
    store: Store, artifacts: ArtifactStore, *, dry_run: bool = False, tell: Callable[[str], object] = lambda _: None
) -> MovedFiles:
    """Move each file that a row names into the folder of the row's tenant; repeatable, also after a kill.

    A file is copied for each tenant, and checked, before it leaves the common place; readers look in both meanwhile.
    Uploads and checkpoints stay: they are removed soon. Run it once no process of an earlier version is left.

    Args:
        store: Role ``easeml_owner`` or ``easeml_referee``, which see the rows of all tenants.
        artifacts: The installation's store.
        dry_run: Only count.
        tell: Receives a line for each file.
    """
    with store.begin() as tx:
        named = named_files(tx)
    tenants_of = defaultdict(list)
    for tenant, reference in sorted(named):
        tenants_of[reference].append(tenant)
    moved, copies, missing = 0, 0, list[str]()
    for reference, tenants in tenants_of.items():
        lacking = [tenant for tenant in tenants if not artifacts.of_tenant(tenant).holds_itself(reference)]
        if not artifacts.holds_itself(reference):
            missing += [f"{reference} of tenant {tenant}" for tenant in lacking]
            continue
        try:
            if not dry_run:
                _move(artifacts, reference, lacking)
        except ArtifactError as error:
            missing += [f"{reference} of tenant {tenant}: {error}" for tenant in lacking]
            continue
        moved, copies = moved + 1, copies + len(lacking)
        tell(f"{reference}: {', '.join(tenants)}")
    return MovedFiles(moved, copies, tuple(missing), dry_run)


def _move(artifacts: ArtifactStore, reference: str, tenants: list[str]) -> None:
    if tenants:
        with artifacts.copy(reference) as path:
            for tenant in tenants:
                artifacts.of_tenant(tenant).put(path)
    artifacts.discard(reference)


def open_folders(store: Store, artifacts: ArtifactStore) -> str | None:
    """Say what lets accounts reach files of other tenants; None where nothing does, or tenants are one team.

    Args:
        store: Any role that sees all tenants.
        artifacts: The installation's store. The policies of a bucket cannot be seen from here.
    """
    with store.begin() as tx:
        logins, _ = health.logins_of_tenants(tx)
        tenants = [tenant.name for tenant in studies.list_tenants(tx)]
    if not logins or isinstance(artifacts, RemoteArtifactStore):
        return None
    said = [f"{place} can be written by others than its owner" for place in writable_above(artifacts)]
    shared = [name for name in tenants if not _is_apart(artifacts, name)]
    if shared:
        said.append(f"folders that others may enter: {', '.join(shared)}")
    return "; ".join(said) or None


def _is_apart(artifacts: ArtifactStore, tenant: str) -> bool:
    try:
        return folder_of(artifacts, tenant).apart
    except ArtifactError:
        return False
