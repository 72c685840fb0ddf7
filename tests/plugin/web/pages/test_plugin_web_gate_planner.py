"""The planner of the gate page: it sizes what the study's sets ask for, and says no more than is known."""

from __future__ import annotations

import itertools
import json
import math
import shlex

import numpy as np
import pytest
from click.testing import CliRunner
from registering import register_study

from easeml_airflow.web.pages.gate.planner import joint_view, planner_of
from easeml_core.cli.app import cli
from easeml_core.entities import Study, StudyState
from easeml_core.gate.condition import parse_condition
from easeml_core.gate.judge import judge_predictions
from easeml_core.services.test_sets.planning import needed_examples, plan_for_gate, set_settings
from easeml_core.settings.config import GateConfig, MeterConfig
from easeml_core.store.tables import labels, studies


def study_of(gate=None, *, name="s", joint=None):
    """A study with these settings of its gate, for what needs no database."""
    settings = {"gate": (gate or GateConfig()).to_json(), "meter": MeterConfig().to_json(), "joint": joint}
    plain = {"source": "sklearn:wine", "target": "", "metric": "accuracy", "weight": 1.0, "budget_seconds": None}
    return Study(id=1, name=name, tenant="lab", state=StudyState.ACTIVE, config=settings, **plain)


STUDY = study_of()


@pytest.fixture
def referee(ask_as):
    return ask_as("ada", "referee")


@pytest.fixture
def run_command():
    def run(command: str) -> str:
        done = CliRunner().invoke(cli, shlex.split(command)[1:])
        assert done.exit_code == 0, done.output
        return done.output

    return run


PLAN = GateConfig(
    condition="n - o > 0.02 +/- 0.01 /\\ d < 0.1 +/- 0.01",
    reliability=0.9999,
    adaptivity="recycle",
    steps=32,
    power=0.9,
)


PARTS = (("day", "n > 0.6 +/- 0.1"), ("night", "n > 0.6 +/- 0.1"))


@pytest.mark.parametrize(
    "gate",
    [
        GateConfig(),
        GateConfig(estimator="paper", power=0.9),
        GateConfig(estimator="paper", adaptivity="upTo:3"),
        GateConfig(slices=PARTS),
        GateConfig(slices=PARTS, estimator="paper", mode="fn-free"),
        GateConfig(power=0.8),
    ],
)
def test_the_page_says_what_a_planned_set_of_the_study_asks_for(gate):
    """Verdicts demand the study's estimator and slices."""
    study = study_of(gate)
    found = planner_of(gate, {}, study=study, has_set=False)
    planned = needed_examples(set_settings(study, "gate", found.settings.settings())[1])
    assert (found.least, found.chosen.examples) == (planned, planned)
    assert found.title.startswith(f"{planned:,} examples, ")
    assert ("estimator paper" in found.own, "2 slices" in found.own) == (gate.estimator == "paper", bool(gate.slices))


def test_labels_of_a_submission_are_those_of_all_examples_of_the_set():
    """The paper plans 29,048 labels here and 66,847 examples for d; a verdict asks for disagreements among all."""
    gate = GateConfig(condition=PLAN.condition, reliability=0.9999, steps=32, adaptivity="none", estimator="paper")
    found = planner_of(gate, {}, study=study_of(gate), has_set=False).chosen
    new = np.zeros(found.examples, dtype=np.int64)
    new[: int(0.09 * found.examples)] = 1
    asked = {"log_level": found.gate.log_level, "mode": "fp-free"}
    condition, unknown = parse_condition(gate.condition), np.full_like(new, labels.UNKNOWN)
    wanted = judge_predictions(condition, unknown, np.zeros_like(new), new, **asked)
    assert found.gate.labels_per_submission < len(wanted.positions) <= found.labels
    assert math.isclose(found.labels, found.examples / 10, rel_tol=1e-3)


def test_slices_that_take_long_are_counted_bit_by_bit(monkeypatch):
    gate = GateConfig(slices=tuple((f"s{n}", f"n > 0.6 +/- 0.0{n}") for n in range(1, 10)))
    started = itertools.count()
    with monkeypatch.context() as slow:
        slow.setattr("easeml_airflow.web.pages.gate.sizes.time.monotonic", lambda: 1000.0 * next(started))
        first = planner_of(gate, {}, study=study_of(gate), has_set=False)
    assert (first.chosen, first.least, first.is_counted) == (None, 0, False)
    assert (first.title, first.sentence) == ("Not counted yet", "Not counted yet: ask again.")
    assert planner_of(gate, {}, study=study_of(gate), has_set=False).chosen is not None


