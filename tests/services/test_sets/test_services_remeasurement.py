"""After a validation set was replaced: trained models are measured anew, once, whatever is killed; nothing is trained.

The laboratory's study ``full`` has the models good, worse and rare, and the candidates of ``conftest.KINDS`` untried.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from killed import die, killed_in

from easeml_core.entities import Executor, TrialState
from easeml_core.errors import ConcurrentUpdateError
from easeml_core.models.formats import load_predictor
from easeml_core.services.datasets.validation_sets import ReplacedValidation, replace_validation, validation_report
from easeml_core.services.evaluation import sealed_runs
from easeml_core.services.evaluation.reevaluation import _keep, measure_next, remeasure
from easeml_core.services.referee import housekeeping
from easeml_core.services.referee.claiming import RefereeLease
from easeml_core.services.referee.process import Referee
from easeml_core.services.reports.decision import explain_trial
from easeml_core.services.selection.backtest import history_table, report_costs
from easeml_core.services.selection.scheduler import LiveScheduler, suggest_trials
from easeml_core.services.studies.archive import prune
from easeml_core.services.studies.limits import set_study
from easeml_core.services.trials.execution import run_trial
from easeml_core.store.database import Store, lock
from easeml_core.store.queries.overview import study_summaries
from easeml_core.store.tables import leases, models, releases, studies, trials, validation_sets
from easeml_core.store.tables.capacity import outlook

KINDS = {"nearest_centroid", "gaussian_naive_bayes", "decision_tree"}
HANDED_IN = ("good", "worse", "rare")


@pytest.fixture
def at_home(monkeypatch: Any) -> None:
    """Models answer in this process: a child for each takes a second, and is what other tests are about."""
    monkeypatch.setattr(
        sealed_runs, "predict_in_child", lambda path, form, inputs, **_: load_predictor(path, form).predict(inputs)
    )


@pytest.fixture
def replaced(lab: Any, bring: Any) -> Any:
    """The laboratory after study ``full`` got another validation set."""
    replace(lab, bring())
    return lab


def replace(lab: Any, brought: Any, **more: Any) -> ReplacedValidation:
    given = {"study": "full", "inputs": brought.inputs, "labels": brought.labels}
    return replace_validation(lab.referee, lab.artifacts, **given | more)


def suggested(lab: Any, count: int = 9) -> list[str]:
    asked = {"count": count, "studies_only": ["full"], "request_key": lab.key()}
    return [t.candidate for t in suggest_trials(lab.worker, **asked).trials]


def measured(lab: Any) -> list[tuple[str, int, int]]:
    """Candidate, version and trial that was measured anew, of each re-evaluation."""
    return lab.rows(
        "SELECT c.name, v.version, t.reevaluates FROM work.trials t JOIN work.candidates c ON c.id = t.candidate_id "
        "JOIN work.data_versions v ON v.id = t.data_version_id WHERE t.reevaluates IS NOT NULL ORDER BY t.id"
    )


@pytest.mark.journey
def test_models_are_measured_on_the_new_set_the_best_first(replaced: Any) -> None:
    lab, lines = replaced, []
    done = remeasure(lab.referee, lab.artifacts, "full", log=lines.append)
    assert (done.version, done.failed, done.left, done.under_way) == (2, (), 0, 0)
    assert [m.candidate for m in done.measured] == ["good", "worse", "rare"]
    assert [m.before for m in done.measured] == [pytest.approx(q) for q in (0.98, 0.9, 0.4)]
    assert lines[0].startswith("good: quality 0.9")
    assert [line.rpartition("(")[2] for line in lines] == ["1 of 3)", "2 of 3)", "3 of 3)"]
    parts = lab.open_parts()
    with lab.worker.begin() as tx:
        study_id = studies.get_study(tx, "full").id
        for m in done.measured:
            model = models.get_model(tx, study_id, m.model_id)
            before = models.get_model(tx, study_id, lab.models["full"][m.candidate])
            predictor = load_predictor(lab.artifacts.path(model.artifact), model.format)
            truth = np.mean(predictor.predict(parts.validation_inputs) == parts.validation_labels)
            assert m.quality == pytest.approx(truth)
            assert (model.trial_id, model.artifact, model.identity) == (m.trial_id, before.artifact, before.identity)
            assert model.validation_loss == pytest.approx(1 - truth)
        best = models.best_model(tx, study_id)
    assert best is not None
    assert best.id == done.measured[0].model_id
    first = lab.models["full"]["good"]
    assert measured(lab)[0] == ("good", 2, lab.one("SELECT trial_id FROM work.models WHERE id = :id", id=first))
    said = explain_trial(lab.worker, trial_id=done.measured[0].trial_id).sentence
    assert said.startswith(f"full: good of trial {measured(lab)[0][2]} was measured anew")
    again = remeasure(lab.referee, lab.artifacts, "full")
    assert (again.measured, len(measured(lab))) == ((), 3)
    report = validation_report(lab.worker, lab.artifacts, "full")
    assert (report.looks["trials"], report.to_measure, report.state) == (3, 0, "used")


@pytest.mark.usefixtures("at_home")
def test_the_best_models_row_of_the_new_set_is_not_pruned(replaced: Any) -> None:
    lab = replaced
    best = remeasure(lab.referee, lab.artifacts, "full").measured[0]
    lab.as_superuser("UPDATE work.models SET created_at = created_at - interval '40 days'")
    removed = {one.model_id for one in prune(lab.referee, keep=1, days=30.0).models if one.study == "full"}
    assert len(removed) == 4  # two models, each with a row of both sets
    assert not removed & {best.model_id, lab.models["full"]["good"]}


@pytest.mark.usefixtures("at_home")
def test_what_has_lost_its_file_is_trained_again_and_not_counted_as_failed(lab: Any, bring: Any) -> None:
    lab.as_superuser("UPDATE work.models SET created_at = created_at - interval '40 days'")
    prune(lab.referee, keep=1, days=30.0)
    replace(lab, bring())
    done = remeasure(lab.referee, lab.artifacts, "full")
    assert ([m.candidate for m in done.measured], done.failed, done.left) == (["good"], (), 0)
    with lab.worker.begin() as tx:
        assert outlook(tx, ["full"]).untried == len(KINDS) + 2
    assert set(suggested(lab)) == KINDS | {"worse", "rare"}


def test_nothing_waits_where_no_set_was_replaced(lab: Any) -> None:
    assert measure_next(lab.referee, lab.artifacts) is None
    assert remeasure(lab.referee, lab.artifacts, "full").measured == ()


@pytest.mark.usefixtures("at_home")
def test_what_was_trained_is_not_trained_again(replaced: Any) -> None:
    lab = replaced
    with lab.worker.begin() as tx:
        assert outlook(tx, ["full"]).untried == len(KINDS)
    assert set(suggested(lab)) == KINDS  # the others wait to be measured
    remeasure(lab.referee, lab.artifacts, "full")
    assert suggested(lab) == []
    assert len(measured(lab)) == 3


@pytest.mark.usefixtures("at_home")
def test_a_trial_that_runs_on_the_old_set_ends_and_is_measured(lab: Any, bring: Any) -> None:
    asked = {"count": 1, "studies_only": ["full"], "request_key": lab.key()}
    (running,) = suggest_trials(lab.worker, **asked).trials
    replace(lab, bring())
    done = remeasure(lab.referee, lab.artifacts, "full")
    assert (len(done.measured), done.under_way) == (3, 1)
    assert running.candidate not in suggested(lab)
    assert validation_report(lab.worker, lab.artifacts, "full").under_way == 1
    run_trial(lab.worker, lab.artifacts, trial_id=running.trial_id, request_key="w")
    assert suggested(lab) == []
    done = remeasure(lab.referee, lab.artifacts, "full")
    assert [m.candidate for m in done.measured] == [running.candidate]
    assert (done.under_way, validation_report(lab.worker, lab.artifacts, "full").under_way) == (0, 0)


def test_what_failed_on_the_training_part_is_not_tried_again(lab: Any, bring: Any) -> None:
    asked = {"count": 1, "studies_only": ["full"], "request_key": lab.key()}
    (given,) = suggest_trials(lab.worker, **asked).trials
    with lab.worker.begin() as tx:
        attempt = leases.start_trial(
            tx,
            trial_id=given.trial_id,
            lease_key="w",
            lease_seconds=60,
            executor=Executor(trials.get_trial(tx, given.trial_id).implementation, "test"),
        )
        ended = {"attempt": attempt, "state": TrialState.FAILED, "cost_seconds": 1.0, "failure": "it diverged"}
        leases.finish_trial(tx, trial_id=given.trial_id, **ended)
    replace(lab, bring())
    assert set(suggested(lab)) == KINDS - {given.candidate}


@pytest.mark.usefixtures("at_home")
def test_a_second_replacement_measures_all_once_more_from_the_trained_ones(replaced: Any, bring: Any) -> None:
    lab = replaced
    measure_next(lab.referee, lab.artifacts)  # good alone
    assert replace(lab, bring(60, seed=2)).to_measure == 3
    assert [m.candidate for m in remeasure(lab.referee, lab.artifacts, "full").measured] == list(HANDED_IN)
    of = dict(lab.rows("SELECT c.name, t.id FROM work.trials t JOIN work.candidates c ON c.id = t.candidate_id "
                       "WHERE t.study_id = 1 AND reevaluates IS NULL"))  # fmt: skip
    assert measured(lab) == [("good", 2, of["good"]), *((name, 3, of[name]) for name in HANDED_IN)]


@pytest.mark.usefixtures("at_home")
def test_production_and_baseline_keep_their_places(lab: Any, bring: Any) -> None:
    lab.promote(lab.gate("good").request_id)
    replace(lab, bring())
    remeasure(lab.referee, lab.artifacts, "full")
    with lab.worker.begin() as tx:
        study_id = studies.get_study(tx, "full").id
        standing = releases.production_model(tx, study_id)
        assert standing is not None
        assert standing.id == lab.models["full"]["good"]
        version = lab.one("SELECT data_version_id FROM work.models WHERE id = :id",
                          id=models.baseline_model(tx, study_id).id)  # fmt: skip
    assert version == lab.one("SELECT max(id) FROM work.data_versions")


@pytest.mark.usefixtures("at_home")
def test_the_gate_answers_for_the_new_row_of_a_model_from_the_log(lab: Any, bring: Any) -> None:
    before = lab.gate("good")
    replace(lab, bring())
    done = remeasure(lab.referee, lab.artifacts, "full")
    after = lab.gate(done.measured[0].model_id)
    assert (after.symbol, after.cached, before.cached) == (before.symbol, True, False)


# -- prices and budgets -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("at_home")
def test_measuring_is_charged_and_nobody_learns_from_its_price(replaced: Any) -> None:
    lab = replaced
    charged = lab.one("SELECT sum(work.charge(t)) FROM work.trials t WHERE study_id = 1")
    costs = report_costs(lab.worker)
    remeasure(lab.referee, lab.artifacts, "full")
    spent = lab.one("SELECT sum(cost_seconds) FROM work.trials WHERE reevaluates IS NOT NULL")
    assert spent > 0
    now = lab.one("SELECT sum(work.charge(t)) FROM work.trials t WHERE study_id = 1")
    assert now == pytest.approx(charged + spent)
    assert report_costs(lab.worker) == costs
    prices = "SELECT DISTINCT o.cost_seconds FROM work.observations o JOIN work.trials t ON t.id = o.trial_id "
    assert lab.rows(prices + "WHERE t.reevaluates IS NOT NULL") == [(1.0,)]
    with lab.worker.begin() as tx:
        table = history_table(tx)
        (row,) = (s for s in study_summaries(tx) if s.study == "full")
    place = table.tenants.index("full")
    found = {name: (q, c) for name, q, c in zip(table.candidates, table.quality[place], table.cost[place], strict=True)}
    quality = dict(
        lab.rows(
            "SELECT c.name, o.quality FROM work.observations o JOIN work.trials t ON t.id = o.trial_id "
            "JOIN work.candidates c ON c.id = t.candidate_id WHERE t.reevaluates IS NOT NULL"
        )
    )
    for name in HANDED_IN:
        assert found[name] == (quality[name], 1.0)  # what training took, as the laboratory has it
    assert (row.trials, row.device_seconds) == (3, pytest.approx(3 + spent))
    assert row.best_quality == pytest.approx(quality["good"])


@pytest.mark.usefixtures("at_home")
def test_a_used_up_budget_stops_no_measuring_but_new_trials(replaced: Any) -> None:
    lab = replaced
    set_study(lab.worker, study="full", budget_seconds=3.0)  # as much as was used
    assert len(remeasure(lab.referee, lab.artifacts, "full").measured) == 3
    assert suggested(lab) == []


@pytest.mark.usefixtures("at_home")
def test_the_scheduler_sees_each_result_once_at_its_training_s_price(replaced: Any, bring: Any) -> None:
    lab = replaced
    set_study(lab.worker, study="full", budget_seconds=500.0)
    live = LiveScheduler(lab.worker, studies_only=["full"])

    def seen() -> Any:
        live.ask(count=1, request_key=lab.key())
        assert live._memory is not None
        return live._memory.problem

    before = seen()
    assert before.pulls == ()
    assert sorted(q for past in before.history for q in past.qualities if past.study_id == 1) == [
        pytest.approx(q) for q in (0.4, 0.9, 0.98)
    ]
    assert measure_next(lab.referee, lab.artifacts) is not None
    after = seen()
    (pull,) = after.pulls
    assert (pull.cost_seconds, after.studies[0].names[pull.arm]) == (1.0, "good")
    assert pull.quality == lab.one("SELECT quality FROM work.observations ORDER BY observed_at DESC LIMIT 1")
    assert [len(past.qualities) for past in after.history if past.study_id == 1] == [2]
    # What is left is what the database says: the pull's own seconds are the scheduler's to subtract.
    spent = lab.one("SELECT sum(coalesce(cost_seconds, 0)) FROM work.trials WHERE study_id = 1")
    assert after.studies[0].budget_seconds - pull.cost_seconds == pytest.approx(500.0 - spent)
    replace(lab, bring(60, seed=2))
    remeasure(lab.referee, lab.artifacts, "full")
    last = seen()
    assert sorted(last.studies[0].names[p.arm] for p in last.pulls) == sorted(HANDED_IN)
    assert {p.cost_seconds for p in last.pulls} == {1.0}
    assert [past for past in last.history if past.study_id == 1] == []
    # Trials that are open on earlier data hold what is reserved for them; that on the newest one is the scheduler's.
    spent = lab.one(
        "SELECT sum(work.charge(t)) FROM work.trials t WHERE study_id = 1 AND (finished_at IS NOT NULL "
        "OR data_version_id < (SELECT max(id) FROM work.data_versions))"
    )
    assert last.studies[0].budget_seconds - 3.0 == pytest.approx(500.0 - spent)


def test_a_replacement_makes_no_newcomer_of_the_study(lab: Any, bring: Any) -> None:
    with lab.worker.begin() as tx:
        joined = studies.get_study(tx, "full").joined_at
    replace(lab, bring())
    with lab.worker.begin() as tx:
        assert studies.get_study(tx, "full").joined_at == joined


# -- many at once, and failures ---------------------------------------------------------------------------------------


def test_of_two_who_measure_the_same_one_writes(replaced: Any, bring: Any) -> None:
    lab = replaced
    with lab.referee.begin() as tx:
        waiting = validation_sets.waiting_models(tx)[0]
    assert _keep(lab.referee, waiting, quality=0.5, loss=0.5, seconds=1.0).trial_id is not None
    assert _keep(lab.referee, waiting, quality=0.5, loss=0.5, seconds=1.0).trial_id is None
    assert len(measured(lab)) == 1
    with lab.referee.begin() as tx:
        waiting = validation_sets.waiting_models(tx)[0]
    replace(lab, bring(60, seed=2))
    assert _keep(lab.referee, waiting, quality=0.5, loss=0.5, seconds=1.0).trial_id is None  # the data have moved on
    assert len(measured(lab)) == 1


@pytest.mark.usefixtures("at_home")
def test_what_the_referee_has_measured_beside_it_is_counted_as_that(replaced: Any) -> None:
    lab = replaced

    def beside(line: str) -> None:
        if line.startswith("good: quality"):  # the first one; the referee takes the second
            assert measure_next(lab.referee, lab.artifacts) is not None

    done = remeasure(lab.referee, lab.artifacts, "full", log=beside)
    assert (len(done.measured), done.by_referee, done.left) == (2, 1, 0)
    assert remeasure(lab.referee, lab.artifacts, "full").by_referee == 0


@pytest.mark.usefixtures("at_home")
def test_a_model_whose_file_is_gone_keeps_nobody_from_the_others(replaced: Any) -> None:
    lab = replaced
    gone = f"UPDATE work.models SET artifact = 'sha256:{'0' * 64}' WHERE id = %s"
    lab.as_superuser(gone, lab.models["full"]["good"])
    lines: list[str] = []
    done = remeasure(lab.referee, lab.artifacts, "full", log=lines.append)
    assert [m.candidate for m in done.measured] == ["worse", "rare"]
    (failed,) = done.failed
    assert (failed.candidate, done.left, done.given_up) == ("good", 1, 0)
    assert lines[0].startswith("good: not measured, ")
    assert "good" not in suggested(lab)  # its training is no news


@pytest.mark.usefixtures("at_home")
def test_the_referee_measures_when_nobody_asks(replaced: Any) -> None:
    lab = replaced
    gone = f"UPDATE work.models SET artifact = 'sha256:{'0' * 64}' WHERE id = %s"
    lab.as_superuser(gone, lab.models["full"]["good"])
    referee = Referee(lab.referee, lab.artifacts)
    referee.run_once()
    assert measured(lab) == []  # after a failure the referee takes a breath
    referee.run_once()
    assert [name for name, _, _ in measured(lab)] == ["worse", "rare"]
    assert not referee._housekeeper.work()  # what failed rests for a while


def test_a_decision_of_the_scheduler_misses_no_measurement(replaced: Any) -> None:
    """Trials are made under the lock of decisions alone, else a later number could be seen before an earlier one."""
    lab = replaced
    hasty = Store(lab.url("easeml_referee"), lock_timeout_seconds=0.2)
    with lab.referee.begin() as tx:
        (waiting,) = validation_sets.waiting_models(tx)
    with lab.worker.begin() as deciding:
        lock(deciding, "suggest")
        with pytest.raises(ConcurrentUpdateError):
            _keep(hasty, waiting, quality=0.5, loss=0.5, seconds=1.0)
    assert _keep(hasty, waiting, quality=0.5, loss=0.5, seconds=1.0).trial_id is not None
    hasty.close()


def test_an_error_of_measuring_keeps_the_referee_from_nothing(replaced: Any, monkeypatch: Any, caplog: Any) -> None:
    monkeypatch.setattr(housekeeping, "measure_next", lambda *_, **__: 1 / 0)
    idle_work = housekeeping.Housekeeper(replaced.referee, replaced.artifacts, RefereeLease(replaced.referee), {})
    assert [idle_work.work() for _ in range(3)] == [False] * 3
    assert caplog.text.count("model was not") == 1


@pytest.mark.parametrize("where", ["running", "writing"])
@pytest.mark.usefixtures("at_home")
def test_whoever_is_killed_loses_nothing(replaced: Any, where: str) -> None:
    lab = replaced
    measure_next(lab.referee, lab.artifacts)

    def referee() -> None:
        module, name = {"running": (sealed_runs, "run_model"), "writing": (models, "add_model")}[where]
        setattr(module, name, die)
        remeasure(Store(lab.url("easeml_referee")), lab.artifacts, "full")

    killed_in(referee)
    assert [name for name, _, _ in measured(lab)] == ["good"]
    done = remeasure(lab.referee, lab.artifacts, "full")
    assert [m.candidate for m in done.measured] == ["worse", "rare"]
    assert lab.one("SELECT count(*) FROM work.models WHERE data_version_id = (SELECT max(id) FROM work.data_versions)"
                   ) == 4  # fmt: skip
    assert lab.one("SELECT count(*) FROM work.observations o JOIN work.trials t ON t.id = o.trial_id "
                   "WHERE t.reevaluates IS NOT NULL") == 3  # fmt: skip


# What stands is a model, not a row of it: each data version has its own for the baseline and for what it measured.


def test_a_pass_against_the_baseline_holds_after_the_validation_set_was_replaced(lab: Any, bring: Any) -> None:
    passed = lab.gate("good", "first")  # under firstChange a pass ends the set: no further question is possible
    assert passed.symbol == "pass"
    before = lab.one("SELECT count(*) FROM work.models m WHERE m.trial_id IS NULL AND NOT m.submitted")
    replace(lab, bring(seed=1), study="first")
    assert lab.one("SELECT count(*) FROM work.models m WHERE m.trial_id IS NULL AND NOT m.submitted") == before + 1
    assert lab.promote(passed.request_id, "good", "first").promoted


@pytest.mark.journey
def test_another_model_that_stands_makes_it_stale_still(lab: Any, bring: Any) -> None:
    first, second = lab.gate("worse").request_id, lab.gate("good").request_id
    replace(lab, bring(seed=1))
    remeasure(lab.referee, lab.artifacts, "full")
    assert lab.promote(first, "worse").promoted
    answer = lab.promote(second)
    assert answer.refused
    assert " stands now" in answer.message
