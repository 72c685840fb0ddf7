"""The schema form of a program's side: nodes with fields and links, classes, and what kind of graph the links make.

Source: the schemas of the released ease.ml (github.com/easeml/automl, ``schema/``). Nodes, fields, links and classes
are kept sorted by name, so that two schemas that say the same are equal. ``str()`` is the canonical YAML, which
``schema_reader`` reads back as an equal object. Every rule is checked here; the reader adds the place in the text.

The bounds of both forms of the language are here too: how large a program may be, and how things in it are named and
sized. They keep every answer quick, whatever the text; ``schema_match`` bounds the work of matching.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import yaml

from easeml_core.errors import ProgramError

MAX_LENGTH = 200_000
"""Characters of a text."""
MAX_PARTS = 3000
"""Fields and links of one object; nodes, fields, links and classes of one schema."""
MAX_DIMS = 32
"""Dimensions of one tensor."""
MAX_SIZE = 10**9
"""Of one dimension, one class, and the number of links."""
MAX_NAME = 100
"""Characters of a name."""

FIELD_NAME = re.compile(r"[a-z0-9_]+")
"""Of the paper's form."""
SCHEMA_NAME = re.compile(r"[a-z_][0-9a-z_]*")
LETTER = re.compile(r"[A-Z][0-9A-Z_]*")
"""What stands for any number in a pattern."""


def check_text(text: object) -> str:
    """The text itself, or ProgramError when it is none or too long."""
    if not isinstance(text, str):
        message = f"a program is text, got {type(text).__name__}"
        raise ProgramError(message)
    if len(text) > MAX_LENGTH:
        message = f"at most {MAX_LENGTH:,} characters are read, got {len(text):,}"
        raise ProgramError(message)
    return text


def check_size(size: object, what: str) -> int:
    """A whole number from 1 to ``MAX_SIZE``, or ProgramError."""
    if type(size) is not int or not 1 <= size <= MAX_SIZE:
        message = f"{what} must be a whole number from 1 to {MAX_SIZE:,}, got {size!r}"
        raise ProgramError(message)
    return size


def check_name(name: object, what: str, pattern: re.Pattern[str] = SCHEMA_NAME) -> str:
    """A name of the pattern and of bounded length, or ProgramError."""
    if not isinstance(name, str) or not pattern.fullmatch(name):
        first = "a small letter or '_'" if pattern is SCHEMA_NAME else "any of these"
        message = f"{what} has small letters, digits and '_', and begins with {first}, got {short(name)}"
        raise ProgramError(message)
    if len(name) > MAX_NAME:
        message = f"{what} has at most {MAX_NAME} characters, got {len(name)}"
        raise ProgramError(message)
    return name


def check_count(count: int, what: str, most: int = MAX_PARTS) -> None:
    """Not more than allowed, or ProgramError."""
    if count > most:
        message = f"{what}: at most {most:,}, got {count:,}"
        raise ProgramError(message)


def short(value: object) -> str:
    """A value as it is shown in a message: its first characters."""
    shown = repr(value)
    return shown if len(shown) <= 40 else f"{shown[:36]}..."


WILDCARDS = {"?": (0, 1), "+": (1, None), "*": (0, None)}
"""Mark behind a variable -> fewest and most dimensions that it stands for; None for no limit."""
LONE_FIELD = "field"
"""Name of a singleton's field where the text gives none."""
_VARIABLE = re.compile(r"[a-z_][0-9a-z_]*[?+*]?")


@dataclass(frozen=True, slots=True)
class TensorField:
    """A field of numbers.

    Attributes:
        name: Of the field.
        dims: Each a size, or a variable such as ``a``: the same variable is the same size. A variable may bear one of
            ``?``, ``+``, ``*``: none or one, one or more, any number of dimensions of this size.
    """

    name: str
    dims: tuple[int | str, ...]

    def __post_init__(self) -> None:
        check_name(self.name, "the name of a field")
        if not self.dims:
            message = "a tensor has at least one dimension, such as [10]"
            raise ProgramError(message)
        check_count(len(self.dims), "dimensions of a tensor", MAX_DIMS)
        for size in self.dims:
            check_dim(size)
        wild = [size for size in self.dims if isinstance(size, str) and size[-1] in WILDCARDS]
        if len(wild) > 1:
            message = f"at most one dimension may bear ?, + or *, got {', '.join(map(short, wild))}"
            raise ProgramError(message)
        if wild and len(self.dims) == 1 and wild[0][-1] != "+":
            message = f"a tensor has at least one dimension, and {short(wild[0])} alone may be none; use '+'"
            raise ProgramError(message)


