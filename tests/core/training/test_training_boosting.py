"""LightGBM and XGBoost: what the libraries' own classes give, the same each time, back from text unchanged."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from lightgbm import LGBMClassifier, LGBMRegressor
from xgboost import XGBClassifier, XGBRegressor

from easeml_core.data.layout import table_layout
from easeml_core.data.parts import OpenParts, split_parts
from easeml_core.data.sources.load import load_source
from easeml_core.entities import Task
from easeml_core.errors import TrainingError
from easeml_core.models import lightgbm_format, xgboost_format
from easeml_core.models.formats import load_predictor, save_model
from easeml_core.sandbox.child_protocol import silent
from easeml_core.training.child import validate
from easeml_core.training.trainers import trainer_of

if TYPE_CHECKING:
    from pathlib import Path

KINDS = ("lightgbm", "xgboost")
DRAWN = {"n_estimators": 12, "subsample": 0.7, "colsample_bytree": 0.6}


def fitted(kind: str, parts: OpenParts, *, seed: int = 3, **parameters: Any) -> Any:
    return trainer_of(kind).fit(parts, {"n_estimators": 12, **parameters}, seed=seed, report=silent)


@pytest.fixture(scope="module")
def tumours() -> OpenParts:
    """Two classes: 399 tumours to train on, 170 to validate."""
    table = load_source("sklearn:breast_cancer")
    cut = split_parts(table, sizes={"validation": 170}, rng=np.random.default_rng(2))
    return OpenParts(*cut.train, *cut.validation, cut.classes, cut.layout, cut.task)


def plain(kind: str, parts: OpenParts, seed: int, **parameters: Any) -> Any:
    """The library's class for scikit-learn with the same settings."""
    numbers = parts.task == Task.REGRESSION
    if kind == "lightgbm":
        fixed = {"n_jobs": 1, "deterministic": True, "force_row_wise": True, "verbosity": -1, "subsample_freq": 1}
        model: Any = (LGBMRegressor if numbers else LGBMClassifier)(
            random_state=seed, learning_rate=0.1, reg_lambda=1.0, max_bin=255, num_leaves=31, min_child_samples=20,
            **fixed, **parameters,
        )  # fmt: skip
    else:
        start = {"base_score": 0.5} if parts.classes == 2 else {}
        model = (XGBRegressor if numbers else XGBClassifier)(
            random_state=seed, n_jobs=1, learning_rate=0.1, max_depth=6, max_bin=255, tree_method="hist",
            **start, **parameters,
        )  # fmt: skip
    return model.fit(parts.train_inputs, parts.train_labels)


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("data", ["digits", "tumours", "diabetes"])
@pytest.mark.parametrize("parameters", [{"n_estimators": 12}, DRAWN], ids=["whole", "drawn"])
def test_it_is_what_the_library_gives(kind: str, data: str, parameters: dict[str, Any], request: Any) -> None:
    parts = request.getfixturevalue(data)
    ours, theirs = fitted(kind, parts, **parameters), plain(kind, parts, 3, **parameters)
    inputs = parts.validation_inputs
    assert np.array_equal(ours.predict(inputs), theirs.predict(inputs))
    if parts.classes:
        np.testing.assert_allclose(ours.scores(inputs), theirs.predict_proba(inputs), rtol=0, atol=1e-7)
        np.testing.assert_array_equal(ours.probabilities(inputs, classes=parts.classes), ours.scores(inputs))
        assert ours.probabilities(inputs, classes=parts.classes + 1) is None
    assert ours.predict(inputs).dtype == (np.int64 if parts.classes else np.float64)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("data", ["digits", "tumours", "diabetes"])
