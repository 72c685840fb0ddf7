"""The same bits in every process: sums of a matrix product depend on how many threads shared them."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

from threadpoolctl import ThreadpoolController

if TYPE_CHECKING:
    from collections.abc import Iterator

    from threadpoolctl import LibController

_mutex = threading.Lock()
_inside = 0
_outside: tuple[tuple[LibController, int], ...] = ()


@contextmanager
def one_thread() -> Iterator[None]:
    """Let linear algebra use one thread inside, in any number of threads of Python at a time.

    A prior or a cost model that was learnt with two threads differs in the last bits from one learnt with one, and a
    scheduler that is rebuilt in another process must be the same. The products of a single decision are too small to
    be shared among threads.

    The limit is the process's: the first caller sets it, and the last one that leaves takes it back.
    """
    global _inside, _outside
    with _mutex:
        if not _inside:
            _outside = tuple((library, n) for library in _libraries() if (n := library.get_num_threads() or 1) > 1)
            for library, _ in _outside:
                _set_threads(library, 1)
        _inside += 1
    try:
        yield
    finally:
        with _mutex:
            _inside -= 1
            if not _inside:
                for library, threads in _outside:
                    _set_threads(library, threads)
                _outside = ()


def _set_threads(library: LibController, threads: int) -> None:
    """Set the number of threads of a library, whichever thread has set it before.

    threadpoolctl from 3.8 on ignores silently all threads but the first that sets a limit of OpenBLAS.
    """
    release = getattr(library, "clear_controlling_thread", None)
    if release is not None:
        release(force=True)
    library.set_num_threads(threads)
    if release is not None:
        release(force=True)


@cache
def _libraries() -> tuple[LibController, ...]:
    """The libraries of numpy and of scipy; looking for them takes milliseconds.

    They are set one by one: ``ThreadpoolController.limit`` describes each of them anew, which takes as long as a
    decision. scipy loads its own BLAS on first use; a library that is not loaded yet would not be limited.
    """
    import scipy.linalg  # noqa: F401 - loads the library that is limited

    return tuple(ThreadpoolController().select(user_api="blas").lib_controllers)


def _start_anew() -> None:
    """In a copy of the process none of the threads that were inside goes on."""
    global _mutex, _inside, _outside
    _mutex, _inside, _outside = threading.Lock(), 0, ()


os.register_at_fork(after_in_child=_start_anew)
