"""Tenants with their limits and what they use now, as rows; the stamp of everything that a scheduler must know."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_core.entities import Tenant
from easeml_core.errors import NotFoundError
from easeml_core.store.rows import change, rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

TENANT_SETTINGS = ("weight", "max_parallel", "quota_seconds")
"""What may be changed of a tenant."""

_TENANTS = """
SELECT t.id, t.name, t.weight, t.max_parallel, t.quota_seconds, coalesce(u.used, 0) AS used_seconds,
       coalesce(u.reserved, 0) AS reserved_seconds, coalesce(u.open, 0) AS open_trials,
       (SELECT count(*) FROM work.studies s WHERE s.tenant_id = t.id) AS studies
FROM work.tenants t
LEFT JOIN (
  SELECT s.tenant_id, count(*) FILTER (WHERE x.finished_at IS NULL) AS open,
         sum(x.lost_seconds + coalesce(x.cost_seconds, 0)) AS used,
         sum(x.limit_seconds - x.lost_seconds) FILTER (WHERE x.finished_at IS NULL) AS reserved
  FROM work.trials x JOIN work.studies s ON s.id = x.study_id GROUP BY s.tenant_id) u ON u.tenant_id = t.id
ORDER BY t.name
"""


def list_tenants(tx: Connection) -> list[Tenant]:
    """All tenants by name."""
    return [Tenant(**r._mapping) for r in rows(tx, _TENANTS)]


def get_tenant(tx: Connection, name: str) -> Tenant:
    """The tenant of this name.

    Raises:
        NotFoundError: With the names there are.
    """
    found = list_tenants(tx)
    for tenant in found:
        if tenant.name == name:
            return tenant
    remedy = "a tenant is made when its first study is registered"
    raise NotFoundError(kind="tenant", name=name, known=[t.name for t in found][:50], remedy=remedy)


def change_tenant(tx: Connection, tenant_id: int, changes: Mapping[str, Any]) -> None:
    """Set some of ``TENANT_SETTINGS``; the database refuses a limit below what the tenant uses and has reserved."""
    allowed = {name: changes[name] for name in TENANT_SETTINGS if name in changes}
    if allowed:
        assignments = ", ".join(f"{name} = :{name}" for name in allowed)
        change(tx, f"UPDATE work.tenants SET {assignments} WHERE id = :id", id=tenant_id, **allowed)
