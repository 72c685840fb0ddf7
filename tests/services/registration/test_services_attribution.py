"""A trial trains the candidate that it is charged for, or nothing: who executes is part of the claim."""

from __future__ import annotations

import functools
import importlib.util
import re
from typing import TYPE_CHECKING, Any

import pytest
from sklearn.naive_bayes import GaussianNB
from sklearn.tree import DecisionTreeClassifier

from easeml_core.errors import InvalidInputError, StateError
from easeml_core.services.models.promotion import model_record
from easeml_core.services.reports.audit import audit
from easeml_core.services.reports.next_steps import next_steps
from easeml_core.services.reports.overview import study_details
from easeml_core.services.reports.study import study_report
from easeml_core.services.selection.executors import code_version, executors_of, function_executor, source_hash
from easeml_core.services.selection.retry import MOST_BY_ITSELF, changed_tasks, in_place_of, retry_trial
from easeml_core.services.selection.scheduler import LiveScheduler, suggest_trials
from easeml_core.services.studies.archive import restore_candidate, withdraw_candidate
from easeml_core.services.studies.limits import set_study
from easeml_core.services.trials.attempts import run_function_trial
from easeml_core.services.trials.execution import cancel_trial, run_trial, trial_state
from easeml_core.store.tables import leases, trials

if TYPE_CHECKING:
    from collections.abc import Mapping

NB = {"name": "nb", "kind": "gaussian_naive_bayes"}
FUNCTIONS = [{"name": name, "kind": "function"} for name in ("const", "tree")]


def const(data: Any, parameters: Any, report: Any) -> Any:
    return GaussianNB().fit(data.train_inputs, data.train_labels)


def tree(data: Any, parameters: Any, report: Any) -> Any:
    return DecisionTreeClassifier(random_state=0).fit(data.train_inputs, data.train_labels)


@pytest.fixture
def mixed(lab: Any) -> Any:
    """The study of the report: two functions and a trainer of the product."""
    lab.register("mixed", candidates=[*FUNCTIONS, NB])
    return lab


def handed_out(lab: Any) -> Mapping[str, int]:
    """All three trials, as a DAG was handed them that has both functions: candidate to trial."""
    found = suggest_trials(
        lab.worker, count=9, studies_only=["mixed"], functions=["const", "tree"], request_key=lab.key()
    )
    return {trial.candidate: trial.trial_id for trial in found.trials}


def test_a_function_that_is_mapped_over_every_trial_trains_its_own_candidate_alone(mixed: Any) -> None:
    """``const.expand(trial=suggest.output)``: each trial ran ``const``, and ``nb`` was promoted for it."""
    handed = handed_out(mixed)
    for trial_id in handed.values():
        run_function_trial(
            mixed.worker, mixed.artifacts, trial_id=trial_id, request_key=f"map/{trial_id}", function=const
        )
    states = {name: trial_state(mixed.worker, trial_id=trial_id).state for name, trial_id in handed.items()}
    assert states == {"const": "SUCCEEDED", "tree": "SUGGESTED", "nb": "SUGGESTED"}
    models = "SELECT count(*) FROM work.models WHERE trial_id = ANY(:ids)"
    assert mixed.one(models, ids=list(handed.values())) == 1


def test_the_claim_of_another_implementation_writes_nothing(mixed: Any) -> None:
    """Whatever Python has looked at before."""
    trial_id = handed_out(mixed)["tree"]
    with mixed.worker.begin() as tx:
        claim = {"trial_id": trial_id, "lease_key": "k", "lease_seconds": 60}
        assert leases.start_trial(tx, **claim, executor=function_executor(const)) is None
        assert trials.get_trial(tx, trial_id).attempt == 0
        assert leases.start_trial(tx, **claim, executor=function_executor(tree)) == 1


def hidden(data: Any, parameters: Any, report: Any) -> Any:
    raise KeyError("hidden")


