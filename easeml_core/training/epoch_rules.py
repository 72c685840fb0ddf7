"""Rules of the epochs of a network: early stopping, the epoch that is kept, precision, quality, learning rate, shifts.

Early stopping and the kept epoch follow from the loss on rows held out of the training part, never from the validation
part, which chooses between candidates only. Half precision is used in products of matrices, never in weights, losses or
sums. The learning rate and the shifts of images follow from the epoch, the step and the seed, so that a resumed
training needs no further state.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from easeml_core.entities import Task
from easeml_core.errors import EasemlError
from easeml_core.metrics.metric import metric_of
from easeml_core.models.networks.network import rows_of_block
from easeml_core.settings.config import PRECISIONS, require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from easeml_core.data.parts import OpenParts
    from easeml_core.models.networks.network import Network
    from easeml_core.training.job import Run


_SHARE = 0.1
_MOST_ROWS = 5000
LEAST_ROWS = 20
"""A loss on fewer held-out rows says too little to stop by."""


def held_out(rows: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which training rows to learn from, and which to hold out: a tenth at random, at most 5,000.

    Nothing is held out of fewer than 200 rows: then every epoch is trained, and the last one kept.

    Example:
        >>> learn, hold = held_out(300, seed=0)
        >>> len(learn), len(hold), len(held_out(199, seed=0)[1])
        (270, 30, 0)
    """
    count = min(_MOST_ROWS, int(_SHARE * rows))
    count = count if count >= LEAST_ROWS else 0
    order = np.random.default_rng([seed, 0]).permutation(rows)
    return np.sort(order[count:]), np.sort(order[:count])


@dataclass(slots=True)
class BestEpoch:
    """The epoch with the least held-out loss so far.

    Attributes:
        epoch: Its number; 0 before the first.
        loss: Its held-out loss.
    """

    epoch: int = 0
    loss: float = math.inf

    def improves(self, epoch: int, loss: float) -> bool:
        """Take in an epoch; whether it is the best so far. One whose loss is not finite never is.

        Example:
            >>> best = BestEpoch()
            >>> [best.improves(epoch, loss) for epoch, loss in enumerate([0.9, 0.5, float("nan"), 0.5, 0.4], start=1)]
            [True, True, False, False, True]
        """
        if not loss < self.loss:
            return False
        self.epoch, self.loss = epoch, loss
        return True

    def is_over(self, epoch: int, patience: int) -> bool:
        """Whether so many epochs have passed since the best one.

        Example:
            >>> BestEpoch(epoch=4, loss=0.4).is_over(6, patience=3), BestEpoch(epoch=4, loss=0.4).is_over(7, patience=3)
            (False, True)
        """
        return epoch - self.epoch >= patience


class Precision:
    """How products are computed, and how gradients that are too small for it are kept.

    bfloat16 has the range of single precision and needs no help. float16, for GPUs without it, has not: there the loss
    is scaled up before its gradient is taken, and the gradient down again.

    Args:
        run: Its ``mixed_precision``: ``auto`` is on for a GPU and off for the CPU.
        device: Where it is computed.
    """

    def __init__(self, run: Run, device: torch.device) -> None:
        require(run.mixed_precision in PRECISIONS, "mixed_precision", run.mixed_precision, ", ".join(PRECISIONS))
        self._device = device
        self.is_mixed = run.mixed_precision == "on" or (run.mixed_precision == "auto" and device.type == "cuda")
        has_bfloat16 = device.type == "cpu" or torch.cuda.is_bf16_supported()
        self._type = torch.bfloat16 if has_bfloat16 else torch.float16
        scales = self.is_mixed and not has_bfloat16
        self._scaler = torch.amp.GradScaler(device.type, enabled=scales)

    def products(self) -> Any:
        """A block in which products are computed in half precision, where that is on."""
        return torch.autocast(self._device.type, dtype=self._type, enabled=self.is_mixed)

    def step(
        self, loss: torch.Tensor, optimizer: torch.optim.Optimizer, share: Callable[[], None] = lambda: None
    ) -> None:
        """Take the gradient of a loss and let the optimiser step."""
        self._scaler.scale(loss).backward()
        share()
        self._scaler.step(optimizer)
        self._scaler.update()

    def state(self) -> dict[str, float]:
        """What must be known to go on, as plain numbers; empty where nothing is scaled."""
        return dict(self._scaler.state_dict())

    def go_on(self, state: dict[str, float]) -> None:
        """Go on from ``state``."""
        if state:
            self._scaler.load_state_dict(state)


