"""The lifecycle page: what next and why, and one line of time, for whoever may see the study and for nobody else."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from page_client import without_times

from easeml_airflow.web.pages.timeline import time_line
from easeml_core.data.parts import load_open_parts
from easeml_core.entities import Executor, TrialState
from easeml_core.models.formats import save_constant
from easeml_core.services.referee.process import Referee
from easeml_core.services.referee.requests import file_gate_request, file_meter_request
from easeml_core.services.registration.register import pause_study
from easeml_core.services.reports.timeline import Event, lifecycle
from easeml_core.store.queries.timeline import EventKind, Registered
from easeml_core.store.tables import leases, models, studies, trials

PAGE = "/studies/cancer/lifecycle"


@pytest.fixture
def lively(database, artifacts, make_study, tmp_path):
    """A study with one trial, whose model was judged and read; the model's number."""
    make_study("cancer", candidates=[{"name": "<b>tree</b>", "kind": "decision_tree"}])
    with database.worker.begin() as tx:
        study = studies.get_study(tx, "cancer")
        version = studies.latest_data_version(tx, study.id)
        labels = load_open_parts(artifacts.path(version.artifact)).train_labels
        save_constant(tmp_path / "model", int(np.bincount(labels).argmin()))
        ids = {"study_id": study.id, "data_version_id": version.id}
        trial = trials.add_trial(tx, candidate_id=studies.list_candidates(tx, study.id)[0].id, **ids)
        attempt = leases.start_trial(
            tx,
            trial_id=trial,
            lease_key="w",
            lease_seconds=60,
            executor=Executor(trials.get_trial(tx, trial).implementation, "test"),
        )
        leases.finish_trial(tx, trial_id=trial, attempt=attempt, state=TrialState.SUCCEEDED, cost_seconds=2.5)
        models.add_observation(tx, trial_id=trial, quality=0.625, cost_seconds=2.5)
        made = {"format": "constant", "artifact": artifacts.put(tmp_path / "model"), "validation_loss": 0.375}
        model = models.add_model(tx, trial_id=trial, **ids, **made)
    asked = {"study": "cancer", "model_id": model}
    file_gate_request(database.worker, request_key="gate", **asked)
    file_meter_request(database.worker, request_key="meter", **asked)
    referee = Referee(database.referee, artifacts)
    while referee.answer_one() is not None:
        pass
    return model


def test_the_line_and_the_list_tell_the_same(ask_as, lively, database, recorded):
    facts = lifecycle(database.worker, study="cancer")
    page = ask_as("dev").page(PAGE)
    assert [(row["What"], row["More"]) for row in page.table] == [(event.title, event.detail) for event in facts.events]
    assert len(page.soup.select("svg title")) == facts.total == len(facts.line)
    kinds = {event.kind for event in facts.events}
    assert kinds >= {"registered", "data", "trial", "verdict", "reading", "sealed"}
    assert f"model {lively}: signal" in page.text
    assert f"1 to {facts.total} of {facts.total}" in page.text
    assert "<b>tree" not in ask_as("dev").get(PAGE).text, "as text"
    html = ask_as("dev").get(PAGE).text
    assert " onclick" not in html
    assert "http://" not in html
    recorded(page.recorded(), "lifecycle")


def test_everybody_reads_the_same_line(ask_as, lively, monkeypatch):
    """It is of released facts alone, so the referee's has no more; but for a button, and what the bar says."""
    pages = [ask_as("ann", *roles).get(PAGE).text for roles in ((), ("referee",), ("operator",))]
    lines = [page[page.index('id="line-h"') :] for page in pages]
    assert lines[0] == lines[1] == lines[2]


def test_who_may_not_see_the_study_learns_nothing(ask_as, lively):
    stranger = ask_as("eve", rights=lambda _study, _tenant, *, write: False)
    answer = stranger.get(PAGE)
    assert answer.status_code == 404
    assert "tree" not in answer.text
    other = stranger.get("/studies/no-such/lifecycle").text.replace("no-such", "cancer")
    assert without_times(other) == without_times(answer.text)


def test_what_next_follows_the_state(ask_as, lively, database):
    pause_study(database.worker, study="cancer", paused=True)
    (step,) = ask_as("dev").page(PAGE).section("What next").items
    assert "search is paused" in step
    assert "study resume cancer" in step


def test_a_strange_page_is_a_page(ask_as, lively):
    for page in ("0", "-1", "x", "9" * 5000, "²"):
        assert ask_as("dev").get(PAGE, params={"page": page}).status_code == 200, page


def test_it_is_paged(ask_as, lively, database, monkeypatch):
    total = lifecycle(database.worker, study="cancer").total
    monkeypatch.setattr("easeml_airflow.web.pages.timeline.PAGE_SIZE", 3)
    first, second, none = (ask_as("dev").page(PAGE, params={"page": n}) for n in (1, 2, 99))
    assert first.part(".pager").text == f"1 to 3 of {total} Older"
    assert second.part(".pager").text.startswith(f"4 to 6 of {total} Newer")
    assert "No more events" in none.text


def test_a_single_moment_and_a_year_are_drawn():
    """The line needs no length, and places lie inside of it."""
    now = datetime(2026, 3, 1, tzinfo=UTC)
    event = Event(now, EventKind.REGISTERED, "data", 1, "registered", "", Registered(None))
    for events in ([event], [event, replace(event, at=now - timedelta(days=365))]):
        line = time_line(events)
        assert all(0 <= place.left <= 100 for lane in line.lanes for place in lane.places)
        assert [lane.name for lane in line.lanes] == ["data"]
    assert line.style == "day"
