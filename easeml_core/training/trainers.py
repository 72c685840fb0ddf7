"""The kinds of candidates and the trainer of each: for tables, images, series, structured targets, programs.

Parameter names are those of the library; a kind that learns classes and numbers has the same parameters for both.
``estimators`` and ``boosting`` build the kinds for tables, which take images and series flattened; ``models.networks``
builds the networks. Known image networks begin with small variants for a CPU: a quarter of the published channels, on
images of 32 x 32 pixels. Kinds that run a tenant's code have the tenant's parameters, so their rules name the parts of
such a candidate only; they are used only if a study names them.

Standard library only, so that a form or a DAG may list the kinds at no cost: the code of each family is imported when a
trainer fits.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from easeml_core.errors import InvalidInputError
from easeml_core.models.networks.architecture import EIGHTHS, NETWORKS, NORMALISATIONS
from easeml_core.training.trainer import BOTH, NUMBERS, Artifact, Choice, Image, Real, Trainer, Whole

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from easeml_core.data.layout import Layout
    from easeml_core.entities import Parameters, Task
    from easeml_core.training.trainer import Rule


_FOREST: Mapping[str, Rule] = {
    "n_estimators": Whole(100, 1, 2000),
    "max_depth": Whole(64, 1, 1000),
    "min_samples_leaf": Whole(2, 1, 10_000),
}
_BOOSTED: Mapping[str, Rule] = {
    "n_estimators": Whole(60, 1, 2000),
    "learning_rate": Real(0.1, high=10.0),
    "subsample": Real(1.0, high=1.0),
    "colsample_bytree": Real(1.0, high=1.0),
    "reg_lambda": Real(1.0),
    "max_bin": Whole(255, 2, 255),
}
_BOOSTING = "easeml_core.training.boosting:fit_boosted"

TABLE_TRAINERS = (
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
    Trainer("ridge_regression", "linear, by least squares", rules={"alpha": Real(1.0)}, tasks=NUMBERS),
    Trainer(
        "linear_svm",
        "linear, by largest margin",
        rules={"C": Real(0.1), "max_iter": Whole(1000, 1, 100_000)},
        tasks=BOTH,
        gives_chances=False,
    ),
    Trainer(
        "rbf_svm",
        "largest margin with a Gaussian kernel; cost grows with the square of max_rows",
        rules={"C": Real(5.0), "max_rows": Whole(4000, 10, 50_000)},
        tasks=BOTH,
        gives_chances=False,
    ),
    Trainer(
        "nearest_neighbors",
        "vote or mean of the nearest rows",
        rules={"n_neighbors": Whole(5, 1, 1000), "weights": Choice("uniform", ("uniform", "distance"))},
        tasks=BOTH,
    ),
    Trainer(
        "decision_tree",
        "one tree",
        rules={"max_depth": Whole(12, 1, 1000), "min_samples_leaf": Whole(5, 1, 10_000)},
        tasks=BOTH,
    ),
    Trainer("random_forest", "bagged trees", rules=_FOREST, tasks=BOTH),
    Trainer(
        "extra_trees",
        "many trees with random cuts",
        rules={**_FOREST, "n_estimators": Whole(300, 1, 2000)},
        tasks=BOTH,
    ),
    Trainer(
        "hist_gradient_boosting",
        "boosted trees on binned features",
        rules={
            "max_iter": Whole(60, 1, 2000),
            "learning_rate": Real(0.1, high=10.0),
            "max_leaf_nodes": Whole(31, 2, 1000),
            "max_bins": Whole(255, 2, 255),
        },
        tasks=BOTH,
    ),
    Trainer(
        "multilayer_perceptron",
        "one hidden layer",
        rules={
            "hidden_width": Whole(100, 1, 2000),
            "max_iter": Whole(40, 1, 10_000),
            "learning_rate_init": Real(2e-3),
        },
        tasks=BOTH,
    ),
    Trainer(
        "lightgbm",
        "boosted trees that grow leaf by leaf (LightGBM)",
        library="lightgbm",
        rules={**_BOOSTED, "num_leaves": Whole(31, 2, 1000), "min_child_samples": Whole(20, 1, 10_000)},
        tasks=BOTH,
        fitter=_BOOSTING,
    ),
    Trainer(
        "xgboost",
        "boosted trees that grow level by level (XGBoost)",
        library="xgboost",
        rules={**_BOOSTED, "max_depth": Whole(6, 1, 16), "min_child_weight": Real(1.0)},
        tasks=BOTH,
        fitter=_BOOSTING,
    ),
)


SCHEDULES = ("constant", "one_cycle")
"""How the learning rate goes: it stays, or rises for a fifth of all steps and then falls to nothing. With ``one_cycle``
training has its end, so all epochs are trained, on all rows, and no early stopping looks at any."""

FITTER = "easeml_core.training.network_training:fit_network"
NETWORK: Mapping[str, Rule] = {
    "epochs": Whole(8, 1, 1000),
    "batch_size": Whole(64, 1, 8192),
    "learning_rate": Real(2e-3),
    "schedule": Choice("constant", SCHEDULES),
}
"""What all networks share that are trained by steps."""

SHIFT: Mapping[str, Rule] = {"shift_percent": Whole(0, 0, 50)}
"""Of networks that tell classes of images: how far an image is moved at random, in percent of each side."""

# Few rows are learnt best in many small steps, with a high rate on the way and a low one in the end.
_CNN: Mapping[str, Rule] = {
    "epochs": Whole(12, 1, 1000),
    "batch_size": Whole(32, 1, 8192),
    "learning_rate": Real(5e-3),
    "schedule": Choice("one_cycle", SCHEDULES),
    "shift_percent": Whole(8, 0, 50),
}

_IMAGES = frozenset({"image"})

NETWORK_TRAINERS = (
    Trainer(
        "torch_mlp",
        "two hidden layers with dropout, on a GPU if there is one",
        library="torch",
        rules={"hidden_width": Whole(128, 1, 4096), **NETWORK},
        tasks=BOTH,
        default_layouts=_IMAGES,
        takes_run=True,
        fitter=FITTER,
    ),
    Trainer(
        "torch_cnn",
        "three convolutions with batch norm, on a GPU if there is one",
        library="torch",
        rules={"channels": Whole(16, 1, 512), **NETWORK, **_CNN},
        tasks=BOTH,
        layouts=_IMAGES,
        default_layouts=_IMAGES,
        least_side=4,
        takes_run=True,
        fitter=FITTER,
    ),
    Trainer(
        "bit_rnn",
        "gated recurrent units over the bits of a row, whatever it stands for",
        library="torch",
        rules={"hidden_width": Whole(64, 1, 1024), **NETWORK},
        tasks=BOTH,
        default_layouts=frozenset(),
        takes_run=True,
        fitter=FITTER,
    ),
)


_SUMMARIES = {
    "alexnet": "five convolutions, three dense layers (2012)",
    "resnet": "18 layers with shortcuts (2015)",
    "googlenet": "22 layers of convolutions side by side (2014)",
    "squeezenet": "few weights: one pixel wide convolutions before wider ones (2016)",
    "vgg": "eight convolutions, three dense layers (2014)",
    "network_in_network": "convolutions followed by those of one pixel (2013)",
    "alexnet_batch_norm": "AlexNet with batch norm",
    "mobilenet": "MobileNet V3 small: convolutions channel by channel (2019)",
    "efficientnet": "EfficientNet B0: depth, width and size in balance (2019)",
}
_OF_TORCH = frozenset({"network_in_network"})
_QUICKEST = "resnet"


def _rules(kind: str) -> dict[str, Rule]:
    size = NETWORKS[kind].least_size
    return {
        "width_eighths": Whole(2, 1, EIGHTHS),
        "size": Whole(size, size, 512),
        "normalisation": Choice("identity", NORMALISATIONS),
        **NETWORK,
        **SHIFT,
        "learning_rate": Real(1e-3),
    }


def _image_trainer(kind: str, summary: str) -> Trainer:
    return Trainer(
        kind,
        summary,
        library="torch" if kind in _OF_TORCH else "torchvision",
        rules=_rules(kind),
        tasks=BOTH,
        layouts=_IMAGES,
        default_layouts=_IMAGES if kind == _QUICKEST else frozenset(),
        takes_run=True,
        fitter=FITTER,
    )


IMAGE_TRAINERS = tuple(_image_trainer(kind, summary) for kind, summary in _SUMMARIES.items())


_SERIES = frozenset({"series"})


def _series_trainer(kind: str, summary: str, *, width: int, is_default: bool = False) -> Trainer:
    return Trainer(
        kind,
        summary,
        library="torch",
        rules={"hidden_width": Whole(width, 1, 1024), **NETWORK},
        tasks=BOTH,
        layouts=_SERIES,
        default_layouts=_SERIES if is_default else frozenset(),
        takes_run=True,
        fitter=FITTER,
    )


SERIES_TRAINERS = (
    Trainer(
        "rocket",
        "how often fixed convolutions pass thresholds, and a ridge on that",
        library="torch",
        rules={"features_per_kernel": Whole(24, 1, 240), "max_rows": Whole(10_000, 10, 50_000)},
        tasks=BOTH,
        layouts=_SERIES,
        default_layouts=_SERIES,
        fitter="easeml_core.models.networks.series:fit_rocket",
    ),
    _series_trainer("cnn_1d", "three convolutions over time", width=32, is_default=True),
    _series_trainer("rnn", "simple recurrent units", width=64),
    _series_trainer("lstm", "long short-term memory", width=64),
    _series_trainer("bi_lstm", "long short-term memory in both directions", width=64),
    _series_trainer("gru", "gated recurrent units", width=64),
)


_TREES = frozenset({"tree"})
_LONGER: dict[str, Rule] = {**NETWORK, "epochs": Whole(20, 1, 1000), "batch_size": Whole(32, 1, 8192)}


def _of_images(kind: str, summary: str) -> Trainer:
    return Trainer(
        kind,
        summary,
        library="torch",
        rules={"channels": Whole(16, 1, 512), **_LONGER},
        tasks=NUMBERS,
        layouts=_IMAGES,
        default_layouts=_IMAGES,
        answers=_IMAGES,
        least_side=4,
        takes_run=True,
        fitter=FITTER,
    )


STRUCTURED_TRAINERS = (
    _of_images("auto_encoder", "images from images, through a quarter of the pixels each way"),
    _of_images("u_net", "images from images, with shortcuts from each level down to the same level up (2015)"),
    Trainer(
        "seq2seq",
        "series from series: one recurrent layer reads, another writes (2014)",
        library="torch",
        rules={"hidden_width": Whole(64, 1, 1024), **_LONGER},
        tasks=NUMBERS,
        layouts=_SERIES,
        default_layouts=_SERIES,
        answers=_SERIES,
        takes_run=True,
        fitter=FITTER,
    ),
    Trainer(
        "bit_auto_encoder",
        "the bits of any row, such as the one that is read, from a short code",
        library="torch",
        rules={"hidden_width": Whole(64, 1, 1024), **_LONGER},
        tasks=NUMBERS,
        answers=frozenset({"table"}) | _IMAGES | _SERIES,
        takes_run=True,
        fitter=FITTER,
    ),
    Trainer(
        "tree_rnn",
        "recurrent along the links of a tree, from its leaves to its root (2011)",
        library="torch",
        rules={"hidden_width": Whole(32, 1, 1024), **_LONGER},
        tasks=BOTH,
        layouts=_TREES,
        default_layouts=_TREES,
        takes_run=True,
        fitter=FITTER,
    ),
)


RUNTIMES = ("docker", "podman")
"""Programs that run containers; the first is that of a candidate which names none."""

_NOWHERE: frozenset[str] = frozenset()

COMMAND_TRAINERS = (
    Trainer(
        "command",
        "a program of your own, in any language",
        library="numpy",
        rules={"program": Artifact()},
        tasks=BOTH,
        default_layouts=_NOWHERE,
        gives_chances=False,
        own_parameters=True,
        files=("program",),
        takes_run=True,
        fitter="easeml_core.training.command_training:fit_command",
    ),
    Trainer(
        "container",
        "a program of your own in a container image",
        library="numpy",
        rules={"image": Image(), "runtime": Choice(RUNTIMES[0], RUNTIMES)},
        tasks=BOTH,
        default_layouts=_NOWHERE,
        gives_chances=False,
        own_parameters=True,
        takes_run=True,
        fitter="easeml_core.training.command_training:fit_container",
    ),
    Trainer(
        "function",
        "a training function of a DAG (@trial)",
        library="numpy",
        tasks=BOTH,
        default_layouts=_NOWHERE,
        own_parameters=True,
        fitter="easeml_core.training.function_models:refuse_to_fit",
    ),
)


_TRAINERS: tuple[Trainer, ...] = (
    *TABLE_TRAINERS,
    *NETWORK_TRAINERS,
    *IMAGE_TRAINERS,
    *SERIES_TRAINERS,
    *STRUCTURED_TRAINERS,
    *COMMAND_TRAINERS,
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
