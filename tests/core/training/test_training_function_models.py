"""What a training function may return: each form is kept as a file that answers as the model did."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from lightgbm import LGBMClassifier, LGBMRegressor
from sklearn.linear_model import Ridge
from sklearn.naive_bayes import GaussianNB
from xgboost import XGBClassifier, XGBRegressor

from easeml_core.errors import InvalidInputError, TrainingError
from easeml_core.models.formats import load_predictor, save_model
from easeml_core.training.function_models import predictor_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from easeml_core.data.parts import OpenParts

QUICK = {"n_estimators": 3, "n_jobs": 1}


def kept(returned: Any, parts: OpenParts, folder: Path) -> Any:
    """What the file answers that is made of a returned model."""
    predictor = predictor_of(returned, parts, folder)
    name = save_model(predictor, folder / "model")
    return load_predictor(folder / "model", name).predict(parts.validation_inputs)


@pytest.mark.parametrize(
    "make",
    [
        lambda: GaussianNB(var_smoothing=0.1),
        lambda: LGBMClassifier(**QUICK, verbosity=-1),
        lambda: XGBClassifier(**QUICK),
    ],
)
def test_classifiers(make: Callable[[], Any], digits: OpenParts, tmp_path: Path) -> None:
    model = make().fit(digits.train_inputs, digits.train_labels)
    wanted = model.predict(digits.validation_inputs)
    answers = kept(model, digits, tmp_path)
    assert answers.dtype == np.int64
    assert np.array_equal(answers, wanted)
    booster = getattr(model, "booster_", None) or (model.get_booster() if hasattr(model, "get_booster") else None)
    if booster is not None:
        assert np.array_equal(kept(booster, digits, tmp_path), wanted)


@pytest.mark.parametrize("make", [Ridge, lambda: LGBMRegressor(**QUICK, verbosity=-1), lambda: XGBRegressor(**QUICK)])
def test_regressors(make: Callable[[], Any], diabetes: OpenParts, tmp_path: Path) -> None:
    model = make().fit(diabetes.train_inputs, diabetes.train_labels.astype(np.float64))
    answers = kept(model, diabetes, tmp_path)
    assert answers.dtype == np.float64
    assert answers == pytest.approx(model.predict(diabetes.validation_inputs).astype(np.float64), rel=1e-5)


@pytest.mark.parametrize("make", [lambda: LGBMClassifier(**QUICK, verbosity=-1), lambda: XGBClassifier(**QUICK)])
def test_boosted_trees_of_other_classes_are_refused(make: Callable[[], Any], digits: OpenParts, tmp_path: Path) -> None:
    model = make()
    few = digits.train_labels < 3
    if isinstance(model, LGBMClassifier):
        model.fit(digits.train_inputs[few], digits.train_labels[few] + 5)
        with pytest.raises(TrainingError, match=r"fitted to the classes \[5, 6, 7\]; fit it to the labels"):
            predictor_of(model, digits, tmp_path)
    else:
        model.fit(digits.train_inputs[few], digits.train_labels[few])
        assert predictor_of(model, digits, tmp_path).predict(digits.validation_inputs).max() == 2


def test_a_folder_with_a_program(digits: OpenParts, diabetes: OpenParts, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "command.json").write_text(json.dumps({"command": ["python", "predict.py"]}))
    (folder / "predict.py").write_text("import numpy as np\nprint(*[4] * len(np.load('inputs.npy')))")
    for returned in (folder, str(folder)):
        predictor = predictor_of(returned, digits, tmp_path)
        assert predictor.format == "command"
        assert predictor.predict(digits.validation_inputs).tolist() == [4] * 200
    assert predictor_of(folder, diabetes, tmp_path).predict(diabetes.validation_inputs).dtype == np.float64


@pytest.mark.parametrize(
    ("returned", "error", "words"),
    [
        (None, TrainingError, "must return a fitted scikit-learn classifier, or regressor .* got NoneType"),
        ("/nowhere/at/all", TrainingError, "returned the path '/nowhere/at/all', where there is no folder"),
        (Path(__file__), TrainingError, "where there is no folder"),
        (Path(__file__).parent, InvalidInputError, r"has no command\.json"),
    ],
)
def test_anything_else_is_refused(
    returned: Any, error: type[Exception], words: str, digits: OpenParts, tmp_path: Path
) -> None:
    with pytest.raises(error, match=words):
        predictor_of(returned, digits, tmp_path)


def test_a_candidate_of_a_function_cannot_be_trained_without_it(make_job: Any) -> None:
    from easeml_core.training.supervisor import run_job

    with pytest.raises(TrainingError, match=r"trained by a function of a DAG: map a task made by @trial"):
        run_job(make_job("function", {"C": 1.0}), on_progress=lambda _: None, should_stop=lambda: False)
