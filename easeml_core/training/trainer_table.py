"""The kinds of candidates, rows of the table in ``trainers``: for tables, images, series, structured targets, programs.

Parameter names are those of the library; a kind that learns classes and numbers has the same parameters for both.
``estimators`` and ``boosting`` build the kinds for tables, which take images and series flattened; ``models.networks``
builds the networks. Known image networks begin with small variants for a CPU: a quarter of the published channels, on
images of 32 x 32 pixels. Kinds that run a tenant's code have the tenant's parameters, so their rules name the parts of
such a candidate only; they are used only if a study names them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from easeml_core.models.networks.architecture import EIGHTHS, NETWORKS, NORMALISATIONS
from easeml_core.training.parameters import Artifact, Choice, Image, Real, Whole
from easeml_core.training.trainer import BOTH, NUMBERS, Trainer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from easeml_core.training.parameters import Rule


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
        fitter="easeml_core.models.networks.minirocket:fit_rocket",
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
        fitter="easeml_core.training.container_training:fit_container",
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
