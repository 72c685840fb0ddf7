"""The release of many studies at once: repeatable at every point, and one study's trouble stops no other."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from easeml_core.errors import StateError, StoreUnavailableError
from easeml_core.services.referee import release as module
from easeml_core.services.referee.release import AnswerWatch, Release, ReleaseCandidate, release_models
from easeml_core.services.studies.archive import archive_study
from easeml_core.services.test_sets.lifecycle import retire_test_set
from easeml_core.store.database import Store


@pytest.fixture
def night(lab: Any) -> list[ReleaseCandidate]:
    """One model that passes, one that is rejected, one whose verdict is withheld, and two that are not there."""
    handed = lab.models
    return [
        ReleaseCandidate("first", handed["first"]["good"]),
        ReleaseCandidate("full", handed["full"]["rare"]),
        ReleaseCandidate("hidden", handed["hidden"]["rare"]),
        ReleaseCandidate("nowhere", 1),
        ReleaseCandidate("full", 10**6),
    ]


def step(lab: Any, models: list[ReleaseCandidate]) -> dict[str, Release]:
    return {f"{r.study} {r.model_id}": r for r in release_models(lab.worker, models=models, request_key="night")}


def outcomes(found: dict[str, Release]) -> list[str]:
    return [str(release.outcome) for release in found.values()]


def end(lab: Any, models: list[ReleaseCandidate]) -> dict[str, Release]:
    """Answer and step until nothing is open."""
    found = step(lab, models)
    while any(release.waits_for for release in found.values()):
        lab.answer_all()
        found = step(lab, models)
    return found


def filed(lab: Any) -> list[Any]:
    return list(lab.rows("SELECT request_key, kind FROM work.requests WHERE request_key LIKE 'night/%' ORDER BY 1"))


def test_a_chunk_is_asked_promoted_and_metered_and_each_study_has_its_entry(
    lab: Any, night: list[ReleaseCandidate]
) -> None:
    asked = step(lab, night)
    assert outcomes(asked) == ["waiting", "waiting", "waiting", "refused", "refused"]
    assert [len(release.waits_for) for release in asked.values()] == [2, 2, 2, 0, 0]
    lab.answer_all()
    judged = step(lab, night)
    assert outcomes(judged) == ["waiting", "rejected", "waiting", "refused", "refused"]  # for promotions
    lab.answer_all()
    done = step(lab, night)
    assert outcomes(done) == ["promoted", "rejected", "promoted", "refused", "refused"]
    assert [release.symbol for release in done.values()] == ["pass", "fail", "withheld", None, None]
    assert [release.signal is None for release in done.values()] == [False, False, False, True, True]
    assert [release.needs_look for release in done.values()] == [False, True, False, True, True]
    messages = [release.message for release in done.values()]
    assert "there is no study 'nowhere'" in messages[3]
    assert "there is no model" in messages[4]
    assert str(done["nowhere 1"]).startswith("nowhere: model 1 refused, there is no study 'nowhere'")


@pytest.mark.parametrize("at", ["asking", "in the statement", "promotion", "a removed file"])
def test_what_is_put_away_meanwhile_stops_no_other_study(lab: Any, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    models = [ReleaseCandidate(study, lab.models[study]["good"]) for study in ("full", "first")]
    file_requests, put_away = (
        module.requests.file_requests,
        partial(archive_study, lab.worker, study="full", why="over"),
    )

    def late(*_: Any) -> int:
        monkeypatch.setattr(module.requests, "file_requests", file_requests)
        put_away()
        raise StateError("study full is archived")  # as a statement whose look at the study came before

    if at == "promotion":
        step(lab, models)
        lab.answer_all()
    if at == "in the statement":
        monkeypatch.setattr(module.requests, "file_requests", late)
    elif at == "a removed file":
        lab.as_superuser(
            "UPDATE work.models SET removed_at = now(), removed_why = 'old' WHERE id = %s", models[0].model_id
        )
    else:
        put_away()
    refused, promoted = end(lab, models).values()
    assert (refused.outcome, promoted.outcome) == ("refused", "promoted")
    assert ("was removed: old" if at == "a removed file" else "study full is archived") in refused.message


def test_nothing_is_asked_twice_whatever_is_killed_and_whatever_chunk_a_study_is_in(
    make_lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each transaction of the release fails in turn, after its commit or before; the requests are those of one run."""

    def models_of(lab: Any) -> list[ReleaseCandidate]:
        return [
            ReleaseCandidate("first", lab.models["first"]["good"]),
            ReleaseCandidate("full", lab.models["full"]["rare"]),
        ]

    undisturbed = make_lab()
    expected = outcomes(end(undisturbed, models_of(undisturbed)))
    whole = filed(undisturbed)
    assert (expected, len(whole)) == (["promoted", "rejected"], 5)

    lab, begin = make_lab(), Store.begin
    models, left = models_of(lab), 0

    def begin_or_fail(store: Store) -> Any:
        nonlocal left
        if store is lab.worker:
            left -= 1
            if left < 0:
                message = "killed"
                raise StoreUnavailableError(message)
        return begin(store)

    monkeypatch.setattr(Store, "begin", begin_or_fail)
    for round_number in range(3):
        for survived in range(6):
            left = survived
            try:
                step(lab, models[::-1] if survived % 2 else models[survived // 2 % 2 :])
            except StoreUnavailableError:
                continue
        left = 10**9
        if round_number < 2:
            lab.answer_all()
    assert sorted(outcomes(end(lab, models))) == sorted(expected)
    assert filed(lab) == whole


def test_a_refused_gate_and_a_refused_meter_are_reported(lab: Any, night: list[ReleaseCandidate]) -> None:
    retire_test_set(lab.referee, test_set=lab.one("SELECT min(id) FROM work.test_sets WHERE purpose = 'gate'"))
    retire_test_set(lab.referee, test_set=lab.one("SELECT max(id) FROM work.test_sets WHERE purpose = 'meter'"))
    passed, gate_refused, meter_refused = end(lab, night[:3]).values()
    assert not passed.needs_look
    assert (gate_refused.outcome, gate_refused.symbol, gate_refused.meter_refusal) == ("refused", None, None)
    assert "no live gate set" in gate_refused.message
    assert (meter_refused.outcome, meter_refused.needs_look) == ("promoted", True)
    assert "no live meter set" in (meter_refused.meter_refusal or "")


@pytest.mark.parametrize(
    ("looks", "expected"),
    [
        ([(0, 0), (100, 0)], None),  # nothing has come: there is no next step
        ([(0, 0), (1, 2), (15, 2)], None),  # 14 s ago
        ([(0, 0), (1, 2), (16, 2)], 2),
        ([(0, 0), (1, 1), (15, 2), (29, 2)], None),
        ([(0, 2)], None),  # before the watch began: still the first look that sees them
        ([(0, 0), (1, 3)], 3),  # all
    ],
)
def test_answers_are_worth_a_step_when_all_are_there_or_no_further_one_comes(
    monkeypatch: pytest.MonkeyPatch, looks: list[tuple[int, int]], expected: int | None
) -> None:
    now, answered = 0, 0

    class Nothing:
        def begin(self) -> Any:
            return self

        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: float(now)))
    monkeypatch.setattr(module.requests, "count_answered", lambda tx, ids: answered)
    watch, found = AnswerWatch(Nothing(), [1, 2, 3]), None  # type: ignore[arg-type]  # a store without a database
    for now, answered in looks:  # noqa: B007 - read by the two functions above
        found = watch()
    assert found == expected
