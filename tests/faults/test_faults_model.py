"""The model of leases, requests and the ledger holds in each of its states; without the database's keys it does not."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

MODEL = Path(__file__).with_name("protocol.pml")

pytestmark = pytest.mark.skipif(
    shutil.which("spin") is None or shutil.which("cc") is None,
    reason="the model checker SPIN is Debian's package spin; it needs a C compiler",
)


def check(flags: Sequence[str], folder: Path) -> str:
    """Visit all states of the model; what SPIN says."""
    for command in (
        ["spin", "-a", *flags, str(MODEL)],
        ["cc", "-O1", "-w", "-DSAFETY", "-DCOLLAPSE", "-o", "pan", "pan.c"],
    ):
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return subprocess.run([folder / "pan", "-m1000000"], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize(("flags", "is_sound"), [
    (["-DFAULTS=1"], True), (["-DFAULTS=1", "-DNO_KEYS"], False),
    (["-DTRIALS"], True), (["-DTRIALS", "-DNO_FENCE"], False),
    pytest.param(["-DFAULTS=2"], True, marks=pytest.mark.nightly),
])  # fmt: skip
def test_no_state_of_the_model_breaks_a_promise(flags: list[str], is_sound: bool, tmp_path: Path) -> None:
    said = check(flags, tmp_path)
    assert ("errors: 0" in said, "assertion violated" in said) == (is_sound, not is_sound)
    assert "max search depth too small" not in said
