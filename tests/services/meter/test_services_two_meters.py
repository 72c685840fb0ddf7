"""Two meters, and a set that gate and meter share: what is read, what is published, and what ends when.

Labels of the sealed sets are replaced, so that every gap is known: with a share q of the rarer class among them, the
model that always names the frequent one is wrong there on q, and its gap is q minus its loss on the validation part.
"""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from metered import GATE, Metered
from metered import METER as STRICT

from easeml_core.entities import SealedSetPurpose
from easeml_core.services.meter.alerts import clear_alert, next_alert, open_alerts, pause_on_alert
from easeml_core.services.meter.results import meter_history
from easeml_core.services.referee.process import Referee
from easeml_core.services.referee.publishing import Timetable
from easeml_core.services.referee.requests import answer_of, file_gate_request, file_meter_request
from easeml_core.services.reports.overview import live_sets, overview, study_details
from easeml_core.services.test_sets.lifecycle import retire_test_set
from easeml_core.settings.config import set_config
from easeml_core.store.tables import sealed, studies

if TYPE_CHECKING:
    from collections.abc import Callable

METER = STRICT | {"overfitting_budget": 3}
PLAN = {"gate": GATE, "meter": METER, "direct": {"share": 0.5}}


class Study(Metered):
    """A study with a second validation sample."""

    def __init__(self, lab: Any, folder: Any, name: str = "study", **changes: Any) -> None:
        super().__init__(lab, folder, name, **PLAN | changes)

    def tighten(self, purpose: str) -> None:
        """Plan the meters for the tolerance of the last reading on this one: it affords no ambiguous answer."""
        sql = "SELECT tolerance FROM sealed.ledger WHERE test_set_id = :id ORDER BY step DESC LIMIT 1"
        tolerance = self.lab.one(sql, id=self.sets[purpose]) + 1e-9
        plan = f"plan || '{{\"tolerance\": {tolerance}}}'"
        metered = f"UPDATE work.test_sets SET plan = {plan} WHERE id = ANY (%s) AND purpose IN ('meter', 'direct')"
        self.lab.as_superuser(metered, list(self.sets.values()))

    def entries(self, purpose: str) -> list[Any]:
        columns = "step, answer, log_level, log_cost, system, system_step, steps, system_steps"
        sql = f"SELECT {columns} FROM sealed.ledger WHERE test_set_id = :id ORDER BY step"
        return list(self.lab.rows(sql, id=self.sets[purpose]))

    def state(self, purpose: str) -> tuple[str, str | None]:
        sql = "SELECT state, retired_why FROM work.test_sets WHERE id = :id"
        ((state, why),) = self.lab.rows(sql, id=self.sets[purpose])
        return state, why

    def alerts(self) -> list[tuple[str, str]]:
        return [(a.kind, a.message) for a in open_alerts(self.lab.worker, study=self.name)]


@pytest.fixture
def make(lab: Any, tmp_path: Any) -> Callable[..., Study]:
    return lambda *name, **changes: Study(lab, tmp_path, *name, **changes)


# Two meters.


@pytest.fixture(scope="module")
def with_second_sample(own_template: Any, tmp_path_factory: Any) -> Study:
    return Study(own_template(), tmp_path_factory.mktemp("two"))


@pytest.fixture
def study(with_second_sample: Study, copied: Any, tmp_path: Any) -> Study:
    return with_second_sample.within(copied(with_second_sample.lab), tmp_path)


@pytest.fixture
def drifted(study: Study) -> Study:
    """Validation data are easier than test data, and the model is not tuned to them."""
    study.gap("meter", 0.5)
    study.gap("direct", -0.3)
    return study


def test_a_submission_is_read_on_both_sets_and_certain_drift_is_an_alert(drifted: Study, recorded: Any) -> None:
    answer = drifted.submit(1)
    assert (answer.message.startswith("signal 3 of 3, 1 on "), answer.message.endswith(" certain")) == (True, True)
    assert (answer.signal, answer.direct_signal, answer.drift) == (3, 1, "certain")
    assert (answer.reliability, answer.alert) == (0.8, None)
    for purpose, signal in (("meter", "3"), ("direct", "1")):
        ((step, shown, log_level, _, system, system_step, steps, system_steps),) = drifted.entries(purpose)
        assert (step, shown, system, system_step, steps, system_steps) == (1, signal, "meter", 1, 4, 4)
        assert log_level == pytest.approx(math.log(0.1 / 4), rel=1e-12)  # half of delta each, T = 4
    columns = "signal, direct_signal, drift, direct_test_set_id, cached, data_version_id = (SELECT max(id) FROM "
    row = drifted.lab.rows(f"SELECT {columns} work.data_versions) FROM work.meter_readings")
    assert row == [(3, 1, "certain", drifted.sets["direct"], False, True)]
    ((kind, alert),) = drifted.alerts()
    assert (kind, answer.sentence in alert) == ("drift", True)
    recorded(alert, "drift_harder")


