"""Reads programs, in the paper's form or as schemas, and the patterns of templates.

One function per rule of the grammar, the rule in its docstring (in EBNF: braces repeat, brackets are optional, a full
stop ends a rule). The rules do not nest, so no text can exhaust the stack. Schemas are read by ``schema_reader``; the
bounds on both are in ``schema``.

A cursor over the text of the paper's form: takes words and signs, and fails with a caret under what it finds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, NoReturn, TypeVar, overload

from easeml_core.errors import ProgramError
from easeml_core.programs.data_type import Category, DataType, Program, Tensor
from easeml_core.programs.pattern import Anything, FieldPattern, Pattern, TypePattern, check_letters
from easeml_core.programs.schema import FIELD_NAME, MAX_SIZE, check_name, check_text, short
from easeml_core.programs.schema_reader import read_program, read_schema

if TYPE_CHECKING:
    from collections.abc import Callable

    from easeml_core.programs.schema import Schema


_BLANKS = re.compile(r"\s*(?:#[^\n]*\s*)*")
_PIECE = re.compile(r"[A-Za-z0-9_]+|::|\.\.\.|[^\W_]+|\S")
_WORD = re.compile(r"[A-Za-z0-9_]+")

_Made = TypeVar("_Made")


class Cursor:
    """Where the reader stands. Blanks, line ends and comments from ``#`` to the end of a line mean nothing.

    Args:
        source: Text of bounded length.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.position = self.behind_last = 0
        self._skip_blanks()

    def next_piece(self) -> str:
        """The word or sign that comes next, not taken; empty at the end."""
        found = _PIECE.match(self.source, self.position)
        return found[0] if found else ""

    def take(self, sign: str) -> bool:
        """Take a sign or a given word if it comes next."""
        if self.next_piece() != sign:
            return False
        self._move(len(sign))
        return True

    def expect(self, sign: str, why: str = "") -> None:
        """Take a sign or a given word, or fail."""
        if not self.take(sign):
            self.fail_here(why or f"expected {sign!r}")

    def word(self, expected: str) -> str:
        """Take a word: letters, digits and '_'."""
        piece = self.next_piece()
        if not _WORD.fullmatch(piece):
            self.fail_here(f"expected {expected}")
        self._move(len(piece))
        return piece

    def end(self, expected: str) -> None:
        """Fail unless nothing follows."""
        if self.next_piece():
            self.fail_here(f"expected {expected}")

    def make(self, start: int, build: Callable[[], _Made]) -> _Made:
        """Build an object from what was taken since ``start``; what it refuses is shown there."""
        try:
            return build()
        except ProgramError as error:
            self.fail(error.message, start, self.behind_last)

    def fail_here(self, message: str) -> NoReturn:
        """Fail with the caret under the next piece, and name it."""
        piece = self.next_piece()
        found = short(piece) if piece else "the end"
        self.fail(f"{message}, found {found}", self.position, self.position + len(piece))

    def fail(self, message: str, start: int, end: int) -> NoReturn:
        """Fail with the caret under a span."""
        raise ProgramError(message, self.source, start, end)

    def _move(self, length: int) -> None:
        self.position = self.behind_last = self.position + length
        self._skip_blanks()

    def _skip_blanks(self) -> None:
        blanks = _BLANKS.match(self.source, self.position)
        self.position = blanks.end() if blanks else self.position


_EXAMPLE = (
    "a program such as {input: {[Tensor[256,256,3]], []}, output: {[Tensor[3]], []}}, "
    "or input: and output:, each with nodes:"
)
_HAS_NODES = re.compile(r"\bnodes[\"']?\s*:(?!:)")
_COMMENT = re.compile(r"#[^\n]*")
_HAS_SIDES = re.compile(r"\b(?:input|output)[\"']?\s*:(?!:)")
_KINDS = ("Tensor", "Category")


