"""What the referee reads for a study: a tenant's own files, and no table whose rows are sealed for another one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from easeml_core.data.layout import Layout
from easeml_core.services.referee.process import Referee
from easeml_core.services.referee.requests import answer_of
from easeml_core.services.registration.register import register_study
from easeml_core.services.reports.overview import study_state
from easeml_core.services.test_sets.row_registry import OTHERS_WORDS, OWN_WORDS

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


def register(
    lab: Any, source: str, *, data: Path | None, tenant: str = "lab", study: str = "table", target: str = "label"
) -> Any:
    given = {"gate": GATE, "meter": METER, "target": target, "request_key": lab.key()}
    filed = register_study(lab.worker, tenant=tenant, study=study, source=source, **given)
    while Referee(lab.referee, lab.artifacts, data=data).answer_one() is not None:
        pass
    return answer_of(lab.worker, filed.request_id)


@pytest.mark.parametrize("absolute", [False, True])
def test_a_tenants_own_file_is_read(absolute: bool, bare: Any, data: Path) -> None:
    source = f"csv:{data}/lab/own.csv" if absolute else "csv:own.csv"
    answer = register(bare, source, data=data)
    assert answer.message == "study table is active; rows: train 196, validation 90, gate 254, meter 60"
    assert bare.rows("SELECT class_names, features FROM work.data_versions") == [(["no", "yes"], 2)]


TAKEN = "; correct that and register the study again"
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
    assert answer.refused
    assert answer.message == (
        f"source '{ELSEWHERE[what]}': there is no such file in the referee's data folder of tenant 'lab'; "
        "put it into FOLDER/TENANT, where FOLDER is what the referee was started with (`easeml referee --data`)"
        f"{TAKEN}"
    )
    assert study_state(bare.worker, study="table") == "REFUSED"


def write_images(folder: Path, rows: int = 600) -> None:
    """Grey images of 4 x 3, half of them with a bright left side."""
    values = np.random.default_rng(5).integers(0, 128, (rows, 4, 3), dtype=np.uint8)
    for row, pixels in enumerate(values):
        pixels[:, 0] += 127 * (row % 2)
        path = folder / ("dark", "bright")[row % 2] / f"{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)


def test_a_tenants_own_folder_of_images_is_sealed(bare: Any, data: Path) -> None:
    write_images(data / "lab" / "photos")
    answer = register(bare, "images:photos", data=data, target="")
    assert answer.message == "study table is active; rows: train 196, validation 90, gate 254, meter 60"
    parts = bare.open_parts("table")
    assert (parts.layout, parts.classes) == (Layout("image", (4, 3, 1)), 2)
    assert bare.rows("SELECT class_names, features FROM work.data_versions") == [(["bright", "dark"], 12)]


@pytest.mark.parametrize("source", ["series:series.csv", "npy:arrays"])
def test_a_tenants_own_series_are_sealed(source: str, bare: Any, data: Path) -> None:
    values, labels = np.random.default_rng(6).normal(size=(600, 3, 2)), np.arange(600) % 2
    (data / "lab" / "arrays").mkdir()
    np.save(data / "lab" / "arrays" / "inputs.npy", values)
    np.save(data / "lab" / "arrays" / "targets.npy", labels)
    lines = [f"{i},{step},{a},{b},{labels[i]}" for i in range(600) for step, (a, b) in enumerate(values[i])]
    (data / "lab" / "series.csv").write_text("\n".join(["id,step,a,b,label", *lines]))
    answer = register(bare, source, data=data, target="label" if source.startswith("series") else "")
    assert answer.message.startswith("study table is active")
    assert bare.open_parts("table").layout == Layout("series", (3, 2))


FOLDERS = ["images:../other/photos", "images:link", "images:none", "npy:/etc", "images:own.csv", "npy:../../photos"]


@pytest.mark.parametrize("source", FOLDERS)
def test_any_other_folder_is_refused_as_if_it_were_not_there(source: str, bare: Any, data: Path) -> None:
    for folder in (data / "other" / "photos", data.parent / "photos"):
        write_images(folder, rows=4)
    (data / "lab" / "link").symlink_to(data / "other" / "photos")
    answer = register(bare, source, data=data, target="")
    assert answer.refused
    assert answer.message.startswith(f"source '{source}': there is no such folder in the referee's data folder")


def test_a_link_whose_target_reads_like_an_option_leads_nowhere(bare: Any, data: Path) -> None:
    (data / "lab" / "b").symlink_to(data.parent / "outside.csv")
    write_table(data / "lab" / "b?rows=500", seed=4)
    (data / "lab" / "a").symlink_to(data / "lab" / "b?rows=500")  # the checked path would be read as 500 rows of b
    answer = register(bare, "csv:a", data=data)
    assert answer.refused
    assert answer.message.startswith("source 'csv:a': its path holds a question mark; rename it")


def test_without_a_data_folder_no_file_is_read(bare: Any, data: Path) -> None:
    answer = register(bare, f"csv:{data}/lab/own.csv", data=None)
    assert answer.refused
    assert "there is no such file in the referee's data folder" in answer.message


def test_rows_that_are_sealed_for_another_tenant_are_not_opened(bare: Any, data: Path) -> None:
    assert not register(bare, "csv:own.csv", data=data).refused
    write_table(data / "other" / "copy.csv", seed=1)
    answer = register(bare, "csv:copy.csv", data=data, tenant="other", study="copy")
    assert answer.refused
    assert answer.message == (
        f"source 'csv:copy.csv': {OTHERS_WORDS}; a row that is sealed in one study must not be open in another; bring "
        f"rows of your own{TAKEN}"
    )
    files = [p for p in bare.artifacts.root.rglob("*") if p.is_file() and p.stat().st_size > 1000]
    assert len(files) == 1  # the first study's open parts, and nothing of the second's


def test_another_tenant_may_have_other_rows_and_the_same_tenant_not_the_same(bare: Any, data: Path) -> None:
    assert not register(bare, "csv:own.csv", data=data).refused
    assert not register(bare, "csv:theirs.csv", data=data, tenant="other", study="theirs").refused
    assert OWN_WORDS in register(bare, "csv:own.csv", data=data, study="again").message


@pytest.mark.parametrize("source", ["csv:tiny.csv", "npy:arrays"])
def test_an_answer_tells_nobody_where_the_referees_folder_is(source: str, bare: Any, data: Path) -> None:
    (data / "lab" / "tiny.csv").write_bytes(b"\xff\xfe")
    (data / "lab" / "arrays").mkdir()
    (data / "lab" / "arrays" / "inputs.npy").write_bytes(b"no array")
    (data / "lab" / "arrays" / "targets.npy").write_bytes(b"no array")
    answer = register(bare, source, data=data, target="label" if source.startswith("csv") else "")
    assert answer.refused
    assert str(data) not in answer.message
