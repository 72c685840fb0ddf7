"""The condition language: what is read, what is refused and where the caret stands, and what text can never do."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from property_sizes import examples

from easeml_core.errors import ConditionSyntaxError
from easeml_core.gate.condition import (
    MAX_LENGTH,
    MOST_CLAUSES,
    Claim,
    Clause,
    Condition,
    claim_of,
    contradiction,
    disagreement_bound,
    grammar,
    parse_condition,
)

ACCEPTED = [
    ("n > 0.8 +/- 0.05", "n > 0.8 +/- 0.05"),
    ("n>.8+/-.05", "n > 0.8 +/- 0.05"),
    ("  n\t>\n 0.8  +/-\r\n0.05  ", "n > 0.8 +/- 0.05"),
    ("n - o > 0.02 +/- 0.01", "n - o > 0.02 +/- 0.01"),
    ("-o + n > 0.02 +/- 0.01", "n - o > 0.02 +/- 0.01"),
    ("+n > 1 +/- 1", "n > 1 +/- 1"),
    ("-d > -0.1 +/- 0.01", "-d > -0.1 +/- 0.01"),
    ("n - 1.1 * o > 0.01 +/- 0.01", "n - 1.1 * o > 0.01 +/- 0.01"),
    ("n - o*1.1 > +0.01 +/- 0.01", "n - 1.1 * o > 0.01 +/- 0.01"),
    ("2 * n * 3 > 1 +/- 1", "6 * n > 1 +/- 1"),
    ("n - o + d > 0 +/- 0.1", "n - o + d > 0 +/- 0.1"),
    ("n + n - o - o > 0.2 +/- 0.1", "2 * n - 2 * o > 0.2 +/- 0.1"),
    ("0.1 * n + 0.2 * n + d < 0.3 +/- 0.1", "0.3 * n + d < 0.3 +/- 0.1"),
    ("0.1*n + 0.2*n - 0.3*n + o > 0.3 +/- 0.1", "o > 0.3 +/- 0.1"),
    ("0 * n + o > 1e-3 +/- 1E-4", "o > 0.001 +/- 0.0001"),
    ("d < 1. +/- 0000.5", "d < 1 +/- 0.5"),
    ("n > -0 +/- 0.1", "n > 0 +/- 0.1"),
    ("d<0.1+/-0.01/\\n-o>0.02+/-0.01", "d < 0.1 +/- 0.01 /\\ n - o > 0.02 +/- 0.01"),
    ("n > .5 +/- .1 /\\ o < .9 +/- .1 /\\ d < .5 +/- .1", "n > 0.5 +/- 0.1 /\\ o < 0.9 +/- 0.1 /\\ d < 0.5 +/- 0.1"),
    ("n > 0e999999999999999999999 +/- 1", "n > 0 +/- 1"),
    ("n > 0.0000001 +/- 1", "n > 1e-07 +/- 1"),
]

# Source, message, and the columns under which the caret stands.
REJECTED = [
    ("", r"expected a condition such as 'n - o > 0.02 \+/- 0.01', found the end", (0, 1)),
    ("   ", "expected a condition such as", (3, 4)),
    ("n", "expected '>' or '<', found the end", (1, 2)),
    ("n +/- 0.1", r"expected '>' or '<', found '\+/-'", (2, 5)),
    ("n = 0.1 +/- 0.1", "expected '>' or '<', found '='", (2, 3)),
    ("n >= 0.1 +/- 0.1", "expected '>' or '<', found '>='", (2, 4)),
    ("n - o > 0.02 /\\ d < 0.1 +/- 0.01", r"expected a tolerance '\+/- number' after the comparison", (12, 13)),
    ("n > 0.1", "expected a tolerance", (7, 8)),
    ("n > 0.1 +- 0.1", "expected a tolerance", (7, 8)),
    ("n > 0.1 +/-", "expected a tolerance, a number such as 0.01, found the end", (11, 12)),
    ("n > 0.1 +/- 0", "a tolerance must be > 0", (12, 13)),
    ("n > 0.1 +/- -0.1", "a tolerance must be > 0", (12, 16)),
    ("n > 0.1 +/- nan", "expected a tolerance, a number such as 0.01, found 'nan'", (12, 15)),
    ("n > nan +/- 0.1", "expected a threshold, a number such as 0.02, found 'nan'", (4, 7)),
    ("n > -inf +/- 0.1", "expected a threshold, a number such as 0.02, found 'inf'", (5, 8)),
    ("n > 1e999 +/- 0.1", "numbers must be 0 or between 1e-09 and 1e.09 in size", (4, 9)),
    ("n > 0.1 +/- 1e-10", "numbers must be 0 or between", (12, 17)),
    ("1e9*n*1e9 > 0.1 +/- 1", "a weight is too large or too small", (0, 9)),
    ("n - n*0.999999999999 > 0 +/- 1", "a weight is too large or too small", (0, 20)),
    ("n - n > 0.1 +/- 0.1", "all weights are 0, nothing is left to compare", (0, 5)),
    ("0*n > 0.1 +/- 0.1", "all weights are 0", (0, 3)),
    ("n > 0.1 +/- 0.1 d", "expected '/.' and another clause, or nothing more, found 'd'", (16, 17)),
    ("n > 0.1 +/- 0.1 /\\", "expected n, o, d or a number, found the end", (18, 19)),
    ("n > 0.1 +/- 0.1 \\/ o > 0.1 +/- 0.1", "or nothing more, found", (16, 17)),
    ("accuracy > 0.1 +/- 0.1", "unknown variable 'accuracy'; known are n, o, d", (0, 8)),
    ("n - N > 0.1 +/- 0.1", "unknown variable 'N'; known are n, o, d", (4, 5)),
    ("n - \u03b1 > 0.1 +/- 0.1", "unknown variable '\u03b1'", (4, 5)),
    ("n * o > 0.1 +/- 0.1", "two variables cannot be multiplied", (4, 5)),
    ("n / o > 0.1 +/- 0.1", "expected '>' or '<', found '/'", (2, 3)),
    ("n - 0.1 > 0.1 +/- 0.1", r"a constant needs a variable, write for example '0.1 \* n'", (4, 7)),
    ("2n > 0.1 +/- 0.1", r"a constant needs a variable, write for example '2 \* n'", (0, 1)),
    ("n - - o > 0.1 +/- 0.1", "expected n, o, d or a number, found '-'", (4, 5)),
    ("(n - o) > 0.1 +/- 0.1", r"found '\('", (0, 1)),
    ("0.1 < n +/- 0.1", "a constant needs a variable", (0, 3)),
    ("d < 0.1 +/- 0.01 /\\ n - o > 0.1 +/- 0.01", "can never hold: n - o is at most d, .* below 0.1", (20, 40)),
    ("2*o - 2*n > 0.4 +/- 0.1 /\\ d < 0.2 +/- 0.1", "can never hold: n - o|o - n is at most d", (0, 23)),
    ("n - o < -0.3 +/- 0.1 /\\ d < 0.2 +/- 0.1", "can never hold: o - n is at most d", (0, 20)),
]


@pytest.mark.parametrize(("source", "canonical"), ACCEPTED)
def test_what_is_read(source, canonical):
    assert str(parse_condition(source)) == canonical
    assert parse_condition(canonical) == parse_condition(source)


@pytest.mark.parametrize(("source", "message", "caret"), REJECTED)
def test_what_is_refused_and_where_the_caret_stands(source, message, caret):
    with pytest.raises(ConditionSyntaxError, match=message) as caught:
        parse_condition(source)
    assert (caught.value.start, caught.value.end) == caret
    below = str(caught.value).splitlines()[-1]
    assert below == "    " + " " * caret[0] + "^" * (caret[1] - caret[0])


def test_the_normal_form():
    clause = parse_condition("n - 1.1*o > 0.01 +/- 0.02").clauses[0]
    assert clause == Clause((("n", 1.0), ("o", -1.1)), ">", 0.01, 0.02)
    assert (clause.weight("o"), clause.weight("d")) == (-1.1, 0.0)
    assert clause.span == (0, 25)
    # On one example: new right only 1, old right only -1.1, both right -0.1, both wrong 0.
    assert clause.reach() == (-1.1, 1.0)


def test_only_clauses_about_d_need_no_labels():
    condition = parse_condition("d < 0.1 +/- 0.01 /\\ n + d > 0.5 +/- 0.1")
    assert [clause.needs_labels for clause in condition.clauses] == [False, True]
    assert condition.needs_labels
    assert not parse_condition("d < 0.1 +/- 0.01").needs_labels


@pytest.mark.parametrize(
    ("source", "claim"),
    [
        ("2 * n > 1.6 +/- 0.2", Claim("n", True, 0.8, 0.1)),
        ("-4 * d > -2 +/- 1", Claim("d", False, 0.5, 0.25)),
        ("o - n < 0.5 +/- 0.25", Claim("n - o", True, -0.5, 0.25)),
        ("n - o < 0 +/- 0.25", Claim("n - o", False, 0.0, 0.25)),
        ("n - 2 * o < 0.5 +/- 0.25", Claim("linear", False, 0.5, 0.25)),
        ("n - o + d < 0.5 +/- 0.25", Claim("linear", False, 0.5, 0.25)),
    ],
)
def test_what_a_clause_claims(source, claim):
    assert claim_of(parse_condition(source).clauses[0]) == claim


def test_the_smallest_bound_on_d_counts():
    assert disagreement_bound(parse_condition("d < .3 +/- .1 /\\ -2*d > -.4 +/- .1 /\\ d > .1 +/- .1")) == 0.2
    assert disagreement_bound(parse_condition("n > .3 +/- .1 /\\ d > .1 +/- .1")) is None


def test_a_difference_below_the_bound_on_d_is_no_contradiction():
    assert contradiction(parse_condition("d < 0.1 +/- 0.01 /\\ n - o > 0.0999 +/- 0.01")) is None
    assert contradiction(parse_condition("d > 0.1 +/- 0.01 /\\ n - o > 0.2 +/- 0.01")) is None


def test_the_grammar_is_the_docstrings():
    rules = grammar().splitlines()
    assert [rule.split(" =")[0].strip("`") for rule in rules] == [
        "condition",
        "clause",
        "expression",
        "term",
        "factor",
        "number",
    ]
    assert rules[0] == '``condition = clause { "/\\" clause }``.'


@pytest.mark.parametrize(
    "source",
    [
        "(" * 10**6,
        "-" * MAX_LENGTH,
        "n" * 10**6,
        "n+" * 500,
        "1*" * 500,
        "n>1+/-1/\\" * 100,
        "9" * MAX_LENGTH,
        "\0" * 9,
    ],
)
def test_hostile_sources_end_in_the_one_error_and_a_short_message(source):
    with pytest.raises(ConditionSyntaxError) as caught:
        parse_condition(source)
    assert len(str(caught.value)) < 3 * MAX_LENGTH


def test_a_condition_has_so_many_clauses_and_no_more():
    clause = "n>.5+/-.1"
    assert len(parse_condition("/\\".join([clause] * MOST_CLAUSES)).clauses) == MOST_CLAUSES == 10
    with pytest.raises(ConditionSyntaxError, match="at most 10 clauses, and this one goes on") as caught:
        parse_condition("/\\".join([clause] * (MOST_CLAUSES + 1)))
    source, caret = str(caught.value).splitlines()[1:3]
    assert caret.index("^") - source.index("n") == 10 * len(clause) + 9 * len("/\\")  # under the one too many


def test_long_is_not_wrong():
    source = "n" + " + n" * 200 + " > 1 +/- 1"
    assert str(parse_condition(source)) == "201 * n > 1 +/- 1"


@pytest.mark.parametrize("source", [None, 3, b"n > 1 +/- 1", ["n"]])
def test_what_is_not_text_is_refused(source):
    with pytest.raises(ConditionSyntaxError, match="a condition is text, got"):
        parse_condition(source)


PIECES = st.sampled_from(
    ["n", "o", "d", "x", "0.1", "1e9", "1e-9", "0", "+", "-", "*", ">", "<", "+/-", "/\\", " ", "("]
)


@settings(deadline=None, max_examples=examples(400))
@given(
    st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=25).map("".join), st.text(alphabet="nod0.1e+-/\\*<> "))
)
@example("n > 1" + "e" * 40)
@example("\ud800")
def test_no_text_raises_anything_else(source):
    refused = None
    try:
        condition = parse_condition(source)
    except ConditionSyntaxError as error:
        refused = error
    if refused is None:
        assert parse_condition(str(condition)) == condition
    else:
        assert refused.source == source
        assert 0 <= refused.start <= len(source)


SIZES = st.floats(1e-9, 1e9)
WEIGHTS = st.one_of(SIZES, SIZES.map(lambda x: -x), st.sampled_from([1.0, -1.0, 0.1, -2.0]))
CLAUSES = st.builds(
    lambda weights, comparison, threshold, tolerance: Clause(
        tuple((v, weights[v]) for v in ("n", "o", "d") if v in weights), comparison, threshold, tolerance
    ),
    st.dictionaries(st.sampled_from(["n", "o", "d"]), WEIGHTS, min_size=1),
    st.sampled_from("<>"),
    st.one_of(st.just(0.0), WEIGHTS),
    SIZES,
)


@settings(deadline=None, max_examples=examples(300))
@given(st.lists(CLAUSES, min_size=1, max_size=4))
def test_canonical_source_reads_back_as_the_same_tree(clauses):
    condition = Condition(tuple(clauses))
    assume(contradiction(condition) is None)
    assert parse_condition(str(condition)) == condition


def test_reading_a_condition_imports_nothing_heavy():
    code = (
        "import sys; from easeml_core.gate.condition import parse_condition; parse_condition('n > 1 +/- 1');"
        "print(sorted({'numpy', 'scipy', 'sqlalchemy', 'airflow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
