"""``easeml cache``, artifacts at an address, and what a referee is started with to read elsewhere."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

KEY = "ab" * 32


@pytest.fixture
def folder(nowhere: Path) -> Path:
    """A cache with a whole entry, an unfinished one, and a file that is none of ours."""
    folder = nowhere / "cache"
    folder.mkdir(mode=0o700)
    (folder / KEY).write_bytes(bytes(1_500_000))
    os.utime(folder / KEY, (1_700_000_000, 1_700_000_000))
    (folder / f"{'cd' * 32}.2000000.part").write_bytes(b"begun")
    (folder / "notes.txt").write_text("mine")
    return folder


def test_the_cache_is_shown(folder: Path, run: Any) -> None:
    found = run("cache", "show", "--folder", str(folder), "--json", EASEML_CACHE_LIMIT_MB="7").json
    assert (found["folder"], found["megabytes"], found["limit_megabytes"]) == (str(folder), 3.5, 7.0)
    whole, unfinished = found["entries"]
    assert whole == {"key": KEY, "megabytes": 1.5, "used": "2023-11-14T22:13:20Z", "state": "whole"}
    assert (unfinished["megabytes"], unfinished["state"]) == (2.0, "unfinished")
    text = run("cache", "show", EASEML_CACHE=str(folder)).text
    assert f"{folder}: 3.5 of 20,000 MB" in text
    assert KEY[:20] in text


def test_the_cache_is_emptied_and_nothing_else(folder: Path, run: Any) -> None:
    assert run("cache", "clear", EASEML_CACHE=str(folder)).text == "2 entries removed, 3.5 MB"
    assert {path.name for path in folder.iterdir()} == {"notes.txt", ".lock"}
    assert run("cache", "clear", "--json", EASEML_CACHE=str(folder)).json == {"removed": 0, "megabytes": 0.0}


def test_a_cache_that_is_not_there_yet_is_empty(nowhere: Path, run: Any) -> None:
    found = run("cache", "show", "--json", EASEML_CACHE=str(nowhere / "none")).json
    assert (found["megabytes"], found["entries"]) == (0, [])
    assert run("cache", "clear", EASEML_CACHE=str(nowhere / "none")).text == "0 entries removed, 0.0 MB"


def test_a_limit_that_is_none_is_an_error(run: Any) -> None:
    answer = run("cache", "show", "--json", EASEML_CACHE_LIMIT_MB="much")
    assert answer.refusal == "ArtifactError"
    assert "EASEML_CACHE_LIMIT_MB must be" in answer.err
    assert "got 'much'" in answer.err


REFEREE = {
    ("--allow-url", "file:///etc/"): "must be PROTOCOL://HOST/PATH",
    ("--allow-url", "https://{tenant}.example/"): "in the path",
    ("--queries", "queries.yaml"): "query 'flowers' must be",
    ("--artifacts", "https://data.example/x"): "takes no files",
}


@pytest.mark.parametrize("options", REFEREE)
def test_a_referee_does_not_start_with_what_cannot_be_meant(
    options: tuple[str, ...], run: Any, database: Any, nowhere: Path
) -> None:
    (nowhere / "queries.yaml").write_text("flowers: SELECT 1")
    answer = run("referee", "--once", *options, "--database", database.url("easeml_referee"))
    assert answer.status == 2
    assert REFEREE[options] in answer.err


def test_a_referee_with_prefixes_and_queries_answers(run: Any, database: Any, nowhere: Path) -> None:
    (nowhere / "queries.yaml").write_text("flowers: {sql: SELECT 1, url_env: FLOWERS}")
    given = ["--allow-url", "s3://bucket/{tenant}", "--allow-url", "https://data.example", "--queries", "queries.yaml"]
    given += ["--artifacts", "memory://bucket/easeml", "--database", database.url("easeml_referee")]
    assert run("referee", "--once", *given, FLOWERS="postgresql://db").text == "0 requests answered"
