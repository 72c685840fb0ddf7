"""The site of docs/: built strictly, every page in its place, nothing asked of another host, search from the disk."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from reference_pages.site import PAGE_OF, with_parts

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs"
LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "src", "object": "data"}
MOST_PAGES = 25
"""Of the order, without the decisions: a reader finds a page by its title in a list that can be read at a glance."""

WITHOUT = "mkdocs is not installed: it comes with the extra `dev`"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    if find_spec("mkdocs") is None:
        pytest.skip(WITHOUT)
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


class Assets(HTMLParser):
    """What a browser fetches by itself for a page."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "link" and not set((given.get("rel") or "").split()) & {"canonical", "next", "prev"}:
            self.found.add(given.get("href") or "")
        elif tag in LOADS:
            self.found.add(given.get(LOADS[tag]) or "")
        self.found.discard("")


def nav_pages(entry: object) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    entries = entry.values() if isinstance(entry, dict) else entry
    return [page for one in entries for page in nav_pages(one)]


def settings() -> dict[str, object]:
    loaded = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def test_every_page_has_one_place_in_the_order_and_generated_files_have_a_page() -> None:
    placed = nav_pages(settings()["nav"])
    generated = {path.name for path in (DOCS / "reference").glob("*.md")}
    pages = {str(p.relative_to(DOCS)) for p in DOCS.rglob("*.md")} - {f"reference/{name}" for name in generated}
    assert sorted(placed) == sorted(pages)
    assert set(PAGE_OF) == generated
    assert len([page for page in placed if not page.startswith("adr/")]) <= MOST_PAGES


def test_a_generated_file_ends_its_page_and_links_to_it_lead_there(tmp_path: Path) -> None:
    (tmp_path / "reference").mkdir()
    made = "<!-- Made. -->\n\n# Every (one)\n\nSee [x](../gate.md#a).\n\n## A\n\n```text\n# no heading\n```\n"
    (tmp_path / "reference" / "commands.md").write_text(made)
    page = "# Page\n\n[all](reference/commands.md), [a](reference/commands.md#a)\n"
    part = "## Every (one)\n\nSee [x](gate.md#a).\n\n### A\n\n```text\n# no heading\n```\n"
    assert with_parts(page, "command-line.md", tmp_path) == f"# Page\n\n[all](#every-one), [a](#a)\n\n{part}"
    elsewhere = with_parts("[a](../reference/commands.md#a)", "adr/0001.md", tmp_path)
    assert elsewhere == "[a](../command-line.md#a)\n"


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"])
def test_pages_beside_the_site_lead_to_headings_that_are_there(name: str) -> None:
    for target, anchor in re.findall(r"\]\((?!http)([^)#]+)#?([^)]*)\)", (ROOT / name).read_text(encoding="utf-8")):
        assert (ROOT / target).exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.+)$", (ROOT / target).read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}, anchor


def test_warnings_end_the_build_and_no_font_is_fetched() -> None:
    written = settings()
    assert written["strict"] is True
    assert isinstance(written["theme"], dict)
    assert written["theme"]["font"] is False


def test_nothing_is_asked_of_another_host_and_what_pages_load_is_there(site: Path) -> None:
    pages = {page: Assets(page).found for page in site.rglob("*.html")}
    assert len(pages) > 40
    for page, addresses in pages.items():
        for address in addresses:
            assert not re.match(r"(https?:)?//", address), f"{page.name}: {address}"
            if page.name != "404.html" and not address.startswith("data:"):
                assert (page.parent / address.partition("?")[0]).exists(), f"{page.name}: {address}"
    for sheet in site.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        assert re.findall(r"(?:url\(['\"]?|@import ['\"])(?:https?:)?//", text) == []


def test_search_works_from_the_disk_without_a_request(site: Path) -> None:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no chromium on this machine; `make browser` installs it")
    with sync_api.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page, asked = browser.new_page(), []
        page.on("request", lambda request: asked.append(request.url))
        page.goto((site / "index.html").as_uri())
        page.keyboard.press("/")
        page.keyboard.type("restore")
        found = page.locator(".md-search-result__item", has_text="Operations")
        found.first.wait_for(timeout=20_000)
        browser.close()
    assert [address for address in asked if not address.startswith(("file:", "data:"))] == []
