"""How many examples a property test draws: a fraction in the fast set, all of them in the nightly one.

``pytest --hypothesis-profile=nightly`` (``make test-nightly``) chooses the second. The examples of the fast set follow
from the test's name, so that a run fails because of a change and not by chance; the nightly ones are drawn anew.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings

FAST_SHARE = 8
FAST_LEAST = 20
"""The fast set draws an eighth of the examples, but no fewer than these (or all, where there are fewer)."""

NIGHTLY = "nightly"


def examples(full: int, least: int = FAST_LEAST) -> int:
    """The value of ``max_examples`` for a test that draws ``full`` examples at night, and by day at least so many."""
    if settings.get_current_profile_name() == NIGHTLY:
        return full
    return min(full, max(least, full // FAST_SHARE))


def at_night(*values: Any, id: str | None = None) -> Any:
    """A case of a parametrised test that only the nightly set runs; a smaller case covers the same code by day."""
    return pytest.param(*values, id=id, marks=pytest.mark.nightly)


def register() -> None:
    """Make both profiles known, and load the fast one."""
    settings.register_profile(NIGHTLY, max_examples=100, deadline=None)
    settings.register_profile("fast", max_examples=FAST_LEAST, deadline=None, derandomize=True)
    settings.load_profile("fast")
