"""News for people: each told once by a watcher that remembers, whatever comes late, holds or ends; symbols only."""

from __future__ import annotations

import doctest
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from easeml_core.errors import ConfigError
from easeml_core.services.operations import notifications as room
from easeml_core.services.operations.notifications import (
    EventKind,
    Look,
    News,
    NewsCursor,
    after_all,
    after_telling,
    look,
)
from easeml_core.services.referee.process import Referee
from easeml_core.services.referee.requests import file_forced_promotion, file_rollback
from easeml_core.services.registration.register import study_names
from easeml_core.services.studies.limits import set_study
from easeml_core.services.test_sets.lifecycle import retire_test_set
from easeml_core.store.queries.audit import lately


class Watcher:
    """One that keeps its cursor as text, as ``NotifyOperator`` does."""

    def __init__(self, lab: Any) -> None:
        self.lab, self.kept = lab, "null"

    def news(self, **asked: Any) -> list[News]:
        seen = look(self.lab.worker, json.loads(self.kept), **asked)
        cursor = seen.start
        for event in seen.events:
            cursor = after_telling(cursor, event)
        self.kept = json.dumps(after_all(cursor, seen).to_stored())
        return seen.events

    def kinds(self, **asked: Any) -> list[tuple[str, str]]:
        return [(event.kind, event.study) for event in self.news(**asked)]


@pytest.fixture
def watcher(lab: Any) -> Watcher:
    """A watcher that has looked once."""
    found = Watcher(lab)
    assert found.news() == []
    return found


def test_what_has_happened_before_the_first_look_is_no_news(lab: Any) -> None:
    lab.promote(lab.gate("good").request_id)
    watcher = Watcher(lab)
    assert watcher.news() == watcher.news() == []


def test_each_thing_is_reported_once_and_in_words(lab: Any, watcher: Watcher) -> None:
    lab.promote(lab.gate("good").request_id)
    lab.gate("rare")
    lab.gate("rare")  # the same answer again is no news
    forced = {"study": "full", "model_id": lab.models["full"]["rare"], "who": "ann", "why": "it is broken"}
    file_forced_promotion(lab.worker, request_key=lab.key(), **forced)
    assert Referee(lab.referee, lab.artifacts, allow_forced=True).answer_one() is not None
    file_rollback(lab.worker, study="full", model_id=None, why="it was slow", request_key=lab.key())
    lab.answer_all()
    retire_test_set(lab.referee, test_set="1")
    answer = watcher.news()
    said = [(event.kind, event.message) for event in answer]
    good, rare = lab.models["full"]["good"], lab.models["full"]["rare"]
    assert said[:4] == [
        ("promotion", f"model {good} was promoted on its recorded verdict"),
        ("rejection", f"model {rare} did not pass step 2 of test set 1; production stays"),
        ("promotion", f"model {rare} was promoted past the gate by ann: it is broken"),
        ("rollback", f"model {good} was brought back: it was slow"),
    ]
    assert [kind for kind, _ in said[4:]] == ["new-test-set"]
    assert "the referee has retired it" in said[4][1]
    assert {(event.study, event.tenant) for event in answer} == {("full", "lab")}
    assert len({event.key for event in answer}) == len(answer)
    assert watcher.news() == []


def test_a_withheld_verdict_and_advice_are_no_news(lab: Any, watcher: Watcher) -> None:
    lab.allow_other_conditions()
    assert lab.gate("rare", study="hidden").symbol == "withheld"
    assert lab.gate("rare", condition="n - o > 0.9 +/- 0.2").planned is False
    assert watcher.kinds() == []


def test_an_alert_of_one_of_several_teams_is_asked_to_nobody(lab: Any, watcher: Watcher) -> None:
    lab.as_superuser(
        "ALTER TABLE work.alerts DROP CONSTRAINT alerts_team_check; "
        "INSERT INTO work.alerts (study_id, kind, message, test_set_id, team) "
        "SELECT study_id, 'new-test-set', 'of a team', id, 2 FROM work.test_sets WHERE id = 1"
    )
    assert watcher.news() == []
    lab.as_superuser("UPDATE work.alerts SET team = NULL")
    assert [event.message for event in watcher.news()] == ["of a team"]


