"""What a program demands of the data of a study: the kind of its rows, their shape, and what is to be predicted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from easeml_core.entities import Task
from easeml_core.errors import InvalidInputError
from easeml_core.programs.pattern_match import Seen, SeenField, as_seen

if TYPE_CHECKING:
    from easeml_core.programs.data_type import DataType, Program
    from easeml_core.programs.schema import Schema

_NOT_STORED = "data of this shape cannot be brought to a study yet; its rows are tables, images, series or binary trees"

_LINKED = ("series", "tree")  # by the number of links

Sizes = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Demands:
    """What data a program is about.

    Attributes:
        kind: ``table``, ``image``, ``series`` or ``tree``: as of a layout.
        shape: Sizes that a row must have, ``(height, width, channels)`` of an image, ``(channels,)`` of series or tree;
            None for a table, whose columns may become several numbers, and where a size is not fixed.
        task: Whether classes or numbers are predicted.
        classes: How many; None for numbers, and where it is not fixed.
        target: Kind of layout of an answer of several numbers; empty for one class or number.
        target_shape: Its sizes, of a table ``(numbers,)``; None where they are not fixed.
        are_scores: Whether the output is a tensor of one dimension and more than one number: classes, unless the
            registration says that numbers are predicted (``as_numbers``).
    """

    kind: str
    shape: Sizes | None
    task: Task
    classes: int | None
    target: str = ""
    target_shape: Sizes | None = None
    are_scores: bool = False

    def as_numbers(self) -> Demands:
        """The same where numbers are predicted: scores of classes become several numbers a row."""
        if not self.are_scores:
            return self
        sizes = None if self.classes is None else (self.classes,)
        return replace(self, task=Task.REGRESSION, classes=None, target="table", target_shape=sizes, are_scores=False)


def demands_of(program: Program) -> Demands:
    """What data the program is about.

    One class, or one of so many scores, is predicted, or a single number, or an image or a series. A tensor of several
    numbers as output is the paper's way of writing a class: one score each.

    Raises:
        InvalidInputError: If input or output is none that a study's data can have.

    Example:
        >>> from easeml_core.programs.language import parse_program
        >>> found = demands_of(parse_program("{input: {[Tensor[28,28,1]], []}, output: {[Tensor[10]], []}}"))
        >>> found.kind, found.shape, str(found.task), found.classes
        ('image', (28, 28, 1), 'classification', 10)
    """
    kind, shape = _rows("input", _seen("input", program.input))
    output = _seen("output", program.output)
    target, sizes = _rows("output", output)
    if target == "tree":
        message = f"the output {program.output} is a tree; {_NOT_STORED}, and what is predicted is no tree"
        raise InvalidInputError(message)
    if target != "table":
        return Demands(kind, shape, Task.REGRESSION, None, target, sizes)
    if len(output.fields) != 1:
        message = f"the output {program.output} is neither one class nor one number; {_NOT_STORED}"
        raise InvalidInputError(message)
    size = output.fields[0].dims[0]
    is_tensor = output.fields[0].kind == "Tensor"
    if is_tensor and size == 1:
        return Demands(kind, shape, Task.REGRESSION, None)
    classes = size if isinstance(size, int) else None
    return Demands(kind, shape, Task.CLASSIFICATION, classes, are_scores=is_tensor)


def _seen(side: str, of_program: DataType | Schema) -> Seen:
    seen = as_seen(of_program)
    if isinstance(seen, str):
        message = f"the {side} of the program: {seen}; {_NOT_STORED}"
        raise InvalidInputError(message)
    return seen


def _rows(side: str, seen: Seen) -> tuple[str, Sizes | None]:
    """Kind and sizes of an object, as a layout has them."""
    widths = [_width(field) for field in seen.fields]
    if 1 <= len(seen.links) <= len(_LINKED) and None not in widths:
        return _LINKED[len(seen.links) - 1], (sum(width or 0 for width in widths),)
    dims = seen.fields[0].dims if len(seen.fields) == 1 else ()
    if not seen.links and len(dims) == 3:
        return "image", tuple(size for size in dims if isinstance(size, int)) if _is_fixed(dims) else None
    if not seen.links and all(len(field.dims) == 1 for field in seen.fields):
        return "table", None
    fields = ", ".join(map(str, seen.fields))
    message = f"the {side} has fields {fields} and {len(seen.links)} links; {_NOT_STORED}"
    raise InvalidInputError(message)


def _width(field: SeenField) -> int | None:
    """Numbers of a step; None where it is no list of numbers of a fixed size."""
    if field.kind == "Category" or len(field.dims) != 1 or not isinstance(field.dims[0], int):
        return None
    return field.dims[0]


def _is_fixed(dims: tuple[int | str, ...]) -> bool:
    return all(isinstance(size, int) for size in dims)
