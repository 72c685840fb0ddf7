"""Commands of ``easeml``, and benchmarks, as the chapter shows them, and their answers."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

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