def test_a_set_for_after_some_passes_has_room_for_the_slices_then():
    gate = GateConfig(slices=PARTS, adaptivity="recycle")
    found = planner_of(gate, {"passes": "2"}, study=study_of(gate), has_set=False)
    part = GateConfig(condition=PARTS[0][1], slices=PARTS, adaptivity="recycle")
    assert found.least < found.chosen.examples == 2 * plan_for_gate(part, 2).examples
    assert (found.chosen.is_mean, found.chosen.labels) == (False, found.chosen.examples)


@pytest.mark.parametrize("power", ["same", "0.9"])
@pytest.mark.parametrize("purpose", ["gate", "joint"])
def test_commands_of_a_study_with_the_papers_sizes_plan_what_the_page_plans(purpose, power, run_command):
    gate = GateConfig(estimator="paper")
    study = study_of(gate)
    found = planner_of(gate, {"power": power}, study=study, has_set=False)
    if purpose == "gate":
        assert json.loads(run_command(f"{found.commands['size']} --json"))["examples"] == found.least
    else:
        view = joint_view(study, found.settings)
        assert json.loads(run_command(f"{view.commands['size']} --json"))["labels"] == view.examples


@pytest.fixture
def registered(database):
    """Register a study with these settings; gives what a set of it needs at least."""

    def make(name, purpose, **settings):
        register_study(database.worker, study=name, tenant="lab", source="sklearn:wine", request_key=name, **settings)
        with database.worker.begin() as tx:
            return needed_examples(set_settings(studies.get_study(tx, name), purpose, {})[1])

    return make


def test_a_page_of_a_study_with_slices_says_so_and_plans_for_them(registered, referee):
    planned = registered("parts", "gate", gate={"slices": PARTS, "adaptivity": "none"})
    result = referee.page("/studies/parts/gate").part("#p-result")
    assert f" {planned:,} examples" in result.section("Plan a set").headings[0]
    assert "2 slices share" in result.text
    assert "without the study's" in result.part(".field:has(> #p-commands) .lab").text


def test_the_planner_begins_with_the_reliability_of_a_shared_set():
    study = study_of(GateConfig(steps=8, adaptivity="none"), joint={"reliability": 0.9, "gate_share": 0.3})
    own = needed_examples(set_settings(study, "joint", {})[1])
    begun = {"plan": GateConfig(reliability=0.97, steps=8, adaptivity="none"), "study": study, "has_set": True}
    found = planner_of(asked={}, shared=0.9, **begun)
    assert (found.purpose, found.settings.reliability) == ("joint", 0.9)
    assert joint_view(study, found.settings).examples == own
    place = str(found.sliders[0].place)
    turned = planner_of(asked={"purpose": "gate", "drawn": "joint", "reliability": place}, shared=0.9, **begun)
    assert turned.settings.reliability == 0.97, "it was not moved"
    back = {"purpose": "joint", "drawn": "gate", "reliability": str(turned.sliders[0].place)}
    assert planner_of(asked=back, shared=0.9, **begun).settings.reliability == 0.9
    moved = str(found.sliders[0].stops.index(0.99))
    turned = planner_of(asked={"purpose": "gate", "drawn": "joint", "reliability": moved}, shared=0.9, **begun)
    assert turned.settings.reliability == 0.99, "it was moved"


def test_a_page_of_a_study_with_a_shared_set_begins_with_it(registered, referee):
    joint = {"reliability": 0.9, "gate_share": 0.3}
    planned = registered("both", "joint", gate={"adaptivity": "none"}, joint=joint)
    for path in ("/studies/both/gate", "/studies/both/gate?purpose=joint"):
        page = referee.page(path)
        assert page.part("#p-result > .sec h2").text.startswith(f"{planned:,} examples,"), path
        assert page.form("/studies/both/gate/plan").fields["purpose"] == "joint"


def test_under_fn_free_the_labels_of_a_submission_are_no_bound(registered, referee):
    registered("cancer", "gate")
    asked = {"condition": PLAN.condition, "adaptivity": "none"}
    for mode, words, is_bound in (("fn-free", "on average where", False), ("fp-free", "on average at", True)):
        read = referee.page("/studies/cancer/gate", params=asked | {"mode": mode}).part("#p-result").text
        assert words in read
        assert ("may need more" not in read, "≤" in read) == (is_bound, is_bound)


