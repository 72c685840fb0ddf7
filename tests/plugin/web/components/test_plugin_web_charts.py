"""Words of a plot cover neither one another nor what they name, and stay in it, on a telephone as on a desk."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from easeml_airflow.web.components.charts import ROOM, WIDTHS, Axis, Dot, Line, Note, Plot, _box, _drawn
from easeml_airflow.web.pages.study.plots import BEST_ROOM, forest_of
from easeml_core.entities import TrialState
from easeml_core.store.queries.study import EndedPoint

X, Y = Axis(0.0, 10.0, [(0.0, "0"), (10.0, "10")]), Axis(0.0, 1.0, [(0.0, "0"), (1.0, "1")], "accuracy")


def plot_with(*notes, **more):
    return Plot("title", "sentence", X, Y, notes=notes, **more)


def free(x, y, text="best 0.9393", anchor="end", dx=-6, dy=-10):
    return Note(x, y, text, "t", anchor, dx, dy, free=True)


def covered(plot):
    """Square pixels that the words of a plot have in common, at any width."""
    words = plot.words()
    pairs = itertools.combinations(words, 2)
    return sum(_box(a, plot, width).shared(_box(b, plot, width)) for a, b in pairs for width in WIDTHS)


def is_inside(plot, width):
    boxes = [_box(note, plot, width) for note in plot.words()]
    return all(box.left >= 0 and box.right <= width + ROOM and box.bottom <= plot.height for box in boxes)


def test_a_word_with_room_stays_where_it_is_wanted():
    note = free(5.0, 0.5)
    assert plot_with(note).words() == [note]
    assert plot_with().words() == ()


def test_a_word_at_the_edge_goes_to_the_other_side():
    (word,) = plot_with(free(0.1, 0.5)).words()
    assert (word.anchor, word.dx, word.dy) == ("start", 6, -10)
    (word,) = plot_with(free(9.9, 0.5, anchor="start", dx=6)).words()
    assert (word.anchor, word.dx) == ("end", -6)


def test_a_word_at_the_top_goes_below_what_it_names():
    (word,) = plot_with(free(5.0, 1.0)).words()
    assert word.dy > 0


def test_of_two_words_at_one_place_the_second_moves():
    first, second = free(5.0, 0.5), free(5.0, 0.5, "running")
    plot = plot_with(first, second)
    assert covered(plot_with(replace(first, free=False), replace(second, free=False))) > 0
    assert plot.words()[0] == first
    assert covered(plot) == 0


def test_a_word_that_is_not_free_stays_and_others_go_round_it():
    fixed = replace(free(5.0, 0.5, "signal 2"), free=False)
    plot = plot_with(free(5.0, 0.5), fixed)
    assert plot.words()[1] == fixed
    assert covered(plot) == 0


@pytest.mark.parametrize(
    "drawn",
    [
        {"dots": [Dot(4.7, 0.55, "")]},
        {"crosses": [Dot(4.7, 0.55, "")]},
        {"lines": [Line([(0.0, 0.55), (5.0, 0.55)])]},
        {"marks": [(4.6, "ln")]},
    ],
)
def test_a_word_moves_off_what_is_drawn(drawn):
    plot = plot_with(free(5.0, 0.5), **drawn)
    (word,) = plot.words()
    assert word != plot.notes[0]
    for width in WIDTHS:
        word_box = _box(word, plot, width)
        assert sum(word_box.shared(box) for box in _drawn(plot, width)) == 0


places = st.tuples(st.floats(0.0, 10.0), st.floats(0.0, 1.0), st.sampled_from(["start", "middle", "end"]))


@given(st.lists(places, min_size=1, max_size=2))
def test_wherever_two_words_are_wanted_both_can_be_read(wanted):
    notes = [free(x, y, anchor=anchor, dx={"start": 8, "middle": 0, "end": -8}[anchor]) for x, y, anchor in wanted]
    plot = plot_with(*notes)
    assert covered(plot) == 0
    assert all(is_inside(plot, width) for width in WIDTHS)
    assert sorted(word.text for word in plot.words()) == sorted(note.text for note in notes)


def test_no_label_of_an_axis_lies_under_the_word_of_the_best():
    """A best near an end of the axis is told beside it, where the next label would be."""
    moment = datetime(2026, 3, 1, tzinfo=UTC)

    def point(name, quality):
        return EndedPoint(1, name, TrialState.SUCCEEDED, quality, 1.0, 1.0, True, moment)

    for best, others in ((0.9, (0.5, 0.7)), (0.505, (0.1, 0.3)), (0.88, (0.879, 0.8795))):
        points = [*(point(f"c{n}", quality) for n, quality in enumerate(others)), point("best", best)]
        candidates = [SimpleNamespace(name=p.candidate) for p in points]
        report = SimpleNamespace(points=points, open=[], candidates=candidates, believed=None)
        forest = forest_of(report, all_candidates=True)
        assert 50 * BEST_ROOM <= forest.best_word <= 100 - 50 * BEST_ROOM
        assert all(abs(at - forest.best_word) >= 100 * BEST_ROOM for at, _ in forest.ticks)
        assert forest.best == forest.axis.share(best)
