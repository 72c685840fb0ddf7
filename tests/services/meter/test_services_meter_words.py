"""Who is shown an alert of the meter, and that its words agree: with the method, with drift, with the data it is about.

The sealed labels are replaced, so that the gap of the model that always names the frequent class is known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from metered import GATE, METER, Metered

from easeml_core.entities import StudyState
from easeml_core.errors import ConfigError, NotFoundError
from easeml_core.services.meter.alerts import (
    PausedStudy,
    clear_alert,
    newest_alert,
    next_alert,
    open_alerts,
    pause_on_alert,
)
from easeml_core.services.reports.overview import overview, study_details
from easeml_core.settings.config import MeterConfig
from easeml_core.store.tables import sealed, studies

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Study(Metered):
    """A study with a meter set, and with a second validation sample where it is asked for."""

    def __init__(self, lab: Any, folder: Path, *, direct: bool = False, **meter: Any) -> None:
        settings = {"gate": GATE, "meter": METER | meter, "direct": {"share": 0.5} if direct else None}
        super().__init__(lab, folder, "study", **settings)

    def add_version(self, *, is_refresh: bool = False, goes_on: bool = False) -> None:
        """Another data version: of a refresh, or with another validation part, perhaps of old rows."""
        with self.lab.referee.begin() as tx:
            old = studies.latest_data_version(tx, studies.get_study(tx, "study").id)
            same = {"study_id": old.study_id, "artifact": old.artifact, "features": old.features}
            same |= {"same_training_as": None if is_refresh else old.id, "goes_on_with": old.id if goes_on else None}
            rows = {"train": old.train_rows, "validation": old.validation_rows}
            studies.add_data_version(tx, content_hash="another", class_names=["a", "b"], parts=rows, **same)

    def seal_direct(self, rows: int) -> None:
        """Seal a second validation sample later, with the plan of the meter set."""
        ((steps, plan),) = self.lab.rows("SELECT steps, plan FROM work.test_sets WHERE id = :id", id=self.sets["meter"])
        noise = np.random.default_rng(7)
        with self.lab.referee.begin() as tx:
            version = studies.latest_data_version(tx, studies.get_study(tx, "study").id)
            content = {"inputs": noise.normal(size=(rows, 30)).astype(np.float32), "labels": np.zeros(rows, np.int64)}
            given = {"study_id": version.study_id, "data_version_id": version.id, "purpose": "direct", "state": "live"}
            self.sets["direct"] = sealed.seal(tx, steps=steps, plan=MeterConfig.from_json(plan), **given, **content)


@pytest.fixture
def make(lab: Any, tmp_path: Path) -> Callable[..., Study]:
    return lambda **settings: Study(lab, tmp_path, **settings)


# Who is shown it.


@pytest.fixture
def teams(make: Any) -> Study:
    """Two teams on both meters; the second one's budget is broken, and drift is certain."""
    study: Study = make(direct=True, teams=2, overfitting_budget=2)
    study.gap("meter", 0.5)
    study.gap("direct", -0.3)
    assert study.submit(1, team=2).drift == "certain"
    return study


def test_only_the_team_is_shown_its_alerts(teams: Study) -> None:
    worker = teams.lab.worker
    for asked in ({"study": "study"}, {"study": "study", "team": 1}, {"study": None}):
        assert open_alerts(worker, **asked) == []
        assert next_alert(worker, **asked, kind=("overfitting", "drift")) is None
        assert newest_alert(worker, **asked) == 0
    overfitting, drift = open_alerts(worker, study="study", team=2)
    assert [a.kind for a in (overfitting, drift)] == ["overfitting", "drift"]
    assert [(a.team, a.signal, a.direct_signal) for a in (overfitting, drift)] == [(2, 3, 1)] * 2
    assert next_alert(worker, study="study", team=2) == overfitting
    assert next_alert(worker, study="study", team=2, after_id=overfitting.alert_id) == drift
    assert newest_alert(worker, study="study", team=2) == drift.alert_id


def test_only_the_team_is_shown_its_readings(teams: Study) -> None:
    worker = teams.lab.worker
    entry = next(e for e in overview(worker).tenants if e.study == "study")
    found = [
        getattr(entry, k) for k in ("signal", "signals", "direct_signal", "drift", "open_alerts", "alert_kind", "teams")
    ]
    assert found == [None, None, None, None, 0, None, 2]
    assert "alert" not in entry.next
    for team in (None, 1):
        seen = study_details(worker, study="study", team=team)
        assert (seen.meter, seen.alerts) == (None, [])
    own = study_details(worker, study="study", team=2)
    assert (own.meter.signal, own.meter.team, len(own.alerts)) == (3, 2, 2)
    teams.submit(1, team=1)
    assert study_details(worker, study="study", team=2).meter.team == 2
    assert study_details(worker, study="study", team=1).meter.team == 1


