"""Plots of the meter: what was answered, over the ranges; and what each method needs."""

from __future__ import annotations

from easeml_core.formats.display import empty_figure, save_figure
from easeml_core.meter.alternatives import alternatives_to, draw_meter_plan
from easeml_core.meter.history import Submitted, _draw_ranges, draw_replay, replay_submissions
from easeml_core.meter.planner import plan_meter
from easeml_core.settings.config import MeterConfig

SETTINGS = {"ranges": (0.1, 0.3), "tolerance": 0.05, "reliability": 0.99, "steps": 8}


def reported(figure):
    return " ".join(figure.get_suptitle().split())


def replayed(errors, *, examples=8_000, **changes):
    config = MeterConfig(**SETTINGS | changes)
    rows = [Submitted(i + 1, 0.1, k) for i, k in enumerate(errors)]
    found = replay_submissions(rows, examples=examples, config=config, seed=0)
    return found, draw_replay(found, config)


def test_a_replay_says_what_was_answered(tmp_path):
    found, figure = replayed([900, 1_000, 3_000])
    (axes,) = figure.axes
    assert [reading.signal for _, reading in found.readings] == [1, 1, 2]
    assert reported(figure) == "3 submissions answered: 2 x signal 1, 1 x signal 2; the set can go on"
    assert [text.get_text() for text in axes.texts] == ["signal 1", "signal 2", "signal 3"]
    assert axes.get_ylabel().startswith("gap: share wrong on the sealed set")
    assert all(tick == int(tick) for tick in axes.get_xticks())  # there is no half submission
    assert "whiskers: tolerance; path-adaptive, clopper-pearson, reliability 0.99" in figure.get_supxlabel()
    path = tmp_path / "replay.png"
    save_figure(figure, path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_signals_are_counted_from_the_ranges_below_the_picture():
    _, axes = empty_figure()
    _draw_ranges(axes, (0.1, 0.3), 0.1, 0.5)
    assert [text.get_text() for text in axes.texts] == ["signal 2", "signal 3"]


def test_a_set_that_ends_says_why():
    found, figure = replayed([900] * 3, steps=2)
    assert found.retired_at == 3
    assert reported(figure).endswith("submission 3 got no answer: the set is used up")
    assert "set retired:\nall submissions are used" in [text.get_text() for text in figure.axes[0].texts]


def test_no_answer_at_all_can_be_drawn():
    found, figure = replayed([1], examples=5)
    assert found.readings == []
    assert reported(figure).startswith("0 submissions answered; submission 1 got no answer")


def test_a_plan_names_every_method():
    found = plan_meter(**SETTINGS)
    others = alternatives_to(MeterConfig(**SETTINGS))
    figure = draw_meter_plan(found, others, SETTINGS)
    (axes,) = figure.axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert sorted(names) == sorted([found.method, *(plan.method for plan in others)])
    assert axes.texts[names.index("path-adaptive")].get_text() == f"{found.labels:,}"
    assert reported(figure).startswith(f"path-adaptive needs {found.labels:,} labelled examples for 8 submissions")
    assert "boundaries 0.1, 0.3; tolerance 0.05, reliability 0.99" in figure.get_supxlabel()
    assert axes.get_xlabel() == "labelled examples of the sealed set"


def test_a_plan_names_the_method_that_needs_the_fewest_labels():
    found = plan_meter(**SETTINGS, method="full")
    others = alternatives_to(MeterConfig(**SETTINGS, method="full"))
    least = min(others, key=lambda plan: plan.labels)
    assert least.labels < found.labels
    told = reported(draw_meter_plan(found, others, SETTINGS))
    assert told.endswith(f"; the fewest are {least.labels:,} by {least.method}, on other terms")
