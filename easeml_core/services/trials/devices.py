"""Devices announce themselves: each process that trains keeps a row for its device, with heartbeats from a thread.

The registry is for people and for the number of trials that a task asks for. No trial depends on it: leases alone
decide who trains, so that a device which cannot announce itself trains all the same, and says so in its log.
"""

from __future__ import annotations

import contextlib
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from easeml_core.errors import EasemlError, StateError
from easeml_core.services.trials.lease import FINAL, silent
from easeml_core.settings.device_requests import DeviceRequest, devices_of, request_of, require_held
from easeml_core.store.tables import trials
from easeml_core.store.tables.capacity import (
    BEAT_SECONDS,
    Device,
    RegisteredDevice,
    announce_device,
    live_devices,
    usable,
)
from easeml_core.training.devices import NO_CLAIM, Claim, claimed, detected_devices
from easeml_core.training.job import require_slot
from easeml_core.training.supervisor import never
from easeml_core.training.trainers import TRAINERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from easeml_core.entities import Trial
    from easeml_core.services.trials.lease import Log
    from easeml_core.store.database import Store
    from easeml_core.training.devices import DetectedDevice


MOST_OFFERED = 256
"""Streams that a DAG starts without a list of its devices; a trigger form takes as many."""


def list_devices(store: Store, *, kind: str | None = None) -> list[RegisteredDevice]:
    """Return the live devices that the role may see."""
    with store.begin() as tx:
        return live_devices(tx, kind=kind)


def free_devices(store: Store, *, device: str | None = None) -> int:
    """Return how many more trials the live devices could take now, >= 0."""
    request = request_of(device)
    with store.begin() as tx:
        found = usable(tx, live_devices(tx, kind=None if request is None else request.kind))
    return free_for(found, request or DeviceRequest(""))


def offered_devices(store: Store, *, limit: int = MOST_OFFERED) -> list[str]:
    """Return what streams would offer, one for each slot of the live devices; GPUs come first."""
    with store.begin() as tx:
        found = usable(tx, live_devices(tx))
    ordered = sorted(found, key=lambda device: device.name == "cpu")
    each = ((d.kind, d.slots if d.name != "cpu" else 1, d.slots) for d in ordered)
    return [str(DeviceRequest(kind, parts=parts)) for kind, parts, slots in each for _ in range(slots)][:limit]


def free_for(devices: Iterable[RegisteredDevice], request: DeviceRequest) -> int:
    """Return how many trials with this request the devices take; several devices of one trial are of one host."""
    hosts: dict[tuple[str, str], list[RegisteredDevice]] = {}
    for device in devices:
        hosts.setdefault((device.login, device.host), []).append(device)
    return sum(_free_on_host(each, request) for each in hosts.values())


