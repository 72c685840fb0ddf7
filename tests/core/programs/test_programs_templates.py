"""The table of templates: which row a program falls to, what its letters stand for, why the rows above do not match."""

from __future__ import annotations

import itertools
from importlib.metadata import EntryPoint

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from program_strategies import PROGRAMS
from property_sizes import examples

from easeml_core.data.layout import Layout
from easeml_core.entities import Task
from easeml_core.errors import InvalidInputError, ProgramError
from easeml_core.programs import templates as module
from easeml_core.programs.data_type import Category, DataType, Program, Tensor
from easeml_core.programs.language import parse_data_type, parse_pattern, parse_program
from easeml_core.programs.pattern import as_schema, as_seen, match_patterns
from easeml_core.programs.schema_match import MAX_STEPS, Match, Mismatch, Steps, match_schema
from easeml_core.programs.templates import TEMPLATES, Template, Workload, load_templates, match_program
from easeml_core.training.trainers import NOT_TRAINED, TRAINERS, trainer_of

SERIES_OF_SCHEMA = "input:\n  nodes: {s: {fields: {x: {type: tensor, dim: [n]}}, links: {s: 1}}}\n"
LABEL = "output:\n  nodes: {y: {singleton: true, type: category, class: k}}\n  classes: {k: {dim: 3}}\n"
TABLE = (
    "input:\n  nodes:\n    numbers: {singleton: true, type: tensor, dim: [12]}\n"
    "    colour: {singleton: true, type: category, class: colours}\n  classes: {colours: {dim: 7}}\n"
)

