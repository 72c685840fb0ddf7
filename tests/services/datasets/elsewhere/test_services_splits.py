"""Studies whose rows are divided by group or by time, from the registration to the sealed sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tables_elsewhere import table

from easeml_core.errors import InvalidInputError

if TYPE_CHECKING:
    from pathlib import Path


def sealed_inputs(lab: Any, purpose: str) -> np.ndarray:
    from easeml_core.store.tables import sealed

    set_id = lab.one("SELECT id FROM work.test_sets WHERE purpose = :purpose", purpose=purpose)
    with lab.referee.begin() as tx:
        return sealed.sealed_inputs(tx, set_id)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data" / "lab").mkdir(parents=True)
    (tmp_path / "data" / "lab" / "own.csv").write_text(table())
    return tmp_path / "data"


def test_groups_are_sealed_whole(ask: Any, bare: Any, data: Path) -> None:
    answer = ask("csv:own.csv", split="group:site?keep=yes", data=data)
    assert answer.message.startswith("study table is active; rows: train 1")
    assert "; warning: the promises of gate and meter hold for independent examples" in answer.message
    parts = bare.open_parts("table")
    sites = [set(inputs[:, 2]) for inputs in (parts.train_inputs, parts.validation_inputs)]
    sites += [set(sealed_inputs(bare, purpose)[:, 2]) for purpose in ("gate", "meter")]
    assert sum(map(len, sites)) == len(set.union(*sites)) == 200


def test_the_latest_rows_are_sealed(ask: Any, bare: Any, data: Path) -> None:
    answer = ask("csv:own.csv", split="time:day?keep=yes", data=data)
    assert answer.message.startswith("study table is active; rows: train 196, validation 90, gate 254, meter 60")
    assert "; warning: the sealed parts are the latest rows" in answer.message
    parts = bare.open_parts("table")
    assert set(parts.train_inputs[:, 3]) == set(range(196))
    assert set(parts.validation_inputs[:, 3]) == set(range(196, 286))
    later = [sealed_inputs(bare, purpose)[:, 3] for purpose in ("gate", "meter")]
    assert set(np.concatenate(later)) == set(range(286, 600))


def test_a_column_that_divides_is_no_input(ask: Any, bare: Any, data: Path) -> None:
    assert not ask("csv:own.csv", split="group:site", data=data).refused
    assert bare.open_parts("table").train_inputs.shape[1] == 3


def test_a_split_that_cannot_be_made_refuses_the_study(ask: Any, data: Path) -> None:
    answer = ask("csv:own.csv", split="group:none", data=data)
    assert answer.refused
    assert "split 'group:none': the column 'none' is not among the 5 columns" in answer.message
    with pytest.raises(InvalidInputError, match=r"split must be rows, group:COLUMN or time:COLUMN, .* got 'weeks'"):
        ask("csv:own.csv", study="other", split="weeks", data=data)
