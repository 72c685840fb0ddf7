"""What a suggestion says, budgets, and that learnt costs do not care for units."""

from __future__ import annotations

import dataclasses

import pytest
from attrs import evolve

from easeml_core.errors import InvalidInputError
from easeml_core.formats.encoding import to_json
from easeml_core.selection.problem import Arms, Past, Pending, Problem, Pull
from easeml_core.selection.suggestion import scheduler_for, suggest, suggest_next
from easeml_core.settings.config import SelectionConfig

CONFIG = SelectionConfig()
DIGITS = Arms(1, 1.0, ("knn", "forest"), study="digits")


PAST = tuple(Past(9 + i, ("knn", "forest"), (0.8, 0.9), (2.0, 2.5)) for i in range(10))


def test_the_sentence_gives_promise_price_and_rival():
    iris = Arms(2, 1.0, ("knn", "forest"), study="iris")
    pulls = (Pull(1, 0, 0.7, 2.0), Pull(2, 0, 0.95, 0.05))
    config = evolve(CONFIG, guard=0.0)
    first, second = suggest(Problem((DIGITS, iris), pulls, history=PAST), count=2, config=config)
    assert first.sentence == (
        f"digits: expected +{first.expected_improvement:.4f} quality for about {first.predicted_cost_seconds:.1f} s of "
        f"forest; next best was iris/forest (+{second.expected_improvement:.4f} "
        f"for {second.predicted_cost_seconds:.2g} s)"
    )
    assert second.sentence == (
        f"iris: expected +{second.expected_improvement:.4f} quality for about {second.predicted_cost_seconds:.2g} s of "
        "forest; nothing else was left"
    )
    assert second.predicted_cost_seconds < 0.1 < 1 < first.predicted_cost_seconds


def test_the_sentence_of_a_first_run():
    [suggestion] = suggest(Problem((DIGITS,)), count=1, config=SelectionConfig(policy="mm-gp-ei"))
    assert suggestion.sentence == (
        "digits: no result yet, expected quality 0.7500 at an unknown cost of knn; "
        "next best was digits/forest (+0.7500)"
    )


def test_the_sentence_says_who_was_owed_a_trial():
    """Candidate c promises nothing for a study of almost no weight; after 100 seconds of others it is owed one."""
    studies = (Arms(1, 1.0, ("a", "b"), study="rich"), Arms(2, 0.01, ("c",), study="poor"))
    history = tuple(Past(i, ("a", "b", "c"), (0.6, 0.7, 0.002), (100.0, 10.0, 0.05)) for i in range(9, 20))
    problem = Problem(studies, (Pull(1, 0, 0.6, 100.0),), history=history)
    [guarded] = suggest(problem, count=1, config=CONFIG)
    assert (guarded.study_id, guarded.guarded, guarded.guard) == (2, True, 0.1)
    assert "of c; it was served least and is owed a trial; next best was rich/b" in guarded.sentence
    [plain] = suggest(problem, count=1, config=evolve(CONFIG, guard=0.0))
    assert (plain.study_id, plain.guarded) == (1, False)


def test_the_sentence_says_what_a_cheap_trial_is_for():
    studies = (Arms(1, 1.0, ("dear", "cheap"), study="one"), Arms(2, 1.0, ("dear", "cheap"), study="two"))
    problem = Problem(studies, (Pull(1, 0, 0.6, 100.0), Pull(2, 1, 0.1, 1.0)), (Pending(2, 0),))
    [lesson] = suggest(problem, count=1, config=evolve(CONFIG, guard=0.0))
    assert (lesson.study_id, lesson.arm, lesson.learning) == (1, 1, True)
    assert "; it is the cheapest trial there is, and teaches what the others may bring; " in lesson.sentence


def test_json_is_plain_and_complete(make_problem, policy):
    for suggestion in suggest(make_problem(runs=1, past=2), count=3, config=SelectionConfig(policy=policy)):
        stored = to_json(suggestion)
        assert set(stored) == {f.name for f in dataclasses.fields(suggestion)}
        assert stored["runner_up"] is None or stored["runner_up"].keys() == {"study_id", "arm", "acquisition"}


@pytest.mark.parametrize("count", [0, -3])
def test_count_must_be_positive(count):
    with pytest.raises(InvalidInputError, match=f"count must be >= 1, got {count}; ask for as many trials as"):
        suggest(Problem((DIGITS,)), count=count, config=CONFIG)


def test_a_used_up_budget_ends_a_study(policy):
    poor = dataclasses.replace(DIGITS, budget_seconds=10.0)
    rich = Arms(2, 1.0, ("knn", "forest"))
    pulls = (Pull(1, 0, 0.2, 10.0), Pull(2, 0, 0.9, 1.0))
    suggestions = suggest(Problem((poor, rich), pulls), count=3, config=SelectionConfig(policy=policy))
    assert [(s.study_id, s.arm) for s in suggestions] == [(2, 1)]