def _free_on_host(devices: Sequence[RegisteredDevice], request: DeviceRequest) -> int:
    """A processor takes a trial a core; a GPU one whole trial while it is idle, or as many parts as are free."""
    cores = sum(device.free for device in devices if device.name == "cpu")
    gpus = [device for device in devices if device.name != "cpu"]
    if request.parts > 1:
        return cores + sum(request.parts * device.free // device.slots for device in gpus)
    return cores // request.count + sum(device.held == 0 for device in gpus) // request.count


def require_room(store: Store, *, trial_id: int, slot: str | None, most_devices: int | None = None) -> Trial:
    """Refuse a trial before its claim where this worker cannot have its devices: it stays available for another one."""
    with store.begin() as tx:
        trial = trials.get_trial(tx, trial_id)
    if most_devices is not None:
        require_held(trial.device, most_devices)
    if slot is not None:
        require_slot(slot, devices=devices_of(trial.device))
    return trial


@contextlib.contextmanager
def claimed_of(
    trial: Trial, *, slot: str | None, log: Log = silent, should_stop: Callable[[], bool] = never
) -> Iterator[Claim | None]:
    """Hold the GPUs of a trial before its lease is taken, as ``claimed_devices``; none for one that has ended.

    A trial that names no device, of a trainer that computes on processors alone, holds none: many such trials run
    beside each other on a host with few GPUs.
    """
    is_asked_for = slot is not None or trial.device is not None
    uses_gpu = is_asked_for or trial.kind not in TRAINERS or TRAINERS[trial.kind].uses_gpu
    if not uses_gpu or trial.state in FINAL:
        yield NO_CLAIM
        return
    named = f"trial {trial.id}"
    with claimed_devices(trial.device, slot=slot, holder=named, log=log, should_stop=should_stop) as claim:
        yield claim


@contextlib.contextmanager
def claimed_devices(
    device: str | None,
    *,
    slot: str | None,
    holder: str,
    log: Log = silent,
    should_stop: Callable[[], bool] = never,
) -> Iterator[Claim | None]:
    """Hold the GPUs of this host that a request is for, within the block; no other training on this host has them."""
    request = request_of(device) or DeviceRequest("")
    found = _detected(request, slot)
    if not found[0].is_gpu:
        yield NO_CLAIM
        return
    gpus = found if request.count == 1 else [gpu for gpu in found if not gpu.is_partition]
    if len(gpus) < request.count:
        partitions = ", and CUDA shows a process one partition of a GPU at most" if len(gpus) < len(found) else ""
        message = (
            f"{holder} is for {request.count} GPUs, and this process sees {len(gpus)}{partitions}; offer as many "
            "(CUDA_VISIBLE_DEVICES)"
        )
        raise StateError(message)
    asked = {"count": request.count, "parts": request.parts}
    with claimed(gpus, **asked, holder=holder, log=log, should_stop=should_stop) as claim:
        yield claim


@contextlib.contextmanager
def announced(
    store: Store,
    *,
    device: str | None,
    holder: str,
    slot: str | None = None,
    claim: Claim = NO_CLAIM,
    log: Log = silent,
) -> Iterator[None]:
    """Announce the devices that this process may use within the block, and that it holds those of its request."""
    request = request_of(device) or DeviceRequest("")
    devices = _held(_detected(request, slot), request, claim)
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
    store: Store, *, device: str | None = None, slot: str | None = None, should_stop: Callable[[float], bool], log: Log
) -> list[Device]:
    """Announce the devices of this host until it must stop, and hold no slot of them."""
    request = request_of(device) or DeviceRequest("")
    devices = [_device(each, request) for each in _detected(request, slot)]
    beats = _Beats(store, devices, "", log)
    for each in devices:
        log(f"announcing {each.name} of {each.host}: {each.kind}, {each.slots} slots")
    beats.announce(devices)
    while not should_stop(BEAT_SECONDS):
        beats.beat()
    return devices


def _detected(request: DeviceRequest, slot: str | None) -> tuple[DetectedDevice, ...]:
    return detected_devices("cpu" if slot is None and request.kind == "cpu" else slot)


def _held(found: Sequence[DetectedDevice], request: DeviceRequest, claim: Claim) -> list[Device]:
    """The devices, of which some are held: whole ones, a part of a GPU, or so many cores of a processor."""
    if not found[0].is_gpu:
        return [_device(found[0], request, held=min(request.count, found[0].slots))]
    held = claim.devices or found[: request.count]
    return [_device(gpu, request, held=int(gpu in held)) for gpu in found]


def _device(found: DetectedDevice, request: DeviceRequest, *, held: int = 0) -> Device:
    return Device(
        host=found.host,
        name=found.name,
        kind=request.kind or ("gpu" if found.is_gpu else "cpu"),
        model=found.model,
        memory_mb=found.memory_mb,
        driver=found.driver,
        slots=request.parts if found.is_gpu else found.slots,
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
        self._write([replace(device, held=0) for device in self._devices])

    def announce(self, devices: Sequence[Device]) -> None:
        """Announce these, or raise what the database says."""
        with self._store.begin() as tx:
            for device in sorted(devices, key=lambda one: one.name):  # two announcers lock them in one order
                announce_device(tx, device, holder=self._holder)

    def _write(self, devices: Sequence[Device]) -> None:
        try:
            self.announce(devices)
        except EasemlError as error:
            if not self._has_failed:
                self._log(f"this device is not announced, its trials run all the same ({error})")
            self._has_failed = True
        else:
            self._has_failed = False
