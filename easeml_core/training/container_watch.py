"""Removes a container when the job that runs it is gone: ``python -m ...container_watch RUNTIME NAME``.

It waits for the end of its standard input, which the job holds open: the kernel closes it however the job ends. It is
no child of the job, since those are killed with it.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time

_PAUSES_SECONDS = (0.0, 1.0, 5.0)
"""The runtime may have been asked to make the container and be about to."""

_TRY_SECONDS = 60


def main(arguments: list[str]) -> None:
    """Leave the family, wait, remove; what is not there any more is removed already."""
    runtime, name = arguments
    if os.fork():
        os._exit(0)
    os.setsid()
    while os.read(0, 1024):
        pass
    for pause in _PAUSES_SECONDS:
        time.sleep(pause)
        with contextlib.suppress(
            subprocess.TimeoutExpired, OSError
        ):  # no process is left to report to; the next attempt may succeed
            subprocess.run([runtime, "rm", "--force", name], capture_output=True, check=False, timeout=_TRY_SECONDS)


if __name__ == "__main__":
    main(sys.argv[1:])
