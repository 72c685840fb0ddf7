"""The schema form: what is read, what is refused with which path, line and column, and what hostile text can never do.

The released ease.ml has a catalogue of schemas that it accepts and refuses (github.com/easeml/automl,
``schema/test-examples/schema/validate``); the facts below are those of the catalogue, in our words.
"""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from program_strategies import schemas
from property_sizes import examples

from easeml_core.errors import ProgramError
from easeml_core.programs.language import parse_data_type, parse_program
from easeml_core.programs.schema import (
    MAX_LENGTH,
    CategoryClass,
    CategoryField,
    Link,
    Node,
    Schema,
    TensorField,
    to_mapping,
)


def tensor(*dims, name="field"):
    return Node(name, (TensorField("field", dims),), singleton=True)


T = {"singleton": True, "type": "tensor", "dim": ["a"]}
C = {"singleton": True, "type": "category", "class": "cls1"}
FIELDS = {"fields": {"t1": {"type": "tensor", "dim": ["a"]}}}
LINKED = {"node1": {**FIELDS, "links": {"node1": [0, "inf"]}}}


def of_dims(*dims):
    return {"nodes": {"t1": {**T, "dim": list(dims)}}}


def of_link(link, target="node1"):
    return {"nodes": {"node1": {**FIELDS, "links": {target: link}}}}


RELEASED_ACCEPTED = [
    {"nodes": {"c1": C}, "classes": {"cls1": {"dim": "a"}}},
    {"nodes": {"c1": C}, "classes": {"cls1": {"dim": 16}}},
    {"nodes": {"c1": C, "c2": C}, "classes": {"cls1": {"dim": "a"}}},
    {"nodes": {"c1": C, "c2": {**C, "class": "cls2"}}, "classes": {"cls1": {"dim": 16}, "cls2": {"dim": "a"}}},
    {"nodes": {"t1": T, "c1": C}, "classes": {"cls1": {"dim": "a"}}},
    {"nodes": LINKED},
    *(of_link(link) for link in (1, [1, 1], [0, 1])),
    {"nodes": {"node1": {**FIELDS, "links": {"node2": 1}}, "node2": {**FIELDS, "links": {"node1": 1}}}},
    *(
        of_dims(*dims)
        for dims in (["a"], ["a?", "b"], ["a*", "b"], ["a+", "b"], ["a", "a+", "a"], [16, "a?"], [16, 16])
    ),
    {"nodes": {"node1": {"singleton": False, **FIELDS}}},
    {"nodes": {"node1": {"singleton": True, **FIELDS}}},
]