def test_a_row_that_becomes_visible_late_is_reported(lab: Any, watcher: Watcher) -> None:
    """Dated before the last look and committed after it: a cursor by number or time alone would lose it."""
    lab.promote(lab.gate("good").request_id)
    assert watcher.kinds() == [("promotion", "full")]
    lab.gate("rare")
    before = json.loads(watcher.kept)  # as one that has looked for longer than OVERLAP
    watcher.kept = json.dumps(before | {"since": (datetime.fromisoformat(before["since"]) - room.OVERLAP).isoformat()})
    lab.as_superuser(
        "ALTER TABLE work.gate_verdicts DISABLE TRIGGER ALL; "
        "UPDATE work.gate_verdicts SET decided_at = decided_at - interval '5 min'"
    )
    assert watcher.kinds() == [("rejection", "full")]
    assert watcher.kinds() == []


def test_a_spent_budget_and_an_ended_search_are_reported_each_time_they_come(lab: Any, watcher: Watcher) -> None:
    spent = lab.one(
        "SELECT sum(cost_seconds) FROM work.trials t JOIN work.studies s ON s.id = t.study_id WHERE s.name = 'full'"
    )
    set_study(lab.worker, study="full", budget_seconds=spent)
    answer = {event.kind: event for event in watcher.news()}
    assert set(answer) == {"budget-spent", "study-finished"}
    assert "device-second" in answer["budget-spent"].message
    assert "no trial begins any more" in answer["budget-spent"].message
    assert answer["study-finished"].message.startswith("best 0.98")
    assert watcher.news() == []
    set_study(lab.worker, study="full", budget_seconds=None)
    assert watcher.news() == []
    set_study(lab.worker, study="full", target_quality=0.5)
    assert watcher.kinds() == [("study-finished", "full")]


def test_a_flood_is_reported_in_parts_and_nothing_is_left_out(lab: Any, watcher: Watcher) -> None:
    lab.promote(lab.gate("good").request_id)
    lab.gate("rare")
    retire_test_set(lab.referee, test_set="1")
    set_study(lab.worker, study="first", target_quality=0.5)
    parts = [watcher.kinds(limit=1) for _ in range(6)]
    assert [len(part) for part in parts] == [1, 1, 1, 1, 0, 0]
    assert [part[0][0] for part in parts[:4]] == ["promotion", "rejection", "new-test-set", "study-finished"]


def test_what_fails_in_between_is_reported_again_and_the_rest_not(lab: Any, watcher: Watcher) -> None:
    lab.promote(lab.gate("good").request_id)
    lab.gate("rare")
    seen = look(lab.worker, json.loads(watcher.kept))
    first, second = seen.events
    watcher.kept = json.dumps(after_telling(seen.start, first).to_stored())  # the second could not be sent
    assert [event.key for event in watcher.news()] == [second.key]


@pytest.mark.parametrize(
    "cursor",
    [{}, {"since": "noon", "told": {}}, {"since": "2026-01-01T00:00:00", "told": {}}, {"since": None, "sent": []}],
)
def test_a_cursor_of_another_hand_is_refused(lab: Any, cursor: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="delete it to begin anew"):
        look(lab.worker, cursor)


NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@given(
    answer=st.dictionaries(st.text(max_size=3), st.none() | st.integers(-40, 0), max_size=6),
    holding=st.frozensets(st.text(max_size=3), max_size=4),
    until=st.integers(-30, 30),
)
def test_a_cursor_never_goes_back_and_forgets_only_what_no_look_finds(
    answer: dict[str, int | None], holding: frozenset[str], until: int
) -> None:
    moments = {name: None if at is None else (NOON + timedelta(minutes=at)).isoformat() for name, at in answer.items()}
    cursor = NewsCursor(NOON.isoformat(), moments)
    after = after_all(cursor, Look([], cursor, NOON + timedelta(minutes=until), holding))
    since = datetime.fromisoformat(after.since)
    assert since >= NOON
    assert since <= max(NOON, NOON + timedelta(minutes=until) - room.OVERLAP)
    for name, at in moments.items():
        found_again = name in holding if at is None else datetime.fromisoformat(at) >= since
        assert (name in after.sent) == found_again


def test_every_kind_of_row_is_a_kind_of_event(lab: Any) -> None:
    lab.promote(lab.gate("good").request_id)
    lab.gate("rare")
    retire_test_set(lab.referee, test_set="1")
    with lab.worker.begin() as tx:
        found = lately(tx, since=NOON - timedelta(days=999), known=[], limit=99)
    assert {row.kind for row in found} <= set(EventKind)
    assert len(found) == 3


def test_names_to_choose_from(lab: Any) -> None:
    assert study_names(lab.worker) == ["first", "full", "hidden"]
    assert study_names(lab.worker, limit=2) == ["first", "full"]


def test_the_example_holds() -> None:
    found = doctest.testmod(room)
    assert found.attempted > 0
    assert found.failed == 0
