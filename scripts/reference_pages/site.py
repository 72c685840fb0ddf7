"""A hook of mkdocs: the generated files of ``docs/reference`` become parts of the pages that they belong to.

In the repository they are separate files, so that a change of the code changes no page that is written by hand. In the
site each of them ends a page, so that a reader finds text and reference in one place; links to the file lead there.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

PAGE_OF = {
    "commands.md": "command-line.md",
    "operators.md": "operators.md",
    "python.md": "python.md",
    "errors.md": "troubleshooting.md",
    "database.md": "security.md",
    "observable.md": "security.md",
}
"""Each generated file of ``docs/reference``, and the page of ``docs`` that it ends; of one page in this order."""

_LINK = re.compile(r"\]\((?:\.\./)?reference/(\w+\.md)(#[^)]*)?\)")


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Return the page with its generated parts; mkdocs gives the arguments by name."""
    return with_parts(markdown, page.file.src_uri, Path(config["docs_dir"]))


def with_parts(markdown: str, name: str, docs: Path) -> str:
    """Return a page with its generated parts, and with links to the generated files as links to these parts.

    Args:
        markdown: The page as it is in ``docs``.
        name: Its path below ``docs``.
        docs: The folder of the pages.
    """
    parts = [_part(docs / "reference" / part) for part, page in PAGE_OF.items() if page == name]
    above = "../" * name.count("/")

    def there(link: re.Match[str]) -> str:
        page = PAGE_OF[link[1]]
        return f"]({'' if page == name else above + page}{link[2] or '#' + _anchor(docs / 'reference' / link[1])})"

    return _LINK.sub(there, "\n\n".join([markdown.rstrip(), *parts])) + "\n"


def _part(path: Path) -> str:
    """A generated file as a section: no comment, headings one level lower, links as of a page in ``docs``."""
    text = path.read_text(encoding="utf-8").partition("-->\n")[2]
    lowered: list[str] = []
    is_code = False
    for line in text.strip().splitlines():
        is_code ^= line.startswith("```")
        lowered.append(f"#{line}" if line.startswith("#") and not is_code else line)
    return "\n".join(lowered).replace("](../", "](")


def _anchor(path: Path) -> str:
    """The anchor of a generated file's title."""
    title = next(line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("# "))
    return re.sub(r"[^\w -]", "", title[2:].lower()).replace(" ", "-")
