"""Commands of ``easeml meter`` as docs/meter.md shows them, and their answers, computed in this process."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

from click.testing import CliRunner

from easeml_core.cli.meter import meter
from figures.commands import Command
from figures.gate_answers import Answered, GateRunner

if TYPE_CHECKING:
    from collections.abc import Callable

RANGES, RELIABILITY = "0.1,0.3,0.5,0.7", "0.99"


def plan(*, tolerance: float, steps: int, ranges: str = RANGES, reliability: str = RELIABILITY, **more: Any) -> Command:
    """A plan.

    Args:
        tolerance: epsilon.
        steps: T.
        ranges: As the command writes them.
        reliability: 1 - delta.
        more: Further options, ``error_rate=0.1`` for ``--error-rate 0.1``.
    """
    words = ["meter", "plan", "--ranges", ranges, "--tolerance", f"{tolerance:g}", "--reliability", reliability]
    words += ["--steps", str(steps)]
    for name, value in more.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    return Command((*words, "--json"))


class MeterRunner(GateRunner):
    """Runs commands of ``easeml meter`` in a folder."""

    def run(self, command: Command) -> Answered:
        """Run a command; what it warns of is shown too, except beside JSON.

        Raises:
            RuntimeError: If it ended with an error.
        """
        if command.words[0] != "meter":
            message = f"only commands of 'easeml meter' are run here, got {command.words[0]!r}"
            raise RuntimeError(message)
        with contextlib.chdir(self.folder):
            start = time.process_time()
            done = CliRunner().invoke(meter, list(command.words[1:]))
            seconds = time.process_time() - start
        if done.exit_code:
            message = f"{command.shown()}\n{done.output}{done.exception!r}"
            raise RuntimeError(message)
        return Answered(done.stdout if "--json" in command.words else done.output, done.exit_code, seconds)

    def labels(self, command: Command) -> dict[str, int]:
        """What a plan needs by its own method and by all others."""
        found = self.answer(command)
        others = {other["method"]: int(other["labels"]) for other in found["alternatives"]}
        return {found["method"]: int(found["labels"])} | others


def session(*commands: Command, lines: int | None = None) -> Callable[[MeterRunner], str]:
    """A figure: commands with what they print.

    Args:
        commands: In their order.
        lines: Only so many lines of what each prints; None for all.
    """

    def made(runner: MeterRunner) -> str:
        blocks = []
        for command in commands:
            printed = [line.rstrip() for line in runner.run(command).output.rstrip().splitlines()]
            if lines is not None and len(printed) > lines:
                printed = [*printed[:lines], "  ..."]
            blocks.append("\n".join(["```sh", command.shown(), "```", "", "```", *printed, "```"]))
        return "\n\n".join(blocks)

    return made
