"""The result of deciding a request: an answer to publish, or the reason why it cannot be decided yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from easeml_core.store.tables.test_sets import serves

if TYPE_CHECKING:
    from collections.abc import Sequence

    from easeml_core.entities import SealedSetPurpose, Study
    from easeml_core.store.tables.outbox import Facts
    from easeml_core.store.tables.requests import Request
    from easeml_core.store.tables.test_sets import PlannedSet

BLOCKING_REFUSED = (
    "study {study!r} withholds its verdicts (adaptivity none): a task that fails or is skipped by the verdict would "
    "show it; ask without on_fail"
)


@dataclass(frozen=True, slots=True)
class Answer:
    """A decision on a request that is not published yet.

    Attributes:
        message: The public sentence of the answer.
        facts: What is published together with it; None for nothing.
    """

    message: str
    facts: Facts | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """A request to gate or meter, with the rows that its deciding transaction holds.

    Attributes:
        request: The request.
        study: Its study.
        live: The study's live sets (``releases.hold_study``).
    """

    request: Request
    study: Study
    live: Sequence[PlannedSet]

    def set_for(self, purpose: SealedSetPurpose) -> PlannedSet | None:
        """Return the live set that serves this purpose, or None."""
        return next((found for found in self.live if purpose in serves(found.purpose)), None)


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why a request cannot be decided yet; it keeps its place."""

    why: str
