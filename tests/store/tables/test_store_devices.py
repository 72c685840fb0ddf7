"""The registry of devices: slots that are held and given back, silence by the database's clock, and who sees what."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy.exc import DBAPIError
from test_store_tenants import TENANT, Doors, doors

from easeml_core.errors import EasemlError
from easeml_core.services.trials.devices import free_devices
from easeml_core.store.logins import map_login
from easeml_core.store.rows import change, rows
from easeml_core.store.tables.capacity import SILENT_SECONDS, Device, announce_device, live_devices

if TYPE_CHECKING:
    from collections.abc import Callable

    from easeml_core.store.database import Store

    Ask = Callable[..., list[tuple[Any, ...]]]

__all__ = ["doors"]

GPU = Device("host-a", "cuda:0", "gpu", "NVIDIA L4", 23_034, "550.54", slots=2, held=1)
IDLE = replace(GPU, held=0)


def announce(store: Store, device: Device, holder: str = "") -> None:
    with store.begin() as tx:
        announce_device(tx, device, holder=holder)


def seen(store: Store, kind: str | None = None) -> list[tuple[str, str, int]]:
    with store.begin() as tx:
        return [(d.host, d.kind, d.free) for d in live_devices(tx, kind=kind)]


def test_slots_are_held_by_each_process_once_and_given_back(database: Any) -> None:
    store = database.worker
    announce(store, IDLE)
    for _ in range(2):  # a heartbeat is no second holder
        announce(store, GPU, "night/1")
    assert seen(store) == [("host-a", "gpu", 1)]
    announce(store, replace(GPU, slots=4), "night/2")  # a quarter of it
    assert seen(store) == [("host-a", "gpu", 1)]
    announce(store, IDLE, "night/1")
    assert seen(store) == [("host-a", "gpu", 3)]
    announce(store, replace(GPU, slots=1), "night/1")  # the whole of it
    assert seen(store) == [("host-a", "gpu", 0)]
    announce(store, IDLE, "night/1")
    announce(store, replace(GPU, host="host-b", kind="l4"), "night/3")
    assert seen(store, "gpu") == [("host-a", "gpu", 3)]
    with store.begin() as tx:  # no row is left of who has ended
        assert [r.holder for r in rows(tx, "SELECT holder FROM work.devices ORDER BY 1")] == ["", "night/2", "night/3"]


def test_a_silent_device_is_gone_and_takes_no_slot_of_the_others(database: Any) -> None:
    announce(database.worker, GPU, "killed")
    announce(database.worker, GPU, "alive")
    assert seen(database.worker) == [("host-a", "gpu", 0)]

    def silence(holder: str, seconds: float) -> None:
        with database.owner.begin() as tx:
            change(
                tx,
                "UPDATE work.devices SET announced_at = announced_at - interval '1 day', "
                "beat_at = clock_timestamp() - make_interval(secs => :seconds) WHERE holder = :holder",
                seconds=seconds,
                holder=holder,
            )

    silence("killed", SILENT_SECONDS - 30)
    assert seen(database.worker) == [("host-a", "gpu", 0)]
    silence("killed", SILENT_SECONDS + 1)
    assert seen(database.worker) == [("host-a", "gpu", 1)]
    silence("alive", SILENT_SECONDS + 1)
    assert seen(database.worker) == []
    silence("killed", 3601)
    announce(database.worker, GPU, "alive")
    with database.worker.begin() as tx:
        assert [r.holder for r in rows(tx, "SELECT holder FROM work.devices")] == ["alive"]


@pytest.mark.own_database
def test_rows_of_a_login_that_is_silent_for_an_hour_go_with_whoever_announces(
    doors: Doors, database: Any, ask: Ask
) -> None:
    """Of a host that was taken away, and of a tenant that left; no other row goes, and no row is waited for."""
    old = "clock_timestamp() - make_interval(secs => s)"
    ask(
        "INSERT INTO work.devices (login, tenants, host, name, holder, kind, slots, held, announced_at, beat_at) "
        f"SELECT l, ARRAY[1], 'h' || s, 'cuda:0:1', '', 'gpu', 1, 0, {old}, {old} "
        "FROM unnest(ARRAY['easeml_t_victim', 'easeml_device']) l, unnest(ARRAY[3500, 3700, 3800]) s"
    )

    def left() -> set[str]:
        with database.owner.begin() as tx:
            return {f"{r.login} {r.host}" for r in rows(tx, "SELECT login, host FROM work.devices WHERE host ~ '^h3'")}

    with database.owner.begin() as tx:
        change(tx, "UPDATE work.devices SET held = 0 WHERE host = 'h3800'")
        announce(doors.tenant, IDLE)  # while another transaction holds some of them
        assert len(left()) == 4
    announce(doors.tenant, IDLE)
    assert left() == {"easeml_t_victim h3500", "easeml_device h3500"}


@pytest.mark.own_database
def test_what_tenants_announce_is_no_place_for_the_providers_trials(doors: Doors, database: Any) -> None:
    """Also of a login that has lost its tenants, and keeps its session for as long as it is open."""
    announce(doors.tenant, replace(IDLE, host="a-tenants", slots=1024))
    assert free_devices(doors.tenant, device="gpu") == 1
    for provider in (doors.device, doors.scheduler, database.worker):
        assert free_devices(provider, device="gpu") == 0
    announce(doors.device, replace(IDLE, host="providers"))
    with database.worker.begin() as tx:
        assert [device.host for device in live_devices(tx, limit=2)] == ["gpu-1", "providers"]
    with database.owner.begin() as tx:
        map_login(tx, TENANT, [])
        assert TENANT not in [r.login for r in rows(tx, "SELECT login FROM work.devices")]
    announce(doors.tenant, replace(IDLE, host="providers"))
    assert seen(doors.device) == [("gpu-1", "gpu", 1), ("providers", "gpu", 2)]
    assert free_devices(database.worker, device="gpu") == 1


@pytest.mark.own_database
def test_a_login_sees_and_announces_for_itself_alone(doors: Doors, database: Any, ask: Ask) -> None:
    """The victim's tenant has a device, the provider has one, and one was announced by the world of rows."""
    ask(
        "INSERT INTO work.devices (login, tenants, host, name, holder, kind, slots, held) "
        "VALUES ('easeml_t_victim', ARRAY[1], 'victims-host', 'cpu', '', 'cpu', 1, 0)"
    )
    for store, host in ((doors.tenant, "own"), (doors.device, "providers")):
        announce(store, replace(GPU, host=host), "same key")
    assert seen(doors.tenant) == [("own", "gpu", 1)]
    assert seen(doors.device) == [("gpu-1", "gpu", 1), ("providers", "gpu", 1)]
    assert {host for host, _, _ in seen(doors.scheduler)} == {"gpu-1", "own", "providers", "victims-host"}
    # Under another login's host, name and key it makes a separate row, and frees nothing.
    announce(doors.tenant, replace(IDLE, host="providers"), "same key")
    assert seen(doors.device) == [("gpu-1", "gpu", 1), ("providers", "gpu", 1)]
    ask(
        "INSERT INTO work.devices (login, tenants, host, name, holder, kind, slots, held) "
        "SELECT 'easeml_t_mallory', '{}', 'h' || n, 'cpu', '', 'cpu', 1, 0 FROM generate_series(1, 5000) n"
    )
    with pytest.raises((DBAPIError, EasemlError), match="at most 5000 devices"):
        announce(doors.tenant, replace(IDLE, host="one more"))
    announce(doors.device, IDLE)
