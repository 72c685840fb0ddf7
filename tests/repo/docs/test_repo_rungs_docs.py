"""What docs/benchmarks.md says of rungs is what the recorded curves give, and the product does what was measured."""

from __future__ import annotations

import importlib
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from doc_pages import Page
from figures import benchmarks as catalogue
from rungs import ETA

from easeml_core.selection.pruning import LEVEL
from easeml_core.settings.config import TrainingConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = Path(__file__).resolve().parents[3] / "benchmarks"
_PAGE = Page("benchmarks.md")


@pytest.fixture
def rungs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The script that replays."""
    monkeypatch.syspath_prepend(str(FOLDER))
    before = set(sys.modules)
    yield importlib.import_module("rungs")
    for name in {path.stem for path in FOLDER.glob("*.py")} - before:
        sys.modules.pop(name, None)


@pytest.fixture
def curves(rungs: Any) -> Any:
    return rungs.curves_of(rungs.read_points())


def curve_of(rungs: Any, *told: tuple[float, float], study: str = "s", candidate: str = "c-lr0.01") -> list[Any]:
    """One second an epoch, with these qualities and held-out losses."""
    from rungs_curves import Point

    return [Point(study, candidate, k, quality, loss, 1.0) for k, (quality, loss) in enumerate(told, start=1)]


def test_the_table_of_the_page_is_that_of_the_file() -> None:
    assert _PAGE.blocks["rungs"].strip() == catalogue.rungs()


def test_every_curve_is_whole(rungs: Any) -> None:
    from rungs_curves import EPOCHS, RATES, STUDIES

    points = rungs.read_points()
    wanted = {(s, f"{net[0]}-lr{rate}") for s, what in STUDIES.items() for net in what.networks for rate in RATES}
    assert {(point.study, point.candidate) for point in points} == wanted
    assert [point.epoch for point in points] == list(range(1, EPOCHS + 1)) * len(wanted)
    assert all(0 <= point.quality <= 1 and math.isfinite(point.held_out_loss) and point.seconds > 0 for point in points)


def test_the_file_is_what_the_curves_give(rungs: Any, curves: Any) -> None:
    header, *written = rungs.RESULTS.read_text().splitlines()
    assert header.split(",")[:3] == ["rates", "early_stopping", "rule"]
    worlds = {(name, str(is_early)): worlds for name, is_early, worlds in rungs.worlds_of(curves)}
    assert len(written) == len(worlds) * (1 + len(rungs.RULES))
    for line in (line for line in written if ",decide," in line):
        *name, is_early, _, figures = line.replace(", each", "; each").replace('"', "").split(",", 3)
        key = (name[0].replace(";", ","), is_early)
        patience = TrainingConfig().patience if is_early == "True" else None
        assert rungs.measure(worlds[key], "decide", patience=patience) == tuple(map(float, figures.split(",")))


def test_the_product_does_what_was_measured(rungs: Any) -> None:
    assert TrainingConfig().rungs == rungs.SHARES == (0.1, 0.3)
    assert (LEVEL, ETA) == (0.85, 3)
    assert "ceil(.85 (n + 1))-th" in _PAGE.text


def test_it_is_on_since_it_saves_a_fifth_and_loses_nothing_to_speak_of(rungs: Any) -> None:
    import csv

    with rungs.RESULTS.open(newline="") as file:
        ours = [row for row in csv.DictReader(file) if row["rule"] == "decide"]
    assert len(ours) == 5
    assert all(float(row["seconds"]) <= 0.8 and float(row["loss"]) <= 0.002 for row in ours)


def test_early_stopping_is_replayed_as_it_is_trained(rungs: Any) -> None:
    curve = curve_of(rungs, (0.1, 9.0), (0.5, 5.0), (0.6, 6.0), (0.7, 5.0), (0.9, 1.0))
    assert rungs.last_epoch(curve, 2) == 4
    assert rungs.last_epoch(curve, None) == 5
    assert rungs.kept(curve[:4], 2).quality == 0.5
    assert rungs.kept(curve[:4], None).quality == 0.7


def test_a_stopped_trial_costs_its_epochs_and_teaches_nothing(rungs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from easeml_core.selection.pruning import Decision

    seen: list[Any] = []

    def stop(quality: float, others: Any, best: float | None) -> Any:
        seen.append((quality, [other.final for other in others], best))
        return Decision(quality >= 0.5, quality, 0.5, 0, "median")

    monkeypatch.setattr(rungs, "RULES", {"stop": stop})
    bad, good = [(0.1 + k / 100, 1.0) for k in range(10)], [(0.5 + k / 100, 1.0) for k in range(10)]
    world = {"s": {"a": curve_of(rungs, *bad), "b": curve_of(rungs, *good)}}
    replay = rungs.Replay(world, "stop", None).run(0)
    assert replay.clock == 11.0  # one epoch and ten
    assert replay.best() == {"s": pytest.approx(0.59)}
    assert sorted(trial.is_stopped for trial in replay.trials) == [False, True]
    assert [quality for quality, _, _ in seen if quality < 0.5] == [0.1]
    finals = [final for _, others, _ in seen for final in others]
    assert set(finals) <= {None, good[-1][0]}  # never that of the one that was stopped
    assert replay.seconds_to("s", 0.99) is None
