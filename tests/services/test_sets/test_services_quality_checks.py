"""Results that tasks have stated, measured anew by the referee: what holds, what does not, and what follows."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy import stats
from sklearn.naive_bayes import GaussianNB
from sklearn.tree import DecisionTreeClassifier

from easeml_airflow.web.pages.study import trials_table
from easeml_core.errors import NotFoundError
from easeml_core.models import predict
from easeml_core.models.command_model import pack_command
from easeml_core.models.formats import load_predictor
from easeml_core.services.evaluation import sealed_runs
from easeml_core.services.evaluation.reevaluation import (
    SHARE,
    check_next,
    is_chosen,
    sampled,
    tolerance_of,
)
from easeml_core.services.operations import notifications
from easeml_core.services.operations.doctor import check_tenants
from easeml_core.services.operations.notifications import EventKind
from easeml_core.services.referee.claiming import RefereeLease
from easeml_core.services.referee.housekeeping import Housekeeper
from easeml_core.services.reports.assessments import assess_changes
from easeml_core.services.reports.recommendations import StepKind, assess
from easeml_core.services.studies.limits import acknowledge_results, list_tenants
from easeml_core.services.trials.execution import trial_details
from easeml_core.store.callers import acting
from easeml_core.store.queries import health
from easeml_core.store.queries import study as query
from easeml_core.store.queries.assessments import kept_summaries
from easeml_core.store.tables import decisions, models, studies, validation_sets
from easeml_core.store.tables import trials as stored_trials

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def run_here(monkeypatch: Any) -> None:
    """Programs run in the sandbox, for a second each; other models in this process."""

    def run(path: Path, form: str, inputs: Any, **_: Any) -> Any:
        if form == "command":
            return predict.predict_in_child(path, form, inputs, time_limit_seconds=1.0)
        return load_predictor(path, form).predict(inputs)

    monkeypatch.setattr(sealed_runs, "predict_in_child", run)


def loss_of(lab: Any, path: Path) -> float:
    parts = lab.open_parts()
    return float(np.mean(load_predictor(path, "skops").predict(parts.validation_inputs) != parts.validation_labels))


@pytest.fixture
def stated(lab: Any, tmp_path: Path) -> Any:
    """Study ``full`` with an honest result, two false ones, a program that never ends, and a file that is gone."""
    honest, liar, modest, gone = (
        lab.fit(estimator, tmp_path / name)
        for name, estimator in (
            ("honest", GaussianNB()),
            ("liar", DecisionTreeClassifier(max_depth=1, random_state=0)),
            ("modest", DecisionTreeClassifier(max_depth=2, random_state=0)),
            ("gone", DecisionTreeClassifier(max_depth=3, random_state=0)),
        )
    )
    (tmp_path / "hang").mkdir()
    (tmp_path / "hang" / "run.sh").write_text("sleep 1000\n")
    pack_command(tmp_path / "hang", tmp_path / "hanging", command="sh run.sh")
    row = 1 / len(lab.open_parts().validation_labels)
    lab.models["full"] |= {
        "honest": lab.hand_in("full", "honest", honest, kind="skops", loss=loss_of(lab, honest)),
        "liar": lab.hand_in("full", "liar", liar, kind="skops", loss=0.0),
        "modest": lab.hand_in("full", "modest", modest, kind="skops", loss=loss_of(lab, modest) + row),
        "hanging": lab.hand_in("full", "hanging", tmp_path / "hanging", kind="command", loss=0.3),
        "gone": lab.hand_in("full", "gone", gone, kind="skops", loss=0.3),
    }
    reference = lab.one("SELECT artifact FROM work.models WHERE id = :id", id=lab.models["full"]["gone"])
    lab.artifacts.path(reference).unlink()
    return lab


def outcomes(lab: Any) -> dict[str, str]:
    found = dict(lab.rows("SELECT model_id, outcome FROM work.quality_checks"))
    return {name: found[model] for name, model in lab.models["full"].items() if model in found}


def test_false_results_are_found_and_not_used_any_more(stated: Any) -> None:
    with stated.worker.begin() as tx:
        before, study = decisions.glance(tx), studies.get_study(tx, "full")
        assert models.best_model(tx, study.id).id == stated.models["full"]["liar"]
    idle_work = Housekeeper(stated.referee, stated.artifacts, RefereeLease(stated.referee), {}, check_share=1.0)
    while idle_work.work():
        pass
    found = outcomes(stated)
    assert {name: found[name] for name in ("honest", "liar", "modest", "hanging", "gone")} == {
        "honest": "held",
        "liar": "not held",
        "modest": "not held",  # one row less than it has: the same answers give the same number
        "hanging": "unmeasurable",
        "gone": "unmeasurable",
    }
    assert check_next(stated.referee, stated.artifacts, share=1.0) is None
    false = {name for name, outcome in found.items() if outcome == "not held"}
    trial_of = dict(stated.rows("SELECT id, trial_id FROM work.models WHERE trial_id IS NOT NULL"))
    with stated.worker.begin() as tx:
        seen = {t.id: (t.state, t.quality) for t in decisions.all_trials(tx)}
        for name in false:
            assert seen[trial_of[stated.models["full"][name]]] == ("FAILED", None)
        assert seen[trial_of[stated.models["full"]["honest"]]][0] == "SUCCEEDED"
        assert decisions.glance(tx).catalogue > before.catalogue  # what a scheduler has in memory is loaded again
        assert models.best_model(tx, study.id).id not in {stated.models["full"][name] for name in false}
        assert not {b.model_id for b in models.best_to_judge(tx)} & {stated.models["full"][name] for name in false}
        version = studies.latest_data_version(tx, study.id).id
        assert 0 < stored_trials.best_of_study(tx, study_id=study.id, data_version_id=version) < 1.0  # the liar's
        flagged = health.tenants_with_false_results(tx)
    shown = {name: trial_of[stated.models["full"][name]] for name in ("honest", "liar", "gone")}
    assert {name: trial_details(stated.worker, trial_id=number).checked for name, number in shown.items()} == {
        "honest": "held", "liar": "not held", "gone": "unmeasurable",
    }  # fmt: skip
    every = [outcome for (outcome,) in stated.rows("SELECT outcome FROM work.quality_checks")]
    (tenant,) = (t for t in list_tenants(stated.worker) if t.tenant == "lab")
    assert (tenant.not_held, tenant.unmeasurable, tenant.checked_results) == (
        every.count("not held"), every.count("unmeasurable"), len(every),
    )  # fmt: skip
    assert (flagged, check_tenants(health.TenantLogins(0, 0, 0, False, False), flagged).state) == (["lab"], "warning")
    acts = stated.rows("SELECT (after ->> 'model')::bigint FROM work.audit WHERE act = 'result did not hold'")
    assert {model for (model,) in acts} >= {stated.models["full"][name] for name in false}
    assert len(acts) == every.count("not held")


def test_a_false_result_is_shown_and_notified_until_an_operator_acknowledges_it(stated: Any) -> None:
    worker, liar = stated.worker, stated.models["full"]["liar"]
    trial = stated.one("SELECT trial_id FROM work.models WHERE id = :id", id=liar)
    cursor = notifications.look(worker, None).start.to_stored()
    assert found_of(worker).facts.best_quality == 1.0  # what the liar has stated
    while check_next(stated.referee, stated.artifacts, share=1.0):
        pass
    shown = found_of(worker)
    assert (shown.facts.best_model_id, shown.steps[0].kind) == (stated.models["full"]["honest"], StepKind.NOT_HELD)
    assert shown.facts.failed == shown.facts.not_held
    false = dict(stated.rows("SELECT trial_id, measured FROM work.quality_checks WHERE outcome = 'not held'"))
    seen = notifications.look(worker, cursor)
    told = {news.id: news.message for news in seen.events if news.kind == EventKind.NOT_HELD}
    assert set(told) == {f"not-held-{number}" for number in false}
    assert re.search(rf" 1\.0000, .* {false[trial]:.4f}", told[f"not-held-{trial}"])
    cursor = notifications.after_all(seen.start, seen).to_stored() | {
        "told": dict.fromkeys(told, seen.until.isoformat())
    }
    assert not [news for news in notifications.look(worker, cursor).events if news.kind == EventKind.NOT_HELD]
    with worker.begin() as tx:
        listed = query.listed_trials(tx, studies.get_study(tx, "full").id, skip=0, limit=50)
    (row,) = (row for row in trials_table.rows_of(listed, best=None) if row.trial_id == trial)
    assert (row.state, row.quality) == (trials_table.NOT_HELD, "none")
    with acting("ada", door="command line"):
        first = acknowledge_results(worker, tenant="lab", trials=[trial], why="a wrong metric")
        assert first.trials == [trial]
        done = acknowledge_results(worker, tenant="lab", why="the others, too")
    assert sorted([*first.trials, *done.trials]) == sorted(false)
    with pytest.raises(NotFoundError):
        acknowledge_results(worker, tenant="lab", why="again")
    assert stated.rows(
        "SELECT who, reason FROM work.audit WHERE act = 'result acknowledged' AND after ->> 'trial' = :id",
        id=str(trial),
    ) == [("ada", "a wrong metric")]
    after = found_of(worker)
    assert (after.facts.best_model_id, after.facts.not_held) == (stated.models["full"]["honest"], 0)  # still unused
    assert StepKind.NOT_HELD not in {step.kind for step in after.steps}
    with worker.begin() as tx:
        assert health.tenants_with_false_results(tx) == []


def found_of(worker: Any) -> Any:
    assess_changes(worker)
    with worker.begin() as tx:
        return assess(kept_summaries(tx, ["full"])[0])


def test_the_sample_has_the_share_it_states_and_nobody_without_the_key_can_tell_it() -> None:
    key, trials = b"k" * 32, range(1, 20_001)
    chosen = [trial for trial in trials if is_chosen(key, trial, SHARE)]
    # The key is fixed, so this never fails by chance; another key would leave these bounds once in 10,000.
    assert stats.binom.ppf(5e-5, len(trials), SHARE) <= len(chosen) <= stats.binom.ppf(1 - 5e-5, len(trials), SHARE)
    others = [trial for trial in trials if is_chosen(b"l" * 32, trial, SHARE)]
    assert len({*chosen} & {*others}) <= stats.binom.ppf(1 - 1e-4, len(trials), SHARE**2)
    assert sampled(key, trials, SHARE) == chosen[0]
    assert sampled(key, trials, 0.0) is None
    assert sampled(key, trials, 1.0) == 1
    more = {trial for trial in trials if is_chosen(key, trial, 2 * SHARE)}
    assert more.issuperset(chosen)  # a larger share checks what a smaller one has not


@pytest.mark.parametrize(("false", "share"), [(0, 0.02), (1, 0.02), (34, 0.02), (114, 0.02), (228, 0.02), (22, 0.1)])
def test_chances_are_those_of_the_binomial_distribution(false: int, share: float) -> None:
    exact = 1.0 - (1.0 - share) ** false
    found = sum(
        any(is_chosen(str(key).encode(), trial, share) for trial in range(false)) for key in range(2000)
    )  # the keys are fixed; others would leave these bounds once in 10,000
    assert stats.binom.ppf(5e-5, 2000, exact) <= found <= stats.binom.ppf(1 - 5e-5, 2000, exact)


def test_only_networks_and_programs_may_differ_a_little() -> None:
    assert {name: tolerance_of(name) for name in ("skops", "constant", "safetensors", "command", "unknown")} == {
        "skops": 1e-6, "constant": 1e-6, "safetensors": 0.01, "command": 0.01, "unknown": 0.01,
    }  # fmt: skip


def test_a_second_referee_records_nothing_twice(stated: Any) -> None:
    with stated.referee.begin() as tx:
        trial = validation_sets.unchecked_trials(tx)[0]
        result = validation_sets.unchecked_result(tx, trial)
        kept = [
            validation_sets.add_quality_check(tx, result, measured=result.quality, tolerance=0.0, reason=None)
            for _ in range(2)
        ]
    assert kept == ["held", None]
