"""The referee's gate page: facts as the services have them, and every change it offers."""

from __future__ import annotations

import csv
import io
import math
import shlex

import numpy as np
import pytest
from click.testing import CliRunner
from judged import Judged
from page_reader import Page
from registering import register_study
from shown_commands import parse

from easeml_airflow.web.components.condition_field import check_of, read_condition
from easeml_airflow.web.pages.gate.page import gate_view
from easeml_airflow.web.pages.gate.planner import joint_view, planner_of
from easeml_airflow.web.pages.gate.verdict import clause_view
from easeml_airflow.web.server.auth import Role, Viewer
from easeml_airflow.web.server.formats import power_text, signed
from easeml_airflow.web.server.site import Site
from easeml_core.cli.app import cli
from easeml_core.entities import AlertKind, Mode, Verdict
from easeml_core.errors import StoreUnavailableError
from easeml_core.gate.condition import parse_condition
from easeml_core.gate.report import ClauseReport
from easeml_core.services.meter.alerts import open_alerts
from easeml_core.services.referee.requests import file_forced_promotion, file_gate_request
from easeml_core.services.reports.gate import LabelWork, gate_report
from easeml_core.services.test_sets.answers import study_ledger
from easeml_core.services.test_sets.planning import plan_joint
from easeml_core.settings.config import GateConfig
from easeml_core.store.rows import rows
from easeml_core.store.tables import labels, releases, studies

PATH = "/studies/cancer/gate"

GATE = {"condition": "n - o > 0 +/- 0.2", "reliability": 0.9, "steps": 3, "adaptivity": "full"}


@pytest.fixture
def judged(database, artifacts, make_study, tmp_path):
    """A study whose submission 1 failed and whose submission 2 passed."""
    made = Judged(database, artifacts, make_study(gate=GATE))
    ids = [made.hand_in(name, tmp_path, loss=0.05) for name in ("poor <b>net</b>", "good")]
    for model_id, wrong in ((None, 40), (ids[0], 41), (ids[1], 2)):
        made.let_answer(model_id, wrong=wrong)
    made.asked = {model_id: made.gate(model_id).request_id for model_id in ids}
    made.ids = ids
    return made


@pytest.fixture
def referee(ask_as):
    return ask_as("ada", "referee")


def _view(judged, **asked):
    return gate_view(gate_report(judged.database.referee, study="cancer", **asked), study="cancer", path=PATH)


def test_the_page_reads_as_recorded(judged, referee, recorded):
    recorded(referee.page(PATH).recorded(), "gate")


def test_the_verdict_in_full_is_what_the_ledger_says(judged, referee):
    report = judged.report(judged.asked[judged.ids[1]])
    (clause,), level = report["clauses"], report["log_level"]
    verdict = referee.page(PATH).section("Verdict on submission 2")
    assert verdict.facts["New right, old wrong"] == str(report["wins"])
    assert verdict.facts["Labels used"] == str(report["labels"])
    assert verdict.facts["Level of this test"] == f"{power_text(level)} ({-level:.1f} nats)"
    view = _view(judged)
    plot = view.verdict.clauses[0].plot
    assert [plot.estimate[1], plot.low[1], plot.high[1]] == [
        signed(v) for v in (clause["estimate"], *clause["interval"])
    ]
    assert verdict.has(f'svg[aria-label="{plot.sentence}"]')
    assert (view.verdict.mark.word, view.verdict.step) == ("Pass", "step 2 of 3")
    assert view.promote == (judged.ids[1], judged.asked[judged.ids[1]])
    assert [(row.steps, row.passes.split()[0]) for row in view.sets] == [("2 of 3", "1")]
    assert [need.href for need in view.needs] == [f"{PATH}#plan"], "one step is left"


def test_another_submission_can_be_chosen(judged, referee):
    page = referee.page(f"{PATH}?submission=1")
    view = _view(judged, submission=1)
    assert (view.verdict.number, view.verdict.mark.word, view.verdict.step) == (1, "Fail", "step 1 of 3")
    assert page.section("Verdict on submission 1").facts == dict([*view.verdict.labels, *view.verdict.evidence])
    assert "<b>net" in page.text, "as text"
    assert not page.has("b:-soup-contains('net')")
    assert referee.get(f"{PATH}?submission=99").status_code == 404
    assert referee.get(f"{PATH}?set=99").status_code == 404


