"""Back up the installation to a separate folder, and restore it.

    FOLDER/manifest.json   format, versions, and name, size and SHA-256 of every other file
    FOLDER/easeml.dump     schemas ``work`` and ``sealed``, in one snapshot
    FOLDER/artifacts.tar   the artifact store, copied after the dump: files are written once, and a row names a file
                           only once it is whole, so the copy has every file that the dump names
    FOLDER/...             of the embedded installation: Airflow's database, tables of tenants, keys and passwords

A backup holds sealed labels and secrets: the folder has mode 0700 and its files 0600, whatever the umask is. The folder
gets its name once everything in it is on disk, so a backup that was interrupted has none.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
import tarfile
import uuid
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from easeml_core import __version__
from easeml_core.errors import AlreadyExistsError, InvalidInputError, SchemaVersionError, StateError, reason_of
from easeml_core.formats.encoding import typed_record
from easeml_core.services.operations.artifact_store import set_artifacts
from easeml_core.store import dump, schema
from easeml_core.store.artifacts.local import is_unfinished
from easeml_core.store.artifacts.remote import RemoteArtifactStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from easeml_core.entities import JsonObject
    from easeml_core.store.artifacts.local import ArtifactStore
    from easeml_core.store.database import Store

FORMAT = 1
MANIFEST, DUMP, ARTIFACTS = "manifest.json", "easeml.dump", "artifacts.tar"
_PRIVATE = 0o077
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class BackupFile:
    """One file of a backup.

    Attributes:
        name: Its name in the folder.
        bytes: Its size.
        sha256: Its content hash, 64 hex digits.
    """

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """The contents of a backup.

    Attributes:
        format: Of this file; ``FORMAT``.
        version: Of the program that made the backup.
        schema: Revision of the database.
        server: Major version of PostgreSQL.
        made_at: When the dump began, ISO 8601, UTC.
        artifacts: Place of the artifact store.
        files: All files but the manifest.
    """

    format: int
    version: str
    schema: str
    server: int
    made_at: str
    artifacts: str
    files: tuple[BackupFile, ...]


@typed_record
class WrittenBackup(Manifest):
    """A backup that was made, and its folder."""

    folder: str


@typed_record
class RestoredBackup(Manifest):
    """A backup that was brought back, or only checked (``restored`` is False then), and what to know of it."""

    restored: bool
    warnings: list[str]


@dataclass(frozen=True, slots=True)
class Beside:
    """Other parts of an embedded installation that belong to a backup.

    Attributes:
        databases: Addresses of other databases by the name of their dump.
        files: Files by their name in the backup; those that are missing are left out.
        folders: Folders by the name of their archive; likewise.
    """

    databases: Mapping[str, str]
    files: Mapping[str, Path]
    folders: Mapping[str, Path]


NOTHING_BESIDE = Beside({}, {}, {})


def back_up(
    store: Store,
    url: str,
    artifacts: ArtifactStore,
    folder: Path,
    *,
    beside: Beside = NOTHING_BESIDE,
    with_artifacts: bool = True,
    tell: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Make a backup of the running installation."""
    folder = folder.absolute()
    if folder.exists() or folder.is_symlink():
        kind = "folder"
        raise AlreadyExistsError(kind, str(folder), remedy="a backup is a new folder; name another one")
    copied = [*beside.folders.values(), *([artifacts.root] if _has_folder(artifacts) and with_artifacts else [])]
    for there in copied:
        if folder.resolve().is_relative_to(there.resolve()):
            message = f"{folder} lies in {there}, which belongs to the backup; name a folder outside of it"
            raise InvalidInputError(message)
    made_at = datetime.now(UTC).isoformat(timespec="seconds")
    with store.begin() as tx:
        revision = schema.current(tx) or "none"
    server = dump.server_version(store)
    with _new_folder(folder) as place:
        files = [_dumped(place, DUMP, url, server, tell, schemas=dump.SCHEMAS)]
        files += [_dumped(place, name, address, server, tell) for name, address in beside.databases.items()]
        if with_artifacts and _has_folder(artifacts):
            files.append(_archived(place, ARTIFACTS, artifacts.root, tell, leaves_out=is_unfinished))
        files += [_archived(place, name, there, tell) for name, there in beside.folders.items() if there.is_dir()]
        files += [_copied(place, name, there, tell) for name, there in beside.files.items() if there.is_file()]
        made = Manifest(FORMAT, __version__, revision, server, made_at, artifacts.place, tuple(files))
        with _private(place / MANIFEST) as writer:
            writer.write(json.dumps(asdict(made), indent=2).encode() + b"\n")
    return made


