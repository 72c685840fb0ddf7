"""The child that ranks labels: ``python -m easeml_core.models.label_errors_child PARENT_PID DATA OUTPUT``.

It reads the open parts of a data version and writes doubt, expected labels and suspicion of the training rows.
"""

from __future__ import annotations

import sys
from pathlib import Path

from easeml_core.errors import EasemlError
from easeml_core.files.local import written_whole
from easeml_core.sandbox import child_protocol


def main(arguments: list[str]) -> None:
    """Rank and end; a reason on standard error where it cannot be done."""
    child_protocol.prepare(int(arguments[0]))
    import numpy as np

    from easeml_core.data.parts import load_open_parts
    from easeml_core.models.label_errors import rank_labels

    try:
        parts = load_open_parts(Path(arguments[1]))
        if parts.train_labels.ndim > 1:
            child_protocol.fail("a label of many numbers cannot be ranked; classes and single numbers can")
        found = rank_labels(parts.train_inputs, parts.train_labels, task=parts.task)
    except EasemlError as error:
        child_protocol.fail(str(error))
    except MemoryError as error:
        child_protocol.fail(f"{child_protocol.OUT_OF_MEMORY}: {error or 'an array did not fit'}")
    with written_whole(Path(arguments[2])) as temporary, temporary.open("wb") as file:
        np.savez(file, **found._asdict())


if __name__ == "__main__":
    main(sys.argv[1:])