# Program, row, and what its letters and names stand for. The first is the paper's.
ROWS = [
    ("{input: {[Tensor[256,256,3]], []}, output: {[Tensor[3]], []}}", "1", {"A": 256, "B": 256, "C": 3, "D": 3}),
    ("{input: {[Tensor[10]], [next]}, output: {[Tensor[5]], [n]}}", "4", {"A": 10, "D": 5, "a": "next", "b": "n"}),
    ("{input: {[Tensor[9,8,1]], []}, output: {[Tensor[7,6,5]], []}}", "2", dict(A=9, B=8, C=1, D=7, E=6, F=5)),
    ("{input: {[Tensor[10]], [next]}, output: {[Tensor[3]], []}}", "3", {"A": 10, "a": "next", "D": 3}),
    ("{input: {[Tensor[10]], [l, r]}, output: {[Tensor[3]], []}}", "5", {"A": 10, "a": "l", "b": "r", "D": 3}),
    ("{input: {[Tensor[10]], []}, output: {[Category[3]], []}}", "5a", {"A": (10,), "D": 3}),
    ("{input: {[Tensor[10], Category[4]], []}, output: {[Category[3]], []}}", "5a", {"A": (10, 4), "D": 3}),
    ("{input: {[Tensor[10]], []}, output: {[Tensor[3]], []}}", "5b", {"A": (10,), "D": 3}),
    ("{input: {[Category[10]], []}, output: {[x :: Tensor[1]], []}}", "5b", {"A": (10,), "D": 1}),
    ("{input: {[Tensor[2,2]], []}, output: {[Tensor[3]], []}}", "6", {"D": 3}),
    ("{input: {[Tensor[2]], [a,b,c]}, output: {[Category[3]], []}}", "6", {"D": 3}),
    ("{input: {[Tensor[2,2], Tensor[1]], []}, output: {[Tensor[3]], []}}", "6", {"D": 3}),
    ("{input: {[Tensor[2]], []}, output: {[Tensor[2,2]], []}}", "7", {}),
    ("{input: {[], [a]}, output: {[], [a]}}", "7", {}),
    (SERIES_OF_SCHEMA + LABEL, "3", {"A": "n", "a": "s", "D": 3}),
    (SERIES_OF_SCHEMA.replace(": 1", ": [0, 1]") + LABEL, "3", {"A": "n", "a": "s", "D": 3}),
    (SERIES_OF_SCHEMA.replace(": 1", ": [0, 2]") + LABEL, "5", {"A": "n", "a": "s", "b": "s", "D": 3}),
    (SERIES_OF_SCHEMA.replace(": 1", ": [0, inf]") + LABEL, "6", {"D": 3}),
    (SERIES_OF_SCHEMA.replace(", links: {s: 1}", "") + LABEL, "6", {"D": 3}),
    (SERIES_OF_SCHEMA + "  ref-constraints: {cyclic: true}\n" + LABEL, "6", {"D": 3}),
    (TABLE + LABEL, "5a", {"A": (7, 12), "D": 3}),
    (TABLE + "output:\n  nodes: {y: {singleton: true, type: tensor, dim: [1]}}\n", "5b", {"A": (7, 12), "D": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("text", "row", "mapping"), ROWS)
def test_programs_fall_to_their_rows(text, row, mapping):
    found = match_program(parse_program(text), TEMPLATES)
    assert found.template is not None
    assert (found.template.name, dict(found.mapping)) == (row, mapping)
    above = [template.name for template in TEMPLATES[: TEMPLATES.index(found.template)]]
    assert [name for name, _ in found.rejected] == above


def test_the_rows_stand_in_the_paper_s_order_with_its_candidates():
    assert [template.name for template in TEMPLATES] == ["1", "2", "3", "4", "5", "5a", "5b", "6", "7"]
    named = {template.name: template.workloads[0].candidates for template in TEMPLATES}
    assert named["1"] == (
        "alexnet", "resnet", "googlenet", "squeezenet", "vgg", "network_in_network", "alexnet_batch_norm",
        "mobilenet", "efficientnet",
    )  # fmt: skip
    assert named["2"] == ("auto_encoder", "u_net", "gan", "pix2pix")
    assert named["3"] == ("rnn", "lstm", "bi_lstm", "gru", "cnn_1d", "rocket")
    assert named["4"] == ("seq2seq",)
    assert named["5"] == ("tree_rnn", "tree_kernel_svm")
    assert named["6"] == ("bit_rnn",)
    assert named["7"] == ("bit_auto_encoder",)


LAYOUTS = {
    "1": Layout("image", (9, 8, 3)),
    "2": Layout("image", (9, 8, 3)),
    "3": Layout("series", (12, 2)),
    "4": Layout("series", (12, 2)),
    "5": Layout("tree", (9, 4)),
    "5a": Layout("table", (10,)),
    "5b": Layout("table", (10,)),
    "6": Layout("table", (4,)),
    "7": Layout("table", (4,)),
}
ANSWERS = {"2": Layout("image", (4, 4, 1)), "4": Layout("series", (5, 1)), "7": Layout("table", (4,))}


@pytest.mark.parametrize(
    ("row", "name"), [(row, name) for row in TEMPLATES for work in row.workloads for name in work.candidates]
)
def test_every_candidate_can_be_trained_on_such_data_or_says_why_not(row, name):
    answer = ANSWERS.get(row.name)
    numbers = [answer] if answer else [
        work for work in row.workloads if work.targets == "numbers" and name in work.candidates
    ]  # fmt: skip
    if name in NOT_TRAINED:
        assert name not in TRAINERS
        with pytest.raises(InvalidInputError, match=f"{name} cannot be trained yet: it"):
            trainer_of(name)
        return
    for task in [Task.REGRESSION] * len(numbers) or [Task.CLASSIFICATION]:
        assert TRAINERS[name].misfit(LAYOUTS[row.name], task, answer) == ""


def test_what_cannot_be_trained_is_called_for_by_some_row():
    assert set(NOT_TRAINED) <= {name for row in TEMPLATES for work in row.workloads for name in work.candidates}


def test_targets_decide_between_classification_and_regression():
    program = parse_program("{input: {[Tensor[10]], []}, output: {[Tensor[3]], []}}")
    names = {targets: [w.name for w in match_program(program, TEMPLATES, targets=targets).workloads] for targets in
             (None, "one-hot", "numbers")}  # fmt: skip
    assert names[None] == ["table classification", "table regression"]
    assert (names["one-hot"], names["numbers"]) == (["table classification"], ["table regression"])
    images = parse_program("{input: {[Tensor[9,9,1]], []}, output: {[Tensor[3]], []}}")
    assert match_program(images, TEMPLATES, targets="numbers").workloads[0].name == "image or tensor classification"
    only = Template("x", "*", "*", (Workload("classes", ("a",), targets="one-hot"),))
    found = match_program(program, [only], targets="numbers")
    assert (found.template, found.workloads) == (None, ())
    assert found.rejected == (("x", "output: the rows of the target are numbers"),)
    with pytest.raises(InvalidInputError, match="targets must be one of one-hot, numbers, several, got 'classes'"):
        match_program(program, TEMPLATES, targets="classes")


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ("{input: {[Tensor[10]], []}, output: {[Tensor[10]], []}}", "7"),
        ("{input: {[Tensor[9,9,1]], []}, output: {[Tensor[3]], []}}", "7"),
        ("{input: {[Tensor[10]], [a]}, output: {[Tensor[3]], []}}", "7"),
        ("{input: {[Tensor[10]], []}, output: {[Tensor[3,3,1]], []}}", "7"),
        ("{input: {[Tensor[9,9,1]], []}, output: {[Tensor[3,3,1]], []}}", "2"),
        ("{input: {[Tensor[10]], [a]}, output: {[Tensor[3]], [b]}}", "4"),
    ],
)
def test_several_numbers_are_for_rows_that_answer_with_several(text, row):
    found = match_program(parse_program(text), TEMPLATES, targets="several")
    assert found.template is not None
    assert found.template.name == row


