"""What a trial asks of the devices of a host: one of a kind, several at once, or a part of one.

    gpu      one device of the kind
    gpu:4    four devices of the kind, on one host, all at once (the notation of Slurm's generic resources)
    gpu/4    a quarter of a device: four such trials share one

A request is a separate kind of device: it is written as such in candidates and trials, predicted costs are learnt for
it, and who offers ``gpu:4`` is handed the candidates that ask for ``gpu:4`` and no others. Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from easeml_core.settings.config import require
from easeml_core.settings.limits import MOST_DEVICES, NAME

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_AT_ONCE = 64
"""Devices of one trial."""
MOST_PARTS = 16
"""Trials that share one device by ``kind/N``."""

_REQUEST = re.compile(rf"({NAME.pattern})(?::([1-9][0-9]?)|/([1-9][0-9]?))?")
_RULE = (
    f"a kind of device ({NAME.rule}), KIND:N for 2 to {MOST_AT_ONCE} devices at once, or KIND/N for an N-th of one, N "
    f"from 2 to {MOST_PARTS}"
)
_SHARE = f"1/N of a device, N a whole number from 2 to {MOST_PARTS}"
_ROUNDED = 0.015  # 0.33 is a third


@dataclass(frozen=True, slots=True)
class DeviceRequest:
    """What a trial asks for; at most one of ``count`` and ``parts`` is above 1.

    Attributes:
        kind: Kind of device.
        count: How many devices at once, from 1 to ``MOST_AT_ONCE``: the world size of the training.
        parts: Into how many parts the device is divided, from 1 to ``MOST_PARTS``; the trial has one of them.
    """

    kind: str
    count: int = 1
    parts: int = 1

    @property
    def is_plain(self) -> bool:
        """Whether it is one whole device."""
        return self.count == self.parts == 1

    @property
    def weight(self) -> float:
        """Devices that it holds, > 0: its device seconds are so many times its wall seconds."""
        return self.count / self.parts

    def __str__(self) -> str:
        """The notation above."""
        if self.count > 1:
            return f"{self.kind}:{self.count}"
        return f"{self.kind}/{self.parts}" if self.parts > 1 else self.kind


def request_of(device: str | None) -> DeviceRequest | None:
    """Return the request that a trial's or an offer's device stands for; None for None.

    Example:
        >>> request_of("gpu:4"), request_of("gpu/4").weight, request_of("cpu").is_plain
        (DeviceRequest(kind='gpu', count=4, parts=1), 0.25, True)
    """
    if device is None:
        return None
    check_device_request("device", device)
    found = _REQUEST.fullmatch(device)
    assert found is not None
    return DeviceRequest(found[1], int(found[2] or 1), int(found[3] or 1))


def check_device_request(field: str, device: object) -> None:
    """Raise ConfigError unless it has the notation of a request."""
    require(is_request(device), field, device, _RULE)


def is_request(device: object) -> bool:
    """Whether it has the notation of a request.

    Example:
        >>> [is_request(text) for text in ("gpu", "gpu:2", "gpu/16", "gpu:1", "gpu:65", "gpu/17", "GPU", "gpu:2/2", 2)]
        [True, True, True, False, False, False, False, False, False]
    """
    found = _REQUEST.fullmatch(device) if isinstance(device, str) else None
    if found is None:
        return False
    count, parts = found[2], found[3]
    return 2 <= int(count or 2) <= MOST_AT_ONCE and 2 <= int(parts or 2) <= MOST_PARTS


def weight_of(device: str | None) -> float:
    """Return how many devices a trial for this device holds; 1.0 where none is named."""
    found = request_of(device)
    return 1.0 if found is None else found.weight


def devices_of(device: str | None) -> int:
    """Return how many devices a trial for this device holds at once, a part of one counted as one."""
    found = request_of(device)
    return 1 if found is None else found.count


def require_held(device: str | None, slots: int) -> None:
    """Raise ConfigError where a task holds fewer slots than the devices that a trial asks for."""
    count = devices_of(device)
    require(count <= slots, "pool_slots", slots, f">= {count}: a trial for {device} holds {count} devices at once")


def is_plain(device: str) -> bool:
    """Whether a request, which has the notation, is for one whole device."""
    return ":" not in device and "/" not in device


def fits(devices: Iterable[str] | None, offered: str | None) -> bool:
    """Whether a candidate with these requests may run on what is offered.

    Example:
        >>> fits(None, "cpu"), fits(None, "cpu:2"), fits(["gpu:2"], None), fits(["gpu", "gpu:2"], None)
        (True, False, False, True)
    """
    if devices is None:
        return offered is None or is_plain(offered)
    return any(map(is_plain, devices)) if offered is None else offered in devices


def stored_devices(owner: str, devices: object) -> list[str] | None:
    """Return the ``devices`` of a candidate as they are stored, a list of requests; None for any one device.

    Example:
        >>> stored_devices("a", {"kind": "gpu", "count": 4}), stored_devices("a", {"kind": "gpu", "share": 0.25})
        (['gpu:4'], ['gpu/4'])
        >>> stored_devices("a", ("cpu", "gpu:2")), stored_devices("a", None)
        (['cpu', 'gpu:2'], None)
    """
    if devices is None:
        return None
    if isinstance(devices, Mapping):
        devices = _of_mapping(owner, devices)
    found = list(devices) if isinstance(devices, list | tuple) else []
    is_list = 1 <= len(found) <= MOST_DEVICES and all(map(is_request, found))
    require(is_list, f"{owner}: devices", devices, f"1 to {MOST_DEVICES} devices, each {_RULE}")
    return found


def _of_mapping(owner: str, given: Mapping[Any, Any]) -> list[str]:
    known = set(given) <= {"kind", "count", "share"} and "kind" in given and not {"count", "share"} <= set(given)
    require(known, f"{owner}: devices", dict(given), 'a mapping with "kind", and "count" or "share"')
    kinds = given["kind"] if isinstance(given["kind"], list | tuple) else [given["kind"]]
    require(all(map(NAME.holds, kinds)), f"{owner}: kind", given["kind"], f"a kind of device ({NAME.rule}), or a list")
    count, share = given.get("count", 1), given.get("share")
    whole = type(count) is int and 1 <= count <= MOST_AT_ONCE
    require(whole, f"{owner}: count", count, f"a whole number from 1 to {MOST_AT_ONCE}")
    return [str(DeviceRequest(kind, count, _parts(owner, share))) for kind in kinds]


def _parts(owner: str, share: Any) -> int:
    """N of a share of 1/N; 1 for None."""
    if share is None:
        return 1
    is_number = isinstance(share, int | float) and not isinstance(share, bool) and 0.06 <= share <= 0.5
    parts = round(1 / share) if is_number else 0
    require(parts > 0 and abs(share * parts - 1) < _ROUNDED, f"{owner}: share", share, _SHARE)
    return parts