def test_what_a_study_cannot_afford_is_not_suggested(policy):
    """5 of 20 seconds are spent; the past says that the forest takes far more than 15."""
    history = tuple(Past(i, ("knn", "forest", "bayes"), (0.5, 0.6, 0.5), (5.0, 100.0, 4.0)) for i in (8, 9))
    arms = Arms(1, 1.0, ("knn", "forest", "bayes"), budget_seconds=20.0)
    problem = Problem((arms,), (Pull(1, 0, 0.6, 5.0),), history=history)
    suggestions = suggest(problem, count=3, config=SelectionConfig(policy=policy))
    assert [s.arm for s in suggestions] == [2]


def test_runs_under_way_are_charged_with_their_predicted_cost():
    history = tuple(Past(i, ("a", "b", "c"), (0.5,) * 3, (6.0,) * 3) for i in (8, 9))
    arms = Arms(1, 1.0, ("a", "b", "c"), budget_seconds=13.0)
    assert len(suggest(Problem((arms,), history=history), count=3, config=CONFIG)) == 2
    problem = Problem((arms,), pending=(Pending(1, 0), Pending(1, 1)), history=history)
    assert suggest(problem, count=1, config=CONFIG) == ()


def test_a_budget_without_any_measurement_does_not_block_the_first_run():
    tiny = dataclasses.replace(DIGITS, budget_seconds=0.5)
    assert len(suggest(Problem((tiny,)), count=1, config=CONFIG)) == 1
    none = dataclasses.replace(DIGITS, budget_seconds=0.0)
    assert suggest(Problem((none,)), count=1, config=CONFIG) == ()


def test_the_unit_of_cost_changes_no_decision(make_problem, policy):
    factor, problem = 60.0, make_problem(studies=4, candidates=5, runs=2, past=3)
    scaled = Problem(
        problem.studies,
        tuple(dataclasses.replace(p, cost_seconds=factor * p.cost_seconds) for p in problem.pulls),
        problem.pending,
        tuple(dataclasses.replace(h, costs=tuple(factor * c for c in h.costs)) for h in problem.history),
    )
    config = SelectionConfig(policy=policy)
    one, two = (suggest(p, count=8, config=config) for p in (problem, scaled))
    assert [(s.study_id, s.arm) for s in one] == [(s.study_id, s.arm) for s in two]
    assert two[0].predicted_cost_seconds == pytest.approx(factor * one[0].predicted_cost_seconds)


def test_cheap_candidates_come_first_when_they_promise_the_same():
    history = tuple(Past(i, ("slow", "fast"), (0.6, 0.6), (50.0, 1.0)) for i in range(8, 12))
    for policy in ("default", "hybrid"):
        problem = Problem((Arms(1, 1.0, ("slow", "fast")),), history=history)
        assert suggest(problem, count=1, config=SelectionConfig(policy=policy))[0].arm == 1


def test_a_scheduler_that_is_there_already_answers_alike(make_problem, policy):
    """And has the suggested trials under way afterwards."""
    problem, config = make_problem(studies=3, candidates=4, runs=1), SelectionConfig(policy=policy, seed=4)
    scheduler = scheduler_for(problem, config=config)
    first = suggest_next(scheduler, problem.studies, count=3, config=config, round_seed=7)
    second = suggest_next(scheduler, problem.studies, count=4, config=config, round_seed=7)
    assert first + second == suggest(problem, count=7, config=config, round_seed=7)


def test_a_failed_trial_teaches_its_cost_and_nothing_else():
    problem = Problem((DIGITS,), (Pull(1, 1, None, 400.0),))
    before = suggest(Problem((DIGITS,)), count=1, config=CONFIG)[0].mean
    [suggestion] = suggest(problem, count=1, config=CONFIG)
    assert suggestion.mean == before
    assert suggestion.predicted_cost_seconds == pytest.approx(400.0)
    assert f"no result yet, expected quality {before:.4f} for about 400.0 s of knn" in suggestion.sentence


def test_the_reasons_are_those_of_the_device_that_asked():
    """The same candidate takes a hundredth of the time on the other kind of device, and the reservation follows."""
    names = ("a", "b", "c", "d", "e", "f")
    studies = tuple(Arms(i, 1.0, names, devices=(frozenset({"cpu", "gpu"}),) * 6) for i in (1, 2))
    took = {"cpu": 100.0, "gpu": 1.0}
    kinds = [("cpu", "gpu")[(i + k) % 2] for i in (1, 2) for k in range(4)]  # each candidate on both
    pulls = tuple(
        Pull(1 + n // 4, n % 4, 0.5 + 0.01 * n, took[kind], order=n, device=kind) for n, kind in enumerate(kinds)
    )
    predicted = {}
    for kind in took:
        [found] = suggest(Problem(studies, pulls), count=1, config=SelectionConfig(), device=kind)
        predicted[kind] = found.predicted_cost_seconds
    assert predicted["cpu"] > 10 * predicted["gpu"]
