"""``easeml program infer``: what it prints is read by check and match; mistakes; nothing but the program on stdout."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from easeml_core.data.columns import MAX_CATEGORIES
from easeml_core.data.inference import column_stats, infer
from easeml_core.data.sources import spec
from easeml_core.data.table import MAX_CLASSES

PAGE = Path(__file__).parents[3] / "docs" / "data.md"
TABLE = "size,colour,kind\n1,red,x\n,blue,y\n3,red,y\n4,blue,x\n"


def test_the_text_is_read_by_check_and_match(run: Any, recorded: Any) -> None:
    Path("data.csv").write_text(TABLE)
    answer = run("program", "infer", "data.csv")
    assert (answer.status, answer.err) == (0, "")
    recorded(answer.out, "program_infer")
    *comments, last = answer.out.splitlines()
    assert all(line.startswith("# ") for line in comments)
    assert last == "{input: {[size :: Tensor[1], colour :: Category[2]], []}, output: {[kind :: Category[2]], []}}"
    Path("program.txt").write_text(answer.out)
    assert run("program", "check", "program.txt").out == last + "\n"
    assert run("program", "match", "program.txt", "--json").json["template"]["name"] == "5a"


def test_target_and_task_are_chosen_and_json_says_the_same(run: Any) -> None:
    Path("data.csv").write_text(TABLE)
    found = run("program", "infer", "data.csv", "--target", "size", "--task", "regression", "--json").json
    assert found["program"] == (
        "{input: {[colour :: Category[2], kind :: Category[2]], []}, output: {[size :: Tensor[1]], []}}"
    )
    assert {name: found[name] for name in ("source", "target", "task", "form", "rows", "partial", "classes")} == {
        "source": "csv:data.csv",
        "target": "size",
        "task": "regression",
        "form": "paper",
        "rows": 3,
        "partial": False,
        "classes": [],
    }
    classes = run("program", "infer", "data.csv", "--json").json["classes"]
    assert classes == [{"name": "x", "rows": 2}, {"name": "y", "rows": 2}]
    (read,) = [note for note in found["notes"] if note.startswith("read: ")]
    assert re.findall(r"\d+", read) == ["4", "1"], "all rows, and those without a target, which are left out"


def test_columns_are_named_as_for_a_study(run: Any) -> None:
    Path("data.csv").write_text("machine,hour,heat,plant,kind\na,1,5,n,x\na,2,6,n,x\nb,1,7,s,y\nb,2,8,s,y\n")
    asked = ("--id", "machine", "--step", "hour", "--split", "group:plant")
    found = run("program", "infer", "data.csv", *asked, "--json").json
    assert (found["source"], found["split"]) == ("series:data.csv?id=machine&step=hour", "group:plant")
    first, *_, last = run("program", "infer", "data.csv", *asked).out.splitlines()
    assert last == found["program"] == "{input: {[Tensor[1]], [next]}, output: {[kind :: Category[2]], []}}"
    assert first.endswith("?id=machine&step=hour', target 'kind', task classification, split 'group:plant'")


def test_what_cannot_be_read_is_an_error_and_prints_no_program(run: Any) -> None:
    for path, message in (("nothing.csv", "nothing.csv' cannot"), (".", "sub-folders")):
        answer = run("program", "infer", path)
        assert (answer.status, answer.out) == (2, "")
        assert answer.err.startswith("easeml: ")
        assert message in answer.err
    assert run("program", "infer", "data.csv", "--task", "guess").status == 2


def section() -> str:
    return PAGE.read_text(encoding="utf-8").split("### Inferred from data\n")[1].split("\n### ")[0]


def test_the_program_of_the_page_is_what_is_printed(run: Any) -> None:
    from sklearn.datasets import load_iris

    iris = load_iris()
    rows = [[*map(str, values), iris.target_names[kind]] for values, kind in zip(iris.data, iris.target, strict=True)]
    header = "sepal_length,sepal_width,petal_length,petal_width,species"
    Path("iris.csv").write_text("\n".join([header, *map(",".join, rows)]) + "\n")
    (shown,) = re.findall(r"```text\n(.*?)```", section(), re.DOTALL)
    assert run("program", "infer", "iris.csv").out == shown


def test_the_bounds_of_the_page_are_the_bounds() -> None:
    text = " ".join(section().split())
    for words in (
        f"text of at most {MAX_CATEGORIES} words",
        f"at most {column_stats.MOST_NUMBERS} different numbers",
        f"At most {MAX_CLASSES} classes",
        f"up to {column_stats.MOST_CELLS:,} cells",
        f"the headers of up to {infer.MOST_IMAGES:,}",
        f"at most {spec.MAX_SIDE} pixels",
    ):
        assert words in text
    *names, last = column_stats.TARGET_NAMES
    assert f"{', '.join(names)} or {last}, in this order" in text
