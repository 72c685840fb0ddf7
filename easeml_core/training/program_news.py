"""What a program that trains tells on its standard output: one JSON object a line; anything else is dropped.

    {"step": 3, "of": 10, "quality": 0.81, "loss": 0.42, "note": "..."}    how far it is
    {"step": 3, "of": 10, "checkpoint": "epoch-3"}                         OUTPUT/checkpoints/epoch-3 is whole

A checkpoint is a file or folder that the program leaves alone until it has named the next one. It is packed as the
checkpoint of the job; whoever takes the training up again is given the folder it came from.
"""

from __future__ import annotations

import math
import os
import time
from typing import IO, TYPE_CHECKING, Any

from easeml_core import archive
from easeml_core.errors import ArtifactError, InvalidInputError
from easeml_core.files import written_whole
from easeml_core.sandbox.progress import LineReader
from easeml_core.training.run_options import checkpoint_name, remove_older

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from easeml_core.sandbox.progress import Report
    from easeml_core.training.run_options import Run

CHECKPOINTS = "checkpoints"
"""The folder of the output that is no part of the model."""

BEGUN, TRAINED = 0.1, 0.8
"""Progress of the job at the beginning of the program and at its end."""

_CHUNK = 65536
_LONGEST_NOTE = 200
_MOST_STEPS = 1_000_000
_MOST_NEWS = 10_000


class ProgramNews:
    """Reads a program's standard output to its end and hands on what it tells.

    Args:
        report: Told how far the program is.
        output: Its output folder.
        run: Knows where a checkpoint goes, and how often.
    """

    def __init__(self, report: Report, output: Path, run: Run) -> None:
        self._report, self._output, self._run = report, output, run
        self._heard = 0
        self._saved = -math.inf

    def __call__(self, output: IO[bytes]) -> None:
        """Read to the end."""
        reader = LineReader(self._take)
        while chunk := os.read(output.fileno(), _CHUNK):
            reader(chunk)

    def _take(self, fields: Mapping[str, Any]) -> None:
        step, of = _whole(fields.get("step")), _whole(fields.get("of"))
        self._heard += 1
        if step is None or of is None or step > of or self._heard > _MOST_NEWS:  # one that goes wild fills no log
            return
        more: dict[str, float | None] = {"step": step, "of": of, "loss": _number(fields.get("loss"))}
        note = fields.get("note") or f"step {step} of {of}"
        name = fields.get("checkpoint")
        if isinstance(name, str) and time.monotonic() - self._saved >= self._run.checkpoint_seconds:
            why_not = self._keep(name, step)
            self._saved = time.monotonic()
            more |= {} if why_not else {"checkpoint": step}
            note = f"checkpoint {name} was not kept: {why_not}" if why_not else note
        quality = _number(fields.get("quality"))
        known = quality if quality is not None and 0 <= quality <= 1 else None
        self._report(BEGUN + (TRAINED - BEGUN) * step / of, _plain(str(note)), known, **more)

    def _keep(self, name: str, step: int) -> str:
        """Pack a checkpoint for whoever goes on; why it was not done, empty if it was."""
        if self._run.folder is None:
            return "nobody keeps checkpoints here"
        place = self._output / CHECKPOINTS
        source = place / name
        if source.parent != place or name in ("", ".", "..") or place.is_symlink() or source.is_symlink():
            return f"it is to be the name of a file or folder in {CHECKPOINTS}/ of the output"
        try:
            with written_whole(self._run.folder / checkpoint_name(step)) as temporary:
                if source.is_dir():
                    archive.pack_folder(source, temporary, extra={}, beneath=self._output)
                else:
                    archive.pack_files(temporary, {name: source}, extra={}, beneath=self._output)
        except (InvalidInputError, OSError) as error:
            return str(error)
        remove_older(self._run.folder)
        return ""


def resumed_folder(work: Path, report: Report, run: Run) -> Path | None:
    """The files of the checkpoint that an earlier attempt left, unpacked; None where there is none that can be used."""
    if run.resume is None:
        return None
    folder = work / "resume"
    folder.mkdir()
    try:
        archive.unpack(run.resume, folder)
    except ArtifactError as error:
        report(BEGUN, _plain(f"begun anew: {error}"), resumed=False)
        return None
    report(BEGUN, "taken up again", resumed=True)
    return folder


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text[:_LONGEST_NOTE])


def _whole(value: object) -> int | None:
    number = _number(value)
    return int(number) if number is not None and number.is_integer() and 1 <= number <= _MOST_STEPS else None


def _number(value: object) -> float | None:
    """The value as a finite float, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None
