"""Resuming from a checkpoint gives the exact weights of an uninterrupted training; another checkpoint is not used."""

from __future__ import annotations

import dataclasses
import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from property_sizes import examples
from safetensors.torch import load_file, save_file

from easeml_core.errors import ArtifactError
from easeml_core.sandbox.child_protocol import silent
from easeml_core.training import network_training
from easeml_core.training.checkpoint_format import (
    Checkpoint,
    Header,
    load_checkpoint,
    moments_of,
    restore_moments,
    save_checkpoint,
)
from easeml_core.training.job import Run, checkpoint_name
from easeml_core.training.trainers import TRAINERS, trainer_of

if TYPE_CHECKING:
    from pathlib import Path

    from easeml_core.data.parts import OpenParts

PARAMETERS = {"torch_mlp": {"hidden_width": 16}, "torch_cnn": {"channels": 4}, "squeezenet": {}}


class Stopped(Exception):
    """As a kill would, in the middle of a training."""


def fit(parts: OpenParts, run: Run, *, kind: str = "torch_mlp", stop: int = 0, **parameters: Any) -> Any:
    """The weights in the end, and the reports of epochs; stopped after an epoch when asked."""
    reported: list[dict[str, Any]] = []

    def report(progress: float, note: str, quality: float | None = None, **more: Any) -> None:
        reported.append({"progress": progress, "note": note, "quality": quality, **more})
        if stop and more.get("step") == stop:
            raise Stopped

    given = {**PARAMETERS[kind], "epochs": 5, **parameters}
    predictor = trainer_of(kind).fit(parts, given, seed=3, report=report, run=run)
    return predictor.network.state_dict(), reported


def stopped(parts: OpenParts, folder: Path, **how: Any) -> Run:
    """A run whose folder holds the checkpoint of a training that was stopped after its third epoch."""
    run = Run(
        folder=folder, checkpoint_seconds=0.0, **{k: how.pop(k) for k in ("patience", "mixed_precision") if k in how}
    )
    with pytest.raises(Stopped):
        fit(parts, run, stop=3, **how)
    saved = folder / "saved"
    (folder / checkpoint_name(3)).rename(saved)
    return dataclasses.replace(run, resume=saved)


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"kind": "torch_cnn"},
        {"patience": 5},
        {"patience": 2, "learning_rate": 0.05},
        {"mixed_precision": "on"},
        {"kind": "torch_cnn", "batch_size": 399},
        {"kind": "torch_cnn", "shift_percent": 30, "patience": 1},
        {"schedule": "one_cycle", "learning_rate": 0.01},
    ],
    ids=str,
)
def test_a_training_that_goes_on_ends_with_the_same_weights_to_the_last_bit(
    how: dict[str, Any], digits: OpenParts, tmp_path: Path
) -> None:
    run = stopped(digits, tmp_path, **how)
    chosen = {k: v for k, v in how.items() if k not in ("patience", "mixed_precision")}
    weights, reported = fit(digits, run, **chosen)
    whole, all_reported = fit(digits, dataclasses.replace(run, resume=None, folder=None), **chosen)
    assert same(weights, whole)
    assert reported[0]["note"] == "going on after epoch 3 of 5"
    assert reported[0]["resumed"] is True
    steps = [(news["step"], news["loss"], news["quality"]) for news in reported if "step" in news]
    assert [step for step, _, _ in steps] == [4, 5]
    assert steps == [(n["step"], n["loss"], n["quality"]) for n in all_reported if n.get("step", 0) > 3]


def test_numbers_go_on_too(diabetes: OpenParts, tmp_path: Path) -> None:
    run = stopped(diabetes, tmp_path, patience=5)
    weights, reported = fit(diabetes, run)
    assert same(weights, fit(diabetes, dataclasses.replace(run, resume=None))[0])
    assert all(0 <= news["quality"] <= 1 for news in reported if "step" in news)


def test_a_network_with_batch_norm_and_another_optimiser_step_for_each_weight(
    digits: OpenParts, tmp_path: Path
) -> None:
    kind = "alexnet_batch_norm"
    PARAMETERS.setdefault(kind, {"width_eighths": 1})
    few = dataclasses.replace(digits, train_inputs=digits.train_inputs[:64], train_labels=digits.train_labels[:64])
    run = stopped(few, tmp_path, kind=kind)
    assert same(fit(few, run, kind=kind)[0], fit(few, dataclasses.replace(run, resume=None), kind=kind)[0])


