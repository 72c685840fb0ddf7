"""``skops.io``, imported without PyTorch and pandas.

While it is imported, skops walks through all of scikit-learn, which then imports PyTorch and pandas where they are
installed: more than half the start of a child that starts cold, and with PyTorch 190 MB that each fork of a server
would map. A server imports this module before it forks (``formats.modules_of``).
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

HIDDEN = ("torch", "pandas")


class _Hider:
    """A finder of modules that raises for some."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Say that a hidden module is not there, and nothing about others."""
        if name in HIDDEN:
            message = f"{name} is hidden during this import"
            raise ModuleNotFoundError(message, name=name)


@contextmanager
def _hidden() -> Iterator[None]:
    """Make modules that are not imported yet look absent, within the block."""
    hider = _Hider()
    sys.meta_path.insert(0, hider)
    try:
        yield
    finally:
        sys.meta_path.remove(hider)


with _hidden():
    from skops import io as skops_io

__all__ = ["skops_io"]