@dataclass(frozen=True, slots=True)
class CategoryField:
    """A field that is one of the classes of a declared set.

    Attributes:
        name: Of the field.
        category: Name of a ``CategoryClass`` of the schema.
    """

    name: str
    category: str

    def __post_init__(self) -> None:
        check_name(self.name, "the name of a field")
        check_name(self.category, "the name of a class")


Field = TensorField | CategoryField


@dataclass(frozen=True, slots=True)
class Link:
    """References of a node's instances to those of a node.

    Attributes:
        target: The node referred to; it may be the same.
        low: Fewest of one instance, >= 0.
        high: Most, >= 1 and >= low; None for any number.
    """

    target: str
    low: int
    high: int | None

    def __post_init__(self) -> None:
        check_name(self.target, "the target of a link")
        if type(self.low) is not int or not 0 <= self.low <= MAX_SIZE:
            message = f"the fewest links are a whole number from 0 to {MAX_SIZE:,}, got {short(self.low)}"
            raise ProgramError(message)
        if self.high is not None:
            check_size(self.high, "the most links (or 'inf')")
            if self.high < self.low:
                message = f"the fewest links, {self.low}, are more than the most, {self.high}"
                raise ProgramError(message)


@dataclass(frozen=True, slots=True)
class Node:
    """A kind of instance.

    Attributes:
        name: Of the node.
        fields: What every instance has.
        links: What it may refer to, one entry a target.
        singleton: Whether there is exactly one instance; it then has one field and no links.
    """

    name: str
    fields: tuple[Field, ...] = ()
    links: tuple[Link, ...] = ()
    singleton: bool = False

    def __post_init__(self) -> None:
        check_name(self.name, "the name of a node")
        object.__setattr__(self, "fields", tuple(sorted(self.fields, key=lambda field: field.name)))
        object.__setattr__(self, "links", tuple(sorted(self.links, key=lambda link: link.target)))
        _check_once([field.name for field in self.fields], "field")
        _check_once([link.target for link in self.links], "link")
        if self.singleton and (len(self.fields) != 1 or self.links):
            message = f"a singleton has one field and no links, got {len(self.fields)} and {len(self.links)}"
            raise ProgramError(message)
        if not self.fields and not self.links:
            message = "a node has at least one field or link"
            raise ProgramError(message)


@dataclass(frozen=True, slots=True)
class CategoryClass:
    """A set of classes.

    Attributes:
        name: Of the set.
        size: How many classes there are, or a variable.
    """

    name: str
    size: int | str

    def __post_init__(self) -> None:
        check_name(self.name, "the name of a class")
        if isinstance(self.size, str):
            check_name(self.size, "a variable")
        else:
            check_size(self.size, "the number of classes")


@dataclass(frozen=True, slots=True)
class Schema:
    """One side of a program.

    Attributes:
        nodes: At least one.
        classes: Each is used by some field.
        cyclic: Whether links may lead back to where they came from.
        undirected: Whether every link also leads back.
        fan_in: Whether several links may lead to one instance.
    """

    nodes: tuple[Node, ...]
    classes: tuple[CategoryClass, ...] = ()
    cyclic: bool = False
    undirected: bool = False
    fan_in: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "nodes", tuple(sorted(self.nodes, key=lambda node: node.name)))
        object.__setattr__(self, "classes", tuple(sorted(self.classes, key=lambda group: group.name)))
        if not self.nodes:
            message = "a schema has at least one node"
            raise ProgramError(message, path="nodes")
        _check_once([node.name for node in self.nodes], "node")
        _check_once([group.name for group in self.classes], "class")
        parts = len(self.nodes) + len(self.classes) + sum(len(n.fields) + len(n.links) for n in self.nodes)
        check_count(parts, "nodes, fields, links and classes of a schema")
        _check_links(self)
        _check_classes(self)

    @property
    def sizes(self) -> dict[str, int | str]:
        """Number of classes by the name of the set."""
        return {group.name: group.size for group in self.classes}

    def __str__(self) -> str:
        text: str = yaml.safe_dump(to_mapping(self), sort_keys=False, default_flow_style=None, width=float("inf"))
        return text.rstrip("\n")