def check_backup(folder: Path, tell: Callable[[str], None] = lambda _: None) -> tuple[Manifest, list[str]]:
    """Read every file of a backup again, and compare it with the manifest."""
    made = _manifest(folder)
    for kept in made.files:
        tell(f"checking {kept.name}: {kept.bytes:,} bytes")
        path = folder / kept.name
        if path.is_symlink() or not path.is_file():
            raise _broken(folder, f"{kept.name} is missing")
        if path.stat().st_size != kept.bytes or _sha256(path) != kept.sha256:
            raise _broken(folder, f"{kept.name} is not what was backed up")
    names = {kept.name for kept in made.files}
    added = sorted(path.name for path in folder.iterdir() if path.name not in names | {MANIFEST})
    if added:
        raise _broken(folder, f"{added[0]} was added")
    warnings = []
    is_open = [p.name for p in (folder, *sorted(folder.iterdir())) if stat.S_IMODE(p.stat().st_mode) & _PRIVATE]
    if is_open and stat.S_IMODE(folder.stat().st_mode) & _PRIVATE:
        named = ", ".join(is_open[:5])
        warnings.append(f"other accounts may read {named}; a backup holds sealed labels and secrets: chmod -R go= it")
    return made, warnings


def restore(
    store: Store,
    url: str,
    folder: Path,
    *,
    artifacts: ArtifactStore | None = None,
    replaces: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> tuple[Manifest, list[str]]:
    """Check a backup and restore its database and its artifacts.

    The artifacts come first, and existing files stay: they are named by their content. The database follows in one
    transaction, so an interrupted restore has changed nothing in it and can be repeated. It replaces the schemas
    ``work`` and ``sealed`` as a whole, also those of a later revision than the backup's.
    """
    made, warnings = check_backup(folder, tell)
    if made.schema not in ("none", *schema.known_revisions()):
        raise SchemaVersionError(made.schema, schema.REVISION)
    if not replaces and dump.is_in_use(store):
        message = (
            "the database has studies, and a restore replaces all of it: answers that have left since the backup would "
            "be given again; restore into an empty database, or give --replace"
        )
        raise StateError(message)
    foreign = dump.foreign_objects(store)
    if foreign:
        message = (
            f"a restore replaces the schemas {' and '.join(dump.SCHEMAS)}, and would remove what others have made in "
            f"them or on top of them: {', '.join(foreign)}; drop these first, and make them again afterwards"
        )
        raise StateError(message)
    server = max(made.server, dump.server_version(store))
    for name in ("pg_restore", "psql"):  # before anything is changed
        dump.program(name, server=server)
    names = {kept.name for kept in made.files}
    if artifacts is not None and ARTIFACTS in names:
        tell(f"restoring the artifacts to {artifacts.place}")
        _extract(folder / ARTIFACTS, artifacts.root)
    tell("restoring the database, in one transaction")
    dump.restore(url, folder / DUMP, server=server, replaces=replaces)
    store.close()  # connections that know the earlier tables
    if made.schema != schema.REVISION:
        warnings.append(
            f"the backup has schema {made.schema}: run `easeml db upgrade`, then `easeml db artifacts PLACE`"
        )
    elif artifacts is not None:
        set_artifacts(store, artifacts)
    return made, warnings


@contextlib.contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """Make a private folder beside the requested one, renamed once all in it is on disk, else removed."""
    place = folder.with_name(f".{folder.name}.partial-{uuid.uuid4().hex[:8]}")
    try:
        place.mkdir(mode=0o700)
    except OSError as error:
        message = f"{folder} cannot be made: {reason_of(error)}; name a folder in one that this account may write to"
        raise InvalidInputError(message) from error
    before = os.umask(_PRIVATE)
    try:
        yield place
        _sync(place)
        place.rename(folder)
        _sync(folder.parent)
    except OSError as error:
        message = f"the backup {folder} cannot be written: {error}; nothing is left of it"
        raise InvalidInputError(message) from error
    finally:
        os.umask(before)
        shutil.rmtree(place, ignore_errors=True)


@contextlib.contextmanager
def _private(path: Path) -> Iterator[BinaryIO]:
    """Open a new file that only its owner may read, on disk when the block ends."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as writer:
        yield writer
        writer.flush()
        os.fsync(writer.fileno())


def _dumped(
    place: Path, name: str, url: str, server: int, tell: Callable[[str], None], *, schemas: tuple[str, ...] = ()
) -> BackupFile:
    tell(f"dumping the database into {name}")
    with _private(place / name):
        pass  # pg_dump writes into it, so its mode is kept
    dump.dump(url, place / name, server=server, schemas=schemas)
    return _kept(place / name)


def _has_folder(artifacts: ArtifactStore) -> bool:
    return not isinstance(artifacts, RemoteArtifactStore)


def _archived(
    place: Path,
    name: str,
    folder: Path,
    tell: Callable[[str], None],
    *,
    leaves_out: Callable[..., bool] = lambda _, *, is_folder: False,
) -> BackupFile:
    """Put the plain files and folders of a folder into an archive; what else lies there is named, since it is lost."""
    tell(f"copying {folder} into {name}")
    with (
        _private(place / name) as writer,
        tarfile.open(fileobj=writer, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        # Through descriptors: who may write there could lead this account, which reads all, through a link elsewhere.
        for top, folders, files, held in os.fwalk(folder.resolve(), follow_symlinks=False):
            folders[:] = sorted(inner for inner in folders if not leaves_out(Path(inner), is_folder=True))
            whole = [inner for inner in files if not leaves_out(Path(inner), is_folder=False)]
            for path in (Path(top, inner) for inner in sorted(folders + whole)):
                inside = path.relative_to(folder.resolve())
                if (what := _added(archive, held, path, str(inside))) is not None:
                    tell(f"left out of {name}: {folder / inside} is {what}; back up what it stands for separately")
    return _kept(place / name)


def _added(archive: tarfile.TarFile, held: int, path: Path, arcname: str) -> str | None:
    """Add a plain file or an empty folder to an archive, unless it was just removed; what else it is."""
    try:
        kind = os.stat(path.name, dir_fd=held, follow_symlinks=False).st_mode
        if stat.S_ISLNK(kind):
            return "a symbolic link"
        if not stat.S_ISDIR(kind) and not stat.S_ISREG(kind):
            return "no plain file"
        opened = os.open(path.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=held)
    except FileNotFoundError:  # a checkpoint or an upload that was just removed
        return None
    with open(opened, "rb", closefd=True) if stat.S_ISREG(kind) else _closing(opened) as file:
        found = os.fstat(opened)
        about = tarfile.TarInfo(arcname)
        about.mode, about.mtime, about.uid, about.gid = (
            stat.S_IMODE(found.st_mode),
            found.st_mtime,
            found.st_uid,
            found.st_gid,
        )
        if file is None:
            about.type = tarfile.DIRTYPE
        elif not stat.S_ISREG(found.st_mode):
            return "no plain file"
        else:
            about.size = found.st_size
        archive.addfile(about, file)
    return None


@contextlib.contextmanager
def _closing(folder: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(folder)


def _copied(place: Path, name: str, file: Path, tell: Callable[[str], None]) -> BackupFile:
    tell(f"copying {file} into {name}")
    with file.open("rb") as reader, _private(place / name) as writer:
        shutil.copyfileobj(reader, writer)
    return _kept(place / name)


def _kept(path: Path) -> BackupFile:
    _sync(path)
    return BackupFile(path.name, path.stat().st_size, _sha256(path))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _manifest(folder: Path) -> Manifest:
    """Read a manifest, which comes from outside: names in it must be plain."""
    try:
        read: JsonObject = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if read["format"] != FORMAT:
            raise _broken(folder, f"its format is {read['format']!r}, this version reads {FORMAT}")
        files = tuple(BackupFile(str(f["name"]), int(f["bytes"]), str(f["sha256"])) for f in read["files"])
        made = Manifest(**{**read, "files": files, "server": int(read["server"]), "schema": str(read["schema"])})
    except OSError as error:
        raise _broken(folder, f"{MANIFEST} cannot be read, {reason_of(error)}") from error
    except (ValueError, TypeError, KeyError) as error:
        if isinstance(error, InvalidInputError):
            raise
        raise _broken(folder, f"{MANIFEST} is no manifest") from error
    names = [kept.name for kept in files]
    if any(Path(name).name != name or name in (MANIFEST, "..", ".") for name in names) or DUMP not in names:
        raise _broken(folder, f"{MANIFEST} names no plain files")
    return made


def _broken(folder: Path, what: str) -> InvalidInputError:
    return InvalidInputError(f"{folder} is no whole backup: {what}; take another one")


def _extract(archive: Path, target: Path) -> None:
    """Unpack plain files and folders that are not there yet; nothing outside the target, and through no link in it."""
    try:
        target.mkdir(parents=True, exist_ok=True)
        with tarfile.open(archive, "r:") as opened:
            for member in opened:
                parts = Path(tarfile.data_filter(member, str(target)).name).parts
                if not parts or not (member.isdir() or member.isreg() or member.islnk()):
                    continue
                *above, name = parts
                with contextlib.ExitStack() as held:
                    folder = os.open(target.resolve(), _FOLDER)
                    held.callback(os.close, folder)
                    folder = _entered(held, folder, above)
                    if member.isdir():
                        _entered(held, folder, [name], mode=_closed_as(member.mode))
                    else:
                        _unpack(opened, member, folder, name)
    except (OSError, tarfile.TarError) as error:
        message = f"the artifacts cannot be restored to {target}: {error}"
        raise InvalidInputError(message) from error


def _entered(held: contextlib.ExitStack, folder: int, names: list[str], *, mode: int = 0o755) -> int:
    """Open a folder inside an open one, step by step, and make what is missing; a link is an error."""
    for name in names:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, mode, dir_fd=folder)
        folder = os.open(name, _FOLDER, dir_fd=folder)
        held.callback(os.close, folder)
    return folder


def _closed_as(mode: int) -> int:
    """Return the rights of a restored folder: one that was closed to others is its owner's, until it has a group."""
    return mode & 0o755 | 0o700 if mode & stat.S_IRWXO else 0o700


def _unpack(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: int, name: str) -> None:
    reader = archive.extractfile(member)
    if reader is None:
        return
    unfinished = f"new-{uuid.uuid4().hex}"
    with reader:
        handle = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
        try:
            with os.fdopen(handle, "wb") as writer:
                shutil.copyfileobj(reader, writer)
                os.fchmod(writer.fileno(), member.mode & 0o755 | 0o600)
            try:
                os.link(unfinished, name, src_dir_fd=folder, dst_dir_fd=folder)  # whole or not at all
            except FileExistsError:
                return
            except OSError:  # a file system without hard links
                if name not in os.listdir(folder):
                    os.rename(unfinished, name, src_dir_fd=folder, dst_dir_fd=folder)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(unfinished, dir_fd=folder)
