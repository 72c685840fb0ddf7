"""The tests of test sets share how examples are brought."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from brought import NAMES, TABLE, Brought

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

collect_ignore = ["brought.py"]


@pytest.fixture
def bring(tmp_path: Path) -> Callable[..., Brought]:
    """Write files with new examples: rows of the table, each moved a little."""

    def make(rows: int = 300, *, seed: int = 1, **more: Any) -> Brought:
        rng = np.random.default_rng(seed)
        chosen = rng.choice(len(TABLE.labels), rows, replace=rows > len(TABLE.labels))
        values = (TABLE.inputs[chosen] * rng.uniform(0.99, 1.01, (rows, len(NAMES)))).astype(np.float32)
        keys = [f"patient {seed}-{i}" for i in range(rows)]
        paths = tmp_path / f"inputs-{seed}.csv", tmp_path / f"labels-{seed}.csv"
        brought = Brought(*paths, keys, values, TABLE.labels[chosen])
        brought.write(**more)
        return brought

    return make
