"""The meter's page: the referee's alone, with the figures of the ledger; the gauge, what it says, and the planner."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
import shlex
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from registering import register_study
from shown_commands import parse

from easeml_airflow.web.components.gauge import gauge_of
from easeml_airflow.web.components.test_sets import ledger_file
from easeml_airflow.web.pages.meter import METHODS, finding_of, picture_of, plan_picture
from easeml_airflow.web.server.formats import gain_text
from easeml_core.cli.app import cli
from easeml_core.entities import AlertKind, SealedSetPurpose, SealedSetState
from easeml_core.meter.planner import plan_meter
from easeml_core.meter.ranges import signal_of
from easeml_core.services.meter.alerts import open_alerts
from easeml_core.services.meter.results import MeterAnswer, MeterHistory, meter_history
from easeml_core.services.referee.process import Referee
from easeml_core.services.referee.requests import file_meter_request
from easeml_core.services.test_sets.lifecycle import ShownSet, plan_test_set
from easeml_core.services.test_sets.planning import meter_plans
from easeml_core.settings.config import MeterConfig
from easeml_core.store.rows import rows
from easeml_core.store.tables import models, releases, studies, trials

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_numbers = itertools.count()


@pytest.fixture
def submit(database: Any, artifacts: Any, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Have another copy of a model that always says the same read; the newest entry of the meter's ledger."""

    def do(study: str = "cancer") -> dict[str, Any]:
        number = next(_numbers)
        path = tmp_path / f"model-{number}"
        path.write_text('{"label": 1}' + " " * number)
        artifact = artifacts.put(path)
        with database.worker.begin() as tx:
            found = studies.get_study(tx, study)
            ids = {"study_id": found.id, "data_version_id": studies.latest_data_version(tx, found.id).id}
            studies.add_candidates(tx, found.id, [{"name": path.name, "kind": "decision_tree"}])
            candidate = next(c for c in studies.list_candidates(tx, found.id) if c.name == path.name)
            trial = trials.add_trial(tx, candidate_id=candidate.id, **ids)
            model = models.add_model(
                tx, trial_id=trial, format="constant", artifact=artifact, validation_loss=0.4, **ids
            )
        file_meter_request(database.worker, study=study, model_id=model, request_key=path.name)
        referee = Referee(database.referee, artifacts)
        while referee.answer_one() is not None:
            pass
        newest: MeterAnswer = meter_history(database.referee, study=study).entries[0]
        return newest

    return do


def test_the_page_says_what_the_ledger_says(
    make_study: Any, submit: Any, ask_as: Any, recorded: Any, database: Any
) -> None:
    make_study()
    ada = ask_as("ada", "referee")
    assert ada.page("/studies/cancer/meter").lead == "No answer yet."
    entries = [submit(), submit()]
    last = entries[-1]
    assert last.signal == signal_of(last.gap, (0.2, 0.6))
    page = ada.page("/studies/cancer/meter")
    assert page.lead == f"Signal {last.signal} of 3."
    for row, entry in zip(page.table, reversed(entries), strict=True):
        assert (row["Submission"], row["Signal"]) == (f"Submission {entry.step}", f"{entry.signal} of 3")
        assert row["Measured"] == f"{gain_text(entry.gap)} ± {entry.tolerance:.4f}"
        assert row["Cost, nats"] == f"{entry.cost:.2f}"
    assert page.has("svg.gauge circle"), "the needle"
    recorded(page.recorded(), "meter")
    history = meter_history(database.referee, study="cancer", size=1, page=2)
    assert ([e.step for e in history.entries], history.entry_count) == ([1], 2)
    assert [a.step for a in history.answers] == [1, 2]


def test_only_a_referee_sees_it_and_nothing_of_it_is_on_other_pages(make_study: Any, submit: Any, ask_as: Any) -> None:
    make_study()
    entry = submit()
    for client in (ask_as("dev"), ask_as("olga", "operator"), ask_as("lea", "labeler")):
        assert client.get("/studies/cancer/meter").status_code == 403
        assert client.post("/studies/cancer/meter/accept", data={"alert_id": 1}).status_code == 403
        assert client.get("/studies/cancer/meter/ledger.csv?set=2").status_code == 403
        data = client.get("/studies/cancer/data").text
        assert "/studies/cancer/meter" not in data
        assert f"{abs(entry.gap):.4f}" not in data
        assert f"{entry.tolerance:.4f}" not in data
    assert ask_as("ada", "referee").get("/studies/nope/meter").status_code == 404


