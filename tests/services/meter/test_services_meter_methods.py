"""Every method of the meter, from registration to the ledger; budgets in words, and what they pause."""

from __future__ import annotations

import hmac
import math
from typing import Any

import numpy as np
import pytest

from easeml_core.entities import StudyState
from easeml_core.errors import ConfigError, InvalidInputError, NotFoundError, StoreError
from easeml_core.meter.planner import plan_config
from easeml_core.services.meter.alerts import (
    PausedStudy,
    clear_alert,
    newest_alert,
    next_alert,
    open_alerts,
    pause_on_alert,
)
from easeml_core.services.referee.requests import file_meter_request
from easeml_core.services.registration.register import pause_study, study_settings
from easeml_core.services.reports.overview import live_sets, overview, study_details, study_state
from easeml_core.services.test_sets.planning import plan_for_meter
from easeml_core.settings.config import MeterConfig

BASE = {"ranges": (0.2, 0.6), "tolerance": 0.2, "reliability": 0.9, "steps": 3}
CHAIN = (((1, 0), (2, 1), (3, 1)), ((2, 1), (2, 1), (3, 1)))  # after a signal above 1 there is no way back to 1
METHODS: dict[str, dict[str, Any]] = {
    "full": {},
    "exact-tree": {},
    "pruned": {},
    "ratchet": {},
    "first-change": {},
    "deviations": {"deviations": 1},
    "automaton": {"automaton": CHAIN},
    "nonuniform": {"tolerances": (0.19, 0.2, 0.21)},
    "dithered": {},
    "multitenant": {"teams": 3},
}
# Nodes of the tree, counted by hand for T = 3 and m = 3.
NODES = {
    "full": 27,  # 3^3
    "exact-tree": 13,  # 1 + 3 + 9
    "pruned": 7,  # 1 + 2 + 4
    "ratchet": 10,  # C(5, 2)
    "first-change": 3,
    "multitenant": 3,  # three teams with one submission each
    "dithered": 1 + 2 + 4,  # 1 + 2 epsilon / w = 2
}


def register(lab: Any, study: str, **changes: Any) -> int:
    """Register a study with this meter; the id of its meter set."""
    answer = lab.register(study, meter=BASE | changes)
    assert not answer.refused, answer.message
    found = "SELECT t.id FROM work.test_sets t JOIN work.studies s ON s.id = t.study_id WHERE s.name = :study"
    return int(lab.one(found + " AND t.purpose = 'meter'", study=study))


def majority(lab: Any, study: str) -> int:
    return int(np.bincount(lab.open_parts(study).train_labels).argmax())


@pytest.fixture
def submit(lab: Any, tmp_path: Any) -> Any:
    """Submit the n-th copy of the model that always names the frequent class; the answer."""
    known: dict[tuple[str, int], int] = {}

    def go(study: str, number: int, **asked: Any) -> Any:
        if (study, number) not in known:
            path = tmp_path / f"{study}-{number}"
            path.write_text(f'{{"label": {majority(lab, study)}}}' + " " * number)
            known[study, number] = lab.hand_in(study, path.name, path, kind="constant", loss=0.5)
        return lab.meter(known[study, number], study, **asked)

    return go


def fill(lab: Any, study: str, set_id: int, share: float) -> None:
    """Let so large a share of the sealed labels be the rarer class: the frequent one is wrong there."""

    def labels(old: np.ndarray) -> np.ndarray:
        rare = np.arange(len(old)) < round(share * len(old))
        return np.where(rare, 1 - majority(lab, study), majority(lab, study)).astype(old.dtype)

    lab.relabel(set_id, labels)


def entries(lab: Any, set_id: int) -> list[Any]:
    columns = "step, answer, log_level, log_cost, report"
    return list(lab.rows(f"SELECT {columns} FROM sealed.ledger WHERE test_set_id = :id ORDER BY step", id=set_id))


