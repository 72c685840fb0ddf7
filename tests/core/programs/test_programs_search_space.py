"""Search spaces: what is read, and what is refused with its path, hostile data and text included."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from property_sizes import examples
from space_strategies import JOB, OPTIMIZER, SPACES

from easeml_core.errors import InvalidInputError
from easeml_core.programs.search_space.reader import (
    MAX_DEPTH,
    MAX_LENGTH,
    MAX_NODES,
    MAX_VARIABLES,
    read_space,
    space_of,
)
from easeml_core.programs.search_space.sampling import candidates_of


def test_the_example_of_the_earlier_ease_ml_is_read() -> None:
    space = read_space(OPTIMIZER)
    layers, optimizer = (entry for _, entry in space.root.entries)
    assert (layers.low, layers.high, layers.scale) == (1, 5, "linear")
    assert [dict(option.entries)["type"].value for option in optimizer.options] == ["sgd", "rmsprop", "lbfgs"]
    rate = dict(optimizer.options[0].entries)["learning_rate"]
    assert (rate.low, rate.high, rate.scale) == (-4.0, -1.0, "exp")


@pytest.mark.parametrize("indent", [None, 2, "\t"])
def test_json_is_read_as_the_same_space(indent) -> None:
    assert read_space(json.dumps(JOB, indent=indent)) == space_of(JOB)


@settings(deadline=None)
@given(SPACES)
def test_what_is_written_is_read_again(data) -> None:
    space = space_of(data)
    assert read_space(str(space)) == space
    assert space_of(space.to_data()) == space


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),  # which PyYAML takes for text
        ("3", 3),
        ("-2.5", -2.5),
        (".5", 0.5),
        ("1_000", "1_000"),
        ("no", "no"),  # which PyYAML takes for False
        ("2026-01-01", "2026-01-01"),
        ("010", 10.0),
        ("'3'", "3"),
        ("true", True),
        ("null", None),
        ("", None),
        ('"\\ud83d\\ude00"', "\N{GRINNING FACE}"),  # as JSON writes it
    ],
)
def test_words_and_numbers_mean_what_they_say(text, value) -> None:
    (candidate,) = candidates_of(read_space(f"x: {text}"), 3)
    assert candidate == {"x": value}
    assert type(candidate["x"]) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: {.int: [1, 2.5]}", "a.int: the bounds must be whole numbers, got 1 and 2.5"),
        ("a: {.int: [5, 1]}", "a.int: the low bound comes first, got 5 and 1"),
        ("a: {.int: [1, 2, 3]}", "a.int: it needs a list of two bounds, [low, high], got a list of 3"),
        ("a: {.int: 3}", "a.int: it needs a list of two bounds, [low, high], got 3"),
        ("a: {.int: [1, x]}", "a.int[1]: a bound is a number, got 'x'"),
        ("a: {.int: [true, 2]}", "a.int[0]: a bound is a number, got True"),
        ("a: {.int: [0, 9], .scale: log}", "a.int: the scale log needs a low bound >= 1, got 0"),
        ("a: {.int: [0, 16], .scale: exp}", "a.int: with the scale exp the bounds are powers of ten, from 0 to 15"),
        ("a: {.float: [0, 9], .scale: log}", "a.float: the scale log needs a low bound > 0, got 0"),
        ("a: {.float: [0, 301], .scale: exp}", "a.float: with the scale exp the bounds are powers of ten"),
        ("a: {.float: [0, 1e301]}", "a.float[1]: a bound is at most 1e300, got 1e+301"),
        ("a: {.float: [0, 1e999]}", "a.float[1]: a number must be finite, got inf"),
        ("a: {.float: [0, .inf]}", "a.float[1]: a number must be finite, got .inf"),
        ("a: nan", "a: a number must be finite, got nan"),
        ("a: {.float: [0, 1], .scale: cubic}", "a.scale: it is one of linear, log, exp, got 'cubic'"),
        ("a: {.float: [0, 1], .scale: [log]}", "a.scale: it is one of linear, log, exp, got a list of 1"),
        ("a: {.float: [0, 1], b: 3}", "a: 'b' cannot stand beside .float"),
        ("a: {.choice: [1], .scale: log}", "a: '.scale' cannot stand beside .choice; put it into the options"),
        ("a: {.scale: log}", "a: a domain has one of .int, .float or .choice"),
        ("a: {.int: [1, 2], .float: [1, 2]}", "a: a domain has one of .int, .float or .choice"),
        ("a: {.real: [1, 2]}", "a: '.real' is not known; what begins with '.' is .int, .float, .choice or .scale"),
        ("a: {.choice: []}", "a.choice: it needs a list of at least one option, got a list of 0"),
        ("a: {.choice: {b: 1}}", "a.choice: it needs a list of at least one option, got a mapping of 1"),
        ("a: {.choice: [1, {x: 2, y: 1}, {y: 1, x: 2}]}", "a.choice[2]: it is the same as option [1]"),
        ("a: {.choice: [1, {b: [0, {.int: [2, 1]}]}]}", "a.choice[1].b[1].int: the low bound comes first"),
        (".choice: [{a: 1}, 2]", ".choice[1]: a candidate is a mapping of parameters"),
        (".choice: [{a: 1}, {.choice: [{b: 1}, [2]]}]", ".choice[1].choice[1]: a candidate is a mapping"),
        ("[1, 2]", "a candidate is a mapping of parameters"),
        (".int: [1, 2]", "a candidate is a mapping of parameters"),
        ("a: 99999999999999999", "a: a whole number is at most 9,007,199,254,740,992, got a larger one"),
        ("a: 1\na: 2", "the name 'a' comes twice"),
        ("a: {b: {c: 1, c: 2}}", "a.b: the name 'c' comes twice"),
        ("? [1]\n: 2", "the name of a parameter is one word"),
        ('"": 2', "the name of a parameter is text, got ''"),
        ('a: "\\ud83d"', "a: text has a character that cannot be stored"),
        ('a: "\\0"', "a: text has a character that cannot be stored"),
        ("a: &x [1]\nb: *x", "line 1: anchors, aliases and tags of YAML are not allowed"),
        ("a: !!python/object/apply:os.system [ls]", "line 1: anchors, aliases and tags"),
        ("a: 1\n---\nb: 2", "line 2: it must be one document"),
        ("a: [1", "line 1, column 6: this is neither YAML nor JSON"),
        ("a: \x01", "this is neither YAML nor JSON"),
        ("", "it is empty"),
        ("# nothing", "it is empty"),
    ],
)
def test_mistakes_are_reported_with_their_path(text, message) -> None:
    with pytest.raises(InvalidInputError, match=re.escape(message)) as caught:
        read_space(text)
    assert str(caught.value).startswith("search space: ")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({1: 2}, "the name of a parameter is text, got 1"),
        ({"a": {1, 2}}, "a: expected text, a number, true, false, null, a list or a mapping, got set"),
        ({"a": float("nan")}, "a: a number must be finite, got nan"),
        ({"a": 10**5000}, "a: a whole number is at most"),
        ({"a": {".int": [0, 10**5000]}}, "a.int[1]: a whole number is at most"),
        ({"x" * 101: 1}, "text has at most 100 characters"),
        ({"a": "x" * 1001}, "a: text has at most 1,000 characters"),
        (7, "a candidate is a mapping"),
    ],
)
def test_mistakes_in_plain_data_are_reported_too(data, message) -> None:
    with pytest.raises(InvalidInputError, match=re.escape(message)):
        space_of(data)


def endless():
    loop = {}
    loop["a"] = loop
    return loop


def doubled(times):
    row = [1]
    for _ in range(times):
        row = [row, row]
    return {"a": row}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (endless(), f"nested more than {MAX_DEPTH} deep"),
        (doubled(MAX_DEPTH - 5), "more than 2,000 values"),
        ({"a": list(range(MAX_NODES + 1))}, "at most 2,000 items"),
        ({str(k): k for k in range(MAX_NODES + 1)}, "at most 2,000 entries"),
        ({str(k): {".int": [0, k]} for k in range(MAX_VARIABLES + 1)}, "more than 300 ranges and choices"),
    ],
)
def test_hostile_data_is_refused(data, message) -> None:
    with pytest.raises(InvalidInputError, match=message):
        space_of(data)


def nested(depth):
    row = 1
    for _ in range(depth - 1):
        row = [row]
    return {"a": row}


def test_bounds_are_where_they_are_said_to_be() -> None:
    space_of({"a": [1] * 999, "b": [1] * 998})  # 2,000 nodes with the three mappings and lists
    with pytest.raises(InvalidInputError, match="more than 2,000 values"):
        space_of({"a": [1] * 999, "b": [1] * 999})
    for read in (space_of, lambda data: read_space(json.dumps(data))):
        read(nested(MAX_DEPTH))
        with pytest.raises(InvalidInputError, match=f"nested more than {MAX_DEPTH} deep"):
            read(nested(MAX_DEPTH + 1))
    space_of({str(k): {".int": [0, k]} for k in range(MAX_VARIABLES)})
    read_space("a: 1".ljust(MAX_LENGTH))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * (MAX_LENGTH // 2), "nested more than"),
        ("{a: " * 20_000, "nested more than"),
        ("a: " + "x" * MAX_LENGTH, "at most 100,000 characters are read"),
        ("a: " + "9" * 5000, "a: a"),
        (b"a: 1", "it is text, got bytes"),
        (None, "it is text, got NoneType"),
    ],
)
def test_hostile_text_is_refused(text, message) -> None:
    with pytest.raises(InvalidInputError, match=message):
        read_space(text)


@settings(max_examples=examples(300), deadline=None)
@given(st.one_of(st.text(max_size=60), st.text("{}[]:,.- \nabfloatichose01e", max_size=60), SPACES.map(json.dumps)))
def test_no_text_raises_anything_else(text) -> None:
    try:
        space = read_space(text)
    except InvalidInputError:
        return
    assert candidates_of(space, 5, 1)