def run(lab: Any, trial_id: int, function: Any, name: str, key: str = "w") -> Any:
    """Run the trial with a function that goes by this name."""
    function = type(function)(function.__code__, function.__globals__, name)
    return run_function_trial(lab.worker, lab.artifacts, trial_id=trial_id, request_key=key, function=function)


def ask(lab: Any, functions: Any, *, trainers: bool = True) -> dict[str, int]:
    asked = {"count": 9, "studies_only": ["mixed"], "functions": functions, "trainers": trainers}
    found = suggest_trials(lab.worker, request_key=lab.key(), **asked).trials
    return {trial.candidate: trial.trial_id for trial in found}


def test_a_failure_of_the_task_uses_no_candidate_up_and_tells_the_scheduler_nothing(mixed: Any) -> None:
    failed = ask(mixed, ["tree"])["tree"]
    report = run(mixed, failed, hidden, "tree")
    assert (report.state, report.failure_kind, report.cost_seconds) == ("FAILED", "task", None)
    assert ask(mixed, ["tree"]) == {}, "it was not repaired"
    live = LiveScheduler(mixed.worker, studies_only=["mixed"], functions=["tree"])
    live.ask(request_key=mixed.key())
    assert live._memory is not None
    assert [a.names for a in live._memory.arms if a.study == "mixed"] == [("nb",)], "no arm, no pull"
    again = retry_trial(mixed.worker, trial_id=failed)
    assert retry_trial(mixed.worker, trial_id=failed) == again, "repeatable"
    acts = [row for row in audit(mixed.worker).events if row.act == "trial retried"]
    assert [(row.before["trial"], row.after["trial"]) for row in acts] == [(failed, again.trial_id)]
    assert (again.state, again.trial_id > failed) == ("SUGGESTED", True)
    assert ask(mixed, ["tree"]) == {"tree": again.trial_id}
    assert run(mixed, again.trial_id, tree, "tree").state == "SUCCEEDED"
    live.ask(request_key=mixed.key())
    (arms,) = [a for a in live._memory.arms if a.study == "mixed"]
    pulled = [arms.names[p.arm] for p in live._memory.problem.pulls if p.study_id == arms.study_id]
    assert pulled == ["tree"], "the result of the second one counts"
    with pytest.raises(StateError, match="is SUCCEEDED"):
        retry_trial(mixed.worker, trial_id=again.trial_id)
    used = "SELECT lost_seconds > 0 AND cost_seconds IS NULL FROM work.trials WHERE id = :id"
    assert mixed.one(used, id=failed) is True
    counts = study_report(mixed.worker, study="mixed").facts
    answer = study_details(mixed.worker, study="mixed").summary
    assert (counts.failed, answer.failed) == (0, 0), "its candidate has succeeded"


def wrong(data: Any, parameters: Any, report: Any) -> Any:
    raise ValueError("no such depth")


def test_a_failure_of_the_candidate_is_answered_with_the_command_for_another_one(mixed: Any) -> None:
    failed = ask(mixed, ["tree"])["tree"]
    assert run(mixed, failed, wrong, "tree").failure_kind == "candidate"
    added = "`easeml candidate add mixed --kind function --name tree-v2`"
    with pytest.raises(StateError, match=f"of its candidate; .*{added}"):
        retry_trial(mixed.worker, trial_id=failed)


def test_a_function_that_has_changed_is_tried_again_a_few_times_at_most(mixed: Any) -> None:
    trial_id, tries = ask(mixed, {"tree": "sha256:0"})["tree"], 0
    while True:
        assert run(mixed, trial_id, hidden, "tree", key=f"w{tries}").failure_kind == "task"
        hashed, _ = source_hash(type(hidden)(hidden.__code__, {}, "tree"))
        assert ask(mixed, {"tree": hashed}) == {}, "the same source fails the same way"
        found = ask(mixed, {"tree": f"sha256:{tries}"})
        if not found:
            break
        trial_id, tries = found["tree"], tries + 1
    assert tries == MOST_BY_ITSELF
    assert retry_trial(mixed.worker, trial_id=trial_id).state == "SUGGESTED", "a person may ask for more"


