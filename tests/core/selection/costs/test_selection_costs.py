"""The cost model: products are learnt, units do not matter, failed trials are lower bounds."""

from __future__ import annotations

from dataclasses import astuple, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from property_sizes import examples
from scipy.optimize import minimize

from easeml_core.selection.costs.fit import SLOPE, CostModel, TenantEffect
from easeml_core.selection.costs.learn import Measured, fit_costs, learn_costs
from easeml_core.selection.problem import Arms, Past, Problem, Pull
from easeml_core.selection.suggestion import suggest
from easeml_core.settings.config import SelectionConfig

NAMES = ("bayes", "forest", "boosting", "network")


def factors(seed, studies=12):
    """Costs that are exactly a product of a study's and a candidate's factor."""
    rng = np.random.default_rng(seed)
    return np.exp(rng.normal(0, 1.5, studies))[:, None] * np.exp(rng.normal(0, 1.5, len(NAMES)))


def cells(costs):
    return [(i, name, float(c)) for i, row in enumerate(costs) for name, c in zip(NAMES, row, strict=True)]


def test_without_data_all_costs_are_equal():
    model = learn_costs(Problem((Arms(1, 1.0, NAMES),)))
    assert not model.known
    assert model == CostModel()
    assert model.predict(1, NAMES).tolist() == [1.0] * 4
    assert learn_costs(Problem((Arms(1, 1.0, NAMES, rows=50),))) == CostModel(rows={1: 50.0})


def test_one_measurement_by_hand():
    """One log cost y: level m = y exactly, both effects 0, since the level costs no penalty."""
    model = fit_costs([(1, "forest", 20.0)])
    assert model.known
    np.testing.assert_allclose(model.predict(1, ["forest", "bayes"]), [20.0, 20.0])
    np.testing.assert_allclose(model.predict(9, ["forest"]), [20.0])


def test_two_candidates_by_hand():
    """Costs e and 1/e in one study, variances 4 of a candidate and 1/2 of noise: level 0, effects +-4 / (4 + 1/2)."""
    model = fit_costs([(1, "forest", np.e), (1, "bayes", 1 / np.e)], like=CostModel())
    np.testing.assert_allclose(np.log(model.predict(1, ["forest", "bayes"])), np.array([1, -1]) * 8 / 9)


def trials(seed, *, studies=6, devices=2, rows=True, share=0.6):
    """Trials of a world as the model sees it, on several devices and of known rows."""
    rng = np.random.default_rng(seed)
    kinds, sizes = [None, "gpu", "tpu"][:devices], np.exp(rng.normal(7, 1.5, studies)).round()
    candidate, tenant, device = rng.normal(0, 2, len(NAMES)), rng.normal(0, 1, studies), rng.normal(0, 1, devices)
    return [
        Measured(i, name, float(np.exp(candidate[k] + tenant[i] + device[d] + rng.normal(0, 0.5))), kind, size)
        for i, size in enumerate(sizes.tolist() if rows else [None] * studies)
        for k, name in enumerate(NAMES)
        for d, kind in enumerate(kinds)
        if rng.uniform() < share
    ]


class Dense:
    """The same model written down as one Gaussian over all trials, effects by best linear prediction from it.

    y ~ N(X b, V), V = sum over kinds of variance * (same level) + noise; b = (level,) or (level, slope) by generalised
    least squares, where the slope has its prior as one more covariance term. Formulas of Rasmussen and Williams (2006)
    2.7; nothing is shared with the code but the variances.
    """

    def __init__(self, rows, parts, noise):
        self.rows, self.parts, self.noise = rows, parts, noise
        self.several = len({r.device for r in rows}) > 1
        sizes = [r.rows for r in rows if r.rows]
        self.centre = float(np.mean(np.log(sizes))) if sizes else None
        self.cov = self.between(rows, rows) + np.diag([noise[r.name] for r in rows])
        self.inverse = np.linalg.inv(self.cov)
        self.y = np.log([r.seconds for r in rows]) - 0.75 * self.offset(rows)
        self.total = self.inverse.sum()
        self.level = self.inverse.sum(axis=0) @ self.y / self.total

    def offset(self, rows):
        return np.array([np.log(r.rows) - self.centre if r.rows and self.centre is not None else 0.0 for r in rows])

    def between(self, left, right):
        def same(key):
            return np.array([[float(key(a) == key(b)) for b in right] for a in left])

        cov = self.parts.candidate * same(lambda r: r.name) + self.parts.tenant * same(lambda r: r.study_id)
        cov += np.outer(self.offset(left), self.offset(right)) / 16
        if self.several:
            cov += self.parts.device * same(lambda r: r.device)
            cov += self.parts.interaction * same(lambda r: (r.name, r.device))
        return cov

    def predict(self, new):
        """Mean and standard deviation of the new trials' log seconds."""
        cross = self.between(new, self.rows) @ self.inverse
        mean = self.level + 0.75 * self.offset(new) + cross @ (self.y - self.level)
        left = 1 - cross.sum(axis=1)
        cov = self.between(new, new) - cross @ self.between(self.rows, new)
        noise = [self.noise.get(r.name, self.parts.residual) for r in new]
        return mean, np.sqrt(np.diag(cov) + left**2 / self.total + noise)

    def restricted_likelihood(self):
        residual = self.y - self.level
        return -(np.linalg.slogdet(self.cov)[1] + np.log(self.total) + residual @ self.inverse @ residual) / 2


