"""The tests of test sets share how examples are brought."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from brought import NAMES, Brought

from easeml_core.data.sources.load import load_source

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

collect_ignore = ["brought.py"]


@pytest.fixture
def bring(tmp_path: Path) -> Callable[..., Brought]:
    """Write files with new examples: rows of the table, each moved a little."""

    def make(rows: int = 300, *, seed: int = 1, **more: Any) -> Brought:
        table, rng = load_source("sklearn:breast_cancer"), np.random.default_rng(seed)
        chosen = rng.choice(len(table.labels), rows, replace=rows > len(table.labels))
        values = (table.inputs[chosen] * rng.uniform(0.99, 1.01, (rows, len(NAMES)))).astype(np.float32)
        keys = [f"patient {seed}-{i}" for i in range(rows)]
        paths = tmp_path / f"inputs-{seed}.csv", tmp_path / f"labels-{seed}.csv"
        brought = Brought(*paths, keys, values, table.labels[chosen])
        brought.write(**more)
        return brought

    return make
