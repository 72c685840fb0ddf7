"""The program of data that a source has read: its inputs and its output, with the names of the data.

A study without a given program uses this one, and ``easeml schema infer`` prints it, so both agree on the same data.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, NamedTuple

from easeml_core.data.layout import LINKS
from easeml_core.entities import Task
from easeml_core.programs.data_type import Category, DataType, Program, Tensor
from easeml_core.programs.schema import LONE_FIELD, CategoryClass, CategoryField, Node, Schema, TensorField

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from easeml_core.data.layout import Layout

_MOST_NAME = 24
"""Characters of a column's name; the program of the widest table is then still as short as a study may keep."""

_MOST_FIELDS = 2000
"""Columns of a table of which each is a field, for the same reason; files have no more (``csv_text``)."""

_MOST_NODES = 500
"""Columns of a table that is written as a schema, likewise."""


class InputColumn(NamedTuple):
    """A column that a model is given.

    Attributes:
        name: As in the data.
        width: How many numbers it becomes.
        words: Of text of few words, each of which becomes a number; none for anything else.
    """

    name: str
    width: int = 1
    words: frozenset[str] = frozenset()


class TableProgram(NamedTuple):
    """The program of a table.

    Attributes:
        program: Itself.
        names: The name in it of each column, also of the target.
        shared: Column -> the first column of the same words, where there are several: they share a class.
    """

    program: Program
    names: dict[str, str]
    shared: dict[str, str]


def program_of_table(columns: Sequence[InputColumn], target: str, classes: int) -> TableProgram:
    """The program of a table: a field for each column; of more than 2,000 columns one tensor.

    Example:
        >>> colour = InputColumn("colour", 2, frozenset({"red", "blue"}))
        >>> print(program_of_table([InputColumn("size"), colour], "y", 0).program)
        {input: {[size :: Tensor[1], colour :: Category[2]], []}, output: {[y :: Tensor[1]], []}}
    """
    names = field_names([target, *(column.name for column in columns)])
    fields = tuple(
        Category(len(c.words), names[c.name]) if c.words else Tensor((c.width,), names[c.name]) for c in columns
    )
    if len(fields) > _MOST_FIELDS:
        fields = (Tensor((sum(column.width for column in columns),)),)
    inputs, output = DataType(fields), _output(classes, names[target])
    shared = _shared_words(columns) if len(columns) <= _MOST_NODES else {}
    if not shared:
        return TableProgram(Program(inputs, output), names, {})
    renamed = {names[a]: names[b] for a, b in shared.items()}
    return TableProgram(Program(_schema(inputs, renamed), _schema(output, renamed)), names, shared)


def program_of_data(
    layout: Layout, task: Task, classes: int, target: Layout | None = None, *, name: str = ""
) -> Program:
    """The program of rows that are images, series, trees, or numbers without names.

    Example:
        >>> from easeml_core.data.layout import Layout
        >>> print(program_of_data(Layout("series", (24, 2)), Task.CLASSIFICATION, 3, name="Kind"))
        {input: {[Tensor[2]], [next]}, output: {[kind :: Category[3]], []}}
    """
    if target is not None:
        return Program(_side(layout), _side(target))
    called = field_names([name])[name] if name else ""
    return Program(_side(layout), _output(0 if task == Task.REGRESSION else classes, called))


def sizes_of(layout: Layout) -> tuple[int, ...]:
    """What a program says of a row; not how many steps a series has, or nodes a tree."""
    if layout.kind == "tree":
        return (layout.shape[1] - LINKS,)
    return layout.shape[1:] if layout.kind == "series" else layout.shape


def field_names(columns: Iterable[str]) -> dict[str, str]:
    """A name that both forms of a program allow for each column, no two the same.

    Example:
        >>> field_names(["Länge (cm)", "länge [cm]", "2nd", "?"])
        {'Länge (cm)': 'lange_cm', 'länge [cm]': 'lange_cm_2', '2nd': '_2nd', '?': 'column'}
    """
    names: dict[str, str] = {}
    taken: dict[str, int] = {}
    for column in columns:
        plain = unicodedata.normalize("NFKD", column[:1000]).encode("ascii", "ignore").decode().lower()
        stem = re.sub(r"[^a-z0-9]+", "_", plain).strip("_")[:_MOST_NAME].strip("_") or "column"
        stem = name = f"_{stem}" if stem[0].isdigit() else stem
        while name in taken:
            taken[stem] += 1
            name = f"{stem}_{taken[stem]}"
        taken[name] = 1
        names[column] = name
    return names


def _output(classes: int, name: str) -> DataType:
    """One of the classes, or one number where there are none."""
    return DataType((Category(classes, name) if classes else Tensor((1,), name),))


_OF_LINKS = {"series": ("next",), "tree": ("left", "right")}


def _side(layout: Layout) -> DataType:
    return DataType((Tensor(sizes_of(layout)),), _OF_LINKS.get(layout.kind, ()))


def _shared_words(columns: Sequence[InputColumn]) -> dict[str, str]:
    """See ``TableProgram``; the paper's form cannot say that."""
    groups: dict[frozenset[str], list[str]] = {}
    for column in columns:
        if len(column.words) > 1:
            groups.setdefault(column.words, []).append(column.name)
    return {name: group[0] for group in groups.values() if len(group) > 1 for name in group}


def _schema(side: DataType, shared: Mapping[str, str]) -> Schema:
    """The same side as a schema, where each field of ``shared`` has the class of another."""
    nodes: list[Node] = []
    classes: dict[str, CategoryClass] = {}
    for part in side.fields:
        if isinstance(part, Category):
            name = shared.get(part.name, part.name)
            classes[name] = CategoryClass(name, part.size)
            nodes.append(Node(part.name, (CategoryField(LONE_FIELD, name),), singleton=True))
        else:
            nodes.append(Node(part.name, (TensorField(LONE_FIELD, part.dims),), singleton=True))
    return Schema(tuple(nodes), tuple(classes.values()))
