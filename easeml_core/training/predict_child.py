"""The child that predicts: ``python -m easeml_core.training.predict_child PARENT_PID MODEL FORMAT``.

Inputs come as .npy on standard input, labels go as .npy to standard output; nothing in either is unpickled.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from easeml_core.errors import EasemlError
from easeml_core.training import guard
from easeml_core.training.progress import take_stdout


def main(arguments: list[str]) -> None:
    """Load, predict, answer; a reason on standard error and ``guard.REASON_STATUS`` if the model is not to be used."""
    guard.prepare(int(arguments[0]))
    channel = take_stdout()
    from easeml_core.training.formats import load_predictor
    from easeml_core.training.npy import array_from_bytes, array_to_bytes

    try:
        predictor = load_predictor(Path(arguments[1]), arguments[2])
        inputs = array_from_bytes(sys.stdin.buffer.read())
        labels = predictor.predict(inputs)
    except EasemlError as error:
        guard.fail(str(error))
    except MemoryError as error:
        guard.fail(f"out of memory: {error or 'an array did not fit'}")
    with os.fdopen(channel, "wb") as answer:
        answer.write(array_to_bytes(labels))


if __name__ == "__main__":
    main(sys.argv[1:])
