"""Queries of the installation's metrics: sums for each tenant and each kind of request, of facts that any role reads.

The sums of tenants are taken over the kept rows of studies (``queries/assessments.py``), so that their time does not
grow with the number of trials.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from easeml_core.encoding import typed_record
from easeml_core.store.rows import records

if TYPE_CHECKING:
    from sqlalchemy import Connection


@typed_record
class TenantFigures:
    """What the studies of a tenant do, have used, and have left.

    Attributes:
        studies: How many there are that are not archived; ``needing`` of them need a person.
        running: Trials that run; ``lost`` of which the lease has expired; ``waiting`` for a device.
        device_seconds: That were used, those of lost attempts included.
        quota_seconds: Of the tenant; None for no limit. ``charged_seconds`` count against it.
        alerts: Open alerts.
        not_held: Results that did not hold and that no operator has acknowledged.
        gate_steps: Fewest answers that a live gate set of these can still give; None without one.
        meter_submissions: Fewest submissions that a meter has left; None without a limit.
        sets_wanted: Test sets that a new one is wanted for.
    """

    tenant: str
    studies: int
    needing: int
    running: int
    lost: int
    waiting: int
    device_seconds: float
    quota_seconds: float | None
    charged_seconds: float
    alerts: int
    not_held: int
    gate_steps: int | None
    meter_submissions: int | None
    sets_wanted: int


@typed_record
class QueueFigures:
    """Requests of one kind: ``answered`` ones, ``waiting`` ones, and the age of the oldest of these in seconds."""

    kind: str
    answered: int
    waiting: int
    oldest_seconds: float


_TENANTS = """
SELECT t.name AS tenant, count(*) FILTER (WHERE k.shown) AS studies,
       count(*) FILTER (WHERE k.shown AND k.standing = 'needs') AS needing,
       coalesce(sum(k.running - k.lost), 0) AS running, coalesce(sum(k.lost), 0) AS lost,
       coalesce(sum(k.waiting), 0) AS waiting,
       coalesce(sum((k.facts ->> 'device_seconds')::double precision), 0) AS device_seconds, t.quota_seconds,
       coalesce(sum(k.charged), 0) AS charged_seconds,
       coalesce(sum((k.facts ->> 'open_alerts')::int) FILTER (WHERE k.shown), 0) AS alerts,
       coalesce(sum((k.facts ->> 'not_held')::int), 0) AS not_held,
       min((k.facts ->> 'gate_steps')::int - (k.facts ->> 'gate_steps_used')::int)
         FILTER (WHERE k.shown AND (k.facts ->> 'gate_set_live')::boolean) AS gate_steps,
       min((k.facts ->> 'submissions_left')::int) FILTER (WHERE k.shown) AS meter_submissions,
       coalesce(sum(jsonb_array_length(k.facts -> 'sets_wanted')) FILTER (WHERE k.shown), 0) AS sets_wanted
FROM work.tenants t LEFT JOIN work.assessments k ON k.tenant_id = t.id GROUP BY t.id, t.name ORDER BY t.name
"""

_QUEUES = """
SELECT r.kind, count(a.request_id) AS answered, count(*) FILTER (WHERE a.request_id IS NULL) AS waiting,
       coalesce(extract(epoch FROM now() - min(r.requested_at) FILTER (WHERE a.request_id IS NULL)), 0)
         ::double precision AS oldest_seconds
FROM work.requests r LEFT JOIN work.answers a ON a.request_id = r.id GROUP BY r.kind ORDER BY r.kind
"""


def tenant_figures(tx: Connection) -> list[TenantFigures]:
    """Return the sums of each tenant that the role may see, by name."""
    return records(tx, TenantFigures, _TENANTS)


def queue_figures(tx: Connection) -> list[QueueFigures]:
    """Return the figures of each kind of request that was ever filed, by kind."""
    return records(tx, QueueFigures, _QUEUES)