def test_a_task_that_is_cleared_tries_again_and_no_other_task_does(mixed: Any) -> None:
    trial_id = ask(mixed, ["tree"])["tree"]
    run(mixed, trial_id, hidden, "tree", key="dag/run/tree/0")
    assert in_place_of(mixed.worker, trial_id=trial_id, request_key="dag/other/tree/0") == trial_id
    again = in_place_of(mixed.worker, trial_id=trial_id, request_key="dag/run/tree/0")
    assert again > trial_id
    assert in_place_of(mixed.worker, trial_id=trial_id, request_key="dag/run/tree/0") == again


def test_a_retry_reserves_what_a_budget_has_left(mixed: Any) -> None:
    set_study(mixed.worker, study="mixed", budget_seconds=2000.0)
    trial_id = ask(mixed, ["tree"])["tree"]
    run(mixed, trial_id, hidden, "tree")
    limited = '{"training": {"time_limit_seconds": 7}}'
    mixed.as_superuser("UPDATE work.studies SET config = config || %s::jsonb WHERE name = 'mixed'", limited)
    again = retry_trial(mixed.worker, trial_id=trial_id).trial_id
    reserved = mixed.one("SELECT limit_seconds FROM work.trials WHERE id = :id", id=again)
    assert reserved == 8, "the time limit, and a second to stop in"


def test_a_model_tells_what_trained_it(mixed: Any) -> None:
    handed = ask(mixed, ["const"])
    made = run_function_trial(
        mixed.worker, mixed.artifacts, trial_id=handed["const"], request_key="c", function=const, dag_version="abc"
    )
    built = run_trial(mixed.worker, mixed.artifacts, trial_id=handed["nb"], request_key="n")
    by_function = model_record(mixed.worker, study="mixed", model_id=made.model_id)
    assert by_function.trained_by == {
        "kind": "function",
        "implementation": "function:const",
        "parameters": {},
        "attempt": 1,
        "request_key": "c",
        "code_version": code_version(),
        "function": f"{__name__}.const",
        "source_hash": source_hash(const)[0],
        "source": "text",
        "dag_version": "abc",
    }
    by_trainer = model_record(mixed.worker, study="mixed", model_id=built.model_id).trained_by
    assert (by_trainer["implementation"], by_trainer["code_version"]) == (
        "trainer:gaussian_naive_bayes",
        code_version(),
    )
    baseline = mixed.one(
        "SELECT m.id FROM work.models m JOIN work.studies s ON s.id = m.study_id "
        "WHERE s.name = 'mixed' AND m.trial_id IS NULL"
    )
    answer = model_record(mixed.worker, study="mixed", model_id=baseline)
    assert (answer.origin, answer.trained_by) == ("baseline", None)


def test_what_nothing_that_asks_can_execute_is_named(mixed: Any) -> None:
    def waiting() -> list[str]:
        found: list[str] = study_details(mixed.worker, study="mixed").waiting
        (step,) = [s for s in next_steps(mixed.worker, studies_only=["mixed"]) if s.kind == "implementation"] or [None]
        assert step is None or step.why == "; ".join(found)
        return found if step else []

    assert waiting() == [], "no caller has asked"
    ask(mixed, ["const"])
    (tree_waits,) = waiting()
    assert re.match(r"candidate tree .* function 'tree' \(none has", tree_waits)
    failed = ask(mixed, ["tree"], trainers=False)["tree"]
    assert waiting() == []
    run(mixed, failed, hidden, "tree")
    (task_waits,) = waiting()
    assert task_waits.startswith("1 candidate ")
    assert f"`easeml trial retry {failed}`" in task_waits


