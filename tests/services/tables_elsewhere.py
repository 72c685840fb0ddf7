"""What tests of sources elsewhere share: a table, the settings of its study, and how a referee's prefixes are given."""

from __future__ import annotations

from typing import Any

import numpy as np

from easeml_core.files.urls import parse_prefix

GATE = {"condition": "n - o > 0 +/- 0.2", "reliability": 0.9, "steps": 3, "estimator": "paper"}
METER = {"ranges": (0.2, 0.6), "tolerance": 0.2, "reliability": 0.9, "steps": 4}
ACTIVE = "study table is active; rows: train 196, validation 90, gate 254, meter 60"


def table(seed: int = 1, rows: int = 600) -> str:
    values = np.random.default_rng(seed).normal(size=(rows, 2))
    lines = [f"{a:.6f},{b:.6f},{'yes' if a + b > 0 else 'no'},{i // 3},{i}" for i, (a, b) in enumerate(values)]
    return "\n".join(["a,b,label,site,day", *lines])


def prefixes(*texts: str) -> dict[str, Any]:
    return {"prefixes": tuple(parse_prefix(text) for text in texts)}