# Content, path, and a part of the message.
RELEASED_REFUSED = [
    ({"nodes": {"c1": C}}, "nodes.c1.fields.field", "the class 'cls1' is not declared under 'classes'"),
    ({"nodes": {"c1": C}, "classes": {"cls1": {"dim": "A"}}}, "classes.cls1", "a variable has small letters"),
    ({"nodes": {"c1": C}, "classes": {"cls1": {"dim": ["a", "a"]}}}, "classes.cls1.dim", "expected the number of"),
    ({"nodes": {"c1": {"singleton": True, "type": "category"}}}, "nodes.c1", "missing: class"),
    ({"nodes": {"t1": T}, "classes": {"cls2": {"dim": "a"}}}, "classes.cls2", "every declared class must be used"),
    ({"nodes": {"c1": {**C, "class": -1}}}, "nodes.c1.class", "expected the name of a class, a word"),
    ({"nodes": {"c1": {**C, "class": "A"}}}, "nodes.c1.class", "the name of a class has small letters"),
    ({"nodes": {"c1": C}, "classes": {"cls1": {}}}, "classes.cls1", "missing: dim"),
    ({"nodes": {"c1": C}, "classes": {"cls1": {"dim": -1}}}, "classes.cls1", "a whole number from 1 to"),
    (of_link([-1, "inf"]), "nodes.node1.links.node1", "the fewest links are a whole number from 0"),
    (of_link([5, 2]), "nodes.node1.links.node1", "the fewest links, 5, are more than the most, 2"),
    (of_link(-1), "nodes.node1.links.node1", "got -1"),
    (of_link(0), "nodes.node1.links.node1", "the most links (or 'inf') must be a whole number from 1"),
    (of_link("a"), "nodes.node1.links.node1", "expected the number of links"),
    (of_link(["a", "inf"]), "nodes.node1.links.node1", "expected the number of links"),
    (of_link(["inf", "inf"]), "nodes.node1.links.node1", "expected the number of links"),
    (of_link([1, 2, 3]), "nodes.node1.links.node1", "expected the number of links"),
    (of_link([1, "bla"]), "nodes.node1.links.node1", "expected the number of links"),
    (of_link([0, "inf"], "node2"), "nodes.node1.links.node2", "there is no node 'node2'"),
    (of_link(1, "T1"), "nodes.node1.links.T1", "the name of a link's target has small letters"),
    ({"nodes": None}, "nodes", "expected 'key: value' entries"),
    ({"nodes": {}}, "nodes", "a schema has at least one node"),
    ({"nodes": {"t1": T}, "classes": 0}, "classes", "expected 'key: value' entries"),
    ({"nodes": {"t1": T}, "ref-constraints": []}, "ref-constraints", "expected 'key: value' entries"),
    ({"nodes": {"t1": T}, "ref-constraints": {"cyclic": 0}}, "ref-constraints.cyclic", "expected true or false"),
    ({"nodes": {"t1": T}, "ref-constraints": {"undirected": None}}, "ref-constraints.undirected", "true or false"),
    ({"nodes": {"t1": T}, "ref-constraints": {"fan-in": ""}}, "ref-constraints.fan-in", "expected true or false"),
    ({"nodes": {"": T}}, "nodes.", "the name of a node has small letters"),
    ({"nodes": {"c1": C}, "classes": {"": {"dim": "a"}}}, "classes.", "the name of a class has small letters"),
    ({"nodes": {"t1": {**T, "singleton": None}}}, "nodes.t1.singleton", "expected true or false"),
    ({"nodes": {"t1": {"fields": None}}}, "nodes.t1.fields", "expected 'key: value' entries"),
    ({"nodes": {"t1": {**T, "links": {"t1": [0, 1]}}}}, "nodes.t1", "one field and no links, got 1 and 1"),
    ({"nodes": {"t1": {"fields": {}}}}, "nodes.t1", "a node has at least one field or link"),
    ({"nodes": {"t1": {"fields": {"T1": {}}}}}, "nodes.t1.fields.T1", "the name of a field has small letters"),
    ({"nodes": {"t1": {"singleton": True, "type": "bla"}}}, "nodes.t1.type", "unknown type 'bla'; known are"),
    ({"nodes": {"t1": {"singleton": True, "dim": ["a"]}}}, "nodes.t1", "missing: type"),
    ({"nodes": {"t1": {"singleton": True, "type": "tensor"}}}, "nodes.t1", "missing: dim"),
    (of_dims(), "nodes.t1.dim", "a tensor has at least one dimension"),
    (of_dims("a?"), "nodes.t1.dim", "'a?' alone may be none; use '+'"),
    (of_dims("a*"), "nodes.t1.dim", "'a*' alone may be none; use '+'"),
    (of_dims("a*", "a?"), "nodes.t1.dim", "at most one dimension may bear ?, + or *, got 'a*', 'a?'"),
    (of_dims(""), "nodes.t1.dim", "a variable has small letters"),
    (of_dims("0a"), "nodes.t1.dim", "a variable has small letters"),
    (of_dims("A"), "nodes.t1.dim", "a variable has small letters"),
    (of_dims("16*"), "nodes.t1.dim", "a variable has small letters"),
    (of_dims(None), "nodes.t1.dim[0]", "expected a size or a variable; YAML reads 'null' as no word"),
    (of_dims(-1), "nodes.t1.dim", "got -1"),
    (of_dims(True), "nodes.t1.dim[0]", "expected a size or a variable"),
    ({"nodes": {"t1": {**T, "dim": 0}}}, "nodes.t1.dim", "expected the dimensions, a list in brackets"),
    ({"nodes": {"t1": {"singleton": True, "fields": {"a": T, "b": T}}}}, "nodes.t1.fields.a.singleton", "unknown key"),
    ({"nodes": {"t1": {**T, "src-name": "x"}}}, "nodes.t1.src-name", "src-name is what a match finds out; leave"),
]  # fmt: skip

