"""Our wheel beside the oldest Airflow that we promise, and beside the one between it and the newest."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import matrix
import pytest
from cells.environments import RELEASES, build_wheel

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.journey, pytest.mark.timeout(1200)]


@pytest.mark.parametrize(("airflow", "python"), [(RELEASES[0].minor, "3.13"), (RELEASES[1].minor, "3.11")])
def test_a_cell_works(airflow: str, python: str, tmp_path: Path) -> None:
    if shutil.which(f"python{python}") is None:
        pytest.skip(f"there is no Python {python} on this machine")
    outcome = matrix.try_cell(airflow, python, build_wheel(tmp_path), lowest=False, keep=False)
    assert outcome.failure is None
    assert list(outcome.steps)[-2:] == ["pages answer", "doctor"]