@pytest.mark.parametrize(("devices", "rows"), [(1, False), (1, True), (2, False), (3, True)])
def test_agrees_with_the_same_model_as_one_gaussian(devices, rows):
    seen = trials(1, devices=devices, rows=rows)
    model = fit_costs(seen, rows={77: 5000.0} if rows else None)
    dense = Dense(seen, model.components, model.noise)
    for study, size in ((0, seen[0].rows), (77, 5000.0 if rows else None)):
        for device in {r.device for r in seen} | {"unheard-of"} if devices > 1 else {None}:
            names = (*NAMES, "new")
            mean, _ = dense.predict([Measured(study, name, 1.0, device, size) for name in names])
            np.testing.assert_allclose(np.log(model.predict(study, names, device)), mean, atol=1e-9)


@pytest.mark.parametrize("devices", [1, 2])
def test_the_uncertainty_agrees_too(devices):
    """Exactly for a study without trials, and for one that ran what all have run; else to a tenth."""
    complete = trials(2, devices=devices, rows=False, share=2)
    ragged = trials(2, devices=devices, share=0.7)
    for seen, exact in ((complete, True), (ragged, False)):
        model = fit_costs(seen, rows={77: 5000.0})
        dense = Dense(seen, model.components, model.noise)
        for study in (0, 77):
            new = [Measured(study, name, 1.0, seen[0].device, model.rows.get(study)) for name in (*NAMES, "new")]
            _, std = dense.predict(new)
            forecast = model.forecast(study, (*NAMES, "new"), seen[0].device)
            np.testing.assert_allclose(forecast.log_std, std, rtol=1e-8 if exact or study == 77 else 0.1)


def test_the_variances_maximise_the_restricted_likelihood_and_their_prior():
    """By a general optimiser on the dense form, the noise being given; the steps stop when none moves 2 %."""
    seen = trials(5, studies=25, devices=1, rows=False)
    model = fit_costs(seen)

    def loss(logs):
        candidate, tenant = np.exp(logs)
        parts = replace(model.components, candidate=candidate, tenant=tenant)
        prior = 2 * (logs[0] + 4.0 / candidate + logs[1] + 1.0 / tenant)
        return prior - Dense(seen, parts, model.noise).restricted_likelihood()

    found = minimize(loss, [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-3}).x
    np.testing.assert_allclose([model.components.candidate, model.components.tenant], np.exp(found), rtol=0.04)


def test_the_variances_of_a_large_world_are_found():
    """Standard deviations 2, 1.2 and noise of 0.3 or 0.9, over 200 studies with 12 candidates each.

    The candidates' own is left out: 40 of them tell it to 11 % only. The noise of each has 60 trials, and is drawn to
    the common one of 0.67 by 4 more: 0.3 becomes 0.33.
    """
    rng = np.random.default_rng(7)
    candidate, tenant, noise = rng.normal(0, 2, 40), rng.normal(0, 1.2, 200), np.where(np.arange(40) < 20, 0.3, 0.9)
    rows = [
        (i, f"c{k}", float(np.exp(candidate[k] + tenant[i] + noise[k] * rng.normal())))
        for i in range(200)
        for k in rng.permutation(40)[:12].tolist()
    ]
    model = fit_costs(rows)
    assert model.components.tenant**0.5 == pytest.approx(np.std(tenant), rel=0.05)
    found = np.sqrt([model.noise[f"c{k}"] for k in range(40)])
    np.testing.assert_allclose([found[:20].mean(), found[20:].mean()], [0.334, 0.89], rtol=0.05)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_few_trials_leave_the_prior_standing(n):
    """Nothing explodes or vanishes, whatever the first trials are: the variances stay near what was thought before."""
    for costs in ((1.0, 1.0, 1.0), (1e-6, 1e6, 1.0), (5.0, 7.0, 1000.0)):
        for cells in (("a", "b", "c"), ("a", "a", "a"), ("a", "b", "a")):
            rows = [(i % 2, name, cost) for i, (name, cost) in enumerate(zip(cells, costs, strict=True))][:n]
            model = fit_costs(rows)
            np.testing.assert_array_less(1 / 40, np.array(astuple(model.components)) / astuple(CostModel().components))
            predicted = np.concatenate([model.predict(i, ["a", "b", "z"]) for i in range(3)])
            seen = [cost for *_, cost in rows]
            assert min(seen) / 3 < predicted.min() <= predicted.max() < max(seen) * 3


