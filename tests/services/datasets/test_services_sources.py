"""What the referee reads for a study: a tenant's own files, and no table whose rows are sealed for another one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from registering import register_study

from easeml_core.data.layout import Layout
from easeml_core.data.sources import child
from easeml_core.data.sources.load import load_source
from easeml_core.data.split_spec import check_split
from easeml_core.errors import (
    InvalidInputError,
    MachineError,
    TrainingError,
    TrainingKilled,
    TrainingMachineError,
    TrainingStarved,
)
from easeml_core.services.datasets import access
from easeml_core.services.referee.process import Referee
from easeml_core.services.referee.requests import answer_of
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
    assert answer.message == SEALED
    assert bare.rows("SELECT class_names, features FROM work.data_versions") == [(["no", "yes"], 2)]


SEALED = "study table is active; rows: train 196, validation 90, gate 254, meter 60"
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


def write_images(folder: Path, rows: int = 600, seed: int = 5) -> None:
    """Grey images of 4 x 3, half of them with a bright left side."""
    values = np.random.default_rng(seed).integers(0, 128, (rows, 4, 3), dtype=np.uint8)
    for row, pixels in enumerate(values):
        pixels[:, 0] += 127 * (row % 2)
        path = folder / ("dark", "bright")[row % 2] / f"{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)


def write_arrays(folder: Path, *, seed: int) -> None:
    folder.mkdir()
    np.save(folder / "inputs.npy", np.random.default_rng(seed).normal(size=(600, 2)))
    np.save(folder / "targets.npy", np.arange(600) % 2)


def write_parquet(path: Path, *, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=600)
    pq.write_table(pa.table({"a": values, "label": np.where(values > 0, "yes", "no")}), path)


def test_a_tenants_own_folder_of_images_is_sealed(bare: Any, data: Path) -> None:
    write_images(data / "lab" / "photos")
    answer = register(bare, "images:photos", data=data, target="")
    assert answer.message == SEALED
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


def test_a_link_whose_target_reads_like_an_option_is_read_as_a_name(bare: Any, data: Path) -> None:
    (data / "lab" / "b").symlink_to(data.parent / "outside.csv")
    write_table(data / "lab" / "b?rows=500", seed=4)
    (data / "lab" / "a").symlink_to(data / "lab" / "b?rows=500")
    assert register(bare, "csv:a", data=data).message == SEALED
    assert register(bare, "csv:b", data=data, study="outside").refused


@pytest.mark.parametrize("source", ["csv:own.csv", "parquet:rows.parquet", "npy:arrays", "images:photos"])
def test_what_takes_the_place_of_a_file_once_it_is_opened_is_not_read(
    source: str, bare: Any, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for tenant, seed in (("lab", 11), ("other", 12)):
        write_arrays(data / tenant / "arrays", seed=seed)
        write_images(data / tenant / "photos", seed=seed)
        write_parquet(data / tenant / "rows.parquet", seed=seed)
    write_table(data / "other" / "own.csv", seed=12)
    name = source.partition(":")[2]
    expected = load_source(f"{source.partition(':')[0]}:{data}/lab/{name}", "label" if "." in name else None)

    def exchanged(*given: Any, **named: Any) -> Any:
        (data / "lab" / name).rename(data / "lab" / "aside")
        (data / "lab" / name).symlink_to(f"../other/{name}")
        return load_source(*given, **named)

    monkeypatch.setattr(child, "load_source", exchanged)
    monkeypatch.setattr(access, "run_child", lambda _, arguments, **__: child.main(["0", *arguments]))
    monkeypatch.setattr(child, "child_protocol", Mock())
    answer = register(bare, source, data=data, target="label" if "." in name else "")
    assert answer.message == SEALED
    parts = bare.open_parts("table")
    known = {row.tobytes() for row in expected.inputs}
    assert {row.tobytes() for row in parts.train_inputs} < known


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


def test_a_file_that_stands_for_more_than_memory_is_refused_and_the_referee_goes_on(
    bare: Any, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "READING_MB", 130)
    (data / "lab" / "arrays").mkdir()
    np.lib.format.open_memmap(data / "lab" / "arrays" / "inputs.npy", mode="w+", dtype=np.float64, shape=(600, 60_000))
    np.save(data / "lab" / "arrays" / "targets.npy", np.arange(600) % 2)
    assert "130 MB to read; bring fewer" in register(bare, "npy:arrays", data=data, target="").message
    assert register(bare, "csv:own.csv", data=data, study="after").message == SEALED.replace("table", "after")


@pytest.mark.parametrize(
    ("end", "error", "message"),
    [
        (
            TrainingError("the process was ended by SIGSEGV: a secret\n1,2,3"),
            InvalidInputError,
            "the process that reads",
        ),
        (TrainingError("out of memory: 9,000 MB in use"), InvalidInputError, "take more than 60 minutes or 8,192 MB"),
        (TrainingStarved("out of time"), InvalidInputError, "take more than 60 minutes or 8,192 MB"),
        (TrainingMachineError("No space left on device"), MachineError, "cannot be read now: No space left on device"),
        (TrainingKilled("the process was ended by SIGTERM"), TrainingKilled, "SIGTERM"),
    ],
)
def test_whose_fault_it_is_that_the_process_has_ended_that_reads(
    end: Exception, error: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "run_child", Mock(side_effect=end))
    study: Any = SimpleNamespace(name="table", source="csv:a.csv", target="label", task=None)
    with pytest.raises(error, match=message) as raised:
        access.read_apart("csv:a.csv", study, check_split(None), folder=tmp_path)
    assert type(raised.value) is error
    assert "secret" not in str(raised.value)
