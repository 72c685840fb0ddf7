"""Pairs that tests feed to a study of the breast-cancer table, and the refresh that takes them."""

from __future__ import annotations

from typing import Any

import numpy as np

from easeml_core.data.sources.load import load_source
from easeml_core.services.datasets.feed import FeedReceipt, feed, file_refresh

TABLE = load_source("sklearn:breast_cancer")
NAMES, CLASSES = TABLE.feature_names, ("malignant", "benign")


def new_rows(count: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the table, each moved a little, so that they are new."""
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(TABLE.labels), count, replace=False)
    return (TABLE.inputs[chosen] * rng.uniform(0.99, 1.01, (count, 30))).astype(np.float32), TABLE.labels[chosen]


def as_pairs(inputs: np.ndarray, labels: np.ndarray) -> list[dict[str, Any]]:
    return [{"inputs": row.tolist(), "label": CLASSES[label]} for row, label in zip(inputs, labels, strict=True)]


def bring(lab: Any, pairs: list[dict[str, Any]], study: str = "full", **more: Any) -> FeedReceipt:
    given = {"study": study, "pairs": pairs, "fed_by": "ann", "request_key": lab.key()}
    return feed(lab.worker, lab.artifacts, **given | more)


def renew(lab: Any, study: str = "full") -> Any:
    answer: dict[str, Any] = lab.answer(file_refresh(lab.worker, study=study, request_key=lab.key()).request_id)
    return answer
