"""Write files into object stores: whole or not at all, and resumed after an interruption where the store has parts.

At S3 a file of more than one part is a multipart upload under its own name, which appears when the last part is there.
The parts of an upload that was interrupted, or of another process that uploads the same file, are kept if their size
and their MD5 are those of the file: a caller uploads under a name that follows from the content. The other stores of
fsspec have no such parts: there a file is written under a temporary name and copied.

[S3 API] CreateMultipartUpload, ListMultipartUploads, ListParts, UploadPart, CompleteMultipartUpload.
"""

from __future__ import annotations

import base64
import hashlib
import uuid
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from easeml_core.remote.object_faults import as_os_errors, code_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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
    """Bring a file of this machine to an object store; repeatable, from where it stopped.

    Args:
        files: The file system, of fsspec.
        path: The file, which nothing changes meanwhile.
        key: Bucket and name; the same name always stands for the same content.
        part_bytes: Size of a part, where there are parts.

    Raises:
        OSError: It cannot be written, or the store holds another number of bytes afterwards. What was sent stays, for
            the next call.
    """
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
    """Return the uploads below a prefix that were begun and not ended, oldest first; none where there are no parts.

    Args:
        files: The file system.
        prefix: Bucket and the beginning of names.

    Raises:
        OSError: They cannot be listed.
    """
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
    """Give up an upload and free its parts; one that has ended meanwhile is no error.

    Raises:
        OSError: It cannot be given up.
    """
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