@pytest.mark.parametrize("method", METHODS)
def test_each_method_reads_at_the_level_that_it_was_planned_for(lab: Any, submit: Any, method: str) -> None:
    settings = BASE | {"method": method} | METHODS[method]
    config = MeterConfig.from_json(settings)
    assert plan_for_meter(config) == plan_config(config)
    set_id = register(lab, "study", **settings)
    assert lab.one("SELECT rows FROM work.test_sets WHERE id = :id", id=set_id) >= plan_config(config).labels
    answer = submit("study", 1)
    assert (answer.refused, answer.signals) == (False, 3)
    ((step, shown, log_level, log_cost, report),) = entries(lab, set_id)
    assert (step, shown, log_cost) == (1, str(answer.signal), 0.0)
    assert report["tolerance_now"] <= answer.tolerance
    if method in NODES:
        assert log_level == pytest.approx(math.log(0.1 / NODES[method]), rel=1e-12)
    assert answer.submissions_left == (0 if method == "multitenant" else 2)
    assert answer.boundaries == report["edges"] if method == "dithered" else [0.2, 0.6]


def test_the_ratchet_only_rises(lab: Any, submit: Any) -> None:
    set_id = register(lab, "study", method="ratchet")
    shown = []
    for number, share in enumerate((0.4, 1.0, 0.4)):
        fill(lab, "study", set_id, share)
        shown.append(submit("study", number).signal)
    assert shown == [1, 3, 3]
    assert [report["gap"] > 0.6 for *_, report in entries(lab, set_id)] == [False, True, False]
    assert live_sets(lab.worker, study="study") == ["gate"]  # all steps are used
    entry = next(e for e in overview(lab.worker).tenants if e.study == "study")
    assert (entry.signal, entry.meter_retired) == (3, True)
    seen = study_details(lab.worker, study="study").meter
    assert (seen.method, seen.signal, seen.signals, seen.submissions_left) == ("ratchet", 3, 3, 0)
    assert (seen.boundaries, seen.tolerance) == ([0.2, 0.6], 0.2)


@pytest.mark.parametrize(
    ("settings", "shares"),
    [({"method": "first-change"}, (0.4, 1.0)), ({"method": "deviations", "deviations": 0}, (0.4, 1.0))],
)
def test_a_rule_that_is_broken_retires_the_set(
    lab: Any, submit: Any, settings: dict[str, Any], shares: tuple[float, ...]
) -> None:
    set_id = register(lab, "study", **settings)
    for number, share in enumerate(shares):
        assert "meter" in live_sets(lab.worker, study="study")
        fill(lab, "study", set_id, share)
        answer = submit("study", number)
    assert (answer.signal, answer.submissions_left) == (3, 1)
    assert lab.one("SELECT retired_why FROM work.test_sets WHERE id = :id", id=set_id) == "regulation"
    assert submit("study", 9).refused


def test_dithered_boundaries_are_drawn_after_the_submission_and_shown_with_the_signal(lab: Any, submit: Any) -> None:
    set_id = register(lab, "study", method="dithered")
    answers = [submit("study", number) for number in (1, 2)]
    secret = lab.one("SELECT secret FROM sealed.installation")
    for answer, (*_, report) in zip(answers, entries(lab, set_id), strict=True):
        # Only who knows the installation's secret can tell where the boundaries will be, and that only of a request.
        digest = hmac.digest(str(secret).encode(), f"dither|{answer.request_id}".encode(), "sha256")
        shift = np.random.default_rng(int.from_bytes(digest, "big")).random() * 0.4
        assert answer.boundaries == pytest.approx([0.2 + shift, 0.6 + shift], abs=1e-12)
        assert answer.signal == 1 + sum(report["gap"] > edge for edge in answer.boundaries)
    assert answers[0].boundaries != answers[1].boundaries
    again = submit("study", 1)
    assert (again.cached, again.boundaries) == (True, answers[0].boundaries)
    with pytest.raises(StoreError, match="permission denied"):
        lab.rows("SELECT secret FROM sealed.installation", store=lab.worker)


