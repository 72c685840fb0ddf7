"""Files of checkpoints: beside the artifacts, in a folder for each open trial, and gone when the trial has ended.

The row of the trial says which file counts, by its hash. A file is removed by the attempt that has recorded a newer
one, and the folders of ended trials by the process that ends the next one, since a trial
may be ended where there are no files. A missing or changed file costs time and never a result: the attempt restarts.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from easeml_core.errors import ArtifactError
from easeml_core.store.tables.trials import ended_trials

if TYPE_CHECKING:
    from easeml_core.store.artifacts.local import ArtifactStore
    from easeml_core.store.database import Store

CHECKPOINTS = "checkpoints"


def files_of(artifacts: ArtifactStore, trial_id: int) -> ArtifactStore:
    """Return the storage of one trial's checkpoints; other trials never share a file with it.

    Raises:
        ArtifactError: The folder cannot be made.
    """
    return artifacts.part(CHECKPOINTS, str(trial_id))


def remove_ended(store: Store, artifacts: ArtifactStore) -> list[int]:
    """Remove the folders of trials that have ended; whose they were.

    What another account keeps from us, or another worker removes meanwhile, stays or is gone: no reason to stop. Nor is
    a store that cannot be asked: the next trial that ends removes them.
    """
    there: list[int] = []
    with contextlib.suppress(ArtifactError):
        there = [int(name) for name in artifacts.parts(CHECKPOINTS) if name.isdecimal() and len(name) < 19]
    if not there:
        return []
    with store.begin() as tx:
        ended = ended_trials(tx, there)
    for trial_id in ended:
        artifacts.remove_part(CHECKPOINTS, str(trial_id))
    return ended