def test_checkpoints_are_written_when_due_and_not_after_the_last_epoch(digits: OpenParts, tmp_path: Path) -> None:
    _, reported = fit(digits, Run(folder=tmp_path, checkpoint_seconds=0.0))
    assert [news["checkpoint"] for news in reported] == [1, 2, 3, 4, None]
    assert sorted(path.name for path in tmp_path.iterdir()) == [checkpoint_name(3), checkpoint_name(4)]
    for path in tmp_path.iterdir():
        path.unlink()
    _, reported = fit(digits, Run(folder=tmp_path, checkpoint_seconds=3600.0))
    assert not any(news["checkpoint"] for news in reported)
    assert list(tmp_path.iterdir()) == []
    assert not any(news["checkpoint"] for news in fit(digits, Run(checkpoint_seconds=0.0))[1])


def test_writing_takes_a_twentieth_of_the_time_at_most(
    digits: OpenParts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]

    def slow(path: Path, checkpoint: Checkpoint) -> None:
        clock[0] += 10.0

    monkeypatch.setattr(network_training, "save_checkpoint", slow)
    monkeypatch.setattr(network_training.time, "monotonic", lambda: clock[0])
    training = network_training._Training(
        "torch_mlp",
        digits,
        trainer_of("torch_mlp").parameters({}),
        seed=0,
        run=Run(folder=tmp_path, checkpoint_seconds=30.0),
    )
    training.epoch = 1
    assert training._save() == 10.0 + 190.0


