"""The developer's page: what was released and nothing else, whatever the sealed sets hold; and handing in from it."""

from __future__ import annotations

import contextlib
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from judged import Judged
from page_client import without_times
from shown_commands import parse

from easeml_airflow.web.pages.submissions import PASSED, submissions_view
from easeml_airflow.web.server.formats import REFUSED, WAITS, sentence_case
from easeml_core.services.referee.requests import file_gate_request, file_meter_request, file_promotion
from easeml_core.services.reports.submissions import (
    GateState,
    LastReading,
    MeterState,
    NumberedSignal,
    Production,
    SubmissionsReport,
    daily_answers,
    submissions_report,
)
from easeml_core.services.test_sets.lifecycle import retire_test_set
from easeml_core.store.database import Store
from easeml_core.store.queries.submissions import Submission

GATE = {"condition": "n - o > 0 +/- 0.2", "reliability": 0.9, "steps": 3}
PATH = "/studies/cancer/submissions"


def gate_of(adaptivity: str) -> dict[str, object]:
    return GATE | {"adaptivity": adaptivity}


@pytest.fixture
def judged(database, artifacts, make_study, tmp_path):
    """A study with a model that passes and one that does not, both read by the meter."""

    def make(adaptivity: str = "full", *, answers: dict[str, int]) -> tuple[Judged, dict[str, int]]:
        made = Judged(database, artifacts, make_study(gate=gate_of(adaptivity)))
        return made, live_through(made, tmp_path, answers)

    return make


def live_through(made: Judged, folder, answers: dict[str, int]) -> dict[str, int]:
    """Hand models in that answer wrongly so many times, and ask gate and meter about each; name to model."""
    ids = {name: made.hand_in(name, folder, loss=0.05) for name in answers if name != "baseline"}
    for name, wrong in answers.items():
        made.let_answer(ids.get(name), wrong=wrong)
    for model_id in ids.values():
        made.gate(model_id)
        made.meter(model_id)
    return ids


@pytest.mark.own_database  # which is copied
def test_two_worlds_that_differ_in_what_is_sealed_show_developers_the_same(
    database, artifacts, make_study, daily, ask_as, tmp_path
):
    study = make_study(gate=gate_of("full"))
    name = f"{database.name}_there"
    for role in ("owner", "worker", "referee"):
        getattr(database, role).close()
    database.server.create_database_from_template(name, database.name)
    stores = {role: Store(database.server.url(f"easeml_{role}", name)) for role in ("worker", "referee")}
    there = SimpleNamespace(server=database.server, name=name, **stores)
    worlds = [Judged(database, artifacts, study), Judged(there, artifacts, study)]
    try:
        counts = {"baseline": 25, "poor": 26, "good": 2}, {"baseline": 22, "poor": 24, "good": 4}
        for world, wrong, seconds in zip(worlds, counts, (2, 50), strict=True):
            ids = live_through(world, tmp_path, wrong)
            retire_test_set(world.database.referee, test_set="2")
            late = world.hand_in("late", tmp_path, loss=0.05)
            world.meter(late)
            daily(world, seconds)
            asked = {"study": study, "model_id": late, "request_key": "late"}
            file_gate_request(world.database.worker, **asked)
            assert ids["good"] < late
        pages, reports = [], []
        for world in worlds:
            database.worker = world.database.worker  # what the pages' server reads
            page = ask_as("dev").get(PATH)
            assert page.status_code == 200
            pages.append(without_times(page.text))
            with world.database.referee.begin() as tx:
                entries = tx.exec_driver_sql("SELECT answer, report FROM sealed.ledger ORDER BY id").all()
            reports.append([(answer, report) for answer, report in entries])
        assert pages[0] == pages[1]
        for told in ("daily at TIME", "answers leave TIME", "ended before this"):
            assert told in pages[0]
        assert [answer for answer, _ in reports[0]] == [answer for answer, _ in reports[1]]
        assert {"pass", "fail"} <= {answer for answer, _ in reports[0]}, "there was something to see"
        for (_, ours), (_, theirs) in zip(*reports, strict=True):
            assert ours != theirs, "and the worlds do differ"
    finally:
        for store in stores.values():
            store.close()
        database.server.drop_database(name)


