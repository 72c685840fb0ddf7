"""The paper's form: what is read, what is refused and where the caret stands, and what text can never do."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from program_strategies import PROGRAMS, data_types, type_patterns
from property_sizes import examples

from easeml_core.errors import ProgramError
from easeml_core.programs.data_type import Category, DataType, Program, Tensor
from easeml_core.programs.language import grammar, parse_any, parse_data_type, parse_pattern, parse_program
from easeml_core.programs.pattern import Anything, FieldPattern, TypePattern
from easeml_core.programs.schema import MAX_DIMS, MAX_LENGTH, MAX_NAME, MAX_PARTS, MAX_SIZE

IMAGES = Program(DataType((Tensor((256, 256, 3)),)), DataType((Tensor((3,)),)))
SERIES = DataType((Tensor((10,)),), ("next",))

# The two examples of the paper, and ours for what else the grammar has.
ACCEPTED = [
    ("{input: {[Tensor[256,256,3]], []}, output: {[Tensor[3]], []}}", IMAGES),
    ("{input:{[Tensor[256,256,3]],[]},output:{[Tensor[3]],[]}}", IMAGES),
    ("{ input : { [ Tensor [ 256 , 256 , 3 ] ] , [ ] }\n, output:\t{[Tensor[03]],[]} # scores\n}", IMAGES),
    ("# a comment with nodes: in it\n{input: {[Tensor[256,256,3]], []}, output: {[Tensor[3]], []}}", IMAGES),
    ("{input: {[Tensor[10]], [next]}, output: {[Tensor[10]], [next]}}", Program(SERIES, SERIES)),
]
SIDES = [
    ("{[Tensor[1]], [left, right]}", DataType((Tensor((1,)),), ("left", "right"))),
    ("{[], [a]}", DataType((), ("a",))),
    (
        "{[x :: Tensor[2], 0::Tensor[3,4], Category[5]], []}",
        DataType((Tensor((2,), "x"), Tensor((3, 4), "0"), Category(5))),
    ),
    ("{[nodes :: Tensor[2]], []}", DataType((Tensor((2,), "nodes"),))),
    (f"{{[Tensor[{MAX_SIZE}]], []}}", DataType((Tensor((MAX_SIZE,)),))),
]

# Text, message, line, and the columns (from 1) under which the caret stands.
OUTPUT = ", output: {[Tensor[3]], []}}"
REJECTED = [
    ("", "expected a program such as", 1, (1, 2)),
    ("# nothing", "found the end", 1, (10, 11)),
    ("program", "found 'program'", 1, (1, 8)),
    ("{input {[Tensor[3]], []}" + OUTPUT, "expected ':', found '{'", 1, (8, 9)),
    ("{output: {[Tensor[3]], []}}", "expected 'input', found 'output'", 1, (2, 8)),
    ("{input: {[Tensor[3]]}" + OUTPUT, "expected ',' and the links in brackets, which may be empty: []", 1, (21, 22)),
    ("{input: {[Tensor[3]], [next}" + OUTPUT, "expected ',' and another link, or ']', found '}'", 1, (28, 29)),
    ("{input: {[Tensor[3] Tensor[3]], []}" + OUTPUT, "another field, or ']', found 'Tensor'", 1, (21, 27)),
    ("{input: {[Tensor[3],], []}" + OUTPUT, "expected a field such as Tensor[10], or ']', found ']'", 1, (21, 22)),
    ("{input: {[Tensr[3]], []}" + OUTPUT, "unknown kind of field 'Tensr'; known are Tensor, Category", 1, (11, 16)),
    ("{input: {[x :: Matrix[3]], []}" + OUTPUT, "unknown kind of field 'Matrix'", 1, (11, 22)),
    ("{input: {[Tensor], []}" + OUTPUT, "expected '[' and the size, such as Tensor[10]", 1, (17, 18)),
    ("{input: {[Tensor[]], []}" + OUTPUT, "a tensor has at least one dimension", 1, (11, 19)),
    ("{input: {[Tensor[0]], []}" + OUTPUT, "a size is from 1 to 1,000,000,000, got '0'", 1, (18, 19)),
    ("{input: {[Tensor[1000000001]], []}" + OUTPUT, "a size is from 1 to", 1, (18, 28)),
    ("{input: {[Tensor[" + "9" * 5000 + "]], []}" + OUTPUT, "000,000, got '9999", 1, (18, 5018)),
    ("{input: {[Tensor[-3]], []}" + OUTPUT, "expected a size: a whole number such as 10, found '-'", 1, (18, 19)),
    ("{input: {[Tensor[3.5]], []}" + OUTPUT, "expected ',' and another size, or ']', found '.'", 1, (19, 20)),
    ("{input: {[Tensor[A]], []}" + OUTPUT, "expected a size: a whole number such as 10, found 'A'", 1, (18, 19)),
    ("{input: {[Tensor[\u0663]], []}" + OUTPUT, "expected a size", 1, (18, 19)),
    ("{input: {[Tensor[3,...]], []}" + OUTPUT, "found '...'", 1, (20, 23)),
    ("{input: {[Tensor[3]+], []}" + OUTPUT, "expected ',' and another field, or ']', found '+'", 1, (20, 21)),
    ("{input: *" + OUTPUT, "expected an object such as", 1, (9, 10)),
    ("{input: {[X :: Tensor[3]], []}" + OUTPUT, "the name of a field has small letters", 1, (11, 25)),
    ("{input: {[Tensor[3]], [Next]}" + OUTPUT, "the name of a link has small letters", 1, (24, 28)),
    ("{input: {[a :: Tensor[3]], [a]}" + OUTPUT, "the name 'a' comes twice in one object", 1, (9, 32)),
    ("{input: {[], []}" + OUTPUT, "an object has at least one field or link", 1, (9, 17)),
    ("{input: {[Category[3,4]], []}" + OUTPUT, "a category has one size", 1, (11, 24)),
    ("{input: {[Tensor[3]], []}" + OUTPUT + " {", "expected nothing more, found '{'", 1, (55, 56)),
    ("{input: {[Tensor[3]], []},\n\n output: {[Tensor[3]] []}}", "expected ',' and the links", 3, (23, 24)),
]  # fmt: skip


@pytest.mark.parametrize(("text", "program"), ACCEPTED)
def test_programs_are_read(text, program):
    assert parse_program(text) == program
    assert parse_any(text) == program


@pytest.mark.parametrize(("text", "side"), SIDES)
def test_sides_are_read(text, side):
    assert parse_data_type(text) == side
    assert parse_any(text) == side


def test_canonical_text_of_the_paper_s_example():
    assert str(IMAGES) == "{input: {[Tensor[256,256,3]], []}, output: {[Tensor[3]], []}}"
    assert str(parse_data_type("{[0::Tensor[3,4],Category[5]],[a,b]}")) == "{[0 :: Tensor[3,4], Category[5]], [a, b]}"


@pytest.mark.parametrize(("text", "message", "line", "columns"), REJECTED)
def test_mistakes_are_shown_where_they_are(text, message, line, columns):
    with pytest.raises(ProgramError) as caught:
        parse_program(text)
    error = caught.value
    assert message in str(error)
    assert (error.line, error.column) == (line, columns[0])
    assert error.end - error.start == columns[1] - columns[0]


def test_the_caret_stands_under_the_place():
    with pytest.raises(ProgramError) as caught:
        parse_program("{input: {[Tensor[0]], []},\n output: {[Tensor[3]], []}}")
    assert str(caught.value) == (
        "program, line 1, column 18: a size is from 1 to 1,000,000,000, got '0'\n"
        "    {input: {[Tensor[0]], []},\n"
        "                     ^"
    )


def test_of_a_long_line_the_part_around_the_caret_is_shown():
    text = "{input: {[" + "Tensor[1], " * 500 + "Tensor[0]], []}}"
    with pytest.raises(ProgramError) as caught:
        parse_program(text)
    head, shown, carets = str(caught.value).splitlines()
    assert len(head) + len(shown) + len(carets) < 350
    assert shown[carets.index("^")] == "0"


def test_an_error_survives_pickling():
    with pytest.raises(ProgramError) as caught:
        parse_program("{input: {[Tensor[0]]")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.line, again.column) == (str(caught.value), 1, 18)


PATTERNS = [
    ("*", Anything()),
    ("{[Tensor[A,B,C]],[]}", TypePattern((FieldPattern("Tensor", ("A", "B", "C")),))),
    ("{[Tensor[A,...]], [a, ...]}", TypePattern((FieldPattern("Tensor", ("A",), True),), ("a",), False, True)),
    ("{[x::Tensor[3]+, ...], [...]}", TypePattern((FieldPattern("Tensor", (3,), False, "x", True),), (), True, True)),
    ("{[Tensor[...]], []}", TypePattern((FieldPattern("Tensor", (), True),))),
    ("{[Category[N]], [...]}", TypePattern((FieldPattern("Category", ("N",)),), (), False, True)),
]  # fmt: skip


@pytest.mark.parametrize(("text", "pattern"), PATTERNS)
def test_patterns_are_read(text, pattern):
    assert parse_pattern(text) == pattern
    assert parse_pattern(str(pattern)) == pattern


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("**", "expected nothing more, found '\\*'"),
        ("{[Tensor[a]], []}", "expected a size: a whole number, or a letter such as A, found 'a'"),
        ("{[Tensor[Ab]], []}", "a letter that stands for a number is a capital one, got 'Ab'"),
        ("{[Tensor[...,A]], []}", "expected ',' and another size, or ']', found ','"),
        ("{[...,Tensor[A]], []}", "expected ',' and another field"),
        ("{[Category[...]], []}", "a category has one size"),
        ("{[Tensor[A], Tensor[A]+], []}", "A stands in a repeated field, where it is free each time, and elsewhere"),
        ("{[Tensor[A]+, Tensor[A,B]+], []}", "A stands in a repeated field"),
        ("{[], []}", "this pattern would match nothing"),
        ("{[a :: Tensor[A]], [a]}", "a name comes twice"),
    ],
)
def test_patterns_that_make_no_sense_are_refused(text, message):
    with pytest.raises(ProgramError, match=message):
        parse_pattern(text)


BOUNDED = [
    ("{[" + ", ".join(["Tensor[1]"] * (MAX_PARTS + 1)) + "], []}", "at most 3,000, got 3,001"),
    ("{[Tensor[" + ",".join("1" * (MAX_DIMS + 1)) + "]], []}", "dimensions of a tensor: at most 32, got 33"),
    ("{[" + "a" * (MAX_NAME + 1) + " :: Tensor[1]], []}", "at most 100 characters, got 101"),
    (" " * (MAX_LENGTH + 1), "at most 200,000 characters are read, got 200,001"),
]


@pytest.mark.parametrize(("text", "message"), BOUNDED, ids=range(len(BOUNDED)))
def test_sizes_are_bounded(text, message):
    with pytest.raises(ProgramError, match=message):
        parse_data_type(text)


@pytest.mark.parametrize("source", [None, 3, b"{}", ["{"]])
def test_what_is_no_text_is_refused(source):
    for read in (parse_program, parse_data_type, parse_pattern, parse_any):
        with pytest.raises(ProgramError, match="a program is text, got"):
            read(source)


def test_rules_hold_for_objects_made_in_python_too():
    for wrong in (lambda: Tensor(()), lambda: Tensor((0,)), lambda: Tensor((True,)), lambda: Category(0)):
        with pytest.raises(ProgramError):
            wrong()
    with pytest.raises(ProgramError, match="input and output must be in the same form"):
        Program(SERIES, parse_data_type("nodes: {t: {singleton: true, type: tensor, dim: [3]}}"))


@settings(deadline=None, max_examples=examples(200))
@given(PROGRAMS)
def test_canonical_text_reads_back_as_the_same_program(program):
    assert parse_program(str(program)) == program
    assert parse_any(str(program)) == program


@settings(deadline=None, max_examples=examples(200))
@given(st.one_of(data_types(), type_patterns()))
def test_canonical_text_of_a_side_or_pattern_reads_back_as_the_same(side):
    read = parse_pattern if isinstance(side, TypePattern) else parse_data_type
    assert read(str(side)) == side


WORDS = "{ } [ ] input output : :: , Tensor Category nodes 3 A a ... * + # ? singleton true type dim links classes"
PIECES = st.sampled_from([*WORDS.split(), " ", "\n", "\t", '"', "'", "- ", "&x ", "!!int "])
TEXTS = st.one_of(
    st.text(max_size=80),
    st.lists(PIECES, max_size=40).map("".join),
    st.lists(PIECES, max_size=20).map(lambda parts: "{input: {[" + "".join(parts)),
    st.lists(PIECES, max_size=20).map(lambda parts: "nodes: {a: {" + "".join(parts)),
)


@settings(deadline=None, max_examples=examples(600))
@given(TEXTS)
@example("\ud800")
@example("nodes: \x00")
@example("nodes: \ud800")
@example("nodes:\n\t- a")
@example("%YAML 9.9\n--- nodes:")
@example("nodes: {? {a: b} : c}")
@example("nodes: {<<: {a: b}}")
def test_no_text_raises_anything_else(text):
    for read in (parse_program, parse_data_type, parse_pattern, parse_any):
        refused = found = None
        try:
            found = read(text)
        except ProgramError as error:
            refused = error
        if refused is None:
            assert read(str(found)) == found
        else:
            assert refused.source in (text, "")
            assert 0 <= refused.start <= len(text)
            str(refused).encode("utf-8")


@settings(deadline=None, max_examples=examples(300))
@given(PROGRAMS.map(str), st.data())
def test_a_program_with_one_character_changed_is_read_or_refused(text, data):
    at = data.draw(st.integers(0, len(text)))
    changed = text[:at] + data.draw(st.sampled_from(["", "}", "]", ",", "0", "A", ":", "x", " ", "\n", "\t", "*", "!"]))
    changed += text[at + data.draw(st.integers(0, 1)) :]
    try:
        found = parse_program(changed)
    except ProgramError:
        return
    assert parse_program(str(found)) == found


def test_the_grammar_is_that_of_the_rules():
    assert grammar().splitlines()[0].startswith('``program = "{" "input" ":" type')
    assert len(grammar().splitlines()) == 7


def test_reading_a_program_imports_nothing_heavy():
    code = (
        "import sys; from easeml_core.programs.templates import match_program; "
        "from easeml_core.programs.language import parse_program; "
        "match_program(parse_program('{input: {[Tensor[3]], []}, output: {[Tensor[3]], []}}'));"
        "print(sorted({'numpy', 'scipy', 'sklearn', 'torch', 'sqlalchemy', 'airflow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
