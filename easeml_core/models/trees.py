"""Trees of models: the check that a loaded tree stays inside of itself, and boosted trees of any library in memory.

scikit-learn walks from node to child without looking: a child or feature number outside the arrays, as only a file made
by hand has it, reads foreign memory or never ends. Both of its growers number a child higher than its parent, so one
comparison of arrays shows that every walk stays inside and ends. The sums of boosted trees are given as labels, numbers
and probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, AnyStr, Generic

import numpy as np

from easeml_core.errors import ArtifactError, TrainingError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray


def check_trees(path: Path, pipeline: Any) -> None:
    """Refuse a pipeline whose last step holds a tree that leads outside of itself."""
    classifier = pipeline.steps[-1][1]
    features = int(getattr(classifier, "n_features_in_", 0))
    trees = [tree for tree in [getattr(classifier, "tree_", None)] if tree is not None]
    trees += [estimator.tree_ for estimator in getattr(classifier, "estimators_", ())]
    boosted = [tree for per_class in getattr(classifier, "_predictors", ()) for tree in per_class]
    if not all(_is_closed(tree, features) for tree in trees) or not all(
        _is_boosted_closed(t, features) for t in boosted
    ):
        message = f"the model file {path.name} holds a tree with indices outside of it"
        raise ArtifactError(message)


def _is_closed(tree: Any, features: int) -> bool:
    from sklearn.tree._tree import Tree

    if type(tree) is not Tree:
        return False
    inner = tree.children_left != -1  # a leaf has no left child: this is what scikit-learn stops at
    return tree.n_features == features and stays_inside(
        tree.children_left[inner], tree.children_right[inner], tree.feature[inner], np.flatnonzero(inner),
        nodes=tree.node_count, features=features,
    )  # fmt: skip


def _is_boosted_closed(tree: Any, features: int) -> bool:
    from sklearn.ensemble._hist_gradient_boosting.predictor import TreePredictor

    nodes = tree.nodes
    if type(tree) is not TreePredictor or type(nodes) is not np.ndarray:  # a mask would hide what is read all the same
        return False
    inner = nodes[nodes["is_leaf"] == 0]
    return not nodes["is_categorical"].any() and stays_inside(
        inner["left"], inner["right"], inner["feature_idx"], np.flatnonzero(nodes["is_leaf"] == 0),
        nodes=len(nodes), features=features,
    )  # fmt: skip


def stays_inside(
    left: NDArray[Any], right: NDArray[Any], feature: NDArray[Any], parent: NDArray[Any], *, nodes: int, features: int
) -> bool:
    """Whether children of inner nodes are later nodes of the tree, and their features columns of the input.

    Example:
        >>> stays_inside(np.array([1]), np.array([2]), np.array([0]), np.array([0]), nodes=3, features=1)
        True
        >>> stays_inside(np.array([1]), np.array([7]), np.array([0]), np.array([0]), nodes=3, features=1)
        False
    """
    # Unsigned columns (boosted trees) would make -1 a huge number, which is outside as well.
    children_follow = all(((child > parent) & (child < nodes)).all() for child in (left, right))
    return bool(nodes >= 1 and children_follow and ((feature >= 0) & (feature < features)).all())


def is_one_tree(left: NDArray[Any], right: NDArray[Any], feature: NDArray[Any], *, features: int) -> bool:
    """Whether nodes make one tree from node 0: each other node is the child of exactly one, which comes before it.

    Readers of other libraries walk through a tree by recursion, once for each way to a node: of a graph whose nodes
    share their children they would never see the end.

    Example:
        >>> is_one_tree(np.array([1, -1, -1]), np.array([2, -1, -1]), np.array([0, 0, 0]), features=1)
        True
        >>> is_one_tree(np.array([1, 2, -1]), np.array([1, 2, -1]), np.array([0, 0, 0]), features=1)
        False
    """
    inner = left != -1
    if not np.array_equal(inner, right != -1):
        return False
    left, right, parent = left[inner], right[inner], np.flatnonzero(inner)
    if not stays_inside(left, right, feature[inner], parent, nodes=len(inner), features=features):
        return False
    return np.array_equal(np.sort(np.concatenate([left, right])), np.arange(1, len(inner)))


@dataclass(frozen=True, slots=True)
class BoostedModel(Generic[AnyStr]):
    """A checked model.

    Attributes:
        text: What the library reads, and what is saved; ASCII.
        classes: Number of labels, >= 2; 0 where it gives numbers.
        features: Columns of the input, >= 1.
    """

    text: AnyStr
    classes: int
    features: int


@dataclass(frozen=True, slots=True)
class BoostedPredictor:
    """Boosted trees in memory.

    Attributes:
        model: What they were read from.
        ask: The library's own prediction for float32 inputs, shape (rows, features): (rows, classes), or (rows,).
        library: Its name in words, for errors.
        format: A key of ``formats.FORMATS``.
    """

    model: BoostedModel[Any]
    ask: Callable[[NDArray[np.float32]], Any]
    library: str
    format: str

    def scores(self, inputs: NDArray[np.float32]) -> NDArray[np.float64]:
        """Probabilities, shape (rows, classes), or numbers, shape (rows, 1)."""
        features = self.model.features
        if inputs.ndim != 2 or inputs.shape[1] != features:
            message = f"the {self.library} model was trained on {features} features, got inputs of shape {inputs.shape}"
            raise TrainingError(message)
        if not len(inputs):
            return np.zeros((0, max(1, self.model.classes)))
        return columns(self.ask(np.ascontiguousarray(inputs, dtype=np.float32)), self.model.classes)

    def predict(self, inputs: NDArray[np.float32]) -> NDArray[Any]:
        """The most probable label (int64; the first of several), or the number itself (float64), shape (rows,)."""
        scores = self.scores(inputs)
        return scores.argmax(axis=1).astype(np.int64) if self.model.classes else scores[:, 0]

    def probabilities(self, inputs: NDArray[np.float32], *, classes: int) -> NDArray[np.float64] | None:
        """Probabilities, shape (rows, classes); None where the model gives numbers, or has other classes."""
        return self.scores(inputs) if classes and classes == self.model.classes else None

    def save(self, path: Path) -> None:
        """Write the text."""
        text = self.model.text
        path.write_bytes(text.encode("ascii") if isinstance(text, str) else text)


def columns(raw: Any, classes: int) -> NDArray[np.float64]:
    """A column for each class, or one of numbers.

    Example:
        >>> columns([0.25, 1.0], 2).tolist()
        [[0.75, 0.25], [0.0, 1.0]]
    """
    values = np.asarray(raw, dtype=np.float64)
    if classes == 2 and values.ndim == 1:
        return np.column_stack([1 - values, values])
    return values.reshape(len(values), -1)
