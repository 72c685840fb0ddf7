"""The worked example of "Two meters" in docs/meter.md: its commands run, and print what the page says."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import text

from easeml_core.data.sources.load import load_source

if TYPE_CHECKING:
    from collections.abc import Callable

PAGE = (Path(__file__).resolve().parents[3] / "docs/meter.md").read_text(encoding="utf-8")
SECTION = PAGE.split("## Two meters: tuning or drift\n")[1].split("\n## ")[0]


def examples() -> list[tuple[list[str], str]]:
    """The words of each command after ``easeml``, and what the page shows below it."""
    found = []
    for block in re.findall(r"```\n(\$ .*?)```", SECTION, re.DOTALL):
        for part in block.replace("\\\n", " ").split("$ easeml ")[1:]:
            command, _, shown = part.partition("\n")
            found.append((shlex.split(command), shown.strip()))
    return found


@pytest.fixture
def files(nowhere: Path) -> None:
    """New patients of one class: the other class is always wrong."""
    table, rng = load_source("sklearn:breast_cancer"), np.random.default_rng(1)
    rare = int(np.bincount(table.labels).argmin())
    chosen = rng.choice(np.flatnonzero(table.labels == rare), 80, replace=False)
    values = (table.inputs[chosen] * rng.uniform(0.99, 1.01, (80, 30))).astype(np.float32)
    lines = [",".join(["example", *table.feature_names])]
    lines += [f"p{i}," + ",".join(map(str, row)) for i, row in enumerate(values)]
    (nowhere / "sent-on.csv").write_text("\n".join(lines) + "\n")
    labels = ["example,label", *(f"p{i},{table.class_names[rare]}" for i in range(80))]
    (nowhere / "labels.csv").write_text("\n".join(labels) + "\n")


@pytest.fixture
def easeml(run: Any, database: Any, artifacts: Any) -> Callable[[list[str]], Any]:
    """Run a command of the page, as the referee where it is about sealed sets."""

    def invoke(words: list[str]) -> Any:
        role = "easeml_referee" if words[0] == "test-set" else "easeml_worker"
        kept = ["--artifacts", str(artifacts.root)] if words[:2] == ["test-set", "seal"] else []
        return run(*words, "--database", database.url(role), *kept)

    return invoke


def test_the_worked_example_runs_and_prints_what_the_page_says(
    database: Any, referee: None, files: None, easeml: Callable[[list[str]], Any]
) -> None:
    with database.owner.begin() as tx:  # so that every run splits the data alike
        tx.execute(text("UPDATE sealed.installation SET secret = '5eed5eed-5eed-4eed-8eed-5eed5eed5e05'"))
    report = []
    for words, shown in examples():
        answer = easeml(words)
        assert answer.status == 0, answer.err
        report.append(" ".join(words[:2]))
        if "--json" in words:
            wanted = json.loads(shown.replace(", ...", ""))
            assert {name: answer.json[name] for name in wanted} == wanted
        elif shown:
            assert answer.text == " ".join(shown.split())
    ran = ["study register", "model meter", "test-set seal", "test-set retire", "model meter", "alerts tumours"]
    assert report == ran
    messages = [alert["message"] for alert in easeml(["alerts", "tumours", "--json"]).json if alert["kind"] == "drift"]
    (quoted,) = re.findall(r"The alert says: `(.*?)`", " ".join(SECTION.split()))
    assert messages == [f"tumours: {quoted}"]
