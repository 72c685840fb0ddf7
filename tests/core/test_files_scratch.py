"""Temporary folders of killed processes are removed; those of the living, of other sandboxes and of strangers stay."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from easeml_core.files import local as files
from easeml_core.files.local import scratch_folder, sweep_scratch

HOLDER = """
import sys, time
from easeml_core.files.local import scratch_folder
with scratch_folder("trial") as folder:
    print(folder, flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    files._sweep_once.cache_clear()
    return tmp_path


def test_a_folder_of_a_killed_process_goes_with_the_next_that_any_process_makes(place):
    with subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True) as holder:
        left = Path(holder.stdout.readline().strip())
        (left / "model").write_text("half")
        assert sweep_scratch() == 0
        holder.send_signal(signal.SIGKILL)
    assert left.parent == place
    assert left.exists()
    with scratch_folder("look") as folder:
        assert os.listdir(place) == [Path(folder).name]
    assert os.listdir(place) == []


NAMESPACE, PID = os.stat("/proc/self/ns/pid").st_ino, os.getpid()


@pytest.mark.parametrize(
    ("name", "is_swept"),
    [
        (f"easeml-trial-{NAMESPACE}-{PID}-1-abc_1", True),  # the id went to a younger process: this one
        (f"easeml-trial-{NAMESPACE}-{2**22 + 7}-5-abc", True),  # beyond the largest id that there may be
        (f"easeml-trial-{NAMESPACE}-{PID}-{files._start_of(PID)}-abc", False),
        (f"easeml-trial-{NAMESPACE + 1}-{PID}-1-abc", False),  # of another sandbox or container
        ("easeml-trial-0-7-0-abc", False),
        ("easeml-trial-abc", False),
        ("easeml-models", False),
    ],
    ids=["younger", "none", "alive", "elsewhere", "unknown", "unnamed", "other"],
)
def test_only_what_is_known_to_be_left_is_removed(place, name, is_swept):
    (place / name).mkdir()
    assert sweep_scratch() == int(is_swept)
    assert (place / name).exists() is not is_swept


def test_a_link_is_never_followed(place, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "kept").touch()
    (place / f"easeml-trial-{NAMESPACE}-{PID}-1-abc").symlink_to(elsewhere)
    assert sweep_scratch() == 0
    assert (elsewhere / "kept").exists()