def test_the_verdict_on_a_model_can_be_chosen_and_others_are_led_to_their_page(judged, referee, ask_as):
    """That is where a step of ``easeml next`` leads, which everybody who sees the study is told."""
    poor, good = judged.ids
    for model, number in ((poor, 1), (good, 2)):
        assert referee.page(f"{PATH}?model={model}").section(f"Verdict on submission {number},")
    facts = gate_report(judged.database.referee, study="cancer", submission=1, model_id=good)
    assert facts.verdict.number == 1, "the submission is the narrower question"
    assert referee.get(f"{PATH}?model=999").status_code == 404
    page = f"{PATH}?model={good}"
    assert referee.page(page).form(f"{PATH}/promote").fields["model"] == str(good)
    led = ask_as("dev").get(page)
    assert (led.status_code, led.headers["location"]) == (303, "/studies/cancer/submissions")
    stranger = ask_as("eve", rights=lambda _study, _tenant, *, write: False)
    assert stranger.get(page).status_code == stranger.get("/studies/cancer/submissions").status_code == 404


def test_nobody_but_a_referee_gets_it(judged, ask_as):
    posts = {
        "promote": {"model": "1", "gate_request": "1", "request_key": "k"},
        "rollback": {"model": "1", "why": "x", "request_key": "k"},
        "plan": {"name": "x", "condition": "n > 0.5 +/- 0.1", "reliability": "0.9", "steps": "2", "adaptivity": "none",
                 "mode": "fp-free"},
        "retire": {"test_set": "1"},
        "release": {"test_set": "1"},
        "accept": {"alert_id": "1"},
    }  # fmt: skip
    for roles in ((), ("operator",), ("labeler",)):
        client = ask_as("dev", *roles)
        assert client.get(PATH).status_code == 403
        assert client.get(f"{PATH}/ledger.csv?set=1").status_code == 403
        for act, form in posts.items():
            assert client.post(f"{PATH}/{act}", data=form).status_code == 403, act
    assert gate_report(judged.database.referee, study="cancer").sets[0].state == "live"


def test_a_pass_is_promoted_once_and_rolled_back_with_a_reason(judged, referee):
    poor, good = judged.ids
    promoting = f"{PATH}/promote"
    form = referee.page(PATH).form(promoting)
    assert form.fields | {"request_key": ""} == _promotion(good, judged.asked[good]) | {"request_key": ""}
    assert promoting not in referee.page(f"{PATH}?submission=1").actions
    refused = referee.post(promoting, data=_promotion(poor, judged.asked[poor]))
    assert refused.status_code == 409
    assert "only a pass" in refused.text
    for _ in range(2):
        answer = referee.post(promoting, data=form.fields)
        assert (answer.status_code, answer.headers["location"]) == (303, PATH)
    assert _moves(judged) == [("promote", good, None)]
    assert _view(judged).production.now.model_id == good
    assert "in production" in _view(judged).now[0]
    assert referee.page(PATH).lead == _view(judged).now[0]
    assert promoting not in referee.page(PATH).actions
    for model, why in ((poor, "never in production"), (good, "stands now")):
        nothing = referee.post(f"{PATH}/rollback", data={"model": str(model), "why": why, "request_key": why})
        assert nothing.status_code == 409, why


def _promotion(model, request):
    return {"model": str(model), "gate_request": str(request), "request_key": f"press-{model}"}


def _moves(judged):
    with judged.database.worker.begin() as tx:
        found = tx.exec_driver_sql("SELECT kind, model_id, why FROM work.promotions ORDER BY id").all()
    return [tuple(row) for row in found]


def test_what_stood_before_is_put_back(judged, referee, tmp_path):
    good = judged.ids[1]
    referee.post(f"{PATH}/promote", data=_promotion(good, judged.asked[good]))
    best = judged.hand_in("best", tmp_path, loss=0.01)
    # By a person's word, as the DAG does after its approval.
    said = {"study": "cancer", "model_id": best, "who": "bob", "why": "outage", "request_key": "forced"}
    file_forced_promotion(judged.database.referee, **said, directly=True)
    asked = referee.page(PATH).section(f"Roll back to good (model {good})?").form(f"{PATH}/rollback").fields
    assert asked["model"] == str(good), "the model that the question names"
    form = asked | {"why": "it is slow"}
    for _ in range(2):
        assert referee.post(f"{PATH}/rollback", data=form).status_code == 303
    assert _moves(judged)[-1] == ("rollback", good, "it is slow")
    late = referee.post(f"{PATH}/rollback", data=form | {"request_key": "another dialog, open at that time"})
    assert (late.status_code, len(_moves(judged))) == (409, 3)


