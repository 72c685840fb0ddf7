"""A validation set used again and again, on pure noise, through the product: it is fooled, the meter is not.

Labels are coins and no attribute tells anything of them, so every classifier has a true loss of exactly 1/2, and the
true gap of a model is 1/2 minus its validation loss. The developer keeps the attributes that correlate with the labels
on the training *and* on the open validation part, with the same sign, and hands in the vote of those that correlate
most in training. Dwork et al., "The reusable holdout", Science 349, 2015; the construction is rebuilt from its
description. Everything else is the product: a CSV file, the referee's split, submissions, their sandbox, its answers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from registering import register_study
from scipy import stats

from easeml_core.data.sources.csv_files import MAX_COLUMNS
from easeml_core.formats.csv_text import MAX_BYTES
from easeml_core.models.skops_format import PipelinePredictor
from easeml_core.services.meter.alerts import open_alerts
from easeml_core.services.models.submission import submit_model
from easeml_core.services.referee.process import Referee
from easeml_core.services.referee.requests import answer_of, file_meter_request

if TYPE_CHECKING:
    from pathlib import Path

    from easeml_core.data.parts import OpenParts
    from easeml_core.services.referee.answers import ReadingAnswer

SECRET = "5eed5eed-5eed-4eed-8eed-5eed5eed9006"
"""Of the installation: it makes the split."""

FALSE_ALARM = 1e-6
"""One minus the reliability: the chance, over the draw of the sealed rows, that any signal of a study is wrong."""

METER = {"ranges": (0.15, 0.35), "reliability": 1 - FALSE_ALARM, "steps": 8, "ambiguous": 8}
GATE = {"condition": "n - o > 0 +/- 0.5", "reliability": 0.5, "steps": 1}
TRUE_LOSS = 0.5
ATTRIBUTES = MAX_COLUMNS - 1
SCALE = 25
"""Attributes are whole numbers of this standard deviation: short cells, so that more of them fit into a file."""

PROGRAM = """
import numpy as np
print(*(np.load("inputs.npy").astype(float) @ np.load("weights.npy") > 0).astype(int))
"""


def write_noise(path: Path, *, rows: int, seed: int) -> None:
    """A table of Gaussian attributes and coin labels; nothing in it depends on anything."""
    rng = np.random.default_rng(seed)
    words = np.array([str(number) for number in range(-20 * SCALE, 20 * SCALE + 1)], dtype=object)
    with path.open("w", encoding="utf-8") as file:
        file.write(",".join([*(f"x{k}" for k in range(ATTRIBUTES)), "coin"]) + "\n")
        for coin in rng.integers(0, 2, rows):
            values = np.rint(rng.standard_normal(ATTRIBUTES) * SCALE).astype(np.int64)
            file.write(",".join(words[values + 20 * SCALE]) + f",{'heads' if coin else 'tails'}\n")


def correlations(inputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Of each attribute with the label, shape ``(attributes,)``."""
    signs = (2.0 * labels - 1.0).astype(np.float32)
    return np.asarray((signs - signs.mean()) @ inputs / (len(inputs) * inputs.std(axis=0) * signs.std()))


def save_program(weights: np.ndarray, folder: Path) -> dict[str, Any]:
    """The vote as a program."""
    path = folder / "program"
    path.mkdir(exist_ok=True)
    np.save(path / "weights.npy", weights)
    (path / "predict.py").write_text(PROGRAM)
    return {"path": path, "format": "command", "command": "python predict.py"}


