"""An S3-compatible server for one stack, on loopback: moto's, with every object under a prefix also kept as a file.

moto forgets everything when it ends. So an object is written to the folder before the client gets its answer, and what
the folder holds is served after a restart. The layout is that of an artifact folder, so a stack that changes its
executor finds its artifacts again.

Run by the launcher: ``object_server.py PORT BUCKET PREFIX FOLDER``, with the one access key that may use it in the
variable ``AWS_ACCESS_KEY_ID``.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from moto.moto_server.werkzeug_app import create_backend_app
from moto.s3.models import s3_backends
from werkzeug.serving import run_simple

from easeml_core.files.local import written_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

ACCOUNT, REGION = "123456789012", "us-east-1"
WRITES = ("PUT", "POST", "DELETE")
FORBIDDEN = b"<Error><Code>AccessDenied</Code></Error>"


class ObjectServer:
    """A WSGI application that serves one bucket.

    Args:
        bucket: Its name.
        prefix: Objects below it are kept as files; others live as long as the process.
        folder: Where the files lie, at the key's path below the prefix.
        access_key: Which requests must be signed with; the signature itself is not checked.
    """

    def __init__(self, bucket: str, prefix: str, folder: Path, access_key: str) -> None:
        self.bucket, self.prefix, self.folder = bucket, prefix, folder
        self.credential = f"Credential={access_key}/"
        self.app = create_backend_app("s3")
        self.objects = s3_backends[ACCOUNT]["aws"]
        self.objects.create_bucket(bucket, REGION)
        for path in sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()):
            self.objects.put_object(bucket, f"{prefix}/{path.relative_to(folder).as_posix()}", path.read_bytes())

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request; what it changed is on the disk by then."""
        if self.credential not in environ.get("HTTP_AUTHORIZATION", ""):
            start_response("403 Forbidden", [("Content-Type", "application/xml")])
            return [FORBIDDEN]
        answer: Iterable[bytes] = self.app(environ, start_response)
        if environ["REQUEST_METHOD"] in WRITES:
            for key in self._changed(environ):
                self._keep(key)
        return answer

    def _changed(self, environ: dict[str, Any]) -> Iterator[str]:
        bucket, _, key = environ["PATH_INFO"].removeprefix("/").partition("/")
        if bucket == self.bucket and key:
            yield key
        elif bucket == self.bucket and "delete" in parse_qs(environ["QUERY_STRING"], keep_blank_values=True):
            for path in [path for path in self.folder.rglob("*") if path.is_file()]:
                yield f"{self.prefix}/{path.relative_to(self.folder).as_posix()}"

    def _keep(self, key: str) -> None:
        """Make the file of a key what the object is; a key whose path could leave the folder is not kept."""
        parts = PurePosixPath(key).parts
        if parts[:1] != (self.prefix,) or not parts[1:] or {"..", "/"} & set(parts):
            return
        path = self.folder.joinpath(*parts[1:])
        found = self.objects.get_object(self.bucket, key)
        if found is None:
            path.unlink(missing_ok=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as whole:
            whole.write_bytes(found.value)
            whole.chmod(0o644)  # as in an artifact folder: another account may read it


if __name__ == "__main__":
    port, bucket, prefix, folder = sys.argv[1:]
    os.umask(0o007)
    server = ObjectServer(bucket, prefix, Path(folder), os.environ["AWS_ACCESS_KEY_ID"])
    with contextlib.suppress(KeyboardInterrupt):
        run_simple("127.0.0.1", int(port), server, threaded=True)
