"""Tie a program to its launcher, then become that program: ``tether.py LAUNCHER_PID PROGRAM ARGUMENTS...``.

The kernel sends SIGTERM to the program when its launcher dies, even of kill -9. The setting survives exec. A small
program of its own, since running Python code between fork and exec is unsafe in a launcher that has threads.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def tie_to(launcher: int) -> None:
    """Ask for SIGTERM at the launcher's death; leave at once if it is dead already.

    Raises:
        OSError: If the kernel refuses.
        SystemExit: If the launcher died before it was asked.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != launcher:
        sys.exit(f"the launcher {launcher} is gone")


def forget_ignored_signals() -> None:
    """Take signals as a program normally does: a shell's background jobs pass on that they ignore SIGINT."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


if __name__ == "__main__":
    tie_to(int(sys.argv[1]))
    forget_ignored_signals()
    os.execv(sys.argv[2], sys.argv[2:])
