"""The plot of a gate's plan: every way to ask, its labels, and which one was asked for."""

from __future__ import annotations

import io

from PIL import Image

from easeml_core.formats.display import CHOSEN, OTHER
from easeml_core.gate.condition import parse_condition
from easeml_core.gate.offline.planned import alternatives_to, draw_gate_plan
from easeml_core.gate.planner import PlannedFor, plan_gate

ASKED = {"reliability": 0.9999, "steps": 32, "adaptivity": "full", "mode": "fp-free"}


def drawn(condition):
    parsed = parse_condition(condition)
    found, others = plan_gate(parsed, **ASKED), alternatives_to(parsed, PlannedFor(**ASKED))
    return found, others, draw_gate_plan(str(parsed), found, others, PlannedFor(**ASKED))


def test_every_bar_carries_its_name_and_its_figure():
    found, others, figure = drawn("n > 0.9 +/- 0.01")
    (axes,) = figure.axes
    names = [" ".join(label.get_text().split()) for label in axes.get_yticklabels()]
    figures = [text.get_text() for text in axes.texts]
    bars = axes.patches
    assert len(bars) == len(names) == len(figures) == len(others) + 1
    widths = [bar.get_width() for bar in bars]
    assert widths == sorted(widths)
    asked = names.index("as asked")
    assert (widths[asked], figures[asked]) == (found.labels, f"{found.labels:,}")
    assert figures[names.index("recycling, for the set until its first pass")] == "16,669"
    # Fresh labels are needed anew by each of the 32 submissions.
    assert f"{32 * 16669:,} in all" in figures
    colours = [bar.get_facecolor() for bar in bars]
    assert colours.count(colours[asked]) == 1
    assert CHOSEN != OTHER


def test_title_axis_and_note_need_no_caption():
    found, _, figure = drawn("n > 0.9 +/- 0.01")
    title = f"{found.labels:,} labelled examples let the gate judge n > 0.9 \u00b1 0.01 for 32 submissions"
    assert " ".join(figure.get_suptitle().split()) == title
    assert figure.axes[0].get_xlabel() == "labelled examples, for all submissions together"
    assert "reliability 0.9999, adaptivity full, fp-free, exact (binomial)" in figure.get_supxlabel()


def test_a_condition_without_labels_counts_examples():
    found, _, figure = drawn("d < 0.1 +/- 0.05")
    assert found.labels == 0
    assert figure.get_suptitle().startswith(f"{found.unlabelled:,} examples without a label")


def test_it_is_a_picture_of_the_promised_size():
    *_, figure = drawn("n > 0.9 +/- 0.05")
    file = io.BytesIO()
    figure.savefig(file, format="png")
    with Image.open(file) as picture:
        assert picture.format == "PNG"
        assert picture.size[0] == 1200  # 8 inches of 150 dots
        assert 500 <= picture.size[1] <= 1400