def test_a_study_without_a_set_has_a_planner(database: Any, ask_as: Any) -> None:
    register_study(database.worker, study="new", tenant="lab", source="sklearn:wine", request_key="r")
    page = ask_as("ada", "referee").page("/studies/new/meter")
    plans = meter_plans(ranges=(0.05, 0.13, 0.25), tolerance=0.02, reliability=0.99, steps=32)
    assert (page.has("svg.gauge"), page.has("table"), plans.best.labels) == (False, False, 8_262)
    assert "No meter set" in page.text
    assert plan_picture(plans, steps=32).title in page.section("Plan").text


def test_an_alert_is_told_and_accepted_once(make_study: Any, ask_as: Any, database: Any) -> None:
    make_study()
    hostile, why = "<now>", "no more <models> come"
    with database.referee.begin() as tx:
        found = studies.get_study(tx, "cancer")
        for purpose, test_set in (("meter", 2), ("gate", 1)):
            message = f"seal a new {purpose} set {hostile}"
            asked = {"kind": AlertKind.NEW_TEST_SET, "test_set_id": test_set}
            releases.add_alert(tx, study_id=found.id, study="cancer", message=message, **asked)
    ada, accepting = ask_as("ada", "referee"), "/studies/cancer/meter/accept"
    page = ada.page("/studies/cancer/meter")
    assert f"meter set {hostile}" in page.section("1 thing here").text
    assert not page.has("now"), "as text"
    assert "gate set" not in page.text  # that is the gate's
    assert "new meter set" in page.part("#needs b").text
    form = page.form(accepting).fields
    for _ in range(2):
        assert ada.post(accepting, data=form | {"reason": why}).status_code == 303
    assert [alert.alert_id for alert in open_alerts(database.worker, study="cancer")] == [2]
    with database.worker.begin() as tx:
        (newest,) = rows(tx, "SELECT who, door, reason FROM work.audit ORDER BY id DESC LIMIT 1")
    assert tuple(newest) == ("ada", "page", why)


def test_the_ledger_is_exported_for_referees(make_study: Any, submit: Any, ask_as: Any) -> None:
    make_study()
    entries = [submit(), submit()]
    ada = ask_as("ada", "referee")
    exported = ada.get(ada.page("/studies/cancer/meter").part("a[download]").soup["href"])
    assert exported.headers["content-type"] == "text/csv; charset=utf-8"
    assert exported.headers["content-disposition"] == 'attachment; filename="ledger-2.csv"'
    table = list(csv.DictReader(io.StringIO(exported.text)))
    assert [int(row["step"]) for row in table] == [2, 1]
    for row, entry in zip(table, reversed(entries), strict=True):
        assert (float(row["gap"]), float(row["log_cost"])) == (entry.gap, entry.cost)
        assert (int(row["signal"]), int(row["model_id"])) == (entry.signal, entry.model_id)
    for unknown in (1, 99):  # the gate's, and none
        assert ada.get(f"/studies/cancer/meter/ledger.csv?set={unknown}").status_code == 404
    assert ada.get("/studies/nope/meter/ledger.csv?set=2").status_code == 404


def test_a_ledger_as_a_file_runs_nothing_in_a_spreadsheet() -> None:
    told = {
        "why": '=HYPERLINK("x")',
        "gap": -0.5,
        "signal": None,
        "is_retired": True,
        "when": datetime(2026, 3, 1, tzinfo=UTC),
    }
    file = ledger_file(
        [SimpleNamespace(**told)], {"why": "why", "log_cost": "gap"} | {n: n for n in list(told)[2:]}, test_set=3
    )
    (row,) = csv.DictReader(io.StringIO(bytes(file.body).decode()))
    assert row == {
        "why": '\'=HYPERLINK("x")',
        "log_cost": "-0.5",
        "signal": "",
        "is_retired": "True",
        "when": "2026-03-01T00:00:00+00:00",
    }


