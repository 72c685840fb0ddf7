"""Rights of tenants' folders in an artifact store: a group for each, and nothing for any other account.

A tenant's folder belongs to a group of the operating system whose members are the accounts of the tenant's workers,
the device workers, the referee and the API server. Its mode is 2770: what any of them makes inside belongs to that
group too. The folders above it may be written by their owner alone, so that no tenant can put another folder in its
place.
"""

from __future__ import annotations

import grp
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from easeml_core.encoding import typed_record
from easeml_core.errors import ArtifactError, InvalidInputError
from easeml_core.store.artifacts.local import TENANTS_FOLDER
from easeml_core.store.artifacts.remote import RemoteArtifactStore

if TYPE_CHECKING:
    from easeml_core.store.artifacts.local import ArtifactStore

APART, ABOVE = 0o2770, 0o711
_OTHERS = stat.S_IRWXO
_WRITABLE = stat.S_IWGRP | stat.S_IWOTH


@typed_record
class TenantFolder:
    """The folder of a tenant's files.

    Attributes:
        tenant: The tenant.
        folder: Where it is on this machine.
        group: Its group, by name, else by number.
        mode: Its rights, octal.
        apart: Whether other accounts than its owner and its group are kept out of it.
    """

    tenant: str
    folder: Path
    group: str
    mode: str
    apart: bool


def give_folder(artifacts: ArtifactStore, tenant: str, *, group: str) -> TenantFolder:
    """Make a tenant's folder, or change that of an existing one; repeatable. Only folders change, no file does.

    Args:
        artifacts: The installation's store; this process must own its folder, or be root.
        tenant: The tenant.
        group: Name or number of the group.

    Raises:
        ConfigError: It is no name of a tenant.
        InvalidInputError: The store has no folder, or there is no such group.
        ArtifactError: This account may not do it.
    """
    if isinstance(artifacts, RemoteArtifactStore):
        message = (
            f"{artifacts.place} has no groups: give each tenant's account a policy for its prefix "
            f"{TENANTS_FOLDER}/NAME/ (docs/operations.md has one)"
        )
        raise InvalidInputError(message)
    gid = _group(group)
    place = artifacts.of_tenant(tenant)
    try:
        with place._folder(makes=True):
            pass
        os.chmod(artifacts.root, stat.S_IMODE(artifacts.root.stat().st_mode) & ~_WRITABLE)
        os.chmod(artifacts.root / TENANTS_FOLDER, ABOVE, follow_symlinks=True)
        with artifacts._folder(TENANTS_FOLDER) as above:
            for _, _, _, folder in os.fwalk(tenant, dir_fd=above, follow_symlinks=False):
                os.fchown(folder, -1, gid)
                os.fchmod(folder, APART)
    except OSError as error:
        message = (
            f"the rights of {place.root} cannot be set: {error}; run this as the folder's owner in that group, or root"
        )
        raise ArtifactError(message) from error
    return folder_of(artifacts, tenant)


def folder_of(artifacts: ArtifactStore, tenant: str) -> TenantFolder:
    """Return the rights of a tenant's folder.

    Raises:
        ArtifactError: It cannot be looked at.
    """
    place = artifacts.of_tenant(tenant)
    try:
        with place._folder() as folder:
            found = os.fstat(folder)
    except OSError as error:
        message = f"{place.root} cannot be looked at: {error}"
        raise ArtifactError(message) from error
    mode = stat.S_IMODE(found.st_mode)
    return TenantFolder(tenant, place.root, _name(found.st_gid), f"{mode:04o}", not mode & _OTHERS)


def writable_above(artifacts: ArtifactStore) -> list[Path]:
    """Return the folders above those of tenants that other accounts than their owner may write."""
    places = (artifacts.root, artifacts.root / TENANTS_FOLDER)
    return [place for place in places if place.is_dir() and place.stat().st_mode & _WRITABLE]


def _group(given: str) -> int:
    try:
        return int(given) if given.isdecimal() else grp.getgrnam(given).gr_gid
    except KeyError:
        message = f"this machine has no group {given!r}; make it with `groupadd {given}`, or give a number"
        raise InvalidInputError(message) from None


def _name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
