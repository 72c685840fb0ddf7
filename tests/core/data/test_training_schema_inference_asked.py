"""Programs of files whose columns a person names: what divides the rows, and which series a line belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from inference_data import row_of, written

from easeml_core.data.inference.infer import infer_program
from easeml_core.data.inference.result import spec_of
from easeml_core.data.program import InputColumn, program_of_table
from easeml_core.data.sources.load import load_source
from easeml_core.errors import InvalidInputError

if TYPE_CHECKING:
    from pathlib import Path

STAYS = "age,patient,day,kind\n1,p,2026-01-01,x\n2,p,2026-01-02,y\n3,q,2026-01-03,y\n4,q,2026-01-04,x\n"
SERIES = "machine,hour,u,v,plant,kind\na,1,1,5,n,up\na,2,2,6,n,up\nb,1,3,7,s,down\nb,2,4,8,s,down\n"
KEYS = {"id_column": "machine", "step_column": "hour"}


@pytest.mark.parametrize(
    ("split", "fields"),
    [
        ("rows", "age :: Tensor[1], patient :: Category[2], day :: Category[4]"),
        ("group:patient", "age :: Tensor[1], day :: Category[4]"),
        ("time:day", "age :: Tensor[1], patient :: Category[2]"),
        ("group:patient?keep=yes", "age :: Tensor[1], patient :: Category[2], day :: Category[4]"),
    ],
)
def test_the_column_that_divides_is_no_input_unless_it_is_kept(split: str, fields: str, tmp_path: Path) -> None:
    path = written(tmp_path, STAYS)
    found = infer_program(path, split=split)
    assert str(found.program.input) == f"{{[{fields}], []}}"
    assert found.program == load_source(f"csv:{path}", "kind", split=split).program
    reported = "" if split == "rows" else f", split '{split}'"
    assert found.notes[0] == f"source 'csv:data.csv', target 'kind', task classification{reported}"
    assert found.report().split == split
    assert row_of(found) == "5a"


@pytest.mark.parametrize(
    ("named", "spec"), [(KEYS, "?id=machine&step=hour"), ({"id_column": "machine"}, "?id=machine")]
)
def test_series_are_reported_by_the_columns_that_are_named(named: dict[str, str], spec: str, tmp_path: Path) -> None:
    path = written(tmp_path, SERIES if len(named) == 2 else SERIES.replace("hour", "step"))
    asked = {"target": "kind", "split": "group:plant"}
    found = infer_program(path, **asked, **named)
    assert str(found.program) == "{input: {[Tensor[2]], [next]}, output: {[kind :: Category[2]], []}}"
    assert spec_of(found.source) == f"series:data.csv{spec}"
    assert found.program == load_source(found.source.at(path), **asked).program


def test_columns_are_named_where_a_file_could_be_read_otherwise(tmp_path: Path) -> None:
    """A file with id and step is one of series; of other columns of it as well, if they are named."""
    path = written(tmp_path, "id,step,hour,kind\na,1,1,x\na,2,2,x\nb,1,1,y\nb,2,2,y\n")
    found = infer_program(path, step_column="hour")
    assert (spec_of(found.source), str(found.program.input)) == ("series:data.csv?step=hour", "{[Tensor[1]], [next]}")


@pytest.mark.parametrize(
    ("text", "asked", "words"),
    [
        (STAYS, {"split": "group:absent"}, "split 'group:absent': the column 'absent' is not among the 4 columns"),
        (STAYS, {"split": "group:kind", "target": "kind"}, "the column 'kind' is the target"),
        (STAYS, {"split": "by:day"}, "split must be rows, group:COLUMN or time:COLUMN"),
        (STAYS, {"split": "time:patient"}, "has in row 1 a text that is no time"),
        (STAYS.replace("3,q", "3,"), {"split": "group:patient"}, "gives row 3 no group to split by"),
        ("a,g,y\n1,p,x\n2,q,z\n", {"split": "group:g", "target": "g"}, "the column 'g' is the target"),
        ("g,y\np,x\nq,z\n", {"split": "group:g"}, "it has 1 column beside g; a target and at least one more"),
        (SERIES, {"id_column": "machine"}, "there is no column 'step'"),
        (SERIES, KEYS | {"step_column": "machine"}, "--id and --step must be two columns, got 'machine' for both"),
        (SERIES, KEYS | {"id_column": "a&b"}, "--id must be a column without"),
        (SERIES, KEYS | {"target": "machine"}, "there is no column 'machine' to predict"),
        (
            SERIES.replace("6,n", "6,s"),
            KEYS | {"split": "group:plant"},
            "row 2 below the header has another group than its series before",
        ),
    ],
)
def test_what_does_not_suit_the_file_is_refused(text: str, asked: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError) as error:
        infer_program(written(tmp_path, text), **asked)
    assert words in str(error.value)


def test_only_a_csv_file_has_columns_of_series(tmp_path: Path) -> None:
    from inference_data import picture

    for kind in ("cat", "dog"):
        picture(tmp_path / "pets" / kind / "a.png", (4, 4))
    with pytest.raises(InvalidInputError, match="columns of series in a CSV file; 'pets' holds images, leave them out"):
        infer_program(tmp_path / "pets", **KEYS)
    with pytest.raises(InvalidInputError, match="has no columns to divide rows by; leave split at rows"):
        infer_program(tmp_path / "pets", split="group:x")


@pytest.mark.parametrize("columns", [500, 2000, 2001])
def test_the_program_of_the_widest_table_is_as_short_as_a_study_may_keep(columns: int) -> None:
    """The database takes 100,000 bytes; up to 500 columns the form is the schema, whose text is longer."""
    words = [frozenset(map(str, range(n // 2, n // 2 + 32))) for n in range(columns)]
    inputs = [InputColumn("x" * 40 + str(n), 32, words[n]) for n in range(columns)]
    text = str(program_of_table(inputs, "y" * 50, 50).program)
    assert len(text.encode()) < 100_000
    assert ("Tensor[64032]" in text) == (columns == 2001)
