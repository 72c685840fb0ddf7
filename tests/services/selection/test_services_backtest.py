"""The backtest on an installation's own past: what counts, what it says, and that it is applied once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import made_up_installation
import numpy as np
import pytest

from easeml_core.errors import ConfigError, InvalidInputError, StateError, StoreError
from easeml_core.formats.encoding import to_json
from easeml_core.selection.simulate.protocol import RIVALS
from easeml_core.services.selection.backtest import (
    BacktestAnswer,
    BacktestSettings,
    Replay,
    backtest_installation,
    backtest_table,
    history_table,
)
from easeml_core.services.selection.policy import policy_history, set_policy, show_policy

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("bayes", "forest", "knn", "svm")
QUICK = Replay(repeats=3, processes=1)


def results(tenants: int, seed: int = 0) -> list[tuple[int, int, float, float]]:
    """(study, candidate, quality, seconds) of everything, the dear candidates being the better ones."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(tenants):
        for k in range(len(NAMES)):
            quality = 0.6 + 0.08 * k + rng.normal(0, 0.03)
            found.append((i, k, float(np.clip(quality, 0, 1)), float(10.0**k * np.exp(rng.normal(0, 0.3)))))
    return found


def fill(database: Any, trials: list[tuple[int, int, float, float]], tenants: int, key: str = "b") -> None:
    with database.owner.begin() as tx:
        made_up_installation.fill(tx, key=key, candidates=NAMES, config={}, trials=trials, rows=[100] * tenants)


@pytest.fixture
def past(database: Any) -> Any:
    """A database with a past of nine studies in which everything ran."""
    fill(database, results(9), 9)
    return database


def run(database: Any, role: str = "worker", **changes: Any) -> BacktestAnswer:
    return backtest_installation(getattr(database, role), QUICK, **changes).answer


def table(database: Any) -> Any:
    with database.worker.begin() as tx:
        return history_table(tx)


def test_the_past_is_a_table_of_what_succeeded(database: Any) -> None:
    trials = [t for t in results(3) if t[:2] != (1, 2)]
    fill(database, trials, 3)
    with database.owner.begin() as tx:
        ids = "SELECT s.id, c.id, v.id FROM work.studies s JOIN work.candidates c ON c.study_id = s.id "
        ids += "JOIN work.data_versions v ON v.study_id = s.id WHERE s.name = 'b-1' AND c.name = 'knn'"
        tx.exec_driver_sql(f"INSERT INTO work.trials (study_id, candidate_id, data_version_id) {ids}")
        ended = "state = 'FAILED', failure = 'crash', cost_seconds = 9, finished_at = now()"
        tx.exec_driver_sql(f"UPDATE work.trials SET {ended} WHERE id = (SELECT max(id) FROM work.trials)")
    found = table(database)
    assert (found.tenants, found.candidates) == (("b-0", "b-1", "b-2"), NAMES)
    for i, k, quality, seconds in trials:
        assert (found.quality[i, k], found.cost[i, k]) == (quality, seconds)
    assert np.isnan(found.quality[1, 2])
    assert found.cost[1, 2] == 1.0  # of no trial: a failed one is no result


def test_new_data_take_the_place_of_the_old_ones_once_they_tell_as_much(database: Any) -> None:
    fill(database, results(2), 2)
    with database.owner.begin() as tx:
        tx.exec_driver_sql(
            "INSERT INTO work.data_versions (study_id, data_set_id, version, content_hash, artifact, features, "
            "class_names) SELECT id, data_set_id, 2, 'new', 'sha256:' || repeat('0', 64), 3, '[]' FROM work.studies"
        )
    old = table(database)
    for number in range(3):
        retrain(database, "b-0", NAMES[number], quality=0.1 * (number + 1))
        if number < 2:
            assert np.array_equal(table(database).quality, old.quality)
    found = table(database)
    assert found.quality[0] == pytest.approx([0.1, 0.2, 0.3, np.nan], nan_ok=True)
    assert np.array_equal(found.quality[1], old.quality[1])


