"""System calls that no model needs, closed for a child for good: keyrings, namespaces, and doors into the kernel.

The kernel keeps keys for a user id, for days: a model could leave there what it has seen. And in a user namespace of
its own it would have every capability again. A filter of the kernel's (seccomp(2), a program of classic BPF) answers
such calls with an error; it holds for all programs that the child starts, and nothing takes it away. Linux.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from dataclasses import dataclass

_PR_SET_SECCOMP, _FILTER = 22, 2
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _MACHINE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data, little-endian
_ALLOW, _ERROR = 0x7FFF0000, 0x00050000
_OTHER_TABLE = 0x40000000  # x86-64 only: calls of the x32 kind are numbered from here on
_NEW_NAMESPACE = 0x7E020000  # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET


@dataclass(frozen=True, slots=True)
class _Calls:
    """Numbers of one kind of machine.

    Attributes:
        machine: AUDIT_ARCH of linux/audit.h.
        closed: add_key, request_key, keyctl, unshare, setns, bpf, perf_event_open, userfaultfd; io_uring_setup is 425.
        clone: With the flags in its first argument; clone3, which hides them in memory, is 435 everywhere.
    """

    machine: int
    closed: tuple[int, ...]
    clone: int


_KINDS = {
    "x86_64": _Calls(0xC000003E, (248, 249, 250, 272, 308, 321, 298, 323, 425), 56),
    "aarch64": _Calls(0xC00000B7, (217, 218, 219, 97, 268, 280, 241, 282, 425), 220),
}
_CLONE3 = 435


def forbid() -> bool:
    """Close the calls for this process and all that it starts; whether this machine could.

    The process must have given up new rights before (PR_SET_NO_NEW_PRIVS).
    """
    calls = _KINDS.get(os.uname().machine)
    if calls is None:
        return False
    program = _program(calls)
    instructions = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in program))
    header = struct.pack("@HP", len(program), ctypes.addressof(instructions))
    return bool(ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_SECCOMP, _FILTER, header, 0, 0) == 0)


def _program(calls: _Calls) -> list[tuple[int, int, int, int]]:
    """Steps of (what, steps to skip if so, steps to skip if not, value)."""
    refuse, unknown = (_RETURN, 0, 0, _ERROR | errno.EPERM), (_RETURN, 0, 0, _ERROR | errno.ENOSYS)
    program = [(_LOAD, 0, 0, _MACHINE), (_EQUAL, 1, 0, calls.machine), refuse, (_LOAD, 0, 0, _NUMBER)]
    program += [(_AT_LEAST, 0, 1, _OTHER_TABLE), refuse]
    for number in calls.closed:
        program += [(_EQUAL, 0, 1, number), refuse]
    program += [(_EQUAL, 0, 1, _CLONE3), unknown]  # then the C library takes clone
    program += [(_EQUAL, 0, 3, calls.clone), (_LOAD, 0, 0, _FIRST_ARGUMENT), (_ANY_BIT, 0, 1, _NEW_NAMESPACE), refuse]
    return [*program, (_RETURN, 0, 0, _ALLOW)]
