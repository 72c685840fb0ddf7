"""``easeml program``: canonical text, template and candidates, why not, and exit statuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

SERIES = "{input: {[Tensor[10]], [next]}, output: {[Tensor[3]], []}}"
RECORD = "{input: {[Tensor[10]], []}, output: {[Tensor[3]], []}}"
MODULE = "nodes: {x: {singleton: true, type: tensor, dim: [a]}}"
LONE = "nodes: {t: {singleton: true, type: tensor, dim: [SIZE]}}"


def put(text: str, name: str = "program.txt") -> str:
    Path(name).write_text(text, encoding="utf-8")
    return name


def test_check_prints_the_canonical_form(run: Any) -> None:
    answer = run("program", "check", put(SERIES.replace(" ", "")))
    assert (answer.status, answer.out) == (0, SERIES + "\n")
    assert run("program", "check", put(SERIES), "--json").json == {
        "what": "program",
        "form": "paper",
        "canonical": SERIES,
    }
    side = run("program", "check", put(MODULE), "--json").json
    assert (side["what"], side["form"]) == ("side", "schema")


def test_a_mistake_is_shown_with_its_place_and_status_2(run: Any, recorded: Any) -> None:
    answer = run("program", "check", put(SERIES.replace("10", "0")))
    assert (answer.status, answer.out) == (2, "")
    recorded(answer.err, "program_check_mistake")


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_an_error(run: Any, content: bytes | None) -> None:
    if content is not None:
        Path("program.txt").write_bytes(content)
    answer = run("program", "check", "program.txt")
    assert answer.status == 2
    assert "program.txt cannot" in answer.err
    assert answer.err.count("program.txt") == 1


def test_match_names_template_candidates_and_why_the_rows_above_do_not(run: Any, recorded: Any) -> None:
    found = run("program", "match", put(SERIES), "--json").json
    assert found["template"] == {"name": "3", "input": "{[Tensor[A]], [a]}", "output": "{[Tensor[D]], []}"}
    assert [work["candidates"] for work in found["workloads"]] == [
        ["rnn", "lstm", "bi_lstm", "gru", "cnn_1d", "rocket"]
    ]
    assert found["mapping"] == {"A": 10, "a": "next", "D": 3}
    assert [row["template"] for row in found["rejected"]] == ["1", "2"]
    recorded(run("program", "match", put(SERIES)).out, "program_match")


def test_targets_choose_between_the_two_kinds_of_work(run: Any) -> None:
    both = run("program", "match", put(RECORD)).text
    assert "table classification, if" in both
    assert "table regression, if" in both
    one = run("program", "match", put(RECORD), "--targets", "numbers").text
    assert "table regression: " in one
    assert "classification" not in one.split("Rows above")[0]


def test_a_module_is_matched_instead_of_the_templates(run: Any, recorded: Any) -> None:
    module = put(MODULE, "module.yml")
    found = run("program", "match", put(LONE.replace("SIZE", "7")), "--module", module, "--json")
    assert (found.status, found.json["side"]["dims"], found.json["side"]["nodes"]) == (0, {"a": 7}, {"x": "t"})
    wrong = run("program", "match", put(LONE.replace("SIZE", "7, 7")), "--module", module)
    assert wrong.status == 1
    recorded(wrong.out, "program_match_module")
    both = run("program", "match", put(RECORD), "--module", put(SERIES, "module.txt"))
    assert both.status == 1
    assert both.out.startswith("input: does not match: ")
    assert "output: matches" in both.out


def test_what_does_not_go_together_is_refused(run: Any) -> None:
    module = put(MODULE, "module.yml")
    answer = run("program", "match", put(RECORD), "--module", module)
    assert (answer.status, "of one kind" in answer.err) == (2, True)
    answer = run("program", "match", put(RECORD), "--module", module, "--targets", "numbers")
    assert (answer.status, "out with --module" in answer.err) == (2, True)
    answer = run("program", "match", module)
    assert (answer.status, "is one schema" in answer.err) == (2, True)


def test_status_is_1_where_no_template_matches(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from easeml_core.programs import templates

    monkeypatch.setattr(templates, "TEMPLATES", templates.TEMPLATES[:1])
    answer = run("program", "match", put(RECORD), "--json")
    assert (answer.status, answer.json["template"], answer.json["workloads"]) == (1, None, [])
    assert "no template matches" in run("program", "match", put(RECORD)).out


def test_a_mistake_is_reported_with_the_file_that_it_stands_in(run: Any) -> None:
    good, bad = put(RECORD), put(SERIES.replace("10", "0"), "module.txt")
    answer = run("program", "match", good, "--module", bad)
    assert (answer.status, answer.err.startswith("easeml: module.txt, line 1, column 18: ")) == (2, True)
    answer = run("program", "match", bad, "--module", good)
    assert answer.err.startswith("easeml: module.txt, line 1, column 18: ")
    assert run("program", "match", bad).err.startswith("easeml: module.txt, line 1, column 18: ")
    side = put(MODULE, "module.yml")
    for first, second in ((good, side), (side, good)):
        assert "module.yml one side" in run("program", "match", first, "--module", second).err


def test_a_category_is_no_tensor_of_a_module(run: Any) -> None:
    """docs/data.md says so; in templates it fits."""
    data = put(RECORD.replace("Tensor[3]", "Category[3]"))
    answer = run("program", "match", data, "--module", put(RECORD, "module.txt"))
    assert (answer.status, "output: does not match" in answer.out) == (1, True)
    assert run("program", "match", data).status == 0
