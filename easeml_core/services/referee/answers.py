"""The referee's answers to requests. Operators read them after a wait, so nothing here imports the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from easeml_core.entities import GivenAnswer, RequestKind, Symbol
from easeml_core.formats.encoding import from_json, typed_record

if TYPE_CHECKING:
    from easeml_core.entities import JsonObject


@typed_record
class VerdictAnswer(GivenAnswer):
    """The gate's answer.

    Attributes:
        symbol: All that is released of the verdict.
        planned: Whether it is about the condition that the set was sealed for.
        step: Of the set, from 1.
        steps: That the set has for such answers.
        cached: Whether it is the answer that was given to the same model before.
    """

    symbol: Symbol
    planned: bool
    step: int
    steps: int
    cached: bool


@typed_record
class ReadingAnswer(GivenAnswer):
    """The meter's answer; fields as of ``services.meter.results.ShownReading``."""

    signal: int | None
    signals: int
    boundaries: list[float]
    tolerance: float
    submissions_left: int | None
    retired: bool
    cached: bool
    alert: str | None
    direct_signal: int | None
    drift: str | None
    meaning: str | None
    sentence: str | None
    reliability: float


@typed_record
class MoveAnswer(GivenAnswer):
    """The answer to a request that moves the production pointer.

    Attributes:
        promoted: Whether it has moved the pointer; false where its model was in production already.
    """

    promoted: bool


@typed_record
class RefreshedAnswer(GivenAnswer):
    """The answer to a refresh: the new version of the data with its rows for training, None where nothing was new."""

    version: int | None
    train_rows: int | None


_KINDS: dict[RequestKind, type[GivenAnswer]] = {
    RequestKind.GATE: VerdictAnswer,
    RequestKind.METER: ReadingAnswer,
    RequestKind.PROMOTE: MoveAnswer,
    RequestKind.ROLLBACK: MoveAnswer,
    RequestKind.FORCE: MoveAnswer,
    RequestKind.REFRESH: RefreshedAnswer,
}


def answer_from_json(value: JsonObject) -> GivenAnswer:
    """Return an answer from JSON's own types: the inverse of ``to_json``."""
    given = from_json(value, GivenAnswer)
    return given if given.refused else from_json(value, _KINDS.get(given.kind, GivenAnswer))
