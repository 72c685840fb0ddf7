"""Suggesting trials: repeatable, never twice on the same data, left-over work first, under concurrent callers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest

from easeml_core.errors import ConfigError, NotFoundError
from easeml_core.services.registration.register import pause_study
from easeml_core.services.selection.scheduler import suggest_trials
from easeml_core.services.trials.execution import cancel_trial, claim, expire_leases, record_failure, trial_state
from easeml_core.store.tables import studies

# The laboratory's three studies have three candidates each that have not run.
OPEN = {(study, kind) for study in ("full", "first", "hidden") for kind in ("nearest_centroid", "gaussian_naive_bayes")}
OPEN |= {(study, "decision_tree") for study in ("full", "first", "hidden")}


def suggest(lab: Any, count: int = 20, **changes: Any) -> Any:
    return suggest_trials(lab.worker, **{"count": count, "request_key": lab.key()} | changes)


def pairs(suggested: Any) -> list[tuple[str, str]]:
    return [(t.study, t.candidate) for t in suggested.trials]


def test_every_candidate_is_suggested_once_with_its_reason(lab: Any) -> None:
    suggested = suggest(lab)
    assert sorted(pairs(suggested)) == sorted(OPEN)
    assert suggested.policy == "default"
    assert suggested.message == "9 trials"
    stored = "SELECT reasons ->> 'sentence' FROM work.suggestions ORDER BY position"
    assert [sentence for (sentence,) in lab.rows(stored)] == [trial.reason for trial in suggested.trials]
    for trial in suggested.trials:
        assert trial.reason.startswith(f"{trial.study}: expected +")
        assert trial_state(lab.worker, trial_id=trial.trial_id).state == "SUGGESTED"


def test_a_retry_gets_the_same_trials_even_after_they_ran(lab: Any) -> None:
    first = suggest(lab, 2, request_key="night/1")
    assert suggest(lab, 2, request_key="night/1") == first
    lease = claim(lab.worker, trial_id=first.trials[0].trial_id, request_key="w")
    record_failure(lab.worker, lease, "it crashed")
    again = suggest(lab, 7, policy="random", request_key="night/1")
    assert again == first
    assert lab.one("SELECT count(*) FROM work.trials WHERE state = 'SUGGESTED'") == 1


def test_nothing_is_suggested_twice_and_the_end_is_said(lab: Any) -> None:
    seen = [pair for _ in range(4) for pair in pairs(suggest(lab, 3))]
    assert len(seen) == len(set(seen)) == len(OPEN)
    last = suggest(lab, 3)
    assert last.trials == ()
    assert last.message.startswith("nothing to train: every candidate of the active studies has run")


def test_new_data_bring_every_candidate_back(lab: Any) -> None:
    suggest(lab)
    with lab.referee.begin() as tx:
        study = studies.get_study(tx, "full")
        old = studies.latest_data_version(tx, study.id)
        new = {"content_hash": "new", "artifact": old.artifact, "features": old.features, "class_names": ["a", "b"]}
        studies.add_data_version(tx, study_id=study.id, parts={"train": 1, "validation": 1}, **new)
    fresh = suggest(lab)
    assert {study for study, _ in pairs(fresh)} == {"full"}
    assert len(fresh.trials) == 6


def test_eight_callers_at_once_share_the_trials_out(lab: Any) -> None:
    together = Barrier(8)

    def ask(number: int) -> Any:
        together.wait()
        return suggest(lab, 2, request_key=f"caller/{number}")

    with ThreadPoolExecutor(8) as pool:
        found = [pair for answer in pool.map(ask, range(8)) for pair in pairs(answer)]
    assert sorted(found) == sorted(OPEN)
    assert lab.one("SELECT count(*) FROM work.suggestions") == len(OPEN)


def test_eight_retries_at_once_get_one_answer(lab: Any) -> None:
    together = Barrier(8)

    def ask(_: int) -> Any:
        together.wait()
        return suggest(lab, 2, request_key="one")

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(8)))
    assert answers == [answers[0]] * 8
    assert lab.one("SELECT count(*) FROM work.suggestions") == 2


def test_what_nobody_started_is_handed_out_again_first(lab: Any) -> None:
    old = [t.trial_id for t in suggest(lab, 2).trials]
    assert not set(old) & {t.trial_id for t in suggest(lab, 2).trials}  # still reserved
    lab.let_run_out(*old)
    again = suggest(lab, 3).trials
    assert [t.trial_id for t in again[:2]] == sorted(old)
    assert all("given again, an earlier run left it behind" in t.reason for t in again[:2])
    assert again[2].trial_id not in old
    assert suggest(lab, 20).message == "4 trials"  # and those are reserved anew: 9 - 2 - 2 - 1


def test_a_trial_that_lost_all_its_workers_has_failed(lab: Any) -> None:
    (trial,) = suggest(lab, 1).trials
    for number in range(3):
        claim(lab.worker, trial_id=trial.trial_id, request_key=f"w{number}")
        lab.let_run_out(trial.trial_id)
        assert expire_leases(lab.worker) == [trial.trial_id]
    ended = trial_state(lab.worker, trial_id=trial.trial_id)
    assert (ended.state, ended.failure) == ("FAILED", "its worker was lost 3 times")
    assert len(suggest(lab).trials) == len(OPEN) - 1


def test_failed_and_cancelled_trials_are_not_repeated(lab: Any) -> None:
    failed, cancelled = (t.trial_id for t in suggest(lab, 2).trials)
    record_failure(lab.worker, claim(lab.worker, trial_id=failed, request_key="w"), "out of memory")
    cancel_trial(lab.worker, trial_id=cancelled)
    assert len(suggest(lab).trials) == len(OPEN) - 2


def test_a_used_up_budget_ends_a_study_and_nobody_else(lab: Any) -> None:
    lab.as_superuser("UPDATE work.studies SET budget_seconds = 3.0 WHERE name = 'full'")  # what its trials have cost
    assert {study for study, _ in pairs(suggest(lab))} == {"first", "hidden"}


def test_a_trial_that_would_exceed_the_budget_is_not_suggested(lab: Any) -> None:
    # Every trial so far cost 1 s, and so will the next ones. After 3 s, one reserves all that is left of 5.5 s.
    lab.as_superuser("UPDATE work.studies SET budget_seconds = 5.5 WHERE name = 'full'")
    assert len([study for study, _ in pairs(suggest(lab)) if study == "full"]) == 1


def test_paused_studies_get_nothing_until_they_are_resumed(lab: Any) -> None:
    pause_study(lab.worker, study="full", paused=True)
    assert {study for study, _ in pairs(suggest(lab))} == {"first", "hidden"}
    pause_study(lab.worker, study="full", paused=False)
    assert {study for study, _ in pairs(suggest(lab))} == {"full"}


def test_a_choice_of_studies_is_respected(lab: Any) -> None:
    assert {study for study, _ in pairs(suggest(lab, studies_only=["hidden", "first"]))} == {"first", "hidden"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"count": 0}, r"count must be a whole number from 1 to 1000, got 0"),
        ({"count": 1001}, r"count must be a whole number from 1 to 1000, got 1001"),
        ({"count": "4"}, r"count must be a whole number from 1 to 1000, got '4'"),
        ({"count": True}, r"count must be a whole number from 1 to 1000, got True"),
        ({"policy": "best"}, r"policy must be one of default, mm-gp-ei, .*, got 'best'"),
        ({"request_key": ""}, r"request_key must be not empty: it makes the call repeatable"),
        ({"device": "GPU 1"}, r"device must be"),
    ],
)
def test_bad_input_is_refused(changes: Any, words: str, lab: Any) -> None:
    with pytest.raises(ConfigError, match=words):
        suggest(lab, **changes)
    assert lab.one("SELECT count(*) FROM work.suggestion_batches") == 0


def test_an_unknown_study_is_reported_and_uses_up_no_key(lab: Any) -> None:
    with pytest.raises(NotFoundError, match="there is no study 'fool'; known: 'first', 'full', 'hidden'"):
        suggest(lab, studies_only=["fool"], request_key="night/1")
    assert suggest(lab, 1, request_key="night/1").message == "1 trial"


def test_without_any_study_there_is_nothing_to_do(bare: Any) -> None:
    assert suggest(bare).trials == ()


def test_a_first_study_without_results_gets_trials(bare: Any) -> None:
    bare.register("cancer")
    suggested = suggest(bare, 3)
    assert len(suggested.trials) == 3
    assert "no result yet" in suggested.trials[0].reason