@pytest.mark.parametrize(
    ("side", "pattern", "reason"),
    [
        ("{[Tensor[10]], []}", "{[Tensor[A,B,C]], []}", "Tensor[10] is not Tensor[A,B,C]"),
        ("{[x :: Tensor[10]], []}", "{[Tensor[3]], []}", "x :: Tensor[10] is not Tensor[3]"),
        ("{[Tensor[10]], []}", "{[Category[A]], []}", "Tensor[10] is not Category[A]"),
        ("{[Tensor[10]], []}", "{[Tensor[A]], [a]}", "it has 0 links, the template needs 1"),
        ("{[Tensor[10]], [a]}", "{[Tensor[A]], []}", "it has 1 link, the template needs none"),
        ("{[Tensor[10]], [a]}", "{[Tensor[A]], [a, b, ...]}", "it has 1 link, the template needs at least 2"),
        ("{[Tensor[1], Tensor[2]], []}", "{[Tensor[A]], []}", "it has 2 fields, the template needs 1"),
        ("{[Tensor[1]], []}", "{[Tensor[A], Tensor[B], ...], []}", "it has 1 field, the template needs at least 2"),
        ("{[Tensor[1], Tensor[2,2]], []}", "{[Tensor[A]+], []}", "Tensor[2,2] is not Tensor[A]+"),
        ("{[Tensor[1], Tensor[2]], []}", "{[Tensor[A], Tensor[A]], []}", "Tensor[2] is not Tensor[A] with A=1"),
        ("{[Tensor[1,1], Tensor[2]], []}", "{[Tensor[A,A], Tensor[A]], []}", "Tensor[2] is not Tensor[A] with A=1"),
        ("nodes: {a: {links: {a: 1}}, b: {links: {b: 1}}}", "{[...], [...]}", "it has several nodes"),
        ("nodes: {a: {links: {a: 1}}}\nref-constraints: {fan-in: true}", "{[...], [...]}", "with fan-in"),
        ("nodes: {a: {links: {a: 9}}}", "{[...], [...]}", "its links have no limit of at most 8"),
    ],
)  # fmt: skip
def test_a_side_that_does_not_match_says_why(side, pattern, reason):
    given = parse_data_type(side)
    answer = match_patterns((parse_pattern(pattern), parse_pattern("*")), Program(given, given), Steps())
    assert isinstance(answer, Mismatch)
    assert answer.reason.startswith("input: ")
    assert reason in answer.reason


@pytest.mark.parametrize(
    ("side", "pattern", "mapping"),
    [
        ("{[Tensor[3,4]], []}", "{[Tensor[A,...]], []}", {"A": 3}),
        ("{[Category[3]], []}", "{[Tensor[...]], []}", {}),
        ("{[Tensor[2,2], Tensor[7]], []}", "{[Tensor[A], Tensor[B,B]], []}", {"A": 7, "B": 2}),
        ("{[Tensor[1], Tensor[2], Tensor[2,9]], []}", "{[Tensor[A], Tensor[A,B], ...], []}", {"A": 2, "B": 9}),
        ("{[x :: Tensor[1], Tensor[2]], [l]}", "{[v :: Tensor[1], w :: Tensor[2]], [a]}", {"v": "x", "a": "l"}),
        ("{[Tensor[5], Tensor[2,2], Tensor[6]], []}", "{[Tensor[A]+, Tensor[B,B]], []}", {"A": (5, 6), "B": 2}),
        ("{[Tensor[5]], [l, m]}", "{[...], [a, ...]}", {"a": "l"}),
        ("{[], [l]}", "{[], [a]}", {"a": "l"}),
        ("nodes: {x: {singleton: true, type: tensor, dim: ['n*', 3]}}", "{[Tensor[A,B]], []}", {"A": "n", "B": 3}),
    ],
)
def test_letters_and_names_stand_for_what_is_there(side, pattern, mapping):
    given = parse_data_type(side)
    answer = match_patterns((parse_pattern(pattern), parse_pattern("*")), Program(given, given), Steps())
    assert answer == mapping