def test_drift_is_reported_wherever_a_study_is_shown_and_pauses_nothing(drifted: Study) -> None:
    answer = drifted.submit(1)
    worker = drifted.lab.worker
    entry = next(e for e in overview(worker).tenants if e.study == "study")
    assert (entry.signal, entry.direct_signal, entry.drift, entry.alert_kind) == (3, 1, "certain", "drift")
    assert entry.next.startswith("read the alert: validation and")
    seen = study_details(worker, study="study").meter
    assert (seen.direct_signal, seen.sentence, seen.method) == (1, answer.sentence, "path-adaptive")
    (alert,) = open_alerts(worker, study="study", kind="drift")
    assert (alert.over_budget, alert.signal, alert.direct_signal) == (None, 3, 1)
    assert not pause_on_alert(worker, study="study", alert_id=alert.alert_id).paused
    assert next_alert(worker, study="study", kind="overfitting") is None
    assert next_alert(worker, study="study", kind=("overfitting", "drift")) == alert


def test_the_history_of_a_meter_shows_the_second_sample_while_it_is_live(drifted: Study) -> None:
    referee, set_id = drifted.lab.referee, drifted.sets["direct"]

    def second() -> tuple[int, int | None] | None:
        history = meter_history(referee, study="study")
        assert history is not None
        assert history.chosen.test_set_id == drifted.sets["meter"]
        found = history.second
        return None if found is None else (found.found.test_set_id, found.answer and found.answer.signal)

    assert second() == (set_id, None)
    drifted.submit(1)
    assert second() == (set_id, 1)
    retire_test_set(referee, test_set=str(set_id))
    assert second() is None


def test_a_reading_may_break_the_budget_and_show_drift_at_once(make: Any) -> None:
    study = make(meter=METER | {"overfitting_budget": 2})
    study.gap("meter", 0.5)
    study.gap("direct", -0.3)
    answer = study.submit(1)
    assert "budget of 2" in answer.alert
    retire_test_set(study.lab.referee, test_set=str(study.sets["direct"]))
    assert [kind for kind, _ in study.alerts()] == ["overfitting", "drift", "new-test-set"]
    urgent = []
    for alert in open_alerts(study.lab.worker, study="study"):  # the most urgent one first
        urgent += [e.alert_kind for e in overview(study.lab.worker).tenants if e.study == "study"]
        clear_alert(study.lab.worker, study="study", alert_id=alert.alert_id)
    assert urgent == ["overfitting", "drift", "new-test-set"]


def test_the_same_artifact_costs_neither_set_anything_and_raises_no_second_alert(drifted: Study) -> None:
    first = drifted.submit(1)
    again = drifted.submit(1)
    assert replace(again, request_id=0, cached=False) == replace(first, request_id=0)
    assert again.cached
    assert [len(drifted.entries(purpose)) for purpose in ("meter", "direct")] == [1, 1]
    assert len(drifted.alerts()) == 1


def test_easier_test_data_are_drift_too(study: Study, recorded: Any) -> None:
    study.gap("meter", -0.3)
    study.gap("direct", 0.5)
    answer = study.submit(1)
    ((kind, message),) = study.alerts()
    assert (answer.drift, kind, answer.sentence in message) == ("certain", "drift", True)
    recorded(message, "drift_easier")


def test_equal_signals_are_no_drift_and_neighbours_only_likely(study: Study) -> None:
    study.gap("direct", 0.0)
    for number, gap, drift in ((1, 0.0, "none seen"), (2, 0.5, "likely")):
        study.gap("meter", gap)
        assert study.submit(number).drift == drift
    assert study.alerts() == []


