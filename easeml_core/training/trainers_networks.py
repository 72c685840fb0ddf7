"""The kinds of small networks: rows of the table in ``trainers``. The networks themselves are in ``networks_small``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easeml_core.training.parameters import Choice, Real, Whole
from easeml_core.training.trainer import BOTH, Trainer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from easeml_core.training.parameters import Rule

SCHEDULES = ("constant", "one_cycle")
"""How the learning rate goes: it stays, or rises for a fifth of all steps and then falls to nothing. With ``one_cycle``
training has its end, so all epochs are trained, on all rows, and no early stopping looks at any."""

FITTER = "easeml_core.training.network_training:fit_network"
NETWORK: Mapping[str, Rule] = {
    "epochs": Whole(8, 1, 1000),
    "batch_size": Whole(64, 1, 8192),
    "learning_rate": Real(2e-3),
    "schedule": Choice("constant", SCHEDULES),
}
"""What all networks share that are trained by steps."""

SHIFT: Mapping[str, Rule] = {"shift_percent": Whole(0, 0, 50)}
"""Of networks that tell classes of images: how far an image is moved at random, in percent of each side."""

# Few rows are learnt best in many small steps, with a high rate on the way and a low one in the end.
_CNN: Mapping[str, Rule] = {
    "epochs": Whole(12, 1, 1000),
    "batch_size": Whole(32, 1, 8192),
    "learning_rate": Real(5e-3),
    "schedule": Choice("one_cycle", SCHEDULES),
    "shift_percent": Whole(8, 0, 50),
}

_IMAGES = frozenset({"image"})

NETWORK_TRAINERS = (
    Trainer(
        "torch_mlp",
        "two hidden layers with dropout, on a GPU if there is one",
        library="torch",
        rules={"hidden_width": Whole(128, 1, 4096), **NETWORK},
        tasks=BOTH,
        default_layouts=_IMAGES,
        takes_run=True,
        fitter=FITTER,
    ),
    Trainer(
        "torch_cnn",
        "three convolutions with batch norm, on a GPU if there is one",
        library="torch",
        rules={"channels": Whole(16, 1, 512), **NETWORK, **_CNN},
        tasks=BOTH,
        layouts=_IMAGES,
        default_layouts=_IMAGES,
        least_side=4,
        takes_run=True,
        fitter=FITTER,
    ),
    Trainer(
        "bit_rnn",
        "gated recurrent units over the bits of a row, whatever it stands for",
        library="torch",
        rules={"hidden_width": Whole(64, 1, 1024), **NETWORK},
        tasks=BOTH,
        default_layouts=frozenset(),
        takes_run=True,
        fitter=FITTER,
    ),
)
