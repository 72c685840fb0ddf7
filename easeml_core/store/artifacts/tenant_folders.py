"""Rights of tenants' folders in an artifact store: a group for each, and nothing for any other account.

A tenant's folder belongs to a group of the operating system whose members are the accounts of the tenant's workers,
the device workers, the referee and the API server. Its mode is 2770: what any of them makes inside belongs to that
group too. The folders above it may be written by their owner alone, so that no tenant can put another folder in its
place.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import re
import stat
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from easeml_core.errors import ArtifactError, InvalidInputError
from easeml_core.formats.encoding import typed_record
from easeml_core.store.artifacts.local import TENANTS_FOLDER
from easeml_core.store.artifacts.remote import RemoteArtifactStore

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from easeml_core.store.artifacts.local import ArtifactStore

APART, ABOVE = 0o2770, 0o711
_OTHERS = stat.S_IRWXO
_WRITABLE = stat.S_IWGRP | stat.S_IWOTH
_SHARD = re.compile(r"[0-9a-f]{2}")
_ACLS = ("system.posix_acl_access", "system.posix_acl_default")


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
    """Make a tenant's folder, or take over an existing one; repeatable. Only folders change, no file does.

    All folders get the owner of the store's root and lose their ACLs: an account that has made a folder beforehand
    keeps no right to it. What lies outside the tenants' folders can be written by the owner alone from then on.
    """
    if isinstance(artifacts, RemoteArtifactStore):
        message = (
            f"{artifacts.place} has no groups: give each tenant's account a policy for its prefix "
            f"{TENANTS_FOLDER}/NAME/ (docs/production.md has one)"
        )
        raise InvalidInputError(message)
    gid = _group(group)
    place = artifacts.of_tenant(tenant)
    if os.geteuid() != 0:
        message = f"the owner of {place.root} and of what lies in it can be set by root alone; run this as root"
        raise ArtifactError(message)
    for other in artifacts.tenants():
        with contextlib.suppress(ArtifactError):  # a link or a file under that name is no tenant's folder
            if other == tenant or _status(artifacts, other).st_gid != gid:
                continue
            message = (
                f"group {_name(gid)} has the folder of tenant {other}; give {tenant} another group, so that their "
                "accounts cannot reach each other's files"
            )
            raise InvalidInputError(message)
    try:
        artifacts.root.mkdir(parents=True, exist_ok=True)
        with artifacts._folder() as base, _listable(base) as root:
            owner = os.fstat(root).st_uid
            _own(root, owner, -1, ABOVE)
            with artifacts._folder(TENANTS_FOLDER, makes=True) as above, _listable(above) as tenants:
                _own(tenants, owner, -1, ABOVE)
            for name in _folders_in(root):
                if name != TENANTS_FOLDER:
                    _take_over(root, name, owner)
            with place._folder(makes=True), artifacts._folder(TENANTS_FOLDER) as above:
                _take_over(above, tenant, owner, gid)
    except OSError as error:
        message = f"the rights of {place.root} cannot be set: {error}; run it again once that is put right"
        raise ArtifactError(message) from error
    return folder_of(artifacts, tenant)


def _take_over(above: int, name: str, owner: int, gid: int | None = None) -> None:
    """Own a folder and all folders in it, each before it is listed, so that no earlier owner adds one meanwhile."""
    with _listable(above, name) as folder:
        if gid is None:
            _own(folder, owner, -1, stat.S_IMODE(os.fstat(folder).st_mode) & ~_WRITABLE)
        else:
            _own(folder, owner, gid, APART)
        done = set[str]()
        while left := [inner for inner in _folders_in(folder) if inner not in done]:
            for inner in left:  # one that has only now got its name is in the next list
                with contextlib.suppress(FileNotFoundError):
                    _take_over(folder, inner, owner, gid)
            done.update(left)


@contextlib.contextmanager
def _listable(above: int, name: str = ".") -> Iterator[int]:
    folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
    try:
        yield folder
    finally:
        os.close(folder)


def _own(folder: int, owner: int, gid: int, mode: int) -> None:
    os.fchown(folder, owner, gid)
    for name in _acls_of(folder):
        os.removexattr(folder, name)
    os.fchmod(folder, mode)


def _folders_in(folder: int) -> list[str]:
    with os.scandir(folder) as found:
        return [entry.name for entry in found if entry.is_dir(follow_symlinks=False)]


def _acls_of(folder: int | Path) -> list[str]:
    """Names of the access lists of a folder, which give accounts rights that its mode does not show."""
    if sys.platform != "linux":
        return []
    try:
        return [name for name in os.listxattr(folder) if name in _ACLS]
    except OSError as error:
        if error.errno == errno.ENOTSUP:  # a file system without them
            return []
        raise


def folder_of(artifacts: ArtifactStore, tenant: str) -> TenantFolder:
    """Return the rights of a tenant's folder."""
    found = _status(artifacts, tenant)
    mode = stat.S_IMODE(found.st_mode)
    return TenantFolder(
        tenant, artifacts.of_tenant(tenant).root, _name(found.st_gid), f"{mode:04o}", not mode & _OTHERS
    )