def test_equal_costs_are_predicted_equal():
    rows = [(i, name, 20.0) for i in range(5) for name in NAMES]
    np.testing.assert_allclose(fit_costs(rows).predict(9, (*NAMES, "new")), 20.0)


# One tenant at a time


def test_a_tenants_effect_is_where_the_joint_fit_rests():
    """From the other effects of the joint fit and the tenant's own residuals: the same, to rounding."""
    seen = trials(3, devices=2)
    model = fit_costs(seen)
    for study in {r.study_id for r in seen}:
        effect = TenantEffect(ridge=1 / model.components.tenant)
        for r in [r for r in seen if r.study_id == study]:
            residual = np.log(r.seconds) - model.base([r.name], r.device, r.rows)[0]
            effect = effect.observe(residual, model.precision([r.name])[0])
        np.testing.assert_allclose(astuple(effect), astuple(model.effect(study)), rtol=1e-9, atol=1e-9)


def test_a_new_tenants_effect_is_what_the_other_effects_allow():
    """With the global effects held, the update is the Bayes rule of one Gaussian: posterior mean and variance."""
    model = fit_costs(trials(4, devices=1, rows=False))
    effect, prior = model.effect(99), model.components.tenant
    assert (effect.mean, effect.variance) == (0.0, pytest.approx(prior))
    once = effect.observe(2.0, 1 / 0.3)
    assert once.mean == pytest.approx(2.0 * prior / (prior + 0.3))
    assert once.variance == pytest.approx(prior * 0.3 / (prior + 0.3))
    assert once.observe(2.0, 1e9).mean == pytest.approx(2.0)


def test_base_and_effect_are_the_prediction():
    seen = trials(6, devices=2)
    model = fit_costs(seen)
    for study in {r.study_id for r in seen}:
        base = model.base(NAMES, "gpu", model.rows[study])
        np.testing.assert_allclose(np.exp(base + model.effect(study).mean), model.predict(study, NAMES, "gpu"))


def test_an_interval_holds_what_it_says():
    """80 % of new trials of the world the model was fitted to. 4000 draws, +-5 %: false alarm far below 1e-6."""
    rng = np.random.default_rng(8)
    candidate, tenant = rng.normal(0, 2, 20), rng.normal(0, 1, 300)
    noise = rng.uniform(0.2, 1.0, 20)
    cost = np.exp(candidate + tenant[:, None] + noise * rng.normal(size=(300, 20)))
    names = [f"c{k}" for k in range(20)]
    model = fit_costs([(i, names[k], float(cost[i, k])) for i in range(100) for k in range(20)])
    low, high = model.forecast(999, names).interval(0.8)
    assert np.mean((low <= cost[100:]) & (cost[100:] <= high)) == pytest.approx(0.8, abs=0.05)
    assert (low < model.predict(999, names)).all()
    assert (model.forecast(999, names).median == model.predict(999, names)).all()


def test_without_data_an_interval_is_wide():
    low, high = CostModel().forecast(1, NAMES).interval()
    assert (low < 0.1).all()
    assert (high > 10).all()


def test_a_trial_of_its_own_narrows_the_interval():
    model = fit_costs(trials(2, devices=1))
    before, effect = model.forecast(99, NAMES), model.effect(99)
    after = model.forecast(99, NAMES, effect=effect.observe(0.0, 4.0))
    assert (after.log_std < before.log_std).all()


# Rows and devices


def test_twice_the_rows_cost_more_even_before_it_was_seen():
    model = fit_costs([Measured(1, "knn", 10.0, None, 1000.0)], rows={2: 8000.0})
    np.testing.assert_allclose(model.predict(2, ["knn"]), 10 * 8**SLOPE)


