"""The child that predicts: ``python -m ...predict_child PARENT_PID MODEL FORMAT WANTED [CONFINEMENT]``.

It confines itself first, then loads the model. Inputs come as .npy on standard input, answers go as .npy to standard
output, after a line that says that the sandbox was made; nothing in either is unpickled.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from easeml_core.errors import EasemlError, TrainingKilled
from easeml_core.sandbox import child_protocol, confinement
from easeml_core.sandbox.child_protocol import take_stdout


def confined(arguments: list[str]) -> tuple[Path, int]:
    """Confine this process as it was asked for; the model, where it lies now, and the channel of answers."""
    child_protocol.prepare(int(arguments[0]))
    model = Path(arguments[1])
    if arguments[4:]:
        model = confinement.enter(confinement.Confinement.from_json(json.loads(arguments[4])), model) or model
        confinement.forbid()
    channel = take_stdout()
    os.write(channel, confinement.MADE)  # nothing that a model does from here on can take it back
    return model, channel


def main(arguments: list[str]) -> None:
    """Load, predict, answer; a reason on standard error and ``REASON_STATUS`` if the model is not to be used."""
    model, channel = confined(arguments)
    from easeml_core.models.answers import WantedAnswers, array_from_bytes, array_to_bytes
    from easeml_core.models.formats import load_predictor

    try:
        predictor = load_predictor(model, arguments[2])
        inputs = array_from_bytes(sys.stdin.buffer.read())
        answers = WantedAnswers.from_json(json.loads(arguments[3])).asked(predictor, inputs)
    except EasemlError as error:
        child_protocol.fail(str(error), killed=isinstance(error, TrainingKilled))
    except MemoryError as error:
        child_protocol.fail(f"{child_protocol.OUT_OF_MEMORY}: {error or 'an array did not fit'}")
    with os.fdopen(channel, "wb") as answer:
        answer.write(array_to_bytes(answers))


if __name__ == "__main__":
    main(sys.argv[1:])
