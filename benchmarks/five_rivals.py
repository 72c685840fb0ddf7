"""What the product is compared with: a plain baseline for each kind of study, random search, FLAML."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
from five_data import GRID, clock

from easeml_core.data.parts import write_open_parts
from easeml_core.data.sources.spec import optional_package
from easeml_core.entities import Task
from easeml_core.errors import TrainingError
from easeml_core.models.formats import load_predictor
from easeml_core.training.job import TrainingJob
from easeml_core.training.supervisor import run_job

if TYPE_CHECKING:
    from collections.abc import Mapping

    from five_data import Contest, Race
    from numpy.typing import NDArray

    from easeml_core.data.parts import OpenParts

SEED = 0
PATIENCE = 10
"""So many times its seconds may a trial take on the wall clock, where others work as well."""


def baseline(contest: Contest, race: Race) -> None:
    """What one would write by hand for this kind of data, with the time that is there."""
    if contest.function is not None:
        _try_all(contest, race, contest.candidates)  # the grid, in its order
    elif contest.parts.layout.kind == "table":
        _boosted_trees(contest, race)
    else:
        _convolutions(contest, race)


def random_search(contest: Contest, race: Race) -> None:
    """The product's own candidates and training, in random order."""
    order = np.random.default_rng(SEED).permutation(len(contest.candidates))
    shuffled = [contest.candidates[k] for k in order]
    if contest.function is not None:
        _try_all(contest, race, shuffled)
        return
    with tempfile.TemporaryDirectory(prefix="easeml-bench-") as name:
        _train_all(contest, race, shuffled, Path(name))


def _train_all(contest: Contest, race: Race, candidates: list[Mapping[str, Any]], folder: Path) -> None:
    data = folder / "data.npz"
    write_open_parts(data, contest.parts)
    for number, candidate in enumerate(candidates):
        if race.left <= 0:
            return
        job = TrainingJob(
            candidate["kind"],
            candidate["parameters"],
            data_path=data,
            output_dir=folder / str(number),
            metric=contest.metric,
            time_limit_seconds=PATIENCE * race.seconds,
        )
        try:
            done = run_job(job, on_progress=lambda _: None, should_stop=lambda: False)
        except TrainingError:
            continue  # its time is spent all the same
        race.note(contest.score_of(done.quality), load_predictor(done.artifact_path, done.format).predict)


def _try_all(contest: Contest, race: Race, candidates: Any) -> None:
    """The tenant's function with one setting after the other."""
    assert contest.function is not None
    for candidate in candidates:
        if race.left <= 0:
            return
        model = contest.function(contest.parts, candidate["parameters"], _unheard)
        race.note(contest.score(model.predict), model.predict)


def _unheard(*_: Any, **__: Any) -> None:
    """Ignore the reports of the function."""


