"""Downloads through the cache: once, whole, resumed after breaks and kills, bounded, and never another's content."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from easeml_core.errors import ArtifactError
from easeml_core.files import download, web_files
from easeml_core.files.cache import FileCache, Wanted, default_folder, default_limit_mb
from easeml_core.files.download import remote_file
from easeml_core.files.remote_file import Progress, Teller
from easeml_core.files.urls import parse_url

if TYPE_CHECKING:
    from pathlib import Path

MOST = 10_000_000


def content_of(seed: int, size: int = 300_000) -> bytes:
    return np.random.default_rng(seed).bytes(size)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def wanted(url: str, key: str, *, most: int = MOST, is_digest: bool = True) -> Wanted:
    def find() -> Any:
        remote = remote_file(parse_url(url))
        return remote, remote.about()

    return Wanted(key, find, most, key if is_digest else None)


def fetch(cache: FileCache, url: str, key: str, **given: Any) -> tuple[bytes, int]:
    """The content of an entry, and how many bytes came for it."""
    teller = Teller(url)
    with cache.entry(wanted(url, key, **given), teller) as path:
        return path.read_bytes(), teller.fetched


@pytest.fixture
def served(web: Any) -> tuple[str, bytes]:
    """Address and content of a file of the server."""
    web.files["/lab/a.csv"] = content_of(1)
    return f"http://{web.host}/lab/a.csv", content_of(1)


def test_a_file_is_downloaded_once(cache: FileCache, web: Any, served: Any) -> None:
    url, content = served
    assert fetch(cache, url, digest(content)) == (content, len(content))
    seen = len(web.asked)
    assert fetch(cache, url, digest(content)) == (content, 0)
    assert len(web.asked) == seen  # not even a question
    assert fetch(FileCache(cache.folder, limit_mb=1), url, digest(content)) == (content, 0)


def test_an_object_store_gives_the_same(cache: FileCache, bucket: Any) -> None:
    bucket.pipe_file("tables/lab/a.csv", content_of(2))
    url = "memory://tables/lab/a.csv"
    assert fetch(cache, url, digest(content_of(2))) == (content_of(2), 300_000)
    assert fetch(cache, url, digest(content_of(2))) == (content_of(2), 0)


def test_a_connection_that_breaks_is_resumed(cache: FileCache, web: Any, served: Any) -> None:
    url, content = served
    web.break_after = [100_000, 150_000]
    assert fetch(cache, url, digest(content)) == (content, len(content))  # no byte twice
    assert web.ranges_asked() == [None, "bytes=100000-", "bytes=250000-"]


@pytest.mark.parametrize("lack", ["ranges", "etags"])
def test_a_server_that_cannot_resume_is_asked_from_the_beginning(
    lack: str, cache: FileCache, web: Any, served: Any
) -> None:
    url, content = served
    setattr(web, lack, False)
    web.break_after = [100_000]
    assert fetch(cache, url, digest(content)) == (content, 400_000)


def test_a_server_that_says_nothing_of_the_file_is_believed_to_its_end(cache: FileCache, web: Any, served: Any) -> None:
    url, content = served
    web.etags = web.says_length = web.heads = False
    assert fetch(cache, url, digest(content), most=900_000) == (content, 300_000)


def test_a_server_that_always_breaks_off_is_given_up_and_what_came_is_kept(
    cache: FileCache, web: Any, served: Any
) -> None:
    url, content = served
    web.break_after = [1_000] * 5
    with pytest.raises(OSError, match="it ended after 5,000 of 300,000 bytes"):
        fetch(cache, url, digest(content))
    assert fetch(cache, url, digest(content)) == (content, 295_000)


def test_a_redirect_is_not_followed(cache: FileCache, web: Any, served: Any) -> None:
    web.moved["/lab/b.csv"] = "/lab/a.csv"
    url, content = served
    with pytest.raises(PermissionError, match="sends us elsewhere \\(status 302\\), which is not followed"):
        fetch(cache, url.replace("a.csv", "b.csv"), digest(content))
    assert [path for _, path, _ in web.asked] == ["/lab/b.csv"]  # asked once, and not where it pointed


def test_what_is_compressed_on_the_way_is_refused(cache: FileCache, web: Any, served: Any) -> None:
    web.more["Content-Encoding"] = "gzip"
    with pytest.raises(PermissionError, match="compressed"):
        fetch(cache, served[0], digest(served[1]))


@pytest.mark.parametrize("says_length", [True, False])
def test_a_file_that_is_too_large_is_refused(says_length: bool, cache: FileCache, web: Any, served: Any) -> None:
    web.says_length = says_length
    with pytest.raises(OSError, match="allowed"):
        fetch(cache, served[0], digest(served[1]), most=299_999)
    assert sum(entry.path.stat().st_size for entry in cache.entries()) <= 299_999


def test_other_content_than_the_key_says_is_not_handed_out(cache: FileCache, served: Any) -> None:
    with pytest.raises(ArtifactError, match="was changed after it was stored"):
        fetch(cache, served[0], digest(b"other"))
    assert [entry.path.stat().st_size for entry in cache.entries()] == [0]


def test_a_file_that_changes_meanwhile_is_not_mixed(cache: FileCache, web: Any, served: Any) -> None:
    url, content = served

    def change(progress: Progress) -> None:
        web.files["/lab/a.csv"] = content_of(9)

    changing = cache.entry(wanted(url, "0" * 64, is_digest=False), Teller(url, change))
    with pytest.raises(OSError, match="changed while it was read"), changing:
        pytest.fail("the block must not begin")
    assert fetch(cache, url, "0" * 64, is_digest=False)[0] == content_of(9) != content


def test_a_damaged_entry_is_made_good(cache: FileCache, served: Any) -> None:
    url, content = served
    fetch(cache, url, digest(content))
    (cache.folder / digest(content)).write_bytes(b"damaged")
    assert fetch(cache, url, digest(content)) == (content, 300_000)


def test_a_damaged_beginning_is_fetched_anew(cache: FileCache, web: Any, served: Any) -> None:
    url, content = served
    cache.folder.mkdir(mode=0o700)
    (cache.folder / f"{digest(content)}.300000.part").write_bytes(b"x" * 1000)
    assert fetch(cache, url, digest(content)) == (content, 299_000 + 300_000)


def test_the_longest_unused_goes_and_the_limit_holds(cache: FileCache, bucket: Any) -> None:
    for seed in range(5):
        bucket.pipe_file(f"t/{seed}", content_of(seed))
        fetch(cache, f"memory://t/{seed}", digest(content_of(seed)))
        os.utime(cache.folder / digest(content_of(seed)), (100 + seed, 100 + seed))
        if seed == 2:
            fetch(cache, "memory://t/0", digest(content_of(0)))  # used again, and so later than all
        assert sum(entry.size for entry in cache.entries()) <= cache.limit
    assert {entry.path.name for entry in cache.entries()} == {digest(content_of(seed)) for seed in (0, 3, 4)}


def test_what_is_in_use_is_not_evicted_and_the_next_one_does_not_fit(cache: FileCache, bucket: Any) -> None:
    for seed in range(3):
        bucket.pipe_file(f"t/{seed}", content_of(seed, 600_000))
    first, second = (wanted(f"memory://t/{n}", digest(content_of(n, 600_000))) for n in (0, 1))
    with cache.entry(first, Teller("first")) as path:
        (entry,) = cache.entries()
        assert cache.is_used(entry)
        full = r"0\.6 MB do not fit into the cache .* of 1 MB, of which 0\.6 are in use"
        with pytest.raises(OSError, match=full), cache.entry(second, Teller("second")):
            pytest.fail("the block must not begin")
        assert path.exists()
        assert cache.clear() == []
    with cache.entry(second, Teller("second")):
        assert not path.exists()
    assert [entry.size for entry in cache.clear()] == [600_000]
    assert cache.entries() == []


def test_eight_at_once_download_once(cache: FileCache, web: Any, served: Any) -> None:
    url, content = served
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: fetch(cache, url, digest(content)), range(8)))
    assert {body for body, _ in found} == {content}
    assert sum(came for _, came in found) == len(content)


def test_an_entry_that_became_whole_after_the_look_is_not_downloaded_again(
    cache: FileCache, served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, content = served
    opened, looks = cache._opened, list[None]()

    def late(asked: Wanted) -> Any:
        looks.append(None)
        if len(looks) == 1:  # between this look, which finds nothing, and the download another one brings it
            monkeypatch.setattr(cache, "_opened", opened)
            fetch(cache, url, digest(content))
            monkeypatch.setattr(cache, "_opened", late)
            return None
        return opened(asked)

    monkeypatch.setattr(cache, "_opened", late)
    assert fetch(cache, url, digest(content)) == (content, 0)
    assert [entry.is_whole for entry in cache.entries()] == [True]


def test_who_waits_for_another_download_hears_of_it(cache: FileCache, served: Any) -> None:
    url, content = served
    cache.folder.mkdir(mode=0o700)
    started, heard = threading.Event(), list[Progress]()

    def hold(_: Progress) -> None:
        started.set()
        deadline = time.monotonic() + 20
        while not heard and time.monotonic() < deadline:
            time.sleep(0.01)

    with ThreadPoolExecutor(1) as pool:

        def first() -> int:
            with cache.entry(wanted(url, digest(content)), teller := Teller(url, hold)):
                return teller.fetched

        running = pool.submit(first)
        assert started.wait(20)
        with cache.entry(wanted(url, digest(content)), other := Teller(url, heard.append)):
            assert other.fetched == 0
        assert running.result() == len(content)
    assert heard


KILLED = """
import os, signal, sys
from easeml_core.files.cache import FileCache, Wanted
from easeml_core.files.download import remote_file
from easeml_core.files.remote_file import Teller
from easeml_core.files.urls import parse_url
folder, url, key = sys.argv[1:]
remote = remote_file(parse_url(url))
class Dies(Teller):
    def tell(self, done, *, at_once=False):
        os.kill(os.getpid(), signal.SIGKILL)
