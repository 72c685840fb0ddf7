"""One side of a program in the other form: what a template's pattern looks at, and the schema of the paper's form."""

from __future__ import annotations

from dataclasses import dataclass

from easeml_core.programs.bounds import SCHEMA_NAME
from easeml_core.programs.data_type import Category, DataType, Tensor
from easeml_core.programs.schema import (
    LONE_FIELD,
    CategoryClass,
    CategoryField,
    Field,
    Link,
    Node,
    Schema,
    TensorField,
)

_MOST_LINKS = 8
"""Of a node, to be written out as so many named links."""


@dataclass(frozen=True, slots=True)
class SeenField:
    """A field as a pattern sees it.

    Attributes:
        kind: ``Tensor`` or ``Category``.
        dims: Sizes and variables; of a category one, its number of classes, as if it were one-hot.
        name: Empty for a field without one.
    """

    kind: str
    dims: tuple[int | str, ...]
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind}[{','.join(map(str, self.dims))}]"


@dataclass(frozen=True, slots=True)
class Seen:
    """One side as a pattern sees it: an object with fields, and links to others of its kind."""

    fields: tuple[SeenField, ...]
    links: tuple[str, ...]


def as_seen(side: DataType | Schema) -> Seen | str:
    """One side as an object of the paper's form, or why it is none.

    A schema is one if it has only singletons, or one node of many instances that link, in one direction and without
    cycles or fan-in, to at most so many others: one is a series, two make a binary tree.
    """
    if isinstance(side, DataType):
        return Seen(tuple(_seen_part(part) for part in side.fields), side.links)
    sizes = side.sizes
    if all(node.singleton for node in side.nodes):
        lone = tuple(_seen(node.fields[0], node.name, sizes) for node in side.nodes)
        return Seen(lone, ())
    if len(side.nodes) > 1:
        return "it has several nodes, not all singletons, which only '*' stands for"
    if side.cyclic or side.undirected or side.fan_in:
        return "its links are cyclic, undirected or with fan-in, which only '*' stands for"
    (node,) = side.nodes
    if not node.links:
        return "it is a collection without order, which only '*' stands for"
    (link,) = node.links
    if link.high is None or link.high > _MOST_LINKS:
        return f"its links have no limit of at most {_MOST_LINKS}, which only '*' stands for"
    fields = tuple(_seen(field, field.name, sizes) for field in node.fields)
    return Seen(fields, (link.target,) * link.high)


def as_schema(side: DataType | Schema) -> Schema:
    """One side as a schema: fields become singletons, or with links one node that links to itself.

    Names that a schema does not allow, or that are missing, are made.
    """
    if isinstance(side, Schema):
        return side
    names: list[str] = []
    for part in side.fields:
        name = part.name or f"field_{len(names) + 1}"
        name = name if SCHEMA_NAME.fullmatch(name) else f"_{name}"
        while name in names:
            name += "_"
        names.append(name)
    classes = tuple(
        CategoryClass(name, part.size)
        for name, part in zip(names, side.fields, strict=True)
        if isinstance(part, Category)
    )
    parts = list(zip(names, side.fields, strict=True))
    if side.links:
        fields = tuple(_schema_field(name, name, part) for name, part in parts)
        return Schema((Node("object", fields, (Link("object", 0, len(side.links)),)),), classes)
    nodes = tuple(Node(name, (_schema_field(LONE_FIELD, name, part),), singleton=True) for name, part in parts)
    return Schema(nodes, classes)


def _seen_part(part: Tensor | Category) -> SeenField:
    if isinstance(part, Category):
        return SeenField("Category", (part.size,), part.name)
    return SeenField("Tensor", part.dims, part.name)


def _seen(field: Field, name: str, sizes: dict[str, int | str]) -> SeenField:
    if isinstance(field, CategoryField):
        return SeenField("Category", (sizes[field.category],), name)
    return SeenField("Tensor", field.dims, name)


def _schema_field(name: str, category: str, part: Tensor | Category) -> Field:
    if isinstance(part, Category):
        return CategoryField(name, category)
    return TensorField(name, part.dims)
