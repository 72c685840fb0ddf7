"""Commands of ``easeml gate`` as docs/gate.md shows them, and their answers, computed in this process."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from click.testing import CliRunner

from easeml_core.cli.gate import gate
from figures.commands import Command

if TYPE_CHECKING:
    from pathlib import Path

SIMPLE = "n > 0.9 +/- 0.01"
GAIN = "n - o > 0.02 +/- 0.01"
SMALL = "d < 0.1 +/- 0.01"
BOTH = f"{GAIN} /\\ {SMALL}"
RELIABILITY, STEPS = 0.9999, 32


def plan(
    condition: str, adaptivity: str, *, steps: int = STEPS, reliability: float = RELIABILITY, **more: Any
) -> Command:
    """A plan.

    Args:
        condition: In the language of conditions.
        adaptivity: As the command writes it.
        steps: H.
        reliability: 1 - delta.
        more: Further options, ``power="same"`` for ``--power same``.
    """
    words = ["gate", "plan", "--condition", condition, "--reliability", str(reliability), "--steps", str(steps)]
    words += ["--adaptivity", adaptivity]
    for name, value in more.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    return Command((*words, "--json"))


@dataclass(frozen=True, slots=True)
class Answered:
    """What a command did.

    Attributes:
        output: What it printed.
        status: Its exit status.
        seconds: Processor time that it took, without the start of Python.
    """

    output: str
    status: int
    seconds: float


@dataclass(frozen=True, slots=True)
class GateRunner:
    """Runs commands of ``easeml gate`` in a folder.

    Attributes:
        folder: Where files are read and plots are left.
        data: The published tables.
        repeats: Of every simulation, before a figure's own factor.
    """

    folder: Path
    data: Path
    repeats: int

    def run(self, command: Command) -> Answered:
        """Run a command, whatever its exit status.

        Raises:
            RuntimeError: If it ended with an error.
        """
        if command.words[0] != "gate":
            message = f"only commands of 'easeml gate' are run here, got {command.words[0]!r}"
            raise RuntimeError(message)
        with contextlib.chdir(self.folder):
            start = time.process_time()
            done = CliRunner().invoke(gate, list(command.words[1:]))
            seconds = time.process_time() - start
        if done.exit_code not in (0, 1) or (done.exception and not isinstance(done.exception, SystemExit)):
            message = f"{command.shown()}\n{done.output}{done.exception!r}"
            raise RuntimeError(message)
        return Answered(done.stdout, done.exit_code, seconds)

    def answer(self, command: Command) -> dict[str, Any]:
        """Run a command with ``--json`` and read what it prints."""
        return dict(json.loads(self.run(command).output))
