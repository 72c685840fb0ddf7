"""What the logins of tenants, devices and the scheduler may read and write: grants and policies, made by an upgrade.

They are no migrations: the roles belong to the server, which others may administrate, and an installation whose tenants
are one team has none of them (ADR 0032). Everything here may be repeated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from easeml_core.store.roles import DEVICE, SCHEDULER, TENANT

if TYPE_CHECKING:
    from sqlalchemy import Connection


def set_grants(tx: Connection) -> bool:
    """Give the roles their rights; False where the server has no such roles, and nothing is changed.

    Args:
        tx: Role ``easeml_owner``, after the migrations.
    """
    wanted = [SCHEDULER, DEVICE, TENANT]
    found = tx.exec_driver_sql("SELECT count(*) FROM pg_roles WHERE rolname = ANY (%s)", (wanted,)).scalar()
    if found != len(wanted):
        return False
    tx.exec_driver_sql(f"GRANT USAGE ON SCHEMA work TO {', '.join(wanted)}")
    tx.exec_driver_sql(f"GRANT SELECT ON work.alembic_version TO {', '.join(wanted)}")
    tx.exec_driver_sql(f"GRANT EXECUTE ON FUNCTION work.my_tenants() TO {TENANT}")
    counts = "work.referee_life(), work.queue_place(bigint, integer)"
    tx.exec_driver_sql(f"GRANT EXECUTE ON FUNCTION {counts} TO {', '.join(wanted)}")
    return True
