"""Queries by name: written by the referee's operator, read only, bounded, and closed to all but their tenants."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tables_elsewhere import table

from easeml_core.data.sources.spec import check_source
from easeml_core.errors import InvalidInputError
from easeml_core.services.datasets.access import read_queries
from easeml_core.store import external_query
from easeml_core.store.external_query import NamedQuery, columns_of_lines, query_lines

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def garden(bare: Any) -> str:
    """A database with a table, as an address with its password."""
    bare.as_superuser("CREATE SCHEMA garden")
    bare.as_superuser("CREATE TABLE garden.flowers (a float, b numeric, label text, site int, day date, bytes bytea)")
    lines = [line.split(",") for line in table().splitlines()[1:]]
    bare.as_superuser(
        "INSERT INTO garden.flowers SELECT a, b, label, site, date '2024-01-01' + day, '' "
        "FROM unnest(%s::float[], %s::numeric[], %s, %s::int[], %s::int[]) AS t (a, b, label, site, day)",
        *([line[i] for line in lines] for i in range(5)),
    )
    bare.as_superuser("GRANT USAGE ON SCHEMA garden TO easeml_worker")
    bare.as_superuser("GRANT ALL ON garden.flowers TO easeml_worker")
    return str(bare.server.url("easeml_worker", bare.name))


def query(url: str, sql: str, **given: Any) -> NamedQuery:
    return NamedQuery("flowers", url, sql, **given)


def read_query(asked: NamedQuery) -> dict[str, Any]:
    """What is decided on: the lines that are fetched, read again."""
    return columns_of_lines(list(query_lines(asked)))


SELECT = "SELECT a, b, label, site::text AS site, day FROM garden.flowers"


def test_a_query_by_name_is_sealed(ask: Any, garden: str, bare: Any) -> None:
    answer = ask("sql:flowers", queries={"flowers": query(garden, SELECT, tenants=frozenset({"lab"}))})
    assert answer.message.startswith("study table is active; rows: train")
    assert bare.rows("SELECT class_names FROM work.data_versions") == [(["no", "yes"],)]


def test_another_tenants_query_is_refused_as_if_it_were_not_there(ask: Any) -> None:
    for source in ("sql:flowers", "sql:none"):
        answer = ask(
            source, study=source.replace(":", "-"), queries={"flowers": query("", SELECT, tenants=frozenset({"other"}))}
        )
        said = f"source '{source}': the referee knows no such query for tenant 'lab'"
        assert answer.message.startswith(said)


@pytest.mark.parametrize("source", ["sql:SELECT 1", "sql:flowers; DROP TABLE x", "sql:../flowers", "sql:-", "sql:a b"])
def test_no_sql_comes_from_a_tenant(source: str) -> None:
    with pytest.raises(InvalidInputError, match="must be the name of a query that the referee knows, and no SQL"):
        check_source(source, "label")


def test_what_a_query_gives_becomes_columns_in_an_order_that_only_the_rows_decide(garden: str) -> None:
    found = read_query(query(garden, SELECT + " ORDER BY day DESC"))
    assert {name: column.dtype.kind for name, column in found.items()} == {
        "a": "f", "b": "f", "label": "O", "site": "O", "day": "O",
    }  # fmt: skip
    first = int(np.argmax(found["site"] == "0"))
    assert found["day"][first] in {"2024-01-01", "2024-01-02", "2024-01-03"}
    again = read_query(query(garden, SELECT + " ORDER BY a, b"))
    assert all(found[name].tolist() == again[name].tolist() for name in found)


def test_missing_values_and_kinds(garden: str) -> None:
    sql = (
        "SELECT * FROM (VALUES (1, true, 'x', 1.5::numeric, NULL::text, '2024-01-02 03:04:05+00'::timestamptz), "
        "(NULL, NULL, ' ', NULL, NULL, NULL)) AS t (i, f, w, n, e, at)"
    )
    found = read_query(query(garden, sql))
    assert {name: column.tolist()[0] for name, column in found.items() if name != "e"} == {
        "i": 1.0, "f": 1.0, "w": "x", "n": 1.5, "at": "2024-01-02T03:04:05+00:00",
    }  # fmt: skip
    assert found["w"].tolist()[1] is None
    assert np.isnan(found["e"]).all()


REFUSED = {
    "INSERT INTO garden.flowers (a) VALUES (1) RETURNING a": "it is no valid SELECT",
    "WITH w AS (DELETE FROM garden.flowers RETURNING a) SELECT * FROM w": "it is no valid SELECT|only reading",
    "SELECT set_config('x.y', '1', false), nextval('garden.s')": "code 42P01",
    "SELECT * FROM garden.none": "code 42P01",
    "SELECT pg_sleep(30), 1": "it took too long|no valid",
    "SELECT 1 AS a, 2 AS a FROM garden.flowers": "two of one name",
    "SELECT 1, 2 FROM garden.flowers": "two of one name",
    "SELECT a FROM garden.flowers LIMIT 1": "gives fewer than 2 rows",
    "SELECT a, bytes FROM garden.flowers": "column 2 values of type memoryview; allowed: numbers, text, dates, times",
    "SELECT a, ARRAY[1] AS l FROM garden.flowers": "column 2 values of type list",
    "SELECT a, repeat('x', 200000) AS w FROM garden.flowers": "column 2 a cell of more than 131,072 characters",
    "SELECT x, x AS y FROM generate_series(1, 300000) AS x": "gives more than 500,000 cells",
}


def test_a_query_that_is_not_as_it_must_be_is_refused_and_writes_nothing(
    garden: str, bare: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(external_query, "MAX_CELLS", 500_000)
    for sql, message in REFUSED.items():
        with pytest.raises(InvalidInputError, match=f"source 'sql:flowers': the query .*({message})") as caught:
            read_query(query(garden, sql, timeout_seconds=1.0 if "sleep" in sql else 60.0))
        assert "garden" not in str(caught.value)
    with pytest.raises(InvalidInputError, match="failed"):
        read_query(query(garden, "SELECT count(*) FROM garden.flowers; DELETE FROM garden.flowers; SELECT 1"))
    assert bare.superuser_rows("SELECT count(*) FROM garden.flowers") == [(600,)]


@pytest.mark.parametrize("url", ["postgresql://u:secret@127.0.0.1:1/none", "sqlite:///secret", "no address: secret"])
def test_an_address_is_never_shown(url: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        read_query(query(url, "SELECT 1"))
    assert "secret" not in str(caught.value) + repr(query(url, "SELECT 1"))


FILE = """
flowers:
  url_env: FLOWERS_URL
  sql: SELECT a FROM t
  tenants: [lab]