def loss_on(network: Network, inputs: NDArray[np.float32], targets: NDArray[Any], device: torch.device) -> float:
    """Mean loss on rows, in full precision and without dropout."""
    network.eval()
    total = 0.0
    with torch.inference_mode():
        for start, outputs in _outputs(network, inputs, device):
            block = torch.from_numpy(targets[start : start + len(outputs)]).to(device)
            total += float(network.loss(outputs, block)) * len(outputs)
    return total / len(inputs)


def quality_on_validation(
    network: Network, parts: OpenParts, device: torch.device, metric: str | None = None
) -> float | None:
    """Quality on at most 5,000 validation rows, or None where the metric has no value on them.

    It is reported to users, and at a rung it decides whether the training goes on; it never decides which epoch is
    kept. A network with invalid answers is refused at its end.
    """
    is_classes = parts.task == Task.CLASSIFICATION
    inputs, targets = parts.validation_inputs[:_MOST_ROWS], parts.validation_labels[:_MOST_ROWS]
    network.eval()
    with torch.inference_mode():
        batches = [_answers(network, outputs, is_classes) for _, outputs in _outputs(network, inputs, device)]
    answers = np.concatenate(batches)
    try:
        chosen = metric_of(metric or ("accuracy" if is_classes else "r2"))
        if is_classes:
            score = chosen.score(targets, answers.argmax(axis=1), _shares(answers))
        else:
            score = chosen.score(targets, answers)
        return chosen.quality(score, chosen.scale_of(targets))
    except EasemlError:
        return None  # such as an area under the curve of one class, or scores that are not finite


def _answers(network: Network, outputs: torch.Tensor, is_classes: bool) -> NDArray[np.float64]:
    """Return the scores of classes, or the predicted numbers."""
    found: NDArray[np.float64] = (outputs if is_classes else network.numbers(outputs)).double().cpu().numpy()
    return found


def _outputs(network: Network, inputs: NDArray[np.float32], device: torch.device) -> Iterator[tuple[int, torch.Tensor]]:
    """Where a block of rows begins, and the network's outputs for it."""
    size = rows_of_block(network.architecture)
    for start in range(0, len(inputs), size):
        yield start, network.logits(torch.from_numpy(inputs[start : start + size]).to(device)).float()


def _shares(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


_RISE = 0.2
_FIRST = 0.05


def share_of_rate(done: float) -> float:
    """What part of the learning rate a step of one cycle takes (Smith and Topin, 2018): up a line, down a cosine.

    Example:
        >>> [round(share_of_rate(done), 3) for done in (0.0, 0.1, 0.2, 0.6, 1.0)]
        [0.05, 0.525, 1.0, 0.5, 0.0]
    """
    if done < _RISE:
        return _FIRST + (1 - _FIRST) * done / _RISE
    return 0.5 * (1 + math.cos(math.pi * (done - _RISE) / (1 - _RISE)))


def moved(rows: torch.Tensor, shape: tuple[int, ...], percent: int) -> torch.Tensor:
    """Each image at another place, at most so far off; what comes in at a border is the border's own pixel."""
    height, breadth, _ = shape
    down, right = _places(len(rows), height, percent), _places(len(rows), breadth, percent)
    first = torch.arange(len(rows))[:, None, None]
    images = rows.unflatten(1, shape)
    places = (index.to(rows.device) for index in (first, down[:, :, None], right[:, None, :]))
    return images[tuple(places)].flatten(1)


def _places(rows: int, side: int, percent: int) -> torch.Tensor:
    """Which pixel comes to which place, shape (rows, side)."""
    far = side * percent // 100
    offsets = torch.randint(-far, far + 1, (rows, 1))
    return (torch.arange(side) + offsets).clamp(0, side - 1)