def test_a_set_is_planned_and_retired_from_the_page(judged, referee):
    plan = {"name": "spring", "condition": "n-o>0.1+/-0.1", "reliability": "0.95", "steps": "4"}
    plan |= {"adaptivity": "firstChange", "mode": "fp-free", "power": "0.9"}
    for _ in range(2):
        answer = referee.post(f"{PATH}/plan", data=plan)
        assert (answer.status_code, answer.headers["location"]) == (303, PATH)
    settings = plan | {"condition": "n - o > 0.1 +/- 0.1", "reliability": 0.95, "steps": 4, "power": 0.9}
    settings.pop("name")
    planned, live = gate_report(judged.database.referee, study="cancer").sets
    assert (planned.state, planned.name) == ("planned", "spring")
    assert planned.rows == planner_of(GateConfig(**settings), {}, study=_study(judged), has_set=True).chosen.examples
    assert planned.plan.condition == "n - o > 0.1 +/- 0.1"
    assert referee.post(f"{PATH}/plan", data=plan | {"steps": "5"}).status_code == 409, "the name is taken"
    assert referee.post(f"{PATH}/plan", data=plan | {"condition": "n >"}).status_code == 400
    hostile = referee.post(f"{PATH}/plan", data=plan | {"name": "<i>spring"})
    assert (hostile.status_code, "<i>spring" in hostile.text) == (400, False)
    assert referee.post(f"{PATH}/retire", data={"test_set": str(live.test_set_id)}).status_code == 303
    view = _view(judged)
    assert (view.badge.word, view.selftest) == ("No set live", "")
    assert "spring" in view.now[0]
    assert [(need.colour, "spring" in need.why) for need in view.needs] == [("bad", True)]
    assert [(row.state, bool(row.ended)) for row in view.sets] == [("planned", False), ("retired", True)]
    assert "passed" in view.now[1]
    page = referee.page(PATH)
    assert page.lead == view.now[0]
    assert page.section("Sealed sets").table[1]["Ended by"] == view.sets[1].ended
    released = referee.post(f"{PATH}/release", data={"test_set": str(live.test_set_id)})
    assert released.status_code == 303
    assert gate_report(judged.database.referee, study="cancer").sets[1].state == "released"


def test_what_is_retired_released_and_accepted_keeps_the_reason(judged, referee):
    database = judged.database
    for act in ("retire", "release"):
        form = {"test_set": "1", "reason": f"{act}: <seen>"}
        assert f"{PATH}/{act}" in referee.page(PATH).actions
        assert referee.post(f"{PATH}/{act}", data=form).status_code == 303
        assert _newest_act(database) == ("ada", "page", f"{act}: <seen>")
    (alert,) = open_alerts(database.worker, study="cancer")
    page = referee.page(PATH)
    needs = page.section("2 things here need a person")
    assert alert.message in needs.text
    assert page.form(f"{PATH}/accept").fields["alert_id"] == str(alert.alert_id)
    assert page.part("[name=reason]"), "what is released has nothing more to be done to it"
    form = {"alert_id": str(alert.alert_id), "reason": "none is wanted"}
    for _ in range(2):
        answer = referee.post(f"{PATH}/accept", data=form)
        assert (answer.status_code, answer.headers["location"]) == (303, PATH)
    assert open_alerts(database.worker, study="cancer") == []
    assert _newest_act(database) == ("ada", "page", "none is wanted")
    assert f"{PATH}/accept" not in referee.page(PATH).actions


def _newest_act(database):
    with database.worker.begin() as tx:
        return tuple(rows(tx, "SELECT who, door, reason FROM work.audit ORDER BY id DESC LIMIT 1")[0])


def test_only_alerts_about_sets_of_the_gate_are_on_its_page(judged, referee):
    with judged.database.referee.begin() as tx:
        asked = {"study_id": _study(judged).id, "study": "cancer", "kind": AlertKind.NEW_TEST_SET}
        for test_set, message in ((1, "of the gate <now>"), (2, "of the meter")):
            releases.add_alert(tx, test_set_id=test_set, message=message, **asked)
    page = referee.page(PATH)
    assert "of the gate <now>" in page.text
    assert not page.has("now"), "as text"
    assert "of the meter" not in page.text
    assert f"{PATH}#plan" in page.links.values()


def _study(judged):
    with judged.database.worker.begin() as tx:
        return studies.get_study(tx, "cancer")


def test_without_any_set_the_page_begins_with_what_to_do(database, referee, recorded):
    register_study(database.worker, study="new", tenant="lab", source="sklearn:wine", request_key="r")
    recorded(referee.page("/studies/new/gate").recorded(), "gate_without_a_set")