def test_the_slope_is_learnt():
    """Cost grows as rows^1.4 in the world; 60 studies tell it to 0.05."""
    rng = np.random.default_rng(9)
    size = np.exp(rng.normal(8, 1.5, 60))
    rows = [
        Measured(i, n, float(size[i] ** 1.4 * np.exp(rng.normal(0, 0.3))), None, size[i])
        for i in range(60)
        for n in NAMES
    ]
    assert fit_costs(rows).effects[("slope",)] == pytest.approx(1.4, abs=0.05)
    in_thousands = [r._replace(rows=r.rows / 1000) for r in rows]
    np.testing.assert_allclose(fit_costs(in_thousands).predict(3, NAMES), fit_costs(rows).predict(3, NAMES), rtol=1e-8)


def test_unknown_rows_count_as_the_average():
    rows = [Measured(i, "knn", float(size), None, size) for i, size in enumerate((10.0, 1000.0))]
    model = fit_costs(rows)
    np.testing.assert_allclose(model.base(["knn"]), model.base(["knn"], rows=100.0))
    mixed = fit_costs([*rows, Measured(5, "knn", 100.0)])
    np.testing.assert_allclose(mixed.predict(5, ["knn"]), 100.0, rtol=0.05)


def test_a_fast_device_is_fast_for_what_it_never_ran():
    rows = [Measured(i, n, 100.0, "cpu") for i in range(8) for n in NAMES]
    rows += [Measured(i, n, 10.0, "gpu") for i in range(8) for n in NAMES[:3]]
    model = fit_costs(rows)
    cpu, gpu = (model.predict(1, ["network"], kind)[0] for kind in ("cpu", "gpu"))
    assert cpu == pytest.approx(100, rel=0.2)
    assert gpu == pytest.approx(10, rel=0.5)
    assert gpu < model.predict(1, ["network"])[0] < cpu


def test_a_candidate_may_gain_more_from_a_device_than_the_others():
    rows = [Measured(i, n, 100.0, "cpu") for i in range(8) for n in NAMES]
    rows += [Measured(i, n, 2.0 if n == "network" else 100.0, "gpu") for i in range(8) for n in NAMES]
    model = fit_costs(rows)
    np.testing.assert_allclose(model.predict(1, NAMES, "gpu"), [100, 100, 100, 2], rtol=0.15)


def test_unseen_cells_of_a_product_are_predicted():
    costs = factors(2)
    seen = [cell for cell in cells(costs) if not (cell[0] >= 8 and cell[1] in ("boosting", "network"))]
    model = fit_costs(seen)
    for i in range(8, 12):
        error = np.log(model.predict(i, NAMES)) - np.log(costs[i])
        assert np.abs(error).max() < 0.25


@settings(deadline=None, max_examples=examples(30))
@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 1e3))
def test_the_unit_of_cost_does_not_matter(seed, factor):
    rows = cells(factors(seed, studies=3))[::2]
    scaled = [(i, name, c * factor) for i, name, c in rows]
    np.testing.assert_allclose(
        fit_costs(scaled).predict(1, NAMES), factor * fit_costs(rows).predict(1, NAMES), rtol=1e-8
    )


@settings(deadline=None, max_examples=examples(20))
@given(st.randoms(use_true_random=False))
def test_order_of_measurements_does_not_matter(shuffler):
    rows = cells(factors(3, studies=3))
    other = list(rows)
    shuffler.shuffle(other)
    np.testing.assert_allclose(fit_costs(other).predict(1, NAMES), fit_costs(rows).predict(1, NAMES), rtol=1e-10)


def test_failed_trials_and_the_past_teach_costs():
    studies = (Arms(1, 1.0, NAMES), Arms(2, 1.0, NAMES))
    failed = Pull(1, 3, None, 500.0)
    history = (Past(1, ("bayes",), (0.5,), (2.0,)), Past(7, ("bayes", "forest"), (None, 0.6), (3.0, None)))
    model = learn_costs(Problem(studies, (failed,), history=history))
    slow, fast = model.predict(2, ["network", "bayes"])
    assert slow > 10 * fast
    assert {key for key in model.effects if key[0] == "candidate"} == {("candidate", "bayes"), ("candidate", "network")}
    assert set(model.studies) == {1, 7}


def test_a_slow_study_is_slow_for_candidates_it_never_ran():
    rows = [(i, name, cost) for i in range(9) for name, cost in (("bayes", 1.0), ("forest", 10.0))]
    rows += [(9, "bayes", 8.0)]
    assert fit_costs(rows).predict(9, ["forest"])[0] == pytest.approx(80, rel=0.3)


# Failed trials


def crowd(*pulls, candidates=("knn", "network"), studies=8, **arms):
    """Studies in each of which the first candidate took 20 seconds, and further trials."""
    rows = tuple(Arms(i, 1.0, candidates, **arms) for i in range(studies))
    return Problem(rows, (*(Pull(i, 0, 0.8, 20.0, order=i) for i in range(studies)), *pulls))


