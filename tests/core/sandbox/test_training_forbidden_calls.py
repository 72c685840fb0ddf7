"""A model keeps nothing in the kernel from one run to the next, and gets no rights in a new namespace."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import easeml_core
from easeml_core.models.command_model import pack_command
from easeml_core.models.predict import predict_in_child
from easeml_core.sandbox import confinement
from easeml_core.sandbox.isolation import Sandbox, probe_isolation

ROOT = str(Path(easeml_core.__file__).parents[1])
pytestmark = pytest.mark.skipif(os.uname().machine not in confinement._KINDS, reason="no table for this machine")

# Numbers of add_key and keyctl; 22 is KEYCTL_GET_PERSISTENT, kept for days by the account's number, 10 KEYCTL_SEARCH.
TRIES = """
import ctypes, os, subprocess, sys, threading
libc = ctypes.CDLL(None, use_errno=True)
ADD, CTL = (248, 250) if os.uname().machine == "x86_64" else (217, 219)
def call(number, *arguments):
    return libc.syscall(ctypes.c_long(number), *arguments)
ring = call(CTL, ctypes.c_int(22), ctypes.c_int(-1), ctypes.c_int(-2))
kept = call(CTL, ctypes.c_int(10), ctypes.c_int(ring), b"user", b"easeml-kept", ctypes.c_int(0)) > 0
call(ADD, b"user", b"easeml-kept", b"42", ctypes.c_size_t(2), ctypes.c_int(ring))
cloned = call(56 if ADD == 248 else 220, ctypes.c_ulong(0x10000000 | 17), 0, 0, 0, 0)
if cloned == 0:
    os._exit(0)
spaces = sum(libc.unshare(flag) == 0 for flag in (0x10000000, 0x40000000))
seen = []
thread = threading.Thread(target=seen.append, args=(1,))
thread.start()
thread.join()
works = subprocess.run([sys.executable, "-c", "pass"]).returncode == 0 and seen == [1]
print(int(kept), spaces, int(cloned > 0), int(works))
"""


@pytest.fixture
def tries(tmp_path: Path) -> Any:
    (tmp_path / "predict.py").write_text(TRIES)
    pack_command(tmp_path / "predict.py", tmp_path / "model", command="python predict.py")
    return tmp_path / "model"


def test_nothing_is_kept_in_the_kernel_and_no_namespace_is_made(tries: Path) -> None:
    account = "nobody" if os.geteuid() == 0 and probe_isolation(Sandbox()).account else None  # the same both times
    for _ in range(2):
        labels = predict_in_child(tries, "command", np.zeros((4, 2)), sandbox=Sandbox(account))
        assert labels.tolist() == [0, 0, 0, 1]


def test_without_the_filter_the_same_program_makes_namespaces(tries: Path, tmp_path: Path) -> None:
    """Which shows that the attempts are good, where the kernel lets ordinary users make any."""
    if "network" in probe_isolation(Sandbox()).reaches():
        pytest.skip(f"the kernel makes no namespaces here: {probe_isolation(Sandbox())}")
    reported = subprocess.run(
        [sys.executable, str(tmp_path / "predict.py")], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert reported.stdout.split()[1:] == ["2", "1", "1"]


def test_a_machine_without_a_table_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confinement, "_KINDS", {})
    assert not confinement.forbid()