def test_a_set_for_gate_and_meter_is_planned_from_the_page(judged, referee):
    asked = {"purpose": "joint", "condition": "n - o > 0.1 +/- 0.1", "adaptivity": "full"}
    page = referee.page(PATH, params=asked)
    study = _study(judged)
    view = joint_view(study, planner_of(GateConfig(**GATE), asked, study=study, has_set=True).settings)
    assert (view.title in page.text, view.sentence in page.text) == (True, True)
    assert page.form(f"{PATH}/plan").fields["purpose"] == "joint"
    plan = {"name": "both", "condition": asked["condition"], "reliability": "0.9", "steps": "3", "adaptivity": "full"}
    plan |= {"mode": "fp-free", "purpose": "joint"}
    for _ in range(2):
        assert referee.post(f"{PATH}/plan", data=plan).status_code == 303
    planned = gate_report(judged.database.referee, study="cancer").sets[0]
    assert (planned.name, planned.purpose, planned.state) == ("both", "joint", "planned")
    assert planned.rows == view.examples == plan_joint(planned.plan).labels
    assert planned.plan.meter.steps == study.config["meter"]["steps"]
    refused = referee.page(PATH, params=asked | {"adaptivity": "recycle"})
    assert "Adaptivity 'recycle'" in refused.text
    assert f"{PATH}/plan" not in refused.actions
    assert referee.post(f"{PATH}/plan", data=plan | {"name": "x", "adaptivity": "recycle"}).status_code == 400
    assert referee.post(f"{PATH}/plan", data=plan | {"name": "x", "purpose": "all"}).status_code == 400


def test_the_ledger_is_paged_and_exported(judged, referee):
    ledger = referee.page(f"{PATH}?entries=1").section("Ledger of")
    assert (len(ledger.table), "Show all" in ledger.links) == (1, True)
    exported = referee.get(f"{PATH}/ledger.csv?set=1")
    table = list(csv.DictReader(io.StringIO(exported.text)))
    assert exported.headers["content-disposition"] == 'attachment; filename="ledger-1.csv"'
    assert [(row["step"], row["number"], row["released"]) for row in table] == [("2", "2", "pass"), ("1", "1", "fail")]
    assert math.isclose(float(table[0]["log_level"]), math.log(0.1) - 2 * math.log(2))
    assert [float(row["log_cost"]) for row in table] == [math.log(2)] * 2
    ledger = referee.page(PATH).section("Ledger of")
    shown = ledger.table
    assert "Show all" not in ledger.links
    day = table[0]["answered_at"][:10]
    assert shown[0]["Released"].startswith(f"pass, {day} "), "an answer may leave on another day"
    assert [row["Cost, nats"] for row in shown] == ["0.69"] * 2


def test_the_live_set_can_be_tried_out_on_the_command_line(judged, referee):
    command = referee.page(PATH).part("#selftest").text
    told = parse(command).params
    (live,) = gate_report(judged.database.referee, study="cancer").sets
    assert {name: told[name] for name in GATE} == GATE
    assert (told["mode"], told["examples"]) == ("fp-free", live.rows)
    done = CliRunner().invoke(cli, [*shlex.split(command)[1:], "--runs", "50"])
    assert "promised 0.025" in done.output, "0.1 / 2^2"
    referee.post(f"{PATH}/retire", data={"test_set": str(live.test_set_id)})
    assert not referee.page(PATH).has("#selftest"), "it is live no more"


def test_what_one_answer_costs_is_the_same_on_every_page(judged, referee):
    """On the gate's ledger, the data page and in the command line; the meter's has its own test for its set."""
    gate = [row["Cost, nats"] for row in referee.page(PATH).section("Ledger of").table]
    data = [paid.get_text() for paid in referee.page("/studies/cancer/data").soup.select('[data-l="Paid, nats"]')]
    told = study_ledger(judged.database.referee, study="cancer")
    assert gate == [f"{entry.log_cost:.2f}" for entry in told] == ["0.69", "0.69"]
    assert data == ["0.00", "1.39"], "the meter's set, and the sum of the gate's"


