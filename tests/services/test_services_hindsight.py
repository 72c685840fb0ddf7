"""A decision worked out again says what was stored of it, or nothing."""

from __future__ import annotations

from typing import Any

import pytest

from easeml_core.entities import TrialState
from easeml_core.errors import NotFoundError
from easeml_core.services.beliefs import Watch
from easeml_core.services.hindsight import Competitor, hindsight
from easeml_core.services.policy import set_policy
from easeml_core.services.suggestion import suggest_trials


def suggest(house: Any, count: int = 1, **asked: Any) -> list[Any]:
    return list(suggest_trials(house.store, count=count, request_key=next(house.keys), **asked)["trials"])


def test_it_is_what_was_believed_then_whatever_has_ended_since(house: Any) -> None:
    told: dict[int, Any] = {}
    watch = Watch(house.store)
    for round_ in range(4):
        then = [watch.of(f"h-{n}") for n in range(1, 6)]
        chosen = suggest(house, 2)
        told[chosen[0]["trial_id"]] = [t for t in then if t is not None]
        house.end(chosen[1], TrialState.FAILED if round_ == 1 else TrialState.SUCCEEDED)
        if round_ % 2:
            house.end(chosen[0])
    for trial in suggest(house, 3):
        house.end(trial)
    for trial_id, then in told.items():
        found = hindsight(house.store, trial_id=trial_id)
        assert found is not None
        assert found.competing == then[0].competing
        worth = sorted((e.acquisition for t in then for e in t.candidates if e.acquisition is not None), reverse=True)
        assert [c.worth for c in found.ranking] == worth[: len(found.ranking)]


def test_hybrid_is_what_hybrid_would_have_been_asked_for(house: Any) -> None:
    first = suggest(house)[0]
    house.end(first)
    second = suggest(house)[0]
    found = hindsight(house.store, trial_id=second["trial_id"])
    house.sql("DELETE FROM work.suggestions WHERE trial_id = :id", id=second["trial_id"])
    house.sql("DELETE FROM work.trials WHERE id = :id", id=second["trial_id"])
    instead = suggest(house, policy="hybrid")[0]
    assert isinstance(found.hybrid, Competitor)
    assert (found.hybrid.study, found.hybrid.candidate) == (instead["study"], instead["candidate"])


def test_where_it_does_not_agree_there_is_none(house: Any) -> None:
    chosen = suggest(house)[0]
    house.sql(
        "UPDATE work.suggestions SET reasons = jsonb_set(reasons, '{acquisition}', '0.5') WHERE trial_id = :id",
        id=chosen["trial_id"],
    )
    assert hindsight(house.store, trial_id=chosen["trial_id"]) is None
    weighed = suggest(house)[0]
    house.sql("UPDATE work.studies SET weight = 7 WHERE name = :name", name=weighed["study"])
    assert hindsight(house.store, trial_id=weighed["trial_id"]) is None


def test_it_knows_the_past_and_how_far_the_cost_may_be_off(house: Any) -> None:
    first = suggest(house)[0]
    house.end(first)
    second = suggest(house)[0]
    found = hindsight(house.store, trial_id=second["trial_id"])
    assert found.past == 0
    assert 1 < found.cost_factor < 1000
    house.sql("UPDATE work.studies SET state = 'PAUSED' WHERE name = :name", name=first["study"])
    assert hindsight(house.store, trial_id=suggest(house)[0]["trial_id"]).past == 1


def test_other_policies_are_not_worked_out_again(house: Any) -> None:
    set_policy(house.owner, changes={"policy": "roundrobin"}, reason="to see")
    chosen = suggest(house)[0]
    assert hindsight(house.store, trial_id=chosen["trial_id"]) is None
    with pytest.raises(NotFoundError):
        hindsight(house.store, trial_id=99_999)
