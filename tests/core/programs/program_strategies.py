"""Random programs, schemas and patterns, for Hypothesis."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from easeml_core.programs.data_type import Category, DataType, Program, Tensor
from easeml_core.programs.pattern import FieldPattern, TypePattern
from easeml_core.programs.schema import CategoryClass, CategoryField, Link, Node, Schema, TensorField

SIZES = st.one_of(st.integers(1, 5), st.integers(1, 10**9))
PAPER_NAMES = st.from_regex(r"[a-z0-9_]{1,6}", fullmatch=True)
# YAML reads some words as something else than text; they must survive all the same.
NAMES = st.one_of(
    st.from_regex(r"[a-z_][0-9a-z_]{0,5}", fullmatch=True), st.sampled_from(["no", "null", "inf", "y", "_"])
)
LETTERS = st.from_regex(r"[A-Z][0-9A-Z_]{0,2}", fullmatch=True)


@st.composite
def data_types(draw: Any) -> Any:
    names = draw(st.lists(PAPER_NAMES, unique=True, max_size=6))
    cut = draw(st.integers(0, len(names)))
    labels = [*names[:cut], *draw(st.lists(st.just(""), max_size=3))]
    tensors = st.lists(SIZES, min_size=1, max_size=4).map(tuple)
    fields = [
        Tensor(draw(tensors), name) if draw(st.booleans()) else Category(draw(SIZES), name)
        for name in draw(st.permutations(labels))
    ]
    links = names[cut:]
    return DataType(tuple(fields), tuple(links)) if fields or links else DataType((Tensor((1,)),))


FIELD_PATTERNS = st.one_of(
    st.builds(
        FieldPattern,
        st.just("Tensor"),
        st.lists(st.one_of(SIZES, LETTERS), min_size=1, max_size=3).map(tuple),
        st.booleans(),
        st.just(""),
        st.just(False),
    ),
    st.just(FieldPattern("Tensor", (), more_dims=True)),
    st.builds(FieldPattern, st.just("Category"), st.tuples(LETTERS)),
)


@st.composite
def type_patterns(draw: Any) -> Any:
    fields = draw(st.lists(FIELD_PATTERNS, min_size=1, max_size=3))
    links = draw(st.lists(PAPER_NAMES, unique=True, max_size=3))
    if draw(st.booleans()):
        fields.append(FieldPattern("Tensor", ("REPEATED",), repeated=True))
    return TypePattern(tuple(fields), tuple(links), draw(st.booleans()), draw(st.booleans()))


@st.composite
def dim_lists(draw: Any, sizes: Any = st.integers(1, 3), names: Any = st.sampled_from("ab")) -> Any:  # noqa: B008 - strategies are immutable
    dims = draw(st.lists(st.one_of(sizes, names), min_size=1, max_size=3))
    at = draw(st.integers(0, len(dims) - 1))
    if isinstance(dims[at], str):
        dims[at] += draw(st.sampled_from(["", "", "+", "?", "*"] if len(dims) > 1 else ["", "", "+"]))
    return tuple(dims)


@st.composite
def schemas(
    draw: Any,
    *,
    names: Any = NAMES,
    dims: Any = dim_lists(),  # noqa: B008 - strategies are immutable
    sizes: Any = st.integers(1, 3),  # noqa: B008 - strategies are immutable
    most: int = 3,
    links: bool = True,
) -> Any:
    """A schema of few small parts."""
    node_names = draw(st.lists(names, unique=True, min_size=1, max_size=most))
    classes = draw(st.lists(names, unique=True, min_size=1, max_size=2))
    kinds = {name: draw(st.booleans()) for name in node_names}
    many = [name for name in node_names if not kinds[name]]
    flags = draw(st.sampled_from([{}, {"cyclic": True}, {"fan_in": True}, {"undirected": True, "fan_in": True}]))

    def field(name: Any) -> Any:
        if draw(st.integers(0, 2)):
            return TensorField(name, draw(dims))
        return CategoryField(name, draw(st.sampled_from(classes)))

    nodes = []
    for name in node_names:
        if kinds[name]:
            nodes.append(Node(name, (field(draw(names)),), singleton=True))
            continue
        fields = tuple(field(part) for part in draw(st.lists(names, unique=True, min_size=1, max_size=2)))
        targets = draw(st.lists(st.sampled_from(many), unique=True, max_size=2)) if links else []
        ends = {target: (draw(st.integers(0, 2)), draw(st.sampled_from([2, 3, None]))) for target in targets}
        nodes.append(Node(name, fields, tuple(Link(target, *end) for target, end in ends.items())))
    used = {part.category for node in nodes for part in node.fields if isinstance(part, CategoryField)}
    variable = st.one_of(sizes, st.sampled_from("ab"))
    return Schema(tuple(nodes), tuple(CategoryClass(name, draw(variable)) for name in sorted(used)), **flags)


PROGRAMS = st.one_of(st.builds(Program, data_types(), data_types()), st.builds(Program, schemas(), schemas()))
