"""Read a study's file or folder in a child process under limits, and take over the table that it has made.

The content is the tenant's, and a few bytes of it can stand for very much, so what reading it does to a process must
not happen to the referee, which works for all tenants.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from easeml_core.data.sources.child import ReadJob, load_table
from easeml_core.encoding import to_json
from easeml_core.errors import (
    InvalidInputError,
    MachineError,
    TrainingError,
    TrainingKilled,
    TrainingMachineError,
    TrainingStarved,
)
from easeml_core.files import scratch_folder
from easeml_core.sandbox.child_guard import OUT_OF_MEMORY
from easeml_core.sandbox.process import Limits, run_child

if TYPE_CHECKING:
    from easeml_core.data.split_spec import Split
    from easeml_core.data.table import RawTable
    from easeml_core.entities import Study

logger = logging.getLogger(__name__)

CHILD = "easeml_core.data.sources.child"
READING_SECONDS = 3600.0
"""Of the largest table that is allowed, from a slow disk."""

READING_MB = 8192
"""Some twice what the largest table takes that is held in memory."""


def read_apart(spec: str, study: Study, split: Split, *, folder: Path | None = None, absent: str = "") -> RawTable:
    """Return the table of a source, which a child process reads.

    Args:
        spec: The source; its name is a path, where no folder is given.
        study: Whose it is.
        split: How the rows will be divided.
        folder: The tenant's, in which the name must lie; None where the path is the referee's.
        absent: The refusal where it does not lie there.

    Raises:
        InvalidInputError: It is not there, or the data are invalid, take too much time or memory, or end the process
            that reads them.
        TrainingKilled: The process was killed from outside, or by the kernel for want of memory.
        MachineError: This machine cannot do it now.
    """
    where = "" if folder is None else str(folder.absolute())
    asked = ReadJob(spec, study.target or None, study.task, str(split), READING_MB, where, absent)
    with scratch_folder("table") as name:
        try:
            run_child(
                CHILD,
                [json.dumps(to_json(asked)), name],
                cwd=Path(name),
                limits=Limits(READING_SECONDS, READING_MB),
                on_output=lambda _: None,
                on_poll=lambda: None,
                loads=("easeml_core.data.sources.load", "easeml_core.data.columns"),
            )
        except TrainingKilled:
            raise
        except TrainingMachineError as error:
            message = f"the data of study {study.name} cannot be read now: {error}"
            raise MachineError(message) from error
        except TrainingError as error:  # what a crash has written may repeat the data, so it goes to the log
            logger.warning("the process that read the data of study %s ended: %s", study.name, error)
            message = f"source {study.source!r}: {_why(error)}"
            raise InvalidInputError(message) from error
        return load_table(Path(name))


def _why(error: TrainingError) -> str:
    if isinstance(error, TrainingStarved) or str(error).startswith(OUT_OF_MEMORY):
        return (
            f"the data take more than {READING_SECONDS / 60:g} minutes or {READING_MB:,} MB to read; bring "
            "fewer rows or columns"
        )
    return "the process that reads the data crashed on them; is the file damaged?"
