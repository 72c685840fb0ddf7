"""An S3 server in this process (moto), which notes what it is asked and can be told to refuse."""

from __future__ import annotations

import contextlib
import logging
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pytest

SECRET = "a-secret-that-nothing-may-show"


class S3Server:
    """The server.

    Attributes:
        url: Its address.
        calls: What it was asked, such as ``PUT /models/easeml/ab/abc?partNumber=1``, oldest first.
        hears: Called with each of these before it is answered; the server is busy where the answer is true.
    """

    def __init__(self) -> None:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        inner = DomainDispatcherApplication(create_backend_app)
        self.calls: list[str] = []
        self.hears: Callable[[str], object] = lambda _: False

        def app(environ: dict[str, Any], start: Any) -> Any:
            query = environ.get("QUERY_STRING", "")
            call = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}{f'?{query}' if query else ''}"
            self.calls.append(call)
            if self.hears(call):
                start("503 Slow Down", [("Content-Type", "application/xml"), ("Connection", "close")])
                return [b"<Error><Code>ServiceUnavailable</Code><Message>busy</Message></Error>"]
            if environ["REQUEST_METHOD"] == "PUT" and not _is_known(parse_qs(query).get("uploadId")):
                start("404 Not Found", [("Content-Type", "application/xml"), ("Connection", "close")])
                return [b"<Error><Code>NoSuchUpload</Code><Message>ended or given up</Message></Error>"]
            return inner(environ, start)

        self._server = make_server("127.0.0.1", 0, app, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop; connections are refused from now on."""
        self._server.shutdown()
        self._server.server_close()

    @property
    def files(self) -> Any:
        """A file system of fsspec on it, as the product makes it."""
        from easeml_core.files.object_stores import filesystem

        return filesystem("s3")

    def count(self, text: str) -> int:
        """How many calls have a text in them."""
        return sum(text in call for call in self.calls)


def _is_known(upload: list[str] | None) -> bool:
    """Whether a part belongs to an upload under way: moto breaks the connection else, S3 says what is wrong."""
    from moto.s3.models import s3_backends

    found = [backend for account in s3_backends.values() for backend in account.values()]
    known = (bucket.multiparts for backend in found for bucket in backend.buckets.values())
    return upload is None or any(upload[0] in each for each in known)


@contextlib.contextmanager
def s3_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """A server with an empty bucket ``models``, which this process's environment names with its credentials."""
    import s3fs
    from moto.s3.models import s3_backends

    s3_backends.reset()
    server = S3Server()
    for name, value in {
        "AWS_ENDPOINT_URL": server.url,
        "AWS_ACCESS_KEY_ID": "easeml",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": "/nonexistent",
        "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    try:
        server.files.call_s3("create_bucket", Bucket="models")
        server.calls.clear()
        yield server
    finally:
        server.close()
        s3fs.S3FileSystem.clear_instance_cache()