def save_pipeline(weights: np.ndarray, folder: Path) -> dict[str, Any]:
    """The vote as a logistic regression whose coefficients are set; nothing in it was fitted."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline

    classifier = LogisticRegression()
    classifier.coef_, classifier.intercept_ = weights[None, :], np.zeros(1)
    classifier.classes_, classifier.n_features_in_ = np.array([0, 1]), len(weights)
    PipelinePredictor(Pipeline([("vote", classifier)])).save(folder / "pipeline")
    return {"path": folder / "pipeline", "format": "skops"}


@dataclass(frozen=True, slots=True)
class Round:
    """One submission: what its developer sees, and the truth.

    Attributes:
        voters: How many attributes vote.
        quality: Validation accuracy with all its digits.
        answer: The referee's, with its public facts.
    """

    voters: int
    quality: float
    answer: ReadingAnswer

    @property
    def gap(self) -> float:
        """The true one."""
        return TRUE_LOSS - (1 - self.quality)

    @property
    def signal(self) -> int | None:
        return self.answer.signal

    def holds(self) -> bool:
        """Whether the answered range, widened by the tolerance that was promised, has the true gap in it."""
        if self.signal is None:
            return True
        edges = (-math.inf, *self.answer.boundaries, math.inf)
        low, high = edges[self.signal - 1 : self.signal + 1]
        return bool(low - self.answer.tolerance <= self.gap <= high + self.answer.tolerance)


class Product:
    """A study of noise that was registered, split and sealed, and the way of a model through it."""

    def __init__(self, lab: Any, folder: Path, *, rows: int, seed: int, tolerance: float, save: Any) -> None:
        self.lab, self.folder, self.save = lab, folder, save
        lab.as_superuser(f"UPDATE sealed.installation SET secret = '{SECRET}'")
        (folder / "lab").mkdir()
        write_noise(folder / "lab" / "noise.csv", rows=rows, seed=seed)
        self.referee = Referee(lab.referee, lab.artifacts, data=folder)
        asked = {"tenant": "lab", "study": "noise", "source": "csv:noise.csv", "target": "coin"}
        plans = {"gate": GATE, "meter": METER | {"tolerance": tolerance}}
        candidates = [{"name": "tree", "kind": "decision_tree"}]
        filed = register_study(lab.worker, **asked, **plans, candidates=candidates, request_key="register")
        assert not self._answer(filed.request_id).refused

    def read(self, weights: np.ndarray) -> tuple[float, dict[str, Any]]:
        """Hand in the sign of a weighted sum: its validation accuracy, and the meter's answer."""
        asked = {"study": "noise", "request_key": self.lab.key()}
        model = self.save(weights, self.folder)
        handed = submit_model(self.lab.worker, self.lab.artifacts, **asked, **model, message="a vote")
        filed = file_meter_request(self.lab.worker, model_id=handed.model_id, **asked)
        return handed.validation_quality, self._answer(filed)

    def ledger(self) -> list[Any]:
        """For each submission its wrong answers of how many, their interval, the tolerance then, and what it cost."""
        return self.lab.rows(
            "SELECT (l.report ->> 'errors')::int, t.rows, (l.report ->> 'low')::float8, "
            "(l.report ->> 'high')::float8, l.tolerance, l.log_cost "
            "FROM sealed.ledger l JOIN work.test_sets t ON t.id = l.test_set_id ORDER BY l.step"
        )

    def _answer(self, request_id: int) -> Any:
        while self.referee.answer_one() is not None:
            pass
        found = answer_of(self.lab.worker, request_id)
        assert found is not None
        return found


