"""Plots: written without a display, refused before anything is simulated."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from easeml_core.canvas import check_plot
from easeml_core.errors import InvalidInputError
from easeml_core.selection.simulate.metrics import Curve
from easeml_core.selection.simulate.plot import plot_fairness, plot_losses
from easeml_core.selection.simulate.protocol import Protocol
from easeml_core.selection.simulate.repeats import Outcome
from easeml_core.selection.simulate.report import Report

SIGNATURES = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}


def outcome(*percents):
    loss = np.linspace(0.9, 0.0, len(percents) + 1)
    empty = np.zeros(1)
    return Outcome(Curve(np.array([0.0, *percents]), loss), empty, empty, np.zeros((3, 2)), 0.0)


@pytest.fixture
def report():
    runs = {f"policy {i}": [outcome(0.1 * (i + 1), 5.0 + r) for r in range(3)] for i in range(10)}
    return Report(Protocol(repeats=3), {}, {**runs, "idle": [outcome()]})


@pytest.mark.parametrize("suffix", SIGNATURES)
def test_losses_are_plotted_without_a_display(report, tmp_path, suffix, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    path = tmp_path / f"losses{suffix}"
    plot_losses(report, path)
    assert path.read_bytes().startswith(SIGNATURES[suffix])


def test_every_policy_is_in_the_legend(report, tmp_path):
    path = tmp_path / "losses.svg"
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "none"}):
        plot_losses(report, path)
    text = path.read_text()
    for name in report.outcomes:
        assert f">{name}</text>" in text


def test_fairness_is_plotted(tmp_path):
    points = [
        {"policy": policy, "value": value, "total_regret": 1.0 + (value or 0), "worst_tenant_regret": 2.0}
        for policy, value in (("roundrobin", None), ("default", 0.0), ("default", 0.1))
    ]
    plot_fairness({"knob": "guard", "points": points}, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(SIGNATURES[".png"])


def test_what_cannot_be_written_is_refused_at_once(tmp_path, report):
    check_plot(tmp_path / "plot.PNG")
    with pytest.raises(InvalidInputError, match=r"must end in one of \.png, \.svg, \.pdf, got 'plot.txt'"):
        check_plot(tmp_path / "plot.txt")
    with pytest.raises(InvalidInputError, match=r"there is no folder .*nowhere; make it first"):
        check_plot(tmp_path / "nowhere" / "plot.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(InvalidInputError, match=r"cannot be written to .*Is a directory; give another --plot"):
        plot_losses(report, tmp_path / "folder.png")


def test_without_matplotlib_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(InvalidInputError, match=r"needs matplotlib .* pip install 'easeml-airflow\[plot\]'"):
        check_plot(tmp_path / "plot.png")
