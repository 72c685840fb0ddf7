"""Known networks for images, without their published weights, and as narrow as is asked.

Most are torchvision's; each layer is made anew with so many eighths of its channels, so that a CPU can train them on
small images. Their channels are multiples of 8, so that a concatenation stays as wide as its parts.
"""

from __future__ import annotations

import importlib
import math
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from easeml_core.errors import TrainingError
from easeml_core.models.networks.architecture import EIGHTHS
from easeml_core.models.networks.layers import PatientBatchNorm, Pixels, initialise

if TYPE_CHECKING:
    from collections.abc import Callable

    from easeml_core.models.networks.architecture import Architecture

_LEAST_MOMENTUM = 0.1
"""Of batch norms: some were made for a million steps, and after a few hundred would still know nothing."""


def _of_torchvision(name: str, /, **settings: Any) -> Callable[[Architecture], nn.Module]:
    def make(a: Architecture) -> nn.Module:
        return _narrowed(_whole(name, **settings), a)

    return make


def _whole(name: str, **settings: Any) -> nn.Module:
    """The network as published, without memory for its weights."""
    try:
        models = importlib.import_module("torchvision.models")
    except ImportError as error:
        message = f"{name} needs torchvision: pip install 'easeml-airflow[torch]'"
        raise TrainingError(message) from error
    with torch.device("meta"):
        return getattr(models, name)(weights=None, **settings)


alexnet = _of_torchvision("alexnet")
resnet = _of_torchvision("resnet18")
googlenet = _of_torchvision("googlenet", aux_logits=False, init_weights=False)
vgg = _of_torchvision("vgg11", init_weights=False)
mobilenet = _of_torchvision("mobilenet_v3_small")
efficientnet = _of_torchvision("efficientnet_b0")


def squeezenet(a: Architecture) -> nn.Module:
    """SqueezeNet 1.1, but for its last rectifier: a class whose scores it holds at 0 would never learn."""
    body = _whole("squeezenet1_1")
    body.classifier[2] = nn.Identity()
    return _narrowed(body, a)


def alexnet_batch_norm(a: Architecture) -> nn.Module:
    """AlexNet with a batch norm behind each convolution."""
    body = _whole("alexnet")
    layers: list[nn.Module] = []
    for layer in body.features:
        layers.append(layer)
        if isinstance(layer, nn.Conv2d):
            layers.append(nn.BatchNorm2d(layer.out_channels, device="meta"))
    body.features = nn.Sequential(*layers)
    return _narrowed(body, a)


def network_in_network(a: Architecture) -> nn.Module:
    """Three convolutions, each followed by two of one pixel; the last gives a map per class (Lin et al., 2014)."""
    with torch.device("meta"):
        body = nn.Sequential(
            *_block(3, 192, 160, 96, side=5), nn.MaxPool2d(3, 2, padding=1), nn.Dropout(0.5),
            *_block(96, 192, 192, 192, side=5), nn.AvgPool2d(3, 2, padding=1), nn.Dropout(0.5),
            *_block(192, 192, 192, 1000, side=3)[:-1], nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )  # fmt: skip
    return _narrowed(body, a)


def _block(channels: int, *widths: int, side: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for width, kernel in zip(widths, (side, 1, 1), strict=True):
        layers += [nn.Conv2d(channels, width, kernel, padding=kernel // 2), nn.ReLU()]
        channels = width
    return layers


def _narrowed(whole: nn.Module, a: Architecture) -> nn.Module:
    """The network with fewer channels, and with the first and the last layer of our inputs and outputs."""
    layers = {name: layer for name, layer in whole.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)}
    first, last = next(iter(layers)), next(reversed(layers))
    narrow = partial(_narrow, eighths=a.width)
    for name, layer in list(whole.named_modules()):
        if isinstance(layer, nn.BatchNorm2d):
            momentum = max(layer.momentum, _LEAST_MOMENTUM)
            whole.set_submodule(name, PatientBatchNorm(narrow(layer.num_features), layer.eps, momentum))
        elif name in layers:
            ends = _ends(layer)
            given = a.channels if name == first else narrow(ends[0])
            wanted = a.classes if name == last else narrow(ends[1])
            whole.set_submodule(name, _made_anew(layer, given, wanted))
    return nn.Sequential(Pixels(a), initialise(whole))


def _narrow(channels: int, *, eighths: int) -> int:
    return math.ceil(channels * eighths / EIGHTHS)


def _ends(layer: nn.Module) -> tuple[int, int]:
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    return layer.in_channels, layer.out_channels


def _made_anew(layer: nn.Module, given: int, wanted: int) -> nn.Module:
    has_bias = layer.bias is not None
    if isinstance(layer, nn.Linear):
        return nn.Linear(given, wanted, bias=has_bias)
    groups = given if layer.groups > 1 else 1  # by channel, or not at all
    geometry = layer.kernel_size, layer.stride, layer.padding, layer.dilation
    return nn.Conv2d(given, wanted, *geometry, groups=groups, bias=has_bias)
