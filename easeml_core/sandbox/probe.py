"""A child that is confined, loads what every predicting child begins with, and ends: can a sandbox be made here?

``python -m easeml_core.sandbox.probe PARENT_PID CONFINEMENT``
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import tempfile
from pathlib import Path

from easeml_core.sandbox import child_protocol, confinement


def main(arguments: list[str]) -> None:
    """End with status 0 if all parts were made and the runtime can be used in them."""
    child_protocol.prepare(int(arguments[0]))
    confinement.enter(confinement.Confinement.from_json(json.loads(arguments[1])))
    confinement.forbid()
    for module in ("numpy", "easeml_core.models.formats"):
        found = importlib.import_module(module)
        Path(str(found.__file__)).read_bytes()  # a fork of a server has imported it before it was confined
    Path(os.__file__).read_bytes()
    with tempfile.TemporaryFile() as file:
        file.write(b"a model may write in its own folder")


if __name__ == "__main__":
    main(sys.argv[1:])