def _status(artifacts: ArtifactStore, tenant: str) -> os.stat_result:
    place = artifacts.of_tenant(tenant)
    try:
        with place._folder() as folder:
            return os.fstat(folder)
    except OSError as error:
        message = f"{place.root} cannot be looked at: {error}"
        raise ArtifactError(message) from error


def weaknesses(artifacts: ArtifactStore, tenants: Sequence[str]) -> list[str]:
    """Say which folders let accounts reach files of other tenants, as far as this account can look."""
    root = artifacts.root
    if not root.is_dir():
        return []
    owner = root.stat().st_uid
    above = [root, root / TENANTS_FOLDER]
    with contextlib.suppress(PermissionError):  # only its owner can list it once it was closed
        above += [path for path in sorted(root.iterdir()) if path.is_dir() and path != above[1]]
    above = [path for path in above if path.is_dir()]
    homes = [artifacts.of_tenant(tenant).root for tenant in tenants]
    there = [path for path in homes if path.is_dir() and not path.is_symlink()]
    said = [f"{path} can be written by others than its owner" for path in above if path.stat().st_mode & _WRITABLE]
    shared = [p.name for p in homes if p not in there or p.stat().st_mode & _OTHERS]
    if shared:
        said.append(f"folders that others may enter: {', '.join(shared)}")
    said += [f"{path} does not belong to the owner of {root}" for path in above + there if path.stat().st_uid != owner]
    said += [f"{path} has an ACL, which may let in other accounts" for path in above + there if _acls_of(path)]
    if any(_SHARD.fullmatch(path.name) and os.access(path, os.R_OK) and any(path.iterdir()) for path in above):
        said.append(f"files of an earlier version lie in {root} for all accounts: `easeml artifacts move`")
    groups = defaultdict(list)
    for path in there:
        groups[path.stat().st_gid].append(path.name)
    said += [f"group {_name(gid)} has folders of {', '.join(names)}" for gid, names in groups.items() if len(names) > 1]
    return said


def closed_to_group(artifacts: ArtifactStore, tenants: Sequence[str]) -> tuple[Path, ...]:
    """Return the folders whose group may do less than that of the root, as far as this account can look.

    None where the root is no folder of a group: it cannot write there, or an ACL gives the rights.
    """
    found = []
    with contextlib.suppress(FileNotFoundError, PermissionError):
        wanted = artifacts.root.stat().st_mode & stat.S_IRWXG
        if not wanted & stat.S_IWGRP or _acls_of(artifacts.root):
            return ()
        for path in (artifacts.root / TENANTS_FOLDER, *(artifacts.of_tenant(tenant).root for tenant in tenants)):
            if path.is_dir() and path.stat().st_mode & wanted != wanted:
                found.append(path)
    return tuple(found)


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
