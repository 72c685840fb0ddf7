"""Health: one word without a login, what was found for operators, and the referee's loopback endpoint."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.request import urlopen

from easeml_core.errors import StoreUnavailableError
from easeml_core.services.operations.checks import Check, KeptHealth, installation_health, watch_changes
from easeml_core.services.operations.monitoring import health_of, loopback_endpoint
from easeml_core.services.referee.claiming import RefereeLease
from easeml_core.store.rows import change
from easeml_core.store.tables import referee_claims

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def away() -> Any:
    raise StoreUnavailableError("the database at h cannot be reached")


def test_health_follows_database_schema_referee_and_disk(
    database: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def status() -> tuple[str, bool]:
        found = installation_health(lambda: database.worker, lambda: str(tmp_path))
        return found.status, found.ready

    with database.referee.begin() as tx:
        referee = referee_claims.add_referee(tx, lease_seconds=60.0)
    assert status() == ("ok", True)
    with database.referee.begin() as tx:
        referee_claims.beat(tx, referee, 0.0)
    assert status() == ("degraded", True)  # trials train on
    with database.referee.begin() as tx:
        referee_claims.beat(tx, referee, 60.0)
    with monkeypatch.context() as patched:
        patched.setenv("EASEML_MIN_FREE", "100%")
        assert status() == ("degraded", True)
    assert installation_health(away, lambda: str(tmp_path)).status == "failed"
    with database.owner.begin() as tx:
        change(tx, "UPDATE work.alembic_version SET version_num = 'r0000'")
    assert status() == ("failed", False)


def test_callers_cause_one_look_in_five_seconds() -> None:
    looks, now = list[float](), [0.0]

    def look() -> Any:
        looks.append(now[0])
        return len(looks)

    kept = KeptHealth(look, lambda: now[0])
    seen = []
    for now[0] in (0.0, 4.9, 5.0, 9.0, 20.0):
        seen.append(kept())
    assert (seen, looks) == ([1, 1, 2, 2, 3], [0.0, 5.0, 20.0])


def ask(port: int, path: str) -> tuple[int, Any]:
    try:
        with urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        return error.code, json.load(error)


def test_the_referees_endpoint_says_whether_its_lease_is_kept(database: Any) -> None:
    lease = RefereeLease(database.referee, 60.0)
    with loopback_endpoint(0, health_of(lambda: lease.is_kept)) as port:
        assert ask(port, "/health") == (503, {"status": "failed"})
        lease._extend(60.0)
        assert ask(port, "/health") == (200, {"status": "ok"})
        assert ask(port, "/requests")[0] == 404
        lease._extend(0.0)
        assert ask(port, "/health")[0] == 503


def test_a_watch_tells_what_has_changed() -> None:
    looks = iter(
        [
            [Check("a", "ok", ""), Check("b", "warning", "little"), Check("c", "skipped", "")],
            [Check("a", "failed", "gone"), Check("b", "warning", "less"), Check("c", "skipped", "")],
            [Check("a", "ok", "back"), Check("b", "failed", "none"), Check("c", "skipped", "")],
        ]
    )
    told, stop = list[str](), threading.Event()

    def look() -> list[Check]:
        found = next(looks)
        if found[1].state == "failed":
            stop.set()
        return found

    assert watch_changes(look, lambda check: told.append(check.found), stop, seconds=0.0)
    assert told == ["little", "gone", "back", "none"]
