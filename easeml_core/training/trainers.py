"""The table of what can be trained: kind -> trainer, with the rules of its parameters.

Standard library only, so that a form or a DAG may list the kinds at no cost; the estimators and networks themselves
are in ``estimators`` and ``networks``, imported when a trainer fits. Parameter names are those of scikit-learn.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from easeml_core.errors import InvalidInputError, TrainingError
from easeml_core.training.parameters import Choice, Real, Rule, Whole, complete

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from easeml_core.training.formats import Predictor
    from easeml_core.training.parts import OpenParts
    from easeml_core.training.progress import Report


@dataclass(frozen=True, slots=True)
class Trainer:
    """One way to train a classifier.

    Attributes:
        kind: The name that candidates use.
        summary: One line for a form.
        library: ``sklearn`` or ``torch``.
        rules: Name of each parameter to its rule.
        images_only: Needs inputs that are images.
    """

    kind: str
    summary: str
    library: str = "sklearn"
    rules: Mapping[str, Rule] = field(default_factory=dict)
    images_only: bool = False

    @property
    def requires(self) -> str:
        """The extra of our distribution that brings the library; empty when it is always there."""
        return "torch" if self.library == "torch" else ""

    def is_available(self) -> bool:
        """Whether the library is installed; nothing is imported."""
        return importlib.util.find_spec(self.library) is not None

    def parameters(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """All parameters, checked and completed; InvalidInputError names what is allowed."""
        return complete(self.kind, self.rules, given)

    def fit(self, parts: OpenParts, parameters: Mapping[str, Any], *, seed: int, report: Report) -> Predictor:
        """Train on the train part.

        Args:
            parts: The open parts of the data.
            parameters: As the user gave them.
            seed: Of everything random.
            report: Told how far it is.

        Raises:
            InvalidInputError: If a parameter is not allowed.
            TrainingError: If the library is absent, the data do not suit, or training diverged.
        """
        complete_parameters = self.parameters(parameters)
        if not self.is_available():
            message = f"{self.kind} needs {self.library}: pip install 'easeml-airflow[{self.requires}]'"
            raise TrainingError(message)
        if self.images_only and parts.image_shape is None:
            message = f"{self.kind} needs images, these data are a table; use a kind such as random_forest"
            raise TrainingError(message)
        if self.library == "torch":
            from easeml_core.training.network_training import fit_network

            return fit_network(self.kind, parts, complete_parameters, seed=seed, report=report)
        from easeml_core.training.estimators import fit_estimator

        return fit_estimator(self.kind, parts, complete_parameters, seed=seed, report=report)


_FOREST: Mapping[str, Rule] = {
    "n_estimators": Whole(100, 1, 2000),
    "max_depth": Whole(64, 1, 1000),
    "min_samples_leaf": Whole(2, 1, 10_000),
}
_NETWORK: Mapping[str, Rule] = {
    "epochs": Whole(8, 1, 1000),
    "batch_size": Whole(64, 1, 8192),
    "learning_rate": Real(2e-3),
}

_TRAINERS = (
    Trainer("nearest_centroid", "the class whose mean is nearest"),
    Trainer(
        "gaussian_naive_bayes",
        "independent normal features in each class",
        rules={"var_smoothing": Real(1e-3, high=1.0)},
    ),
    Trainer(
        "logistic_regression",
        "linear, by maximum likelihood",
        rules={"C": Real(1.0), "max_iter": Whole(500, 1, 100_000)},
    ),
    Trainer(
        "linear_discriminant",
        "linear, by normal classes of one shrunk covariance",
        rules={"shrinkage": Real(0.1, high=1.0)},
    ),
    Trainer("linear_svm", "linear, by largest margin", rules={"C": Real(0.1), "max_iter": Whole(1000, 1, 100_000)}),
    Trainer(
        "rbf_svm",
        "largest margin with a Gaussian kernel; cost grows with the square of max_rows",
        rules={"C": Real(5.0), "max_rows": Whole(4000, 10, 50_000)},
    ),
    Trainer(
        "nearest_neighbors",
        "vote of the nearest rows",
        rules={"n_neighbors": Whole(5, 1, 1000), "weights": Choice("uniform", ("uniform", "distance"))},
    ),
    Trainer(
        "decision_tree",
        "one tree",
        rules={"max_depth": Whole(12, 1, 1000), "min_samples_leaf": Whole(5, 1, 10_000)},
    ),
    Trainer("random_forest", "bagged trees", rules=_FOREST),
    Trainer("extra_trees", "many trees with random cuts", rules={**_FOREST, "n_estimators": Whole(300, 1, 2000)}),
    Trainer(
        "hist_gradient_boosting",
        "boosted trees on binned features",
        rules={
            "max_iter": Whole(60, 1, 2000),
            "learning_rate": Real(0.1, high=10.0),
            "max_leaf_nodes": Whole(31, 2, 1000),
            "max_bins": Whole(255, 2, 255),
        },
    ),
    Trainer(
        "multilayer_perceptron",
        "one hidden layer",
        rules={
            "hidden_width": Whole(100, 1, 2000),
            "max_iter": Whole(40, 1, 10_000),
            "learning_rate_init": Real(2e-3),
        },
    ),
    Trainer(
        "torch_mlp",
        "two hidden layers with dropout, on a GPU if there is one",
        library="torch",
        rules={"hidden_width": Whole(128, 1, 4096), **_NETWORK},
    ),
    Trainer(
        "torch_cnn",
        "two convolutions, on a GPU if there is one",
        library="torch",
        rules={"channels": Whole(16, 1, 512), **_NETWORK},
        images_only=True,
    ),
)

TRAINERS: Mapping[str, Trainer] = MappingProxyType({trainer.kind: trainer for trainer in _TRAINERS})
"""Kind -> trainer."""

# With the parameters of tables both would cost a minute on 28 x 28 pixels: boosting grows one tree per class and round
# over every pixel, and a linear margin that is hardly regularised takes many passes.
_FOR_IMAGES: Mapping[str, Mapping[str, Any]] = {
    "hist_gradient_boosting": {"max_iter": 20, "max_bins": 32},
    "linear_svm": {"C": 0.001},
}


def trainer_of(kind: str) -> Trainer:
    """The trainer of a kind.

    Raises:
        InvalidInputError: If there is none; the message lists those there are.

    Example:
        >>> trainer_of("random_forest").summary
        'bagged trees'
    """
    if kind not in TRAINERS:
        message = f"there is no trainer kind {kind!r}; known kinds: {', '.join(TRAINERS)}"
        raise InvalidInputError(message)
    return TRAINERS[kind]


def default_candidates(image: bool) -> list[dict[str, Any]]:
    """What is tried when a study names no candidates: every kind that suits the data and is installed, cheap first.

    Args:
        image: Whether the inputs are images; then the two networks are tried as well.

    Returns:
        At least ten entries ``{"name", "kind", "parameters"}``; parameters hold what departs from the defaults.

    Example:
        >>> [c["name"] for c in default_candidates(image=False)][:2]
        ['nearest_centroid', 'gaussian_naive_bayes']
    """
    chosen = [t for t in _TRAINERS if (image or t.library == "sklearn") and t.is_available()]
    changed = _FOR_IMAGES if image else {}
    return [{"name": t.kind, "kind": t.kind, "parameters": dict(changed.get(t.kind, {}))} for t in chosen]


def check_candidates(candidates: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The candidates of a study in plain form; ``parameters`` may be absent, then it is ``{}``.

    Args:
        candidates: Entries ``{"name", "kind", "parameters"}``; names are the identity across data versions.

    Raises:
        InvalidInputError: If there is no candidate, an entry lacks a name or has a field that is not known, a kind or
            parameter is not known, or two have one name.
        ConfigError: If a parameter is outside its range.

    Example:
        >>> check_candidates([{"name": "deep", "kind": "decision_tree", "parameters": {"max_depth": 30}}])
        [{'name': 'deep', 'kind': 'decision_tree', 'parameters': {'max_depth': 30}}]
    """
    if not candidates:
        message = f"a study needs at least one candidate, got none; known kinds: {', '.join(TRAINERS)}"
        raise InvalidInputError(message)
    checked = [_check_candidate(candidate) for candidate in candidates]
    names = [candidate["name"] for candidate in checked]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        message = f"two candidates are called {twice[0]!r}; each needs a name of its own"
        raise InvalidInputError(message)
    return checked


def _check_candidate(candidate: Mapping[str, Any]) -> dict[str, Any]:
    fields = {"name", "kind", "parameters"}
    if not hasattr(candidate, "keys") or set(candidate) - fields or not {"name", "kind"} <= set(candidate):
        message = f"a candidate has the fields name, kind and parameters (optional), got {candidate!r}"
        raise InvalidInputError(message)
    name, kind, parameters = candidate["name"], candidate["kind"], candidate.get("parameters") or {}
    if not (isinstance(name, str) and name.strip() and isinstance(kind, str) and hasattr(parameters, "keys")):
        message = f"a candidate needs a name and a kind (text) and parameters (a mapping), got {candidate!r}"
        raise InvalidInputError(message)
    trainer_of(kind).parameters(parameters)
    return {"name": name, "kind": kind, "parameters": dict(parameters)}