def test_a_letter_is_the_same_number_in_input_and_output():
    same = Template("same", "{[Tensor[A], Tensor[B]], []}", "{[Tensor[B]], []}", (Workload("w", ("c",)),))
    program = "{input: {[Tensor[2], Tensor[3]], []}, output: {[Tensor[SIZE]], []}}"
    for size, found in ((2, {"A": 3, "B": 2}), (3, {"A": 2, "B": 3})):
        assert match_program(parse_program(program.replace("SIZE", str(size))), [same]).mapping == found
    (name, why), = match_program(parse_program(program.replace("SIZE", "4")), [same]).rejected  # fmt: skip
    assert (name, why) == ("same", "input and output together: Tensor[4] is not Tensor[B] with B=3")
    with pytest.raises(ProgramError, match="A stands in a repeated field"):
        Template("x", "{[Tensor[A]+], []}", "{[Tensor[A]], []}", (Workload("w", ("c",)),))


def test_a_template_may_be_a_schema():
    row = Template("s", "nodes: {x: {singleton: true, type: tensor, dim: [h, h]}}", "*", (Workload("w", ("c",)),))
    for text in (
        "{input: {[Tensor[8,8]], []}, output: {[Tensor[1]], []}}",
        "input: {nodes: {field_1: {singleton: true, type: tensor, dim: [8, 8]}}}\n" + LABEL,
    ):
        assert match_program(parse_program(text), [row]).mapping == {"input.h": 8, "input.x": "field_1"}
    (rejected,) = match_program(
        parse_program("{input: {[Tensor[8,9]], []}, output: {[Tensor[1]], []}}"), [row]
    ).rejected
    assert rejected[1].startswith("input: x of the module, field_1 of the data: [h,h] of the module cannot be [8,9]")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Template("x", "{[Tensor[0]], []}", "*", (Workload("w", ("c",)),)), "a size is from 1"),
        (lambda: Template("x", "*", "*", ()), "template 'x' has no workload"),
        (lambda: Workload("w", ()), "a tuple of names of candidates"),
        (lambda: Workload("w", ("c", "c")), "a candidate comes twice"),
        (lambda: Workload("w", "c"), "a tuple of names of candidates"),
        (lambda: Workload("w", ("c",), targets="x"), "targets must be one of"),
    ],
)
def test_rows_are_checked_where_they_are_made(make, message):
    with pytest.raises(InvalidInputError, match=message):
        make()


OWN = Template("own", "{[Tensor[A,B,C]], []}", "*", (Workload("mine", ("my_model",)),))
MORE = [OWN, Template("second", "*", "{[Tensor[A,B]], []}", (Workload("mine", ("other",)),))]
NOTHING, WRONG = None, [OWN, "text"]


def points(monkeypatch, **targets):
    """Entry points that lead to names of this module."""
    monkeypatch.setitem(__import__("sys").modules, "installed_rows", __import__("types").SimpleNamespace(**globals()))
    found = [EntryPoint(name, f"installed_rows:{target}", module.GROUP) for name, target in targets.items()]
    monkeypatch.setattr(module, "entry_points", lambda *, group: found if group == module.GROUP else [])


def test_rows_of_other_distributions_come_first(monkeypatch):
    points(monkeypatch, b="MORE", a="OWN")
    assert [row.name for row in load_templates()] == ["own", "own", "second", *(row.name for row in TEMPLATES)]
    found = match_program(parse_program("{input: {[Tensor[9,9,1]], []}, output: {[Tensor[3]], []}}"))
    assert found.workloads == (Workload("mine", ("my_model",)),)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("missing", "the entry point 'a' of easeml.templates cannot be loaded from 'installed_rows:missing'"),
        ("NOTHING", "must lead to templates, got NoneType"),
        ("WRONG", "must lead to templates, got str"),
    ],
)
def test_a_wrong_entry_point_is_named(monkeypatch, target, message):
    points(monkeypatch, a=target)
    with pytest.raises(InvalidInputError, match=message):
        load_templates()