def test_a_withdrawn_candidate_is_not_tried_again_and_waits_for_nothing(mixed: Any) -> None:
    def repairs() -> list[str]:
        return [said for said in study_details(mixed.worker, study="mixed").waiting if "trial retry" in said]

    failed = ask(mixed, {"tree": "sha256:0"})["tree"]
    run(mixed, failed, hidden, "tree", key="dag/run/tree/0")
    assert len(repairs()) == 1
    withdraw_candidate(mixed.worker, study="mixed", candidate="tree", why="too deep")
    assert repairs() == []
    changed = {"sources": {"tree": "sha256:1"}, "trainers": True, "studies_only": ["mixed"]}
    with mixed.worker.begin() as tx:
        assert changed_tasks(tx, **changed) == []
    assert "tree" not in ask(mixed, changed["sources"]), "the function has changed"
    refused = pytest.raises(StateError, match=r"withdrawn; .* mixed tree`")
    with refused:
        retry_trial(mixed.worker, trial_id=failed)
    with refused:
        in_place_of(mixed.worker, trial_id=failed, request_key="dag/run/tree/0")
    restore_candidate(mixed.worker, study="mixed", candidate="tree")
    assert len(repairs()) == 1
    assert retry_trial(mixed.worker, trial_id=failed).state == "SUGGESTED"


def test_what_only_a_task_can_execute_is_not_advised_to_a_device(lab: Any, recorded: Any) -> None:
    """The function was renamed in the DAG: the study's candidate keeps the old name, and asks keep coming."""
    lab.register("deep", candidates=[{"name": "netz", "kind": "function"}, NB])

    def search() -> Any:
        (step,) = [s for s in next_steps(lab.worker, studies_only=["deep"]) if s.kind == "compute"]
        return step

    assert search().command == "easeml device run --study deep --max-trials 1"  # nb
    asked = {"studies_only": ["deep"], "functions": ["netz2"], "request_key": lab.key()}
    for trial in suggest_trials(lab.worker, count=9, **asked).trials:
        cancel_trial(lab.worker, trial_id=trial.trial_id)
    long_ago = "('function:netz', 'deep', '2026-05-01 03:00+0')"
    lab.as_superuser(f"INSERT INTO work.offers (implementation, study, asked_at) VALUES {long_ago}")
    assert search().command == "easeml study show deep"
    why = search().why
    for told in (study_details, study_report):
        (sentence,) = told(lab.worker, study="deep").waiting
        recorded(sentence, "candidate_waits_for_a_function")
        assert sentence in why
    withdraw_candidate(lab.worker, study="deep", candidate="netz", why="renamed")
    assert study_details(lab.worker, study="deep").waiting == []


@pytest.mark.parametrize(
    "given", [lambda data, parameters, report: None, functools.partial(const, None), type("Fit", (), {})()]
)
def test_a_function_without_a_name_is_refused(given: Any) -> None:
    with pytest.raises(InvalidInputError, match="needs a name"):
        executors_of([given], trainers=False)


def test_two_functions_of_one_name_are_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"two .* called 'tree'"):
        executors_of([tree, type(const)(const.__code__, {}, "tree")], trainers=True)


def test_the_hash_is_that_of_the_code_that_runs(tmp_path: Any) -> None:
    """A file that is edited after its import has the text of other code."""
    path, text = tmp_path / "edited_dag.py", "def fit(data, parameters, report):\n    return 1\n"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location("edited_dag", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    before = source_hash(module.fit)
    path.write_text(text.replace("1", "22"))
    after = source_hash(module.fit)
    assert (before[1], after[1]) == ("text", "bytecode")
    scope: dict[str, Any] = {}
    exec(text, scope)
    assert source_hash(scope["fit"]) == after, "the same code without any text"
    exec(text.replace("1", "3"), scope)
    assert source_hash(scope["fit"]) != after