def test_the_planners_figures_are_those_of_the_papers_table_and_of_the_exact_tests():
    """The intervals are those of the specification of the gate, 9.5 (of full, ADR 0023); the paper's are published."""
    rows = {row.adaptivity: row for row in planner_of(PLAN, {"passes": "1"}, study=STUDY, has_set=True).rows}
    assert [rows[name].paper for name in ("none", "firstChange", "full")] == [29_048, 29_048, 67_706]
    assert 20_173 <= rows["none"].exact <= 20_258
    assert 54_861 <= rows["full"].exact <= 54_918
    assert 8_409 <= rows["none"].power <= 8_488
    assert 26_759 <= rows["recycle"].exact <= 26_844
    assert 29_983 <= rows["upTo:3"].exact <= 30_069
    assert not rows["recycle"].is_published
    found = planner_of(PLAN, {"passes": "1"}, study=STUDY, has_set=True)
    assert (found.chosen.examples, found.least) == (rows["recycle"].power, rows["none"].power)


def test_while_the_text_cannot_be_read_the_plan_is_that_of_the_last_one():
    asked = {"condition": "n - o > 0.02 +- 0.01", "last": "n > 0.9 +/- 0.01"}
    found = planner_of(PLAN, asked, study=STUDY, has_set=True)
    assert (found.text, found.last) == ("n - o > 0.02 +- 0.01", "n > 0.9 +/- 0.01")
    assert not found.check.is_sound
    assert found.check.message.startswith("Column 13: expected a tolerance '+/- number'")
    assert found.check.caret == " " * 12 + "^"
    assert found.settings.condition == "n > 0.9 +/- 0.01"
    assert planner_of(PLAN, {"condition": "n > 1.2 +/- 0.1"}, study=STUDY, has_set=True).last == PLAN.condition


def test_moving_the_tolerance_rewrites_the_text():
    begun = planner_of(PLAN, {}, study=STUDY, has_set=True)
    slider = begun.sliders[1]
    moved = {"condition": begun.text, "last": begun.last, "tolerance": str(slider.stops.index(0.03))}
    found = planner_of(PLAN, moved, study=STUDY, has_set=True)
    assert found.text == found.last == "n - o > 0.02 +/- 0.03 /\\ d < 0.1 +/- 0.03"
    assert found.sliders[1].value == 0.03
    assert planner_of(PLAN, moved | {"tolerance": str(slider.place)}, study=STUDY, has_set=True).text == begun.text


@pytest.mark.parametrize(
    "asked",
    [
        {"reliability": "x", "steps": "-1", "tolerance": "1e9", "passes": "9" * 40, "adaptivity": "upTo:0"},
        {"condition": "<script>" * 500, "last": "\x00", "power": "2", "mode": "drop", "adaptivity": "upTo:99999"},
        {"condition": "\N{SNOWMAN} ½ ²", "steps": "²", "last": "n > n"},
    ],
)
def test_whatever_is_sent_there_is_a_plan_or_a_reason(asked):
    found = planner_of(PLAN, asked, study=STUDY, has_set=True)
    assert found.last == PLAN.condition
    assert found.chosen is not None or "cannot be planned" in found.title


def test_commands_hold_hostile_names_quoted():
    found = planner_of(PLAN, {}, study=study_of(name="x; rm -rf ~"), has_set=True)
    assert "--study 'x; rm -rf ~'" in found.commands["plan"]


def test_commands_of_a_shared_set_plan_what_the_page_plans(run_command):
    asked = {"purpose": "joint", "condition": "n - o > 0.1 +/- 0.1", "adaptivity": "full"}
    gate = GateConfig(reliability=0.9, steps=3)
    study = study_of(gate)
    view = joint_view(study, planner_of(gate, asked, study=study, has_set=True).settings)
    assert run_command(view.commands["size"]).startswith(f"one set: {view.examples:,}; two sets: ")


def test_labels_of_one_submission_are_told_as_an_average_where_they_are_one() -> None:
    differences = {"condition": "d < 0.1 +/- 0.05 /\\ n - o > 0.02 +/- 0.05", "adaptivity": "none"}
    found = planner_of(GateConfig(), differences, study=STUDY, has_set=False)
    assert found.chosen is not None
    assert found.chosen.labels < found.chosen.gate.labels
    assert found.title.endswith(f", about {found.chosen.labels:,} labels a submission")
    every = planner_of(GateConfig(), {"condition": "n > 0.8 +/- 0.1"}, study=STUDY, has_set=False)
    assert every.title == f"{every.chosen.examples:,} examples, {every.chosen.labels:,} labels a submission"
