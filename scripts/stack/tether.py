"""Tie a program to its launcher, then become that program: ``tether.py LAUNCHER_PID [--as DESCENT] PROGRAM ARGUMENTS``.

The kernel sends SIGTERM to the program when its launcher dies, even of kill -9. The setting survives exec. It is a
separate program, since running Python code between fork and exec is unsafe in a launcher that has threads.

With ``--as`` it steps down from root first; DESCENT is the JSON form of ``stack.account.Account``. What lies behind a
folder that the account may not pass (a home of mode 0700) is shown to it in a separate mount namespace: there the
folder is an empty one in memory, with nothing in it but what is named. There it also follows no link in folders where
another account writes, which could else have it read what only it may read: its own /proc/self/environ, say.
Man pages: mount_namespaces(7), mount(2), prctl(2).
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from typing import Any

PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
CLONE_NEWNS = 0x20000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_NOSYMFOLLOW = 1, 2, 4, 32, 256
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
LIBC = ctypes.CDLL(None, use_errno=True)


def tie_to(launcher: int) -> None:
    """Ask for SIGTERM at the launcher's death; leave at once if it is dead already.

    Raises:
        OSError: If the kernel refuses.
        SystemExit: If the launcher died before it was asked.
    """
    _checked(LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != launcher:
        sys.exit(f"the launcher {launcher} is gone")


def forget_ignored_signals() -> None:
    """Take signals as a program normally does: a shell's background jobs pass on that they ignore SIGINT."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def step_down(descent: dict[str, Any]) -> None:
    """Become the account for good: no other group, no capability, none to be had by running a program.

    Args:
        descent: uid, gid; cwd, the working directory; doors, folders to be replaced by empty ones; shown, pairs of a
            path and whether it may be written; linkless, folders in which it follows no link.

    Raises:
        OSError: If the kernel refuses.
    """
    if descent["doors"] or descent["linkless"]:
        _checked(LIBC.unshare(CLONE_NEWNS), "unshare(CLONE_NEWNS)")
        _mount("none", "/", None, MS_REC | MS_PRIVATE, None)
        open_doors(descent["doors"], descent["shown"])
        for path in descent["linkless"]:
            _bind(path, path)
            _restrict(path, MS_NOSYMFOLLOW)
    os.chdir(descent["cwd"])
    os.setgroups([])
    os.setresgid(descent["gid"], descent["gid"], descent["gid"])
    os.setresuid(descent["uid"], descent["uid"], descent["uid"])
    _checked(LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)")


def open_doors(doors: list[str], shown: list[tuple[str, bool]]) -> None:
    """Replace each door by an empty folder for this process and its children, and show in it what is named.

    Args:
        doors: Folders, none within another.
        shown: Paths and whether they may be written; parents before what is in them.

    Raises:
        OSError: If the kernel does not allow it (it takes CAP_SYS_ADMIN).
    """
    behind = [(path, free) for path, free in shown if any(path.startswith(f"{door}/") for door in doors)]
    held = [(os.open(path, os.O_PATH), path, free) for path, free in behind]  # once covered, no name leads there
    for door in doors:
        _mount("tmpfs", door, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=0755")
    for source, path, free in held:
        _bind(f"/proc/self/fd/{source}", path)
        if not free:
            _restrict(path)
        os.close(source)


def _restrict(path: str, more: int = 0) -> None:
    _mount("none", path, None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | more, None)


def _bind(source: str, target: str) -> None:
    if not os.path.lexists(target):
        os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
        if os.path.isdir(source):
            os.mkdir(target)
        else:
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY))
    _mount(source, target, None, MS_BIND | MS_REC, None)


def _mount(source: str, target: str, kind: str | None, flags: int, options: str | None) -> None:
    words = [None if word is None else os.fsencode(word) for word in (source, target, kind, options)]
    _checked(LIBC.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3]), f"mount {target}")


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{os.strerror(number)} ({what})")


if __name__ == "__main__":
    tie_to(int(sys.argv[1]))
    forget_ignored_signals()
    command = sys.argv[2:]
    if command[0] == "--as":
        os.umask(0o022)
        try:
            step_down(json.loads(command[1]))
        except OSError as error:
            sys.exit(error.strerror)
        command = command[2:]
        tie_to(int(sys.argv[1]))  # a change of account takes the wish back: prctl(2)
    os.execv(command[0], command)  # noqa: S606 - the command of a component