OURS_REFUSED = [
    ("nodes: {a: {links: {b: 1}}, b: {singleton: true, type: tensor, dim: [3]}}", "nodes.a.links.b", "is a singleton"),
    ("nodes: {a: {links: {a: 2}}}\nref-constraints: {undirected: true}", None, None),
    ("nodes: {a: {links: {a: 3}}}\nref-constraints: {undirected: true}", "nodes.a.links", "at most 2 links"),
    ("nodes: {a: {links: {a: [0, inf]}}}\nref-constraints: {undirected: true}", "nodes.a.links", "at most 2 links"),
    ("nodes: {a: {links: {a: [0, inf]}}}\nref-constraints: {undirected: true, fan-in: true}", None, None),
    ("nodes: {a: {singleton: true, type: tensor, dim: [3], class: x}}", "nodes.a.class", "unknown key 'class'"),
    ("nodes: {a: {type: tensor, dim: [3]}}", "nodes.a.type", "is for one with 'singleton: true'; else use 'fields'"),
    ("nodes: {a: {fields: {x: {type: tensor, dim: [3]}}, dim: [3]}}", "nodes.a.dim", "dim stands in a field"),
    ("nodes: {a: {singleton: true, type: tensor, dim: [3]}, a: {links: {a: 1}}}", "nodes.a", "the key 'a' comes twice"),
    ("nodes: {a: {singleton: true, type: tensor, dim: [010]}}", "nodes.a.dim[0]", "expected a size or a variable"),
    ("nodes: {a: {singleton: true, type: tensor, dim: [0x10]}}", "nodes.a.dim[0]", "expected a size or a variable"),
    ("nodes: {a: {singleton: true, type: tensor, dim: [1e3]}}", "nodes.a.dim", "a variable has small letters"),
    ("nodes: {a: {singleton: true, type: tensor, dim: [a?]}}", "", "put a word that ends in '?' in quotes"),
    ("nodes: {a: {singleton: true, type: category, class: no}}", "nodes.a.class", "YAML reads 'no' as no word, unless"),
    ("nodes: {a: {singleton: true, type: tensor, dim: &x [3]}}", "", "anchors, aliases and tags of YAML"),
    ("nodes: !!python/object/apply:os.system [x]", "", "anchors, aliases and tags of YAML"),
    ("nodes: {a: {links: {a: 1}}}\n---\nnodes: {}", "", "it must be one document"),
    ("nodes: {a: {links: {a: 1}}}\nnode: 3", "node", "unknown key 'node'; known are classes, nodes,"),
    ("nodes: {[1]: 3}", "nodes.?", "a key is one word"),
    ("nodes:", "nodes", "expected 'key: value' entries"),
    ("[nodes:]", "", "expected 'key: value' entries"),
]  # fmt: skip


@pytest.mark.parametrize("content", RELEASED_ACCEPTED, ids=range(len(RELEASED_ACCEPTED)))
@pytest.mark.parametrize("indent", [None, 2, "\t"])
def test_what_the_released_system_accepts_is_read_from_json(content, indent):
    schema = parse_data_type(json.dumps(content, indent=indent))
    assert parse_data_type(str(schema)) == schema


@pytest.mark.parametrize(("content", "path", "message"), RELEASED_REFUSED, ids=range(len(RELEASED_REFUSED)))
def test_what_the_released_system_refuses_is_refused_with_its_path(content, path, message):
    text = json.dumps(content, indent=2)
    with pytest.raises(ProgramError) as caught:
        parse_data_type(text)
    error = caught.value
    assert (error.path, message in error.message) == (path, True), str(error)
    assert f"line {error.line}, column {error.column}: {path}: " in str(error)
    last = path.split(".")[-1].split("[")[0]
    assert error.path == "nodes.c1.fields.field" or f'"{last}"' in "\n".join(text.splitlines()[: error.line])


@pytest.mark.parametrize(("text", "path", "message"), OURS_REFUSED)
def test_rules_of_ours(text, path, message):
    if message is None:
        assert parse_data_type(text)
        return
    with pytest.raises(ProgramError) as caught:
        parse_data_type(text)
    assert (caught.value.path, message in caught.value.message) == (path, True), str(caught.value)


def test_an_error_shows_path_line_and_caret():
    text = "input:\n  nodes:\n    x: {singleton: true, type: tensor, dim: [3, -1]}\noutput: {nodes: {}}\n"
    with pytest.raises(ProgramError) as caught:
        parse_program(text)
    assert str(caught.value) == (
        "program, line 3, column 45: input.nodes.x.dim: a dimension that is no variable must be a whole number "
        "from 1 to 1,000,000,000, got -1\n"
        "        x: {singleton: true, type: tensor, dim: [3, -1]}\n"
        "                                                ^"
    )