def test_a_model_that_passed_is_promoted_by_whom_and_how(judged, ask_as):
    made, ids = judged(answers={"baseline": 40, "poor": 41, "good": 2})
    dev, command, good = ask_as("dev"), "easeml model promote cancer", ids["good"]
    parse(f"{command} {good}")
    assert dev.page(PATH).section("Gate").part("code").text == f"{command} {good}"
    assert "/gate" not in dev.get(PATH).text
    assert f"/studies/cancer/gate?model={good}" in ask_as("ada", "referee").page(PATH).links.values()
    promotion = {"study": "cancer", "model_id": good, "gate_request_id": made.gate(good).request_id}
    file_promotion(made.database.referee, **promotion, request_key="up", directly=True)
    assert dev.page(PATH).section("Gate").part("code").text == f"{command} MODEL"


@pytest.fixture
def daily():
    """Let the answers of a world have left on the last days, one a day, at six o'clock and some seconds."""

    def move(world, seconds: int) -> None:
        with contextlib.closing(world.database.server.connect(database=world.database.name)) as opened:
            cursor = opened.cursor()
            cursor.execute("SET session_replication_role = replica")  # past the trigger that keeps answers as they are
            cursor.execute(
                "UPDATE work.answers SET answered_at = date_trunc('day', now(), 'UTC') "
                "+ make_interval(days => -request_id::int, hours => 6, secs => %s)",
                [seconds],
            )
            opened.commit()

    return move


def test_when_the_next_answers_leave_follows_from_when_the_last_ones_did(judged, daily, ask_as):
    made, _ = judged(answers={"baseline": 40, "poor": 41, "good": 2})
    dev = ask_as("dev")
    page = dev.page(PATH)
    assert ("daily" in page.facts["Answers leave"], page.has("dd time[data-style=clock]")) == (False, False)
    daily(made, 4)
    page = dev.page(PATH)
    hour, following = (page.part(f"dd time[data-style={style}]") for style in ("clock", "minute"))
    assert hour.soup["datetime"].endswith("T06:00:00+00:00")
    assert page.facts["Answers leave"].startswith("daily at 06:00:00 UTC")
    assert page.facts["Answers leave"].endswith(f"; next {following.text}")
    assert not page.has("p.now time"), "nothing waits"
    third = made.hand_in("third", made.artifacts.root.parent, loss=0.05)
    form = {"model": str(third), "gate": "true", "request_key": "third"}
    assert dev.post(PATH, data=form).status_code == 303
    page = dev.page(PATH)
    assert "3 waits" in page.part("p.now").text
    moment = datetime.fromisoformat(page.part("p.now time").soup["datetime"])
    assert (moment.hour, moment.minute, moment > datetime.now(UTC)) == (6, 0, True)
    assert moment - datetime.now(UTC) <= timedelta(days=1)


FIRST = datetime(2026, 1, 1, tzinfo=UTC)
SIX = FIRST + timedelta(hours=6)


@given(
    st.lists(st.integers(0, 9 * 86_400).map(lambda second: FIRST + timedelta(seconds=second)), max_size=8)
    | st.lists(
        st.tuples(st.integers(0, 8), st.integers(0, 150)).map(lambda n: SIX + timedelta(days=n[0], seconds=n[1]))
    ),
    st.integers(9 * 86_400, 20 * 86_400).map(lambda second: FIRST + timedelta(seconds=second)),
)
def test_an_hour_is_told_only_where_all_answers_left_at_it(left, now):
    told = daily_answers(left, now)
    if told is None:
        return
    assert now < told.next <= now + timedelta(days=1)
    for moment in left:
        late = moment - datetime.combine(moment.date(), told.hour, tzinfo=UTC)
        assert timedelta(0) <= late < timedelta(minutes=2)
    assert len({moment.date() for moment in left}) > 1