def _boosted_trees(contest: Contest, race: Race) -> None:
    """scikit-learn's boosted trees: its defaults first, then settings drawn at random."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    is_classes = contest.parts.task == Task.CLASSIFICATION
    make = HistGradientBoostingClassifier if is_classes else HistGradientBoostingRegressor
    rng = np.random.default_rng(SEED)
    drawn: dict[str, float] = {}
    while race.left > 0:
        model = make(max_iter=500, early_stopping=True, random_state=SEED, **drawn)
        model.fit(contest.parts.train_inputs, contest.parts.train_labels)
        race.note(contest.score(model.predict), model.predict)
        drawn = {
            "learning_rate": 10 ** rng.uniform(-2, -0.3),
            "max_leaf_nodes": int(2 ** rng.uniform(2, 7)),
            "min_samples_leaf": int(2 ** rng.uniform(1, 6)),
            "l2_regularization": 10 ** rng.uniform(-3, 1),
        }


def _convolutions(contest: Contest, race: Race) -> None:
    """torch: two blocks of convolutions with batch norm, Adam with a cosine schedule, shifted copies of the rows."""
    import torch

    torch.manual_seed(SEED)
    parts, batch = contest.parts, 64
    inputs, labels = _tensor(parts, parts.train_inputs), torch.from_numpy(parts.train_labels)
    network = _network(parts)
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-2)
    epochs, epoch, length = 100, 0, 0.0
    while epoch < epochs and race.left > length:
        before = race.left
        rate = 2e-3 * 0.5 * (1 + np.cos(np.pi * epoch / epochs))
        optimiser.param_groups[0]["lr"] = rate
        network.train()
        for rows in torch.randperm(len(labels)).split(batch):
            shifts = tuple(int(s) for s in torch.randint(-2, 3, (inputs.dim() - 2,)))
            moved = torch.roll(inputs[rows], shifts, dims=tuple(range(2, inputs.dim())))
            loss = torch.nn.functional.cross_entropy(network(moved), labels[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        predict = _frozen(network, parts)
        race.note(contest.score(predict), predict)
        length = before - race.left
        epochs = min(100, max(epoch + 2, int(race.seconds / length))) if epoch == 0 else epochs
        epoch += 1


def _tensor(parts: OpenParts, rows: NDArray[np.float32]) -> Any:
    """Rows as torch wants them: channels first."""
    import torch

    *sides, channels = parts.layout.shape
    return torch.from_numpy(np.moveaxis(rows.reshape(-1, *sides, channels), -1, 1).copy())


def _network(parts: OpenParts) -> Any:
    """Two blocks of convolutions, and a linear layer."""
    from torch import nn

    *sides, channels = parts.layout.shape
    conv, norm, pool = (
        (nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d) if len(sides) == 2 else (nn.Conv1d, nn.BatchNorm1d, nn.MaxPool1d)
    )
    size = 3 if len(sides) == 2 else 7
    blocks: list[Any] = []
    for width in (32, 64):
        blocks += [conv(channels, width, size, padding=size // 2), norm(width), nn.ReLU(), pool(2)]
        channels, sides = width, [side // 2 for side in sides]
    return nn.Sequential(
        *blocks, nn.Flatten(), nn.Dropout(0.3), nn.Linear(channels * int(np.prod(sides)), parts.classes)
    )


def _frozen(network: Any, parts: OpenParts) -> Any:
    """The network as it is now, as a function from rows to labels."""
    import copy

    import torch

    kept = copy.deepcopy(network).eval()

    def predict(rows: NDArray[np.float32]) -> NDArray[np.int64]:
        with torch.no_grad():
            return np.concatenate([kept(block).argmax(1).numpy() for block in _tensor(parts, rows).split(500)])

    return predict


def flaml(contest: Contest, race: Race) -> None:
    """FLAML: its AutoML on the rows as numbers, or its search over the settings of the tenant's function."""
    if contest.function is not None:
        _flaml_tune(contest, race)
        return
    automl = optional_package("flaml", "flaml.automl", extra="benchmarks")
    parts = contest.parts
    with tempfile.TemporaryDirectory(prefix="easeml-bench-") as name:
        log, search = str(Path(name) / "log"), automl.AutoML()
        with mock.patch("time.time", clock):  # its clock, too, counts processor seconds
            search.fit(
                parts.train_inputs,
                parts.train_labels,
                X_val=parts.validation_inputs,
                y_val=parts.validation_labels,
                task=str(parts.task),
                metric=contest.metric,
                eval_method="holdout",
                retrain_full=False,
                time_budget=race.seconds,
                n_jobs=1,
                seed=SEED,
                verbose=0,
                log_file_name=log,
                log_type="all",
            )
        times, losses, *_ = automl.data.get_output_from_log(filename=log, time_budget=race.seconds)
    race.tried, race.best = len(times), search.predict
    for seconds, loss in zip(times, losses, strict=True):
        if 1 - loss > race.top:
            race.climb.append((seconds, 1 - loss))


def _flaml_tune(contest: Contest, race: Race) -> None:
    tune = optional_package("flaml", "flaml.tune", extra="benchmarks")
    assert contest.function is not None
    function = contest.function
    bounds = {name: (min(values), max(values)) for name, values in GRID.items()}
    space = {
        name: tune.lograndint(low, high + 1) if isinstance(low, int) else tune.loguniform(low, high)
        for name, (low, high) in bounds.items()
    }

    def evaluate(parameters: Mapping[str, Any]) -> dict[str, float]:
        model = function(contest.parts, parameters, _unheard)
        score = contest.score(model.predict)
        race.note(score, model.predict)
        return {"score": score}

    start = {name: bounds[name][0] for name in ("max_iter", "max_leaf_nodes")}
    with mock.patch("time.time", clock):
        tune.run(
            evaluate, config=space, metric="score", mode="max", low_cost_partial_config=start, num_samples=-1,
            time_budget_s=race.seconds, verbose=0,
        )  # fmt: skip
