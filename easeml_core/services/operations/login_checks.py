"""What is wrong with the roles and limits of the database's logins: checks of ``easeml doctor``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from easeml_core.services.selection.scheduler_process import MOST_LOCKS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easeml_core.store.queries import health

KEPT_CONNECTIONS = 50
"""For the processes of the installation itself, beside all logins."""


def strong_members(found: Sequence[tuple[str, str]]) -> tuple[bool, str]:
    """Say which roles can become another one that they must not; empty for none.

    Args:
        found: Of ``health.too_strong``.

    Returns:
        Whether one of them is a role of ours, and the sentence.
    """
    said = "; ".join(f"{member} is a member of {strong}" for member, strong in found)
    return any(member.startswith("easeml_") for member, _ in found), said


def crowding(room: health.Capacity) -> tuple[str, str]:
    """Say what the logins could use up together, and what to do; two empty texts for nothing.

    Args:
        room: Of the server.
    """
    if room.unlimited:
        return (
            f"no limit of connections: {', '.join(room.unlimited)}",
            "make them anew with `easeml tenant login`, or ALTER ROLE ... CONNECTION LIMIT 50",
        )
    if room.connections + KEPT_CONNECTIONS > room.most_connections and room.logins:
        return (
            f"logins may open {room.connections} of the server's {room.most_connections} connections",
            f"set max_connections to {room.connections + KEPT_CONNECTIONS} or more, or lower their CONNECTION LIMIT",
        )
    if room.logins * MOST_LOCKS > room.locks:
        return (
            f"logins may hold {room.logins * MOST_LOCKS:,} locks, and the server has room for {room.locks:,}",
            f"set max_locks_per_transaction to {math.ceil(room.logins * MOST_LOCKS / room.sessions)} or more",
        )
    return "", ""
