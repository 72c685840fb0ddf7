"""Learning curves: what a training told after each of its steps, as rows. Rungs learn from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_core.store.rows import as_json, change, rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

MOST_STEPS = 10_000
"""Steps of one trial that are kept; the schema's bound."""


def add_points(tx: Connection, trial_id: int, points: Sequence[Mapping[str, Any]]) -> None:
    """Keep points of a trial's curve, each with ``step``, ``of``, ``quality``, ``loss`` and ``seconds``.

    A step that is there already stays as it is: an attempt that goes on from a checkpoint repeats some.
    """
    if not points:
        return
    change(
        tx,
        'INSERT INTO work.curves (trial_id, step, "of", quality, loss, seconds) '
        'SELECT :id, p.step, p."of", p.quality, p.loss, p.seconds FROM jsonb_to_recordset(CAST(:points AS jsonb)) '
        'AS p (step integer, "of" integer, quality double precision, loss double precision, seconds double precision) '
        "ON CONFLICT DO NOTHING",
        id=trial_id,
        points=as_json([dict(point) for point in points]),
    )


def curve_of(tx: Connection, trial_id: int) -> list[dict[str, Any]]:
    """The points of a trial's curve, in the order of their steps."""
    found = rows(
        tx,
        'SELECT step, "of", quality, loss, seconds FROM work.curves WHERE trial_id = :id ORDER BY step',
        id=trial_id,
    )
    return [dict(r._mapping) for r in found]
