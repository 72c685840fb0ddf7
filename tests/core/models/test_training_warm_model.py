"""Models that stay loaded: the same answers as from a child for one call, and no process left when idle."""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest

from easeml_core.entities import Model
from easeml_core.errors import ArtifactError, TrainingError
from easeml_core.models.answers import A_CLASS, A_NUMBER, probabilities_of
from easeml_core.models.formats import save_constant
from easeml_core.models.warm_model import CHILD, ModelGoneError, WarmModel
from easeml_core.services.models.inference import WarmModels
from easeml_core.store.artifacts.local import ArtifactStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ROWS = np.ones((3, 2), np.float32)


OLDER: set[int] = set()


def loaded() -> list[psutil.Process]:
    """Children that keep a model loaded, without those of other tests in this process."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if CHILD in child.cmdline() and child.pid not in OLDER:
                found.append(child)
    return found


def processes() -> int:
    return len(loaded())


@pytest.fixture(autouse=True)
def _only_mine() -> None:
    OLDER.clear()
    OLDER.update(child.pid for child in loaded())


def soon(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., WarmModel]]:
    """Load a model that always answers 1."""
    path, made = tmp_path / "model.json", []
    save_constant(path, 1)

    def make(wanted: Any = A_CLASS, kind: str = "constant", **options: Any) -> WarmModel:
        model = WarmModel(partial(contextlib.nullcontext, path), kind, wanted, **{"sandbox": None} | options)
        made.append(model)
        return model

    yield make
    for model in made:
        model.close()
    soon(lambda: processes() == 0)


def test_one_process_answers_all_questions(start: Callable[..., WarmModel]) -> None:
    model = start()
    for rows in (1, 3, 1000):
        assert model.ask(np.zeros((rows, 2), np.float32)).tolist() == [1] * rows
    with ThreadPoolExecutor(4) as pool:
        sizes = [len(found) for found in pool.map(lambda n: model.ask(np.zeros((n, 2), np.float32)), range(1, 40))]
    assert sizes == list(range(1, 40))
    assert processes() == 1


def test_in_the_sandbox_it_answers_too(start: Callable[..., WarmModel]) -> None:
    from easeml_core.sandbox.isolation import Sandbox

    assert start(sandbox=Sandbox()).ask(ROWS).tolist() == [1, 1, 1]


def test_it_ends_when_nobody_asks(start: Callable[..., WarmModel]) -> None:
    model = start(idle_seconds=0.5)
    with contextlib.suppress(ModelGoneError):  # a slow machine may take longer than that to ask
        model.ask(ROWS)
    soon(lambda: model.is_gone)
    with pytest.raises(ModelGoneError, match="ask again"):
        model.ask(ROWS)
    soon(lambda: processes() == 0)


def test_what_the_model_does_wrong_is_reported_and_ends_it(start: Callable[..., WarmModel]) -> None:
    for model, words in (
        (start(probabilities_of(2)), "gives no probabilities here"),
        (start(A_CLASS, "skops"), "model"),
        (start(answer_seconds=0.0), "out of time: the model gave no answer within 0 s"),
        (start(memory_limit_mb=1), "out of memory"),
    ):
        with pytest.raises((TrainingError, ArtifactError), match=words):
            model.ask(ROWS)
        soon(lambda m=model: m.is_gone)


def test_an_answer_of_the_wrong_kind_is_refused(start: Callable[..., WarmModel]) -> None:
    model = start(A_NUMBER)
    assert model.ask(ROWS).dtype == np.float64
    model._wanted = A_CLASS
    with pytest.raises(TrainingError, match="must answer with 3 whole numbers, one per row; it gave float64"):
        model.ask(ROWS)
    assert model.is_gone


def test_more_than_an_answer_may_have_is_not_kept(start: Callable[..., WarmModel]) -> None:
    model = start()
    model.ask(ROWS)
    for _ in range(100):
        model._hear(b"x" * 100_000)
    assert len(model._heard) < 10_000
    with pytest.raises(ModelGoneError):
        model.ask(ROWS)


@pytest.mark.parametrize("count", [1, 50])
def test_an_answer_that_nobody_asked_for_ends_it_and_is_kept_by_nobody(
    count: int, start: Callable[..., WarmModel]
) -> None:
    """A model that writes on would fill the caller's memory, and answer the next request before it is sent."""
    model = start()
    model.ask(ROWS)
    for _ in range(count):
        model._hear((8).to_bytes(8, "big") + bytes(8))
    assert model._answers.empty()
    assert len(model._heard) <= 16
    with pytest.raises(ModelGoneError):
        model.ask(ROWS)


def test_two_answers_to_one_question_are_none(start: Callable[..., WarmModel]) -> None:
    model = start()
    model.ask(ROWS)
    model._asked.set()
    model._hear((8).to_bytes(8, "big") + bytes(8) + b"more")
    assert model._answers.empty()
    assert "without a request" in str(model._why)
    assert model.is_gone


def test_few_models_stay_loaded_and_a_lost_one_is_loaded_anew(tmp_path: Path) -> None:
    artifacts, models = ArtifactStore(tmp_path / "artifacts"), []
    for label in range(3):
        save_constant(tmp_path / "model", label)
        models.append(Model(label, 1, None, "constant", artifacts.put(tmp_path / "model"), 0.5))
    kept = WarmModels(most=2, sandbox=None)
    for label in (0, 1, 0, 2, 0, 1):
        assert kept.answer(artifacts, models[label], A_CLASS, ROWS).tolist() == [label] * 3
    soon(lambda: processes() == 2)
    for child in loaded():
        child.kill()
    time.sleep(0.2)
    with contextlib.suppress(TrainingError):  # a caller at that moment gets the error
        kept.answer(artifacts, models[1], A_CLASS, ROWS)
    assert kept.answer(artifacts, models[1], A_CLASS, ROWS).tolist() == [1] * 3
    kept.close()
    soon(lambda: processes() == 0)


def test_two_studies_that_have_the_same_file_share_no_process(tmp_path: Path) -> None:
    """A program could tell the ones what the others have asked."""
    artifacts = ArtifactStore(tmp_path / "artifacts")
    save_constant(tmp_path / "model", 1)
    reference, kept = artifacts.put(tmp_path / "model"), WarmModels(sandbox=None)
    for study in (1, 2, 1, 2):
        kept.answer(artifacts, Model(study, study, None, "constant", reference, 0.5), A_CLASS, ROWS)
    assert processes() == 2
    kept.close()
    soon(lambda: processes() == 0)