with FileCache(folder, limit_mb=5).entry(Wanted(key, lambda: (remote, remote.about()), 10**7, key), Dies(url)):
    pass
"""


def test_a_killed_download_is_resumed(tmp_path: Path, web: Any) -> None:
    content = content_of(3, 3_000_000)
    web.files["/a"] = content
    url, cache = f"http://{web.host}/a", FileCache(tmp_path / "cache", limit_mb=5)
    done = subprocess.run([sys.executable, "-c", KILLED, cache.folder, url, digest(content)], check=False)
    assert done.returncode == -signal.SIGKILL
    (part,) = cache.entries()
    assert not part.is_whole
    there = part.path.stat().st_size
    assert 0 < there < len(content)
    assert fetch(cache, url, digest(content)) == (content, len(content) - there)


def test_progress_is_reported_and_may_end_the_download(cache: FileCache, served: Any) -> None:
    url, content = served
    heard = list[str]()
    with cache.entry(wanted(url, digest(content)), Teller("a.csv", lambda p: heard.append(str(p)))):
        assert heard[-1].startswith("staging a.csv: 0.3 of 0.3 MB after ")

    class Enough(Exception):
        pass

    def stop(_: Progress) -> None:
        raise Enough

    cache.clear()
    with pytest.raises(Enough), cache.entry(wanted(url, digest(content)), Teller(url, stop)):
        pytest.fail("the block must not begin")


def shared(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    folder.chmod(0o755)


def linked(folder: Path) -> None:
    target = folder.with_name("target")
    target.mkdir(mode=0o700)
    folder.symlink_to(target)


def test_a_server_that_sends_byte_by_byte_keeps_nobody_waiting(
    cache: FileCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deadline is checked after every chunk, not after every megabyte."""
    monkeypatch.setattr(web_files, "SILENCE_SECONDS", 1.0)
    monkeypatch.setattr(download, "REST_SECONDS", 0.0)

    class EnoughError(Exception):
        pass

    def enough(progress: Any) -> None:
        raise EnoughError(progress.done)

    def serve(server: socket.socket) -> None:
        with server, contextlib.suppress(OSError):
            while True:
                connection = server.accept()[0]
                kept.append(connection)
                is_get = connection.recv(4096).startswith(b"GET")
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + (b"x" if is_get else b""))

    kept: list[socket.socket] = []
    server = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=serve, args=(server,), daemon=True).start()
    remote = remote_file(parse_url(f"http://127.0.0.1:{server.getsockname()[1]}/a.csv"))
    about = remote.about()
    wanted = Wanted("a" * 64, lambda: (remote, about), most=10_000, sha256=None)
    with pytest.raises(EnoughError, match=r"^1$"), cache.entry(wanted, Teller("a", enough)):
        pass
    for connection in kept:
        connection.close()
    server.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("make", [shared, linked])
def test_a_folder_that_others_may_enter_is_no_cache(make: Any, cache: FileCache, served: Any) -> None:
    make(cache.folder)
    with pytest.raises(ArtifactError, match="must be a folder of this account alone"):
        fetch(cache, served[0], digest(served[1]))


def test_a_link_in_the_place_of_an_entry_is_not_followed(cache: FileCache, served: Any, tmp_path: Path) -> None:
    cache.folder.mkdir(mode=0o700)
    (tmp_path / "secret").write_bytes(b"secret")
    (cache.folder / ("0" * 64)).symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match="symbolic links"):
        fetch(cache, served[0], "0" * 64, is_digest=False)


def test_the_environment_names_folder_and_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EASEML_CACHE", str(tmp_path))
    monkeypatch.setenv("EASEML_CACHE_LIMIT_MB", "7")
    assert (FileCache().folder, FileCache().limit) == (tmp_path, 7_000_000)
    monkeypatch.setenv("EASEML_CACHE_LIMIT_MB", "-7")
    with pytest.raises(ArtifactError, match="whole number of megabytes above 0, got '-7'"):
        default_limit_mb()
    monkeypatch.delenv("EASEML_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert default_folder() == tmp_path / "x" / "easeml"
