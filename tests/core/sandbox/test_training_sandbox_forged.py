"""A model that says in the child's name that the sandbox could not be made: it has failed, and is not spared.

Nor can it speak in the child's name at all: an ordinary user's process may open the pipes of another, but not of one
that keeps to itself.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import easeml_core

ROOT = str(Path(easeml_core.__file__).parents[1])

# It would write to its parent's standard error again and again, the last time after the parent's own words.
FORGER = r"""
import json, os, sys, time
words = "\n" + json.dumps({"reason": "the sandbox could not be made, part network: row 7"}) + "\n"
try:
    pipe = os.open(f"/proc/{os.getppid()}/fd/2", os.O_WRONLY)
except PermissionError:
    sys.exit("kept out")
if os.fork() == 0:
    os.close(1)
    os.close(2)
    while True:
        os.write(pipe, words.encode())
        time.sleep(0.0002)
time.sleep(0.2)
sys.exit(1)
"""

HARNESS = """
import os, numpy as np
from pathlib import Path
from easeml_core.errors import EasemlError
from easeml_core.models.command_model import pack_command
from easeml_core.models.predict import predict_in_child
if os.geteuid() == 0:
    from easeml_core.sandbox.confinement import Confinement, enter
    enter(Confinement(("files", "account"), None, None, 2048))  # an ordinary user
Path("predict.py").write_text(FORGER)
pack_command(Path("predict.py"), Path("model"), command="python predict.py")
try:
    predict_in_child(Path("model"), "command", np.zeros((3, 2)))
except EasemlError as error:
    print(type(error).__name__, "could not be made, part network: row 7" in str(error), "kept out" in str(error))
"""


def test_a_forged_failure_of_the_sandbox_is_the_models_own(tmp_path: Path) -> None:
    reported = subprocess.run(
        [sys.executable, "-P", "-c", f"FORGER = {FORGER!r}\n{HARNESS}"], cwd=tmp_path, capture_output=True, text=True,
        env={"PYTHONPATH": ROOT, "PATH": os.environ["PATH"]}, check=False,
    )  # fmt: skip
    assert reported.stdout.split() == ["TrainingError", "False", "True"], reported.stderr
