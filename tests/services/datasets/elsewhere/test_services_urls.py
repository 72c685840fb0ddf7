"""Tables at addresses: read under a prefix and nowhere else, resumed, bounded, and told of by their name alone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import fsspec
import numpy as np
import pytest
from registering import register_study
from tables_elsewhere import ACTIVE, GATE, METER, prefixes, table

from easeml_core.errors import InvalidInputError
from easeml_core.files import download
from easeml_core.services.datasets import access
from easeml_core.services.referee.requests import answer_of
from easeml_core.services.reports.overview import study_state
from easeml_core.services.test_sets.row_registry import OWN_WORDS

if TYPE_CHECKING:
    from pathlib import Path

    from web_server import Web


def test_an_address_under_the_tenants_prefix_is_read(ask: Any, web: Web, bare: Any, tmp_path: Path) -> None:
    allowed = prefixes(f"http://{web.host}/{{tenant}}/")
    answer = ask(f"url:http://{web.host}/lab/own.csv", **allowed)
    assert answer.message == ACTIVE
    assert bare.rows("SELECT class_names, features FROM work.data_versions") == [(["no", "yes"], 4)]
    seen = len(web.ranges_asked())
    assert OWN_WORDS in ask(f"url:http://{web.host}/lab/own.csv?rows=590", study="again", **allowed).message
    assert len(web.ranges_asked()) == seen == 1  # the second study costs no byte
    assert (tmp_path / "cache").stat().st_mode & 0o077 == 0


def test_a_file_whose_server_tells_no_version_is_fetched_every_time(ask: Any, web: Web) -> None:
    web.etags = False
    for number in range(2):
        given = {"study": f"study-{number}", **prefixes(f"http://{web.host}/lab")}
        answer = ask(f"url:http://{web.host}/lab/own.csv?rows={590 + number}", **given)
        assert (OWN_WORDS in answer.message) == (number == 1)  # read, and known by then
    assert web.ranges_asked() == [None, None]


ELSEWHERE = (
    "http://HOST/other/theirs.csv",
    "http://HOST/own.csv",
    "http://HOST/lab-2/own.csv",
    "https://HOST/lab/own.csv",
    "http://127.0.0.1:1/lab/own.csv",
    "http://localhost/lab/own.csv",
    "http://169.254.169.254/latest/meta-data/a.csv",  # what clouds tell a machine about itself
    "memory://lab/own.csv",
)


def test_any_other_address_is_refused_without_being_asked(ask: Any, web: Web, bare: Any) -> None:
    for number, address in enumerate(ELSEWHERE):
        url, study = address.replace("HOST", web.host), f"study-{number}"
        answer = ask(f"url:{url}", study=study, **prefixes(f"http://{web.host}/{{tenant}}/"))
        assert answer.refused
        assert answer.message.startswith(f"source 'url:{url}': this referee may not read that address for tenant 'lab'")
        assert study_state(bare.worker, study=study) == "REFUSED"
    assert "may not read that address" in ask(f"url:http://{web.host}/lab/own.csv").message
    assert web.asked == []


NOT_PLAIN = (
    "file:///etc/passwd.csv",
    "http://u:secret@HOST/lab/own.csv",
    "http://HOST/lab/../other/theirs.csv",
    "simplecache::http://HOST/lab/own.csv",
    "http://HOST/lab/own.csv?token=secret",
    "http://HOST/lab/own",
)


def test_an_address_that_is_not_plain_is_refused_at_once(ask: Any, bare: Any) -> None:
    for url in NOT_PLAIN:
        with pytest.raises(InvalidInputError) as caught:
            ask(f"url:{url}", **prefixes("http://HOST/"))
        assert "secret@" not in str(caught.value)
    assert bare.one("SELECT count(*) FROM work.studies") == 0


def test_a_redirect_out_of_the_prefix_leads_nowhere(ask: Any, web: Web) -> None:
    web.moved["/lab/moved.csv"] = f"http://{web.host}/other/theirs.csv"
    answer = ask(f"url:http://{web.host}/lab/moved.csv", **prefixes(f"http://{web.host}/lab"))
    assert "the file cannot be fetched: the server sends us elsewhere (status 302)" in answer.message
    assert {path for _, path, _ in web.asked} == {"/lab/moved.csv"}


def test_a_bucket_is_read_too_and_a_parquet_file(ask: Any, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import csv, parquet

    (tmp_path / "a.csv").write_text(table())
    parquet.write_table(csv.read_csv(str(tmp_path / "a.csv")), tmp_path / "a.parquet")
    assert pyarrow
    files = fsspec.filesystem("memory")
    files.store.clear()
    files.pipe_file("tables/lab/a.parquet", (tmp_path / "a.parquet").read_bytes())
    answer = ask("url:memory://tables/lab/a.parquet", **prefixes("memory://tables/lab"))
    files.store.clear()
    assert answer.message.startswith(ACTIVE)


def test_errors_of_what_was_fetched_name_the_address_and_not_the_cache(ask: Any, web: Web, tmp_path: Path) -> None:
    web.files["/lab/own.csv"] = b"a,label\n1,2,3\n"
    answer = ask(f"url:http://{web.host}/lab/own.csv", **prefixes(f"http://{web.host}/"))
    assert f"source 'csv:http://{web.host}/lab/own.csv': the file line 2 has 3 cells" in answer.message
    assert str(tmp_path) not in answer.message


def test_a_file_beyond_the_bound_is_not_fetched(ask: Any, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "MAX_BYTES", 1000)
    answer = ask(f"url:http://{web.host}/lab/own.csv", **prefixes(f"http://{web.host}/"))
    assert "at most 1,000 are allowed" in answer.message
    assert web.ranges_asked() == []


def test_a_fetch_that_takes_too_long_is_given_up_and_resumed(
    ask: Any, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.break_after = [10_000]
    allowed = prefixes(f"http://{web.host}/")
    with monkeypatch.context() as patch:
        patch.setattr(access, "FETCH_SECONDS", -1.0)
        patch.setattr(download, "ATTEMPTS", 1)
        assert "it took longer than" in ask(f"url:http://{web.host}/lab/own.csv", **allowed).message
    assert not ask(f"url:http://{web.host}/lab/own.csv", study="again", **allowed).refused
    first, second = web.ranges_asked()
    assert first is None
    assert 0 < int(str(second).removeprefix("bytes=").removesuffix("-")) <= 10_000  # where the clock was looked at


class Killed(BaseException):
    """As abrupt as an exception can be."""


def test_a_kill_after_the_download_fetches_nothing_again(
    ask: Any, web: Web, bare: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed = prefixes(f"http://{web.host}/")

    def die(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(access, "read_apart", die)
        with pytest.raises(Killed):
            ask(f"url:http://{web.host}/lab/own.csv", **allowed)
    bare.end_leases()
    assert study_state(bare.worker, study="table") == "REGISTERED"
    assert not ask("sklearn:breast_cancer", study="next", target="", **allowed).refused  # both are answered now
    assert study_state(bare.worker, study="table") == "ACTIVE"
    assert len(web.ranges_asked()) == 1


@pytest.mark.journey
def test_a_referee_that_is_killed_while_it_fetches_goes_on_where_it_stopped(
    bare: Any, web: Web, tmp_path: Path
) -> None:
    digits = np.random.default_rng(2).bytes(600 * 2500).hex()
    lines = table().splitlines()
    wide = [f"{line},{digits[5000 * n : 5000 * n + 5000]}" for n, line in enumerate(lines[1:])]
    web.files["/lab/own.csv"] = "\n".join([f"{lines[0]},text", *wide]).encode()
    web.hold_after = [2_500_000]
    given = {"gate": GATE, "meter": METER, "target": "label", "request_key": "k"}
    source = f"url:http://{web.host}/lab/own.csv"
    filed = register_study(bare.worker, tenant="lab", study="table", source=source, **given)
    command = [
        sys.executable,
        "-m",
        "easeml_core.cli",
        "referee",
        "--once",
        "--allow-url",
        f"http://{web.host}/{{tenant}}",
    ]
    command += ["--database", bare.url("easeml_referee"), "--artifacts", str(bare.artifacts.root)]
    environment = os.environ | {"EASEML_CACHE": str(tmp_path / "cache"), "NO_PROXY": "127.0.0.1"}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as killed:
        assert web.held.wait(60)
        part = next((tmp_path / "cache").glob("*.part"))
        deadline = time.monotonic() + 60
        while part.stat().st_size < 2_000_000:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        killed.kill()
    bare.end_leases()
    web.release.set()
    there = part.stat().st_size
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "1 request answered\n"), done.stderr
    assert web.ranges_asked() == [None, f"bytes={there}-"]
    answer = answer_of(bare.worker, filed.request_id)
    assert answer is not None
    assert answer.message.startswith("study table is active")
