"""Commands of ``easeml``, and benchmarks: run, and shown with what they print."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from click.testing import CliRunner

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import click

    from figures.selection.tables import Source


ROOT = Path(__file__).resolve().parents[2]
WIDTH = 110
NICENESS = 10


@dataclass(frozen=True, slots=True)
class Command:
    """What follows ``easeml``, or a script of the repository, on the command line.

    Attributes:
        words: Subcommand and options, unquoted.
        script: Path of the script from the repository's root; empty for ``easeml``.
    """

    words: tuple[str, ...]
    script: str = ""

    def shown(self) -> str:
        """The command for a shell, broken into lines before its options."""
        lines = [f"python {self.script}" if self.script else "easeml"]
        for piece in _pieces(self.words):
            if len(lines[-1]) + len(piece) + 3 > WIDTH:
                lines.append("   ")
            lines[-1] += f" {piece}"
        return " \\\n".join(lines)

    @property
    def key(self) -> str:
        """Names the command's answer."""
        words = (self.script, *self.words) if self.script else self.words
        return hashlib.sha256("\0".join(words).encode()).hexdigest()[:16]


def _pieces(words: Sequence[str]) -> list[str]:
    """Options with their values, quoted."""
    pieces: list[str] = []
    for word in words:
        if word.startswith("--") or not pieces or not pieces[-1].startswith("--"):
            pieces.append(shlex.quote(word))
        else:
            pieces[-1] += f" {shlex.quote(word)}"
    return pieces


def simulate(
    source: Source, policies: Sequence[str], *, repeats: int, seed: int = 0, **options: float | str
) -> Command:
    """A simulation.

    Args:
        source: The table.
        policies: As the command writes them.
        repeats: R.
        seed: Of the draws.
        options: Further options, ``cost_mode="predicted"`` for ``--cost-mode predicted``.
    """
    words = ["simulate", *source.words]
    for policy in policies:
        words += ["--policy", policy]
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    return Command((*words, "--repeats", str(repeats), "--seed", str(seed), "--json"))


class Runner:
    """Runs commands in a folder that has the tables.

    Attributes:
        folder: Where tables, answers and pictures are.
        repeats: R of every simulation.
    """

    def __init__(
        self, folder: Path, *, repeats: int = 30, batches: int | None = None, processes: int | None = None, reuse: bool
    ) -> None:
        """Run nothing yet.

        Args:
            folder: With the tables of ``tables.prepare``.
            repeats: R of every simulation.
            batches: At most so many seeds; None for as many as a figure wants.
            processes: Of a simulation; None for one on each core.
            reuse: Whether answers that are in the folder already are taken instead of running the command again.
        """
        self.folder, self.repeats = folder, repeats
        self._batches, self._processes, self._reuse = batches, processes, reuse

    def batches(
        self, source: Source, policies: Sequence[str], *, seeds: int, **options: float | str
    ) -> tuple[Command, list[dict[str, Any]]]:
        """The same simulation with seeds 0, 1, ...: the command of seed 0, and all answers.

        ``repeats`` among the options is for simulations of which a repeat takes long.
        """
        repeats = min(int(options.pop("repeats", self.repeats)), self.repeats)
        seeds = min(seeds, self._batches or seeds)
        commands = [simulate(source, policies, repeats=repeats, seed=seed, **options) for seed in range(max(1, seeds))]
        return commands[0], [self.answer(command) for command in commands]

    def answer(self, command: Command) -> dict[str, Any]:
        """Run a command and read its JSON.

        Raises:
            SystemExit: If the command failed; it has said why.
        """
        kept = self.folder / f"answer-{command.key}.json"
        if self._reuse and kept.exists():
            return dict(json.loads(kept.read_text(encoding="utf-8")))
        print(f"$ {command.shown()}", flush=True)
        simulates = command.words[0] == "simulate"
        extra = ("--processes", str(self._processes)) if self._processes and simulates else ()
        program = [str(ROOT / command.script)] if command.script else ["-m", "easeml_core.cli"]
        done = subprocess.run(
            [sys.executable, *program, *command.words, *extra],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            check=False,
            text=True,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
            preexec_fn=_step_back if simulates else None,  # what is timed stays in front
        )
        if done.returncode != 0:
            raise SystemExit(done.returncode)
        kept.write_text(done.stdout, encoding="utf-8")
        return dict(json.loads(done.stdout))


def _step_back() -> None:
    """Leave the machine to others first: figures take an hour."""
    os.nice(NICENESS)


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