def to_mapping(schema: Schema) -> dict[str, object]:
    """The schema as plain data, as YAML and JSON have it; what is a default is left out."""
    found: dict[str, object] = {"nodes": {node.name: _node(node) for node in schema.nodes}}
    if schema.classes:
        found["classes"] = {group.name: {"dim": group.size} for group in schema.classes}
    flags = {"cyclic": schema.cyclic, "undirected": schema.undirected, "fan-in": schema.fan_in}
    if any(flags.values()):
        found["ref-constraints"] = {name: True for name, flag in flags.items() if flag}
    return found


def _node(node: Node) -> dict[str, object]:
    if node.singleton and node.fields[0].name == LONE_FIELD:
        return {"singleton": True, **_field(node.fields[0])}
    found: dict[str, object] = {"singleton": True} if node.singleton else {}
    if node.fields:
        found["fields"] = {field.name: _field(field) for field in node.fields}
    if node.links:
        found["links"] = {link.target: _cardinality(link) for link in node.links}
    return found


def _field(field: Field) -> dict[str, object]:
    if isinstance(field, TensorField):
        return {"type": "tensor", "dim": list(field.dims)}
    return {"type": "category", "class": field.category}


def _cardinality(link: Link) -> int | list[int | str]:
    return link.low if link.low == link.high else [link.low, "inf" if link.high is None else link.high]


def check_dim(size: object) -> None:
    """A size or a variable, or ProgramError."""
    if not isinstance(size, str):
        check_size(size, "a dimension that is no variable")
        return
    if not _VARIABLE.fullmatch(size):
        message = (
            "a variable has small letters, digits and '_', begins with no digit, and may bear ?, + or * behind, "
            f"got {short(size)}"
        )
        raise ProgramError(message)
    check_name(size.rstrip("?+*"), "a variable")


def _check_once(names: list[str], what: str) -> None:
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        message = f"the {what} {short(twice)} comes twice"
        raise ProgramError(message)


def _check_links(schema: Schema) -> None:
    """Targets exist and have instances to refer to; where links go both ways and may not meet, they make chains."""
    nodes = {node.name: node for node in schema.nodes}
    for node in schema.nodes:
        for link in node.links:
            place = f"nodes.{node.name}.links.{link.target}"
            if link.target not in nodes:
                message = f"there is no node {short(link.target)}"
                raise ProgramError(message, path=place)
            if nodes[link.target].singleton:
                message = f"{link.target} is a singleton, and nothing can link to one"
                raise ProgramError(message, path=place)
        if schema.undirected and not schema.fan_in:
            most = [link.high for link in node.links]
            if None in most or sum(high or 0 for high in most) > 2:
                message = "undirected without fan-in allows at most 2 links, since every link also comes in"
                raise ProgramError(message, path=f"nodes.{node.name}.links")


def _check_classes(schema: Schema) -> None:
    """Fields name declared classes, and every declared class is used."""
    declared = {group.name for group in schema.classes}
    used: set[str] = set()
    for node in schema.nodes:
        for field in node.fields:
            if isinstance(field, CategoryField):
                if field.category not in declared:
                    message = f"the class {short(field.category)} is not declared under 'classes'"
                    raise ProgramError(message, path=f"nodes.{node.name}.fields.{field.name}")
                used.add(field.category)
    for name in sorted(declared - used):
        message = f"no field uses the class {short(name)}; every declared class must be used"
        raise ProgramError(message, path=f"classes.{name}")
