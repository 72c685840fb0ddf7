"""An alert goes when what it asks for was done: it need not be cleared, and stays in the history."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from brought import replace, retire, seal
from click.testing import CliRunner
from metered import GATE, METER, Metered

from easeml_core.cli.app import cli
from easeml_core.formats.encoding import to_json
from easeml_core.services.datasets.validation_sets import validation_report
from easeml_core.services.meter.alerts import clear_alert, open_alerts, pause_on_alert
from easeml_core.services.reports.next_steps import next_steps
from easeml_core.services.reports.overview import overview
from easeml_core.services.reports.timeline import lifecycle
from easeml_core.services.test_sets.lifecycle import plan_test_set
from easeml_core.store.tables import studies

if TYPE_CHECKING:
    from pathlib import Path


def open_kinds(lab: Any, study: str = "full") -> list[str]:
    """Of the open alerts: the list of alerts and the overview agree."""
    kinds = [a.kind for a in open_alerts(lab.worker, study=study)]
    (entry,) = [e for e in overview(lab.worker).tenants if e.study == study]
    assert (entry.open_alerts, entry.alert_kinds) == (len(kinds), sorted(set(kinds)))
    return kinds


def needs(lab: Any, study: str = "full") -> list[str]:
    """What needs a person."""
    return [step.kind for step in next_steps(lab.worker, studies_only=[study], needs_only=True)]


def answer(lab: Any, study: str = "full") -> list[str]:
    """The alerts as the study's history has them, oldest first."""
    events = lifecycle(lab.worker, study=study).line
    return [e.title for e in reversed(events) if e.kind == "alert"]


@pytest.fixture(scope="module")
def read(own_template: Any, tmp_path_factory: Any) -> Metered:
    """The gap of what was handed in is in the last range."""
    given = {"gate": GATE, "meter": METER | {"overfitting_budget": 2}}
    study = Metered(own_template(), tmp_path_factory.mktemp("read"), "study", **given)
    study.gap("meter", 0.6)
    assert study.submit(1).signal == 3
    return study


@pytest.fixture
def overfitted(read: Metered, copied: Any, tmp_path: Path) -> Metered:
    return read.within(copied(read.lab), tmp_path)


def test_overfitting_goes_with_the_validation_set_that_it_is_about(bring: Any, overfitted: Metered) -> None:
    lab = overfitted.lab
    assert open_kinds(lab, "study") == needs(lab, "study") == ["overfitting"]
    asked = ["next", "study", "--needs", "--database", lab.url("easeml_worker"), "--json"]
    listed = json.loads(CliRunner().invoke(cli, asked, catch_exceptions=False).stdout)
    assert listed == to_json(next_steps(lab.worker, studies_only=["study"], needs_only=True))
    (alert,) = open_alerts(lab.worker, study="study")
    overfitted.gap("meter", -0.3)
    assert overfitted.submit(2).signal == 1
    assert open_kinds(lab, "study") == ["overfitting"]  # a better model makes the validation set no fresher
    replace(lab, bring(), study="study")
    assert open_kinds(lab, "study") == needs(lab, "study") == []
    assert answer(lab, "study") == ["alert: overfitting, served"]
    assert not pause_on_alert(lab.worker, study="study", alert_id=alert.alert_id).paused
    clear_alert(lab.worker, study="study", alert_id=alert.alert_id)  # who clears it nevertheless is not refused
    assert answer(lab, "study") == ["alert: overfitting, cleared"]


def test_overfitting_of_the_new_validation_set_is_an_alert_of_its_own(bring: Any, overfitted: Metered) -> None:
    lab = overfitted.lab
    replace(lab, bring(), study="study")
    overfitted.gap("meter", 0.6)
    assert overfitted.submit(3).signal == 3
    assert open_kinds(lab, "study") == ["overfitting"]
    assert answer(lab, "study") == ["alert: overfitting, served", "alert: overfitting"]


def test_an_answer_that_leaves_late_is_about_the_validation_set_it_was_measured_on(
    bring: Any, overfitted: Metered
) -> None:
    lab = overfitted.lab
    lab.as_superuser("UPDATE work.alerts SET created_at = now() + interval '1 h'")
    replace(lab, bring(), study="study")
    assert open_kinds(lab, "study") == []


def test_a_few_new_rows_serve_no_alert(bring: Any, overfitted: Metered) -> None:
    """The set goes on with what was seen on the earlier one, until as many rows are new."""
    lab = overfitted.lab
    (alert,) = open_alerts(lab.worker, study="study")
    kept = len(lab.open_parts("study").validation_labels)
    replace(lab, bring(order=[0]), study="study", add=True)
    replace(lab, bring(seed=2, order=[0, 1]), study="study", add=True)  # on with the first by way of the second
    assert open_kinds(lab, "study") == needs(lab, "study") == ["overfitting"]
    assert answer(lab, "study") == ["alert: overfitting"]
    assert pause_on_alert(lab.worker, study="study", alert_id=alert.alert_id).paused
    replace(lab, bring(seed=3, order=range(kept + 3)), study="study", add=True)
    assert validation_report(lab.worker, lab.artifacts, "study").inherits_from == []
    assert open_kinds(lab, "study") == []


