"""Targets of several numbers a row, and trees: how they are read, kept, scored, asked of models and trained."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from easeml_core.data.layout import Layout, stored_layout, stored_target
from easeml_core.data.parts import OpenParts, load_open_parts, save_open_parts, split_parts, write_open_parts
from easeml_core.data.sources.load import load_source
from easeml_core.data.table import content_hash, make_table, sample_rows
from easeml_core.entities import Task
from easeml_core.errors import ArtifactError, InvalidInputError, ShapeError, TrainingError
from easeml_core.metrics.metric import as_classes, metric_of
from easeml_core.models.answers import WantedAnswers, wanted_of
from easeml_core.models.formats import load_constant, load_predictor, save_constant, save_model
from easeml_core.models.networks.architecture import Architecture
from easeml_core.models.predict import predict_in_child, require_same, rows_to_repeat
from easeml_core.sandbox.child_protocol import silent
from easeml_core.training.child import score_on_validation
from easeml_core.training.trainers import TRAINERS, default_candidates, trainer_of

if TYPE_CHECKING:
    from pathlib import Path

    from easeml_core.data.table import RawTable

NAN = float("nan")
NUMBERS = Task.REGRESSION


def kept(folder: Path, inputs: Any, targets: Any = None) -> str:
    np.save(folder / "inputs.npy", np.asarray(inputs))
    if targets is not None:
        np.save(folder / "targets.npy", np.asarray(targets))
    return f"npy:{folder}"


def rows(*shape: int) -> Any:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


# -- sources ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((9, 5), Layout("table", (5,))),
        ((9, 4, 2), Layout("series", (4, 2))),
        ((9, 4, 4, 3), Layout("image", (4, 4, 3))),
    ],
)
def test_targets_have_the_layout_of_their_dimensions(shape: Any, layout: Layout, tmp_path: Path) -> None:
    targets = rows(*shape)
    table = load_source(kept(tmp_path, rows(9, 6), targets), task="regression")
    assert (table.target_layout, table.layout, table.class_names) == (layout, Layout("table", (6,)), ())
    np.testing.assert_array_equal(table.labels, targets.reshape(9, -1))


def test_targets_of_one_number_are_plain_numbers(tmp_path: Path) -> None:
    table = load_source(kept(tmp_path, rows(9, 6), rows(9, 1)), task="regression")
    assert (table.target_layout, table.labels.shape) == (None, (9,))


def test_bytes_of_target_images_are_shares_of_255(tmp_path: Path) -> None:
    pixels = np.arange(4 * 16, dtype=np.uint8).reshape(4, 4, 4, 1)
    table = load_source(kept(tmp_path, pixels, pixels[::-1].copy()), task="regression")
    np.testing.assert_array_equal(table.labels, table.inputs[::-1])
    assert table.labels.max() == np.float32(63 / 255)


def test_inputs_may_be_their_own_targets(tmp_path: Path) -> None:
    inputs = rows(9, 4, 2)
    inputs[:3, 3:] = np.nan
    table = load_source(kept(tmp_path, inputs) + "?target=inputs", task="regression")
    assert table.target_layout == table.layout == Layout("series", (4, 2))
    np.testing.assert_array_equal(table.labels, table.inputs)
    with pytest.raises(InvalidInputError, match="8 numbers a row are no classes; set the task to regression"):
        load_source(f"npy:{tmp_path}?target=inputs")
    with pytest.raises(InvalidInputError, match="target=outputs"):
        load_source(f"npy:{tmp_path}?target=outputs")


def one_tree(*nodes: Any) -> Any:
    """Two trees: the one of these nodes, and one of leaves."""
    leaves = [[float(place), -1, -1] for place in range(len(nodes))]
    return np.array([nodes, leaves, [[9.0, -1, -1]] * len(nodes)], np.float32)


def test_trees_are_read(tmp_path: Path) -> None:
    trees = one_tree([1, -1, -1], [2, -1, -1], [3, 0, 1], [NAN, NAN, NAN])
    table = load_source(kept(tmp_path, trees, [0, 1, 1]) + "?layout=tree")
    assert table.layout == Layout("tree", (4, 3))


@pytest.mark.parametrize(
    "nodes",
    [
        ([1, -1, 0], [2, -1, -1]),  # itself
        ([1, 1, -1], [2, -1, -1]),  # a node behind it
        ([1, -1, -1], [2, 0, 0]),  # twice by one node
        ([1, -1, -1], [2, 0, -1], [3, 0, 1]),  # by two
        ([1, -1, -1], [2, 0.5, -1]),
        ([1, -1, -1], [2, -2, -1]),
        ([1, -1, NAN], [2, -1, -1]),
        ([NAN] * 3, [2, -1, -1]),
    ],
)
def test_what_is_no_tree_is_refused(nodes: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="has no tree in row 1; the last two numbers"):
        load_source(kept(tmp_path, one_tree(*nodes), [0, 1, 1]) + "?layout=tree")


def test_a_tree_has_values_beside_its_links(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="which are no tree"):
        load_source(kept(tmp_path, -np.ones((4, 3, 2)), [0, 1, 0, 1]) + "?layout=tree")


# -- tables and parts -------------------------------------------------------------------------------------------------


def table_of(labels: Any, target: Layout = Layout("series", (3, 1))) -> RawTable:  # noqa: B008 - frozen
    names = ("a", "b")
    inputs = rows(len(labels), 2)
    return make_table(inputs, labels, feature_names=names, task=NUMBERS, target_layout=target)


def test_everything_that_targets_say_is_in_the_hash() -> None:
    labels = rows(12, 3)
    unknown = labels.copy()
    unknown[0, 2] = NAN
    other_nan = unknown.copy()
    other_nan.view(np.uint32)[0, 2] = 0xFFC00001
    tables = [
        table_of(labels), table_of(labels, Layout("table", (3,))), table_of(labels, Layout("series", (1, 3))),
        table_of(unknown),
    ]  # fmt: skip
    hashes = [content_hash(table) for table in tables]
    assert len(set(hashes)) == 4
    assert content_hash(table_of(other_nan)) == hashes[3]


def test_parts_come_back_from_their_file(tmp_path: Path) -> None:
    labels = rows(40, 3)
    labels[::3, 2] = NAN
    table = sample_rows(table_of(labels), 30)
    parts = split_parts(table, sizes={"gate": 5, "validation": 5}, rng=np.random.default_rng(0))
    assert parts.gate.labels.shape == (5, 3)
    save_open_parts(tmp_path / "open.npz", parts)
    found = load_open_parts(tmp_path / "open.npz")
    assert found.target_layout == Layout("series", (3, 1))
    np.testing.assert_array_equal(found.train_labels, parts.train.labels)


@pytest.mark.parametrize(
    "change",
    [
        {"target_layout": Layout("table", (4,))},
        {"target_layout": None},
        {"train_labels": np.zeros(8, np.float32)},
        {"train_labels": np.full((8, 3), np.inf, np.float32)},
        {"train_labels": np.full((8, 3), np.nan, np.float32)},
    ],
)
def test_a_file_whose_targets_do_not_fit_is_refused(change: Any, tmp_path: Path) -> None:
    parts = OpenParts(rows(8, 2), rows(8, 3), rows(4, 2), rows(4, 3), 0, Layout("table", (2,)), NUMBERS)
    fine = replace(parts, target_layout=Layout("table", (3,)))
    write_open_parts(tmp_path / "open.npz", fine)
    load_open_parts(tmp_path / "open.npz")
    write_open_parts(tmp_path / "open.npz", replace(fine, **change))
    with pytest.raises(ArtifactError, match="do not fit together"):
        load_open_parts(tmp_path / "open.npz")


def test_a_stored_layout_comes_back() -> None:
    layout, target = Layout("image", (4, 5, 3)), Layout("series", (6, 2))
    stored = json.loads(json.dumps(stored_layout(layout, target)))
    assert (Layout.from_json(stored), stored_target(stored)) == (layout, target)
    assert stored_layout(layout) == {"kind": "image", "shape": [4, 5, 3]}
    assert stored_target(stored_layout(layout)) is stored_target(None) is None


# -- metrics ----------------------------------------------------------------------------------------------------------

VALUES = st.floats(-100, 100, width=32)


@settings(deadline=None)
@given(st.data())
def test_scores_of_known_numbers_are_those_of_scikit_learn(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(2, 6), st.integers(1, 5)))
    targets, guesses = (data.draw(arrays.arrays(np.float64, shape, elements=VALUES)) for _ in range(2))
    assert metric_of("mae").score(targets, guesses) == pytest.approx(
        sklearn.metrics.mean_absolute_error(targets, guesses)
    )
    assert metric_of("rmse").score(targets, guesses) ** 2 == pytest.approx(
        sklearn.metrics.mean_squared_error(targets, guesses)
    )
    spread = targets.std(axis=0)
    if spread.min() > 1e-3:
        weighted = sklearn.metrics.r2_score(targets, guesses, multioutput="variance_weighted")
        assert metric_of("r2").score(targets, guesses) == pytest.approx(weighted)
        assert metric_of("rmse").scale_of(targets) == pytest.approx(np.sqrt((spread**2).mean()))
    unknown = np.concatenate([targets, np.full((len(targets), 1), NAN)], axis=1)
    wider = np.concatenate([guesses, np.full((len(targets), 1), 1e6)], axis=1)
    for name in ("mae", "rmse", "within:20"):
        one = metric_of(name)
        assert one.score(unknown, wider) == pytest.approx(one.score(targets, guesses))


def test_the_best_constant_answer_has_quality_a_half() -> None:
    targets = rows(50, 6).astype(np.float64) * [1, 1, 1, 9, 9, 9] + np.arange(6)
    targets[::4, 5] = NAN
    for name, center in (("rmse", np.nanmean), ("r2", np.nanmean), ("mae", np.nanmedian)):
        metric = metric_of(name)
        best = np.tile(center(targets, axis=0), (50, 1))
        assert metric.quality(metric.score(targets, best), metric.scale_of(targets)) == pytest.approx(0.5)


def test_a_row_is_right_by_the_root_mean_square_of_its_errors() -> None:
    targets = np.array([[0.0, 0.0], [0.0, 0.0], [0.0, NAN]])
    guesses = np.array([[3.0, 4.0], [5.0, 5.0], [3.5, 1e9]])  # root mean squares: 3.54, 5, 3.5
    labels, found = as_classes("within:3.54", targets, guesses)
    assert (labels.tolist(), found.tolist()) == ([0, 0, 0], [0, 1, 0])


@pytest.mark.parametrize(
    ("targets", "guesses", "error", "message"),
    [
        ([[1.0, 2.0]], [[1.0]], ShapeError, "predictions"),
        ([[1.0, 2.0]], [1.0], ShapeError, "predictions"),
        ([[1.0, 2.0]], [[1.0, NAN]], TrainingError, "1 of 1 rows of predictions are not finite"),
        ([[NAN, NAN]], [[1.0, 1.0]], InvalidInputError, "or none that is known"),
        ([[np.inf, 1.0]], [[1.0, 1.0]], InvalidInputError, "infinite numbers"),
        (np.zeros((0, 2)), np.zeros((0, 2)), InvalidInputError, "at least one validation row"),
    ],
)
def test_what_cannot_be_scored_is_refused(targets: Any, guesses: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        metric_of("rmse").score(np.array(targets), np.array(guesses))


def test_targets_without_spread_have_no_scale() -> None:
    same = np.tile([1.0, 2.0, NAN], (4, 1))
    for name in ("rmse", "mae"):
        with pytest.raises(InvalidInputError, match="all 4 validation targets are the same"):
            metric_of(name).scale_of(same)
    with pytest.raises(InvalidInputError, match="are the same"):
        metric_of("r2").score(same, np.zeros((4, 3)))


# -- answers ----------------------------------------------------------------------------------------------------------


def test_constants_of_several_numbers_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "constant"
    save_constant(path, (0.5, -2.0))
    assert load_constant(path).predict(np.zeros((3, 7), np.float32)).tolist() == [[0.5, -2.0]] * 3
    longest = tuple(np.random.default_rng(0).normal(size=2**14).tolist())
    save_constant(path, longest)
    assert load_constant(path).answer == longest
    for wrong in ((*longest, 1.0), (), (NAN,), (1,)):
        path.write_text(json.dumps({"numbers": wrong}))
        with pytest.raises(ArtifactError, match="is no constant model"):
            load_constant(path)


def test_models_are_asked_for_so_many_numbers(tmp_path: Path) -> None:
    wanted = wanted_of(NUMBERS, Layout("image", (2, 2, 1)))
    assert WantedAnswers.from_json(json.loads(json.dumps(wanted.to_json()))) == wanted
    inputs = rows(5, 3)
    save_constant(tmp_path / "four", (1.0, 2.0, 3.0, 4.0))
    found = predict_in_child(tmp_path / "four", "constant", inputs, wanted=wanted, sandbox=None)
    assert found.tolist() == [[1.0, 2.0, 3.0, 4.0]] * 5
    save_constant(tmp_path / "one", 1.0)
    with pytest.raises(TrainingError, match="must answer with 5 rows of 4 numbers each; it gave float64 of shape"):
        predict_in_child(tmp_path / "one", "constant", inputs, wanted=wanted, sandbox=None)


def test_a_row_has_changed_where_any_of_its_numbers_has() -> None:
    answers = rows(1000, 4).astype(np.float64)
    asked = rows_to_repeat(answers, b"k" * 16)
    assert len(set(asked.tolist())) == 500
    require_same(answers[asked], answers[asked] * (1 + 1e-6))
    other = answers[asked].copy()
    other[:2, 3] += 1  # one row in 500 may change
    with pytest.raises(TrainingError, match="2 of 500 were others"):
        require_same(answers[asked], other)
    often = np.repeat([[1.0, 2.0], [3.0, 4.0]], 50, axis=0)
    assert len(rows_to_repeat(often, b"k" * 16)) == 50


# -- trainers ---------------------------------------------------------------------------------------------------------

STRUCTURED = [kind for kind, trainer in TRAINERS.items() if "value" not in trainer.answers]
CASES = [
    ("auto_encoder", Layout("image", (6, 5, 2)), Layout("image", (4, 7, 1))),
    ("u_net", Layout("image", (6, 5, 2)), Layout("image", (4, 7, 1))),
    ("seq2seq", Layout("series", (6, 2)), Layout("series", (3, 2))),
    ("bit_auto_encoder", Layout("table", (5,)), Layout("image", (2, 2, 1))),
    ("bit_auto_encoder", Layout("series", (6, 2)), Layout("table", (3,))),
]


def some_parts(layout: Layout, target: Layout, unit: float = 1.0) -> OpenParts:
    """Targets that are sums of inputs, some of them not known, in any unit."""
    inputs = rows(90, layout.features)
    mixing = np.random.default_rng(1).normal(size=(layout.features, target.features))
    labels = (unit * (inputs @ mixing + 3)).astype(np.float32)
    labels[::5, -1] = NAN
    return OpenParts(inputs[:60], labels[:60], inputs[60:], labels[60:], 0, layout, NUMBERS, target)


def test_the_cases_are_all_kinds() -> None:
    assert {kind for kind, _, _ in CASES} == set(STRUCTURED)


@pytest.mark.parametrize(("kind", "layout", "target"), CASES)
def test_a_kind_answers_in_the_shape_and_unit_of_its_targets(
    kind: str, layout: Layout, target: Layout, tmp_path: Path
) -> None:
    parts, large = (some_parts(layout, target, unit) for unit in (1.0, 1e6))
    small = {"epochs": 3, "batch_size": 16}
    predictor = trainer_of(kind).fit(parts, small, seed=0, report=silent)
    score, quality, found = score_on_validation(kind, predictor, parts)
    assert (found.shape, found.dtype) == ((30, target.features), np.float64)
    assert quality == pytest.approx(1 / (2 - score))
    loaded = load_predictor(tmp_path / "m", save_model(predictor, tmp_path / "m"))
    np.testing.assert_array_equal(loaded.predict(parts.validation_inputs), found)
    # An answer is its own row's alone, and in the unit of the targets.
    np.testing.assert_array_equal(loaded.predict(parts.validation_inputs[7:9]), found[7:9])
    again = trainer_of(kind).fit(large, small, seed=0, report=silent)
    np.testing.assert_allclose(again.predict(parts.validation_inputs), 1e6 * found, rtol=1e-2, atol=1e4)


def test_kinds_refuse_targets_that_they_do_not_answer_with() -> None:
    image, series, table = Layout("image", (8, 8, 1)), Layout("series", (6, 2)), Layout("table", (3,))
    for kind, layout, target, why in (
        ("random_forest", image, image, "random_forest answers with one class or number a row, these data have an"),
        ("u_net", image, series, "u_net answers with images, these data have a series as target"),
        ("seq2seq", image, series, "seq2seq needs series, these data are an image"),
        ("auto_encoder", Layout("image", (3, 9, 1)), image, "takes images of at least 4 x 4 pixels, these have 3 x 9"),
        ("seq2seq", series, None, "seq2seq answers with series, these data have one class or number a row"),
        ("torch_mlp", table, table, "these data have 3 numbers a row as target"),
        ("bit_auto_encoder", table, None, "answers with images or series or rows of numbers, these data have"),
        ("tree_rnn", table, None, "tree_rnn needs trees, these data are a table"),
    ):  # fmt: skip
        assert re.search(why, TRAINERS[kind].misfit(layout, NUMBERS, target)), (kind, why)
    assert "learns numbers" in TRAINERS["u_net"].misfit(image, Task.CLASSIFICATION)
    with pytest.raises(TrainingError, match="use a kind such as bit_auto_encoder"):
        trainer_of("random_forest").fit(some_parts(table, table), {}, seed=0, report=silent)


def test_defaults_are_the_kinds_that_answer_so() -> None:
    def names(layout: Layout, target: Layout) -> list[str]:
        return [c["name"] for c in default_candidates(layout, NUMBERS, target)]

    image, series = Layout("image", (8, 8, 1)), Layout("series", (6, 2))
    assert names(image, image) == ["auto_encoder", "u_net", "bit_auto_encoder"]
    assert names(series, series) == ["seq2seq", "bit_auto_encoder"]
    assert names(series, image) == ["bit_auto_encoder"]
    assert "tree_rnn" in [c["name"] for c in default_candidates(Layout("tree", (6, 3)), Task.CLASSIFICATION)]


@pytest.mark.parametrize(
    "change",
    [
        {"wanted": ()}, {"wanted": (0, 2, 1)}, {"wanted": (4, 4)}, {"wanted": (4.0, 4, 1)}, {"wanted": (True, 4, 1)},
        {"wanted": (2**10, 2**10, 1)}, {"wanted": 16}, {"classes": 3}, {"network": "seq2seq"}, {"network": "mlp"},
        {"network": "tree_rnn"},
    ],
)  # fmt: skip
def test_an_answer_that_a_network_cannot_give_is_refused(change: Any) -> None:
    fine = Architecture("u_net", 64, 1, 4, height=8, breadth=8, wanted=(4, 4, 1))
    assert fine.is_sound()
    assert not Architecture(**{**asdict(fine), **change}).is_sound()


def test_a_tree_s_links_are_not_scaled() -> None:
    trees = rows(40, 7 * 3).reshape(40, 7, 3)
    trees[:, :, 1:] = -1
    trees[:, 4, 1:], trees[:, 5, 1:], trees[:, 6, 1:] = (0, 1), (2, 3), (4, 5)
    labels = (trees[:, :2, 0].sum(axis=1) > 0).astype(np.int64)
    flat = trees.reshape(40, -1)
    parts = OpenParts(flat[:30], labels[:30], flat[30:], labels[30:], 2, Layout("tree", (7, 3)))
    network: Any = trainer_of("tree_rnn").fit(parts, {"epochs": 1}, seed=0, report=silent)
    assert network.network.scale.reshape(7, 3)[:, 1:].tolist() == [[1.0, 1.0]] * 7
    assert network.network.mean.reshape(7, 3)[:, 1:].tolist() == [[0.0, 0.0]] * 7
    assert network.network.scale.reshape(7, 3)[0, 0] != 1
