"""Queries of the health check, for any of our roles and any version of the schema.

The installation's metrics are sums for each tenant and each kind of request. Those of tenants are taken over the kept
rows of studies (``queries/assessments.py``), so that their time does not grow with the number of trials.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from easeml_core.formats.encoding import typed_record
from easeml_core.store import schema
from easeml_core.store.logins import device_logins, is_closed, is_tenant
from easeml_core.store.roles import OWNER, PERSON, REFEREE, STATISTICS_ARE_OPEN, TENANT, VIEWER, WORKER
from easeml_core.store.rows import record, records, row, rows, scalar

if TYPE_CHECKING:
    from sqlalchemy import Connection


OURS = (OWNER, WORKER, REFEREE)

_SEALED_TABLES = """
SELECT c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'sealed' AND c.relkind IN ('r', 'p', 'v', 'm')
AND has_table_privilege(:worker, c.oid, 'SELECT, INSERT, UPDATE, DELETE') ORDER BY c.relname
"""

_RIGHTS = f"""
SELECT w.rolsuper OR w.rolbypassrls AS is_super, pg_has_role(w.oid, r.oid, 'MEMBER') AS is_referee,
       pg_has_role(w.oid, o.oid, 'MEMBER') AS is_owner,
       coalesce((SELECT has_schema_privilege(w.oid, n.oid, 'USAGE') FROM pg_catalog.pg_namespace n
                 WHERE n.nspname = 'sealed'), false) AS may_enter,
       {STATISTICS_ARE_OPEN} AS may_watch
FROM pg_catalog.pg_roles w, pg_catalog.pg_roles r, pg_catalog.pg_roles o
WHERE w.rolname = :worker AND r.rolname = :referee AND o.rolname = :owner
"""


@typed_record
class ServerSession:
    """Role, database and time of a connection; ``version`` is PostgreSQL's, such as 18.1."""

    role: str
    database: str
    version: str
    now: datetime


def who_and_when(tx: Connection) -> ServerSession:
    """Return role, database and time of this connection."""
    found = record(
        tx,
        ServerSession,
        "SELECT session_user AS role, current_database() AS database, current_setting('server_version') AS version, "
        "clock_timestamp() AS now",
    )
    assert found is not None  # a query without a table has one row
    return found


def missing_roles(tx: Connection) -> list[str]:
    """Roles of ours that the server lacks."""
    there = {r.rolname for r in rows(tx, "SELECT rolname FROM pg_catalog.pg_roles WHERE rolname = ANY(:o)", o=[*OURS])}
    return [role for role in OURS if role not in there]


@typed_record
class WorkerRights:
    """What the role ``easeml_worker`` could do that it must not.

    Attributes:
        is_super: Whether it is a superuser or passes by row security.
        is_referee: Whether it is a member of the referee's role.
        is_owner: Whether it is a member of the owner's role.
        may_enter: Whether it may use the schema ``sealed``.
        may_watch: Whether anything of the server is open to it that tells how much others write (``store/roles.py``).
        tables: Sealed tables with a right on them.
    """

    is_super: bool
    is_referee: bool
    is_owner: bool
    may_enter: bool
    may_watch: bool
    tables: tuple[str, ...] = ()


def rights_of_worker(tx: Connection) -> WorkerRights:
    """Return what ``easeml_worker`` could do that it must not; all roles must be there."""
    found = record(tx, WorkerRights, _RIGHTS, worker=WORKER, referee=REFEREE, owner=OWNER)
    assert found is not None
    return replace(found, tables=tuple(r.relname for r in rows(tx, _SEALED_TABLES, worker=WORKER)))


class TenantLogins(NamedTuple):
    """What keeps tenants apart in the database.

    Attributes:
        logins: Logins of tenants of this database: roles belong to the whole server, which may have others.
        devices: Logins of workers that train for all tenants, likewise.
        open_tables: Tables of ``work`` without row rules.
        viewers: Whether the pages can take a person's rights: ``easeml_worker`` is a member of both roles for it.
        is_viewer_tenant: Whether the role that only looks has the rights of a login, as an earlier version gave it.
        is_closed: Whether an upgrade keeps logins out.
    """

    logins: int
    devices: int
    open_tables: int
    viewers: bool
    is_viewer_tenant: bool
    is_closed: bool = False


def logins_of_tenants(tx: Connection) -> TenantLogins:
    """Return what keeps tenants apart."""
    is_known = "coalesce(has_table_privilege(to_regclass('work.tenant_logins'), 'SELECT'), false)"
    # A login of a tenant may not see any: it is one itself.
    logins = max(_count_logins(tx) if scalar(tx, f"SELECT {is_known}") else 0, int(is_tenant(tx)))
    asked = (
        "SELECT "
        "(SELECT count(*) FROM pg_catalog.pg_roles v JOIN pg_catalog.pg_roles w ON pg_has_role(w.oid, v.oid, 'MEMBER') "
        "WHERE v.rolname IN (:viewer, :person) AND w.rolname = :worker) = 2 AS viewers, "
        "EXISTS (SELECT FROM pg_catalog.pg_roles v JOIN pg_catalog.pg_roles t ON pg_has_role(v.oid, t.oid, 'MEMBER') "
        "WHERE v.rolname = :viewer AND t.rolname = :tenant) AS adds, "
        "(SELECT count(*) FROM pg_catalog.pg_class WHERE relnamespace = to_regnamespace('work') AND relkind = 'r' "
        "AND NOT relrowsecurity) AS tables"
    )
    found = row(tx, asked, viewer=VIEWER, person=PERSON, worker=WORKER, tenant=TENANT)
    assert found is not None
    return TenantLogins(
        logins, len(device_logins(tx)), found.tables, bool(found.viewers), bool(found.adds), is_closed(tx)
    )