def test_batches_stay_small_after_a_retry(digits: OpenParts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    loss = network_training.build_network.__globals__["Network"].loss

    def noted(self: Any, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        sizes.append(len(targets) if self.training else 0)
        return loss(self, outputs, targets)

    monkeypatch.setattr("easeml_core.models.networks.network.Network.loss", noted)
    run = Run(folder=tmp_path, checkpoint_seconds=0.0)
    with pytest.raises(Stopped):
        fit(digits, dataclasses.replace(run, halved=True), stop=2, batch_size=100)
    assert max(sizes) == 50
    (tmp_path / checkpoint_name(2)).rename(tmp_path / "saved")
    sizes.clear()
    fit(digits, dataclasses.replace(run, resume=tmp_path / "saved"), batch_size=100)
    assert max(sizes) == 50  # another attempt knows of it
    fit(digits, dataclasses.replace(run, resume=tmp_path / "saved", halved=True), batch_size=100)
    assert sizes[-1] == 25


# -- files of others ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(digits: OpenParts) -> dict[str, torch.Tensor]:
    return fit(digits, Run())[0]


@pytest.fixture(scope="module")
def saved(digits: OpenParts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a training that was stopped after its third epoch."""
    return stopped(digits, tmp_path_factory.mktemp("stopped")).resume


def begins_anew(parts: OpenParts, run: Run, whole: dict[str, torch.Tensor]) -> str:
    """Why; and that nothing of the file is left in the result."""
    weights, reported = fit(parts, run)
    assert same(weights, whole)
    assert reported[0]["resumed"] is False
    assert [news["step"] for news in reported[1:]] == [1, 2, 3, 4, 5]
    return str(reported[0]["note"])


def test_a_file_that_is_none_begins_anew(digits: OpenParts, tmp_path: Path, whole: Any) -> None:
    for content in (b"", b"no checkpoint", b"\xff" * 100, b"\x08" + b"\0" * 7 + b'{"a": 1}'):
        (tmp_path / "saved").write_bytes(content)
        note = begins_anew(digits, Run(resume=tmp_path / "saved"), whole)
        assert note.startswith("beginning anew: the checkpoint cannot be read")
    assert "cannot be read" in begins_anew(digits, Run(resume=tmp_path / "absent"), whole)


def changed(path: Path, **header: Any) -> None:
    """Another header in a file that is sound otherwise."""
    tensors = load_file(path)
    fields = json.loads(metadata(path)) | header
    save_file(tensors, path, metadata={"checkpoint": json.dumps(fields)})


def metadata(path: Path) -> str:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return str(file.metadata()["checkpoint"])


@pytest.mark.parametrize(
    "header",
    [
        {"training": "another"},
        {"epoch": 0},
        {"epoch": "3"},
        {"epoch": True},
        {"batch_size": 0},
        {"batch_size": 1.5},
        {"seconds": "long"},
        {"best_epoch": 4},
        {"best_loss": float("nan")},
        {"scaler": [1]},
        {"scaler": {"scale": "x"}},
        {"unknown": 1},
        {"training": "x" * 20_000},
    ],
    ids=lambda header: next(iter(header)),
)
def test_a_header_that_lies_is_refused(header: Any, saved: Path, tmp_path: Path, whole: Any) -> None:
    path = shutil.copyfile(saved, tmp_path / "saved")
    training = json.loads(metadata(path))["training"]
    changed(path)
    assert load_checkpoint(path, training=training, weights=whole).header.epoch == 3
    changed(path, **header)
    with pytest.raises(ArtifactError, match="the checkpoint"):
        load_checkpoint(path, training=training, weights=whole)


def test_tensors_that_do_not_fit_begin_anew(digits: OpenParts, tmp_path: Path, whole: Any) -> None:
    run = stopped(digits, tmp_path)
    assert run.resume is not None
    sound, header = load_file(run.resume), {"checkpoint": metadata(run.resume)}
    weight, moment = "weights/body.0.weight", "moments/0/exp_avg"
    for change in (
        {weight: sound[weight].double()},
        {weight: sound[weight][:3]},
        {weight: None},
        {"weights/of_others": torch.zeros(3)},
        {"best/of_others": torch.zeros(3)},
        {moment: sound[moment][:3]},
        {moment: None},
        {"moments/99/exp_avg": sound[moment], "moments/99/exp_avg_sq": sound[moment]},
        {"moments/0/more": torch.zeros(3)},
        {"moments/x/step": torch.zeros(())},
        {"moments/0/step": torch.zeros(3)},
    ):
        tensors = {name: tensor for name, tensor in {**sound, **change}.items() if tensor is not None}
        save_file({name: tensor.clone() for name, tensor in tensors.items()}, run.resume, metadata=header)
        begins_anew(digits, run, whole)


@settings(max_examples=examples(25), deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_damage_is_noticed_or_harmless_and_never_a_crash(
    data: st.DataObject, digits: OpenParts, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoint"
    network = trainer_of("torch_mlp").fit(digits, {"epochs": 1, "hidden_width": 2}, seed=0, report=silent).network
    weights = network.state_dict()
    save_checkpoint(path, Checkpoint(Header("name", 1, 64), weights, {}, {}))
    content = bytearray(path.read_bytes())
    kind = data.draw(st.sampled_from(["cut", "flip"]))
    place = data.draw(st.integers(0, len(content) - 1))
    if kind == "cut":
        content = content[:place]
    else:
        content[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        found = load_checkpoint(path, training="name", weights=weights)
    except ArtifactError:
        return
    network.load_state_dict(found.weights)


@pytest.mark.parametrize(
    "change", [{"kind": "torch_cnn"}, {"hidden_width": 17}, {"learning_rate": 1e-3}, {"epochs": 6}], ids=str
)
def test_another_training_does_not_go_on_from_it(change: Any, digits: OpenParts, saved: Path) -> None:
    _, reported = fit(digits, Run(resume=saved), **change)
    assert reported[0]["note"].startswith("beginning anew: the checkpoint belongs to another training")


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3).t())  # not contiguous
    optimizer = torch.optim.Adam([weight], lr=0.1)
    (weight**2).sum().backward()
    optimizer.step()
    header = Header("name", 3, 32, seconds=1.5, best_epoch=2, best_loss=0.25, scaler={"scale": 65536.0})
    weights = {"weight": weight.data, "again": weight.data}  # one tensor under two names
    save_checkpoint(tmp_path / "c", Checkpoint(header, weights, moments_of(optimizer), weights))
    found = load_checkpoint(tmp_path / "c", training="name", weights=weights)
    assert found.header == header
    assert same(found.weights, weights)
    assert same(found.best, weights)
    other = torch.optim.Adam([torch.nn.Parameter(weight.data.clone())], lr=0.1)
    restore_moments(other, found.moments)
    assert same(moments_of(other)[0], moments_of(optimizer)[0])


def test_every_kind_with_this_fitter_is_given_its_run() -> None:
    with_fitter = [t for t in TRAINERS.values() if t.fitter.endswith(":fit_network")]
    assert len(with_fitter) > 2
    assert all(t.takes_run for t in with_fitter)
    assert all({"epochs", "batch_size", "learning_rate"} <= set(t.rules) for t in with_fitter)
    assert np.isfinite([t.rules["epochs"].default for t in with_fitter]).all()
