"""The key folder of a referee's host: its signing key, the public keys that it trusts, its high-water marks.

    key.pem       private key, mode 0600
    ID.pub        public keys that are trusted: this host's own, earlier ones, those of other referees' hosts
    marks.json    how long each chain was when this host last saw it, and its last hash; signed with the key

The folder lies outside the database, so that neither the database's owner nor a restored backup can change it. It
belongs to the referee's account and to one installation.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
from dataclasses import dataclass, field, replace
from typing import IO, TYPE_CHECKING

from easeml_core.errors import InvalidInputError, StateError, reason_of
from easeml_core.files.local import write_durably
from easeml_core.formats.attestation import PublicKey, SigningKey, canonical
from easeml_core.store.tables.chain import Head, Transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from easeml_core.entities import JsonObject

KEY, MARKS, LOCK, PUBLIC = "key.pem", "marks.json", "lock", ".pub"
_MARKS = b"easeml marks v1\n"


@dataclass(frozen=True, slots=True)
class Intended:
    """Heads that a transaction was about to commit.

    Attributes:
        transaction: Its number.
        heads: The ends of the chains that it extends.
    """

    transaction: Transaction
    heads: tuple[Head, ...]


@dataclass(frozen=True, slots=True)
class Marks:
    """What this host remembers of the chains.

    Attributes:
        heads: By chain: its end when it was last seen committed.
        intended: Transactions whose outcome this host has not recorded yet.
        fault: Why the file cannot be trusted; empty where it can. Then the others are empty.
    """

    heads: Mapping[str, Head] = field(default_factory=dict)
    intended: tuple[Intended, ...] = ()
    fault: str = ""

    def raised(self, head: Head) -> Marks:
        """Return the marks with this head, unless a longer one is remembered."""
        known = self.heads.get(head.chain)
        if known is not None and known.length >= head.length:
            return self
        return replace(self, heads={**self.heads, head.chain: head})


@dataclass(frozen=True, slots=True)
class _Read:
    """Marks that were read, and the file that said them.

    Attributes:
        file: Open, so that no other file gets its inode: each change of the marks is a new file.
        version: Inode, time of change and size.
        trusted: Ids of the keys that were trusted then.
        marks: Without a fault.
    """

    file: IO[bytes]
    version: tuple[int, int, int]
    trusted: frozenset[str]
    marks: Marks

    def is_of(self, file: IO[bytes], trusted: Iterable[str]) -> bool:
        """Whether the file is that one, unchanged, and the same keys are trusted."""
        return self.version == _version(file) and self.trusted == frozenset(trusted)


def _version(file: IO[bytes]) -> tuple[int, int, int]:
    found = os.fstat(file.fileno())
    return found.st_ino, found.st_mtime_ns, found.st_size


class KeyFolder:
    """The key, the trusted keys and the marks of one referee's host.

    Args:
        folder: May be missing; nothing is made before ``make_key`` or ``trust``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._loaded: tuple[tuple[int, int, int], SigningKey] | None = None
        self._read: _Read | None = None

    @property
    def has_key(self) -> bool:
        """Whether a signing key lies in it."""
        with self._usable():
            return (self.folder / KEY).exists()

    @property
    def is_begun(self) -> bool:
        """Whether this host has, or has had, a signing key here."""
        with self._usable():
            return any((self.folder / name).exists() for name in (KEY, MARKS))

    def make_key(self) -> bool:
        """Make the folder and its signing key; False where it has one, which stays.

        ``Notary.open_key`` says whether the installation allows it.
        """
        with self._usable():
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._locked():
                is_missing = not (self.folder / KEY).exists()
                if is_missing:
                    self._begin()
        return is_missing

    @contextlib.contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            message = f"the referee's key folder {self.folder} cannot be used: {reason_of(error)}; give its account "
            message += "access, or name another with --keys"
            raise StateError(message) from error

    def _begin(self) -> None:
        """Make the key, after the marks, so that a key without marks means that they were deleted."""
        key = SigningKey.new()
        write_durably(self.folder / f"{key.public.id}{PUBLIC}", key.public.pem(), mode=0o644)
        if not (self.folder / MARKS).exists():
            self._write_marks(Marks(), key)
        write_durably(self.folder / KEY, key.pem(), mode=0o600)

    def key(self) -> SigningKey:
        """Return the signing key, read again where its file has changed."""
        path = self.folder / KEY
        try:
            with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
                found = os.fstat(file.fileno())
                version = (found.st_ino, found.st_mtime_ns, found.st_size)
                if self._loaded is not None and self._loaded[0] == version:
                    return self._loaded[1]
                if stat.S_IMODE(found.st_mode) & 0o077 or found.st_uid != os.geteuid():
                    message = (
                        f"{path} must belong to the referee's account alone (mode 0600), it has mode "
                        f"{stat.S_IMODE(found.st_mode):04o}; run `chmod 600 {path}` and rotate the key: others may "
                        "have read it"
                    )
                    raise StateError(message)
                key = SigningKey.parse(file.read(), str(path))
        except OSError as error:
            message = (
                f"the referee's key {path} cannot be read: {reason_of(error)}; name the folder that has it with --keys"
            )
            raise StateError(message) from error
        self._loaded = (version, key)
        return key

    def trusted(self) -> dict[str, PublicKey]:
        """The public keys that lie in the folder, by id."""
        found = [PublicKey.parse(path.read_bytes(), str(path)) for path in sorted(self.folder.glob(f"*{PUBLIC}"))]
        return {key.id: key for key in found}

    def path_of(self, key: PublicKey) -> Path:
        """Return the path of a trusted key."""
        return self.folder / f"{key.id}{PUBLIC}"

    def is_own_trusted(self) -> bool:
        """Whether the signing key is trusted by this folder: another file in its place is not."""
        return self.key().public.id in self.trusted()

    def trust(self, key: PublicKey) -> None:
        """Trust entries signed by this key, of another host's referee; makes the folder, and no signing key."""
        with self._usable():
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._locked():
            write_durably(self.folder / f"{key.id}{PUBLIC}", key.pem(), mode=0o644)

    def replace_key(self, key: SigningKey) -> None:
        """Sign with another key from now on; the old public key stays trusted."""
        with self._locked():
            marks = self._read_marks()
            write_durably(self.folder / f"{key.public.id}{PUBLIC}", key.public.pem(), mode=0o644)
            if not marks.fault:
                self._write_marks(marks, key)
            write_durably(self.folder / KEY, key.pem(), mode=0o600)
            self._loaded = None

    def marks(self) -> Marks:
        """Return the present marks."""
        with self._locked():
            return self._read_marks()

    def change_marks(self, change: Callable[[Marks], Marks]) -> None:
        """Change the marks; on the disk before this returns.

        Marks that cannot be trusted are left as they are: a referee has to acknowledge that (``renew_marks``).
        """
        with self._locked():
            marks = self._read_marks()
            new = marks if marks.fault else change(marks)
            if new != marks:
                self._write_marks(new, self.key())

    def renew_marks(self, heads: Mapping[str, Head]) -> None:
        """Set the marks of these chains; of the others, those that can be trusted stay."""
        with self._locked():
            marks = self._read_marks()
            kept = {} if marks.fault else dict(marks.heads)
            self._write_marks(Marks({**kept, **heads}), self.key())

    def _read_marks(self) -> Marks:
        path, trusted = self.folder / MARKS, self.trusted()
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return Marks(fault=f"the high-water marks {path} are gone")
        except OSError as error:
            return Marks(fault=f"the high-water marks {path} cannot be read ({type(error).__name__})")
        if self._read is not None and self._read.is_of(file, trusted):
            file.close()
            return self._read.marks
        marks = self._parsed(path, file, trusted)
        self._keep(file, trusted, marks)
        return marks

    def _keep(self, file: IO[bytes], trusted: Iterable[str], marks: Marks) -> None:
        """Remember what a file says, which takes long with thousands of chains; a fault is looked at again."""
        if self._read is not None:
            self._read.file.close()
            self._read = None
        if marks.fault:
            file.close()
        else:
            self._read = _Read(file, _version(file), frozenset(trusted), marks)

    @staticmethod
    def _parsed(path: Path, file: IO[bytes], trusted: Mapping[str, PublicKey]) -> Marks:
        try:
            found = json.loads(file.read())
            body, key_id, signature = found["body"], found["key_id"], bytes.fromhex(found["signature"])
            key = trusted.get(key_id)
            if key is None or not key.verifies(signature, _MARKS + canonical(body)):
                return Marks(fault=f"the high-water marks {path} are not signed by a key of this folder")
            heads = {chain: Head(chain, place, bytes.fromhex(end)) for chain, (place, end) in body["heads"].items()}
            return Marks(heads, tuple(_intended(one) for one in body["intended"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            return Marks(fault=f"the high-water marks {path} cannot be read ({type(error).__name__})")

    def _write_marks(self, marks: Marks, key: SigningKey) -> None:
        intended = [
            {
                "transaction": one.transaction.number,
                "server_since": one.transaction.server_since,
                "heads": _plain(one.heads),
            }
            for one in marks.intended
        ]
        body = {"heads": _plain(marks.heads.values()), "intended": intended}
        signed = {"body": body, "key_id": key.public.id, "signature": key.sign(_MARKS + canonical(body)).hex()}
        write_durably(self.folder / MARKS, canonical(signed), mode=0o600)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Lock the folder against other threads and processes of this host."""
        with self._usable():
            number = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(number, fcntl.LOCK_EX)
            yield
        finally:
            os.close(number)


def _plain(heads: Iterable[Head]) -> dict[str, list[int | str]]:
    return {head.chain: [head.length, head.hash.hex()] for head in heads}


def _intended(found: JsonObject) -> Intended:
    heads = [Head(chain, place, bytes.fromhex(end)) for chain, (place, end) in found["heads"].items()]
    return Intended(Transaction(int(found["transaction"]), str(found["server_since"])), tuple(heads))


def read_public(path: Path) -> PublicKey:
    """Return a public key from a file."""
    try:
        return PublicKey.parse(path.read_bytes(), str(path))
    except OSError as error:
        message = f"{path} cannot be read: {reason_of(error)}"
        raise InvalidInputError(message) from error
