"""A model of the kind that the meter is there for: fitted to the validation data themselves."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import skops.io
from sklearn.pipeline import make_pipeline
from sklearn.tree import DecisionTreeClassifier

from easeml_core.data.parts import load_open_parts
from easeml_core.store.tables import studies

if TYPE_CHECKING:
    from lifecycle.stage import Stage

MESSAGE = "a tree, tuned until the validation data showed no error"


def hand_in_overfitted(stage: Stage) -> tuple[int, float]:
    """Hand it in as any own model, by ``easeml submit``; its number and validation quality."""
    with stage.store.begin() as tx:
        version = studies.latest_data_version(tx, studies.get_study(tx, stage.study).id)
    with stage.artifacts.copy(version.artifact) as path:
        parts = load_open_parts(path)
    tree = make_pipeline(DecisionTreeClassifier(splitter="random", max_features=1, random_state=0))
    tree.fit(parts.validation_inputs, parts.validation_labels)
    file = stage.folder / "tree.skops"
    skops.io.dump(tree, file)
    words = ("submit", str(file), "--study", stage.study, "--format", "skops", "-m", MESSAGE, "--no-gate", "--json")
    handed = json.loads(stage.easeml(*words))
    return int(handed["model_id"]), float(handed["validation_quality"])
