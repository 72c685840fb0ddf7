"""Studies and trials as rows, for tests of what runs where: times are hours before now."""

from __future__ import annotations

from typing import Any

from easeml_core.entities import StudyState
from easeml_core.store.rows import as_json, change, scalar
from easeml_core.store.tables import studies

CANDIDATES = 12


def add_study(database: Any, name: str, *, tenant: str = "lab", weight: float = 1.0) -> str:
    """An active study with a data version and candidates; its name."""
    with database.worker.begin() as tx:
        tenant_id = studies.add_tenant(tx, name=tenant)
        study_id = studies.add_study(
            tx,
            name=name,
            tenant_id=tenant_id,
            data_set_id=studies.add_data_set(tx, tenant_id=tenant_id, source=f"csv:{name}", target="label"),
            metric="accuracy",
            weight=weight,
            budget_seconds=None,
            config={"training": {"max_attempts": 3, "lease_seconds": 60.0}},
            request_key=f"register/{name}",
        )
        assert study_id is not None
        studies.add_candidates(tx, study_id, [{"name": f"candidate-{k}", "kind": "tree"} for k in range(CANDIDATES)])
    with database.referee.begin() as tx:
        studies.set_study_state(tx, study_id, StudyState.ACTIVE)
        studies.add_data_version(
            tx,
            study_id=study_id,
            content_hash=name,
            artifact="sha256:" + "0" * 64,
            features=4,
            class_names=["a", "b"],
            parts={"train": 100, "validation": 30, "gate": 20, "meter": 10},
        )
    return name


_TRIAL = """
INSERT INTO work.trials (study_id, candidate_id, data_version_id, state, started_at, attempt_started_at, finished_at,
  cost_seconds, lease_key, lease_until, device, attempt, executor)
SELECT s.id, (SELECT min(c.id) FROM work.candidates c WHERE c.study_id = s.id
  AND NOT EXISTS (SELECT FROM work.trials t WHERE t.candidate_id = c.id)), v.id, k.state,
  now() - k.began * interval '1 h', now() - k.began * interval '1 h', now() - k.ended * interval '1 h', k.cost,
  CASE WHEN k.state = 'RUNNING' THEN 'k' END, now() + k.lease * interval '1 h', 'gpu', 1,
  'trainer:tree'
FROM work.studies s JOIN work.data_versions v ON v.study_id = s.id,
  (SELECT CAST(:state AS text) AS state, CAST(:began AS float8) AS began, CAST(:ended AS float8) AS ended,
          CAST(:cost AS float8) AS cost, CAST(:lease AS float8) AS lease) k
WHERE s.name = :study RETURNING id
"""


def add_trial(
    database: Any,
    study: str,
    *,
    ended: float = 0,
    took: float = 0,
    began: float = 0,
    lease: float = 1,
    quality: float = 0.9,
    waits: bool = False,
) -> int:
    """A trial that took so long until it ended, or runs since it began with a lease for so long, or waits."""
    state = "SUGGESTED" if waits else "RUNNING" if began else "SUCCEEDED"
    given: dict[str, Any] = {"study": study, "state": state, "began": None, "ended": None, "cost": None, "lease": None}
    if began:
        given |= {"began": began, "lease": lease}
    elif not waits:
        given |= {"began": ended + took, "ended": ended, "cost": 3600 * took}
    with database.owner.begin() as tx:
        trial = int(scalar(tx, _TRIAL, **given))
        if state == "SUCCEEDED":
            observe = "INSERT INTO work.observations (trial_id, quality, cost_seconds) VALUES (:id, :quality, :cost)"
            change(tx, observe, id=trial, quality=quality, cost=3600 * took)
    return trial


def add_reasons(database: Any, trial: int, **reasons: Any) -> None:
    """Why the trial was suggested."""
    with database.owner.begin() as tx:
        batch = scalar(
            tx,
            "INSERT INTO work.suggestion_batches (request_key, policy, requested) VALUES (:key, 'default', 1) "
            "RETURNING id",
            key=f"ask/{trial}",
        )
        change(
            tx,
            "INSERT INTO work.suggestions (batch_id, position, trial_id, reasons) "
            "VALUES (:batch, 0, :trial, CAST(:reasons AS jsonb))",
            batch=batch,
            trial=trial,
            reasons=as_json(reasons),
        )