def test_an_alert_names_the_boundaries_and_the_tolerance_that_were_used(lab: Any, submit: Any) -> None:
    set_id = register(lab, "study", method="dithered")
    fill(lab, "study", set_id, 1.0)
    answer = submit("study", 1)
    assert study_details(lab.worker, study="study").meter.boundaries == answer.boundaries
    low, high = answer.boundaries  # six digits of them, on the safe side
    figures = [math.floor(edge * 1e6) / 1e6 for edge in (low, high)], math.ceil(high * 1e6) / 1e6
    where = f"above {figures[0][0]} and at most {figures[1]}" if answer.signal == 2 else f"above {figures[0][1]}"
    assert f"{where} (+/- 0.2)" in answer.alert
    assert f"{where} (+/- 0.2)" in answer.meaning


def test_with_nonuniform_tolerance_the_worst_earlier_signal_decides(lab: Any, submit: Any) -> None:
    set_id = register(lab, "study", method="nonuniform", tolerances=(0.19, 0.2, 0.21))
    shown = []
    for number, share in enumerate((1.0, 0.4, 0.4)):
        fill(lab, "study", set_id, share)
        answer = submit("study", number)
        shown.append((answer.signal, answer.tolerance))
    assert shown == [(3, 0.19), (1, 0.21), (1, 0.21)]


def test_a_set_with_an_open_end_serves_more_than_it_was_planned_for(lab: Any, submit: Any) -> None:
    set_id = register(lab, "study", steps=1, open_ended=True)
    fill(lab, "study", set_id, 0.0)  # far from every boundary: no answer costs anything
    for number in (1, 2, 3):
        answer = submit("study", number)
        assert (answer.signal, answer.submissions_left) == (1, None)
    levels = [(log_level, log_cost) for _, _, log_level, log_cost, _ in entries(lab, set_id)]
    expected = [(math.log(0.1 * 6 / (math.pi * t) ** 2), 0.0) for t in (1, 2, 3)]
    assert levels == [pytest.approx(pair, rel=1e-12) for pair in expected]
    assert "meter" in live_sets(lab.worker, study="study")


def test_teams_pay_for_themselves_and_hear_nothing_of_each_other(lab: Any, submit: Any) -> None:
    set_id = register(lab, "study", steps=4, teams=2)
    first = submit("study", 1)
    assert first.submissions_left == 1
    assert submit("study", 1, team=1).cached
    other = submit("study", 1, team=2)  # the same artifact is news to another team
    assert (other.cached, other.submissions_left) == (False, 1)
    levels = [log_level for _, _, log_level, _, _ in entries(lab, set_id)]
    assert levels == pytest.approx([math.log(0.1 / 4)] * 2, rel=1e-12)  # the first team's cost is not the second's
    assert submit("study", 2).submissions_left == 0
    assert "meter" in live_sets(lab.worker, study="study")  # for the other team
    over = submit("study", 3)
    assert (over.refused, "team 1 has no" in over.message) == (True, True)
    assert submit("study", 2, team=2).submissions_left == 0
    assert live_sets(lab.worker, study="study") == ["gate"]
    assert lab.one("SELECT retired_why FROM work.test_sets WHERE id = :id", id=set_id) == "steps"


def test_a_team_that_was_not_planned_for_is_refused(lab: Any) -> None:
    answer = lab.meter("good", team=2)
    assert answer.refused
    assert "team must" in answer.message
    assert "1 to 1" in answer.message
    with pytest.raises(ConfigError, match="team"):
        file_meter_request(lab.worker, study="full", team=0, request_key="k")


def test_a_budget_in_words_counts_the_signals(lab: Any, submit: Any, recorded: Any) -> None:
    rules = ["two red in a row", "retire within 3 submissions"]
    set_id = register(lab, "study", budget=rules, steps=4)
    fill(lab, "study", set_id, 1.0)
    assert submit("study", 1).alert is None
    assert submit("study", 1).alert is None  # the same artifact once more is no second signal
    answer = submit("study", 2)
    recorded(answer.alert, "alert_of_a_budget_in_words")
    (alert,) = open_alerts(lab.worker, study="study")
    assert (alert.over_budget, alert.message) == (True, answer.alert)


