"""Files of object stores, through fsspec: read by bounded ranges, written whole or not at all, with refusals in words.

Credentials come from the environment of the process, as the packages behind fsspec read them; none is ever named in an
address. Those packages raise errors of many classes, whose texts may hold signed addresses or names of keys. Only the
classes and S3's error codes are read here; messages are made from these alone, and say what to do.

At S3 a file of more than one part is a multipart upload under its own name, which appears when the last part is there.
The parts of an upload that was interrupted, or of another process that uploads the same file, are kept if their size
and their MD5 are those of the file: a caller uploads under a name that follows from the content. The other stores of
fsspec have no such parts: there a file is written under a temporary name and copied.

[S3 API] CreateMultipartUpload, ListMultipartUploads, ListParts, UploadPart, CompleteMultipartUpload.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import importlib
import importlib.util
import time
import uuid
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from easeml_core.errors import NETWORK_ERRNOS, InvalidInputError
from easeml_core.files.remote_file import PERMANENT, About

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from easeml_core.files.remote_file import Reader
    from easeml_core.files.urls import Address


Result = TypeVar("Result")

PATIENCE_SECONDS = 60.0
"""How long an upload or a download goes on while the object store is away."""

_FIRST_REST, _LONGEST_REST = 0.5, 8.0
_PASSING = frozenset((*NETWORK_ERRNOS, errno.EAGAIN))

_NO_CREDENTIALS = (
    "this process has no credentials for the object store; give it AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a "
    "profile in AWS_PROFILE, or the role of its machine"
)
_AWAY = "the object store cannot be reached; is it running, and is AWS_ENDPOINT_URL (or the network) right?"
_BUSY = "the object store is busy or has a fault"

_BY_CLASS: dict[str, tuple[type[OSError], int | None, str]] = {
    **dict.fromkeys(
        ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "NoAuthTokenError"),
        (PermissionError, errno.EACCES, _NO_CREDENTIALS),
    ),
    "ProfileNotFound": (PermissionError, errno.EACCES, "the profile in AWS_PROFILE is not in the account's AWS files"),
    **dict.fromkeys(
        ("EndpointConnectionError", "ConnectionClosedError", "ProxyConnectionError", "ClientConnectorError"),
        (OSError, errno.ECONNREFUSED, _AWAY),
    ),
    **dict.fromkeys(("ConnectTimeoutError", "ReadTimeoutError"), (OSError, errno.ETIMEDOUT, _AWAY)),
    "HTTPClientError": (OSError, errno.ECONNRESET, _AWAY),
    "SSLError": (
        OSError, None,
        "the certificate of the object store is not trusted; name the one that signs it in AWS_CA_BUNDLE",
    ),
}  # fmt: skip
"""Class of an error, by name, to what it becomes; the class itself is looked up before its bases."""

_BY_CODE: dict[str, tuple[type[OSError], int | None, str]] = {
    "InvalidAccessKeyId": (
        PermissionError, errno.EACCES,
        "the object store does not know this process's access key; is AWS_ACCESS_KEY_ID of this store?",
    ),
    "SignatureDoesNotMatch": (
        PermissionError, errno.EACCES,
        "the object store refuses this process's secret; does AWS_SECRET_ACCESS_KEY belong to AWS_ACCESS_KEY_ID?",
    ),
    **dict.fromkeys(
        ("ExpiredToken", "InvalidToken", "TokenRefreshRequired"),
        (PermissionError, errno.EACCES, "the session at the object store has ended; renew this process's credentials"),
    ),
    "RequestTimeTooSkewed": (
        PermissionError, errno.EACCES, "this machine's clock differs too much from that of the object store; set it"
    ),
    **dict.fromkeys(
        ("AccessDenied", "AllAccessDisabled", "403"),
        (
            PermissionError, errno.EACCES,
            "the object store does not allow it to this process; docs/production.md has the policy that is needed",
        ),
    ),
    **dict.fromkeys(
        ("PermanentRedirect", "AuthorizationHeaderMalformed", "301"),
        (OSError, None, "the bucket is in another region; set AWS_DEFAULT_REGION to it"),
    ),
    **dict.fromkeys(
        ("SlowDown", "ServiceUnavailable", "InternalError", "500", "502", "503", "504", "RequestTimeout"),
        (OSError, errno.EAGAIN, _BUSY),
    ),
    "BadDigest": (OSError, errno.EIO, "what arrived at the object store was not what was sent"),
}  # fmt: skip
"""S3's error code to what it becomes."""