def test_a_crash_makes_nothing_cheap():
    """8 results at 20 s and one crash of another candidate at 1.2 s: fitted as if it were a result, 1.4 s for all."""
    problem = crowd(Pull(0, 1, None, 1.2, order=9))
    as_a_result = fit_costs([*((i, "knn", 20.0) for i in range(8)), (0, "network", 1.2)])
    np.testing.assert_allclose(as_a_result.predict(5, ["network"]), 1.4, atol=0.02)
    np.testing.assert_allclose([learn_costs(problem).predict(i, ("knn", "network")) for i in range(8)], 20.0)


def test_after_a_crash_the_others_do_not_all_run_the_candidate_that_crashed(policy):
    """Of two candidates that promise the same, only one that was ever slow: who crashed fast is not preferred."""
    problem = crowd(Pull(0, 2, None, 1.2, order=9), candidates=("knn", "forest", "network"))
    suggestions = suggest(problem, count=6, config=SelectionConfig(policy=policy))
    np.testing.assert_allclose([s.predicted_cost_seconds for s in suggestions], 20.0)
    assert suggestions[0].arm == 1


def test_a_crash_of_a_candidate_that_succeeded_elsewhere_changes_nothing():
    known = tuple(Pull(i, 1, 0.9, 90.0, order=10 + i) for i in range(4))
    crash = Pull(6, 1, None, 0.5, order=20)
    assert learn_costs(crowd(*known, crash)) == learn_costs(crowd(*known))


def test_past_crashes_are_distinguished_from_past_results():
    results = Past(90, ("knn", "network"), (0.5, 0.6), (20.0, 80.0))
    crashes = Past(91, ("knn", "network"), (None, None), (0.1, 0.2))
    arms = (Arms(1, 1.0, ("knn", "network")),)
    assert learn_costs(Problem(arms, history=(results, crashes))) == learn_costs(Problem(arms, history=(results,)))


def test_a_time_out_makes_its_candidate_dear():
    """Longer than any result would take: now it is known that a result takes more, here and elsewhere."""
    timeout = Pull(0, 1, None, 3600.0, order=9)
    model = learn_costs(crowd(timeout))
    results = [(i, "knn", 20.0) for i in range(8)]
    assert model == fit_costs([*results, (0, "network", 3600.0)], like=fit_costs(results))
    assert model.predict(5, ["network"])[0] > 2000
    assert learn_costs(crowd(timeout, Pull(1, 1, None, 1.2, order=10))) == model


@settings(deadline=None, max_examples=examples(50))
@given(st.integers(0, 2**32 - 1), st.floats(0.01, 100.0))
def test_a_failed_trial_never_makes_its_own_candidate_cheaper(seed, factor):
    rng = np.random.default_rng(seed)
    pulls = [Pull(i, k, 0.5, float(rng.lognormal(2, 1))) for i in range(4) for k in range(3) if rng.uniform() < 0.6]
    arms = tuple(Arms(i, 1.0, NAMES) for i in range(4))
    before = learn_costs(Problem(arms, (Pull(0, 0, 0.5, 9.0), *pulls)))
    failed = Pull(3, 3, None, float(factor * before.predict(3, [NAMES[3]])[0]))
    after = learn_costs(Problem(arms, (Pull(0, 0, 0.5, 9.0), *pulls, failed)))
    assert after.predict(3, [NAMES[3]])[0] >= before.predict(3, [NAMES[3]])[0] * (1 - 1e-9)
    assert (after == before) == (factor <= 1) or factor == pytest.approx(1)


def test_where_nothing_succeeded_failed_trials_are_all_that_is_known():
    arms = (Arms(1, 1.0, NAMES), Arms(2, 1.0, NAMES))
    pulls = (Pull(1, 3, None, 500.0), Pull(2, 0, None, 1.5))
    assert learn_costs(Problem(arms, pulls)) == fit_costs([(1, "network", 500.0), (2, "bayes", 1.5)])


def test_budgets_are_charged_what_a_failed_trial_took():
    """15 s of crashes and 20 s of results are spent of 50: a network at 20 s no longer fits, of 60 it does."""
    crashes = (Pull(0, 1, None, 7.0, order=9), Pull(0, 2, None, 8.0, order=10))
    names = ("knn", "forest", "bayes", "network")
    for budget, arms in ((50.0, []), (60.0, [3])):
        problem = crowd(*crashes, candidates=names, studies=1, budget_seconds=budget)
        assert [s.arm for s in suggest(problem, count=1, config=SelectionConfig(policy="mm-gp-ei"))] == arms
