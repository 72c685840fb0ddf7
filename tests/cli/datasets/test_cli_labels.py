"""``easeml labels``: what is wanted goes out as CSV, what people say comes in, and conflicts are listed."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from easeml_core.data.sources.load import load_source
from easeml_core.services.referee.requests import file_gate_request
from easeml_core.services.test_sets.lifecycle import retire_test_set
from easeml_core.services.test_sets.upload import seal_test_set
from easeml_core.store.tables import labels, sealed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def rule(run: Any, database: Any) -> Callable[..., Any]:
    def ruled(command: str, *arguments: str) -> Any:
        study = ("--study", "cancer") if command == "give" else ("cancer",)
        return run("labels", command, *study, *arguments, "--database", database.url("easeml_referee"))

    return ruled


@pytest.fixture
def waiting(database: Any, artifacts: Any, make_study: Any, nowhere: Path) -> None:
    """A study whose live set has no labels, and a request that needs three of them."""
    make_study("cancer")
    retire_test_set(database.referee, test_set="1")
    table = load_source("sklearn:breast_cancer")
    rows = [f"p{i}," + ",".join(map(str, v + 0.5)) for i, v in enumerate(table.inputs[:300])]
    (nowhere / "inputs.csv").write_text("\n".join([",".join(["example", *table.feature_names]), *rows]) + "\n")
    done = seal_test_set(database.referee, artifacts, study="cancer", inputs=nowhere / "inputs.csv")
    asked = {"study": "cancer", "model_id": 1, "request_key": "k"}
    request_id = file_gate_request(database.worker, **asked)
    with database.referee.begin() as tx:
        labels.want(tx, request_id=request_id, test_set_id=done.test_set_id, positions=np.array([1, 5, 9]))


def test_labels_go_out_and_come_in(rule: Any, waiting: None, nowhere: Path, recorded: Any) -> None:
    rows = list(csv.reader(io.StringIO(rule("wanted").out)))
    assert (rows[0][:2], len(rows), len(rows[1])) == (["example", "mean radius"], 4, 31)
    told = [rule("wanted", "--to", "w.csv", "--limit", "2")]
    assert len((nowhere / "w.csv").read_text().splitlines()) == 3
    assert rule("wanted", "--json", "--limit", "1").json["wanted"] == 3
    keys = [row[0] for row in rows[1:]]
    (nowhere / "ann.csv").write_text(f"example,label\n{keys[0]},benign\n{keys[1]},1\n")
    (nowhere / "bob.csv").write_text(f"example,label\n{keys[0]},malignant\n{keys[2]},benign\n")
    (nowhere / "us.csv").write_text(f"example,label\n{keys[0]},benign\n")
    told += [rule("give", "--labeler", "ann", "ann.csv"), rule("give", "--labeler", "bob", "bob.csv")]
    assert rule("give", "--labeler", "bob", "bob.csv", "--json").json["conflicts"] == 1
    (conflict,) = rule("conflicts", "--json").json["conflicts"]
    assert conflict == {"example": keys[0], "labels": {"ann": "benign", "bob": "malignant"}}
    told += [rule("conflicts"), rule("give", "--labeler", "referee", "us.csv")]
    assert rule("conflicts", "--json").json["conflicts"] == []
    recorded("\n".join(answer.recorded() for answer in told), "labels")


def test_what_nobody_can_tell_is_listed_and_asked_again(rule: Any, waiting: None, database: Any) -> None:
    with database.referee.begin() as tx:
        said = np.full(300, labels.UNKNOWN)
        said[5] = labels.UNSURE
        labels.keep_labels(tx, 3, "ann", said)
        key = sealed.sealed_keys(tx, 3)[5]
    assert f"│ {key} " in rule("unsure").text
    assert rule("unsure", "--json").json["unsure"] == [{"example": key, "passed": 1}]
    assert rule("unsure", "--again").text.endswith("asked again: 1 word taken back")
    assert rule("unsure", "--json").json == {"asked": 0, "study": "cancer", "test_set_id": 3, "unsure": []}


def test_an_error_names_the_line_or_the_role(rule: Any, ask: Any, waiting: None, nowhere: Path) -> None:
    (nowhere / "bad.csv").write_text("example,label\nnobody,benign\n")
    answer = rule("give", "--labeler", "ann", "bad.csv")
    assert (answer.status, "bad.csv, line 2 (example 'nobody')" in answer.err) == (2, True)
    answer = ask("labels", "wanted", "cancer", "--json")
    assert (answer.refusal, "--role easeml_referee" in answer.err) == ("WrongRoleError", True)