def parse_program(text: str) -> Program:
    """Read a program.

    Args:
        text: At most ``MAX_LENGTH`` characters, in the paper's form or with a schema on each side (YAML or JSON).

    Returns:
        The program; ``str()`` of it is its canonical text, which reads back as the same.

    Raises:
        ProgramError: Whatever is wrong; the message shows the line with a caret under the place.

    Example:
        >>> print(parse_program("{input:{[Tensor[256,256,3]],[]},output:{[Tensor[3]],[]}}"))
        {input: {[Tensor[256,256,3]], []}, output: {[Tensor[3]], []}}
    """
    if is_schema_text(check_text(text)):
        return read_program(text)
    cursor = Cursor(text)
    program = _program(cursor)
    cursor.end("nothing more")
    return program


def parse_data_type(text: str) -> DataType | Schema:
    """Read one side of a program; as ``parse_program``."""
    if is_schema_text(check_text(text)):
        return read_schema(text)
    cursor = Cursor(text)
    data_type = _type(cursor, pattern=False)
    cursor.end("nothing more")
    return data_type


def parse_pattern(text: str) -> Pattern | Schema:
    """Read the pattern of one side of a template: the paper's form with letters and tails, ``*``, or a schema.

    Raises:
        ProgramError: Whatever is wrong.

    Example:
        >>> print(parse_pattern("{[Tensor[A,...]],[a]}"))
        {[Tensor[A,...]], [a]}
    """
    if is_schema_text(check_text(text)):
        return read_schema(text)
    cursor = Cursor(text)
    pattern: Pattern = Anything() if cursor.take("*") else _type(cursor, pattern=True)
    cursor.end("nothing more")
    cursor.make(0, lambda: check_letters(pattern))
    return pattern


def parse_any(text: str) -> Program | DataType | Schema:
    """Read a program, or one side of one alone, whichever the text is."""
    if _HAS_SIDES.search(_COMMENT.sub("", check_text(text))):
        return parse_program(text)
    return parse_data_type(text)


def is_schema_text(text: str) -> bool:
    """Whether a text is to be read as a schema: it has ``nodes:`` somewhere, outside comments."""
    return _HAS_NODES.search(_COMMENT.sub("", text)) is not None


def grammar() -> str:
    """Give the grammar: the first line of the docstring of every rule."""
    rules = (_program, _type, _fields, _field, _sizes, _size, _links)
    return "\n".join((rule.__doc__ or "").strip().splitlines()[0] for rule in rules)


def _program(cursor: Cursor) -> Program:
    """``program = "{" "input" ":" type "," "output" ":" type "}"``."""
    cursor.expect("{", f"expected {_EXAMPLE}")
    sides = []
    for word in ("input", "output"):
        cursor.expect(word)
        cursor.expect(":")
        sides.append(_type(cursor, pattern=False))
        cursor.expect("," if word == "input" else "}")
    return Program(*sides)


@overload
def _type(cursor: Cursor, *, pattern: Literal[False]) -> DataType: ...
@overload
def _type(cursor: Cursor, *, pattern: Literal[True]) -> TypePattern: ...
def _type(cursor: Cursor, *, pattern: bool) -> DataType | TypePattern:
    """``type = "{" "[" fields "]" "," "[" links "]" "}"``."""
    start = cursor.position
    cursor.expect("{", "expected an object such as {[Tensor[10]], [next]}")
    cursor.expect("[", "expected '[' and the fields of fixed shape")
    fields = _fields(cursor, pattern=pattern)
    cursor.expect("]", "expected ',' and another field, or ']'")
    cursor.expect(",", "expected ',' and the links in brackets, which may be empty: []")
    cursor.expect("[", "expected '[' and the names of the links")
    links = _links(cursor, pattern=pattern)
    cursor.expect("]", "expected ',' and another link, or ']'")
    cursor.expect("}")
    if pattern:
        more = (fields.more, links.more)
        return cursor.make(start, lambda: TypePattern(tuple(p.as_pattern() for p in fields.parts), links.names, *more))
    return cursor.make(start, lambda: DataType(tuple(p.as_field() for p in fields.parts), links.names))


