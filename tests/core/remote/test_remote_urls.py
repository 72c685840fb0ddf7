"""Addresses and prefixes: ambiguous ones are refused, and no address leaves its prefix."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from easeml_core.errors import InvalidInputError
from easeml_core.files.urls import Address, is_allowed, parse_prefix, parse_url

HOSTILE = [
    "file:///etc/passwd",
    "local:///etc/passwd",
    "/etc/passwd",
    "https:/etc/passwd",
    "https:///etc/passwd",
    "https://",
    "https://user@data.example/lab/a.csv",
    "https://user:secret@data.example/lab/a.csv",
    "https://data.example\\@evil.example/lab/a.csv",
    "https://data.example@evil.example/lab/a.csv",
    "https://data.example/lab/../other/a.csv",
    "https://data.example/lab/./a.csv",
    "https://data.example/lab/..",
    "https://data.example/lab/.. /a.csv",
    "https://data.example/lab//a.csv",
    "https://data.example/lab/%2e%2e/other/a.csv",
    "https://data.example/lab/..;/other/a.csv",
    "https://data.example/lab/..\\other/a.csv",
    "https://data.example/lab/a.csv?to=evil",
    "https://data.example/lab/a.csv#part",
    "https://data.example/lab/a.csv\n",
    "https://data.example/lab/\ta.csv",
    "https://data.example/lab/\u202ea.csv",
    "https://../lab/a.csv",
    "https://data.example:123456/lab/a.csv",
    "https://d\u0430ta.example/lab/a.csv",
    "simplecache::https://data.example/lab/a.csv",
    "https://data.example/lab/simplecache::s3://other/a.csv",
    "zip://a.csv::https://data.example/lab/a.zip",
    "zip://lab/a.csv",
    "dir://lab/a.csv",
    "reference://lab/a.csv",
    "sftp://data.example/lab/a.csv",
    "data://text/plain,a",
    "HTTPS://data.example/lab/a.csv",
    "s3://bucket/lab/*",
    "s3://bucket/lab/" + "a" * 2000,
]


@pytest.mark.parametrize("url", HOSTILE)
def test_what_is_not_plain_is_refused(url: str) -> None:
    with pytest.raises(InvalidInputError, match=r"^address '"):
        parse_url(url)


def test_a_password_is_not_repeated() -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_url("https://user:secret@data.example/lab/a.csv")
    assert "secret" not in str(caught.value)


ALLOWED = {
    "https://data.example/lab/a.csv": True,
    "https://DATA.example/lab/deep/a b.csv": True,
    "https://data.example/lab": True,
    "https://data.example/lab-2/a.csv": False,
    "https://data.example/Lab/a.csv": False,
    "https://data.example/other/lab/a.csv": False,
    "https://data.example.evil/lab/a.csv": False,
    "https://data.example:444/lab/a.csv": False,
    "http://data.example/lab/a.csv": False,
    "s3://data.example/lab/a.csv": False,
    "s3://tables/shared/a.csv": True,
    "s3://tables/for-lab/a.csv": True,
    "s3://tables/for-other/a.csv": False,
    "s3://tables/a.csv": False,
}


@pytest.mark.parametrize("url", ALLOWED)
def test_a_file_lies_under_a_prefix_or_not(url: str) -> None:
    prefixes = [
        parse_prefix(p) for p in ("https://data.example/{tenant}/", "s3://tables/shared", "s3://tables/for-{tenant}")
    ]
    assert is_allowed(parse_url(url), prefixes, "lab") == ALLOWED[url]
    assert not is_allowed(parse_url(url), [], "lab")  # closed by default


@given(tenant=st.text(min_size=1, max_size=20), path=st.lists(st.sampled_from(["a", "b", "lab", "b.csv"]), max_size=4))
def test_no_tenants_name_steps_out_of_a_prefix(tenant: str, path: list[str]) -> None:
    address = Address("s3", "tables", tuple(path))
    if is_allowed(address, [parse_prefix("s3://tables/of/{tenant}/in")], tenant):
        assert path[:3] == ["of", tenant, "in"]


@pytest.mark.parametrize("prefix", ["https://{tenant}.example/", "s3://{tenant}", "https://data.example/../", "lab"])
def test_a_prefix_must_be_plain_and_name_its_server(prefix: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_prefix(prefix)


def test_a_whole_server_may_be_allowed() -> None:
    assert is_allowed(parse_url("s3://tables/any/a.csv"), [parse_prefix("s3://tables")], "lab")
