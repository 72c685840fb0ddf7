"""What people see: every study with its numbers and the one thing to do next; what a night has to hand in."""

from __future__ import annotations

from dataclasses import fields
from datetime import datetime
from typing import Any

import pytest

from easeml_core.errors import NotFoundError
from easeml_core.formats.encoding import to_json
from easeml_core.services.datasets.feed import feed, file_refresh
from easeml_core.services.models.submission import best_models
from easeml_core.services.registration.register import pause_study
from easeml_core.services.reports.overview import Overview, StudyEntry, live_sets, overview, study_details, study_state
from easeml_core.services.selection.scheduler import suggest_trials
from easeml_core.services.test_sets.lifecycle import retire_test_set
from easeml_core.services.trials.execution import cancel_trial, claim, record_failure
from easeml_core.store.queries.overview import StudyFacts


def entry(lab: Any, study: str = "full") -> StudyEntry:
    return next(e for e in overview(lab.worker).tenants if e.study == study)


def next_step(lab: Any, study: str = "full") -> str:
    return entry(lab, study).next


def test_an_empty_installation_has_an_empty_overview(bare: Any) -> None:
    assert overview(bare.worker) == Overview(policy=None, tenants=[])


def test_the_numbers_are_those_of_the_trials(lab: Any) -> None:
    seen = entry(lab)
    assert [e.study for e in overview(lab.worker).tenants] == ["first", "full", "hidden"]
    assert {k: getattr(seen, k) for k in ("tenant", "state", "source", "weight", "budget_seconds")} == {
        "tenant": "lab",
        "state": "ACTIVE",
        "source": "sklearn:breast_cancer",
        "weight": 1.0,
        "budget_seconds": None,
    }
    assert (seen.candidates, seen.trials, seen.device_seconds) == (6, 3, 3.0)
    assert (seen.best_candidate, seen.best_quality) == ("good", pytest.approx(0.98))
    assert seen.verdict is seen.signal is seen.production_model_id is seen.refusal is None
    assert seen.next.startswith("train: 3 candidates ")


def test_the_overview_is_plain_json(lab: Any) -> None:
    found = to_json(overview(lab.worker))
    assert list(found) == ["policy", "tenants"]
    assert set(found["tenants"][0]) == {field.name for field in fields(StudyFacts)} | {"next"}
    assert datetime.fromisoformat(found["tenants"][0]["created_at"]).tzinfo is not None
    details = to_json(study_details(lab.worker, study="full"))
    assert details["candidates"][0] == {"name": "nearest_centroid", "kind": "nearest_centroid"}
    assert details["goal"]["task"] == "classification"


def test_the_next_step_follows_a_studys_life(lab: Any, recorded: Any) -> None:
    asked = {"studies_only": ["full"], "request_key": lab.key()}
    first, second, third = suggest_trials(lab.worker, count=3, **asked).trials
    shown = [next_step(lab)]
    assert overview(lab.worker).policy == "default"
    lease = claim(lab.worker, trial_id=first.trial_id, request_key="w")
    assert (entry(lab).running, entry(lab).waiting) == (1, 2)
    record_failure(lab.worker, lease, "it crashed")
    for trial in (second, third):
        cancel_trial(lab.worker, trial_id=trial.trial_id)
    seen = entry(lab)
    assert (seen.failed, seen.cancelled, seen.running, seen.waiting) == (1, 2, 0, 0)
    shown.append(seen.next)
    passed = lab.gate("good").request_id
    shown.append(next_step(lab))
    lab.promote(passed)
    shown.append(next_step(lab))
    lab.gate("rare")
    assert entry(lab).verdict == "fail"
    shown.append(next_step(lab))  # one of three steps is left
    retire_test_set(lab.referee, test_set="1")
    shown.append(next_step(lab))
    assert (entry(lab).gate_set_live, entry(lab, "first").gate_set_live) == (False, True)
    recorded("\n".join(shown), "next_steps_of_a_study")


def test_new_data_leave_every_candidate_to_train_again(lab: Any) -> None:
    pair = {"inputs": [1.0] * 30, "label": "benign"}
    feed(lab.worker, lab.artifacts, study="full", pairs=[pair], fed_by="ann", request_key=lab.key())
    lab.answer(file_refresh(lab.worker, study="full", request_key=lab.key()).request_id)
    seen = entry(lab)
    assert (seen.candidates, seen.trials, seen.best_quality) == (6, 0, None)
    assert seen.next.startswith("train: 6 candidates ")
    assert seen.device_seconds == 3.0  # what was used stays used


def test_a_paused_study_says_so(lab: Any) -> None:
    pause_study(lab.worker, study="full", paused=True)
    assert next_step(lab).startswith("resume it")
    assert study_state(lab.worker, study="full") == "PAUSED"


