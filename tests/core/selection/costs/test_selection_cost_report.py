"""The cost model's error on tenants left out: measured as it says, and on published training times."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from easeml_core.errors import InvalidInputError
from easeml_core.formats.encoding import row_of
from easeml_core.selection.costs.learn import Measured, cost_report, fit_costs

DATA = Path(__file__).resolve().parents[5] / "shared" / "data" / "selection"


def table(costs, rows=None):
    return [
        Measured(i, f"c{k}", float(c), None, None if rows is None else float(rows[i]))
        for i, row in enumerate(costs)
        for k, c in enumerate(row)
    ]


def world(seed, *, studies=30, candidates=12, noise=0.3):
    rng = np.random.default_rng(seed)
    logs = rng.normal(0, 2, candidates) + rng.normal(0, 1, studies)[:, None]
    return np.exp(logs + noise * rng.normal(size=(studies, candidates)))


def published(name):
    path = DATA / name
    if not path.exists():
        pytest.skip(f"no reference table {name} beside this checkout")
    with path.open(newline="") as lines:
        return np.array([[float(cell) for cell in row[1:]] for row in list(csv.reader(lines))[1:]])


def test_what_is_counted():
    report = cost_report(table(world(0)))
    assert (report.tenants, report.candidates, report.trials, report.folds) == (30, 12, 360, 10)
    assert [(e.own, e.tenants, e.trials) for e in report.errors] == [(q, 30, 30 * 7) for q in (0, 1, 2, 5)]


def test_figures_by_hand():
    """Two folds of one tenant each: all costs 1 there, here e^3 and e; the model of the other tenant says 1, 1."""
    report = cost_report([(1, "a", 1.0), (1, "b", 1.0), (2, "a", np.e**3), (2, "b", np.e)], own=(0,), folds=2)
    other = fit_costs([(2, "a", np.e**3), (2, "b", np.e)])
    a, b = np.log(other.predict(1, ["a", "b"]))
    misses = np.array([a, b, -3.0, -1.0])
    [error] = report.errors
    assert error.rmse_log == pytest.approx(np.sqrt(np.mean(misses**2)))
    assert error.median_absolute_log10 == pytest.approx(np.median(np.abs(misses)) / np.log(10))
    assert error.r2 == pytest.approx(1 - np.sum(misses**2) / np.sum((np.array([0, 0, 3, 1]) - 1) ** 2))
    assert error.right_order == 0.5  # a tie on either side is half a right order


def test_no_tenant_is_predicted_from_its_own_trials():
    """A tenant whose candidates cost the reverse of all others': predicted in the reverse order."""
    costs = np.tile([1.0, 10.0, 100.0], (12, 1))
    costs[5] = [100.0, 10.0, 1.0]
    [error] = cost_report(table(costs), own=(0,)).errors
    assert error.right_order == pytest.approx(11 / 12)


def test_own_trials_help_and_noise_remains():
    report = cost_report(table(world(1)))
    errors = [e.rmse_log for e in report.errors]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] == pytest.approx(1.04, rel=0.25)  # the tenants' spread and the noise
    assert errors[-1] == pytest.approx(0.32, rel=0.25)  # the noise and what five trials leave of the rest


def test_each_own_trial_is_seen_once():
    """The error after five trials does not depend on a request after one."""
    trials = table(world(5))
    assert cost_report(trials).errors[-1] == cost_report(trials, own=(5,)).errors[0]


def test_rows_help_a_tenant_without_trials():
    rows = np.exp(np.random.default_rng(2).normal(8, 1.5, 30))
    costs = world(2) * rows[:, None]
    without, given = (cost_report(table(costs, r), own=(0,)).errors[0] for r in (None, rows))
    assert given.rmse_log < 0.75 * without.rmse_log


def test_a_tenant_with_few_trials_is_predicted_after_as_many_as_leave_one():
    report = cost_report([*table(world(3, studies=5)), (99, "c0", 1.0), (99, "c1", 1.0)])
    assert [(e.own, e.tenants) for e in report.errors] == [(0, 6), (1, 6), (2, 5), (5, 5)]


def test_units_and_order_do_not_matter_and_the_seed_does():
    trials = table(world(4))
    plain = [row_of(e) for e in cost_report(trials).errors]
    for other in ([t._replace(seconds=60 * t.seconds) for t in trials], trials[::-1]):
        for left, right in zip(plain, map(row_of, cost_report(other).errors), strict=True):
            assert left == pytest.approx(right, rel=1e-6)
    assert [row_of(e) for e in cost_report(trials).errors] == plain
    assert [row_of(e) for e in cost_report(trials, seed=1).errors] != plain


@pytest.mark.parametrize("trials", [[], [(1, "a", 2.0)], [(1, "a", 2.0), (1, "b", 3.0)]])
def test_fewer_than_two_tenants_give_no_errors(trials):
    report = cost_report(trials)
    assert (report.trials, report.folds, report.errors) == (len(trials), 0, ())


@pytest.mark.parametrize("wrong", [{"own": ()}, {"own": (-1,)}, {"folds": 1}, {"coverage": 1.0}, {"coverage": 0.0}])
def test_wrong_arguments_are_refused(wrong):
    with pytest.raises(InvalidInputError, match=f"{next(iter(wrong))} must be"):
        cost_report(table(world(0)), **wrong)


@pytest.mark.parametrize(
    ("name", "half_within", "r2", "order"),
    [("tabzilla/train_time_s_104x18.csv", 1.9, 0.85, 0.9), ("deeplearning/cost_22x8.csv", 1.9, 0.7, 0.85)],
)
def test_published_training_times(name, half_within, r2, order):
    """Half the costs of an unseen tenant within a factor of 1.9 after two trials; intervals hold what they say."""
    errors = {e.own: e for e in cost_report(table(published(name)), own=(0, 1, 2)).errors}
    assert 10 ** errors[2].median_absolute_log10 < half_within
    assert errors[2].r2 > r2
    assert errors[0].right_order > order
    assert all(0.72 < e.interval_coverage < 0.92 for e in errors.values())
