"""Search spaces: which parameters a candidate may have, as in the earlier Ease.ml.

    .int [low, high]      whole numbers, both ends included; .scale linear (default), log or exp
    .float [low, high]    numbers; .scale linear (default), log or exp
    .choice [...]         one of a list of values, mappings or further domains; may nest
    anything else         a constant; domains inside its mappings and lists are replaced

With ``log`` the bounds are values and each order of magnitude is as likely as the next. With ``exp`` the bounds are
powers of ten: ``.float: [-4, -1]`` is from .0001 to .1, and ``.int: [0, 3]`` is 1, 10, 100 or 1000. A parameter that
only makes sense under one option stands inside that option's mapping. Plain data and texts are read
by ``reader``; spaces are made into finite candidates by ``sampling``.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, TypeAlias

MANY = 10**15
"""Sizes are counted up to here."""


@dataclass(frozen=True, slots=True)
class Constant:
    """A value that is always the same: text, a number, true, false or null."""

    value: bool | int | float | str | None


@dataclass(frozen=True, slots=True)
class WholeRange:
    """Whole numbers in [low, high]; with ``exp`` 10 to the power of each."""

    low: int
    high: int
    scale: str = "linear"


@dataclass(frozen=True, slots=True)
class RealRange:
    """Numbers in [low, high]; with ``exp`` 10 to the power of each."""

    low: float
    high: float
    scale: str = "linear"


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the options, each as likely as the next."""

    options: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """A mapping: every entry is there."""

    entries: tuple[tuple[str, Node], ...]


@dataclass(frozen=True, slots=True)
class Row:
    """A list: every item is there."""

    items: tuple[Node, ...]


Node: TypeAlias = Constant | WholeRange | RealRange | Choice | Group | Row


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """A space whose every point is a mapping of parameters.

    Attributes:
        root: A mapping, or a choice between such.
    """

    root: Node

    @property
    def size(self) -> float:
        """How many points there are, up to ``MANY``; infinite with a range of ``.float``. Equal ones count each."""
        return size_of(self.root)

    def to_data(self) -> Any:
        """The space as plain data, as JSON has it."""
        return data_of(self.root)

    def __str__(self) -> str:
        """JSON in one line; reading it gives an equal space."""
        return json.dumps(self.to_data(), ensure_ascii=False)


def size_of(node: Node) -> float:
    """How many values a node can have, as ``SearchSpace.size``; an int unless it is infinite."""
    if isinstance(node, Constant):
        return 1
    if isinstance(node, WholeRange):
        return min(MANY, node.high - node.low + 1)
    if isinstance(node, RealRange):
        return math.inf if node.low < node.high else 1
    sizes = [size_of(part) for part in parts_of(node)]
    if isinstance(node, Choice):
        return _bounded(sum(sizes))
    product: float = 1
    for size in sizes:
        product = _bounded(product * size)
    return product


def parts_of(node: Node) -> tuple[Node, ...]:
    """The nodes directly inside a node."""
    if isinstance(node, Choice):
        return node.options
    if isinstance(node, Group):
        return tuple(entry for _, entry in node.entries)
    return node.items if isinstance(node, Row) else ()


def data_of(node: Node) -> Any:
    """A node as plain data."""
    if isinstance(node, Constant):
        return node.value
    if isinstance(node, WholeRange | RealRange):
        kind = ".int" if isinstance(node, WholeRange) else ".float"
        scale = {} if node.scale == "linear" else {".scale": node.scale}
        return {kind: [node.low, node.high], **scale}
    if isinstance(node, Group):
        return {name: data_of(entry) for name, entry in node.entries}
    inner = [data_of(part) for part in parts_of(node)]
    return {".choice": inner} if isinstance(node, Choice) else inner


def _bounded(size: float) -> float:
    return size if size == math.inf else min(MANY, size)
