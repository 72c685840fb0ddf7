"""What may be changed while everything runs: limits of studies and tenants. Candidates join in ``candidates``.

Every change is repeatable: it says how things shall be, not by how much they change. It waits for a decision of the
scheduler that is under way, and the next one obeys it. The database refuses a limit below what is used and reserved.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from easeml_core.config import TrainingConfig, require
from easeml_core.services.studies.compute_budget import GRACE_SECONDS
from easeml_core.services.studies.limits import checked_study_limits, checked_tenant_limits
from easeml_core.store.database import lock
from easeml_core.store.tables import reservations, studies, tenants

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from easeml_core.entities import Study, Tenant
    from easeml_core.store.database import Store

_TIME_LIMIT = TrainingConfig().time_limit_seconds


def set_study(store: Store, *, study: str, **changes: Any) -> dict[str, Any]:
    """Change limits of a study; what is not named stays.

    Args:
        store: Role ``easeml_worker``.
        study: The study.
        changes: Any of ``weight``, ``priority``, ``budget_seconds``, ``deadline`` (also as text), ``target_quality``;
            None takes a budget, a deadline or a target away.

    Returns:
        ``{"study", "weight", "priority", "budget_seconds", "deadline", "target_quality"}`` as they are now.

    Raises:
        ConfigError: A value is outside its range, or a name is none of these.
        NotFoundError: There is no such study.
        BudgetExhaustedError: The study has used, and reserved for open trials, more than the new budget.
    """
    _check_names(changes, studies.SETTABLE)
    checked = checked_study_limits(changes)
    with store.begin() as tx:
        lock(tx, "suggest")
        found = studies.get_study(tx, study)
        if checked.get("budget_seconds") is not None:
            reservations.reserve_open(tx, study_id=found.id, time_limit=_TIME_LIMIT, grace=GRACE_SECONDS)
        studies.change_study(tx, found.id, checked)
        return _study_limits(studies.get_study(tx, study), studies.own_weight(tx, found.id))


def _study_limits(study: Study, weight: float) -> dict[str, Any]:
    return {
        "study": study.name,
        "weight": weight,
        "priority": study.priority,
        "budget_seconds": study.budget_seconds,
        "deadline": None if study.deadline is None else study.deadline.isoformat(),
        "target_quality": study.target_quality,
    }


def set_tenant(store: Store, *, tenant: str, **changes: Any) -> dict[str, Any]:
    """Change limits of a tenant; what is not named stays.

    Args:
        store: Role ``easeml_worker``.
        tenant: The tenant.
        changes: Any of ``weight``, ``max_parallel`` (open trials at once, over all its studies), ``quota_seconds``
            (device seconds, over all its studies); None takes one of the last two away.

    Returns:
        As an entry of ``list_tenants``.

    Raises:
        ConfigError: A value is outside its range, or a name is none of these.
        NotFoundError: There is no such tenant.
        BudgetExhaustedError: The tenant has used and reserved more than the new quota, or has more open trials than the
            new ``max_parallel``.
    """
    _check_names(changes, tenants.TENANT_SETTINGS)
    checked = checked_tenant_limits(changes)
    with store.begin() as tx:
        lock(tx, "suggest")
        found = tenants.get_tenant(tx, tenant)
        if checked.get("quota_seconds") is not None:
            reservations.reserve_open(tx, tenant_id=found.id, time_limit=_TIME_LIMIT, grace=GRACE_SECONDS)
        tenants.change_tenant(tx, found.id, checked)
        return _plain(tenants.get_tenant(tx, tenant))


def list_tenants(store: Store) -> list[dict[str, Any]]:
    """All tenants by name, with their limits and what they use now.

    Returns:
        ``{"tenant", "weight", "max_parallel", "quota_seconds", "used_seconds", "reserved_seconds", "open_trials",
        "studies"}`` each.
    """
    with store.begin() as tx:
        return [_plain(t) for t in tenants.list_tenants(tx)]


def _plain(tenant: Tenant) -> dict[str, Any]:
    values = asdict(tenant)
    return {"tenant": tenant.name} | {k: v for k, v in values.items() if k not in ("id", "name")}


def _check_names(changes: Mapping[str, Any], allowed: Sequence[str]) -> None:
    require(bool(changes), "changes", changes, "at least one of " + ", ".join(allowed))
    for name in changes:
        require(name in allowed, name, changes[name], "absent; what may be changed: " + ", ".join(allowed))
