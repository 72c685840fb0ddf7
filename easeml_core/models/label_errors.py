"""Which labels look wrong: those that disagree most with what models say that have not seen them.

    doubt(i) = 1 - p_{-i}(y_i | x_i)

where p_{-i} are probabilities of models that were trained on the other folds. Source: Northcutt, Jiang and Chuang
(2021), "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR 70, section 3 (recalled, not checked): the
ranking by self-confidence of out-of-sample probabilities; and the rule that suspects a label where the probability of
another class is at least its average over the rows of that class. For numbers the distance from the prediction replaces
1 - p.

The probabilities are the mean of a random forest, which fits nonlinear classes, and of logistic regression, which is
robust to wrong labels. Sealed rows are not read, and no row is switched off here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from easeml_core.entities import Task

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from easeml_core.data.table import Labels

FOLDS = 5
_MOST_ROWS = 20_000  # that one model learns from: more of them change the ranking little
_MOST_COMPONENTS = 50
_TREES = 100


class Ranking(NamedTuple):
    """What models say of each row that have not seen it.

    Attributes:
        doubt: In [0, 1], the higher the more suspicious; shape (rows,).
        expected: The label that they would give; shape (rows,), as the labels are.
        suspected: Whether the rule of confident learning holds it for wrong; shape (rows,). For numbers: whether it is
            further from the prediction than 4 typical distances (medians).
    """

    doubt: NDArray[np.float64]
    expected: NDArray[Any]
    suspected: NDArray[np.bool_]


def rank_labels(inputs: NDArray[np.float32], labels: Labels, *, task: Task, seed: int = 0) -> Ranking:
    """Doubt in each label.

    Example:
        >>> x = np.repeat(np.linspace(0, 1, 40), 2)[:, None].astype(np.float32)
        >>> y = (x[:, 0] > 0.5).astype(np.int64)
        >>> y[3] = 1
        >>> int(rank_labels(x, y, task=Task.CLASSIFICATION).doubt.argmax())
        3
    """
    return _of_classes(inputs, labels, seed) if task == Task.CLASSIFICATION else _of_numbers(inputs, labels, seed)


def _of_classes(inputs: NDArray[np.float32], labels: Labels, seed: int) -> Ranking:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression

    classes, codes = np.unique(labels, return_inverse=True)
    chances = np.zeros((len(codes), len(classes)))
    for learn, judge in _folds(codes, seed):
        fitted = (
            _after_preparation(RandomForestClassifier(_TREES, min_samples_leaf=3, random_state=seed)),
            _after_preparation(LogisticRegression(C=0.1, max_iter=2000), inputs.shape[1], min(len(learn), len(inputs))),
        )
        for model in fitted:
            model.fit(inputs[learn], codes[learn])
            known = model.classes_  # a rare class may be missing in a fold
            chances[np.ix_(judge, known)] += model.predict_proba(inputs[judge]) / len(fitted)
    own = chances[np.arange(len(codes)), codes]
    sure = np.array([own[codes == code].mean() for code in range(len(classes))])
    best = np.where(chances >= sure, chances, -1.0).argmax(axis=1)
    suspected = (chances.max(axis=1) > own) & (chances[np.arange(len(codes)), best] >= sure[best]) & (best != codes)
    return Ranking(1 - own, classes[chances.argmax(axis=1)], suspected)


def _of_numbers(inputs: NDArray[np.float32], labels: Labels, seed: int) -> Ranking:
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.linear_model import Ridge

    expected = np.zeros(len(labels))
    for learn, judge in _folds(None, seed, rows=len(labels)):
        for model in (
            _after_preparation(RandomForestRegressor(_TREES, min_samples_leaf=3, random_state=seed)),
            _after_preparation(Ridge(alpha=10.0), inputs.shape[1], len(learn)),
        ):
            expected[judge] += model.fit(inputs[learn], labels[learn]).predict(inputs[judge]) / 2
    distance = np.abs(labels - expected)
    typical = float(np.median(distance)) or 1.0
    return Ranking(distance / (distance + typical), expected.astype(np.float32), distance > 4 * typical)


def _folds(
    codes: NDArray[np.int64] | None, seed: int, *, rows: int | None = None
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Rows to learn from and rows to judge, each judged once; the classes are spread evenly over the folds."""
    rng = np.random.default_rng(seed)
    count = len(codes) if codes is not None else rows or 0
    order = rng.permutation(count)
    if codes is not None:
        order = order[np.argsort(codes[order], kind="stable")]
    fold = np.empty(count, dtype=np.intp)
    fold[order] = np.arange(count) % min(FOLDS, count)
    for number in range(min(FOLDS, count)):
        learn = np.flatnonzero(fold != number)
        if len(learn) > _MOST_ROWS:
            learn = np.sort(rng.choice(learn, _MOST_ROWS, replace=False))
        yield learn, np.flatnonzero(fold == number)


def _after_preparation(model: Any, features: int = 0, rows: int = 0) -> Any:
    """The model behind what fills missing values; with ``features`` also scaled, and many made few."""
    from sklearn.decomposition import PCA
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    steps: list[Any] = [SimpleImputer(keep_empty_features=True)]
    if features:
        steps.append(StandardScaler())
    if features > _MOST_COMPONENTS:
        steps.append(PCA(min(_MOST_COMPONENTS, rows), random_state=0))
    return make_pipeline(*steps, model)
