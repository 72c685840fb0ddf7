"""What a training tells while it runs: a line for people, and a point of its learning curve for the store.

News come from the training's own process, which may be anybody's code: whatever is not what it should be is left out.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from easeml_core.store.tables.curves import MOST_STEPS

if TYPE_CHECKING:
    from collections.abc import Mapping

_UNSAID = ("progress", "step", "of", "checkpoint", "resumed")  # the note says it
_LONGEST = 500


def line_of(news: Mapping[str, Any]) -> str:
    """One line for a log.

    Example:
        >>> line_of({"progress": 0.3, "note": "epoch 2 of 8", "quality": 0.91, "step": 2, "seconds_left": 61.7})
        'epoch 2 of 8, quality 0.91, about 62 s left'
        >>> line_of({"step": 1.0, "quality": 0.5})
        'step 1.0, quality 0.5'
    """
    if "note" not in news:
        return ", ".join(f"{name} {_short(value)}" for name, value in news.items())
    words = [str(news["note"])[:_LONGEST]]
    for name, value in news.items():
        if name == "seconds_left":
            words += [f"about {value:,.0f} s left"] if _is_number(value) and value > 0 else []
        elif name == "checkpoint":
            words += ["checkpoint written"] if value else []
        elif name != "note" and name not in _UNSAID:
            words.append(f"{name.replace('_', ' ')} {_short(value)}")
    return ", ".join(words)


def is_last_step(news: Mapping[str, Any]) -> bool:
    """Whether it tells of the last of its steps."""
    return news.get("of") is not None and news.get("step") == news.get("of")


def point_of(news: Mapping[str, Any], *, seconds: float) -> dict[str, Any] | None:
    """The point of a learning curve that news tell of, or None.

    Args:
        news: With ``step``, from 1, and ``quality`` in [0, 1] or ``loss``.
        seconds: Since the beginning of the work.

    Example:
        >>> point_of({"step": 2, "of": 8, "quality": 0.91, "loss": float("nan")}, seconds=3.0)
        {'step': 2, 'of': 8, 'quality': 0.91, 'loss': None, 'seconds': 3.0}
        >>> point_of({"step": 0.5, "quality": 0.91}, seconds=3.0) is None
        True
    """
    step, of = _whole(news.get("step")), _whole(news.get("of"))
    quality, loss = _number(news.get("quality")), _number(news.get("loss"))
    quality = quality if quality is not None and 0 <= quality <= 1 else None
    if step is None or not 1 <= step <= MOST_STEPS or (quality is None and loss is None):
        return None
    of = of if of is not None and step <= of < 2**31 else None
    return {"step": step, "of": of, "quality": quality, "loss": loss, "seconds": min(seconds, 1e9)}


def _is_number(value: Any) -> bool:
    """Whether it is a finite number; one of a thousand digits is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 2**63 if isinstance(value, int) else math.isfinite(value)


def _number(value: Any) -> float | None:
    return float(value) if _is_number(value) else None


def _whole(value: Any) -> int | None:
    return int(value) if _is_number(value) and int(value) == value else None


def _short(value: Any) -> str:
    return f"{value:.4g}" if type(value) is float and not value.is_integer() else str(value)[:_LONGEST]
