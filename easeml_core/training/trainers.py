"""Find the trainer of a kind, and check the parameters of a candidate by its rules.

Standard library only, so that a form or a DAG may list the kinds at no cost. The rows are in ``trainer_table``, and the
code of each family elsewhere, imported when a trainer fits.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from easeml_core.errors import InvalidInputError
from easeml_core.training import trainer_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from easeml_core.data.layout import Layout
    from easeml_core.entities import Parameters, Task
    from easeml_core.training.trainer import Trainer

_TRAINERS: tuple[Trainer, ...] = (
    *trainer_table.TABLE_TRAINERS,
    *trainer_table.NETWORK_TRAINERS,
    *trainer_table.IMAGE_TRAINERS,
    *trainer_table.SERIES_TRAINERS,
    *trainer_table.STRUCTURED_TRAINERS,
    *trainer_table.COMMAND_TRAINERS,
)

TRAINERS: Mapping[str, Trainer] = MappingProxyType({trainer.kind: trainer for trainer in _TRAINERS})
"""Kind -> trainer."""

NOT_TRAINED: Mapping[str, str] = MappingProxyType(
    {
        "gan": "it learns from a second network that judges it, and there is no such training here; auto_encoder and "
        "u_net answer with images too",
        "pix2pix": "it learns from a second network that judges it, and there is no such training here; auto_encoder "
        "and u_net answer with images too",
        "tree_kernel_svm": "it compares trees by the parts that they share, and there is no such kernel here; tree_rnn "
        "learns of trees too",
    }
)
"""Names that templates of programs call for and that cannot be trained yet -> why."""

# With the parameters of tables they would cost a minute on 28 x 28 pixels: boosting grows one tree per class and round
# over every pixel, and a linear margin that is hardly regularised takes many passes. So small a resnet costs about what
# torch_cnn costs.
_FOR_IMAGES: Mapping[str, Parameters] = {
    "hist_gradient_boosting": {"max_iter": 20, "max_bins": 32},
    "linear_svm": {"C": 0.001},
    "lightgbm": {"n_estimators": 20, "learning_rate": 0.2, "max_bin": 32},
    "resnet": {
        "width_eighths": 1, "epochs": 8, "batch_size": 32, "learning_rate": 5e-3, "schedule": "one_cycle",
        "shift_percent": 8,
    },
    "xgboost": {"n_estimators": 20, "learning_rate": 0.3, "max_bin": 32},
}  # fmt: skip


# Where nothing is known yet, candidates are tried in the order in which they are listed. On tables each of these adds
# most to what those before it reach together, on average over 22 tables (benchmarks/results/binary_tables.csv).
_FIRST: Mapping[str, tuple[str, ...]] = {
    "table": (
        "random_forest", "logistic_regression", "hist_gradient_boosting", "ridge_regression", "rbf_svm",
        "gaussian_naive_bayes", "multilayer_perceptron", "linear_svm", "decision_tree",
    ),
    "image": ("torch_cnn", "rbf_svm", "resnet", "extra_trees"),
    "series": ("rocket", "cnn_1d", "hist_gradient_boosting"),
}  # fmt: skip


def trainer_of(kind: str) -> Trainer:
    """The trainer of a kind.

    Raises:
        InvalidInputError: If there is none; the message lists those there are.

    Example:
        >>> trainer_of("random_forest").summary
        'bagged trees'
    """
    if kind in NOT_TRAINED:
        message = f"{kind} cannot be trained yet: {NOT_TRAINED[kind]}"
        raise InvalidInputError(message)
    if kind not in TRAINERS:
        message = f"there is no trainer kind {kind!r}; known kinds: {', '.join(TRAINERS)}"
        raise InvalidInputError(message)
    return TRAINERS[kind]


def default_candidates(layout: Layout, task: Task, target: Layout | None = None) -> list[Parameters]:
    """What is tried when a study names no candidates: every kind that suits the data and is installed, best bets first.

    Args:
        layout: What a row stands for; on images the networks are tried as well.
        task: What is to be predicted.
        target: What an answer stands for; None for one class or number a row.

    Returns:
        At least nine entries ``{"name", "kind", "parameters"}``, or one for answers of several numbers; parameters hold
        what departs from the defaults.

    Example:
        >>> from easeml_core.entities import Task
        >>> from easeml_core.data.layout import table_layout
        >>> [c["name"] for c in default_candidates(table_layout(4), Task.CLASSIFICATION)][:2]
        ['random_forest', 'logistic_regression']
    """
    fitting = [t for t in _TRAINERS if layout.kind in t.default_layouts and not t.misfit(layout, task, target)]
    changed = _FOR_IMAGES if layout.kind == "image" else {}
    return [
        {"name": t.kind, "kind": t.kind, "parameters": dict(changed.get(t.kind, {}))}
        for t in sorted(fitting, key=lambda t: _place(layout.kind, t.kind))
        if t.is_available()
    ]


def _place(layout: str, kind: str) -> int:
    """Its place among the candidates; all that are not named share the last one, and keep their order."""
    first = _FIRST.get(layout, ())
    return first.index(kind) if kind in first else len(first)


def check_candidates(candidates: Sequence[Parameters]) -> list[Parameters]:
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
        message = f"two candidates are called {twice[0]!r}; each needs a different name"
        raise InvalidInputError(message)
    return checked


def _check_candidate(candidate: Parameters) -> Parameters:
    fields = {"name", "kind", "parameters"}
    given = set(candidate) if hasattr(candidate, "keys") else set()
    if given - fields or not {"name", "kind"} <= given:
        wrong = [f"no {name}" for name in ("name", "kind") if name not in given]
        wrong += [f"the unknown {name!r}" for name in sorted(map(str, given - fields))]
        what = "a candidate has the fields name, kind and parameters (optional)"
        message = f"{what}; {' and '.join(wrong)} in {candidate!r}"
        raise InvalidInputError(message)
    name, kind, parameters = candidate["name"], candidate["kind"], candidate.get("parameters") or {}
    if not (isinstance(name, str) and name.strip() and isinstance(kind, str) and hasattr(parameters, "keys")):
        message = f"a candidate needs a name and a kind (text) and parameters (a mapping), got {candidate!r}"
        raise InvalidInputError(message)
    trainer_of(kind).parameters(parameters)
    return {"name": name, "kind": kind, "parameters": dict(parameters)}
