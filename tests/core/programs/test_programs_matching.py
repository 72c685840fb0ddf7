"""Matching of schemas: the released system's facts, and a brute force that tries every assignment on small schemas.

The facts are those of the released ease.ml's catalogue, in our words (github.com/easeml/automl,
``schema/test-examples/schema/match``).
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from program_strategies import dim_lists, schemas
from property_sizes import examples

from easeml_core.errors import InvalidInputError
from easeml_core.programs.language import parse_data_type
from easeml_core.programs.schema import CategoryClass, CategoryField, Link, Node, Schema, TensorField
from easeml_core.programs.schema_match import MAX_STEPS, Match, Mismatch, Steps, match_schema, unifications

# Dimensions of the module, of the data, and whether the module takes the data.
DIMS = [
    (["a"], [16], True),
    (["a", "a?"], [16], True),
    (["a", "a*"], [16], True),
    (["a+"], [16], True),
    (["a+"], [16, 16], True),
    (["a+", "b"], [16, 16], True),
    (["a*", "b"], [16, 16], True),
    (["a*", "b"], [16, 32], True),
    (["a*", "b"], [32], True),
    (["a?", "b"], [32], True),
    ([16], [16], True),
    (["a", "a"], ["a+"], True),
    (["a"], ["a", "b?"], True),
    (["a", "b"], ["a", "b?", "b"], True),
    (["a"], [16, 16], False),
    (["a", "a+"], [16], False),
    (["a", "a"], [16, 32], False),
    (["a*", "a"], [16, 32], False),
    (["a+"], [16, 32], False),
    (["a?", "a"], [16, 32], False),
    ([32], [16], False),
    ([16], ["a"], False),
    (["a", "b"], ["n", "n"], True),
    (["a", 3], ["n", "n"], False),
    (["a*", 3], ["b*", 3], True),
    (["a+", 3], [3], False),
]


def lone(**dims):
    """A schema of singleton tensors."""
    return Schema(tuple(Node(name, (TensorField("field", tuple(d)),), singleton=True) for name, d in dims.items()))


def graph(low, high, size="a", **flags):
    return Schema((Node("n", (TensorField("x", (size,)),), (Link("n", low, high),)),), **flags)


def classes(fields, **sizes):
    """A schema of singleton categories, field -> class."""
    nodes = tuple(Node(name, (CategoryField("field", group),), singleton=True) for name, group in fields.items())
    return Schema(nodes, tuple(CategoryClass(name, size) for name, size in sizes.items()))


@pytest.mark.parametrize(("wanted", "given", "matches"), DIMS)
def test_dimensions(wanted, given, matches):
    answer = match_schema(lone(x=wanted), lone(y=given))
    assert isinstance(answer, Match) is matches
    if not matches:
        assert "of the module cannot be" in answer.reason


ANY = graph(0, None)
GRAPHS = [
    (ANY, graph(0, None, 16), ""),
    (ANY, graph(0, 10, 16), ""),
    (ANY, graph(10, None, 16), ""),
    (graph(0, 30), graph(10, 20, 16), ""),
    (graph(20, None), graph(10, 10, 16), "the module takes 20 to any number of links, the data has 10 to 10"),
    (graph(0, 1), graph(10, 10, 16), "the module takes 0 to 1 links, the data has 10 to 10"),
    (graph(0, 9), graph(0, None, 16), "the module takes 0 to 9 links, the data has 0 to any number of"),
    (graph(0, None, cyclic=True), graph(0, None, cyclic=True), ""),
    (graph(0, None, cyclic=True), ANY, ""),
    (ANY, graph(0, None, cyclic=True), "the data may be cyclic, which the module does not allow"),
    (graph(0, None, fan_in=True), ANY, ""),
    (ANY, graph(0, None, fan_in=True), "the data may have fan-in, which the module does not allow"),
    (graph(0, 2), graph(0, 2, undirected=True), ""),
    (
        graph(0, 2, undirected=True),
        graph(0, 2),
        "the module needs undirected links, those of the data have a direction",
    ),
    (lone(x=["a"]), replace(lone(x=[16]), cyclic=True, fan_in=True), ""),
]


@pytest.mark.parametrize(("module", "data", "reason"), GRAPHS)
def test_graphs(module, data, reason):
    answer = match_schema(module, data)
    assert (answer.reason if isinstance(answer, Mismatch) else "").split(": ")[-1] == reason


def two_nodes(first, second):
    fields = (TensorField("x", ("a",)),)
    return Schema((Node("n1", fields, (Link(first, 0, None),)), Node("n2", fields, (Link(second, 0, None),))))


def test_links_lead_to_the_nodes_that_stand_for_one_another():
    crossed, loops = two_nodes("n2", "n1"), two_nodes("n1", "n2")
    assert isinstance(match_schema(crossed, crossed), Match)
    assert isinstance(match_schema(loops, loops), Match)
    both_to_second = two_nodes("n2", "n2")
    for module, data in ((crossed, loops), (loops, crossed), (both_to_second, crossed), (both_to_second, loops)):
        answer = match_schema(module, data)
        assert isinstance(answer, Mismatch)
        assert "the data has no link from" in answer.reason
    turned = two_nodes("n1", "n1")
    assert match_schema(both_to_second, turned).nodes == {"n1": "n2", "n2": "n1"}


def test_names_and_numbers_are_mapped_one_to_one():
    found = match_schema(lone(x=["a"], y=["a", "a"]), lone(u=[16, 16], v=[16]))
    assert found == Match({"x": "v", "y": "u"}, {"x.field": "v.field", "y.field": "u.field"}, {}, {"a": 16})
    assert isinstance(match_schema(lone(x=["a"], y=["a", "a"]), lone(u=[16], v=[16, 32])), Mismatch)
    assert isinstance(match_schema(lone(x=["a"], y=["a+"]), lone(u=[16], v=[16, 32])), Mismatch)


def test_classes_are_mapped_one_to_one_in_both_directions():
    same, two = classes({"x": "k", "y": "k"}, k=16), classes({"x": "k", "y": "m"}, k=16, m=16)
    assert match_schema(classes({"u": "c", "v": "c"}, c="n"), same).classes == {"c": "k"}
    assert match_schema(classes({"u": "c", "v": "d"}, c="n", d="m"), two).classes == {"c": "k", "d": "m"}
    for module, data in ((same, two), (two, same)):
        answer = match_schema(module, data)
        assert isinstance(answer, Mismatch)
        assert "one of the two is" in answer.reason


def test_a_variable_is_the_same_number_in_dimensions_and_classes():
    def both(size, dim):
        fields = (TensorField("x", (dim,)), CategoryField("y", "k"))
        return Schema((Node("n", fields),), (CategoryClass("k", size),))

    assert match_schema(both("a", "a"), both(16, 16)).dims == {"a": 16}
    assert isinstance(match_schema(both("a", "a"), both(32, 16)), Mismatch)
    assert match_schema(both("a", "b"), both(32, 16)).dims == {"a": 32, "b": 16}


def test_a_wrong_first_choice_is_taken_back():
    """The first tensor could be either of the data's, the wildcard any length; only one way fits all three."""
    fields = (TensorField("x", ("a", "b*")), TensorField("y", ("b", "a")), TensorField("z", ("b",)))
    given = (TensorField("p", (4, 4, 4)), TensorField("q", (4, 5)), TensorField("r", (4,)))
    found = match_schema(Schema((Node("n", fields),)), Schema((Node("m", given),)))
    assert isinstance(found, Mismatch)
    given = (TensorField("p", (4, 5)), TensorField("q", (5, 4, 4)), TensorField("r", (4,)))
    found = match_schema(Schema((Node("n", fields),)), Schema((Node("m", given),)))
    assert found.fields == {"n.x": "m.q", "n.y": "m.p", "n.z": "m.r"}
    assert found.dims == {"a": 5, "b": 4}


