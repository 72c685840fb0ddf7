"""Train a model of each kind of scikit-learn, write it and read it back: which types skops trusts varies by version."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click
import numpy as np

from easeml_core.entities import Task
from easeml_core.models.formats import load_predictor, save_model
from easeml_core.models.skops_format import PipelinePredictor
from easeml_core.programs.templates import TABLE_CLASSIFIERS, TABLE_REGRESSORS
from easeml_core.training.estimators import build_pipeline

OF_OTHERS = ("lightgbm", "xgboost")
"""Kinds of other libraries, with other formats."""

SIZES = ("n_estimators", "max_iter")
"""Parameters that say how large a model is, of the same types whatever their value."""

SMALL = 5


@click.command(help=__doc__)
def main() -> None:
    """Print how many were read; the error of one that is not ends it."""
    inputs = np.random.default_rng(0).normal(size=(120, 4)).astype(np.float32)
    classes = [np.digitize(inputs[:, 0], edges) for edges in ([0.0], [-0.5, 0.5])]
    wanted = [(kind, Task.CLASSIFICATION, labels) for kind in TABLE_CLASSIFIERS for labels in classes]
    wanted += [(kind, Task.REGRESSION, inputs[:, 0].astype(np.float64)) for kind in TABLE_REGRESSORS]
    models = [one for one in wanted if one[0] not in OF_OTHERS]
    with tempfile.TemporaryDirectory() as folder:
        for number, (kind, task, targets) in enumerate(models):
            path = Path(folder) / f"{number}-{kind}"
            pipeline = build_pipeline(kind, {}, seed=0, task=task)
            sized = (name for name, value in pipeline.get_params().items() if isinstance(value, int) and value > SMALL)
            pipeline.set_params(**{name: SMALL for name in sized if name.rpartition("__")[2] in SIZES})
            fitted = PipelinePredictor(pipeline.fit(inputs, targets))
            kept = load_predictor(path, save_model(fitted, path))
            if not np.array_equal(kept.predict(inputs), fitted.predict(inputs)):
                message = f"the model of kind {kind} answers otherwise once it was read"
                raise click.ClickException(message)
    click.echo(f"{len(models)} models read")


if __name__ == "__main__":
    main()