def test_readings_go_on_without_a_second_sample_that_has_served(study: Study, recorded: Any) -> None:
    study.gap("meter", 0.6)  # always wrong: its interval is the narrowest
    study.gap("direct", 0.0)
    first = study.submit(1)
    study.tighten("direct")
    second, third = (study.submit(number) for number in (2, 3))
    assert (first.direct_signal, first.drift) == (2, "likely")
    assert second.message.startswith("signal 3 of 3; ")
    assert second.message.endswith(" retired")
    assert (second.signal, second.direct_signal, second.drift) == (3, None, None)
    assert "cannot tell tuning" in second.sentence
    assert [entry[1] for entry in study.entries("direct")] == ["2", "retired"]
    assert study.state("direct") == ("retired", "signals")
    assert (third.message, third.sentence, third.reliability) == ("signal 3 of 3", None, 0.9)
    assert len(study.entries("meter")) == 3
    ((kind, alarm),) = study.alerts()
    assert (kind, f"sample {study.sets['direct']} " in alarm) == ("new-test-set", True)
    recorded(alarm.replace(f" {study.sets['direct']} ", " NUMBER "), "second_sample_has_served")
    assert live_sets(study.lab.worker, study="study") == ["gate", "meter"]


def test_where_the_meter_set_gives_no_answer_the_second_one_is_not_asked(study: Study) -> None:
    study.gap("meter", 0.0)
    study.gap("direct", 0.6)
    assert study.submit(1).signal == 2
    study.tighten("meter")
    assert study.submit(2).signal is None
    assert [len(study.entries(purpose)) for purpose in ("meter", "direct")] == [2, 1]
    assert (study.state("meter"), study.state("direct")) == (("retired", "signals"), ("live", None))


def test_a_second_sample_with_other_ranges_is_left_alone_and_the_referee_reported(study: Study, caplog: Any) -> None:
    plan = "UPDATE work.test_sets SET plan = plan || '{\"ranges\": [0.1, 0.3]}' WHERE id = %s"
    study.lab.as_superuser(plan, study.sets["direct"])
    with caplog.at_level(logging.WARNING, logger="easeml_core"):
        answer = study.submit(1)
    assert (answer.direct_signal, answer.sentence, study.entries("direct")) == (None, None, [])
    assert "its ranges differ" in caplog.text
    assert "differ" not in str(answer)


def test_both_meters_shift_their_boundaries_alike(make: Any) -> None:
    study = make(meter=METER | {"method": "dithered"})
    answer = study.submit(1)
    edges = study.lab.rows("SELECT report -> 'edges' FROM sealed.ledger ORDER BY id")
    assert edges == [(answer.boundaries,)] * 2
    assert answer.drift in ("none seen", "likely", "certain")


def test_another_validation_set_makes_another_submission_of_the_same_artifact(drifted: Study) -> None:
    lab = drifted.lab
    drifted.submit(1)
    with lab.referee.begin() as tx:
        old = studies.latest_data_version(tx, studies.get_study(tx, "study").id)
        same = {"study_id": old.study_id, "artifact": old.artifact, "features": old.features}
        rows = {"train": old.train_rows, "validation": old.validation_rows}
        studies.add_data_version(tx, content_hash="another", class_names=["a", "b"], parts=rows, **same)
    answers = [drifted.submit(1) for _ in range(2)]
    assert [answer.cached for answer in answers] == [False, True]
    assert [len(drifted.entries(purpose)) for purpose in ("meter", "direct")] == [2, 2]
    versions = lab.rows(
        "SELECT v.version FROM work.meter_readings r JOIN work.data_versions v ON v.id = "
        "r.data_version_id ORDER BY r.request_id"
    )
    assert versions == [(1,), (2,), (2,)]


# Ends, and the alarm for a new set.


@pytest.mark.parametrize(("settings", "why"), [({"steps": 1}, "steps"), ({"method": "first-change"}, "regulation")])
def test_a_meter_set_that_has_served_raises_the_alarm_once(
    make: Any, settings: dict[str, Any], why: str, recorded: Any
) -> None:
    study = make(meter=METER | settings, direct=None)
    study.gap("meter", 0.5)
    assert study.submit(1).signal == 3
    assert study.state("meter") == ("retired", why)
    ((kind, message),) = study.alerts()
    assert kind == "new-test-set"
    assert message.startswith(f"study: meter set {study.sets['meter']} is retired, ")
    recorded(message.replace(f" {study.sets['meter']} ", " NUMBER "), f"meter_set_ended_by_{why}")
    for purpose, found in (("meter", True), ("gate", False), (None, True), ("direct", False)):
        alert = next_alert(study.lab.worker, study="study", kind="new-test-set", purpose=purpose)
        assert (alert is not None) is found, purpose