def test_another_training_part_serves_no_alert(bring: Any, overfitted: Metered) -> None:
    """A refresh leaves the validation part as it was."""
    lab = overfitted.lab
    with lab.referee.begin() as tx:
        study = studies.get_study(tx, "study")
        version = studies.latest_data_version(tx, study.id)
        studies.add_data_version(
            tx,
            study_id=study.id,
            content_hash="refreshed",
            artifact=version.artifact,
            features=version.features,
            class_names=studies.class_names(tx, version.id),
            feature_names=studies.feature_names(tx, version.id),
            parts={"train": version.train_rows, "validation": version.validation_rows},
        )
    assert open_kinds(lab, "study") == ["overfitting"]
    replace(lab, bring(order=[0]), study="study", add=True)
    assert validation_report(lab.worker, lab.artifacts, "study").inherits_from == [1, 2]
    assert open_kinds(lab, "study") == ["overfitting"]
    replace(lab, bring(), study="study")
    assert open_kinds(lab, "study") == []


def test_the_old_rows_brought_again_make_the_alert_open_again(bring: Any, overfitted: Metered) -> None:
    lab = overfitted.lab
    first = bring()
    replace(lab, first, study="study")
    overfitted.gap("meter", 0.6)
    assert overfitted.submit(2).signal == 3
    replace(lab, bring(seed=2), study="study")
    assert open_kinds(lab, "study") == []
    again = bring(301, seed=3)
    again.values[1:], again.truth[1:] = first.values, first.truth
    again.write()
    replace(lab, again, study="study")
    assert validation_report(lab.worker, lab.artifacts, "study").inherits_from == [2]
    assert open_kinds(lab, "study") == ["overfitting"]


def test_a_set_that_ended_too_soon_is_served_by_another_one(lab: Any, bring: Any, tmp_path: Path) -> None:
    budget = {"budget": ["retire within 4 submissions"], "ambiguous": 0, "ranges": (-0.2, 0.0), "tolerance": 0.19}
    study = Metered(lab, tmp_path, "study", gate=GATE, meter=METER | budget)
    study.gap("meter", 0.0)  # on the edge: each answer is ambiguous, and the set was planned for none
    answers = [study.submit(number) for number in range(1, 4)]
    assert answers[-1].signal is None
    assert set(open_kinds(lab, "study")) == {"overfitting", "new-test-set"}
    replace(lab, bring(), study="study")
    assert "overfitting" in open_kinds(lab, "study")  # it was not about the validation set
    seal(lab, bring(seed=2), study="study", name="wider", purpose="meter", settings={"tolerance": 0.19})
    assert open_kinds(lab, "study") == []


def test_drift_goes_with_the_validation_set_that_it_is_about(lab: Any, bring: Any, tmp_path: Path) -> None:
    study = Metered(lab, tmp_path, "study", gate=GATE, meter=METER | {"overfitting_budget": 2}, direct={"share": 0.5})
    study.gap("meter", 0.5)
    study.gap("direct", -0.3)
    study.submit(1)
    assert open_kinds(lab, "study") == needs(lab, "study") == ["overfitting", "drift"]
    replace(lab, bring(), study="study")
    assert open_kinds(lab, "study") == []
    assert answer(lab, "study") == ["alert: overfitting, served", "alert: drift, served"]


@pytest.mark.parametrize("purpose", ["gate", "meter"])
def test_a_new_set_is_wanted_until_it_is_sealed(lab: Any, bring: Any, purpose: str) -> None:
    retire(lab, {"gate": 1, "meter": 2}[purpose])
    assert open_kinds(lab) == ["new-test-set"]
    assert needs(lab) == ["no-set"]
    plan_test_set(lab.referee, study="full", name="next", purpose=purpose, settings={})
    assert needs(lab) == ["no-set"]  # a plan answers nothing
    seal(lab, bring(), name="next", purpose=purpose)
    assert open_kinds(lab) == needs(lab) == []
    retire(lab, "next", study="full")
    assert open_kinds(lab) == ["new-test-set"]
    assert answer(lab) == ["alert: new-test-set, served", "alert: new-test-set"]


def test_a_set_that_was_planned_long_ago_serves_when_it_is_sealed(lab: Any, bring: Any) -> None:
    plan_test_set(lab.referee, study="full", name="next", settings={})
    retire(lab, 1)
    assert open_kinds(lab) == ["new-test-set"]
    seal(lab, bring(), name="next")
    assert open_kinds(lab) == []


def test_the_one_after_is_wanted_while_the_next_one_serves(lab: Any, bring: Any) -> None:
    seal(lab, bring(), name="second")
    retire(lab, 1)
    assert open_kinds(lab) == ["new-test-set"]
    assert "set-served" in needs(lab)
    seal(lab, bring(seed=2), name="third")
    assert open_kinds(lab) == needs(lab) == []
    retire(lab, "second", study="full")  # the third takes over: now one is wanted again, and once
    assert open_kinds(lab) == ["new-test-set"]
    assert answer(lab) == ["alert: new-test-set, served", "alert: new-test-set"]


def test_whoever_sealed_two_ahead_is_not_asked(lab: Any, bring: Any) -> None:
    for seed, name in ((1, "second"), (2, "third")):
        seal(lab, bring(seed=seed), name=name)
    retire(lab, 1)
    assert open_kinds(lab) == needs(lab) == []
    retire(lab, "second", study="full")
    (alert,) = open_alerts(lab.worker, study="full")
    assert alert.message.startswith("full: gate set")
    assert answer(lab) == ["alert: new-test-set, served", "alert: new-test-set"]
