"""Boosted trees of LightGBM and XGBoost (extra ``boosting``): one thread, seeded, the same trees for the same seed.

Missing values go where the trees learnt to send them, and trees need no scale, so there is no step before them. What
the library trained is written as text and read again as a file would be: the model that is validated is the one saved.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.entities import Parameters, Task
from easeml_core.errors import TrainingError
from easeml_core.models import lightgbm_format, xgboost_format

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from easeml_core.data.parts import OpenParts
    from easeml_core.models.formats import Predictor
    from easeml_core.models.trees import BoostedPredictor
    from easeml_core.sandbox.child_protocol import Report

_REPORTS = 10
"""Number of progress reports of one training."""


def fit_boosted(kind: str, parts: OpenParts, parameters: Parameters, *, seed: int, report: Report) -> Predictor:
    """Boost on the training part."""
    settings = dict(parameters)
    rounds = settings.pop("n_estimators")
    report(0.1, f"fitting {kind} on {len(parts.train_labels):,} rows")
    fit = _lightgbm if kind == "lightgbm" else _xgboost
    try:
        predictor = fit(parts, settings, rounds, seed, _Rounds(rounds, report))
    except ValueError as error:  # a leaf that is not finite is refused like that of a file
        rate = parameters["learning_rate"]
        message = f"{kind} gave trees that cannot be used: {error}; lower learning_rate (now {rate:g})"
        raise TrainingError(message) from error
    report(0.8, "fitted")
    return predictor


class _Rounds:
    """Reports the progress of boosting, every tenth of the rounds."""

    def __init__(self, rounds: int, report: Report) -> None:
        self._rounds, self._report, self._every = rounds, report, max(1, rounds // _REPORTS)

    def __call__(self, done: int) -> bool:
        """After ``done`` rounds; False, which does not ask to stop."""
        if done % self._every == 0:
            self._report(0.1 + 0.7 * done / self._rounds, f"round {done} of {self._rounds}")
        return False


def _lightgbm(parts: OpenParts, settings: Parameters, rounds: int, seed: int, tell: _Rounds) -> BoostedPredictor:
    lightgbm = lightgbm_format.import_lightgbm()
    objective: dict[str, str | float] = {"objective": "regression"}
    if parts.task == Task.CLASSIFICATION:
        objective = {"objective": "multiclass", "num_class": parts.classes}
        objective = objective if parts.classes > 2 else {"objective": "binary"}
    fixed = {
        "seed": seed % 2**31, "num_threads": 1, "deterministic": True, "force_row_wise": True, "verbosity": -1,
        "subsample_freq": 1,
    }  # fmt: skip
    data = lightgbm.Dataset(parts.train_inputs, parts.train_labels)
    booster = lightgbm.train(
        {**settings, **objective, **fixed}, data, rounds, callbacks=[lambda now: tell(now.iteration + 1)]
    )
    return lightgbm_format.predictor_of(booster.model_to_string(num_iteration=-1).encode())


def _xgboost(parts: OpenParts, settings: Parameters, rounds: int, seed: int, tell: _Rounds) -> BoostedPredictor:
    xgboost = xgboost_format.import_xgboost()
    objective: dict[str, str | float] = {"objective": "reg:squarederror"}
    if parts.task == Task.CLASSIFICATION:
        objective = {"objective": "multi:softprob", "num_class": parts.classes}
        # The share of class 1 as a start would be infinite log odds where the training part has one class only.
        objective = objective if parts.classes > 2 else {"objective": "binary:logistic", "base_score": 0.5}
    fixed = {"seed": seed % 2**31, "nthread": 1, "tree_method": "hist", "device": "cpu", "verbosity": 0}

    # A class made here, since the library is imported only now.
    methods = {"after_iteration": lambda _, model, epoch, log: tell(epoch + 1)}
    callback = type("Progress", (xgboost.callback.TrainingCallback,), methods)
    unit = 1.0 if parts.task == Task.CLASSIFICATION else _unit_of(parts.train_labels)
    data = xgboost.DMatrix(
        parts.train_inputs, parts.train_labels / unit if unit != 1 else parts.train_labels, nthread=1
    )
    booster = xgboost.train({**settings, **objective, **fixed}, data, rounds, callbacks=[callback()])
    content = bytes(booster.save_raw("json"))
    return xgboost_format.predictor_of(content if unit == 1 else xgboost_format.rescaled(content, unit))


def _unit_of(targets: NDArray[Any]) -> float:
    """A power of two near the deviation of the targets, so that dividing by it is exact.

    XGBoost makes no split that gains less than 1e-6 in squares of the targets' unit, and its squares end at 1e38.
    """
    deviation = float(np.std(targets, dtype=np.float64))
    return 2.0 ** math.floor(math.log2(deviation)) if deviation > 0 else 1.0