@pytest.mark.parametrize("other", [{}, {"tail": "hoeffding", "one_sided": True, "method": "full", "ambiguous": 0}])
def test_the_plan_on_the_command_line_is_the_plan_of_the_page(
    other: dict[str, Any], make_study: Any, ask_as: Any, database: Any
) -> None:
    """Whatever the study's own settings are: the command says all in which the page's plan differs from them."""
    make_study(**({"meter": {"ranges": [0.2, 0.6], "tolerance": 0.3, "steps": 4} | other} if other else {}))
    asked = {"tolerance": 0.05, "reliability": 0.98, "steps": 16, "teams": 2, "edges": "-0.1, 0.2, 0.6"}
    page = ask_as("ada", "referee").page("/studies/cancer/meter", params=asked)
    size, plan, seal = page.part("#m-commands").soup.get_text().split("\n")
    for command in (size, plan, seal):
        parse(command)
    done = CliRunner().invoke(cli, [*shlex.split(size)[1:], "--json"])
    labels = f"{json.loads(done.stdout)['labels']:,} labels"
    assert page.part("figure:has(.planm)").text.startswith(f"{labels} serve 16 submissions")
    told = parse(plan).params
    assert (told["study"], told["purpose"], parse(seal).params["purpose"]) == ("cancer", "meter", "meter")
    planned = plan_test_set(
        database.referee, study="cancer", name="next", purpose="meter", settings=json.loads(told["meter"])
    )
    assert planned.plan.ranges == (-0.1, 0.2, 0.6)
    expected = asked | {"tail": "clopper-pearson", "method": "path-adaptive", "ambiguous": 5, "one_sided": False}
    assert {name: getattr(planned.plan, name) for name in expected if name != "edges"}.items() <= expected.items()
    beside = page.part(".panel:has([data-copy=m-commands])").text
    assert f" {labels}," in beside
    assert f" {planned.rows:,} examples," in beside


def test_the_planner_answers_what_the_command_line_answers(make_study: Any, ask_as: Any) -> None:
    make_study()
    ada = ask_as("ada", "referee")
    asked = {"tolerance": 0.05, "reliability": 0.99, "steps": 32, "teams": 1, "edges": "0.2, 0.4, 0.6, 0.8"}
    bars = ada.page("/studies/cancer/meter", params=asked).part(".planm").text.split()
    for labels in ("2,446", "5,496", "11,083", "11,361", "56,096", "70,251", "3,628", "3,997"):
        assert labels in bars  # specs/meter.md 5.1, second column
    for change, complaint in (
        ({"edges": "a, b"}, "edges are numbers"),
        ({"edges": "0.4, 0.2"}, "ranges must be rising"),
        ({"edges": "nan"}, "ranges must be"),
        ({"steps": 5000}, "from 1 to 1,024"),
        ({"tolerance": "nan"}, "tolerance must be"),
        ({"tolerance": "0.0049"}, "at least 0.005"),
        ({"teams": 33}, "from 1 to 32"),
    ):
        page = ada.page("/studies/cancer/meter", params=asked | change)
        assert complaint in page.part("[role=alert]").text
    assert ada.get("/studies/cancer/meter", params={"page": 0}).status_code == 400


def test_bars_are_on_one_scale_and_the_recommended_one_is_the_planners() -> None:
    plans = meter_plans(ranges=(0.05, 0.13, 0.25), tolerance=0.02, reliability=0.99, steps=32)
    best = plan_meter(
        ranges=(0.05, 0.13, 0.25),
        tolerance=0.02,
        reliability=0.99,
        steps=32,
        ambiguous=5,
        tail="clopper-pearson",
        error_rate=0.2,
    )
    picture = plan_picture(plans, steps=32)
    assert (picture.bars[0].labels, picture.bars[0].is_best) == (best.labels, True)
    whole = [bar for bar in picture.bars if not bar.is_cut]
    assert all(bar.share == pytest.approx(100 * bar.labels / picture.cut_at, abs=0.02) for bar in whole)
    assert {bar.name for bar in picture.bars if bar.is_cut} == {METHODS["fresh"][0], METHODS["score"][0]}
    assert "no reactions" not in {bar.name for bar in picture.bars}  # it is no guarantee


edges_of_meters = st.lists(st.integers(-99, 99), min_size=1, max_size=7, unique=True).map(
    lambda cents: tuple(sorted(cent / 100 for cent in cents))
)


