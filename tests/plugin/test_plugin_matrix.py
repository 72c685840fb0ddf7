"""Our wheel beside other Airflows: by day the oldest that we promise, at night every cell."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import matrix
import pytest
from cells.environments import RELEASES, build_wheel
from property_sizes import at_night

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.journey, pytest.mark.timeout(1200)]

BY_DAY = ((RELEASES[0].minor, "3.13"),)


@pytest.mark.parametrize(
    ("airflow", "python", "lowest"),
    [
        *((airflow, python, False) for airflow, python in BY_DAY),
        *(at_night(airflow, python, False) for airflow, python in matrix.CELLS if (airflow, python) not in BY_DAY),
        at_night(RELEASES[-1].minor, "3.11", True),
    ],
)
def test_a_cell_works(airflow: str, python: str, lowest: bool, tmp_path: Path) -> None:
    if shutil.which(f"python{python}") is None:
        pytest.skip(f"there is no Python {python} on this machine")
    outcome = matrix.try_cell(airflow, python, build_wheel(tmp_path), lowest=lowest, keep=False)
    assert outcome.failure is None
    assert list(outcome.steps)[-2:] == ["pages answer", "doctor"]
