"""Reads schemas, and programs of two schemas, from YAML or JSON; every error names the path and shows the line.

The text is only cut into nodes here: anchors, aliases and tags are refused, nothing is ever built from one, and nesting
is bounded before anything that could exhaust the stack. What a schema must satisfy beyond its form is in ``schema``.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, NoReturn, TypeVar

import yaml

from easeml_core.errors import ProgramError
from easeml_core.formats.yaml_text import Fault, YamlFaultError, compose, without_tabs
from easeml_core.programs.data_type import Program
from easeml_core.programs.schema import (
    LONE_FIELD,
    CategoryClass,
    CategoryField,
    Link,
    Node,
    Schema,
    TensorField,
    check_name,
    check_text,
    short,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from easeml_core.programs.schema import Field

_DEEPEST = 12
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,11}")
_OF_MATCHES = ("src-name", "src-dim", "src-dims")
_STRING, _BOOL = "tag:yaml.org,2002:str", "tag:yaml.org,2002:bool"

_Made = TypeVar("_Made")


def read_schema(text: str) -> Schema:
    """Read one schema.

    Args:
        text: YAML or JSON of at most ``MAX_LENGTH`` characters, with ``nodes``, ``classes``, ``ref-constraints``.

    Raises:
        ProgramError: Whatever is wrong.
    """
    return _schema(_root(text))


def read_program(text: str) -> Program:
    """Read a program: ``input`` and ``output``, each a schema."""
    root = _root(text)
    if isinstance(root.node, yaml.MappingNode) and "nodes" in root.entries():
        root.fail("this is one schema; a program has two, under 'input:' and 'output:'")
    sides = root.entries(needed=("input", "output"))
    return Program(_schema(sides["input"]), _schema(sides["output"]))


class _Place:
    """A YAML node, the path that leads to it, and the text it stands in."""

    def __init__(self, text: str, node: yaml.Node, path: str = "") -> None:
        self.text, self.node, self.path = text, node, path

    def fail(self, message: str) -> NoReturn:
        """Fail with the caret under the first character of this node."""
        start = self.node.start_mark.index
        scalar = isinstance(self.node, yaml.ScalarNode)
        raise ProgramError(message, self.text, start, self.node.end_mark.index if scalar else None, self.path)

    def make(self, build: Callable[[], _Made]) -> _Made:
        """Build an object from here; what it refuses is shown at the nearest place of its path."""
        try:
            return build()
        except ProgramError as error:
            if error.source:
                raise
            place = self._nearest(error.path)
            place.path = error.path or place.path
            place.fail(error.message)

    def named(self, what: str) -> dict[str, _Place]:
        """The values of a mapping by name, in order; ``what`` the names are of is said in errors."""
        for key in self._keys():
            key.make(partial(check_name, key.node.value, f"the name of a {what}"))
        return self.entries()

    def entries(self, *, known: tuple[str, ...] = (), needed: tuple[str, ...] = ()) -> dict[str, _Place]:
        """The values of a mapping by key, in order."""
        allowed = (*needed, *known)
        found: dict[str, _Place] = {}
        for place, (key, value) in zip(self._keys(), self.node.value, strict=True):
            if key.value in found:
                place.fail(f"the key {short(key.value)} comes twice")
            if allowed and key.value not in allowed:
                place.fail(_unknown(key.value, allowed))
            found[key.value] = _Place(self.text, value, place.path)
        missing = [key for key in needed if key not in found]
        if missing:
            self.fail(f"missing: {', '.join(missing)}")
        return found

    def _keys(self) -> list[_Place]:
        """The places of the keys of a mapping."""
        if not isinstance(self.node, yaml.MappingNode):
            self.fail("expected 'key: value' entries")
        found = []
        for key, _ in self.node.value:
            place = _Place(self.text, key, f"{self.path}.{_shown_key(key)}".lstrip("."))
            if not isinstance(key, yaml.ScalarNode):
                place.fail("a key is one word")
            found.append(place)
        return found

    def name(self, what: str) -> str:
        """A scalar that is text."""
        if not isinstance(self.node, yaml.ScalarNode) or self.node.tag != _STRING:
            self.fail(f"expected {what}, a word{self._quote_hint()}")
        return str(self.node.value)

    def flag(self) -> bool:
        """A scalar that is true or false."""
        if not isinstance(self.node, yaml.ScalarNode) or self.node.tag != _BOOL:
            self.fail("expected true or false")
        return self.node.value.lower() in ("true", "yes", "on")

    def size(self, what: str) -> int | str:
        """A scalar that is a whole number, or a word."""
        if isinstance(self.node, yaml.ScalarNode):
            if self.node.tag == _STRING:
                return str(self.node.value)
            if _WHOLE.fullmatch(self.node.value):
                return int(self.node.value)
        self.fail(f"expected {what}{self._quote_hint()}")

    def items(self, what: str) -> list[_Place]:
        """The items of a list."""
        if not isinstance(self.node, yaml.SequenceNode):
            self.fail(f"expected {what}, a list in brackets")
        return [_Place(self.text, item, f"{self.path}[{k}]") for k, item in enumerate(self.node.value)]

    def _quote_hint(self) -> str:
        """YAML reads ``no`` and ``null`` as something else than words."""
        if isinstance(self.node, yaml.ScalarNode) and self.node.tag != _STRING:
            return f"; YAML reads {short(self.node.value)} as no word, unless it is in quotes"
        return ""

    def _nearest(self, path: str) -> _Place:
        """The place that a path leads to, or as far as the text goes."""
        place = self
        for part in path.split(".") if path else ():
            found = place.entries().get(part) if isinstance(place.node, yaml.MappingNode) else None
            if found is None:
                break
            place = found
        return place


def _schema(place: _Place) -> Schema:
    entries = place.entries(known=("classes", "ref-constraints"), needed=("nodes",))
    nodes = tuple(_node(name, at) for name, at in entries["nodes"].named("node").items())
    classes = entries["classes"].named("class") if "classes" in entries else {}
    groups = tuple(_class(name, at) for name, at in classes.items())
    flags = {}
    if "ref-constraints" in entries:
        known = ("cyclic", "undirected", "fan-in")
        given = entries["ref-constraints"].entries(known=known)
        flags = {name.replace("-", "_"): at.flag() for name, at in given.items()}
    return place.make(lambda: Schema(nodes, groups, **flags))


def _node(name: str, place: _Place) -> Node:
    entries = place.entries(known=("singleton", "fields", "links", "type", "dim", "class"))
    singleton = entries["singleton"].flag() if "singleton" in entries else False
    links = entries["links"].named("link's target") if "links" in entries else {}
    found = tuple(_link(target, at) for target, at in links.items())
    if "fields" in entries:
        for key in ("type", "dim", "class"):
            if key in entries:
                entries[key].fail(f"{key} stands in a field; this node has its fields under 'fields'")
        fields = tuple(_field(field, at) for field, at in entries["fields"].named("field").items())
    elif singleton:
        fields = (_field(LONE_FIELD, place, beside=("singleton", "links")),)
    else:
        for key in ("type", "dim", "class"):
            if key in entries:
                entries[key].fail(f"{key} beside a node's name is for one with 'singleton: true'; else use 'fields'")
        fields = ()
    return place.make(lambda: Node(name, fields, found, singleton))


def _field(name: str, place: _Place, beside: tuple[str, ...] = ()) -> Field:
    entries = place.entries(known=("dim", "class", *beside), needed=("type",))
    kind = entries["type"].name("tensor or category")
    wanted = {"tensor": "dim", "category": "class"}.get(kind)
    if wanted is None:
        entries["type"].fail(f"unknown type {short(kind)}; known are tensor, category")
    place.entries(known=beside, needed=("type", wanted))
    value = entries[wanted]
    if kind == "tensor":
        dims = tuple(at.size("a size or a variable") for at in value.items("the dimensions"))
        return value.make(lambda: TensorField(name, dims))
    category = value.name("the name of a class")
    return value.make(lambda: CategoryField(name, category))


def _class(name: str, place: _Place) -> CategoryClass:
    size = place.entries(needed=("dim",))["dim"]
    return place.make(lambda: CategoryClass(name, size.size("the number of classes, or a variable")))


def _link(target: str, place: _Place) -> Link:
    """An integer, which is both bounds, or ``[low, high]`` with ``inf`` for no upper bound."""
    expected = "the number of links: a whole number >= 1, or [low, high], where high may be inf"
    if isinstance(place.node, yaml.SequenceNode):
        ends = [at.size(expected) for at in place.items(expected)]
        if len(ends) != 2 or not isinstance(ends[0], int) or not (isinstance(ends[1], int) or ends[1] == "inf"):
            place.fail(f"expected {expected}")
        low, high = ends[0], None if isinstance(ends[1], str) else ends[1]
        return place.make(lambda: Link(target, low, high))
    both = place.size(expected)
    if not isinstance(both, int):
        place.fail(f"expected {expected}")
    return place.make(lambda: Link(target, both, both))


def _root(text: str) -> _Place:
    check_text(text)
    try:
        node = compose(without_tabs(text), deepest=_DEEPEST)
    except YamlFaultError as fault:
        raise _not_yaml(text, fault) from fault
    if node is None:
        message = "it is empty; a schema begins with 'nodes:'"
        raise ProgramError(message, text)
    return _Place(text, node)


_FAULTS = {
    Fault.DEPTH: "it is nested too deeply",
    Fault.DOCUMENTS: "it must be one document",
    Fault.ANCHOR: "anchors, aliases and tags of YAML are not allowed; put a word that begins with *, & or ! in quotes",
}


def _not_yaml(text: str, fault: YamlFaultError) -> ProgramError:
    start = fault.start or 0
    message = _FAULTS.get(fault.fault, f"this is neither YAML nor JSON: {fault.reason}")
    if fault.fault is Fault.SYNTAX and text[start : start + 1] == "?":
        message += "; put a word that ends in '?' in quotes"
    return ProgramError(message, text, min(start, len(text)))


def _unknown(key: str, allowed: tuple[str, ...]) -> str:
    if key in _OF_MATCHES:
        return f"{key} is what a match finds out; leave it out"
    return f"unknown key {short(key)}; known are {', '.join(sorted(allowed))}"


def _shown_key(key: yaml.Node) -> str:
    text = str(key.value) if isinstance(key, yaml.ScalarNode) else "?"
    return text if len(text) <= 40 else f"{text[:36]}..."