def test_labels_that_are_wanted_and_conflicts_need_a_person(judged, referee):
    database = judged.database
    judged.forget_labels(1)
    third = judged.hand_in("third", judged.artifacts.root.parent, loss=0.05)
    judged.let_answer(third, wrong=0)
    asked = {"study": "cancer", "model_id": third, "request_key": "third"}
    request_id = file_gate_request(database.worker, **asked)
    with database.referee.begin() as tx:
        labels.want(tx, request_id=request_id, test_set_id=1, positions=np.array([3, 4, 5, 6]))
        given = np.full(labels.known_labels(tx, 1).shape, labels.UNKNOWN, dtype=np.int64)
        for labeler, label in (("una", 0), ("otto", 1)):
            given[[3, 4]] = label
            labels.keep_labels(tx, 1, labeler, given)
        given[3] = labels.UNKNOWN
        labels.keep_labels(tx, 1, labels.REFEREE, given)
    facts = gate_report(database.referee, study="cancer")
    assert facts.wanted == LabelWork(labels=2, conflicts=1, settled=1)
    at_desk = [need.title.split()[:2] for need in _view(judged).needs if need.href == "/labels/cancer"]
    assert at_desk == [["2", "labels"], ["1", "conflict"]]
    assert "ubmission 3 waits for 4 labels" in _view(judged).now[1]
    assert "ubmission 3" in _view(judged).needs[0].title
    assert "/labels/cancer" in referee.page(PATH).section("3 things here need a person").links.values()


def test_a_server_without_the_referees_address_says_so(judged, client_of):
    def away():
        raise StoreUnavailableError("this server was not given the referee's address")

    viewer = Viewer("ada", frozenset({Role.REFEREE}))
    client = client_of(Site(lambda: judged.database.worker, lambda: judged.artifacts, away, lambda: viewer))
    answer = client.get(PATH)
    assert (answer.status_code, "the referee's address" in Page(answer.text).text) == (503, True)


def test_the_page_checks_a_condition_as_text(judged, referee):
    page = referee.page(PATH, params={"condition": "n > <b>0.8", "last": "n > 0.9 +/- 0.05", "steps": "999"})
    check = page.part("#p-check")
    assert check.part("span.wrong").text == "<"
    assert not page.has("b:-soup-contains('0.8')"), "as text"
    assert check.part("[name=last]").soup["value"] == "n > 0.9 +/- 0.05"
    assert "Column 5:" in check.text


# ---- one clause


def _clause(source, estimate, interval):
    tests = {"log_p_pass": -20.0, "log_p_fail": None, "log_level_pass": -5.0, "log_level_fail": -5.0}
    told = {"quantity": "n - o", "threshold": 0.02, "examples": 100, "method": "trinomial", **tests}
    return ClauseReport(source, Verdict.PASS, estimate=estimate, interval=interval, **told)


@pytest.mark.parametrize(
    ("source", "mode", "words"),
    [
        ("n - o > 0.02 +/- 0.01", "fp-free", ["must fail", "either", "should pass"]),
        ("n - o > 0.02 +/- 0.01", "fn-free", ["should fail", "either", "must pass"]),
        ("o - n < -0.02 +/- 0.01", "fp-free", ["must fail", "either", "should pass"]),
        ("n - o < 0.02 +/- 0.01", "fp-free", ["should pass", "either", "must fail"]),
    ],
)
def test_zones_are_where_the_mode_promises_something(source, mode, words):
    plot = clause_view(_clause(source, 0.04, (0.02, 0.06)), Mode(mode)).plot
    assert [zone.word for zone in plot.zones if zone.word] == [w for w in words if w in {z.word for z in plot.zones}]
    assert {"zb", "zo"} <= {zone.look for zone in plot.zones}
    either = next(zone for zone in plot.zones if zone.look == "zi")
    edges = sorted((either.left, either.left + either.width))
    promised = edges[0] if (mode == "fp-free") == plot_is_above(source) else edges[1]
    assert math.isclose(plot.threshold, promised, abs_tol=0.02)
    assert math.isclose(sum(zone.width for zone in plot.zones), 100, abs_tol=0.05)


def plot_is_above(source):
    return not source.startswith("n - o <")


def test_a_clause_that_was_not_looked_at_has_no_plot():
    assert clause_view(_clause("n - o > 0.02 +/- 0.01", None, (-1, 1)), Mode.FP_FREE).plot is None


def test_a_sound_text_says_what_it_means():
    text = "n - o > 0.02 +/- 0.01 /\\ d < 0.1 +/- 0.01"
    found = check_of(text, None, parse_condition(text))
    assert "".join(piece for piece, _ in found.pieces) == text
    assert found.hint == (
        "The new model gains more than 2 points on the old one; less than 10 % of the predictions change; "
        "labels only where the two differ."
    )
    assert read_condition("d < 1.5 +/- 0.1")[0] is not None