@pytest.mark.parametrize(
    ("module", "data", "reason"),
    [
        (lone(x=["a"], y=["a"]), lone(x=[3]), "the module has 2 singleton nodes, the data 1"),
        (lone(x=["a"]), graph(1, 1), "the module has 1 singleton nodes, the data 0"),
        (graph(0, 1), Schema((Node("n", (TensorField("x", (1,)),)),)), "the module has 1 links, the data 0"),
        (lone(x=["a"]), classes({"x": "k"}, k=3), "the module has 1 tensors, the data 0"),
        (classes({"x": "k"}, k=2), classes({"x": "k"}, k=3), "the module has 2 classes, the data 3"),
        (lone(x=["a"], y=["a", 2]), lone(x=[3], y=[4, 2]), "[a=3,2] of the module cannot be [4,2]"),
        (lone(x=["a"], y=["a", 3]), lone(x=[3], y=[3, 2]), "y of the module, x of the data: [a,3] of"),
    ],
)  # fmt: skip
def test_the_nearest_reason_is_given(module, data, reason):
    answer = match_schema(module, data)
    assert isinstance(answer, Mismatch)
    assert reason in answer.reason


def test_the_work_is_bounded():
    """Twelve tensors that look alike, and one variable too few: without a bound, 12! ways would be tried."""
    module = Schema((Node("n", tuple(TensorField(f"x{k}", (f"v{k}", "w")) for k in range(12))),))
    data = Schema((Node("n", tuple(TensorField(f"y{k}", (k + 1, 1 + (k == 11))) for k in range(12))),))
    with pytest.raises(InvalidInputError, match=r"matching was given up after 20,000 steps: too many parts look alike"):
        match_schema(module, data, steps=Steps(20_000))


