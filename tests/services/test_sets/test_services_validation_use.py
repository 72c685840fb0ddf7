"""How far a validation set is used up, and what one that takes its place goes on with."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from easeml_core.errors import ConfigError, NotFoundError
from easeml_core.services.datasets.validation_sets import validation_report
from easeml_core.settings.config import MeterConfig

if TYPE_CHECKING:
    from pathlib import Path

from brought import replace, retire, seal

COUNTS = {"trials": 3, "rungs": 0, "submissions": 0, "nights": 1}


def state(lab: Any, **more: Any) -> tuple[str, list[int], int]:
    report = validation_report(lab.worker, lab.artifacts, "full", **more)
    return report.state, report.signals, report.add_rows


def test_a_set_that_carries_its_looks_is_used(lab: Any) -> None:
    report = validation_report(lab.worker, lab.artifacts, "full")
    assert (report.study, report.version, report.rows) == ("full", 1, 85)
    assert report.looks == COUNTS
    # ln(2 / 0.1) / (2 * 0.2^2) = 37.4; with 4 looks ln(80) / 0.08 = 54.8
    assert (report.minimum, report.rows_for_looks, report.add_rows) == (38, 55, 0)
    assert (report.state, report.advice, report.signals) == ("used", "go on", [])
    assert (report.to_measure, report.under_way) == (0, 0)
    (only,) = report.history
    assert (only.version, only.rows, only.state, only.looks) == (1, 85, "used", COUNTS)
    assert "; rows: train " in report.split


def test_nobody_has_looked_at_a_new_set(lab: Any) -> None:
    lab.register("new")
    report = validation_report(lab.worker, lab.artifacts, "new")
    assert (report.state, sum(report.looks.values())) == ("fresh", 0)


def test_every_kind_of_look_is_counted_on_its_own_version(lab: Any) -> None:
    add = "INSERT INTO work.models (study_id, data_version_id, format, artifact, validation_loss, submitted) "
    lab.as_superuser(add + "SELECT 1, 1, format, artifact, 0.5, true FROM work.models WHERE trial_id IS NOT NULL")
    lab.as_superuser(
        "UPDATE work.observations SET observed_at = CASE WHEN trial_id = (SELECT min(trial_id) FROM work.observations) "
        # Two moments of one day in Kiribati, of two days in UTC.
        "THEN '2026-05-01 23:30+00'::timestamptz ELSE '2026-05-02 00:30+00'::timestamptz END"
    )
    rung = 'INSERT INTO work.rungs (trial_id, rung, step, "of", quality, hoped, needed, known, goes_on, rule) '
    gains = "VALUES (1, 1, 1, 9, 0.5, 0.6, 0.7, 6, false, 'gains'), (1, 2, 3, 9, 0.5, 0.8, 0.7, 6, true, 'gains')"
    lab.as_superuser(rung + gains)
    lab.as_superuser(rung + "VALUES (2, 1, 1, 9, 0.5, NULL, 0.7, 5, true, 'median')")  # too little known to look
    handed_in = lab.one("SELECT count(*) FROM work.models WHERE study_id = 1 AND submitted")
    looks = validation_report(lab.worker, lab.artifacts, "full").looks
    assert looks == {"trials": 3, "rungs": 2, "submissions": handed_in, "nights": 2}
    assert validation_report(lab.worker, lab.artifacts, "first").looks["submissions"] == 0


@pytest.mark.journey
def test_the_last_signal_of_the_meter_wears_it(lab: Any, bring: Any) -> None:
    answer = lab.meter("good")
    assert state(lab) == ("used", [answer.signal], 0)
    lab.relabel(2, lambda labels: 1 - labels)  # what is good on open data is bad on these
    answer = lab.meter("worse")
    assert (answer.signal, state(lab)[:2]) == (3, ("worn", [1, 3]))
    assert "85 new rows" in validation_report(lab.worker, lab.artifacts, "full").advice
    lab.meter("good")  # from the log: no news
    assert state(lab)[1] == [1, 3]
    lab.as_superuser("UPDATE work.meter_readings SET data_version_id = NULL")  # as before there were versions
    assert state(lab)[:2] == ("worn", [1, 3])
    replace(lab, bring())
    assert state(lab)[:2] == ("fresh", [])
    assert validation_report(lab.worker, lab.artifacts, "full").history[0].state == "replaced"
    lab.as_superuser("UPDATE work.meter_readings SET data_version_id = (SELECT max(id) FROM work.data_versions)")
    assert state(lab)[:2] == ("worn", [1, 3])


@pytest.mark.parametrize("ranges", [(0.1, 0.2, 0.3), (0.2, 0.5)])
def test_signals_of_a_set_with_other_ranges_are_left_out(lab: Any, ranges: tuple[float, ...]) -> None:
    lab.meter("good")
    retire(lab, 2)  # what the study was registered with counts now: the same ranges
    assert state(lab)[1] == [1]
    plan = MeterConfig(ranges=ranges, tolerance=0.1, reliability=0.9).to_json()
    lab.as_superuser("UPDATE work.studies SET config = jsonb_set(config, '{meter}', %s) WHERE id = 1", json.dumps(plan))
    assert state(lab)[1] == []
    least = {0.1: 150, 0.2: 38}[ranges[0]]  # ln(20) / (2 b^2) = 149.8 and 37.4
    assert validation_report(lab.worker, lab.artifacts, "full").minimum == least


@pytest.mark.parametrize(("total", "direct", "expected"), [(1.0, 0.0, "used"), (0.0, 1.0, "worn"), (1.0, 1.0, "worn")])
def test_drift_wears_no_validation_set(lab: Any, tmp_path: Path, total: float, direct: float, expected: str) -> None:
    """The second validation sample says how far the set is tuned to; the sum of tuning and drift does not."""
    study = second_sample(lab)
    frequent = int(np.bincount(lab.open_parts("two").train_labels).argmax())
    for purpose, loss in (("meter", total), ("direct", direct)):
        answer = 1 - frequent if loss else frequent
        lab.relabel(study[purpose], lambda old, answer=answer: np.full_like(old, answer))
    (tmp_path / "m").write_text(json.dumps({"label": frequent}))
    answer = lab.meter(lab.hand_in("two", "m", tmp_path / "m", kind="constant", loss=0.5), "two")
    assert (answer.signal, answer.direct_signal) == (1 + 2 * int(total), 1 + 2 * int(direct))
    report = validation_report(lab.worker, lab.artifacts, "two")
    assert (report.state, report.signals) == (expected, [1 + 2 * int(direct)])


def second_sample(lab: Any) -> dict[str, int]:
    """A study ``two`` with a second validation sample; purpose to number of its sets."""
    meter = {"ranges": (-0.2, 0.3), "tolerance": 0.19, "reliability": 0.8, "steps": 4, "ambiguous": 4}
    gate = {"condition": "n > 0.5 +/- 0.3", "reliability": 0.8, "steps": 2, "estimator": "paper"}
    answer = lab.register("two", gate=gate, meter=meter, direct={"share": 0.5})
    assert not answer.refused, answer.message
    sql = "SELECT t.purpose, t.id FROM work.test_sets t JOIN work.studies s ON s.id = t.study_id WHERE s.name = 'two'"
    return dict(lab.rows(sql))


def test_no_team_learns_another_one_s_signals(lab: Any) -> None:
    lab.meter("good")
    lab.as_superuser("UPDATE work.test_sets SET plan = jsonb_set(plan, '{teams}', '2') WHERE id = 2")
    assert state(lab)[1] == []
    assert (state(lab, team=1)[1], state(lab, team=2)[1]) == ([1], [])
    with pytest.raises(ConfigError, match="1 to 2") as refused:
        validation_report(lab.worker, lab.artifacts, "full", team=3)
    assert (refused.value.field, refused.value.value) == ("team", 3)


def test_a_study_must_be_there_and_have_data(lab: Any) -> None:
    with pytest.raises(NotFoundError, match="nothing"):
        validation_report(lab.worker, lab.artifacts, "nothing")


# -- what another one goes on with -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "goes_on"), [(1, True), (84, True), (85, False)])
def test_a_worn_set_stays_worn_until_as_many_rows_are_new_as_are_kept(
    lab: Any, bring: Any, rows: int, goes_on: bool
) -> None:
    lab.relabel(2, lambda labels: 1 - labels)
    assert lab.meter("good").signal == 3
    done = replace(lab, bring(rows), add=True)
    report = validation_report(lab.worker, lab.artifacts, "full")
    assert (report.version, report.signals, sum(report.looks.values())) == (2, [], 0)
    if goes_on:
        new = "1 was" if rows == 1 else f"{rows} were"
        (said,) = done.warnings
        assert said.startswith("85 rows were ")
        assert f" and {new} in none" in said
        assert (report.state, report.inherits_from) == ("worn", [1])
        assert (report.inherited_signals, report.inherited_looks) == ([3], COUNTS)
        # 4 looks, and none of the new version's own: ln(80) / 0.08 = 54.8
        assert report.rows_for_looks == 55
    else:
        assert done.warnings == []
        assert (report.state, report.inherits_from, report.inherited_signals) == ("fresh", [], [])
        assert sum(report.inherited_looks.values()) == 0


@pytest.mark.journey
def test_what_was_seen_is_carried_over_more_than_one_version(lab: Any, bring: Any) -> None:
    lab.relabel(2, lambda labels: 1 - labels)
    lab.meter("good")
    replace(lab, bring(20), add=True)
    assert lab.meter("worse").signal == 3
    replace(lab, bring(20, seed=2), add=True)
    report = validation_report(lab.worker, lab.artifacts, "full")
    assert (report.inherits_from, report.inherited_signals, report.state) == ([1, 2], [3, 3], "worn")
    replace(lab, bring(60, seed=3))
    assert validation_report(lab.worker, lab.artifacts, "full").inherits_from == []


def test_rows_count_as_kept_however_they_come_back(lab: Any, bring: Any) -> None:
    first = bring(60)
    replace(lab, first)
    replace(lab, bring(50, seed=2))
    assert validation_report(lab.worker, lab.artifacts, "full").inherits_from == []
    back = bring(61)
    back.values[:60], back.truth[:60] = first.values, first.truth
    back.write()
    (said,) = replace(lab, back).warnings
    assert said.startswith("60 rows were ")
    assert " and 1 was in none" in said
    assert validation_report(lab.worker, lab.artifacts, "full").inherits_from == [2]


def test_a_second_sample_from_elsewhere_is_warned_of_as_long_as_it_is_live(lab: Any, bring: Any, recorded: Any) -> None:
    sets = second_sample(lab)
    brought = bring(60)
    for _ in range(2):  # the same call twice makes one version, and says it again
        (said,) = replace(lab, brought, study="two").warnings
        recorded(said.replace(f" {sets['direct']} ", " NUMBER "), "second_sample_from_elsewhere")
    retire(lab, sets["direct"])
    assert replace(lab, brought, study="two").warnings == []
    seal(lab, bring(200, seed=2), study="two", purpose="direct", name="from-there")
    assert validation_report(lab.worker, lab.artifacts, "two").version == 2
    assert replace(lab, brought, study="two").warnings == []
    assert "sample from-there" in replace(lab, bring(60, seed=3), study="two").warnings[0]