def test_a_model_that_came_after_the_meters_set_had_ended_does_not_wait_for_a_signal(judged, database, ask_as):
    made, _ = judged(answers={"baseline": 40, "poor": 41})
    retire_test_set(database.referee, test_set="2")
    late = made.hand_in("late", made.artifacts.root.parent, loss=0.05)
    request = {"study": "cancer", "model_id": late, "request_key": f"meter/{late}"}
    file_meter_request(database.worker, **request)
    for _ in range(2):  # before the referee has said so, and after
        page = ask_as("dev").page(PATH)
        row, _ = page.table
        assert row["Submission"].startswith(f"2. late model {late},")
        assert row["Gate"].startswith("not sent")
        assert row["Meter"].startswith("no signal")
        assert row["Meter"].endswith("before this model"), "and no more is said of it"
        assert "No meter set" in page.part("p.now").text
        assert "waits" not in page.text
        assert made.meter(late).refused


def test_symbols_signals_and_what_is_left_are_those_that_were_released(judged, database, ask_as, recorded):
    judged(answers={"baseline": 25, "poor": 26, "good": 2})  # far from the edge of range 1, however it is split
    report = submissions_report(database.worker, study="cancer")
    assert [(s.number, s.called, s.symbol, s.signal) for s in report.submissions] == [
        (2, "good", "pass", 1),
        (1, "poor", "fail", 1),
    ]
    page = ask_as("dev").page(PATH)
    assert page.facts["Gate steps left"] == "1 of 3"
    assert page.facts["Meter submissions left"] == "2 of 4"
    recorded(page.recorded(), "submissions")


def test_no_number_of_the_referees_is_on_the_developers_page(judged, ask_as):
    """Counts that only the ledger has, in text, attributes and everything else; the referee's page shows them."""
    made, ids = judged(answers={"baseline": 43, "poor": 41, "good": 2})
    report = made.report(answer_id(made, ids["good"]))
    sealed = [str(report[name]) for name in ("wins", "labels", "disagreements", "examples")]
    clause = report["clauses"][0]
    sealed += [f"{abs(clause['estimate']):.4f}", *(f"{abs(end):.4f}" for end in clause["interval"])]
    assert report["wins"] == 41
    developers = without_times(ask_as("dev").get(PATH).text)
    developers = re.sub(r'(d|x|y|x\d|left|width)="[^"]*"|data-events="[^"]*"', "", developers)  # shapes
    referees = ask_as("ada", "referee").page("/studies/cancer/gate").text
    for number in sealed:
        assert re.search(rf"(?<![\d.]){re.escape(number)}(?!\d)", referees), number
        assert not re.search(rf"(?<![\d.]){re.escape(number)}(?!\d)", developers), number
    for word in ("nats", "ledger", "evidence", "wins", "interval", "sealed inputs"):
        assert word not in developers.lower(), word


def answer_id(made: Judged, model_id: int) -> int:
    with made.database.worker.begin() as tx:
        query = f"SELECT id FROM work.requests WHERE kind = 'gate' AND model_id = {model_id}"
        return int(tx.exec_driver_sql(query).scalar_one())


def test_under_none_a_developer_sees_that_it_was_handed_in_and_no_symbol(judged, ask_as):
    judged("none", answers={"baseline": 40, "poor": 41, "good": 2})
    page = ask_as("dev").page(PATH)
    assert page.lead.startswith("Submission 2 is")
    assert "withheld" in page.lead
    assert page.text.count("Handed in") == 3, "the one of the newest, and one a row"
    assert "Pass" not in page.text
    assert "Fail" not in page.text
    assert "withheld" in page.section("The condition").text


