"""The paper's form of a program: objects with a part of fixed shape and a part that refers to objects like themselves.

    {input: {[Tensor[256,256,3]], []}, output: {[Tensor[3]], []}}

Source: Li, Zhong, Liu, Wu, Zhang, "Ease.ml: towards multi-tenant resource sharing for machine learning workloads",
PVLDB 11(5), 2018. One link makes a chain (a series), two make a binary tree. ``Category`` is ours: one of so
many classes. ``str()`` is the canonical text, which ``language`` reads back as an equal object.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from easeml_core.errors import ProgramError
from easeml_core.programs.schema import FIELD_NAME, MAX_DIMS, check_count, check_name, check_size

if TYPE_CHECKING:
    from easeml_core.programs.schema import Schema


@dataclass(frozen=True, slots=True)
class Tensor:
    """A field of numbers.

    Attributes:
        dims: At least one and at most ``MAX_DIMS`` sizes, each from 1 to ``MAX_SIZE``.
        name: Empty for a field without a name.
    """

    dims: tuple[int, ...]
    name: str = ""

    def __post_init__(self) -> None:
        if not self.dims:
            message = "a tensor has at least one dimension, such as Tensor[10]"
            raise ProgramError(message)
        check_count(len(self.dims), "dimensions of a tensor", MAX_DIMS)
        for size in self.dims:
            check_size(size, "a dimension")
        _check_field_name(self.name)

    def __str__(self) -> str:
        return f"{_label(self.name)}Tensor[{','.join(map(str, self.dims))}]"


@dataclass(frozen=True, slots=True)
class Category:
    """A field that is one of ``size`` classes. Ours: the paper writes it as a tensor of as many scores."""

    size: int
    name: str = ""

    def __post_init__(self) -> None:
        check_size(self.size, "the number of classes")
        _check_field_name(self.name)

    def __str__(self) -> str:
        return f"{_label(self.name)}Category[{self.size}]"


@dataclass(frozen=True, slots=True)
class DataType:
    """An object.

    Attributes:
        fields: Its part of fixed shape.
        links: Names of its references to objects of the same type, each of which may be missing in a given object.
    """

    fields: tuple[Tensor | Category, ...]
    links: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_count(len(self.fields) + len(self.links), "fields and links of an object")
        if not self.fields and not self.links:
            message = "an object has at least one field or link"
            raise ProgramError(message)
        for name in self.links:
            check_name(name, "the name of a link", FIELD_NAME)
        seen: set[str] = set()
        for name in (*(field.name for field in self.fields if field.name), *self.links):
            if name in seen:
                message = f"the name {name!r} comes twice in one object"
                raise ProgramError(message)
            seen.add(name)

    def __str__(self) -> str:
        return f"{{[{', '.join(map(str, self.fields))}], [{', '.join(self.links)}]}}"


@dataclass(frozen=True, slots=True)
class Program:
    """What goes in and what comes out, both in the same form.

    Attributes:
        input: What a model is given.
        output: What it answers.
    """

    input: DataType | Schema
    output: DataType | Schema

    def __post_init__(self) -> None:
        if isinstance(self.input, DataType) is not isinstance(self.output, DataType):
            message = "input and output must be in the same form: both as {[..], [..]}, or both with nodes"
            raise ProgramError(message)

    def __str__(self) -> str:
        if isinstance(self.input, DataType):
            return f"{{input: {self.input}, output: {self.output}}}"
        return f"input:\n{_indented(self.input)}\noutput:\n{_indented(self.output)}"


def _check_field_name(name: str) -> None:
    if name:
        check_name(name, "the name of a field", FIELD_NAME)


def _label(name: str) -> str:
    return f"{name} :: " if name else ""


def _indented(side: object) -> str:
    return "\n".join(f"  {line}" for line in str(side).splitlines())