def test_without_other_distributions_the_table_is_all():
    assert load_templates() == TEMPLATES


def test_a_wide_table_is_matched_within_the_bound():
    columns = DataType(tuple(Tensor((1 + k % 5,)) for k in range(3000)))
    steps = Steps()
    for template in TEMPLATES:
        wanted = parse_pattern(template.input), parse_pattern(template.output)
        match_patterns(wanted, Program(columns, DataType((Tensor((2, 2)),))), steps)
    assert steps.taken < MAX_STEPS / 10


def test_the_work_is_bounded():
    fields = ", ".join(f"Tensor[A{k},Z]" for k in range(12))
    row = Template("x", f"{{[{fields}], []}}", "*", (Workload("w", ("c",)),))
    side = DataType(tuple(Tensor((k + 1, 1 + (k == 11))) for k in range(12)))
    wanted = parse_pattern(row.input), parse_pattern(row.output)
    with pytest.raises(InvalidInputError, match="matching was given up after 20,000 steps"):
        match_patterns(wanted, Program(side, side), Steps(20_000))


@settings(deadline=None, max_examples=examples(200))
@given(PROGRAMS)
def test_every_program_falls_to_some_row(program):
    assert match_program(program, TEMPLATES).template is not None


@settings(deadline=None, max_examples=examples(200))
@given(PROGRAMS)
def test_both_forms_of_a_side_are_seen_alike(program):
    """A side of the paper's form and its schema match one another, and fall to the same row."""
    if isinstance(program.input, DataType):
        other = Program(as_schema(program.input), as_schema(program.output))
        assert isinstance(match_schema(other.input, as_schema(program.input)), Match)
        if len(program.input.links) <= 8 and len(program.output.links) <= 8:
            one, two = match_program(program, TEMPLATES), match_program(other, TEMPLATES)
            assert one.template == two.template
            seen = [as_seen(side) for side in (program.input, other.input)]
            assert sorted(f.dims for f in seen[0].fields) == sorted(f.dims for f in seen[1].fields)


PARTS = st.sampled_from([Tensor((1,)), Tensor((2,)), Tensor((1, 2)), Tensor((2, 2)), Category(1), Category(2)])
WANTED = ["Tensor[A]", "Tensor[B]", "Tensor[2]", "Tensor[A,B]", "Tensor[A,A]", "Category[A]", "Tensor[A,...]"]


def stands_for(text, part, values):
    kind, dims = text.rstrip("]").split("[")
    given = (part.size,) if isinstance(part, Category) else part.dims
    want = [values.get(word, word) for word in dims.split(",")]
    if kind == "Category" and not isinstance(part, Category):
        return False
    if want[-1] == "...":
        want, given = want[:-1], given[: len(want) - 1]
    return [str(size) for size in want] == [str(size) for size in given]


@settings(deadline=None, max_examples=examples(400))
@given(
    st.lists(PARTS, min_size=1, max_size=4), st.lists(st.sampled_from(WANTED), min_size=1, max_size=3), st.sampled_from(
        ["", "...", "Tensor[Z]+", "Tensor[Y,Z]+"]
    ), PARTS, st.sampled_from(WANTED)
)  # fmt: skip
def test_patterns_match_as_a_brute_force_says(parts, wanted, rest, answer, asked):
    pattern = parse_pattern(f"{{[{', '.join([*wanted, *([rest] if rest else [])])}], []}}")
    output = parse_pattern(f"{{[{asked}], []}}")
    program = Program(DataType(tuple(parts)), DataType((answer,)))
    found = match_patterns((pattern, output), program, Steps())

    def possible(order, values):
        head, tail = order[: len(wanted)], order[len(wanted) :]
        if len(head) < len(wanted) or not all(stands_for(w, p, values) for w, p in zip(wanted, head, strict=True)):
            return False
        dims = [1 if isinstance(part, Category) else len(part.dims) for part in tail]
        return {"": not tail, "...": True}.get(rest, bool(tail) and all(d == rest.count(",") + 1 for d in dims))

    expected = any(
        stands_for(asked, answer, {"A": a, "B": b}) and possible(order, {"A": a, "B": b})
        for a, b in itertools.product((1, 2), repeat=2)
        for order in itertools.permutations(parts)
    )
    assert isinstance(found, Mismatch) is not expected
