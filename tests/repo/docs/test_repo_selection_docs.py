"""docs/selection.md names every policy, its figures have their places, and its commands are understood."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import click
import pytest
from doc_pages import MOST_BYTES, Page, parse
from figures import blocks as markdown
from figures.selection import catalogue, tables
from figures.selection.catalogue import PARTS

from easeml_core.settings import config

if TYPE_CHECKING:
    from pathlib import Path

_PAGE = Page("selection.md")
PAGE, TEXT, BLOCKS, COMMANDS = _PAGE.path, _PAGE.text, _PAGE.blocks, _PAGE.commands
CANDIDATES = ("NIN", "GoogLeNet")


@pytest.mark.parametrize("policy", [*config.POLICIES, "clairvoyant", "backtested"])
def test_every_policy_is_in_the_chapter(policy: str) -> None:
    assert f"`{policy}`" in TEXT


@pytest.mark.parametrize("policy", config.POLICIES)
def test_every_policy_says_what_it_promises(policy: str) -> None:
    promises = TEXT.split("## What each policy promises")[1].split("\n## ")[0]
    rows = [line for line in promises.splitlines() if line.startswith("|")]
    assert any(f"`{policy}`" in row.split("|")[1] for row in rows)


def test_settings_of_the_ablation_are_parts_of_the_default_policy() -> None:

    from easeml_core.selection.simulate.protocol import parse_contestants
    from easeml_core.settings.config import SelectionConfig

    parsed = parse_contestants(list(PARTS.values()), base=SelectionConfig(), candidates=CANDIDATES)
    assert len({contestant.config for contestant in parsed}) == len(PARTS)


def test_figures_of_the_script_and_of_the_page_are_the_same() -> None:
    assert sorted(BLOCKS) == sorted(catalogue.FIGURES)


def test_there_are_commands() -> None:
    assert len(COMMANDS) >= 7


@pytest.mark.parametrize("command", sorted(set(COMMANDS)))
def test_every_command_of_the_page_parses(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from easeml_core.selection.simulate.protocol import parse_contestants
    from easeml_core.settings.config import SelectionConfig

    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()  # where the plots go
    for word in shlex.split(command):
        if word.endswith(".csv"):
            (tmp_path / word).touch()
    given = parse(command)
    policies = [policy for policy in given.get("policies", ()) if not policy.startswith("order:")]
    if policies:
        parse_contestants(policies, base=SelectionConfig(), candidates=CANDIDATES)


def test_a_wrong_command_does_not_parse() -> None:
    with pytest.raises(click.UsageError):
        parse("easeml simulate --quality q.csv --polcy default")


def test_a_block_is_replaced_and_nothing_else() -> None:
    page = "before\n<!-- figure a: -->\n<!-- end of a -->\nbetween\n<!-- figure b: -->\nold\n<!-- end of b -->\nafter\n"
    once = markdown.splice(page, {"b": "new \\1"}, maker="m")
    assert "old" not in once
    assert "new \\1" in once
    assert once.startswith("before\n<!-- figure a: -->\n<!-- end of a -->\nbetween\n")
    assert markdown.splice(once, {"b": "new \\1"}, maker="m") == once
    with pytest.raises(ValueError, match="one place for the figure 'c'"):
        markdown.splice(page, {"c": "x"}, maker="m")


def test_prices_are_written_with_their_spread() -> None:
    assert markdown.spread([0.878, 0.802, 1.3]) == "0.878 (0.802-1.3)"
    assert markdown.spread([100.0, 4.0]) == "not reached"
    assert markdown.spread([4.0, 100.0]) == "4 (4-not reached)"
    assert [markdown.three(x) for x in (0.00002634, 2.5, 12345.6, 0.0)] == ["0.0000263", "2.5", "12,300", "0"]


def test_tables_are_shares_and_a_gap_in_one_is_a_gap_in_both(tmp_path: Path) -> None:
    quality, cost = tmp_path / "q", tmp_path / "c"
    quality.write_text("key,a,b\nx,50,\ny,25,100\n", encoding="utf-8")
    tables._classifier(quality, tmp_path)
    assert tables._read(tmp_path / "classifier.csv") == [["key", "a", "b"], ["x", "0.5", ""], ["y", "0.25", "1.0"]]
    costs = tables._read(tmp_path / "classifier-cost.csv")
    assert costs[1][2] == ""
    assert 0 < float(costs[2][1]) < 1
    cost.write_text("key,a,b\nx,3,4\ny,5,6\n", encoding="utf-8")
    tables._pair(quality, cost, tmp_path, "pair")
    assert tables._read(tmp_path / "pair-cost.csv") == [["key", "a", "b"], ["x", "3", ""], ["y", "5", "6"]]


PICTURES = sorted((PAGE.parent / "pictures").glob("*.png"))


@pytest.mark.parametrize("picture", PICTURES, ids=lambda path: path.name)
def test_pictures_are_small_and_used(picture: Path) -> None:
    assert picture.stat().st_size < MOST_BYTES
    assert any(f"(pictures/{picture.name})" in page.read_text(encoding="utf-8") for page in PAGE.parent.glob("*.md"))
