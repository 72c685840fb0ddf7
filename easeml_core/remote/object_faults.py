"""What an object store's refusals and silences mean, in sentences of ours that say what to do.

The packages behind fsspec raise errors of many classes, whose texts may hold signed addresses or names of keys. Only
the classes and S3's error codes are read here; messages are made from these alone.
"""

from __future__ import annotations

import errno
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from easeml_core.faults import NETWORK_ERRNOS
from easeml_core.remote.files import PERMANENT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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
    """Do something again while the object store is away or busy, for ``PATIENCE_SECONDS`` of rests at most.

    Args:
        act: What to do.

    Raises:
        OSError: It failed for another reason, or for the last time.
    """
    left, rest = PATIENCE_SECONDS, _FIRST_REST
    while True:
        try:
            return act()
        except OSError as error:
            if left <= 0 or error.errno not in _PASSING:
                raise
        _sleep(min(rest, left))
        left, rest = left - rest, min(2 * rest, _LONGEST_REST)