@given(edges_of_meters, st.data(), st.floats(0.001, 0.5), st.floats(-1, 1))
def test_a_gauge_has_a_sector_a_signal_and_lights_one(edges: Any, data: Any, tolerance: float, gap: float) -> None:
    signal = data.draw(st.none() | st.integers(1, len(edges) + 1))
    made = gauge_of(signal, edges, tolerance, measured=None if signal is None else gap)
    assert [sector.number for sector in made.sectors] == list(range(1, len(edges) + 2))
    assert [sector.number for sector in made.sectors if sector.is_lit] == ([] if signal is None else [signal])
    assert (bool(made.band), bool(made.needle)) == (signal is not None, signal is not None)
    for path in [made.band, made.needle, *(sector.path for sector in made.sectors)]:
        numbers = [float(number) for number in re.findall(r"-?\d+\.?\d*", path)]
        assert all(0 <= number <= 340 for number in numbers)
    assert gauge_of(signal, edges, tolerance).needle == ""  # nobody gets one who was not given the gap


@given(st.lists(st.integers(1, 4), min_size=1, max_size=12))
def test_the_finding_names_the_last_answers_in_the_ranges_that_were_left(signals: list[int]) -> None:
    told = finding_of(signals)
    for crossed, after in re.findall(r"range (\d) after (?:submission )?(\d+)", told):
        assert signals[int(after) - 1] <= int(crossed)
        assert all(signal > int(crossed) for signal in signals[int(after) :])
    if "left" not in told:
        assert signals[-1] in (max(signals), int(re.findall(r"range (\d)", told)[0]))
        assert signals[-1] < max(signals) or len(set(signals)) == 1


def test_a_rising_history_is_drawn_with_its_edges_and_what_is_left() -> None:
    gaps = [0.006, 0.031, 0.059, 0.164]
    settings = MeterConfig(ranges=(0.05, 0.13, 0.25), tolerance=0.02, steps=32, ambiguous=5, method="path-adaptive")
    usual = {"system": "meter", "is_retired": False, "tolerance": 0.015, "cost": 0.0, "level": 1e-4, "log_level": -9.2}
    usual |= {"team": 1, "edges": (), "promised": None, "why": "", "model_id": 1}
    usual |= {"decided_at": datetime(2026, 1, 1, tzinfo=UTC), "answered_at": None}
    answers = [
        MeterAnswer(step=n, gap=gap, signal=signal_of(gap, settings.ranges), reachable=1 + (n in (2, 3)), **usual)
        for n, gap in enumerate(gaps, start=1)
    ]
    shown = ShownSet(
        **{"test_set_id": 1, "study": "a", "name": None, "purpose": SealedSetPurpose.METER, "rows": 100, "steps": 32},
        **{"steps_used": 4, "systems": {}, "labels_on_demand": False, "retired_why": None, "artifact": None},
        state=SealedSetState.LIVE,
        plan=settings,
    )
    history = MeterHistory(
        **{"sets": [shown], "chosen": shown, "settings": settings, "sides": ["lower", "upper"], "budget": []},
        **{"answers": answers, "second": None, "reading": None, "entries": [], "entry_count": 4},
        validation_rows=100,
    )
    picture = picture_of(history)
    assert picture.signals is not None
    assert picture.tolerances is not None
    assert picture.signals.title == finding_of([signal_of(gap, settings.ranges) for gap in gaps])
    assert picture.tolerances.title.startswith("2 of 5 ")
    assert picture.gauge.sentence.startswith("Signal 3 of 4: ")
    assert picture.gauge.sentence.endswith("0.1640")
    assert (picture.gauge.promised, picture.left) == ("0.11 to 0.27", 28)
    for value in (*gaps, 0.05, 0.13, 0.25):
        assert 0 <= picture.signals.top(value) <= 100
    assert [note.text for note in picture.signals.notes] == ["signal 1", "signal 2", "signal 3", "signal 4", "28 left"]
    rises = picture_of(
        replace(history, sides=["upper"])
    ).gauge  # of a ratchet: an earlier model may have been the worse
    assert (rises.says, rises.promised) == ("0.13 to 0.25", "up to 0.27")
    assert rises.band != picture.gauge.band
    assert picture_of(replace(history, chosen=replace(shown, state=SealedSetState.RETIRED))).left is None
