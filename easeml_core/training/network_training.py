"""Train a network: Adam, epoch after epoch, the same weights for the same seed on one machine.

A tenth of the training part is held out: its loss says when to stop and which epoch to keep (``early_stopping``). Where
the learning rate falls to nothing, no row is held out: the end is the best epoch, and to stop before it would forgo
what the fall is for. What a training has done is kept in checkpoints, and another process goes on from one to the very
weights that this one would have reached (``checkpoints``).

On several devices each process trains on its share of every batch, and gradients are added up before each step:
synchronous data parallelism, with the batches, the learning rate and, but for rounding, the weights of one device. The
process of rank 0 alone measures, keeps the best epoch, writes checkpoints and says when it is over.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from easeml_core.entities import Parameters, Task
from easeml_core.errors import ArtifactError, TrainingError, TrainingMachineError, TrainingTaskError
from easeml_core.models.networks.network import NetworkPredictor, architecture_for, build_network
from easeml_core.training.checkpoint_format import (
    Checkpoint,
    Header,
    load_checkpoint,
    moments_of,
    restore_moments,
    save_checkpoint,
)
from easeml_core.training.distributed import joined
from easeml_core.training.epoch_rules import (
    BestEpoch,
    Precision,
    held_out,
    loss_on,
    moved,
    quality_on_validation,
    share_of_rate,
)
from easeml_core.training.job import END, Run, checkpoint_name, remove_older

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from easeml_core.data.parts import OpenParts
    from easeml_core.sandbox.child_protocol import Report

_VERSION = 1
_UUIDS = ("GPU-", "MIG-")
"""How CUDA_VISIBLE_DEVICES begins where it names what was claimed for this process."""

_BEGIN, _SHARE = 0.1, 0.7
"""Progress before the first epoch, and what all epochs add to it."""

_LEAST_RATIO = 19
"""An interval between checkpoints is at least so many times what writing one takes: 5 % of the time at most."""


def fit_network(
    kind: str,
    parts: OpenParts,
    parameters: Parameters,
    *,
    seed: int,
    report: Report,
    run: Run = Run(),  # noqa: B008 - frozen
) -> NetworkPredictor:
    """Train the network of a kind on the training part; report loss and validation quality after each epoch.

    The quality is reported to users, and decides at a rung whether the trial goes on (``selection.pruning``): the
    validation part chooses between candidates, never between the epochs of one.
    """
    training = _Training(kind, parts, parameters, seed=seed, run=run)
    if run.resume is not None:
        training.resume(run.resume, report)
    training.halve()
    training.train(report)
    return NetworkPredictor(training.kept())


def device_of(run: Run) -> torch.device:
    """Where to compute."""
    is_there = torch.cuda.is_available()
    claimed = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if claimed.startswith(_UUIDS) and torch.backends.cuda.is_built() and not is_there:
        message = f"torch does not find the GPU {claimed} that the driver lists; see nvidia-smi, or name the slot cpu"
        raise TrainingMachineError(message)
    if run.device is not None and run.device.startswith("cuda") and not is_there:
        message = f"this trial's slot is {run.device}, and torch sees no such GPU here; name another slot, or cpu"
        raise TrainingError(message)
    if run.device == "cpu" or not is_there:
        return torch.device("cpu")
    if run.group.rank >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        message = f"this trial trains on {run.group.size} GPUs, and its process sees {found}; offer as many"
        raise TrainingTaskError(message)
    return torch.device("cuda", run.group.rank)


def limit_memory(run: Run, device: torch.device) -> None:
    """Let this process allocate no more of a GPU's memory than its part, so that others find theirs.

    What exceeds it is out of memory, as on a smaller GPU. On a processor the supervisor keeps the limit.
    """
    if device.type == "cuda" and run.memory_parts > 1:
        torch.cuda.set_per_process_memory_fraction(1 / run.memory_parts, device)


class Ranks:
    """What the processes of one training tell each other; alone a process does nothing for it."""

    def __init__(self, run: Run, device: torch.device) -> None:
        self.rank, self.size = run.group
        self._device = device
        if self.size > 1:
            assert run.folder is not None
            self._group = joined(run.group, folder=run.folder, device=device, backend=run.distributed_backend)

    def share_of(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], float]:
        """This rank's rows of a batch, and the weight of their mean loss; of a very small batch each takes all."""
        if len(rows) < 2 * self.size or self.size == 1:
            return rows, 1 / self.size
        own = rows[self.rank :: self.size]
        return own, len(own) / len(rows)

    def add(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace each tensor by the sum over all ranks, in one exchange."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
        self._group.all_reduce(flat)
        start = 0
        for tensor in tensors:
            tensor.detach().copy_(flat[start : start + tensor.numel()].view_as(tensor))
            start += tensor.numel()

    def average(self, tensors: Iterable[torch.Tensor]) -> None:
        """Replace each tensor by the mean over all ranks, such as the running means of a normalisation."""
        own = list(tensors)
        self.add(own)
        if self.size > 1:
            for tensor in own:
                tensor.div_(self.size)

    def all_have(self, answer: bool) -> bool:
        """Whether the answer of every rank is yes."""
        if self.size == 1:
            return answer
        flag = torch.tensor([int(answer)], device=self._device)
        self._group.all_reduce(flag)
        return bool(flag.item() == self.size)

    def agreed(self, answer: bool) -> bool:
        """Rank 0's answer, in every rank."""
        if self.size == 1:
            return answer
        flag = torch.tensor([int(answer)], device=self._device)
        self._group.broadcast(flag, 0)
        return bool(flag.item())


class _Training:
    """One training between two epochs."""

    def __init__(self, kind: str, parts: OpenParts, parameters: Parameters, *, seed: int, run: Run) -> None:
        self.kind, self.parts, self.parameters, self.seed, self.run = kind, parts, parameters, seed, run
        self.epochs: int = parameters["epochs"]
        self.is_cycle = parameters.get("schedule") == "one_cycle"
        everything = np.arange(len(parts.train_labels))
        is_all = run.patience is None or self.is_cycle
        self.learn, self.hold = (everything, everything[:0]) if is_all else held_out(len(everything), seed)
        # Numbers may tell where something is on an image, so only classes bear that it is moved.
        self.device = device_of(run)
        limit_memory(run, self.device)
        self.ranks = Ranks(run, self.device)
        self.shift_percent: int = parameters.get("shift_percent", 0) if parts.task == Task.CLASSIFICATION else 0
        self.started = time.monotonic()
        self.begin()

    def begin(self) -> None:
        """At the beginning, with random weights."""
        torch.manual_seed(self.seed)
        torch.use_deterministic_algorithms(True, warn_only=True)
        parts, parameters = self.parts, self.parameters
        architecture = architecture_for(
            self.kind,
            parameters,
            layout=parts.layout,
            classes=parts.classes,
            task=parts.task,
            target=parts.target_layout,
        )
        network = build_network(architecture)
        network.learn_scale(parts.train_inputs, parts.train_labels)
        self.network = network.to(self.device)
        self.optimizer = torch.optim.Adam(self.network.body.parameters(), lr=parameters["learning_rate"])
        self.precision = Precision(self.run, self.device)
        self.batch_size = int(parameters["batch_size"])
        self.epoch, self.seconds_before = 0, 0.0
        self.best, self.best_weights = BestEpoch(), dict[str, torch.Tensor]()

    def halve(self) -> None:
        """Smaller batches where memory did not suffice."""
        if self.run.halved:
            self.batch_size = max(1, self.batch_size // 2)

    # -- from epoch to epoch -------------------------------------------------------------------------------------------

    def train(self, report: Report) -> None:
        """Epoch after epoch, until all are trained or held-out rows say that it is over."""
        here, begun = self.epoch, time.monotonic()
        due = begun + self.run.checkpoint_seconds
        while self.epoch < self.epochs and not self.ranks.agreed(self._is_over() or self._is_asked_to_end()):
            self.epoch += 1
            loss = self._one_epoch()
            if not math.isfinite(loss):
                rate = self.parameters["learning_rate"]
                message = f"{self.kind} diverged: the loss of epoch {self.epoch} is {loss}"
                message += f"; lower learning_rate (now {rate:g})"
                raise TrainingError(message)
            if self.run.group.rank:
                continue
            self._look_at_held_out()
            quality = quality_on_validation(self.network, self.parts, self.device, self.run.metric)
            is_saved = self.run.folder is not None and self.epoch < self.epochs and time.monotonic() >= due
            if is_saved:
                due = self._save()
            each = (time.monotonic() - begun) / (self.epoch - here)
            report(
                self.progress,
                f"epoch {self.epoch} of {self.epochs}",
                quality,
                step=self.epoch,
                of=self.epochs,
                loss=loss,
                seconds_left=each * (self.epochs - self.epoch),
                checkpoint=self.epoch if is_saved else None,
            )
        if self.epoch < self.epochs:
            report(_BEGIN + _SHARE, self._why_over())

    @property
    def progress(self) -> float:
        """Of the whole job, in [0, 1]."""
        return _BEGIN + _SHARE * min(1.0, self.epoch / self.epochs)

    def _one_epoch(self) -> float:
        """Train one epoch on the shuffled training rows; return the mean loss."""
        rng = np.random.default_rng([self.seed, self.epoch])
        torch.manual_seed((int(rng.integers(2**63)) + self.run.group.rank) % 2**63)  # dropout and its like
        order = self.learn[rng.permutation(len(self.learn))]
        self.network.train()
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for start in range(0, len(order), self.batch_size):
            rows, share = self.ranks.share_of(order[start : start + self.batch_size])
            inputs, targets = self._rows(rows)
            if self.shift_percent:
                inputs = moved(inputs, self.parts.layout.shape, self.shift_percent)
            self._set_rate(start / len(order))
            self.optimizer.zero_grad()
            with self.precision.products():
                outputs = self.network.logits(inputs)
            loss = share * self.network.loss(outputs, targets)
            self.precision.step(loss, self.optimizer, self._add_gradients)
            total += loss.detach().double() * min(self.batch_size, len(order) - start)
        self.ranks.average(buffer for buffer in self.network.body.buffers() if buffer.is_floating_point())
        self.ranks.add([total])
        mean: float = total.item() / len(order)
        return mean

    def _add_gradients(self) -> None:
        self.ranks.add([weight.grad for weight in self.network.body.parameters() if weight.grad is not None])

    def _set_rate(self, of_epoch: float) -> None:
        """The rate of the next step, where this share of the epoch is done."""
        if self.is_cycle:
            share = share_of_rate((self.epoch - 1 + of_epoch) / self.epochs)
            self.optimizer.param_groups[0]["lr"] = share * self.parameters["learning_rate"]

    def _rows(self, rows: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets of some training rows, on the device; the table itself may be larger than its memory."""
        inputs, targets = self.parts.train_inputs[rows], self.parts.train_labels[rows]
        return torch.from_numpy(inputs).to(self.device), torch.from_numpy(targets).to(self.device)

    def _look_at_held_out(self) -> None:
        if not len(self.hold):
            return
        inputs, targets = self.parts.train_inputs[self.hold], self.parts.train_labels[self.hold]
        loss = loss_on(self.network, inputs, targets, self.device)
        if self.best.improves(self.epoch, loss):
            self.best_weights = {name: tensor.detach().clone() for name, tensor in self.network.state_dict().items()}

    def _is_over(self) -> bool:
        patience = self.run.patience
        return self.best.epoch > 0 and patience is not None and self.best.is_over(self.epoch, patience)

    def _is_asked_to_end(self) -> bool:
        """Whether the scheduler has ended this training at a rung."""
        return self.epoch > 0 and self.run.folder is not None and (self.run.folder / END).exists()

    def _why_over(self) -> str:
        if self._is_over():
            return f"stopped early: the loss on held-out rows is least after epoch {self.best.epoch}, which is kept"
        return f"stopped after epoch {self.epoch} of {self.epochs}, as it was asked to at a rung"

    def kept(self) -> Any:
        """The network with the weights that are kept, on the CPU."""
        if self.best_weights:
            self.network.load_state_dict(self.best_weights)
        return self.network.to(torch.device("cpu"))

    # -- from process to process ---------------------------------------------------------------------------------------

    def _save(self) -> float:
        """Write a checkpoint; when the next one is due, on the clock of ``time.monotonic``."""
        assert self.run.folder is not None
        began, is_last = time.monotonic(), self.best.epoch == self.epoch
        header = Header(
            self._name(),
            self.epoch,
            self.batch_size,
            seconds=self.seconds_before + began - self.started,
            best_epoch=self.best.epoch,
            best_loss=self.best.loss if self.best.epoch else None,
            scaler=self.precision.state(),
        )
        best = {} if is_last else self.best_weights
        weights, moments = self.network.state_dict(), moments_of(self.optimizer)
        path = self.run.folder / checkpoint_name(self.epoch)
        save_checkpoint(path, Checkpoint(header, weights, moments, best))
        remove_older(self.run.folder)
        now, wanted = time.monotonic(), self.run.checkpoint_seconds
        return now + (max(wanted, _LEAST_RATIO * (now - began)) if wanted else 0.0)

    def resume(self, path: Path, report: Report) -> None:
        """Go on from a checkpoint, or begin anew and tell why; all ranks do the same."""
        fault: Exception | None = None
        try:
            self._restore(load_checkpoint(path, training=self._name(), weights=self.network.state_dict()))
        except (ArtifactError, RuntimeError, ValueError, TypeError, KeyError) as error:  # torch's own checks
            fault = error
        if not self.ranks.all_have(fault is None):
            self.begin()
            report(_BEGIN, f"beginning anew: {fault or 'another rank cannot go on'}", resumed=False)
        else:
            report(self.progress, f"going on after epoch {self.epoch} of {self.epochs}", resumed=True)

    def _restore(self, found: Checkpoint) -> None:
        header = found.header
        self.network.load_state_dict(found.weights)
        restore_moments(self.optimizer, found.moments)
        self.precision.go_on(dict(header.scaler))
        if header.best_loss is not None:
            self.best = BestEpoch(header.best_epoch, header.best_loss)
            best = found.best or {name: tensor.clone() for name, tensor in found.weights.items()}
            self.best_weights = {name: tensor.to(self.device) for name, tensor in best.items()}
        self.epoch, self.batch_size, self.seconds_before = header.epoch, header.batch_size, header.seconds

    def _name(self) -> str:
        """Return the hash of all that determines the weights, but for the size of batches."""
        parts = self.parts
        identity = {
            "version": [_VERSION, torch.__version__],
            "kind": self.kind,
            "parameters": dict(self.parameters),
            "seed": self.seed,
            "held_out": len(self.hold),
            "mixed": self.precision.is_mixed,
            "data": [str(parts.task), parts.classes, list(parts.layout.shape), len(parts.train_labels)],
            "target": None if parts.target_layout is None else list(parts.target_layout.shape),
        }
        return hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()
