"""What an object must look like for a template: the paper's form with letters, names and tails that stand for anything.

    {[Tensor[A,B,C]], []}      any tensor of three dimensions; A, B, C are whatever they are
    {[Tensor[A]], [a]}         a series: one link, whatever its name
    {[Tensor[A]+], []}         one or more such fields, the letters free in each
    {[Tensor[A,...]], [...]}   `...` is any tail: of dimensions, of fields, of links
    *                          anything at all

The same letter is the same number, in input and output together.

``match_patterns`` decides whether a program looks as a template's patterns say, and what their letters and names then
stand for. Fields may stand in any order. A category also fits where a tensor is asked for, as its one-hot code: a
tensor of one dimension, the number of its classes. What is decided, and how far the work may go, is in
``schema_match``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from easeml_core.errors import ProgramError, counted
from easeml_core.programs.data_type import Category, DataType, Tensor
from easeml_core.programs.schema import (
    FIELD_NAME,
    LETTER,
    LONE_FIELD,
    MAX_DIMS,
    SCHEMA_NAME,
    CategoryClass,
    CategoryField,
    Field,
    Link,
    Node,
    Schema,
    TensorField,
    check_count,
    check_name,
    check_size,
)
from easeml_core.programs.schema_match import Binding, Mismatch, Search, Size, Steps, match_schema, unifications

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from easeml_core.programs.data_type import Program


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


Bound: TypeAlias = "Mapping[str, Size | tuple[Size, ...]]"
"""Letter or name of a pattern to what it stands for: a size, or a name, or a size for each repeated field."""

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


def match_patterns(
    wanted: tuple[Pattern | Schema, Pattern | Schema], program: Program, steps: Steps
) -> Bound | Mismatch:
    """Decide whether a program has the input and the output that are wanted.

    Returns:
        Letter -> size (or variable of the data), or a tuple of them where it stands in a repeated field; name of the
        pattern -> name of the field or link. A pattern that is a schema adds ``input.variable`` and so on. Or why not.
    """
    found: dict[str, Size | tuple[Size, ...]] = {}
    plans = []
    for word, pattern, side in zip(("input", "output"), wanted, (program.input, program.output), strict=True):
        answer = _match_side(pattern, side, steps)
        if isinstance(answer, Mismatch):
            return Mismatch(f"{word}: {answer.reason}")
        if isinstance(answer, _Side):
            plans.append(answer)
            found |= answer.mapping()
        else:
            found |= {f"{word}.{name}": value for name, value in answer.items()}
    if len(plans) == 2 and letters(plans[0].pattern) & letters(plans[1].pattern):
        return _match_together(plans[0], plans[1], steps)
    return found


def _match_side(pattern: Pattern | Schema, side: DataType | Schema, steps: Steps) -> _Side | Bound | Mismatch:
    """Match one side alone: a side that is decided, plain entries, or why not."""
    if isinstance(pattern, Schema):
        answer = match_schema(pattern, as_schema(side), steps=steps)
        return answer if isinstance(answer, Mismatch) else {**answer.dims, **answer.nodes}
    if not isinstance(pattern, TypePattern):
        return {}
    seen = as_seen(side)
    if isinstance(seen, str):
        return Mismatch(seen)
    search = Search(steps)
    plan = _Side(pattern, seen, search, {})
    reason = plan.hopeless()
    if reason or not search.run(plan.decisions()):
        return Mismatch(reason or search.reason)
    return plan


def _match_together(first: _Side, second: _Side, steps: Steps) -> Bound | Mismatch:
    """Match both sides at once, where a letter stands in both."""
    search, bound = Search(steps), dict[str, Size]()
    sides = [_Side(side.pattern, side.seen, search, bound) for side in (first, second)]
    if not search.run([decision for side in sides for decision in side.decisions()]):
        return Mismatch(f"input and output together: {search.reason}")
    return {**sides[0].mapping(), **sides[1].mapping()}


class _Side:
    """One side of a program against its pattern.

    Args:
        pattern: What it must look like.
        seen: What it looks like.
        search: That decides.
        bound: What the letters stand for by now; shared by sides that are matched together.
    """

    def __init__(self, pattern: TypePattern, seen: Seen, search: Search, bound: Binding) -> None:
        self.pattern, self.seen, self.search, self.bound = pattern, seen, search, bound
        self.taken: dict[int, int] = {}
        """Position of a field -> that of the pattern's field it was given to, or -1 for the tail."""
        self.free: dict[tuple[int, str], Size] = {}
        """Position of a field, letter -> size, in repeated fields."""

    def hopeless(self) -> str:
        """Why no choice can succeed, seen without trying any; else empty."""
        wanted, fields, links = self.pattern, self.seen.fields, self.seen.links
        open_end = wanted.more_fields or any(field.repeated for field in wanted.fields)
        reason = _count_differs(len(wanted.links), len(links), "link", open_end=wanted.more_links)
        if not reason and wanted.fields:
            for field in fields if not wanted.more_fields else ():
                self.search.look()
                if not any(self._fits(part, field) for part in wanted.fields):
                    return f"{_called(field)} is not {' or '.join(map(str, wanted.fields))}"
        return reason or _count_differs(len(wanted.fields), len(fields), "field", open_end=open_end)

    def decisions(self) -> list[Callable[[], Iterator[None]]]:
        """A field for each one of the pattern; then a place for each field that is left."""
        first = [partial(self._place, k, part) for k, part in enumerate(self.pattern.fields)]
        return [*first, *(partial(self._leftover, k) for k in range(len(self.seen.fields)))]

    def mapping(self) -> Bound:
        """What letters and names stand for, once decided."""
        found: dict[str, Size | tuple[Size, ...]] = dict(self.bound)
        for k, part in enumerate(self.pattern.fields):
            mine = sorted(position for position, given in self.taken.items() if given == k)
            if part.name and len(mine) == 1 and self.seen.fields[mine[0]].name:
                found[part.name] = self.seen.fields[mine[0]].name
            for letter in (size for size in part.dims if part.repeated and isinstance(size, str)):
                found[letter] = tuple(self.free[position, letter] for position in mine)
        return found | dict(zip(self.pattern.links, self.seen.links, strict=False))

    def _place(self, k: int, part: FieldPattern) -> Iterator[None]:
        """Choose the field that a field of the pattern stands for."""
        for position, field in enumerate(self.seen.fields):
            self.search.look()
            if position in self.taken:
                self.search.fail(f"no field is left for {part}", weak=True)
                continue
            none = True
            for _ in self._give(k, part, position, field):
                none = False
                yield
            if none:
                self.search.fail(f"{_called(field)} is not {part}{self._so_far(part)}")

    def _leftover(self, position: int) -> Iterator[None]:
        """Give a field that is left to a repeated one, or to the tail. Letters are free there: one choice is enough."""
        self.search.look()
        field = self.seen.fields[position]
        if position in self.taken:
            yield
            return
        for k, part in enumerate(self.pattern.fields):
            if part.repeated and self._fits(part, field):
                yield from self._give(k, part, position, field)
                return
        if self.pattern.more_fields:
            self.search.put(self.taken, position, -1)
            yield
        else:
            self.search.fail(f"{_called(field)} is one too many")

    def _give(self, k: int, part: FieldPattern, position: int, field: SeenField) -> Iterator[None]:
        """Every way in which the field is what the pattern asks for."""
        for binding in _ways(part, field, {} if part.repeated else self.bound):
            self.search.put(self.taken, position, k)
            for letter, size in binding.items():
                if part.repeated:
                    self.search.put(self.free, (position, letter), size)
                else:
                    self.search.put(self.bound, letter, size)
            yield

    def _fits(self, part: FieldPattern, field: SeenField) -> bool:
        """Whether a field is what is asked for, looked at alone."""
        return next(_ways(part, field, {}), None) is not None

    def _so_far(self, part: FieldPattern) -> str:
        known = [f"{size}={self.bound[size]}" for size in part.dims if isinstance(size, str) and size in self.bound]
        return f" with {', '.join(known)}" if known and not part.repeated else ""


def _ways(part: FieldPattern, field: SeenField, bound: Binding) -> Iterator[Binding]:
    if part.kind == "Tensor" or field.kind == "Category":
        yield from unifications(part.dims, field.dims, bound, tail=part.more_dims)


def _count_differs(wanted: int, given: int, what: str, *, open_end: bool) -> str:
    if given == wanted or (open_end and given > wanted):
        return ""
    needed = f"{'at least ' if open_end else ''}{wanted or 'none'}"
    return f"it has {counted(given, what)}, the template needs {needed}"


def _called(field: SeenField) -> str:
    return f"{field.name} :: {field}" if field.name else str(field)
