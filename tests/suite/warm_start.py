"""The process that warm children are copies of: ``python -P -u warm_start.py SOCKET MODULES``; see ``warm_children``.

It has loaded what a child of ours spends a second on, keeps to one thread, and forks for each request. A request is a
JSON object behind its length, with the child's standard input, output and error; the answer is the child's process id.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import json
import os
import runpy
import socket
import sys
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any


def main(channel: socket.socket, modules: list[str]) -> None:
    """Answer requests until the other end is closed; in a child this does not return."""
    for name in modules:
        with suppress(ImportError):  # an optional package
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # a collection in a child would copy every page
    channel.sendall(len(os.listdir("/proc/self/task")).to_bytes(4, "big"))
    while head := channel.recv(4):
        message, files, _, _ = socket.recv_fds(channel, int.from_bytes(head, "big"), 3)
        request = json.loads(message)
        ours, theirs = os.pipe()
        # The child's parent has to be whoever asked. That process adopts orphans for now, so the one between ends.
        between = os.fork()
        if not between:
            os.close(ours)
            child = os.fork()
            if not child:
                os.close(theirs)
                channel.close()
                while os.getppid() != request["parent"]:
                    time.sleep(0.0005)
                become(request, files)
            os.write(theirs, child.to_bytes(8, "big"))
            os._exit(0)
        os.close(theirs)
        for file in files:
            os.close(file)
        number = os.read(ours, 8)
        os.close(ours)
        os.waitpid(between, 0)
        channel.sendall(number)


def become(request: dict[str, Any], files: list[int]) -> None:
    """Be ``python -P -m MODULE ARGUMENTS`` from here on, and end as it would end."""
    os.setsid()
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.closerange(3, 64)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    module, *arguments = request["command"]
    sys.argv = [module, *arguments]
    for folder in reversed(request["env"].get("PYTHONPATH", "").split(os.pathsep)):
        if folder and folder not in sys.path:
            sys.path.insert(0, folder)
            if (first := Path(folder) / "sitecustomize.py").is_file():
                runpy.run_path(str(first))
    show([sys.executable, "-P", "-m", *sys.argv])
    status: Any = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        status = end.code
    except BaseException:
        traceback.print_exc()
        status = 1
    if isinstance(status, str):
        sys.stderr.write(status + "\n")
    with suppress(BaseException):
        threading._shutdown()  # type: ignore[attr-defined]  # private: a forked child ends as a process does
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status if isinstance(status, int) else int(status is not None))


def show(command: list[str]) -> None:
    """Let others see this command line: over the one of this process, which is long enough; see proc(5)."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(fields[45]), int(fields[46])
    words = " ".join(command).encode()[: end - start - 2]
    # Where the last byte is no NUL the kernel ends at the first one.
    ctypes.memmove(start, words.ljust(end - start - 1, b"\0") + b".", end - start)


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])), json.loads(sys.argv[2]))
