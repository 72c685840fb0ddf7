"""The overview of a thousand studies of a thousand tenants: found, sorted and paged, by a few statements a page.

How long a page takes is measured by ``benchmarks/pages.py``, which fills its database in the same way.
"""

import importlib.util
import re
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import event

from easeml_airflow.web.components import action_items as bar
from easeml_airflow.web.server.auth import Role, Viewer
from easeml_airflow.web.server.site import Site
from easeml_core.store.database import Store

ROOT = Path(__file__).resolve().parents[4]
OPERATOR = Viewer("ada", frozenset({Role.OPERATOR}))
MOST_STATEMENTS = 17


@pytest.fixture(scope="module")
def crowded(server):
    """The name of a database with 1,000 studies of as many tenants, filled as ``benchmarks/pages.py`` fills its own.

    Each has two trials and a live set; every 19th is paused, and every 33rd has an alert, one of them being both.
    """
    spec = importlib.util.spec_from_file_location("benchmark_of_pages", ROOT / "benchmarks" / "pages.py")
    pages = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pages)
    server.create_database_from_template("crowd", "easeml")
    with closing(Store(server.url("easeml_owner", "crowd"))) as owner:
        pages.fill(owner, studies=1000, trials=2)
    return "crowd"


@pytest.fixture
def crowd(server, crowded):
    """That database; nothing here changes it."""
    with closing(Store(server.url("easeml_worker", crowded))) as worker:
        yield SimpleNamespace(worker=worker)


@pytest.fixture
def page_of(crowd, client_of):
    """``page_of("/?q=t-7")``: a page of the crowd's overview, and how many statements it took."""

    def ask(path, viewer=OPERATOR):
        site = Site(lambda: crowd.worker, object, object, lambda: viewer, bar.count_needs)
        statements.clear()
        return client_of(site).page(path), len(statements)

    statements = []
    event.listen(crowd.worker._engine, "before_cursor_execute", lambda *told: statements.append(told[2]))
    return ask


def names_on(page):
    return [link["href"].removeprefix("/studies/") for link in page.soup.select("tbody a")]


def test_a_thousand_open_on_what_needs_a_person(page_of):
    page, _ = page_of("/")
    chips = page.part('[aria-label="Show"]')
    assert list(chips.links) == ["All 1,000", "Needs you 30", "Searching 919", "Paused 51", "Finished 0"]
    assert chips.part("[aria-current]").text == "Needs you 30"
    assert page.part(".pager").text == "1 to 30 of 30"
    assert not page.has(".spark")
    assert page.part("#map .key").text == "30 to decide 919 searching 51 paused"
    assert set(names_on(page)) == {f"t-{n - 1}" for n in range(33, 1000, 33)}


@pytest.mark.parametrize(
    ("asked", "first", "found", "last"),
    [
        ("?show=all", 1, 1000, 50),
        ("?show=all&page=5", 201, 1000, 250),
        ("?show=all&page=1000", 951, 1000, 1000),
        ("?show=paused", 1, 51, 50),
        ("?show=paused&page=2", 51, 51, 51),
        ("?show=searching&q=t-9&page=3", 101, 101, 101),
        ("?show=all&q=T-77", 1, 11, 11),
    ],
)
def test_a_thousand_are_filtered_searched_and_paged(page_of, asked, first, found, last):
    page, _ = page_of(f"/{asked}")
    assert page.part(".pager span").text == f"{first:,} to {last:,} of {found:,}"
    names = names_on(page)
    assert len(set(names)) == last - first + 1
    wanted = re.search(r"q=(t-[0-9]+)", asked, re.IGNORECASE)
    assert all(wanted[1].lower() in name for name in names if wanted)


@pytest.mark.parametrize(("sort", "falls"), [("quality", True), ("name", False)])
def test_a_thousand_are_sorted_before_they_are_paged(page_of, sort, falls):
    pages = [page_of(f"/?show=all&sort={sort}&page={number}")[0] for number in (1, 2, 20)]
    told = [
        [b.get_text() for b in page.soup.select("td.q b")] if sort == "quality" else names_on(page) for page in pages
    ]
    assert [len(one) for one in told] == [50, 50, 50]
    in_order = [value for one in told for value in one]
    assert in_order == sorted(in_order, reverse=falls)


def test_a_page_of_a_thousand_takes_the_same_few_statements_whatever_is_asked(page_of):
    page_of("/")  # the first one also asks what the server is
    asked = ("/", "/?show=all", "/?show=all&page=20", "/?show=all&q=t-7", "/?show=all&sort=quality")
    counts = {path: page_of(path)[1] for path in asked}
    own = Viewer("ann", frozenset(), lambda study, _tenant, *, write: study in ("t-3", "t-77"))
    assert len(set(counts.values())) == 1, counts
    assert 0 < counts["/"] <= MOST_STATEMENTS
    assert page_of("/", own)[1] <= MOST_STATEMENTS + 1  # one asks whether tenants have logins
    assert page_of("/?needs=all")[1] <= MOST_STATEMENTS  # the alerts have words of their own


def test_a_tenant_sees_their_own_and_no_names_of_others(page_of):
    own = Viewer("ann", frozenset(), lambda study, _tenant, *, write: study in ("t-3", "t-32"))
    page, _ = page_of("/", own)
    assert names_on(page) == ["t-32", "t-3"]
    assert not re.search(r"\bt-(?!3\b|32\b)[0-9]+", str(page.soup))
    assert list(page.part('[aria-label="Show"]').links)[:2] == ["All 2", "Needs you 1"]
    assert names_on(page_of("/?show=all&sort=name", own)[0]) == ["t-3", "t-32"]
    nobody, _ = page_of("/", Viewer("eve", frozenset(), lambda _study, _tenant, *, write: False))
    assert "No study yet" in nobody.text


def test_the_number_in_the_bar_is_the_viewers_own_and_is_looked_up_once_in_a_while(crowd, monkeypatch):
    looked = []
    monkeypatch.setattr(bar, "count_of_steps", lambda *a, real=bar.count_of_steps: looked.append(1) or real(*a))
    ada, eve = Viewer("ada", frozenset({Role.OPERATOR})), Viewer("eve")
    ann = Viewer("ann", frozenset(), lambda study, _tenant, *, write: study == "t-32")
    assert [bar.count_needs(crowd.worker, v) for v in (ada, ann, eve, Viewer(""))] == [30, 1, 0, 0]
    assert [bar.count_needs(crowd.worker, v) for v in (ada, ann, eve)] == [30, 1, 0]
    assert len(looked) == 2
    bar.remember(crowd.worker, ada, 3)
    assert bar.count_needs(crowd.worker, ada) == 3
    monkeypatch.setattr(bar, "KEPT_SECONDS", -1.0)
    bar.remember(crowd.worker, ada, 3)
    assert bar.count_needs(crowd.worker, ada) == 30
