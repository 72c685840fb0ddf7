"""Tables of prices: percent of the cost until the average loss is at most so much, policies side by side."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from figures.blocks import NEVER, seeds_note, shown, spread, table, three

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from figures.commands import Command, Runner
    from figures.selection.tables import Source

LABELS = {"order:mostcited.txt": "MOSTCITED", "order:mostrecent.txt": "MOSTRECENT"}


@dataclass(frozen=True, slots=True)
class Section:
    """One protocol of a figure.

    Attributes:
        label: What sets it apart from the others.
        source: The table.
        policies: Rows, in order.
        options: Options of the command.
        aims: The greatest price of a loss that the first policy should have.
        seeds: Batches, at most those of the figure; None for as many.
        base: Label of the section whose prices of the same policy those of this one are a multiple of.
    """

    label: str
    source: Source
    policies: tuple[str, ...]
    options: Mapping[str, float | str] = field(default_factory=dict)
    aims: Mapping[str, float] = field(default_factory=dict)
    seeds: int | None = None
    base: str = ""


@dataclass(frozen=True, slots=True)
class PriceFigure:
    """A table of prices.

    Attributes:
        sections: Protocols.
        seeds: Batches.
        losses: Columns, as keys of the JSON.
        against: The policy whose price the others are a multiple of; None for no such column.
        worst: Whether the largest loss at a tenth of the cost is shown.
        commands: At most so many commands are shown.
    """

    sections: tuple[Section, ...]
    seeds: int = 5
    losses: tuple[str, ...] = ("0.05", "0.02", "0.01")
    against: str | None = "default"
    worst: bool = False
    commands: int = 2

    def __call__(self, runner: Runner) -> str:
        """The figure as Markdown."""
        rows: list[list[str]] = []
        commands: list[Command] = []
        found: dict[str, list[dict[str, Any]]] = {}
        seeds = 1
        for section in self.sections:
            command, answers = runner.batches(
                section.source, section.policies, seeds=section.seeds or self.seeds, **section.options
            )
            commands.append(command)
            found[section.label] = answers
            seeds = max(seeds, len(answers))
            base = found.get(section.base, [])
            rows += [
                self._row(section, policy, answers) + self._multiples(policy, answers, base)
                for policy in section.policies
            ]
            if section.aims:
                rows.append(self._aims(section, answers))
        left_out = len(commands) - self.commands
        note = seeds_note(seeds) + (f" {left_out} further commands are like these." if left_out > 0 else "")
        return f"{table(self._header(), rows)}\n\n{shown(commands[: self.commands], note.strip())}"

    def _header(self) -> list[str]:
        losses = [f"to {loss.removeprefix('0')}" for loss in self.losses]
        ratio = [] if self.against is None else [f"x `{self.against}`, {self.losses[-1].removeprefix('0')}"]
        base = next((section.base for section in self.sections if section.base), "")
        if base:
            ratio += [f"x {base.rpartition(', ')[2]}, {loss.removeprefix('0')}" for loss in self.losses]
        first = ["", "policy"] if len(self.sections) > 1 else ["policy"]
        return [*first, *losses, *ratio, *(["worst loss at 10 %"] if self.worst else [])]

    def _row(self, section: Section, policy: str, answers: Sequence[Mapping[str, Any]]) -> list[str]:
        cells = [section.label] if len(self.sections) > 1 else []
        cells.append(LABELS.get(policy, f"`{policy}`"))
        cells += [spread([price(answer, policy, loss) for answer in answers]) for loss in self.losses]
        if self.against is not None:
            cells.append(ratio(answers, policy, self.against, self.losses[-1]))
        if self.worst:
            cells.append(three(answers[0]["policies"][policy]["worst_loss"]["10"]))
        return cells

    def _multiples(
        self, policy: str, answers: Sequence[Mapping[str, Any]], base: Sequence[Mapping[str, Any]]
    ) -> list[str]:
        """Prices as multiples of those in another section."""
        if not any(section.base for section in self.sections):
            return []
        pairs = list(zip(answers, base, strict=True)) if base else []
        return [
            spread([price(one, policy, loss) / price(other, policy, loss) for one, other in pairs]) if pairs else ""
            for loss in self.losses
        ]

    def _aims(self, section: Section, answers: Sequence[Mapping[str, Any]]) -> list[str]:
        """A row with what was aimed for, and in how many batches it was reached."""
        cells = [section.label] if len(self.sections) > 1 else []
        cells.append(f"*aim for `{section.policies[0]}`*")
        for loss in self.losses:
            aim = section.aims.get(loss)
            met = sum(price(answer, section.policies[0], loss) <= (aim or 0) for answer in answers)
            cells.append("" if aim is None else f"*{three(aim)}: in {met} of {len(answers)}*")
        return cells + [""] * (len(self._header()) - len(cells))


def price(answer: Mapping[str, Any], policy: str, loss: str) -> float:
    """Median over the repeats of the percentage of the cost that a loss takes."""
    return float(answer["policies"][policy]["percent_to_loss"][loss]["median"])


def ratio(answers: Sequence[Mapping[str, Any]], policy: str, against: str, loss: str) -> str:
    """A price as a multiple of another policy's."""
    if policy == against:
        return "1"
    pairs = [(price(answer, policy, loss), price(answer, against, loss)) for answer in answers]
    if any(a >= NEVER or b >= NEVER for a, b in pairs[:1]):
        return ""
    values = [a / b for a, b in pairs if a < NEVER and b < NEVER]
    return spread(values)