def test_a_used_up_budget_says_so(lab: Any) -> None:
    lab.as_superuser("UPDATE work.studies SET budget_seconds = 3 WHERE name = 'full'")
    assert next_step(lab).startswith("nothing: its compute budget")
    assert next_step(lab, "first").startswith("train: 3 candidates")


def test_verdict_signal_and_production_are_shown(lab: Any) -> None:
    lab.promote(lab.gate("good").request_id)
    lab.meter("rare")
    seen = entry(lab)
    assert (seen.verdict, seen.signal, seen.signals) == ("pass", 1, 3)
    assert (seen.production_candidate, seen.production_model_id) == ("good", 2)


def test_a_withheld_verdict_stays_withheld(lab: Any) -> None:
    lab.gate("good", "hidden")
    assert entry(lab, "hidden").verdict == "withheld"


def test_details_of_a_study(lab: Any) -> None:
    details = study_details(lab.worker, study="full")
    assert [c.name for c in details.candidates][:3] == [
        "nearest_centroid",
        "gaussian_naive_bayes",
        "decision_tree",
    ]
    assert [(t.candidate, t.state) for t in details.trials] == [
        ("good", "SUCCEEDED"),
        ("worse", "SUCCEEDED"),
        ("rare", "SUCCEEDED"),
    ]
    assert [(s.purpose, s.state, s.rows) for s in details.sealed_sets] == [
        ("meter", "live", 56),
        ("gate", "live", 254),
    ]
    assert details.summary == entry(lab)
    assert details.alerts == []
    assert live_sets(lab.worker, study="full") == ["gate", "meter"]


@pytest.mark.parametrize("look", [study_details, study_state, live_sets])
def test_an_unknown_study_is_reported_with_those_there_are(look: Any, lab: Any) -> None:
    with pytest.raises(NotFoundError, match="`easeml study") as refused:
        look(lab.worker, study="fool")
    assert (refused.value.name, refused.value.known) == ("fool", ["first", "full", "hidden"])


def test_a_night_hands_in_what_is_best_and_does_not_stand_yet(lab: Any) -> None:
    everything = best_models(lab.worker)
    assert [(m.study, m.model_id) for m in everything] == [("first", 6), ("full", 2), ("hidden", 10)]
    assert everything[0].quality == pytest.approx(0.98)
    lab.promote(lab.gate("good").request_id)
    assert [m.study for m in best_models(lab.worker)] == ["first", "hidden"]
    assert best_models(lab.worker, studies_only=["full"]) == []
    assert [m.study for m in best_models(lab.worker, studies_only=["hidden"])] == ["hidden"]
    pause_study(lab.worker, study="hidden", paused=True)
    assert [m.study for m in best_models(lab.worker)] == ["first"]
    with pytest.raises(NotFoundError, match="study 'fool'"):
        best_models(lab.worker, studies_only=["fool"])


def test_a_night_leaves_out_what_the_gate_would_answer_from_its_ledger_with_a_fail(lab: Any) -> None:
    """A rejected model comes again where its question is a new one: another model stands, or another set judges."""

    def handed_in(study: str = "full") -> list[int]:
        return [m.model_id for m in best_models(lab.worker, studies_only=[study])]

    file = lab.artifacts.path(lab.one("SELECT artifact FROM work.models WHERE id = :id", id=lab.models["full"]["rare"]))
    lucky = lab.hand_in("full", "lucky", file, kind="constant", loss=0.0)
    assert handed_in() == [lucky]
    assert lab.gate("rare").symbol == "fail"  # the same file: the same question
    assert handed_in() == []
    assert [m.study for m in best_models(lab.worker)] == ["first", "hidden"]

    passed = lab.gate("good").request_id
    assert handed_in() == []
    lab.promote(passed)
    assert handed_in() == [lucky]  # against another incumbent
    assert lab.gate(lucky).symbol == "fail"
    assert lab.one("SELECT state FROM work.test_sets WHERE id = 1") == "retired"  # by its third and last answer
    assert handed_in() == [lucky]  # no set judges now

    # A pass and a withheld verdict are grounds for a promotion that may not have been asked for yet.
    lab.gate("good", study="first")
    assert lab.gate("good", study="hidden").symbol == "withheld"
    assert handed_in("first") == [lab.models["first"]["good"]]
    assert handed_in("hidden") == [lab.models["hidden"]["good"]]


def test_the_same_file_under_another_id_is_not_handed_in_again(lab: Any) -> None:
    lab.promote(lab.gate("good").request_id)
    file = lab.artifacts.path(lab.one("SELECT artifact FROM work.models WHERE id = 2"))
    lab.hand_in("full", "twin", file, kind="skops", loss=0.0)
    assert best_models(lab.worker, studies_only=["full"]) == []