other:
  url_file: {folder}/url
  sql: SELECT b FROM t
  timeout_seconds: 5
"""


def test_a_file_of_queries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWERS_URL", "postgresql://one")
    (tmp_path / "url").write_text("postgresql://two\n")
    (tmp_path / "q.yaml").write_text(FILE.format(folder=tmp_path))
    assert read_queries(tmp_path / "q.yaml") == {
        "flowers": NamedQuery("flowers", "postgresql://one", "SELECT a FROM t", frozenset({"lab"})),
        "other": NamedQuery("other", "postgresql://two", "SELECT b FROM t", timeout_seconds=5.0),
    }


WRONG = {
    "": "a mapping of names",
    "[1]": "a mapping of names",
    "a: {sql: SELECT 1, url: postgresql://secret}": "nothing but",
    "a: {url_env: NONE}": "nothing but",
    "a: {sql: SELECT 1}": "must have url_env",
    "a: {sql: SELECT 1, url_env: NONE, url_file: b}": "must have url_env",
    "a: {sql: SELECT 1, url_env: NONE}": "NONE is empty; put",
    "a: {sql: SELECT 1, url_file: none}": "none cannot be read: no such file",
    "a: {sql: SELECT 1, url_env: HOME, tenants: []}": "a list of names",
    "a: {sql: SELECT 1, url_env: HOME, tenants: lab}": "a list of names",
    "a: {sql: SELECT 1, url_env: HOME, timeout_seconds: 0}": "above 0",
    "a b: {sql: SELECT 1, url_env: HOME}": "must be the name of a query",
    "a: !!python/object/apply:os.system [id]": "not YAML as it must be",
    "a: &x {sql: SELECT 1}\nb: *x": "not YAML as it must be",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_file_of_queries_that_is_wrong_is_refused(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "q.yaml").write_text(text)
    with pytest.raises(InvalidInputError, match=WRONG[text]) as caught:
        read_queries(tmp_path / "q.yaml")
    assert "secret" not in str(caught.value)
    assert os.environ.get("HOME", "x") not in str(caught.value).replace(str(tmp_path), "")
