"""What an object must look like for a template: the paper's form with letters, names and tails that stand for anything.

    {[Tensor[A,B,C]], []}      any tensor of three dimensions; A, B, C are whatever they are
    {[Tensor[A]], [a]}         a series: one link, whatever its name
    {[Tensor[A]+], []}         one or more such fields, the letters free in each
    {[Tensor[A,...]], [...]}   `...` is any tail: of dimensions, of fields, of links
    *                          anything at all

The same letter is the same number, in input and output together. What matches is decided in ``pattern_match``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from easeml_core.errors import ProgramError
from easeml_core.programs.bounds import FIELD_NAME, LETTER, MAX_DIMS, check_count, check_name, check_size

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class FieldPattern:
    """What one field must look like.

    Attributes:
        kind: ``Tensor`` or ``Category``.
        dims: Sizes, or letters such as ``A``.
        more_dims: Whether any further dimensions may follow.
        name: Stands for whatever the field is called; empty where that is of no interest.
        repeated: One or more such fields, each with its own numbers behind the letters.
    """

    kind: str
    dims: tuple[int | str, ...]
    more_dims: bool = False
    name: str = ""
    repeated: bool = False

    def __post_init__(self) -> None:
        if self.kind not in ("Tensor", "Category"):
            message = f"a field is a Tensor or a Category, got {self.kind!r}"
            raise ProgramError(message)
        if not self.dims and not self.more_dims:
            message = "a tensor has at least one dimension, such as Tensor[A]"
            raise ProgramError(message)
        if self.kind == "Category" and (len(self.dims) != 1 or self.more_dims):
            message = "a category has one size, its number of classes, such as Category[A]"
            raise ProgramError(message)
        check_count(len(self.dims), "dimensions of a tensor", MAX_DIMS)
        for size in self.dims:
            _check_dim(size)
        if self.name:
            check_name(self.name, "the name of a field", FIELD_NAME)

    def __str__(self) -> str:
        dims = ",".join([*map(str, self.dims), *(["..."] if self.more_dims else [])])
        label = f"{self.name} :: " if self.name else ""
        return f"{label}{self.kind}[{dims}]{'+' if self.repeated else ''}"


@dataclass(frozen=True, slots=True)
class TypePattern:
    """What an object must look like.

    Attributes:
        fields: Each matches a different field, in any order.
        links: Names that stand for whatever the links are called; only their number counts.
        more_fields: Whether there may be any further fields.
        more_links: Whether there may be any further links.
    """

    fields: tuple[FieldPattern, ...] = ()
    links: tuple[str, ...] = ()
    more_fields: bool = False
    more_links: bool = False

    def __post_init__(self) -> None:
        check_count(len(self.fields) + len(self.links), "fields and links of an object")
        if not (self.fields or self.links or self.more_fields or self.more_links):
            message = "an object has at least one field or link, so this pattern would match nothing"
            raise ProgramError(message)
        for name in self.links:
            check_name(name, "the name of a link", FIELD_NAME)
        names = [*(field.name for field in self.fields if field.name), *self.links]
        if len(set(names)) < len(names):
            message = "a name comes twice in one pattern"
            raise ProgramError(message)

    def __str__(self) -> str:
        fields = [*map(str, self.fields), *(["..."] if self.more_fields else [])]
        links = [*self.links, *(["..."] if self.more_links else [])]
        return f"{{[{', '.join(fields)}], [{', '.join(links)}]}}"


@dataclass(frozen=True, slots=True)
class Anything:
    """Matches whatever there is: ``*``."""

    def __str__(self) -> str:
        return "*"


Pattern = TypePattern | Anything


def letters(pattern: object) -> frozenset[str]:
    """The letters of a pattern that must be the same number wherever they stand."""
    return frozenset(_letters(pattern, repeated=False))


def check_letters(*patterns: object) -> None:
    """Refuse letters that stand in a repeated field and elsewhere: in each repetition they are free."""
    shared = {letter for pattern in patterns for letter in _letters(pattern, repeated=False)}
    repeated = [letter for pattern in patterns for letter in _letters(pattern, repeated=True)]
    for letter in repeated:
        if letter in shared or repeated.count(letter) > 1:
            message = f"{letter} stands in a repeated field, where it is free each time, and elsewhere; use another"
            raise ProgramError(message)


def _letters(pattern: object, *, repeated: bool) -> Iterator[str]:
    if isinstance(pattern, TypePattern):
        for field in pattern.fields:
            if field.repeated is repeated:
                yield from dict.fromkeys(size for size in field.dims if isinstance(size, str))


def _check_dim(size: int | str) -> None:
    if isinstance(size, str):
        if not LETTER.fullmatch(size):
            message = f"a letter that stands for a number is a capital one, got {size!r}"
            raise ProgramError(message)
    else:
        check_size(size, "a dimension")