def test_a_model_is_handed_in_once_however_often_the_button_is_pressed(
    database, artifacts, make_study, ask_as, tmp_path
):
    made = Judged(database, artifacts, make_study(gate=gate_of("full")))
    model_id = made.hand_in("better <script>alert(1)</script>", tmp_path, loss=0.05)
    client = ask_as("dev")
    form = client.page(PATH).form(PATH).fields
    assert form == {"model": str(model_id), "gate": "true", "meter": "true", "request_key": form["request_key"]}
    for _ in range(2):
        answer = client.post(PATH, data=form)
        assert (answer.status_code, answer.headers["location"]) == (303, PATH)
    with database.worker.begin() as tx:
        asked = tx.exec_driver_sql("SELECT kind, model_id FROM work.requests WHERE kind <> 'seal' ORDER BY id").all()
    assert [tuple(row) for row in asked] == [("gate", model_id), ("meter", model_id)]
    page = client.page(PATH)
    assert "alert(1)" in page.table[0]["Submission"], "as text"
    assert not page.has("script:-soup-contains('alert')")
    assert "1 waits" in page.part("p.now").text


def test_handing_in_is_refused_to_the_wrong_person_and_for_the_wrong_model(make_study, ask_as):
    make_study(gate=gate_of("full"))
    form = {"model": "1", "gate": "true", "request_key": "k"}
    looker = ask_as("vic", rights=lambda _study, _tenant, *, write: not write)
    assert looker.get(PATH).status_code == 200
    assert "d-submit" not in looker.get(PATH).text
    assert looker.post(PATH, data=form).status_code == 403
    stranger = ask_as("eve", rights=lambda _study, _tenant, *, write: False)
    assert stranger.get(PATH).status_code == 404
    assert stranger.post(PATH, data=form).status_code == 404
    developer = ask_as("dev")
    assert developer.post(PATH, data=form | {"model": "999"}).status_code == 404
    assert developer.post(PATH, data={"model": "1", "request_key": "k"}).status_code == 400, "nobody was asked"


def test_a_study_without_submissions_says_what_to_do(make_study, ask_as, recorded):
    make_study(gate=gate_of("full"))
    page = ask_as("dev").page(PATH)
    assert page.facts["Gate steps left"] == "3 of 3"
    recorded(page.recorded(), "submissions_without_any")


SUBMISSION = Submission(
    number=7,
    model_id=70,
    handed_in_at=datetime(2026, 1, 1, tzinfo=UTC),
    total=7,
    called="net",
    in_production=False,
    gate_waits=False,
    symbol=None,
    planned=None,
    refusal=None,
    meter_waits=False,
    meter_too_late=False,
    meter_refusal=None,
    signal=None,
    signals=None,
    teams=None,
)
GATE_STATE = GateState("n > 0.5 +/- 0.1", "full", "fp-free", 0.9999999, steps=8, steps_used=1, is_live=True)
EDGES = [0.05, 0.13, 0.25, 0.4]
METER = MeterState(
    edges=EDGES,
    tolerance=0.02,
    sides=["lower", "upper"],
    reliability=0.95,
    steps=8,
    teams=1,
    is_live=True,
    reading=None,
    signals=[],
)
READING = LastReading(
    signal=1,
    signals=5,
    boundaries=EDGES,
    tolerance=0.02,
    submissions_left=3,
    meaning="the gap is so",
    sentence=None,
    reliability=0.95,
    model_id=70,
    number=1,
)


def view_of(submissions=(), gate=None, meter=None):
    return submissions_view(SubmissionsReport(1, submissions, gate, meter, Production(None, None), [], None))


@pytest.mark.parametrize(
    ("facts", "gate", "note", "signal", "meter"),
    [
        ({"signal": 3, "signals": 4, "teams": 2}, None, "", None, "each team"),
        ({"signals": 4, "teams": 1}, None, "", None, "ended with this"),
        ({"meter_waits": True}, None, "", None, "waits"),
        ({"meter_waits": True, "meter_too_late": True}, None, "", None, "ended before this"),
        ({"meter_refusal": "given up"}, None, "", None, "refused"),
        ({"gate_waits": True, "symbol": "fail", "planned": True}, WAITS, "", None, "not sent"),
        ({"symbol": "pass", "planned": False}, PASSED, "another condition", None, "not sent"),
        ({"refusal": "no live set"}, REFUSED, "no live set", None, "not sent"),
    ],
)
def test_every_state_of_a_submission_has_words(facts, gate, note, signal, meter):
    (row,) = view_of([replace(SUBMISSION, **facts)]).rows
    assert (row.gate, bool(row.note), row.signal) == (gate, bool(note), signal)
    assert note in row.note
    assert meter in row.meter


