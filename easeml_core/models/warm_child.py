"""The child that goes on answering: ``python -m easeml_core.models.warm_child`` with arguments of ``predict_child``.

The model is loaded once and asked again and again: each question and each answer is a .npy behind its length, 8 bytes.
It ends when its input does.
"""

from __future__ import annotations

import json
import os
import sys

from easeml_core.errors import EasemlError
from easeml_core.models.predict_child import confined
from easeml_core.sandbox import child_protocol

LENGTH_BYTES = 8


def main(arguments: list[str]) -> None:
    """Load, then answer until there is no further question; the first failure ends this process with its reason."""
    model, channel = confined(arguments)
    from easeml_core.models.answers import WantedAnswers, array_from_bytes, array_to_bytes
    from easeml_core.models.formats import load_predictor

    try:
        predictor, wanted = load_predictor(model, arguments[2]), WantedAnswers.from_json(json.loads(arguments[3]))
        with os.fdopen(channel, "wb") as out:
            while length := sys.stdin.buffer.read(LENGTH_BYTES):
                inputs = array_from_bytes(sys.stdin.buffer.read(int.from_bytes(length, "big")))
                answer = array_to_bytes(wanted.asked(predictor, inputs))
                out.write(len(answer).to_bytes(LENGTH_BYTES, "big") + answer)
                out.flush()
    except EasemlError as error:
        child_protocol.fail(str(error))
    except MemoryError as error:
        child_protocol.fail(f"{child_protocol.OUT_OF_MEMORY}: {error or 'an array did not fit'}")


if __name__ == "__main__":
    main(sys.argv[1:])
