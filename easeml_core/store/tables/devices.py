"""The registry of devices: what each host announces, which slots are held, and which devices fell silent.

Time is the database's clock. A device is live while a process has announced it within ``SILENT_SECONDS``; a row that
was not renewed for an hour is deleted by the next announcement under any login (``work.announce_device``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from easeml_core.encoding import typed_record
from easeml_core.store.logins import LOGIN_PREFIX, is_tenant
from easeml_core.store.rows import clean, records, scalar

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

BEAT_SECONDS, SILENT_SECONDS = 20.0, 90.0
"""Between two heartbeats of a process for its devices, and since the last one of a device that is not live any more."""


@typed_record
class Device:
    """A device of a host, as the processes on that host announce it.

    Attributes:
        host: Name of the host.
        name: The device on it: ``cpu``, ``cuda:N`` by the host's own numbers, or ``cuda:N:M`` for a partition of it.
        kind: Kind of the device, as candidates name it.
        model: Name of the GPU or processor; None where that is unknown.
        memory_mb: Its memory in MiB; None where that is unknown.
        driver: Version of the GPU's driver, or of the host's kernel.
        slots: How many trials it takes at once, >= 1.
        held: How many slots live processes hold, also of streams that wait for a trial.
    """

    host: str
    name: str
    kind: str
    model: str | None
    memory_mb: int | None
    driver: str | None
    slots: int
    held: int

    @property
    def free(self) -> int:
        """How many slots no process holds, >= 0."""
        return max(0, self.slots - self.held)


@typed_record
class RegisteredDevice(Device):
    """A row of the registry.

    Attributes:
        login: Login of the database that announced it.
        silent_seconds: Since the last heartbeat, >= 0.
    """

    login: str
    silent_seconds: float


def announce_device(tx: Connection, device: Device, *, holder: str) -> None:
    """Write that a device is there and that a process holds slots of it.

    Args:
        tx: Any role that trains.
        device: The device. With ``held`` of 0 the process has given its slots back, and its row goes.
        holder: Request key of the process; empty only where it holds no slot.
    """
    scalar(
        tx,
        "SELECT work.announce_device(:host, :name, :holder, :kind, :model, :memory, :driver, :slots, :held)",
        host=clean(device.host),
        name=device.name,
        holder=clean(holder),
        kind=device.kind,
        model=None if device.model is None else clean(device.model),
        memory=device.memory_mb,
        driver=None if device.driver is None else clean(device.driver),
        slots=device.slots,
        held=device.held,
    )


# What was announced last is in force: a host that was set up anew may have another kind. A process that holds a whole
# device announces one slot, and holds all of those into which others divide it.
_LIVE = """
SELECT host, name, kind, model, memory_mb, driver, most AS slots,
  least(most, ceil(most * held_share - 1e-6))::integer AS held, login,
  greatest(0, extract(epoch FROM clock_timestamp() - beat_at))::double precision AS silent_seconds
FROM (
  SELECT d.*, row_number() OVER (PARTITION BY login, host, name ORDER BY beat_at DESC, holder) AS place,
    max(d.slots) OVER (PARTITION BY login, host, name) AS most,
    sum(d.held::double precision / d.slots) OVER (PARTITION BY login, host, name) AS held_share
  FROM work.devices d WHERE beat_at > clock_timestamp() - make_interval(secs => :silent)) newest
WHERE place = 1 AND (CAST(:kind AS text) IS NULL OR kind = :kind)
ORDER BY starts_with(login, :tenants), host, name, login LIMIT :limit
"""


def live_devices(tx: Connection, *, kind: str | None = None, limit: int = 10_000) -> list[RegisteredDevice]:
    """Return the live devices that the role may see, by host and name, the provider's first.

    Args:
        tx: A tenant's login sees the devices of its tenants, a login that trains for all tenants those of the provider.
        kind: Those of this kind; None for all.
        limit: How many at most.
    """
    return records(tx, RegisteredDevice, _LIVE, silent=SILENT_SECONDS, kind=kind, limit=limit, tenants=LOGIN_PREFIX)


def usable(tx: Connection, devices: Iterable[RegisteredDevice]) -> list[RegisteredDevice]:
    """Return those of some devices that train for this role: a tenant's take the trials of that tenant alone."""
    own = is_tenant(tx)
    return [device for device in devices if own or not device.login.startswith(LOGIN_PREFIX)]
