"""docs/studies.md, metrics and search spaces: their examples run, their tables are those of the code."""

from __future__ import annotations

import doctest
import math
import re

import pytest
from doc_pages import Page

from easeml_core.metrics.metric import METRICS, metric_of, require_gate_metric
from easeml_core.programs.search_space import reader, sampling
from easeml_core.programs.search_space.candidate_names import LONGEST

METRICS_PAGE = Page("studies.md", "Metrics")
SPACES_PAGE = Page("studies.md", "Search spaces")


def rows(text: str) -> list[list[str]]:
    """The cells of the first table behind a text, without its header."""
    table = text[text.index("\n|") :].lstrip().split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]


@pytest.mark.parametrize("page", [METRICS_PAGE, SPACES_PAGE], ids=["metrics", "search spaces"])
def test_examples_run(page: Page) -> None:
    blocks = re.findall(r"```pycon\n(.*?)```", page.text, re.DOTALL)
    assert blocks
    runner = doctest.DocTestRunner()
    names: dict[str, object] = {}
    for block in blocks:
        test = doctest.DocTestParser().get_doctest(block, names, page.path.name, None, 0)
        assert runner.run(test, clear_globs=False).failed == 0
        names = test.globs


def test_every_metric_has_its_row_and_the_row_is_right() -> None:
    table = {row[0].strip("`"): row for row in rows(METRICS_PAGE.text)}
    assert set(table) == {*METRICS, "within:0.5", "module:function"}
    for name, row in table.items():
        if name != "module:function":
            metric = metric_of(name)
            low, high = (f"{bound:g}" for bound in (metric.low, metric.high))
            better = "higher" if metric.higher_is_better else "lower"
            assert row[1:5] == [metric.needs, better, f"[{low}, {high}]", f"`{metric.map.formula}`"]


def test_the_page_names_the_metrics_that_the_gate_takes() -> None:
    section = METRICS_PAGE.text.split("## Metrics that the gate can take")[1].split("\n## ")[0]
    for name in METRICS:
        assert f"`{name}`" in section
    assert require_gate_metric("accuracy") == "accuracy"


def test_guessing_evenly_among_classes_has_the_stated_quality() -> None:
    loss = metric_of("log_loss")
    score = loss.score([0, 1, 2, 3], None, [[0.25] * 4] * 4)
    assert loss.quality(score) == pytest.approx(1 / 4)
    assert score == pytest.approx(math.log(4))


def test_the_space_of_the_page_is_read() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", SPACES_PAGE.text, re.DOTALL)
    space = reader.read_space(block)
    assert len(sampling.candidates_of(space, 20)) == 20


def test_bounds_of_the_page_are_those_of_the_code() -> None:
    table = dict(rows(SPACES_PAGE.text.split("## Mistakes")[1]))
    assert table["characters of a text"] == f"{reader.MAX_LENGTH:,}"
    assert table["values, ranges, choices, mappings and lists"] == f"{reader.MAX_NODES:,}"
    assert table["ranges and choices"] == f"{reader.MAX_VARIABLES:,}"
    assert table["depth of nesting"] == str(reader.MAX_DEPTH)
    assert table["characters of a name, of a text constant"] == f"{reader.MAX_NAME}, {reader.MAX_TEXT:,}"
    assert table["whole numbers"] == f"up to {reader.MAX_WHOLE:,}"
    assert table["candidates of one space"] == f"{sampling.MAX_COUNT:,}"
    assert f"from -{reader.MAX_POWER} to {reader.MAX_POWER}" in SPACES_PAGE.text
    assert f"at most {LONGEST} characters" in SPACES_PAGE.text


@pytest.mark.parametrize("scale", reader.SCALES)
def test_every_scale_is_on_the_page(scale: str) -> None:
    assert f"`{scale}`" in SPACES_PAGE.text