def test_a_wide_table_is_matched_within_the_bound():
    wide = classes({f"x{k}": f"k{k}" for k in range(900)}, **{f"k{k}": 2 + k % 7 for k in range(900)})
    steps = Steps()
    assert isinstance(match_schema(wide, wide, steps=steps), Match)
    assert steps.taken < MAX_STEPS


def variables(schema):
    names = [size for group in schema.classes if isinstance(size := group.size, str)]
    names += [
        size.rstrip("?+*")
        for node in schema.nodes
        for part in node.fields
        if isinstance(part, TensorField)
        for size in part.dims
        if isinstance(size, str)
    ]
    return sorted(set(names))


def sizes(schema):
    tensors = [part.dims for node in schema.nodes for part in node.fields if isinstance(part, TensorField)]
    found = {size.rstrip("?+*") if isinstance(size, str) else size for dims in tensors for size in dims}
    return [*sorted(found | {group.size for group in schema.classes}, key=str)]


def words(dims, values, longest=8):
    """All lists of numbers and names that a tensor's dimensions can be, up to a length."""
    found = [()]
    for size in dims:
        mark = str(size)[-1]
        name = size.rstrip("?+*") if isinstance(size, str) else size
        counts = {"?": (0, 1), "+": range(1, longest), "*": range(longest)}.get(mark, (1,))
        found = [(*word, *[values.get(name, name)] * count) for word in found for count in counts]
    return {word for word in found if len(word) <= longest}


def fits(part, other, values, module, data, pairs):
    if type(part) is not type(other):
        return False
    if isinstance(part, TensorField):
        return bool(words(part.dims, values) & words(other.dims, {}))
    size = module.sizes[part.category]
    pairs.add((part.category, other.category))
    return values.get(size, size) == data.sizes[other.category]


def links_fit(node, other, nodes):
    given = {link.target: link for link in other.links}
    for link in node.links:
        its = given.get(nodes[link.target])
        if its is None or its.low < link.low or (link.high or 10**9 + 1) < (its.high or 10**9 + 1):
            return False
    return len(node.links) == len(other.links)


def brute_force(module, data):
    """Whether there is a way: every value of every variable, every order of nodes and of fields is tried."""
    many = [node for node in module.nodes if not node.singleton]
    if many and (data.cyclic > module.cyclic or data.fan_in > module.fan_in or module.undirected > data.undirected):
        return False
    if len(module.nodes) != len(data.nodes):
        return False
    names = variables(module)
    for chosen in itertools.product(sizes(data), repeat=len(names)):
        values = dict(zip(names, chosen, strict=True))
        for order in itertools.permutations(data.nodes):
            nodes = {node.name: other.name for node, other in zip(module.nodes, order, strict=True)}
            pairs = list(zip(module.nodes, order, strict=True))
            if any(n.singleton is not o.singleton or len(n.fields) != len(o.fields) for n, o in pairs):
                continue
            if not all(links_fit(n, o, nodes) for n, o in pairs):
                continue
            for orders in itertools.product(*(itertools.permutations(o.fields) for _, o in pairs)):
                taken = set()
                parts = [
                    (p, q)
                    for (n, _), its in zip(pairs, orders, strict=True)
                    for p, q in zip(n.fields, its, strict=True)
                ]
                if all(fits(p, q, values, module, data, taken) for p, q in parts) and len(taken) == len(
                    {a for a, _ in taken}
                ) == len({b for _, b in taken}):
                    return True
    return False


