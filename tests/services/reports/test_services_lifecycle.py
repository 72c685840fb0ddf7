"""One line of time per study: each kind of event in words, newest first, with released facts only."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from easeml_core.errors import ConfigError, NotFoundError
from easeml_core.services.datasets.feed import feed, file_refresh
from easeml_core.services.reports import timeline as room
from easeml_core.services.reports.timeline import LANES, lifecycle
from easeml_core.services.selection.scheduler import suggest_trials
from easeml_core.services.test_sets.lifecycle import retire_test_set
from easeml_core.services.trials.execution import claim, record_failure
from easeml_core.store.queries.timeline import EventKind, EventRow, Moved


def titles(lab: Any, study: str = "full") -> list[str]:
    return [f"{e.lane}: {e.title}" for e in lifecycle(lab.worker, study=study, limit=1000).events]


def test_a_studys_life_in_words(lab: Any) -> None:
    lab.promote(lab.gate("good").request_id)
    lab.meter("rare")
    retire_test_set(lab.referee, test_set="1")
    trial = suggest_trials(lab.worker, count=1, studies_only=["full"], request_key=lab.key()).trials[0]
    record_failure(lab.worker, claim(lab.worker, trial_id=trial.trial_id, request_key="w"), "out of memory\ntrace")
    pair = {"inputs": [1.0] * 30, "label": "benign"}
    feed(lab.worker, lab.artifacts, study="full", pairs=[pair], fed_by="ann", request_key=lab.key())
    lab.answer(file_refresh(lab.worker, study="full", request_key=lab.key()).request_id)
    found = titles(lab)
    for title in (
        "data: registered",
        "data: data version 1",
        "data: data version 2, refreshed",
        "data: 1 examples fed",
        "trials: good: 0.9800",
        f"trials: {trial.candidate} failed",
        "submissions: model 2: pass",
        "submissions: model 4: signal 1 of 3",
        "production: model 2 promoted",
        "sealed sets: gate set 1 sealed",
        "sealed sets: gate set 1 retired",
        "alerts: alert: new-test-set",
    ):
        assert title in found
    events = lifecycle(lab.worker, study="full", limit=1000).events
    assert [e.at for e in events] == sorted((e.at for e in events), reverse=True)
    assert {e.lane for e in events} == set(LANES)
    details = {e.title: e.detail for e in events}
    assert "referee" in details["gate set 1 retired"]
    assert details[f"{trial.candidate} failed"].startswith("out of memory; ")
    assert not any("full" in title for title in titles(lab, "first"))


def test_a_list_is_paged_and_the_line_is_bounded(lab: Any, monkeypatch: Any) -> None:
    everything = lifecycle(lab.worker, study="full", limit=1000)
    assert everything.total == len(everything.events) == len(everything.line)
    pages = [lifecycle(lab.worker, study="full", limit=3, offset=n).events for n in range(0, 9, 3)]
    assert [e for page in pages for e in page] == everything.events[:9]
    monkeypatch.setattr(room, "MOST_DRAWN", 2)
    cut = lifecycle(lab.worker, study="full", limit=3, offset=1)
    assert cut.line == everything.line[:2]
    assert cut.events == everything.events[1:4]
    assert cut.total == everything.total


def test_what_cannot_be_asked(lab: Any) -> None:
    with pytest.raises(NotFoundError):
        lifecycle(lab.worker, study="fool")
    for asked in ({"limit": 0}, {"limit": 1001}, {"offset": -1}):
        with pytest.raises(ConfigError):
            lifecycle(lab.worker, study="full", **asked)


def test_no_other_users_signals_are_reported(lab: Any) -> None:
    lab.meter("rare")
    assert any("signal" in title for title in titles(lab))
    lab.as_superuser(
        "ALTER TABLE work.test_sets DISABLE TRIGGER USER; UPDATE work.test_sets SET plan = plan || '{\"teams\": 2}'; "
        "ALTER TABLE work.test_sets ENABLE TRIGGER USER"
    )
    assert not any("signal" in title for title in titles(lab))


@pytest.mark.parametrize(
    ("facts", "title", "detail"),
    [
        ({"how": "rollback", "reason": "it was slow"}, "rolled back to model 3", "it was slow"),
        ({"how": "force", "reason": "no data", "by": "ann"}, "model 3 promoted by force", "no data, by ann"),
        ({"how": "promote"}, "model 3 promoted", "on a passing verdict"),
    ],
)
def test_moves_in_words(facts: dict[str, Any], title: str, detail: str) -> None:
    moved = Moved(**{"model": 3, "reason": None, "by": None} | facts)
    shown = room.in_words(EventRow(datetime.now(UTC), EventKind.MOVED, 1, moved))
    assert (shown.title, shown.detail, shown.lane) == (title, detail, "production")