def test_a_team_hears_nothing_of_another_teams_end(make: Any) -> None:
    study = make(meter=METER | {"teams": 2}, direct=None)
    study.gap("meter", 0.0)
    assert study.submit(1).signal == 2
    study.tighten("meter")
    assert study.submit(2).signal is None
    assert (study.state("meter"), study.alerts()) == (("live", None), [])
    study.submit(1, team=2)
    study.submit(2, team=2)
    assert study.state("meter") == ("retired", "signals")
    assert [kind for kind, _ in study.alerts()] == ["new-test-set"]


def test_a_set_that_is_retired_by_hand_raises_the_alarm(study: Study) -> None:
    for purpose in ("meter", "direct"):
        retire_test_set(study.lab.referee, test_set=str(study.sets[purpose]))
    assert [kind for kind, _ in study.alerts()] == ["new-test-set"] * 2
    assert all("referee has retired" in message for _, message in study.alerts())


def another_set(study: Study, purpose: str, state: str = "sealed") -> int:
    """Seal random examples with the plan of the set that the study has of this purpose."""
    lab = study.lab
    ((steps, plan),) = lab.rows("SELECT steps, plan FROM work.test_sets WHERE id = :id", id=study.sets[purpose])
    noise = np.random.default_rng(len(lab.rows("SELECT id FROM work.test_sets")))
    with lab.referee.begin() as tx:
        found = studies.get_study(tx, study.name)
        version = studies.latest_data_version(tx, found.id).id
        content = {"inputs": noise.normal(size=(60, 30)).astype(np.float32), "labels": noise.integers(0, 2, 60)}
        given = {"study_id": found.id, "data_version_id": version, "purpose": purpose, "state": state, **content}
        return sealed.seal(tx, steps=steps, plan=set_config(SealedSetPurpose(purpose), plan), **given)


# One set for gate and meter.

JOINT = {
    "gate": {"condition": "n > 0.1 +/- 0.25", "steps": 3, "estimator": "paper", "adaptivity": "full"},
    "meter": {name: value for name, value in METER.items() if name != "reliability"} | {"tolerance": 0.19, "steps": 3},
    "joint": {"reliability": 0.6, "gate_share": 0.5},
    "direct": None,
}


@pytest.fixture(scope="module")
def with_one_set(own_template: Any, tmp_path_factory: Any) -> Study:
    return Study(own_template(), tmp_path_factory.mktemp("one"), **JOINT)


@pytest.fixture
def shared(with_one_set: Study, copied: Any, tmp_path: Any) -> Study:
    found = with_one_set.within(copied(with_one_set.lab), tmp_path)
    found.gap("joint", 0.0)
    return found


def test_a_signal_on_a_shared_set_pays_for_verdicts_and_signals(shared: Study) -> None:
    shared.gap("joint", 0.29)  # beside a boundary: each signal costs
    shared.lab.gate(shared.model(1), "study")
    shared.submit(1)
    shared.submit(2)
    paid, rows = 0.0, shared.entries("joint")
    assert [(r[0], r[4], r[5], r[7]) for r in rows] == [(1, "gate", 1, 3), (2, "meter", 1, 3), (3, "meter", 2, 3)]
    assert {r[6] for r in rows} == {6}
    for _, _, log_level, log_cost, *_ in rows:
        assert log_level == pytest.approx(math.log(0.2 / 3) - paid, rel=1e-9)
        assert log_cost > 0
        paid += log_cost
    assert shared.submit(1).submissions_left == 1  # two of three are used; verdicts are no submissions


