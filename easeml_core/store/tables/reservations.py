"""Reservations: what an open trial may take at most, so that no training ever exceeds a budget or a quota.

The rule itself, and that it holds whoever writes, is the database's (``work.check_budget``, ``work.check_quota``); here
is only what is left, and how to reserve.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from easeml_core.store.rows import change, scalar

if TYPE_CHECKING:
    from sqlalchemy import Connection


def seconds_left(tx: Connection, study_id: int) -> float | None:
    """Device seconds that may still be reserved for the study: of its budget, or its tenant's quota where that is less.

    None where neither is set. 0 where nothing is left, also when more is taken than allowed: measuring a model anew is
    counted but never refused.
    """
    found = scalar(
        tx,
        "SELECT least("
        "s.budget_seconds - (SELECT coalesce(sum(work.charge(t)), 0) FROM work.trials t WHERE t.study_id = s.id), "
        "o.quota_seconds - (SELECT coalesce(sum(work.charge(t)), 0) FROM work.trials t JOIN work.studies x "
        "ON x.id = t.study_id WHERE x.tenant_id = o.id)) "
        "FROM work.studies s JOIN work.tenants o ON o.id = s.tenant_id WHERE s.id = :id",
        id=study_id,
    )
    return None if found is None else max(0.0, float(found))


def reserve(tx: Connection, trial_id: int, limit_seconds: float | None) -> None:
    """Reserve so many seconds for all attempts of an open trial, the lost ones included.

    Raises:
        BudgetExhaustedError: Study or tenant has less left.
    """
    change(
        tx,
        "UPDATE work.trials SET limit_seconds = :seconds WHERE id = :id AND state IN ('SUGGESTED', 'RUNNING')",
        id=trial_id,
        seconds=limit_seconds,
    )


def reserve_open(
    tx: Connection, *, study_id: int | None = None, tenant_id: int | None = None, time_limit: float, grace: float
) -> int:
    """Give every open trial of a study, or of a tenant, the reservation that it began without; how many there were.

    Each may take what it has taken already, and one attempt of its study's time limit (``time_limit`` where there is
    none) and ``grace`` seconds; with what is saved in a checkpoint already.
    """
    return change(
        tx,
        "UPDATE work.trials t SET limit_seconds = t.lost_seconds + greatest("
        "coalesce((s.config -> 'training' ->> 'time_limit_seconds')::double precision, :time_limit) + :grace, "
        "coalesce(t.checkpoint_seconds, 0) "
        "+ coalesce(extract(epoch FROM t.lease_until - t.attempt_started_at)::double precision, 0)) "
        "FROM work.studies s WHERE s.id = t.study_id AND t.limit_seconds IS NULL "
        "AND t.state IN ('SUGGESTED', 'RUNNING') AND (s.id = :study_id OR s.tenant_id = :tenant_id)",
        study_id=study_id,
        tenant_id=tenant_id,
        time_limit=time_limit,
        grace=grace,
    )
