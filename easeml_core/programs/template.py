"""What a row of the table of templates is; the table itself is ``templates``."""

from __future__ import annotations

from dataclasses import dataclass

from easeml_core.errors import InvalidInputError
from easeml_core.programs.language import parse_pattern
from easeml_core.programs.pattern import check_letters

ONE_HOT, NUMBERS, SEVERAL = "one-hot", "numbers", "several"
TARGETS = (ONE_HOT, NUMBERS, SEVERAL)
"""What the rows of the target are: all zeros but for a single one, one number, or several that are no scores."""

ONE = f"{ONE_HOT} or {NUMBERS}"
"""Of a workload that answers with one class or number, whichever it is."""


@dataclass(frozen=True, slots=True)
class Workload:
    """A kind of work, and what can do it.

    Attributes:
        name: Of the kind of work.
        candidates: Names of what could be trained, the better known first.
        targets: One of ``TARGETS``, or ``ONE``, where the rows of the target decide; empty where they do not matter.
    """

    name: str
    candidates: tuple[str, ...]
    targets: str = ""

    def __post_init__(self) -> None:
        wrong = [name for name in (self.name, *self.candidates) if not isinstance(name, str) or not name.strip()]
        if not isinstance(self.candidates, tuple) or not self.candidates or wrong:
            message = (
                f"workload {self.name!r}: it has a name and a tuple of names of candidates, got {self.candidates!r}"
            )
            raise InvalidInputError(message)
        if len(set(self.candidates)) < len(self.candidates):
            message = f"workload {self.name!r}: a candidate comes twice in {self.candidates!r}"
            raise InvalidInputError(message)
        check_targets(None if self.targets in ("", ONE) else self.targets)

    def suits(self, targets: str | None) -> bool:
        """Whether it is for such rows of the target; everything is while nobody knows them."""
        return not (self.targets and targets) or targets in self.targets.split(" or ")


@dataclass(frozen=True, slots=True)
class Template:
    """A row of the table.

    Attributes:
        name: Of the row.
        input: Pattern of the input, as text.
        output: Pattern of the output, as text.
        workloads: What such a program calls for; several only where the rows of the target decide.
    """

    name: str
    input: str
    output: str
    workloads: tuple[Workload, ...]

    def __post_init__(self) -> None:
        check_letters(parse_pattern(self.input), parse_pattern(self.output))
        if not self.workloads:
            message = f"template {self.name!r} has no workload"
            raise InvalidInputError(message)


def check_targets(targets: str | None) -> None:
    """One of ``TARGETS`` or None, or InvalidInputError."""
    if targets is not None and targets not in TARGETS:
        message = f"targets must be one of {', '.join(TARGETS)}, got {targets!r}"
        raise InvalidInputError(message)
