"""New examples in files, and what is done with them in the tests of test sets."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from easeml_core.data.sources.load import load_source
from easeml_core.services.datasets.validation_sets import ReplacedValidation, replace_validation
from easeml_core.services.test_sets import lifecycle
from easeml_core.services.test_sets.lifecycle import RetiredSet, ShownSet, retire_test_set
from easeml_core.services.test_sets.upload import SealedUpload, seal_test_set
from easeml_core.store.tables import sealed

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

CLASSES = ("malignant", "benign")  # scikit-learn's order
TABLE = load_source("sklearn:breast_cancer")
NAMES = TABLE.feature_names


@dataclass
class Brought:
    """Two files with new examples, and what they say."""

    inputs: Path
    labels: Path
    keys: list[str]
    values: np.ndarray
    truth: np.ndarray

    def write(self, columns: dict[str, list[Any]] | None = None, order: Any = None) -> None:
        order = range(len(self.keys)) if order is None else order
        extra = columns or {}
        rows = [[self.keys[i], *map(str, self.values[i]), *(extra[c][i] for c in extra)] for i in order]
        write(self.inputs, [["example", *NAMES, *extra], *rows])
        write(self.labels, [["example", "label"], *([self.keys[i], CLASSES[self.truth[i]]] for i in order)])


def write(path: Path, rows: list[list[Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def seal(lab: Any, brought: Brought, *, labelled: bool = True, study: str = "full", **asked: Any) -> SealedUpload:
    given: dict[str, Any] = {"study": study, "inputs": brought.inputs, "labels": brought.labels if labelled else None}
    return seal_test_set(lab.referee, lab.artifacts, **given | asked)


def replace(lab: Any, brought: Brought, *, study: str = "full", **more: Any) -> ReplacedValidation:
    """These rows become the study's validation set."""
    given: dict[str, Any] = {"study": study, "inputs": brought.inputs, "labels": brought.labels}
    return replace_validation(lab.referee, lab.artifacts, **given | more)


def retire(lab: Any, handle: int | str, **more: Any) -> RetiredSet:
    return retire_test_set(lab.referee, test_set=str(handle), **more)


def gate_sets(lab: Any, study: str = "full") -> list[ShownSet]:
    found = lifecycle.list_test_sets(lab.worker, study=study)
    return [entry for entry in found if entry.purpose == "gate"]


def states(lab: Any) -> list[tuple[str | None, str]]:
    return [(entry.name, entry.state) for entry in reversed(gate_sets(lab))]


def content(lab: Any, set_id: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    with lab.referee.begin() as tx:
        return sealed.sealed_inputs(tx, set_id), sealed.sealed_labels(tx, set_id), sealed.sealed_keys(tx, set_id)


def nothing_new(lab: Any) -> bool:
    """Three studies with two sets each are what the laboratory has from the start."""
    counts = [lab.one(f"SELECT count(*) FROM {table}") for table in ("work.test_sets", "sealed.test_sets")]
    return counts == [6, 6]