def test_teams_that_share_a_meter_hear_nothing_of_each_others_end():
    """A refused request has no reading, so that only the set itself says how many share it."""
    meter = replace(METER, teams=2)
    for changes in ({"meter_refusal": "the set has ended"}, {"meter_waits": True, "meter_too_late": True}):
        (row,) = view_of([replace(SUBMISSION, **changes)], meter=meter).rows
        assert ("each team" in row.meter, row.meter_note) == (True, "")


def test_the_plot_says_where_the_signal_changed():
    signals = [(1, 1), (2, 1), (4, 2), (5, 2), (6, 3)]
    given = [NumberedSignal(n, place, signal) for place, (n, signal) in enumerate(signals, 1)]
    reading = replace(READING, signal=3, signals=3, boundaries=[0.1, 0.3], tolerance=0.05, reliability=0.9)
    reading = replace(reading, meaning="the gap is above 0.3 (+/- 0.05)")
    meter = replace(METER, edges=[0.1, 0.3], tolerance=0.05, reliability=0.9, reading=reading, signals=given)
    view = view_of(meter=meter)
    assert re.findall(r"\d", view.signals.title) == ["1", "2", "2", "5", "3"], "1 until 2, 2 until 5, now 3"
    assert [cell.look for cell in view.signals.cells] == ["e1", "e1", "e2", "e2", "e3"]
    assert view.signals.left_over == (62.5, "3 left")
    assert view.advice[2][0].startswith("Ask the referee")
    assert view.promise.startswith(sentence_case(reading.meaning))
    assert view.promise.endswith(" 0.9.")


def submissions_at(signal, *, reading=READING, **changes):
    reading = replace(reading, signal=signal)
    return view_of(meter=replace(METER, reading=reading, signals=[NumberedSignal(1, 1, signal)], **changes))


def test_only_the_last_range_says_that_validation_data_are_worth_nothing():
    told = {signal: submissions_at(signal).advice for signal in (2, 3, 4, 5)}
    assert [("no longer stand" in told[signal][1]) for signal in told] == [False, False, False, True]
    assert told[3][2] == told[5][2]  # what to do is the same: new validation data
    assert "may bring" in told[2][2][-1]  # drift would stay


def test_a_reliability_is_never_rounded_to_certainty():
    assert submissions_at(1, reading=replace(READING, reliability=0.9999999)).promise.endswith("reliability 0.9999999.")
    told = view_of(gate=GATE_STATE).rule
    assert ("No pass" in told, " 0.9999999 " in told, "fails" in told) == (True, True, False)
    other = view_of(gate=replace(GATE_STATE, mode="fn-free")).rule
    assert ("No fail" in other, "fails" in other) == (True, True), "what cannot be judged fails"


def test_a_gauge_shows_no_end_that_the_method_does_not_promise():
    assert submissions_at(3).gauge.promised == "0.11 to 0.27"
    assert submissions_at(3, sides=["upper"]).gauge.promised == "up to 0.27"
    assert submissions_at(5, sides=["upper"]).gauge.promised == "any amount"


def test_validation_data_are_said_to_flatter_only_where_the_gap_must_be_above_0():
    assert [("flatter" in submissions_at(signal).now[0]) for signal in (1, 2, 3)] == [False, True, True]
    wide = submissions_at(2, reading=replace(READING, tolerance=0.06))
    assert "flatter" not in wide.now[0]
    assert "flatter" not in submissions_at(3, sides=["upper"]).now[0]