class Developer:
    """Picks attributes with the open parts, hands votes in, and reacts to each signal."""

    def __init__(self, product: Product, parts: OpenParts) -> None:
        self.product = product
        self.train = correlations(parts.train_inputs, parts.train_labels)
        self.validation = correlations(parts.validation_inputs, parts.validation_labels)
        self.least = 1 / math.sqrt(len(parts.train_labels)), 1 / math.sqrt(len(parts.validation_labels))

    def honest(self) -> np.ndarray:
        """Attributes that correlate in training, the strongest first."""
        return self._by_strength(np.abs(self.train) > self.least[0])

    def reusing(self) -> np.ndarray:
        """Those of them that correlate on the validation part as well, with the same sign."""
        twice = (np.abs(self.validation) > self.least[1]) & (self.train * self.validation > 0)
        return self._by_strength((np.abs(self.train) > self.least[0]) & twice)

    def hand_in(self, chosen: np.ndarray) -> Round:
        """The vote of these attributes, each with its training sign."""
        weights = np.zeros(ATTRIBUTES)
        weights[chosen] = np.sign(self.train[chosen])
        return Round(len(chosen), *self.product.read(weights))

    def overfit(self, rounds: int) -> list[Round]:
        """More voters while the signal stays, others of the same number when it changes; in the end all of them."""
        lucky = self.reusing()
        first, count, before = 0, len(lucky) // 8, 1
        played: list[Round] = []
        while len(played) < rounds and before is not None:
            played.append(self.hand_in(lucky[first : first + count]))
            if count == len(lucky):
                break
            if played[-1].signal == before:
                first, count = 0, min(2 * count, len(lucky))
            else:
                first = min(first + count // 2, len(lucky) - count)
            before = played[-1].signal
        return played

    def _by_strength(self, kept: np.ndarray) -> np.ndarray:
        places = np.flatnonzero(kept)
        return places[np.argsort(-np.abs(self.train[places]))]


def play(product: Product) -> tuple[Round, list[Round]]:
    """One honest submission, then all of the developer who looks at the validation part."""
    developer = Developer(product, product.lab.open_parts("noise"))
    honest = developer.hand_in(developer.honest())
    rounds = developer.overfit(METER["steps"] - 1)
    for one, (errors, rows, _, _, now, cost) in zip((honest, *rounds), product.ledger(), strict=True):
        print(f"{one.voters:4} voters: validation accuracy {one.quality:.4f}, true gap {one.gap:+.4f},", end=" ")
        print(f"signal {one.signal}; sealed loss {errors / rows:.4f}, tolerance {now:.4f}, cost {cost:.3f}")
    return honest, rounds


def require_intervals(product: Product, answered: int, tolerance: float) -> None:
    """What signals rest on: Clopper and Pearson at the level that is left, here by quantiles of the beta distribution.

    False alarm of the intervals about the truth: FALSE_ALARM, by the promise itself.
    """
    left = FALSE_ALARM / METER["steps"]
    for step, (errors, rows, low, high, now, cost) in enumerate(product.ledger()):
        expected = (
            stats.beta.ppf(left / 2, errors, rows - errors + 1),
            stats.beta.isf(left / 2, errors + 1, rows - errors),
        )
        assert (low, high) == pytest.approx(expected, rel=1e-6)
        assert low <= TRUE_LOSS <= high
        assert (now <= tolerance) == (step < answered)
        left /= round(math.exp(cost))


def require_reported(product: Product, honest: Round, rounds: list[Round], tolerance: float) -> None:
    """Signals say the truth, and where they leave range 1 there is an alert that says so."""
    answered = [r for r in rounds if r.signal is not None]
    assert all(r.holds() for r in (honest, *rounds))
    require_intervals(product, 1 + len(answered), tolerance)
    assert len(answered) >= 4
    assert honest.signal == 1
    assert max(r.signal or 0 for r in answered) == 2
    alerts = [a.message for a in open_alerts(product.lab.worker, study="noise", kind="overfitting")]
    shown = [r.answer.alert for r in rounds if r.answer.alert]
    assert len(shown) == sum(r.signal != 1 for r in rounds)
    assert alerts == shown


@pytest.mark.nightly  # by day tests/core/meter/test_meter_reused_test_set.py shows the same without a database
@pytest.mark.journey
def test_a_reused_validation_set_is_fooled_and_the_meter_says_so(bare: Any, tmp_path: Path) -> None:
    """2,300 rows, 1,999 attributes, models as programs.

    Expected: a twentieth of all attributes pass both thresholds, with validation correlations of 1.5 / sqrt(n) in the
    mean, so the sum of 100 leans to the label by 1.5 sqrt(100 / 345) = .81 standard deviations: Phi(.81) = .79. Draw
    and split are fixed; with others, an accuracy on 345 rows has a standard error of .027 at most: six of them.
    """
    product = Product(bare, tmp_path, rows=2_300, seed=2015, tolerance=0.1, save=save_program)
    honest, rounds = play(product)
    assert abs(honest.quality - 0.5) < 0.17
    assert max(r.quality for r in rounds) > 0.63
    require_reported(product, honest, rounds, 0.1)


@pytest.mark.nightly
def test_a_reused_validation_set_as_large_as_a_file_may_be(bare: Any, tmp_path: Path) -> None:
    """6,800 rows, 1,999 attributes, models as pipelines, half the tolerance; expected as above, on 323 rows."""
    product = Product(bare, tmp_path, rows=6_800, seed=2016, tolerance=0.05, save=save_pipeline)
    assert MAX_BYTES / 2 < (tmp_path / "lab" / "noise.csv").stat().st_size < MAX_BYTES
    honest, rounds = play(product)
    assert abs(honest.quality - 0.5) < 0.17
    assert max(r.quality for r in rounds) > 0.63
    require_reported(product, honest, rounds, 0.05)
