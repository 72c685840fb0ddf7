"""The kinds of known image networks: rows of the table in ``trainers``. They are built in ``networks_images``.

Small variants first, so that a CPU can do it: a quarter of the published channels, on images of 32 x 32 pixels. Only
the quickest is tried where a study names no candidates, and in a variant that is smaller yet (``trainers``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from easeml_core.models.networks.architecture import EIGHTHS, NETWORKS, NORMALISATIONS
from easeml_core.training.parameters import Choice, Real, Whole
from easeml_core.training.trainer import BOTH, Trainer
from easeml_core.training.trainers_networks import FITTER, NETWORK, SHIFT

if TYPE_CHECKING:
    from easeml_core.training.parameters import Rule

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
_IMAGES = frozenset({"image"})


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
