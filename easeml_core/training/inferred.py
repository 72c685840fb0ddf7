"""What was inferred from data: a program, in plain lines what decided it, and both as text that reads back."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from easeml_core.programs.data_type import Category, DataType, Program, Tensor

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from easeml_core.entities import Task
    from easeml_core.training.source_specs import Source

_MOST_NAME = 30
_MOST_SHOWN = 40
_MOST_LISTED = 20
_ONE_LINE = 100


@dataclass(frozen=True, slots=True)
class Inferred:
    """A program, and what it was inferred from.

    Attributes:
        source: What reads the data; its name is the last part of the path.
        target: The column to predict, or ``COLUMN>NUMBER``; empty where the source brings its own.
        task: What the target is.
        program: Reads back from ``text`` as the same.
        rows: Rows, series or images that have a target, of those looked at.
        partial: Whether there is more that was not looked at.
        classes: Name of each class and how many rows it has; empty for regression.
        notes: What decided, one line each, of characters that can be printed.
    """

    source: Source
    target: str
    task: Task
    program: Program
    rows: int
    partial: bool
    classes: tuple[tuple[str, int], ...]
    notes: tuple[str, ...]

    @property
    def text(self) -> str:
        """The notes as comments, and the program below."""
        return "\n".join([*(f"# {note}" for note in self.notes), program_text(self.program)])

    def as_mapping(self) -> dict[str, Any]:
        """The same as plain data."""
        return {
            "source": spec_of(self.source),
            "target": self.target or None,
            "task": str(self.task),
            "form": "paper" if isinstance(self.program.input, DataType) else "schema",
            "program": str(self.program),
            "rows": self.rows,
            "partial": self.partial,
            "classes": [{"name": name, "rows": rows} for name, rows in self.classes],
            "notes": list(self.notes),
        }


def program_text(program: Program) -> str:
    """The program; in the paper's form with a line for each field where they are many.

    Example:
        >>> from easeml_core.programs.language import parse_program
        >>> print(program_text(parse_program("{input:{[Tensor[4]],[]},output:{[Category[3]],[]}}")))
        {input: {[Tensor[4]], []}, output: {[Category[3]], []}}
    """
    side = program.input
    if not isinstance(side, DataType) or len(str(program)) <= _ONE_LINE:
        return str(program)
    fields = ",\n".join(f"    {field}" for field in side.fields)
    return f"{{input: {{[\n{fields}\n  ], [{', '.join(side.links)}]}},\n output: {program.output}}}"


def output_of(classes: Sequence[object], name: str) -> DataType:
    """The output: one of the classes, or one number where there are none."""
    return DataType((Category(len(classes), name) if classes else Tensor((1,), name),))


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


def shown(text: str, most: int = _MOST_SHOWN) -> str:
    r"""Text of a file for a note: quoted, cut, and nothing that could end the line.

    Example:
        >>> shown("red\n} # not a comment")
        "'red\\n} # not a comment'"
    """
    return repr(text if len(text) <= most else f"{text[: most - 3]}...")


def listed(items: Sequence[str], most: int = _MOST_LISTED) -> str:
    """The first items, and how many more there are."""
    rest = f" and {len(items) - most:,} more" if len(items) > most else ""
    return ", ".join(items[:most]) + rest


def spec_of(source: Source) -> str:
    """The source as a study names it."""
    options = "&".join(f"{name}={value}" for name, value in source.options)
    return f"{source.scheme}:{source.name}" + (f"?{options}" if options else "")


def note_of_source(source: Source, target: str, task: Task) -> str:
    """What reads the data: the arguments of a study."""
    return f"source {shown(spec_of(source), 200)}, " + (f"target {shown(target)}, " if target else "") + f"task {task}"


def class_note(name: str, classes: Sequence[tuple[str, int]], most: int = 50) -> str:
    """The classes of a field with their sizes."""
    sizes = listed([f"{shown(label)} {count:,}" for label, count in classes], most)
    return f"{name} of {len(classes):,} classes: {sizes}"
