"""``easeml feed``, ``refine`` and ``infer``: from new pairs to answers, as a person and a program see it."""

from __future__ import annotations

import csv
import getpass
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from easeml_core.data.sources.load import load_source

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CLASSES = ("malignant", "benign")
TABLE = load_source("sklearn:breast_cancer")


@pytest.fixture
def study(make_study: Any) -> str:
    return str(make_study("cancer", candidates=[{"name": "tree", "kind": "decision_tree"}]))


@pytest.fixture
def at(ask: Any, artifacts: Any) -> Callable[..., Any]:
    """Run a command on the test's database and artifacts."""
    return lambda *arguments: ask(*arguments, "--artifacts", str(artifacts.root))


@pytest.fixture
def new_rows(nowhere: Path) -> Path:
    """A CSV file with 20 new labelled patients."""
    rng = np.random.default_rng(1)
    chosen = rng.choice(len(TABLE.labels), 20, replace=False)
    values = (TABLE.inputs[chosen] * rng.uniform(0.99, 1.01, (20, 30))).astype(np.float32)
    path = nowhere / "new.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*TABLE.feature_names, "label"])
        writer.writerows([*map(str, v), CLASSES[y]] for v, y in zip(values, TABLE.labels[chosen], strict=True))
    return path


@pytest.mark.usefixtures("study", "referee")
def test_from_new_pairs_to_a_refined_study(at: Any, ask: Any, new_rows: Path, recorded: Any) -> None:
    told = [at("feed", "cancer", str(new_rows))]
    assert at("refine", "list", "cancer", "--json").json["waiting_pairs"] == 20
    told += [at("refine", "list", "cancer", "--limit", "2"), ask("refine", "apply", "cancer")]
    (feed,) = ask("refine", "feeds", "cancer", "--json").json
    assert (feed["state"], feed["rows"], feed["origin"]) == ("taken", 20, "new.csv")
    assert feed["fed_by"] == getpass.getuser()
    assert "taken" in ask("refine", "feeds", "cancer").text
    rows = at("refine", "list", "cancer", "--limit", "3", "--json").json["pairs"]
    assert [row["origin"] for row in rows] == ["feed 1"] * 3
    names = [row["hash"] for row in rows[:2]]
    told += [at("refine", "off", "cancer", *names, "--reason", "they look wrong")]
    off = at("refine", "list", "cancer", "--off", "--json").json["pairs"]
    assert sorted((row["hash"], row["reason"]) for row in off) == sorted((name, "they look wrong") for name in names)
    told += [at("refine", "list", "cancer", "--off")]
    pair = {"inputs": dict.fromkeys(TABLE.feature_names, 1.5), "label": "benign"}
    refreshed = at("feed", "cancer", "--pair", json.dumps(pair), "--refresh", "--json").json
    assert refreshed["refresh"]["version"] == 3
    at("refine", "on", "cancer", names[0], "--reason", "it was right")
    assert ask("refine", "apply", "cancer", "--json").json["version"] == 4
    told += [ask("refine", "apply", "cancer")]
    recorded("\n".join(answer.recorded() for answer in told), "feed")


@pytest.mark.usefixtures("study")
def test_doubtful_labels_are_ranked(at: Any) -> None:
    assert "look wrong" in at("refine", "rank", "cancer", "--limit", "3").text
    ranked = at("refine", "list", "cancer", "--suspicious", "--limit", "3", "--json").json
    assert len(ranked["pairs"]) == 3
    assert set(ranked["pairs"][0]) == {"hash", "label", "expected", "doubt", "suspected"}


@pytest.mark.usefixtures("study")
def test_a_model_is_asked(at: Any, new_rows: Path, nowhere: Path) -> None:
    found = at("infer", "cancer", str(new_rows), "--model", "1", "--output", "answers.csv")
    assert found.out == ""
    assert found.err.startswith("answered by model 1 (named, handed in, data version 1): 20 rows in ")
    with (nowhere / "answers.csv").open(newline="", encoding="utf-8") as file:
        answers = list(csv.DictReader(file))
    assert [row["answer"] for row in answers] == ["benign"] * 20
    assert {row["label"] for row in answers} == set(CLASSES)  # what is no input is kept beside the answer
    row = ",".join(["1.5"] * 29) + ","  # the last one is missing
    one = at("infer", "cancer", "--row", row, "--model", "1", "--json").json
    assert (one["labels"], one["model_id"], one["candidate"]) == (["benign"], 1, None)
    assert one["latency"]["total_ms"] > 0


REFUSED = (
    (("feed", "cancer"), "give pairs"),
    (("feed", "cancer", "--pair", "{"), "--pair must be JSON"),
    (("feed", "cancer", "new.csv", "--label", "truth"), "column 'truth'"),
    (("feed", "nowhere", "new.csv"), "study 'nowhere'"),
    (("infer", "cancer", "new.csv"), "in production"),
    (("infer", "cancer", "new.csv", "--row", "1"), "PATH or --row"),
    (("infer", "cancer", "--row", "a,b"), "a row must be"),
    (("refine", "off", "cancer", "xyz", "--reason", "r"), "8 to 64"),
)


@pytest.mark.usefixtures("study", "new_rows")
def test_what_cannot_be_is_said(at: Any) -> None:
    for arguments, words in REFUSED:
        answer = at(*arguments)
        assert (answer.status, words in answer.err) == (2, True), (arguments, answer.err)