def retrain(database: Any, study: str, candidate: str, *, quality: float) -> None:
    """A success on the newest data."""
    with database.owner.begin() as tx:
        tx.exec_driver_sql(
            "INSERT INTO work.trials (study_id, candidate_id, data_version_id, state, attempt, cost_seconds, "
            "started_at, finished_at, executor) "
            "SELECT s.id, c.id, max(v.id), 'SUCCEEDED', 1, 5, now(), now(), c.implementation "
            "FROM work.studies s "
            "JOIN work.candidates c ON c.study_id = s.id JOIN work.data_versions v ON v.study_id = s.id "
            f"WHERE s.name = '{study}' AND c.name = '{candidate}' GROUP BY s.id, c.id"
        )
        tx.exec_driver_sql(
            "INSERT INTO work.observations (trial_id, quality, cost_seconds) "
            f"SELECT max(id), {quality}, 5 FROM work.trials"
        )


def test_it_says_what_each_policy_would_have_cost(past: Any) -> None:
    result = run(past)
    assert (result.source, result.cost_unit, result.enough, result.applied) == (
        "installation",
        "seconds",
        True,
        None,
    )
    assert (result.tenants, result.candidates, result.results, result.left_out) == (9, 4, 36, 0)
    assert tuple(result.policies) == RIVALS
    assert result.protocol.cost_mode == "predicted"
    assert (result.protocol.served, result.protocol.history) == (3, None)
    for figures in result.policies.values():
        prices = [figures.to_loss[loss].cost for loss in ("0.05", "0.02", "0.01")]
        assert prices == sorted(prices)
    assert "over 3 draws of 3 from 9 tenants" in result.message
    assert result.winner in RIVALS
    calibration = result.calibration
    assert (calibration.tenants, calibration.candidates, calibration.coverage) == (9, 4, 0.8)
    assert {entry.own for entry in calibration.entries} == {1, 2}  # 4 would leave nothing to predict
    assert all(entry.tenants == 9 and entry.z_std > 0 for entry in calibration.entries)
    assert run(past) == result


@pytest.mark.parametrize(("tenants", "counted"), [(0, 0), (7, 7)])
def test_too_little_history_is_an_answer_and_changes_nothing(database: Any, tenants: int, counted: int) -> None:
    fill(database, results(tenants), tenants) if tenants else None
    result = run(database, "owner", apply=True)
    assert (result.enough, result.winner, result.applied, result.policies) == (False, "default", None, {})
    assert result.calibration is None
    assert result.message.startswith(f"too little history: {counted} of {tenants} tenants have 3 results or more")
    assert policy_history(database.worker) == []


def test_studies_with_too_few_results_are_left_out(database: Any) -> None:
    fill(database, [t for t in results(9) if t[0] != 4 or t[1] < 2], 9)
    result = run(database)
    assert (result.enough, result.tenants, result.left_out, result.results) == (True, 8, 1, 32)


@pytest.mark.journey
def test_the_winner_is_applied_once_with_its_report(past: Any) -> None:
    set_policy(past.owner, changes={"guard": 0.25, "policy": "random"}, reason="before")
    result = run(past, "owner", apply=True)
    shown = show_policy(past.worker)
    assert shown.id == result.applied
    assert shown.config["policy"] == result.settings.policy
    assert shown.config["guard"] == 0.25
    assert shown.reason == f"backtest: {result.message}"
    assert shown.report == {k: v for k, v in to_json(result).items() if k != "applied"}
    assert run(past, "owner", apply=True).applied == result.applied
    assert len(policy_history(past.worker)) == 2


