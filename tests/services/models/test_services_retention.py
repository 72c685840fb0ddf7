"""Which models lose their files: none that is best, judged, in production or submitted; the row says so first."""

from __future__ import annotations

from typing import Any

import pytest

from easeml_core.errors import ConfigError, StateError
from easeml_core.services.models.inference import infer
from easeml_core.services.models.promotion import model_list
from easeml_core.services.referee.requests import file_gate_request
from easeml_core.services.studies.archive import archive_study, prune
from easeml_core.store.artifacts.orphans import NamedFile, named_files
from easeml_core.store.tables import model_life, models, studies


def aged(lab: Any, days: int = 40) -> None:
    lab.as_superuser(f"UPDATE work.models SET created_at = created_at - interval '{days} days'")


def pruned(lab: Any, **changes: Any) -> set[str]:
    found = prune(lab.referee, **{"keep": 1, "days": 30.0, **changes}).models
    return {f"{one.study} {one.candidate}" for one in found}


def test_all_but_the_best_and_what_evidence_needs_lose_their_files(lab: Any) -> None:
    assert pruned(lab) == set()  # too young
    aged(lab)
    others = {f"{study} {name}" for study in lab.models for name in ("worse", "rare")}
    assert pruned(lab, dry_run=True) == others
    assert pruned(lab, dry_run=True, keep=2) == {one for one in others if one.endswith("rare")}
    assert lab.promote(lab.gate("rare").request_id, "rare") is not None  # judged, whatever the answer
    judged = {"full rare"}
    worse = lab.models["full"]["worse"]
    artifact = lab.one("SELECT artifact FROM work.models WHERE id = :id", id=worse)
    assert pruned(lab) == others - judged
    assert pruned(lab) == set()  # a second time
    with lab.referee.begin() as tx:
        assert NamedFile("lab", artifact) not in named_files(tx)
    (listed,) = [one for one in model_list(lab.worker, study="full") if one.model_id == worse]
    assert "best 1 " in listed.removed
    assert "30 days" in listed.removed
    with pytest.raises(StateError, match=f"model {worse} .*removed on 20.*: .*best 1"):
        infer(lab.worker, lab.artifacts, study="full", inputs=[[0.0] * 30], model=worse)
    with pytest.raises(StateError, match=f"model {worse} .*removed: .*best 1"):
        file_gate_request(lab.worker, study="full", model_id=worse, request_key="late")
    assert infer(lab.worker, lab.artifacts, study="full", inputs=[[0.0] * 30], model="best").labels
    with lab.worker.begin() as tx:
        why = {model: model_life.removed_why(tx, model) for model in (worse, lab.models["full"]["good"], 10**9)}
    assert [model for model in why if why[model] is not None] == [worse]


def test_a_model_about_which_a_request_is_being_filed_is_passed_over(lab: Any) -> None:
    aged(lab)
    with lab.worker.begin() as tx:
        tx.exec_driver_sql(
            "INSERT INTO work.requests (request_key, kind, study_id, model_id) SELECT 'late', 'gate', study_id, id "
            "FROM work.models WHERE id = %s",
            (lab.models["full"]["worse"],),
        )
        assert "full worse" not in pruned(lab)
    assert "full worse" not in pruned(lab)


def test_a_request_that_is_filed_between_look_and_lock_keeps_its_model(lab: Any) -> None:
    aged(lab)
    worse = lab.models["full"]["worse"]
    with lab.referee.begin() as tx:
        found = [one.model_id for one in model_life.removable_models(tx, keep=1, days=30.0, most=100)]
        file_gate_request(lab.worker, study="full", model_id=worse, request_key="meanwhile")
        removed = model_life.note_removed(tx, found, "old")
    assert removed == set(found) - {worse}
    assert not lab.one("SELECT removed_at IS NOT NULL FROM work.models WHERE id = :id", id=worse)


def test_the_best_is_the_best_that_can_still_be_judged(lab: Any) -> None:
    aged(lab)
    pruned(lab)
    with lab.worker.begin() as tx:
        study_id = studies.get_study(tx, "full").id
        best = models.best_model(tx, study_id)
        assert best is not None
    lab.as_superuser("UPDATE work.models SET removed_at = now(), removed_why = 'old' WHERE id = %s", best.id)
    with lab.worker.begin() as tx:
        assert models.best_model(tx, study_id) is None  # the others have lost their files as well
        assert "full" not in [one.study for one in models.best_to_judge(tx)]


def test_old_curves_of_archived_studies_go_and_the_others_stay(lab: Any) -> None:
    trial = "SELECT t.id FROM work.trials t JOIN work.studies s ON s.id = t.study_id WHERE s.name = :name LIMIT 1"
    for name in ("full", "first"):
        lab.as_superuser(
            "INSERT INTO work.curves (trial_id, step, quality, seconds) VALUES (%s, 1, 0.5, 1)",
            lab.one(trial, name=name),
        )
    lab.as_superuser("ALTER TABLE work.trials DISABLE TRIGGER USER")
    lab.as_superuser("UPDATE work.trials SET finished_at = now() - interval '9 days'")
    archive_study(lab.worker, study="full", why="over")
    assert prune(lab.referee, keep=None, days=30.0, curve_days=10.0).curve_points == 0
    assert prune(lab.referee, keep=None, days=30.0, curve_days=8.0, dry_run=True).curve_points == 0
    assert prune(lab.referee, keep=None, days=30.0, curve_days=8.0).curve_points == 1
    assert lab.one("SELECT trial_id FROM work.curves") == lab.one(trial, name="first")


@pytest.mark.parametrize("given", [{"keep": 0}, {"days": 0.5}, {"curve_days": 0.5}])
def test_numbers_are_checked(lab: Any, given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        pruned(lab, **given)
