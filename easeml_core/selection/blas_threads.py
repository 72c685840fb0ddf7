"""The same bits in every process: sums of a matrix product depend on how many threads shared them."""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

from threadpoolctl import ThreadpoolController

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def one_thread() -> Iterator[None]:
    """Let linear algebra use one thread inside.

    A prior or a cost model that was learnt with two threads differs in the last bits from one learnt with one, and a
    scheduler that is rebuilt in another process must be the same. The products of a single decision are too small to
    be shared among threads.
    """
    with _controller().limit(limits=1, user_api="blas"):
        yield


@cache
def _controller() -> ThreadpoolController:
    """The libraries of numpy and of scipy; looking for them takes milliseconds.

    scipy loads its own BLAS on first use; a library that is not loaded yet would not be limited to one thread.
    """
    import scipy.linalg  # noqa: F401 - loads the library that is limited

    return ThreadpoolController()
