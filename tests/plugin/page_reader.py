"""A page by its structure: sections, facts, tables, forms and links; and its text, as it is recorded once a page."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from bs4 import BeautifulSoup, Tag

HEADINGS = ("h1", "h2", "h3")


def words(tag: Tag) -> str:
    """Return the text of an element with single spaces."""
    return " ".join(tag.get_text(" ").split())


@dataclass(frozen=True)
class Form:
    """A form: its method, and the fields that a browser would send, by name (a list of radio buttons as the chosen)."""

    method: str
    fields: dict[str, str]


class Page:
    """A page, or a part of one.

    What is looked for and is not there, or is there twice, fails the test with what there is.
    """

    def __init__(self, html: str | Tag) -> None:
        self.soup = BeautifulSoup(html, "html.parser") if isinstance(html, str) else html

    @property
    def text(self) -> str:
        """What a person reads, with single spaces."""
        return words(self.soup)

    @property
    def headings(self) -> list[str]:
        return [words(heading) for heading in self.soup.find_all(HEADINGS)]

    @property
    def lead(self) -> str:
        """What goes on, as the first line of a page says it in bold."""
        return words(self._one("p.now strong"))

    def section(self, heading: str) -> Page:
        """The section or dialog with this heading, or with the only one that begins so."""
        found = [tag for tag in self.soup.find_all(HEADINGS) if words(tag) == heading]
        found = found or [tag for tag in self.soup.find_all(HEADINGS) if words(tag).startswith(heading)]
        assert len(found) == 1, f"{len(found)} sections {heading!r}; there are {self.headings}"
        part = found[0].find_parent(["section", "dialog", "aside", "main"])
        assert part is not None, f"the heading {heading!r} is in no section"
        return Page(part)

    def part(self, selector: str) -> Page:
        """The one element with this CSS selector."""
        return Page(self._one(selector))

    def has(self, selector: str) -> bool:
        return self.soup.select_one(selector) is not None

    @property
    def facts(self) -> dict[str, str]:
        """The descriptions of all terms (``dt`` before ``dd``)."""
        pairs = [(found.find_previous_sibling("dt"), found) for found in self.soup.select("dt + dd")]
        return {words(term): words(found) for term, found in pairs if term is not None}

    @property
    def table(self) -> list[dict[str, str]]:
        """The rows of the only table, by the heads of its columns."""
        table = self._one("table")
        heads = [words(head) for head in table.select("thead th")]
        rows = [[words(cell) for cell in row.find_all(["th", "td"])] for row in table.select("tbody tr")]
        return [dict(zip(heads, row, strict=True)) for row in rows]

    @property
    def items(self) -> list[str]:
        """The entries of all lists."""
        return [words(item) for item in self.soup.find_all("li")]

    @property
    def actions(self) -> Counter[str]:
        """Where the forms that change something lead, and how many lead there."""
        return Counter(str(form.get("action", "")) for form in self.soup.select("form[method=post]"))

    def form(self, action: str) -> Form:
        """The only form that leads there; a button that was not pressed and what is disabled are not sent."""
        form = self._one(f'form[action="{action}"]')
        fields = {}
        for field in form.select("[name]:not(button, :disabled)"):
            if field.get("type") in ("radio", "checkbox") and not field.has_attr("checked"):
                continue
            if field.name == "textarea":
                fields[str(field["name"])] = field.get_text()  # with its line breaks
            else:
                chosen = field.select_one("option[selected]") or field.select_one("option") or field
                fields[str(field["name"])] = str(chosen.get("value", words(chosen)))
        return Form(str(form.get("method", "get")), fields)

    @property
    def links(self) -> dict[str, str]:
        """Where the links lead, by their text."""
        return {words(link): str(link["href"]) for link in self.soup.select("a[href]")}

    @property
    def buttons(self) -> list[str]:
        """The texts of the buttons, and of links that look like one."""
        return [words(button) for button in self.soup.select("button, a.btn")]

    def recorded(self) -> str:
        """Return all texts below the bar, one a line: of elements, and of drawings what they are called."""
        main = self.soup.select_one("main") or self.soup
        lines = []
        for node in main.descendants:
            if not isinstance(node, Tag):
                if not node.find_parent("time"):
                    lines.append(" ".join(str(node).split()))
            elif node.name == "time":
                lines.append("(time)")
            elif label := node.get("aria-label"):
                lines.append(f"[{label}]")
        return "".join(f"{line}\n" for line in lines if line)

    def _one(self, selector: str) -> Tag:
        found = self.soup.select(selector)
        assert len(found) == 1, f"{len(found)} elements {selector!r}; the headings are {self.headings}"
        return found[0]
