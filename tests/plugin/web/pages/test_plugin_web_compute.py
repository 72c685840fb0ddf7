"""The compute page: what it says is what the services say, operators alone change limits, others learn no name."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from device_rows import add_reasons, add_study, add_trial
from hypothesis import given
from hypothesis import strategies as st
from page_client import Client
from page_reader import Page

from easeml_airflow.web.app import create_app
from easeml_airflow.web.pages.compute.backtest import Backtests, Kept, backtest_of
from easeml_airflow.web.pages.compute.page import expected_starts, page_of
from easeml_airflow.web.pages.compute.price import price_text, pricing_of
from easeml_airflow.web.server.airflow_runs import Place
from easeml_airflow.web.server.auth import Role, Viewer
from easeml_airflow.web.server.site import Site
from easeml_core.entities import TrialState
from easeml_core.errors import ConcurrentUpdateError, StateError
from easeml_core.formats.encoding import to_json
from easeml_core.selection.simulate.backtest import CostToLoss, PolicyFigures
from easeml_core.selection.simulate.protocol import Protocol
from easeml_core.services.registration.register import pause_study
from easeml_core.services.reports.audit import audit
from easeml_core.services.reports.compute import Job, JobState, Lane, at_once, compute
from easeml_core.services.selection.backtest import BacktestAnswer
from easeml_core.services.selection.beliefs import StoppingPrice, StoppingPrices, beliefs, stopping_prices
from easeml_core.services.selection.policy import set_policy, show_policy
from easeml_core.services.studies.limits import list_tenants
from easeml_core.settings.limits import LONGEST_TEXT
from easeml_core.store.queries.compute import DeviceRun, WaitingTrial, history_stamp
from easeml_core.store.rows import change
from easeml_core.store.tables.capacity import Device, announce_device

LIMITS = {"weight": "2", "max_parallel": "4", "quota_hours": "10", "reason": "quarter end"}

HOUR = datetime(2026, 3, 1, 12, tzinfo=UTC)


def of_mine(study, tenant, *, write):
    return tenant == "lab"


@pytest.fixture
def two(database):
    """Two tenants: of the first one trial has ended and one runs, of the second one runs and one waits."""
    add_study(database, "mine")
    add_study(database, "secret-project", tenant="rivals", weight=3.0)
    add_trial(database, "mine", ended=1, took=2)
    mine = add_trial(database, "mine", began=1)
    add_reasons(database, mine, expected_improvement=0.01, predicted_cost_seconds=7200.0, best=0.9, guarded=False)
    add_trial(database, "secret-project", began=2)
    add_trial(database, "secret-project", waits=True)
    return database


def limits_of(database, name):
    (found,) = [t for t in list_tenants(database.worker) if t.tenant == name]
    return found.weight, found.max_parallel, found.quota_seconds


def seen(database, *, studies=None):
    """The page as its template gets it."""
    facts = compute(database.worker, window="6h", studies=studies)
    return page_of(facts, show_policy(database.worker), {}, is_all=studies is None)


def test_an_operator_sees_who_runs_where_who_waits_and_who_got_what(two, ask_as):
    page, view = ask_as("ada", "operator").page("/compute"), seen(two)
    assert re.match("2 devices .*, 1 trial waits, .* for ", page.lead)
    assert (view.badge, view.waiting, [wait.study for wait in view.waits]) == ("2 training", 1, ["secret-project"])
    jobs = [job["title"] for job in page.soup.select(".job")]
    assert [job for job in jobs if re.match(r"mine, candidate-1: running, 6\d\.\d min, (59|60)\.\d min left", job)]
    shares = {bar.name: (bar.value, bar.more) for bar in view.shares}
    assert shares == {"rivals": ("40.0 %", "of 75.0"), "lab": ("60.0 %", "of 25.0")}
    assert re.match("rivals .* 53 %.* lab 240 %$", view.shares_title)  # 2 of 5 hours for 3 quarters of the weight
    assert (view.shares_title in page.text, page.has("[data-open=d-rivals]")) == (True, True)
    assert "40.0 % of 75.0" in page.part(".bars.due").text


def test_live_devices_are_shown_to_who_sees_all_studies_and_their_free_slots_to_all(two, ask_as):
    device = Device("gpu-host-7", "cuda:1", "gpu", "NVIDIA H100", 81_559, "550.54", 3, 1)
    with two.worker.begin() as tx:
        announce_device(tx, device, holder="k")
    read = ask_as("ada", "operator").page("/compute").part("#devices")
    assert "2 of kind gpu" in read.text
    (row,) = read.table
    assert list(row.values())[:-1] == ["gpu-host-7", "cuda:1", "gpu", "NVIDIA H100", "79.6 GiB", "550.54", "3", "2"]
    other = ask_as("vic", rights=of_mine).get("/compute").text
    assert "2 of kind gpu" in other
    assert "gpu-host-7" not in other
    with two.worker.begin() as tx:
        for number in range(200):
            announce_device(tx, replace(device, host=f"a-host-{number}", held=0), holder="")
    read = ask_as("ada", "operator").page("/compute").text
    assert (read.count("a-host-"), "1 more:" in read) == (200, True)


def test_somebody_else_sees_their_own_and_sums_of_others(two, ask_as):
    page, view = ask_as("vic", rights=of_mine).get("/compute"), seen(two, studies=["mine"])
    first, second = view.now
    assert Page(page.text).lead == first
    assert ("1 device" in first, "for you" in first, "nothing waits" in first) == (True, True, True)
    assert ("1 device" in second, "other tenants" in second) == (True, True)
    assert (view.badge, [bar.name for bar in view.shares]) == ("1 training", ["lab", "other tenants"])
    shown = Page(page.text)
    assert (second in shown.text, "other tenants" in shown.part(".bars.due").text) == (True, True)
    assert "mine" in page.text
    assert "rivals" not in page.text
    assert "secret-project" not in page.text
    assert "/compute/tenants" not in page.text
    assert "backtest" not in page.text


def test_an_operator_sets_limits_once_and_the_audit_knows_who_and_why(two, ask_as):
    operator = ask_as("ada", "operator")
    for _ in range(2):
        answer = operator.post("/compute/tenants/rivals", data=LIMITS)
        assert (answer.status_code, answer.headers["location"]) == (303, "/compute#limits")
    assert limits_of(two, "rivals") == (2.0, 4, 36_000.0)
    (event,) = audit(two.worker, group="limits").events
    assert (event.who, event.door, event.reason) == ("ada", "page", "quarter end")
    assert event.before == {"weight": 1.0, "max_parallel": None, "quota_seconds": None}
    assert operator.post("/compute/tenants/rivals", data={"weight": "2"}).status_code == 303
    assert limits_of(two, "rivals") == (2.0, None, None)


def test_a_limit_that_is_none_is_refused_and_changes_nothing(two, ask_as):
    operator = ask_as("ada", "operator")
    for changes, said in (
        ({"weight": "0"}, "weight must be &gt;= 1e-6 and &lt;= 1e6"),
        ({"weight": "nan"}, "weight must be &gt;= 1e-6 and &lt;= 1e6"),
        ({"weight": "much"}, "weight"),
        ({"max_parallel": "1"}, "open trials of tenant &#39;rivals&#39;"),
        ({"quota_hours": "-1"}, "quota_seconds must be &gt; 0"),
        ({"reason": "x" * (LONGEST_TEXT + 1)}, "reason"),
    ):
        answer = operator.post("/compute/tenants/rivals", data=LIMITS | changes)
        assert answer.status_code in (400, 409), changes
        assert said in answer.text
        assert limits_of(two, "rivals") == (1.0, None, None), changes


def test_nobody_but_an_operator_changes_anything(two, ask_as):
    for roles in ((), ("referee",), ("labeler",)):
        for path in ("/compute/tenants/lab", "/compute/release", "/compute/backtest"):
            answer = ask_as("vic", *roles).post(path, data=LIMITS)
            assert answer.status_code == 403, (roles, path)
            assert "only the operator" in answer.text
    assert limits_of(two, "lab") == (1.0, None, None)


def test_a_device_that_fell_silent_is_told_and_its_trial_taken_back(two, ask_as):
    add_trial(two, "mine", began=2, lease=-0.5)
    operator = ask_as("ada", "operator")
    page = operator.page("/compute")
    (silent,) = page.part(".needs").items
    assert silent.startswith("1 device ")
    assert re.search(r"mine , candidate-\d+: no heartbeat since", silent)
    assert (page.actions["/compute/release"], "Take back" in page.buttons) == (1, True)
    assert "/compute/release" not in ask_as("vic", rights=of_mine).get("/compute").text
    for _ in range(2):
        assert operator.post("/compute/release").status_code == 303
    page = operator.page("/compute")
    assert (page.has(".needs"), "2 trials wait" in page.lead) == (False, True)


def test_where_a_trial_runs_is_what_airflow_says(two, ask_as, monkeypatch):
    key = "nightly/manual__1/train/3"
    with two.owner.begin() as tx:
        change(
            tx,
            "UPDATE work.trials SET lease_key = :key, lease_until = now() - interval '1 h' WHERE state = 'RUNNING' "
            "AND study_id = (SELECT id FROM work.studies WHERE name = 'mine')",
            key=key,
        )
    monkeypatch.setattr(
        "easeml_airflow.web.pages.compute.page.places", lambda keys: {key: Place("gpu-box-3", "easeml_devices")}
    )
    page = ask_as("ada", "operator").page("/compute")
    assert "on gpu-box-3, pool easeml_devices" in page.text
    assert page.has('a[href="/dags/nightly/runs/manual__1/tasks/train/mapped/3"]')
    others = ask_as("vic", rights=lambda study, tenant, *, write: tenant == "rivals").get("/compute").text
    assert "gpu-box-3" not in others
    assert "manual__1" not in others


RUN = DeviceRun(
    trial_id=1,
    study="mine",
    tenant="lab",
    candidate="tree",
    device="cpu",
    state=TrialState.RUNNING,
    attempt=1,
    begun_at=HOUR,
    started_at=HOUR,
    finished_at=None,
    lost_seconds=0.0,
    resumed_seconds=0.0,
    lease_until=HOUR,
    lease_key=None,
    is_lost=False,
    predicted_seconds=None,
)


def test_devices_at_once_are_counted_while_any_trains_and_without_lost_time():
    def job(begin, end, state=JobState.ENDED):
        return Job(state, HOUR.replace(minute=begin), HOUR.replace(minute=end), RUN)

    lanes = [Lane("cpu", 1, [job(0, 20), job(40, 50)]), Lane("cpu", 2, [job(10, 20), job(20, 40, JobState.LOST)])]
    assert at_once(lanes, since=HOUR) == pytest.approx(40 / 30)
    assert at_once([Lane("cpu", 1, [job(0, 9, JobState.LOST)])], since=HOUR) is None
    assert at_once(lanes, since=HOUR.replace(minute=55)) is None


def test_trials_that_wait_begin_as_devices_of_their_kind_become_free():
    def lane(kind, minutes):
        expected = None if minutes is None else HOUR + timedelta(minutes=minutes)
        jobs = [Job(JobState.RUNNING, HOUR, HOUR, RUN, end) for end in (None, expected)]
        return Lane(kind, 1, jobs)

    def wait(kind, seconds):
        return WaitingTrial(1, "mine", "lab", "tree", kind, HOUR, 1, False, None, seconds, False)

    def starts(*waits, free=None):
        lanes = [lane("cpu", 10), lane("cpu", None), lane("cuda", 30), lane("cuda", 5)]
        found = expected_starts(lanes, [wait(kind, seconds) for kind, seconds in waits], free=free, now=HOUR)
        return [None if start is None else (start - HOUR).total_seconds() / 60 for start in found]

    assert starts((None, 60), (None, 60), ("cuda", 60), (None, 60)) == [5, 6, 7, 8]
    assert starts(("cpu", None), ("cpu", 60), (None, 60)) == [10, None, 5]  # what takes who knows how long ends it
    assert starts(("cpu", 600), ("cpu", 600), ("tpu", 60)) == [10, 20, None]
    assert starts(("cpu", 1e300), ("cpu", 60)) == [10, None]
    assert starts(("cpu", 60), ("cpu", 60), ("tpu", 60), free={"tpu": 2, "cpu": 1}) == [0, 1, 0]
    assert expected_starts([], [wait(None, 1.0)], now=HOUR) == [None]


def test_who_sees_all_devices_is_told_when_a_trial_should_begin(two, ask_as):
    (told,) = ask_as("ada", "operator").page("/compute").soup.select('.waits [data-l="Start, about"] time')
    assert abs(datetime.fromisoformat(told["datetime"]) - datetime.now(UTC) - timedelta(hours=1)) < timedelta(minutes=2)
    assert told["data-style"] == "hour"
    others = ask_as("vic", rights=lambda study, tenant, *, write: tenant == "rivals").get("/compute").text
    assert "secret-project" in others  # it waits, but of its device they know nothing
    assert "Start, about" not in others


def test_the_window_and_the_page_of_an_address_may_be_anything(two, ask_as):
    operator = ask_as("ada", "operator")
    for query in ("window=7d", "window=1y", "window=<b>", "q=%00", "q=RIV", "page=10000"):
        assert operator.get(f"/compute?{query}").status_code == 200, query
    assert operator.get("/compute?page=0").status_code == 400
    assert not operator.page("/compute?q=RIV").has("#d-lab")


def test_an_empty_installation_says_what_comes_first(database, ask_as, recorded):
    recorded(ask_as("ada", "operator").page("/compute").recorded(), "compute_of_nothing")


# ---- the price of compute


def test_the_price_says_how_many_studies_go_on_as_the_scheduler_has_it(past, ask_as):
    told = stopping_prices(past.worker).studies
    limits = [entry.stops_above for entry in told]

    def view(asked=None):
        return pricing_of(stopping_prices(past.worker), asked)

    def changed(pricing):
        return len(pricing.named) + pricing.more

    page = ask_as("ada", "operator").page("/compute").part("#price-panel")
    assert (": all 9 " in view().title, view().title in page.recorded()) == (True, True)
    assert f"now no price: {len(limits)} go on" in page.text
    between = (limits[5] + limits[6]) / 2
    page = ask_as("ada", "operator").page(f"/compute?price={between}").part("#price-panel")
    tried = view(between)
    assert (tried.effect in page.text, changed(tried), " would stop;" in tried.effect) == (True, 3, True)
    assert f"{price_text(between)}: 6 go on" in page.text
    assert f"--price-per-second {between / 3600:.6g}" in page.part("#price-command").text
    assert page.has("[data-copy=price-command]")
    assert [list(row.values())[-1] for row in page.table].count("goes on") == 6
    set_policy(past.owner, changes={"price_per_second": between / 3600}, reason="devices are dear")
    assert " 6 of 9 " in view().title
    assert (changed(view(0)), " would go on:" in view(0).effect) == (3, True)
    for study in (entry.study for entry in told[6:]):
        assert beliefs(past.worker, study=study).next is None


def test_others_try_a_price_out_on_their_own_studies(past, ask_as):
    vic = ask_as("vic", rights=lambda study, tenant, *, write: tenant == "tenant-3")
    page = vic.get("/compute?price=0.5").text
    assert ": the one study" in page
    assert "study-3" in page
    assert "study-4" not in page
    assert "easeml policy set" not in page


def test_a_price_that_is_none_is_refused(two, ask_as):
    for price in ("-1", "nan", "inf", "1e10", "much"):
        assert ask_as("ada", "operator").get(f"/compute?price={price}").status_code == 400, price


def test_where_no_price_can_be_told_the_panel_says_why(two, ask_as):
    operator = ask_as("ada", "operator")

    def panel():
        return operator.page("/compute").part("#price-panel")

    assert pricing_of(None, None).plot is None
    pause_study(two.worker, study="mine", paused=True)
    pause_study(two.worker, study="secret-project", paused=True)
    assert ("No study has" in panel().text, panel().has("#price")) == (True, False)
    set_policy(two.owner, changes={"policy": "roundrobin"}, reason="to see")
    assert ("roundrobin, asks for" in panel().text, panel().has("#price")) == (True, False)


@given(
    st.lists(st.floats(0, 1e6) | st.just(0.0), min_size=1, max_size=30),
    st.floats(0, 1e6) | st.just(0.0),
    st.none() | st.floats(0, 1e9),
)
def test_any_prices_can_be_drawn(limits, price, asked):
    studies = tuple(StoppingPrice(f"s{n}", v, 1.0) for n, v in enumerate(sorted(limits)[::-1]))
    shown = pricing_of(StoppingPrices(price, "default", True, True, studies, 0), asked)
    assert 0 <= shown.slider.percent <= 100
    assert all(0 <= shown.plot.left(dot.x) <= 100 and 0 <= shown.plot.top(dot.y) <= 100 for dot in shown.plot.dots)
    assert shown.plot.dots[0].y == sum(limit >= price for limit in limits)
    heights = [y for _, y in shown.plot.lines[0].points]
    assert heights == sorted(heights, reverse=True)


# ---- backtest


@pytest.fixture
def past(database):
    """Nine tenants with four results each, of which the last is the best and the dearest."""
    for tenant in range(9):
        add_study(database, f"study-{tenant}", tenant=f"tenant-{tenant}")
        for place in range(4):
            quality = 0.6 + 0.08 * place + 0.01 * tenant * (place % 2)
            add_trial(database, f"study-{tenant}", ended=30, took=0.1 * (1 + place), quality=quality)
    return database


def test_a_backtest_runs_when_asked_and_is_kept_while_the_history_is_the_same(past, ask_as, monkeypatch):
    monkeypatch.setattr("easeml_airflow.web.pages.compute.backtest.LONGEST_SECONDS", 600.0)  # whatever else runs here
    monkeypatch.setattr("easeml_airflow.web.pages.compute.backtest.REPEATS", 1)  # each takes a second
    operator = ask_as("ada", "operator")
    assert "No backtest yet" in operator.page("/compute").part("#backtest").text
    assert operator.get("/compute/backtest.json").status_code == 404
    assert operator.post("/compute/backtest").headers["location"] == "/compute#backtest"
    shown = operator.page("/compute").part("#backtest")
    for told in ("mean loss of 0.02,", "on 9 past studies,", "of 1 repeat", "in use", "roundrobin"):
        assert told in shown.text
    assert shown.has('a[href="/compute/backtest.json"][download]')
    report = operator.get("/compute/backtest.json")
    assert report.headers["content-disposition"] == 'attachment; filename="easeml-backtest.json"'
    assert report.json()["policies"]["default"]["to_loss"]["0.02"]["cost"] > 0
    assert ask_as("vic").get("/compute/backtest.json").status_code == 403
    assert ask_as("rita", "referee").get("/compute/backtest.json").status_code == 404  # of a server that has made none
    monkeypatch.setattr("easeml_airflow.web.pages.compute.backtest.backtest_installation", None)
    assert operator.post("/compute/backtest").status_code == 303  # the same history: nothing is replayed


def test_too_little_history_is_an_answer(two, ask_as, monkeypatch):
    monkeypatch.setattr("easeml_airflow.web.pages.compute.backtest.LONGEST_SECONDS", 600.0)
    operator = ask_as("ada", "operator")
    assert operator.post("/compute/backtest").status_code == 303
    assert ": 0 of 1 tenants have 3 results" in operator.page("/compute").part("#backtest").text


def test_a_history_that_is_too_long_names_the_command_and_is_not_tried_again(past):
    backtests = Backtests(longest_seconds=-1)
    for _ in range(2):
        with pytest.raises(StateError, match="takes longer than -1 s to replay; run `easeml backtest` instead"):
            backtests.run(past.worker)
    kept = backtests.last()
    assert backtest_of(kept, show_policy(past.worker)).is_too_long


def test_a_limit_that_is_set_on_the_site_holds_in_the_application(past):
    operator = Viewer("ada", frozenset({Role.OPERATOR}), lambda _study, _tenant, *, write: True)
    site = Site(lambda: past.worker, lambda: past.artifacts, lambda: past.referee, lambda: operator)
    site.one(Backtests).longest_seconds = -1
    answer = Client(create_app(site, require_login=lambda: None)).post("/compute/backtest")
    assert answer.status_code == 409
    assert "takes longer than -1 s to replay" in answer.text


def test_two_do_not_replay_at_once(two):
    backtests = Backtests()
    with backtests._turns.taken("backtest"), pytest.raises(ConcurrentUpdateError):
        backtests.run(two.worker)


def test_without_one_of_its_own_the_page_shows_the_one_that_the_policy_rests_on(two):
    figures = {
        name: PolicyFigures({"0.02": CostToLoss(1.0, 1.0, 1.0, cost, 1.0)}, 1.0, None)
        for name, cost in (("default", 3600.0), ("roundrobin", 7200.0))
    }
    report = BacktestAnswer(
        source="installation",
        cost_unit="seconds",
        tenants=12,
        candidates=6,
        results=40,
        left_out=1,
        enough=True,
        protocol=Protocol(repeats=30),
        calibration=None,
        policies=figures,
        winner="default",
        settings=None,
        message="default stays",
    )
    set_policy(two.owner, changes={}, reason="by backtest", report=to_json(report))
    shown = backtest_of(None, show_policy(two.worker))
    assert "saved 1 device-hour " in shown.title
    assert [(bar.name, bar.width, bar.value, bar.more) for bar in shown.bars] == [
        ("default", 50.0, "1", "in use"),
        ("roundrobin", 100.0, "2", "+1"),
    ]
    with two.worker.begin() as tx:
        stamp = history_stamp(tx)
    kept = Kept(stamp, backtest_of(None, show_policy(two.worker)).made_at, replace(report, tenants=3))
    assert "3 past studies" in backtest_of(kept, show_policy(two.worker)).note
