"""One JSON encoder for the command line, the API and XComs, and the schemas of what it writes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

import numpy as np
import pytest

from easeml_core.errors import InvalidInputError
from easeml_core.formats.encoding import row_of, schemas_of, to_json, to_stored_json, typed_record


class Colour(StrEnum):
    RED = "red"


@typed_record
class Part:
    colour: Colour
    score: float | None


@typed_record
class Whole:
    parts: tuple[Part, ...]
    at: datetime
    path: Path


WHOLE = Whole((Part(Colour.RED, None),), datetime(2026, 1, 2, tzinfo=UTC), Path("a/b"))
ENCODED = {"parts": [{"colour": "red", "score": None}], "at": "2026-01-02T00:00:00Z", "path": "a/b"}


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (WHOLE, ENCODED),
        ([WHOLE], [ENCODED]),
        ((1, 2), [1, 2]),
        ({Colour.RED: np.float64(0.5), 3: np.arange(2)}, {"red": 0.5, "3": [0, 1]}),
        (None, None),
    ],
)
def test_a_value_is_json_of_its_fields(value: object, encoded: object) -> None:
    assert to_json(value) == encoded


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_is_stored_has_no_number_that_json_lacks(number: float) -> None:
    """An answer shows such a number as null; in the database it would be a value that was lost."""
    part = Part(Colour.RED, number)
    assert to_json(part) == {"colour": "red", "score": None}
    with pytest.raises(InvalidInputError, match="only finite numbers can be stored"):
        to_stored_json([part])
    assert to_stored_json(WHOLE) == ENCODED


def test_what_has_no_json_form_is_named() -> None:
    with pytest.raises(TypeError, match="a object has no JSON form"):
        to_json({"a": [object()]})


def test_a_schema_lists_the_fields_and_the_words_of_an_enum() -> None:
    _, found = schemas_of([Whole])
    assert found["Whole"]["required"] == ["parts", "at", "path"]
    assert found["Part"]["properties"]["score"] == {"anyOf": [{"type": "number"}, {"type": "null"}]}
    assert found["Colour"]["enum"] == ["red"]


def test_a_row_is_one_level_deep() -> None:
    @dataclass(frozen=True)
    class Pair:
        a: int
        b: Part

    part = Part(Colour.RED, 1.0)
    assert row_of(Pair(1, part)) == {"a": 1, "b": part}


@typed_record
class Chosen:
    one: Part | Whole | None
    more: list[Whole | Part] | None


def test_a_union_of_records_refers_to_the_schema_of_each() -> None:
    (chosen, listed), shared = schemas_of([Chosen | Part, list[Chosen]])
    part, whole = {"$ref": "#/$defs/Part"}, {"$ref": "#/$defs/Whole"}
    assert chosen == {"anyOf": [{"$ref": "#/$defs/Chosen"}, part]}
    assert listed == {"type": "array", "items": {"$ref": "#/$defs/Chosen"}}
    assert shared["Chosen"]["properties"] == {
        "one": {"anyOf": [{"anyOf": [part, whole]}, {"type": "null"}]},
        "more": {"anyOf": [{"type": "array", "items": {"anyOf": [whole, part]}}, {"type": "null"}]},
    }
    assert shared.keys() == {"Chosen", "Part", "Whole", "Colour"}