@pytest.mark.parametrize("budget", [["be careful"], ["signal above range 3"], ["0 in a row at range 2 or above"]])
def test_a_budget_that_cannot_be_read_or_broken_is_refused_at_registration(lab: Any, budget: list[str]) -> None:
    with pytest.raises(InvalidInputError, match="budget rule"):
        study_settings(gate=None, meter=BASE | {"budget": budget}, training=None)


def test_ranges_for_which_a_count_is_wrong_are_refused_at_registration() -> None:
    for change in ({"method": "pruned", "ranges": (0.1, 0.3)}, {"method": "dithered", "ranges": (0.1, 0.2, 0.9)}):
        with pytest.raises(ConfigError, match="ranges"):
            study_settings(gate=None, meter=BASE | change, training=None)


@pytest.mark.parametrize(("rules", "over"), [([], False), (["retire within 2 submissions"], True)])
def test_a_set_that_retires_tells_whether_that_breaks_the_budget(
    lab: Any, submit: Any, rules: list[str], over: bool
) -> None:
    # Planned for no ambiguous answer, and the first one is.
    set_id = register(lab, "study", ranges=(0.1, 0.9), tolerance=0.19, ambiguous=0, steps=4, budget=rules)
    answers = [submit("study", 1), submit("study", 2)]
    assert [answer.signal is None for answer in answers] == [False, True]
    assert (answers[1].alert is not None) is over
    kinds = {a.kind: a for a in open_alerts(lab.worker, study="study")}
    assert set(kinds) == ({"new-test-set", "overfitting"} if over else {"new-test-set"})
    assert lab.one("SELECT retired_why FROM work.test_sets WHERE id = :id", id=set_id) == "signals"
    for kind, alert in kinds.items():
        assert alert.over_budget is (True if kind == "overfitting" else None)
    paused = [pause_on_alert(lab.worker, study="study", alert_id=a.alert_id).paused for a in kinds.values()]
    assert any(paused) is over
    assert study_state(lab.worker, study="study") == ("PAUSED" if over else "ACTIVE")


def test_a_broken_budget_pauses_the_search_once(lab: Any, submit: Any) -> None:
    set_id = register(lab, "study")
    fill(lab, "study", set_id, 1.0)
    submit("study", 1)
    (alert,) = open_alerts(lab.worker, study="study")
    asked = {"study": "study", "alert_id": alert.alert_id}
    assert pause_on_alert(lab.worker, **asked) == PausedStudy(**asked, paused=True, state=StudyState.PAUSED)
    assert pause_on_alert(lab.worker, **asked) == PausedStudy(**asked, paused=False, state=StudyState.PAUSED)
    clear_alert(lab.worker, **asked)
    pause_study(lab.worker, study="study", paused=False)
    dealt_with = PausedStudy(**asked, paused=False, state=StudyState.ACTIVE)
    assert pause_on_alert(lab.worker, **asked) == dealt_with
    for wrong in ({"study": "full"}, {"alert_id": 99}):
        with pytest.raises(NotFoundError):
            pause_on_alert(lab.worker, **asked | wrong)


def test_a_wait_that_begins_now_finds_what_is_cleared_at_once(lab: Any, submit: Any) -> None:
    set_id = register(lab, "study")
    fill(lab, "study", set_id, 1.0)
    begin = newest_alert(lab.worker, study="study")
    assert begin == newest_alert(lab.worker, study=None) == 0
    submit("study", 1)
    (alert,) = open_alerts(lab.worker, study="study")
    clear_alert(lab.worker, study="study", alert_id=alert.alert_id)
    assert next_alert(lab.worker, study="study", after_id=begin) is None
    assert next_alert(lab.worker, study="study", after_id=begin, cleared_too=True).alert_id == alert.alert_id
    assert newest_alert(lab.worker, study="study") == alert.alert_id
    assert newest_alert(lab.worker, study="full") == 0