def _count_logins(tx: Connection) -> int:
    return int(scalar(tx, "SELECT count(DISTINCT login) FROM work.tenant_logins"))


def tenants_with_false_results(tx: Connection) -> list[str]:
    """Names of the tenants of which a result did not hold, measured anew, and that no operator has acknowledged."""
    asked = (
        "SELECT DISTINCT t.name FROM work.quality_checks q JOIN work.studies s ON s.id = q.study_id "
        "JOIN work.tenants t ON t.id = s.tenant_id WHERE q.outcome = 'not held' AND q.acknowledged_at IS NULL "
        "ORDER BY 1"
    )
    return [row.name for row in rows(tx, asked)]


def revision(tx: Connection) -> str | None:
    """The schema's revision; None where there is no schema."""
    return schema.current(tx)


def waiting_requests(tx: Connection) -> dict[str, tuple[int, datetime]]:
    """Requests without an answer by kind: how many there are, and since when the oldest waits."""
    found = rows(
        tx,
        "SELECT r.kind, count(*) AS many, min(r.requested_at) AS since FROM work.requests r "
        "WHERE NOT EXISTS (SELECT FROM work.answers a WHERE a.request_id = r.id) GROUP BY r.kind",
    )
    return {r.kind: (int(r.many), r.since) for r in found}


def alembic_revision(tx: Connection) -> str | None:
    """The revision of another program's tables, where Alembic keeps it on the search path; None where it does not."""
    if scalar(tx, "SELECT to_regclass('alembic_version')") is None:
        return None
    found = scalar(tx, "SELECT version_num FROM alembic_version")
    return None if found is None else str(found)


STRONG = (
    *("pg_read_all_data", "pg_write_all_data", "pg_maintain", "pg_read_server_files", "pg_write_server_files"),
    *("pg_execute_server_program", "pg_signal_backend", "pg_read_all_stats", "pg_checkpoint", "pg_create_subscription"),
)
"""Roles of PostgreSQL that no role of ours but the owner is a member of."""


def too_strong(tx: Connection) -> list[tuple[str, str]]:
    """Return roles that can become the owner, and roles of ours that have more rights than they need."""
    asked = (
        "SELECT m.rolname AS member, g.rolname AS strong FROM pg_catalog.pg_roles m JOIN pg_catalog.pg_roles g "
        "ON g.oid <> m.oid AND pg_has_role(m.oid, g.oid, 'MEMBER') WHERE NOT m.rolsuper AND (g.rolname = :owner "
        "OR starts_with(m.rolname::text, 'easeml_') AND m.rolname <> :owner "
        "AND (g.rolname = :referee OR g.rolname = ANY (:strong))) ORDER BY 1, 2"
    )
    return [(r.member, r.strong) for r in rows(tx, asked, owner=OWNER, referee=REFEREE, strong=[*STRONG])]


class Capacity(NamedTuple):
    """What the logins of this database may take of the server together.

    Attributes:
        logins: How many there are, tenants' and workers'.
        unlimited: Those without a limit of connections.
        connections: That they may have open at once, by their limits.
        most_connections: That the server has.
        locks: That the server's table of locks has room for.
        sessions: Whose locks it is made for: connections and prepared transactions.
    """

    logins: int
    unlimited: tuple[str, ...]
    connections: int
    most_connections: int
    locks: int
    sessions: int


def capacity(tx: Connection) -> Capacity:
    """Return what the logins of this database may take of the server, with roles that may read who has a login."""
    asked = (
        "SELECT r.rolname, r.rolconnlimit FROM pg_catalog.pg_roles r WHERE r.rolcanlogin "
        "AND (r.rolname = ANY (:devices) OR EXISTS (SELECT FROM work.tenant_logins l WHERE l.login = r.rolname)) "
        "ORDER BY 1"
    )
    found = rows(tx, asked, devices=device_logins(tx, surely=True))
    given = (
        "SELECT name, setting::integer FROM pg_catalog.pg_settings WHERE name LIKE 'max\\_%' AND vartype = 'integer'"
    )
    settings = {r.name: r.setting for r in rows(tx, given)}
    sessions = settings["max_connections"] + settings["max_prepared_transactions"]
    return Capacity(
        logins=len(found),
        unlimited=tuple(r.rolname for r in found if r.rolconnlimit < 0),
        connections=sum(r.rolconnlimit for r in found if r.rolconnlimit > 0),
        most_connections=settings["max_connections"],
        locks=settings["max_locks_per_transaction"] * sessions,
        sessions=sessions,
    )


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
