"""What the referee reads for a study: a tenant's own files, and no table whose rows are sealed for another one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from easeml_core.services.overview import study_state
from easeml_core.services.referee import Referee
from easeml_core.services.registration import register_study
from easeml_core.services.requests import answer_of

if TYPE_CHECKING:
    from pathlib import Path

GATE = {"condition": "n - o > 0 +/- 0.2", "reliability": 0.9, "steps": 3, "estimator": "paper"}
METER = {"ranges": (0.2, 0.6), "tolerance": 0.2, "reliability": 0.9, "steps": 4}


def write_table(path: Path, *, seed: int, rows: int = 600) -> None:
    """A table that can be learnt, different for every seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).normal(size=(rows, 2))
    lines = [f"{a:.6f},{b:.6f},{'yes' if a + b > 0 else 'no'}" for a, b in values]
    path.write_text("\n".join(["a,b,label", *lines]))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The referee's data folder with a table of the tenant ``lab`` and one of the tenant ``other``."""
    folder = tmp_path / "data"
    write_table(folder / "lab" / "own.csv", seed=1)
    write_table(folder / "other" / "theirs.csv", seed=2)
    write_table(tmp_path / "outside.csv", seed=3)
    (folder / "lab" / "link.csv").symlink_to(tmp_path / "outside.csv")
    return folder


def register(lab: Any, source: str, *, data: Path | None, tenant: str = "lab", study: str = "table") -> Any:
    given = {"gate": GATE, "meter": METER, "target": "label", "request_key": lab.key()}
    filed = register_study(lab.worker, tenant=tenant, study=study, source=source, **given)
    while Referee(lab.referee, lab.artifacts, data=data).answer_one() is not None:
        pass
    return answer_of(lab.worker, filed["request_id"])


@pytest.mark.parametrize("absolute", [False, True])
def test_a_tenants_own_file_is_read(absolute: bool, bare: Any, data: Path) -> None:
    source = f"csv:{data}/lab/own.csv" if absolute else "csv:own.csv"
    answer = register(bare, source, data=data)
    assert answer["message"] == "study table is active; rows: train 196, validation 90, gate 254, meter 60"
    assert bare.rows("SELECT class_names, features FROM work.data_versions") == [(["no", "yes"], 2)]


ELSEWHERE = {
    "another tenant's": "csv:../other/theirs.csv",
    "outside": "csv:../../outside.csv",
    "a link to outside": "csv:link.csv",
    "nowhere": "csv:none.csv",
    "the folder itself": "csv:.",
    "the system's": "csv:/etc/passwd",
}


@pytest.mark.parametrize("what", ELSEWHERE)
def test_any_other_file_is_refused_as_if_it_were_not_there(what: str, bare: Any, data: Path) -> None:
    answer = register(bare, ELSEWHERE[what], data=data)
    assert answer["refused"]
    assert answer["message"] == (
        f"source '{ELSEWHERE[what]}': there is no such file in the referee's data folder of tenant 'lab'; "
        "put it into FOLDER/TENANT, where FOLDER is what the referee was started with (`easeml referee --data`)"
    )
    assert study_state(bare.worker, study="table") == "REFUSED"


def test_without_a_data_folder_no_file_is_read(bare: Any, data: Path) -> None:
    answer = register(bare, f"csv:{data}/lab/own.csv", data=None)
    assert answer["refused"]
    assert "there is no such file in the referee's data folder" in answer["message"]


def test_rows_that_are_sealed_for_another_tenant_are_not_opened(bare: Any, data: Path) -> None:
    assert not register(bare, "csv:own.csv", data=data)["refused"]
    write_table(data / "other" / "copy.csv", seed=1)
    answer = register(bare, "csv:copy.csv", data=data, tenant="other", study="copy")
    assert answer["refused"]
    assert answer["message"] == "table 'csv:copy.csv' already exists; another tenant's study has sealed its rows"
    files = [p for p in bare.artifacts.root.rglob("*") if p.is_file() and p.stat().st_size > 1000]
    assert len(files) == 1  # the first study's open parts, and nothing of the second's


def test_another_tenant_may_have_other_rows_and_the_same_tenant_the_same(bare: Any, data: Path) -> None:
    assert not register(bare, "csv:own.csv", data=data)["refused"]
    assert not register(bare, "csv:theirs.csv", data=data, tenant="other", study="theirs")["refused"]
    assert not register(bare, "csv:own.csv", data=data, study="again")["refused"]
