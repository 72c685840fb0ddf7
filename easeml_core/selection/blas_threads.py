"""The same bits in every process: sums of a matrix product depend on how many threads shared them."""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

from threadpoolctl import ThreadpoolController

if TYPE_CHECKING:
    from collections.abc import Iterator

    from threadpoolctl import LibController


@contextmanager
def one_thread() -> Iterator[None]:
    """Let linear algebra use one thread inside.

    A prior or a cost model that was learnt with two threads differs in the last bits from one learnt with one, and a
    scheduler that is rebuilt in another process must be the same. The products of a single decision are too small to
    be shared among threads.
    """
    found = [(library, library.get_num_threads()) for library in _libraries()]
    several = [(library, threads) for library, threads in found if threads is not None and threads > 1]
    for library, _ in several:
        library.set_num_threads(1)
    try:
        yield
    finally:
        for library, threads in several:
            library.set_num_threads(threads)


@cache
def _libraries() -> tuple[LibController, ...]:
    """The libraries of numpy and of scipy; looking for them takes milliseconds.

    They are set one by one: ``ThreadpoolController.limit`` describes each of them anew, which takes as long as a
    decision. scipy loads its own BLAS on first use; a library that is not loaded yet would not be limited.
    """
    import scipy.linalg  # noqa: F401 - loads the library that is limited

    return tuple(ThreadpoolController().select(user_api="blas").lib_controllers)
