"""Files of a web server: how an answer is refused, and that a server that drips is cut off wherever it does."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from easeml_core.files import download
from easeml_core.files.cache import FileCache, Wanted
from easeml_core.files.download import remote_file
from easeml_core.files.remote_file import About, Teller
from easeml_core.files.urls import parse_url
from easeml_core.files.web_files import WebFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

Answer = bytes | list[bytes]
"""What the server sends at once, or piece by piece every 20 ms, the last piece again and again."""


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Answer], str]]:
    """A server that sends each connection these bytes, whatever is asked; gives its host and port."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    over = threading.Event()
    server = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def send(client: socket.socket, answer: Answer) -> None:
        with client, contextlib.suppress(OSError):
            client.recv(65536)
            if isinstance(answer, bytes):
                client.sendall(answer)
                return
            for piece in answer:
                client.sendall(piece)
                over.wait(0.02)
            while not over.wait(0.02):
                client.sendall(answer[-1])

    def serve(answer: Answer) -> None:
        with contextlib.suppress(OSError):
            while True:
                threads.append(threading.Thread(target=send, args=(server.accept()[0], answer)))
                threads[-1].start()

    def begin(answer: Answer) -> str:
        threads.append(threading.Thread(target=serve, args=(answer,)))
        threads[-1].start()
        return f"127.0.0.1:{server.getsockname()[1]}"

    yield begin
    over.set()
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    for thread in threads:
        thread.join(20)


def head(status: str, *lines: str) -> bytes:
    return "\r\n".join((f"HTTP/1.1 {status}", *lines, "", "")).encode()


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (head("302 Found", "Location: http://127.0.0.1/x"), PermissionError, "status 302.*not followed"),
        (head("404 Not Found"), FileNotFoundError, "no such file"),
        (head("403 Forbidden"), PermissionError, "status 403"),
        (head("429 Too Many Requests"), OSError, "status 429"),
        (head("503 Service Unavailable"), OSError, "status 503"),
        (head("200 OK", "Content-Encoding: gzip"), PermissionError, "compressed"),
        (head("204 No Content"), PermissionError, "status 204"),
        (head("206 Partial Content", "Content-Range: pages 1-2/3"), PermissionError, "status 206"),
        (b"hello\r\n\r\n", OSError, "answer is broken"),
        (b"", OSError, "answer is broken"),
    ],
)
def test_an_answer_that_is_no_file_is_refused(answering: Any, answer: bytes, kind: type[OSError], words: str) -> None:
    remote = WebFile(parse_url(f"http://{answering(answer)}/a.csv"))
    with pytest.raises(OSError, match=words) as refused, remote.opened(0, About(None, "")):
        pass
    assert type(refused.value) is kind


def test_a_server_that_is_not_there_or_not_trusted_is_not_reached(answering: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        host = f"127.0.0.1:{server.getsockname()[1]}"
    for url in (f"http://{host}/a.csv", f"https://{answering(b'no TLS')}/a.csv"):
        with pytest.raises(OSError, match="cannot be reached"):
            remote_file(parse_url(url)).about()


@pytest.mark.parametrize(
    ("framing", "body"), [("Content-Length: 9", b"abc"), ("Transfer-Encoding: chunked", b"3\r\nabc\r\n")]
)
def test_a_file_of_unknown_size_that_ends_early_is_no_file(
    answering: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, framing: str, body: bytes
) -> None:
    """Where the server does not answer HEAD, only the answer's own framing tells that bytes are missing."""
    monkeypatch.setattr(download, "REST_SECONDS", 0.0)
    remote = WebFile(parse_url(f"http://{answering(head('200 OK', framing) + body)}/a.csv"))
    wanted = Wanted("0" * 64, lambda: (remote, About(None, "")), most=100, sha256=None)
    tmp_path.chmod(0o700)
    with pytest.raises(OSError, match="answer is broken"), FileCache(tmp_path, limit_mb=1).entry(wanted, Teller("a")):
        pytest.fail("the block must not begin")


@pytest.mark.parametrize(
    ("protocol", "pieces"),
    [
        ("http", [b"HTTP/1.1 200 OK\r\nX-Long: ", b"x"]),
        ("http", [b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"x"]),
        ("http", [b"HTTP/1.1 100 Continue\r\n\r\n"]),
        ("https", [b"\x16\x03\x03\x40\x00", b"\x00"]),
    ],
    ids=["headers", "body", "interim answers", "handshake of TLS"],
)
def test_a_server_that_drips_is_cut_off(answering: Any, protocol: str, pieces: list[bytes]) -> None:
    address = parse_url(f"{protocol}://{answering(pieces)}/a.csv")
    remote = remote_file(address, time.monotonic() + 0.3)
    with pytest.raises(TimeoutError, match="it took too long"), remote.opened(0, About(None, "")) as (_, reader):
        list(iter(lambda: reader.read(10), b""))
    with pytest.raises(TimeoutError, match="it took too long"):
        remote.about()