def test_a_shared_set_that_the_meter_has_used_up_is_at_its_end_for_the_gate_too(shared: Study) -> None:
    assert live_sets(shared.lab.worker, study="study") == ["gate", "joint", "meter"]
    shared.gap("joint", 0.55)
    while shared.state("joint")[0] == "live":
        shared.submit(len(shared.models))
    assert live_sets(shared.lab.worker, study="study") == []
    assert shared.lab.gate(shared.model(1), "study").refused
    ((kind, message),) = shared.alerts()
    assert kind == "new-test-set"
    assert "no verdict and" in message
    assert "no signal until" in message
    entry = next(e for e in overview(shared.lab.worker).tenants if e.study == "study")
    assert (entry.meter_retired, entry.gate_set_live) == (True, False)
    for purpose in ("gate", "meter", "joint"):
        assert next_alert(shared.lab.worker, study="study", purpose=purpose) is not None


@pytest.mark.parametrize("waiting", [("gate", "meter"), ("joint", "gate", "meter")])
def test_after_a_shared_set_a_shared_one_or_one_for_each_goes_live(make: Any, waiting: tuple[str, ...]) -> None:
    shared, plain = make(**JOINT), make("plain", direct=None)
    shared.sets |= {purpose: plain.sets[purpose] for purpose in ("gate", "meter")}  # for their plans
    sealed_sets = {purpose: another_set(shared, purpose) for purpose in waiting}
    retire_test_set(shared.lab.referee, test_set=str(shared.sets["joint"]), study="study")
    live = {row[0] for row in shared.lab.rows("SELECT id FROM work.test_sets WHERE state = 'live' AND id > 8")}
    expected = {sealed_sets[purpose] for purpose in waiting if "joint" not in waiting or purpose == "joint"}
    assert live - set(plain.sets.values()) == expected
    message = next_alert(shared.lab.worker, study="study", cleared_too=True).message
    assert "another one in" in message
    assert bool(shared.alerts()) == ("joint" not in waiting)  # else others wait behind the one that is live
    assert all(f"set {set_id} is live now" in message for set_id in expected)


def test_the_end_of_a_shared_set_shows_in_nothing_before_it_is_said(shared: Study) -> None:
    """Its last signal is decided and waits to leave: a gate request must wait too, and not be refused or judged."""
    lab, first = shared.lab, shared.model(1)
    late = Referee(lab.referee, lab.artifacts, timetable=Timetable(delay_seconds=3600))
    lab.as_superuser(
        "UPDATE work.test_sets SET plan = jsonb_set(plan, '{meter,steps}', '1') WHERE id = %s", shared.sets["joint"]
    )
    given = {"study": "study", "model_id": first}
    reading = file_meter_request(lab.worker, **given, request_key="m")
    late.run_once()
    verdict = file_gate_request(lab.worker, **given, request_key="g")
    late.run_once()
    decided = [row for (row,) in lab.rows("SELECT request_id FROM sealed.outbox ORDER BY 1")]
    assert (reading in decided, verdict in decided) == (True, False)
    lab.as_superuser("UPDATE sealed.outbox SET leaves_at = now()")
    late.run_once()
    assert answer_of(lab.worker, reading).signal is not None
    lab.as_superuser("UPDATE sealed.outbox SET leaves_at = now()")
    late.run_once()
    assert "no live gate" in answer_of(lab.worker, verdict).message


def test_the_end_of_the_second_sample_holds_the_next_reading_until_it_is_said(study: Study) -> None:
    study.gap("meter", 0.6)
    study.gap("direct", 0.0)
    study.submit(1)
    study.tighten("direct")
    lab = study.lab
    late = Referee(lab.referee, lab.artifacts, timetable=Timetable(delay_seconds=3600))
    asked = [
        file_meter_request(lab.worker, study="study", model_id=study.model(n), request_key=f"k{n}") for n in (2, 3)
    ]
    late.run_once()
    decided = [row for (row,) in lab.rows("SELECT request_id FROM sealed.outbox WHERE left_at IS NULL")]
    assert decided == asked[:1]


def test_a_cleared_alarm_is_found_by_its_number(study: Study) -> None:
    retire_test_set(study.lab.referee, test_set=str(study.sets["direct"]))
    (alert,) = open_alerts(study.lab.worker, study="study")
    clear_alert(study.lab.worker, study="study", alert_id=alert.alert_id)
    asked = {"study": "study", "kind": "new-test-set", "purpose": "direct"}
    assert next_alert(study.lab.worker, **asked) is None
    found = next_alert(study.lab.worker, **asked, cleared_too=True)
    assert found is not None
    assert found.alert_id == alert.alert_id