@dataclass(frozen=True, slots=True)
class _Field:
    """A field as it was read."""

    kind: str
    dims: tuple[int | str, ...]
    more: bool
    name: str
    repeated: bool

    def as_pattern(self) -> FieldPattern:
        return FieldPattern(self.kind, self.dims, self.more, self.name, self.repeated)

    def as_field(self) -> Tensor | Category:
        dims = tuple(size for size in self.dims if isinstance(size, int))
        if self.kind == "Tensor":
            return Tensor(dims, self.name)
        if len(dims) != 1:
            message = "a category has one size, its number of classes, such as Category[3]"
            raise ProgramError(message)
        return Category(dims[0], self.name)


@dataclass(frozen=True, slots=True)
class _Fields:
    parts: tuple[_Field, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class _Links:
    names: tuple[str, ...]
    more: bool


def _fields(cursor: Cursor, *, pattern: bool) -> _Fields:
    """``fields = [ field { "," field } ]``."""
    parts: list[_Field] = []
    if cursor.next_piece() == "]":
        return _Fields((), more=False)
    while True:
        if pattern and cursor.take("..."):
            return _Fields(tuple(parts), more=True)
        parts.append(_field(cursor, pattern=pattern))
        if not cursor.take(","):
            return _Fields(tuple(parts), more=False)


def _field(cursor: Cursor, *, pattern: bool) -> _Field:
    """``field = [ name "::" ] ( "Tensor" "[" sizes "]" | "Category" "[" size "]" )``."""
    start = cursor.position
    kind, name = cursor.word("a field such as Tensor[10], or ']'"), ""
    if cursor.take("::"):
        name = kind
        kind = cursor.word("Tensor or Category")
    if kind not in _KINDS:
        hint = "; a field with a name is written name :: Tensor[10]" if not name else ""
        cursor.fail(f"unknown kind of field {short(kind)}; known are Tensor, Category{hint}", start, cursor.behind_last)
    cursor.expect("[", f"expected '[' and the size, such as {kind}[10]")
    dims, more = _sizes(cursor, pattern=pattern)
    cursor.expect("]", "expected ',' and another size, or ']'")
    field = _Field(kind, dims, more, name, pattern and cursor.take("+"))
    if pattern:
        cursor.make(start, field.as_pattern)
    else:
        cursor.make(start, field.as_field)
    return field


def _sizes(cursor: Cursor, *, pattern: bool) -> tuple[tuple[int | str, ...], bool]:
    """``sizes = size { "," size }``."""
    dims: list[int | str] = []
    if cursor.next_piece() == "]":
        return (), False  # refused by the field, with what is allowed
    while True:
        if pattern and cursor.take("..."):
            return tuple(dims), True
        dims.append(_size(cursor, pattern=pattern))
        if not cursor.take(","):
            return tuple(dims), False


def _size(cursor: Cursor, *, pattern: bool) -> int | str:
    """``size = digit { digit }``."""
    start = cursor.position
    expected = "a size: a whole number, or a letter such as A" if pattern else "a size: a whole number such as 10"
    word = cursor.word(expected)
    if word.isdigit():
        digits = word.lstrip("0") or "0"
        if len(digits) > len(str(MAX_SIZE)) or not 1 <= int(digits) <= MAX_SIZE:
            cursor.fail(f"a size is from 1 to {MAX_SIZE:,}, got {short(word)}", start, cursor.behind_last)
        return int(digits)
    if pattern and word[0].isupper():
        return word
    cursor.fail(f"expected {expected}, found {short(word)}", start, cursor.behind_last)


def _links(cursor: Cursor, *, pattern: bool) -> _Links:
    """``links = [ name { "," name } ]``."""
    names: list[str] = []
    if cursor.next_piece() == "]":
        return _Links((), more=False)
    while True:
        if pattern and cursor.take("..."):
            return _Links(tuple(names), more=True)
        start = cursor.position
        word = cursor.word("the name of a link, or ']'")
        names.append(cursor.make(start, partial(check_name, word, "the name of a link", FIELD_NAME)))
        if not cursor.take(","):
            return _Links(tuple(names), more=False)