def test_order_and_defaults_make_no_difference():
    one = parse_data_type("nodes: {b: {singleton: false, fields: {y: {type: tensor, dim: [1]}}, links: {b: [2, 2]}}}")
    two = parse_data_type('{"nodes": {"b": {"links": {"b": 2}, "fields": {"y": {"dim": [1], "type": "tensor"}}}}}')
    assert one == two == Schema((Node("b", (TensorField("y", (1,)),), (Link("b", 2, 2),)),))
    assert Schema((tensor(1, name="b"), tensor(2, name="a"))) == Schema((tensor(2, name="a"), tensor(1, name="b")))


def test_the_canonical_text_is_readable():
    schema = Schema(
        (Node("s", (TensorField("x", ("n?", 3)), CategoryField("no", "c")), (Link("s", 0, None),)), tensor("k")),
        (CategoryClass("c", 2),),
        fan_in=True,
    )
    assert str(schema) == (
        "nodes:\n"
        "  field:\n"
        "    singleton: true\n"
        "    type: tensor\n"
        "    dim: [k]\n"
        "  s:\n"
        "    fields:\n"
        "      'no': {type: category, class: c}\n"
        "      x:\n"
        "        type: tensor\n"
        "        dim: ['n?', 3]\n"
        "    links:\n"
        "      s: [0, inf]\n"
        "classes:\n"
        "  c: {dim: 2}\n"
        "ref-constraints: {fan-in: true}"
    )
    assert json.loads(json.dumps(to_mapping(schema)))["nodes"]["s"]["links"] == {"s": [0, "inf"]}


@settings(deadline=None, max_examples=examples(200))
@given(schemas())
def test_yaml_and_json_read_back_as_the_same_schema(schema):
    assert parse_data_type(str(schema)) == schema
    assert parse_data_type(json.dumps(to_mapping(schema))) == schema


HOSTILE = {
    "lists": "nodes: " + "[" * 90_000,
    "maps": "nodes: " + "{a: " * 20_000,
    "block": "nodes:\n" + "\n".join(" " * k + "a:" for k in range(1, 600)),
    "dashes": "nodes:\n" + "- " * 50_000,
    "keys": "nodes: {" + "? " * 50_000,
    "laughs": "nodes: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]",
    "merge": "nodes: {<<: *a}",
    "digits": "nodes: {a: {singleton: true, type: tensor, dim: [" + "9" * 90_000 + "]}}",
    "sexagesimal": "nodes: {a: {singleton: true, type: tensor, dim: [" + "59:" * 20_000 + "1]}}",
    "names": "nodes: {" + "a" * 90_000 + ": {links: {}}}",
    "quotes": 'nodes: "' + "x" * 90_000,
    "escape": 'nodes: {"\\ud800": 1}',
    "long": "nodes: " + " " * MAX_LENGTH,
    "many": "nodes: {" + ", ".join(f"n{k}: {{links: {{n{k}: 1}}}}" for k in range(1501)) + "}",
}  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_ends_in_the_one_error_and_a_short_message(text):
    with pytest.raises(ProgramError) as caught:
        parse_data_type(text)
    assert len(str(caught.value)) < 1000


def test_a_table_of_a_thousand_columns_is_no_hostile_one():
    columns = ", ".join(f"c{k}: {{singleton: true, type: category, class: k{k}}}" for k in range(900))
    classes = ", ".join(f"k{k}: {{dim: {k + 2}}}" for k in range(900))
    schema = parse_data_type(f"nodes: {{{columns}}}\nclasses: {{{classes}}}")
    assert len(schema.nodes) == 900


@settings(deadline=None, max_examples=examples(200))
@given(schemas(), st.data())
def test_rules_hold_however_a_schema_is_made(schema, data):
    """A part taken away is either still a schema, or refused by the object as by the reader."""
    mapping = to_mapping(schema)
    place = mapping
    for _ in range(data.draw(st.integers(0, 3))):
        inner = [value for value in place.values() if isinstance(value, dict) and value]
        if inner:
            place = data.draw(st.sampled_from(inner))
    place.pop(data.draw(st.sampled_from(sorted(place))))
    try:
        again = parse_data_type(json.dumps(mapping))
    except ProgramError:
        return
    assert parse_data_type(str(again)) == again