def test_a_file_read_and_saved_again_is_the_same_file(kind: str, data: str, request: Any, tmp_path: Path) -> None:
    parts = request.getfixturevalue(data)
    first = fitted(kind, parts)
    assert save_model(first, tmp_path / "a") == kind
    loaded = load_predictor(tmp_path / "a", kind)
    save_model(loaded, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    np.testing.assert_array_equal(loaded.scores(parts.validation_inputs), first.scores(parts.validation_inputs))
    assert loaded.scores(parts.validation_inputs[:0]).shape == (0, max(1, parts.classes))
    assert loaded.predict(parts.validation_inputs[:0]).shape == (0,)


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_decides_where_something_is_drawn(kind: str, digits: OpenParts, tmp_path: Path) -> None:
    texts = []
    for seed, parameters in [(3, DRAWN), (3, DRAWN), (2**32 - 1, DRAWN), (3, {}), (4, {})]:
        save_model(fitted(kind, digits, seed=seed, **parameters), tmp_path / "model")
        texts.append((tmp_path / "model").read_bytes())
    assert texts[0] == texts[1] != texts[2]
    assert texts[3] == texts[4]


@pytest.mark.parametrize("kind", KINDS)
def test_a_class_without_a_row_and_one_class_alone(kind: str, digits: OpenParts, tumours: OpenParts) -> None:
    kept = digits.train_labels != 4
    parts = replace(digits, train_inputs=digits.train_inputs[kept], train_labels=digits.train_labels[kept])
    quality, predictions = validate(kind, fitted(kind, parts), parts)
    assert quality > 0.6
    assert 4 not in predictions
    alone = replace(tumours, train_labels=np.ones_like(tumours.train_labels))
    _, predictions = validate(kind, fitted(kind, alone), alone)
    assert (predictions == 1).all()


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_cannot_be_split_and_splits_of_missing_values(kind: str) -> None:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(200, 2)).astype(np.float32)
    missing = rng.random(200) < 0.5
    inputs[missing, 0] = np.nan
    few = OpenParts(
        inputs[:4], np.float32([1, 2, 3, 4]), inputs[:2], np.float32([1, 2]), 0, table_layout(2), Task.REGRESSION
    )
    model = fitted(kind, few)
    assert np.isfinite(model.predict(inputs)).all()
    labels = missing.astype(np.int64)
    many = OpenParts(inputs[:150], labels[:150], inputs[150:], labels[150:], 2, table_layout(2))
    assert validate(kind, fitted(kind, many), many)[0] == 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_progress_is_reported(kind: str, diabetes: OpenParts) -> None:
    reported: list[tuple[float, str]] = []
    trainer_of(kind).fit(diabetes, {"n_estimators": 40}, seed=0, report=lambda *news: reported.append(news))
    assert [progress for progress, _ in reported] == sorted(progress for progress, _ in reported)
    assert reported[1] == (pytest.approx(0.17), "round 4 of 40")
    assert len(reported) == 12


@pytest.mark.parametrize("kind", KINDS)
def test_inputs_of_another_width_are_refused(kind: str, diabetes: OpenParts) -> None:
    with pytest.raises(TrainingError, match=r"was trained on 10 features, got inputs of shape \(120, 9\)"):
        fitted(kind, diabetes).predict(diabetes.validation_inputs[:, :9])


def test_boosting_that_diverges_says_so_or_is_worth_nothing(diabetes: OpenParts) -> None:
    wild = {"learning_rate": 10, "n_estimators": 300}
    with pytest.raises(
        TrainingError, match=r"xgboost gave trees that cannot be used: .*lower learning_rate \(now 10\)"
    ):
        fitted("xgboost", diabetes, **wild)
    quality, _ = validate("lightgbm", fitted("lightgbm", diabetes, **wild), diabetes)  # it stops where numbers overflow
    assert quality < 1e-9


@pytest.mark.parametrize("failure", [ImportError("none"), OSError("libgomp.so.1: cannot open shared object file")])
def test_a_library_that_cannot_be_loaded(failure: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins

    real = builtins.__import__

    def fail(name: str, *arguments: Any, **named: Any) -> Any:
        if name in KINDS:
            raise failure
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", fail)
    with pytest.raises(TrainingError, match=r"easeml-airflow\[boosting\]|Debian: libgomp1"):
        lightgbm_format.import_lightgbm()
    if isinstance(failure, ImportError):
        with pytest.raises(TrainingError, match=r"easeml-airflow\[boosting\]"):
            xgboost_format.import_xgboost()
