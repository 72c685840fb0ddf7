"""Are the indices inside a loaded tree indices of that tree?

scikit-learn walks from node to child without looking: a child or feature number outside the arrays, as only a file made
by hand has it, reads foreign memory or never ends. Both of its growers number a child higher than its parent, so one
comparison of arrays shows that every walk stays inside and ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from easeml_core.errors import ArtifactError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def check_trees(path: Path, pipeline: Any) -> None:
    """Refuse a pipeline whose last step holds a tree that leads outside of itself.

    Raises:
        ArtifactError: Naming the file.
    """
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

    Args:
        left: Index of the left child of each inner node, shape (n,).
        right: The same for the right child.
        feature: Column that each inner node looks at, shape (n,).
        parent: Index of each inner node itself, shape (n,).
        nodes: Number of nodes, >= 1.
        features: Number of columns.

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

    Args:
        left: Index of the left child, -1 at a leaf, shape (nodes,).
        right: The same for the right child.
        feature: Column that each inner node looks at, shape (nodes,).
        features: Number of columns.

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
