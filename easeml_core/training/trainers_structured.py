"""The kinds that answer with images, series or rows of numbers, or learn of trees: rows of the table in ``trainers``.

They are built in ``networks_structured``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from easeml_core.training.parameters import Whole
from easeml_core.training.trainer import BOTH, NUMBERS, Trainer
from easeml_core.training.trainers_networks import FITTER, NETWORK

if TYPE_CHECKING:
    from easeml_core.training.parameters import Rule

_IMAGES = frozenset({"image"})
_SERIES = frozenset({"series"})
_TREES = frozenset({"tree"})
_LONGER: dict[str, Rule] = {**NETWORK, "epochs": Whole(20, 1, 1000), "batch_size": Whole(32, 1, 8192)}


def _of_images(kind: str, summary: str) -> Trainer:
    return Trainer(
        kind,
        summary,
        library="torch",
        rules={"channels": Whole(16, 1, 512), **_LONGER},
        tasks=NUMBERS,
        layouts=_IMAGES,
        default_layouts=_IMAGES,
        answers=_IMAGES,
        least_side=4,
        takes_run=True,
        fitter=FITTER,
    )


STRUCTURED_TRAINERS = (
    _of_images("auto_encoder", "images from images, through a quarter of the pixels each way"),
    _of_images("u_net", "images from images, with shortcuts from each level down to the same level up (2015)"),
    Trainer(
        "seq2seq",
        "series from series: one recurrent layer reads, another writes (2014)",
        library="torch",
        rules={"hidden_width": Whole(64, 1, 1024), **_LONGER},
        tasks=NUMBERS,
        layouts=_SERIES,
        default_layouts=_SERIES,
        answers=_SERIES,
        takes_run=True,
        fitter=FITTER,
    ),
    Trainer(
        "bit_auto_encoder",
        "the bits of any row, such as the one that is read, from a short code",
        library="torch",
        rules={"hidden_width": Whole(64, 1, 1024), **_LONGER},
        tasks=NUMBERS,
        answers=frozenset({"table"}) | _IMAGES | _SERIES,
        takes_run=True,
        fitter=FITTER,
    ),
    Trainer(
        "tree_rnn",
        "recurrent along the links of a tree, from its leaves to its root (2011)",
        library="torch",
        rules={"hidden_width": Whole(32, 1, 1024), **_LONGER},
        tasks=BOTH,
        layouts=_TREES,
        default_layouts=_TREES,
        takes_run=True,
        fitter=FITTER,
    ),
)