def test_only_the_team_deals_with_its_alerts_and_they_pause_nobody(teams: Study) -> None:
    worker = teams.lab.worker
    first = open_alerts(worker, study="study", team=2)[0]
    assert first.over_budget
    asked = {"study": "study", "alert_id": first.alert_id}
    for act in (clear_alert, pause_on_alert):
        for team in (None, 1):
            with pytest.raises(NotFoundError) as found:
                act(worker, **asked, team=team)
            assert found.value.known == []
    assert pause_on_alert(worker, **asked, team=2) == PausedStudy(**asked, paused=False, state=StudyState.ACTIVE)
    assert clear_alert(worker, **asked, team=2).cleared
    assert [a.kind for a in open_alerts(worker, study="study", team=2)] == ["drift"]


def test_alerts_of_one_team_alone_and_for_new_sets_are_everybodys(make: Any) -> None:
    study = make(steps=1, overfitting_budget=2)
    study.gap("meter", 0.5)
    study.submit(1)
    everybody = open_alerts(study.lab.worker, study="study")
    assert [(a.kind, a.team) for a in everybody] == [("overfitting", None), ("new-test-set", None)]
    assert open_alerts(study.lab.worker, study="study", team=1) == everybody
    entry = next(e for e in overview(study.lab.worker).tenants if e.study == "study")
    assert (entry.signal, entry.teams, entry.open_alerts) == (3, 1, 2)


def test_a_team_is_one_of_a_study(lab: Any) -> None:
    for asked in ({"study": None, "team": 1}, {"study": "full", "team": 0}, {"study": "full", "team": True}):
        for ask in (open_alerts, next_alert, newest_alert):
            with pytest.raises(ConfigError) as refused:
                ask(lab.worker, **asked)
            assert (refused.value.field, refused.value.value) == ("team", asked["team"])


# What it says.


def test_the_ratchet_speaks_of_the_largest_gap_so_far(make: Any) -> None:
    study = make(method="ratchet")
    for number, gap in ((1, 0.5), (2, -0.5)):
        study.gap("meter", gap)
        found = study.submit(number).alert
        assert "largest gap so" in found
        assert "above 0.3 (" in found


def test_a_broken_budget_and_drift_do_not_contradict_each_other(make: Any, recorded: Any) -> None:
    study = make(direct=True, overfitting_budget=2)
    study.gap("meter", 0.5)
    study.gap("direct", -0.3)
    answer = study.submit(1)
    overfitting, drift = (a.message for a in open_alerts(study.lab.worker, study="study"))
    assert overfitting == answer.alert
    assert overfitting.endswith(f"(+/- 0.19); {answer.sentence}")
    assert "replace the validation" not in overfitting
    assert answer.sentence in drift
    recorded(f"{overfitting}\n{drift}", "alerts_of_a_broken_budget_and_drift")


@pytest.mark.parametrize(
    ("version", "found"),
    [
        ({}, [False, False, True]),
        ({"goes_on": True}, [False, True, True]),
        ({"is_refresh": True}, [False, True, True]),
    ],
    ids=["replaced", "a few new rows", "another training part"],
)
def test_signals_count_on_until_the_validation_set_is_replaced(make: Any, version: Any, found: list[bool]) -> None:
    """Two in a row, three times: before, across, and after the new version of the data."""
    study = make(budget=["two red in a row"])
    study.gap("meter", 0.5)
    alerts = [study.submit(1).alert]
    study.add_version(**version)
    alerts += [study.submit(number).alert for number in (1, 2)]
    assert [alert is not None for alert in alerts] == found


def test_different_shifts_of_an_old_and_a_new_answer_are_no_drift(make: Any) -> None:
    """The second sample is sealed later: the first answer comes from the ledger, the second has another shift."""
    study = make(method="dithered", steps=5)
    study.gap("meter", 0.0)
    signals = [study.submit(number).signal for number in (1, 2, 3, 4)]
    study.seal_direct(400)
    study.gap("direct", 0.0)
    answers = [study.submit(number) for number in (1, 2, 3, 4)]
    assert [(a.signal, a.cached) for a in answers] == [(signal, True) for signal in signals]
    assert {a.drift for a in answers} == {"none seen"}
    differing = [a for a in answers if a.signal != a.direct_signal]
    assert differing  # the installation's secret is fixed, and so are the shifts
    assert all("different boundaries" in a.sentence for a in differing)
    assert open_alerts(study.lab.worker, study="study", kind="drift") == []
