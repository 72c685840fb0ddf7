"""What was inferred from data: a program, in plain lines what decided it, and both as text that reads back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from easeml_core.data.split_spec import ROWS, Split
from easeml_core.entities import Task
from easeml_core.errors import counted
from easeml_core.formats.encoding import typed_record
from easeml_core.programs.data_type import DataType

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easeml_core.data.sources.spec import Source
    from easeml_core.programs.data_type import Program

_MOST_SHOWN = 40
_MOST_LISTED = 20
_ONE_LINE = 100


class Asked(NamedTuple):
    """What a person said of a table, in the words of ``easeml study register``.

    Attributes:
        target: The column to predict, or ``COLUMN>NUMBER``; None for what the names suggest.
        task: None for what the target looks like.
        split: What rows will be divided by; its column is no input unless it is kept.
        keys: The columns of series that say which one, and when; none for what the names suggest.
    """

    target: str | None = None
    task: Task | None = None
    split: Split = ROWS
    keys: tuple[str, ...] = ()


@typed_record
class ClassRows:
    """A class and how many rows have it."""

    name: str
    rows: int


@typed_record
class ProgramReport:
    """The program of some data.

    Attributes:
        source: The source, with the options that were found.
        target: Column that is predicted; None where there is none.
        task: What is predicted.
        split: How rows are divided into parts.
        form: ``paper`` or ``schema``.
        program: In one line.
        rows: Rows that were read.
        partial: Whether there are more.
        classes: Empty where numbers are predicted.
        notes: What decided it, one sentence each.
    """

    source: str
    target: str | None
    task: Task
    split: str
    form: str
    program: str
    rows: int
    partial: bool
    classes: list[ClassRows]
    notes: list[str]


@typed_record
class DataPreview(ProgramReport):
    """The program of some data in lines, and of a table its columns and first rows; empty for other data."""

    text: str
    columns: list[str]
    head: list[list[str]]


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
        split: What rows will be divided by.
    """

    source: Source
    target: str
    task: Task
    program: Program
    rows: int
    partial: bool
    classes: tuple[tuple[str, int], ...]
    notes: tuple[str, ...]
    split: Split = ROWS

    @property
    def text(self) -> str:
        """The notes as comments, and the program below."""
        return "\n".join([*(f"# {note}" for note in self.notes), program_text(self.program)])

    def report(self) -> ProgramReport:
        """Return the program, and what decided it."""
        return ProgramReport(
            source=spec_of(self.source),
            target=self.target or None,
            task=self.task,
            split=str(self.split),
            form="paper" if isinstance(self.program.input, DataType) else "schema",
            program=str(self.program),
            rows=self.rows,
            partial=self.partial,
            classes=[ClassRows(name, rows) for name, rows in self.classes],
            notes=list(self.notes),
        )


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


def note_of_source(source: Source, target: str, task: Task, split: Split = ROWS) -> str:
    """Return the arguments of a study that reads the data."""
    arguments = {"source": shown(spec_of(source), 200), "target": target and shown(target), "task": str(task)}
    arguments["split"] = shown(str(split)) if split.column else ""
    return ", ".join(f"{name} {value}" for name, value in arguments.items() if value)


def class_note(name: str, classes: Sequence[tuple[str, int]], most: int = 50) -> str:
    """The classes of a field with their sizes."""
    sizes = listed([f"{shown(label)} {count:,}" for label, count in classes], most)
    return f"{name} of {counted(len(classes), 'class', 'classes')}: {sizes}"
