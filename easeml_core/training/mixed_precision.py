"""Half precision where it is safe: in products of matrices, never in weights, losses or sums."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from easeml_core.config import PRECISIONS, require

if TYPE_CHECKING:
    from easeml_core.training.run_options import Run


class Precision:
    """How products are computed, and how gradients that are too small for it are kept.

    bfloat16 has the range of single precision and needs no help. float16, for GPUs without it, has not: there the loss
    is scaled up before its gradient is taken, and the gradient down again.

    Args:
        run: Its ``mixed_precision``: ``auto`` is on for a GPU and off for the CPU.
        device: Where it is computed.
    """

    def __init__(self, run: Run, device: torch.device) -> None:
        require(run.mixed_precision in PRECISIONS, "mixed_precision", run.mixed_precision, ", ".join(PRECISIONS))
        self._device = device
        self.is_mixed = run.mixed_precision == "on" or (run.mixed_precision == "auto" and device.type == "cuda")
        has_bfloat16 = device.type == "cpu" or torch.cuda.is_bf16_supported()
        self._type = torch.bfloat16 if has_bfloat16 else torch.float16
        scales = self.is_mixed and not has_bfloat16
        self._scaler = torch.amp.GradScaler(device.type, enabled=scales)

    def products(self) -> Any:
        """A block in which products are computed in half precision, where that is on."""
        return torch.autocast(self._device.type, dtype=self._type, enabled=self.is_mixed)

    def step(self, loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        """Take the gradient of a loss and let the optimiser step."""
        self._scaler.scale(loss).backward()
        self._scaler.step(optimizer)
        self._scaler.update()

    def state(self) -> dict[str, float]:
        """What must be known to go on, as plain numbers; empty where nothing is scaled."""
        return dict(self._scaler.state_dict())

    def go_on(self, state: dict[str, float]) -> None:
        """Go on from ``state``."""
        if state:
            self._scaler.load_state_dict(state)
