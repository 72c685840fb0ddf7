"""What changes from step to step of a training: the learning rate, and where the pixels of an image stand.

Both follow from the epoch, the place in it and the seed, so that a training that goes on has nothing to remember.
"""

from __future__ import annotations

import math

import torch

_RISE = 0.2
_FIRST = 0.05


def share_of_rate(done: float) -> float:
    """What part of the learning rate a step of one cycle takes (Smith and Topin, 2018): up a line, down a cosine.

    Args:
        done: Share of all steps that have been made, in [0, 1].

    Example:
        >>> [round(share_of_rate(done), 3) for done in (0.0, 0.1, 0.2, 0.6, 1.0)]
        [0.05, 0.525, 1.0, 0.5, 0.0]
    """
    if done < _RISE:
        return _FIRST + (1 - _FIRST) * done / _RISE
    return 0.5 * (1 + math.cos(math.pi * (done - _RISE) / (1 - _RISE)))


def moved(rows: torch.Tensor, shape: tuple[int, ...], percent: int) -> torch.Tensor:
    """Each image at another place, at most so far off; what comes in at a border is the border's own pixel.

    Args:
        rows: Flattened images, (rows, height * breadth * channels).
        shape: Height, breadth and channels.
        percent: Of each side, rounded down to whole pixels: small images stay where they are.

    Returns:
        Images of the same shape. The places are drawn by torch's generator of the CPU.
    """
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
