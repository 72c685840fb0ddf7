"""The kinds for series: rows of the table in ``trainers``. They are built in ``networks_series`` and ``rocket``."""

from __future__ import annotations

from easeml_core.training.parameters import Whole
from easeml_core.training.trainer import BOTH, Trainer
from easeml_core.training.trainers_networks import FITTER, NETWORK

_SERIES = frozenset({"series"})


def _series_trainer(kind: str, summary: str, *, width: int, is_default: bool = False) -> Trainer:
    return Trainer(
        kind,
        summary,
        library="torch",
        rules={"hidden_width": Whole(width, 1, 1024), **NETWORK},
        tasks=BOTH,
        layouts=_SERIES,
        default_layouts=_SERIES if is_default else frozenset(),
        takes_run=True,
        fitter=FITTER,
    )


SERIES_TRAINERS = (
    Trainer(
        "rocket",
        "how often fixed convolutions pass thresholds, and a ridge on that",
        library="torch",
        rules={"features_per_kernel": Whole(24, 1, 240), "max_rows": Whole(10_000, 10, 50_000)},
        tasks=BOTH,
        layouts=_SERIES,
        default_layouts=_SERIES,
        fitter="easeml_core.models.networks.minirocket:fit_rocket",
    ),
    _series_trainer("cnn_1d", "three convolutions over time", width=32, is_default=True),
    _series_trainer("rnn", "simple recurrent units", width=64),
    _series_trainer("lstm", "long short-term memory", width=64),
    _series_trainer("bi_lstm", "long short-term memory in both directions", width=64),
    _series_trainer("gru", "gated recurrent units", width=64),
)
