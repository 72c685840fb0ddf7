"""The place in the queue and the estimate: what is shown, who may see it, and that sealed data change none of it."""

from __future__ import annotations

from typing import Any

import pytest

from easeml_core.services.referee import place_in_queue
from easeml_core.services.referee.place_in_queue import QueuePlace, late_text, life_text, place_of, place_text
from easeml_core.services.referee.process import Referee
from easeml_core.services.referee.publishing import Timetable
from easeml_core.services.referee.requests import file_forced_promotion, file_gate_request
from easeml_core.store.tables.referee_claims import Ahead, RefereeLife

STUDIES = ("full", "first", "hidden")


@pytest.mark.parametrize(
    ("ahead", "life", "seconds"),
    [
        (Ahead(is_long=False, short_ahead=0, long_ahead=0), RefereeLife(1, 2, 60.0, 1.0), 1.0),
        (Ahead(is_long=False, short_ahead=5, long_ahead=0), RefereeLife(2, 4, 60.0, 1.0), 3.0),
        (Ahead(is_long=True, short_ahead=99, long_ahead=0), RefereeLife(1, 2, 0.0, 1.0), 10.0),
        (Ahead(is_long=True, short_ahead=0, long_ahead=5), RefereeLife(1, 2, 0.0, 1.0), 30.0),
        (Ahead(is_long=True, short_ahead=0, long_ahead=0), RefereeLife(1, 2, 60.0, 1.0), 60.0),
        (Ahead(is_long=True, short_ahead=0, long_ahead=12), RefereeLife(1, 2, 60.0, 1.0), 120.0),
        (Ahead(is_long=True, short_ahead=0, long_ahead=5), RefereeLife(0, 0, None, 90.0), None),
    ],
)
def test_the_estimate_follows_from_counts_and_settings(ahead: Ahead, life: RefereeLife, seconds: float | None) -> None:
    assert place_in_queue.estimate(ahead, life) == seconds


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (
            QueuePlace(7, 12, 130.0, 2, 4, 3.2),
            "12 requests ahead, about 2 min; 2 referees with 4 workers at work, the last sign 3 s ago; "
            "wait longer or start more workers; the request stands",
        ),
        (
            QueuePlace(7, 1, None, 0, 0, 200.0),
            "no referee runs since 3 min: start one with `easeml referee`; 1 request ahead of it; the request stands",
        ),
        (
            QueuePlace(7, 0, None, 0, 0, None),
            "no referee runs, and none ever has: start one with `easeml referee`; 0 requests ahead of it; "
            "the request stands",
        ),
        (None, "the answer has just come; ask again with the same request key"),
    ],
)
def test_a_time_out_says_who_is_at_work_and_what_to_do(place: QueuePlace | None, said: str) -> None:
    assert late_text(place) == said


def test_the_worker_sees_places_and_the_referees_life_and_a_decision_changes_neither(lab: Any) -> None:
    """The answer is decided and has not left: nothing can tell, and once it has left there is no place."""
    asked = [
        file_gate_request(lab.worker, study=study, model_id=lab.models[study]["good"], request_key=lab.key())
        for study in STUDIES
    ]
    moved = file_forced_promotion(
        lab.worker, study="full", model_id=lab.models["full"]["good"], who="a", why="b", request_key=lab.key()
    )
    places = [place_of(lab.worker, one) for one in (*asked, moved)]
    assert [place and place.ahead for place in places] == [1, 2, 3, 0]  # the short one comes first
    lab.end_leases()
    assert life_text(lab.worker).startswith("no referee runs since ")
    alone = Referee(lab.referee, lab.artifacts)
    referee = Referee(lab.referee, lab.artifacts, workers=3, timetable=Timetable(delay_seconds=3600.0))
    assert (referee._runs._places, referee._judgements._places) == (
        3 * alone._runs._places,
        3 * alone._judgements._places,
    )
    with referee._lease.kept():
        while referee.answer_one() is not None:
            pass
        assert lab.one("SELECT count(*) FROM sealed.outbox WHERE left_at IS NULL") == 3
        now = [place_of(lab.worker, one) for one in asked]
        assert [place and (place.ahead, place.referees, place.workers) for place in now] == [
            (0, 1, 3),
            (1, 1, 3),
            (2, 1, 3),
        ]
        assert [place_text(place) for place in now if place] == [
            "0 requests ahead, about 1 h",
            "1 request ahead, about 1 h",
            "2 requests ahead, about 1 h",
        ]
        assert life_text(lab.worker).startswith("1 referee with 3 workers at work, the last sign ")
        assert place_of(lab.worker, moved) is None  # its answer has left
    assert life_text(lab.worker).startswith("no referee runs since ")
