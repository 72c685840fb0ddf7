"""Devices announce themselves: each process that trains keeps a row for its device, with heartbeats from a thread.

The registry is for people and for the number of trials that a task asks for. No trial depends on it: leases alone
decide who trains, so that a device which cannot announce itself trains all the same, and says so in its log.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from easeml_core.errors import EasemlError
from easeml_core.services.trials.lease import silent
from easeml_core.store.tables.devices import BEAT_SECONDS, Device, RegisteredDevice, announce_device, live_devices
from easeml_core.training.device_detection import detected_devices

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from easeml_core.services.trials.lease import Log
    from easeml_core.store.database import Store
    from easeml_core.training.device_detection import DetectedDevice


def list_devices(store: Store, *, kind: str | None = None) -> list[RegisteredDevice]:
    """Return the live devices that the role may see.

    Args:
        store: Any role but ``easeml_referee``.
        kind: Those of this kind; None for all.
    """
    with store.begin() as tx:
        return live_devices(tx, kind=kind)


def free_devices(store: Store, *, kind: str | None = None) -> int:
    """Return how many more trials the live devices of a kind could take now, >= 0; arguments as of ``list_devices``."""
    return sum(device.free for device in list_devices(store, kind=kind))


@contextlib.contextmanager
def announced(
    store: Store, *, kind: str | None, holder: str, slot: str | None = None, log: Log = silent
) -> Iterator[None]:
    """Announce the device of this process within the block, which holds one slot of it.

    Args:
        store: Any role that trains.
        kind: Kind of the device; None for ``gpu`` or ``cpu``, by what it is.
        holder: Request key of the process, not empty.
        slot: The device on this machine; None for a GPU if there is one, unless the kind is ``cpu``.
        log: Receives a line where the device cannot be announced.
    """
    found = detected_devices("cpu" if slot is None and kind == "cpu" else slot)
    devices = [_device(found[0], kind, held=1), *(_device(each, kind) for each in found[1:])]
    beats = _Beats(store, devices, holder, log)
    beats.beat()
    thread = threading.Thread(target=beats.run, name="easeml-device", daemon=True)
    thread.start()
    try:
        yield
    finally:
        beats.done.set()
        thread.join()
        beats.end()


def announce_host(
    store: Store, *, kind: str | None = None, slot: str | None = None, should_stop: Callable[[float], bool], log: Log
) -> list[Device]:
    """Announce the devices of this host until it must stop, and hold no slot of them.

    Args:
        store: Any role that trains.
        kind: Kind of the devices; None for ``gpu`` or ``cpu``, by what they are.
        slot: Which of this machine, as of ``announced``.
        should_stop: Waits up to so many seconds; True ends the announcements.
        log: Receives a line for each device, and where one cannot be announced.

    Returns:
        The devices that were announced.
    """
    devices = [_device(each, kind) for each in detected_devices("cpu" if slot is None and kind == "cpu" else slot)]
    beats = _Beats(store, devices, "", log)
    for device in devices:
        log(f"announcing {device.name} of {device.host}: {device.kind}, {device.slots} slots")
    beats.beat()
    while not should_stop(BEAT_SECONDS):
        beats.beat()
    return devices


def _device(found: DetectedDevice, kind: str | None, *, held: int = 0) -> Device:
    return Device(
        host=found.host,
        name=found.name,
        kind=kind or ("gpu" if found.is_gpu else "cpu"),
        model=found.model,
        memory_mb=found.memory_mb,
        driver=found.driver,
        slots=found.slots,
        held=held,
    )


class _Beats:
    """Heartbeats of one process for its devices."""

    def __init__(self, store: Store, devices: Sequence[Device], holder: str, log: Log) -> None:
        self._store, self._devices, self._holder, self._log = store, devices, holder, log
        self._has_failed = False
        self.done = threading.Event()

    def run(self) -> None:
        """Beat until the block is done."""
        while not self.done.wait(BEAT_SECONDS):
            self.beat()

    def beat(self) -> None:
        """Announce all of them."""
        self._write(self._devices)

    def end(self) -> None:
        """Give the slots back; the devices stay live until they are silent for long enough."""
        freed = [Device(d.host, d.name, d.kind, d.model, d.memory_mb, d.driver, d.slots, 0) for d in self._devices]
        self._write(freed)

    def _write(self, devices: Sequence[Device]) -> None:
        try:
            with self._store.begin() as tx:
                for device in devices:
                    announce_device(tx, device, holder=self._holder)
        except EasemlError as error:
            if not self._has_failed:
                self._log(f"this device is not announced, its trials run all the same ({error})")
            self._has_failed = True
        else:
            self._has_failed = False
