"""Whether a module takes a data set: unification of two schemas, with backtracking.

Source: the matching of the released ease.ml (github.com/easeml/automl, ``schema/``). Two departures: the numbers of
nodes must be equal, and classes are mapped one to one in both directions (there, two classes of a module could become
one).

The search is depth-first, over decisions that depend on one another, with an undo list, a bound, and the nearest
failure. A decision is a function that gives its choices one by one: each step of its iterator makes one choice by
``put``, and whatever it put is undone before the next. No function calls itself, so the depth of a search costs no
stack.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from easeml_core.errors import InvalidInputError
from easeml_core.programs.schema import WILDCARDS, CategoryField, Link, Node, Schema, TensorField

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from easeml_core.programs.schema import Field

MAX_STEPS = 1_000_000
"""Choices looked at by one question, all of its searches together; about a second."""


class Steps:
    """Counts the work of one question.

    Args:
        most: Steps after which the question is given up.
    """

    def __init__(self, most: int = MAX_STEPS) -> None:
        self.most, self.taken = most, 0

    def take(self) -> None:
        """Count one step; InvalidInputError when there are too many."""
        self.taken += 1
        if self.taken > self.most:
            message = (
                f"matching was given up after {self.most:,} steps: too many parts look alike; "
                "use fewer fields or nodes, or sizes in the place of variables"
            )
            raise InvalidInputError(message)


class Search:
    """One search: what is decided so far, and why it failed where it came furthest.

    Args:
        steps: The counter of the question.
    """

    def __init__(self, steps: Steps) -> None:
        self.reason = ""
        self._steps = steps
        self._done: list[tuple[dict[Any, Any], Any]] = []
        self._depth, self._deepest, self._weak = 0, -1, True

    def put(self, mapping: dict[Any, Any], key: object, value: object) -> None:
        """Add an entry, which must be new, until this choice is undone."""
        mapping[key] = value
        self._done.append((mapping, key))

    def look(self) -> None:
        """Count a choice that is looked at."""
        self._steps.take()

    def fail(self, reason: str, *, weak: bool = False) -> None:
        """Say why a choice cannot be made; the first among the furthest is kept, a weak one until there is a better."""
        better = self._depth == self._deepest and self._weak and not weak
        if self._depth > self._deepest or better:
            self._deepest, self.reason, self._weak = self._depth, reason, weak

    def run(self, decisions: Sequence[Callable[[], Iterator[None]]]) -> bool:
        """Take all decisions, in order; False if there is no way. What was put stays only on success."""
        opened: list[tuple[Iterator[None], int]] = []
        while len(opened) < len(decisions):
            self._depth = len(opened)
            opened.append((decisions[self._depth](), len(self._done)))
            while not self._advance(*opened[-1]):
                opened.pop()
                if not opened:
                    return False
                self._depth = len(opened) - 1
        return True

    def _advance(self, choices: Iterator[None], mark: int) -> bool:
        """Undo the last choice and make the next one; False if there is none left."""
        while len(self._done) > mark:
            mapping, key = self._done.pop()
            del mapping[key]
        return next(choices, self) is not self


Size = int | str
Binding = dict[str, Size]


def unifications(
    wanted: Sequence[Size], given: Sequence[Size], bound: Mapping[str, Size], *, tail: bool = False
) -> Iterator[Binding]:
    """Every way in which the wanted dimensions stand for the given ones, shortest first.

    Both sides are written out to a common length, each wildcard as so many copies of its variable, and compared place
    by place: a size of the module needs the same size; a variable of the module is bound to what stands there, a size
    or a variable of the data, the same wherever it comes again. A wildcard of the data is read as "some such number of
    dimensions is there". With one wildcard on each side, lengths beyond all other dimensions plus one only repeat a
    pair of wildcards that meet already, so they give nothing new.

    Example:
        >>> list(unifications(["a*", "b"], [16, 32], {}))
        [{'a': 16, 'b': 32}]
        >>> list(unifications(["a", "a"], [16, 32], {}))
        []
    """
    wanted_least, wanted_most = _lengths(wanted)
    given_least, given_most = _lengths(given)
    enough = len(wanted) + len(given)
    most = min(enough if end is None else end for end in (None if tail else wanted_most, given_most))
    seen: list[Binding] = []
    for length in range(max(wanted_least, given_least), most + 1):
        found = _place_by_place(_written_out(wanted, length), _written_out(given, length), bound)
        if found is not None and found not in seen:
            seen.append(found)
            yield found


def unify_size(wanted: Size, given: Size, bound: Mapping[str, Size]) -> Binding | None:
    """What is bound in addition when one size stands for another; None if it cannot."""
    return _place_by_place([wanted], [given], bound)


def _place_by_place(wanted: Sequence[Size], given: Sequence[Size], bound: Mapping[str, Size]) -> Binding | None:
    found: Binding = {}
    for want, have in zip(wanted, given, strict=False):  # a tail may follow the wanted ones
        if isinstance(want, int):
            if want != have:
                return None
            continue
        known = bound.get(want, found.get(want))
        if known is None:
            found[want] = have
        elif known != have:
            return None
    return found


def _lengths(dims: Sequence[Size]) -> tuple[int, int | None]:
    """Fewest and most dimensions; None for no limit."""
    least: int = 0
    most: int | None = 0
    for size in dims:
        low, high = WILDCARDS.get(str(size)[-1], (1, 1))
        least += low
        most = None if most is None or high is None else most + high
    return least, most


def _written_out(dims: Sequence[Size], length: int) -> list[Size]:
    """As many dimensions as the length says, which is among the possible ones."""
    found: list[Size] = []
    for size in dims:
        if isinstance(size, str) and size[-1] in WILDCARDS:
            found += [size[:-1]] * (length - len(dims) + 1)
        else:
            found.append(size)
    return found


@dataclass(frozen=True, slots=True)
class Match:
    """How a module's names stand for those of the data.

    Attributes:
        nodes: Node of the module -> node of the data.
        fields: ``node.field`` of the module -> ``node.field`` of the data.
        classes: Class of the module -> class of the data.
        dims: Variable of the module -> size, or variable of the data. One that stands for no dimension is missing.
    """

    nodes: Mapping[str, str]
    fields: Mapping[str, str]
    classes: Mapping[str, str]
    dims: Mapping[str, Size]


@dataclass(frozen=True, slots=True)
class Mismatch:
    """That there is no way.

    Attributes:
        reason: What was in the way where the search came furthest.
    """

    reason: str


def match_schema(module: Schema, data: Schema, *, steps: Steps | None = None) -> Match | Mismatch:
    """Decide whether a module takes a data set.

    Nodes are permuted, singletons among singletons; each pair has as many tensors, categories and links on both sides;
    a link's range contains that of the data; dimensions are unified (``dimensions``); classes are mapped one to one,
    and their sizes unified. A cyclic or fan-in data set needs a module that allows it, and an undirected module needs
    undirected data.

    Args:
        module: What a model takes.
        data: What there is.
        steps: Counter of the work; at most ``MAX_STEPS`` where none is given.

    Returns:
        The first mapping that is found, names in order, or the nearest reason why there is none.

    Raises:
        InvalidInputError: After too many steps.

    Example:
        >>> from easeml_core.programs.language import parse_data_type
        >>> module = parse_data_type("nodes: {x: {singleton: true, type: tensor, dim: [a, b]}}")
        >>> data = parse_data_type("nodes: {t: {singleton: true, type: tensor, dim: [16, 32]}}")
        >>> dict(match_schema(module, data).dims)
        {'a': 16, 'b': 32}
    """
    reason = _graphs_differ(module, data) or _counts_differ(module, data)
    return Mismatch(reason) if reason else _Matcher(module, data, steps or Steps()).run()


@dataclass(slots=True)
class _Found:
    """What is decided so far, in both directions."""

    nodes: dict[str, str] = field(default_factory=dict)
    used_nodes: dict[str, str] = field(default_factory=dict)
    fields: dict[str, str] = field(default_factory=dict)
    used_fields: dict[str, str] = field(default_factory=dict)
    classes: dict[str, str] = field(default_factory=dict)
    used_classes: dict[str, str] = field(default_factory=dict)
    dims: Binding = field(default_factory=dict)


class _Matcher:
    """One decision a node of the module, followed by one for each of its fields."""

    def __init__(self, module: Schema, data: Schema, steps: Steps) -> None:
        self.search, self.found = Search(steps), _Found()
        self.module = {node.name: node for node in module.nodes}
        self.data = {node.name: node for node in data.nodes}
        self.sizes = module.sizes, data.sizes
        self.alike: dict[tuple[object, object], str] = {}

    def run(self) -> Match | Mismatch:
        partners: dict[str, list[Node]] = {}
        shapes = [_shape(other, self.sizes[1]) for other in self.data.values()]
        for node in self.module.values():
            partners[node.name], reason = self._partners(node, shapes)
            if reason:
                return Mismatch(reason)
        # Singletons first, fewest partners first: dead ends are then found early.
        order = sorted(self.module.values(), key=lambda node: (not node.singleton, len(partners[node.name])))
        decisions: list[Callable[[], Iterator[None]]] = []
        for node in order:
            decisions.append(partial(self._node, node, partners[node.name]))
            decisions += [partial(self._field, node, part) for part in node.fields]
        if not self.search.run(decisions):
            return Mismatch(self.search.reason)
        found = self.found
        return Match(found.nodes, found.fields, found.classes, found.dims)

    def _partners(self, node: Node, shapes: list[object]) -> tuple[list[Node], str]:
        """The nodes of the data that fit, each looked at alone; a reason if there is none."""
        found, nearest, shape = [], "", _shape(node, self.sizes[0])
        for other, its_shape in zip(self.data.values(), shapes, strict=True):
            self.search.look()
            reason = self.alike.get((shape, its_shape))
            if reason is None:
                reason = self.alike[shape, its_shape] = _nodes_differ(node, other, self.sizes)
            if not reason:
                found.append(other)
            elif not nearest:
                nearest = f"{node.name} of the module, {other.name} of the data: {reason}"
        return found, "" if found else nearest

    def _node(self, node: Node, partners: list[Node]) -> Iterator[None]:
        """Choose the node of the data."""
        found = self.found
        for other in partners:
            self.search.look()
            if other.name in found.used_nodes:
                taken = f"{node.name}: {other.name} is taken by {found.used_nodes[other.name]} already"
                self.search.fail(taken, weak=True)
                continue
            reason = self._links_differ(node, other)
            if reason:
                self.search.fail(reason)
                continue
            self.search.put(found.nodes, node.name, other.name)
            self.search.put(found.used_nodes, other.name, node.name)
            yield

    def _links_differ(self, node: Node, other: Node) -> str:
        """Compare the links between this pair and the pairs decided before."""
        nodes = {**self.found.nodes, node.name: other.name} if node.links else {}
        for link in node.links:
            if link.target in nodes:
                reason = _link_differs(link, other, nodes[link.target])
                if reason:
                    return f"{node.name}.links.{link.target}: {reason}"
        for earlier, partner in self.found.nodes.items():
            for link in self.module[earlier].links:
                if link.target == node.name:
                    reason = _link_differs(link, self.data[partner], other.name)
                    if reason:
                        return f"{earlier}.links.{link.target}: {reason}"
        return ""

    def _field(self, node: Node, part: Field) -> Iterator[None]:
        """Choose the field of the data, and a way to unify the two."""
        found, other = self.found, self.data[self.found.nodes[node.name]]
        here = f"{node.name}.{part.name}"
        for candidate in other.fields:
            there = f"{other.name}.{candidate.name}"
            self.search.look()
            if type(candidate) is not type(part) or there in found.used_fields:
                continue
            for binding in self._ways(part, candidate, here, there):
                self.search.look()
                self.search.put(found.fields, here, there)
                self.search.put(found.used_fields, there, here)
                for name, size in binding.items():
                    self.search.put(found.dims, name, size)
                yield

    def _ways(self, part: Field, candidate: Field, here: str, there: str) -> Iterator[Binding]:
        """What is bound in addition, for each way in which a field stands for the other."""
        if isinstance(part, TensorField) and isinstance(candidate, TensorField):
            none = True
            for binding in unifications(part.dims, candidate.dims, self.found.dims):
                none = False
                yield binding
            if none:
                self.search.fail(f"{here}, {there}: {_tensors_differ(part, candidate, self.found.dims)}")
        elif isinstance(part, CategoryField) and isinstance(candidate, CategoryField):
            yield from self._class_ways(part.category, candidate.category, f"{here}, {there}")

    def _class_ways(self, wanted: str, given: str, where: str) -> Iterator[Binding]:
        classes, used = self.found.classes, self.found.used_classes
        if classes.get(wanted, given) != given or used.get(given, wanted) != wanted:
            partner = classes.get(wanted) or used.get(given)
            self.search.fail(f"{where}: {wanted} would be {given}, and one of the two is {partner}'s already")
            return
        size, its_size = self.sizes[0][wanted], self.sizes[1][given]
        binding = unify_size(size, its_size, self.found.dims)
        if binding is None:
            self.search.fail(f"{where}: {wanted} has {_shown(size, self.found.dims)} classes, {given} {its_size}")
            return
        if wanted not in classes:
            # These stay until the field's own entries are undone: the choice is one.
            self.search.put(classes, wanted, given)
            self.search.put(used, given, wanted)
        yield binding


def _graphs_differ(module: Schema, data: Schema) -> str:
    """Compare what kind of graphs they are; without links or instances there is nothing to compare."""
    if all(node.singleton for node in module.nodes):
        return ""
    if data.cyclic and not module.cyclic:
        return "the data may be cyclic, which the module does not allow"
    if module.undirected and not data.undirected:
        return "the module needs undirected links, those of the data have a direction"
    if data.fan_in and not module.fan_in:
        return "the data may have fan-in, which the module does not allow"
    return ""


def _counts_differ(module: Schema, data: Schema) -> str:
    for singleton, what in ((True, "singleton nodes"), (False, "nodes of many instances")):
        wanted, given = (sum(node.singleton is singleton for node in side.nodes) for side in (module, data))
        if wanted != given:
            return f"the module has {wanted} {what}, the data {given}"
    return ""


def _shape(node: Node, sizes: Mapping[str, Size]) -> object:
    """What decides whether two nodes fit, each looked at alone."""
    kinds = tuple(part.dims if isinstance(part, TensorField) else sizes[part.category] for part in node.fields)
    loops = tuple((link.low, link.high) if link.target == node.name else None for link in node.links)
    return node.singleton, kinds, loops


def _nodes_differ(node: Node, other: Node, sizes: tuple[Mapping[str, Size], Mapping[str, Size]]) -> str:
    """Why two nodes cannot fit whatever else is decided; empty if they might."""
    if node.singleton is not other.singleton:
        return "one is a singleton, the other is not"
    for kind, what in ((TensorField, "tensors"), (CategoryField, "categories")):
        wanted, given = (sum(isinstance(part, kind) for part in side.fields) for side in (node, other))
        if wanted != given:
            return f"the module has {wanted} {what}, the data {given}"
    if len(node.links) != len(other.links):
        return f"the module has {len(node.links)} links, the data {len(other.links)}"
    if not node.singleton:
        return ""
    part, candidate = node.fields[0], other.fields[0]
    if isinstance(part, TensorField) and isinstance(candidate, TensorField):
        fits = next(unifications(part.dims, candidate.dims, {}), None) is not None
        return "" if fits else _tensors_differ(part, candidate, {})
    if isinstance(part, CategoryField) and isinstance(candidate, CategoryField):
        size, its_size = sizes[0][part.category], sizes[1][candidate.category]
        fits = unify_size(size, its_size, {}) is not None
        return "" if fits else f"the module has {size} classes, the data {its_size}"
    return ""


def _link_differs(link: Link, other: Node, target: str) -> str:
    given = next((candidate for candidate in other.links if candidate.target == target), None)
    if given is None:
        return f"the data has no link from {other.name} to {target}"
    enough = link.high is None or (given.high is not None and given.high <= link.high)
    if link.low > given.low or not enough:
        return f"the module takes {_range(link)} links, the data has {_range(given)}"
    return ""


def _range(link: Link) -> str:
    return f"{link.low} to {'any number of' if link.high is None else link.high}"


def _tensors_differ(part: TensorField, candidate: TensorField, bound: Binding) -> str:
    dims = ",".join(_shown(size, bound) for size in part.dims)
    return f"[{dims}] of the module cannot be [{','.join(map(str, candidate.dims))}] of the data"


def _shown(size: Size, bound: Binding) -> str:
    """A dimension, and what its variable is bound to by now."""
    known = bound.get(str(size).rstrip("?+*"))
    return str(size) if known is None else f"{size}={known}"
