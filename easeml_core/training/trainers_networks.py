"""The kinds of small networks: rows of the table in ``trainers``. The networks themselves are in ``networks``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easeml_core.training.parameters import Real, Whole
from easeml_core.training.trainer import Trainer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from easeml_core.training.parameters import Rule

_IMAGES = frozenset({"image"})
_FITTER = "easeml_core.training.network_training:fit_network"
_NETWORK: Mapping[str, Rule] = {
    "epochs": Whole(8, 1, 1000),
    "batch_size": Whole(64, 1, 8192),
    "learning_rate": Real(2e-3),
}

TRAINERS_OF_FAMILY = (
    Trainer(
        "torch_mlp",
        "two hidden layers with dropout, on a GPU if there is one",
        library="torch",
        rules={"hidden_width": Whole(128, 1, 4096), **_NETWORK},
        default_layouts=_IMAGES,
        fitter=_FITTER,
    ),
    Trainer(
        "torch_cnn",
        "two convolutions on grey images, on a GPU if there is one",
        library="torch",
        rules={"channels": Whole(16, 1, 512), **_NETWORK},
        layouts=_IMAGES,
        default_layouts=_IMAGES,
        colours=1,
        least_side=4,
        fitter=_FITTER,
    ),
)