KILLED = """
import os, signal, sys
from easeml_core.services.selection import backtest
from easeml_core.store.database import Store
if sys.argv[2] == "after":
    stored = backtest.set_policy
    backtest.set_policy = lambda *a, **k: (stored(*a, **k), os.kill(os.getpid(), signal.SIGKILL))
else:
    backtest.set_policy = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)
backtest.backtest_installation(Store(sys.argv[1]), backtest.Replay(repeats=3, processes=1), apply=True)
"""


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.journey
def test_killed_around_the_storing_and_repeated_it_is_applied_once(past: Any, moment: str) -> None:
    url = past.url("easeml_owner")
    killed = subprocess.run([sys.executable, "-c", KILLED, url, moment], env=os.environ, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(policy_history(past.worker)) == (1 if moment == "after" else 0)
    applied = run(past, "owner", apply=True).applied
    assert [h.id for h in policy_history(past.worker)] == [applied]


def test_settings_that_were_changed_meanwhile_stay(past: Any) -> None:
    def meddle(done: int, of: int) -> None:
        if done == 1:
            set_policy(past.owner, changes={"guard": 0.5}, reason="meanwhile")

    with pytest.raises(StateError, match="the settings were changed meanwhile"):
        backtest_installation(past.owner, Replay(repeats=3, processes=1, on_done=meddle), apply=True)
    assert show_policy(past.worker).reason == "meanwhile"


@pytest.mark.parametrize("role", ["worker"])
def test_who_may_not_apply_hears_it_at_once(past: Any, role: str) -> None:
    def never(done: int, of: int) -> None:
        pytest.fail("it was replayed in vain")

    with pytest.raises(StoreError, match="this role may not choose the policy; give the address of easeml_owner"):
        backtest_installation(getattr(past, role), Replay(repeats=3, processes=1, on_done=never), apply=True)


def test_the_dial_belongs_to_default_alone(past: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from easeml_core.services.selection import backtest

    rule = backtest.rule
    monkeypatch.setattr(backtest, "rule", lambda *a: replace(rule(*a), winner="hybrid@0.01"))
    result = run(past)
    assert (result.winner, result.settings) == ("hybrid@0.01", BacktestSettings("hybrid", 0.01))
    assert result.message.startswith("hybrid@0.01 instead of default: it costs ")
    set_policy(past.owner, changes={"objective": 0.5}, reason="fairness")
    result = run(past)
    assert result.settings == BacktestSettings("default", 1.0)
    assert result.message.startswith("default stays, since the objective 0.5 is a setting of no other policy")


def test_a_winner_with_a_beta_is_followed_by_the_next_decision(past: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from easeml_core.services.selection import backtest
    from easeml_core.services.selection.policy import current_config
    from easeml_core.settings.config import SelectionConfig

    rule = backtest.rule
    monkeypatch.setattr(backtest, "rule", lambda *a: replace(rule(*a), winner="hybrid@0.05"))
    run(past, "owner", apply=True)
    with past.worker.begin() as tx:
        assert current_config(tx) == SelectionConfig(policy="hybrid", beta_multiplier=0.05)
    monkeypatch.setattr(backtest, "rule", lambda *a: replace(rule(*a), winner="default"))
    run(past, "owner", apply=True)
    with past.worker.begin() as tx:
        assert current_config(tx) == SelectionConfig()


def write(path: Path, cells: np.ndarray) -> Path:
    rows = [f"t{i}," + ",".join(f"{c:.6g}" for c in row) for i, row in enumerate(cells)]
    path.write_text("\n".join(["tenant," + ",".join(NAMES), *rows]) + "\n")
    return path


def test_a_table_is_judged_without_a_database(tmp_path: Path) -> None:
    cells = results(9)
    quality = write(tmp_path / "q.csv", np.array([t[2] for t in cells]).reshape(9, 4))
    cost = write(tmp_path / "c.csv", np.array([t[3] for t in cells]).reshape(9, 4))
    result = backtest_table(quality, cost, QUICK).answer
    assert (result.source, result.cost_unit, result.protocol.cost_mode) == (
        str(quality),
        "units of the cost table",
        "known",
    )
    assert result.applied is None
    plain = backtest_table(quality, None, QUICK).answer
    assert (plain.cost_unit, plain.protocol.cost_mode) == ("trials", "unit")
    assert backtest_table(quality, cost, QUICK, cost_mode="unit").answer.policies == plain.policies
    with pytest.raises(ConfigError, match="served must be from 1 to 9"):
        backtest_table(quality, cost, Replay(served=10, repeats=1))
    with pytest.raises(InvalidInputError, match="cannot be read"):
        backtest_table(tmp_path / "none.csv", None, QUICK)