SMALL = st.sampled_from("pqr")


def renamed(schema, names):
    """The same schema under other names, with its variables as numbers: something that surely matches."""
    nodes = []
    for node in schema.nodes:
        fields = [instance(part, names) for part in node.fields]
        links = [Link(f"{link.target}z", link.low + (link.high is None), link.high) for link in node.links]
        nodes.append(Node(f"{node.name}z", tuple(fields), tuple(links), node.singleton))
    groups = [CategoryClass(f"{group.name}z", names.get(group.size, group.size)) for group in schema.classes]
    return Schema(tuple(nodes), tuple(groups), schema.cyclic, schema.undirected, schema.fan_in)


def instance(part, names):
    if isinstance(part, CategoryField):
        return CategoryField(f"{part.name}z", f"{part.category}z")
    dims = [size for size in part.dims if not str(size).endswith(("?", "*"))]
    return TensorField(
        f"{part.name}z", tuple(names[size.rstrip("+")] if isinstance(size, str) else size for size in dims)
    )


MODULES = schemas(names=SMALL)


@settings(deadline=None, max_examples=examples(250))
@given(MODULES, MODULES)
def test_any_two_small_schemas_match_as_a_brute_force_says(module, data):
    assert isinstance(match_schema(module, data), Match) is brute_force(module, data)


@settings(deadline=None, max_examples=examples(250))
@given(MODULES, st.integers(1, 3), st.integers(1, 3), st.data())
def test_an_instance_of_a_module_matches_and_one_that_was_changed_as_a_brute_force_says(module, one, two, data):
    made = renamed(module, {"a": one, "b": two})
    assert isinstance(match_schema(module, made), Match)
    place = data.draw(st.integers(0, len(made.nodes) - 1))
    node = made.nodes[place]
    part = data.draw(st.sampled_from(node.fields))
    other = TensorField(part.name, data.draw(dim_lists()))
    fields = tuple(other if field is part else field for field in node.fields)
    used = {f.category for n in made.nodes for f in (fields if n is node else n.fields) if isinstance(f, CategoryField)}
    changed = Schema(
        tuple(replace(n, fields=fields) if n is node else n for n in made.nodes),
        tuple(group for group in made.classes if group.name in used),
        made.cyclic,
        made.undirected,
        made.fan_in,
    )
    assert isinstance(match_schema(module, changed), Match) is brute_force(module, changed)


@settings(deadline=None, max_examples=examples(500))
@given(dim_lists(), dim_lists())
@example(("a*", 1), ("b*", 1))
@example(("a", "a*"), ("a+",))
def test_dimensions_unify_as_a_brute_force_says(wanted, given_dims):
    names = sorted({size.rstrip("?+*") for size in wanted if isinstance(size, str)})
    values = {size.rstrip("?+*") if isinstance(size, str) else size for size in given_dims}
    ways = [dict(zip(names, chosen, strict=True)) for chosen in itertools.product(values, repeat=len(names))]
    possible = [way for way in ways if words(wanted, way) & words(given_dims, {})]
    found = list(unifications(wanted, given_dims, {}))
    assert all(any(binding.items() <= way.items() for way in possible) for binding in found)
    assert all(any(binding.items() <= way.items() for binding in found) for way in possible)
    for name, value in itertools.product(names, values):
        bound = {name: value}
        assert bool(list(unifications(wanted, given_dims, bound))) is any(way[name] == value for way in possible)


@settings(deadline=None, max_examples=examples(100))
@given(MODULES)
def test_every_schema_takes_itself_and_says_how(schema):
    found = match_schema(schema, schema)
    assert isinstance(found, Match)
    assert sorted(found.nodes) == sorted(found.nodes.values()) == [node.name for node in schema.nodes]
    assert sorted(found.classes.values()) == [group.name for group in schema.classes]
    assert parse_data_type(str(schema)) == schema
