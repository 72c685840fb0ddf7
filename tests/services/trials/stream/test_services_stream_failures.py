"""The stream drive when things fail: trials, devices, folders, and the database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from easeml_core.errors import (
    ArtifactError,
    StoreUnavailableError,
)
from easeml_core.services.selection.scheduler import LiveScheduler, suggest_trials
from easeml_core.services.trials import worker
from easeml_core.services.trials.attempts import hand_back
from easeml_core.services.trials.worker import DeviceSummary, run_device
from easeml_core.store.artifacts.local import ArtifactStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


NEVER_POLL = 3600.0
"""Seconds: who is woken in a test with this poll was woken by a notification."""


def trees(*depths: int) -> list[dict[str, Any]]:
    return [{"name": f"tree-{d}", "kind": "decision_tree", "parameters": {"max_depth": d}} for d in depths]


def work(lab: Any, *studies: str, **changes: Any) -> DeviceSummary:
    given = {"device": "cpu", "request_key": "night/run/device/0", "poll_seconds": NEVER_POLL}
    given["studies_only"] = studies or ("busy",)
    return run_device(lab.worker, lab.artifacts, **given | changes)


def states(lab: Any, study: str = "busy") -> list[tuple[str, str, int]]:
    """Candidate, state and attempts of a study's trials, by candidate."""
    return list(
        lab.rows(
            "SELECT c.name, t.state, t.attempt FROM work.trials t JOIN work.candidates c ON c.id = t.candidate_id "
            "JOIN work.studies s ON s.id = t.study_id WHERE s.name = :study ORDER BY c.name",
            study=study,
        )
    )


def test_a_device_on_which_everything_fails_ends(lab: Any, trainers: Any) -> None:
    lab.register("busy", candidates=trees(*range(1, 6)))
    lab.register("other", candidates=trees(*range(6, 11)))
    trainers.failing = set(range(1, 11))
    summary = work(lab, "busy", "other", policy="roundrobin")
    assert summary.reason == "device fails"
    assert len(summary.trials) == 5
    assert {t.failure for t in summary.trials} == {"it crashed"}
    assert "5 failed" in summary.message


def test_a_study_of_which_everything_fails_ends_nobodys_stream(lab: Any, trainers: Any) -> None:
    lab.register("busy", candidates=trees(*range(1, 9)))
    trainers.failing = set(range(1, 9))
    summary = work(lab)
    assert (summary.reason, len(summary.trials)) == ("nothing left", 8)


def test_a_success_in_between_speaks_for_the_device(lab: Any, trainers: Any) -> None:
    lab.register("busy", candidates=trees(1, 2, 3, 4))
    lab.register("other", candidates=trees(6, 7, 8, 9))
    trainers.failing = {1, 2, 4, 6, 7, 9}
    summary = work(lab, "busy", "other", policy="order")  # in turn, as the candidates come: F F F F S S F F
    assert summary.reason == "nothing left"
    outcomes = ["F" if t.state == "FAILED" else "S" for t in summary.trials]
    assert sorted(outcomes) == ["F"] * 6 + ["S"] * 2
    assert "FFFFF" not in "".join(outcomes)


def test_a_wrong_artifact_folder_ends_the_stream_before_it_costs_everybodys_candidates(
    lab: Any, tmp_path: Path
) -> None:
    lab.register("busy", candidates=trees(1, 2, 3, 4, 5))
    lines: list[str] = []
    with pytest.raises(ArtifactError, match="is missing under"):
        run_device(
            lab.worker,
            ArtifactStore(tmp_path / "elsewhere"),
            device=None,
            request_key="k",
            studies_only=["busy"],
            log=lines.append,
        )
    assert [state for _, state, _ in states(lab)] == ["RUNNING"] * 3  # until their leases are over: to be given again
    assert sum("is left to its lease" in line for line in lines) == 2


@pytest.fixture
def flaky(monkeypatch: Any) -> Callable[[int], list[int]]:
    """Let the database be away for the first so many asks, after each has been committed; how often it was asked."""

    def make(times: int) -> list[int]:
        asks: list[int] = []

        original = LiveScheduler.ask

        def ask(*given: Any, **named: Any) -> Any:
            answer = original(*given, **named)
            asks.append(len(answer.trials))
            if len(asks) <= times:
                message = "it went away"
                raise StoreUnavailableError(message)
            return answer

        monkeypatch.setattr(LiveScheduler, "ask", ask)
        return asks

    return make


def test_an_outage_is_waited_for_and_the_same_step_repeated(
    lab: Any, trainers: Any, flaky: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(worker, "_PAUSES", (0.01, 0.01))
    lab.register("busy", candidates=trees(1, 2))
    asks, lines = flaky(2), list[str]()
    summary = work(lab, log=lines.append)
    assert [t.state for t in summary.trials] == ["SUCCEEDED", "SUCCEEDED"]
    assert asks == [1, 1, 1, 1, 0]
    assert sum("trying again" in line for line in lines) == 2
    assert {attempt for _, _, attempt in states(lab)} == {1}


def test_an_outage_that_does_not_end_is_passed_on_to_whoever_starts_devices(
    lab: Any, trainers: Any, flaky: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(worker, "_PAUSES", (0.01, 0.01))
    lab.register("busy", candidates=trees(1))
    asks = flaky(99)
    with pytest.raises(StoreUnavailableError, match="it went away"):
        work(lab)
    assert asks == [1, 1, 1]


def test_an_empty_answer_of_before_an_outage_is_no_reason_to_end(
    lab: Any, trainers: Any, flaky: Any, monkeypatch: Any
) -> None:
    """While the database was away the world has changed; only a fresh answer counts."""
    monkeypatch.setattr(worker, "_PAUSES", (0.01,))
    lab.register("busy", candidates=trees(1))
    cancelled, _ = suggest_trials(lab.worker, count=1, studies_only=["busy"], request_key="k"), flaky(1)
    held = cancelled.trials[0].trial_id

    def back(line: str) -> None:
        if "trying again" in line:
            hand_back(lab.worker, trial_id=held, request_key="k")

    assert [t.trial_id for t in work(lab, log=back).trials] == [held]
