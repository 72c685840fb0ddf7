"""Models that stay loaded between two questions: a few, the least recently asked one gives way to another."""

from __future__ import annotations

import threading
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Any

from easeml_core.models.warm_model import ModelGoneError, WarmModel

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from easeml_core.entities import Model
    from easeml_core.models.answers import WantedAnswers
    from easeml_core.store.artifacts.local import ArtifactStore


class WarmModels:
    """For one process that is asked often, such as a server.

    Args:
        most: How many models are loaded at the same time, >= 1; each has a process of its own.
        options: Further arguments of ``WarmModel``.
    """

    def __init__(self, *, most: int = 4, **options: Any) -> None:
        self._most, self._options = most, options
        self._models: OrderedDict[tuple[int, str, WantedAnswers], WarmModel] = OrderedDict()
        self._lock = threading.Lock()

    def answer(
        self, artifacts: ArtifactStore, model: Model, wanted: WantedAnswers, inputs: NDArray[np.float32]
    ) -> NDArray[Any]:
        """As ``predict_in_child``; errors as of ``WarmModel.ask``. A process that has ended meanwhile is made anew."""
        try:
            return self._loaded(artifacts, model, wanted).ask(inputs)
        except ModelGoneError:
            return self._loaded(artifacts, model, wanted).ask(inputs)

    def close(self) -> None:
        """End all processes."""
        with self._lock:
            for model in self._models.values():
                model.close()
            self._models.clear()

    def _loaded(self, artifacts: ArtifactStore, model: Model, wanted: WantedAnswers) -> WarmModel:
        # A program may remember what it was asked: two studies that have the same file have a process each.
        key = model.study_id, model.identity, wanted
        with self._lock:
            found = self._models.pop(key, None)
            if found is None or found.is_gone:
                found = WarmModel(partial(artifacts.copy, model.artifact), model.format, wanted, **self._options)
            self._models[key] = found
            while len(self._models) > self._most:
                self._models.popitem(last=False)[1].close()
            return found