class MissingBucketError(FileNotFoundError):
    """Raised when there is no bucket of the name at this endpoint."""

    def __init__(self) -> None:
        super().__init__(
            "there is no such bucket at this endpoint; create it, or correct the address (easeml db artifacts) or "
            "AWS_ENDPOINT_URL"
        )


def code_of(error: BaseException) -> str:
    """S3's code in an error or its cause, such as ``NoSuchBucket``; empty where there is none."""
    for one in (error, error.__cause__):
        response: Any = getattr(one, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
    return ""


@contextmanager
def as_os_errors() -> Iterator[None]:
    """Let errors of whatever package stands behind fsspec out as OSError, in words of ours."""
    try:
        yield
    except Exception as error:  # each package behind fsspec raises its own kinds
        found = _translated(error)
        if found is error:
            raise
        raise found from error


def _translated(error: Exception) -> OSError:
    code = code_of(error)
    if code == "NoSuchBucket":
        return MissingBucketError()
    names = [kind.__name__ for kind in type(error).__mro__]
    entry = _BY_CODE.get(code) or next((_BY_CLASS[name] for name in names if name in _BY_CLASS), None)
    if entry is not None:
        kind, number, words = entry
        return kind(words) if number is None else kind(number, words)
    if isinstance(error, PERMANENT):
        return error
    return OSError(f"the object store answers with {type(error).__name__}{f' ({code})' if code.isalnum() else ''}")


def _sleep(seconds: float) -> None:
    time.sleep(seconds)


def patiently(act: Callable[[], Result]) -> Result:
    """Do something again while the object store is away or busy, for ``PATIENCE_SECONDS`` of rests at most."""
    left, rest = PATIENCE_SECONDS, _FIRST_REST
    while True:
        try:
            return act()
        except OSError as error:
            if left <= 0 or error.errno not in _PASSING:
                raise
        _sleep(min(rest, left))
        left, rest = left - rest, min(2 * rest, _LONGEST_REST)


PIECE = 8 << 20
_CONNECT_SECONDS = 10

_VERSION = ("ETag", "etag", "md5Hash", "generation", "LastModified", "last_modified", "updated", "mtime", "created")
"""What tells versions of a file apart, as the packages behind fsspec call it."""


def filesystem(protocol: str) -> Any:
    """The file system of a protocol that ``urls`` has allowed."""
    if importlib.util.find_spec("fsspec") is None:
        message = (
            f"addresses of {protocol}:// need the package fsspec: pip install 'easeml-airflow[{_extra(protocol)}]'"
        )
        raise InvalidInputError(message)
    # Without it a host that drops packets is waited for a minute, five times.
    options: dict[str, Any] = {"config_kwargs": {"connect_timeout": _CONNECT_SECONDS}} if protocol == "s3" else {}
    try:
        return importlib.import_module("fsspec").filesystem(protocol, use_listings_cache=False, **options)
    except ImportError as error:
        message = f"addresses of {protocol}:// need one more package beside fsspec: {error}"
        if protocol == "s3":
            message += "; pip install 'easeml-airflow[s3]'"
        raise InvalidInputError(message) from error


def _extra(protocol: str) -> str:
    return "s3" if protocol == "s3" else "remote"


@dataclass(frozen=True, slots=True)
class ObjectFile:
    """A file in an object store."""

    address: Address

    @property
    def _key(self) -> str:
        return f"{self.address.host}/{self.address.path}"

    def about(self) -> About:
        """Size and version as the store tells them."""
        files = filesystem(self.address.protocol)
        with as_os_errors():
            info = files.info(self._key)
            if info.get("type") != "file" or not isinstance(info.get("size"), int):
                message = "it is no file"
                raise IsADirectoryError(message)
            version = {name: str(info[name]) for name in _VERSION if info.get(name) is not None}
            return About(info["size"], "|".join(f"{name} {value}" for name, value in version.items()))

    @contextmanager
    def opened(self, start: int, about: About) -> Iterator[tuple[int, Reader]]:
        """The file from ``start`` on."""
        yield start, _Pieces(filesystem(self.address.protocol), self._key, start, about.size or 0)


@dataclass(slots=True)
class _Pieces:
    """Reads a file range by range."""

    files: Any
    key: str
    place: int
    size: int

    def read(self, size: int, /) -> bytes:
        end = min(self.place + min(size, PIECE), self.size)
        if self.place >= end:
            return b""
        with as_os_errors():
            piece = bytes(self.files.cat_file(self.key, start=self.place, end=end))
        if len(piece) != end - self.place:
            message = "the object store gives another range than was asked for"
            raise OSError(message)
        self.place = end
        return piece


PART_BYTES = 32 << 20
"""Of an upload in parts; S3 allows 10,000 parts of 5 MiB to 5 GiB. One part at a time is in memory."""

_UPLOADS = 3
"""How often an upload in parts is begun, where others give it up."""


class Unfinished(NamedTuple):
    """An upload in parts that was begun and not ended.

    Attributes:
        key: Bucket and name of the object that it would become.
        upload_id: The store's name of it.
        began: Seconds since 1970.
    """

    key: str
    upload_id: str
    began: float


class Uploaded(NamedTuple):
    """What an upload has sent.

    Attributes:
        sent: Bytes that went over the network.
        kept: Bytes that an interrupted upload had sent before.
    """

    sent: int
    kept: int = 0


def upload(files: Any, path: Path, key: str, *, part_bytes: int = PART_BYTES) -> Uploaded:
    """Bring a file of this machine to an object store; repeatable, from where it stopped."""
    size = path.stat().st_size
    with as_os_errors():
        if not has_parts(files):
            _by_copy(files, path, key, size)
            return Uploaded(size)
        done = _by_parts(files, path, key, size, part_bytes) if size > part_bytes else _at_once(files, path, key)
        _require_size(files, key, size)
        return done


def has_parts(files: Any) -> bool:
    """Whether a file system speaks S3."""
    names = files.protocol if isinstance(files.protocol, tuple) else (files.protocol,)
    return "s3" in names


def unfinished(files: Any, prefix: str) -> list[Unfinished]:
    """Return the uploads below a prefix that were begun and not ended, oldest first; none where there are no parts."""
    if not has_parts(files):
        return []
    bucket, _, name = prefix.partition("/")
    with as_os_errors():
        found = [
            Unfinished(f"{bucket}/{one['Key']}", str(one["UploadId"]), _seconds(one.get("Initiated")))
            for page in _pages(files, "list_multipart_uploads", Bucket=bucket, Prefix=name)
            for one in page.get("Uploads", ())
        ]
    return sorted(found, key=lambda one: (one.began, one.upload_id))


def abort(files: Any, one: Unfinished) -> None:
    """Give up an upload and free its parts; one that has ended meanwhile is no error."""
    bucket, _, name = one.key.partition("/")
    with as_os_errors(), suppress(FileNotFoundError):
        files.call_s3("abort_multipart_upload", Bucket=bucket, Key=name, UploadId=one.upload_id)


def _by_copy(files: Any, path: Path, key: str, size: int) -> None:
    """Write under a temporary name first: file systems of fsspec other than object stores have partial files."""
    folder = key.rpartition("/")[0].rpartition("/")[0]
    temporary = f"{folder}/new-{uuid.uuid4().hex}"
    try:
        files.put_file(str(path), temporary)
        _require_size(files, temporary, size)
        files.cp_file(temporary, key)
    finally:
        if files.exists(temporary):
            files.rm_file(temporary)


def _require_size(files: Any, key: str, size: int) -> None:
    if files.size(key) != size:
        message = "the object store kept another number of bytes than it was given"
        raise OSError(message)


def _at_once(files: Any, path: Path, key: str) -> Uploaded:
    bucket, _, name = key.partition("/")
    content = path.read_bytes()
    files.call_s3("put_object", Bucket=bucket, Key=name, Body=content, ContentMD5=_md5_field(content))
    return Uploaded(len(content))


def _by_parts(files: Any, path: Path, key: str, size: int, part_bytes: int) -> Uploaded:
    """Upload in parts, once more where another process has given the upload up, and no more where one has ended it."""
    sums = Counter[str]()
    for tries_left in reversed(range(_UPLOADS)):
        try:
            _one_upload(files, path, key, part_bytes, sums)
        except OSError as error:
            if code_of(error) != "NoSuchUpload":
                raise
            if not (files.exists(key) and files.size(key) == size):  # the object tells which of the two
                if not tries_left:
                    raise
                continue
        break
    return Uploaded(sums["sent"], sums["kept"])


def _one_upload(files: Any, path: Path, key: str, part_bytes: int, sums: Counter[str]) -> None:
    bucket, _, name = key.partition("/")
    target = {"Bucket": bucket, "Key": name}
    upload_id, known = _begun(files, key)
    if upload_id is None:
        upload_id = str(files.call_s3("create_multipart_upload", **target)["UploadId"])
    target["UploadId"] = upload_id
    tags = []
    for number, piece in enumerate(_pieces(path, part_bytes), start=1):
        tag = hashlib.md5(piece, usedforsecurity=False).hexdigest()  # the store's; ours is the SHA-256 of all
        if known.get(number) == (tag, len(piece)):
            sums["kept"] += len(piece)
        else:
            given = files.call_s3("upload_part", **target, PartNumber=number, Body=piece, ContentMD5=_md5_field(piece))
            tag = str(given["ETag"])
            sums["sent"] += len(piece)
        tags.append({"PartNumber": number, "ETag": tag})
    files.call_s3("complete_multipart_upload", **target, MultipartUpload={"Parts": tags})


def _begun(files: Any, key: str) -> tuple[str | None, dict[int, tuple[str, int]]]:
    """Return the newest unfinished upload of a name and its parts; none where they may not be listed."""
    with suppress(PermissionError):
        same = [one for one in unfinished(files, key) if one.key == key]
        if same:
            bucket, _, name = key.partition("/")
            listed = _pages(files, "list_parts", Bucket=bucket, Key=name, UploadId=same[-1].upload_id)
            parts = [part for page in listed for part in page.get("Parts", ())]
            known = {int(part["PartNumber"]): (str(part["ETag"]).strip('"'), int(part["Size"])) for part in parts}
            return same[-1].upload_id, known
    return None, {}


_NEXT = {
    "list_multipart_uploads": {"KeyMarker": "NextKeyMarker", "UploadIdMarker": "NextUploadIdMarker"},
    "list_parts": {"PartNumberMarker": "NextPartNumberMarker"},
}
"""Call to the argument of its next page, and where an answer has that."""


def _pages(files: Any, call: str, **given: Any) -> Iterator[dict[str, Any]]:
    more: dict[str, Any] = {}
    while True:
        page = files.call_s3(call, **given, **more)
        yield page
        following = {argument: page[name] for argument, name in _NEXT[call].items() if page.get(name)}
        if not page.get("IsTruncated") or not following or following == more:
            return
        more = following


def _pieces(path: Path, size: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(size):
            yield piece


def _md5_field(content: bytes) -> str:
    """RFC 1864: the store refuses what arrives changed."""
    return base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()


def _seconds(when: datetime | None) -> float:
    return when.astimezone(UTC).timestamp() if when is not None else 0.0
