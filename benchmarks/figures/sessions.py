"""Run the commands of one group of ``easeml`` in this process, and show them with what they print."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from click.testing import CliRunner

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import click

    from figures.commands import Command


@dataclass(frozen=True, slots=True)
class Answered:
    """What a command did.

    Attributes:
        output: What it printed.
        status: Its exit status.
        seconds: Its processor time, without the start of Python.
    """

    output: str
    status: int
    seconds: float


@dataclass(frozen=True, slots=True)
class SessionRunner:
    """Runs the commands of one group in a folder.

    Attributes:
        group: The group of commands, ``gate`` or ``meter``.
        folder: Where commands read files and leave plots.
        data: The published tables.
        repeats: Repeats of every simulation, before a figure's factor.
        statuses: Exit statuses that are not errors.
        shows_warnings: Whether warnings belong to the output; never beside JSON.
    """

    group: click.Group
    folder: Path
    data: Path
    repeats: int
    statuses: tuple[int, ...] = (0,)
    shows_warnings: bool = False

    def run(self, command: Command) -> Answered:
        """Run a command.

        Raises:
            RuntimeError: If the command is of another group, or ended with an error.
        """
        if command.words[0] != self.group.name:
            message = f"only commands of 'easeml {self.group.name}' are run here, got {command.words[0]!r}"
            raise RuntimeError(message)
        with contextlib.chdir(self.folder):
            start = time.process_time()
            done = CliRunner().invoke(self.group, list(command.words[1:]))
            seconds = time.process_time() - start
        if done.exit_code not in self.statuses or (done.exception and not isinstance(done.exception, SystemExit)):
            message = f"{command.shown()}\n{done.output}{done.exception!r}"
            raise RuntimeError(message)
        with_warnings = self.shows_warnings and "--json" not in command.words
        return Answered(done.output if with_warnings else done.stdout, done.exit_code, seconds)

    def answer(self, command: Command) -> dict[str, Any]:
        """Run a command with ``--json`` and return its answer."""
        return dict(json.loads(self.run(command).output))


def session(
    *commands: Command, lines: int | None = None, prepare: Callable[[SessionRunner], object] | None = None
) -> Callable[[SessionRunner], str]:
    """Return a figure: commands with what they print, and their exit status unless it is 0.

    Args:
        commands: In their order.
        lines: Show at most this many lines of each output; None shows all.
        prepare: Writes the files that the commands read.
    """

    def made(runner: SessionRunner) -> str:
        if prepare is not None:
            prepare(runner)
        blocks = []
        for command in commands:
            done = runner.run(command)
            printed = [line.rstrip() for line in done.output.rstrip().splitlines()]
            if lines is not None and len(printed) > lines:
                printed = [*printed[:lines], "  ..."]
            if done.status:
                printed.append(f"(exit status {done.status})")
            blocks.append("\n".join(["```sh", command.shown(), "```", "", "```", *printed, "```"]))
        return "\n\n".join(blocks)

    return made
