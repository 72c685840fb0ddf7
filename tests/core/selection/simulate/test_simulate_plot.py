"""Plots: written without a display, refused before anything is simulated."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from PIL import Image

from easeml_core.errors import InvalidInputError
from easeml_core.formats.display import check_plot, save_figure
from easeml_core.selection.simulate.plot import draw_fairness, draw_losses
from easeml_core.selection.simulate.protocol import Protocol
from easeml_core.selection.simulate.report import Curve, FairnessCurve, FairnessPoint, Outcome, Simulation

SIGNATURES = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}


def outcome(*percents):
    loss = np.linspace(0.9, 0.0, len(percents) + 1)
    empty = np.zeros(1)
    return Outcome(Curve(np.array([0.0, *percents]), loss), empty, empty, np.zeros((3, 2)), 0.0)


@pytest.fixture
def report():
    runs = {f"policy {i}": [outcome(0.1 * (i + 1), 5.0 + r) for r in range(3)] for i in range(10)}
    return Simulation(Protocol(repeats=3), {**runs, "idle": [outcome()]})


@pytest.mark.parametrize("suffix", SIGNATURES)
def test_losses_are_plotted_without_a_display(report, tmp_path, suffix, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    path = tmp_path / f"losses{suffix}"
    save_figure(draw_losses(report), path)
    assert path.read_bytes().startswith(SIGNATURES[suffix])


def test_every_policy_is_named_in_the_colour_of_its_line(report):
    (axes,) = draw_losses(report).axes
    lines = {line.get_label(): line for line in axes.get_lines()}
    names = axes.get_legend().get_texts()
    assert {text.get_text() for text in names} == set(report.outcomes)
    assert all(text.get_color() == lines[text.get_text()].get_color() for text in names)


def test_the_title_is_what_was_found(report):
    figure = draw_losses(report)
    (axes,) = figure.axes
    # Policy i is at its best after 5, 6 and 7 percent; one policy never gets anywhere.
    prices = ", ".join(f"policy {i} 6 %" for i in range(4))
    title = f"To a loss of 0.02, of the cost of everything: {prices} and 6 more"
    assert " ".join(figure.get_suptitle().split()) == title
    assert "3 repeats, bands: 10th to 90th percentile" in figure.get_supxlabel()
    assert axes.get_xlabel() == "cost spent, of the cost of training everything"
    assert "average over tenants" in axes.get_ylabel()
    assert [label.get_text() for label in axes.get_yticklabels()][:3] == ["0.01", "0.02", "0.05"]


def test_a_loss_that_nobody_reaches_is_said(report):
    idle = Simulation(report.protocol, {"idle": report.outcomes["idle"]})
    assert "No policy comes within 0.02" in draw_losses(idle).get_suptitle()


POINTS = tuple(
    FairnessPoint(policy, value, total, worst, worst, 100.0, {})
    for policy, value, total, worst in (
        ("roundrobin", None, 3.0, 2.0),
        ("default", 0.0, 1.0, 1.5),
        ("default", 0.05, 1.001, 1.501),
        ("default", 0.8, 2.0, 1.0),
    )
)


def test_fairness_names_its_points_and_says_which_is_best(tmp_path):
    figure = draw_fairness(FairnessCurve("guard", POINTS))
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == ["roundrobin", "0 to 0.05", "default, guard 0.8"]
    title = "default with guard 0 is best for all tenants together, default with guard 0.8 for the worst-off one"
    assert " ".join(figure.get_suptitle().split()) == title
    save_figure(figure, tmp_path / "curve.png")
    with Image.open(tmp_path / "curve.png") as picture:
        assert (picture.format, picture.size) == ("PNG", (1200, 810))
    alone = draw_fairness(FairnessCurve("guard", POINTS[:1]))
    assert alone.get_suptitle() == "roundrobin is best for all tenants together and for the worst-off one"


def test_what_cannot_be_written_is_refused_at_once(tmp_path, report):
    check_plot(tmp_path / "plot.PNG")
    with pytest.raises(InvalidInputError, match=r"must end in one of \.png, \.svg, \.pdf, got 'plot.txt'"):
        check_plot(tmp_path / "plot.txt")
    with pytest.raises(InvalidInputError, match=r"there is no folder .*nowhere; make it first"):
        check_plot(tmp_path / "nowhere" / "plot.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(InvalidInputError, match=r"cannot be written to .*Is a directory; give another --plot"):
        save_figure(draw_losses(report), tmp_path / "folder.png")


def test_without_matplotlib_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(InvalidInputError, match=r"needs matplotlib .* pip install 'easeml-airflow\[plot\]'"):
        check_plot(tmp_path / "plot.png")
